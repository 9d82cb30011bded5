"""Rows of one write that share join keys and event time: reads show one of them."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from seeknal.define.schema import Schema
from seeknal.values import types
from seeknal.values.frames import records
from seeknal.values.sql import comma, quote
from seeknal.values.times import show


@dataclass(frozen=True)
class Repeats:
    """Rows of a write that are hidden by others of it.

    Args:
        rows: How many rows there are beside one of each join keys and event time.
        example: The join keys and the event time that most rows share, as text.
        most: How many rows share them.
    """

    rows: int = 0
    example: str = ""
    most: int = 1


def find_repeats(
    engine: duckdb.DuckDBPyConnection, rows: pa.Table, schema: Schema, *, with_created: bool = False
) -> Repeats:
    """Count the rows of a write that share join keys and event time.

    Hashes of both are sorted as plain numbers, which takes little; only if two are equal, the rows are compared themselves.

    Args:
        engine: What hashes and compares.
        rows: The rows, in stored types.
        schema: Their schema.
        with_created: Count only rows that share the created time as well.
    """
    created = [schema.created_time.name] if with_created and schema.created_time else []
    names = [*schema.key_names, *created, schema.event_time.name]
    columns = list(map(quote, names))
    engine.register("new_rows", rows.select(names))
    hashes = np.sort(engine.execute(f"SELECT hash({comma(columns)}) AS h FROM new_rows").fetchnumpy()["h"])
    if not (hashes[1:] == hashes[:-1]).any():
        return Repeats()
    places = [f"c{i}" for i in range(len(names))]
    named = comma(f"{column} AS {place}" for column, place in zip(columns, places, strict=True))
    shared = f"SELECT {named}, count(*) AS most FROM new_rows GROUP BY ALL"
    query = f"SELECT sum(most - 1) OVER () AS hidden, * FROM ({shared}) ORDER BY most DESC, {comma(places)} LIMIT 1"
    found = engine.sql(query).to_arrow_table()
    keys = types.recast(
        types.recast(
            found.select(places[: len(schema.keys)]).rename_columns(schema.key_names),
            schema.stored_types[: len(schema.keys)],
        ),
        [field.type for field in schema.keys],
    )
    told = [f"{name}={value!r}" for name, value in records(keys)[0].items()]
    told += [f"{names[-1]}={show(found[places[-1]].cast(pa.int64())[0].as_py())}"]
    return Repeats(int(found["hidden"][0].as_py()), ", ".join(told), found["most"][0].as_py())
