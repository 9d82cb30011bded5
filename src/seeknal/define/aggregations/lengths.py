"""Lengths of windows: read from what a user writes, and written so that names and the registry can have them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction

from seeknal.errors import DefinitionError
from seeknal.values.times import LONGEST_SPAN, microseconds

Length = str | timedelta
Lengths = Length | Sequence[Length] | None

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(us|[smhd])", re.ASCII)
_LONGEST_TEXT = 64
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("us", 1))


def read_length(argument: str, given: object) -> timedelta:
    """Return a length that a user wrote, such as "7d", "12h", "500us" or a timedelta.

    Raises:
        DefinitionError: It is not a length, not positive, longer than all of time, or has parts of microseconds.
    """
    found = _parsed(given) if isinstance(given, str) else _exact(given)
    if found is None or found <= 0:
        raise DefinitionError(
            f'{argument}={reprlib.repr(given)} is not a positive length. Write {argument}="7d", "12h", "90m", "30s" or a timedelta.'
        )
    if found > microseconds(LONGEST_SPAN):
        raise DefinitionError(
            f"{argument}={reprlib.repr(given)} is longer than all of time. Leave it out, for example."
        )
    if found.denominator != 1:
        near = max(round(found), 1)
        raise DefinitionError(
            f'{argument}={reprlib.repr(given)} is not a whole number of microseconds. Write {argument}="{near}us", for example.'
        )
    return timedelta(microseconds=int(found))


def _parsed(text: str) -> Fraction | None:
    """Return how many microseconds a text says; None if it is no length."""
    stripped = text.strip()
    found = _LENGTH.fullmatch(stripped) if len(stripped) <= _LONGEST_TEXT else None
    return None if found is None else Fraction(found[1]) * dict(_UNITS)[found[2]]


def _exact(given: object) -> Fraction | None:
    """Return how many microseconds a timedelta has. That of pandas has nanoseconds too, and one that is not a time."""
    try:
        return (
            Fraction(microseconds(given)) + Fraction(getattr(given, "nanoseconds", 0), 1000)
            if isinstance(given, timedelta)
            else None
        )
    except (TypeError, ValueError):
        return None


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
