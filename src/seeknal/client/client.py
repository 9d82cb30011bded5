"""The client: the calls of a feature store, answered by a server; the same types come back.

Each call is one request (`Call`), which is built here, and sent by `Sender`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self

import msgspec
import pyarrow as pa

from seeknal.client.calls import (
    PreparedRequest,
    body_of,
    check_entities,
    check_spine,
    lookup_to_json,
    options_of,
    path_of,
    read_batches,
    read_projects,
    read_pushed,
    read_table,
)
from seeknal.client.sending import Sender, httpx2
from seeknal.define.feature_group import FeatureLookup, check_lookups
from seeknal.registry.catalog import AsOf
from seeknal.serve.keys import check_keys
from seeknal.serve.online_table import as_python, check_features, check_output
from seeknal.system.progress import OnProgress
from seeknal.values import frames
from seeknal.values.times import Interval
from seeknal.write.push import Pushed


class _Calls(Sender):
    """What both clients can ask, as calls to be sent."""

    @staticmethod
    def _get_features(
        table: str, keys: object, output: str, features: Sequence[str] | None, project: str | None, *, with_status: bool
    ) -> PreparedRequest:
        check_output(output)
        check_features(features)
        check_keys(keys)
        content, kind, params = body_of(
            "keys", keys, {"features": None if features is None else list(features), "with_status": with_status}
        )

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            check_entities(content, kind, found)
            found = found.replace_schema_metadata(None)
            if output != "dicts":
                return frames.from_arrow(found, output)
            with as_python():
                return found.to_pylist()

        return PreparedRequest(path_of("online", table, project), read, content, kind, params)

    @staticmethod
    def _push(group: str, rows: object, project: str | None) -> PreparedRequest:
        content, kind, _ = body_of("rows", [rows] if isinstance(rows, Mapping) else rows, {})
        path = path_of("push", group, project)
        label = path.removeprefix("/v1/push/")
        if_unsure = "The rows may be stored or not. Push them again: what is stored is not stored twice."
        return PreparedRequest(
            path, lambda body: read_pushed(body, label), content, kind, is_long=True, if_unsure=if_unsure
        )

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        asked: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> PreparedRequest:
        lookups = check_lookups(lookups)
        query = {
            "lookups": [lookup_to_json(one) for one in lookups],
            **{k: v for k, v in asked.items() if v is not None},
        }
        content = msgspec.json.encode(query)
        return PreparedRequest(
            "/v1/historical", read or read_batches, content, spine=spine, is_large=read is None, is_long=True
        )

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, asked: Mapping[str, Any]
    ) -> PreparedRequest:
        kind = frames.output_kind(spine, output)
        frame = frames.opened(spine).only()

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            own = frame.names
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            check_spine(frame.table(kept), found)
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, asked, read)


class Client(_Calls):
    """A feature store behind a server. Threads may share a client; a forked process makes connections of its own.

    Args:
        url: Where the server is, such as "http://127.0.0.1:6789".
        token: What opens it; see `seeknal token`.
        timeout: How long to wait for the server to take or say something, in seconds; for what a push or a join gives,
            as long as it takes.
        retries: How often a request is sent again, if the server is not reached or is away; never one that only takes
            long, or whose answer has begun. A request that is turned away because too many are at work is sent again for as
            many half minutes, after the pauses that the server asks for. A push that comes twice changes nothing the second time.
        on_progress: Called before each retry, with its reason. None: shown on a terminal if they take more than a second.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 5,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, on_progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if http := self._forget():
            http.close()

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
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Give each row of a spine the features known at its moment; see `FeatureStore.training_set`.

        Args:
            lookups: The features.
            spine: A frame with the join keys and a moment in each row, or the path of a file.
            date_col: The column with the moments.
            keep: Columns to keep beside keys and moment. None: all.
            interval: Only rows with an event time within it can be seen.
            as_of: Only what was stored by then can be seen.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind.
        """
        return self._send(self._training_set(lookups, spine, output, options_of(date_col, keep, interval, as_of)))

    def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """Give a training set in batches, which wait in a temporary file; the path of a Parquet file is sent as it is.

        Args are those of `training_set`.
        """
        return self._send(self._historical(lookups, spine, options_of(date_col, keep, interval, as_of)))

    def catalog(self) -> list[dict[str, Any]]:
        """List the projects that the token opens, with their groups, versions and tables."""
        return self._send(PreparedRequest("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    def _send(self, call: PreparedRequest) -> Any:
        try:
            self._answer(call).send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("what it waits for is never put off")

    def _connect(self) -> httpx2.Client:
        return httpx2.Client(**self._settings)

    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        http = self._open()
        return http.send(http.build_request(**request), stream=True)  # type: ignore[no-any-return]

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
        retries: How often a request is sent again; see `Client`.
        on_progress: Called before each retry; see `Client`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 5,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, on_progress)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of the running loop; those of others end with their loop."""
        if http := (self._forget() or {}).get(asyncio.get_running_loop()):
            await http.aclose()

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
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """See `Client.training_set`."""
        return await self._answer(
            self._training_set(lookups, spine, output, options_of(date_col, keep, interval, as_of))
        )

    async def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """See `Client.stream`."""
        return await self._answer(self._historical(lookups, spine, options_of(date_col, keep, interval, as_of)))

    async def catalog(self) -> list[dict[str, Any]]:
        """See `Client.catalog`."""
        return await self._answer(PreparedRequest("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    def _connect(self) -> dict[asyncio.AbstractEventLoop, httpx2.AsyncClient]:
        return {}  # a connection belongs to the loop that it was made in

    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        connections, loop = self._open(), asyncio.get_running_loop()
        if (http := connections.get(loop)) is None:
            for ended in [one for one in connections if one.is_closed()]:
                del connections[ended]
            http = connections[loop] = httpx2.AsyncClient(**self._settings)
        return await http.send(http.build_request(**request), stream=True)  # type: ignore[no-any-return]

    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        try:
            async for part in response.aiter_bytes():
                body.write(part)
        finally:
            await response.aclose()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
