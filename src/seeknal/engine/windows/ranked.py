"""Results that depend on the order of the values in a window: quantiles, the largest and smallest, and counts of distinct values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows import limits, quotients
from seeknal.engine.windows.ends import runs
from seeknal.engine.windows.levels import count_below, kth
from seeknal.engine.windows.limbs import Numbers, rounded, width_for
from seeknal.engine.windows.order import ValueOrder
from seeknal.engine.windows.selection import Selection, Windows


def _smallest(windows: Windows, order: ValueOrder, which: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the position of the event with the k-th smallest value of a window.

    Args:
        windows: The windows.
        order: The order of the values.
        which: The window of each question, which is not empty.
        k: The k of each question, from 0 on.
    """
    start, stop = windows.start[which], windows.stop[which]
    ranks = kth(order.ranks, order.bits, (start, stop), k)
    positions: np.ndarray = order.positions[order.segment_start[start] + ranks]
    return positions


def quantile(windows: Windows, order: ValueOrder, q: float) -> pa.Array:
    """Return a quantile of each window: the value at place q * (n - 1), interpolated between its neighbours."""
    which = np.flatnonzero(~windows.empty)
    place = q * (windows.count[which] - 1)
    below = np.floor(place).astype(np.int64)
    part = place - below
    # Both neighbours are asked for at once, as most of the work is done once for all questions.
    between = np.flatnonzero(part > 0)
    places = _smallest(windows, order, np.append(which, which[between]), np.append(below, below[between] + 1))
    low = places[: len(which)]
    high = low.copy()
    high[between] = places[len(which) :]
    found = np.zeros(len(windows.start))
    found[which] = _between(windows.selection, low, high, part)
    return pa.array(found, mask=windows.empty)


def _between(selection: Selection, low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the value at a part of the way from that of one event to that of another."""
    numbers: Numbers = selection.numbers
    if is_.is_decimal(selection.kind):
        width = width_for(1)
        limbs = list(numbers.limbs(width))[::-1]
        return quotients.between([one[low] for one in limbs], [one[high] for one in limbs], width, part, numbers.scale)
    values = _floats(numbers)
    return _interpolated(values[low], values[high], part)


def _interpolated(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        apart = high - low
        # From the nearer side, as NumPy does: from the other one, a small `high` would be lost beside a large `low`.
        found = np.where(part < 0.5, low + apart * part, high - apart * (1 - part))  # noqa: PLR2004 - the middle
        # Where the difference is beyond the largest float, the weighted mean is not.
        found = np.where(np.isinf(apart), low * (1 - part) + high * part, found)
    return np.where((part == 0) | (low == high), low, found)


def _floats(numbers: Numbers) -> np.ndarray:
    """Return numbers as floats."""
    if numbers.floats is not None:
        return (numbers.floats if numbers.special is None else numbers.special) + 0.0
    width = width_for(1)
    floats, power = rounded(list(numbers.limbs(width))[::-1], width)
    return floats if isinstance(power, int) else np.ldexp(floats, power)


def extreme_n(windows: Windows, order: ValueOrder, n: int, *, largest: bool) -> pa.Array:
    """Return the n largest values of each window, the largest first, or the n smallest, the smallest first."""
    sizes = np.minimum(windows.count, n)
    limits.check_size(int(sizes.sum()))
    which = np.repeat(np.arange(len(sizes)), sizes)
    k, _ = runs(np.zeros_like(sizes), sizes)
    if largest:
        k = windows.count[which] - 1 - k
    positions = _smallest(windows, order, which, k)
    keys = windows.selection.keys
    return limits.lists(keys.decode(keys.numbers[positions]), sizes)


def distinct(windows: Windows, order: ValueOrder) -> pa.Array:
    """Return the number of distinct values of each window.

    An event counts if no event before it in the window has its value: if the last one of its value is before the window.
    """
    if not order.size:
        return pa.array(windows.count)
    which = np.flatnonzero(~windows.empty)
    start, stop = windows.start[which], windows.stop[which]
    # `previous` is a position within the segment plus one, so it is at most the start within the segment.
    bound = start - order.segment_start[start] + 1
    found = np.zeros(len(windows.start), np.int64)
    bits = int(max(order.previous.max(), bound.max(initial=0))).bit_length()
    found[which] = count_below(order.previous, bits, (start, stop), bound)
    return pa.array(found)
