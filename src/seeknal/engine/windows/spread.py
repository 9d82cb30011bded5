"""Variances, skewness and kurtosis, exact before the last roundings.

The sums S1 to S4 of the powers of the values are whole numbers, exact by prefix sums of digits. So are the central sums, times
a power of the count n:

    n**2 * m2 = n * S2 - S1**2
    n**3 * m3 = n**2 * S3 - 3 * n * S1 * S2 + 2 * S1**3
    n**4 * m4 = n**3 * S4 - 4 * n**2 * S1 * S3 + 6 * n * S1**2 * S2 - 3 * S1**4

Nothing is lost where these cancel, and no event of a window is visited. For example, the values 4, 5, 9 have n = 3, S1 = 18 and
S2 = 122: then n**2 * m2 is 3 * 122 - 18**2 = 42, and the variance of the sample 42 / (3 * 2) = 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from seeknal.engine.windows import doubles
from seeknal.engine.windows.digits import Digits, total
from seeknal.engine.windows.limbs import prefix
from seeknal.engine.windows.outliers import Bands, Parts
from seeknal.engine.windows.powers import Powers
from seeknal.engine.windows.selection import Selection, Windows

_WORD = 62
_MOST_BITS = 400
"""Bits of numbers, beyond which their squares might be too large for floats, and digits too many."""
_USES_DOUBLES = True
_ERROR = 2.0**-96
"""What numbers of two floats may be wrong by, relative to the largest of them: some units of 2**-104, and some more for safety."""


class PowerSums:
    """What the central moments of windows are computed from.

    Args:
        selection: The values.
    """

    def __init__(self, selection: Selection) -> None:
        numbers, self._special = selection.numbers, selection.numbers.special
        self.bands: Bands | None = None
        if numbers.floats is not None and numbers.bits > _MOST_BITS:
            self.bands = Bands(numbers.floats)
            numbers = replace(numbers, floats=self.bands.usual)
        self.powers = Powers(numbers, len(selection.t))

    @cached_property
    def special(self) -> np.ndarray | None:
        """How many of the first i values are not finite, for each i; None if all are."""
        return None if self._special is None else prefix(~np.isfinite(self._special))


def _central(sums: PowerSums, windows: Windows, order: int) -> tuple[Parts, Parts]:
    """Return n**2 * m2 and n**3 * m3 of each window, or for order 4 (n**2 * m2)**2 and n**4 * m4 less three times that."""
    powers = sums.powers
    found = _of_digits(powers, windows, order) if order > 2 else (_second(powers, windows),) * 2  # noqa: PLR2004
    if sums.bands is not None and len(which := sums.bands.windows(windows)):
        some = Windows(windows.selection, windows.start[which], windows.stop[which])
        for have, right in zip(found, sums.bands.central(powers, some, order), strict=True):
            have[0][which], have[1][which] = right
    return found


def _of_digits(powers: Powers, windows: Windows, order: int) -> tuple[Parts, Parts]:
    """Return what `_central` does, for windows without outliers; for order 2 the second as the first."""

    def digits(limbs: list[np.ndarray]) -> Digits:
        return Digits.of_limbs(limbs, 2 * powers.base)

    # Windows have less than 2**30 events, and limbs 30 bits or more.
    n = digits([windows.count])
    s1, s2 = digits(powers.within(powers.first, windows)), digits(powers.within(powers.second, windows))
    s11 = s1.squared()
    second = total((1, n * s2), (-1, s11))
    if order == 2:  # noqa: PLR2004 - the order is that of the moment
        return (_with_unit(second, 2 * powers.unit),) * 2
    s3, nn = digits(powers.within(powers.third, windows)), n.squared()
    if order == 3:  # noqa: PLR2004
        third = total((1, nn * s3), (-3, n * s1 * s2), (2, s11 * s1))
        return _with_unit(second, 2 * powers.unit), _with_unit(third, 3 * powers.unit)
    s4, squared = digits(powers.within(powers.fourth, windows)), second.squared()
    fourth = total((1, nn * n * s4), (-4, nn * s1 * s3), (6, n * s11 * s2), (-3, s11.squared()), (-3, squared))
    return _with_unit(squared, 4 * powers.unit), _with_unit(fourth, 4 * powers.unit)


def _second(powers: Powers, windows: Windows) -> Parts:
    """Return n**2 * m2 of each window, as the nearest float and a power of two.

    Three ways give the same bits: 64 bits where they are enough, two floats where these round surely, and else digits.
    """
    if 2 * (powers.bits + windows.longest.bit_length()) <= _WORD:
        short1, short2 = (
            _whole(powers.within(sums, windows), 2 * powers.base) for sums in (powers.first, powers.second)
        )
        return (windows.count * short2 - short1 * short1).astype(np.float64), np.full(len(short1), 2 * powers.unit)
    if not _USES_DOUBLES:
        return _of_digits(powers, windows, 2)[0]
    width, count = 2 * powers.base, windows.count.astype(np.float64)
    s1, s2 = (doubles.of_limbs(powers.within(sums, windows), width) for sums in (powers.first, powers.second))
    large = doubles.product((count, np.zeros_like(count)), s2)
    found, is_sure = doubles.nearest(doubles.difference(large, doubles.product(s1, s1)), large[0] * _ERROR)
    power = np.full(len(found), 2 * powers.unit)
    if len(again := np.flatnonzero(~is_sure)):
        some = Windows(windows.selection, windows.start[again], windows.stop[again])
        found[again], power[again] = _of_digits(powers, some, 2)[0]
    return found, power


def _whole(limbs: list[np.ndarray], width: int) -> np.ndarray:
    """Return numbers that fit in 64 bits from their limbs."""
    found = limbs[0].copy()
    for place in range(1, min(len(limbs), -(-64 // width))):
        found += limbs[place] << (place * width)  # what is beyond 64 bits is only the sign again
    return found


def _with_unit(digits: Digits, unit: int) -> Parts:
    """Return numbers as floats and powers of two; `unit` is the power of two of their lowest bit."""
    floats, power = digits.floats()
    powers: np.ndarray = np.broadcast_to(power, floats.shape) + np.int64(unit)
    return floats, powers


def variance(windows: Windows, sums: PowerSums, ddof: int, *, root: bool) -> pa.Array:
    """Return the variance of each window, or its root, the standard deviation; null below ddof + 1 values."""

    def of(part: Windows) -> np.ndarray:
        (size, power), _ = _central(sums, part, 2)
        # The power is applied last, and is even for a root, so that nothing overflows or vanishes on the way.
        odd = power & 1
        found = np.ldexp(size, odd) / np.maximum(part.count * (part.count - ddof), 1)
        power = power - odd
        result: np.ndarray = np.ldexp(np.sqrt(found), power // 2) if root else np.ldexp(found, power)
        return result

    found = _in_parts(windows, sums, of) / 10.0 ** (sums.powers.scale * (1 if root else 2))
    return _finished(windows, sums, found, ddof + 1)


def skewness(windows: Windows, sums: PowerSums) -> pa.Array:
    """Return the skewness of each window; null below three values, and where all are equal."""

    def of(part: Windows) -> np.ndarray:
        (two, two_power), (three, three_power) = _central(sums, part, 3)
        odd = two_power & 1
        two, two_power = np.ldexp(two, odd), two_power - odd
        found = three / np.where(two > 0, two * np.sqrt(two), 1)
        # n cancels: (n**3 * m3) / (n**2 * m2) ** 1.5. Where two is 0, there is no skewness.
        return np.where(two > 0, np.ldexp(found, three_power - two_power // 2 * 3), np.inf)

    found = _in_parts(windows, sums, of)
    return _finished(windows, sums, found, 3, are_equal=found == np.inf)


def kurtosis(windows: Windows, sums: PowerSums) -> pa.Array:
    """Return the excess kurtosis of each window; null below four values, and where all are equal."""

    def of(part: Windows) -> np.ndarray:
        below, above = _central(sums, part, 4)
        found = above[0] / np.where(below[0] > 0, below[0], 1)
        return np.where(below[0] > 0, np.ldexp(found, above[1] - below[1]), np.inf)

    found = _in_parts(windows, sums, of)
    return _finished(windows, sums, found, 4, are_equal=found == np.inf)


def _in_parts(windows: Windows, sums: PowerSums, of: Callable[[Windows], np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore"):  # a variance beyond the largest float is infinite
        parts = [
            of(windows.part(i, i + sums.powers.step)) for i in range(0, max(len(windows.start), 1), sums.powers.step)
        ]
    return np.concatenate(parts)


def _finished(
    windows: Windows, sums: PowerSums, found: np.ndarray, least: int, are_equal: np.ndarray | None = None
) -> pa.Array:
    """Return the results, null below so many values or where all are equal, and NaN where a value is not finite."""
    is_null = np.zeros(len(found), bool) if are_equal is None else are_equal
    if sums.special is not None:
        not_finite = sums.special[windows.stop] > sums.special[windows.start]
        found, is_null = np.where(not_finite, np.nan, found), is_null & ~not_finite
    return pa.array(found, mask=is_null | (windows.count < least))
