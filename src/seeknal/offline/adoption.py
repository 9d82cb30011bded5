"""Adoption of rows that another program wrote: reading them, and telling new rows from copies of Seeknal's own."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.errors import DataError, StoreError
from seeknal.offline.comparisons import same_values, values_sql
from seeknal.offline.foreign import ForeignCommits
from seeknal.offline.log import label_of
from seeknal.offline.scans import scan_stored
from seeknal.system.stored_paths import backing_of, readable
from seeknal.values.casting import recast
from seeknal.values.sql import quote

_NONE = np.iinfo("int64").min
"""Stands for no number. Other negative numbers are those of hidden rows of a source."""


@dataclass(frozen=True)
class Changed:
    """The rows of the files that other programs added.

    Args:
        rows: The rows, in stored types.
        numbers: The row number stored with each row, `_NONE` where there is none; a program may have copied it from another row.
        commits: The number of the commit that added each row's file.
    """

    rows: pa.Table
    numbers: np.ndarray
    commits: np.ndarray


def read_changed(foreign: ForeignCommits, schema: Schema) -> Changed:
    """Read the rows of the files that other programs added.

    Columns that a file lacks are read as null.

    Raises:
        DataError: A value does not fit its column.
        StoreError: A file cannot be read.
    """
    kinds, names = [*schema.stored_types, pa.int64()], [*schema.names, ROW_ID]
    tables = [pa.schema(map(pa.field, names, kinds)).empty_table()]
    paths = sorted(foreign.added)  # a fixed order, since it is the tie-break of rows within a commit
    for path in paths:
        try:
            found = pq.ParquetFile(readable([foreign.root / path])[0]).read()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{foreign.root / path}, a file of another program, cannot be read: {error}") from error
        columns = [
            found[name] if name in found.column_names else pa.nulls(len(found), kind)
            for name, kind in zip(names, kinds, strict=True)
        ]
        try:
            tables.append(recast(pa.Table.from_arrays(columns, names=names), kinds))
        except (DataError, pa.ArrowNotImplementedError) as error:
            raise DataError(f"Rows of another program do not fit {label_of(foreign.root)}: {error}") from None
    rows = pa.concat_tables(tables)
    commits = np.repeat([foreign.added[path] for path in paths], [len(table) for table in tables[1:]])
    return Changed(rows.select(schema.names), rows[ROW_ID].fill_null(_NONE).to_numpy(), commits)


def number_rows(
    engine: duckdb.DuckDBPyConnection, foreign: ForeignCommits, schema: Schema, changed: Changed
) -> np.ndarray:
    """Return a row number for each row of other programs.

    A row that Seeknal wrote, and that another program only copied to another file, keeps its number: a new one could change which of
    two tied rows wins. It counts as copied if all its values equal those of the row of that number in a file that was replaced. All
    other rows get new numbers, in the order of their commits; within a commit, first updated rows, in the order in which they
    were written, and then new rows, in the order of the files. A hidden row of a source, whose number is negative, stays hidden.

    For example, commit 4 of another program rewrites a file that held rows 0, 1 and 2, and the next free number is 3:

        stored number  values                         result
        2              changed                        4, the second of the updated rows
        0              as they were                   0
        0              as they were (a second copy)   3, as if updated: a number is kept once
        none           new                            5

    Args:
        engine: The DuckDB connection that compares rows.
        foreign: The commits of the other programs.
        schema: The schema of the table.
        changed: The rows, as `read_changed` returns them.
    """
    # Files that were vacuumed are left out. `OfflineTable.adopt` refuses where that matters: where rows of Seeknal's are left.
    there = foreign.removed - backing_of(foreign.root).missing(foreign.root, foreign.removed)
    replaced = [foreign.root / name for name in there]
    count = len(changed.rows)
    result, old = np.full(count, _NONE), np.full(count, np.iinfo("int64").max)  # rows without an old number sort last
    is_hidden = np.zeros(count, bool)
    if replaced and count:
        row_id, place = quote(ROW_ID), quote(f"{ROW_ID} place")
        numbered = changed.rows.append_column(ROW_ID, pa.array(changed.numbers))
        engine.register("changed", numbered.append_column(f"{ROW_ID} place", pa.array(np.arange(count))))
        values = values_sql(schema)
        query = f"""
            SELECT n.place, n.id, {same_values(schema, "n", "s")} AS same
            FROM (SELECT {row_id} AS id, {place} AS place, {values} FROM changed) AS n
            JOIN (SELECT {row_id} AS id, {values} FROM {scan_stored(replaced)}) AS s ON n.id = s.id
            ORDER BY n.place
        """
        found = engine.sql(query).fetchnumpy()
        old[found["place"]] = np.maximum(found["id"], ~found["id"])
        is_hidden[found["place"]] = found["id"] < 0
        same = found["same"].astype(bool)
        ids, first_copies = np.unique(found["id"][same], return_index=True)  # of several copies, the first keeps it
        result[found["place"][same][first_copies]] = ids
    order = np.lexsort((np.arange(count), old, changed.commits))
    new = order[result[order] == _NONE]
    first = foreign.commit.next_row_id if foreign.commit else 0
    numbers = np.arange(first, first + len(new))
    result[new] = np.where(is_hidden[new], ~numbers, numbers)
    return result
