"""Threads for steps that wait for a service: a pool for each, so that one that hangs holds up no request but those that need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from seeknal.server.http import Request

T = TypeVar("T")
_AT_ONCE = 32
"""How many steps wait for the same service at once; others wait for one to end."""


class Threads:
    """The threads of a worker in which requests wait for services."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def run(self, request: Request, service: str, step: Callable[..., T], *arguments: object) -> T:
        """Run a step in a thread, while other requests are answered. If it takes too long, the response names the service.

        Args:
            request: The request.
            service: What the step waits for, such as "The registry in /home".
            step: The step.
            arguments: What it is called with.
        """
        request.wait(f"{service} did not answer within {request.limits.seconds:g} seconds.")
        if (pool := self._pools.get(service)) is None:
            pool = self._pools[service] = ThreadPoolExecutor(_AT_ONCE, "wait")
        return await asyncio.get_running_loop().run_in_executor(pool, step, *arguments)

    def close(self) -> None:
        """Shut down the threads without waiting for them."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
