"""The inputs of a function over arrays: one NumPy type for each stored type, whatever the values and the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError, DefinitionError
from seeknal.values import casting, exact

_EXACT = 2**53
"""Up to here, a float64 has all whole numbers."""


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of a type arrive as float64, with NaN for null."""
    return bool(is_.is_integer(kind) or is_.is_floating(kind) or is_.is_boolean(kind))


def check_kind(function: str, name: str, kind: pa.DataType) -> None:
    """Check that arrays can have values of a type.

    Raises:
        DefinitionError: They cannot.
    """
    if is_.is_decimal(kind):
        raise DefinitionError(
            f'{function} takes arrays, and its {name} is {kind}, which no array of NumPy has exactly. Write mode="row", or cast it.',
            name=name,
        )


def array_of(function: str, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as a read-only array.

    | type | array | null |
    |---|---|---|
    | numbers, bools | float64 | NaN |
    | timestamps | datetime64[us], in UTC | NaT |
    | dates | datetime64[D] | NaT |
    | times of day, durations | timedelta64[us] | NaT |
    | all others | objects of Python | None |

    Raises:
        DataError: A value is not exact in that type.
    """
    try:
        found = _array_of(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise _inexact(function, name, column.type, str(error)) from None
    found.flags.writeable = False
    return found


def _array_of(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if is_.is_boolean(kind):
        return _numpy(column.cast(pa.int8()).cast(pa.float64()))
    if is_number(kind):
        return _numpy(casting.cast(column, pa.float64()))
    if is_.is_timestamp(kind):
        return _times(column.cast(pa.timestamp("us", kind.tz))).view("M8[us]")
    if is_.is_date(kind):
        return _times(column.cast(pa.date32()).cast(pa.int32())).view("M8[D]")
    if is_.is_time(kind) or is_.is_duration(kind):
        unit = pa.duration("us") if is_.is_duration(kind) else pa.time64("us")
        return _times(column.cast(unit)).view("m8[us]")
    return objects(column.to_pylist())


def _times(column: pa.ChunkedArray) -> np.ndarray:
    """Return the whole numbers of times, with the least one, which stands for NaT, for null."""
    return _numpy(column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min))


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    one = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    found: np.ndarray = one.to_numpy(zero_copy_only=False)
    return found


def objects(values: list[Any]) -> np.ndarray:
    """Return values as an array of objects, lists included."""
    return np.fromiter(values, dtype=object, count=len(values))


def one_of(function: str, name: str, kind: pa.DataType) -> Callable[[Any], np.ndarray]:
    """Return the function that makes an array of one Python value, with the same result as `array_of` of a column with it.

    Raises:
        DataError: The value is not exact in the array's type.
    """
    if is_number(kind):

        def number(value: Any) -> np.ndarray:
            if type(value) is int and not -_EXACT <= value <= _EXACT and int(float(value)) != value:
                raise _inexact(function, name, kind, f"{value} is not exact in that type")
            return np.array((np.nan if value is None else value,), np.float64)

        return number
    if is_.is_temporal(kind):
        return lambda value: array_of(function, name, exact.column(name, [value], kind))
    return lambda value: objects([value])


def _inexact(function: str, name: str, kind: pa.DataType, why: str) -> DataError:
    to = "float64" if is_number(kind) else "microseconds" if is_.is_temporal(kind) else "objects of Python"
    return DataError(
        f'{function} takes arrays, and its {name}, {kind}, has a value that is not exact as {to}: {why}. Write mode="row".',
        column=name,
    )
