"""Objects that a forked process must not share with its parent."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from seeknal.errors import StoreError

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object per process, created on first use there: a connection, or an object that holds connections.

    A forked process inherits its parent's sockets and locks. Reading from an inherited socket would steal responses
    meant for the parent, and an inherited lock may be held by a thread that does not exist in the child. So the child
    creates its own object and never touches the inherited one.

    Args:
        make: Creates the object.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._making = Lock()
        _every.add(self)

    def __call__(self) -> T:
        """Return this process's object. One thread creates it while the others wait."""
        made = self._made
        if made is None:  # checked without the lock first: almost every call finds the object
            with self._making:
                made = self._made = self._make() if self._made is None else self._made
        return made

    def forget(self) -> T | None:
        """Drop this process's object and return it, or None if it has none. The next use creates a new one."""
        made, self._made = self._made, None
        return made

    def leave_to_parent(self) -> None:
        """Drop the inherited object without freeing it, and replace the inherited lock. Called in a forked child."""
        self._making = Lock()
        if (inherited := self.forget()) is not None:
            keep(inherited)


def refuse_fork(user: str, advice: str) -> None:
    """Raise an error in a forked process that would use a library whose threads do not survive a fork, before it panics.

    Args:
        user: The operations that use the library, for the message.
        advice: An alternative that works after a fork.

    Raises:
        StoreError: This process was forked from one that has called this.
    """
    # The set is inherited too: in a child of a process that has called this, it has the ids of both.
    _users.add(os.getpid())
    if len(_users) > 1:
        raise StoreError(
            f"This process was forked from one that has used {user}, and cannot use them itself. Start it with "
            f'multiprocessing.get_context("spawn"), or fork before the first use. {advice}'
        )


class _OfThread(threading.local):
    """A lock per thread, which a fork waits for."""

    def __init__(self) -> None:
        with _making:
            self.lock = threading.RLock()
            _of_threads.add(self.lock)


def unforked() -> AbstractContextManager[object]:
    """Return a context in which this thread can use a library that keeps locks of its own: a fork by another thread waits for its end.

    SQLite is one: a process forked while a thread is in it waits forever for a lock that no thread of it holds. The context manager is
    implemented in C, so an interrupt does not leave it open.
    """
    return _own.lock


def keep(inherited: object) -> None:
    """Leak a reference so that an inherited object is never freed.

    Its destructor could wait for a lock that a thread of the parent holds, or crash because threads it needs are
    missing.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


_every: WeakSet[PerProcess[Any]] = WeakSet()
_users: set[int] = set()
"""The processes that have called `refuse_fork`: this one, and those that it was forked from."""


_making = Lock()
_of_threads: WeakSet[Any] = WeakSet()
_waited: list[Any] = []
_own = _OfThread()


def _before_fork() -> None:
    _making.acquire()
    _waited[:] = _of_threads
    for lock in _waited:
        lock.acquire()


def _after_fork() -> None:
    while _waited:
        _waited.pop().release()
    _making.release()


def _in_child() -> None:
    for one in _every:
        one.leave_to_parent()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
