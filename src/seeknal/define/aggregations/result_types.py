"""The type of an aggregation's results, from the types of the columns."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pyarrow import types as is_

from seeknal.define.aggregations import kinds
from seeknal.define.aggregations.base import Aggregation
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean
from seeknal.values import exact
from seeknal.values.types import LONGEST_DECIMAL

_FLOATS = (
    *(kinds.Mean, kinds.Var, kinds.Std, kinds.Skew, kinds.Kurtosis, kinds.Quantile, kinds.ApproxQuantile),
    *(kinds.TimeSinceFirst, kinds.TimeSinceLast),
)
_NUMERIC = (kinds.Sum, *_FLOATS)
_COUNTS = (kinds.Count, kinds.CountDistinct, kinds.ApproxCountDistinct)
_LISTS = (kinds.FirstN, kinds.LastN, kinds.Largest, kinds.Smallest, kinds.MostFrequent)
_OF_ANY = (kinds.Count, kinds.First, kinds.Last, kinds.FirstN, kinds.LastN)


def type_of(aggregation: Aggregation, columns: Mapping[str, pa.DataType]) -> pa.DataType:
    """Return the type of the results.

    | aggregation | of | result |
    |---|---|---|
    | `Count` | any | int64 |
    | `CountDistinct`, `ApproxCountDistinct` | with an order | int64 |
    | `Sum` | bool, integers; decimals; floats | int64; decimal128(38, scale); float64 |
    | `Mean`, `Var`, `Std`, `Skew`, `Kurtosis`, `Quantile`, `ApproxQuantile` | numbers | float64, of decimals too: their exact value has no scale |
    | `Min`, `Max` | with an order | the column's |
    | `First`, `Last` | any | the column's |
    | `FirstN`, `LastN` | any | a list of the column's |
    | `Largest`, `Smallest`, `MostFrequent` | with an order | a list of the column's |
    | `Histogram` | with an order | a list of {value, count} |
    | `TimeSinceFirst`, `TimeSinceLast` | | float64 |

    All types have an order but lists and structs. With `by`, it is a list of {key, value}, since no map can be stored; `by` takes
    columns with an order that are no floats.

    Args:
        aggregation: The aggregation.
        columns: The logical types of the events' columns.

    Raises:
        DefinitionError: There is no such column, or the aggregation makes no sense for its type, or `fill` does not fit.
    """
    column = aggregation.source_column
    kind = None if column is None else _column_type(aggregation, column, columns)
    found = _plain(aggregation, kind)
    if aggregation.by is not None:
        return _map_type(aggregation, _column_type(aggregation, aggregation.by, columns), found)
    if aggregation.fill not in (None, ()):
        _check_fill(aggregation, found)
    return found


def _column_type(aggregation: Aggregation, name: str, columns: Mapping[str, pa.DataType]) -> pa.DataType:
    if name not in columns:
        raise DefinitionError(
            f"{aggregation.name} is of column {name!r}, which the events do not have.{did_you_mean(name, columns)}",
            column=name,
        )
    if is_.is_null(columns[name]):
        raise DefinitionError(
            f"Column {name!r} has no type yet: all of its values are null. Declare its type.", column=name
        )
    return columns[name]


def _plain(aggregation: Aggregation, kind: pa.DataType | None) -> pa.DataType:
    """Return the type of the results without `by`."""
    if kind is not None:
        _check_column(aggregation, kind)
    if isinstance(aggregation, _COUNTS):
        return pa.int64()
    if isinstance(aggregation, _FLOATS):
        return pa.float64()
    if isinstance(aggregation, kinds.Sum):
        if kind is not None and is_.is_decimal(kind):
            return pa.decimal128(LONGEST_DECIMAL, kind.scale)
        return pa.float64() if is_.is_floating(kind) else pa.int64()
    if isinstance(aggregation, kinds.Histogram):
        return pa.list_(pa.field("item", pa.struct([("value", kind), ("count", pa.int64())])))
    return pa.list_(pa.field("item", kind)) if isinstance(aggregation, _LISTS) else kind


def _check_column(aggregation: Aggregation, kind: pa.DataType) -> None:
    column, name = aggregation.source_column, aggregation.name
    if isinstance(aggregation, _NUMERIC):
        is_number = is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind)
        if not (is_number or (is_.is_boolean(kind) and isinstance(aggregation, kinds.Sum | kinds.Mean))):
            raise DefinitionError(
                f"{name} of column {column!r} is not possible: it is {kind}, not a number. Cast the column, or count its values: "
                f"Count({column!r}).",
                column=column,
            )
    elif not isinstance(aggregation, _OF_ANY) and not has_order(kind):
        raise DefinitionError(
            f"{name} of column {column!r} is not possible: {kind} has no order. Use Count, First, Last, FirstN or LastN.",
            column=column,
        )


def has_order(kind: pa.DataType) -> bool:
    """Return whether values of a logical type can be compared. Lists and structs cannot."""
    return not is_.is_nested(kind)


def _map_type(aggregation: Aggregation, key: pa.DataType, value: pa.DataType) -> pa.DataType:
    if not has_order(key) or is_.is_floating(key):
        raise DefinitionError(
            f"by={aggregation.by!r} is not possible: it is {key}. Take a column of text, whole numbers, bools, decimals or dates.",
            column=aggregation.by,
        )
    if aggregation.k is not None and not has_order(value):
        raise DefinitionError(
            f"k={aggregation.k} is not possible: {value} has no order, so none is the largest. Leave out k."
        )
    return pa.list_(pa.field("item", pa.struct([("key", key), ("value", value)])))


def _check_fill(aggregation: Aggregation, kind: pa.DataType) -> None:
    try:
        exact.column("fill", [aggregation.fill], kind)
    except DataError as error:
        raise DefinitionError(f"{aggregation.name} cannot have this fill: {error}") from None
