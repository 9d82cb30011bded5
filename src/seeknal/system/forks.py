"""What a forked process must not share with its parent."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes one thing for each process, when it is first used there: connections, and what holds them.

    A forked process inherits the sockets and locks of its parent. Over the sockets it would take answers that are meant for its
    parent, and a thread that it does not have may hold the locks. So it makes its own, and never touches what it inherited.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._making = Lock()
        _every.add(self)

    def __call__(self) -> T:
        """Return what this process made; one thread makes it, and others wait."""
        made = self._made
        if made is None:
            with self._making:
                made = self._made = self._make() if self._made is None else self._made
        return made

    def forget(self) -> T | None:
        """Return what this process made, if it did, and make another when it is next used."""
        made, self._made = self._made, None
        return made

    def leave_to_parent(self) -> None:
        """Let go of what was inherited."""
        self._making = Lock()
        if (inherited := self.forget()) is not None:
            keep(inherited)


def keep(inherited: object) -> None:
    """Never free what was inherited: its destructors could wait for locks, or crash without threads, that are not there."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


_every: WeakSet[PerProcess[Any]] = WeakSet()


def _after_fork() -> None:
    for one in _every:
        one.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
