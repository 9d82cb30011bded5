"""Whole numbers of any length, many at once: a list of digits to the base 2**24, the lowest first, each an array of int64.

All digits are from 0 up to the base, except the highest, which also has the sign. Products of digits have 48 bits, so 2**15 of them
can be added before a carry.

For example, to the base 10, the numbers 42 and -7 are the digits [2, 3], [4, -1]: 2 + 4 * 10 = 42 and 3 - 1 * 10 = -7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seeknal.engine.windows.limbs import carry

BASE = 24
"""Bits of a digit."""
Digits = list[np.ndarray]


def normal(digits: Sequence[np.ndarray], more: int = 0) -> Digits:
    """Return the digits carried, with so many digits more, which take what the highest digit has too much."""
    return carry([*digits, *(np.zeros_like(digits[0]) for _ in range(more))], BASE)


def multiply(one: Digits, other: Digits) -> Digits:
    """Return the products of numbers."""
    found = [np.zeros_like(one[0]) for _ in range(len(one) + len(other))]
    for i, digit in enumerate(one):
        for j, by in enumerate(other):
            found[i + j] += digit * by
    return normal(found)


def square(one: Digits) -> Digits:
    """Return the squares of numbers, in half the time of a product."""
    found = [np.zeros_like(one[0]) for _ in range(2 * len(one))]
    for i, digit in enumerate(one):
        found[2 * i] += digit * digit
        twice = 2 * digit
        for j in range(i + 1, len(one)):
            found[i + j] += twice * one[j]
    return normal(found)


def add(*terms: tuple[int, Digits]) -> Digits:
    """Return a sum of numbers, each times a small factor: of (2, x) and (-1, y) it is 2x - y."""
    found = [np.zeros_like(terms[0][1][0]) for _ in range(max(len(digits) for _, digits in terms) + 1)]
    for factor, digits in terms:
        for i, digit in enumerate(digits):
            found[i] += factor * digit
    return normal(found)


def product(*factors: Digits) -> Digits:
    """Return the product of several numbers."""
    first, *others = factors
    for other in others:
        first = multiply(first, other)
    return first
