"""The engine on Spark: as-of joins and windows are computed in executors, where the rows of an entity meet its moments.

    part of the rows  -> executor: read, cut by hash of the entity --\
                                                                      > bucket -> executor: `nearest` or `windows_at` -> features
    part of the spine -> executor: cut by hash of the entity --------/

Only the files of a snapshot are read, as its log lists them. What is small, or needed in one order on one machine, is answered by the
engine on DuckDB, which this one extends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.engine.duckdb.engine import DuckDBEngine
from seeknal.engine.duckdb.queries import is_small
from seeknal.engine.duckdb.spool import ParquetSpool, parquet_spools
from seeknal.engine.protocol import Request, WindowRequest
from seeknal.engine.spark import pieces, shuffle
from seeknal.engine.spark.pieces import Buckets
from seeknal.engine.spark.session import check_installed, explained, quiet
from seeknal.engine.spark.work import VERSIONS, Lookup, Windows, check_versions, work_of
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.system.duck import Duck
from seeknal.values.moments import gather

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PIECE = 2**17
"""The moments that are sent in one cell."""
_AT_ONCE = 2**20
"""The moments of a spool that are answered at once."""
_BROADCAST = 2**24
"""The bytes of a spine up to which it is sent to all tasks that read rows."""


class SparkEngine(DuckDBEngine):
    """An engine that joins in the executors of Spark.

    Args:
        duck: The DuckDB of the driver.
        session: Returns the Spark session. It is called when rows are joined.
    """

    def __init__(self, duck: Duck, session: Callable[[], SparkSession]) -> None:
        check_installed()
        super().__init__(duck)
        self._session = session

    @property
    def session(self) -> SparkSession:
        """The Spark session."""
        return self._session()

    def as_of(self, wanted: Request, moments: pa.Table) -> pa.Table:
        """See `Engine.as_of`."""
        if wanted.rows.is_empty or not len(moments):
            return super().as_of(_without_rows(wanted), moments)
        if isinstance(wanted, WindowRequest):
            self._check_windows(wanted)
        work, is_few = work_of(wanted), is_small(len(moments), wanted.rows.count) and moments.nbytes <= _BROADCAST
        with explained():
            if is_few and isinstance(work, Lookup):
                return self._of_winners(work, moments)
            found = self._shuffled(work, moments, moments if is_few else None)
        return _in_order(found, len(moments), _names(wanted))

    def spools(self, count: int) -> AbstractContextManager[Sequence[ParquetSpool]]:
        """See `Engine.spools`."""
        return parquet_spools(count, self._duck.scratch, self._in_pieces)

    def _in_pieces(self, wanted: Request, moments: Path) -> pa.RecordBatchReader:
        """Answer the moments of a file, some at a time."""

        def answers() -> Iterator[pa.RecordBatch]:
            for batch in pq.ParquetFile(moments).iter_batches(_AT_ONCE):
                yield from self.as_of(wanted, pa.Table.from_batches([batch]).drop_columns("i")).to_batches()

        schema = self.as_of(wanted, pq.read_schema(moments).empty_table().drop_columns("i")).schema
        return pa.RecordBatchReader.from_batches(schema, answers())

    def _of_winners(self, work: Lookup, moments: pa.Table) -> pa.Table:
        """Join a small spine, without a shuffle: each task returns the rows that win among its own."""
        parts, spine = shuffle.parts_of(work.rows), _stream(moments)
        frame = self._tasks(parts, lambda batches: shuffle.read(work, parts, Buckets(1), spine, batches))
        winners = _collected(frame)
        return work.answer(pa.concat_tables(winners) if winners else None, moments)

    def _shuffled(self, work: Lookup | Windows, moments: pa.Table, few: pa.Table | None) -> pa.Table:
        numbered = moments.append_column("i", pa.array(np.arange(len(moments))))
        cut = [pieces.packed(numbered.slice(start, _PIECE)) for start in range(0, len(moments), _PIECE)]
        spine = self.session.createDataFrame(pa.Table.from_batches(cut), pieces.DDL)
        return pa.concat_tables(_collected(self.joined(work, spine, len(moments), few)))

    def joined(
        self, work: Lookup | Windows, spine: DataFrame, count: int, few: pa.Table | None = None, prefix: str = "f"
    ) -> DataFrame:
        """Return the pieces of the answer to the moments of a spine: its other columns, then the features.

        Args:
            work: The work.
            spine: The pieces of the spine.
            count: How many moments it has, about.
            few: The same, if it is small.
            prefix: How the names of the features begin, which are numbered.
        """
        parts, buckets = shuffle.parts_of(work.rows), self._buckets(work, count, is_few=few is not None)
        narrow = None if few is None else _stream(few)
        rows = self._tasks(parts, lambda batches: shuffle.read(work, parts, buckets, narrow, batches))
        if isinstance(work, Windows) and work.is_regrouped:
            rows = grouped(rows, lambda events: shuffle.regroup(work, buckets, events))
        asked = mapped(spine, lambda batches: shuffle.cut_moments(work, buckets, batches))
        sides = asked.groupBy("bucket").cogroup(rows.groupBy("bucket"))
        with quiet():
            return sides.applyInArrow(
                lambda moments, rows: _table(shuffle.answer(work, prefix, moments, rows)), pieces.DDL
            )

    def _buckets(self, work: Lookup | Windows, moments: int, *, is_few: bool) -> Buckets:
        rows, count = work.rows, shuffle.bucket_count(work.rows, moments)
        # Of a small spine, only rows in reach are shuffled; and no entity of few rows has more of them than a bucket.
        if is_few or rows.count <= 2 * shuffle.BUCKET or work.reach is None:
            return Buckets(count)
        parts = shuffle.parts_of(rows)
        percent = min(100.0, 100 * shuffle.SAMPLED / rows.count)
        sampled = self._tasks(parts, lambda batches: shuffle.sample(work, parts, percent, batches))
        return Buckets(count, shuffle.cuts_of(pa.concat_tables(_collected(sampled)), work, rows.count))

    def _tasks(
        self, parts: Sequence[Rows], run: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
    ) -> DataFrame:
        """Run a function with the number of each part, each in a task of its own."""
        return mapped(self.session.range(0, len(parts), 1, max(1, len(parts))), run)


def mapped(frame: DataFrame, run: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> DataFrame:
    """Return the pieces that a function yields in executors for the batches of each partition."""
    expected = VERSIONS

    def checked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        check_versions(expected)
        yield from run(batches)

    with quiet():
        return frame.mapInArrow(lambda batches: pieces.reported(checked(batches)), pieces.DDL)


def grouped(frame: DataFrame, run: Callable[[pa.Table], Iterator[pa.RecordBatch]]) -> DataFrame:
    """Return the pieces that a function yields in executors for the pieces of each bucket."""
    by_bucket = frame.groupBy("bucket")
    with quiet():
        return by_bucket.applyInArrow(lambda one: _table(run(one)), pieces.DDL)


def _without_rows(wanted: Request) -> Request:
    """Return a request that reads nothing."""
    rows = replace(wanted.rows, paths=(), cut=())
    return replace(wanted, rows=rows) if isinstance(wanted, WindowRequest) else replace(wanted, rows=rows, parts=())


def _table(found: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(pieces.reported(found), pieces.SCHEMA)


def _collected(frame: DataFrame) -> list[pa.Table]:
    return pieces.unpacked(frame.toArrow())


def _stream(table: pa.Table) -> bytes:
    return bytes(pieces.packed(table)["data"][0].as_py())


def _names(wanted: Request) -> list[str]:
    return [one.name for one in wanted.windows] if isinstance(wanted, WindowRequest) else list(wanted.features)


def _in_order(found: pa.Table, count: int, names: Sequence[str]) -> pa.Table:
    """Return the answers in the order of the moments.

    Raises:
        StoreError: A moment has no answer, or two.
    """
    at = found["i"].to_numpy()
    places = np.full(count, -1)
    places[at] = np.arange(len(at))
    if len(at) != count or (places < 0).any():
        raise StoreError(f"Spark has returned {len(at)} answers to {count} moments. Please report this.")
    return pa.Table.from_arrays(gather(found.drop_columns("i").columns, places), names=list(names))
