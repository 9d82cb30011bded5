"""Streams of pushes: what a process knows of the rows of a group, so that it can tell new ones without a look at the stored rows.

A row of a feature group is new if it is later than all rows that were stored when the stream was begun, and if no row stored or pushed
since has its join keys and event time. An event is new if no stored or pushed event has its id: those of all stored events are read.

Where rows have created times, a new row has one at least as great as all before it, those of its own push included. For of rows with the
same event time, the one with the greatest created time comes last, while lookups take the one that was pushed last.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.aggregations import conditions_of
from seeknal.define.schema import Schema
from seeknal.offline import DataFile
from seeknal.offline.push_log import Batch
from seeknal.registry import GroupRecord, GroupState, Load, PinnedLookup
from seeknal.registry.catalog import Catalog
from seeknal.registry.windowed import WindowedVersion
from seeknal.values.times import union
from seeknal.write.erasures import Erasures
from seeknal.write.identities import KnownIdentities, can_identify, identities
from seeknal.write.plain import PlainRows

_MOST = 2**26
"""How many identities of events a process remembers; they take half a gigabyte."""
_MOST_RECENT = 2**22
"""How many identities of rows a process remembers of a feature group, before it begins anew."""
_PER_PUSH = 200_000
"""How many identities are read in the time that a push takes which is committed at once, about."""
_REARRANGED = "optimize"
"""The mode of a compaction, whose snapshot has the same rows as the one before it."""
_LEAST = -(2**63)


class New(NamedTuple):
    """What there is to know of rows that may be new.

    Args:
        first: Their least event time, in microseconds since 1970.
        created: Their least and their greatest created time; None if they have none.
        identities: Their identities.
    """

    first: int
    created: tuple[int, int] | None
    identities: np.ndarray


class Facts:
    """What the registry says of a group, as far as pushes depend on it.

    Args:
        catalog: The home's catalog.
        record: The group.
    """

    def __init__(self, catalog: Catalog, record: GroupRecord) -> None:
        self.stamp = catalog.registry.stamp()
        state = catalog.state_of(record)
        self.version = catalog.version_of(state)
        self.schema = self.version.schema
        self.plain = PlainRows(self.schema)
        self.conditions = _conditions_of(catalog, state)
        self.identity = identity_of(self.schema, record)
        self.can = can_identify([self.schema.stored_type(name) for name in self.identity])
        self._erasures = Erasures(catalog, state)
        # Events are online only in windowed groups, which have all that they need.
        loads = [load for load in state.loads if load.version == self.version.number]
        self._loaded_from = _LEAST if record.event_id is not None else _loaded_from(loads)
        if any(_follows(lookup, state, self.version.number) for table in state.tables for lookup in table.lookups):
            self._loaded_from = None  # the next load moves the table

    def may_be_new(self, rows: pa.Table) -> New | None:
        """Return what there is to know of rows if they may be new; None if one of them is not.

        Args:
            rows: The rows, in stored types.
        """
        first = _bounds(rows, self.schema.event_time.name)[0]
        if self._loaded_from is None or first < self._loaded_from or self._erasures.mask(self.schema, rows) is not None:
            return None
        found = identities(rows.select(self.identity))
        if len(found) > 1 and len(np.unique(found)) < len(found):
            return None
        created = self.schema.created_time
        if created and not _ascends(rows, created.name):
            return None
        return New(first, _bounds(rows, created.name) if created else None, found)


class Stream:
    """What this process knows of the rows of a group.

    Args:
        catalog: The home's catalog.
        record: The group.
    """

    def __init__(self, catalog: Catalog, record: GroupRecord) -> None:
        self.record = record
        self.facts: Facts | None = None
        """What the registry says; None before the first update."""
        self.lock = Lock()
        """Held while rows are appended, or while what has changed is read."""
        self.waiting: list[Any] = []
        """The rows that wait to be appended by the holder of the lock."""
        self.seen = 0
        """The number of the last known entry of the push log."""
        self.snapshot = -1
        """The newest snapshot whose rows are known."""
        self._catalog = catalog
        self._files = frozenset[object]()
        self._known = KnownIdentities()
        self._floor: int | None = None
        self._created = _LEAST
        self.pushes = 0
        """How many pushes of this process were committed at once."""

    @property
    def is_ready(self) -> bool:
        """Whether new rows can be told, as far as the last update knows."""
        facts = self.facts
        return facts is not None and facts.can and self.snapshot >= 0 and facts.stamp == self._catalog.registry.stamp()

    def update(self) -> bool:
        """Learn what has changed in the registry and the table, and return whether new rows can be told. The caller holds the lock."""
        if self.facts is None or self.facts.stamp != self._catalog.registry.stamp():
            self.facts = Facts(self._catalog, self.record)
        return self.facts.can and (self._has_newest or self._read_rows(self.facts))

    @property
    def is_current(self) -> bool:
        """Whether nothing has changed in the registry or the table since the last update."""
        return self.facts is not None and self._catalog.registry.stamp() == self.facts.stamp and self._has_newest

    @property
    def _has_newest(self) -> bool:
        return self._catalog.log(self.record).newest() == self.snapshot

    def learn(self, new: New) -> bool:
        """Remember rows if they are new, and return whether they are. The caller holds the lock."""
        if self._floor is not None and new.first <= self._floor:
            return False
        if (new.created and new.created[0] < self._created) or self._known.has_any(new.identities):
            return False
        self._known.add(new.identities)
        self._created = new.created[1] if new.created else _LEAST
        return True

    def learn_others(self, facts: Facts, rows: pa.Table) -> None:
        """Remember rows that are stored, or that another process has pushed. The caller holds the lock."""
        # A stored row without a key has no identity that a pushed row could have.
        self._known.add(identities(rows.select(facts.identity).drop_null()))
        if created := facts.schema.created_time:
            self._created = max(self._created, _bounds(rows, created.name)[1])

    def _read_rows(self, facts: Facts) -> bool:
        """Learn the rows that were committed since the last update; return False if that would take longer than it saves."""
        base = self._catalog.offline(self.record.project, self.record.name).newest()
        if base is None or base.commit is None or base.commit.version != facts.version.number:
            return False
        if self._floor is not None and len(self._known) > _MOST_RECENT:
            self._known, self._files, self.snapshot, self.seen = KnownIdentities(), frozenset(), -1, 0
        if self.snapshot < 0:
            if not self._begin(facts, base.files):
                return False
        else:
            come = (
                [] if self._has_only_pushes(base.number) else [one for one in base.files if one.key not in self._files]
            )
            if not self._read(facts, come):
                return False
        self._files, self.snapshot = frozenset(file.key for file in base.files), base.number
        return True

    def _has_only_pushes(self, number: int) -> bool:
        """Return whether the snapshots since the last update, up to a number, hold no other new rows than known entries of the log."""
        batches = self._catalog.pushes.contents(self.record.stream, self.seen).batches
        mine = [batch for batch in batches if batch.last <= self.seen]
        return only_pushed(self._catalog, self.record, (self.snapshot, number), mine)

    def _begin(self, facts: Facts, files: Sequence[DataFile]) -> bool:
        if self.record.event_id is not None:
            return self._read(facts, files)
        ends = [file.end for file in files]
        # Other programs truncate the greatest time of a file to whole milliseconds.
        self._floor = max((end + 999 for end in ends if end is not None), default=None)
        return None not in ends

    def _read(self, facts: Facts, files: Sequence[DataFile]) -> bool:
        count = sum(file.rows for file in files)
        if count > self.pushes * _PER_PUSH or count + len(self._known) > _MOST:
            return False
        created = facts.schema.created_time
        offline = self._catalog.offline(self.record.project, self.record.name)
        for rows in offline.columns(files, [*facts.identity, *([created.name] if created else [])]):
            self.learn_others(facts, rows)
        return True


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


def _conditions_of(catalog: Catalog, state: GroupState) -> tuple[str, ...]:
    """Return the conditions of the windowed groups that are computed from a group, in all versions of their definitions."""
    versions = [version for group in state.windowed for version in catalog.versions(group)]
    windows = [one.definition.windows for one in versions if isinstance(one, WindowedVersion)]
    return tuple(dict.fromkeys(text for one in windows for text in conditions_of(one)))


def _follows(lookup: PinnedLookup, state: GroupState, number: int) -> bool:
    """Return whether a table's lookup of a group is at another version than this one, and may have to move to it."""
    return lookup.is_of(state.record) and lookup.version != number and not lookup.pinned


def _loaded_from(loads: Sequence[Load]) -> int | None:
    """Return the moment from which on all online stores have asked for all rows; None if there are none, or if one has not."""
    starts = []
    for target in {load.target for load in loads}:
        last = union([load.interval for load in loads if load.target == target])[-1]
        if last.end is not None:
            return None
        starts.append(_LEAST if last.start is None else last.start)
    return max(starts, default=None)


def _ascends(rows: pa.Table, name: str) -> bool:
    """Return whether no time of a column is less than the one before it; a missing time is less than all others."""
    times = rows[name].cast(pa.int64()).fill_null(_LEAST).to_numpy()
    return bool((times[1:] >= times[:-1]).all())


def _bounds(rows: pa.Table, name: str) -> tuple[int, int]:
    """Return the least and the greatest time of a column, in microseconds since 1970; a missing time is less than all others."""
    times = rows[name].cast(pa.int64())
    found = pc.min_max(times).as_py()
    return (_LEAST if times.null_count else found["min"]), (_LEAST if found["max"] is None else found["max"])
