"""Tables as frames of pandas and Polars, which hold every value exactly."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pyarrow as pa

from seeknal.values import types
from seeknal.values.frames import limits
from seeknal.values.frames.libraries import library


def to_polars(table: pa.Table) -> Any:
    """Make a frame of Polars, which knows no zones that are mere offsets: such moments are given in UTC.

    Raises:
        DataError: Seconds are too many for milliseconds, of which Polars makes them, or a time is of no day.
    """
    limits.check(table, "polars")
    readable = types.with_readable_zones(table, offsets=False)
    kinds = [types.without_seconds(kind) for kind in readable.schema.types]
    return library("polars").from_arrow(types.recast(readable, kinds))


def to_pandas(table: pa.Table, *, arrow_backed: bool = False) -> Any:
    """Make a pandas frame that holds every value exactly; whole numbers with nulls become Int64 and the like.

    Raises:
        DataError: A time would be read as NaT, or as another.
    """
    pd = library("pandas")
    table = types.with_readable_zones(table)
    if arrow_backed:
        return table.to_pandas(types_mapper=pd.ArrowDtype)
    limits.check(table, "pandas")
    parts = [pd.DataFrame(index=pd.RangeIndex(table.num_rows))]
    for is_plain, names in groupby(table.column_names, lambda name: _is_plain(table[name])):
        run = table.select(list(names))
        parts.append(_plain(run) if is_plain else pd.DataFrame({name: _series(run[name]) for name in run.column_names}))
    return pd.concat(parts, axis=1)


def _plain(table: pa.Table) -> Any:
    """Make a frame as Arrow does, but one that can be written to: a column of one chunk may be Arrow's own memory."""
    frame = table.to_pandas(ignore_metadata=True)
    return frame if all(column.num_chunks > 1 for column in table.columns) else frame.copy()


def _is_plain(column: pa.ChunkedArray) -> bool:
    """Whether Arrow gives pandas each value exactly."""
    kind = column.type
    is_whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return not (pa.types.is_nested(kind) or kind == pa.time64("ns") or (is_whole and column.null_count))


def _series(column: pa.ChunkedArray) -> Any:
    """Make a column of what Arrow would give inexactly."""
    pd = library("pandas")
    kind = column.type
    if pa.types.is_nested(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    if kind == pa.time64("ns"):
        return column.to_pandas(types_mapper={kind: pd.ArrowDtype(kind)}.get)  # Python's time has no nanoseconds
    if pa.types.is_boolean(kind):
        return column.to_pandas(types_mapper={kind: pd.BooleanDtype()}.get)
    name = str(kind).replace("i", "I").replace("uI", "UI")
    return column.to_pandas(types_mapper={kind: getattr(pd, f"{name}Dtype")()}.get)
