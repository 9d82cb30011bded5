"""Rows that another program wrote: read as they are, and told apart from rows that it only copied."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal import types
from seeknal.errors import DataError, StoreError
from seeknal.offline.foreign import ForeignCommits
from seeknal.offline.log import label_of
from seeknal.offline.plan import same_values, values_sql
from seeknal.schema import ROW_ID, Schema
from seeknal.sql import quote, scan

_NEW = -1


def read_changed(foreign: ForeignCommits, schema: Schema) -> tuple[pa.Table, np.ndarray]:
    """Read the rows of the files that other programs changed, in the order of their commits.

    Args:
        foreign: What was changed.
        schema: The schema of the table.

    Returns:
        The rows, in stored types, and the numbers that they came with, -1 where they have none.

    Raises:
        DataError: A value does not fit its column.
        StoreError: A file cannot be read.
    """
    kinds = [*schema.stored_types, pa.int64()]
    names = [*schema.names, ROW_ID]
    tables = [pa.schema(map(pa.field, names, kinds)).empty_table()]
    for path in sorted(foreign.added, key=lambda path: (foreign.added[path], path)):
        try:
            found = pq.ParquetFile(foreign.root / path).read()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{foreign.root / path}, a file of another program, cannot be read: {error}") from error
        columns = [
            found[name] if name in found.column_names else pa.nulls(len(found), kind)
            for name, kind in zip(names, kinds, strict=True)
        ]
        try:
            tables.append(types.recast(pa.Table.from_arrays(columns, names=names), kinds))
        except (DataError, pa.ArrowNotImplementedError) as error:
            raise DataError(f"Rows of another program do not fit {label_of(foreign.root)}: {error}") from None
    rows = pa.concat_tables(tables)
    return rows.select(schema.names), rows[ROW_ID].fill_null(_NEW).to_numpy()


def number(
    engine: duckdb.DuckDBPyConnection, foreign: ForeignCommits, schema: Schema, rows: pa.Table, numbers: np.ndarray
) -> np.ndarray:
    """Number rows of other programs: a row that is one of Seeknal's, only in another file, keeps its number, others follow.

    Args:
        engine: What compares rows.
        foreign: What was changed.
        schema: The schema of the table.
        rows: The rows, in the order in which they count as written.
        numbers: The numbers that they came with; a program may have copied them to rows of its own.
    """
    replaced = [str(foreign.root / path) for path in foreign.removed]
    result = np.full(len(rows), _NEW)
    if replaced and len(rows):
        places = pa.array(np.arange(len(rows)))
        engine.register(
            "changed", rows.append_column(ROW_ID, pa.array(numbers)).append_column(f"{ROW_ID} place", places)
        )
        row_id, values = quote(ROW_ID), values_sql(schema)
        found = engine.sql(
            f'SELECT n.id, min(n.place) AS place FROM (SELECT {row_id} AS id, "{ROW_ID} place" AS place, {values} FROM changed) AS n '
            f"JOIN (SELECT {row_id} AS id, {values} FROM {scan(replaced)}) AS s "
            f"ON n.id = s.id AND {same_values(schema, 'n', 's')} GROUP BY n.id"
        ).to_arrow_table()
        result[found["place"].to_numpy()] = found["id"].to_numpy()
    is_new = result == _NEW
    first = foreign.commit.next_row_id if foreign.commit else 0
    result[is_new] = np.arange(first, first + is_new.sum())
    return result
