"""The client: the calls of a feature store, answered by a server; the same types come back.

Each call is one request, written once (`_Call`), which `Client` and `AsyncClient` send in their own ways.
"""

from __future__ import annotations

import asyncio
import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import msgspec
import pyarrow as pa

from seeknal import errors, frames
from seeknal.catalog import AsOf
from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.feature_group import FeatureLookup, check_lookups
from seeknal.pushing import Pushed
from seeknal.times import Interval, instant, moment_of

try:
    import httpx2
except ImportError:
    raise DefinitionError('The client needs httpx2: pip install "seeknal[client]".') from None

_ARROW = "application/vnd.apache.arrow.stream"
_MSGPACK = "application/msgpack"
_BUSY = {429, 503}
_LONGEST_PAUSE = 30.0
_DEFAULT = "default"


@dataclass(frozen=True)
class _Call:
    """A request, and what makes of its answer what the caller wants."""

    path: str
    read: Callable[[IO[bytes]], Any]
    content: bytes | None = None
    kind: str = _ARROW
    params: Mapping[str, Any] = field(default_factory=dict)
    form: Callable[[], AbstractContextManager[Mapping[str, Any]]] | None = None
    is_large: bool = False

    def body(self) -> IO[bytes]:
        """Give where the answer is to be put: in memory, or a file that goes when it is closed."""
        return tempfile.TemporaryFile() if self.is_large else io.BytesIO()

    @contextmanager
    def sending(self) -> Iterator[dict[str, Any]]:
        """Give the arguments of a request, anew for each try; a file in it is closed when it was sent."""
        if self.form:
            with self.form() as files:
                yield {"method": "POST", "url": self.path, "files": files, "headers": {"accept": _ARROW}}
            return
        headers = {"content-type": self.kind, "accept": _ARROW}
        method = "GET" if self.content is None else "POST"
        yield {"method": method, "url": self.path, "content": self.content, "params": self.params, "headers": headers}


class _Calls:
    """What both clients can ask, as calls to be sent."""

    def __init__(self, url: str, token: str | None, timeout: float, retries: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"url={url!r} is no address. Write http://127.0.0.1:6789, say.")
        self.url = url
        self._retries = retries
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @staticmethod
    def _get_features(
        table: str, keys: object, output: str, features: Sequence[str] | None, project: str, *, with_status: bool
    ) -> _Call:
        if output not in {*frames.OUTPUTS[:3], "dicts"}:
            raise DefinitionError(f"output={output!r} is unknown. Choose one of pandas, polars, arrow, dicts.")
        if isinstance(features, str):
            raise DefinitionError(f"features={features!r} is no list. Write features=[{features!r}].")
        if isinstance(keys, Mapping):
            raise DataError(f"keys is one mapping. Give a list: keys=[{dict(keys)!r}].")
        content, kind, params = _body(
            "keys", keys, {"features": None if features is None else list(features), "with_status": with_status}
        )

        def read(body: IO[bytes]) -> Any:
            found = pa.ipc.open_stream(body).read_all()
            return found.to_pylist() if output == "dicts" else frames.from_arrow(found, output)

        return _Call(_path("online", table, project), read, content, kind, params)

    @staticmethod
    def _push(group: str, rows: object, project: str) -> _Call:
        content, kind, _ = _body("rows", [rows] if isinstance(rows, Mapping) else rows, {})
        return _Call(_path("push", group, project), _pushed, content, kind)

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        asked: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> _Call:
        check_lookups(lookups)
        projects = sorted({lookup.project or _DEFAULT for lookup in lookups})
        if len(projects) > 1:
            raise DefinitionError(f"The lookups are of projects {', '.join(projects)}; ask for those of one at a time.")
        query = {"lookups": [_lookup(one) for one in lookups], **{k: v for k, v in asked.items() if v is not None}}

        @contextmanager
        def form() -> Iterator[Mapping[str, Any]]:
            with _spine_file(spine) as file:
                yield {
                    "query": (None, msgspec.json.encode(query), "application/json"),
                    "spine": ("spine", file, "application/octet-stream"),
                }

        return _Call(f"/v1/historical/{projects[0]}", read or _batches, form=form, is_large=read is None)

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, asked: Mapping[str, Any]
    ) -> _Call:
        kind = frames.output_kind(spine, output)
        frame = frames.settle(spine)

        def read(body: IO[bytes]) -> Any:
            found = pa.ipc.open_stream(body).read_all()
            own = frames.names_of(frame)
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, asked, read)

    def _pause(self, problem: object, tries: int) -> float:
        """Say how long to wait before the next try: as long as the server says, else longer each time.

        Raises:
            SeeknalError: There is no next try.
        """
        if tries >= self._retries:
            raise self._error(problem)
        said = problem.headers.get("retry-after", "") if isinstance(problem, httpx2.Response) else ""
        longest = float(said) if said.isdigit() else 0.1 * 2**tries
        return min(_LONGEST_PAUSE, longest * random.uniform(1, 1.5))  # noqa: S311 - so that not all come back at once

    def _error(self, problem: object) -> SeeknalError:
        """Give the error that the library would raise here."""
        if not isinstance(problem, httpx2.Response):
            return StoreError(f"{self.url} cannot be reached: {problem}. Look whether the server runs there.")
        try:
            told = msgspec.json.decode(problem.content, type=_Problem)
        except msgspec.DecodeError:
            return StoreError(f"{self.url} answered with {problem.status_code}, which is no answer of Seeknal's.")
        kind = getattr(errors, told.title, None)
        if isinstance(kind, type) and issubclass(kind, SeeknalError):
            return kind(told.detail)
        is_mine = problem.status_code < 500 and problem.status_code not in _BUSY  # noqa: PLR2004 - the server's own
        return (DefinitionError if is_mine else StoreError)(f"{told.title}: {told.detail}")


class _Problem(msgspec.Struct):
    title: str
    detail: str


class Client(_Calls):
    """A feature store behind a server.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds.
        retries: How often a request is sent again, if the server is not reached or is busy. A push that comes twice
            changes nothing the second time.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30, retries: int = 5) -> None:
        super().__init__(url, token, timeout, retries)
        self._http = httpx2.Client(**self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get_features(
        self,
        table: str,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        project: str = _DEFAULT,
    ) -> Any:
        """Give the newest features of some entities; see `OnlineTable.get_features`.

        Args:
            table: The online table; "shop/spend" says its project too.
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features wanted, in order. None: all of them.
            with_status: Say for each group whether its entity was found, and the event time of its row.
            project: The table's project.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: There is no such table or feature, or the token does not open it.
            StoreError: The server is not reached, or its store cannot be read.
        """
        return self._send(self._get_features(table, keys, output, features, project, with_status=with_status))

    def push(self, group: str, rows: object, project: str = _DEFAULT) -> Pushed:
        """Store rows of a group's current version, and bring them online; see `FeatureStore.push`."""
        return self._send(self._push(group, rows, project))  # type: ignore[no-any-return]

    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        span: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Give each row of a spine the features known at its moment; see `FeatureStore.training_set`.

        Args:
            lookups: The features, all of one project.
            spine: A frame with the join keys and a moment in each row, or the path of a file.
            date_col: The column with the moments.
            keep: Columns to keep beside keys and moment. None: all.
            span: Only rows with an event time within it can be seen.
            as_of: Only what was stored by then can be seen.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind.
        """
        return self._send(self._training_set(lookups, spine, output, _asked(date_col, keep, span, as_of)))

    def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        span: Interval = Interval(),
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """Give a training set in batches, which wait in a temporary file; the path of a Parquet file is sent as it is.

        Args are those of `training_set`.
        """
        return self._send(self._historical(lookups, spine, _asked(date_col, keep, span, as_of)))

    def catalog(self) -> list[dict[str, Any]]:
        """List the projects that the token opens, with their groups, versions and tables."""
        return self._send(_Call("/v1/catalog", _projects))  # type: ignore[no-any-return]

    def _send(self, call: _Call) -> Any:
        tries = 0
        while True:
            try:
                with call.sending() as request:
                    response = self._http.send(self._http.build_request(**request), stream=True)
                try:
                    if response.is_success:
                        body = call.body()
                        for part in response.iter_bytes():
                            body.write(part)
                        body.seek(0)
                        return call.read(body)
                    response.read()
                finally:
                    response.close()
                if response.status_code not in _BUSY:
                    raise self._error(response)
                problem: object = response
            except httpx2.TransportError as error:
                problem = error
            time.sleep(self._pause(problem, tries))
            tries += 1


class AsyncClient(_Calls):
    """A feature store behind a server, for programs that use `asyncio`; see `Client`, whose calls it has.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds.
        retries: How often a request is sent again, if the server is not reached or is busy.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30, retries: int = 5) -> None:
        super().__init__(url, token, timeout, retries)
        self._http = httpx2.AsyncClient(**self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get_features(
        self,
        table: str,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        project: str = _DEFAULT,
    ) -> Any:
        """See `Client.get_features`."""
        return await self._send(self._get_features(table, keys, output, features, project, with_status=with_status))

    async def push(self, group: str, rows: object, project: str = _DEFAULT) -> Pushed:
        """See `Client.push`."""
        return await self._send(self._push(group, rows, project))  # type: ignore[no-any-return]

    async def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        span: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """See `Client.training_set`."""
        return await self._send(self._training_set(lookups, spine, output, _asked(date_col, keep, span, as_of)))

    async def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        span: Interval = Interval(),
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """See `Client.stream`."""
        return await self._send(self._historical(lookups, spine, _asked(date_col, keep, span, as_of)))

    async def catalog(self) -> list[dict[str, Any]]:
        """See `Client.catalog`."""
        return await self._send(_Call("/v1/catalog", _projects))  # type: ignore[no-any-return]

    async def _send(self, call: _Call) -> Any:
        tries = 0
        while True:
            try:
                with call.sending() as request:
                    response = await self._http.send(self._http.build_request(**request), stream=True)
                try:
                    if response.is_success:
                        body = call.body()
                        async for part in response.aiter_bytes():
                            body.write(part)
                        body.seek(0)
                        return call.read(body)
                    await response.aread()
                finally:
                    await response.aclose()
                if response.status_code not in _BUSY:
                    raise self._error(response)
                problem: object = response
            except httpx2.TransportError as error:
                problem = error
            await asyncio.sleep(self._pause(problem, tries))
            tries += 1


def _path(kind: str, label: str, project: str) -> str:
    """Name what a call is about; "shop/spend" says the project too."""
    within, _, name = label.rpartition("/")
    return f"/v1/{kind}/{within or project}/{name}"


def _body(name: str, given: object, options: Mapping[str, Any]) -> tuple[bytes, str, Mapping[str, Any]]:
    """Write rows as they are given: a frame as Arrow, dictionaries as MessagePack, with options in the query or beside.

    Returns:
        The body, its kind, and the query.
    """
    if isinstance(given, list | tuple):
        return msgspec.msgpack.encode({name: list(given), **options}, enc_hook=_plain), _MSGPACK, {}
    query = {key: value for key, value in options.items() if value is not None}
    if "with_status" in query:
        query["with_status"] = "true" if query["with_status"] else "false"
    return frames.to_stream(frames.to_arrow(given)), _ARROW, query


def _plain(value: Any) -> Any:
    """Give a value that MessagePack does not know as one that it does: numbers of NumPy, moments of pandas."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise DataError(f"{value!r} cannot be sent. Give numbers, text, bytes, moments, lists or mappings.")


def _batches(body: IO[bytes]) -> pa.RecordBatchReader:
    """Read batches from a file, which is closed behind the last, or when nobody wants more."""
    reader = pa.ipc.open_stream(body)

    def batches() -> Iterator[pa.RecordBatch]:
        with body, reader:
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _pushed(body: IO[bytes]) -> Pushed:
    told = msgspec.json.decode(body.read())
    return Pushed(**told | {"first": None if told["first"] is None else instant(told["first"])})


def _projects(body: IO[bytes]) -> list[dict[str, Any]]:
    return list(msgspec.json.decode(body.read())["projects"])


def _lookup(one: FeatureLookup) -> dict[str, Any]:
    told = {
        "group": one.name,
        "features": None if one.features is None else list(one.features),
        "prefix": one.prefix,
        "rename": None if one.rename is None else dict(one.rename),
        "version": one.version,
    }
    return {name: value for name, value in told.items() if value is not None}


def _asked(date_col: str, keep: Sequence[str] | None, span: Interval, as_of: AsOf | None) -> dict[str, Any]:
    moment = as_of if as_of is None or isinstance(as_of, int | Mapping) else moment_of(instant(as_of)).isoformat()
    return {
        "date_col": date_col,
        "keep": None if keep is None else list(keep),
        "start": None if span.start is None else moment_of(span.start).isoformat(),
        "end": None if span.end is None else moment_of(span.end).isoformat(),
        "as_of": dict(moment) if isinstance(moment, Mapping) else moment,
    }


def _spine_file(spine: Any) -> IO[bytes]:
    """Give a spine as a file: one of Parquet as it is, any other frame as an Arrow stream."""
    if isinstance(spine, str | Path) and Path(spine).suffix.lower() in {".parquet", ".pq"}:
        try:
            return Path(spine).open("rb")
        except OSError as error:
            raise DataError(f"{str(spine)!r} cannot be read: {error}") from None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever sends it closes it
    schema, batches = frames.batches(spine, 2**16)
    with pa.ipc.new_stream(file, schema) as writer:
        for batch in batches():
            writer.write_batch(batch)
    file.seek(0)
    return file
