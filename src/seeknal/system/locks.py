"""File locks between processes, which the system releases however a process ends, and a lock between threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from io import FileIO
from pathlib import Path
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from seeknal.errors import StoreError
from seeknal.system.folders import may_write, share

if TYPE_CHECKING:
    from functools import cached_property as locked_cached_property
else:

    class locked_cached_property(cached_property):  # noqa: N801 - a decorator
        """A cached property with one lock per instance and property: one thread computes it while the others wait.

        `functools.cached_property` has no lock since Python 3.12, and had one lock for all instances before.
        """

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            # The process id is part of the name, because a forked process can inherit a lock that a thread of its
            # parent holds and that is never released in the child.
            name = f"{self.attrname} is made in {os.getpid()}"
            with instance.__dict__.setdefault(name, RLock()):
                known = instance.__dict__
                if self.attrname not in known:
                    known[self.attrname] = self.func(instance)
                made = known[self.attrname]
            known.pop(name, None)  # only now: threads that wait on this lock find the value once they have it
            return made


__all__ = [
    "exclusive_lock",
    "hold",
    "holds_exclusive",
    "is_unlocked",
    "locked_cached_property",
    "note_exclusive",
    "shared_lock",
    "try_exclusive_lock",
    "while_holding",
]

T = TypeVar("T")
_held: set[ref[FileIO]] = set()
_exclusive: dict[int, list[ref[Any]]] = {}
"""The exclusive locks that each thread has taken, some of them released since."""
_holds: dict[Path, ref[FileIO]] = {}


def exclusive_lock(path: Path) -> AbstractContextManager[object]:
    """Wait for an exclusive lock on a file and take it. Leaving the `with` block releases it."""
    return _lock(path, fcntl.LOCK_EX)


def shared_lock(path: Path) -> AbstractContextManager[object]:
    """Wait for a shared lock on a file and take it. Leaving the `with` block releases it."""
    return _lock(path, fcntl.LOCK_SH)


def while_holding(locks: Sequence[Callable[[], AbstractContextManager[object]]], step: Callable[[], T]) -> T:
    """Run a step while holding all of these locks, taken in order, and return its result."""
    if not locks:
        return step()
    with locks[0]():
        return while_holding(locks[1:], step)


def _lock(path: Path, kind: int) -> AbstractContextManager[object]:
    """Open a file, creating it if needed, and lock it until the file is closed.

    The file object itself is the context manager, because its `__exit__` is implemented in C. A KeyboardInterrupt can
    arrive between the end of a `with` block and the first line of an `__exit__` written in Python. The lock would then
    be held for as long as the traceback is kept.

    Raises:
        StoreError: The file cannot be opened although this user may write to its folder, or it cannot be locked.
    """
    try:
        file = FileIO(_open(path))
    except OSError as error:
        if path.parent.exists() and may_write(path.parent):
            raise StoreError(f"The lock {path} cannot be used: {error}") from error
        return nullcontext()  # a user who may not create files here only reads, and needs no lock
    try:
        _note(file, kind)
        fcntl.flock(file, kind)
    except OSError as error:
        file.close()
        raise StoreError(f"The lock {path} cannot be used: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


def _note(file: FileIO, kind: int) -> None:
    # The callback is in C too: Python swallows what a weakref callback raises, a KeyboardInterrupt included.
    _held.add(ref(file, _held.discard))
    if kind & fcntl.LOCK_EX:
        note_exclusive(file)


def note_exclusive(lock: Any) -> None:
    """Note that this thread has taken an exclusive lock, by the object that holds it and is `closed` once it is released."""
    mine = _exclusive.setdefault(get_ident(), [])
    mine[:] = [one for one in mine if (known := one()) and not known.closed]
    mine.append(ref(lock))


def holds_exclusive() -> bool:
    """Return whether this thread holds an exclusive lock, so that it must not wait for others."""
    return any((file := one()) and not file.closed for one in _exclusive.get(get_ident(), ()))


def _open(path: Path, flags: int = os.O_CREAT) -> int:
    is_there = path.exists()
    file = os.open(path, os.O_RDONLY | flags, 0o666)
    if not is_there:
        share(path)
    return file


def try_exclusive_lock(path: Path) -> AbstractContextManager[object] | None:
    """Take an exclusive lock on a file without waiting, or return None if it cannot be had now."""
    return _tried(path, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_CREAT)


def is_unlocked(path: Path) -> bool:
    """Return whether no process holds a lock on a file, or the file does not exist."""
    file = _tried(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file is not None or not path.exists()


def hold(path: Path, *, make: bool = False) -> object:
    """Wait for a shared lock on a file, and hold it until the returned object is garbage-collected.

    Return None if the file cannot be opened or locked.

    Args:
        path: The lock file. A process opens it once, and all its holders share that open file.
        make: Create the file if it does not exist.
    """
    known = _holds.get(path)
    file = known() if known else None
    if file is None or not _is_at(file, path):  # the file may have been replaced, with its whole folder
        file = _tried(path, fcntl.LOCK_SH, os.O_CREAT if make else 0)
        for gone in [path for path, one in list(_holds.items()) if one() is None]:
            _holds.pop(gone, None)
        if file:
            _holds[path] = ref(file)
    return file


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (OSError, ValueError):  # ValueError: another thread is closing it, because its last holder is gone
        return False


class _Quiet(FileIO):
    """A file that is closed when it is garbage-collected, by C code and without a ResourceWarning."""

    __del__ = FileIO.close


def _tried(path: Path, kind: int, flags: int = 0) -> FileIO | None:
    """Open a file and lock it until the file object is garbage-collected. Return None if that fails."""
    try:
        file = _Quiet(_open(path, flags))
        _note(file, kind)
        fcntl.flock(file, kind)
    except OSError:
        return None
    return file


def _let_go() -> None:
    """Close the lock files that a forked process inherits.

    The locks belong to the parent, and a lock lasts until every process that shares the open file has closed it.
    """
    for one in list(_held):
        if file := one():
            file.close()
    _holds.clear()
    _exclusive.clear()


os.register_at_fork(after_in_child=_let_go)
