"""Numbers for entities and partitions of them: what a search among sorted integers needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LARGEST = 2**63 - 1
_LONG_TEXT, _WIDE = 2**30, {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
"""The size in bytes from which on a key column gets 64-bit offsets before it is encoded, and the types with such offsets."""


@dataclass(frozen=True)
class Numbers:
    """The entities or the event times of rows and moments, numbered from 0.

    Args:
        rows: The number of each row.
        low: For each moment, the least number of a row that it may find.
        high: For each moment, the greatest such number; -1, or less than `low`, if it can find none.
        size: The count of possible numbers; all of `rows` are below it.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: int


def number_entities(rows: pa.Table, spine: pa.Table) -> Numbers:
    """Number the entities: the numbers of their keys are combined column by column, as digits of one number.

    For example, number 2 in one column and number 1 in the next, which has 3 numbers, give 2 * 3 + 1 = 7.
    """

    def combined(one: Numbers, other: Numbers) -> Numbers:
        if one.size * other.size > LARGEST:  # without gaps, neither has more numbers than there are rows
            one, other = dense(one), dense(other)
        known = (one.high >= 0) & (other.high >= 0)
        moments = np.where(known, one.high * other.size + other.high, -1)
        return Numbers(one.rows * other.size + other.rows, moments, moments, one.size * other.size)

    names = [name for name in spine.column_names if name != "t"]
    return reduce(combined, (_keys(rows[name], spine[name]) for name in names))


def _keys(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> Numbers:
    """Number the keys of one column: integers by their distance from the least one in the rows, others in order of appearance."""
    if not pa.types.is_integer(rows.type):
        return _encoded(rows, spine)
    # uint64 keys of 2**63 and more wrap around to negative numbers here, but equal keys stay equal and others different.
    values, wanted = (column.fill_null(0).to_numpy().astype(np.int64, copy=False) for column in (rows, spine))
    low, high = int(values.min()), int(values.max())
    if high - low >= LARGEST:
        return _encoded(rows, spine)
    moments = np.where((wanted >= low) & (wanted <= high) & spine.is_valid().to_numpy(), wanted - low, -1)
    return Numbers(less(values, low), moments, moments, high - low + 1)


def dense(numbers: Numbers) -> Numbers:
    """Renumber without gaps: 3, 900 and 7 become 0, 2 and 1. Moments with a number that no row has get -1."""
    known = np.unique(numbers.rows)
    # A search in known[1:] returns the index in `known` of the last number at or below each, and never one past the end.
    ranks = np.searchsorted(known[1:], numbers.high, side="right")
    moments = np.where(known[ranks] == numbers.high, ranks, -1)
    return Numbers(np.searchsorted(known, numbers.rows), moments, moments, len(known))


def _encoded(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> Numbers:
    """Number keys in the order in which they appear in the rows.

    For example, the keys "b", "a", "b" of the rows become 0, 1, 0, and the keys "a", "c" of the spine become 1, -1.
    """
    if wide := rows.nbytes > _LONG_TEXT and _WIDE.get(rows.type):
        rows, spine = rows.cast(wide), spine.cast(wide)
    encoded = rows.dictionary_encode()
    known = encoded.chunk(0).dictionary
    moments = pc.index_in(spine, value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return Numbers(numbers, moments, moments, len(known))


def less(values: np.ndarray, by: int) -> np.ndarray:
    """Subtract a number, in place if the values are a copy already, as a writable array from Arrow is."""
    less: np.ndarray = np.subtract(values, by, out=values if values.flags.writeable else None)
    return less


def by_partition(entities: np.ndarray, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset at which each partition begins, with the end of the last, and the positions sorted by partition.

    For example, the entities 5, 0, 4, 1 in 3 partitions of 2 give the offsets 0, 2, 2, 4 and the positions 1, 3, 0, 2.
    """
    partitions = (entities // width).astype(np.uint16)  # NumPy sorts 16-bit integers by radix
    ends = np.bincount(partitions, minlength=count).cumsum()
    return np.concatenate([[0], ends]), np.argsort(partitions, kind="stable")
