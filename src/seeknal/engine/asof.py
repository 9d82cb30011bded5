"""The point-in-time join, as a binary search among sorted integers.

Entity and event time of each row become one integer, the row's code: entity number * number of times + time number. The codes are
sorted, and a binary search finds the last one at or before each moment. Entities are split into partitions, each small enough for
the processor's cache, and the cores work on partitions in parallel.

For example, with the entities a = 0 and b = 1 and the event times 10 to 30, which are 21 numbers:

    row   entity   t    created   code
    0     a        10   1         0 * 21 + 0  = 0
    1     a        20   2         0 * 21 + 10 = 10
    2     a        20   1         0 * 21 + 10 = 10
    3     b        30   1         1 * 21 + 20 = 41

Sorted, the codes are 0, 10, 10, 41, of the rows 0, 2, 1, 3: among tied rows, the winner comes last.

    moment             codes that count   last code up to there   found
    a at 25            0 to 15            10                      row 1
    a at 25, ttl 4     11 to 15           10, which is too old    none
    b at 25            21 to 36           10, which is of a       none
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.system.parallel import parallel_map

_PARTITION = 2**16
"""The approximate number of rows in a partition, small enough for the processor's cache."""
_LARGEST = _FOREVER = 2**63 - 1
_LONG_TEXT, _WIDE = 2**30, {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
"""The size in bytes from which on a key column gets 64-bit offsets before it is encoded, and the types with such offsets."""


@dataclass(frozen=True)
class _Numbers:
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


def nearest(rows: pa.Table, spine: pa.Table, ttl: int | None = None) -> np.ndarray:
    """Return the row that wins at each moment: the last one at or before it.

    Of tied rows, the one with the greatest `created` wins, then the one with the greatest `id`.

    Args:
        rows: k0, k1, ... (keys), t (microseconds), created if the group has one, and id. Rows with a null key or t never win.
        spine: k0, k1, ... of the same types, and t (the moments). A row with a null finds nothing.
        ttl: The greatest age of a row at the moment, in microseconds, inclusive; None: any age.

    Returns:
        For each row of the spine, the position of the winner in `rows`; -1 if there is none.
    """
    columns = [rows[name] for name in spine.column_names]
    if any(column.null_count for column in columns):
        known = reduce(pc.and_, (column.is_valid() for column in columns))
        # -1 is appended to the positions of the known rows, so that the index -1, "not found", maps to itself.
        positions: np.ndarray = np.append(np.flatnonzero(known), -1)[nearest(rows.filter(known), spine, ttl)]
        return positions
    winners = np.full(len(spine), -1)
    if not len(rows) or not len(spine):
        return winners
    entities, times, width = _numbered(rows, spine, ttl)
    searchable = np.flatnonzero((entities.high >= 0) & (times.high >= times.low))
    partitions = -(-entities.size // width)

    @cache
    def tie_breakers() -> list[np.ndarray]:  # created first: `np.lexsort` gives precedence to its last key
        return [rows[name].to_numpy() for name in ("id", "created") if name in rows.column_names]

    def search(partition: int) -> None:
        stored = row_order[row_starts[partition] : row_starts[partition + 1]]
        moments = searchable[moment_order[moment_starts[partition] : moment_starts[partition + 1]]]
        if not len(stored) or not len(moments):
            return
        # Entities are counted from the first one of the partition: otherwise a code could exceed 63 bits.
        codes = (entities.rows[stored] - partition * width) * times.size + times.rows[stored]
        order = np.argsort(codes)
        codes, stored = codes[order], stored[order]
        # Sorting by created and id as well would cost more than sorting codes alone, and ties are few: only they are sorted again.
        if len(tied := np.flatnonzero(codes[1:] == codes[:-1])):
            tied = np.union1d(tied, tied + 1)
            by = [column[stored[tied]] for column in tie_breakers()]
            stored[tied] = stored[tied][np.lexsort([*by, codes[tied]])]
        # One comparison with the lower bound rejects rows of another entity and expired rows alike.
        base = (entities.high[moments] - partition * width) * times.size
        last = np.searchsorted(codes, base + times.high[moments], side="right") - 1
        is_found = (last >= 0) & (codes[last] >= base + times.low[moments])
        # The threads write to one array without a lock, because no two partitions have a moment in common.
        winners[moments[is_found]] = stored[last[is_found]]

    serial = partitions == 1
    numbers = entities.rows, entities.high[searchable]
    sides = parallel_map(_by_partition, numbers, repeat(width), repeat(partitions), serial=serial)
    (row_starts, row_order), (moment_starts, moment_order) = sides
    parallel_map(search, range(partitions), serial=serial)
    return winners


def _numbered(rows: pa.Table, spine: pa.Table, ttl: int | None) -> tuple[_Numbers, _Numbers, int]:
    """Number entities and times, and choose the number of entities per partition, small enough that a code fits in 63 bits.

    Keys or times that are far apart take many numbers, and so would need too many partitions. Then the entities are numbered
    without gaps and, if that is not enough, the times too.
    """
    ideal = -(-len(rows) // _PARTITION)
    most = min(4 * ideal + 16, 2**16)  # `_by_partition` keeps the number of a partition in 16 bits

    def width() -> int:
        return min(-(-entities.size // ideal), _LARGEST // times.size)

    entities, times = _entities(rows, spine), _times(rows, spine, ttl)
    if entities.size > width() * most:
        entities = _dense(entities)
    if entities.size > width() * most:
        times = _times(rows, spine, ttl, has_ranks=True)
    return entities, times, width()


def _entities(rows: pa.Table, spine: pa.Table) -> _Numbers:
    """Number the entities: the numbers of their keys are combined column by column, as digits of one number.

    For example, number 2 in one column and number 1 in the next, which has 3 numbers, give 2 * 3 + 1 = 7.
    """

    def combined(one: _Numbers, other: _Numbers) -> _Numbers:
        if one.size * other.size > _LARGEST:  # without gaps, neither has more numbers than there are rows
            one, other = _dense(one), _dense(other)
        known = (one.high >= 0) & (other.high >= 0)
        moments = np.where(known, one.high * other.size + other.high, -1)
        return _Numbers(one.rows * other.size + other.rows, moments, moments, one.size * other.size)

    names = [name for name in spine.column_names if name != "t"]
    return reduce(combined, (_keys(rows[name], spine[name]) for name in names))


def _keys(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number the keys of one column: integers by their distance from the least one in the rows, others in order of appearance."""
    if not pa.types.is_integer(rows.type):
        return _encoded(rows, spine)
    # uint64 keys of 2**63 and more wrap around to negative numbers here, but equal keys stay equal and others different.
    values, wanted = (column.fill_null(0).to_numpy().astype(np.int64, copy=False) for column in (rows, spine))
    low, high = int(values.min()), int(values.max())
    if high - low >= _LARGEST:
        return _encoded(rows, spine)
    moments = np.where((wanted >= low) & (wanted <= high) & spine.is_valid().to_numpy(), wanted - low, -1)
    return _Numbers(_less(values, low), moments, moments, high - low + 1)


def _dense(numbers: _Numbers) -> _Numbers:
    """Renumber without gaps: 3, 900 and 7 become 0, 2 and 1. Moments with a number that no row has get -1."""
    known = np.unique(numbers.rows)
    # A search in known[1:] returns the index in `known` of the last number at or below each, and never one past the end.
    ranks = np.searchsorted(known[1:], numbers.high, side="right")
    moments = np.where(known[ranks] == numbers.high, ranks, -1)
    return _Numbers(np.searchsorted(known, numbers.rows), moments, moments, len(known))


def _encoded(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number keys in the order in which they appear in the rows.

    For example, the keys "b", "a", "b" of the rows become 0, 1, 0, and the keys "a", "c" of the spine become 1, -1.
    """
    if wide := rows.nbytes > _LONG_TEXT and _WIDE.get(rows.type):
        rows, spine = rows.cast(wide), spine.cast(wide)
    encoded = rows.dictionary_encode()
    known = encoded.chunk(0).dictionary
    moments = pc.index_in(spine, value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return _Numbers(numbers, moments, moments, len(known))


def _times(rows: pa.Table, spine: pa.Table, ttl: int | None, *, has_ranks: bool = False) -> _Numbers:
    """Number the event times, and the bounds of each moment's search, by microseconds since the first event time.

    With `has_ranks`, they are numbered by rank among the distinct event times: that takes fewer numbers, but a sort.

    For example, with event times 10 and 30 and a ttl of 5, a moment at 33 searches the times 28 to 33. These are the numbers 18 to 20,
    or the ranks 1 to 1. A moment at 9 or a null moment gets `high` = -1.
    """
    values = rows["t"].to_numpy()
    first, last, ttl = int(values.min()), int(values.max()), _FOREVER if ttl is None else ttl
    moments = spine["t"].fill_null(first - 1).to_numpy()
    # Moments are clipped before the ttl is subtracted, so that the difference cannot overflow 64 bits.
    since = first if ttl > _FOREVER // 2 else np.clip(moments, first, min(last + ttl + 1, _FOREVER)) - ttl
    if has_ranks:
        ranks = np.unique(values)
        low, high = np.searchsorted(ranks, since), np.searchsorted(ranks, moments, side="right") - 1
        return _Numbers(np.searchsorted(ranks, values), np.broadcast_to(low, high.shape), high, len(ranks))
    low, high = np.clip(since, first, last + 1) - first, np.clip(moments, first - 1, last) - first
    return _Numbers(_less(values, first), np.broadcast_to(low, high.shape), high, last - first + 1)


def _less(values: np.ndarray, by: int) -> np.ndarray:
    """Subtract a number, in place if the values are a copy already, as a writable array from Arrow is."""
    less: np.ndarray = np.subtract(values, by, out=values if values.flags.writeable else None)
    return less


def _by_partition(entities: np.ndarray, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset at which each partition begins, with the end of the last, and the positions sorted by partition.

    For example, the entities 5, 0, 4, 1 in 3 partitions of 2 give the offsets 0, 2, 2, 4 and the positions 1, 3, 0, 2.
    """
    partitions = (entities // width).astype(np.uint16)  # NumPy sorts 16-bit integers by radix
    ends = np.bincount(partitions, minlength=count).cumsum()
    return np.concatenate([[0], ends]), np.argsort(partitions, kind="stable")
