"""Families of Python values: what a value can be converted to, judged by its type alone, and which values are null."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

_HUGE = 256
"""Bits beyond which a whole number is not printed in a message: Python refuses to print very long ones."""


class Family(StrEnum):
    """A kind of value. The text is how messages call it."""

    NULL = "null"
    BOOL = "a bool"
    WHOLE = "a whole number"
    FLOAT = "a float"
    DECIMAL = "a decimal"
    DATE = "a date"
    MOMENT = "a timestamp"
    TIME = "a time of day"
    SPAN = "a duration"
    TEXT = "text"
    BYTES = "bytes"
    LIST = "a list"
    STRUCT = "a mapping"
    OTHER = "an object that has no type here"


_FAMILIES: tuple[tuple[type | tuple[type, ...], Family], ...] = (
    ((type(None), pa.NullScalar), Family.NULL),
    ((bool, np.bool_), Family.BOOL),
    ((timedelta, np.timedelta64, pa.DurationScalar), Family.SPAN),
    ((int, np.integer), Family.WHOLE),
    ((float, np.float16, np.float32, np.float64), Family.FLOAT),
    (Decimal, Family.DECIMAL),
    ((datetime, np.datetime64, pa.TimestampScalar), Family.MOMENT),
    ((date, pa.Date32Scalar, pa.Date64Scalar), Family.DATE),
    ((time, pa.Time32Scalar, pa.Time64Scalar), Family.TIME),
    (str, Family.TEXT),
    ((bytes, bytearray, memoryview), Family.BYTES),
    ((list, tuple, set, frozenset, np.ndarray), Family.LIST),
    (Mapping, Family.STRUCT),
)
_PANDAS_NULLS = {"NaTType", "NAType"}
_known: dict[type[object], Family] = {}
_DAYS = {"Y", "M", "W", "D"}


def family_of(kind: type[object]) -> Family:
    """Return the family of a Python type."""
    if kind not in _known:
        _known[kind] = _find_family(kind)
    return _known[kind]


def _find_family(kind: type[object]) -> Family:
    if kind.__name__ in _PANDAS_NULLS and kind.__module__.startswith("pandas."):
        return Family.NULL
    return next((family for kinds, family in _FAMILIES if issubclass(kind, kinds)), Family.OTHER)


def family(value: Any) -> Family:
    """Return the family of a value. NumPy has one type for dates and timestamps, so there the unit decides."""
    of: type[object] = type(value)
    return Family.DATE if of is np.datetime64 and np.datetime_data(value.dtype)[0] in _DAYS else family_of(of)


def families_of(values: Sequence[Any]) -> set[Family]:
    """Return the families that occur among some values, without that of nulls."""
    kinds = set(map(type, values))
    found = set(map(family_of, kinds - {np.datetime64}))
    if np.datetime64 in kinds:
        found |= {family(value) for value in values if type(value) is np.datetime64}
    return found - {Family.NULL}


def settled(values: Sequence[Any], *, nan: bool) -> Sequence[Any]:
    """Return values with None in place of every null, and with Arrow scalars as Python values.

    Arrow scalars of dates, times and durations stay, because Python has no exact equal of them.

    Args:
        values: The values.
        nan: Take NaN as null, as pandas columns do.
    """
    kinds = set(map(type, values))
    is_mixed = len(set(map(family_of, kinds)) - {Family.NULL}) > 1
    checks = {kind: check for kind in kinds if (check := _null_check(kind, nan=nan, is_mixed=is_mixed))}
    if any(issubclass(kind, pa.Scalar) and family_of(kind) == Family.OTHER for kind in kinds):
        return settled([value.as_py() if isinstance(value, pa.Scalar) else value for value in values], nan=nan)
    if not checks:
        return values
    return [None if (check := checks.get(type(value))) and check(value) else value for value in values]


def _null_check(kind: type[object], *, nan: bool, is_mixed: bool) -> Callable[[Any], bool] | None:
    """Return the test for nulls among values of a type, or None if no test is needed.

    That is so where no value of the type is null, or where Arrow recognizes all its nulls itself (`from_pandas`).
    """
    of = family_of(kind)
    if of == Family.NULL:
        return None if kind is type(None) else lambda _: True
    if issubclass(kind, pa.Scalar):
        return lambda value: not value.is_valid
    if issubclass(kind, np.datetime64 | np.timedelta64):
        return np.isnat
    if nan and of == Family.DECIMAL:
        return Decimal.is_nan
    return math.isnan if nan and of == Family.FLOAT and is_mixed else None


def shown(value: Any) -> str:
    """Return a value as text for a message, shortened if it is long."""
    if isinstance(value, int) and value.bit_length() > _HUGE:
        return f"a whole number of {value.bit_length():,} bits"
    if not isinstance(value, pa.Scalar):
        return reprlib.repr(value)
    try:
        return str(value)
    except (OverflowError, ValueError):  # a time that Python does not have
        return f"{value.value} in {value.type}"


class Unfit(Exception):  # noqa: N818 - internal: the caller turns it into an error that names the column
    """A value is not exact in the type of its column.

    Args:
        row: The number of the value among the values.
        value: The value.
        why: What is wrong with the value, as the end of a sentence that begins with it.
    """

    def __init__(self, row: int, value: Any, why: str) -> None:
        super().__init__(why)
        self.row = row
        self.value = value
        self.why = why
