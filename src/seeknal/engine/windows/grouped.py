"""Windows cut by the values of a column: maps, histograms, the most frequent values, and counts of distinct ones.

The events are sorted by entity and value, so that those of one entity with one value, a group, are neighbours. The events of a group
in a window are then a window again, over the sorted events, and so every aggregation works for maps as it is. Neighbouring windows
with the same events of a group are a span, for which all is computed once.

For example, with one entity, the values b, a, b are sorted as a, b, b, with the groups a and b. The window of the first two events
has the event 0 of the sorted ones for a, and the event 1 for b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from seeknal.engine.windows import limits, tops
from seeknal.engine.windows.blocks import Block, blocks
from seeknal.engine.windows.ends import runs
from seeknal.engine.windows.keys import Keys
from seeknal.engine.windows.order import ValueOrder, ranked, sorted_positions
from seeknal.engine.windows.selection import Selection, Windows
from seeknal.engine.windows.spans import Spans

_AT_ONCE = 2**18
"""Pairs of a window and a span at a time: few enough for the processor's cache."""
_ROUND = 2
"""To go through a pair takes as long as to look at so many spans for the best one of each window."""


class Grouped:
    """The events of a selection, grouped by the values of a column.

    Args:
        segment: The segment of each event.
        keys: The values of the column.
        order: The order of the values, if it is known.
    """

    def __init__(self, segment: np.ndarray, keys: Keys, order: ValueOrder | None = None) -> None:
        self.keys = keys
        self.order = order or ValueOrder(segment, keys.numbers)

    def values_of(self, groups: np.ndarray) -> pa.Array:
        """Return the value of each group."""
        return self.keys.decode(self.keys.numbers[self.order.positions[self.order.group_starts[groups]]])

    def ordered(self, selection: Selection) -> Selection:
        """Return the selection sorted by value, with the groups as its segments."""
        return selection.ordered(self.order.positions, self.order.groups)

    def spans(self, windows: Windows) -> Iterator[tuple[Block, tuple[int, int], Spans]]:
        """Go through the pieces of all blocks, each with its spans, whose places are those in the block."""
        for block in blocks(self.order.segment, windows):
            groups = self.order.within(block.low, block.high)
            for piece in block.pieces:
                yield block, piece, groups.spans(*block.local(windows, piece))

    def count(self, windows: Windows) -> np.ndarray:
        """Return the number of groups of each window."""
        found = np.zeros(len(windows.start), np.int64)
        for block in blocks(self.order.segment, windows):
            groups = self.order.within(block.low, block.high)
            for first, end in block.pieces:
                found[first:end] = groups.distinct(*block.local(windows, (first, end)))
        return found


class _Lists:
    """Lists for windows, which are made in any order."""

    def __init__(self) -> None:
        self._made: list[tuple[int, pa.Array, np.ndarray]] = []
        self._size = 0

    def add(self, first: int, values: pa.Array, sizes: np.ndarray) -> None:
        """Add the values of the windows from `first` on, and how many each window has."""
        self._size += len(values)
        limits.check_size(self._size)
        self._made.append((first, values, sizes))

    def joined(self) -> pa.Array:
        """Return the lists in the order of the windows. Arrow joins their values several times faster than lists."""
        self._made.sort(key=lambda made: made[0])
        _, values, sizes = zip(*self._made, strict=True)
        return limits.lists(limits.joined(values), np.concatenate(sizes))


def most_frequent(windows: Windows, grouped: Grouped, n: int) -> pa.Array:
    """Return the n most frequent values of each window, the most frequent first; of equal counts the smaller value."""
    found = _Lists()
    for _, (first, end), spans in grouped.spans(windows):
        for window, chosen, sizes in _ranked(spans, spans.count, end - first, n):
            found.add(first + window, grouped.values_of(spans.group(chosen)), sizes)
    return found.joined()


def histogram(windows: Windows, grouped: Grouped) -> pa.Array:
    """Return the values of each window with their counts, the greatest count first; of equal counts the smaller value."""
    found = _Lists()
    for _, (first, end), spans in grouped.spans(windows):
        entries = pa.StructArray.from_arrays(
            [grouped.values_of(spans.group()), pa.array(spans.count.astype(np.int64))], ["value", "count"]
        )
        for window, chosen, sizes in _ranked(spans, spans.count, end - first, None):
            found.add(first + window, limits.take(entries, chosen), sizes)
    return found.joined()


def maps(
    windows: Windows, grouped: Grouped, of: Callable[[Block, np.ndarray, np.ndarray], pa.Array], k: int | None
) -> pa.Array:
    """Return a map for each window: for each key with events in it, the result of an aggregation of these.

    Entries are in the order of their keys; with `k`, there are those with the k largest results, the largest first. Keys without a
    result have no entry.

    Args:
        windows: The windows.
        grouped: The events by key.
        of: The aggregation, from a block and the bounds of windows over the events of it in `ordered`.
        k: How many entries to keep; None: all.
    """
    found = _Lists()
    for block, (first, end), spans in grouped.spans(windows):
        results = of(block, spans.start, spans.stop)
        known = spans.kept(np.flatnonzero(results.is_valid().to_numpy(zero_copy_only=False)))
        results = results.drop_null()
        entries = pa.StructArray.from_arrays([grouped.values_of(known.group()), results], ["key", "value"])
        by = None if k is None else Keys.of(results).numbers
        for window, chosen, sizes in _ranked(known, by, end - first, k):
            found.add(first + window, limits.take(entries, chosen), sizes)
    return found.joined()


Ranked = tuple[int, np.ndarray, np.ndarray]
"""The first one of some neighbouring windows, the spans of each of them one after the other, and how many each has."""


def _ranked(spans: Spans, by: np.ndarray | None, size: int, n: int | None) -> Iterator[Ranked]:
    """Go through the spans of each window: those with the greatest numbers first, and of equal ones that of the smaller value.

    Args:
        spans: The spans.
        by: A number for each span; None: they come in the order of their values.
        size: The number of windows.
        n: How many spans of each window to return; None: all.
    """
    grade = np.zeros(len(spans), np.int64) if by is None else _grades(by)
    pairs = int((spans.last - spans.first).sum())
    if n is not None and 0 < n * (len(grade) + size) < _ROUND * pairs:
        yield _best(spans, grade, size, n)
    else:
        yield from _paired(spans, grade, size, n)


def _grades(by: np.ndarray) -> np.ndarray:
    """Return grades from 0 on for numbers, 0 for the greatest."""
    if not len(by):
        return by
    least, greatest = int(by.min()), int(by.max())
    if greatest - least < len(by) << 8:
        near: np.ndarray = greatest - by
        return near
    ranks = ranked(by)
    return int(ranks.max()) - ranks


def _best(spans: Spans, grade: np.ndarray, size: int, n: int) -> Ranked:
    """Return the n best spans of all windows."""
    rounds = list(tops.best(spans.first, spans.last, grade, size, n))
    found = np.stack(rounds, axis=1).ravel()
    is_found = found >= 0
    return 0, found.compress(is_found), is_found.reshape(size, len(rounds)).sum(axis=1)


def _paired(spans: Spans, grade: np.ndarray, size: int, n: int | None) -> Iterator[Ranked]:
    """Go through the windows in parts, with their spans in the order of their grades, the n first of each."""
    order = sorted_positions(grade) if grade.any() else np.arange(len(grade))
    first, last = spans.first[order], spans.last[order]
    counts = np.cumsum(np.bincount(first, minlength=size + 1) - np.bincount(last, minlength=size + 1))[:-1]
    for begin, end in _parts(counts):
        here = np.flatnonzero((first < end) & (last > begin))
        bits = len(here).bit_length()
        is_short = max((end - begin) << bits, int(counts[begin:end].sum())) < 2**31
        kind: type = np.int32 if is_short else np.int64
        low, high = np.maximum(first[here], begin) - begin, np.minimum(last[here], end) - begin
        lengths = (high - low).astype(np.int64)
        span: np.ndarray = np.repeat(np.arange(len(here), dtype=kind), lengths)
        # Sorted by window and then by grade, of which the position is part of the number that is sorted.
        codes: np.ndarray = (low - (np.cumsum(lengths) - lengths)).astype(kind)[span]
        codes += np.arange(len(span), dtype=kind)
        codes <<= bits
        codes |= span
        codes.sort()
        codes &= (1 << bits) - 1
        sizes = counts[begin:end]
        if n is not None:
            starts, sizes = np.cumsum(sizes) - sizes, np.minimum(sizes, n)
            codes = codes[runs(starts, sizes)[0]]
        yield begin, order[here[codes]], sizes


def _parts(cost: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut windows into parts of about `_AT_ONCE` in cost; a window that costs more is a part of its own."""
    ends = np.cumsum(cost)
    begin = 0
    while begin < len(cost) or begin == 0:
        done = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), begin + 1)
        yield begin, min(end, len(cost))
        begin = end
