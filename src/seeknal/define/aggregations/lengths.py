"""Lengths of windows: read from what a user writes, and written so that names and the registry can have them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from datetime import timedelta

from seeknal.errors import DefinitionError
from seeknal.values.times import LONGEST_SPAN, microseconds, span_of

Length = str | timedelta
Lengths = Length | Sequence[Length] | None

_MICROSECONDS = re.compile(r"(\d{1,18})us", re.ASCII)
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("us", 1))


def read_length(argument: str, given: object) -> timedelta:
    """Return a length that a user wrote, such as "7d", "12h", "500us" or a timedelta.

    Raises:
        DefinitionError: It is not a length, not positive, or longer than all of time.
    """
    found = given
    if isinstance(given, str):
        exact = _MICROSECONDS.fullmatch(given.strip())
        found = timedelta(microseconds=int(exact[1])) if exact else span_of(given)
    if isinstance(found, timedelta):  # a plain one: that of pandas has nanoseconds
        if getattr(found, "nanoseconds", 0):
            raise DefinitionError(f"{argument}={given!r} is not a whole number of microseconds.")
        found = timedelta(found.days, found.seconds, found.microseconds)
    if not isinstance(found, timedelta) or found <= timedelta(0):
        raise DefinitionError(
            f'{argument}={reprlib.repr(given)} is not a positive length. Write {argument}="7d", "12h", "90m", "30s" or a timedelta.'
        )
    if found > LONGEST_SPAN:
        raise DefinitionError(f"{argument}={given!r} is longer than all of time. Leave it out, for example.")
    return found


def read_lengths(given: object) -> timedelta | tuple[timedelta, ...] | None:
    """Return the argument `over`: one length, several as a tuple, or None for all events so far.

    Raises:
        DefinitionError: One of them is not a length, two are equal, or the list is empty.
    """
    if given is None or not isinstance(given, list | tuple):
        return None if given is None else read_length("over", given)
    lengths = tuple(read_length("over", one) for one in given)
    if not lengths:
        raise DefinitionError('over is an empty list. Write over="7d", or leave it out for all events so far.')
    if len(set(lengths)) < len(lengths):
        (again, *_) = [one for i, one in enumerate(lengths) if one in lengths[:i]]
        raise DefinitionError(f"over has {show_length(microseconds(again))} twice. Name each length once.")
    return lengths


def show_length(length: int) -> str:
    """Return a length in microseconds as text, in the largest unit that divides it.

    >>> show_length(604_800_000_000), show_length(129_600_000_000), show_length(1_500_000)
    ('7d', '36h', '1500000us')
    """
    name, size = next((name, size) for name, size in _UNITS if length % size == 0)
    return f"{length // size}{name}"
