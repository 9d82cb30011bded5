"""Streams of pushes: what a process knows of the rows of a group, so that it can tell new ones without a look at the stored rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.aggregations import conditions_of
from seeknal.define.schema import Schema
from seeknal.offline import DataFile
from seeknal.offline.push_log import Batch
from seeknal.registry import GroupRecord, GroupState, Load
from seeknal.registry.catalog import Catalog
from seeknal.registry.windowed import WindowedVersion
from seeknal.values.times import union
from seeknal.write.erasures import Erasures
from seeknal.write.identities import KnownIdentities, can_identify, identities
from seeknal.write.plain import PlainRows

if TYPE_CHECKING:
    from seeknal.engine import Engine

_MOST = 2**26
"""How many identities a process remembers of a group; they take half a gigabyte."""
_MOST_RECENT = 2**22
"""How many identities of a feature group a process remembers before it starts anew, from the rows that are stored then."""
_PER_PUSH = 200_000
"""How many identities are read in the time that a push takes which is committed at once, about."""
_REARRANGED = "optimize"
"""The mode of a compaction, whose snapshot has the same rows as the one before it."""


class New(NamedTuple):
    """What there is to know of rows that may be new: their least event time, their greatest created time, and their identities."""

    first: int
    created: int
    identities: np.ndarray


class Stream:
    """What this process knows of the rows of a group. The caller holds `lock` while it uses the object.

    A row of a feature group is new if it is later than all rows that were stored when this object was made, and if no row stored or
    pushed since has its join keys and event time. An event is new if no stored or pushed event has its id: those of all stored events
    are read.

    Args:
        catalog: The home's catalog.
        record: The group.
        engine: Returns the engine that evaluates conditions.
    """

    def __init__(self, catalog: Catalog, record: GroupRecord, engine: Callable[[], Engine]) -> None:
        self.lock = Lock()
        self.record = record
        self.seen = 0
        """The number of the last known entry of the push log."""
        self.snapshot = -1
        """The newest snapshot whose rows are known."""
        self._catalog, self._engine = catalog, engine
        self._stamp = b""
        self._files = frozenset[object]()
        self._known = KnownIdentities()
        self._floor: int | None = None
        self._created = -(2**63)
        self._pushes = 0

    @property
    def schema(self) -> Schema:
        """The schema of the current version."""
        return self.version.schema

    def is_ready(self) -> bool:
        """Return whether new rows can be told, as far as `update` knows."""
        return self._stamp == self._catalog.registry.stamp() and self._can and self.snapshot >= 0

    def update(self) -> bool:
        """Learn what has changed in the registry and the table, and return whether new rows can be told."""
        stamp = self._catalog.registry.stamp()
        if stamp != self._stamp:
            self._read_registry()
            self._stamp = stamp
        return self._can and (self._is_up_to_date or self._read_rows())

    def is_current(self) -> bool:
        """Return whether nothing has changed in the registry or the table since `update`."""
        return self._catalog.registry.stamp() == self._stamp and self._is_up_to_date

    def may_be_new(self, rows: pa.Table) -> New | None:
        """Return what there is to know of rows if they may be new; None if one of them is not, or that cannot be told.

        Args:
            rows: The rows, in stored types.
        """
        first, last_created = self._first(rows), self._created
        if self._floor is not None and first <= self._floor:
            return None
        # Of rows with the same time, the one with the greatest created time comes last, and lookups take the one pushed last.
        if created := self.schema.created_time:
            least, last_created = _bounds(rows, created.name)
            if least < self._created:
                return None
        if self.record.event_id is None and (self._loaded_from is None or first < self._loaded_from):
            return None
        if self._erasures.mask(self.schema, rows) is not None:
            return None
        found = identities(rows.select(self._identity))
        return None if len(found) > 1 and len(np.unique(found)) < len(found) else New(first, last_created, found)

    def knows_any(self, new: New) -> bool:
        """Return whether one of some rows is known."""
        return self._known.has_any(new.identities)

    def learn(self, new: New, number: int) -> None:
        """Remember the rows that were appended to the push log by this process, as an entry with a number."""
        self._known.add(new.identities)
        self._created, self.seen = max(self._created, new.created), number

    def learn_others(self, rows: pa.Table, number: int) -> None:
        """Remember the rows of an entry that another process has appended."""
        self._learn(rows)
        self.seen = number

    def masks(self, rows: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Return the conditions of windowed groups that are computed from the group, and for which rows each is true.

        Raises:
            DataError: A condition could not be evaluated.
        """
        if not self._conditions:
            return {}
        return dict(zip(self._conditions, self._engine().conditions(self.schema, rows, self._conditions), strict=True))

    def _read_registry(self) -> None:
        state = self._catalog.state_of(self.record)
        self.version = self._catalog.version_of(state)
        self._loaded_from = _loaded_from([load for load in state.loads if load.version == self.version.number])
        self.plain = PlainRows(self.version.schema)
        self._erasures = Erasures(self._catalog, state)
        self._conditions = self._conditions_of(state)
        self._identity = identity_of(self.schema, self.record)
        self._can = can_identify([self.schema.stored_type(name) for name in self._identity])

    def _conditions_of(self, state: GroupState) -> tuple[str, ...]:
        definitions = [
            version.definition
            for group in state.windowed
            for version in self._catalog.versions(group)
            if isinstance(version, WindowedVersion)
        ]
        return tuple(dict.fromkeys(text for one in definitions for text in conditions_of(one.windows)))

    @property
    def _is_up_to_date(self) -> bool:
        return self._catalog.log(self.record).newest() == self.snapshot

    def _read_rows(self) -> bool:
        """Learn the rows that were committed since the last call; return False if that would take longer than it saves."""
        offline = self._catalog.offline(self.record.project, self.record.name)
        base = offline.newest()
        if base is None or base.commit is None or base.commit.version != self.version.number:
            return False
        if self._floor is not None and len(self._known) > _MOST_RECENT:
            self._forget()
        batches = self._catalog.pushes.contents(self.record.stream, self.seen).batches
        mine = [batch for batch in batches if batch.last <= self.seen]
        if self.snapshot < 0:
            self._pushes += 1
            if self._pushes == 1 or not self._begin(base.files):  # a process may push only once
                return False
        elif not only_pushed(self._catalog, self.record, (self.snapshot, base.number), mine):
            if not self._read([file for file in base.files if file.key not in self._files]):
                return False
        else:
            self.snapshot = base.number
            return True
        self._files, self.snapshot = frozenset(file.key for file in base.files), base.number
        return True

    def _begin(self, files: Sequence[DataFile]) -> bool:
        if self.record.event_id is not None:
            return self._read(files)
        ends = [file.end for file in files]
        # Other programs truncate the greatest time of a file to whole milliseconds.
        self._floor = max((end + 999 for end in ends if end is not None), default=None)
        return None not in ends

    def _read(self, files: Sequence[DataFile]) -> bool:
        count = sum(file.rows for file in files)
        if count > self._pushes * _PER_PUSH or count + len(self._known) > _MOST:
            return False
        created = self.schema.created_time
        offline = self._catalog.offline(self.record.project, self.record.name)
        for rows in offline.columns(files, [*self._identity, *([created.name] if created else [])]):
            self._learn(rows)
        return True

    def _forget(self) -> None:
        self._known, self._files, self.snapshot, self.seen = KnownIdentities(), frozenset(), -1, 0

    def _learn(self, rows: pa.Table) -> None:
        self._known.add(identities(rows.select(self._identity)))
        if self.schema.created_time:
            self._created = max(self._created, _bounds(rows, self.schema.created_time.name)[1])

    def _first(self, rows: pa.Table) -> int:
        return _bounds(rows, self.schema.event_time.name)[0]


def _loaded_from(loads: Sequence[Load]) -> int | None:
    """Return the moment from which on all online stores have asked for all rows; None if there are none, or if one has not."""
    starts = []
    for target in {load.target for load in loads}:
        last = union([load.interval for load in loads if load.target == target])[-1]
        if last.end is not None:
            return None
        starts.append(-(2**63) if last.start is None else last.start)
    return max(starts, default=None)


def identity_of(schema: Schema, record: GroupRecord) -> list[str]:
    """Return the columns that identify a row of a group: see `seeknal.write.identities`."""
    return [*schema.key_names, *([schema.event_time.name] if record.event_id is None else [])]


def only_pushed(catalog: Catalog, record: GroupRecord, between: tuple[int, int], batches: Sequence[Batch]) -> bool:
    """Return whether all snapshots after one, up to another, are of batches of the push log, or only rearrange rows.

    Args:
        catalog: The home's catalog.
        record: The group.
        between: The numbers of the two snapshots.
        batches: The batches.
    """
    after, last = between
    known = {batch.snapshot for batch in batches if batch.stored}
    known |= {one.number for one in catalog.snapshots(record, after + 1) if one.mode == _REARRANGED}
    return known.issuperset(range(after + 1, last + 1))


def _bounds(rows: pa.Table, name: str) -> tuple[int, int]:
    """Return the least and the greatest time of a column, in microseconds since 1970; a missing time is less than all others."""
    times = rows[name].cast(pa.int64())
    found = pc.min_max(times).as_py()
    least = -(2**63)
    return (least if times.null_count else found["min"]), (least if found["max"] is None else found["max"])
