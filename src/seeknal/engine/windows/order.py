"""The events of a selection sorted by entity and value, and the groups of equal values."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from seeknal.engine.windows.blocks import cuts
from seeknal.engine.windows.spans import Groups

_BITS = 63


class ValueOrder:
    """The positions of events, sorted by segment, then value, then position.

    For example, with one segment and the values 7, 5, 7:

        positions by value   1, 0, 2
        groups               0, 1, 1     the group of each of them

    Args:
        segment: The segment of each event, in ascending order.
        numbers: A number for each event's value, in the order of the values.
    """

    def __init__(self, segment: np.ndarray, numbers: np.ndarray) -> None:
        self.segment, self.numbers = segment, numbers
        self.size = len(segment)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The positions by value, and whether a group begins there."""
        positions, begins = np.empty(self.size, np.int64), np.ones(self.size, bool)
        bounds = cuts(self.segment)
        # Block by block, as the processor's cache has room for one.
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            segment, numbers = self.segment[low:high], self.numbers[low:high]
            order = _sorted(segment, numbers)
            numbers = numbers[order]  # by value, the segments are where they were
            begins[low + 1 : high] = (segment[1:] != segment[:-1]) | (numbers[1:] != numbers[:-1])
            np.add(order, low, out=positions[low:high])
        return positions, begins

    @property
    def positions(self) -> np.ndarray:
        """The positions by value."""
        return self._sorted[0]

    def segments(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions by value of the events of some segments, from 0 on, and where the segments begin and end."""
        segment = self.segment[low:high]
        inner = np.flatnonzero(segment[1:] != segment[:-1]) + 1
        return self.positions[low:high] - low, np.concatenate([[0], inner, [high - low]])

    def within(self, low: int, high: int) -> Groups:
        """Return the events of some segments by value."""
        positions, edges = self.segments(low, high)
        return Groups(positions, self.groups[low:high], edges)

    @cached_property
    def groups(self) -> np.ndarray:
        """The number of the group of each event by value. A group has the events of one segment with equal values."""
        found: np.ndarray = np.cumsum(self._sorted[1]) - 1
        return found

    @cached_property
    def group_starts(self) -> np.ndarray:
        """Where each group begins among the events by value."""
        return np.flatnonzero(self._sorted[1])


def sorted_positions(numbers: np.ndarray) -> np.ndarray:
    """Return the order of numbers from 0 on; equal ones stay in their order."""
    bits = len(numbers).bit_length()
    if (int(numbers.max(initial=0)) << bits).bit_length() > _BITS:
        return np.argsort(numbers, kind="stable")
    # NumPy sorts numbers several times faster than positions by them, so the position becomes the last part of the number.
    packed: np.ndarray = (numbers << bits) | np.arange(len(numbers))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def ranked(numbers: np.ndarray) -> np.ndarray:
    """Return numbers from 0 on in the same order: equal ones for equal ones, and no more different ones than there are."""
    order = np.argsort(numbers)
    known = numbers[order]
    found = np.zeros(len(numbers), np.int64)
    found[order[1:]] = np.cumsum(known[1:] != known[:-1])
    return found


def _sorted(segment: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    size = len(segment)
    if not size:
        return np.zeros(0, np.int64)
    least, greatest = int(numbers.min()), int(numbers.max())
    first, segments, span = int(segment[0]), int(segment[-1]) - int(segment[0]) + 1, greatest - least + 1
    if span > 4 * size:  # values far apart are ranked, so that they take fewer bits
        numbers, least = ranked(numbers), 0
        span = int(numbers.max()) + 1
    if segments * span >= 2**_BITS:
        order: np.ndarray = np.lexsort((numbers, segment))
        return order
    return sorted_positions((segment - first) * span + (numbers - least))
