"""Conversion of Python values to a known Arrow type: each value exactly, or an error for one that does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.values import types
from seeknal.values.exact.families import Family, Unfit, families_of, family, normalized
from seeknal.values.exact.inference import by_list, fields_of, flattened, is_exact_float, numbers_of
from seeknal.values.exact.moments import DAY, RAISED_BY_ZONES, SECOND, nanoseconds

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INEXACT = "is not exact in that type"
_OUT_OF_RANGE = "is out of range"


def convert(values: Sequence[Any], kind: pa.DataType, *, nan: bool = False) -> pa.Array:
    """Convert values to a column of a type.

    Arrow alone would truncate 5.9 to 5 and a time to whole seconds, and take True as 1. Here only floats are rounded,
    to the nearest of their type. A naive moment is taken as UTC, a date as its midnight.

    Args:
        values: The values.
        kind: The logical type of the column.
        nan: Take NaN as null, as pandas columns do.

    Raises:
        Unfit: A value is not exact in the type.
    """
    values = normalized(values, nan=nan)
    if (
        nan and not is_.is_floating(kind) and Family.FLOAT in families_of(values)
    ):  # where Arrow would not take it as null
        values = [None if family(value) == Family.FLOAT and math.isnan(value) else value for value in values]
    _, allowed, put = next(one for one in _KINDS if one[0](kind))
    if not families_of(values) <= allowed:
        row, value = next((i, v) for i, v in enumerate(values) if v is not None and family(v) not in allowed)
        raise Unfit(row, value, f"is {family(value)}")
    return put(values, kind, nan)


def _each(put: Callable[[Any], Any], values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Convert values one by one, so that the error can name the one that does not fit."""
    found = []
    for row, value in enumerate(values):
        try:
            found.append(None if value is None else put(value))
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            raise Unfit(row, value, str(error)) from None
    return pa.array(found, kind)


def _as_they_are(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    """Convert values to a type for which Arrow itself either converts a value exactly or fails."""
    try:
        return pa.array(values, kind, from_pandas=nan)
    except (pa.ArrowException, ValueError, OverflowError):  # Arrow's error does not say which value it refused
        return _each(lambda value: _checked_alone(value, kind), values, kind)


def _checked_alone(value: Any, kind: pa.DataType) -> Any:
    try:
        pa.array([value], kind)
    except UnicodeEncodeError:
        raise ValueError("contains half of a character (a lone surrogate), which is not valid text") from None
    except (pa.ArrowException, ValueError, OverflowError):
        raise ValueError(_INEXACT) from None
    return value


def _bytes(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    return _as_they_are([None if value is None else bytes(memoryview(value)) for value in values], kind, nan)


def _wholes(values: Sequence[Any], kind: pa.DataType, _nan: bool) -> pa.Array:
    # Arrow is fast, and exact for Python's own integers. If one is out of range, the loop below finds out which.
    if set(map(type, values)) <= {int, type(None)}:
        with suppress(pa.ArrowInvalid, OverflowError):
            return pa.array(values, kind)
    limits = np.iinfo(kind.to_pandas_dtype())

    def whole(value: Any) -> int:
        if family(value) == Family.FLOAT and not float(value).is_integer():
            raise ValueError("is not a whole number")
        if not limits.min <= int(value) <= limits.max:
            raise ValueError(_OUT_OF_RANGE)
        return int(value)

    return _each(whole, values, kind)


def _floats(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    if is_.is_float64(kind) and set(map(type, values)) <= {float, np.float64, type(None)}:
        return pa.array(values, kind, from_pandas=nan)
    of = kind.to_pandas_dtype()

    def near(value: Any) -> Any:
        """Return the nearest float. Whole numbers, which may be counts, must stay exact, and no number may become infinite."""
        if family(value) == Family.WHOLE and not is_exact_float(int(value)):
            raise ValueError(_INEXACT)
        with np.errstate(over="ignore"):
            found = of(value)
        if math.isinf(found) and not math.isinf(value):
            raise ValueError(_OUT_OF_RANGE)
        if family(value) == Family.WHOLE and int(found) != value:
            raise ValueError(_INEXACT)
        return None if nan and math.isnan(found) else found

    return _each(near, values, kind)


def _decimals(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    if infinite := [(i, v) for i, v in enumerate(values) if family(v) == Family.DECIMAL and not v.is_finite()]:
        raise Unfit(*infinite[0], "is not a finite number")
    # Arrow would write out all digits of 1E-999999999, and the process would run out of memory.
    plain: list[Any] = []
    for row, value in enumerate(values):
        if not isinstance(value, Decimal) or not value:
            plain.append(None if value is None else int(value))
        elif abs(value.adjusted()) <= types.LONGEST_DECIMAL:
            plain.append(value)
        else:
            raise Unfit(row, value, _INEXACT)
    return _as_they_are(plain, kind, nan)


def _in_units(of: pa.DataType, values: Sequence[Any], kind: pa.DataType, _nan: bool) -> pa.Array:
    """Convert times to whole numbers in the unit of the type, and those to the type.

    For example, 1970-01-01 00:00:01.5 is the number 1500 for timestamp[ms], and has no exact number for timestamp[s].
    """
    # Arrow converts Python's own dates and datetimes exactly to types of the same unit, and much faster than the loop.
    own = date if is_.is_date32(kind) else datetime if is_.is_timestamp(kind) and kind.unit == "us" else None
    if set(map(type, values)) <= {own, type(None)}:
        with suppress(*RAISED_BY_ZONES, OverflowError):
            return pa.array(values, kind)
    unit = DAY if is_.is_date(kind) else SECOND // _PER_SECOND[kind.unit]
    limits = np.iinfo(of.to_pandas_dtype())

    def count(value: Any) -> int:
        number, rest = divmod(nanoseconds(value), unit)
        if rest:
            raise ValueError("has a time of day, which a date cannot hold" if is_.is_date(kind) else _INEXACT)
        if not limits.min <= number <= limits.max:
            raise ValueError(_OUT_OF_RANGE)
        return number

    return _each(count, values, of).cast(kind)


def _structs(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    names = {field.name for field in kind}
    for row, value in enumerate(values):
        if unknown := [name for name in value or () if name not in names]:
            raise Unfit(row, value, f"has a field {unknown[0]!r}, which {kind} does not have")
    parts = [convert(fields_of(values, field.name), field.type, nan=nan) for field in kind]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=_nulls(values))


def _lists(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    inside, ends = _inside(values, kind, nan)
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), inside, type=kind, mask=_nulls(values))


def _fixed_lists(values: Sequence[Any], kind: pa.DataType, nan: bool) -> pa.Array:
    size = kind.list_size
    for row, value in enumerate(values):
        if value is not None and getattr(value, "ndim", 1) > 0 and len(value) != size:
            raise Unfit(row, value, f"has {len(value)} values, not {size}")
    # Arrow stores `size` values for each row of a fixed-size list, also where the list is null.
    filled = [[None] * size if value is None else value for value in values]
    return pa.FixedSizeListArray.from_arrays(_inside(filled, kind, nan)[0], type=kind, mask=_nulls(values))


def _inside(values: Sequence[Any], kind: pa.DataType, nan: bool) -> tuple[pa.Array, list[int]]:
    """Convert the values inside lists, and return them with the end of each list.

    NumPy arrays that already have the type are joined without looking at each value.
    """
    dtype = numbers_of(values)
    if dtype is not None and pa.from_numpy_dtype(dtype) == kind.value_type:
        lengths = [0 if value is None else len(value) for value in values]
        whole = np.concatenate([value for value in values if value is not None]).astype(dtype)
        return pa.array(whole, kind.value_type, from_pandas=nan), list(np.cumsum(lengths))
    inside, ends = flattened(values)
    return by_list(ends, lambda: convert(inside, kind.value_type, nan=nan)), ends


def _nulls(values: Sequence[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


_MOMENTS = {Family.DATE, Family.MOMENT}
_Put = Callable[[Sequence[Any], pa.DataType, bool], pa.Array]
_KINDS: tuple[tuple[Callable[[pa.DataType], bool], set[Family], _Put], ...] = (
    (is_.is_boolean, {Family.BOOL}, _as_they_are),
    (is_.is_integer, {Family.WHOLE, Family.FLOAT}, _wholes),
    (is_.is_floating, {Family.WHOLE, Family.FLOAT}, _floats),
    (is_.is_decimal, {Family.WHOLE, Family.DECIMAL}, _decimals),
    (is_.is_string, {Family.TEXT}, _as_they_are),
    (lambda kind: is_.is_binary(kind) or is_.is_fixed_size_binary(kind), {Family.BYTES}, _bytes),
    (is_.is_date, _MOMENTS, partial(_in_units, pa.int32())),
    (is_.is_timestamp, _MOMENTS, partial(_in_units, pa.int64())),
    (is_.is_time32, {Family.TIME}, partial(_in_units, pa.int32())),
    (is_.is_time, {Family.TIME}, partial(_in_units, pa.int64())),
    (is_.is_duration, {Family.SPAN}, partial(_in_units, pa.int64())),
    (is_.is_struct, {Family.STRUCT}, _structs),
    (is_.is_fixed_size_list, {Family.LIST}, _fixed_lists),
    (is_.is_list, {Family.LIST}, _lists),
    (is_.is_null, set(), lambda values, _kind, _nan: pa.nulls(len(values))),
)
"""For each kind of type, the families of values that convert to it, and the function that converts them. The first match counts."""
