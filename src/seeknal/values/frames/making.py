"""Conversion of Arrow tables to pandas and Polars frames that hold every value exactly."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pyarrow as pa

from seeknal.values import types
from seeknal.values.casting import recast, with_readable_zones
from seeknal.values.frames import limits
from seeknal.values.frames.libraries import library


def to_polars(table: pa.Table) -> Any:
    """Return a table as a Polars frame.

    Polars does not support zones that are plain offsets, so such times are returned in UTC.

    Raises:
        DataError: A time in seconds is out of range for milliseconds, to which Polars converts it, or a time of day is
            not within a day.
    """
    limits.check(table, "polars")
    readable = with_readable_zones(table, offsets=False)
    kinds = [types.without_seconds(kind) for kind in readable.schema.types]
    return library("polars").from_arrow(recast(readable, kinds))


def to_pandas(table: pa.Table, *, arrow_backed: bool = False) -> Any:
    """Return a table as a pandas frame that holds every value exactly.

    Whole numbers with nulls become Int64 and the like. With `arrow_backed`, all columns have Arrow types.

    Raises:
        DataError: A time would become NaT, or change.
    """
    pd = library("pandas")
    table = with_readable_zones(table)
    if arrow_backed:
        return table.to_pandas(types_mapper=pd.ArrowDtype)
    limits.check(table, "pandas")
    parts = [pd.DataFrame(index=pd.RangeIndex(table.num_rows))]
    # Neighbouring plain columns are converted together, which is faster. The order of the columns stays.
    for is_plain, names in groupby(table.column_names, lambda name: _is_plain(table[name])):
        run = table.select(list(names))
        parts.append(_plain(run) if is_plain else pd.DataFrame({name: _series(run[name]) for name in run.column_names}))
    return pd.concat(parts, axis=1)


def _plain(table: pa.Table) -> Any:
    """Return the result of Arrow's own conversion. A column of one chunk may share Arrow's memory, and is copied to be writable."""
    frame = table.to_pandas(ignore_metadata=True)
    return frame if all(column.num_chunks > 1 for column in table.columns) else frame.copy()


def _is_plain(column: pa.ChunkedArray) -> bool:
    """Return whether Arrow's own conversion to pandas keeps each value of a column exactly."""
    kind = column.type
    is_whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return not (pa.types.is_nested(kind) or kind == pa.time64("ns") or (is_whole and column.null_count))


def _series(column: pa.ChunkedArray) -> Any:
    """Return a pandas column for values that Arrow's own conversion would change."""
    pd = library("pandas")
    kind = column.type
    if pa.types.is_nested(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    if kind == pa.time64("ns"):
        return column.to_pandas(types_mapper={kind: pd.ArrowDtype(kind)}.get)  # datetime.time has no nanoseconds
    if pa.types.is_boolean(kind):
        return column.to_pandas(types_mapper={kind: pd.BooleanDtype()}.get)
    # pandas names its nullable types after NumPy's, with capitals: Int64, UInt8.
    name = str(kind).replace("i", "I").replace("uI", "UI")
    return column.to_pandas(types_mapper={kind: getattr(pd, f"{name}Dtype")()}.get)
