"""The rows of a Feast file for some keys, to find out which of them each store took."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.feast.plan import PlannedGroup


@dataclass(frozen=True)
class Candidate:
    """A row of the file.

    Args:
        event: Its event time in nanoseconds since 1970.
        created: Its created time, in the same way; None if it has none.
        values: Its features.
    """

    event: int
    created: int | None
    values: dict[str, Any]


class History:
    """The rows of a group for some keys, in the order of the file.

    Args:
        group: The group.
        keys: The keys, each as a tuple in the order of the group's keys.
    """

    def __init__(self, group: PlannedGroup, keys: Collection[tuple[Any, ...]]) -> None:
        self.ttl = group.group.materialization.lifetime
        names, dated = list(group.group.keys), group.group.materialization
        table = group.rows.read(among=(names[0], [one[0] for one in keys])).read_all()
        self._rows: dict[tuple[Any, ...], list[Candidate]] = {}
        events = _nanoseconds(table[group.group.event_time_col])
        created = _nanoseconds(table[dated.created_time_col]) if dated.created_time_col else [None] * table.num_rows
        places = table.select(names).to_pylist()
        values = table.select(list(group.view.types)).to_pylist()
        for key, event, recorded, own in zip(places, events, created, values, strict=True):
            if event is not None:
                self._rows.setdefault(tuple(key.values()), []).append(Candidate(event, recorded, own))

    def of(self, key: tuple[Any, ...]) -> list[Candidate]:
        """Return the rows of one key."""
        return self._rows.get(key, [])

    def newest(self, key: tuple[Any, ...], moment: int) -> list[Candidate]:
        """Return the rows with the latest event time at or before a moment, in microseconds, whatever the ttl says."""
        before = [one for one in self.of(key) if one.event <= moment * 1000]
        last = max((one.event for one in before), default=None)
        return [one for one in before if one.event == last]

    def value(self, key: tuple[Any, ...], moment: int, feature: str, *, despite_ttl: bool = False) -> Any:
        """Return the value of a feature at a moment in microseconds, by the rules of Seeknal.

        Args:
            key: The key.
            moment: The moment.
            feature: The feature.
            despite_ttl: Whether the ttl does not count.
        """
        newest = self.newest(key, moment)
        if not newest or (self.is_expired(newest[0], moment) and not despite_ttl):
            return None
        last = max(enumerate(newest), key=lambda one: (one[1].created is not None, one[1].created or 0, one[0]))
        return last[1].values[feature]

    def is_expired(self, one: Candidate, moment: int) -> bool:
        """Return whether the ttl of a row is over at a moment in microseconds."""
        return self.ttl is not None and one.event < (moment - self.ttl) * 1000


def _nanoseconds(column: pa.ChunkedArray) -> list[int | None]:
    kind = pa.timestamp("ns", "UTC")
    whole = column.cast(pa.timestamp("us")) if is_.is_date(column.type) else column
    found: list[int | None] = whole.cast(kind).cast(pa.int64()).to_pylist()
    return found
