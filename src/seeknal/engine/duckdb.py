"""The engine on DuckDB.

One query per group: the columns are put side by side afterwards, in the spine's order, and the spine itself never passes
through. The queries are in `seeknal.engine.queries`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal import types
from seeknal.duck import Duck
from seeknal.engine.asof import nearest
from seeknal.engine.joins import Join
from seeknal.engine.protocol import Wanted
from seeknal.engine.queries import event_times_sql, fetch_sql, newest_sql, rows_sql, share_sql
from seeknal.errors import StoreError
from seeknal.interrupts import raise_interrupt
from seeknal.offline import Rows
from seeknal.offline.plan import stored_sql, within
from seeknal.schema import ROW_ID, UTC, Schema
from seeknal.sql import comma, literal, quote, scan

_BYTES, _BYTES_OF_TEXT = 110, 300
"""What a row takes while it is joined, for each of its keys."""
_LITTLE = 2**28
_BATCH = 2**17
_ROWS = 2**16
"""Rows that DuckDB gives Arrow in one piece: larger ones grow as they are filled, into memory that is new each time."""
_PASS = 2_000_000
_SAMPLE = 50_000
_ROW_ID = pa.field(ROW_ID, pa.int64())
_ANY_ORDER = "SET SESSION preserve_insertion_order = false"
"""Who needs an order says so; in any order, what has a limit is read on all cores as well."""


class DuckDBEngine:
    """Answers with SQL over the Parquet files of a snapshot."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck

    def as_of(self, wanted: Wanted, moments: pa.Table | Path) -> pa.RecordBatchReader:
        """See `Engine.as_of`."""
        by_name = {field.name: field for field in wanted.rows.schema.features}
        schema = pa.schema([by_name[name] for name in wanted.features])
        if isinstance(moments, Path):
            found = self._as_of_passes(wanted, moments)
        elif not wanted.rows.is_empty:
            parts, most = (
                tuple(_rows_sql(part) for part in wanted.parts if not part.is_empty),
                max(one.count for one in wanted.parts or (wanted.rows,)),
            )
            shares = self._passes(wanted.rows.schema, most + len(moments))
            found = Join(self._query, wanted, _rows_sql(wanted.rows), moments, parts, shares).answer().to_reader()
        else:
            found = pa.table([pa.nulls(len(moments), field.type) for field in schema], schema=schema).to_reader()
        return pa.RecordBatchReader.from_batches(schema, (_logical(batch, schema) for batch in _read(found)))

    def _as_of_passes(self, wanted: Wanted, moments: Path) -> pa.RecordBatchReader:
        """Join in passes, each over a share of the entities, and only the numbers of rows; then fetch their features.

        So neither the rows nor their features need to be in memory, and are sorted once, in the spine's order.
        """
        cursor = self._duck.connection.cursor()
        spine, rows = scan([str(moments)]), wanted.rows
        count = pq.read_metadata(moments).num_rows
        try:
            if rows.is_empty:
                nothing = comma(f"NULL AS f{i}" for i in range(len(wanted.features)))
                return cursor.sql(f"SELECT {nothing} FROM {spine}").to_arrow_reader(_BATCH)
            passes = self._passes(rows.schema, rows.count + count)
            winners = [moments.with_name(f"{moments.stem}-{p}.parquet") for p in range(passes)]
            for number, file in enumerate(winners):
                pq.write_table(self._winners(wanted, spine, share_sql(rows.schema, number, passes)), file)
            query = fetch_sql(_rows_sql(rows), wanted.features, scan(map(str, winners)))
            found = moments.with_name(f"{moments.stem}-found.parquet")
            cursor.execute(f"COPY ({query}) TO {literal(str(found))} (FORMAT parquet)")
            for file in winners:
                file.unlink()
            features = comma(f"g.f{i}" for i in range(len(wanted.features)))
            query = f"SELECT {features} FROM {spine} AS s LEFT JOIN {scan([str(found)])} AS g USING (i) ORDER BY s.i"
            return cursor.sql(query).to_arrow_reader(_BATCH)
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {error}") from error

    def _winners(self, wanted: Wanted, spine: str, share: str) -> pa.Table:
        """Find the rows that count for a share of the entities: i, and their id."""
        rows = self._query(rows_sql(wanted.rows.schema, _rows_sql(wanted.rows), share=share))
        moments = self._query(f"SELECT * FROM {spine} WHERE {share}")
        at = nearest(rows, moments.drop_columns("i"), wanted.ttl)
        found = pa.array(at >= 0)
        return pa.table({"i": moments["i"].filter(found), "id": rows["id"].take(pa.array(at[at >= 0]))})

    def _passes(self, schema: Schema, rows: int) -> int:
        """Say into how many passes, each over a share of the entities, so many rows are to be cut to fit in memory.

        How long text is is not known; a key of text is taken to be of some 60 bytes.
        """
        needed = rows * sum(
            _BYTES if pa.types.is_integer(kind) else _BYTES_OF_TEXT for kind in schema.stored_types[: len(schema.keys)]
        )
        if needed < _LITTLE and not self._duck.has_own_limit:
            return 1
        return -(-needed // (self._duck.limit * 3 // 4))

    def moments(self, groups: Sequence[Rows]) -> pa.Table:
        """See `Engine.moments`."""
        schema = groups[0].schema
        selects = [
            f"SELECT {comma(map(quote, [*rows.schema.key_names, rows.schema.event_time.name]))} FROM ({_rows_sql(rows)})"
            for rows in groups
            if not rows.is_empty
        ]
        if not selects:
            return pa.schema([*schema.keys, pa.field(schema.event_time.name, UTC)]).empty_table()
        order = comma(str(position + 1) for position in range(len(schema.keys) + 1))
        return self._query(f"SELECT DISTINCT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {order}")

    def newest(self, rows: Rows, *, apart: int | None = None, among: pa.Table | None = None) -> pa.RecordBatchReader:
        """See `Engine.newest`."""
        schema = pa.schema(list(rows.schema))
        tables = (self._newest(rows, apart, views) for views in self._shares(rows, among)) if not rows.is_empty else ()
        return pa.RecordBatchReader.from_batches(schema, chain.from_iterable(tables))

    def _newest(self, rows: Rows, apart: int | None, views: dict[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        query = newest_sql(rows.schema, _rows_sql(rows), apart, views)
        cursor = self._duck.connection.cursor()
        try:
            for name, view in views.items():
                cursor.register(name, view)
            for batch in _read(cursor.sql(query).to_arrow_reader(_BATCH)):
                table = types.recast(pa.Table.from_batches([batch]), rows.schema.stored_types)
                yield from types.recast(table, rows.schema.logical_types).combine_chunks().to_batches()
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {error}") from error
        finally:
            cursor.close()

    def _shares(self, rows: Rows, among: pa.Table | None) -> Iterator[dict[str, pa.Table]]:
        """Give what narrows down the rows of each pass: some entities, or bounds of the keys, so that each fits in memory."""
        if among is not None or rows.count <= _PASS:
            yield {} if among is None else {"among": among}
            return
        keys = comma(map(quote, rows.schema.key_names))
        some = f"SELECT {keys} FROM ({_rows_sql(rows)}) USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (1)"
        sample = self._query(f"SELECT DISTINCT * FROM ({some}) ORDER BY ALL")
        step = max(1, len(sample) * _PASS // rows.count)
        bounds = [sample.slice(i, 1) for i in range(step, len(sample), step)]
        for low, high in pairwise([None, *bounds, None]):
            yield {name: bound for name, bound in (("low", low), ("high", high)) if bound is not None}

    def sample(self, rows: Rows, limit: int, entity: pa.Table | None = None) -> pa.Table:
        """See `Engine.sample`."""
        views = {} if entity is None else {"entity": entity}
        among = "" if entity is None else f"SEMI JOIN entity USING ({comma(map(quote, entity.column_names))})"
        return self._rows(rows, f"{among} ORDER BY {quote(ROW_ID)} DESC LIMIT {literal(limit)}", [_ROW_ID], **views)

    def event_times(self, rows: Rows, at: int) -> tuple[int | None, int | None]:
        """See `Engine.event_times`."""
        if rows.is_empty:
            return None, None
        found = self._query(event_times_sql(rows.schema, _rows_sql(rows), at))
        newest, following = (column[0].as_py() for column in found.columns)
        return newest, following

    def count(self, rows: Rows, columns: Sequence[str] = ()) -> list[int]:
        """See `Engine.count`."""
        if rows.is_empty:
            return [0] * (1 + len(columns))
        counts = comma(["count(*)", *(f"count(*) - count({quote(name)})" for name in columns)])
        found = self._query(f"SELECT {counts} FROM ({_rows_sql(rows)})")
        return [int(column[0].as_py()) for column in found.columns]

    def _rows(self, rows: Rows, tail: str, more: Sequence[pa.Field] = (), **views: pa.Table) -> pa.Table:
        schema, extra = rows.schema, [field.type for field in more]
        fields = [*schema, *more]
        if rows.is_empty:
            return pa.schema(fields).empty_table()
        names = comma(quote(field.name) for field in fields)
        found = self._query(f"SELECT {names} FROM ({_rows_sql(rows)}) {tail}", **views)
        return types.recast(types.recast(found, [*schema.stored_types, *extra]), [*schema.logical_types, *extra])

    def _query(self, sql: str, **views: pa.Table) -> pa.Table:
        cursor = self._duck.connection.cursor()
        try:
            cursor.execute(_ANY_ORDER)
            for name, view in views.items():
                cursor.register(name, view)
            return cursor.sql(sql).to_arrow_table(_ROWS)
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {error}") from error
        finally:
            cursor.close()


def _read(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Read what DuckDB gives bit by bit; what fails after the first bit is told by Arrow."""
    try:
        yield from batches
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        raise_interrupt(error)
        raise StoreError(f"DuckDB could not read the rows: {error}") from error


def _logical(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring a batch of stored features to their logical types."""
    table = pa.Table.from_batches([batch]).rename_columns(schema.names)
    table = types.recast(types.recast(table, [types.stored(field.type) for field in schema]), list(schema.types))
    return table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema)


def _rows_sql(rows: Rows) -> str:
    """Write the query that reads the rows of the spans."""
    spans = within(rows.schema, rows.spans)
    stored = stored_sql(rows.paths, rows.cut, rows.below)
    return f"SELECT * FROM {stored}" + ("" if spans == "(true)" else f" WHERE {spans}")
