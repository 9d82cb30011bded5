"""Training data over HTTP: the spine is streamed in and the join is streamed out, so neither has to fit in memory."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import pyarrow as pa
from msgspec import Meta
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.responses import Response

from seeknal.define.feature_group import FeatureLookup
from seeknal.errors import DataError, DefinitionError
from seeknal.names import split_label
from seeknal.server.bodies import Decoder, rows_in
from seeknal.server.http import ARROW, JSON, Problem, Request, Stream
from seeknal.server.service import Service
from seeknal.system.folders import kept_in, temporary_folder
from seeknal.values.times import Interval

_LONGEST_QUERY, _MOST_LOOKUPS = 2**20, 100


class Lookup(msgspec.Struct, forbid_unknown_fields=True):
    """The features to read from a group."""

    group: Annotated[str, Meta(description="The group's name, or PROJECT/NAME.")]
    features: Annotated[list[str] | None, Meta(description="The features to return; all by default.")] = None
    prefix: Annotated[str | None, Meta(description="Text to put before the name of each feature.")] = None
    rename: Annotated[dict[str, str] | None, Meta(description="New names of features: own name to new name.")] = None
    version: Annotated[int | None, Meta(description="The version to read; the current one by default.")] = None


class TrainingQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A training set, without its spine."""

    lookups: Annotated[list[Lookup], Meta(min_length=1, max_length=_MOST_LOOKUPS)]
    date_col: Annotated[str, Meta(description="The column of the spine with the timestamps.")]
    keep: Annotated[list[str] | None, Meta(description="Columns of the spine to keep; all by default.")] = None
    start: Annotated[str | None, Meta(description="The first event time that is visible, inclusive.")] = None
    end: Annotated[str | None, Meta(description="The last event time that is visible, inclusive.")] = None
    as_of: Annotated[
        str | int | dict[str, int] | None,
        Meta(description="Read only what was stored by then: a time, a snapshot number, or snapshot numbers by group."),
    ] = None


BODY = Decoder(TrainingQuery, '{"lookups": [{"group": "..."}], "date_col": "..."}')


async def post(service: Service, request: Request) -> Response:
    """Return the rows of a spine with the features known at their timestamps, as an Arrow stream."""
    request.refuse_query()
    service.store.stamp()  # raises if the home is gone, so that no folder is created there
    with ExitStack() as stack:
        # Before reading the body, so that a rejected spine costs no disk.
        fill = stack.enter_context(service.spines.one())
        with kept_in(service.store.scratch):
            folder = stack.enter_context(temporary_folder(service.store.scratch))
        query, spine = await _receive(request, folder, fill)
        stack.enter_context(await service.joins.place(request))
        gone = asyncio.ensure_future(request.gone())
        stack.callback(gone.cancel)
        try:
            await service.joins.run(_check_rows, spine, request.limits.spine_rows)
            lookups = await service.joins.run(_lookups, service, request, query)
            batches = await service.joins.run(_batches, service, lookups, spine, query, gone)
            first = await service.joins.run(next, batches, b"")  # so that most errors occur before the response begins
        except DataError as error:  # a path on the server means nothing to the client
            raise DataError(str(error).replace(repr(str(spine)), "The spine")) from None
        # The stream outlives this function, so it takes over the resources to release.
        pieces = _pieces(service, request, chain([first], batches), gone, stack.pop_all())
    return Stream(pieces, media_type=ARROW)


async def _pieces(
    service: Service, request: Request, batches: Iterator[bytes], gone: asyncio.Future[None], stack: ExitStack
) -> AsyncIterator[bytes]:
    with stack:
        while not gone.done():
            request.disable_deadline()
            if not (part := await service.joins.run(next, batches, b"")):
                return
            yield part


def _check_rows(spine: Path, most: int) -> None:
    """Check the number of rows of a spine, since a few bytes can encode a great many.

    Raises:
        Problem: It has too many.
        DataError: It cannot be read.
    """
    if (rows := rows_in(spine)) > most:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The spine's {rows:,} rows are over the limit of {most:,}. Send fewer at a time.",
        )


def _lookups(service: Service, request: Request, query: TrainingQuery) -> list[FeatureLookup]:
    """Return the lookups of a query, of groups that the request's token may read.

    Raises:
        Problem: A group does not exist, or the token has no right to it.
    """
    lookups = []
    for one in query.lookups:
        if project := split_label("feature group", one.group, request.project)[0]:
            request.check_right("read", project)
        group = service.definitions.group(one.group, request).label
        lookups.append(FeatureLookup(group, one.features, one.prefix, one.rename, one.version))
    return lookups


def _batches(
    service: Service, lookups: list[FeatureLookup], spine: Path, query: TrainingQuery, gone: asyncio.Future[None]
) -> Iterator[bytes]:
    """Return the join as the pieces of an Arrow stream. It stops between two steps once the client has disconnected."""

    def stop_if_gone(_step: str) -> None:
        if gone.done():
            raise Problem(HTTPStatus.BAD_REQUEST, "The client has disconnected.")

    found = service.store.features.stream(
        lookups,
        spine,
        query.date_col,
        keep=query.keep,
        interval=Interval.between(query.start, query.end),
        as_of=query.as_of,
        on_progress=stop_if_gone,
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


async def _receive(request: Request, folder: Path, fill: Callable[[int], None]) -> tuple[TrainingQuery, Path]:
    """Receive the parts of a request: "query" into memory, and "spine" into a file.

    Args:
        request: The request.
        folder: The folder for the file.
        fill: Reserves space on disk for a number of further bytes.

    Raises:
        Problem: The body has another content type, or is too large.
        DataError: The body is not such a form, or lacks a part.
    """
    kind, options = parse_options_header(request.headers.get(b"content-type", b""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send multipart/form-data with the parts query (JSON) and spine (a file of Parquet, or an Arrow stream): "
            "curl -F 'query={...}' -F spine=@spine.parquet, for example.",
        )
    with Upload(folder) as form:
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks)
            async for part in request.parts(request.limits.spine):
                fill(len(part))
                with kept_in(folder):
                    parser.write(part)
            parser.finalize()
        except FormParserError as error:
            raise DataError(f"The body is not multipart/form-data: {error}") from None
    if missing := {"query", "spine"} - form.complete:
        raise DataError(f"The form lacks the part {min(missing)!r}, or ends within it.")
    return BODY(bytes(form.query), JSON), form.named()


class Upload:
    """The parts of a form, taken as they arrive.

    Args:
        folder: The folder for the spine's file.
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
        # The parser calls them by these names: `_on_part_data` is its `on_part_data`.
        self.callbacks: Any = {name[1:]: getattr(self, name) for name in dir(self) if name.startswith("_on_")}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with kept_in(self._folder):  # closing writes the last buffered bytes
            self._file.close()

    def named(self) -> Path:
        """Return the spine's file, renamed to have the suffix of its format.

        Raises:
            DataError: The file is neither Parquet nor an Arrow stream.
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
