"""Why a value of Feast differs from that of Seeknal. A reason is given only if it leads to exactly the value that Feast returned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.feast.equality import as_float32, as_served, same
from seeknal.feast.history import Candidate, History
from seeknal.feast.spines import MOMENT
from seeknal.feast.units import Stored, Unit, keys_of
from seeknal.request.functions import Functions
from seeknal.values.display import shown_duration
from seeknal.values.times import show

UNEXPLAINED = "not explained"
PAST, ONLINE = "past", "online"


@dataclass(frozen=True)
class Place:
    """Where two values differ.

    Args:
        kind: "past" or "online".
        row: The row of the spine: keys and request values.
        moment: The moment, in microseconds since 1970.
    """

    kind: str
    row: Mapping[str, Any]
    moment: int

    def key(self, columns: Mapping[str, str]) -> tuple[Any, ...]:
        """Return the key of a group for this row, from the columns of the spine by the keys of the group."""
        return tuple(self.row[column] for column in columns.values())


class Reasons:
    """Explains differences of one unit.

    Args:
        unit: The unit.
        asked: The rows of the spine, or the keys.
        histories: The rows of each group for the keys that occur, by the name of the group.
        functions: The functions of the unit, to run them on Feast's inputs; None if it has none.
    """

    def __init__(
        self,
        unit: Unit,
        asked: Sequence[Mapping[str, Any]],
        histories: Mapping[str, History],
        functions: Functions | None = None,
    ) -> None:
        self._asked, self._counts = asked, dict[tuple[str, ...], Counter[tuple[Any, ...]]]()
        self._stored = unit.stored
        self._functions = functions
        self._unit = unit
        self._histories = histories

    def of_value(self, name: str, place: Place, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
        """Return why a value differs.

        Args:
            name: The feature.
            place: Where it differs.
            ours: The row of Seeknal.
            theirs: The row of Feast.
        """
        if name in self._stored:
            return self._of_stored(self._stored[name], place, ours[name], theirs[name])
        return self._of_computed(name, place, ours, theirs)

    def _of_stored(self, stored: Stored, place: Place, ours: Any, theirs: Any) -> str:
        declared = stored.group.view.types[stored.feature]
        if reason := _of_type(declared, stored.group.rows.kinds[stored.feature], place, ours, theirs):
            return reason
        history = self._histories[stored.group.group.name]
        newest = history.newest(place.key(stored.keys), place.moment)
        taken = [one for one in newest if _is_from(one.values[stored.feature], declared, place.kind, theirs)]
        if not taken:
            return UNEXPLAINED
        if place.kind == ONLINE and ours is None and history.is_expired(taken[0], place.moment):
            assert history.ttl is not None  # noqa: S101 - without a ttl, no row expires
            ttl = shown_duration(timedelta(microseconds=history.ttl))
            return f"The row is older than the ttl of {ttl}, which Feast does not apply online."
        return _of_tie(newest, taken[0]) if len(newest) > 1 else UNEXPLAINED

    def _of_computed(self, name: str, place: Place, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
        """Return the inputs that differ, if the function makes Feast's value of those of Feast."""
        if self._functions is None:
            return UNEXPLAINED
        functions = self._functions.needed([name])
        given = {one: place.row[one] for one in self._unit.request}
        different = []
        for one in functions.inputs:
            if stored := self._stored.get(one):
                history, key = self._histories[stored.group.group.name], place.key(stored.keys)
                found = partial(history.value, key, place.moment, stored.feature)
                loaded = _loaded(found(despite_ttl=True), stored) if place.kind == ONLINE else found()
                given[one] = theirs.get(one, loaded)
                if not same(ours[one] if one in ours else found(), given[one]):
                    different.append(one)
        try:
            made = functions.row(given)[name]
        except DataError:
            return UNEXPLAINED
        if different and (same(made, theirs[name]) or same(as_float32(made), as_float32(theirs[name]))):
            return f"Feast computes it from another {' and '.join(different)}."
        return UNEXPLAINED

    def of_missing_row(self, place: Place) -> str:
        """Return why Feast returned no row for a row of the spine.

        Args:
            place: The row.
        """
        joined: dict[str, None] = {MOMENT: None}
        for lookup, group in self._unit.lookups:
            columns, history = keys_of(lookup, group), self._histories[group.group.name]
            key = place.key(columns)
            # Feast joins one view after the other, each time on the keys of all so far.
            joined |= dict.fromkeys(columns.values())
            if self._count(tuple(joined))[tuple(place.row[name] for name in joined)] > 1:
                named = " and ".join(name for name in joined if name != MOMENT)
                return f"Another row of the spine has the same {named} and moment, and Feast keeps one of them."
            newest = history.newest(key, place.moment)
            if history.of(key) and (not newest or history.is_expired(newest[0], place.moment)):
                when = "all later" if not newest else "none within the ttl"
                return f"Feast drops a row of the spine if {lookup.name} has rows of its key, but {when}."
        return UNEXPLAINED

    def _count(self, columns: tuple[str, ...]) -> Counter[tuple[Any, ...]]:
        """Return how many rows of the spine have the same values in some columns."""
        if columns not in self._counts:
            self._counts[columns] = Counter(tuple(row[name] for name in columns) for row in self._asked)
        return self._counts[columns]


def _loaded(value: Any, stored: Stored) -> Any:
    """Return a value of the file as Feast loads it into its online store."""
    return as_float32(value) if pa.types.is_float32(stored.group.view.types[stored.feature]) else value


def _of_type(declared: pa.DataType, kind: pa.DataType, place: Place, ours: Any, theirs: Any) -> str:
    """Return how the declared type changed a value that both stores have; nothing if it did not."""
    if place.kind == ONLINE and ours is not None:
        if pa.types.is_large_string(declared) and _is_parsed(ours, theirs):
            return "The feature is declared as Json, which Feast parses when it serves it."
        if declared != kind and same(as_float32(ours), theirs):
            return f"The file has {kind}, and the feature is declared as {declared}: Feast rounds it when it loads, but not for training."
    if isinstance(ours, int) and isinstance(theirs, int | float) and int(float(ours)) == theirs:
        return "Feast returns integers as float64 beside nulls, in which this one is not exact."
    return ""


def _is_from(value: Any, declared: pa.DataType, kind: str, theirs: Any) -> bool:
    """Return whether Feast's value is that of a row of the file."""
    if kind == PAST:
        return same(value, theirs)
    value = as_served(value)
    return (
        same(value, theirs)
        or same(as_float32(value), theirs)
        or (pa.types.is_large_string(declared) and _is_parsed(value, theirs))
    )


def _is_parsed(text: Any, theirs: Any) -> bool:
    try:
        return isinstance(text, str) and same(json.loads(text), theirs)
    except ValueError:
        return False


def _of_tie(newest: list[Candidate], taken: Candidate) -> str:
    """Return why Feast took another of several rows with the same key and event time."""
    when = show(newest[0].event // 1000)
    created = {one.created for one in newest}
    if len(created) == 1:
        return f"{len(newest)} rows have the event time {when} and the same created time: Seeknal takes the last, Feast any."
    latest = max(one.created for one in newest if one.created is not None)
    if taken.created == latest:
        return f"{len(newest)} rows have the event time {when}; several of them were created last: Seeknal takes the last of these, Feast any."
    own = "no created time" if taken.created is None else f"the created time {show(taken.created // 1000)}"
    return f"{len(newest)} rows have the event time {when}; Feast took one with {own}, Seeknal the one created last."
