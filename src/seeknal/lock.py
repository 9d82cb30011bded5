"""Locks between processes, which the system lets go of when a process ends, however it ends; and one between threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from io import FileIO
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from seeknal.errors import StoreError
from seeknal.folders import may_write, share

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

__all__ = ["alone", "during", "once", "together"]

T = TypeVar("T")
_held: set[ref[FileIO]] = set()


def alone(path: Path) -> AbstractContextManager[object]:
    """Take a lock that nobody else holds in any way; `with` lets go of it."""
    return _lock(path, fcntl.LOCK_EX)


def together(path: Path) -> AbstractContextManager[object]:
    """Take a lock that others may hold together, but nobody alone; `with` lets go of it."""
    return _lock(path, fcntl.LOCK_SH)


def during(locks: Sequence[Callable[[], AbstractContextManager[object]]], step: Callable[[], T]) -> T:
    """Take a step while any number of locks are held."""
    if not locks:
        return step()
    with locks[0]():
        return during(locks[1:], step)


def _lock(path: Path, kind: int) -> AbstractContextManager[object]:
    """Open a file and lock it, until the file is closed.

    The file itself is the context manager, because its end is C: a KeyboardInterrupt can come between the end of a `with`
    block and the first line of an `__exit__` in Python, and the lock would be held for as long as the traceback is kept.
    """
    try:
        file = FileIO(_open(path))
    except OSError as error:
        if path.parent.exists() and may_write(path.parent):
            raise StoreError(f"The lock {path} cannot be used: {error}") from error
        return nullcontext()  # a user who may make no file here only reads
    try:
        _held.add(ref(file, _held.discard))  # in C too: what is raised in a callback is lost
        fcntl.flock(file, kind)
    except OSError as error:
        file.close()
        raise StoreError(f"The lock {path} cannot be used: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


def _open(path: Path) -> int:
    is_there = path.exists()
    file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    if not is_there:
        share(path)
    return file


def _let_go() -> None:
    """Close what a forked process inherits: the lock is its parent's, and would last until both have closed it."""
    for one in list(_held):
        if file := one():
            file.close()


os.register_at_fork(after_in_child=_let_go)
