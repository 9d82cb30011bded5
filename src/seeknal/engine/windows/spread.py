"""Variances, skewness and kurtosis, exact before the last roundings.

The sums S1 to S4 of the powers of the values are whole numbers, exact by prefix sums of digits. So are the central moments, times
a power of the count n:

    n**2 * m2 = n * S2 - S1**2
    n**3 * m3 = n**2 * S3 - 3 * n * S1 * S2 + 2 * S1**3
    n**4 * m4 = n**3 * S4 - 4 * n**2 * S1 * S3 + 6 * n * S1**2 * S2 - 3 * S1**4

Nothing cancels, and no event of a window is visited. For example, the values 4, 5, 9 have n = 3, S1 = 18 and S2 = 122: then
n**2 * m2 is 3 * 122 - 18**2 = 42, and the variance of the sample 42 / (3 * 2) = 7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pyarrow as pa

from seeknal.engine.windows.digits import BASE, Digits, add, multiply, normal, product, square
from seeknal.engine.windows.limbs import prefix, rounded
from seeknal.engine.windows.selection import Selection, Windows

_AT_ONCE = 2**18
"""Digits of events or results at a time: few enough for the processor's cache."""


class Powers:
    """Sums of the powers of the values of windows.

    Args:
        selection: The values.
    """

    def __init__(self, selection: Selection) -> None:
        self._numbers = selection.numbers
        self.scale, self.unit = self._numbers.scale, self._numbers.exponent
        self.step = max(_AT_ONCE // max(self._numbers.bits // BASE + 1, 1), 2**10)
        """How many numbers are worked on at a time."""

    @cached_property
    def _digits(self) -> Digits:
        return list(self._numbers.limbs(BASE))[::-1]

    @cached_property
    def special(self) -> np.ndarray | None:
        """How many of the first i values are not finite, for each i; None if all are."""
        values = self._numbers.special
        return None if values is None else prefix(~np.isfinite(values))

    @cached_property
    def first(self) -> Digits:
        """The prefix sums of the values."""
        return [prefix(digit) for digit in self._digits]

    @cached_property
    def second(self) -> Digits:
        """The prefix sums of their squares."""
        return self._summed(square)

    @cached_property
    def third(self) -> Digits:
        """The prefix sums of their cubes."""
        return self._summed(lambda digits: multiply(square(digits), digits))

    @cached_property
    def fourth(self) -> Digits:
        """The prefix sums of their fourth powers."""
        return self._summed(lambda digits: square(square(digits)))

    def _summed(self, power: Callable[[Digits], Digits]) -> Digits:
        size = len(self._digits[0])
        parts = [
            power(normal([digit[first : first + self.step] for digit in self._digits]))
            for first in range(0, max(size, 1), self.step)
        ]
        return [prefix(np.concatenate([part[i] for part in parts])) for i in range(len(parts[0]))]


def _within(sums: Digits, windows: Windows) -> Digits:
    """Return the sums of windows: of up to 2**23 digits they have 47 bits and so two digits, of up to 2**30 digits three."""
    more = 1 if windows.longest < 1 << BASE - 1 else 2
    return normal([digit[windows.stop] - digit[windows.start] for digit in sums], more)


def _central(powers: Powers, windows: Windows, order: int) -> tuple[Digits, Digits, Digits]:
    """Return n, n**2 * m2, and n**order * m_order for order 3 or 4 (else m2 again), of each window."""
    n = [windows.count] if windows.longest < 1 << BASE else normal([windows.count], more=1)
    s1, s2 = _within(powers.first, windows), _within(powers.second, windows)
    s11 = square(s1)
    second = add((1, multiply(n, s2)), (-1, s11))
    if order < 3:  # noqa: PLR2004 - the order is that of the moment
        return n, second, second
    s3, nn = _within(powers.third, windows), square(n)
    if order == 3:  # noqa: PLR2004
        return n, second, add((1, multiply(nn, s3)), (-3, product(n, s1, s2)), (2, multiply(s11, s1)))
    s4 = _within(powers.fourth, windows)
    fourth = add((1, product(nn, n, s4)), (-4, product(nn, s1, s3)), (6, product(n, s11, s2)), (-3, square(s11)))
    return n, second, fourth


def _float(digits: Digits, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers as floats and powers of two; `unit` is the power of two of their lowest bit."""
    # Two digits make one limb, which halves the work.
    pairs = [*digits, *([np.zeros_like(digits[-1])] if len(digits) % 2 else [])]
    limbs = [low + (high << BASE) for low, high in zip(pairs[0::2], pairs[1::2], strict=True)]
    floats, power = rounded(limbs, 2 * BASE)
    powers: np.ndarray = np.broadcast_to(power, floats.shape) + unit
    return floats, powers


def variance(windows: Windows, powers: Powers, ddof: int, *, root: bool) -> pa.Array:
    """Return the variance of each window, or its root, the standard deviation; null below ddof + 1 values."""

    def of(part: Windows) -> np.ndarray:
        _, second, _ = _central(powers, part, 2)
        size, power = _float(second, 2 * powers.unit)
        # The power is applied last, and is even for a root, so that nothing overflows or vanishes on the way.
        odd = power & 1
        found = np.ldexp(size, odd) / np.maximum(part.count * (part.count - ddof), 1)
        power = power - odd
        result: np.ndarray = np.ldexp(np.sqrt(found), power // 2) if root else np.ldexp(found, power)
        return result

    found = _in_parts(windows, powers, of) / 10.0 ** (powers.scale * (1 if root else 2))
    return _finished(windows, powers, found, ddof + 1)


def skewness(windows: Windows, powers: Powers) -> pa.Array:
    """Return the skewness of each window; null below three values, and where all are equal."""

    def of(part: Windows) -> np.ndarray:
        _, second, third = _central(powers, part, 3)
        (two, two_power), (three, three_power) = _float(second, 2 * powers.unit), _float(third, 3 * powers.unit)
        odd = two_power & 1
        two, two_power = np.ldexp(two, odd), two_power - odd
        found = three / np.where(two > 0, two * np.sqrt(two), 1)
        # n cancels: (n**3 * m3) / (n**2 * m2) ** 1.5. Where two is 0, there is no skewness.
        return np.where(two > 0, np.ldexp(found, three_power - two_power // 2 * 3), np.inf)

    found = _in_parts(windows, powers, of)
    return _finished(windows, powers, found, 3, are_equal=found == np.inf)


def kurtosis(windows: Windows, powers: Powers) -> pa.Array:
    """Return the excess kurtosis of each window; null below four values, and where all are equal."""

    def of(part: Windows) -> np.ndarray:
        _, second, fourth = _central(powers, part, 4)
        squared = square(second)
        below, above = _float(squared, 0), _float(add((1, fourth), (-3, squared)), 0)
        found = above[0] / np.where(below[0] > 0, below[0], 1)
        return np.where(below[0] > 0, np.ldexp(found, above[1] - below[1]), np.inf)

    found = _in_parts(windows, powers, of)
    return _finished(windows, powers, found, 4, are_equal=found == np.inf)


def _in_parts(windows: Windows, powers: Powers, of: Callable[[Windows], np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore"):  # a variance beyond the largest float is infinite
        parts = [of(windows.part(i, i + powers.step)) for i in range(0, max(len(windows.start), 1), powers.step)]
    return np.concatenate(parts)


def _finished(
    windows: Windows, powers: Powers, found: np.ndarray, least: int, are_equal: np.ndarray | None = None
) -> pa.Array:
    """Return the results, null below so many values or where all are equal, and NaN where a value is not finite."""
    is_null = np.zeros(len(found), bool) if are_equal is None else are_equal
    if powers.special is not None:
        not_finite = powers.special[windows.stop] > powers.special[windows.start]
        found, is_null = np.where(not_finite, np.nan, found), is_null & ~not_finite
    return pa.array(found, mask=is_null | (windows.count < least))
