"""Features and labels as arrays: what scikit-learn and PyTorch are trained on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError, plural


def with_labels(table: pa.Table, label: str, *, drop: bool) -> pa.Table:
    """Return the rows that have a label.

    Args:
        table: The rows.
        label: The label's column.
        drop: Leave out rows whose label is null.

    Raises:
        DataError: The label of a row is null, and `drop` is false.
    """
    if not (missing := table[label].null_count):
        return table
    if not drop:
        raise DataError(
            f"The label {label!r} is null in {missing:,} of {plural(len(table))}. Pass drop_unlabelled=True to leave them out. If null "
            'means that nothing happened, define the label as Label(..., aggregation="any"), which is false then.',
            column=label,
        )
    return table.filter(table[label].is_valid())


def matrix(table: pa.Table, dtype: str) -> np.ndarray:
    """Return the columns of a table as one array of floats.

    Args:
        table: Columns of numbers and bools.
        dtype: "float32" or "float64".

    Returns:
        An array of the shape (rows, columns). Null is NaN, true is 1, and what is not exact in `dtype` is rounded to the nearest float.

    Raises:
        DataError: A column has another type, a number is too large for `dtype`, or a whole number may not be exact in it.
    """
    found = np.empty((len(table), table.num_columns), dtype)
    for place, name in enumerate(table.column_names):
        found[:, place] = _floats(name, table[name], dtype)
    return found


def vector(labels: pa.Table, dtype: str, *, texts: bool = False) -> np.ndarray:
    """Return labels as an array: whole numbers and bools in their own types, other numbers as floats.

    Args:
        labels: One column, without nulls.
        dtype: "float32" or "float64".
        texts: Return text as an array of Python strings.

    Raises:
        DataError: A label is neither, or a number is too large for `dtype`.
    """
    name, column = labels.column_names[0], _plain(labels.column(0))
    kind = column.type
    is_class = (
        is_.is_integer(kind) or is_.is_boolean(kind) or (texts and (is_.is_string(kind) or is_.is_large_string(kind)))
    )
    return np.array(column.to_numpy()) if is_class else _floats(name, column, dtype)  # Arrow's memory is read-only


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if is_.is_dictionary(column.type) else column


def _floats(name: str, given: pa.ChunkedArray, dtype: str) -> np.ndarray:
    column = _plain(given)
    kind = column.type
    if is_.is_integer(kind):
        try:
            return np.asarray(column.cast(dtype))  # Arrow checks the range
        except pa.ArrowInvalid:
            raise _too_large(name, "whole numbers of which not all are exact in", dtype) from None
    if is_.is_decimal(kind):  # Arrow's own cast is not always the nearest float
        wide = np.array([np.nan if one is None else float(one) for one in column.to_pylist()], "float64")
    elif is_.is_floating(kind) or is_.is_boolean(kind):
        wide = np.asarray(column.cast("float64"))
    else:
        raise DataError(
            f"Column {name!r} is {kind}, which is not a number. Encode it, for example with a ColumnTransformer of scikit-learn on "
            "to_sklearn(), or leave it out of the features of the view.",
            column=name,
        )
    with np.errstate(over="ignore"):
        found = wide.astype(dtype)
    if np.any(np.isinf(found) & ~np.isinf(wide)):
        raise _too_large(name, "numbers that are too large for", dtype)
    return found


def _too_large(name: str, what: str, dtype: str) -> DataError:
    advice = 'Pass dtype="float64"' if dtype == "float32" else "Leave it out of the features of the view"
    return DataError(f"Column {name!r} has {what} {dtype}. {advice}.", column=name)
