"""The first and the last events of windows, by arithmetic on positions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from seeknal.engine.windows import limits
from seeknal.engine.windows.selection import Windows


def first(windows: Windows) -> pa.Array:
    """Return the value of the oldest event of each window."""
    return limits.take(_column(windows), np.where(windows.empty, -1, windows.start))


def last(windows: Windows) -> pa.Array:
    """Return the value of the newest event of each window."""
    return limits.take(_column(windows), np.where(windows.empty, -1, windows.stop - 1))


def first_n(windows: Windows, n: int) -> pa.Array:
    """Return the values of the n oldest events of each window, the oldest first."""
    sizes = np.minimum(windows.count, n)
    limits.check_size(int(sizes.sum()))
    places, _ = runs(windows.start, sizes)
    return limits.lists(limits.take(_column(windows), places), sizes)


def last_n(windows: Windows, n: int) -> pa.Array:
    """Return the values of the n newest events of each window, the newest first."""
    sizes = np.minimum(windows.count, n)
    limits.check_size(int(sizes.sum()))
    # Counted from the end, the newest event is the first.
    places, _ = runs(-windows.stop + 1, sizes)
    return limits.lists(limits.take(_column(windows), -places), sizes)


def _column(windows: Windows) -> pa.Array:
    return windows.selection.column


def runs(starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return runs of whole numbers one after the other, from each start on; and their sizes.

    >>> runs(np.array([5, 0, 2]), np.array([2, 0, 1]))[0].tolist()
    [5, 6, 2]
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    places: np.ndarray = np.repeat(starts - (ends - sizes), sizes) + np.arange(total)
    return places, sizes


def since(windows: Windows, moments: np.ndarray, unit: int, *, oldest: bool) -> pa.Array:
    """Return the time from the oldest or newest event of each window to a moment, in a unit.

    Args:
        windows: The windows.
        moments: The moment to which time is counted, for each window, in microseconds.
        unit: The unit in microseconds.
        oldest: Whether it is the oldest event, or the newest.
    """
    t, empty = windows.selection.t, windows.empty
    if not len(t):
        return pa.nulls(len(empty), pa.float64())
    places = np.where(empty, 0, windows.start if oldest else windows.stop - 1)
    # An event of the window is not after the moment, so the difference fits in 64 bits without a sign.
    elapsed = np.where(empty, 0, moments - t[places]).view(np.uint64)
    return pa.array(elapsed / unit, mask=empty)
