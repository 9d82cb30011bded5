"""What a write leads to: the files it replaces, and what the new ones hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, repeat

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import ROW_ID, Schema
from seeknal.errors import DataError
from seeknal.offline.log import DataFile, Snapshot
from seeknal.system.parallel import parallel_map
from seeknal.values import types
from seeknal.values.sql import comma, literal, quote, scan
from seeknal.values.times import DAY, Interval

FILE_ROWS = 2**18
"""Rows of a file at least, where a write has so many: whole days of them, as few as make up that number."""

_BLOCK, _AT_ONCE = 2**17, 8
_YEAR_1 = 719_162 * DAY
"""How far before 1970 year 1 began, which no event is older than."""


@dataclass(frozen=True)
class Write:
    """What is to be written: rows in stored types, how they meet the rows that are there, and how many hide others of them."""

    rows: pa.Table
    schema: Schema
    version: int
    mode: str
    interval: Interval
    superseded: int = 0


@dataclass(frozen=True)
class Part:
    """What one new file is to hold: a query, and the Arrow data it names."""

    query: str
    views: dict[str, pa.Table | pa.RecordBatchReader]


@dataclass(frozen=True)
class Plan:
    """Which files a write replaces, and what the new ones hold."""

    base: Snapshot
    write: Write
    rows: pa.Table
    misfits: list[DataError] = field(default_factory=list)
    """Stored rows that do not fit the new schema. DuckDB, which reads them, would tell of them in words of its own."""

    @property
    def changes_schema(self) -> bool:
        """Whether all files have to be of another schema than now."""
        return self.base.commit is None or self.base.commit.schema != self.write.schema

    @cached_property
    def replaced(self) -> list[DataFile]:
        """The files whose rows go, or move to new files."""
        if self.changes_schema:
            return list(self.base.files)
        if self.write.mode == "append":
            return []
        if self.write.mode == "overwrite":
            return [file for file in self.base.files if file.overlaps(self.write.interval)]
        moments = np.sort(_moments(self.rows, self.write.schema))
        return [file for file in self.base.files if file.has_any(moments)]

    def parts(self, engine: duckdb.DuckDBPyConnection) -> Iterator[Part]:
        """Give what each new file is to hold: the new rows and the stored ones of some days."""
        spans = self._spans(engine)
        for interval, new in zip(spans, split(self.rows, self.write.schema, spans), strict=True):
            kept = self._kept(engine, interval)
            sides = [("SELECT * FROM new_rows", {"new_rows": new})] if len(new) or not kept else []
            sides += [(f"({kept.query})", kept.views)] if kept else []
            query = " UNION ALL BY NAME ".join(side for side, _ in sides)
            views = {name: rows for _, named in sides for name, rows in named.items()}
            yield Part(self._merged_sql(query) if self.write.mode == "merge" and len(new) else query, views)

    def _spans(self, engine: duckdb.DuckDBPyConnection) -> list[Interval]:
        """Cut time so that each span has the rows of one new file."""
        stored = self._stored
        if len(self.rows) + sum(file.rows for file in stored) < 2 * FILE_ROWS:
            return [Interval()]
        counts = np.bincount((_moments(self.rows, self.write.schema) + _YEAR_1) // DAY)
        if stored and self.base.commit:
            old = self.base.commit.schema
            more = rows_a_day(engine, old, f"{scan(self._paths(stored))} WHERE {self._stays}")
            size = max(len(counts), len(more))
            counts = np.pad(counts, (0, size - len(counts))) + np.pad(more, (0, size - len(more)))
        return cut(counts)

    @cached_property
    def _stored(self) -> list[DataFile]:
        """The files that are replaced and have rows that stay."""
        drops = self.write.mode == "overwrite"
        return [file for file in self.replaced if not (drops and file.lies_within(self.write.interval))]

    @property
    def _stays(self) -> str:
        """The condition that a stored row of theirs stays."""
        if self.write.mode != "overwrite" or self.base.commit is None:
            return "true"
        return f"({inside(self.base.commit.schema, self.write.interval)}) IS NOT TRUE"

    def _kept(self, engine: duckdb.DuckDBPyConnection, interval: Interval) -> Part | None:
        """Give the stored rows of a span that stay, from the files that are replaced, in the new schema."""
        files = [file for file in self._stored if file.overlaps(interval)]
        if not files or self.base.commit is None:
            return None
        old = self.base.commit.schema
        columns = comma(quote(name) for name in [*old.names, ROW_ID])
        where = f"{self._stays} AND ({falls_into(old, interval)})"
        query = f"SELECT {columns} FROM {scan(self._paths(files))} WHERE {where}"
        if not self.changes_schema:
            return Part(query, {})
        kept = self._converted(engine.cursor().sql(query).to_arrow_reader(), old)
        return Part("SELECT * FROM kept_rows", {"kept_rows": pa.RecordBatchReader.from_batches(self.rows.schema, kept)})

    def _merged_sql(self, rows: str) -> str:
        """Write the query that leaves out, for each entity and event time of the new rows, all rows but the winner.

        Stored rows of other entities and times stay, hidden ones too: a push that comes again has to find them.
        Losers are found by their numbers, since DuckDB's windows take what is equal, such as 0.0 and -0.0, for one value.
        """
        schema, row_id = self.write.schema, quote(ROW_ID)
        entity = [quote(name) for name in (*schema.key_names, schema.event_time.name)]
        created = [quote(schema.created_time.name)] if schema.created_time else []
        same = " AND ".join(f"e.{name} IS NOT DISTINCT FROM n.{name}" for name in entity)
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
                yield _converted(batch, old, self.write.schema, self.rows.schema)
        except DataError as error:
            self.misfits.append(error)
            raise

    def _paths(self, files: Sequence[DataFile]) -> list[str]:
        return [str(self.base.root / file.path) for file in files]


def cut(counts: np.ndarray) -> list[Interval]:
    """Cut time into spans of whole days, each with enough rows for a file.

    Args:
        counts: How many rows each day has, from the first day of year 1 on.
    """
    ends, rows = [], 0
    for day in np.flatnonzero(counts).tolist():
        rows += int(counts[day])
        if rows >= FILE_ROWS:
            ends.append((day + 1) * DAY - _YEAR_1 - 1)
            rows = 0
    if rows < FILE_ROWS // 2:  # the rest is too little for a file of its own
        ends = ends[:-1]
    return [
        Interval(None if start is None else start + 1, end)
        for start, end in zip([None, *ends], [*ends, None], strict=True)
    ]


def split(rows: pa.Table, schema: Schema, spans: Sequence[Interval]) -> Iterator[pa.Table]:
    """Give the rows of each of some spans, which follow each other; in their order.

    Rows that are not in the order of the spans are sorted block by block, as a block fits in the processor's cache, and for a few
    spans at once, so that few are in memory twice.
    """
    if len(spans) == 1:
        yield rows
        return
    starts = np.array([interval.start for interval in spans[1:]])
    which = np.searchsorted(starts, _moments(rows, schema), side="right")
    if (which[1:] >= which[:-1]).all():
        edges = np.searchsorted(which, np.arange(len(spans) + 1)).tolist()
        yield from (rows.slice(start, end - start) for start, end in pairwise(edges))
        return
    small = which.astype("uint16") if len(spans) <= 2**16 else which  # which NumPy sorts by its digits

    def block_from(start: int) -> _Block:
        return _block(rows.slice(start, _BLOCK), small[start : start + _BLOCK], len(spans))

    blocks = parallel_map(block_from, range(0, len(rows), _BLOCK))
    for first in range(0, len(spans), _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, len(spans)))
        taken = parallel_map(_Block.take, blocks, repeat(some.start), repeat(some.stop))
        for interval in range(len(some)):
            yield pa.concat_tables(pieces[interval] for pieces in taken)


@dataclass(frozen=True)
class _Block:
    """Some rows, the order that sorts them by spans, and where each span begins in it."""

    rows: pa.Table
    order: np.ndarray
    edges: np.ndarray

    def take(self, first: int, end: int) -> list[pa.Table]:
        """Give the rows of each of some spans."""
        edges = self.edges[first : end + 1] - self.edges[first]
        taken = self.rows.take(pa.array(self.order[self.edges[first] : self.edges[end]]))
        return [taken.slice(start, stop - start) for start, stop in pairwise(edges.tolist())]


def _block(rows: pa.Table, spans: np.ndarray, count: int) -> _Block:
    edges = np.concatenate([[0], np.cumsum(np.bincount(spans, minlength=count))])
    return _Block(rows, np.argsort(spans, kind="stable").astype("uint32"), edges)


def rows_a_day(engine: duckdb.DuckDBPyConnection, schema: Schema, rows: str) -> np.ndarray:
    """Count stored rows by days, from the first day of year 1 on."""
    day = (
        f"greatest(coalesce((epoch_us({quote(schema.event_time.name)}) + {literal(_YEAR_1)}) // {literal(DAY)}, 0), 0)"
    )
    found = engine.cursor().sql(f"SELECT {day} AS day, count(*) AS rows FROM {rows} GROUP BY day").to_arrow_table()
    days = found["day"].to_numpy()
    counts = np.zeros(days.max(initial=-1) + 1, "int64")
    counts[days] = found["rows"].to_numpy()
    return counts


def _moments(rows: pa.Table, schema: Schema) -> np.ndarray:
    return np.asarray(rows[schema.event_time.name].cast(pa.int64()))


def _converted(batch: pa.RecordBatch, old: Schema, new: Schema, layout: pa.Schema) -> pa.RecordBatch:
    """Bring stored rows of one schema to the stored form of another; what is new is null.

    Raises:
        DataError: A stored value has no place in the new type of its column.
    """
    table = pa.Table.from_batches([batch])
    had = types.recast(types.recast(table.select(old.names), old.stored_types), old.logical_types)
    columns = []
    for new_field in new:
        try:
            is_old = new_field.name in had.column_names
            columns.append(had[new_field.name].cast(new_field.type) if is_old else pa.nulls(len(table), new_field.type))
        except pa.ArrowInvalid:
            raise DataError(
                f"Column {new_field.name!r} holds stored values of type {had[new_field.name].type} that have no place in {new_field.type}. "
                "Cast the new rows to the stored type, give the column another name, or write to a new group.",
                column=new_field.name,
            ) from None
    stored = types.recast(pa.Table.from_arrays(columns, names=new.names), new.stored_types)
    arrays = [column.combine_chunks() for column in (*stored.columns, table[ROW_ID])]
    return pa.RecordBatch.from_arrays([_whole(array) for array in arrays], schema=layout)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def inside(schema: Schema, interval: Interval) -> str:
    """Write the condition that a row's event time lies in a span."""
    moment = f"epoch_us({quote(schema.event_time.name)})"
    sides = [
        f"{moment} >= {literal(interval.start)}" if interval.start is not None else "",
        f"{moment} <= {literal(interval.end)}" if interval.end is not None else "",
    ]
    return " AND ".join(filter(None, sides)) or "true"


def falls_into(schema: Schema, interval: Interval) -> str:
    """Write the condition that a row belongs to one of the spans that time was cut into: to the first, if it has no time."""
    unknown = (
        f" OR {quote(schema.event_time.name)} IS NULL" if interval.start is None and interval.end is not None else ""
    )
    return inside(schema, interval) + unknown


def newest_first(schema: Schema) -> str:
    """Write the order in which rows of one entity and event time win: created time, then order of writing."""
    created = [f"{quote(schema.created_time.name)} DESC NULLS LAST"] if schema.created_time else []
    return comma([*created, f"{quote(ROW_ID)} DESC"])


def values_sql(schema: Schema) -> str:
    """Write what tells rows apart, value by value, as columns c0, c1, ...; 0.0 and -0.0 differ in their texts alone."""
    texts = [
        f"CAST({quote(name)} AS VARCHAR)"
        for name, kind in zip(schema.names, schema.stored_types, strict=True)
        if _has_floats(kind)
    ]
    return comma(f"{value} AS c{i}" for i, value in enumerate([*map(quote, schema.names), *texts]))


def same_values(schema: Schema, one: str, other: str) -> str:
    """Write the condition that the columns of `values_sql` are the same in two tables."""
    count = len(schema.names) + sum(map(_has_floats, schema.stored_types))
    return " AND ".join(f"{one}.c{i} IS NOT DISTINCT FROM {other}.c{i}" for i in range(count))


def _has_floats(kind: pa.DataType) -> bool:
    """Tell whether values of a type have floats in them, two of which can be equal and yet differ."""
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))


def instants(rows: pa.Table, schema: Schema) -> list[int]:
    """Give the first and the last event time, or nothing if there are no rows."""
    if not len(rows):
        return []
    bounds = pc.min_max(rows[schema.event_time.name].cast(pa.int64())).as_py()
    return [bounds["min"], bounds["max"]]


def within(schema: Schema, spans: Sequence[Interval]) -> str:
    """Write the condition that a row's event time lies in one of some spans."""
    return " OR ".join(f"({inside(schema, interval)})" for interval in spans) or "false"


def stored_sql(whole: Sequence[str], cut: Sequence[str] = (), below: int = 0) -> str:
    """Write the reading of stored rows.

    Args:
        whole: The files of which all rows count.
        cut: Those of which the rows with lesser numbers than `below` count.
        below: That number.
    """
    sides = [scan(whole)] if whole else []
    sides += [f"(SELECT * FROM {scan(cut)} WHERE {quote(ROW_ID)} < {literal(below)})"] if cut else []
    return sides[0] if len(sides) == 1 else f"({' UNION ALL BY NAME '.join(f'SELECT * FROM {side}' for side in sides)})"


def differing_files(one: Snapshot, other: Snapshot) -> tuple[list[DataFile], list[DataFile]]:
    """List the files that only the one snapshot has, and those that only the other has."""
    same = {file.key for file in one.files} & {file.key for file in other.files}
    first, second = ([file for file in some.files if file.key not in same] for some in (one, other))
    return first, second


def changed_sql(schema: Schema, sets: Sequence[str], spans: Sequence[Interval]) -> str:
    """Write the query that finds the entities with a row in one of two sets of files, but not in the other.

    Args:
        schema: The schema of both.
        sets: The reading of each set that has files.
        spans: Where rows count.
    """
    keys, row_id = comma(map(quote, schema.key_names)), quote(ROW_ID)
    sides = [keys_sql(schema, rows, spans, row_id) for rows in sets]
    if len(sides) == 1:
        return sides[0]
    return f"SELECT {keys} FROM ({' UNION ALL '.join(sides)}) GROUP BY {keys}, {row_id} HAVING count(*) = 1"


def keys_sql(schema: Schema, rows: str, spans: Sequence[Interval], *more: str) -> str:
    """Write the query that lists the join keys of the rows in some spans of time."""
    columns = comma([*map(quote, schema.key_names), *more])
    return f"SELECT {columns} FROM {rows} WHERE {within(schema, spans)}"
