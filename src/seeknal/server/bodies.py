"""The bodies of requests: JSON or MessagePack of a known shape, or Arrow."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as is_

from seeknal.client.calls import TYPED
from seeknal.errors import DataError
from seeknal.server.http import ARROW, JSON, MSGPACK, Problem
from seeknal.values import exact, types
from seeknal.values.casting import leaves

_DICTIONARY, _BATCH = 2, 3
_MOST_NULLS = 2**16


class Decoder:
    """Decodes bodies of one shape.

    Args:
        shape: The shape, as a struct of `msgspec`.
        example: A body of that shape, for error messages.
    """

    def __init__(self, shape: type[Any], example: str) -> None:
        self.shape = shape
        self._example = example
        self._decoders = {
            JSON: msgspec.json.Decoder(shape).decode,
            MSGPACK: msgspec.msgpack.Decoder(shape, ext_hook=_refuse_extension).decode,
            TYPED: msgspec.msgpack.Decoder(shape, ext_hook=exact.unpacked).decode,
        }

    def __call__(self, body: bytes, kind: str) -> Any:
        """Decode a body.

        Raises:
            Problem: Its content type is neither JSON nor MessagePack.
            DataError: It has another shape.
        """
        try:
            if kind in self._decoders:
                return self._decoders[kind](body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = f"does not fit: {error}" if body else "is empty"
            raise DataError(f"The body {problem}. Its form is {self._example}.") from None
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"{f'Content-Type is {kind[:200]!r}' if kind else 'There is no Content-Type'}. Send {JSON}, {MSGPACK} or {ARROW}: curl -H 'Content-Type: {JSON}', for example.",
        )


def _refuse_extension(code: int, _data: memoryview) -> None:
    raise msgspec.ValidationError(f"it has MessagePack's extension {code}, which the server does not support")


def read_arrow(body: bytes, most: int, keys: Sequence[str] = ()) -> pa.Table:
    """Read a small table, and reject encodings with which it could take far more memory than its bytes.

    Args:
        body: The table, as an Arrow stream.
        most: The maximum number of rows.
        keys: Columns to read if all of them are there; all others are skipped.

    Raises:
        Problem: The table has too many rows.
        DataError: The body is not an Arrow stream, or is a small encoding of a large table.
    """
    batches, rows, nulls = [], 0, 0
    try:
        # Messages are inspected first, since Arrow would decompress a batch before its rows could be counted.
        for message in pa.ipc.MessageReader.open_stream(body):
            if _Head(message.metadata.to_pybytes()).is_compressed:
                raise DataError("The Arrow stream is compressed. Send it as it is.")
        names = _checked_names(pa.ipc.open_stream(body).schema)
        # An empty list selects all columns; then the lookup reports the missing key.
        chosen = [names.index(key) for key in keys] if set(keys) <= set(names) else []
        with pa.ipc.open_stream(body, options=pa.ipc.IpcReadOptions(included_fields=chosen)) as reader:
            _check_schema(reader.schema)
            for batch in reader:
                check_count(rows := rows + batch.num_rows, most)
                # Arrow trusts offsets and lengths: wrong ones would make it read memory outside the batch.
                batch.validate(full=True)
                if (nulls := nulls + _nulls_in_lists(batch)) > _MOST_NULLS:
                    raise DataError("The Arrow stream has lists with too many values of type null. Cast them.")
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, struct.error) as error:
        raise DataError(f"The body is not an Arrow stream: {error}. With curl: --data-binary @FILE.") from None


def _checked_names(schema: pa.Schema) -> list[str]:
    names: list[str] = schema.names
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"The Arrow stream has two columns named {repeated[0][:128]!r}.")
    return names


def _check_schema(schema: pa.Schema) -> None:
    for field in schema:
        if _is_endless(field.type):
            raise DataError(
                f"Column {field.name[:128]!r} is {field.type}, a type whose values can be far larger than its bytes. Cast it."
            )


def _is_endless(kind: pa.DataType, *, inside: bool = False) -> bool:
    """Return whether values of a type can take far more memory than their bytes in the stream.

    They do if they can share bytes, or take none inside a list, whose length is not limited.
    """
    shared = is_.is_dictionary, is_.is_run_end_encoded, is_.is_string_view, is_.is_binary_view, is_.is_list_view
    if any(test(kind) for test in shared) or (inside and types.has_no_width(kind)):
        return True
    if is_.is_nested(kind):
        fields = [kind.field(i).type for i in range(kind.num_fields)]
        return not fields or any(_is_endless(one, inside=True) for one in fields)
    return False


def _nulls_in_lists(batch: pa.RecordBatch) -> int:
    """Return the number of values of type null, which take no bytes, in the lists and structs of a batch."""
    nested = [column for column in batch.columns if is_.is_nested(column.type)]
    return sum(len(leaf) for column in nested for leaf in leaves(column) if is_.is_null(leaf.type))


def rows_in(file: Path) -> int:
    """Return the number of rows of a Parquet file or an Arrow stream, from its metadata alone.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            return int(pq.read_metadata(file).num_rows)
        with pa.OSFile(str(file)) as source:
            return sum(_Head(one.metadata.to_pybytes()).rows for one in pa.ipc.MessageReader.open_stream(source))
    except (pa.ArrowException, OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None


class _Head:
    """The number of rows and the compression of a message in an Arrow stream, read from its metadata.

    The metadata is a flatbuffer (https://arrow.apache.org/docs/format/Columnar.html). The second field of a message is
    the kind of its header, and the third is the header. The first field of a record batch is the number of rows, and
    the fourth is the compression. The second field of a dictionary batch is its record batch.
    """

    def __init__(self, metadata: bytes) -> None:
        self._metadata = metadata
        message = self._follow(0)
        kind = metadata[self._place(message, 1)] if self._place(message, 1) else 0
        header = self._follow(self._place(message, 2)) if kind in {_DICTIONARY, _BATCH} else 0
        batch = self._follow(self._place(header, 1)) if kind == _DICTIONARY else header
        length = self._place(batch, 0) if kind == _BATCH else 0
        self.rows: int = struct.unpack_from("<q", metadata, length)[0] if length else 0
        self.is_compressed = bool(batch and self._place(batch, 3))

    def _place(self, table: int, field: int) -> int:
        # A table starts with the distance back to its layout: two sizes, then the offset of each field, 0 if absent.
        layout = table - struct.unpack_from("<i", self._metadata, table)[0]
        size: int = struct.unpack_from("<H", self._metadata, layout)[0]
        found = struct.unpack_from("<H", self._metadata, layout + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        return table + found if found else 0

    def _follow(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self._metadata, at)[0])


def check_count(rows: int, most: int) -> None:
    """Check that a request does not have too many rows.

    Raises:
        Problem: There are too many.
    """
    if rows > most:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{rows:,} rows in one request are over the limit of {most:,}. Split the request.",
        )
