"""Aggregations as plain dictionaries, as the registry keeps them. An argument that has its default is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from seeknal.define.aggregations.base import Aggregation
from seeknal.define.aggregations.kinds import ALL
from seeknal.define.aggregations.lengths import show_length
from seeknal.errors import DefinitionError
from seeknal.values.times import microseconds

_BY_NAME = {kind.__name__: kind for kind in ALL}
# A datetime is a date too, so it comes first.
_TAGS: tuple[tuple[str, type, Callable[[Any], str], Callable[[str], object]], ...] = (
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
        if field.default is MISSING or value != field.default:
            found[field.name] = _fill_to_json(value) if field.name == "fill" else _argument_to_json(value)
    return found


def from_json(given: Mapping[str, Any]) -> Aggregation:
    """Return the aggregation of which `to_json` returned this.

    Raises:
        DefinitionError: There is no such aggregation, or it does not take these arguments.
    """
    name = given.get("aggregation")
    kind = _BY_NAME.get(str(name))
    if kind is None:
        raise DefinitionError(f"There is no aggregation named {name!r}. A later release of seeknal has it, perhaps.")
    unknown = given.keys() - {field.name for field in fields(kind)} - {"aggregation"}
    if unknown:
        raise DefinitionError(f"{name} has no argument {min(unknown)!r}. A later release of seeknal has it, perhaps.")
    arguments = {argument: value for argument, value in given.items() if argument != "aggregation"}
    if "fill" in arguments:
        arguments["fill"] = _fill_from_json(arguments["fill"])
    return kind(**arguments)


def _argument_to_json(value: object) -> object:
    if isinstance(value, timedelta):
        return show_length(microseconds(value))
    return [_argument_to_json(one) for one in value] if isinstance(value, tuple) else value


def _fill_to_json(value: object) -> object:
    for tag, kind, write, _ in _TAGS:
        if isinstance(value, kind):
            return {tag: write(value)}
    return list(value) if isinstance(value, tuple) else value


def _fill_from_json(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    ((tag, text),) = value.items()
    return next(read for name, _, _, read in _TAGS if name == tag)(text)
