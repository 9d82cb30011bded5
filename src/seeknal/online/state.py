"""What the rows of a space are made from."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from seeknal.times import Interval


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
        doubted: Whether `verify` found rows that are not what this says, so that the next load writes all of them anew.
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
    doubted: bool = False

    def dumps(self) -> bytes:
        """Write it as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def loads(cls, text: bytes) -> State:
        """Read what `dumps` wrote."""
        return msgspec.msgpack.decode(text, type=cls)
