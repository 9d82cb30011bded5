"""Results: an Arrow table as a frame of the requested kind, alone or beside the columns of the caller's frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError, DefinitionError
from seeknal.values.frames.given import Frame
from seeknal.values.frames.libraries import check_installed, library
from seeknal.values.frames.making import to_pandas, to_polars
from seeknal.values.frames.opening import kind_of
from seeknal.values.frames.relations import relation_of

OUTPUTS = ("pandas", "polars", "arrow", "duckdb")


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """Return an empty batch of a schema. Unlike Arrow's own `empty_table`, it supports unions."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, kind) for kind in schema.types], schema=schema)


def to_stream(table: pa.Table) -> bytes:
    """Serialize a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def output_kind(frame: object, output: str | None) -> str:
    """Return the kind of the result: the requested kind, else that of the frame; pandas for a path, or without a frame.

    Raises:
        DefinitionError: The requested kind is unknown, or its library is not installed.
        DataError: The object is not a frame.
    """
    if output is not None and output not in OUTPUTS:
        raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(OUTPUTS)}.")
    own = "pandas" if frame is None else kind_of(frame)
    kind = output or ("pandas" if own == "path" else own)
    check_installed(kind)
    return kind


def from_arrow(table: pa.Table, kind: str) -> Any:
    """Return a table as a frame of this kind.

    Raises:
        DataError: A column cannot be represented exactly in this kind.
    """
    errors = _errors(kind)
    try:
        return _MAKE[kind](table)
    except errors as error:
        raise _misfit(table, kind, errors, error) from None


_MAKE: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "pandas": to_pandas,
    "polars": to_polars,
    "duckdb": relation_of,
}


def _errors(kind: str) -> tuple[type[BaseException], ...]:
    """Return the exceptions that a library raises for a column that it cannot represent."""
    common = pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError, KeyError
    if kind == "polars":  # a panic of Polars is no subclass of Exception
        raised = library("polars").exceptions
        return *common, raised.PolarsError, raised.PanicException
    if kind == "duckdb":
        import duckdb

        return *common, duckdb.Error
    return common


def _misfit(table: pa.Table, kind: str, errors: tuple[type[BaseException], ...], error: BaseException) -> DataError:
    """Return the error that names the column that a kind cannot represent, found by converting the columns one by one."""
    for field in table.schema:
        try:
            _MAKE[kind](table.select([field.name]))
        except errors as own:
            return DataError(
                f"Column {field.name!r} is {field.type}, which cannot be represented in {kind}: {own}. Cast it, or ask for "
                'output="arrow".',
                column=field.name,
            )
    return DataError(f'The result cannot be returned as {kind}: {error}. Ask for output="arrow".')


def with_columns(frame: Frame, names: Sequence[str], features: pa.Table, kind: str) -> Any:
    """Return a frame with columns added at its right.

    Args:
        frame: The rows, already read; see `Frame.only`.
        names: The names of its columns to keep.
        features: The columns to add, with the same rows in the same order.
        kind: The kind of the result. If it is the kind of the frame, the frame's columns stay as they are.

    Raises:
        DataError: A column cannot be represented exactly in this kind; for a feature, the message says how to leave it out.
    """
    try:
        if kind == frame.kind:
            return frame.beside(names, features)
        table = frame.table(names)
        for field, column in zip(features.schema, features.columns, strict=True):
            table = table.append_column(field, column)
        return from_arrow(table, kind)
    except DataError as error:
        column = getattr(error, "column", None)
        if column not in features.column_names:
            raise
        advice = "Or leave the feature out: FeatureLookup(..., features=[...]) names the features to look up."
        raise DataError(f"{error} {advice}", column=column) from None
