"""Families of Python values: kinds of values that convert alike, found by their Python types, and which values are null."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

_HUGE = 256
"""Bits beyond which a message does not print a whole number: Python refuses to print very long ones."""
_SHORT = reprlib.Repr()
_SHORT.maxother = 100  # a moment with its zone


class Family(StrEnum):
    """A kind of value, with its name in messages."""

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
    OTHER = "an object of an unsupported type"


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
    ((pa.MonthDayNano, pa.MapScalar), Family.OTHER),  # first, because they are a tuple and a mapping too
    ((list, tuple, set, frozenset, np.ndarray), Family.LIST),
    (Mapping, Family.STRUCT),
)
_PANDAS_NULLS = {"NaTType", "NAType"}
_known: dict[type[object], Family] = {}
"""The families found so far. Looking one up takes a fraction of the time of the checks for subclasses."""
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


def normalized(values: Sequence[Any], *, nan: bool) -> Sequence[Any]:
    """Return values with None in place of every null, and with plain Python values in place of scalars and subclasses.

    Arrow scalars of dates, times and durations stay, because Python has no exact equal of them.

    Args:
        values: The values.
        nan: Take NaN as null, as pandas columns do.
    """
    found = {kind: plain for kind in set(map(type, values)) if (plain := _plain_of(kind))}
    if found:
        values = [plain(value) if (plain := found.get(type(value))) else value for value in values]
    kinds = set(map(type, values))
    is_mixed = len(set(map(family_of, kinds)) - {Family.NULL}) > 1
    checks = {kind: check for kind in kinds if (check := _null_check(kind, nan=nan, is_mixed=is_mixed))}
    if not checks:
        return values
    return [None if (check := checks.get(type(value))) and check(value) else value for value in values]


@cache
def _plain_of(kind: type[object]) -> Callable[[Any], Any] | None:
    """Return the function that turns values of a type into plain ones, or None if they are plain already.

    A subclass, such as an enum of text, may have a `__str__` or `__int__` that returns something else than its content.
    """
    if issubclass(kind, pa.Scalar):
        return _of_scalar
    if family_of(kind) == Family.STRUCT:
        return _with_plain_names
    if kind in {bool, np.float64}:
        return None
    return next((plain for base, plain in _CONTENT.items() if kind is not base and issubclass(kind, base)), None)


_CONTENT: Mapping[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__index__,
    float: float.__float__,
    Decimal: Decimal,
    bytes: lambda value: bytes(memoryview(value)),
}
"""For each type, the function that returns the content of a value of a subclass as a value of the type itself."""


def _of_scalar(value: pa.Scalar) -> Any:
    """Return an Arrow scalar as a Python value. Times stay scalars, even inside lists: Python's would lose nanoseconds."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar) and len(set(value)) < len(value):
        # Two fields have one name, so Python can read neither. The type stands for the value, and is refused as an object.
        return value.type
    if isinstance(value, pa.DictionaryScalar | pa.RunEndEncodedScalar | pa.UnionScalar):
        return _of_scalar(value.value)
    if family_of(type(value)) != Family.OTHER or isinstance(value, pa.ExtensionScalar | pa.MapScalar):
        return value
    return list(value.values) if isinstance(value, pa.ListScalar) else value.as_py()


def _with_plain_names(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if set(map(type, value)) <= {str}:
        return value
    return {str.__str__(name) if isinstance(name, str) else name: item for name, item in value.items()}


def _null_check(kind: type[object], *, nan: bool, is_mixed: bool) -> Callable[[Any], bool] | None:
    """Return the test for nulls among values of a type, or None if no test is needed.

    No test is needed if the type has no nulls, or if Arrow recognizes all of them itself (`from_pandas`).
    """
    of = family_of(kind)
    if of == Family.NULL:
        return None if kind is type(None) else lambda _: True
    if issubclass(kind, np.datetime64 | np.timedelta64):
        return np.isnat
    if nan and of == Family.DECIMAL:
        return Decimal.is_nan
    return math.isnan if nan and of == Family.FLOAT and is_mixed else None


def shown(value: Any) -> str:
    """Return a value as text for a message, shortened if it is long.

    >>> shown(pa.scalar([0.5] * 384))
    '[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, ...]'
    """
    if isinstance(value, int) and value.bit_length() > _HUGE:
        return f"a whole number of {value.bit_length():,} bits"
    if not isinstance(value, pa.Scalar):
        return _SHORT.repr(value)
    try:
        return _SHORT.repr(value.as_py()) if pa.types.is_nested(value.type) else str(value)
    except (OverflowError, ValueError):  # a time that Python does not have
        return f"{value.value} in {value.type}" if hasattr(value, "value") else f"a value of {value.type}"


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
