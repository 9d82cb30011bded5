"""What comes in requests: JSON or MessagePack of a known shape, or Arrow."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from seeknal.errors import DataError
from seeknal.server.http import ARROW, JSON, MSGPACK, Problem

T = TypeVar("T")


class Decoder:
    """Reads bodies of one shape.

    Args:
        shape: The shape: a struct of `msgspec`.
    """

    def __init__(self, shape: type[Any]) -> None:
        self._json = msgspec.json.Decoder(shape)
        self._msgpack = msgspec.msgpack.Decoder(shape)

    def __call__(self, body: bytes, kind: str) -> Any:
        """Read a body.

        Raises:
            Problem: It is of another kind.
            DataError: It is of another shape.
        """
        try:
            if kind == JSON:
                return self._json.decode(body)
            if kind == MSGPACK:
                return self._msgpack.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"The body does not fit: {error}.") from None
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {kind[:200]!r}. Send {JSON}, {MSGPACK} or {ARROW}: curl -H 'Content-Type: {JSON}', say.",
        )


def read_arrow(body: bytes, most: int) -> pa.Table:
    """Read a small table.

    Raises:
        Problem: It has too many rows.
        DataError: It is no Arrow stream.
    """
    batches, rows = [], 0
    try:
        with pa.ipc.open_stream(body) as reader:
            for batch in reader:
                check_count(rows := rows + batch.num_rows, most)
                batch.validate(full=True)
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
        raise DataError(f"The body is no Arrow stream: {error}") from None


def check_count(rows: int, most: int) -> None:
    """Refuse too many rows in a request.

    Raises:
        Problem: There are too many.
    """
    if rows > most:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{rows:,} rows in one request are over the limit of {most:,}. Ask in parts.",
        )
