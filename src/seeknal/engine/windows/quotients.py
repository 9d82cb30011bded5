"""Quotients of decimals as floats, each the float nearest to the exact quotient, so that nothing is rounded twice.

Most are computed by numbers of two floats. Where these cannot tell which float is nearest, Python's whole numbers do.

For example, the mean of the decimals 0.1 and 0.2 is kept as the sum 3, the count 2 and the scale 1: it is 3 / (2 * 10).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from seeknal.engine.windows import doubles
from seeknal.engine.windows.doubles import Double
from seeknal.engine.windows.limbs import carry

_WHOLE = 2.0**53
_POWERS_OF_TEN = 22
"""Powers of ten up to this one are exact as floats."""
_HALF = 31
_ERROR = 2.0**-96
"""What numbers of two floats may be wrong by here, relative to the largest of them: some units of 2**-104, and more for safety."""


def means(limbs: list[np.ndarray], width: int, count: np.ndarray, scale: int) -> np.ndarray:
    """Return the floats nearest to whole numbers divided by a count and by 10**scale.

    Args:
        limbs: The limbs of the whole numbers, carried.
        width: The width of the limbs.
        count: The counts, from 1 on.
        scale: The power of ten.
    """
    number, counts = of_limbs(limbs, width), count.astype(np.float64)
    most = max(float(np.abs(number[0]).max(initial=0)), float(counts.max(initial=1)) * 10.0**scale)
    if most < _WHOLE and 0 <= scale <= _POWERS_OF_TEN:
        exact: np.ndarray = number[0] / (counts * 10.0**scale)  # both are exact, so only the division rounds
        return exact
    by = doubles.product((counts, np.zeros_like(counts)), _of_fraction(Fraction(10) ** scale))
    quotient = _divided(number, by)
    found, is_sure = doubles.nearest(quotient, np.abs(quotient[0]) * _ERROR)
    for i in np.flatnonzero(~is_sure).tolist():
        found[i] = _float(Fraction(whole(limbs, width, i), int(count[i])) / Fraction(10) ** scale)
    return found


def between(low: list[np.ndarray], high: list[np.ndarray], width: int, part: np.ndarray, scale: int) -> np.ndarray:
    """Return the floats nearest to (low + (high - low) * part) / 10**scale, for whole numbers as carried limbs."""
    below, above = of_limbs(low, width), of_limbs(high, width)
    step = doubles.product(doubles.difference(above, below), (part, np.zeros_like(part)))
    by = _of_fraction(Fraction(10) ** scale)
    quotient = _divided(doubles.difference(below, (-step[0], -step[1])), by)
    # What is wrong is small beside the larger of both, which their sum need not be.
    larger = np.maximum(np.abs(below[0]), np.abs(above[0])) / by[0]
    found, is_sure = doubles.nearest(quotient, larger * _ERROR)
    for i in np.flatnonzero(~is_sure).tolist():
        first, last = whole(low, width, i), whole(high, width, i)
        found[i] = _float((first + (last - first) * Fraction(float(part[i]))) / Fraction(10) ** scale)
    return found


def of_limbs(limbs: list[np.ndarray], width: int) -> Double:
    """Return whole numbers as sums of two floats, wrong by less than 2**-100 of each."""
    negative = limbs[-1] < 0
    high, low = np.zeros(len(negative)), np.zeros(len(negative))
    # Nothing is negative here, so no digits cancel.
    for limb in reversed(carry([np.where(negative, -limb, limb) for limb in limbs], width)):
        high, low = high * 2.0**width, low * 2.0**width
        for half in halves(limb):
            high, error = doubles.two_sum(high, half)
            low = low + error
    high, low = doubles.two_sum(high, low)
    return np.where(negative, -high, high), np.where(negative, -low, low)


def _divided(number: Double, by: Double) -> Double:
    """Return a quotient, digit by digit as on paper, but with floats as the digits."""
    first = number[0] / by[0]
    rest = doubles.difference(number, doubles.product((first, np.zeros_like(first)), by))
    second = rest[0] / by[0]
    rest = doubles.difference(rest, doubles.product((second, np.zeros_like(first)), by))
    high, low = doubles.two_sum(first, second)
    return doubles.two_sum(high, low + rest[0] / by[0])


def _of_fraction(exact: Fraction) -> Double:
    high = float(exact)
    return np.array(high), np.array(float(exact - Fraction(high)))


def halves(limb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return limbs that are not negative as sums of two floats, which are exact."""
    return ((limb >> _HALF) << _HALF).astype(np.float64), (limb & ((1 << _HALF) - 1)).astype(np.float64)


def whole(limbs: list[np.ndarray], width: int, i: int) -> int:
    """Return the number i of those with these limbs."""
    return sum(int(limb[i]) << (width * place) for place, limb in enumerate(limbs))


def _float(exact: Fraction) -> float:
    return exact.numerator / exact.denominator  # Python rounds it once
