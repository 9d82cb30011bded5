"""How a server is to run."""

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
    """What a server takes at most; each worker counts for itself.

    Args:
        keys: Entities in a request, and rows in a push.
        body: Bytes of a request.
        spine: Bytes of a spine, which is kept on disk while it is joined.
        spine_rows: Rows of a spine; a few bytes can be a great many.
        time: How long a request may wait for what it needs: its own next bytes, a store, a reader of the answer.
        requests: Requests at work at once; more get 503.
        jobs: Pushes at work at once, and joins at work at once; more wait for their turn, and get 429 if it does not come in time.
        connections: Connections; more are closed.
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
    """How a server is to run.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 takes a free one.
        workers: Processes that answer.
        limits: What is too much.
        access_log: Whether a line is written to stdout for each request.
        certificate: File with the TLS certificate and its chain, in PEM.
        key: File with the certificate's private key, in PEM.
        grace: How many seconds requests in flight may take when the server is told to stop.
        telemetry: Whether spans go to OpenTelemetry, as its OTEL_* variables say.

    Raises:
        DefinitionError: They do not go together.
    """

    host: str = "127.0.0.1"
    port: int = 6789
    workers: int = 1
    limits: Limits = Limits()
    access_log: bool = True
    certificate: Path | None = None
    key: Path | None = None
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
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address leads to this machine only.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
