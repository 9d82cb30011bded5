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

from functools import cache, reduce
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine.numbering import LARGEST, Numbers, by_partition, dense, less, number_entities
from seeknal.system.parallel import parallel_map

_PARTITION = 2**16
"""The approximate number of rows in a partition, small enough for the processor's cache."""
_FOREVER = LARGEST


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
    sides = parallel_map(by_partition, numbers, repeat(width), repeat(partitions), serial=serial)
    (row_starts, row_order), (moment_starts, moment_order) = sides
    parallel_map(search, range(partitions), serial=serial)
    return winners


def _numbered(rows: pa.Table, spine: pa.Table, ttl: int | None) -> tuple[Numbers, Numbers, int]:
    """Number entities and times, and choose the number of entities per partition, small enough that a code fits in 63 bits.

    Keys or times that are far apart take many numbers, and so would need too many partitions. Then the entities are numbered
    without gaps and, if that is not enough, the times too.
    """
    ideal = -(-len(rows) // _PARTITION)
    most = min(4 * ideal + 16, 2**16)  # `by_partition` keeps the number of a partition in 16 bits

    def width() -> int:
        return min(-(-entities.size // ideal), LARGEST // times.size)

    entities, times = number_entities(rows, spine), _times(rows, spine, ttl)
    if entities.size > width() * most:
        entities = dense(entities)
    if entities.size > width() * most:
        times = _times(rows, spine, ttl, has_ranks=True)
    return entities, times, width()


def _times(rows: pa.Table, spine: pa.Table, ttl: int | None, *, has_ranks: bool = False) -> Numbers:
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
        return Numbers(np.searchsorted(ranks, values), np.broadcast_to(low, high.shape), high, len(ranks))
    low, high = np.clip(since, first, last + 1) - first, np.clip(moments, first - 1, last) - first
    return Numbers(less(values, first), np.broadcast_to(low, high.shape), high, last - first + 1)
