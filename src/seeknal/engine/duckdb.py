"""The point-in-time join on DuckDB.

`ASOF JOIN` finds, for each moment of the spine, the greatest row at or before it. Rows are compared
by (event time, created time, order of writing), so that ties have one answer; moments are whole
microseconds, so that no time zone and no calendar takes part. One query per group: the columns are
put side by side afterwards, in the spine's order, and the spine itself never passes through.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from seeknal import types
from seeknal.engine.protocol import Wanted
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.offline.plan import inside, newest_first
from seeknal.schema import ROW_ID, UTC, Schema
from seeknal.sql import comma, literal, quote, scan

_LAST = 2**63 - 1
_SMALL_SPINE = 20
_ROW_ID = pa.field(ROW_ID, pa.int64())


class DuckDBEngine:
    """Answers with SQL over the Parquet files of a snapshot."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def as_of(self, wanted: Wanted, keys: Sequence[pa.ChunkedArray], at: pa.ChunkedArray) -> pa.Table:
        """See `Engine.as_of`."""
        fields = [field for name in wanted.features for field in wanted.rows.schema.features if field.name == name]
        rows = wanted.rows
        if not rows.paths:
            return pa.Table.from_arrays([pa.nulls(len(at), field.type) for field in fields], schema=pa.schema(fields))
        names = [*(f"k{i}" for i in range(len(keys))), "t", "i"]
        spine = pa.Table.from_arrays([*keys, at.cast(pa.int64()), pa.array(np.arange(len(at)))], names=names)
        small = len(spine) * _SMALL_SPINE < rows.count
        found = self._query(as_of_sql(rows.schema, wanted, _rows_sql(rows), semi_join=small), spine=spine)
        found = types.recast(found, [types.stored(field.type) for field in fields])
        return types.recast(found, [field.type for field in fields]).rename_columns(list(wanted.features))

    def moments(self, groups: Sequence[Rows]) -> pa.Table:
        """See `Engine.moments`."""
        schema = groups[0].schema
        selects = [
            f"SELECT {comma(map(quote, [*rows.schema.key_names, rows.schema.event_time.name]))} FROM ({_rows_sql(rows)})"
            for rows in groups
            if rows.paths
        ]
        if not selects:
            return pa.schema([*schema.keys, pa.field(schema.event_time.name, UTC)]).empty_table()
        order = comma(str(position + 1) for position in range(len(schema.keys) + 1))
        return self._query(f"SELECT DISTINCT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {order}")

    def newest(self, rows: Rows, *, per_event: bool = False) -> pa.Table:
        """See `Engine.newest`."""
        schema = rows.schema
        keys, time = list(map(quote, schema.key_names)), quote(schema.event_time.name)
        same = comma([*keys, time] if per_event else keys)
        order = newest_first(schema) if per_event else f"{time} DESC, {newest_first(schema)}"
        known = "true" if per_event else " AND ".join(f"{key} IS NOT NULL" for key in keys)
        best = f"row_number() OVER (PARTITION BY {same} ORDER BY {order}) = 1"
        return self._rows(rows, f"WHERE {known} QUALIFY {best} ORDER BY {same}")

    def sample(self, rows: Rows, limit: int, entity: pa.Table | None = None) -> pa.Table:
        """See `Engine.sample`."""
        views = {} if entity is None else {"entity": entity}
        among = "" if entity is None else f"SEMI JOIN entity USING ({comma(map(quote, entity.column_names))})"
        return self._rows(rows, f"{among} ORDER BY {quote(ROW_ID)} DESC LIMIT {literal(limit)}", [_ROW_ID], **views)

    def count(self, rows: Rows, columns: Sequence[str] = ()) -> list[int]:
        """See `Engine.count`."""
        if not rows.paths:
            return [0] * (1 + len(columns))
        counts = comma(["count(*)", *(f"count(*) - count({quote(name)})" for name in columns)])
        found = self._query(f"SELECT {counts} FROM ({_rows_sql(rows)})")
        return [int(column[0].as_py()) for column in found.columns]

    def _rows(self, rows: Rows, tail: str, more: Sequence[pa.Field] = (), **views: pa.Table) -> pa.Table:
        schema, extra = rows.schema, [field.type for field in more]
        fields = [*schema, *more]
        if not rows.paths:
            return pa.schema(fields).empty_table()
        names = comma(quote(field.name) for field in fields)
        found = self._query(f"SELECT {names} FROM ({_rows_sql(rows)}) {tail}", **views)
        return types.recast(types.recast(found, [*schema.stored_types, *extra]), [*schema.logical_types, *extra])

    def _query(self, sql: str, **views: pa.Table) -> pa.Table:
        cursor = self._connection.cursor()
        try:
            for name, view in views.items():
                cursor.register(name, view)
            return cursor.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read the rows: {error}") from error
        finally:
            cursor.close()


def as_of_sql(schema: Schema, wanted: Wanted, rows: str, *, semi_join: bool) -> str:
    """Write the query that finds one group's features for each row of `spine`.

    Args:
        schema: The group's schema.
        wanted: The features, and their ttl.
        rows: Query giving the group's rows.
        semi_join: Read only the rows of the spine's entities, which pays when they are few.

    Returns:
        A query giving the features as f0, f1, ... in the order of the spine, which has the columns
        k0, k1, ... (keys), t (microseconds) and i (position).
    """
    keys = [(f"k{i}", quote(name)) for i, name in enumerate(schema.key_names)]
    created = (
        f"coalesce(epoch_us({quote(schema.created_time.name)}), {literal(-_LAST)})" if schema.created_time else "0"
    )
    named = comma(f"{name} AS {key}" for key, name in keys)
    features = comma(f"{quote(name)} AS f{i}" for i, name in enumerate(wanted.features))
    moment = quote(schema.event_time.name)
    among = f"SEMI JOIN spine USING ({comma(key for key, _ in keys)})" if semi_join else ""
    fresh = "" if wanted.ttl is None else f" AND s.t - r.t <= {literal(wanted.ttl)}"
    return f"""
        WITH r AS (
            SELECT * FROM (
                SELECT {named}, epoch_us({moment}) AS t, {features},
                       row(epoch_us({moment}), {created}, {quote(ROW_ID)}) AS place
                FROM ({rows})
            ) {among}
        )
        SELECT {comma(f"CASE WHEN r.t <= s.t{fresh} THEN r.f{i} END" for i in range(len(wanted.features)))}
        FROM spine AS s ASOF LEFT JOIN r
          ON {" AND ".join(f"s.{key} = r.{key}" for key, _ in keys)}
         AND row(s.t, {_LAST}, {_LAST}) >= r.place
        ORDER BY s.i
    """


def _rows_sql(rows: Rows) -> str:
    """Write the query that reads the rows of the spans."""
    spans = " OR ".join(f"({inside(rows.schema, span)})" for span in rows.spans)
    return f"SELECT * FROM {scan(rows.paths)}" + ("" if spans == "(true)" else f" WHERE {spans}")
