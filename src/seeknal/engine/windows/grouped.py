"""Windows cut by the values of a column: maps, histograms and the most frequent values.

The events are sorted by entity and value, so that those of one entity with one value, a group, are neighbours. A window is then cut
into its pairs with the groups that have events in it, and a pair is a window again, over the sorted events. So every aggregation
works for maps as it is.

For example, with one entity, the values b, a, b are sorted as a, b, b, with the groups a and b. The window of the first two events
becomes the pairs (a, the event 0 of the sorted ones) and (b, the event 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seeknal.engine.windows import limits
from seeknal.engine.windows.ends import runs
from seeknal.engine.windows.keys import Keys
from seeknal.engine.windows.order import ValueOrder
from seeknal.engine.windows.selection import Selection, Windows

_AT_ONCE = 2**18
"""Pairs, or events of windows, at a time: few enough for the processor's cache."""
_BITS = 63
_SEARCH = 4
"""To find the events of a pair by two searches takes as long as to visit so many events."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of windows and groups.

    Args:
        window: The number of each pair's window, in ascending order.
        group: The number of its group, in ascending order for each window.
        start: The position of its first event among those sorted by value.
        stop: The position after its last one.
    """

    window: np.ndarray
    group: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """The number of events of each pair."""
        count: np.ndarray = self.stop - self.start
        return count

    def kept(self, which: np.ndarray) -> Pairs:
        """Return some of the pairs, by a mask or by their numbers."""
        return Pairs(self.window[which], self.group[which], self.start[which], self.stop[which])


class Grouped:
    """The events of a selection, grouped by the values of a column.

    Args:
        segment: The segment of each event.
        keys: The values of the column.
    """

    def __init__(self, segment: np.ndarray, keys: Keys) -> None:
        self.keys = keys
        self.order = ValueOrder(segment, keys.numbers)
        size = len(segment)
        # Positions within a group ascend, so (group, position) as one number is sorted, and searched in one go.
        self._codes = self.order.groups * (size + 1) + self.order.positions if size else self.order.positions
        self._size = size

    def values_of(self, groups: np.ndarray) -> pa.Array:
        """Return the value of each group."""
        return self.keys.decode(self.keys.numbers[self.order.positions[self.order.group_starts[groups]]])

    def ordered(self, selection: Selection) -> Selection:
        """Return the selection sorted by value, with the groups as its segments."""
        return selection.ordered(self.order.positions, self.order.groups)

    def pairs(self, windows: Windows) -> Iterator[tuple[Windows, Pairs]]:
        """Go through the windows in parts, each with its pairs."""
        order = self.order
        if not self._size:
            nothing = np.zeros(0, np.int64)
            yield windows, Pairs(nothing, nothing, nothing, nothing)
            return
        # Where there are few groups, all of the entity's are searched; else the events of the window are visited.
        first = np.minimum(windows.start, self._size - 1)
        low = order.groups[order.segment_start[first]]
        high = order.groups[self._segment_ends[first] - 1] + 1
        is_search = (high - low) * _SEARCH < windows.count
        cost = np.where(windows.empty, 0, np.where(is_search, high - low, windows.count))
        for begin, end in _parts(cost):
            part, search = windows.part(begin, end), is_search[begin:end]
            groups = np.where(search & ~part.empty, high[begin:end] - low[begin:end], 0)
            visits = np.where(search, 0, part.count)
            yield part, _joined(self._searched(part, low[begin:end], groups), self._visited(part, visits))

    @property
    def _segment_ends(self) -> np.ndarray:
        starts = self.order.segment_start
        begins = np.unique(starts)
        ends = np.append(begins[1:], self._size)
        return ends[np.searchsorted(begins, starts)]

    def _searched(self, windows: Windows, low: np.ndarray, sizes: np.ndarray) -> Pairs:
        group, _ = runs(low, sizes)
        window = np.repeat(np.arange(len(sizes)), sizes)
        base = group * (self._size + 1)
        start = np.searchsorted(self._codes, base + windows.start[window])
        stop = np.searchsorted(self._codes, base + windows.stop[window])
        return Pairs(window, group, start, stop).kept(stop > start)

    def _visited(self, windows: Windows, sizes: np.ndarray) -> Pairs:
        order, (event, _) = self.order, runs(windows.start, sizes)
        # The events of a group that are in a window are neighbours by value too, so a pair is a run of ascending places.
        codes = np.repeat(np.arange(len(sizes)) * self._size, sizes) + order.places[event]
        codes.sort()
        window, place = codes // self._size, codes % self._size
        group = order.groups[place]
        is_first = np.ones(len(codes), bool)
        is_first[1:] = (group[1:] != group[:-1]) | (window[1:] != window[:-1])
        firsts = np.flatnonzero(is_first)
        count = np.diff(firsts, append=len(codes))
        return Pairs(window[firsts], group[firsts], place[firsts], place[firsts] + count)


def _parts(cost: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut windows into parts of about `_AT_ONCE` in cost; a window that costs more is a part of its own."""
    ends = np.cumsum(cost)
    begin = 0
    while begin < len(cost) or begin == 0:
        done = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), begin + 1)
        yield begin, min(end, len(cost))
        begin = end


def _joined(one: Pairs, other: Pairs) -> Pairs:
    if not len(one.window) or not len(other.window):
        return one if len(one.window) else other
    order = np.argsort(np.concatenate([one.window, other.window]), kind="stable")
    columns = zip(
        (one.window, one.group, one.start, one.stop), (other.window, other.group, other.start, other.stop), strict=True
    )
    return Pairs(*map(np.concatenate, columns)).kept(order)


def most_frequent(windows: Windows, grouped: Grouped, n: int) -> pa.Array:
    """Return the n most frequent values of each window, the most frequent first; of equal counts the smaller value."""
    made = []
    for part, pairs in grouped.pairs(windows):
        kept, sizes = _ranked(pairs, pairs.count, len(part.start), n)
        made.append(limits.lists(grouped.values_of(pairs.group[kept]), sizes))
    return limits.joined(made)


def histogram(windows: Windows, grouped: Grouped) -> pa.Array:
    """Return the values of each window with their counts, the greatest count first; of equal counts the smaller value."""
    made = []
    for part, pairs in grouped.pairs(windows):
        kept, sizes = _ranked(pairs, pairs.count, len(part.start), None)
        values, counts = grouped.values_of(pairs.group[kept]), pa.array(pairs.count[kept])
        made.append(limits.lists(pa.StructArray.from_arrays([values, counts], ["value", "count"]), sizes))
    return limits.joined(made)


def _ranked(pairs: Pairs, by: np.ndarray, windows: int, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs with the n greatest numbers of each window, the greatest first, and how many each window has.

    Of pairs with equal numbers the one of the smaller value comes first.
    """
    order = _by_window_and(pairs, by)
    sizes = np.bincount(pairs.window, minlength=windows)
    if n is not None:
        begins = np.cumsum(sizes) - sizes
        sizes = np.minimum(sizes, n)
        order = order[runs(begins, sizes)[0]]
    return order, sizes


def _by_window_and(pairs: Pairs, by: np.ndarray) -> np.ndarray:
    """Return the order of pairs by window, and within each by number, the greatest first, and then as they come."""
    least, greatest = (int(by.min()), int(by.max())) if len(by) else (0, 0)
    bits, span = len(by).bit_length(), greatest - least + 1
    if not len(by) or ((int(pairs.window[-1]) + 1) * span << bits).bit_length() > _BITS:
        # `~by` has the opposite order of `by` for all numbers of 64 bits, which `-by` has not.
        order: np.ndarray = np.lexsort((~by, pairs.window))
        return order
    # As in `ValueOrder`, the position becomes the last part of the number that is sorted.
    codes: np.ndarray = ((pairs.window * span + (greatest - by)) << bits) | np.arange(len(by))
    codes.sort()
    codes &= (1 << bits) - 1
    return codes


def maps(
    windows: Windows, grouped: Grouped, of: Callable[[np.ndarray, np.ndarray], pa.Array], k: int | None
) -> pa.Array:
    """Return a map for each window: for each key with events in it, the result of an aggregation of these.

    Entries are in the order of their keys; with `k`, there are those with the k largest results, the largest first. Keys without a
    result have no entry.

    Args:
        windows: The windows.
        grouped: The events by key.
        of: The aggregation, from the bounds of windows over `ordered`.
        k: How many entries to keep; None: all.
    """
    made = []
    for part, pairs in grouped.pairs(windows):
        results = of(pairs.start, pairs.stop)
        known = pairs.kept(results.is_valid().to_numpy(zero_copy_only=False))
        results = results.drop_null()
        if k is None:
            best, sizes = np.arange(len(results)), np.bincount(known.window, minlength=len(part.start))
        else:
            best, sizes = _ranked(known, Keys.of(results).numbers, len(part.start), k)
        keys, values = grouped.values_of(known.group[best]), limits.take(results, best)
        made.append(limits.lists(pa.StructArray.from_arrays([keys, values], ["key", "value"]), sizes))
    return limits.joined(made)
