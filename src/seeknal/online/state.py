"""The state of a space: what its rows were made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from seeknal.values.times import Interval


@dataclass(frozen=True)
class Events:
    """The event times of the rows that are online, as of an instant.

    Args:
        newest: The newest event time at or before the instant; None: there is none.
        next: A lower bound of the event times after the instant: none is earlier. None: there are none.
    """

    newest: int | None
    next: int | None

    def holds(self, at: int) -> bool:
        """Return whether this also holds as of another instant."""
        return (self.newest is None or self.newest <= at) and (self.next is None or at < self.next)

    def after(self, gone: Collection[int], come: Collection[int], at: int) -> Events | None:
        """Return the event times after the rows of some entities were replaced; None if they depend on other entities' rows.

        Args:
            gone: The event times of the rows that these entities had.
            come: The event times of the rows that they have now.
            at: The instant that the result is as of.
        """
        newest = max((time for time in come if time <= at), default=None)
        # If the newest row is gone and no row as new replaces it, another entity may have the newest one now.
        if not self.holds(at) or (self.newest in gone and (newest is None or newest < (self.newest or 0))):
            return None
        ahead = [time for time in come if time > at]
        return Events(_of(max, newest, self.newest), _of(min, self.next, *ahead))


def _of(choose: Callable[[Iterable[int]], int], *times: int | None) -> int | None:
    known = [time for time in times if time is not None]
    return choose(known) if known else None


@dataclass(frozen=True)
class State:
    """What the online rows of a version were made from, and how long they are valid.

    The rows are a function of the state. Of the snapshot's rows with an event time in the intervals, they are the latest row of
    each entity and all future rows.

    Args:
        origin: When the group was registered, which distinguishes it from another group of the same name.
        snapshot: The number of the snapshot that the rows are from.
        files: The fingerprint of the snapshot's files, which differs after an erasure, or after a backup was restored.
        spans: The intervals of event time that were loaded, disjoint and in order.
        ttl: How long the group's values are valid, in microseconds.
        kept: How long a store that drops expired rows keeps them at least, in microseconds; None: forever.
        at: When the rows were loaded.
        left: How many tables that use the version have changed since. It is in the state so that readers of those tables
            notice the change.
        home: The identity of the home that loaded the rows; "" if the store is in the home, or if a release without identities
            loaded them.
        cleared: The time of the last erasure from the group that the rows take into account, in microseconds since 1970; 0: there
            was none; None: they were loaded by a release that did not record it. It reveals a store that was restored from before
            an erasure, and so has erased rows again.
        doubted: Whether `verify` found rows that contradict this state, so that the next load rewrites all of them.
        events: The event times of the rows; None: they were loaded by an earlier release, which did not record them.
        layout: How the rows are laid out, if their schema does not say it; see `Codec.layout`.
    """

    origin: int
    snapshot: int
    files: bytes
    spans: tuple[Interval, ...]
    ttl: int | None
    kept: int | None
    at: int
    left: int = 0
    home: str = ""
    cleared: int | None = None
    doubted: bool = False
    events: Events | None = None
    layout: bytes = b""

    def dumps(self) -> bytes:
        """Serialize the state."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def loads(cls, text: bytes) -> State:
        """Return a state from what `dumps` returned."""
        return msgspec.msgpack.decode(text, type=cls)
