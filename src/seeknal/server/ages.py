"""The freshness of all tables, computed outside the event loop, since it takes milliseconds per table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

from seeknal.errors import StoreError
from seeknal.serve.freshness import Freshness
from seeknal.server.http import Request

_SOON = 1.0
_LONGEST = 300.0
"""How long an old result is returned while a new one is being computed, in seconds."""
_SHARE = 4
"""The pause after a slow computation, as a multiple of its duration. It leaves most of a core to the requests."""


class Ages:
    """A cache of the tables' freshness.

    `get` returns a new result if it is computed within a second, and otherwise the previous one. From some hundred tables
    on, that is the usual case.

    Args:
        find: Computes the freshness, table by table.
    """

    def __init__(self, find: Callable[[], Iterator[Freshness]]) -> None:
        self._find = find
        self._is_closed = False
        self._threads = ThreadPoolExecutor(1, "ages")
        self._now: asyncio.Future[list[Freshness]] | None = None
        self._last: list[Freshness] | None = None
        self._ended = self._due = -_LONGEST

    async def get(self, request: Request) -> list[Freshness]:
        """Return the freshness of the tables, as of now or of a short while ago.

        Raises:
            SeeknalError: It cannot be computed, or has not been for minutes.
        """
        if self._now is None and (self._last is None or time.monotonic() >= self._due):
            self._now = asyncio.ensure_future(self._compute())  # one computation, which all requests share
            self._now.add_done_callback(lambda one: one.cancelled() or one.exception())  # else asyncio logs the error
        if (now := self._now) is not None:
            request.wait("The stores did not report the freshness of the tables in time.")
            await asyncio.wait([now], timeout=None if self._last is None else _SOON)
            if now.done():
                return now.result()
        if self._last is None or time.monotonic() > self._ended + _LONGEST:
            raise StoreError("The stores do not report the freshness of the tables. Check whether one hangs.")
        return self._last

    async def _compute(self) -> list[Freshness]:
        began = time.monotonic()
        try:
            self._last = await asyncio.get_running_loop().run_in_executor(self._threads, self._all)
            self._ended = time.monotonic()
            return self._last
        finally:
            self._now = None
            took = time.monotonic() - began
            self._due = time.monotonic() + (_SHARE * took if took > _SOON else 0)

    def _all(self) -> list[Freshness]:
        return list(takewhile(lambda _: not self._is_closed, self._find()))

    def close(self) -> None:
        """Shut down the thread without waiting for it."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
