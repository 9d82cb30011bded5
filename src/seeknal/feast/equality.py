"""When two values are the same, though Feast has them in types of pandas."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np


def same(ours: Any, theirs: Any) -> bool:
    """Return whether a value of Seeknal and one of Feast are the same.

    NaN and null are the same, since pandas has one of them only. Numbers are compared exactly, whatever their types.

    >>> same(3, 3.0), same(None, float("nan")), same(2**53 + 1, float(2**53)), same([1, None], [1.0, None])
    (True, True, False, True)
    """
    if _is_null(ours) or _is_null(theirs):
        return _is_null(ours) and _is_null(theirs)
    if isinstance(ours, datetime) and isinstance(theirs, datetime | str):
        return _aware(ours) == _aware(theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def as_served(value: Any) -> Any:
    """Return a value as it is after the JSON in which Feast's online answers arrive. Times stay."""
    return value if isinstance(value, datetime) else json.loads(json.dumps(value, default=str))


def as_float32(value: Any) -> Any:
    """Return a value with each number in it rounded to float32."""
    if isinstance(value, list | tuple):
        return [as_float32(one) for one in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(np.float32(value)) if is_number else value


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - only NaN differs from itself


def _aware(moment: datetime | str) -> datetime | None:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
