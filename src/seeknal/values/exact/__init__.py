"""Exact conversion of Python values to Arrow columns: each value is kept exactly, or an error names it and its row.

All such conversions go through here: object columns of pandas, pushed rows, keys, and values from HTTP requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values import types
from seeknal.values.exact.conversion import convert
from seeknal.values.exact.families import Family, Unfit, family, settled, shown
from seeknal.values.exact.inference import is_text, narrowest
from seeknal.values.exact.moments import DAY, SECOND, is_zoned, nanoseconds

__all__ = ["column", "plain", "read", "read_keys", "series", "shown"]

_AS_TEXT = {Family.DATE, Family.MOMENT, Family.TIME, Family.SPAN}
_PLAIN: dict[Family, Callable[[Any], Any]] = {
    Family.BOOL: bool,
    Family.WHOLE: int,
    Family.FLOAT: float,
    Family.TEXT: str,
    Family.BYTES: bytes,
    Family.LIST: list,
    Family.STRUCT: dict,
}
_UNITS = (("s", SECOND), ("ms", 10**6), ("us", 10**3), ("ns", 1))
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
        DataError: The values have no common type, or one that Arrow does not have, or the name is not text.
    """
    if not is_text(name):
        raise DataError(f"A column cannot be named {name!r}, which is no text. Rename it.", column=name)
    dtype = given.dtype
    if str(dtype) == "object":
        return column(name, given.to_numpy(dtype=object).tolist(), nan=True)
    if str(dtype).startswith("Sparse["):
        return series(name, given.sparse.to_dense())
    try:
        if str(dtype) == "category" and dtype.categories.dtype == object:
            values = column(name, dtype.categories.tolist(), nan=True).combine_chunks()
            codes = given.cat.codes.to_numpy()
            return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), values)
        return pa.array(given, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"Column {name!r} cannot be read: {error}", column=name) from None


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
        found = _check_kind(values, kind)
        with suppress(Unfit):
            return convert(values, kind)
        return convert(values, found)
    except Unfit as error:
        raise DataError(
            f"{name} is {kind}, and {shown(error.value)} in row {error.row} of {whose} does not fit: it {error.why}.",
            key=name,
            row=error.row,
        ) from None


def _check_kind(values: Sequence[Any], kind: pa.DataType) -> pa.DataType:
    """Return the type of the values.

    Raises:
        Unfit: Values of that type can never equal the key's, as text never equals a number.
    """
    found = narrowest(values)
    if not types.same_kind(found, kind):
        row, value = next((i, v) for i, v in enumerate(settled(values, nan=False)) if v is not None)
        raise Unfit(row, value, f"is of type {found}")
    return found


def plain(value: Any) -> Any:
    """Return a value as an equal value of a built-in Python type.

    Dates, timestamps, times of day and durations become ISO 8601 text, since Python's own types have no nanoseconds. A
    value without a built-in equal is returned as it is.

    Raises:
        ValueError: A duration has no fixed length, or a time is finer than a nanosecond.
    """
    (one,) = settled([value], nan=False)
    of = Family.NULL if one is None else family(one)
    if of in _AS_TEXT:
        return _text_of(nanoseconds(one), of, "Z" if of == Family.MOMENT and is_zoned(one) else "")
    return _PLAIN.get(of, lambda value: value)(one)


def _text_of(nanos: int, of: Family, zone: str) -> str:
    if of == Family.DATE:
        return str(np.datetime64(nanos // DAY, "D"))
    if of == Family.SPAN:
        return f"{'-' if nanos < 0 else ''}PT{abs(nanos) // SECOND}.{abs(nanos) % SECOND:09}S"
    unit, length = next((unit, length) for unit, length in _UNITS if nanos % length == 0)
    text = f"{np.int64(nanos // length).astype(f'datetime64[{unit}]')}{zone}"
    return text[len("1970-01-01T") :] if of == Family.TIME else text


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
