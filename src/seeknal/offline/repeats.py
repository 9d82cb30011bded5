"""Duplicates within one write: rows that share join keys and event time, of which reads show only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from seeknal.define.schema import Schema
from seeknal.values.casting import recast
from seeknal.values.display import records
from seeknal.values.sql import comma, quote
from seeknal.values.times import show


@dataclass(frozen=True)
class Repeats:
    """Rows of a write that are hidden by other rows of the same write.

    Args:
        rows: How many rows there are in excess of one per join keys and event time.
        example: The join keys and the event time that the most rows share, as text.
        most: How many rows share them.

    For example, three rows of user a and two rows of user b, all at noon, are 3 rows in excess (2 and 1); `most` is 3.
    """

    rows: int = 0
    example: str = ""
    most: int = 1


def find_repeats(
    engine: duckdb.DuckDBPyConnection, rows: pa.Table, schema: Schema, *, with_created: bool = False
) -> Repeats:
    """Count the rows of a write that share join keys and event time.

    Args:
        engine: The DuckDB connection that hashes and groups.
        rows: The rows, in stored types.
        schema: Their schema.
        with_created: Count only rows that share the created time as well.
    """
    found = most_repeated(engine, rows, schema, with_created=with_created)
    return repeats_of([] if found is None else [found], schema, with_created=with_created)


def most_repeated(
    engine: duckdb.DuckDBPyConnection, rows: pa.Table, schema: Schema, *, with_created: bool = False
) -> pa.Table | None:
    """Return the values that the most rows share, or None if each row has its own; see `find_repeats`.

    Most writes have no duplicates, so the common case is kept cheap: the rows are hashed, and the hashes sorted as plain integers.
    Only if two hashes are equal are the rows themselves grouped.

    Returns:
        One row: how many rows there are in excess (hidden), the values (c0, c1, ...), and how many rows share them (most).
    """
    if not schema.keys:  # each row is an event of its own
        return None
    names = _names(schema, with_created)
    columns = list(map(quote, names))
    engine.register("new_rows", rows.select(names))
    hashes = np.sort(engine.execute(f"SELECT hash({comma(columns)}) AS h FROM new_rows").fetchnumpy()["h"])
    if not (hashes[1:] == hashes[:-1]).any():
        return None
    # Different rows can have equal hashes, so the rows are now compared by value.
    places = [f"c{i}" for i in range(len(names))]
    named = comma(f"{column} AS {place}" for column, place in zip(columns, places, strict=True))
    shared = f"SELECT {named}, count(*) AS most FROM new_rows GROUP BY ALL"
    # Ordered by the values too, so that the example does not depend on how DuckDB runs the query.
    query = f"SELECT sum(most - 1) OVER () AS hidden, * FROM ({shared}) ORDER BY most DESC, {comma(places)} LIMIT 1"
    return engine.sql(query).to_arrow_table()


def repeats_of(parts: Sequence[pa.Table], schema: Schema, *, with_created: bool = False) -> Repeats:
    """Return the duplicates of a write, given what `most_repeated` has found in parts of it that share no entity and event time."""
    if not parts:
        return Repeats()
    names = _names(schema, with_created)
    places = [f"c{i}" for i in range(len(names))]
    together = pa.concat_tables(parts)
    found = together.sort_by([("most", "descending"), *((place, "ascending") for place in places)])[:1]
    keys = recast(  # from DuckDB's types to the stored ones, and from these to the logical ones
        recast(
            found.select(places[: len(schema.keys)]).rename_columns(schema.key_names),
            schema.stored_types[: len(schema.keys)],
        ),
        [field.type for field in schema.keys],
    )
    example = [f"{name}={value!r}" for name, value in records(keys)[0].items()]
    example += [f"{names[-1]}={show(found[places[-1]].cast(pa.int64())[0].as_py())}"]
    hidden = sum(int(number) for number in together["hidden"].to_pylist())
    return Repeats(hidden, ", ".join(example), found["most"][0].as_py())


def _names(schema: Schema, with_created: bool) -> list[str]:
    created = [schema.created_time.name] if with_created and schema.created_time else []
    return [*schema.key_names, *created, schema.event_time.name]
