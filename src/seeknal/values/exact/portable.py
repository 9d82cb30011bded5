"""Python values in MessagePack, as clients and servers exchange them. Each arrives exactly, and in its own family.

MessagePack has no decimals, dates, times or durations, and no whole numbers of more than 64 bits. These are encoded as
extensions, whose data is a number as text: for a time its nanoseconds, followed by the zone if it is a moment. So Decimal("1.10")
is extension 2 with "1.10", and 1970-01-01 00:00:01 in UTC is extension 4 with "1000000000 UTC".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pyarrow as pa

from seeknal.values import types
from seeknal.values.exact.families import Family, family, normalized
from seeknal.values.exact.moments import SECOND, is_zoned, nanoseconds, zone_name

_AS_IS = {type(None), bool, float, str, bytes}
_SAME: Mapping[Family, Callable[[Any], Any]] = {
    Family.BOOL: bool,
    Family.FLOAT: float,
    Family.TEXT: str,
    Family.BYTES: lambda value: bytes(memoryview(value)),
}
"""For each family that MessagePack has too, how values of other libraries become Python's own; see `normalized`."""
_EXTENSIONS = {1: Family.WHOLE, 2: Family.DECIMAL, 3: Family.DATE, 4: Family.MOMENT, 5: Family.TIME, 6: Family.SPAN}
_CODES = {of: code for code, of in _EXTENSIONS.items()}
_LEAST, _MOST = -(2**63), 2**64 - 1
"""The range of whole numbers that MessagePack has itself."""
_LENGTHS = {"s": SECOND, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds in each unit, the coarsest first."""
_ODD_ZONE = "unknown"
"""Stands for a zone that no library can read back. The receiver refuses such a value, and says why."""


def packed(value: Any) -> Any:  # noqa: PLR0911 - one return for each kind of value
    """Return a value in a form that MessagePack encodes, and that `unpacked` turns back into an equal value.

    Raises:
        ValueError: The value has an unsupported type, or is out of range for its type.
    """
    kind = type(value)
    if kind in _AS_IS or (kind is int and _LEAST <= value <= _MOST):
        return value
    if kind is dict:  # a shortcut for rows: the checks for nulls would take most of the time
        return _fields(value)
    (one,) = normalized([value], nan=False)
    if one is None:
        return None
    of = family(one)
    if of == Family.WHOLE and _LEAST <= one <= _MOST:
        return int(one)
    if of in _CODES:
        return msgspec.msgpack.Ext(_CODES[of], _text_of(one, of).encode())
    if of == Family.LIST and getattr(one, "ndim", 1) == 0:
        raise ValueError("is not a list")  # a NumPy array without dimensions is one value
    if of == Family.LIST:
        return [packed(item) for item in one]
    if of == Family.STRUCT:
        return _fields(one)
    if of in _SAME:
        return _SAME[of](one)
    raise ValueError(f"is {of}")


def _fields(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {name if type(name) is str else _name(name): packed(value) for name, value in values.items()}


def _name(name: object) -> str:
    if isinstance(name, str):
        return str.__str__(name)
    raise ValueError(f"has a field {name!r}, which is not a name: names are text")


def _text_of(value: Any, of: Family) -> str:
    if of in {Family.WHOLE, Family.DECIMAL}:
        return str(value)
    nanos = nanoseconds(value)
    zone = (zone_name(value) or _ODD_ZONE) if of == Family.MOMENT and is_zoned(value) else ""
    _time(of, nanos, zone)  # raises here what the receiver would raise
    return f"{nanos} {zone}"


def unpacked(code: int, data: memoryview) -> Any:
    """Return the value that an extension stands for.

    Raises:
        msgspec.ValidationError: `packed` does not create such an extension.
    """
    of = _EXTENSIONS.get(code)
    with suppress(ValueError, InvalidOperation):
        number, _, zone = bytes(data).decode().partition(" ")
        if of == Family.DECIMAL:
            return Decimal(number)
        if of is not None:
            return int(number) if of == Family.WHOLE else _time(of, int(number), zone)
    raise msgspec.ValidationError(f"it has MessagePack's extension {code}, which Seeknal does not use")


def _time(of: Family, nanos: int, zone: str) -> pa.Scalar:
    """Return a time as a scalar in the coarsest unit in which it is exact, because that unit has the widest range.

    Raises:
        ValueError: It is outside the range of that unit.
    """
    unit = next(unit for unit, length in _LENGTHS.items() if nanos % length == 0)
    # A date may have a time of day, as Arrow's date64 can. It is kept, and refused where it does not fit a column.
    unit = {Family.DATE: "ms", Family.TIME: "ns"}.get(of, unit)
    kinds = {
        Family.DATE: pa.date64(),
        Family.TIME: pa.time64("ns"),
        Family.SPAN: pa.duration(unit),
        Family.MOMENT: pa.timestamp(unit, zone and (types.known_zone(zone) or _ODD_ZONE)),
    }
    try:
        return pa.scalar(nanos // _LENGTHS[unit], pa.int64()).cast(kinds[of])
    except (OverflowError, pa.ArrowInvalid):
        raise ValueError("is out of range") from None
