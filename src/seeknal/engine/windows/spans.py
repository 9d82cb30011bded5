"""Spans: neighbouring windows that have the same events of a group, that is, of one segment with one value.

Both bounds of the windows ascend, so an event enters at one window, `enter`, and leaves at another, `leave`, and is in all windows
between them. Of a group, the windows between two such changes are a span. There are at most two changes for each event, however
many events the windows have.

For example, with the windows [0, 2), [0, 3), [1, 4), [3, 4) over the values a, b, a, a, the events of a are those at 0, 2 and 3:

    event   enter   leave      span of windows   events of a
    0       0       2          0 up to 1         0
    2       1       3          1 up to 2         0, 2
    3       2       4          2 up to 3         2, 3
                               3 up to 4         3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CELLS = 1
"""So many cells of counts take as long as an event that is merged."""


@dataclass(frozen=True)
class Spans:
    """Spans, in the order of their groups, and those of a group in the order of their windows.

    Args:
        oldest: The first event of each span, as its number among the places.
        after: The number after its last one.
        first: The first of its windows.
        last: The window after the last of them.
        places: The places of some events among those sorted by value.
        groups: The group of each event, sorted by value.
    """

    oldest: np.ndarray
    after: np.ndarray
    first: np.ndarray
    last: np.ndarray
    places: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def count(self) -> np.ndarray:
        """The number of events of each span."""
        count: np.ndarray = self.after - self.oldest
        return count

    @property
    def start(self) -> np.ndarray:
        """The place of the first event of each span."""
        start: np.ndarray = self.places[self.oldest]
        return start

    @property
    def stop(self) -> np.ndarray:
        """The place after the last event of each span."""
        stop: np.ndarray = self.places[self.after - 1] + 1
        return stop

    def group(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the groups of some spans."""
        group: np.ndarray = self.groups[self.places[self.oldest[which]]]
        return group

    def kept(self, which: np.ndarray) -> Spans:
        """Return some of the spans, by their numbers."""
        ends = (self.oldest[which], self.after[which], self.first[which], self.last[which])
        return Spans(*ends, self.places, self.groups)


def stays(start: np.ndarray, stop: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first window that has each event, and the window after the last one, if that is greater; else none has it.

    Args:
        start: The start of each window; both bounds ascend.
        stop: The stop of each window.
        size: The number of events.
    """
    windows = np.arange(len(start) + 1, dtype=np.int32)
    # An event is in the windows that stop after it, and do not start after it.
    enter, leave = (np.repeat(windows, np.diff(bound, prepend=0, append=size)) for bound in (stop, start))
    return enter, leave


@dataclass(frozen=True)
class Groups:
    """The events of some segments, sorted by value.

    Args:
        positions: The position of each event.
        groups: The group of each event.
        edges: Where each segment begins, and where the last one ends.
    """

    positions: np.ndarray
    groups: np.ndarray
    edges: np.ndarray

    def spans(self, start: np.ndarray, stop: np.ndarray) -> Spans:
        """Return the spans of windows.

        Args:
            start: The start of each window; both bounds ascend.
            stop: The stop of each window.
        """
        enter, leave = (bound[self.positions] for bound in stays(start, stop, len(self.positions)))
        if len(self.positions):
            first, end = self.groups[self.edges[:-1]], self.groups[self.edges[1:] - 1] + 1
            bounds = np.searchsorted(start, self.edges)
            if int(((end - first) * (np.diff(bounds) + 1)).sum()) <= _CELLS * len(self.positions):
                return _counted(self.groups, enter, leave, (end - first, bounds))
        return _merged(self.groups, enter, leave, len(start) + 1)

    def distinct(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Return the number of groups in each window; the arguments are those of `spans`.

        An event counts for its group from when it enters, until it leaves or the group's next one enters.
        """
        enter, leave = (bound[self.positions] for bound in stays(start, stop, len(self.positions)))
        enter, leave, group = (one.compress(enter < leave) for one in (enter, leave, self.groups))
        is_same = group[1:] == group[:-1]
        leave[:-1] = np.where(is_same, np.minimum(leave[:-1], enter[1:]), leave[:-1])
        width = len(start) + 1
        changes = np.bincount(enter, minlength=width) - np.bincount(leave, minlength=width)
        found: np.ndarray = np.cumsum(changes)[:-1]
        return found


def _merged(groups: np.ndarray, enter: np.ndarray, leave: np.ndarray, width: int) -> Spans:
    """Return the spans of windows by merging what enters and what leaves.

    Args:
        groups: The group of each event, sorted by value.
        enter: The first window that has the event.
        leave: The window after the last one.
        width: A number greater than all windows.
    """
    kept = np.flatnonzero(enter < leave)
    if not len(kept):
        return Spans(kept, kept, kept, kept, kept, groups)
    group = groups[kept]
    # If all values differ, nothing enters or leaves while another event of its group is there.
    if not np.any(group[1:] == group[:-1]):
        number = np.arange(len(kept))
        return Spans(number, number + 1, enter[kept], leave[kept], kept, groups)
    # A change is coded as group, window, and whether it is an enter. The codes of all enters are sorted, and so are those of all
    # leaves, since events that enter later leave later: to sort both is to merge two runs.
    is_short = max((int(groups[-1] - groups[0]) + 1) * width, len(groups)) < 2**30
    kind: type = np.int32 if is_short else np.int64
    base = (group - groups[0]).astype(kind) * kind(width)
    codes: np.ndarray = np.empty(2 * len(kept), kind)
    np.add(base, leave[kept], out=codes[: len(kept)])
    np.add(base, enter[kept], out=codes[len(kept) :])
    codes <<= 1
    codes[len(kept) :] |= 1
    codes.sort()
    enters: np.ndarray = np.cumsum(codes & 1, dtype=kind)
    leaves = np.arange(1, len(codes) + 1, dtype=kind) - enters
    codes >>= 1
    # Where a group has no events left, all that entered have left.
    begins = np.flatnonzero((codes[1:] > codes[:-1]) & (enters > leaves)[:-1])
    oldest = leaves[begins]
    before = base[oldest]
    return Spans(oldest, enters[begins], codes[begins] - before, codes[begins + 1] - before, kept, groups)


def _counted(
    groups: np.ndarray, enter: np.ndarray, leave: np.ndarray, segments: tuple[np.ndarray, np.ndarray]
) -> Spans:
    """Return spans of one window each, by counting what enters and leaves: faster where groups and windows are few.

    Each group has a cell for each window of its segment, and one for what enters none of them. The sums of the cells, in the order of
    the groups, are the places up to which events have entered or left.

    Args:
        groups: The group of each event, sorted by value.
        enter: The first window that has the event.
        leave: The window after the last one.
        segments: The number of groups of each segment; and its first window, with the end of the last one's windows.
    """
    count, bounds = segments
    widths = np.repeat(np.diff(bounds) + 1, count)
    ends = np.cumsum(widths)
    base = ends - widths - np.repeat(bounds[:-1], count)
    cell = base[groups - groups[0]]
    after, oldest = (np.cumsum(np.bincount(cell + bound, minlength=int(ends[-1]))) for bound in (enter, leave))
    begins = np.flatnonzero(after > oldest)
    first = begins - np.repeat(base, widths)[begins]
    return Spans(oldest[begins], after[begins], first, first + 1, np.arange(len(groups)), groups)
