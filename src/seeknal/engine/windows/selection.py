"""The events that count for some features, and windows over them.

Events that do not count are left out first, and the bounds of the windows become positions among those that are left. So no
aggregation has to think of nulls or conditions.

For example, where the events 0, 1, 2 have the values 5, null, 7, the selection has the values 5, 7, and a window of the events
from 1 up to 3 is one of the positions from 1 up to 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine.windows import limits
from seeknal.engine.windows.inputs import Events
from seeknal.engine.windows.keys import Keys
from seeknal.engine.windows.limbs import Numbers


@dataclass(frozen=True)
class Selection:
    """Events with a value.

    Args:
        segment: The number of each event's entity, in ascending order; within a map, that of its entity and key.
        t: The event times.
        column: The values, none of which is null; None if events are aggregated.
        by: The keys of a map, none of which is null; None if there is no map.
        counts: How many of the first i events are in the selection, for each i; None if all are.
    """

    segment: np.ndarray
    t: np.ndarray
    column: pa.Array | None = None
    by: pa.Array | None = None
    counts: np.ndarray | None = None

    @staticmethod
    def of(events: Events, column: str | None, by: str | None, where: str | None) -> Selection:
        """Return the events for which a condition is true, and neither the value nor the key of the map is null."""
        mask = None if where is None else events.masks[where]
        for name in (column, by):
            if name is not None and events.columns[name].null_count:
                valid = events.columns[name].is_valid().to_numpy()
                mask = valid if mask is None else mask & valid
        values, keys = (None if name is None else _combined(events.columns[name]) for name in (column, by))
        if mask is None or mask.all():
            return Selection(events.entity, events.t, values, keys)
        counts = np.zeros(len(mask) + 1, np.int64)
        np.cumsum(mask, out=counts[1:])
        kept = pa.array(mask)
        values, keys = (None if whole is None else whole.filter(kept) for whole in (values, keys))
        return Selection(events.entity[mask], events.t[mask], values, keys, counts)

    def among(self, bounds: np.ndarray) -> np.ndarray:
        """Return positions among all events as positions in this selection."""
        found: np.ndarray = bounds if self.counts is None else self.counts[bounds]
        return found

    def part(self, low: int, high: int) -> Selection:
        """Return the events from `low` up to `high`."""
        column = None if self.column is None else self.column.slice(low, high - low)
        return Selection(self.segment[low:high], self.t[low:high], column)

    def ordered(self, order: np.ndarray, segment: np.ndarray) -> Selection:
        """Return the selection in another order, with other segments."""
        return Selection(segment, self.t[order], None if self.column is None else limits.take(self.column, order))

    @cached_property
    def numbers(self) -> Numbers:
        """The values as numbers."""
        return Numbers.of(self.column)

    @cached_property
    def keys(self) -> Keys:
        """The values as whole numbers in the same order."""
        return Keys.of(self.column)

    @cached_property
    def kind(self) -> pa.DataType:
        """The type of the values."""
        return self.column.type  # type: ignore[union-attr]  # only asked where there is a column


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return limits.joined(column.chunks) if column.num_chunks else pa.array([], column.type)


@dataclass(frozen=True)
class Windows:
    """Windows over a selection. Window i has the events from start[i] up to stop[i], which is not part of it.

    Args:
        selection: The events.
        start: The position of the first event of each window.
        stop: The position after its last event.
    """

    selection: Selection
    start: np.ndarray
    stop: np.ndarray

    @cached_property
    def count(self) -> np.ndarray:
        """The number of events in each window."""
        count: np.ndarray = self.stop - self.start
        return count

    @cached_property
    def empty(self) -> np.ndarray:
        """Whether there is none."""
        empty: np.ndarray = self.count == 0
        return empty

    @cached_property
    def longest(self) -> int:
        """The most events that a window has."""
        return int(self.count.max()) if len(self.count) else 0

    def part(self, first: int, end: int) -> Windows:
        """Return the windows from `first` up to `end`."""
        return Windows(self.selection, self.start[first:end], self.stop[first:end])


def in_place(values: pa.Array, empty: np.ndarray) -> pa.Array:
    """Return values with nulls where the windows are empty."""
    return pc.if_else(pa.array(empty), pa.scalar(None, values.type), values) if empty.any() else values
