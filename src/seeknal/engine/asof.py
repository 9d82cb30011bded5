"""The point-in-time join, by number.

Entity and event time of each row become one whole number. The numbers are sorted, and a binary search finds the last one at
or before each moment's. Entities are cut into shares, each small enough for a processor's cache, and the cores take one after
the other.
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
_LARGEST = _FOREVER = 2**63 - 1
_LONG_TEXT, _WIDE = 2**30, {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}


@dataclass(frozen=True)
class _Numbers:
    """Values as whole numbers.

    Args:
        rows: Those of the rows, from 0 on.
        low: The least that a row may have to be found from each moment.
        high: The most; less than `low` where none can be found.
        size: How many numbers there are.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: int


def nearest(rows: pa.Table, spine: pa.Table, ttl: int | None = None) -> np.ndarray:
    """Find the row that counts at each moment: the last at or before it; of tied ones that with the greatest created, then id.

    Args:
        rows: k0, k1, ... (keys), t (microseconds), created where there is one, and id. Where a key or t is null, it is not found.
        spine: k0, k1, ... of the same types, and t. Where one is null, nothing is found.
        ttl: How many microseconds before the moment a row may be.

    Returns:
        The position of a row for each of the spine; -1 where there is none.
    """
    columns = [rows[name] for name in spine.column_names]
    if any(column.null_count for column in columns):
        known = reduce(pc.and_, (column.is_valid() for column in columns))
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
        if len(tied := np.flatnonzero(places[1:] == places[:-1])):
            tied = np.union1d(tied, tied + 1)
            by = [column[here[tied]] for column in order_of_tied()]
            here[tied] = here[tied][np.lexsort([*by, places[tied]])]
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
    """Number entities and times, and say how many entities go into a share: so few that its numbers have 63 bits.

    Where that takes too many shares, entities are numbered without gaps, and then times.
    """
    shares = -(-len(rows) // _SHARE)
    most = min(4 * shares + 16, 2**16)

    def width() -> int:
        return min(-(-entities.size // shares), _LARGEST // times.size)

    entities, times = _entities(rows, spine), _times(rows, spine, ttl)
    if entities.size > width() * most:
        entities = _dense(entities)
    if entities.size > width() * most:
        times = _times(rows, spine, ttl, has_ranks=True)
    return entities, times, width()


def _entities(rows: pa.Table, spine: pa.Table) -> _Numbers:
    """Number the entities by their keys."""

    def together(one: _Numbers, other: _Numbers) -> _Numbers:
        if one.size * other.size > _LARGEST:
            one, other = _dense(one), _dense(other)
        known = (one.high >= 0) & (other.high >= 0)
        asked = np.where(known, one.high * other.size + other.high, -1)
        return _Numbers(one.rows * other.size + other.rows, asked, asked, one.size * other.size)

    names = [name for name in spine.column_names if name != "t"]
    return reduce(together, (_keys(rows[name], spine[name]) for name in names))


def _keys(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number the keys in one column: whole numbers by their distance from the least, others as they come."""
    if not pa.types.is_integer(rows.type):
        return _encoded(rows, spine)
    values, asked = (column.fill_null(0).to_numpy().astype(np.int64, copy=False) for column in (rows, spine))
    low, high = int(values.min()), int(values.max())
    if high - low >= _LARGEST:
        return _encoded(rows, spine)
    asked = np.where((asked >= low) & (asked <= high) & spine.is_valid().to_numpy(), asked - low, -1)
    return _Numbers(_less(values, low), asked, asked, high - low + 1)


def _dense(numbers: _Numbers) -> _Numbers:
    """Number anew, without gaps."""
    known = np.unique(numbers.rows)
    places = np.searchsorted(known[1:], numbers.high, side="right")
    asked = np.where(known[places] == numbers.high, places, -1)
    return _Numbers(np.searchsorted(known, numbers.rows), asked, asked, len(known))


def _encoded(rows: pa.ChunkedArray, spine: pa.ChunkedArray) -> _Numbers:
    """Number keys in the order in which they come."""
    if wide := rows.nbytes > _LONG_TEXT and _WIDE.get(rows.type):
        rows, spine = rows.cast(wide), spine.cast(wide)
    encoded = rows.dictionary_encode()
    known = encoded.chunk(0).dictionary
    asked = pc.index_in(spine, value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return _Numbers(numbers, asked, asked, len(known))


def _times(rows: pa.Table, spine: pa.Table, ttl: int | None, *, has_ranks: bool = False) -> _Numbers:
    """Number the event times, and the span that each moment looks into: by microseconds, or by their ranks, which are fewer."""
    values = rows["t"].to_numpy()
    first, last, ttl = int(values.min()), int(values.max()), _FOREVER if ttl is None else ttl
    moments = spine["t"].fill_null(first - 1).to_numpy()
    since = first if ttl > _FOREVER // 2 else np.clip(moments, first, min(last + ttl + 1, _FOREVER)) - ttl
    if has_ranks:
        ranks = np.unique(values)
        low, high = np.searchsorted(ranks, since), np.searchsorted(ranks, moments, side="right") - 1
        return _Numbers(np.searchsorted(ranks, values), np.broadcast_to(low, high.shape), high, len(ranks))
    low, high = np.clip(since, first, last + 1) - first, np.clip(moments, first - 1, last) - first
    return _Numbers(_less(values, first), np.broadcast_to(low, high.shape), high, last - first + 1)


def _less(values: np.ndarray, by: int) -> np.ndarray:
    """Subtract a number, in place where the values are a copy already."""
    less: np.ndarray = np.subtract(values, by, out=values if values.flags.writeable else None)
    return less


def _shared(entities: np.ndarray, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Say where each share begins, and where the last ends; and sort positions by the share that their entity is in."""
    shares = (entities // width).astype(np.uint16)  # so small that NumPy sorts them by radix
    ends = np.bincount(shares, minlength=count).cumsum()
    return np.concatenate([[0], ends]), np.argsort(shares, kind="stable")
