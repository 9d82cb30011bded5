"""The client for programs that use `asyncio`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Self, TypedDict, Unpack, overload

import pyarrow as pa

from seeknal.client.calls import (
    PreparedRequest,
    options_of,
    read_projects,
)
from seeknal.client.requests import Calls
from seeknal.client.sending import httpx2
from seeknal.define.feature_group import FeatureLookup
from seeknal.registry.catalog import AsOf
from seeknal.system.progress import OnProgress
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


class AsyncClient(Calls):
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
        return await self._answer(
            self._get_features("online", table, keys, output, features, project, with_status=with_status)
        )

    async def get_view_features(
        self,
        view: str,
        rows: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        project: str | None = None,
    ) -> Any:
        """See `Client.get_view_features`."""
        return await self._answer(
            self._get_features("views", view, rows, output, features, project, with_status=with_status)
        )

    async def view(self, name: str, project: str | None = None) -> dict[str, Any]:
        """See `Client.view`."""
        return await self._answer(self._view(name, project))  # type: ignore[no-any-return]

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
