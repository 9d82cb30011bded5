"""Exact sums: each number is cut into limbs, whole numbers of few bits, and the limbs are added up as integers.

The sum of a window is then the difference of two prefix sums, limb by limb, whatever the size of the window, and no bit is lost.
It is rounded once, when the limbs of a result are put together. Integers add up to the same in any order, and so do these sums.
This is Kulisch's long accumulator in the form of Demmel and Hida ("Accurate and efficient floating point summation", 2003) and of
Neal ("Fast exact summation using small and large superaccumulators", 2015), with as many limbs as the column's range needs.

For example, with a width of 4 bits, the numbers 300 and 21 are the limbs (12, 2, 1) and (5, 1, 0), lowest first:
300 = 12 + 2 * 16 + 1 * 256. Their sums (17, 3, 1) are 17 + 3 * 16 + 256 = 321; to carry makes them (1, 4, 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows.decimals import words_of

_WORD = 64
_BITS = 62
"""Bits of a sum of limbs, so that neither it nor a carry overflows 64 bits with a sign."""
_MANTISSA = 53
_WHOLE = 2.0**_MANTISSA


@dataclass(frozen=True)
class Numbers:
    """Numbers in the form in which they are cut: words of whole numbers, or floats.

    Args:
        low: The low words of whole numbers, as int64.
        high: The high words of those with 128 bits.
        floats: Floats, with 0 in place of those that are not finite.
        special: The floats, if some are not finite.
        scale: The power of ten by which the whole numbers are too large, as those of decimals are.
    """

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    floats: np.ndarray | None = None
    special: np.ndarray | None = None
    scale: int = 0

    @staticmethod
    def of(values: pa.Array) -> Numbers:
        """Return the numbers of a column of numbers or bools without nulls."""
        kind = values.type
        if is_.is_floating(kind):
            floats = values.cast(pa.float64()).to_numpy()
            finite = np.isfinite(floats)
            return (
                Numbers(floats=floats)
                if finite.all()
                else Numbers(floats=np.where(finite, floats, 0.0), special=floats)
            )
        if is_.is_decimal(kind):
            low, high = words_of(values)
            return Numbers(low, None if np.array_equal(high, low >> 63) else high, scale=kind.scale)
        if kind == pa.uint64():
            low = values.to_numpy().view(np.int64)
            return Numbers(low, np.zeros_like(low) if (low < 0).any() else None)
        return Numbers(
            (values.cast(pa.int8()) if is_.is_boolean(kind) else values).to_numpy().astype(np.int64, copy=False)
        )

    @cached_property
    def bits(self) -> int:
        """The bits of the largest number, in units of 2**exponent."""
        if self.floats is not None:
            return self._range[1]
        high = self.low if self.high is None else self.high
        return _length(high) + (0 if self.high is None else _WORD)

    @property
    def exponent(self) -> int:
        """The power of two that is the unit of the lowest limb."""
        return 0 if self.floats is None else self._range[0]

    @cached_property
    def _range(self) -> tuple[int, int]:
        """The unit of all floats as a power of two, and the bits of the largest in this unit."""
        size = np.abs(self.floats[self.floats != 0])  # type: ignore[index]  # only asked of floats
        if not len(size):
            return 0, 1
        # frexp returns a mantissa below 1: the largest is below 2**top, and the last bit of the least is 2**(bottom - 53).
        (_, top), (_, bottom) = np.frexp(size.max()), np.frexp(size.min())
        unit = max(int(bottom) - _MANTISSA, -1074)
        if unit < 0 and top <= _MANTISSA and np.array_equal(size, np.rint(size)):
            unit = 0  # whole numbers, kept as floats, need no bits below 1
        return unit, int(top) - unit

    def limbs(self, width: int) -> Iterator[np.ndarray]:
        """Go through the limbs, the highest first. Only the highest of whole numbers has a sign; all limbs of a float have its sign."""
        last = max(-(-self.bits // width), 1) - 1
        if self.floats is not None:
            yield from self._limbs_of_floats(width, last)
            return
        for place in range(last, -1, -1):
            shifted = self._shifted(place * width)
            yield shifted if place == last else shifted & ((1 << width) - 1)

    def _shifted(self, by: int) -> np.ndarray:
        """Return the low 64 bits of the whole numbers, shifted to the right."""
        low, high = self.low, self.high
        assert low is not None  # noqa: S101 - for mypy: only asked of whole numbers
        if high is None:
            return low >> min(by, _WORD - 1)
        if by >= _WORD:
            return high >> min(by - _WORD, _WORD - 1)
        if by == 0:
            return low
        # The bits that come down from the high word; those of the low word come down without its sign.
        return (high << (_WORD - by)) | ((low >> by) & ((1 << (_WORD - by)) - 1))

    def _limbs_of_floats(self, width: int, last: int) -> Iterator[np.ndarray]:
        unit, rest = self.exponent, self.floats
        assert rest is not None  # noqa: S101 - for mypy: only asked of floats
        for place in range(last, -1, -1):
            # A power of two only shifts, and what is cut off is a float again: all three operations are exact.
            limb = np.trunc(scaled(rest, -unit - place * width))
            yield limb.astype(np.int64)
            if place:
                rest = rest - scaled(limb, unit + place * width)


def _length(words: np.ndarray | None) -> int:
    """Return how many bits the words have, without the sign."""
    if words is None or not len(words):
        return 1
    return max(int(words.max()).bit_length(), (~int(words.min())).bit_length(), 1)


def scaled(values: np.ndarray, power: int) -> np.ndarray:
    """Return floats times a power of two, exactly if the result is a float."""
    near: np.ndarray = values * 2.0**power if abs(power) < 1000 else np.ldexp(values, power)  # noqa: PLR2004 - safe powers
    return near


def width_for(count: int) -> int:
    """Return the width of limbs of which this many can be added in 64 bits."""
    return _BITS - max(count, 1).bit_length()


def prefix(limb: np.ndarray) -> np.ndarray:
    """Return the sum of the first i limbs, for each i from 0 on.

    A prefix sum may wrap around; the difference of two is right if it has 63 bits, since both wrap by multiples of 2**64.
    """
    sums = np.zeros(len(limb) + 1, np.int64)
    np.cumsum(limb, out=sums[1:])
    return sums


def carry(limbs: list[np.ndarray], width: int) -> list[np.ndarray]:
    """Return the same numbers with limbs from 0 up to 2**width, except the highest, which takes the rest and the sign."""
    found: list[np.ndarray] = []
    over: np.ndarray | int = 0
    for limb in limbs[:-1]:
        whole = limb + over
        over = whole >> width
        whole &= (1 << width) - 1  # in two's complement this is the remainder of a division that rounds down
        found.append(whole)
    return [*found, limbs[-1] + over]


def rounded(limbs: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray | int]:
    """Return the float nearest to each number as a float and a power of two to multiply it with.

    Args:
        limbs: The limbs, the lowest first, carried.
        width: Their width.
    """
    if len(limbs) == 1:
        return limbs[0].astype(np.float64), 0
    low, high = limbs[0], limbs[-1]
    if len(limbs) == 2 and width <= _MANTISSA and np.abs(high).max(initial=0) < _WHOLE:  # noqa: PLR2004 - both exact as floats
        return high * 2.0**width + low, 0  # the product is exact, so only the addition rounds
    negative = high < 0
    size = carry([np.where(negative, -limb, limb) for limb in limbs], width)
    # The highest 62 bits are collected, and a last bit that says whether anything is below: they round as the whole number does.
    top, power = size[-1], np.full(len(high), width * (len(size) - 1))
    is_full, has_rest = np.zeros(len(high), bool), np.zeros(len(high), bool)
    for limb in reversed(size[:-1]):
        # frexp may return one bit too many for a number that rounds up, which leaves 61 bits: still more than 53.
        room = np.where(is_full, 0, np.clip(_BITS - np.frexp(top.astype(np.float64))[1], 0, width))
        top = (top << room) | (limb >> (width - room))
        has_rest |= (limb & ((np.int64(1) << (width - room)) - 1)) != 0
        is_full |= room < width
        power -= room
    size_of = (top | has_rest).astype(np.float64)
    return np.where(negative, -size_of, size_of), power
