"""The client: the calls of `FeatureStore`, executed by a server, with results of the same types."""

from __future__ import annotations

import time
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


class Client(Calls):
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
        return self._send(self._get_features("online", table, keys, output, features, project, with_status=with_status))

    def get_view_features(
        self,
        view: str,
        rows: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        project: str | None = None,
    ) -> Any:
        """Return what the model reads for some rows; see `FeatureView.get_features`.

        Args:
            view: The feature view; "shop/next_basket@2" names its project and version too. Without a number, it is the newest version
                that is served.
            rows: A list of mappings from the names of join keys and request values to values, or a frame with them.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the requested features, in order. None: all of them.
            with_status: Whether to add the statuses of the groups and of the defaults.
            project: The view's project. None: the only one that has such a view.

        Raises:
            DataError: A row has wrong names or types, or a function fails.
            DefinitionError: There is no such view or feature, the version is not served, or the token has no right to it.
            StoreError: The server cannot be reached, or its store cannot be read.
        """
        return self._send(self._get_features("views", view, rows, output, features, project, with_status=with_status))

    def view(self, name: str, project: str | None = None) -> dict[str, Any]:
        """Return what a version of a view is, and its other versions: keys, request values, features, and which are served.

        Args:
            name: The feature view; "shop/next_basket@2" names its project and version too.
            project: The view's project. None: the only one that has such a view.

        Raises:
            DefinitionError: There is no such view or version, or the token has no right to it.
            StoreError: The server cannot be reached, or its store cannot be read.
        """
        return self._send(self._view(name, project))  # type: ignore[no-any-return]

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
