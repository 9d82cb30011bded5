"""The processes of the server: uvicorn, with the protection against slow and endless requests that it lacks."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from math import inf
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from seeknal.config import Settings
from seeknal.errors import DefinitionError, StoreError
from seeknal.home.store import FeatureStore
from seeknal.server.app import App
from seeknal.server.ending import tell
from seeknal.server.options import Options
from seeknal.server.service import telemetry
from seeknal.server.totals import Hub
from seeknal.server.waiting import once_there

_LONGEST_HEAD = 64 * 2**10
_KEEP_ALIVE = 75
_STARTUP_FAILED = 3
"""The exit code of a uvicorn process whose start failed."""
_HANGS, _STARTS = 10, 30
"""How long a running worker may take to answer a health check, and a new one to be ready, in seconds."""
_STEP = 0.1
_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(process)d %(message)s"}},
    "filters": {"news": {"()": "seeknal.server.run.News"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["news"]}},
    "loggers": {"uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}


class News(logging.Filter):
    """A filter that passes uvicorn's warnings, and its lines about workers that die or are replaced."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        return record.levelno >= logging.WARNING or any(part in record.msg for part in ("died", "restarting"))


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the time and size of a request's head, and on how long a client leaves a response unread."""

    _is_watched = False
    """Whether the timer runs that checks all connections of this worker."""

    def connection_made(self, transport: Any) -> None:
        """Accept a connection, or reject it if there are too many."""
        super().connection_made(transport)
        self.head_since, self._head_size = self.loop.time(), 0
        self._unsent, self._unsent_since = 0, inf
        self._limits = self.config.app.limits  # type: ignore[union-attr]  # the application is an `App`
        if len(self.connections) > self._limits.connections:
            self.refuse(b"503 Service Unavailable\r\nretry-after: 1")
        if not Protocol._is_watched:
            Protocol._is_watched = True
            _watch(self.loop, self.connections)

    def data_received(self, data: bytes) -> None:
        """Parse received data, and reject a head that is too large."""
        super().data_received(data)
        if self.head_since != inf:
            self._head_size += len(data)
            if self._head_size > _LONGEST_HEAD:
                self.refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Start a head, whose time and size are measured from here."""
        super().on_message_begin()
        self.head_since, self._head_size = self.loop.time(), 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Trailers, which follow a body, are dropped, and their size is limited."""
        if self.head_since != inf:
            super().on_header(name, value)
            return
        self._head_size += len(name) + len(value)
        if self._head_size > _LONGEST_HEAD:
            self.refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """End a head. A request to upgrade the protocol is answered like any other.

        If it has a body, it is rejected, because the body would be parsed as the next request.
        """
        self.head_since, self._head_size = inf, 0
        upgrades = self.parser.should_upgrade()
        if upgrades and any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers):
            self.refuse(b"400 Bad Request")
            return
        super().on_headers_complete()
        if upgrades:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless its request was rejected."""
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, unless it was rejected."""
        if self.cycle is not None:
            super().on_message_complete()

    def refuse(self, status: bytes) -> None:
        """Respond with a status and no body, and close the connection."""
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def look_after(self) -> None:
        """Close the connection if its head does not arrive in time, or the client does not read what is sent."""
        now = self.loop.time()
        # As long as the client reads, the number of unsent bytes changes from one check to the next.
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now if unsent else inf
        if self._unsent_since < now - self._limits.seconds:
            self.transport.abort()
        elif self.head_since < now - self._limits.seconds:
            self.refuse(b"408 Request Timeout")


def _watch(loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
    """Check all connections once a second, as long as there are any."""
    for connection in list(connections):
        connection.look_after()
    Protocol._is_watched = bool(connections)  # noqa: SLF001 - its own module
    if connections:
        loop.call_later(1, _watch, loop, connections)


def serve(store: FeatureStore, options: Options, settings: Settings) -> None:
    """Serve a home until SIGINT or SIGTERM, and then finish the requests in flight.

    Args:
        store: The store of the home.
        options: How to serve it.
        settings: The settings that each worker opens the store with.

    Raises:
        DefinitionError: Other machines could reach the server and there are no tokens, or the certificate and its key
            cannot be used.
        StoreError: The address is taken, or the workers do not start.
    """
    if not options.is_local and not once_there(store.tokens.all):
        raise DefinitionError(
            f"At {options.host}, other machines could read every feature, because there are no tokens. Create one first: "
            "seeknal token create NAME --project PROJECT --right read."
        )
    _check_certificate(options)
    if options.telemetry:
        telemetry()
    _raise_open_file_limit()
    with _listen(options) as listening:
        scheme, (host, port) = "https" if options.certificate else "http", listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"Serving {store.home} at {scheme}://{shown}:{port}. Ctrl-C stops it.", file=sys.stderr)  # noqa: T201 - for the operator
        _run_workers(_config(options, settings), options, listening)


def _run_workers(config: uvicorn.Config, options: Options, listening: socket.socket) -> None:
    for ended in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises the signal again after a clean stop
        signal.signal(ended, lambda *_: None)
    if options.workers == 1:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a request to replace the workers, of which there are none here
        server = uvicorn.Server(config)
        try:
            server.run(sockets=[listening])
        except SystemExit:
            raise StoreError("The server did not start; see above.") from None
        return
    workers = Workers(config, [listening], options.drain)
    workers.run()
    if any(process.exitcode == _STARTUP_FAILED for process in workers.processes):
        raise StoreError("The workers did not start; see above.")


class Workers(Multiprocess):
    """uvicorn's supervisor, with a shorter timeout for a running worker than for a starting one.

    Args:
        config: What the workers run.
        sockets: What they listen on.
        drain: Seconds for which they go on after they were told that the server ends.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], drain: float) -> None:
        super().__init__(config, sockets)
        self._drain = drain

    def terminate_all(self) -> None:
        """Tell the workers that the server ends, and end them a while later, or at once if another signal comes."""
        codes = [process.exitcode for process in self.processes]
        if self._drain and _STARTUP_FAILED not in codes:
            for process, code in zip(self.processes, codes, strict=True):
                if code is None:
                    tell(process.pid)
            end = time.monotonic() + self._drain
            while time.monotonic() < end and not self.signal_queue:
                time.sleep(_STEP)
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace the workers that have died or hang."""
        _leave_deleted_folder()
        self.config.timeout_worker_healthcheck = _HANGS
        super().keep_subprocess_alive()

    def restart_all(self) -> None:
        """Replace all workers, one by one."""
        _leave_deleted_folder()
        self.config.timeout_worker_healthcheck = _STARTS
        super().restart_all()


def _leave_deleted_folder() -> None:
    """Leave a working folder that was deleted, since no process can be started in it."""
    try:
        os.getcwd()  # noqa: PTH109 - only the error is of interest
    except FileNotFoundError:
        os.chdir("/")


def _config(options: Options, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        App(options, settings, Hub().entrance if options.workers > 1 else None),
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",  # "auto" would serve on after a failed start
        interface="asgi3",
        log_config=_LOG,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `AccessLog` reads them itself, and trusts only a local proxy
        workers=options.workers,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=options.grace,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )


def _check_certificate(options: Options) -> None:
    """Check that the certificate and its key can be used, before the workers fail to start.

    Raises:
        DefinitionError: They cannot be used.
    """
    if options.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key, _no_password)
    except (ssl.SSLError, OSError) as error:
        raise DefinitionError(
            f"{options.certificate} and {options.key} are not a certificate and its key, in PEM and without a password: {error}."
        ) from None


def _no_password() -> str:
    # Called instead of OpenSSL's prompt, at which a service would hang.
    raise OSError("the key is encrypted")


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listening = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise StoreError(
            f"The server cannot listen on {options.host} port {options.port}: {error}. Choose another --port."
        ) from None
    listening.set_inheritable(True)  # the workers accept connections on it
    return listening


def _raise_open_file_limit() -> None:
    """Allow as many open files as the system permits, since each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
