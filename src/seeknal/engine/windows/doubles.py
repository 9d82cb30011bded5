"""Numbers as sums of two floats, which have twice the bits of one.

The operations are those of Dekker ("A floating-point technique for extending the available precision", 1971) and Knuth.
"""

from __future__ import annotations

import numpy as np

Double = tuple[np.ndarray, np.ndarray]
_SPLIT = 2.0**27 + 1


def of_limbs(limbs: list[np.ndarray], width: int) -> Double:
    """Return numbers from carried limbs, the lowest first, all of which are exact as floats."""
    high = limbs[-1].astype(np.float64)
    low = np.zeros_like(high)
    for limb in reversed(limbs[:-1]):
        # Each step is exact: a power of two only shifts, and `two_sum` keeps what it rounds off.
        high, error = two_sum(high * 2.0**width, limb.astype(np.float64))
        low = low * 2.0**width + error
    return two_sum(high, low)


def two_sum(one: np.ndarray, other: np.ndarray) -> Double:
    """Return the sum, and the exact error of its rounding."""
    found = one + other
    part = found - one
    return found, (one - (found - part)) + (other - part)


def two_product(one: np.ndarray, other: np.ndarray) -> Double:
    """Return the product, and the exact error of its rounding."""
    found = one * other
    (a, b), (c, d) = _halves(one), _halves(other)
    return found, ((a * c - found) + a * d + b * c) + b * d


def _halves(values: np.ndarray) -> Double:
    large = values * _SPLIT
    high = large - (large - values)
    return high, values - high


def product(one: Double, other: Double) -> Double:
    """Return the product of numbers."""
    high, low = two_product(one[0], other[0])
    return two_sum(high, low + (one[0] * other[1] + one[1] * other[0]))


def difference(one: Double, other: Double) -> Double:
    """Return the difference of numbers."""
    high, low = two_sum(one[0], -other[0])
    return two_sum(high, low + (one[1] - other[1]))


def nearest(number: Double, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the float nearest to each number, and whether it surely is, if the number may be wrong by `error` (Ziv's test)."""
    high, low = number
    below, above = high + (low - error), high + (low + error)
    return below, below == above
