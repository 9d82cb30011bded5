"""Record batches of one row, built in a fraction of the time that Arrow needs to build many columns one by one.

The row is written as a message of Arrow's IPC format, which Arrow reads without a copy. The header of a message says where the
buffers of each column are. It is taken from a message that Arrow wrote for a row of nulls. Only what differs between rows is
patched: the null counts, and the positions of texts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc

_ROOM = 128
"""Bytes reserved per text. Long texts may use what short ones leave."""
_CODES = {
    **dict(zip((pa.int8(), pa.int16(), pa.int32(), pa.int64()), "bhiq", strict=True)),
    **dict(zip((pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()), "BHIQ", strict=True)),
    **dict(zip((pa.float16(), pa.float32(), pa.float64()), "efd", strict=True)),
    pa.bool_(): "?",
    pa.date32(): "i",
}
_NUMBER, _PAIR = struct.Struct("=q"), struct.Struct("=qq")
_ZEROS = pa.py_buffer(bytes(8))


class SingleRow:
    """A builder of record batches with one row.

    The body of a message begins with eight zero bytes: a validity bitmap that all columns share, which marks the row as null.
    Arrow reads it only where the null count is 1. Then come eight bytes per column, with its value or the two offsets of its
    text, and then the texts.

    Args:
        schema: The columns: numbers, booleans, timestamps, dates, strings and binary.

    Raises:
        ValueError: A column has another type, or this release of Arrow writes messages in another layout.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        codes = [_code(kind) for kind in schema.types]
        values = (f"{code}{8 - struct.calcsize(code)}x" if code else "ii" for code in codes)
        self._pack = struct.Struct("=8x" + "".join(values)).pack
        message, places = _row_of_nulls(schema, codes)
        self._size = sum(size for _, size in places)
        self._head = bytearray(message[: -self._size])
        # The header has, for each column, the number of rows and of nulls, both 1 in the template; and for each buffer, its
        # position and size. Buffers are in the order of the columns: validity, then values or offsets, then texts.
        self._nulls_at = _find(self._head, _PAIR.pack(1, 1) * len(codes)) + _NUMBER.size
        self._texts: list[tuple[int, int]] = []
        at = _find(self._head, b"".join(_PAIR.pack(*place) for place in places))
        for i, code in enumerate(codes):
            _NUMBER.pack_into(self._head, self._nulls_at + i * _PAIR.size, 0)
            _PAIR.pack_into(self._head, at, 0, 8)
            _PAIR.pack_into(self._head, at + _PAIR.size, 8 + 8 * i, 8)
            at += 2 * _PAIR.size
            if not code:
                self._texts.append((i, at))
                at += _PAIR.size

    def make(self, row: Sequence[Any]) -> pa.RecordBatch:
        """Return a batch with a row, given as wire values.

        Raises:
            ValueError, struct.error: The texts are too long, or a value is not of its column's type.
        """
        head, texts = self._head, []
        if self._texts or None in row:
            head, row, end = head.copy(), list(row), 8 + 8 * len(row)
            for i in [i for i, value in enumerate(row) if value is None]:
                _NUMBER.pack_into(head, self._nulls_at + i * _PAIR.size, 1)
                row[i] = 0
            for i, at in reversed(self._texts):  # backwards, because one value becomes two offsets
                text = row[i] or b""
                text = text.encode() if isinstance(text, str) else text
                row[i : i + 1] = 0, len(text)
                _PAIR.pack_into(head, at, end, len(text))
                texts.append(text + bytes(-len(text) % 8))
                end += len(texts[-1])
        body = self._pack(*row) + b"".join(texts)
        if len(body) > self._size:
            raise ValueError(len(body))
        return pa.ipc.read_record_batch(pa.py_buffer(bytes(head) + body.ljust(self._size, b"\0")), self.schema)


def _code(kind: pa.DataType) -> str:
    """Return the `struct` format of the values of a type; "" for strings and binary."""
    if kind in {pa.string(), pa.binary()}:
        return ""
    if not pa.types.is_timestamp(kind) and kind not in _CODES:
        raise ValueError(kind)
    return str(_CODES.get(kind, "q"))


def _row_of_nulls(schema: pa.Schema, codes: Sequence[str]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a message of one row of nulls, with room for texts, and the position and size of each buffer in its body."""
    arrays, places, end = [], [], 0
    for kind, code in zip(schema.types, codes, strict=True):
        text = [pa.py_buffer(struct.pack("=ii", 0, _ROOM)), pa.py_buffer(bytes(_ROOM))]
        buffers = [_ZEROS, *([_ZEROS] if code else text)]
        arrays.append(pa.Array.from_buffers(kind, 1, buffers, 1))
        for buffer in buffers:
            places.append((end, buffer.size))
            end += buffer.size
    return bytes(pa.record_batch(arrays, schema=schema).serialize()), places


def _find(text: bytearray, part: bytes) -> int:
    if text.count(part) != 1:
        raise ValueError("Arrow writes messages in another layout.")
    return text.find(part)
