"""The features that an aggregation makes: one for each length of its window."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass

from seeknal.define.aggregations.arguments import check_column
from seeknal.define.aggregations.base import Aggregation
from seeknal.define.aggregations.lengths import show_length
from seeknal.errors import DefinitionError


@dataclass(frozen=True)
class WindowedFeature:
    """A feature that is computed from the events of one window.

    Args:
        name: The name of the feature.
        aggregation: What is computed.
        length: The length of the window in microseconds; None: all events so far.
    """

    name: str
    aggregation: Aggregation
    length: int | None


def expand(name: str, aggregation: Aggregation) -> tuple[WindowedFeature, ...]:
    """Return the features of an aggregation. Each length of a list has its name appended, in the largest unit that divides it.

    Raises:
        DefinitionError: The name is not text, empty or has NUL, or the aggregation is none.

    >>> from seeknal.define.aggregations import Sum
    >>> [feature.name for feature in expand("spend", Sum("amount", over=["7d", "36h", "24h"]))]
    ['spend_7d', 'spend_36h', 'spend_1d']
    >>> [feature.name for feature in expand("spend", Sum("amount", over="7d"))]
    ['spend']
    """
    name = check_column("name", name)
    if not isinstance(aggregation, Aggregation):
        raise DefinitionError(
            f"Feature {name!r} is {reprlib.repr(aggregation)}, which is not an aggregation. Write Sum('amount', over='7d'), for example."
        )
    return tuple(
        WindowedFeature(f"{name}_{show_length(length or 0)}" if aggregation.has_several else name, aggregation, length)
        for length in aggregation.lengths
    )


def columns_of(features: Iterable[WindowedFeature]) -> tuple[str, ...]:
    """Return the columns that features aggregate or take maps by, each once."""
    of = (feature.aggregation for feature in features)
    return tuple(dict.fromkeys(name for one in of for name in (one.source_column, one.by) if name is not None))


def conditions_of(features: Iterable[WindowedFeature]) -> tuple[str, ...]:
    """Return the conditions of features, each once."""
    texts = (feature.aggregation.where for feature in features)
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def mask_name(condition: str) -> str:
    """Return the name of the column that tells of pushed rows whether a condition is true. No column of a group has such a name."""
    return f"\0{condition}"
