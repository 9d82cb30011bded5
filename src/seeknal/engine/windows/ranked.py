"""Results that depend on the order of the values in a window: quantiles, and the largest and smallest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows import limits, quotients, tops
from seeknal.engine.windows.blocks import blocks
from seeknal.engine.windows.levels import kth
from seeknal.engine.windows.limbs import Numbers, rounded, width_for
from seeknal.engine.windows.order import ValueOrder
from seeknal.engine.windows.selection import Selection, Windows
from seeknal.engine.windows.spans import stays

_FEW = 8
"""So many of the largest or smallest values are found by as many rounds over all events."""


def _smallest(windows: Windows, order: ValueOrder, k: np.ndarray) -> np.ndarray:
    """Return the position of the event with the k-th smallest value of each window.

    Args:
        windows: The windows.
        order: The order of the values.
        k: For each window some numbers from 0 on, less than the number of its events; of an empty window they mean nothing.
    """
    found = np.zeros(k.shape, np.int64)
    for block in blocks(order.segment, windows):
        which = np.concatenate([np.arange(*piece) for piece in block.pieces])
        which = which.compress(windows.stop[which] > windows.start[which])
        start, stop = windows.start[which] - block.low, windows.stop[which] - block.low
        positions, edges = order.segments(block.low, block.high)
        # The rank of an event is its place by value within the segment.
        begins = np.repeat(edges[:-1], np.diff(edges))
        ranks = np.empty(len(begins), np.int64)
        ranks[positions] = np.arange(len(begins))
        ranks -= begins
        bits = int(np.diff(edges).max(initial=1) - 1).bit_length()
        answers = _asked_once(ranks, bits, (start, stop), k[:, which])
        found[:, which] = block.low + positions[begins[start] + answers]
    return found


def _asked_once(ranks: np.ndarray, bits: int, bounds: tuple[np.ndarray, np.ndarray], k: np.ndarray) -> np.ndarray:
    """Return the k-th smallest ranks, some for each window; of equal k one after the other, only the first is looked for."""
    is_new = np.ones(k.shape, bool)
    is_new[1:] = k[1:] != k[:-1]
    asked = np.flatnonzero(is_new)
    window = asked % k.shape[1] if len(asked) else asked
    found = np.empty(k.size, np.int64)
    found[asked] = kth(ranks, bits, (bounds[0][window], bounds[1][window]), k.ravel()[asked])
    answers: np.ndarray = found.reshape(k.shape)
    for i in range(1, len(k)):
        answers[i] = np.where(is_new[i], answers[i], answers[i - 1])
    return answers


def quantile(windows: Windows, order: ValueOrder, q: float) -> pa.Array:
    """Return a quantile of each window: the value at place q * (n - 1), interpolated between its neighbours."""
    place = q * np.maximum(windows.count - 1, 0)
    below = np.floor(place).astype(np.int64)
    part = place - below
    # Both neighbours are asked for at once, as most of the work is done once for all questions.
    low, high = _smallest(windows, order, np.stack([below, below + (part > 0)]))
    found = np.zeros(len(windows.start))
    which = np.flatnonzero(~windows.empty)
    found[which] = _between(windows.selection, low[which], high[which], part[which])
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
    n = int(sizes.max(initial=0))
    keys = windows.selection.keys
    found = _few(windows, order, n, largest=largest) if n <= _FEW else _many(windows, order, n, largest=largest)
    return limits.lists(keys.decode(keys.numbers[found.T[np.arange(n) < sizes[:, None]]]), sizes)


def _few(windows: Windows, order: ValueOrder, n: int, *, largest: bool) -> np.ndarray:
    """Return the positions of the n largest or smallest values of each window, by as many rounds."""
    found = np.zeros((n, len(windows.start)), np.int64)
    for block in blocks(order.segment, windows):
        positions = order.positions[block.low : block.high] - block.low
        positions = positions[::-1] if largest else positions
        for first, end in block.pieces:
            enter, leave = (bound[positions] for bound in stays(*block.local(windows, (first, end)), len(positions)))
            kept = np.flatnonzero(enter < leave)
            enter, leave = enter[kept], leave[kept]
            rounds = tops.best(enter, leave, np.zeros(len(kept), np.int64), end - first, n if len(kept) else 0)
            for i, number in enumerate(rounds):
                found[i, first:end] = positions[kept[number]] + block.low
    return found


def _many(windows: Windows, order: ValueOrder, n: int, *, largest: bool) -> np.ndarray:
    """Return what `_few` does, by looking for each value of a window by itself."""
    k = np.minimum(np.arange(n)[:, None], np.maximum(windows.count - 1, 0))
    return _smallest(windows, order, windows.count - 1 - k if largest else k)
