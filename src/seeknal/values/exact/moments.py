"""Exact conversion of times to whole nanoseconds, from the types of Python, NumPy, pandas and Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.values import types
from seeknal.values.exact.families import Unfit

SECOND = 10**9
"""A second in nanoseconds."""
DAY = 86_400 * SECOND
"""A day in nanoseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a naive moment is UTC
_FIRST_DAY = date(1970, 1, 1).toordinal()
_MICROSECOND = timedelta(microseconds=1)
_LENGTHS = {"W": 7 * DAY, "D": DAY, "h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND}
_LENGTHS |= {"ms": 10**6, "us": 10**3, "ns": 1}
_PARTS = {"ps": 10**3, "fs": 10**6, "as": 10**9}
_OF_PYTHON = {datetime, date, type(None)}
"""Types whose values are whole microseconds, and always fit into 64 bits of them."""
_RANGE = {"us": 2**63 * 1000, "ns": 2**63}
RAISED_BY_ZONES = pa.ArrowException, ValueError, TypeError, NotImplementedError, AttributeError
"""The errors that a zone may raise for its offset or name. It can be of any class, and lack either."""


def nanoseconds(value: Any) -> int:
    """Return a time in nanoseconds: a moment since 1970, a time of day since midnight, or a duration.

    A naive moment is taken as UTC, a date as its midnight.

    Raises:
        ValueError: The value is finer than a nanosecond or too far away, a duration has no unit or no fixed length, a
            time of day has a zone, or a zone has no offset.
    """
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _of_numpy(value)
    if isinstance(value, pa.Scalar):
        return _of_arrow(value)
    if not hasattr(type(value), "asm8"):
        return _of_python(value)
    with suppress(OverflowError):  # pandas: in nanoseconds if they fit, else in the unit that the value has
        return int(value.value)
    return _of_numpy(value.asm8)


def _of_python(value: Any) -> int:
    if isinstance(value, datetime):
        # Called on the base class, because a subclass may override subtraction.
        since = datetime.__sub__(value, _EPOCH if is_zoned(value) else _NAIVE_EPOCH)
        return since // _MICROSECOND * 1000
    if isinstance(value, date):
        return (date.toordinal(value) - _FIRST_DAY) * DAY
    if not isinstance(value, time):
        return timedelta.__floordiv__(value, _MICROSECOND) * 1000
    if value.tzinfo is not None:
        raise ValueError("has a time zone, which a time of day cannot hold")
    return ((value.hour * 60 + value.minute) * 60 + value.second) * SECOND + value.microsecond * 1000


def _of_arrow(value: pa.Scalar) -> int:
    if isinstance(value, pa.Date32Scalar):
        return int(value.value) * DAY
    unit = "ms" if isinstance(value, pa.Date64Scalar) else value.type.unit
    return int(value.value) * _LENGTHS[unit]


def _of_numpy(value: np.datetime64 | np.timedelta64) -> int:
    unit, count = np.datetime_data(value.dtype)
    if unit in {"Y", "M"} and isinstance(value, np.datetime64):  # months and years differ in length, so count in days
        days = value.astype("datetime64[D]")
        if days.astype(value.dtype) != value:
            raise ValueError("is out of range")
        return _of_numpy(days)
    whole = int(value.astype(np.int64)) * count
    if unit in _LENGTHS:
        return whole * _LENGTHS[unit]
    if unit not in _PARTS:
        raise ValueError("has no unit" if unit == "generic" else "has no fixed length")
    nanos, rest = divmod(whole, _PARTS[unit])
    if rest:
        raise ValueError("is finer than a nanosecond")
    return nanos


def is_zoned(value: Any) -> bool:
    """Return whether a moment has a zone.

    Raises:
        ValueError: Its zone has no offset.
    """
    if isinstance(value, pa.TimestampScalar):
        return bool(value.type.tz)
    try:
        return getattr(value, "tzinfo", None) is not None and value.utcoffset() is not None
    except RAISED_BY_ZONES:
        raise ValueError("has a zone without an offset") from None


def moment_type(values: Sequence[Any]) -> pa.DataType:
    """Return the timestamp type in which all moments and dates are exact: in their common zone, or else in UTC."""
    return pa.timestamp(_unit_of(values), tz=_zone_of(values))


def span_type(values: Sequence[Any]) -> pa.DataType:
    """Return the type in which all durations are exact."""
    return pa.duration(_unit_of(values))


def time_type(values: Sequence[Any]) -> pa.DataType:
    """Return the type in which all times of day are exact."""
    return pa.time64(_unit_of(values))


def _unit_of(values: Sequence[Any]) -> str:
    """Return "us", or "ns" if a value is finer than a microsecond.

    Raises:
        Unfit: A value is out of range for that unit, or cannot be converted to nanoseconds.
    """
    if set(map(type, values)) <= _OF_PYTHON:
        return "us"
    # The unit is certain only after the last value, so the range is checked at the end, by the extremes and their rows.
    unit, least, most = "us", (0, 0), (0, 0)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            nanos = nanoseconds(value)
        except ValueError as error:
            raise Unfit(row, value, str(error)) from None
        if nanos % 1000:
            unit = "ns"
        least, most = min(least, (nanos, row)), max(most, (nanos, row))
    for nanos, row in (least, most):
        if not -_RANGE[unit] <= nanos < _RANGE[unit]:
            needed = "nanoseconds, which other values need" if unit == "ns" else "microseconds"
            raise Unfit(row, values[row], f"is out of range for 64 bits of {needed}")
    return unit


def _zone_of(values: Sequence[Any]) -> str | None:
    """Return the common zone of all moments; None if all are naive; UTC if they differ. A naive moment is UTC."""
    first: dict[Any, tuple[int, Any]] = {}
    for row, value in enumerate(values):
        try:
            if value is not None:
                first.setdefault(_zone_key(value), (row, value))
        except ValueError as error:
            raise Unfit(row, value, str(error)) from None
    names: set[str | None] = set()
    for key, (row, value) in first.items():
        name = None if key is None else zone_name(value)
        if key is not None and name is None:
            why = "has a zone that cannot be read back. Convert it to UTC: value.astimezone(datetime.UTC)"
            raise Unfit(row, value, why)
        names.add(name)
    return names.pop() if len(names) == 1 else "UTC" if names else None


def _zone_key(value: Any) -> object:
    """Return a key that tells zones apart. Python's zones are told apart by identity, because they need not be hashable."""
    if isinstance(value, pa.Scalar):
        return getattr(value.type, "tz", None) or None
    return id(value.tzinfo) if is_zoned(value) else None


def zone_name(value: Any) -> str | None:
    """Return the name under which every library finds a moment's zone, or None if there is no such name."""
    with suppress(*RAISED_BY_ZONES):
        name = value.type.tz if isinstance(value, pa.Scalar) else pa.lib.tzinfo_to_string(value.tzinfo)
        return types.known_zone(str(name))
    return None
