"""What a function returns, in its declared types: exactly, or with an error that names the function and the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.define.request_feature import RequestFeature
from seeknal.errors import DataError
from seeknal.values import casting, exact

_UTC = pa.timestamp("us", "UTC")


def parts_of(function: RequestFeature, result: Any) -> Sequence[Any]:
    """Return what a function returned for each of its outputs, in their order.

    Raises:
        DataError: It returned more, fewer or others.
    """
    names = list(function.outputs)
    if isinstance(result, Mapping):
        if list(result) == names or set(result) == set(names):
            return [result[name] for name in names]
        raise DataError(f"{function.path} returned {', '.join(map(str, result))}, and declares {', '.join(names)}.")
    if len(names) == 1:
        return [result]
    if not isinstance(result, tuple):
        raise DataError(
            f"{function.path} returned a {type(result).__name__}, and declares {', '.join(names)}. Return a mapping from these names, or a "
            "tuple in this order."
        )
    if len(result) != len(names):
        raise DataError(f"{function.path} returned a tuple of {len(result)} values, and declares {', '.join(names)}.")
    return result


def column_of_array(function: RequestFeature, name: str, given: Any, rows: int) -> pa.ChunkedArray:
    """Return an array that a function returned as a column of the declared type. NaN and NaT become null.

    Raises:
        DataError: It is not an array of one value per row, or a value does not fit the type.
    """
    kind = function.outputs[name]
    if not isinstance(given, np.ndarray) or given.shape != (rows,):
        shape = f"an array of shape {given.shape}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
        raise DataError(
            f"{function.path} returned {shape} as {name}, not an array of {rows} values, one for each row. For a constant, write "
            "np.full(len(x), value)."
        )
    try:
        return (
            pa.chunked_array([_cast(given, kind)], kind)
            if given.dtype.kind in "fiubMm"
            else _exact(name, list(given), kind)
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, DataError) as error:
        raise DataError(
            f"{function.path} returned {given.dtype} as {name}, which is declared as {kind}: {error}"
        ) from None


def _exact(name: str, values: list[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return exact.column(name, values, kind, nan=True)


def _cast(given: np.ndarray, kind: pa.DataType) -> pa.Array:
    of = given.dtype.kind
    if of == "b":
        if not is_.is_boolean(kind):
            raise pa.ArrowInvalid("a bool is no other type. Convert it: .astype(...)")
        bits = pa.py_buffer(np.packbits(given, bitorder="little"))  # many times as fast as Arrow's own conversion
        return pa.Array.from_buffers(pa.bool_(), len(given), [None, bits])
    if of == "M" and is_.is_timestamp(kind):
        moments = pa.array(given if given.dtype != "M8[D]" else given.astype("M8[s]"))
        return moments.cast(pa.timestamp(moments.type.unit, kind.tz)).cast(kind)
    if of == "M" and not is_.is_date(kind):
        raise pa.ArrowInvalid("a moment is neither a number nor text")
    values = _without_nan(given) if of == "f" else pa.array(given, from_pandas=True)
    if of == "f" and is_.is_boolean(kind):  # with NaN for null, as bools arrive
        if not pc.all(pc.is_in(values.drop_null(), pa.array([0.0, 1.0], values.type)), min_count=0).as_py():
            raise pa.ArrowInvalid("only 1.0, 0.0 and NaN are bools")
        return pc.equal(values, pa.scalar(1.0, values.type))
    if of in "fiu" and not (is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind)):
        raise pa.ArrowInvalid("a number is no other type")
    return casting.cast(values, kind)


def _without_nan(given: np.ndarray) -> pa.Array:
    """Return floats with null for NaN. Without a NaN, nothing is copied."""
    has_nan = len(given) and np.isnan(given.min())  # the least of some floats is NaN if any is
    return pa.array(given, from_pandas=True) if has_nan else pa.array(given)


def column_of_rows(function: RequestFeature, name: str, values: list[Any]) -> pa.ChunkedArray:
    """Return what a function returned for each row as a column of the declared type. NaN becomes null.

    Raises:
        DataError: A value does not fit the type.
    """
    kind = function.outputs[name]
    try:
        return _exact(name, values, kind)
    except DataError as error:
        raise DataError(
            f"{function.path} returned what does not fit its declared type: {error}", **vars(error)
        ) from None
