"""The recorded loads of a group: the intervals of event time that were requested for each online store, and the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from seeknal.registry.records import Load
from seeknal.registry.sql import tables as t
from seeknal.values.times import Interval, now, without

_NOTES = 50
"""How many of the newest records to keep per version and online store. Older ones are kept while they tell what was requested."""


def of(db: Connection, group: int, version: int | None = None) -> list[Load]:
    """Return the loads of a group, of one version if it is given, oldest first."""
    query = select(t.load).where(t.load.c.group_id == group).order_by(t.load.c.id)
    if version is not None:
        query = query.where(t.load.c.version == version)
    return [
        Load(r.id, r.version, r.target, Interval(r.start, r.end), r.snapshot, r.rows, r.seconds, r.at)
        for r in db.execute(query)
    ]


def add(db: Connection, group: int, version: int, target: str, interval: Interval) -> int:
    """Record the request to load an interval into a store; return the id of the record."""
    # Ids ascend with time and are never reused, so that a load whose record was removed cannot end the record of another load.
    number = max(now(), 1 + (db.scalar(select(func.max(t.load.c.id))) or 0))
    values = {"version": version, "target": target, "start": interval.start, "end": interval.end}
    db.execute(insert(t.load).values(id=number, group_id=group, **values))
    return number


def end(
    db: Connection,
    group: int,
    version: int,
    intervals: Sequence[tuple[str, Interval, int | None]],
    outcome: dict[str, Any],
) -> bool:
    """Record the outcome of loads; see `Registry.end_loads`."""
    found = [_end(db, group, version, *one, outcome | {"at": now()}) for one in intervals]
    return all(found)


def _end(
    db: Connection,
    group: int,
    version: int,
    target: str,
    interval: Interval,
    begun: int | None,
    outcome: dict[str, Any],
) -> bool:
    known = {load.id: load for load in of(db, group, version) if load.target == target}
    # Without an id, earlier requests covered the interval. If they no longer do, the version was removed from the store meanwhile.
    if begun is None and without([interval], [load.interval for load in known.values()]):
        return False
    if begun is not None and begun not in known:  # removed meanwhile too
        return False
    number = add(db, group, version, target, interval) if begun is None else begun
    db.execute(update(t.load).where(t.load.c.id == number).values(**outcome))
    ended = [(load.id, load.interval) for load in known.values() if load.at is not None and load.id != number]
    if spare := _spare([*ended, (number, interval)]):
        db.execute(delete(t.load).where(t.load.c.id.in_(spare)))
    return True


def _spare(notes: Sequence[tuple[int, Interval]]) -> list[int]:
    """Return the ids of old records whose intervals others cover. The newest records are kept for users to look at.

    For example, of old records of January, January to March, and May, that of January is returned.
    """
    spare: list[int] = []
    for number, interval in notes[:-_NOTES]:
        if any(interval.intersect(other) == interval for one, other in notes if one not in {number, *spare}):
            spare.append(number)
    return spare
