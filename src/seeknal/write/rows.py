"""Rows as they are to be stored: in stored types, with an event time, inside an interval."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.errors import DataError
from seeknal.values.casting import recast
from seeknal.values.frames import check_times_of_day
from seeknal.values.moments import utc
from seeknal.values.times import Interval, instant

_FIRST, _LAST = instant("0001-01-01"), instant("9999-12-31", whole_day=True)


def rows_to_store(table: pa.Table, schema: Schema, interval: Interval, drop_nulls: bool | None) -> tuple[pa.Table, int]:
    """Convert a frame's rows to the stored types of a schema, and cut them to an interval.

    Args:
        table: The frame; columns that are not in the schema are left out.
        schema: The schema to convert to.
        interval: Only rows with an event time inside it are kept.
        drop_nulls: Leave out rows without an event time instead of refusing them; None: refuse, and do not mention this option.

    Returns:
        The rows, in the frame's order, and the number of rows outside the interval.

    Raises:
        DataError: A value does not fit its type, a time of day is not within one day, or an event time is missing or not in
            the years 1 to 9999.
    """
    name = schema.event_time.name
    rows = in_stored_types(table, schema)
    if missing := rows[name].null_count:
        check_null_times(name, missing, len(rows), drop_nulls)
        rows = rows.filter(pc.is_valid(rows[name]))
    check_range(name, *bounds_of(rows[name]))
    kept = within(rows, name, interval)
    return kept, len(rows) - len(kept)


def in_stored_types(table: pa.Table, schema: Schema) -> pa.Table:
    """Convert the columns of a schema to its stored types.

    Raises:
        DataError: A value does not fit its type, or a time of day is not within one day.
    """
    times = [schema.event_time, *([schema.created_time] if schema.created_time else [])]
    rows = table.select(schema.names)
    # Times are rounded up, so that an event with a finer time is not visible before it happened.
    for field in times:
        position = rows.column_names.index(field.name)
        rows = rows.set_column(position, field.name, utc(field.name, rows[field.name], up=True))
    check_times_of_day(rows)
    return recast(recast(rows, _logical_but_times(schema)), schema.stored_types)


def check_ids(rows: pa.Table, schema: Schema) -> None:
    """Check that each event can be told from the others.

    Raises:
        DataError: A column of the source's event_id is null in a row.
    """
    for name in schema.key_names:
        if missing := rows[name].null_count:
            raise DataError(
                f"{missing:,} of {len(rows):,} rows have no {name!r}, a column of event_id, so these events could not be told from "
                "others. Fill it in, or leave those rows out.",
                column=name,
                rows=missing,
            )


def _logical_but_times(schema: Schema) -> list[pa.DataType]:
    """Return the logical types of a schema, but the stored types of its time columns, which are converted to UTC already."""
    times = {schema.event_time.name, schema.created_time.name if schema.created_time else None}
    kinds = zip(schema, schema.stored_types, strict=True)
    return [stored if field.name in times else field.type for field, stored in kinds]


def check_null_times(name: str, missing: int, count: int, drop_nulls: bool | None) -> None:
    """Check that rows without an event time may be left out.

    Args:
        name: The name of the event time.
        missing: How many rows have none, at least one.
        count: How many rows there are.
        drop_nulls: Whether they may be left out; None: no, and do not mention this option.

    Raises:
        DataError: They may not.
    """
    if not drop_nulls:
        raise DataError(
            f"{missing:,} of {count:,} rows have no {name!r}, so a join could not tell when they became true. "
            + (
                "Fill it in."
                if drop_nulls is None
                else "Fill it in, or leave those rows out with write(drop_nulls=True)."
            ),
            column=name,
            rows=missing,
        )


def bounds_of(times: pa.ChunkedArray) -> tuple[int | None, int | None]:
    """Return the least and the greatest of some event times, in microseconds since 1970; None if there are none."""
    bounds = pc.min_max(times.cast(pa.int64())).as_py()
    return bounds["min"], bounds["max"]


def check_range(name: str, least: int | None, greatest: int | None) -> None:
    """Check the least and the greatest event time, in microseconds since 1970.

    Raises:
        DataError: One of them is not in the years 1 to 9999.
    """
    if least is not None and greatest is not None and not _FIRST <= least <= greatest <= _LAST:
        raise DataError(f"Column {name!r} holds times before year 1 or after year 9999. Check its unit.", column=name)


def within(rows: pa.Table, name: str, interval: Interval) -> pa.Table:
    """Return the rows whose event time, the column of this name, lies in an interval."""
    moments = rows[name].cast(pa.int64())
    if interval.start is not None:
        rows = rows.filter(keep := pc.greater_equal(moments, interval.start))
        moments = moments.filter(keep)
    return rows if interval.end is None else rows.filter(pc.less_equal(moments, interval.end))
