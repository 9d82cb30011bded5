"""The plan of a write: which files it replaces, and the SQL that produces the rows of each new file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import NamedTuple, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.errors import DataError
from seeknal.offline.evolution import converted
from seeknal.offline.log import DataFile, Snapshot
from seeknal.offline.scans import scan_stored
from seeknal.system.parallel import parallel_map
from seeknal.system.stored_paths import StoredPath
from seeknal.values.sql import comma, literal, quote
from seeknal.values.times import DAY, Interval

FILE_ROWS = 2**18
"""Target number of rows of a file. It holds whole days (UTC), as few as have at least so many rows; the last one may have half of them."""

_BLOCK, _AT_ONCE = 2**17, 8
"""The rows of a block, which is sorted at once, and the number of intervals whose rows are gathered at once."""
_YEAR_1 = 719_162 * DAY
"""Microseconds from the start of year 1 to 1970. No event is older than year 1, so days counted from there are never negative."""


@dataclass(frozen=True)
class Settled:
    """What a write of events says of rows with equal ids; see `seeknal.offline.events`.

    Args:
        loses: For each row of the write whether it does not count.
        losers: The numbers of the stored rows that no longer count.
        gone: The numbers, which are negative, of the hidden rows that go because an overwrite removes their events.
        files: The names of the files that hold rows of one or the other kind.
        hiding: The names of the files that hold hidden rows which stay, even if an overwrite replaces the file.
        hidden: How many stored rows do not count after the write.
    """

    loses: np.ndarray
    losers: np.ndarray
    gone: np.ndarray
    files: frozenset[str]
    hiding: frozenset[str]
    hidden: int

    @classmethod
    def as_new(cls, count: int, hidden: int) -> Settled:
        """Return what a write says whose rows are known to be of new events, each of another.

        Args:
            count: The number of its rows.
            hidden: How many stored rows do not count.
        """
        nothing = np.empty(0, np.int64)
        return cls(np.zeros(count, bool), nothing, nothing, frozenset(), frozenset(), hidden)


class Made(NamedTuple):
    """The files of a spread, and how many of its rows others of them supersede."""

    files: list[DataFile]
    superseded: int


class Spread(Protocol):
    """Rows that are written to new files elsewhere; see `seeknal.write.distributed`."""

    @property
    def count(self) -> int:
        """How many there are."""

    def write(self, root: StoredPath, first: int, undo: ExitStack, *, added: bool) -> Made:
        """Write the files.

        Args:
            root: The folder of the table.
            first: The number of the first row.
            undo: Removes the files if they are not committed.
            added: Whether the commit only adds rows.

        Raises:
            StoreError: They could not be written, or the rows differ from those that were counted.
        """


@dataclass(frozen=True)
class Write:
    """A requested write.

    Args:
        rows: The rows, in stored types.
        schema: Their schema.
        version: The version of the group that they belong to.
        mode: How they combine with stored rows: "append", "overwrite" or "merge".
        interval: The interval of event time that was given; an overwrite replaces it.
        superseded: Number of the rows that other rows of the write supersede; of events, of those that do not count.
        are_events: Whether the rows are events of a source, of which those with equal keys are one event, whatever their event time;
            without keys, each is an event.
        settled: What the write says of rows with equal keys; None if they are no events, or if that was not looked up yet.
        at: When the rows were acknowledged, in microseconds since 1970; None: when they are committed.
        spread: More rows, of an append or overwrite.
    """

    rows: pa.Table
    schema: Schema
    version: int
    mode: str
    interval: Interval
    superseded: int = 0
    are_events: bool = False
    settled: Settled | None = None
    at: int | None = None
    spread: Spread | None = None

    @property
    def count(self) -> int:
        """The number of its rows."""
        return len(self.rows) + (self.spread.count if self.spread else 0)


@dataclass(frozen=True)
class Part:
    """The contents of one new file: a query, and the Arrow data that it refers to by name."""

    query: str
    views: dict[str, pa.Table | pa.RecordBatchReader]


@dataclass(frozen=True)
class Plan:
    """The files that a write replaces, and the contents of the new ones.

    Args:
        base: The snapshot that the write is planned on.
        write: The write.
        rows: The rows of the write with their row numbers.
    """

    base: Snapshot
    write: Write
    rows: pa.Table
    misfits: list[DataError] = field(default_factory=list)
    """The errors about stored rows that do not fit the new schema. They are kept here, because DuckDB replaces them by its own error."""

    @property
    def changes_schema(self) -> bool:
        """Whether the schema of the write differs from that of the table, so that all files have to be rewritten."""
        return self.base.commit is None or self.base.commit.schema != self.write.schema

    @cached_property
    def replaced(self) -> list[DataFile]:
        """The files that the write removes; their rows are dropped or move to new files."""
        if self.changes_schema:
            return list(self.base.files)
        if self.write.mode == "overwrite":
            return [file for file in self.base.files if file.overlaps(self.write.interval)]
        if not self._merges:
            return []
        # A merge replaces stored rows only at event times that its own rows have.
        moments = np.sort(_moments(self.rows, self.write.schema))
        return [file for file in self.base.files if file.has_any(moments)]

    @property
    def _merges(self) -> bool:
        # Of events, a merge means the same as an append: the rows that it supersedes may be at any time.
        return self.write.mode == "merge" and not self.write.are_events

    @cached_property
    def corrected(self) -> list[DataFile]:
        """The files that the write replaces only because some of their rows no longer count."""
        files, replaced = self.write.settled.files if self.write.settled else (), self.replaced
        return [file for file in self.base.files if file.path in files and file not in replaced]

    def corrections(self) -> Iterator[Part]:
        """Yield the contents of the files that take the place of `corrected`, one for each: its rows, some of them hidden or gone."""
        hidden, gone = f"* REPLACE ({self._number} AS {quote(ROW_ID)})", f"{quote(ROW_ID)} IN (SELECT number FROM gone)"
        for file in self.corrected:
            yield Part(f"SELECT {hidden} FROM {scan_stored(self._paths([file]))} WHERE NOT {gone}", self._views)

    def parts(self, engine: duckdb.DuckDBPyConnection) -> Iterator[Part]:
        """Yield the contents of each new file: the new rows of some whole days, and the stored rows of these days that stay.

        For example, an overwrite of 3 May with files A (1 to 3 May) and B (4 and 5 May) replaces A alone. If the rows suffice for one
        file only, its part is the union of the new rows of 3 May and the rows that A has of 1 and 2 May. A merge with a row of 4 May
        replaces B alone; its part is all rows of B and the new row, except those that lose to another one.
        """
        spans = self._spans(engine)
        for interval, new in zip(spans, split(self.rows, self.write.schema, spans), strict=True):
            kept = self._kept(engine, interval)
            # An interval without new rows still needs a query if nothing is kept; such a part yields no file.
            sides = [("SELECT * FROM new_rows", {"new_rows": new})] if len(new) or not kept else []
            sides += [(f"({kept.query})", kept.views)] if kept else []
            query = " UNION ALL BY NAME ".join(side for side, _ in sides)
            views = {name: rows for _, named in sides for name, rows in named.items()}
            yield Part(self._merged_sql(query) if self._merges and len(new) else query, views)

    def _spans(self, engine: duckdb.DuckDBPyConnection) -> list[Interval]:
        """Cut time into adjacent intervals, each with the rows of one new file."""
        stored = self._stored
        # Less than two files' worth of rows becomes one file, and the stored rows need not be counted by day.
        if len(self.rows) + sum(file.rows for file in stored) < 2 * FILE_ROWS:
            return [Interval()]
        counts = np.bincount(days_of(_moments(self.rows, self.write.schema)))
        if stored and self.base.commit:
            old = self.base.commit.schema
            kept = rows_a_day(engine, old, f"{scan_stored(self._paths(stored))} WHERE {self._stays}", self._views)
            # Both begin with the first day of year 1, but each ends with its own last day.
            size = max(len(counts), len(kept))
            counts = np.pad(counts, (0, size - len(counts))) + np.pad(kept, (0, size - len(kept)))
        return cut(counts)

    @cached_property
    def _stored(self) -> list[DataFile]:
        """The replaced files that may have rows that stay. Most files within an overwritten interval have none, and are not read."""
        if self.write.mode != "overwrite":
            return self.replaced
        hiding = self.write.settled.hiding if self.write.settled else ()
        return [file for file in self.replaced if file.path in hiding or not file.lies_within(self.write.interval)]

    @property
    def _stays(self) -> str:
        """The SQL condition under which a stored row of a replaced file stays."""
        if self.write.mode != "overwrite" or self.base.commit is None:
            return "true"
        # IS NOT TRUE rather than NOT: a row without an event time is in no interval, and must stay.
        outside = f"({inside(self.base.commit.schema, self.write.interval)}) IS NOT TRUE"
        if not self._views:
            return outside
        # Of events, only those that count are replaced; their hidden rows go or stay with them.
        return f"({outside} OR {quote(ROW_ID)} < 0) AND {quote(ROW_ID)} NOT IN (SELECT number FROM gone)"

    @property
    def _number(self) -> str:
        """The SQL of the number with which a stored row is stored again."""
        row_id = quote(ROW_ID)
        hidden = f"CASE WHEN {row_id} IN (SELECT number FROM losers) THEN ~{row_id} ELSE {row_id} END"
        return hidden if self._views else row_id

    @cached_property
    def _views(self) -> dict[str, pa.Table | pa.RecordBatchReader]:
        """The tables to which the SQL refers by name."""
        if not (settled := self.write.settled):
            return {}
        return {"losers": pa.table({"number": settled.losers}), "gone": pa.table({"number": settled.gone})}

    def _kept(self, engine: duckdb.DuckDBPyConnection, interval: Interval) -> Part | None:
        """Return the stored rows of an interval that stay, from the replaced files, in the new schema; None if no file has any."""
        files = [file for file in self._stored if file.overlaps(interval)]
        if not files or self.base.commit is None:
            return None
        old = self.base.commit.schema
        columns = comma([*map(quote, old.names), f"{self._number} AS {quote(ROW_ID)}"])
        where = f"{self._stays} AND ({falls_into(old, interval)})"
        query = f"SELECT {columns} FROM {scan_stored(self._paths(files))} WHERE {where}"
        if not self.changes_schema:
            return Part(query, self._views)
        # The casts to another schema are made in Arrow, which refuses to change a value. The rows are streamed, batch by batch.
        kept = self._converted(_cursor(engine, self._views).sql(query).to_arrow_reader(), old)
        return Part("SELECT * FROM kept_rows", {"kept_rows": pa.RecordBatchReader.from_batches(self.rows.schema, kept)})

    def _merged_sql(self, rows: str) -> str:
        """Write the query that keeps only the winner for each entity and event time of the new rows.

        Stored rows of other entities and event times all stay, even hidden ones, because a repeated push has to find them.
        For example, when row 4 is merged:

            number   key   event time   created   x
            0        a     10:00        5         1   kept: the greatest created time
            1        a     10:00        3         2   dropped; it was hidden before
            2        b     10:00        5         3   kept: there is no new row of b
            3        b     10:00        4         4   kept, although row 2 hides it
            4        a     10:00        4         5   the new row, dropped: it loses to row 0

        The window gets only keys, times and row numbers, and the losers are removed by number, because a window in DuckDB may return
        one of two equal values, such as 0.0 and -0.0, in place of the other.
        """
        schema, row_id = self.write.schema, quote(ROW_ID)
        entity = [quote(name) for name in (*schema.key_names, schema.event_time.name)]
        created = [quote(schema.created_time.name)] if schema.created_time else []
        # Null keys must match each other, as they do in the window's partitions.
        same = " AND ".join(f"e.{name} IS NOT DISTINCT FROM n.{name}" for name in entity)
        # MATERIALIZED, because it is read twice, and converted rows come from a stream that can be read only once.
        return f"""
            WITH every AS MATERIALIZED ({rows}),
                 met AS (SELECT {comma([*entity, *created, row_id])} FROM every AS e SEMI JOIN new_rows AS n ON {same}),
                 losers AS (
                    SELECT {row_id} FROM met
                    QUALIFY row_number() OVER (PARTITION BY {comma(entity)} ORDER BY {newest_first(schema)}) > 1
                 )
            SELECT * FROM every ANTI JOIN losers USING ({row_id}) ORDER BY {row_id}
        """

    def _converted(self, batches: Iterable[pa.RecordBatch], old: Schema) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield converted(batch, old, self.write.schema, self.rows.schema)
        except DataError as error:
            self.misfits.append(error)
            raise

    def _paths(self, files: Sequence[DataFile]) -> list[StoredPath]:
        return [self.base.root / file.path for file in files]


def numbered(base: Snapshot, write: Write) -> pa.Table:
    """Return the rows of a write with their numbers, which are those after the numbers of a snapshot."""
    first = base.commit.next_row_id if base.commit else 0
    numbers = np.arange(first, first + len(write.rows))
    numbers = np.where(write.settled.loses, ~numbers, numbers) if write.settled else numbers
    return write.rows.append_column(ROW_ID, pa.array(numbers))


def cut(counts: np.ndarray) -> list[Interval]:
    """Cut time into adjacent intervals of whole days, each with enough rows for a file.

    The first interval has no start and the last no end, so every event time is in one of them. For example, 100,000 rows on each of
    seven days give two files, of days 1 to 3 (300,000 rows, the first sum of at least 2^18) and of days 4 to 7: day 7 alone would be
    less than half a file, and is added to the one before.

    Args:
        counts: The number of rows of each day, from the first day of year 1 on.
    """
    ends, rows = [], 0
    for day in np.flatnonzero(counts).tolist():
        rows += int(counts[day])
        if rows >= FILE_ROWS:
            ends.append((day + 1) * DAY - _YEAR_1 - 1)  # the last microsecond of the day: intervals are closed
            rows = 0
    if rows < FILE_ROWS // 2:  # the rest is too small for a file of its own
        ends = ends[:-1]
    return [
        Interval(None if start is None else start + 1, end)
        for start, end in zip([None, *ends], [*ends, None], strict=True)
    ]


def days_of(moments: np.ndarray) -> np.ndarray:
    """Return the day of each moment, in microseconds since 1970, counted from the first day of year 1."""
    return (moments + _YEAR_1) // DAY


def first_moments(days: np.ndarray) -> np.ndarray:
    """Return the first moment of each day; see `days_of`."""
    return days * DAY - _YEAR_1


def split(rows: pa.Table, schema: Schema, spans: Sequence[Interval]) -> Iterator[pa.Table]:
    """Yield the rows of each interval, one table per interval, in the order of the intervals.

    Rows that are already in the order of the intervals are sliced without a copy. Others are sorted block by block, since a block fits
    in the processor's cache, and gathered for a few intervals at a time, so that few rows are in memory twice. Rows of one interval
    keep their order. For example, rows a to d with event times on days 1, 3, 1 and 2, and intervals that end with day 1 and begin with
    day 2, give the tables (a, c) and (b, d).

    Args:
        rows: The rows; none lacks an event time.
        schema: Their schema.
        spans: The intervals, ascending and adjacent; the first has no start and the last no end.
    """
    if len(spans) == 1:
        yield rows
        return
    # The intervals are adjacent, so their starts alone determine which one a row belongs to.
    starts = np.array([interval.start for interval in spans[1:]])
    which = np.searchsorted(starts, _moments(rows, schema), side="right")
    if (which[1:] >= which[:-1]).all():
        edges = np.searchsorted(which, np.arange(len(spans) + 1)).tolist()
        yield from (rows.slice(start, end - start) for start, end in pairwise(edges))
        return
    small = which.astype("uint16") if len(spans) <= 2**16 else which  # NumPy sorts 16-bit integers by radix

    def block_from(start: int) -> _Block:
        return _block(rows.slice(start, _BLOCK), small[start : start + _BLOCK], len(spans))

    blocks = parallel_map(block_from, range(0, len(rows), _BLOCK))
    for first in range(0, len(spans), _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, len(spans)))
        taken = parallel_map(_Block.take, blocks, repeat(some.start), repeat(some.stop))
        for number in range(len(some)):
            yield pa.concat_tables(pieces[number] for pieces in taken)


@dataclass(frozen=True)
class _Block:
    """A block of rows, the order that sorts them by interval, and where each interval begins in that order."""

    rows: pa.Table
    order: np.ndarray
    edges: np.ndarray

    def take(self, first: int, end: int) -> list[pa.Table]:
        """Return the rows of each interval from `first` to `end`, exclusive."""
        edges = self.edges[first : end + 1] - self.edges[first]
        taken = self.rows.take(pa.array(self.order[self.edges[first] : self.edges[end]]))
        return [taken.slice(start, stop - start) for start, stop in pairwise(edges.tolist())]


def _block(rows: pa.Table, spans: np.ndarray, count: int) -> _Block:
    edges = np.concatenate([[0], np.cumsum(np.bincount(spans, minlength=count))])
    # A stable sort keeps the order of writing within an interval; 32 bits hold every position in a block.
    return _Block(rows, np.argsort(spans, kind="stable").astype("uint32"), edges)


def _cursor(
    engine: duckdb.DuckDBPyConnection, views: Mapping[str, pa.Table | pa.RecordBatchReader]
) -> duckdb.DuckDBPyConnection:
    cursor = engine.cursor()
    for name, rows in views.items():
        cursor.register(name, rows)
    return cursor


def rows_a_day(
    engine: duckdb.DuckDBPyConnection,
    schema: Schema,
    rows: str,
    views: Mapping[str, pa.Table | pa.RecordBatchReader] = MappingProxyType({}),
) -> np.ndarray:
    """Return the number of stored rows of each day, from the first day of year 1 on.

    Rows without an event time, or with one before year 1, count for that first day.

    Args:
        engine: The DuckDB connection that reads them.
        schema: Their schema.
        rows: The SQL that reads them, as it stands after FROM.
        views: Tables to which it refers by name.
    """
    day = (
        f"greatest(coalesce((epoch_us({quote(schema.event_time.name)}) + {literal(_YEAR_1)}) // {literal(DAY)}, 0), 0)"
    )
    query = f"SELECT {day} AS day, count(*) AS rows FROM {rows} GROUP BY day"
    found = _cursor(engine, views).sql(query).to_arrow_table()
    days = found["day"].to_numpy()
    counts = np.zeros(days.max(initial=-1) + 1, "int64")
    counts[days] = found["rows"].to_numpy()
    return counts


def _moments(rows: pa.Table, schema: Schema) -> np.ndarray:
    return np.asarray(rows[schema.event_time.name].cast(pa.int64()))


def inside(schema: Schema, interval: Interval) -> str:
    """Write the SQL condition that a row's event time lies in an interval, bounds included."""
    moment = f"epoch_us({quote(schema.event_time.name)})"
    sides = [
        f"{moment} >= {literal(interval.start)}" if interval.start is not None else "",
        f"{moment} <= {literal(interval.end)}" if interval.end is not None else "",
    ]
    return " AND ".join(filter(None, sides)) or "true"


def falls_into(schema: Schema, interval: Interval) -> str:
    """Write the SQL condition that a row belongs to one of the intervals made by `cut`: to the first, if it has no event time."""
    unknown = (
        f" OR {quote(schema.event_time.name)} IS NULL" if interval.start is None and interval.end is not None else ""
    )
    return inside(schema, interval) + unknown


def newest_first(schema: Schema) -> str:
    """Write the ORDER BY terms that put the winner among rows of one entity and event time first: created time, then row number."""
    created = [f"{quote(schema.created_time.name)} DESC NULLS LAST"] if schema.created_time else []
    return comma([*created, f"{quote(ROW_ID)} DESC"])


def instants(rows: pa.Table, schema: Schema) -> list[int]:
    """Return the least and the greatest event time, in microseconds since 1970; an empty list if there are no rows."""
    if not len(rows):
        return []
    bounds = pc.min_max(rows[schema.event_time.name].cast(pa.int64())).as_py()
    return [bounds["min"], bounds["max"]]


def within(schema: Schema, spans: Sequence[Interval]) -> str:
    """Write the SQL condition that a row's event time lies in at least one of the intervals."""
    return " OR ".join(f"({inside(schema, interval)})" for interval in spans) or "false"
