"""What a write leads to: the files it replaces, and what the new ones hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from seeknal import types
from seeknal.offline.log import DataFile, Snapshot
from seeknal.schema import ROW_ID, Schema
from seeknal.sql import comma, literal, quote, scan
from seeknal.times import Interval


@dataclass(frozen=True)
class Write:
    """What is to be written: rows in stored types, and how they meet the rows that are there."""

    rows: pa.Table
    schema: Schema
    version: int
    mode: str
    interval: Interval


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

    @property
    def changes_schema(self) -> bool:
        """Whether all files have to be of another schema than now."""
        return self.base.commit is None or self.base.commit.schema != self.write.schema

    @property
    def replaced(self) -> list[DataFile]:
        """The files whose rows go, or move to new files."""
        if self.changes_schema:
            return list(self.base.files)
        if self.write.mode == "append":
            return []
        return [file for file in self.base.files if file.overlaps(self._span)]

    @property
    def _span(self) -> Interval:
        """The span of event time in which stored rows may give way to new ones."""
        if self.write.mode == "overwrite":
            return self.write.interval
        moments = instants(self.rows, self.write.schema)
        return Interval(min(moments), max(moments)) if moments else Interval(0, -1)

    def parts(self, engine: duckdb.DuckDBPyConnection) -> Iterator[Part]:
        """Give what each new file is to hold."""
        kept = self._kept(engine)
        if self.write.mode == "merge" and kept:
            both = f"SELECT * FROM new_rows UNION ALL BY NAME ({kept.query})"
            yield Part(_winners_sql(self.write.schema, both), {"new_rows": self.rows, **kept.views})
            return
        new = "SELECT * FROM new_rows"
        merges = self.write.mode == "merge"
        yield Part(_winners_sql(self.write.schema, new) if merges else new, {"new_rows": self.rows})
        if kept:
            yield kept

    def _kept(self, engine: duckdb.DuckDBPyConnection) -> Part | None:
        """Give the stored rows that stay, from the files that are replaced, in the new schema."""
        drops = self.write.mode == "overwrite"
        files = [file for file in self.replaced if not (drops and file.lies_within(self._span))]
        if not files or self.base.commit is None:
            return None
        old = self.base.commit.schema
        where = f"NOT ({inside(old, self._span)})" if drops else "true"
        columns = comma(quote(name) for name in [*old.names, ROW_ID])
        query = f"SELECT {columns} FROM {scan(str(self.base.root / file.path) for file in files)} WHERE {where}"
        if not self.changes_schema:
            return Part(query, {})
        new, layout = self.write.schema, self.rows.schema
        batches = (_converted(batch, old, new, layout) for batch in engine.cursor().sql(query).to_arrow_reader())
        return Part("SELECT * FROM kept_rows", {"kept_rows": pa.RecordBatchReader.from_batches(layout, batches)})


def _converted(batch: pa.RecordBatch, old: Schema, new: Schema, layout: pa.Schema) -> pa.RecordBatch:
    """Bring stored rows of one schema to the stored form of another; what is new is null."""
    table = pa.Table.from_batches([batch])
    had = types.recast(types.recast(table.select(old.names), old.stored_types), old.logical_types)
    columns = [
        had[field.name].cast(field.type) if field.name in had.column_names else pa.nulls(len(table), field.type)
        for field in new
    ]
    stored = types.recast(pa.Table.from_arrays(columns, names=new.names), new.stored_types)
    arrays = [column.combine_chunks() for column in (*stored.columns, table[ROW_ID])]
    return pa.RecordBatch.from_arrays([_whole(array) for array in arrays], schema=layout)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def inside(schema: Schema, span: Interval) -> str:
    """Write the condition that a row's event time lies in a span."""
    moment = f"epoch_us({quote(schema.event_time.name)})"
    sides = [
        f"{moment} >= {literal(span.start)}" if span.start is not None else "",
        f"{moment} <= {literal(span.end)}" if span.end is not None else "",
    ]
    return " AND ".join(filter(None, sides)) or "true"


def newest_first(schema: Schema) -> str:
    """Write the order in which rows of one entity and event time win: created time, then order of writing."""
    created = [f"{quote(schema.created_time.name)} DESC NULLS LAST"] if schema.created_time else []
    return comma([*created, f"{quote(ROW_ID)} DESC"])


def _winners_sql(schema: Schema, rows: str) -> str:
    entity = comma(quote(name) for name in [*schema.key_names, schema.event_time.name])
    order = newest_first(schema)
    best = f"row_number() OVER (PARTITION BY {entity} ORDER BY {order}) = 1"
    return f"SELECT * FROM ({rows}) QUALIFY {best} ORDER BY {quote(ROW_ID)}"


def instants(rows: pa.Table, schema: Schema) -> list[int]:
    """Give the first and the last event time, or nothing if there are no rows."""
    if not len(rows):
        return []
    bounds = pc.min_max(rows[schema.event_time.name].cast(pa.int64())).as_py()
    return [bounds["min"], bounds["max"]]


def within(schema: Schema, spans: Sequence[Interval]) -> str:
    """Write the condition that a row's event time lies in one of some spans."""
    return " OR ".join(f"({inside(schema, span)})" for span in spans) or "false"


def differing_files(one: Snapshot, other: Snapshot) -> tuple[list[DataFile], list[DataFile]]:
    """List the files that only the one snapshot has, and those that only the other has."""
    paths = {file.path for file in one.files} & {file.path for file in other.files}
    first, second = ([file for file in some.files if file.path not in paths] for some in (one, other))
    return first, second


def changed_sql(schema: Schema, gone: Sequence[str], come: Sequence[str], spans: Sequence[Interval]) -> str:
    """Write the query that finds the entities with a row in one of two sets of files, but not in the other.

    Args:
        schema: The schema of both.
        gone: The paths of the one set.
        come: The paths of the other.
        spans: Where rows count.
    """
    keys, row_id = comma(map(quote, schema.key_names)), quote(ROW_ID)
    sides = [keys_sql(schema, paths, spans, row_id) for paths in (gone, come) if paths]
    if len(sides) == 1:
        return sides[0]
    return f"SELECT {keys} FROM ({' UNION ALL '.join(sides)}) GROUP BY {keys}, {row_id} HAVING count(*) = 1"


def keys_sql(schema: Schema, paths: Sequence[str], spans: Sequence[Interval], *more: str) -> str:
    """Write the query that lists the join keys of the rows in some spans of time."""
    columns = comma([*map(quote, schema.key_names), *more])
    return f"SELECT {columns} FROM {scan(paths)} WHERE {within(schema, spans)}"
