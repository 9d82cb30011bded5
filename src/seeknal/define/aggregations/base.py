"""What all aggregations have in common: the window, the condition, the map, and the checks of these arguments."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import ClassVar

from seeknal.define.aggregations.arguments import check_column, check_count, without_nul
from seeknal.define.aggregations.fills import NUMBERS, read_fill
from seeknal.define.aggregations.lengths import Length, Lengths, read_length, read_lengths
from seeknal.errors import DefinitionError
from seeknal.names import check_text
from seeknal.values.times import microseconds


@dataclass(frozen=True, kw_only=True, eq=False)
class Aggregation:
    """A value that is computed from the events of a window.

    The window of length w at a moment t has the events with t - w < event time <= t. An event for which the condition is
    not true, or whose value is null, does not count.

    Args:
        over: The length of the window, such as "7d" or a timedelta, or a list of lengths, each of which makes a feature.
            None: all events so far.
        where: A condition in SQL on the event's columns.
        by: A column. The result is then a map from the values of this column to the value for their events.
        k: Keep only the k entries of the map with the largest values.
        offset: Move the window back by this length: the result at t is that of t - offset.
        fill: The result in place of null. For results that are lists: [].

    Raises:
        DefinitionError: An argument has the wrong form, or does not go with this aggregation.
    """

    over: Lengths = None
    where: str | None = None
    by: str | None = None
    k: int | None = None
    offset: Length | None = None
    fill: object = None

    has_maps: ClassVar[bool] = True
    """Whether `by` makes sense."""
    orders_ties: ClassVar[bool] = False
    """Whether the result depends on the order of events with the same time."""
    fills: ClassVar[tuple[type, ...]] = NUMBERS
    """The types that `fill` may have; none where the result is never null, a list where it is a list."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "over", read_lengths(self.over))
        set_(self, "offset", None if self.offset is None else read_length("offset", self.offset))
        if self.where is not None:
            set_(self, "where", _condition(self.where))
        self._check_map()
        is_list = self.by is not None or self.fills == (list,)
        set_(self, "fill", read_fill(self.name, self.fill, kinds=self.fills, is_list=is_list))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aggregation) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        """What tells two definitions apart, as their text form does: fills of two types are two, even True and 1."""
        arguments = (getattr(self, field.name) for field in fields(self) if field.name != "fill")
        return type(self), type(self.fill), repr(self.fill), *arguments

    @property
    def name(self) -> str:
        """The name of the aggregation, such as "Sum"."""
        return type(self).__name__

    @property
    def source_column(self) -> str | None:
        """The column that is aggregated, or None if events are."""
        found: str | None = getattr(self, "column", None)
        return found

    @property
    def lengths(self) -> tuple[int | None, ...]:
        """The lengths in microseconds, None for all events so far."""
        several = self.over if isinstance(self.over, tuple) else (self.over,)
        return tuple(microseconds(one) if isinstance(one, timedelta) else None for one in several)

    @property
    def has_several(self) -> bool:
        """Whether the lengths were given as a list, so that each has a feature named after it."""
        return isinstance(self.over, tuple)

    @property
    def shift(self) -> int:
        """The offset in microseconds."""
        return microseconds(self.offset) if isinstance(self.offset, timedelta) else 0

    def _check_map(self) -> None:
        if self.by is None:
            if self.k is not None:
                raise DefinitionError(
                    f"k={reprlib.repr(self.k)} of {self.name} is the size of a map. Say by which column: by='x'."
                )
            return
        object.__setattr__(self, "by", check_column("by", self.by))
        if not self.has_maps:
            raise DefinitionError(
                f"{self.name} cannot be taken by {self.by!r}: its values do not go into a map. Leave out by."
            )
        if self.k is not None:
            object.__setattr__(self, "k", check_count("k", self.k))


def _condition(given: object) -> str:
    where = without_nul("where", check_text("where", given))
    if not where.strip():
        raise DefinitionError('where is empty. Write a condition in SQL, such as where="amount > 5", or leave it out.')
    return where


@dataclass(frozen=True, eq=False)
class OfColumn(Aggregation):
    """An aggregation of the values of one column that are not null.

    Args:
        column: The column.
    """

    column: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", check_column("column", self.column))
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class OfSeveral(OfColumn):
    """An aggregation that returns a list of at most n values of a column.

    Args:
        n: The most values to return.
    """

    n: int
    has_maps: ClassVar[bool] = False
    fills: ClassVar[tuple[type, ...]] = (list,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_count("n", self.n))
        super().__post_init__()
