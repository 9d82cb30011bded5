"""Central moments of windows that have outliers: floats so much larger or smaller than most that one set of digits would be too long.

The values are cut into bands of like size, each with prefix sums of its own. The sums of a window are put together from those of its
bands: as numbers of two floats with a power of two, and by Python's whole numbers where these cannot tell which float is nearest.
No event of a window is visited. For example, 1.0, 2.0 and 1e300 are two bands, with the sums 3.0 and 1e300.
"""

from __future__ import annotations

import math

import numpy as np

from seeknal.engine.windows import doubles
from seeknal.engine.windows.doubles import Double
from seeknal.engine.windows.limbs import Numbers, carry, prefix
from seeknal.engine.windows.powers import Powers
from seeknal.engine.windows.quotients import halves, whole
from seeknal.engine.windows.selection import Windows

Parts = tuple[np.ndarray, np.ndarray]
"""Numbers as floats and powers of two."""
Scaled = tuple[Double, np.ndarray]
"""Numbers as sums of two floats below a small number, times a power of two, which is what they may be wrong by relative to."""
_BAND = 120
"""How many powers of two a value may be from the median of all and still be no outlier. Bands of outliers are twice as wide."""
_ENOUGH = 2.0**200
"""What is below the units of a number as large as this changes none of its bits that matter."""
_NOTHING = -(2**40)
"""The power of two of 0."""
_ERROR = 2.0**-80
"""What a sum of terms may be wrong by, relative to the power of two of the largest: some units of 2**-100, and more for safety."""
Terms = list[tuple[int, tuple[int, ...]]]
# Sums of terms, each a factor and the numbers of sums of powers; 0 is the count n.
_SECOND: Terms = [(1, (0, 2)), (-1, (1, 1))]
_THIRD: Terms = [(1, (0, 0, 3)), (-3, (0, 1, 2)), (2, (1, 1, 1))]
_SQUARED: Terms = [(1, (0, 0, 2, 2)), (-2, (0, 1, 1, 2)), (1, (1, 1, 1, 1))]
_FOURTH: Terms = [(1, (0, 0, 0, 4)), (-4, (0, 0, 1, 3)), (12, (0, 1, 1, 2)), (-6, (1, 1, 1, 1)), (-3, (0, 0, 2, 2))]
_WANTED = {2: (_SECOND, _SECOND), 3: (_SECOND, _THIRD), 4: (_SQUARED, _FOURTH)}


class Bands:
    """Floats in bands.

    Args:
        values: The floats, all of them finite, and not all 0.
    """

    def __init__(self, values: np.ndarray) -> None:
        power = np.frexp(values)[1]
        is_number = values != 0
        middle = int(np.median(power[is_number]))
        is_outlier = is_number & (np.abs(power - middle) > _BAND)
        self.usual = np.where(is_outlier, 0.0, values)
        """The values, with 0 in place of outliers."""
        self._outliers = prefix(is_outlier)
        self._bands = []
        cells = power // (2 * _BAND)
        for cell in np.unique(cells[is_outlier]):
            here = is_outlier & (cells == cell)
            some = values.compress(here)
            self._bands.append((prefix(here), Powers(Numbers(floats=some), len(some))))

    def windows(self, windows: Windows) -> np.ndarray:
        """Return the numbers of the windows that have outliers."""
        return np.flatnonzero(self._outliers[windows.stop] > self._outliers[windows.start])

    def central(self, usual: Powers, windows: Windows, order: int) -> tuple[Parts, Parts]:
        """Return n**2 * m2 and n**3 * m3 of windows, or for order 4 (n**2 * m2)**2 and n**4 * m4 less three times that.

        Args:
            usual: The sums of the powers of `self.usual`.
            windows: The windows.
            order: 2, 3 or 4; for 2, the second result is as the first.
        """
        parts = [(usual, windows)]
        for counts, powers in self._bands:
            parts.append((powers, Windows(windows.selection, counts[windows.start], counts[windows.stop])))
        sums = _Sums(parts, windows.count, order)
        first, second = _WANTED[order]
        found = sums.value(first)
        return found, (found if second is first else sums.value(second))


class _Sums:
    """The sums of the powers of windows, from those of their bands.

    Args:
        parts: The powers of each band, and the windows over it.
        count: The number of events of each window.
        order: The highest power.
    """

    def __init__(self, parts: list[tuple[Powers, Windows]], count: np.ndarray, order: int) -> None:
        self._parts, self._count = parts, count
        self._limbs = {
            power: [powers.within(powers.sums(power), windows) for powers, windows in parts]
            for power in range(1, order + 1)
        }
        self._unit = min(powers.unit for powers, _ in parts)
        n = np.frexp(count.astype(np.float64))
        self._sums = {0: ((n[0], np.zeros(len(count))), n[1].astype(np.int64))}
        for power, limbs in self._limbs.items():
            self._sums[power] = _together(
                [_scaled(one, 2 * by.base, power * by.unit) for one, (by, _) in zip(limbs, parts, strict=True)]
            )

    def value(self, terms: Terms) -> Parts:
        """Return the floats nearest to sums of terms, with powers of two."""
        scaled = []
        for factor, numbers in terms:
            number: Double = np.full(len(self._count), float(factor)), np.zeros(len(self._count))
            for one in numbers:
                number = doubles.product(number, self._sums[one][0])
            scaled.append((number, np.sum([self._sums[one][1] for one in numbers], axis=0)))
        total, top = _together(scaled)
        found, is_sure = doubles.nearest(total, np.full(len(total[0]), _ERROR))
        for i in np.flatnonzero(~is_sure).tolist():
            found[i], top[i] = self._exact(terms, i)
        return found, np.where(found == 0, 0, top)

    def _exact(self, terms: Terms, i: int) -> tuple[float, int]:
        """Return what `value` does for one window, by whole numbers, in units of the smallest band."""
        sums = {0: int(self._count[i])}
        for power, limbs in self._limbs.items():
            sums[power] = sum(
                whole(one, 2 * by.base, i) << (power * (by.unit - self._unit))
                for one, (by, _) in zip(limbs, self._parts, strict=True)
            )
        total = sum(factor * math.prod(sums[one] for one in numbers) for factor, numbers in terms)
        return _nearest(total, self._unit * sum(terms[0][1]))


def _scaled(limbs: list[np.ndarray], width: int, unit: int) -> Scaled:
    """Return whole numbers of units, which are powers of two, from their carried limbs."""
    negative = limbs[-1] < 0
    high, low = np.zeros(len(negative)), np.zeros(len(negative))
    power = np.full(len(negative), unit)
    for limb in reversed(carry([np.where(negative, -limb, limb) for limb in limbs], width)):
        is_done = high >= _ENOUGH
        step = np.where(is_done, 1.0, 2.0**width)
        high, low = high * step, low * step
        for half in halves(limb):
            high, error = doubles.two_sum(high, np.where(is_done, 0.0, half))
            low = low + error
        power += np.where(is_done, width, 0)
    sign = np.where(negative, -1.0, 1.0)
    _, more = np.frexp(high)
    top = np.where(high == 0, _NOTHING, power + more)
    return (np.ldexp(sign * high, -more), np.ldexp(sign * low, -more)), top


def _together(terms: list[Scaled]) -> Scaled:
    """Return the sums of numbers."""
    top = np.max([power for _, power in terms], axis=0)
    total: Double = (np.zeros(len(top)), np.zeros(len(top)))
    for (high, low), power in terms:
        shift = np.maximum(power - top, -2000)
        total = doubles.difference(total, (np.ldexp(-high, shift), np.ldexp(-low, shift)))
    return total, top


def _nearest(exact: int, unit: int) -> tuple[float, int]:
    """Return the float nearest to a whole number of units, as a float and a power of two."""
    over = max(abs(exact).bit_length() - 64, 0)
    top = abs(exact) >> over
    # A last bit that says whether anything was cut off makes the rest round as the whole number does.
    size = float(top | (top << over != abs(exact)))
    return (-size if exact < 0 else size), over + unit
