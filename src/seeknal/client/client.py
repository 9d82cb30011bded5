"""The clients: the calls of `FeatureStore`, executed by a server, with results of the same types.

Each call is one `PreparedRequest`, which is built here and sent by `Sender`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Self, TypedDict, Unpack, overload

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
from seeknal.names import check_features
from seeknal.registry.catalog import AsOf
from seeknal.serve.keys import check_keys
from seeknal.serve.online_table import as_python, check_output
from seeknal.system.progress import OnProgress
from seeknal.values import frames
from seeknal.values.times import Interval
from seeknal.write.push import Pushed

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from duckdb import DuckDBPyRelation

    from seeknal.join.inquiry import OfSpine
    from seeknal.values.frames.outputs import Arrow, Dicts, DuckDB, Pandas, Polars

    class _Rest(TypedDict, total=False):  # keyword arguments on which the type of the result does not depend
        with_status: bool
        project: str | None


class _Calls(Sender):
    """The requests that both clients send."""

    @staticmethod
    def _get_features(
        table: str, keys: object, output: str, features: Sequence[str] | None, project: str | None, *, with_status: bool
    ) -> PreparedRequest:
        check_output(output)
        names = check_features(features)
        check_keys(keys)
        content, kind, params = body_of("keys", keys, {"features": names, "with_status": with_status})

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            check_entities(content, kind, found)
            found = found.replace_schema_metadata(None)  # it names the join keys, for the check alone
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
        if_unsure = "The rows may or may not be stored. Push them again: no row is stored twice."
        return PreparedRequest(
            path, lambda body: read_pushed(body, label), content, kind, is_long=True, if_unsure=if_unsure
        )

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        options: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> PreparedRequest:
        lookups = check_lookups(lookups)
        query = {
            "lookups": [lookup_to_json(one) for one in lookups],
            **{name: value for name, value in options.items() if value is not None},
        }
        content = msgspec.json.encode(query)
        return PreparedRequest(
            "/v1/historical", read or read_batches, content, spine=spine, is_large=read is None, is_long=True
        )

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, options: Mapping[str, Any]
    ) -> PreparedRequest:
        kind = frames.output_kind(spine, output)
        frame = frames.opened(spine).only()  # a spine is evaluated once: it is sent, and the features are added to it

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            own = frame.names
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            check_spine(frame.table(kept), found)
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, options, read)


class Client(_Calls):
    """A feature store behind a server. Threads may share a client; a forked process opens its own connections.

    Args:
        url: The address of the server, such as "http://127.0.0.1:6789".
        token: The token to authenticate with; see `seeknal token`.
        timeout: How long to wait for the server to accept or send data, in seconds. The results of pushes and joins are
            waited for without a limit.
        retries: How often a request is sent again if the server cannot be reached or is unavailable. A request that the
            server is slow to accept or to answer, or whose response has begun, is never sent again. A request that is
            rejected because too many are running is retried for up to `retries` times 30 seconds, after the pauses that
            the server asks for. A push is idempotent: if it arrives twice, the second one changes nothing.
        on_progress: Called before each retry with its reason. None: retries are shown on a terminal if they take more
            than a second.
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

    @overload
    def get_features(
        self,
        table: str,
        keys: object,
        output: Pandas = "pandas",
        features: Sequence[str] | None = None,
        **rest: Unpack[_Rest],
    ) -> pd.DataFrame: ...
    @overload
    def get_features(
        self, table: str, keys: object, output: Polars, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pl.DataFrame: ...
    @overload
    def get_features(
        self, table: str, keys: object, output: Arrow, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pa.Table: ...
    @overload
    def get_features(
        self, table: str, keys: object, output: Dicts, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> list[dict[str, Any]]: ...
    @overload
    def get_features(
        self, table: str, keys: object, output: str, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> Any: ...

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
        """Return the newest features of some entities; see `OnlineTable.get_features`.

        Args:
            table: The online table; "shop/spend" names its project too.
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the requested features, in order. None: all of them.
            with_status: Whether to add, for each group, whether its entity was found, and the event time of its row.
            project: The table's project. None: the only one that has such a table.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: There is no such table or feature, or the token has no right to it.
            StoreError: The server cannot be reached, or its store cannot be read.
        """
        return self._send(self._get_features(table, keys, output, features, project, with_status=with_status))

    def push(self, group: str, rows: object, project: str | None = None) -> Pushed:
        """Store rows of a group's current version, and load them online; see `Groups.push`.

        Args:
            group: The group; "shop/spend" names its project too.
            rows: A mapping from column to value, a list of them, or a frame.
            project: The group's project. None: the only one that has such a group.

        Raises:
            DataError: The rows do not fit the version; nothing was stored.
            DefinitionError: There is no such group, or the token has no right to it.
            StoreError: The server cannot be reached, or the rows could not be stored or loaded, as the message says.
        """
        return self._send(self._push(group, rows, project))  # type: ignore[no-any-return]

    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Pandas, **rest: Unpack[OfSpine]
    ) -> pd.DataFrame: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Polars, **rest: Unpack[OfSpine]
    ) -> pl.DataFrame: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Arrow, **rest: Unpack[OfSpine]
    ) -> pa.Table: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: DuckDB, **rest: Unpack[OfSpine]
    ) -> DuckDBPyRelation: ...
    @overload
    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        output: str | None = None,
        **rest: Unpack[OfSpine],
    ) -> Any: ...

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
        """Return the rows of a spine with the features known at their moments; see `Features.training_set`.

        Args:
            lookups: The features.
            spine: A frame with the join keys and a moment in each row, or the path of a file.
            date_col: The column with the moments.
            keep: Columns of the spine to keep beside keys and moment. None: all.
            interval: Only rows with an event time within it are visible.
            as_of: Only what was stored by then is visible.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind.

        Raises:
            DataError: The spine lacks a column, or a key's type cannot match.
            DefinitionError: There is no such group, feature or snapshot, or the token has no right to a group.
            StoreError: The server cannot be reached, or its store cannot be read.
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
        """Return a training set in batches, which are read from a temporary file.

        The arguments are those of `training_set`. A spine that is the path of a Parquet file is sent as it is.
        """
        return self._send(self._historical(lookups, spine, options_of(date_col, keep, interval, as_of)))

    def catalog(self) -> list[dict[str, Any]]:
        """Return the projects that the token may read, with their groups, versions and tables."""
        return self._send(PreparedRequest("/v1/catalog", read_projects))  # type: ignore[no-any-return]

    def _send(self, call: PreparedRequest) -> Any:
        try:  # nothing that the coroutine awaits suspends it here, so its first step runs to the end
            self._answer(call).send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("the coroutine was suspended")

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
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs this coroutine


class AsyncClient(_Calls):
    """A feature store behind a server, for programs that use `asyncio`. It has the calls of `Client`.

    Args:
        url: The address of the server, such as "http://127.0.0.1:6789".
        token: The token to authenticate with; see `seeknal token`.
        timeout: How long to wait for the server to accept or send data, in seconds; see `Client`.
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
        """Close the connections of the running event loop. Those of other event loops end with their loop."""
        if http := (self._forget() or {}).get(asyncio.get_running_loop()):
            await http.aclose()

    @overload
    async def get_features(
        self,
        table: str,
        keys: object,
        output: Pandas = "pandas",
        features: Sequence[str] | None = None,
        **rest: Unpack[_Rest],
    ) -> pd.DataFrame: ...
    @overload
    async def get_features(
        self, table: str, keys: object, output: Polars, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pl.DataFrame: ...
    @overload
    async def get_features(
        self, table: str, keys: object, output: Arrow, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pa.Table: ...
    @overload
    async def get_features(
        self, table: str, keys: object, output: Dicts, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> list[dict[str, Any]]: ...
    @overload
    async def get_features(
        self, table: str, keys: object, output: str, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> Any: ...

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

    @overload
    async def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Pandas, **rest: Unpack[OfSpine]
    ) -> pd.DataFrame: ...
    @overload
    async def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Polars, **rest: Unpack[OfSpine]
    ) -> pl.DataFrame: ...
    @overload
    async def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Arrow, **rest: Unpack[OfSpine]
    ) -> pa.Table: ...
    @overload
    async def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: DuckDB, **rest: Unpack[OfSpine]
    ) -> DuckDBPyRelation: ...
    @overload
    async def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        output: str | None = None,
        **rest: Unpack[OfSpine],
    ) -> Any: ...

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
        return {}  # by event loop, since a connection works only in the loop that opened it

    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        connections, loop = self._open(), asyncio.get_running_loop()
        if (http := connections.get(loop)) is None:
            # The connections of a closed loop can no longer be closed properly, only forgotten.
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
