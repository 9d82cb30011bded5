"""The identities of rows, as numbers, and sets of them: what tells a new row from one that is stored already.

The identity of a row of a feature group is its join keys and event time, that of an event its `event_id`. Two rows with different numbers
have different identities. Different identities rarely have the same number, and then a push takes longer, and is as exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_SMALL = 50_000
"""How many numbers are kept in a set of Python, before they are sorted into an array."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_STEPS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
    (np.uint64(31), np.uint64(1)),
)
"""The finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators")."""


def can_identify(kinds: Sequence[pa.DataType]) -> bool:
    """Return whether columns of these stored types can be turned into numbers: whole numbers, times, booleans and text."""
    is_ = pa.types
    tests = (is_.is_integer, is_.is_timestamp, is_.is_date32, is_.is_boolean, is_.is_string, is_.is_large_string)
    return bool(kinds) and all(any(test(kind) for test in tests) for kind in kinds)


def identities(rows: pa.Table) -> np.ndarray:
    """Return the identity of each row as a 64-bit number.

    Args:
        rows: The columns that identify a row, in stored types that `can_identify` accepts, without nulls.
    """
    found = np.zeros(len(rows), np.uint64)
    with np.errstate(over="ignore"):
        for column in rows.columns:
            found = _mixed(found * _FACTOR + _numbers(column))
    return found


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _hashes(column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not pa.types.is_integer(kind):
        column = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    return np.asarray(column.to_numpy()).astype(np.uint64, casting="unsafe")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    for shift, factor in _STEPS:
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    """Return the sum of each text's bytes times the powers of a constant, modulo 2**64, plus its length."""
    texts = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in column.chunks])
    ends = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    data, lengths = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]], np.diff(ends)
    hashes = lengths.astype(np.uint64)
    if len(data):
        powers = np.cumprod(np.full(int(lengths.max()), _FACTOR))
        starts = ends[:-1] - ends[0]
        products = (data.astype(np.uint64) + np.uint64(1)) * powers[np.arange(len(data)) - np.repeat(starts, lengths)]
        full = lengths > 0
        hashes[full] += np.add.reduceat(products, starts[full])
    return hashes


class KnownIdentities:
    """A set of identities, as numbers. One takes about eight bytes, and is looked up in microseconds."""

    def __init__(self) -> None:
        self._recent = set[int]()
        self._sorted: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._sorted))

    def add(self, numbers: np.ndarray) -> None:
        """Add numbers."""
        if len(numbers) < _SMALL:
            self._recent.update(numbers.tolist())
            if len(self._recent) < _SMALL:
                return
            numbers, self._recent = np.fromiter(self._recent, np.uint64, len(self._recent)), set()
        self._sorted.append(np.sort(numbers))
        # An array is merged into the one before it while that is less than twice as long, so there are few, and merges are rare.
        while len(self._sorted) > 1 and len(self._sorted[-2]) < 2 * len(self._sorted[-1]):
            last = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], last]), kind="stable")

    def has_any(self, numbers: np.ndarray) -> bool:
        """Return whether the set has one of some numbers."""
        if not self._recent.isdisjoint(numbers.tolist()):
            return True
        return any(_has_any(known, numbers) for known in self._sorted)


def _has_any(known: np.ndarray, numbers: np.ndarray) -> bool:
    places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    return bool((known[places] == numbers).any())
