"""Entities in data files, whose join keys may be in the types of any version."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from duckdb.sqltypes import BIGINT

from seeknal.offline.scans import scan_stored
from seeknal.system.stored_paths import StoredPath
from seeknal.values.matching import stored_keys
from seeknal.values.sql import comma, quote


def as_stored(cursor: duckdb.DuckDBPyConnection, path: StoredPath, entities: pa.Table) -> pa.Table:
    """Return the join keys of entities, given in logical types, as a data file stores them."""
    keys = comma(map(quote, entities.column_names))
    found = cursor.sql(f"SELECT {keys} FROM {scan_stored([path], entities.column_names)} LIMIT 0").types

    def kind(of: pa.DataType, there: object) -> pa.DataType:
        # DuckDB compares numbers of different types by value. Of timestamps, only those in nanoseconds are stored as integers.
        return pa.timestamp("ns" if there == BIGINT else "us", of.tz) if pa.types.is_timestamp(of) else of

    return stored_keys(entities, [kind(*pair) for pair in zip(entities.schema.types, found, strict=True)])


def holds(cursor: duckdb.DuckDBPyConnection, path: StoredPath, entities: pa.Table) -> bool:
    """Return whether a data file holds one of the entities, given by their join keys in logical types."""
    cursor.register("entities", as_stored(cursor, path, entities))
    keys = comma(map(quote, entities.column_names))
    query = f"SELECT 1 FROM {scan_stored([path], entities.column_names)} SEMI JOIN entities USING ({keys}) LIMIT 1"
    return bool(cursor.execute(query).fetchall())
