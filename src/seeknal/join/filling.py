"""Values in place of the nulls of features: after the join, so that stored nulls and missing rows are treated alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.fill_null import FillNull
from seeknal.errors import DataError, DefinitionError
from seeknal.join.retrieval import kinds_of
from seeknal.names import quoted
from seeknal.registry.source import Source
from seeknal.values import exact
from seeknal.values.types import logical

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


def values_of(fills: Sequence[FillNull], sources: Sequence[Source]) -> dict[str, pa.Scalar]:
    """Return the values to fill in, by the names of the features in the result.

    Raises:
        DefinitionError: A fill matches no feature, a value is not of its type, or two fills are for the same feature.
    """
    if not fills:
        return {}
    types = {name: logical(kind) for name, kind in kinds_of(sources).items()}
    found: dict[str, pa.Scalar] = {}
    for fill in fills:
        kind = fill.kind
        names = [name for name, its in types.items() if its == kind] if fill.columns is None else fill.columns
        if wrong := [name for name in names if types.get(name) != kind]:
            raise DefinitionError(f"{fill!r} names {quoted(wrong)}, not a feature of type {kind}. {_known(types)}")
        if not names:
            raise DefinitionError(f"{fill!r} matches no feature: none is of type {kind}. {_known(types)}")
        if twice := [name for name in names if name in found]:
            raise DefinitionError(
                f"fill_nulls has two values for {quoted(twice)}. Name the columns of each in columns=[...]."
            )
        found |= dict.fromkeys(names, _value(fill, kind))
    return found


def _known(types: Mapping[str, pa.DataType]) -> str:
    return f"The features are {', '.join(f'{name} ({kind})' for name, kind in types.items())}."


def _value(fill: FillNull, kind: pa.DataType) -> pa.Scalar:
    try:
        if isinstance(fill.value, str):
            return exact.read("dataType", fill.value, kind)
        value = exact.column("value", [fill.value], kind)[0]
    except DataError as error:
        raise DefinitionError(f"{fill!r} cannot fill {kind}: {error}") from None
    if not value.is_valid:
        raise DefinitionError(f"{fill!r} fills nothing: its value is null.")
    return value


def filled(rows: Rows, values: Mapping[str, pa.Scalar]) -> Rows:
    """Return a table or a batch with these values in place of the nulls of the columns that they are named after."""
    if not values:
        return rows
    columns = [
        pc.fill_null(column, values[name]) if name in values else column
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    ]
    return type(rows).from_arrays(columns, schema=rows.schema)


def filled_batches(batches: pa.RecordBatchReader, values: Mapping[str, pa.Scalar]) -> pa.RecordBatchReader:
    """Return the batches of a stream, each `filled`."""
    if not values:
        return batches
    return pa.RecordBatchReader.from_batches(batches.schema, (filled(batch, values) for batch in batches))
