"""Results that depend on the order of the values in a window: quantiles, and the largest and smallest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows import limits, quotients, tops
from seeknal.engine.windows.blocks import Block, blocks
from seeknal.engine.windows.ends import runs
from seeknal.engine.windows.levels import kth
from seeknal.engine.windows.limbs import Numbers, rounded, width_for
from seeknal.engine.windows.order import ValueOrder
from seeknal.engine.windows.selection import Selection, Windows
from seeknal.engine.windows.spans import stays

# What takes how long for the largest or smallest values, in nanoseconds: for each event and run of windows, to find where it enters
# and leaves, and a round; for each window, a round; for each event, the levels of its value; and for each value that is looked for, the way down the levels.
_SPANS, _ROUND, _WINDOW, _LEVELS, _QUESTION = 10, 4, 30, 25, 70


def quantile(windows: Windows, order: ValueOrder, q: float) -> pa.Array:
    """Return a quantile of each window: the value at place q * (n - 1), interpolated between its neighbours."""
    place = q * np.maximum(windows.count - 1, 0)
    below = np.floor(place).astype(np.int64)
    part = place - below
    low, high = np.zeros((2, len(place)), np.int64)
    for block in blocks(order.segment, windows):
        which = np.concatenate([np.arange(*piece) for piece in block.pieces])
        which = which.compress(windows.stop[which] > windows.start[which])
        between = which.compress(part[which] > 0)
        # Both neighbours are asked for at once, as most of the work is done once for all questions.
        asked = np.append(which, between), np.append(below[which], below[between] + 1)
        found = _smallest(windows, order, block, *asked)
        low[which] = high[which] = found[: len(which)]
        high[between] = found[len(which) :]
    result = np.zeros(len(place))
    which = np.flatnonzero(~windows.empty)
    result[which] = _between(windows.selection, low[which], high[which], part[which])
    return pa.array(result, mask=windows.empty)


def _smallest(windows: Windows, order: ValueOrder, block: Block, which: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the position of the event with the k-th smallest value of a window.

    Args:
        windows: The windows.
        order: The order of the values.
        block: The block of all windows that are asked for.
        which: The window of each question, which is not empty.
        k: The k of each question, from 0 on, less than the number of the window's events.
    """
    start, stop = windows.start[which] - block.low, windows.stop[which] - block.low
    positions, edges = order.segments(block.low, block.high)
    # The rank of an event is its place by value within the segment.
    begins = np.repeat(edges[:-1], np.diff(edges))
    ranks = np.empty(len(begins), np.int64)
    ranks[positions] = np.arange(len(begins))
    ranks -= begins
    bits = int(np.diff(edges).max(initial=1) - 1).bit_length()
    found: np.ndarray = block.low + positions[begins[start] + kth(ranks, bits, (start, stop), k)]
    return found


def floats_of(selection: Selection) -> np.ndarray:
    """Return the float nearest to each value of a selection."""
    every = np.arange(len(selection.segment))
    return _between(selection, every, every, np.zeros(len(every)))


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
    begins = np.cumsum(sizes) - sizes
    found = np.zeros(int(sizes.sum()), np.int64)
    for block in blocks(order.segment, windows):
        which = np.concatenate([np.arange(*piece) for piece in block.pieces])
        events, rounds, asked = block.high - block.low, int(sizes[which].max(initial=0)), int(sizes[which].sum())
        cost = len(block.pieces) * events * (_SPANS + rounds * _ROUND) + len(which) * rounds * _WINDOW
        if cost < events * _LEVELS + asked * _QUESTION:
            for window, i, positions in _by_rounds(windows, order, block, rounds, largest=largest):
                is_wanted = sizes[window] > i
                found[begins[window][is_wanted] + i] = positions[is_wanted]
        else:
            windows_asked = np.repeat(which, sizes[which])
            k, _ = runs(np.zeros(len(which), np.int64), sizes[which])
            of = windows.count[windows_asked] - 1 - k if largest else k
            found[begins[windows_asked] + k] = _smallest(windows, order, block, windows_asked, of)
    keys = windows.selection.keys
    return limits.lists(keys.decode(keys.numbers[found]), sizes)


def _by_rounds(
    windows: Windows, order: ValueOrder, block: Block, n: int, *, largest: bool
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Go through windows of a block and numbers i below n, with the position of the i-th largest or smallest value of each window.

    Where a window has fewer values, the position means nothing.
    """
    positions = order.positions[block.low : block.high] - block.low
    positions = positions[::-1] if largest else positions
    for first, end in block.pieces:
        enter, leave = (bound[positions] for bound in stays(*block.local(windows, (first, end)), len(positions)))
        kept = np.flatnonzero(enter < leave)
        enter, leave = enter[kept], leave[kept]
        rounds = tops.best(enter, leave, np.zeros(len(kept), np.int64), end - first, n if len(kept) else 0)
        for i, number in enumerate(rounds):
            yield slice(first, end), i, positions[kept[number]] + block.low
