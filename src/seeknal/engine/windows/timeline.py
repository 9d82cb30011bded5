"""Where the window of each moment begins and ends among the sorted events, by binary search.

Entity and event time become one integer, as in `seeknal.engine.asof`. A window of length w at t has the events with
t - w < event time <= t, so both of its bounds are counts of the events at or before an instant.

For example, with two entities, event times from 10 to 30 and so 22 numbers of times (0 is for instants before 10):

    event   entity   t    code              moment (0, 25), length 10
    0       0        10   0 * 22 + 1 = 1    stop:  events up to code 16 (t = 25): 2
    1       0        20   0 * 22 + 11 = 11  start: events up to code 6 (t = 15):  1
    2       1        30   1 * 22 + 21 = 43  the window has event 1
"""

from __future__ import annotations

import numpy as np

from seeknal.engine.windows.inputs import Events, Moments

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)
_MOST_SLICES = 64


class Timeline:
    """The events of some entities in time, and the moments that look at them.

    Args:
        events: The events.
        moments: The moments, in the order of the events.
        hop: Align the start of each window down to a multiple of this many microseconds since 1970 in UTC; None: do not.
    """

    def __init__(self, events: Events, moments: Moments, hop: int | None = None) -> None:
        self._moments, self._hop = moments, hop
        self._is_known = moments.entity >= 0
        self._found: dict[tuple[int, bool], np.ndarray] = {}
        self._size = len(events.t)
        self._ranks: np.ndarray | None = None
        if not self._size:
            return
        self._first, self._last = int(events.t.min()), int(events.t.max())
        entities = int(events.entity[-1]) + 1
        self._span = self._last - self._first + 2
        if self._span > _LARGEST or entities * self._span > _LARGEST * _MOST_SLICES:
            # Times too far apart are numbered by rank, which takes fewer numbers but a sort.
            self._ranks = np.unique(events.t)
            self._span = len(self._ranks) + 1
        # The codes of a slice of entities fit in 63 bits; there is one slice, unless the times are far apart.
        self._width = _LARGEST // self._span
        edges = np.array(range(0, entities + self._width, self._width))  # NumPy's arange rounds such numbers to floats
        self._entity = np.clip(moments.entity, 0, entities)
        self._slices = list(
            zip(
                *(np.searchsorted(side, edges[:-1]) for side in (events.entity, self._entity)),
                *(np.searchsorted(side, edges[1:]) for side in (events.entity, self._entity)),
                strict=True,
            )
        )
        self._codes = (events.entity % self._width) * self._span + self._numbers(events.t)

    def window(self, length: int | None, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the events of each moment's window, as the positions of its first event and of the first one after it.

        Args:
            length: The length of the window in microseconds; None: all events so far.
            shift: How many microseconds before the moment the window ends.
        """
        stop = self._count(shift, aligned=False)
        if length is None:
            return self._count(None, aligned=False), stop
        # The start is aligned down, never past the stop: an aligned start is at or before the start, which is before the end.
        return self._count(length + shift, aligned=self._hop is not None), stop

    def _count(self, shift: int | None, *, aligned: bool) -> np.ndarray:
        """Return how many events are at or before each moment less `shift`, with all events of entities before.

        None: how many are of entities before.
        """
        key = (-1 if shift is None else shift, aligned)
        if key not in self._found:
            found = np.zeros(len(self._moments.t), np.int64)
            if self._size:
                numbers = np.int64(0) if shift is None else self._numbers(self._instants(shift, aligned=aligned))
                asked = (self._entity % self._width) * self._span + numbers
                for first, low, end, high in self._slices:
                    found[low:high] = first + np.searchsorted(self._codes[first:end], asked[low:high], side="right")
                found[~self._is_known] = 0
            self._found[key] = found
        return self._found[key]

    def _instants(self, shift: int, *, aligned: bool) -> np.ndarray:
        """Return each moment less `shift`, aligned down if asked; both stop at the ends of 64 bits."""
        at: np.ndarray = np.maximum(self._moments.t, _SMALLEST + shift) - shift
        if aligned and self._hop is not None:
            at = np.maximum(at, _SMALLEST + self._hop) // self._hop * self._hop
        return at

    def _numbers(self, instants: np.ndarray) -> np.ndarray:
        """Return how many numbers of times are at or before these instants."""
        if self._ranks is not None:
            ranks: np.ndarray = np.searchsorted(self._ranks, instants, side="right")
            return ranks
        numbers: np.ndarray = np.clip(instants, self._first, self._last) - self._first
        return np.where(instants < self._first, 0, numbers + 1)
