"""Sums and means, exact before the one rounding of a float."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows import limits, quotients
from seeknal.engine.windows.decimals import decimals_of
from seeknal.engine.windows.limbs import Numbers, carry, prefix, rounded, scaled, width_for
from seeknal.engine.windows.selection import Selection, Windows, in_place

_CACHED = 8
"""Prefix sums of so many limbs are kept: those of more are made again for each part of the windows."""
_AT_ONCE = 2**22
"""Limbs of results at a time."""


class Totals:
    """Sums of the values of windows.

    Args:
        selection: The values.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.numbers: Numbers = selection.numbers
        self.width = width_for(len(selection.t))
        self.size = max(-(-self.numbers.bits // self.width), 1)
        """How many limbs a number has."""
        self._last: tuple[Windows, np.ndarray, np.ndarray | int] | None = None

    @cached_property
    def _prefixes(self) -> list[np.ndarray]:
        return [prefix(limb) for limb in self.numbers.limbs(self.width)]

    def of(self, windows: Windows) -> list[np.ndarray]:
        """Return the carried limbs of the sum of each window, the lowest first."""
        prefixes = self._prefixes if self.size <= _CACHED else map(prefix, self.numbers.limbs(self.width))
        sums = [sums[windows.stop] - sums[windows.start] for sums in prefixes]
        return carry(sums[::-1], self.width)

    def rounded(self, windows: Windows) -> tuple[np.ndarray, np.ndarray | int]:
        """Return the float nearest to the sum of each window, as a float and a power of two."""
        if self._last is None or self._last[0] is not windows:  # a mean is often asked for after a sum
            sums, power = rounded(self.of(windows), self.width)
            self._last = windows, sums, power + self.numbers.exponent
        return self._last[1:]

    def parts(self, windows: Windows) -> list[Windows]:
        """Cut windows into parts, so many that the limbs of one part take little memory."""
        step = max(_AT_ONCE // self.size, 1)
        if len(windows.start) <= step:
            return [windows]
        return [windows.part(first, first + step) for first in range(0, max(len(windows.start), 1), step)]

    @cached_property
    def _special(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        values = self.numbers.special
        if values is None:
            return None
        return prefix(np.isnan(values)), prefix(values == np.inf), prefix(values == -np.inf)

    def overruled(self, sums: np.ndarray, windows: Windows) -> np.ndarray:
        """Return sums of floats with NaN or infinity in the windows that have such values."""
        if self._special is None:
            return sums
        has_nan, above, below = (count[windows.stop] > count[windows.start] for count in self._special)
        found = np.where(above, np.inf, np.where(below, -np.inf, sums))
        return np.where(has_nan | (above & below), np.nan, found)


class BeyondTypeError(Exception):
    """A sum does not fit in the type of its feature.

    Args:
        kind: The type.
    """

    def __init__(self, kind: pa.DataType) -> None:
        super().__init__(str(kind))
        self.kind = kind


def total(windows: Windows, totals: Totals) -> pa.Array:
    """Return the sum of each window.

    Raises:
        BeyondTypeError: A sum of whole numbers or decimals is beyond its type.
    """
    kind = windows.selection.kind
    made = [_total(part, totals, kind) for part in totals.parts(windows)]
    return in_place(limits.joined(made), windows.empty)


def _total(windows: Windows, totals: Totals, kind: pa.DataType) -> pa.Array:
    if is_.is_floating(kind):
        with np.errstate(over="ignore"):  # a sum beyond the largest float is infinite
            return pa.array(totals.overruled(_by_power(*totals.rounded(windows)), windows))
    limbs = totals.of(windows)
    if len(limbs) == 1 and not is_.is_decimal(kind):
        return pa.array(limbs[0])
    low, high, fits = _words(limbs, totals.width)
    if is_.is_decimal(kind):
        fits &= _below_38_digits(low, high)
        to = pa.decimal128(38, kind.scale)
    else:
        fits &= high == low >> 63
        to = pa.int64()
    if not fits.all():
        raise BeyondTypeError(to)
    return decimals_of(low, high, to) if is_.is_decimal(kind) else pa.array(low)


def _words(limbs: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the low and high words of the numbers with these carried limbs, and whether 128 bits are enough for them."""
    low, high = np.zeros_like(limbs[0]), np.zeros_like(limbs[0])
    for place, limb in enumerate(limbs):
        at = place * width
        if at < 64:  # noqa: PLR2004 - bits of a word
            low |= limb << at  # carried limbs do not overlap, but for the sign of the highest
            high |= limb >> (64 - at) if at else limb >> 63
        else:
            high |= limb << (at - 64)
    top = (len(limbs) - 1) * width
    # The highest limb may have 63 bits; those beyond the 128th must all be its sign.
    room = 127 - top
    return low, high, (limbs[-1] >> room) == (limbs[-1] >> 63) if room < 63 else np.ones(len(low), bool)  # noqa: PLR2004


_LIMIT = 10**38
_HIGH, _LOW = np.int64(_LIMIT >> 64), np.uint64(_LIMIT & (2**64 - 1))


def _below_38_digits(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return whether numbers are above -10**38 and below 10**38."""
    negative = high < 0
    # In two's complement, -x is ~x + 1; the high word takes the carry if the low word is 0.
    size_low = np.where(negative, ~low + 1, low).view(np.uint64)
    size_high = np.where(negative, ~high + (low == 0), high)
    fits: np.ndarray = (size_high < _HIGH) | ((size_high == _HIGH) & (size_low < _LOW))
    return fits & (size_high >= 0)


def mean(windows: Windows, totals: Totals) -> pa.Array:
    """Return the mean of each window: the sum, rounded once, divided by the count; of decimals the float nearest to the mean."""
    made = [_mean(part, totals) for part in totals.parts(windows)]
    return in_place(pa.array(np.concatenate(made)), windows.empty)


def _mean(windows: Windows, totals: Totals) -> np.ndarray:
    count = np.maximum(windows.count, 1)
    if is_.is_decimal(windows.selection.kind):
        return quotients.means(totals.of(windows), totals.width, count, totals.numbers.scale)
    sums, power = totals.rounded(windows)
    with np.errstate(over="ignore"):
        found = _by_power(sums, power)
    # A sum beyond the largest float may have a mean that is not: there, the division comes before the power.
    means = np.where(np.isfinite(found), found / count, _by_power(sums / count, power))
    return totals.overruled(means, windows)


def _by_power(values: np.ndarray, power: np.ndarray | int) -> np.ndarray:
    if isinstance(power, int):
        return values if power == 0 else scaled(values, power)
    found: np.ndarray = np.ldexp(values, power)
    return found
