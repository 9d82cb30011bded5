"""Exact conversion of Python values to Arrow columns: each value is kept exactly, or an error names it and its row.

All such conversions go through here: object columns of pandas, pushed rows, keys, and values from HTTP requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.names import is_text
from seeknal.values import types
from seeknal.values.exact.conversion import convert
from seeknal.values.exact.families import Family, Unfit, family_of, normalized, shown
from seeknal.values.exact.inference import narrowest
from seeknal.values.exact.moments import RAISED_BY_ZONES
from seeknal.values.exact.portable import packed, unpacked

__all__ = ["column", "packed", "read", "read_keys", "series", "shown", "unpacked", "values"]

_NUMBERS = {Family.WHOLE, Family.FLOAT}
_AT_ONCE = 2**16
"""Rows converted at a time: one Arrow array has room for 2 GB of text, and for as many values of lists."""


def column(name: str, values: Sequence[Any], kind: pa.DataType | None = None, *, nan: bool = False) -> pa.ChunkedArray:
    """Convert values to a column.

    Args:
        name: The name of the column, for the message.
        values: The values.
        kind: The type of the column. None: the narrowest type in which all values are exact.
        nan: Take NaN as null, as pandas columns do.

    Raises:
        DataError: A value does not fit; the message names the column, the row and the value.
    """
    first = 0
    try:
        of = narrowest(values, nan=nan) if kind is None else kind
        chunks: list[pa.Array] = []
        for first in range(0, len(values), _AT_ONCE):
            made = convert(values[first : first + _AT_ONCE], of, nan=nan)
            chunks += made.chunks if isinstance(made, pa.ChunkedArray) else [made]
    except Unfit as error:
        row, what = first + error.row, shown(error.value)
        said = (
            f"Column {name!r} cannot be read: {what} in row {row} {error.why}."
            if kind is None
            else f"{name} is {kind}, and {what} in row {row} does not fit: it {error.why}."
        )
        raise DataError(said, column=name, row=row) from None
    return pa.chunked_array(chunks, of)


def series(name: str, given: Any) -> pa.Array | pa.ChunkedArray:
    """Convert a pandas column to Arrow. An object column gets the narrowest type in which all its values are exact.

    Raises:
        DataError: The values have no common type, Arrow does not have their type, or the name is not text.
    """
    if not is_text(name):
        raise DataError(f"A column cannot be named {name!r}, which is not text. Rename it.", column=name)
    dtype = given.dtype
    if str(dtype) == "object":
        return column(name, given.to_numpy(dtype=object).tolist(), nan=True)
    if str(dtype).startswith("Sparse["):
        return series(name, given.sparse.to_dense())
    try:
        if str(dtype) == "category" and dtype.categories.dtype == object:
            # Only the categories have to be converted, each of which is stored once. Code -1 means null.
            values = column(name, dtype.categories.tolist(), nan=True).combine_chunks()
            codes = given.cat.codes.to_numpy()
            return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), values)
        return pa.array(given, from_pandas=True)
    except (*RAISED_BY_ZONES, OverflowError) as error:
        why = str(error)
        if (zone := getattr(dtype, "tz", None)) is not None:
            why = f'its zone {zone} cannot be read back. Convert it to UTC first: .dt.tz_convert("UTC").'
        raise DataError(f"Column {name!r} cannot be read: {why}", column=name) from None


def read_keys(name: str, values: Sequence[Any], kind: pa.DataType, whose: str = "the keys asked for") -> pa.Array:
    """Convert values to a column of join keys.

    Values of the key's kind that are not exact in its type, such as 300 for int8 or 1.25 for decimal(3, 1), get a wider
    type: they are valid, but equal no key.

    Args:
        name: The name of the join key.
        values: The values.
        kind: The type of the join key.
        whose: What to call the values in the message.

    Raises:
        DataError: A value is not of the key's kind.
    """
    try:
        own = _check_kind(values, kind)
        with suppress(Unfit):
            return convert(values, kind)
        return convert(values, own)
    except Unfit as error:
        raise DataError(
            f"{name} is {kind}, and {shown(error.value)} in row {error.row} of {whose} does not fit: it {error.why}.",
            key=name,
            row=error.row,
        ) from None


def _check_kind(values: Sequence[Any], kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, after checking that keys of this type can equal keys of the other.

    Raises:
        Unfit: They cannot, as text never equals a number.
    """
    # NumPy's numbers have widths, which a request over HTTP does not carry.
    found = narrowest(
        [
            value.item() if family_of(type(value)) in _NUMBERS and isinstance(value, np.generic) else value
            for value in values
        ]
    )
    if not types.same_kind(found, kind):
        row, value = next((i, v) for i, v in enumerate(normalized(values, nan=False)) if v is not None)
        raise Unfit(row, value, f"is of type {found}")
    return found


def values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of a column as Python objects, except for times, which stay Arrow scalars.

    Python's times have no nanoseconds, and end with the year 9999.
    """
    return list(column) if is_.is_temporal(column.type) else column.to_pylist()


def read(name: str, text: str, kind: pa.DataType) -> pa.Scalar:
    """Parse a value from text, as typed on the command line or sent in a request.

    Raises:
        DataError: The text is not a value of the type.
    """
    is_time = is_.is_time(kind)  # Arrow parses times of day only as part of a timestamp
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeEncodeError):
        return (
            pa.scalar(f"1970-01-01T{text}" if is_time else text)
            .cast(pa.timestamp(kind.unit) if is_time else kind)
            .cast(kind)
        )
    raise DataError(f"{name} is {kind}, which {shown(text)} is not.", key=name)
