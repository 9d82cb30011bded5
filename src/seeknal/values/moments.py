"""Conversion of time columns to the form that the engine compares, and gathering of rows by their numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.errors import DataError
from seeknal.system.parallel import parallel_map
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.types import UTC

_PIECE = 2**17
"""Rows gathered by one call of Arrow."""
_LITTLE = 2**18
"""Fewer values than this are gathered on one thread."""
_SAMPLE = 2**14
# Microseconds come first, because the range of nanoseconds is shorter.
_NAIVE = pa.timestamp("us"), pa.timestamp("ns")
_ZONED = pa.timestamp("us", tz="UTC"), pa.timestamp("ns", tz="UTC")


def gather(columns: list[pa.ChunkedArray], places: np.ndarray) -> list[pa.ChunkedArray]:
    """Return the rows of these columns with the given numbers, in that order, on all cores. Number -1 gives a null.

    For example, the rows 2, -1, 0 of the column "a", "b", "c" are "c", null, "a".

    Args:
        columns: The columns. Each is replaced by None in this list when its turn comes, to free its memory for the
            next.
        places: The numbers of the rows.

    Raises:
        pa.ArrowInvalid: A column has more text than one array can hold.
    """
    pieces = [places[i : i + _PIECE] for i in range(0, len(places), _PIECE)] or [places]
    masked = [pa.array(piece, mask=piece < 0) for piece in pieces]
    bare = [(pa.array(np.maximum(piece, 0)), pa.array(piece >= 0)) for piece in pieces]

    def taken(values: pa.Array) -> list[pa.Array]:
        if not len(values) or not pa.types.is_primitive(values.type):
            return [values.take(piece) for piece in masked]
        # Taking row 0 for -1 and inserting the nulls afterwards needs a quarter of the time of a take with nulls.
        null = pa.scalar(None, values.type)
        return [pc.if_else(is_known, values.take(piece), null) for piece, is_known in bare]

    def of(number: int) -> pa.ChunkedArray:
        column = columns[number]
        columns[number] = None
        kind, whole = column.type, column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        del column
        # Repeated text is gathered by its dictionary codes, unless encoding the column costs more than the gathering.
        if len(places) < len(whole) or not _repeats(whole):
            return pa.chunked_array(taken(whole))
        encoded = whole.dictionary_encode()
        del whole
        numbered = (pa.DictionaryArray.from_arrays(numbers, encoded.dictionary) for numbers in taken(encoded.indices))
        return pa.chunked_array([text.cast(kind) for text in numbered])

    return parallel_map(of, range(len(columns)), serial=len(places) * len(columns) < _LITTLE)


def _repeats(column: pa.Array) -> bool:
    """Return whether values of a text column repeat, eight times or more on average in a sample of it."""
    if not pa.types.is_string(column.type):
        return False
    some = column.slice(0, _SAMPLE)
    return bool(pc.count_distinct(some).as_py() * 8 <= len(some))


def utc(name: str, column: pa.ChunkedArray, *, up: bool, first: int = 0) -> pa.ChunkedArray:
    """Convert a column of moments to UTC timestamps in microseconds.

    Naive times are taken as UTC, dates as their midnight, and text as ISO 8601.

    Args:
        name: The column's name, for the message.
        column: The moments.
        up: Round times finer than a microsecond up, as for events, rather than down, as for spines.
        first: The number of the first row, for the message.

    Raises:
        DataError: The column does not hold moments, or a moment is out of range for microseconds.
    """
    try:
        return _utc(name, column, up, first)
    except pa.ArrowInvalid:
        raise DataError(
            f"Column {name!r} holds times that are out of range for microseconds. Check its unit.", column=name
        ) from None


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is a text type, in any of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _utc(name: str, column: pa.ChunkedArray, up: bool, first: int) -> pa.ChunkedArray:
    kind = column.type
    if column.null_count == len(column) > 0:
        return pa.chunked_array([pa.nulls(len(column), UTC)])
    if pa.types.is_dictionary(kind):
        return utc(name, recast(pa.table({name: column}), [types.standard(kind)])[name], up=up, first=first)
    if is_text(kind):
        return _of_text(name, column, up, first)
    if pa.types.is_timestamp(kind):
        return (_micros_of_nanos(column, up) if kind.unit == "ns" else column).cast(UTC)
    if pa.types.is_date(kind) or pa.types.is_null(kind):
        return column.cast(pa.timestamp("us")).cast(UTC)
    raise DataError(f"Column {name!r} is {kind}, not a timestamp, a date or ISO 8601 text.", column=name)


def _micros_of_nanos(column: pa.ChunkedArray, up: bool) -> pa.ChunkedArray:
    nanos = column.cast(pa.int64())
    # Arrow's division truncates towards zero: -1500 ns gives -1 us, which is right up but not down.
    down = pc.subtract(pc.divide(nanos, 1000), pc.cast(pc.and_(pc.less(nanos, 0), _has_rest(nanos)), pa.int64()))
    micros = pc.add(down, pc.cast(_has_rest(nanos), pa.int64())) if up else down
    return micros.cast(pa.timestamp("us"))


def _has_rest(nanos: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.not_equal(pc.multiply(pc.divide(nanos, 1000), 1000), nanos)


def _of_text(name: str, column: pa.ChunkedArray, up: bool, first: int) -> pa.ChunkedArray:
    """Parse text as ISO 8601 times, with a zone or without."""
    text = column.cast(pa.string())
    for kind in (*_NAIVE, *_ZONED):
        try:
            return utc(name, text.cast(kind), up=up)
        except pa.ArrowInvalid:
            continue
    # Arrow parses text with a zone only into a type with a zone, and other text only into a type without.
    has_zone = pc.match_substring_regex(text, r"[T ].*(Z|[+-]\d\d:?(\d\d)?)$")
    parts = []
    for kinds, is_one in ((_NAIVE, pc.invert(has_zone)), (_ZONED, has_zone)):
        some = pc.if_else(is_one, text, None)
        fitting = [kind for kind in kinds if _reads(some, kind)]
        if not fitting:
            row = _first_that_fails(some, kinds[0])
            raise DataError(
                f"Column {name!r} holds {text[row].as_py()!r} in row {row + first}, which is not an ISO 8601 time. "
                "Write 2024-01-31 or 2024-01-31T12:30:00.",
                column=name,
                row=row + first,
            )
        parts.append(utc(name, some.cast(fitting[0]), up=up))
    return pc.coalesce(*parts)


def _reads(text: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        text.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _first_that_fails(text: pa.ChunkedArray, kind: pa.DataType) -> int:
    # A binary search, because Arrow reports that a cast failed, but not at which row. All rows before `first` parse.
    first, end = 0, len(text)
    while end - first > 1:
        middle = (first + end) // 2
        if _reads(text.slice(first, middle - first), kind):
            first = middle
        else:
            end = middle
    return first
