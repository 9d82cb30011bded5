"""Events and windows in blocks: some whole segments and the windows over them, few enough for the processor's cache.

The windows of one feature come in the order of the spine, which is that of the events, so both of their bounds ascend. Such a run
of windows is cut at the blocks' bounds by binary search. Windows of several features are several runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seeknal.engine.windows.selection import Windows

_AT_ONCE = 3 * 2**14
"""Events of a block, unless one segment has more, and windows of a piece."""


@dataclass(frozen=True)
class Block:
    """The events from `low` up to `high`, and the windows over them.

    Args:
        low: The position of the first event.
        high: The position after the last one.
        pieces: Where windows of the block begin and end; in each piece, both bounds of the windows ascend.
    """

    low: int
    high: int
    pieces: list[tuple[int, int]]

    def local(self, windows: Windows, piece: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of the windows of a piece, as positions in the block."""
        here = slice(*piece)
        return windows.start[here] - self.low, windows.stop[here] - self.low


def blocks(segment: np.ndarray, windows: Windows) -> Iterator[Block]:
    """Go through the blocks that have windows, or one if there are no windows at all. Each window is in one piece, and pieces ascend within a block.

    Args:
        segment: The segment of each event, in ascending order.
        windows: The windows, none of which has events of two segments.
    """
    bounds = cuts(segment)
    if not len(windows.start):
        yield Block(0, int(bounds[1]), [(0, 0)])
        return
    runs = list(_runs(windows))
    edges = [
        first + np.append(np.searchsorted(windows.start[first:end], bounds[:-1]), end - first) for first, end in runs
    ]
    for i in range(len(bounds) - 1):
        pieces = [
            (first, min(first + _AT_ONCE, int(edge[i + 1])))
            for edge in edges
            for first in range(int(edge[i]), int(edge[i + 1]), _AT_ONCE)
        ]
        if pieces:
            yield Block(int(bounds[i]), int(bounds[i + 1]), pieces)


def cuts(segment: np.ndarray) -> np.ndarray:
    """Return where blocks begin, and where the last one ends."""
    size = len(segment)
    starts = np.flatnonzero(segment[1:] != segment[:-1]) + 1
    numbers = starts // _AT_ONCE
    begins = starts[numbers > np.append(0, numbers[:-1])]
    return np.concatenate([[0], begins, [size]])


def _runs(windows: Windows) -> Iterator[tuple[int, int]]:
    """Go through the runs of windows of which both bounds ascend."""
    start, stop = windows.start, windows.stop
    falls = np.flatnonzero((start[1:] < start[:-1]) | (stop[1:] < stop[:-1])) + 1
    yield from zip([0, *falls.tolist()], [*falls.tolist(), len(start)], strict=True)
