"""What the rows of a space are made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from seeknal.values.times import Interval


@dataclass(frozen=True)
class Events:
    """When the events of the rows online are, as of a moment.

    Args:
        newest: The newest that has come by then; None: none has.
        next: No other comes before this; None: none comes at all.
    """

    newest: int | None
    next: int | None

    def holds(self, at: int) -> bool:
        """Tell whether it is so at a moment as well."""
        return (self.newest is None or self.newest <= at) and (self.next is None or at < self.next)

    def after(self, gone: Collection[int], come: Collection[int], at: int) -> Events | None:
        """Return what it is after some rows were put in place of others; None if only the other rows can tell.

        Args:
            gone: The event times of the rows of some entities.
            come: Those of the rows that these entities have now.
            at: A moment.
        """
        newest = max((time for time in come if time <= at), default=None)
        if not self.holds(at) or (self.newest in gone and (newest is None or newest < (self.newest or 0))):
            return None
        ahead = [time for time in come if time > at]
        return Events(_of(max, newest, self.newest), _of(min, self.next, *ahead))


def _of(choose: Callable[[Iterable[int]], int], *times: int | None) -> int | None:
    known = [time for time in times if time is not None]
    return choose(known) if known else None


@dataclass(frozen=True)
class State:
    """What the rows of a version that are online are made from, and for what they are good.

    The rows are a function of it: of the rows of that snapshot with an event time in those spans, the newest
    of each entity, and those that are to come.

    Args:
        origin: When the group was registered, which tells it from another group of its name.
        snapshot: The snapshot they are from.
        files: What tells the files of that snapshot from others: after an erasure, or a backup that was restored.
        spans: The spans of event time that were loaded, apart from each other and in order.
        ttl: How long the group's values are good for, in microseconds.
        kept: How long a store that forgets keeps them at least, in microseconds; None: for ever.
        at: When they were loaded.
        left: How many tables have left the version since, so that readers of these see that something has changed.
        home: The name of the home that loaded them; "" if a release did that knew no names, or their store is in the home itself.
        cleared: The time of the last erasure from the group that they know of, in microseconds since 1970, 0 if there was none;
            None if a release loaded them that did not note it. What an erasure removes may come back with a store that
            was restored, and is told by it.
        doubted: Whether `verify` found rows that are not what this says, so that the next load writes all of them anew.
        events: When the events of the rows are; None: it was loaded by an earlier release, which did not say.
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

    def dumps(self) -> bytes:
        """Write it as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def loads(cls, text: bytes) -> State:
        """Read what `dumps` wrote."""
        return msgspec.msgpack.decode(text, type=cls)
