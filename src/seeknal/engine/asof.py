"""The point-in-time join, as a binary search among sorted integers.

Entity and event time of each row become one integer, the row's code: entity number * number of times + time number. The codes are
sorted, and a binary search finds the last one at or before each moment. Entities are cut into partitions (`share` in the code), each
small enough for the processor's cache, and the cores work on partitions in parallel.

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

_SHARE = 2**16
"""Rows of a partition, about: few enough for the processor's cache."""
_LARGEST = _FOREVER = 2**63 - 1
_LONG_TEXT, _WIDE = 2**30, {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
"""Keys of more bytes than this get 64-bit offsets before they are encoded, and the types with such offsets."""


@dataclass(frozen=True)
class _Numbers:
    """The entities or the event times of rows and moments, numbered from 0 on.

    Args:
        rows: The number of each row.
        low: For each moment, the least number that a row may have to be found.
        high: For each moment, the greatest such number; -1 or less than `low` where no row can be found.
        size: How many numbers there are; all of `rows` are below it.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: int


def nearest(rows: pa.Table, spine: pa.Table, ttl: int | None = None) -> np.ndarray:
    """Return the row that wins at each moment: the last at or before it; among ties, that of the greatest created, then id.

    Args:
        rows: k0, k1, ... (keys), t (microseconds), created if the group has one, and id. A row whose key or t is null is not found.
        spine: k0, k1, ... of the same types, and t. Where one of them is null, nothing is found.
        ttl: How many microseconds before the moment a row may be, inclusive; None: any number.

    Returns:
        For each row of the spine the position of the winner in `rows`; -1 where there is none.
    """
    columns = [rows[name] for name in spine.column_names]
    if any(column.null_count for column in columns):
        known = reduce(pc.and_, (column.is_valid() for column in columns))
        # -1 is appended to the positions of the known rows, so that the index -1, "not found", maps to itself.
        places: np.ndarray = np.append(np.flatnonzero(known), -1)[nearest(rows.filter(known), spine, ttl)]
        return places
    found = np.full(len(spine), -1)
    if not len(rows) or not len(spine):
        return found
    entities, times, width = _numbered(rows, spine, ttl)
    asked = np.flatnonzero((entities.high >= 0) & (times.high >= times.low))
    shares = -(-entities.size // width)

    @cache
    def order_of_tied() -> list[np.ndarray]:
        return [rows[name].to_numpy() for name in ("id", "created") if name in rows.column_names]

    def look(share: int) -> None:
        here, there = stored[starts[share] : starts[share + 1]], asked[wanted[firsts[share] : firsts[share + 1]]]
        if not len(here) or not len(there):
            return
        places = (entities.rows[here] - share * width) * times.size + times.rows[here]
        order = np.argsort(places)
        places, here = places[order], here[order]
        # Sorting by created and id as well would cost more than sorting codes alone, and ties are few: only they are sorted again.
        if len(tied := np.flatnonzero(places[1:] == places[:-1])):
            tied = np.union1d(tied, tied + 1)
            by = [column[here[tied]] for column in order_of_tied()]
            here[tied] = here[tied][np.lexsort([*by, places[tied]])]
        # One comparison with the lower bound rejects rows of another entity and expired rows alike.
        base = (entities.high[there] - share * width) * times.size
        at = np.searchsorted(places, base + times.high[there], side="right") - 1
        has = (at >= 0) & (places[at] >= base + times.low[there])
        found[there[has]] = here[at[has]]

    serial = shares == 1
    sides = parallel_map(_shared, (entities.rows, entities.high[asked]), repeat(width), repeat(shares), serial=serial)
    (starts, stored), (firsts, wanted) = sides
    parallel_map(look, range(shares), serial=serial)
    return found


def _numbered(rows: pa.Table, spine: pa.Table, ttl: int | None) -> tuple[_Numbers, _Numbers, int]:
    """Number entities and times, and return with them how many entities go into a partition, so few that a code fits in 63 bits.

    Keys and times far apart take so many numbers that there would be too many partitions. Then the entities are numbered without
    gaps, and if that is not enough, the times too.
    """
    shares = -(-len(rows) // _SHARE)
    most = min(4 * shares + 16, 2**16)  # `_shared` keeps the number of a partition in 16 bits

    def width() -> int:
        return min(-(-entities.size // shares), _LARGEST // times.size)

    entities, times = _entities(rows, spine), _times(rows, spine, ttl)
    if entities.size > width() * most:
        entities = _dense(entities)
    if entities.size > width() * most:
        times = _times(rows, spine, ttl, has_ranks=True)
    return entities, times, width()


def _entities(rows: pa.Table, spine: pa.Table) -> _Numbers:
    """Number the entities: the numbers of their keys are combined column by column, as digits of one number."""

    def together(one: _Numbers, other: _Numbers) -> _Numbers:
        if one.size * other.size > _LARGEST:  # without gaps, neither has more numbers than there are rows
            one, other = _dense(one), _dense(other)
        known = (one.high >= 0) & (other.high >= 0)
        asked = np.where(known, one.high * other.size + other.high, -1)
        return _Numbers(one.rows * other.size + other.rows, asked, asked, one.size * other.size)

    names = [name for name in spine.column_names if name != "t"]
    return reduce(together, (_keys(rows[name], spine[name]) for name in names))


def _keys(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number the keys of one column: integers by their distance from the least of the rows, others in order of appearance."""
    if not pa.types.is_integer(rows.type):
        return _encoded(rows, spine)
    values, asked = (column.fill_null(0).to_numpy().astype(np.int64, copy=False) for column in (rows, spine))
    low, high = int(values.min()), int(values.max())
    if high - low >= _LARGEST:
        return _encoded(rows, spine)
    asked = np.where((asked >= low) & (asked <= high) & spine.is_valid().to_numpy(), asked - low, -1)
    return _Numbers(_less(values, low), asked, asked, high - low + 1)


def _dense(numbers: _Numbers) -> _Numbers:
    """Number anew, without gaps: 3, 900 and 7 become 0, 2 and 1. Moments with a number that no row has get -1."""
    known = np.unique(numbers.rows)
    # A search in known[1:] returns the index in `known` of the last number at or below each, and never one past the end.
    places = np.searchsorted(known[1:], numbers.high, side="right")
    asked = np.where(known[places] == numbers.high, places, -1)
    return _Numbers(np.searchsorted(known, numbers.rows), asked, asked, len(known))


def _encoded(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number keys in the order in which they appear in the rows."""
    if wide := rows.nbytes > _LONG_TEXT and _WIDE.get(rows.type):
        rows, spine = rows.cast(wide), spine.cast(wide)
    encoded = rows.dictionary_encode()
    known = encoded.chunk(0).dictionary
    asked = pc.index_in(spine, value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return _Numbers(numbers, asked, asked, len(known))


def _times(rows: pa.Table, spine: pa.Table, ttl: int | None, *, has_ranks: bool = False) -> _Numbers:
    """Number the event times, and the bounds between which each moment looks, by microseconds since the first event time.

    With `has_ranks` they are numbered by rank among the distinct event times, which takes fewer numbers but a sort.

    For example, with event times 10 and 30, and a ttl of 5, a moment at 33 looks at times 28 to 33, which are the numbers 18 to 20, or
    the ranks 1 to 1. A moment at 9 or null gets `high` = -1.
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


def _shared(entities: np.ndarray, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset at which each partition begins, with the end of the last, and the positions sorted by partition."""
    shares = (entities // width).astype(np.uint16)  # NumPy sorts 16-bit integers by radix
    ends = np.bincount(shares, minlength=count).cumsum()
    return np.concatenate([[0], ends]), np.argsort(shares, kind="stable")
