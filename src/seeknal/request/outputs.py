"""What a function returns, in its declared types: exactly, or with an error that names the function and the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.define.request_feature import ARRAY, RequestFeature
from seeknal.errors import DataError
from seeknal.values import casting, exact


def parts_of(function: RequestFeature, result: Any) -> Sequence[Any]:
    """Return what a function returned for each of its outputs, in their order.

    Raises:
        DataError: It returned more, fewer or others.
    """
    names = list(function.outputs)
    if len(names) == 1 and not (isinstance(result, Mapping) and _is_by_name(function, names[0])):
        return (result,)
    if isinstance(result, Mapping):
        if list(result) == names or set(result) == set(names):
            return [result[name] for name in names]
        raise DataError(
            f"{function.path} returned a mapping of {', '.join(map(str, result)) or 'nothing'}, and declares {', '.join(names)}."
        )
    if not isinstance(result, tuple):
        raise DataError(
            f"{function.path} returned one {type(result).__name__}, and declares {', '.join(names)}. Return a mapping from these names, or a "
            "tuple in this order."
        )
    if len(result) != len(names):
        raise DataError(f"{function.path} returned a tuple of {len(result)} values, and declares {', '.join(names)}.")
    return result


def _is_by_name(function: RequestFeature, name: str) -> bool:
    """Return whether a mapping has the only output by its name, and is not itself the value of a struct."""
    return function.mode == ARRAY or not is_.is_struct(function.outputs[name])


def column_of_array(function: RequestFeature, name: str, given: Any, rows: int) -> pa.ChunkedArray:
    """Return an array that a function returned as a column of the declared type. NaN and NaT become null.

    Raises:
        DataError: It is not an array of one value per row, or a value does not fit the type: that of the attribute `row`.
    """
    kind = function.outputs[name]
    if type(given) is not np.ndarray or given.shape != (rows,):
        shape = f"an array of shape {given.shape}" if type(given) is np.ndarray else f"a {type(given).__name__}"
        raise DataError(
            f"{function.path} returned {shape} as {name}, not an array of {rows} values, one for each row. For a constant, write "
            "np.full(len(x), value)."
        )
    try:
        return _column(name, given, kind)
    except _REFUSED as error:
        row = next((i for i in range(rows) if not _fits(name, given[i : i + 1], kind)), None)
        raise DataError(
            f"{function.path} returned {given.dtype} as {name}, which is declared as {kind}: {error}.", row=row
        ) from None


def column_of_rows(function: RequestFeature, name: str, values: list[Any]) -> pa.ChunkedArray:
    """Return what a function returned for each row as a column of the declared type. NaN becomes null.

    Raises:
        DataError: A value does not fit the type: that of the attribute `row`.
    """
    try:
        return exact.column(name, values, function.outputs[name], nan=True)
    except DataError as error:
        raise DataError(
            f"{function.path} returned what does not fit its declared type: {error}", **vars(error)
        ) from None


def value_of_array(function: RequestFeature, name: str) -> Callable[[Any], Any]:
    """Return the function that makes a Python value of an array of one: that of `column_of_array`, in few steps if it can be."""
    dtype = _SAME_DTYPE.get(function.outputs[name], _NO_DTYPE)

    def value_of(given: Any) -> Any:
        if type(given) is np.ndarray and given.dtype == dtype and given.shape == (1,):
            value = given.item()
            return value if value == value else None  # noqa: PLR0124 - NaN is null
        return _only(function, name, column_of_array(function, name, given, 1))

    return value_of


def value_of_row(function: RequestFeature, name: str) -> Callable[[Any], Any]:
    """Return the function that makes a Python value of one: that of `column_of_rows`, in few steps if it can be."""
    own = {pa.float64(): float, pa.bool_(): bool}.get(function.outputs[name], type(None))

    def value_of(given: Any) -> Any:
        if given is None or type(given) is own:
            return given if given == given else None  # noqa: PLR0124 - NaN is null
        return _only(function, name, column_of_rows(function, name, [given]))

    return value_of


def _only(function: RequestFeature, name: str, column: pa.ChunkedArray) -> Any:
    try:
        return column.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{function.path} returned a {column.type} as {name} that Python cannot hold: {error}."
        ) from None


_SAME_DTYPE = {
    kind: np.dtype(kind.to_pandas_dtype())
    for kind in (pa.float64(), pa.int64(), pa.int32(), pa.int16(), pa.int8(), pa.bool_())
}
"""The types whose arrays have the values of their columns, but for NaN."""
_NO_DTYPE = np.dtype([("none", "V0")])
"""Equals no array's type. None does: NumPy takes it for float64."""
_REFUSED = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, DataError, OverflowError)


def _fits(name: str, given: np.ndarray, kind: pa.DataType) -> bool:
    try:
        _column(name, given, kind)
    except _REFUSED:
        return False
    return True


def _column(name: str, given: np.ndarray, kind: pa.DataType) -> pa.ChunkedArray:
    cast = _CASTS.get(given.dtype.kind)
    if cast is None:
        return exact.column(name, list(given), kind, nan=True)
    given = _frozen(given)
    with np.errstate(all="ignore"):
        return pa.chunked_array([cast(given, kind)], kind)


def _frozen(given: np.ndarray) -> np.ndarray:
    """Return an array that nobody changes any more: the column has its values without a copy.

    A function that keeps the array that it returned, and writes to it in the next call, gets NumPy's error.
    """
    if not given.flags.owndata:  # the owner could be written to
        return given.copy()
    given.flags.writeable = False
    return given


def _bools(given: np.ndarray, kind: pa.DataType) -> pa.Array:
    if not is_.is_boolean(kind):
        raise pa.ArrowInvalid("a bool is no other type. Convert it: .astype(...)")
    bits = pa.py_buffer(np.packbits(given, bitorder="little"))  # many times as fast as Arrow's own conversion
    return pa.Array.from_buffers(pa.bool_(), len(given), [None, bits])


def _wholes(given: np.ndarray, kind: pa.DataType) -> pa.Array:
    if not (is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind)):
        raise pa.ArrowInvalid("a whole number is no other type")
    return casting.cast(pa.array(given), kind)


def _floats(given: np.ndarray, kind: pa.DataType) -> pa.Array:
    values = _without_nan(given)
    if is_.is_boolean(kind):  # with NaN for null, as bools arrive
        if not pc.all(pc.is_in(values.drop_null(), pa.array([0.0, 1.0], values.type)), min_count=0).as_py():
            raise pa.ArrowInvalid("only 1.0, 0.0 and NaN are bools")
        return pc.equal(values, pa.scalar(1.0, values.type))
    if not (is_.is_integer(kind) or is_.is_floating(kind)):
        raise pa.ArrowInvalid("a float is no other type")
    return casting.cast(values, kind)


def _without_nan(given: np.ndarray) -> pa.Array:
    """Return floats with null for NaN. Without a NaN, nothing is copied."""
    has_nan = len(given) and np.isnan(given.min())  # the least of some floats is NaN if any is
    return pa.array(given, from_pandas=True) if has_nan else pa.array(given)


def _times(given: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return moments or lengths of time in the unit of a type. Times of day arrive as the time since midnight.

    NumPy and Arrow themselves cut what a unit cannot hold, and take what is beyond its range as another time.
    """
    of = given.dtype.kind
    if not (
        (is_.is_timestamp(kind) or is_.is_date(kind)) if of == "M" else (is_.is_duration(kind) or is_.is_time(kind))
    ):
        raise pa.ArrowInvalid("a moment is no other type" if of == "M" else "a length of time is no other type")
    if of == "m" and np.datetime_data(given.dtype)[0] in {"Y", "M"}:
        raise pa.ArrowInvalid("months and years have no length")
    found = given.astype(f"{of}8[{'D' if is_.is_date(kind) else kind.unit}]")
    is_null = np.isnat(given)
    if changed := np.flatnonzero((found.astype(given.dtype) != given) & ~is_null).tolist():
        raise pa.ArrowInvalid(f"{given[changed[0]]} is not exact in that type")
    numbers = pa.array(found.view(np.int64), mask=is_null)
    short = numbers.cast(pa.int32()) if kind.bit_width == 32 else numbers  # noqa: PLR2004
    column = short.cast(kind)
    column.validate(full=True)  # a time of day is at most one day
    return column


_CASTS: dict[str, Callable[[np.ndarray, pa.DataType], pa.Array]] = {
    "b": _bools,
    "f": _floats,
    "M": _times,
    "m": _times,
    **dict.fromkeys("iu", _wholes),
}
"""For each kind of NumPy type, the exact cast to a declared type. Others are objects of Python."""
