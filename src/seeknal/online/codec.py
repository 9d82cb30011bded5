"""How keys and rows of a version look as bytes in the online store.

A key is the MessagePack of its parts. A row is its event time (8 bytes, big-endian, offset so that
later sorts higher) and the MessagePack of its features, in the schema's order.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any

import msgspec
import pyarrow as pa

from seeknal import types
from seeknal.errors import DataError
from seeknal.schema import Schema

_LONGEST_KEY = 500
_TIME = struct.Struct(">Q")
_OFFSET = 2**63
_encode = msgspec.msgpack.Encoder().encode


class Codec:
    """Turns rows of one schema into bytes and back, exactly."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def rows(self, table: pa.Table) -> list[tuple[bytes, bytes]]:
        """Encode rows, sorted by key as the store wants them.

        Args:
            table: Keys, event time and features of one row per entity, in logical types.
        """
        keys = self.keys([table[name] for name in self.schema.key_names])
        times = table[self.schema.event_time.name].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
        features = [_to_wire(table[field.name], field.type) for field in self.schema.features]
        bodies = zip(*features, strict=True)
        rows = zip(keys, times, bodies, strict=True)
        return sorted((key, _TIME.pack(time + _OFFSET) + _encode(body)) for key, time, body in rows)

    def keys(self, columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[bytes]:
        """Encode entities, given as one column per join key."""
        kinds = [field.type for field in self.schema.keys]
        parts = [_to_wire(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        return [_bounded(_encode(entity)) for entity in zip(*parts, strict=True)]

    def key_columns(self, keys: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[pa.Array]:
        """Read the entities that somebody asks for, as one column per join key, in its type.

        Args:
            keys: One mapping per entity.
            names: The names that the mappings give the join keys, in the schema's order.

        Raises:
            DataError: A value is not of the key's type.
        """
        return [
            read_keys(name, [key[name] for key in keys], field.type)
            for name, field in zip(names, self.schema.keys, strict=True)
        ]

    def decode(self, rows: Sequence[bytes | None], oldest: int | None) -> dict[str, pa.Array]:
        """Decode rows into one column per feature.

        Args:
            rows: What the store gave; None gives nulls.
            oldest: Event times before this instant have expired, and give nulls.
        """
        alive = [row if row is not None and (oldest is None or event_time(row) >= oldest) else None for row in rows]
        decode = msgspec.msgpack.decode
        empty = [None] * len(self.schema.features)
        values = [empty if row is None else decode(memoryview(row)[_TIME.size :]) for row in alive]
        columns = zip(*values, strict=True) if values else [()] * len(empty)
        return {
            field.name: _from_wire(list(column), field.type)
            for field, column in zip(self.schema.features, columns, strict=True)
        }


def event_time(row: bytes) -> int:
    """Read a row's event time without decoding the rest."""
    return int(_TIME.unpack_from(row)[0]) - _OFFSET


def _bounded(key: bytes) -> bytes:
    """Keep a key within what LMDB takes; 0xC1, which MessagePack never uses, marks a digest."""
    return key if len(key) <= _LONGEST_KEY else b"\xc1" + hashlib.blake2b(key, digest_size=32).digest()


def _to_wire(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    whole = pa.types.is_integer(kind) and pa.types.is_integer(column.type)
    return list((column if whole else column.cast(types.wire(kind))).to_pylist())


def _from_wire(values: list[Any], kind: pa.DataType) -> pa.Array:
    array = pa.array(values, types.wire(kind))
    return array if array.type == kind else _nulls_inside(array).cast(kind)


def _nulls_inside(array: pa.Array) -> pa.Array:
    """Make the fields of a null struct null as well, so that a cast does not look at what stands there."""
    if not pa.types.is_struct(array.type):
        return array
    fields = [_nulls_inside(field) for field in array.flatten()]
    return pa.StructArray.from_arrays(fields, fields=list(array.type), mask=array.is_null())


def read_keys(name: str, values: list[Any], kind: pa.DataType) -> pa.Array:
    """Read what somebody gives as a key; a whole number out of the key's range keeps a wider type, and is not found."""
    whole = pa.types.is_integer(kind) and all(
        isinstance(v, Integral | None) and not isinstance(v, bool) for v in values
    )
    for wider in (kind, pa.int64(), pa.uint64()) if whole else ():
        with suppress(pa.ArrowInvalid, OverflowError):
            return pa.array(values, wider)
    try:
        found = pa.array(values)
        if types.same_kind(types.logical(found.type), kind):
            return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, DataError) as error:
        raise DataError(f"{name} is {kind}, and the keys asked for do not fit: {error}", key=name) from None
    raise DataError(f"{name} is {kind}, but the keys asked for have {found.type}: {values[0]!r}.", key=name)
