"""A worker: the home that it serves, and what its endpoints share."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar

import pyarrow as pa

from seeknal import online
from seeknal.config import Settings
from seeknal.errors import DefinitionError, SeeknalError
from seeknal.home.store import FeatureStore
from seeknal.serve.freshness import Freshness
from seeknal.server.access import AccessLog
from seeknal.server.ages import Ages
from seeknal.server.definitions import Definitions
from seeknal.server.ending import Ending
from seeknal.server.held import Held
from seeknal.server.http import Problem, Request
from seeknal.server.jobs import Jobs, Spines
from seeknal.server.metrics import Metrics
from seeknal.server.options import Options
from seeknal.server.pushes import Gathered
from seeknal.server.readiness import Readiness
from seeknal.server.threads import Threads
from seeknal.server.totals import SharedTotals, Totals
from seeknal.system.extras import how_to_install
from seeknal.system.modules import import_all
from seeknal.system.urls import shown
from seeknal.values import exact

T = TypeVar("T")
_AT_START = 20
"""How many tables are opened before the first request."""
_LOOK = 0.25
"""The interval at which the registry is checked and overdue requests are ended, in seconds."""


class Service:
    """A worker: its open home, and what its endpoints share.

    Args:
        store: The feature store of the home.
        options: The options of the server.
        ending: What is known of the end of the worker.
        entrance: The socket over which the first process receives the counts of its workers; None if this is the only
            process.
    """

    def __init__(
        self, store: FeatureStore, options: Options, ending: Ending, entrance: socket.socket | None = None
    ) -> None:
        self.store = store
        self.ending = ending
        self.options = options
        self.limits = options.limits
        self.definitions = Definitions(store, may_be_open=options.is_local)
        self.metrics = Metrics(SharedTotals(entrance) if entrance else Totals())
        is_shared = options.workers > 1
        self.log = AccessLog(sys.stdout.fileno(), is_shared=is_shared) if options.access_log else None
        self.telemetry = telemetry().Telemetry() if options.telemetry else None
        self.running: set[Request] = set()
        self.gathered = Gathered(store)
        self.pushes = Jobs("pushes", options.limits.jobs)
        self.joins = Jobs("joins", options.limits.jobs)
        # Half of the requests, so that slow uploads of spines leave room for all others.
        self.spines = Spines(max(1, options.limits.requests // 2), options.limits.jobs * options.limits.spine)
        self.ages = Ages(self._ages)
        self.readiness = Readiness(store, self.definitions)
        self.threads = Threads()
        self._registry, self._tables = _services(store.settings)
        self._refreshes = ThreadPoolExecutor(1, "refresh")
        self._watchers: list[asyncio.Task[None]] = []

    async def table(self, request: Request) -> Held:
        """Return the table that a request names.

        Raises:
            Problem: There is no such table.
        """
        name, project = request.names[-1], request.project or request.scope_of_token
        held = self.definitions.table(project, name)
        if held is None:
            held = await self.with_registry(request, self.definitions.open, project, name, request.scope_of_token)
        request.table = self.metrics.table(held.record.project, held.record.name)
        return held

    async def with_online_store(self, request: Request, held: Held, step: Callable[..., T], *arguments: object) -> T:
        """Run a step that reads the rows of a table; see `Threads.run`."""
        return await self.threads.run(request, f"The online store {held.place}", step, *arguments)

    async def with_registry(self, request: Request, step: Callable[..., T], *arguments: object) -> T:
        """Run a step that reads the registry; see `Threads.run`."""
        return await self.threads.run(request, self._registry, step, *arguments)

    async def with_tables(self, request: Request, step: Callable[..., T], *arguments: object) -> T:
        """Run a step that may read the offline tables as well; see `Threads.run`."""
        return await self.threads.run(request, self._tables, step, *arguments)

    def _ages(self) -> Iterator[Freshness]:
        """Yield the freshness of each table."""
        at, online = time.time_ns() // 1000, self.store.overview().tables
        for table in online.all():
            with suppress(SeeknalError):  # the table is left out of the metrics then, and an alert watches for that
                yield online.freshness(table, at)

    async def start(self) -> None:
        """Open what the first requests need.

        Only some of the tables are opened, as there may be thousands. The others are opened when first requested.

        Raises:
            DefinitionError: The code of a served view cannot be imported, or is not what was registered.
            SeeknalError: The home cannot be opened.
        """
        import_all(self.store.settings.modules, self.store.settings.folder)
        self.definitions.refresh()
        self.definitions.check_code()
        for record in self.store.tables.all()[:_AT_START]:
            with suppress(SeeknalError, Problem):  # the first request for the table will report the error
                self.definitions.open(record.project, record.name)
        self.store.groups.resume_pushes()
        exact.read("", "1", pa.int64())  # a warm-up: Arrow takes half a second for its first cast
        self._watchers = [asyncio.create_task(_forever(step)) for step in (self._look_after_requests, self._refresh)]
        gc.collect()
        gc.freeze()  # what is open now stays open, so later collections need not scan it

    async def stop(self) -> None:
        """Close everything."""
        for watcher in self._watchers:
            watcher.cancel()
        self._refreshes.shutdown(wait=False, cancel_futures=True)
        self.threads.close()
        self.readiness.close()
        self.gathered.close()
        self.pushes.close()
        self.joins.close()
        self.ages.close()
        if self.log:
            self.log.close()
        if self.telemetry:
            self.telemetry.close()
        self.store.close()
        online.close_all()

    async def _look_after_requests(self) -> None:
        """End the requests whose deadlines have passed, and add this worker's counts to the totals."""
        now = perf_counter()
        for request in [one for one in self.running if one.deadline < now]:
            request.end()
        self.metrics.flush()

    async def _refresh(self) -> None:
        """Refresh the definitions in a separate thread, since all others may be waiting for a store."""
        with suppress(SeeknalError):  # /readyz reports it
            await asyncio.get_running_loop().run_in_executor(self._refreshes, self.definitions.refresh)


def _services(settings: Settings) -> tuple[str, str]:
    """Return what messages call the registry, and all that a read of offline tables may need: it commits and loads what was pushed."""
    registry = f"The registry {shown(settings.registry or str(settings.home))}"
    storage = f", the storage {settings.storage}" if settings.storage else ""
    return registry, f"{registry}{storage} or an online store"


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    """Run a step several times a second, whatever it raises."""
    while True:
        await asyncio.sleep(_LOOK)
        try:
            await step()
        except Exception:  # noqa: BLE001 - if this loop ended, revoked tokens would stay valid and no request would time out
            traceback.print_exc()


def telemetry() -> Any:
    """Return the module that sends spans.

    Raises:
        DefinitionError: A library that it needs is not installed.
    """
    try:
        from seeknal.server import telemetry as module
    except ImportError as error:
        raise DefinitionError(f"--otel needs {error.name}. {how_to_install('otel')}") from None
    return module
