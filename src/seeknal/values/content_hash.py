"""The hash of a table's content: equal for equal names, types and values, however Arrow lays them out in memory."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values.casting import cast
from seeknal.values.types import standard

_ODD = (is_.is_dictionary, is_.is_string_view, is_.is_binary_view)
"""The types that are hashed in their standard form. Arrow has few functions of views."""


def content_hash(table: pa.Table) -> str:
    """Return a hash of the names, types and values of a table, in the order of its rows.

    The hash is BLAKE2b with 256 bits, as 64 hexadecimal digits.

    Raises:
        DataError: A column has a type that Seeknal cannot store; see `check_types`.

    >>> one = pa.table({"x": pa.chunked_array([[1, None], [3]])})
    >>> content_hash(one) == content_hash(one.combine_chunks()) != content_hash(one.slice(1))
    True
    """
    digest = blake2b(digest_size=32)
    for field, kind, given in zip(table.schema, check_types(table.schema), table.columns, strict=True):
        # The length of the name comes first, so that a name with spaces cannot pass for another name and type.
        digest.update(f"{len(field.name)} {field.name} {kind} {len(given)};".encode())
        column = cast(given, kind) if any(is_odd(field.type) for is_odd in _ODD) else given
        _feed(digest, pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type))
    return digest.hexdigest()


def check_types(schema: pa.Schema) -> list[pa.DataType]:
    """Return the type of each column, the same for all Arrow layouts of the same values.

    Raises:
        DataError: A column has a type that Seeknal cannot store; the message names the column.
    """

    def kind_of(field: pa.Field) -> pa.DataType:
        try:
            return standard(field.type)
        except DataError as error:
            raise DataError(f"Column {field.name!r}: {error}", column=field.name) from None

    return [kind_of(field) for field in schema]


def _feed(digest: Any, array: pa.Array) -> None:
    kind = array.type
    if is_.is_dictionary(kind):
        return _feed(digest, _decoded(array))
    # Which values are null is hashed apart from the values, because the bytes beneath a null are arbitrary.
    digest.update(_dense(pc.is_valid(array).cast(pa.uint8())))
    values = array.drop_null()
    if is_.is_null(kind):
        return None
    if is_.is_boolean(kind):
        digest.update(_dense(values.cast(pa.uint8())))
    elif is_.is_struct(kind):
        for child in values.flatten():
            _feed(digest, child)
    elif is_.is_fixed_size_list(kind) or is_.is_list(kind) or is_.is_large_list(kind) or is_.is_list_view(kind):
        digest.update(_dense(pc.list_value_length(values).cast(pa.int64())))
        _feed(digest, values.flatten())
    elif is_.is_primitive(kind) or is_.is_decimal(kind) or is_.is_fixed_size_binary(kind):
        digest.update(_dense(values))
    else:
        _feed_texts(digest, values)
    return None


def _feed_texts(digest: Any, values: pa.Array) -> None:
    # Text and its UTF-8 bytes hash alike here; the type is part of the hash already.
    wide = values.cast(pa.large_binary())
    # Without the lengths, ["ab", "c"] and ["a", "bc"] would have one hash.
    digest.update(_dense(pc.binary_length(wide)))
    ends = pa.Array.from_buffers(pa.int64(), len(wide) + 1, [None, wide.buffers()[1]], offset=wide.offset)
    digest.update(memoryview(wide.buffers()[2] or b"")[ends[0].as_py() : ends[-1].as_py()])


def _decoded(array: pa.DictionaryArray) -> pa.Array:
    """Return a dictionary-encoded array as plain values."""
    return pa.concat_arrays(cast(pa.chunked_array([array]), standard(array.type)).chunks)


def _dense(values: pa.Array) -> memoryview:
    """Return the bytes of fixed-width values that have no nulls."""
    width, data = values.type.bit_width // 8, values.buffers()[-1]
    return memoryview(data or b"")[values.offset * width : (values.offset + len(values)) * width]
