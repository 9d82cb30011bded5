"""The inputs of functions: Python values, or arrays of one NumPy type for each stored type, whatever the values and their number."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError, DefinitionError
from seeknal.values import casting, exact, types

_NAT = np.iinfo(np.int64).min
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
    return _objects(_listed(column))


def _times(column: pa.ChunkedArray) -> np.ndarray:
    """Return the whole numbers of times, with the least one, which stands for NaT, for null."""
    found = _numpy(column.cast(pa.int64()).fill_null(_NAT))
    if np.count_nonzero(found == _NAT) > column.null_count:
        raise pa.ArrowInvalid("the least number stands for null")
    return found


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    one = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    found: np.ndarray = one.to_numpy(zero_copy_only=False)
    return found


def _objects(values: list[Any]) -> np.ndarray:
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
            found = np.array((np.nan if value is None else value,), np.float64)
            found.flags.writeable = False
            return found

        return number
    if is_.is_temporal(kind):
        return lambda value: array_of(function, name, exact.column(name, [value], kind))
    value_of = one_value_of(function, name, kind)

    def objects(value: Any) -> np.ndarray:
        found = _objects([value_of(value)])
        found.flags.writeable = False
        return found

    return objects


def values_of(function: str, name: str, column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python values: times in Python's own types, which have microseconds.

    Raises:
        DataError: Python has no such value.
    """
    try:
        return _listed(column)
    except (pa.ArrowInvalid, ValueError, OverflowError) as error:
        raise DataError(
            f"{function} takes Python values, and its {name}, {column.type}, has one that Python cannot hold: {error}.",
            column=name,
        ) from None


def one_value_of(function: str, name: str, kind: pa.DataType) -> Callable[[Any], Any]:
    """Return the function that makes of one Python value what `values_of` makes of a column with it."""
    if types.without_nanoseconds(kind) != kind:
        return lambda value: values_of(function, name, exact.column(name, [value], kind))[0]
    return deepcopy if is_changeable(kind) else lambda value: value


def is_changeable(kind: pa.DataType) -> bool:
    """Return whether Python values of a type can be changed in place, so that each function needs its own."""
    return bool(is_.is_nested(kind))


def _listed(column: pa.ChunkedArray) -> list[Any]:
    # Without the cast, `to_pylist` would cut nanoseconds, or return pandas' times if pandas is installed.
    found: list[Any] = casting.cast(column, types.without_nanoseconds(column.type)).to_pylist()
    return found


def _inexact(function: str, name: str, kind: pa.DataType, why: str) -> DataError:
    to = "float64" if is_number(kind) else "microseconds" if is_.is_temporal(kind) else "objects of Python"
    return DataError(
        f'{function} takes arrays, and its {name}, {kind}, has a value that is not exact as {to}: {why}. Write mode="row".',
        column=name,
    )
