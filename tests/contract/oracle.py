"""The contract in plain loops: slow, obvious, and without a line of the product.

Instants and spans of time are whole microseconds, counted from 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Keys = tuple[Any, ...]


@dataclass
class Row:
    """One stored row; `place` is its number in the order of writing."""

    keys: Keys
    time: int
    created: int | None
    values: dict[str, Any]
    place: int = -1


class Oracle:
    """A feature group that keeps every row and scans all of them for each result.

    Args:
        ttl: How long a value is good for, inclusive; None: for ever.
        rows: What was written before.
    """

    def __init__(self, ttl: int | None = None, rows: Iterable[Row] = ()) -> None:
        self.ttl = ttl
        self.rows = list(rows)
        self._written = max((row.place for row in self.rows), default=-1) + 1

    def write(
        self, rows: Iterable[Row], mode: str = "overwrite", start: int | None = None, end: int | None = None
    ) -> None:
        """Write the rows that lie in a closed interval; rows of older writes take the columns of these.

        Args:
            rows: The rows; all have the same features.
            mode: "overwrite" drops what is stored in the interval first, "merge" leaves one row of each
                entity and event time that it writes, "append" does neither.
            start: First event time of the interval.
            end: Last event time of the interval.
        """
        if mode == "overwrite":
            self.rows = [row for row in self.rows if not within(row.time, start, end)]
        met = set()
        for row in rows:
            row.place = self._written
            self._written += 1
            if within(row.time, start, end):
                self.rows.append(row)
                met.add((row.keys, row.time))
        if mode == "merge":
            self.rows = [
                *(row for row in self.rows if (row.keys, row.time) not in met),
                *one_per_event(row for row in self.rows if (row.keys, row.time) in met),
            ]

    def take_features(self, names: Iterable[str]) -> None:
        """Change the schema: a removed feature loses its values, a new one is null in all rows."""
        names = list(names)
        for row in self.rows:
            row.values = {name: row.values.get(name) for name in names}

    def at(self, keys: Keys, moment: int | None, start: int | None = None, end: int | None = None) -> dict[str, Any]:
        """Return the features of an entity that are known at a moment; an empty mapping if none are.

        Args:
            keys: The entity.
            moment: The moment.
            start: Rows before this event time do not count.
            end: Rows after this event time do not count.
        """
        if moment is None or None in keys:
            return {}
        best: Row | None = None
        for row in self.rows:
            if row.keys != keys or row.time > moment or not within(row.time, start, end):
                continue
            if best is None or row.time > best.time or (row.time == best.time and wins(row, best)):
                best = row
        if best is None or (self.ttl is not None and moment - best.time > self.ttl):
            return {}
        return best.values

    def history(self, start: int | None = None, end: int | None = None) -> list[Row]:
        """Return one row per entity and event time of a closed interval, in any order."""
        return [row for row in one_per_event(self.rows) if within(row.time, start, end)]

    def newest(self, moment: int) -> Mapping[Keys, int]:
        """Return the entities that have a row at or before a moment, with the time of the last one."""
        times: dict[Keys, int] = {}
        for row in self.rows:
            if row.time <= moment and None not in row.keys:
                times[row.keys] = max(row.time, times.get(row.keys, row.time))
        return times


def within(time: int, start: int | None, end: int | None) -> bool:
    """Return whether an instant lies in a closed interval."""
    return (start is None or start <= time) and (end is None or time <= end)


def wins(row: Row, other: Row) -> bool:
    """Return the winner of two rows of one entity and event time: the one created later, or else written later."""
    if row.created != other.created:
        return other.created is None or (row.created is not None and row.created > other.created)
    return row.place > other.place


def one_per_event(rows: Iterable[Row]) -> list[Row]:
    """Return the winning row of each entity and event time."""
    best: dict[tuple[Keys, int], Row] = {}
    for row in rows:
        event = (row.keys, row.time)
        if event not in best or wins(row, best[event]):
            best[event] = row
    return list(best.values())
