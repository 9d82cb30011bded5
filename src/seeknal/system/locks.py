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
from seeknal.system.folders import may_write, share

if TYPE_CHECKING:
    from functools import cached_property as locked_cached_property
else:

    class locked_cached_property(cached_property):  # noqa: N801 - a decorator
        """A property that one thread computes when it is first read, while others wait for that thread alone.

        Python's own has had no lock since 3.12, and before it one for all instances.
        """

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            # The process is in the name, since a forked process inherits a lock that a thread of its parent holds.
            name = f"{self.attrname} is made in {os.getpid()}"
            with instance.__dict__.setdefault(name, RLock()):
                known = instance.__dict__
                if self.attrname not in known:
                    known[self.attrname] = self.func(instance)
                made = known[self.attrname]
            known.pop(name, None)  # not before: a thread that waits has the lock, and finds what was made
            return made


__all__ = [
    "exclusive_lock",
    "hold",
    "is_unlocked",
    "locked_cached_property",
    "shared_lock",
    "try_exclusive_lock",
    "while_holding",
]

T = TypeVar("T")
_held: set[ref[FileIO]] = set()
_holds: dict[Path, ref[FileIO]] = {}


def exclusive_lock(path: Path) -> AbstractContextManager[object]:
    """Take a lock that nobody else holds in any way; `with` lets go of it."""
    return _lock(path, fcntl.LOCK_EX)


def shared_lock(path: Path) -> AbstractContextManager[object]:
    """Take a lock that others may hold together, but nobody alone; `with` lets go of it."""
    return _lock(path, fcntl.LOCK_SH)


def while_holding(locks: Sequence[Callable[[], AbstractContextManager[object]]], step: Callable[[], T]) -> T:
    """Take a step while any number of locks are held."""
    if not locks:
        return step()
    with locks[0]():
        return while_holding(locks[1:], step)


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


def _open(path: Path, flags: int = os.O_CREAT) -> int:
    is_there = path.exists()
    file = os.open(path, os.O_RDONLY | flags, 0o666)
    if not is_there:
        share(path)
    return file


def try_exclusive_lock(path: Path) -> AbstractContextManager[object] | None:
    """Take a lock that nobody else holds in any way, if that is possible without waiting; None if not."""
    return _tried(path, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_CREAT)


def is_unlocked(path: Path) -> bool:
    """Tell whether nobody holds a lock."""
    file = _tried(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file is not None or not path.exists()


def hold(path: Path, *, make: bool = False) -> object:
    """Take a lock that others may hold together, until what this returns is gone; None where there is nothing to lock.

    Args:
        path: A file, which all holders of a process have open once.
        make: Make it if it is not there.
    """
    known = _holds.get(path)
    if (file := known() if known else None) is None and (
        file := _tried(path, fcntl.LOCK_SH, os.O_CREAT if make else 0)
    ):
        for gone in [path for path, one in list(_holds.items()) if one() is None]:
            _holds.pop(gone, None)
        _holds[path] = ref(file)
    return file


class _Quiet(FileIO):
    """A file that is closed when it is gone, by C and without a warning."""

    __del__ = FileIO.close


def _tried(path: Path, kind: int, flags: int = 0) -> FileIO | None:
    """Open a file and lock it, until it is gone; None if it cannot be opened or locked."""
    try:
        file = _Quiet(_open(path, flags))
        _held.add(ref(file, _held.discard))
        fcntl.flock(file, kind)
    except OSError:
        return None
    return file


def _let_go() -> None:
    """Close what a forked process inherits: the lock is its parent's, and would last until both have closed it."""
    for one in list(_held):
        if file := one():
            file.close()
    _holds.clear()


os.register_at_fork(after_in_child=_let_go)
