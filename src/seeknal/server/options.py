"""The options of a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from seeknal.errors import DefinitionError
from seeknal.system.folders import named


@dataclass(frozen=True)
class Limits:
    """The limits of a server; each worker applies them on its own.

    Args:
        keys: Most entities of a request, and most rows of a push.
        body: Most bytes of a request.
        spine: Most bytes of a spine, which is kept on disk while it is joined.
        spine_rows: Most rows of a spine, since a few bytes can encode a great many.
        time: How long a request may wait for its next bytes, for a store, or for the client to read the response.
        requests: Most concurrent requests; further ones get 503.
        jobs: Most concurrent pushes, and most concurrent joins. Further ones wait for a slot, and get 429 if none becomes
            free in time.
        connections: Most open connections; further ones are closed.
    """

    keys: int = 1000
    body: int = 8 * 2**20
    spine: int = 10 * 2**30
    spine_rows: int = 200_000_000
    time: timedelta = timedelta(seconds=10)
    requests: int = 500
    jobs: int = 4
    connections: int = 1000

    @cached_property
    def seconds(self) -> float:
        """How long a request may wait, in seconds."""
        return self.time.total_seconds()


@dataclass(frozen=True)
class Options:
    """The options of a server.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        workers: The number of processes that answer requests.
        limits: The limits of each worker.
        access_log: Whether to write a line to stdout for each request.
        certificate: File with the TLS certificate and its chain, in PEM.
        key: File with the certificate's private key, in PEM.
        drain: How many seconds the server goes on when it is stopped, while it says so, so that no new requests come.
        grace: How many seconds requests in flight have to finish when the server stops.
        telemetry: Whether to send spans with OpenTelemetry, which the OTEL_* variables configure.

    Raises:
        DefinitionError: Only one of certificate and key is given, or a file does not exist.
    """

    host: str = "127.0.0.1"
    port: int = 6789
    workers: int = 1
    limits: Limits = Limits()
    access_log: bool = True
    certificate: Path | None = None
    key: Path | None = None
    drain: int = 0
    grace: int = 30
    telemetry: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise DefinitionError("TLS takes both --certificate and --key.")
        for file in (self.certificate, self.key):
            if file and not named(file).is_file():
                raise DefinitionError(f"There is no file {str(file)!r}.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address leads to this machine only.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
