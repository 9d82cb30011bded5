"""Aggregations as plain dictionaries, as the registry keeps them. An argument that has its default is left out.

Two definitions have equal dictionaries if, and only if, they are equal.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from seeknal.define.aggregations.base import Aggregation
from seeknal.define.aggregations.kinds import ALL
from seeknal.define.aggregations.lengths import show_length
from seeknal.errors import DefinitionError
from seeknal.values.times import microseconds

_LATER = "A later release of seeknal has it, perhaps."
_BY_NAME = {kind.__name__: kind for kind in ALL}
_SAFE = 2**53
"""Whole numbers from here on are written as text, since not every reader of JSON keeps them."""
# A datetime is a date too, so it comes first.
_TAGS: tuple[tuple[str, type, Callable[[Any], str], Callable[[str], object]], ...] = (
    ("integer", int, str, int),
    ("decimal", Decimal, str, Decimal),
    ("bytes", bytes, bytes.hex, bytes.fromhex),
    ("timestamp", datetime, datetime.isoformat, datetime.fromisoformat),
    ("date", date, date.isoformat, date.fromisoformat),
    ("time", time, time.isoformat, time.fromisoformat),
    ("float", float, float.hex, float.fromhex),
    ("microseconds", timedelta, lambda given: str(microseconds(given)), lambda text: timedelta(microseconds=int(text))),
)
"""How `fill` is written where JSON has no such value: a tag, the type, and the functions to text and back."""


def to_json(aggregation: Aggregation) -> dict[str, Any]:
    """Return an aggregation as a dictionary of text, numbers and lists.

    >>> from seeknal.define.aggregations import Sum
    >>> to_json(Sum("amount", over=["7d", "1h"], where="amount > 5"))
    {'aggregation': 'Sum', 'over': ['7d', '1h'], 'where': 'amount > 5', 'column': 'amount'}
    """
    found: dict[str, Any] = {"aggregation": aggregation.name}
    for field in fields(aggregation):
        value = getattr(aggregation, field.name)
        if field.name == "fill":
            found |= {} if value is None else {"fill": value_to_json(value)}
        elif _is_needed(field) or value != field.default:
            found[field.name] = _argument_to_json(value)
    return found


def from_json(given: Mapping[str, Any]) -> Aggregation:
    """Return the aggregation of which `to_json` returned this.

    Raises:
        DefinitionError: There is no such aggregation, or it does not take these arguments.
    """
    if not isinstance(given, Mapping):
        raise DefinitionError(f"{reprlib.repr(given)} is not the text form of an aggregation, which is a mapping.")
    name = given.get("aggregation")
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DefinitionError(f"There is no aggregation named {reprlib.repr(name)}. {_LATER}")
    known = {field.name: field for field in fields(kind)}
    unknown = [argument for argument in given if argument not in known and argument != "aggregation"]
    if unknown:
        raise DefinitionError(f"{name} has no argument {reprlib.repr(min(unknown, key=repr))}. {_LATER}")
    missing = [argument for argument, field in known.items() if _is_needed(field) and argument not in given]
    if missing:
        raise DefinitionError(f"{name} has no {missing[0]!r}, without which it cannot be computed.")
    arguments = {argument: value for argument, value in given.items() if argument != "aggregation"}
    if "fill" in arguments:
        arguments["fill"] = value_from_json(arguments["fill"])
    return kind(**arguments)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING


def _argument_to_json(value: object) -> object:
    if isinstance(value, timedelta):
        return show_length(microseconds(value))
    return [_argument_to_json(one) for one in value] if isinstance(value, tuple) else value


def value_to_json(value: object) -> object:
    """Return a value as JSON has it: with a tag where JSON has no such value."""
    if isinstance(value, tuple):
        return []
    if isinstance(value, bool | str) or (isinstance(value, int) and -_SAFE < value < _SAFE):
        return value
    return next({tag: write(value)} for tag, kind, write, _ in _TAGS if isinstance(value, kind))


def value_from_json(value: object) -> object:
    """Return the value of which `value_to_json` returned this.

    Raises:
        DefinitionError: A later release of Seeknal has made it.
    """
    if not isinstance(value, Mapping):
        return value
    tag, text = next(iter(value.items())) if len(value) == 1 else (None, None)
    read = next((read for name, _, _, read in _TAGS if name == tag), None)
    if read is None or not isinstance(text, str):
        tags = ", ".join(name for name, *_ in _TAGS)
        raise DefinitionError(f"fill={reprlib.repr(value)} is not a text with one of the tags {tags}. {_LATER}")
    try:
        return read(text)
    except (ValueError, ArithmeticError):
        raise DefinitionError(f"fill={reprlib.repr(value)} cannot be read: {text[:40]!r} is no {tag}.") from None
