"""Long-running work, with a bounded thread pool for each kind: pushes never wait for joins, nor joins for pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from typing import TypeVar

from seeknal.server.http import SOON, Problem, Request

T = TypeVar("T")


class Jobs:
    """A limited number of slots for one kind of work, and the threads that do it.

    Args:
        kind: The kind, such as "pushes".
        places: The number of slots. Further requests wait for one, first come, first served.
    """

    def __init__(self, kind: str, places: int) -> None:
        self._full = (
            f"All {places} slots for {kind} are taken. Nothing was done.",
            HTTPStatus.TOO_MANY_REQUESTS,
        )
        self._free = asyncio.Semaphore(places)
        self._threads = ThreadPoolExecutor(places, kind)

    async def place(self, request: Request) -> AbstractContextManager[None]:
        """Wait for a slot, and return the context manager that releases it.

        Called once the whole request was received, so that slow senders hold no slot.
        """
        request.wait(*self._full)  # the deadline turns into 429 if no slot becomes free in time
        await self._free.acquire()
        request.disable_deadline()
        return self._taken()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._free.release()

    async def run(self, step: Callable[..., T], *arguments: object) -> T:
        """Run a step in a thread of this kind of work."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, step, *arguments)

    def close(self) -> None:
        """Shut down the threads without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Spines:
    """Limits the spines that are being received, wait for a slot or are joined, by number and by bytes on disk.

    Args:
        most: The number of spines at once; further ones are rejected.
        room: The number of bytes that all of them may take together.
    """

    def __init__(self, most: int, room: int) -> None:
        self._most, self._room = most, room
        self._number = self._filled = 0

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Admit one more spine, and yield the function that reserves space for a number of further bytes of it.

        Raises:
            Problem: There are too many spines, or they leave no space.
        """
        mine = 0

        def fill(more: int) -> None:
            nonlocal mine
            if self._filled + more > self._room:
                raise _full("The spines of other requests use all the disk space that spines may use.")
            mine, self._filled = mine + more, self._filled + more

        if self._number >= self._most:
            raise _full(f"{self._most} spines are being received or joined, and no more are accepted at once.")
        self._number += 1
        try:
            yield fill
        finally:
            self._number -= 1
            self._filled -= mine


def _full(why: str) -> Problem:
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, why, None, SOON)
