"""Prefix sums of the powers of numbers, exact, as limbs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from seeknal.engine.windows.digits import Digits
from seeknal.engine.windows.limbs import Numbers, carry, prefix, width_for
from seeknal.engine.windows.selection import Windows

_AT_ONCE = 2**16
"""Digits of numbers at a time: few enough for the processor's cache."""
_BASE = 24


class Powers:
    """Sums of the powers of numbers.

    Args:
        numbers: The numbers.
        size: How many there are.
    """

    def __init__(self, numbers: Numbers, size: int) -> None:
        self._numbers = numbers
        self.scale, self.unit, self.bits = numbers.scale, numbers.exponent, numbers.bits
        # Two digits make one limb, of which all can be added.
        self.base = min(width_for(size) // 2, _BASE)
        self.step = max(_AT_ONCE // (self.bits // self.base + 1), 2**10)
        """How many numbers are worked on at a time."""

    @cached_property
    def _digits(self) -> list[np.ndarray]:
        return list(self._numbers.limbs(self.base))[::-1]

    @cached_property
    def first(self) -> list[np.ndarray]:
        """The prefix sums of the limbs of the values."""
        return [prefix(limb) for limb in self._numbers.limbs(2 * self.base)][::-1]

    @cached_property
    def second(self) -> list[np.ndarray]:
        """The prefix sums of the limbs of their squares."""
        return self._summed(Digits.squared)

    @cached_property
    def third(self) -> list[np.ndarray]:
        """The prefix sums of the limbs of their cubes."""
        return self._summed(lambda digits: digits.squared() * digits)

    @cached_property
    def fourth(self) -> list[np.ndarray]:
        """The prefix sums of the limbs of their fourth powers."""
        return self._summed(lambda digits: digits.squared().squared())

    def _summed(self, power: Callable[[Digits], Digits]) -> list[np.ndarray]:
        parts = []
        for first in range(0, max(len(self._digits[0]), 1), self.step):
            digits = Digits([digit[first : first + self.step] for digit in self._digits], self.base)
            parts.append(power(digits.carried()).limbs())
        return [prefix(np.concatenate(limbs)) for limbs in zip(*parts, strict=True)]

    def within(self, sums: list[np.ndarray], windows: Windows) -> list[np.ndarray]:
        """Return the carried limbs of the sums of windows, with one limb more, which takes what the highest has too much."""
        limbs = [limb[windows.stop] - limb[windows.start] for limb in sums]
        return carry([*limbs, np.zeros_like(limbs[0])], 2 * self.base)

    def sums(self, power: int) -> list[np.ndarray]:
        """Return the prefix sums of a power from 1 to 4."""
        found: list[np.ndarray] = getattr(self, ("first", "second", "third", "fourth")[power - 1])
        return found
