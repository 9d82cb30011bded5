"""A worker: a home, opened, and what its endpoints share."""

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

from seeknal import exact, online
from seeknal.errors import DefinitionError, SeeknalError
from seeknal.extras import how_to_install
from seeknal.freshness import Freshness, freshness
from seeknal.server.access import AccessLog
from seeknal.server.ages import Ages
from seeknal.server.definitions import Definitions, Held
from seeknal.server.http import Exchange, Problem
from seeknal.server.jobs import Jobs, Spines
from seeknal.server.metrics import Metrics
from seeknal.server.options import Options
from seeknal.server.totals import SharedTotals, Totals
from seeknal.store import FeatureStore

T = TypeVar("T")
_AT_START = 20
"""How many tables are opened before the first request."""
_LOOK = 0.25
"""How often the registry is looked at, and requests that wait for too long are ended, in seconds."""


class Service:
    """One worker: a home, opened, and what its endpoints share.

    Args:
        store: The home.
        options: How the server is to run.
        entrance: Where the first process takes what its workers counted; None if this is the only one.
    """

    def __init__(self, store: FeatureStore, options: Options, entrance: socket.socket | None = None) -> None:
        self.store = store
        self.options = options
        self.limits = options.limits
        self.definitions = Definitions(store, may_be_open=options.is_local)
        self.metrics = Metrics(SharedTotals(entrance) if entrance else Totals())
        is_shared = options.workers > 1
        self.log = AccessLog(sys.stdout.fileno(), is_shared=is_shared) if options.access_log else None
        self.telemetry = telemetry().Telemetry() if options.telemetry else None
        self.running: set[Exchange] = set()
        self.pushes = Jobs("pushes", options.limits.jobs)
        self.joins = Jobs("joins", options.limits.jobs)
        self.spines = Spines(max(1, options.limits.requests // 2), options.limits.jobs * options.limits.spine)
        self.ages = Ages(self._ages)
        self._lookups = ThreadPoolExecutor(32, "lookup")
        self._refreshes = ThreadPoolExecutor(1, "refresh")
        self._watchers: list[asyncio.Task[None]] = []

    # What endpoints use

    async def table(self, exchange: Exchange) -> Held:
        """Give the table that a request names.

        Raises:
            Problem: There is none.
        """
        name, project = exchange.names[-1], exchange.project or exchange.scope_of_token
        held = self.definitions.table(project, name)
        if held is None:
            held = await self.elsewhere(exchange, self.definitions.open, project, name, exchange.scope_of_token)
        exchange.table = self.metrics.table(held.record.project, held.record.name)
        return held

    async def elsewhere(self, exchange: Exchange, step: Callable[..., T], *arguments: object) -> T:
        """Take a step that may wait in a thread, while other requests are answered."""
        exchange.wait("The store did not answer in time.")
        return await asyncio.get_running_loop().run_in_executor(self._lookups, step, *arguments)

    def _ages(self) -> Iterator[Freshness]:
        """Find out how fresh each table is."""
        at, online = time.time_ns() // 1000, self.store.online_tables.at_once()
        erased = self.store.registry.last_erasures()
        for table in self.store.registry.tables():
            with suppress(SeeknalError):  # the table has no age then, which is what an alert asks for
                yield freshness(online, table, at, erased)

    # Its life

    async def start(self) -> None:
        """Open what the first requests need: some tables; the others, of which there may be thousands, when they are asked for.

        Raises:
            SeeknalError: The home cannot be opened.
        """
        self.definitions.refresh()
        for record in self.store.registry.tables()[:_AT_START]:
            with suppress(SeeknalError, Problem):  # it is told of when somebody asks for it
                self.definitions.open(record.project, record.name)
        exact.read("", "1", pa.int64())  # Arrow takes half a second for its first cast
        self._watchers = [asyncio.create_task(_forever(step)) for step in (self._look_after_requests, self._refresh)]
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Let go of everything."""
        for watcher in self._watchers:
            watcher.cancel()
        self._refreshes.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)
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
        """End requests that wait for too long, and let others see what was counted."""
        now = perf_counter()
        for exchange in [one for one in self.running if one.deadline < now]:
            exchange.end()
        self.metrics.flush()

    async def _refresh(self) -> None:
        """Look at the registry again, in a thread of its own: the others may all wait for a store."""
        with suppress(SeeknalError):  # /readyz tells of it
            await asyncio.get_running_loop().run_in_executor(self._refreshes, self.definitions.refresh)


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step again and again, some times a second, whatever comes of it."""
    while True:
        await asyncio.sleep(_LOOK)
        try:
            await step()
        except Exception:  # noqa: BLE001 - without it, tokens would stay valid and no request would end
            traceback.print_exc()


def telemetry() -> Any:
    """Give the module that sends spans.

    Raises:
        DefinitionError: What it needs is not installed.
    """
    try:
        from seeknal.server import telemetry as module
    except ImportError as error:
        raise DefinitionError(f"--otel needs {error.name}. {how_to_install('otel')}") from None
    return module
