"""The client: the calls of a feature store, answered by a server; the same types come back.

Each call is one request (`Call`), and how it is sent, again where that may help, is written once, as a coroutine. `AsyncClient`
awaits it; in `Client` nothing that it waits for is put off, so it runs to its end at the first step.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from itertools import count
from typing import IO, Any, Self

import msgspec
import pyarrow as pa

from seeknal import errors, frames
from seeknal.asking import check_keys
from seeknal.calls import (
    Call,
    body_of,
    described,
    options_of,
    path_of,
    read_batches,
    read_projects,
    read_pushed,
    read_table,
)
from seeknal.catalog import AsOf
from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.extras import how_to_install
from seeknal.feature_group import FeatureLookup, check_lookups
from seeknal.progress import Tell, working
from seeknal.pushing import Pushed
from seeknal.serving import as_python, check_features, check_output
from seeknal.times import Interval

try:
    import httpx2
except ImportError:
    raise DefinitionError(f"The client needs httpx2. {how_to_install('client')}") from None

_BUSY = {429, 503}
_LONGEST_PAUSE = 30.0
_IN_VAIN = httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol
"""What another try would not mend."""


class _Calls(ABC):
    """What both clients can ask, as calls to be sent."""

    def __init__(self, url: str, token: str | None, timeout: float, retries: int, tell: Tell | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"url={url!r} is no address. Write http://127.0.0.1:6789, say.")
        if token and not (isinstance(token, str) and re.fullmatch("[!-~]+", token)):
            raise DefinitionError(
                "The token has a space, a line's end or another character that no token has. Strip it."
            )
        try:
            httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise DefinitionError(f"url={url!r} is no address: {error}") from None
        self.url = url
        self._retries, self._timeout, self._tell = retries, timeout, tell
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @staticmethod
    def _get_features(
        table: str, keys: object, output: str, features: Sequence[str] | None, project: str | None, *, with_status: bool
    ) -> Call:
        check_output(output)
        check_features(features)
        check_keys(keys)
        content, kind, params = body_of(
            "keys", keys, {"features": None if features is None else list(features), "with_status": with_status}
        )

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            if output != "dicts":
                return frames.from_arrow(found, output)
            with as_python():
                return found.to_pylist()

        return Call(path_of("online", table, project), read, content, kind, params)

    @staticmethod
    def _push(group: str, rows: object, project: str | None) -> Call:
        content, kind, _ = body_of("rows", [rows] if isinstance(rows, Mapping) else rows, {})
        return Call(path_of("push", group, project), read_pushed, content, kind, is_long=True)

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        asked: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> Call:
        lookups = check_lookups(lookups)
        query = {"lookups": [described(one) for one in lookups], **{k: v for k, v in asked.items() if v is not None}}
        content = msgspec.json.encode(query)
        return Call("/v1/historical", read or read_batches, content, spine=spine, is_large=read is None, is_long=True)

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, asked: Mapping[str, Any]
    ) -> Call:
        kind = frames.output_kind(spine, output)
        frame = frames.opened(spine).only()

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            own = frame.names
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, asked, read)

    def _timeouts(self, call: Call) -> httpx2.Timeout:
        return httpx2.Timeout(self._timeout, read=None if call.is_long else self._timeout)

    async def _answer(self, call: Call) -> Any:
        """Send a request until it is answered or refused, and read the answer.

        Raises:
            SeeknalError: There is no answer, and no further try would help or there were enough.
        """
        with call.sending() as request, ExitStack() as shown:
            tell: Tell | None = None
            for tries in count():
                may_help, pause = True, 0.1 * 2**tries
                try:
                    response = await self._begin({**request(), "timeout": self._timeouts(call)})
                    if response.is_success:
                        break
                    await self._take(response, told := io.BytesIO())
                    error = self._told(response.status_code, told.getvalue())
                    may_help = response.status_code in _BUSY
                    said = response.headers.get("retry-after", "")
                    pause = float(said) if said.isdecimal() else pause
                except httpx2.RequestError as problem:
                    error = self._unreached(problem)
                    may_help = not isinstance(problem, _IN_VAIN) and not _is_distrust(problem)
                if not may_help or tries >= self._retries:
                    raise error
                tell = tell or shown.enter_context(working(f"Waiting for {self.url}", self._tell))
                tell(f"Trying {self.url} again, {tries + 1} of {self._retries} times: {error}")
                pause *= random.uniform(1, 1.5)  # noqa: S311 - so that not all come back at once
                await self._sleep(min(_LONGEST_PAUSE, pause))
        return await self._finish(call, response)

    async def _finish(self, call: Call, response: httpx2.Response) -> Any:
        """Read an answer that has begun; one that breaks off is not asked for again, since it may have been long."""
        body = call.body()
        try:
            await self._take(response, body)
            return call.read_answer(body, self.url)
        except httpx2.RequestError as problem:
            body.close()
            raise StoreError(
                f"{self.url} ended in the middle of its answer: {_said(problem)}. Its stderr may say why."
            ) from None
        except BaseException:
            body.close()
            raise

    @abstractmethod
    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        """Send a request, and give its answer as soon as that begins."""

    @abstractmethod
    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        """Take the rest of an answer, whose connection is free then."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait."""

    def _unreached(self, problem: httpx2.RequestError) -> SeeknalError:
        """Say why there is no answer."""
        if isinstance(problem, httpx2.LocalProtocolError):
            return DefinitionError(f"What is asked of {self.url} cannot be sent over HTTP.")
        if isinstance(problem, httpx2.ReadTimeout | httpx2.WriteTimeout):
            did = "answer" if isinstance(problem, httpx2.ReadTimeout) else "take the request"
            return StoreError(f"{self.url} did not {did} within {self._timeout:g} s.")
        if _is_distrust(problem):
            return StoreError(
                f"{self.url} cannot be trusted: {problem}. SSL_CERT_FILE names the certificates to trust."
            )
        return StoreError(f"{self.url} cannot be reached: {_said(problem)}. Look whether the server runs there.")

    def _told(self, status: int, content: bytes) -> SeeknalError:
        """Give the error that the library would raise here."""
        try:
            told = msgspec.json.decode(content, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return StoreError(f"{self.url} answered with {status}, which is no answer of Seeknal's.")
        kind = getattr(errors, told.title, None)
        if isinstance(kind, type) and issubclass(kind, SeeknalError):
            return kind(told.detail)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DataError(told.detail)
        is_mine = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _BUSY
        return (DefinitionError if is_mine else StoreError)(f"{told.title}: {told.detail}")


def _is_distrust(problem: httpx2.RequestError) -> bool:
    return "SSL" in str(problem)


def _said(problem: httpx2.RequestError) -> str:
    return str(problem) or type(problem).__name__


class _Problem(msgspec.Struct):
    title: str
    detail: str


class Client(_Calls):
    """A feature store behind a server.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds; for what a push or a join gives,
            as long as it takes.
        retries: How often a request is sent again, if the server is not reached or is busy; never one that only takes
            long, or whose answer has begun. A push that comes twice changes nothing the second time.
        on_progress: Called before each retry, with its reason. None: shown on a terminal if they take more than a second.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 5,
        on_progress: Tell | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, on_progress)
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
        project: str | None = None,
    ) -> Any:
        """Give the newest features of some entities; see `OnlineTable.get_features`.

        Args:
            table: The online table; "shop/spend" says its project too.
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features wanted, in order. None: all of them.
            with_status: Say for each group whether its entity was found, and the event time of its row.
            project: The table's project; without it the only one that has such a table.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: There is no such table or feature, or the token does not open it.
            StoreError: The server is not reached, or its store cannot be read.
        """
        return self._send(self._get_features(table, keys, output, features, project, with_status=with_status))

    def push(self, group: str, rows: object, project: str | None = None) -> Pushed:
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
            lookups: The features.
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
        try:
            self._answer(call).send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("what it waits for is never put off")

    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        return self._http.send(self._http.build_request(**request), stream=True)

    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        try:
            for part in response.iter_bytes():
                body.write(part)
        finally:
            response.close()

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - nobody else waits


class AsyncClient(_Calls):
    """A feature store behind a server, for programs that use `asyncio`; see `Client`, whose calls it has.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds; see `Client`.
        retries: How often a request is sent again, if the server is not reached or is busy.
        on_progress: Called before each retry; see `Client`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 5,
        on_progress: Tell | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, on_progress)
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
        project: str | None = None,
    ) -> Any:
        """See `Client.get_features`."""
        return await self._answer(self._get_features(table, keys, output, features, project, with_status=with_status))

    async def push(self, group: str, rows: object, project: str | None = None) -> Pushed:
        """See `Client.push`."""
        return await self._answer(self._push(group, rows, project))  # type: ignore[no-any-return]

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
        return await self._answer(self._training_set(lookups, spine, output, options_of(date_col, keep, span, as_of)))

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
        return await self._answer(self._historical(lookups, spine, options_of(date_col, keep, span, as_of)))

    async def catalog(self) -> list[dict[str, Any]]:
        """See `Client.catalog`."""
        return await self._answer(Call("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        return await self._http.send(self._http.build_request(**request), stream=True)

    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        try:
            async for part in response.aiter_bytes():
                body.write(part)
        finally:
            await response.aclose()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
