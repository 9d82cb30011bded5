"""Central moments of windows that have outliers: floats so much larger or smaller than most that one set of digits would be too long.

The other windows never see them, and these few are computed by Python's whole numbers, event by event.
"""

from __future__ import annotations

import math

import numpy as np

_BAND = 120
"""How many powers of two a value may be from the median of all and still be no outlier."""


def outliers_of(values: np.ndarray) -> np.ndarray:
    """Return which values are outliers. Zeros are none."""
    power = np.frexp(values)[1]
    is_number = values != 0
    middle = int(np.median(power[is_number]))
    found: np.ndarray = is_number & (np.abs(power - middle) > _BAND)
    return found


def central(values: np.ndarray, order: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return n**2 * m2 and n**3 * m3 of some values, or for order 4 (n**2 * m2)**2 and n**4 * m4 less three times that.

    Each is the nearest float with a power of two. For order 2, the second is as the first.
    """
    parts = [math.frexp(value) for value in values.tolist()]
    unit = min((power for size, power in parts if size), default=0) - 53
    whole = [int(math.ldexp(size, 53)) << (power - 53 - unit) if size else 0 for size, power in parts]
    n, s1, s2 = len(whole), sum(whole), sum(one**2 for one in whole)
    second = n * s2 - s1**2
    if order == 2:  # noqa: PLR2004 - the order is that of the moment
        return (_nearest(second, 2 * unit),) * 2
    s3 = sum(one**3 for one in whole)
    if order == 3:  # noqa: PLR2004
        third = n**2 * s3 - 3 * n * s1 * s2 + 2 * s1**3
        return _nearest(second, 2 * unit), _nearest(third, 3 * unit)
    s4 = sum(one**4 for one in whole)
    fourth = n**3 * s4 - 4 * n**2 * s1 * s3 + 6 * n * s1**2 * s2 - 3 * s1**4
    return _nearest(second**2, 4 * unit), _nearest(fourth - 3 * second**2, 4 * unit)


def _nearest(whole: int, unit: int) -> tuple[float, int]:
    """Return the float nearest to a whole number of units, as a float and a power of two."""
    over = max(abs(whole).bit_length() - 64, 0)
    top = abs(whole) >> over
    # A last bit that says whether anything was cut off makes the rest round as the whole number does.
    size = float(top | (top << over != abs(whole)))
    return (-size if whole < 0 else size), over + unit
