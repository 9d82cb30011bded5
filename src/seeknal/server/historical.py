"""Training data over HTTP: a spine goes in, the join comes out, neither whole in memory."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import pyarrow as pa
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from seeknal.errors import DataError, DefinitionError
from seeknal.feature_group import FeatureLookup
from seeknal.folders import kept_in, passing
from seeknal.names import split_label
from seeknal.server.bodies import Decoder, rows_in
from seeknal.server.http import ARROW, JSON, Answer, Exchange, Problem
from seeknal.server.service import Service
from seeknal.times import Interval

_LONGEST_QUERY, _MOST_LOOKUPS = 2**20, 100


class Lookup(msgspec.Struct, forbid_unknown_fields=True):
    """Which features of a group are wanted; see `FeatureLookup`."""

    group: str
    features: list[str] | None = None
    prefix: str | None = None
    rename: dict[str, str] | None = None
    version: int | None = None


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of a spine; see `FeatureStore.training_set`."""

    lookups: Annotated[list[Lookup], msgspec.Meta(min_length=1, max_length=_MOST_LOOKUPS)]
    date_col: str
    keep: list[str] | None = None
    start: str | None = None
    end: str | None = None
    as_of: str | int | dict[str, int] | None = None


_decode = Decoder(Query, '{"lookups": [{"group": "..."}], "date_col": "..."}')


async def post(service: Service, exchange: Exchange) -> Answer:
    """Give each row of a spine the features known at its moment."""
    exchange.refuse_query()
    service.store.registry.stamp()  # in a home that is gone, nothing is to be made
    with ExitStack() as stack:
        fill = stack.enter_context(service.spines.one())
        with kept_in(service.store.scratch):
            folder = stack.enter_context(passing(service.store.scratch))
        query, spine = await _receive(exchange, folder, fill)
        stack.enter_context(await service.joins.place(exchange))
        gone = asyncio.ensure_future(exchange.gone())
        stack.callback(gone.cancel)
        try:
            await service.joins.run(_check_rows, spine, exchange.limits.spine_rows)
            lookups = await service.joins.run(_lookups, service, exchange, query)
            batches = await service.joins.run(_batches, service, lookups, spine, query, gone)
            first = await service.joins.run(next, batches, b"")  # what is wrong shows before the answer begins
        except DataError as error:
            raise DataError(str(error).replace(repr(str(spine)), "The spine")) from None
        stream = _pieces(service, exchange, batches, gone, stack.pop_all())
    return Answer(HTTPStatus.OK, first, ARROW, stream=stream)


async def _pieces(
    service: Service, exchange: Exchange, batches: Iterator[bytes], gone: asyncio.Future[None], stack: ExitStack
) -> AsyncIterator[bytes]:
    with stack:
        while not gone.done():
            exchange.rest()
            if not (part := await service.joins.run(next, batches, b"")):
                return
            yield part


def _check_rows(spine: Path, most: int) -> None:
    """Refuse a spine of too many rows, however few its bytes.

    Raises:
        Problem: There are too many.
        DataError: It cannot be read.
    """
    if (rows := rows_in(spine)) > most:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The spine's {rows:,} rows are over the limit of {most:,}. Ask for less at a time.",
        )


def _lookups(service: Service, exchange: Exchange, query: Query) -> list[FeatureLookup]:
    """Find the groups that are looked up, in projects that the request's token opens.

    Raises:
        Problem: One is not there, or not open to it.
    """
    lookups = []
    for one in query.lookups:
        if project := split_label("feature group", one.group, exchange.project)[0]:
            exchange.check_right("read", project)
        group = service.definitions.group(one.group, exchange).group
        lookups.append(FeatureLookup(group, one.features, one.prefix, one.rename, one.version))
    return lookups


def _batches(
    service: Service, lookups: list[FeatureLookup], spine: Path, query: Query, gone: asyncio.Future[None]
) -> Iterator[bytes]:
    """Give the join as an Arrow stream, piece by piece; stop between its steps when nobody waits for it any more."""

    def stop_if_gone(_step: str) -> None:
        if gone.done():
            raise Problem(HTTPStatus.BAD_REQUEST, "Nobody waits for the answer any more.")

    found = service.store.stream(
        lookups,
        spine,
        query.date_col,
        keep=query.keep,
        span=Interval.between(query.start, query.end),
        as_of=query.as_of,
        tell=stop_if_gone,
    )
    return _written(found)


def _written(batches: pa.RecordBatchReader) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


async def _receive(exchange: Exchange, folder: Path, fill: Callable[[int], None]) -> tuple[Query, Path]:
    """Take the parts of a request: "query" is kept in memory, "spine" in a file, whose bytes are counted."""
    kind, options = parse_options_header(exchange.headers.get(b"content-type", b""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send multipart/form-data with the parts query (JSON) and spine (a file of Parquet, or an Arrow stream): "
            "curl -F 'query={...}' -F spine=@spine.parquet, say.",
        )
    with Upload(folder) as form:
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks)
            async for part in exchange.parts(exchange.limits.spine):
                fill(len(part))
                with kept_in(folder):
                    parser.write(part)
            parser.finalize()
        except FormParserError as error:
            raise DataError(f"The body is no multipart/form-data: {error}") from None
    if missing := {"query", "spine"} - form.complete:
        raise DataError(f"The form lacks the part {min(missing)!r}, or ends within it.")
    return _decode(bytes(form.query), JSON), form.named()


class Upload:
    """Takes the parts of a form as they come.

    Args:
        folder: Where the spine's file goes.
    """

    def __init__(self, folder: Path) -> None:
        self.query = bytearray()
        self.complete: set[str] = set()
        self._folder = folder
        self._file = (folder / "spine").open("wb")
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        self.callbacks: Any = {f"on_{name}": getattr(self, f"_on_{name}") for name in names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with kept_in(self._folder):  # of which the last is written now
            self._file.close()

    def named(self) -> Path:
        """Give the spine's file, named after what is in it.

        Raises:
            DataError: It is neither Parquet nor an Arrow stream.
        """
        file = self._folder / "spine"
        with file.open("rb") as opened:
            head = opened.read(4)
        suffix = {b"PAR1": ".parquet", b"\xff\xff\xff\xff": ".arrows"}.get(head)
        if suffix is None:
            raise DataError(
                f"The spine is neither a Parquet file nor an Arrow stream; it begins with {head!r}. With curl: -F spine=@FILE."
            )
        return file.rename(file.with_suffix(suffix))

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("latin-1")
        if self._name not in {"query", "spine"} or self._name in self.complete:
            raise DefinitionError(f"The form has a part {self._name[:128]!r}. It takes query and spine, once each.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "spine":
            self._file.write(data[start:end])
            return
        self.query += data[start:end]
        if len(self.query) > _LONGEST_QUERY:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The query is over {_LONGEST_QUERY:,} bytes.")

    def _on_part_end(self) -> None:
        self.complete.add(self._name)
