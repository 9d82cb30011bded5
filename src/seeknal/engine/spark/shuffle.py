"""The functions that run in executors, and the plan of a shuffle: parts of the rows, buckets, and entities that are cut by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from seeknal.engine.duckdb.engine import visible_sql
from seeknal.engine.spark import pieces
from seeknal.engine.spark.pieces import Buckets
from seeknal.engine.spark.work import Lookup, Windows, entity_names, local
from seeknal.offline import Rows
from seeknal.values.sql import comma, quote

BUCKET = 2**18
"""The rows of a bucket, about, and of a slice of an entity that is cut by time."""
_BYTES = 2**25
"""The bytes of files from which a bucket is full, whatever its rows; a task reads four times as many at once."""
_PART = 2**20
"""The rows that a task reads at once, about."""
SAMPLED = 200_000
"""The rows of the sample in which entities with many rows are looked for."""
_MOST_COPIES = 2
"""How many times as many rows the slices of an entity may have together."""


def parts_of(rows: Rows) -> list[Rows]:
    """Cut rows into parts, each for one task: files are taken together up to a size. Of their counts, only the total is known."""
    files = [*((path, False) for path in rows.paths), *((path, True) for path in rows.cut)]
    few = max(1, round(min(_PART * len(files) / max(rows.count, 1), 4 * _BYTES * len(files) / max(rows.size, 1))))
    found = []
    for start in range(0, len(files), few):
        mine = files[start : start + few]
        whole, cut = (tuple(path for path, is_cut in mine if is_cut == wanted) for wanted in (False, True))
        share = len(mine) / len(files)
        found.append(
            replace(rows, paths=whole, cut=cut, count=round(rows.count * share), size=round(rows.size * share))
        )
    return found


def bucket_count(rows: Rows, moments: int) -> int:
    """Return the number of buckets for so many rows and moments."""
    return max(2, -(-(rows.count + moments) // BUCKET), -(-rows.size // _BYTES))


def hashes_of(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return a hash of some columns for each row: equal for equal values, also in other tables."""
    numbered = table.select(list(names)).append_column("place", pa.array(np.arange(len(table))))
    found = local().query(f"SELECT place, hash({comma(map(quote, names))}) AS hash FROM rows", rows=numbered)
    hashes = np.empty(len(table), np.uint64)
    hashes[found["place"].to_numpy()] = found["hash"].to_numpy()
    return hashes


def numbers_in(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """Yield the numbers of the parts that a task shall read."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def read(
    work: Lookup | Windows,
    parts: Sequence[Rows],
    buckets: Buckets,
    spine: bytes | None,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Read the parts with the given numbers, and yield their pieces.

    Args:
        work: The work.
        parts: The parts.
        buckets: The buckets.
        spine: A small spine, to read only what its entities need.
        batches: The numbers.
    """
    few = None if spine is None else pa.ipc.open_stream(spine).read_all()
    for number in numbers_in(batches):
        rows = work.read(parts[number], few)
        if isinstance(work, Windows) and work.is_regrouped:
            hashes = hashes_of(rows, work.event_names)
            yield from pieces.cut(rows, Buckets(buckets.count).of(hashes, rows["t"].to_numpy()))
        else:
            yield from cut_rows(work, rows, buckets)


def cut_rows(work: Lookup | Windows, rows: pa.Table, buckets: Buckets) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of rows. A slice of an entity also gets what its moments need of the rows before it."""
    hashes = hashes_of(rows, entity_names(work))
    found, places = [buckets.of(hashes, rows["t"].to_numpy())], [np.arange(len(rows))]
    for whose, first, cuts in buckets.slices(hashes):
        of_entity = rows.take(pa.array(whose))
        for number, moment in enumerate(cuts, first + 1):
            places.append(whose[work.before(of_entity, moment)])
            found.append(np.full(len(places[-1]), number))
    together = np.concatenate(places)
    yield from pieces.cut(rows.take(pa.array(together)) if len(places) > 1 else rows, np.concatenate(found))


def regroup(work: Windows, buckets: Buckets, events: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of the rows that count, from the pieces of a bucket of events."""
    yield from cut_rows(work, work.regrouped(pa.concat_tables(pieces.unpacked(events))), buckets)


def cut_moments(
    work: Lookup | Windows, buckets: Buckets, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of moments, which are given in pieces that are cut without regard to entities."""
    for batch in batches:
        for moments in pieces.unpacked(pa.Table.from_batches([batch])):
            names = entity_names(work)
            found = buckets.of(hashes_of(moments, names), moments["t"].fill_null(0).to_numpy())
            for name in [*names, "t"]:  # a null finds nothing anywhere: all of them in one bucket would be too many
                lacking = np.flatnonzero(moments[name].is_null().to_numpy())
                found[lacking] = lacking % buckets.count
            yield from pieces.cut(moments, found)


def answer(work: Lookup | Windows, prefix: str, moments: pa.Table, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of the answer to a bucket: the columns of the spine beside entities and moments, then the features.

    Args:
        work: The work.
        prefix: How the names of the features begin, which are numbered.
        moments: The pieces of the moments.
        rows: The pieces of the rows.
    """
    known, asked = pieces.unpacked(rows), pieces.unpacked(moments)
    if not asked:
        return
    together = pa.concat_tables(asked)
    names = [*entity_names(work), "t"]
    found = work.answer(pa.concat_tables(known) if known else None, together.select(names))
    spine = together.drop_columns(names)
    for number, column in enumerate(found.columns):
        spine = spine.append_column(f"{prefix}{number}", column)
    yield from pieces.answered(spine)


def sample(
    work: Lookup | Windows, parts: Sequence[Rows], percent: float, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the hash of the entity and the event time of some rows of the parts with the given numbers."""
    keys, time = comma(map(quote, work.keys)), quote(work.rows.schema.event_time.name)
    known = " AND ".join(f"{quote(name)} IS NOT NULL" for name in work.keys)
    for number in numbers_in(batches):
        some = (
            f"SELECT * FROM ({visible_sql(parts[number], work.keys)}) USING SAMPLE {percent:.6f} PERCENT (bernoulli, 1)"
        )
        yield pieces.packed(
            local().query(f"SELECT hash({keys}) AS hash, epoch_us({time}) AS t FROM ({some}) WHERE {known}")
        )


def cuts_of(sampled: pa.Table, work: Lookup | Windows, rows: int) -> dict[int, tuple[int, ...]]:
    """Return the entities with more rows than a bucket should have, by their hashes, and the times that cut their rows evenly.

    Windows that reach far back make slices that have most of their rows in common. Then an entity is cut less, or not at all.

    Args:
        sampled: The hash and the time of some rows.
        work: The work.
        rows: How many rows there are.
    """
    found: dict[int, tuple[int, ...]] = {}
    if not len(sampled) or (reach := work.reach) is None:
        return found
    times, each = sampled["t"].to_numpy(), rows / len(sampled)
    values, which, counts = np.unique(sampled["hash"].to_numpy(), return_inverse=True, return_counts=True)
    for number in np.flatnonzero(counts * each > 2 * BUCKET):
        t = np.sort(times[which == number])
        slices = round(len(t) * each / BUCKET)
        while slices > 1:
            cuts = np.unique(t[np.arange(1, slices) * len(t) // slices])
            copied = np.searchsorted(t, cuts) - np.searchsorted(t, cuts - reach)
            if copied.sum() <= (_MOST_COPIES - 1) * len(t):
                found[int(values[number])] = tuple(map(int, cuts))
                break
            slices //= 2
    return found
