"""How a server ends without a request that fails: first it says so, so that nothing new comes, and then it finishes what it answers.

A load balancer learns of it from /readyz, and clients that keep a connection from the header of a response, which closes it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from typing import Any

SOON = signal.SIGUSR1
"""The signal by which the first process tells a worker that it is about to end."""


class Ending:
    """What a worker knows of its end.

    Args:
        drain: Seconds for which it goes on after it was asked to end.
    """

    def __init__(self, drain: float) -> None:
        self.is_near = False
        self.asked = asyncio.Event()
        """Set once the worker was asked to end."""
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._end: Callable[[int, Any], Any] = lambda *_: None

    def listen(self) -> None:
        """Take the signals of this process, after uvicorn has."""
        found = signal.getsignal(signal.SIGTERM)
        if callable(found):
            self._end = found
        signal.signal(signal.SIGTERM, lambda *_: self._loop.call_soon_threadsafe(self._terminated))
        if (parent := parent_process()) is not None:
            signal.signal(SOON, lambda *_: self._loop.call_soon_threadsafe(self._draws_near))
            # Without its first process, it would keep the port, with no process left to stop it.
            self._loop.add_reader(parent.sentinel, self._orphaned, parent.sentinel)

    def _draws_near(self) -> None:
        self.is_near = True

    def _terminated(self) -> None:
        """Go on for a while; a worker has done that when its first process asks it to end. A second signal ends it at once."""
        is_alone = parent_process() is None
        if is_alone and self._drain and not self.asked.is_set():
            self._draws_near()
            self._loop.call_later(self._drain, self._now)
        else:
            self._now()
        self.asked.set()

    def _orphaned(self, sentinel: int) -> None:
        self._loop.remove_reader(sentinel)
        self._now()
        self.asked.set()

    def _now(self) -> None:
        self._end(signal.SIGTERM, None)


def tell(process: int | None) -> None:
    """Tell a worker that it is about to end."""
    if process is not None:
        with suppress(ProcessLookupError):
            os.kill(process, SOON)
