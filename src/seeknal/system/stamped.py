"""Values that are computed again only when what they depend on has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stamped(Generic[T]):
    """Values by key, which hold until a stamp changes.

    Args:
        stamp: Returns a value that differs after each change of what the values depend on.
    """

    def __init__(self, stamp: Callable[[], bytes]) -> None:
        self._stamp = stamp
        self._known: tuple[bytes, dict[Hashable, T]] = b"", {}

    def get(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the value of a key, which is found anew after a change."""
        stamp = self._stamp()
        if stamp != self._known[0]:
            self._known = stamp, {}
        known = self._known[1]
        if key not in known:
            known[key] = find()  # the stamp was read before, so a change meanwhile is noticed by the next call
        return known[key]

    def peek(self, key: Hashable) -> T | None:
        """Return the value of a key if it is known and still holds, else None."""
        stamp, known = self._known
        return known.get(key) if stamp == self._stamp() else None
