"""The client: the calls of a feature store, answered by a server; the same types come back.

Each call is one request, written once (`Call`), which `Client` and `AsyncClient` send in their own ways.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import IO, Any, Self

import msgspec
import pyarrow as pa

from seeknal import errors, frames
from seeknal.calls import (
    Call,
    body_of,
    described,
    options_of,
    path_of,
    read_batches,
    read_projects,
    read_pushed,
)
from seeknal.catalog import AsOf
from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.feature_group import FeatureLookup, check_lookups
from seeknal.pushing import Pushed
from seeknal.times import Interval

try:
    import httpx2
except ImportError:
    raise DefinitionError('The client needs httpx2: pip install "seeknal[client]".') from None

_ARROW = "application/vnd.apache.arrow.stream"
_MSGPACK = "application/msgpack"
_BYTES = "application/octet-stream"
_BUSY = {429, 503}
_LONGEST_PAUSE = 30.0
_DEFAULT = "default"


class _Calls:
    """What both clients can ask, as calls to be sent."""

    def __init__(self, url: str, token: str | None, timeout: float, retries: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"url={url!r} is no address. Write http://127.0.0.1:6789, say.")
        if token and not re.fullmatch("[!-~]+", token):
            raise DefinitionError(
                "The token has a space, a line's end or another character that no token has. Strip it."
            )
        self.url = url
        self._retries, self._timeout = retries, timeout
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @staticmethod
    def _get_features(
        table: str, keys: object, output: str, features: Sequence[str] | None, project: str, *, with_status: bool
    ) -> Call:
        if output not in {*frames.OUTPUTS[:3], "dicts"}:
            raise DefinitionError(f"output={output!r} is unknown. Choose one of pandas, polars, arrow, dicts.")
        if features is not None and not len(features):
            raise DefinitionError("features is an empty list. Name some, or leave it out for all.")
        if isinstance(features, str):
            raise DefinitionError(f"features={features!r} is no list. Write features=[{features!r}].")
        if isinstance(keys, Mapping):
            raise DataError(f"keys is one mapping. Give a list: keys=[{dict(keys)!r}].")
        content, kind, params = body_of(
            "keys", keys, {"features": None if features is None else list(features), "with_status": with_status}
        )

        def read(body: IO[bytes]) -> Any:
            found = pa.ipc.open_stream(body).read_all()
            return found.to_pylist() if output == "dicts" else frames.from_arrow(found, output)

        return Call(path_of("online", table, project), read, content, kind, params)

    @staticmethod
    def _push(group: str, rows: object, project: str) -> Call:
        content, kind, _ = body_of("rows", [rows] if isinstance(rows, Mapping) else rows, {})
        return Call(path_of("push", group, project), read_pushed, content, kind, is_long=True)

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        asked: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> Call:
        check_lookups(lookups)
        projects = sorted({lookup.project or _DEFAULT for lookup in lookups})
        if len(projects) > 1:
            raise DefinitionError(f"The lookups are of projects {', '.join(projects)}; ask for those of one at a time.")
        query = {"lookups": [described(one) for one in lookups], **{k: v for k, v in asked.items() if v is not None}}
        path, content = f"/v1/historical/{projects[0]}", msgspec.json.encode(query)
        return Call(path, read or read_batches, content, spine=spine, is_large=read is None, is_long=True)

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, asked: Mapping[str, Any]
    ) -> Call:
        kind = frames.output_kind(spine, output)
        frame = frames.settle(spine)

        def read(body: IO[bytes]) -> Any:
            found = pa.ipc.open_stream(body).read_all()
            own = frames.names_of(frame)
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, asked, read)

    def _timeouts(self, call: Call) -> httpx2.Timeout:
        return httpx2.Timeout(self._timeout, read=None if call.is_long else self._timeout)

    def _pause(self, problem: httpx2.TransportError | _Busy, tries: int, *, has_begun: bool) -> float:
        """Say how long to wait before the next try: as long as the server says, else longer each time.

        Raises:
            SeeknalError: There is no next try: there were enough, or what went wrong would go wrong again.
        """
        if isinstance(problem, _Busy) and tries < self._retries:
            said = problem.response.headers.get("retry-after", "")
            longest = float(said) if said.isdigit() else 0.1 * 2**tries
        elif isinstance(problem, _Busy):
            raise self._told(problem.response)
        elif isinstance(problem, httpx2.ReadTimeout):
            raise StoreError(f"{self.url} did not answer within {self._timeout:g} s.")
        elif has_begun:
            raise StoreError(f"{self.url} ended in the middle of its answer: {problem}. Its stderr may say why.")
        elif "SSL" in str(problem):
            raise StoreError(f"{self.url} cannot be trusted: {problem}. SSL_CERT_FILE names the certificates to trust.")
        elif isinstance(problem, httpx2.LocalProtocolError) or tries >= self._retries:
            raise StoreError(f"{self.url} cannot be reached: {problem}. Look whether the server runs there.")
        else:
            longest = 0.1 * 2**tries
        return min(_LONGEST_PAUSE, longest * random.uniform(1, 1.5))  # noqa: S311 - so that not all come back at once

    def _refused(self, response: httpx2.Response) -> Exception:
        """Give what is to be raised about an answer that is none."""
        return _Busy(response) if response.status_code in _BUSY else self._told(response)

    def _told(self, response: httpx2.Response) -> SeeknalError:
        """Give the error that the library would raise here."""
        try:
            told = msgspec.json.decode(response.content, type=_Problem)
        except msgspec.DecodeError:
            return StoreError(f"{self.url} answered with {response.status_code}, which is no answer of Seeknal's.")
        kind = getattr(errors, told.title, None)
        if isinstance(kind, type) and issubclass(kind, SeeknalError):
            return kind(told.detail)
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DataError(told.detail)
        is_mine = response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and response.status_code not in _BUSY
        return (DefinitionError if is_mine else StoreError)(f"{told.title}: {told.detail}")


class _Busy(Exception):  # noqa: N818 - it is no error to the user, but the reason for another try
    def __init__(self, response: httpx2.Response) -> None:
        super().__init__()
        self.response = response


class _Problem(msgspec.Struct):
    title: str
    detail: str


class Client(_Calls):
    """A feature store behind a server.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds; a push or a join may take longer.
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
        return self._send(self._training_set(lookups, spine, output, options_of(date_col, keep, span, as_of)))

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
        return self._send(self._historical(lookups, spine, options_of(date_col, keep, span, as_of)))

    def catalog(self) -> list[dict[str, Any]]:
        """List the projects that the token opens, with their groups, versions and tables."""
        return self._send(Call("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    def _send(self, call: Call) -> Any:
        tries = 0
        with call.sending() as request:
            while True:
                body = call.body()
                try:
                    return self._once(call, request(), body)
                except (httpx2.TransportError, _Busy) as problem:
                    with body:
                        pause = self._pause(problem, tries, has_begun=call.is_large and body.tell() > 0)
                except BaseException:
                    body.close()
                    raise
                time.sleep(pause)
                tries += 1

    def _once(self, call: Call, request: Mapping[str, Any], body: IO[bytes]) -> Any:
        response = self._http.send(self._http.build_request(**request, timeout=self._timeouts(call)), stream=True)
        try:
            if not response.is_success:
                response.read()
                raise self._refused(response)
            for part in response.iter_bytes():
                body.write(part)
        finally:
            response.close()
        return call.read_answer(body, self.url)


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
        return await self._send(self._training_set(lookups, spine, output, options_of(date_col, keep, span, as_of)))

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
        return await self._send(self._historical(lookups, spine, options_of(date_col, keep, span, as_of)))

    async def catalog(self) -> list[dict[str, Any]]:
        """See `Client.catalog`."""
        return await self._send(Call("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    async def _send(self, call: Call) -> Any:
        tries = 0
        with call.sending() as request:
            while True:
                body = call.body()
                try:
                    return await self._once(call, request(), body)
                except (httpx2.TransportError, _Busy) as problem:
                    with body:
                        pause = self._pause(problem, tries, has_begun=call.is_large and body.tell() > 0)
                except BaseException:
                    body.close()
                    raise
                await asyncio.sleep(pause)
                tries += 1

    async def _once(self, call: Call, request: Mapping[str, Any], body: IO[bytes]) -> Any:
        response = await self._http.send(self._http.build_request(**request, timeout=self._timeouts(call)), stream=True)
        try:
            if not response.is_success:
                await response.aread()
                raise self._refused(response)
            async for part in response.aiter_bytes():
                body.write(part)
        finally:
            await response.aclose()
        return call.read_answer(body, self.url)
