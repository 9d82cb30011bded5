"""The query engine on DuckDB.

Each group is queried on its own. The caller puts the features beside the spine, whose own columns never pass through DuckDB: only
keys, moments and positions do. The SQL is in `seeknal.engine.duckdb.queries`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.engine.asof import nearest
from seeknal.engine.duckdb.conditions import check_conditions, condition_sql, evaluate
from seeknal.engine.duckdb.joins import Join, LazyParts
from seeknal.engine.duckdb.queries import event_times_sql, fetch_sql, keys_and_times, latest_sql, rows_sql, share_sql
from seeknal.engine.duckdb.spool import ParquetSpool, parquet_spools
from seeknal.engine.duckdb.windows import WindowJoin
from seeknal.engine.protocol import FeatureRequest, Request, WindowRequest
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.offline.plan import within
from seeknal.offline.scans import stored_sql
from seeknal.system.duck import Duck, explained
from seeknal.system.interrupts import raise_interrupt
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.sql import comma, literal, quote, scan
from seeknal.values.types import UTC

_BYTES, _BYTES_OF_TEXT = 110, 300
"""The bytes that a row takes during a join, per key column: of integers, and of other types, such as text."""
_BYTES_OF_VALUE, _BYTES_OF_RESULT = 24, 40
"""The bytes that each feature of a windowed group takes per event and per moment, about."""
_LITTLE = 2**28
"""A join that needs fewer bytes than this is made in one pass, unless the user has set a memory limit."""
_BATCH = 2**17
"""Rows of a batch of a result that is streamed."""
_ROWS = 2**16
"""Rows that DuckDB hands to Arrow in one piece: larger pieces grow while they are filled, into newly allocated memory each time."""
_PASS = 2_000_000
"""Rows of a pass over the latest rows, or over the events to load, about."""
_SAMPLE = 50_000
"""Rows from which the bounds of such passes are estimated."""
_ROW_ID = pa.field(ROW_ID, pa.int64())
_ANY_ORDER = "SET SESSION preserve_insertion_order = false"
"""Queries that need an order have an ORDER BY. Without insertion order, DuckDB also reads a query with a LIMIT on all cores."""


class DuckDBEngine:
    """An engine that runs SQL over the Parquet files of a snapshot."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck

    def as_of(self, wanted: Request, moments: pa.Table) -> pa.Table:
        """See `Engine.as_of`."""
        if isinstance(wanted, WindowRequest):
            return self._windows(wanted).of_table(moments, self._passes_of_events(wanted, len(moments)))
        if wanted.rows.is_empty:
            schema = features_of(wanted)
            return pa.table([pa.nulls(len(moments), kind) for kind in schema.types], schema=schema)
        columns = [*keys_and_times(wanted.rows.schema), *wanted.features]
        parts = LazyParts([part for part in wanted.parts if not part.is_empty], partial(visible_sql, columns=columns))
        # One part is in memory at a time, so the largest one decides into how many partitions the entities are cut.
        most = max(one.count for one in wanted.parts or (wanted.rows,))
        shares = self._passes(wanted.rows.schema, most + len(moments))
        rows = partial(visible_sql, wanted.rows, columns)
        found = Join(self._query, wanted, rows, moments, parts, shares).answer()
        return in_logical_types(wanted, found.to_reader()).read_all()

    def check_conditions(self, schema: Schema, conditions: Mapping[str, str]) -> None:
        """See `Engine.check_conditions`."""
        check_conditions(self._duck.connection.cursor(), schema, conditions)

    def conditions(self, schema: Schema, rows: pa.Table, conditions: Sequence[str]) -> list[pa.ChunkedArray]:
        """See `Engine.conditions`."""
        return evaluate(self._duck.connection.cursor(), schema, rows, conditions)

    def spools(self, count: int) -> AbstractContextManager[Sequence[ParquetSpool]]:
        """See `Engine.spools`."""
        return parquet_spools(count, self._duck.scratch, self._as_of_streamed)

    def _windows(self, wanted: WindowRequest) -> WindowJoin:
        """Return the join of a windowed group, whose conditions are checked."""
        self._check_windows(wanted)
        return WindowJoin(self._query, wanted, events_sql(wanted, wanted.rows))

    def _check_windows(self, wanted: WindowRequest) -> None:
        """Check the conditions of a windowed group, which become part of its queries."""
        texts = {one.aggregation.where: one.name for one in reversed(wanted.windows)}
        conditions = {text: feature for text, feature in texts.items() if text is not None}
        self.check_conditions(wanted.rows.schema, conditions)

    def _passes_of_events(self, wanted: WindowRequest, moments: int) -> int:
        """Return the number of passes, each over a partition of the entities, in which the features can be computed in memory."""
        keys = sum(
            _BYTES if pa.types.is_integer(wanted.rows.schema.field(name).type) else _BYTES_OF_TEXT
            for name in wanted.keys
        )
        needed = wanted.rows.count * (keys + _BYTES_OF_VALUE * len(wanted.windows)) + wanted.rows.size
        needed += moments * (keys + _BYTES_OF_RESULT * len(wanted.windows))
        return self._passes_for(needed)

    def _as_of_streamed(self, wanted: Request, moments: Path) -> pa.RecordBatchReader:
        """Answer the moments of a file, in the order of the positions `i`; see `Spool.as_of`."""
        return (
            self._windows_streamed(wanted, moments)
            if isinstance(wanted, WindowRequest)
            else self._rows_streamed(wanted, moments)
        )

    def _windows_streamed(self, wanted: WindowRequest, moments: Path) -> pa.RecordBatchReader:
        """Compute a windowed group's features at the moments of a file.

        In passes, each over a partition of the entities, they are computed and written with their positions to a file; then that file
        is read in the spine's order.
        """
        count, join = pq.read_metadata(moments).num_rows, self._windows(wanted)
        passes, spine, found = self._passes_of_events(wanted, count), scan([str(moments)]), []
        for number in range(passes):
            share = share_sql(len(wanted.keys), number, passes)
            mine = self._query(f"SELECT * FROM {spine} WHERE {share}")
            features = join.answer(mine.drop_columns("i"), number, passes)
            names = [f"f{i}" for i in range(len(wanted.windows))]
            found.append(moments.with_name(f"{moments.stem}-{number}.parquet"))
            stored = recast(features, [types.stored(kind) for kind in features.schema.types])
            pq.write_table(stored.rename_columns(names).append_column("i", mine["i"]), found[-1])
        schema = join.schema
        cursor = self._duck.connection.cursor()
        try:
            query = f"SELECT {comma(f'f{i}' for i in range(len(schema)))} FROM {scan(map(str, found))} ORDER BY i"
            return _named(schema, cursor.sql(query).to_arrow_reader(_BATCH))
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {explained(error)}") from error

    def _rows_streamed(self, wanted: FeatureRequest, moments: Path) -> pa.RecordBatchReader:
        """Join a group to the moments of a file, and return the features in the order of the positions `i`.

        Neither the rows of the group nor their features have to fit in memory, and features are sorted once, in the spine's order:

        1. In passes, each over a partition of the entities, find the winners, and write their positions `i` and ids to a file.
        2. Read the features of all winners, in any order, and write them with `i` to a file.
        3. Join that file to the spine by `i`, in the spine's order; moments without a winner get nulls.
        """
        cursor = self._duck.connection.cursor()
        spine, rows = scan([str(moments)]), wanted.rows
        count = pq.read_metadata(moments).num_rows
        try:
            if rows.is_empty:
                nothing = comma(f"NULL AS f{i}" for i in range(len(wanted.features)))
                return in_logical_types(wanted, cursor.sql(f"SELECT {nothing} FROM {spine}").to_arrow_reader(_BATCH))
            passes = self._passes(rows.schema, rows.count + count)
            winners = [moments.with_name(f"{moments.stem}-{p}.parquet") for p in range(passes)]
            for number, file in enumerate(winners):
                pq.write_table(self._winners(wanted, spine, share_sql(len(rows.schema.keys), number, passes)), file)
            query = fetch_sql(visible_sql(rows, [*wanted.features, ROW_ID]), wanted.features, scan(map(str, winners)))
            found = moments.with_name(f"{moments.stem}-found.parquet")
            cursor.execute(f"COPY ({query}) TO {literal(str(found))} (FORMAT parquet)")
            for file in winners:
                file.unlink()
            features = comma(f"g.f{i}" for i in range(len(wanted.features)))
            query = f"SELECT {features} FROM {spine} AS s LEFT JOIN {scan([str(found)])} AS g USING (i) ORDER BY s.i"
            return in_logical_types(wanted, cursor.sql(query).to_arrow_reader(_BATCH))
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {explained(error)}") from error

    def _winners(self, wanted: FeatureRequest, spine: str, share: str) -> pa.Table:
        """Return the winners for the entities of a partition: i, the position in the spine, and id, the row number."""
        schema = wanted.rows.schema
        rows = self._query(rows_sql(schema, visible_sql(wanted.rows, keys_and_times(schema)), share=share))
        moments = self._query(f"SELECT * FROM {spine} WHERE {share}")
        at = nearest(rows, moments.drop_columns("i"), wanted.ttl)
        found = pa.array(at >= 0)
        return pa.table({"i": moments["i"].filter(found), "id": rows["id"].take(pa.array(at[at >= 0]))})

    def _passes(self, schema: Schema, rows: int) -> int:
        """Return the number of passes, each over a partition of the entities, in which so many rows can be joined in memory.

        The length of text is not known, so a key of text is taken to have some 60 bytes.
        """
        needed = rows * sum(
            _BYTES if pa.types.is_integer(kind) else _BYTES_OF_TEXT for kind in schema.stored_types[: len(schema.keys)]
        )
        return self._passes_for(needed)

    def _passes_for(self, needed: int) -> int:
        """Return the number of passes in which work that needs so many bytes fits in memory."""
        if needed < _LITTLE and not self._duck.has_own_limit:
            return 1
        return -(-needed // (self._duck.limit * 3 // 4))

    def events(self, wanted: WindowRequest, entities: pa.Table | None = None) -> Iterator[pa.Table]:
        """See `Engine.events`."""
        join = self._windows(wanted)
        few = -(
            -wanted.rows.count // _PASS
        )  # each event becomes several objects of Python, so fewer are taken at a time
        shares = max(self._passes_of_events(wanted, 0), few) if entities is None else 1
        for share in range(shares):
            yield join.of_entities(entities, share, shares)

    def moments(self, groups: Sequence[Rows]) -> pa.Table:
        """See `Engine.moments`."""
        schema = groups[0].schema
        selects = [
            f"SELECT {comma(map(quote, [*rows.schema.key_names, rows.schema.event_time.name]))} FROM ({visible_sql(rows, rows.schema.key_names)})"
            for rows in groups
            if not rows.is_empty
        ]
        if not selects:
            return pa.schema([*schema.keys, pa.field(schema.event_time.name, UTC)]).empty_table()
        order = comma(str(position + 1) for position in range(len(schema.keys) + 1))
        return self._query(f"SELECT DISTINCT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {order}")

    def latest(
        self, rows: Rows, *, future_after: int | None = None, entities: pa.Table | None = None
    ) -> pa.RecordBatchReader:
        """See `Engine.latest`."""
        schema = pa.schema(list(rows.schema))
        tables = (
            (self._newest(rows, future_after, views) for views in self._shares(rows, entities))
            if not rows.is_empty
            else ()
        )
        return pa.RecordBatchReader.from_batches(schema, chain.from_iterable(tables))

    def _newest(self, rows: Rows, future_after: int | None, views: dict[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        query = latest_sql(rows.schema, visible_sql(rows), future_after, views)
        cursor = self._duck.connection.cursor()
        try:
            for name, view in views.items():
                cursor.register(name, view)
            for batch in _read(cursor.sql(query).to_arrow_reader(_BATCH)):
                table = recast(pa.Table.from_batches([batch]), rows.schema.stored_types)
                yield from recast(table, rows.schema.logical_types).combine_chunks().to_batches()
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {explained(error)}") from error
        finally:
            cursor.close()

    def _shares(self, rows: Rows, entities: pa.Table | None) -> Iterator[dict[str, pa.Table]]:
        """Yield the views that narrow down the rows of each pass: the entities asked for, or bounds of the keys.

        Results are ordered by key, so each pass takes a range of keys, and its result follows that of the pass before. The bounds are
        chosen from a sample of the keys so that a pass has about `_PASS` rows and fits in memory.
        """
        if entities is not None or rows.count <= _PASS:
            yield {} if entities is None else {"entities": entities}
            return
        keys = comma(map(quote, rows.schema.key_names))
        some = f"SELECT {keys} FROM ({visible_sql(rows, rows.schema.key_names)}) USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (1)"
        sample = self._query(f"SELECT DISTINCT * FROM ({some}) ORDER BY ALL")
        step = max(1, len(sample) * _PASS // rows.count)
        bounds = [sample.slice(i, 1) for i in range(step, len(sample), step)]
        for low, high in pairwise([None, *bounds, None]):
            yield {name: bound for name, bound in (("low", low), ("high", high)) if bound is not None}

    def sample(
        self, rows: Rows, limit: int, entity: pa.Table | None = None, conditions: Sequence[str] = ()
    ) -> pa.Table:
        """See `Engine.sample`."""
        schema = rows.schema
        masks = [pa.field(f"_seeknal_where_{i}", pa.bool_()) for i in range(len(conditions))]
        fields, rest = [*schema, _ROW_ID, *masks], [_ROW_ID.type, *(field.type for field in masks)]
        if rows.is_empty:
            return pa.schema(fields).empty_table()
        stars = [
            "*",
            *(f"{condition_sql(text)} AS {field.name}" for text, field in zip(conditions, masks, strict=True)),
        ]
        views = {} if entity is None else {"entity": entity}
        narrow = "" if entity is None else f"SEMI JOIN entity USING ({comma(map(quote, entity.column_names))})"
        found = self._query(
            f"SELECT {comma(quote(field.name) for field in fields)} FROM (SELECT {comma(stars)} FROM ({visible_sql(rows)})) "
            f"{narrow} ORDER BY {quote(ROW_ID)} DESC LIMIT {literal(limit)}",
            **views,
        )
        return recast(recast(found, [*schema.stored_types, *rest]), [*schema.logical_types, *rest])

    def event_times(self, rows: Rows, at: int) -> tuple[int | None, int | None]:
        """See `Engine.event_times`."""
        if rows.is_empty:
            return None, None
        found = self._query(event_times_sql(rows.schema, visible_sql(rows, rows.schema.key_names), at))
        newest, following = (column[0].as_py() for column in found.columns)
        return newest, following

    def count(self, rows: Rows, columns: Sequence[str] = ()) -> list[int]:
        """See `Engine.count`."""
        if rows.is_empty:
            return [0] * (1 + len(columns))
        counts = comma(["count(*)", *(f"count(*) - count({quote(name)})" for name in columns)])
        found = self._query(f"SELECT {counts} FROM ({visible_sql(rows, columns)})")
        return [int(column[0].as_py()) for column in found.columns]

    def _query(self, sql: str, **views: pa.Table) -> pa.Table:
        cursor = self._duck.connection.cursor()
        try:
            cursor.execute(_ANY_ORDER)
            for name, view in views.items():
                cursor.register(name, view)
            return cursor.sql(sql).to_arrow_table(_ROWS)
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {explained(error)}") from error
        finally:
            cursor.close()


def _read(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a DuckDB result, and turn errors into a `StoreError`; those after the first batch are raised by Arrow."""
    try:
        yield from batches
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        raise_interrupt(error)  # Arrow raises its own error for a Ctrl-C that DuckDB noticed
        raise StoreError(f"DuckDB could not read the rows: {explained(error)}") from error


def features_of(wanted: FeatureRequest) -> pa.Schema:
    """Return the schema of a result: the features, in logical types."""
    return pa.schema([wanted.rows.schema.feature(name) for name in wanted.features])


def in_logical_types(wanted: FeatureRequest, found: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Cast batches of stored features, by position, to their names and logical types."""
    return _named(features_of(wanted), found)


def _named(schema: pa.Schema, found: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Cast batches of stored columns, by position, to the names and logical types of a schema."""
    stored = [types.stored(field.type) for field in schema]

    def cast(batch: pa.RecordBatch) -> pa.RecordBatch:
        table = recast(pa.Table.from_batches([batch]).rename_columns(schema.names), stored)
        table = recast(table, list(schema.types))
        # A table without rows has no batch to take.
        return table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema)

    return pa.RecordBatchReader.from_batches(schema, map(cast, _read(found)))


def events_sql(wanted: WindowRequest, rows: Rows) -> str:
    """Write the query that reads events for a request: of its rows, or of a part of them; "" if there are none."""
    # Which columns a condition reads is not known.
    own = [*wanted.keys, *wanted.one_of, *wanted.columns]
    columns = None if wanted.conditions else [*keys_and_times(rows.schema), *own]
    return "" if rows.is_empty else visible_sql(rows, columns)


def visible_sql(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """Write the query that reads the rows within their intervals of event time, without hidden ones.

    Args:
        rows: The rows.
        columns: The columns that are read, beside event time and row number; None: all.
    """
    spans = within(rows.schema, rows.spans)
    conditions = [] if spans == "(true)" else [f"({spans})"]
    conditions += [f"{quote(ROW_ID)} >= 0"] if rows.has_hidden else []
    read = None if columns is None else [rows.schema.event_time.name, ROW_ID, *columns]
    stored = stored_sql(rows.paths, rows.cut, rows.below, read)
    return f"SELECT * FROM {stored}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
