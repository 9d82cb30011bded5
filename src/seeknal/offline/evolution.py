"""Rows of one schema as rows of a later one."""

from __future__ import annotations

import pyarrow as pa

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.errors import DataError
from seeknal.values.casting import cast, recast


def converted(batch: pa.RecordBatch, old: Schema, new: Schema, layout: pa.Schema) -> pa.RecordBatch:
    """Cast stored rows of one schema, with their numbers, to the stored types of another; see `evolved`.

    Raises:
        DataError: A stored value cannot be represented in the new type of its column.
    """
    table = pa.Table.from_batches([batch])
    # Row numbers do not change with the schema, so that ties keep their winners and snapshots their rows.
    columns = (*evolved(table.select(old.names), old, new).columns, table[ROW_ID])
    return pa.RecordBatch.from_arrays([_whole(column.combine_chunks()) for column in columns], schema=layout)


def evolved(table: pa.Table, old: Schema, new: Schema) -> pa.Table:
    """Cast stored rows of one schema to the stored types of another; columns that are new are null.

    Raises:
        DataError: A stored value cannot be represented in the new type of its column.
    """
    # Widening is defined on logical types: cast to the old stored types, the old logical, the new logical, and the new stored ones.
    stored_columns = recast(recast(table, old.stored_types), old.logical_types)
    columns = []
    for new_field in new:
        try:
            is_old = new_field.name in stored_columns.column_names
            columns.append(
                cast(stored_columns[new_field.name], new_field.type) if is_old else pa.nulls(len(table), new_field.type)
            )
        except pa.ArrowInvalid:
            raise DataError(
                f"Column {new_field.name!r} has stored values of type {stored_columns[new_field.name].type} that do not fit {new_field.type}. "
                "Cast the new rows to the stored type, give the column another name, or write to a new group.",
                column=new_field.name,
            ) from None
    return recast(pa.Table.from_arrays(columns, names=new.names), new.stored_types)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
