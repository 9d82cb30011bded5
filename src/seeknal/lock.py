"""Locks between processes, which the system lets go of when a process ends, however it ends; and one between threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from seeknal.errors import StoreError

if TYPE_CHECKING:
    from functools import cached_property as once
else:

    class once(cached_property):  # noqa: N801 - a decorator
        """A property that is made when it is first asked for, by one thread, for which others wait.

        Python's own has had no lock since 3.12.
        """

        _making = RLock()

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            with once._making:
                return super().__get__(instance, owner)

    def _after_fork() -> None:
        once._making = RLock()  # noqa: SLF001 - its own

    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["alone", "once", "together"]


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
    except OSError as error:
        if os.access(path.parent, os.W_OK):
            raise StoreError(f"The lock {path} cannot be used: {error}") from error
        yield  # where no file can be made, nobody writes
        return
    try:
        try:
            fcntl.flock(file, kind)
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be used: {error}") from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing it is not enough: a process forked meanwhile has it open still
    finally:
        os.close(file)
