"""Whole numbers of any length, many at once: a list of digits to a base 2**b, the lowest first, each an array of int64.

All digits are from 0 up to the base, except the highest, which also has the sign. With b up to 24, products of digits have 48 bits,
so thousands of them can be added before a carry.

For example, to the base 10, the numbers 42 and -7 are the digits [2, 3], [4, -1]: 2 + 4 * 10 = 42 and 3 - 1 * 10 = -7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seeknal.engine.windows.limbs import carry, rounded


@dataclass(frozen=True)
class Digits:
    """Whole numbers.

    Args:
        parts: Their digits.
        base: The bits of a digit.
    """

    parts: list[np.ndarray]
    base: int

    @staticmethod
    def of_limbs(limbs: list[np.ndarray], width: int) -> Digits:
        """Return numbers from carried limbs of an even width, each of which becomes two digits."""
        base = width // 2
        return Digits([part for limb in limbs for part in (limb & ((1 << base) - 1), limb >> base)], base)

    def limbs(self) -> list[np.ndarray]:
        """Return the numbers as limbs of two digits each."""
        parts = [*self.parts, *([np.zeros_like(self.parts[-1])] if len(self.parts) % 2 else [])]
        return [low + (high << self.base) for low, high in zip(parts[0::2], parts[1::2], strict=True)]

    def floats(self) -> tuple[np.ndarray, np.ndarray | int]:
        """Return the float nearest to each number, as a float and a power of two."""
        return rounded(self.limbs(), 2 * self.base)

    def carried(self) -> Digits:
        """Return the numbers with digits below the base."""
        return Digits(carry(self.parts, self.base), self.base)

    def squared(self) -> Digits:
        """Return the squares, in half the time of a product."""
        found = [np.zeros_like(self.parts[0]) for _ in range(2 * len(self.parts))]
        known = self._not_zero()
        for number, (i, digit) in enumerate(known):
            found[2 * i] += digit * digit
            twice = 2 * digit
            for j, by in known[number + 1 :]:
                found[i + j] += twice * by
        return Digits(found, self.base).carried()

    def __mul__(self, other: Digits) -> Digits:
        found = [np.zeros_like(self.parts[0]) for _ in range(len(self.parts) + len(other.parts))]
        factors = other._not_zero()
        for i, digit in self._not_zero():
            for j, by in factors:
                found[i + j] += digit * by
        return Digits(found, self.base).carried()

    def _not_zero(self) -> list[tuple[int, np.ndarray]]:
        """Return the digits that are not 0 in all numbers, with their places. Numbers of a large range have few of them."""
        return [(i, digit) for i, digit in enumerate(self.parts) if digit.any()]


def total(*terms: tuple[int, Digits]) -> Digits:
    """Return the sum of numbers, each times a small factor: of (2, x) and (-1, y) it is 2x - y."""
    first = terms[0][1]
    found = [np.zeros_like(first.parts[0]) for _ in range(max(len(term.parts) for _, term in terms) + 1)]
    for factor, term in terms:
        for i, digit in enumerate(term.parts):
            found[i] += factor * digit
    return Digits(found, first.base).carried()
