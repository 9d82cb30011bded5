"""Order statistics of any part of a sequence: its k-th smallest number, whatever the length of the part.

The numbers are looked at two bits at a time, the highest first. Each level sorts them by these two bits, and otherwise keeps their
order. So the part [low, high) of a level becomes four parts, one for each digit, whose bounds follow from how many numbers before
low and high have the digit. A question costs two looks per level. This is the wavelet matrix of Claude, Navarro and Ordonez ("The
wavelet matrix", 2015) with four digits instead of two, for all questions at once, so that only one level is kept.

For example, the second smallest (k = 1) of the part 2, 0, 3 of the sequence 1, 2, 0, 3, with one bit at a time:

    level   sequence     part      digits of it   k-th is among the
    2**1    1, 2, 0, 3   2, 0, 3   1, 0, 1        ones, as k = 0: one number has the digit 0
    2**0    1, 0, 2, 3   2, 3      0, 1           zeros: the answer is 2
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_AT_ONCE = 2**13
"""Questions at a time: few enough for the processor's cache."""
_MOST = 2**16 - 1
"""Counts up to this one fit in a field of 16 bits, so that one number of 64 bits has the counts of all four digits."""
_MASK = 2**16 - 1
_EACH = 1 + (1 << 16) + (1 << 32) + (1 << 48)
_BEFORE = (1 << 16) + (1 << 32) + (1 << 48)
"""Times this, each field is the sum of those below it."""
_BYTES = np.uint32(0x01010101)


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
    count, step, width = (_count_four, _by_four, 2) if len(numbers) <= _MOST else (_count_zeros, _by_two, 1)
    # Memory that is used again need not be asked for again, which takes longer than to count.
    memory, counts = np.empty(len(numbers), np.int64), np.empty(len(numbers) + 1, np.int64)
    for shift, digits in _levels(numbers, bits, width):
        count(digits, memory, counts)
        for first in range(0, len(low), _AT_ONCE):
            here = slice(first, first + _AT_ONCE)
            found[here] |= step(counts, low[here], high[here], left[here]) << shift
    return found


def _levels(numbers: np.ndarray, bits: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Go through the levels, each with the place of its bits, and the digits of the numbers as the level has them."""
    numbers = numbers.astype(np.uint16 if bits <= 16 else np.int64)  # noqa: PLR2004 - bits
    for shift in range((max(bits, 1) - 1) // width * width, -1, -width):
        digits = (numbers >> shift).astype(np.uint8) & (2**width - 1)
        yield shift, digits
        if shift:
            numbers = np.concatenate([numbers.compress(digits == digit) for digit in range(2**width)])


def _count_four(digits: np.ndarray, memory: np.ndarray, counts: np.ndarray) -> None:
    """Note, for each i, where on the next level the number i comes if it has this digit: one field of 16 bits for each digit."""
    np.left_shift(digits, 4, out=memory, dtype=np.int64)
    np.left_shift(1, memory, out=memory)
    counts[0] = 0
    np.cumsum(memory, out=counts[1:])
    counts += counts[-1:] * _BEFORE


def _by_four(counts: np.ndarray, low: np.ndarray, high: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the digits of the answers, and make parts and k those of the next level.

    Args:
        counts: What `_count_four` notes.
        low: Where the parts begin.
        high: Where they end.
        left: The k of each part.
    """
    before = counts[low]
    within = counts[high] - before
    below = within * _BEFORE
    # All four fields are compared at once. The first is 0, and each that is not above k is one digit more.
    is_up_to = below.view(np.uint16) <= (left * _EACH).view(np.uint16)
    digit: np.ndarray = ((is_up_to.view(np.uint32) * _BYTES) >> 24).astype(np.int64) - 1
    field = digit << 4
    left -= (below >> field) & _MASK
    np.right_shift(before, field, out=low)
    low &= _MASK
    np.right_shift(within, field, out=high)
    high &= _MASK
    high += low
    return digit


def _count_zeros(digits: np.ndarray, memory: np.ndarray, counts: np.ndarray) -> None:
    """Note how many of the first i numbers have the digit 0, for each i."""
    np.equal(digits, 0, out=memory)
    counts[0] = 0
    np.cumsum(memory, out=counts[1:])


def _by_two(zeros: np.ndarray, low: np.ndarray, high: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Do as `_by_four` does, with one bit."""
    total, below, above = zeros[-1], zeros[low], zeros[high]
    is_one = left >= above - below
    left -= np.where(is_one, above - below, 0)
    low[:] = np.where(is_one, total + low - below, below)
    high[:] = np.where(is_one, total + high - above, above)
    digit: np.ndarray = is_one.astype(np.int64)
    return digit
