"""The one way from Python values to a column of Arrow: every value exactly, or an error that names it and its row.

Used for columns of pandas that hold objects, for rows that are pushed, for keys, and for what comes over HTTP.
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
"""Rows that are put at a time: an array has room for 2 GB of text, and so many values of lists."""


def column(name: str, values: Sequence[Any], kind: pa.DataType | None = None, *, nan: bool = False) -> pa.ChunkedArray:
    """Put values into a column.

    Args:
        name: Its name, for the message.
        values: The values.
        kind: Its type. None: the narrowest in which all values are exact.
        nan: Take NaN for null, as a column of pandas does.

    Raises:
        DataError: A value does not fit; it names the column, the row and the value.
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
    """Take a column of pandas as one of Arrow; objects by what they are, each of them.

    Raises:
        DataError: Its values are of no one type, or of one that Arrow does not have.
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
    """Read what is given as a key; a whole number out of the key's range keeps a wider type, and is not found.

    Args:
        name: The key's name.
        values: What is given.
        kind: The key's type.
        whose: What to call what is given, in a message.

    Raises:
        DataError: A value is not of the key's type.
    """
    try:
        _check_kind(values, kind)
        for wider in (kind, pa.int64(), pa.uint64()) if is_.is_integer(kind) else ():
            with suppress(Unfit):
                return convert(values, wider)
        return convert(values, kind)
    except Unfit as error:
        raise DataError(
            f"{name} is {kind}, and {shown(error.value)} in row {error.row} of {whose} does not fit: it {error.why}.",
            key=name,
            row=error.row,
        ) from None


def _check_kind(values: Sequence[Any], kind: pa.DataType) -> None:
    """Refuse keys that no key of the type could equal, such as text among numbers."""
    found = narrowest(values)
    if not types.same_kind(found, kind):
        row, value = next((i, v) for i, v in enumerate(settled(values, nan=False)) if v is not None)
        raise Unfit(row, value, f"is of type {found}")


def plain(value: Any) -> Any:
    """Return a value as plain Python has it, exactly: moments and spans that may be finer as ISO 8601 text.

    A value that plain Python has no equal of is returned as it is.

    Raises:
        ValueError: It has no fixed length, or is finer than a nanosecond.
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
    """Read a value from text, as it is typed or sent.

    Raises:
        DataError: The text does not fit the type.
    """
    is_time = is_.is_time(kind)  # Arrow reads such only behind a date
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeEncodeError):
        return (
            pa.scalar(f"1970-01-01T{text}" if is_time else text)
            .cast(pa.timestamp(kind.unit) if is_time else kind)
            .cast(kind)
        )
    raise DataError(f"{name} is {kind}, which {shown(text)} is not.", key=name)
