"""The first step of the write of a Spark DataFrame, in executors: rows are converted and checked; see `seeknal.write.distributed`."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.engine.spark import pieces
from seeknal.engine.spark.writing import DAYS, MISFITS, NO_DAYS, TOTALS, days_in, summed, together
from seeknal.errors import DataError
from seeknal.values.times import Interval
from seeknal.write.rows import bounds_of, in_stored_types, within

_CONVERTED = 2**17
"""The rows that are converted at once."""


def no_totals(schema: Schema) -> pa.Table:
    """Return the table of totals without any: how many rows there are of each kind, and the least and greatest event time."""
    names = [
        "rows",
        "missing",
        "kept",
        "bytes",
        "later",
        *(f"n{i}" for i in range(len(schema.keys))),
        "least",
        "greatest",
    ]
    return pa.schema([(name, pa.int64()) for name in names]).empty_table()


def kept(schema: Schema, interval: Interval, at: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of the rows that can be stored, and then how many there are.

    Args:
        schema: The schema to convert the rows to.
        interval: Only rows inside it are kept.
        at: The moment after which rows are later than now.
        batches: The rows.
    """
    days, totals, name = [NO_DAYS], [], schema.event_time.name
    for table in together((pa.Table.from_batches([batch]) for batch in batches), _CONVERTED):
        try:
            rows = in_stored_types(table, schema)
        except DataError:
            yield pieces.packed(table, MISFITS)
            return
        known = rows.filter(pc.is_valid(rows[name]))
        mine = within(known, name, interval)
        least, greatest = bounds_of(known[name])
        total = {"rows": len(rows), "missing": len(rows) - len(known), "kept": len(mine), "bytes": mine.nbytes}
        total |= {"later": pc.sum(pc.greater(mine[name].cast(pa.int64()), at)).as_py() or 0}
        total |= {f"n{i}": mine[key].null_count for i, key in enumerate(schema.key_names)}
        totals.append({**total, "least": least, "greatest": greatest})
        days.append(days_in(schema, mine))
        if len(mine):
            yield from pieces.answered(mine)
    yield pieces.packed(summed(pa.concat_tables(days)), DAYS)
    yield pieces.packed(pa.Table.from_pylist(totals, schema=no_totals(schema).schema), TOTALS)
