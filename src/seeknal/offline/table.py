"""Writing a table: new files first, then one commit that swaps them in, or nothing.

A write is planned on one snapshot and committed as the next. Whoever comes second finds the place
taken and plans again, so the outcome is always that of some order of the writers.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from seeknal import types
from seeknal.errors import StoreError
from seeknal.offline.log import METADATA, Commit, DataFile, Snapshot, read_snapshot
from seeknal.schema import ROW_ID, Schema
from seeknal.sql import comma, literal, quote, scan
from seeknal.times import Interval, moment_of, now

_KEEP_LOG = {"delta.enableExpiredLogCleanup": "false", "delta.logRetentionDuration": "interval 36500 days"}


class Conflict(StoreError):  # noqa: N818 - it is no error to the user, but the writers' way to take turns
    """Another writer committed first; plan again on the table as it is now."""


_processes: set[int] = set()


def _refuse_forked() -> None:
    """Say what is wrong before `deltalake` panics: its threads do not come along when a process forks."""
    _processes.add(os.getpid())
    if len(_processes) > 1:
        raise StoreError(
            "This process was forked from one that has used offline tables, and cannot use them itself. Start it with "
            'multiprocessing.get_context("spawn"), or fork before the first use. Online tables work either way.'
        )


@dataclass(frozen=True)
class Write:
    """What is to be written: rows in stored types, and how they meet the rows that are there."""

    rows: pa.Table
    schema: Schema
    version: int
    mode: str
    interval: Interval


class OfflineTable:
    """A group's rows, kept as a Delta Lake table that any engine can read."""

    def __init__(self, root: Path, engine: duckdb.DuckDBPyConnection) -> None:
        _refuse_forked()
        self.root = root
        self._engine = engine

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return DeltaTable.is_deltatable(self.root)

    def create(self, schema: Schema) -> None:
        """Make an empty table, unless there is one."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            DeltaTable.create(self.root, _delta_schema(schema), mode="ignore", configuration=_KEEP_LOG)
        except DeltaError:
            if not self.exists():
                raise

    def snapshot(self, number: int | None = None) -> Snapshot:
        """Give the table as it stood after a write; the newest without a number."""
        return read_snapshot(self.root, number)

    def write(self, base: Snapshot, write: Write) -> Commit:
        """Make the snapshot that follows `base`.

        Raises:
            Conflict: `base` is no longer the newest snapshot. Nothing was written.
        """
        first = base.commit.next_row_id if base.commit else 0
        ids = pa.array(np.arange(first, first + len(write.rows)))
        plan = _Plan(base, write, write.rows.append_column(ROW_ID, ids))
        added = self._write_files(plan, write.schema)
        gone = {file.path for file in plan.replaced}
        rows = sum(f.rows for f in base.files if f.path not in gone) + sum(f.rows for f in added)
        commit = Commit(
            snapshot=base.number + 1,
            version=write.version,
            schema_text=write.schema.dumps(),
            mode=write.mode,
            interval=write.interval,
            written=len(write.rows),
            rows=rows,
            newest=max(_instants(write.rows, write.schema), default=None),
            next_row_id=first + len(write.rows),
            at=now(),
        )
        self._commit(commit, added, plan, write.schema)
        return commit

    def _write_files(self, plan: _Plan, schema: Schema) -> list[DataFile]:
        """Write all new files, or none."""
        try:
            with ExitStack() as undo:
                files = [self._write_file(part, schema, undo) for part in plan.parts(self._engine)]
                undo.pop_all()
        except duckdb.Error as error:
            raise StoreError(f"The rows could not be written to {self.root}; nothing was stored: {error}") from error
        return [file for file in files if file]

    def _write_file(self, part: _Part, schema: Schema, undo: ExitStack) -> DataFile | None:
        """Write what a query gives to a file of its own; nothing if that is no rows."""
        name = f"{uuid.uuid4().hex}.parquet"
        path = self.root / name
        undo.callback(path.unlink, missing_ok=True)
        cursor = self._engine.cursor()
        for view, rows in part.views.items():
            cursor.register(view, rows)
        options = "FORMAT parquet, COMPRESSION zstd, RETURN_STATS"
        _, count, size, *_ = cursor.execute(f"COPY ({part.query}) TO {literal(str(path))} ({options})").fetchall()[0]
        if not count:
            path.unlink()
            return None
        moment = f"epoch_us({quote(schema.event_time.name)})"
        bounds = cursor.execute(f"SELECT min({moment}), max({moment}) FROM {scan([str(path)])}").fetchall()[0]
        return DataFile(name, size, count, *bounds)

    def _commit(self, commit: Commit, added: list[DataFile], plan: _Plan, schema: Schema) -> None:
        table = DeltaTable(self.root, version=commit.snapshot - 1)
        metadata = json.dumps({k: v for k, v in asdict(commit).items() if k != "snapshot"})
        actions: list[AddAction | RemoveAction] = [_add(file, schema) for file in added]
        if not plan.changes_schema:
            actions += [RemoveAction(file.path, True, _milliseconds(), file.size, {}) for file in plan.replaced]
        try:
            table.create_write_transaction(
                actions,
                mode="overwrite" if plan.changes_schema else "append",
                schema=_delta_schema(schema),
                commit_properties=CommitProperties(custom_metadata={METADATA: metadata}, max_commit_retries=0),
            )
        except CommitFailedError:
            for file in added:
                (self.root / file.path).unlink(missing_ok=True)
            raise Conflict(f"Another writer changed {self.root} first.") from None


@dataclass(frozen=True)
class _Part:
    """What one new file is to hold: a query, and the Arrow data it names."""

    query: str
    views: dict[str, pa.Table | pa.RecordBatchReader]


@dataclass(frozen=True)
class _Plan:
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
        moments = _instants(self.rows, self.write.schema)
        return Interval(min(moments), max(moments)) if moments else Interval(0, -1)

    def parts(self, engine: duckdb.DuckDBPyConnection) -> Iterator[_Part]:
        """Give what each new file is to hold."""
        kept = self._kept(engine)
        if self.write.mode == "merge" and kept:
            both = f"SELECT * FROM new_rows UNION ALL BY NAME ({kept.query})"
            yield _Part(_winners_sql(self.write.schema, both), {"new_rows": self.rows, **kept.views})
            return
        new = "SELECT * FROM new_rows"
        merges = self.write.mode == "merge"
        yield _Part(_winners_sql(self.write.schema, new) if merges else new, {"new_rows": self.rows})
        if kept:
            yield kept

    def _kept(self, engine: duckdb.DuckDBPyConnection) -> _Part | None:
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
            return _Part(query, {})
        new, layout = self.write.schema, self.rows.schema
        batches = (_converted(batch, old, new, layout) for batch in engine.cursor().sql(query).to_arrow_reader())
        return _Part("SELECT * FROM kept_rows", {"kept_rows": pa.RecordBatchReader.from_batches(layout, batches)})


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


def _instants(rows: pa.Table, schema: Schema) -> list[int]:
    """Give the first and the last event time, or nothing if there are no rows."""
    if not len(rows):
        return []
    bounds = pc.min_max(rows[schema.event_time.name].cast(pa.int64())).as_py()
    return [bounds["min"], bounds["max"]]


def _delta_schema(schema: Schema) -> DeltaSchema:
    fields = [pa.field(name, kind) for name, kind in zip(schema.names, schema.stored_types, strict=True)]
    return DeltaSchema.from_arrow(pa.schema([*fields, pa.field(ROW_ID, pa.int64())]))


def _add(file: DataFile, schema: Schema) -> AddAction:
    name = schema.event_time.name
    stats: dict[str, object] = {"numRecords": file.rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    if file.start is not None and file.end is not None:
        stats |= {"minValues": {name: _iso(file.start)}, "maxValues": {name: _iso(file.end)}}
    return AddAction(file.path, file.size, {}, _milliseconds(), True, json.dumps(stats))


def _iso(instant: int) -> str:
    return moment_of(instant).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
