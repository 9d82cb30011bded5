"""Locks between processes; the system lets go of them when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock that nobody else holds in any way."""
    with _held(path, fcntl.LOCK_EX):
        yield


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Hold a lock that others may hold together, but nobody alone."""
    with _held(path, fcntl.LOCK_SH):
        yield


@contextmanager
def _held(path: Path, kind: int) -> Iterator[None]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        yield  # where no file can be made, nobody writes
        return
    try:
        fcntl.flock(file, kind)
        yield
    finally:
        os.close(file)
