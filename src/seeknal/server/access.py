"""The access log: one line of JSON per request, without keys and features."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from select import PIPE_BUF
from threading import Event, Thread

import msgspec

from seeknal.server.http import Request
from seeknal.server.options import is_loopback

_LONGEST_PATH = _LONGEST_PROXIES = 200
_MOST_WAITING = 100_000
_MOST_KNOWN = 1000

_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes lines several times a second in a separate thread, so that requests never wait for a slow reader of the log.

    Args:
        file: Descriptor of the file to write to.
        is_shared: Whether other processes write to it too. If so, lines are written in pieces that a pipe takes
            atomically.
    """

    def __init__(self, file: int, *, is_shared: bool = False) -> None:
        self._file = file
        self._is_shared = is_shared
        self._lines: list[bytes] = []
        self._second = 0
        self._stamp = b""
        self._known: dict[tuple[str, str | None, str, str, bytes | None], bytes] = {}
        self._ended = Event()
        self._writer = Thread(target=self._write_on, daemon=True)
        self._writer.start()

    def add(self, request: Request, status: int, seconds: float) -> None:
        """Add the line of a request, without its query string."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        client: tuple[str, int] | None = request.scope.get("client")
        about = (
            client[0] if client else "",
            request.token.name if request.token else None,
            request.method,
            request.path[:_LONGEST_PATH],
            request.headers.get(b"x-forwarded-for", b"")[-_LONGEST_PROXIES:],
        )
        known = self._known.get(about) or self._describe(about)
        line = b'{"time":"%b.%03dZ",%b,"status":%d,"ms":%.3f,"keys":%d}\n'
        # Further lines are dropped, so that a reader that hangs cannot fill the memory.
        if len(self._lines) < _MOST_WAITING:
            self._lines.append(line % (self._stamp, (now - second) * 1000, known, status, seconds * 1000, request.keys))

    def _describe(self, about: tuple[str, str | None, str, str, bytes | None]) -> bytes:
        """Encode client, token, method and path for a line, and cache the result, since the same ones recur."""
        client, token, method, path, proxied = about
        # Only a proxy on this machine is trusted. It appends the address of its client to what the client sent itself.
        if proxied and is_loopback(client):
            client = proxied.decode("latin-1").rpartition(",")[2].strip()[:100]
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        text = _encode({"client": client, "token": token, "method": method, "path": path})[1:-1]
        self._known[about] = text
        return text

    def close(self) -> None:
        """Write the remaining lines, unless that takes longer than two seconds."""
        self._ended.set()
        self._writer.join(timeout=2)

    def _write_on(self) -> None:
        while not self._ended.wait(0.2):
            self._write()
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        with suppress(OSError):
            for text in _pieces(lines) if self._is_shared else [b"".join(lines)]:
                sent = 0
                while sent < len(text):  # in one write if possible: requests wait for this thread during each
                    sent += os.write(self._file, text[sent:])


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Yield lines in pieces that a pipe takes atomically, so that no line of another process splits one of them."""
    piece = b""  # a line never exceeds PIPE_BUF: all its parts are cut to a length
    for line in lines:
        if len(piece) + len(line) > PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece
