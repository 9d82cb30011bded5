"""Comparisons of rows: which of some rows a snapshot has already, and which entities differ between two snapshots."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.offline.log import DataFile, Snapshot
from seeknal.offline.plan import instants, within
from seeknal.offline.scans import files_sql
from seeknal.system.stored_paths import StoredPath, backing_of
from seeknal.values.casting import recast
from seeknal.values.sql import comma, quote
from seeknal.values.times import Interval


def unknown(cursor: duckdb.DuckDBPyConnection, base: Snapshot, rows: pa.Table, schema: Schema) -> pa.Table:
    """Return the rows that a snapshot does not hold, compared value by value; each once, in the order given.

    Args:
        cursor: The DuckDB connection that compares them.
        base: The snapshot.
        rows: The rows, in stored types.
        schema: The schema of both.
    """
    interval = Interval(*instants(rows, schema))
    stored = [file for file in base.files if file.overlaps(interval)] if len(rows) else []
    values, same, row_id = values_sql(schema), same_values(schema, "n", "s"), quote(ROW_ID)
    known = (
        f"ANTI JOIN (SELECT {values} FROM {files_sql(base.root, stored)} WHERE {within(schema, [interval])}) AS s ON {same}"
        if stored
        else ""
    )
    distinct = f"SELECT min(i) AS i, * EXCLUDE i FROM (SELECT {row_id} AS i, {values} FROM new_rows) GROUP BY ALL"
    cursor.register("new_rows", rows.select(schema.names).append_column(ROW_ID, pa.array(np.arange(len(rows)))))
    found = cursor.sql(f"SELECT i FROM ({distinct}) AS n {known} ORDER BY i").to_arrow_table()
    return rows.take(found["i"])


def changed(
    cursor: duckdb.DuckDBPyConnection,
    snapshots: tuple[Snapshot, Snapshot],
    schema: Schema,
    spans: Sequence[Interval],
    fresh: Sequence[Interval],
) -> pa.Table | None:
    """Return the entities whose rows in some intervals of event time differ between two snapshots.

    Args:
        cursor: The DuckDB connection that compares them.
        snapshots: The two snapshots.
        schema: The schema of both.
        spans: The intervals in which rows count.
        fresh: Those among them in which rows of the first snapshot do not count, so that every row of the second there is a difference.

    Returns:
        Their join keys, each once, in stored types; None if files of the first are gone, so that it cannot be told.
    """
    before, after = snapshots
    gone, come = differing_files(before, after)
    if backing_of(before.root).missing(before.root, [file.path for file in gone]):
        return None
    sets = [_counting(one, files) for one, files in ((before, gone), (after, come)) if files]
    queries = [changed_sql(schema, sets, spans)] if sets else []
    if seen := [file for file in after.files if any(file.overlaps(interval) for interval in fresh)]:
        queries.append(keys_sql(schema, _counting(after, seen), fresh))
    kinds = schema.stored_types[: len(schema.keys)]
    if not queries:
        return pa.table([pa.array([], kind) for kind in kinds], names=schema.key_names)
    keys = comma(map(quote, schema.key_names))
    every = " UNION ALL ".join(f"SELECT {keys} FROM ({query})" for query in queries)
    return recast(cursor.sql(f"SELECT DISTINCT * FROM ({every})").to_arrow_table(), kinds)


def count_rows(cursor: duckdb.DuckDBPyConnection, root: StoredPath, files: Sequence[DataFile], numbers: str) -> int:
    """Return how many rows of the files of a table have a number that fits a condition in SQL, such as "< 0"."""
    if not files:
        return 0
    query = f"SELECT count(*) FROM {files_sql(root, files, [ROW_ID])} WHERE {quote(ROW_ID)} {numbers}"
    return int(cursor.execute(query).fetchall()[0][0])


def _counting(snapshot: Snapshot, files: Sequence[DataFile]) -> str:
    """Write the SQL that reads the rows of some files of a snapshot, without hidden ones."""
    rows = files_sql(snapshot.root, files)
    return f"(SELECT * FROM {rows} WHERE {quote(ROW_ID)} >= 0)" if snapshot.has_hidden else rows


def differing_files(one: Snapshot, other: Snapshot) -> tuple[list[DataFile], list[DataFile]]:
    """Return the files that only the first snapshot has, and those that only the second has."""
    same = {file.key for file in one.files} & {file.key for file in other.files}
    first, second = ([file for file in some.files if file.key not in same] for some in (one, other))
    return first, second


def changed_sql(schema: Schema, sets: Sequence[str], spans: Sequence[Interval]) -> str:
    """Write the query that finds the entities with a row in one of two sets of files but not in the other.

    A row that only moved to another file has the same number in both sets, so it is counted twice and drops out. For example:

        first set          second set                     result
        row 1 of user a    row 1 of user a (it moved)
        row 2 of user b                                   b, as row 2 was removed
                           row 3 of user c                c, as row 3 was added

    Args:
        schema: The schema of both sets.
        sets: The SQL that reads each set; a set without files is left out.
        spans: The intervals of event time in which rows count.
    """
    keys, row_id = comma(map(quote, schema.key_names)), quote(ROW_ID)
    sides = [keys_sql(schema, rows, spans, row_id) for rows in sets]
    if len(sides) == 1:
        return sides[0]
    return f"SELECT {keys} FROM ({' UNION ALL '.join(sides)}) GROUP BY {keys}, {row_id} HAVING count(*) = 1"


def keys_sql(schema: Schema, rows: str, spans: Sequence[Interval], *more: str) -> str:
    """Write the query that lists the join keys of the rows in the intervals, with more columns if asked for."""
    columns = comma([*map(quote, schema.key_names), *more])
    return f"SELECT {columns} FROM {rows} WHERE {within(schema, spans)}"


def values_sql(schema: Schema) -> str:
    """Write the columns c0, c1, ... by which rows are compared, value by value.

    Columns with floats are added as text too, because 0.0 and -0.0 are equal as numbers and differ only in their text.
    """
    texts = [
        f"CAST({quote(name)} AS VARCHAR)"
        for name, kind in zip(schema.names, schema.stored_types, strict=True)
        if _has_floats(kind)
    ]
    return comma(f"{value} AS c{i}" for i, value in enumerate([*map(quote, schema.names), *texts]))


def same_values(schema: Schema, one: str, other: str) -> str:
    """Write the SQL condition that the columns of `values_sql` are the same in two tables; null is the same as null."""
    count = len(schema.names) + sum(map(_has_floats, schema.stored_types))
    return " AND ".join(f"{one}.c{i} IS NOT DISTINCT FROM {other}.c{i}" for i in range(count))


def _has_floats(kind: pa.DataType) -> bool:
    """Return whether values of a type contain floats: equal ones can still differ, as 0.0 and -0.0 do."""
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))
