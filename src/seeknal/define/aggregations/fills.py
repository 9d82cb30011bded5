"""The argument `fill`: what stands in place of null, in one form for each value, so that equal definitions have equal text.

True, 1, 1.0 and Decimal(1) are equal in Python, and so are 0.0 and -0.0, but they are not the same fill. Instants are: whatever
their zone, they are kept in UTC, since Python takes both moments of an hour that a clock repeats as equal.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from seeknal.errors import DefinitionError
from seeknal.names import is_text
from seeknal.values.times import microseconds

NUMBERS = (int, float, Decimal)
SCALARS = (*NUMBERS, bool, str, bytes, date, time, timedelta)
Fill = int | float | Decimal | str | bytes | date | time | timedelta | tuple[()] | None


def read_fill(name: str, given: object, *, kinds: tuple[type, ...], is_list: bool) -> Fill:
    """Return `fill` in its one form: a value of a plain type, an empty tuple in place of a list, or None.

    Args:
        name: The name of the aggregation, for messages.
        given: What the user wrote.
        kinds: The types that it may have; none where the result is never null.
        is_list: Whether the results are lists or maps.

    Raises:
        DefinitionError: It cannot stand for a result.
    """
    if given is None:
        return None
    shown = f"fill={reprlib.repr(given)} of {name}"
    if is_list:
        if isinstance(given, list | tuple) and not given:
            return ()
        raise DefinitionError(f"{shown} should be []: its results are lists or maps.")
    if not kinds:
        raise DefinitionError(f"{shown} is never used: the result is 0 where there is nothing.")
    if not isinstance(given, kinds) or (isinstance(given, bool) and bool not in kinds):
        allowed = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DefinitionError(f"{shown} should be one of: {allowed}.")
    # NaN and pandas' NaT are not themselves; a signalling NaN cannot be compared.
    if given.is_nan() if isinstance(given, Decimal) else given != given:  # noqa: PLR0124
        what = "NaN" if isinstance(given, float | Decimal) else repr(given)
        raise DefinitionError(
            f"fill={what} of {name} could not be told from a result. Leave it out, and nulls stay null."
        )
    if getattr(given, "nanosecond", 0) or getattr(given, "nanoseconds", 0):
        raise DefinitionError(f"fill={given!r} of {name} has nanoseconds. Round it to microseconds.")
    return _plain(shown, given)


def _plain(shown: str, given: object) -> Fill:
    """Return a value of Python's own type: libraries have subclasses of these, which are written in other ways."""
    return next(make(shown, given) for kind, make in _MAKE if isinstance(given, kind))


def _text(shown: str, given: str) -> str:
    if not is_text(given):
        raise DefinitionError(f"{shown} is half of a character (a lone surrogate). Leave it out.")
    return str.__str__(given)


def _time(shown: str, given: time) -> time:
    if given.tzinfo is not None:
        raise DefinitionError(f"{shown} has a time zone, which a time of day cannot have. Leave it out: tzinfo=None.")
    return time(given.hour, given.minute, given.second, given.microsecond)


def _in_utc(shown: str, given: datetime) -> datetime:
    try:
        moment = given if given.utcoffset() is None else given.astimezone(UTC)
    except (OverflowError, ValueError):
        raise DefinitionError(f"{shown} is before the year 1 or after 9999 in UTC. Take another moment.") from None
    zone = None if given.utcoffset() is None else UTC
    return datetime(*moment.timetuple()[:6], moment.microsecond, zone)  # noqa: DTZ001 - it has a zone if it had one


def _shortest(_: str, given: Decimal) -> Decimal:
    """Return a decimal without zeros at its end. `normalize` would round it to the digits of the context."""
    sign, digits, exponent = given.as_tuple()
    if not isinstance(exponent, int):  # infinite
        return Decimal(given)
    text = "".join(map(str, digits))
    kept = text.rstrip("0")
    return Decimal((sign, tuple(map(int, kept)), exponent + len(text) - len(kept))) if kept else Decimal(0)


# A bool is a whole number too, and a datetime a date, so these come first.
_MAKE: tuple[tuple[type, Callable[[str, Any], Fill]], ...] = (
    (bool, lambda _, given: bool(given)),
    (int, lambda _, given: int(given)),
    (float, lambda _, given: float(given)),
    (Decimal, _shortest),
    (str, _text),
    (bytes, lambda _, given: bytes(given)),
    (datetime, _in_utc),
    (date, lambda _, given: date(given.year, given.month, given.day)),
    (time, _time),
    (timedelta, lambda _, given: timedelta(microseconds=microseconds(given))),
)
