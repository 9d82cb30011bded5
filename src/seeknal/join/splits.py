"""The part of a training set, train, validation or test, that each row belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.splits import PARTS, TEST, TRAIN, VALIDATION, ColumnSplit, EntitySplit, Split, TimeSplit
from seeknal.errors import DataError
from seeknal.values import exact
from seeknal.values.moments import utc

_WHOLE = 2**64
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def parts_of(split: Split, table: pa.Table, date_col: str, keys: Sequence[str]) -> pa.ChunkedArray:
    """Return the name of the part that each row belongs to; null for a row in none.

    Args:
        split: The split.
        table: The rows.
        date_col: The column with the moments.
        keys: The join keys that identify the entity, for a split by entity that names none.

    Raises:
        DataError: A column is missing, or names no part.
    """
    if isinstance(split, TimeSplit):
        return _by_time(split, utc(date_col, table[date_col], up=False))
    if isinstance(split, EntitySplit):
        return _by_entity(split, table.select(list(split.by or keys)))
    return _by_column(split, table[split.column])


def _by_time(split: TimeSplit, moments: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the parts by time.

    Suppose that the bounds are 10 and 20, and the gap is 2:

        moment  7      8     9     10          17          18    19    20
        part    train  none  none  validation  validation  none  none  test
    """
    at, gap = moments.cast(pa.int64()), split.gap_length
    names = (TRAIN, TEST) if len(split.instants) == 1 else PARTS
    found = pa.chunked_array([pa.array([names[0]] * len(at), pa.string())])
    for bound, name in zip(split.instants, names[1:], strict=True):
        in_gap = pc.and_(pc.greater_equal(at, bound - gap), pc.less(at, bound))
        found = pc.if_else(in_gap, pa.scalar(None, pa.string()), found)
        found = pc.if_else(pc.greater_equal(at, bound), name, found)
    return pc.if_else(at.is_valid(), found, pa.scalar(None, pa.string()))


def _by_entity(split: EntitySplit, keys: pa.Table) -> pa.ChunkedArray:
    """Return the parts by a hash of the entity: the first 8 bytes of the SHA-256 of its keys as text, as a fraction of 2**64."""
    places, entities = _distinct(pa.table([_plain(column) for column in keys.columns], keys.column_names))
    train, until = split.train * _WHOLE, (split.train + split.validation) * _WHOLE
    own = []
    for entity in entities:
        text = "\x1f".join([str(split.seed), *map(_text, entity)])
        number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        own.append(TRAIN if number < train else VALIDATION if number < until else TEST)
    return pa.chunked_array([pa.array(own, pa.string()).take(pa.array(places))])


def _text(key: Any) -> str:
    """Return a text that is the same for equal keys of one kind, whatever the width, scale or unit of their types.

    It must never change: it decides in which part an entity is.
    """
    value = key.value if isinstance(key, pa.Scalar) else key  # times are Arrow's
    if value is None:
        return "null"
    if isinstance(key, pa.TimestampScalar):
        value *= _NANOSECONDS[key.type.unit]
    elif isinstance(key, Decimal):
        value = "{}/{}".format(*key.as_integer_ratio())
    elif isinstance(key, bytes):
        value = key.hex()
    return f"{type(key).__name__}:{value}"


def _distinct(keys: pa.Table) -> tuple[np.ndarray, list[tuple[object, ...]]]:
    """Return the distinct entities, and for each row the place of its entity among them."""
    codes = np.zeros(len(keys), np.int64)
    for column in keys.columns:
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # Codes of what came before are numbered anew, so that the product of the sizes never overflows.
        _, codes = np.unique(codes, return_inverse=True)
        codes = codes * max(len(encoded.dictionary), 1) + indices
    _, firsts, places = np.unique(codes, return_index=True, return_inverse=True)
    columns = [exact.values(column.take(pa.array(firsts))) for column in keys.columns]
    return places, list(zip(*columns, strict=True))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_date64(column.type):
        return column.cast(pa.date32())
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _by_column(split: ColumnSplit, column: pa.ChunkedArray) -> pa.ChunkedArray:
    known = split.parts or {}
    encoded = _plain(column).combine_chunks().dictionary_encode()
    distinct = exact.values(encoded.dictionary)
    if odd := [one for one in distinct if one is not None and one not in known]:
        raise DataError(
            f"Column {split.column!r} has {odd[0]!r}, which names no part of the split. Its values are {', '.join(map(repr, known))}; "
            "null is for rows in no part.",
            column=split.column,
        )
    return pa.chunked_array([pa.array([known.get(one) for one in distinct], pa.string()).take(encoded.indices)])
