"""The exact encoding of values in JSON and MessagePack.

In JSON, a whole number beyond 2^53 - 1 is a string of its digits, since many programs would round it. NaN and the
infinities are "NaN", "Infinity" and "-Infinity". Decimals, dates, times and timestamps are text, with the full precision
of their type. Bytes are base64. In MessagePack, whole numbers, all floats and bytes stay as they are; the rest is text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values import exact
from seeknal.values.row_builder import AS_IS, ValueEncoding

_SAFE = 2**53 - 1
"""The largest integer up to which all are exact as a float, as which JavaScript and others read numbers."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WIDE = pa.int64(), pa.uint64()
# Of bounded length, so that no client can make `Fraction` compute with millions of digits.
_NUMBER = r"(\d{1,20}(?:\.\d{1,20})?)"
_DURATION = re.compile(
    rf"([+-]?)P(?=\d|T)(?:{_NUMBER}D)?(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII | re.IGNORECASE,
)
_SECONDS = 86_400, 3_600, 60, 1


def form_of(kind: pa.DataType, *, text: bool) -> ValueEncoding:
    """Return the encoding of values of a logical type, which are given in their wire form.

    Args:
        kind: The type.
        text: Whether the values go into JSON, not MessagePack.
    """
    if text and kind in _WIDE:
        return ValueEncoding(f"({{v}} if {{v}} is None or -{_SAFE} <= {{v}} <= {_SAFE} else {{f}}({{v}}))", str)
    if text and is_.is_floating(kind):  # v - v is 0 for finite numbers alone
        return ValueEncoding("({v} if {v} is None or {v} - {v} == 0 else {f}({v}))", _name_of)
    if is_.is_decimal(kind):
        return ValueEncoding("({v} if {v} is None or 'E' not in {v} else {f}({v}))", _digits)
    convert = _converter(kind, text=text)
    return AS_IS if convert is None else ValueEncoding("(None if {v} is None else {f}({v}))", convert)


def _digits(value: str) -> str:
    """Return a decimal with all digits of its scale. Arrow writes "0E-9" for a zero of scale nine."""
    return f"{Decimal(value):f}"


def _name_of(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - only NaN differs from itself


def _converter(kind: pa.DataType, *, text: bool) -> Callable[[Any], Any] | None:  # noqa: PLR0911 - one for each kind of type
    """Return the function that encodes a value of a type, other than null; None if values stay as they are."""
    if is_.is_timestamp(kind):
        zone = "Z" if kind.tz else ""
        return lambda value: f"{np.datetime64(value, kind.unit)}{zone}"
    if is_.is_date(kind):
        return lambda value: str(np.datetime64(value, "D"))
    if is_.is_decimal(kind):
        return _digits
    if is_.is_time(kind):
        return lambda value: _time_of_day(value, kind.unit)
    if text and kind in _WIDE:
        return lambda value: value if -_SAFE <= value <= _SAFE else str(value)
    if text and is_.is_floating(kind):
        return lambda value: value if math.isfinite(value) else _name_of(value)
    if text and is_.is_duration(kind):
        return _converter(pa.int64(), text=True)
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        inner = _converter(kind.value_type, text=text)
        return inner and (lambda values: [None if value is None else inner(value) for value in values])
    if is_.is_struct(kind):
        fields = {field.name: convert for field in kind if (convert := _converter(field.type, text=text))}
        return (lambda value: _put_fields(value, fields)) if fields else None
    return None


def _put_fields(value: Mapping[str, Any], fields: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    changed = {name: convert(value[name]) for name, convert in fields.items() if value[name] is not None}
    return {**value, **changed}


def _time_of_day(value: int, unit: str) -> str:
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    seconds, part = divmod(value, _PER_SECOND[unit])
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}.{part:0{digits}}" if digits else clock


def moment_text(moment: int) -> str:
    """Return an instant, given in microseconds since 1970, as ISO 8601 text in UTC."""
    return f"{np.datetime64(moment, 'us')}Z"


def reads(kind: pa.DataType, *, text: bool) -> Callable[[str, Any], Any] | None:  # noqa: PLR0911 - one for each kind of type
    """Return the function that decodes a value of a type; None if values need no decoding.

    The function takes the name of the column, for errors, and the value. It returns a value of a wrong kind unchanged,
    and the library rejects it.

    Args:
        kind: The logical type.
        text: Whether values come from JSON, not MessagePack.
    """
    if text and kind in _WIDE:
        return lambda _, value: int(value) if isinstance(value, str) and _is_wide(value) else value
    if text and is_.is_floating(kind):
        return lambda _, value: _NOT_FINITE.get(value, value) if isinstance(value, str) else value
    if text and (is_.is_binary(kind) or is_.is_fixed_size_binary(kind)):
        return _read_bytes
    if is_.is_duration(kind):
        return lambda name, value: _read_duration(name, value, kind, text=text)
    if is_.is_temporal(kind) or is_.is_decimal(kind):
        return lambda name, value: _read_text(name, value, kind)
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        inner = reads(kind.value_type, text=text)
        return inner and (lambda name, value: _read_list(name, value, inner))
    if is_.is_struct(kind):
        fields = {field.name: read for field in kind if (read := reads(field.type, text=text))}
        return (lambda name, value: _read_fields(name, value, fields)) if fields else None
    return None


def read_column(name: str, values: list[Any], kind: pa.DataType, *, text: bool) -> list[Any]:
    """Return decoded values of a type that came in JSON or MessagePack.

    Raises:
        DataError: A value is not of the type.
    """
    read = reads(kind, text=text)
    return values if read is None else [None if value is None else read(name, value) for value in values]


def _is_wide(digits: str) -> bool:
    """Return whether a string is a whole number that JSON cannot hold exactly. `"1"` is text, and does not match 1."""
    sign = digits.removeprefix("-")
    return sign.isascii() and sign.isdigit() and len(sign) <= 20 and sign[0] != "0" and int(sign) > _SAFE  # noqa: PLR2004


def _read_bytes(name: str, value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except (binascii.Error, ValueError):
        raise DataError(f"{name} is bytes, which are sent as base64; {value[:40]!r} is not base64.", key=name) from None


def _read_duration(name: str, value: Any, kind: pa.DataType, *, text: bool) -> pa.Scalar:
    """Return a duration as a scalar, since Python's own have no nanoseconds and end after some million years.

    "-P1DT0.5S" is -86,400.5 seconds, so -86,400,500 in milliseconds; in seconds it is rejected.

    Raises:
        DataError: The value is not a duration, or is not a whole number of the type's unit.
    """
    number = int(value) if text and isinstance(value, str) and _is_wide(value) else value
    if isinstance(number, str) and (found := _DURATION.fullmatch(number)):
        sign, *parts = found.groups(default="0")
        length = sum(Fraction(part) * seconds for part, seconds in zip(parts, _SECONDS, strict=True))
        number = length * _PER_SECOND[kind.unit] * (-1 if sign == "-" else 1)  # a fraction of a unit is rejected below
    if isinstance(number, int | Fraction) and not isinstance(number, bool) and number == int(number):
        with suppress(pa.ArrowInvalid, OverflowError):
            return pa.scalar(int(number), pa.int64()).cast(kind)
    raise DataError(
        f"{name} is {kind}, which is sent as a whole number of its unit, or as ISO 8601, not {str(value)[:40]!r}.",
        key=name,
    )


def _read_text(name: str, value: Any, kind: pa.DataType) -> Any:
    """Return a moment, date, time of day or decimal as a scalar: Python's have no nanoseconds, and smaller ranges.

    A number is rejected, unless it is a whole one for a decimal: of a time the unit is unknown, and a float may be a
    rounded decimal.
    """
    if isinstance(value, str):
        return exact.read(name, value, kind)
    if isinstance(value, int | float) and not (is_.is_decimal(kind) and type(value) is int):
        raise DataError(f"{name} is {kind}, which is sent as text, not as {value!r}.", key=name)
    return value


def _read_list(name: str, value: Any, inner: Callable[[str, Any], Any]) -> Any:
    if not isinstance(value, list):
        raise DataError(f"{name} takes a list, not {str(value)[:40]!r}.", key=name)
    return [None if one is None else inner(name, one) for one in value]


def _read_fields(name: str, value: Any, fields: Mapping[str, Callable[[str, Any], Any]]) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{name} takes an object, not {str(value)[:40]!r}.", key=name)
    return {key: fields[key](name, one) if key in fields and one is not None else one for key, one in value.items()}
