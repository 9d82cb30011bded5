"""The access log: a line of JSON for each request, without keys and features."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import msgspec

from seeknal.server.http import Exchange

_LONGEST_PATH = 200
_MOST_WAITING = 100_000
_AT_ONCE = 4096
"""So many bytes go into a pipe at once, whole, whoever else writes to it (PIPE_BUF of Linux)."""

_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct):
    """One line."""

    time: str
    client: str
    token: str | None
    method: str
    path: str
    status: int
    ms: float
    keys: int


class AccessLog:
    """Writes lines, some times a second, beside the requests: they do not wait for whoever reads it.

    Args:
        file: Descriptor of the file to write to.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._lines: list[bytes] = []
        self._second = 0
        self._stamp = ""
        self._ended = Event()
        self._writer = Thread(target=self._write_on, daemon=True)
        self._writer.start()

    def add(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Note a request; what stood behind its question mark is left out."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        client: Any = exchange.scope.get("client")
        line = Line(
            f"{self._stamp}.{int((now - second) * 1000):03}Z",
            client[0] if client else "",
            exchange.token.name if exchange.token else None,
            exchange.method,
            exchange.path[:_LONGEST_PATH],
            status,
            round(seconds * 1000, 3),
            exchange.keys,
        )
        if len(self._lines) < _MOST_WAITING:
            self._lines.append(_encode(line))

    def close(self) -> None:
        """Write what is noted, if somebody takes it soon."""
        self._ended.set()
        self._writer.join(timeout=2)

    def _write_on(self) -> None:
        while not self._ended.wait(0.2):
            self._write()
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        text, sent = b"".join(line + b"\n" for line in lines), 0
        with suppress(OSError):
            while sent < len(text):
                end = text.rfind(b"\n", sent, sent + _AT_ONCE) + 1 or len(text)
                sent += os.write(self._file, text[sent:end])
