"""Locks between processes; the system lets go of them when a process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock that nobody else holds in any way."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Hold a lock that others may hold together, but nobody alone."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
