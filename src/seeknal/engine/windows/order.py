"""The events of a selection sorted by entity and value, and what follows from it: groups of equal values, and ranks."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from seeknal.engine.windows.spans import Groups

_BITS = 63


class ValueOrder:
    """The positions of events, sorted by segment, then value, then position.

    For example, with one segment and the values 7, 5, 7:

        positions by value   1, 0, 2
        groups               0, 1, 1     the group of each of them
        rank                 1, 0, 2     of each event, in the order of the events

    Args:
        segment: The segment of each event, in ascending order.
        numbers: A number for each event's value, in the order of the values.
    """

    def __init__(self, segment: np.ndarray, numbers: np.ndarray) -> None:
        self.segment, self.numbers = segment, numbers
        self.size = len(segment)
        self.positions = _sorted(segment, numbers)

    def within(self, low: int, high: int) -> Groups:
        """Return the events of some segments by value."""
        segment = self.segment[low:high]
        inner = np.flatnonzero(segment[1:] != segment[:-1]) + 1
        edges = np.concatenate([[0], inner, [high - low]])
        return Groups(self.positions[low:high] - low, self.groups[low:high], edges)

    @cached_property
    def _begins(self) -> np.ndarray:
        """Whether a group begins, for each event by value."""
        segment, numbers = self.segment[self.positions], self.numbers[self.positions]
        found = np.ones(self.size, bool)
        found[1:] = (segment[1:] != segment[:-1]) | (numbers[1:] != numbers[:-1])
        return found

    @cached_property
    def groups(self) -> np.ndarray:
        """The number of the group of each event by value. A group has the events of one segment with equal values."""
        found: np.ndarray = np.cumsum(self._begins) - 1
        return found

    @cached_property
    def group_starts(self) -> np.ndarray:
        """Where each group begins among the events by value."""
        return np.flatnonzero(self._begins)

    @cached_property
    def places(self) -> np.ndarray:
        """Where each event is among the events by value."""
        found = np.empty(self.size, np.int64)
        found[self.positions] = np.arange(self.size)
        return found

    @cached_property
    def segment_start(self) -> np.ndarray:
        """The position of the first event of each event's segment."""
        is_first = np.ones(self.size, bool)
        is_first[1:] = self.segment[1:] != self.segment[:-1]
        starts = np.flatnonzero(is_first)
        return np.repeat(starts, np.diff(starts, append=self.size))

    @cached_property
    def ranks(self) -> np.ndarray:
        """The rank of each event within its segment, from 0 on, by value and then position."""
        # By segment, events have the same positions in both orders.
        ranks: np.ndarray = self.places - self.segment_start
        return ranks

    @cached_property
    def bits(self) -> int:
        """The bits of the greatest rank in a segment."""
        return int(self.ranks.max(initial=0)).bit_length()


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


def _sorted(segment: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    size = len(segment)
    if not size:
        return np.zeros(0, np.int64)
    least, greatest = int(numbers.min()), int(numbers.max())
    first, segments = int(segment[0]), int(segment[-1]) - int(segment[0]) + 1
    bits, span = size.bit_length(), greatest - least + 1
    if span > 4 * size:  # values far apart are ranked, so that they take fewer bits
        known, numbers = np.unique(numbers, return_inverse=True)
        least, span = 0, len(known)
    if (segments * span << bits).bit_length() > _BITS:
        order: np.ndarray = np.lexsort((numbers, segment))
        return order
    return sorted_positions((segment - first) * span + (numbers - least))
