"""Order statistics of any part of a sequence: the k-th smallest, and how many are below a bound.

The numbers are looked at bit by bit, the highest first. Each level sorts them by the bit, zeros before ones, and otherwise keeps
their order. So the part [low, high) of a level becomes one part among the zeros and one among the ones, whose bounds follow from
the number of zeros before low and high. A question costs two looks per level, whatever the length of its part. This is the wavelet
matrix of Claude, Navarro and Ordonez ("The wavelet matrix", 2015), for all questions at once, so that only one level is kept.

For example, the second smallest (k = 1) of the part 2, 0, 3 of the sequence 1, 2, 0, 3:

    level   sequence     part      zeros in it   k-th is among the
    2**1    1, 2, 0, 3   2, 0, 3   1 (the 0)     ones, as k = 0: it has the bit 2**1
    2**0    1, 0, 2, 3   2, 3      1 (the 2)     zeros: the answer is 2
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_AT_ONCE = 2**16
"""Questions at a time: few enough for the processor's cache."""


def _levels(numbers: np.ndarray, bits: int) -> Iterator[tuple[int, np.ndarray]]:
    """Go through the levels: the bit, and how many of the first i numbers of the level have it not, for each i."""
    numbers = numbers.astype(np.int32 if bits < 32 else np.int64)  # noqa: PLR2004 - bits with a sign
    for bit in range(bits - 1, -1, -1):
        is_one = (numbers & (1 << bit)) != 0
        zeros = np.zeros(len(numbers) + 1, np.int32 if len(numbers) < 2**31 else np.int64)
        np.cumsum(~is_one, out=zeros[1:])
        yield bit, zeros
        if bit:
            numbers = np.concatenate([numbers[~is_one], numbers[is_one]])


def kth(numbers: np.ndarray, bits: int, bounds: tuple[np.ndarray, np.ndarray], k: np.ndarray) -> np.ndarray:
    """Return the k-th smallest number of parts of a sequence, from 0 on.

    Args:
        numbers: The sequence, of numbers below 2**bits.
        bits: The bits of its numbers.
        bounds: Where each part begins, and where it ends.
        k: Which number of each part, less than its length.
    """
    low, high, left = bounds[0].copy(), bounds[1].copy(), k.copy()
    found = np.zeros(len(low), np.int64)
    for bit, zeros in _levels(numbers, bits):
        total = int(zeros[-1])
        for first in range(0, len(low), _AT_ONCE):
            here = slice(first, first + _AT_ONCE)
            below, above = zeros[low[here]], zeros[high[here]]
            is_one = left[here] >= above - below
            left[here] -= np.where(is_one, above - below, 0)
            low[here] = np.where(is_one, total + low[here] - below, below)
            high[here] = np.where(is_one, total + high[here] - above, above)
            found[here] |= is_one.astype(np.int64) << bit
    return found


def count_below(numbers: np.ndarray, bits: int, bounds: tuple[np.ndarray, np.ndarray], bound: np.ndarray) -> np.ndarray:
    """Return how many numbers of each part are below its bound, which is below 2**bits; the rest is as for `kth`."""
    low, high = bounds[0].copy(), bounds[1].copy()
    found = np.zeros(len(low), np.int64)
    for bit, zeros in _levels(numbers, bits):
        total = int(zeros[-1])
        for first in range(0, len(low), _AT_ONCE):
            here = slice(first, first + _AT_ONCE)
            below, above = zeros[low[here]], zeros[high[here]]
            is_one = (bound[here] >> bit) & 1 != 0
            found[here] += np.where(is_one, above - below, 0)
            low[here] = np.where(is_one, total + low[here] - below, below)
            high[here] = np.where(is_one, total + high[here] - above, above)
    return found
