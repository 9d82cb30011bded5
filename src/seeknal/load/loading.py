"""Loading: the latest rows of a version go online, incrementally.

The online rows are a function of two things: the version's last snapshot, and the intervals of event time that were ever
requested. The online store keeps both beside the rows. So a load knows what to update, and it can be repeated, interrupted, or
overlap with another load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, repeat

import pyarrow as pa

from seeknal.define.feature_group import FeatureLookup
from seeknal.engine import Engine
from seeknal.errors import GroupDeletedError, StoreError, plural
from seeknal.load.ask import Ask
from seeknal.offline import OfflineTable, Snapshot
from seeknal.online import Codec, Entries, Events, LoadAttempt, OnlineStore, State
from seeknal.registry import GroupRecord, GroupState, Load, SnapshotRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.records import space_of
from seeknal.registry.source import Source, WindowedSource
from seeknal.system.home_identity import Identity
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values.times import Interval, now, union, without

_RETRIES = 50
_AT_ONCE = 10_000
_REARRANGED = "optimize"
"""The mode of a compaction, whose snapshot has the same rows as the one before it."""


@dataclass(frozen=True)
class Target:
    """The online store that a version is loaded into.

    Args:
        names: The names under which the registry records the load.
        place: The location of the store, without its password, for messages.
        owner: This home, if other homes may use the online store as well; else None.
        online: The online store.
        has: Returns whether a name in the registry stands for this store.
        taking_over: Returns the command that hands the version's rows in the store over to this home.
        kept: Returns how long a store that drops expired rows must keep a row after its event time, in microseconds, given
            the state of the group; None: forever.
    """

    names: tuple[str, ...]
    place: str
    owner: Identity | None
    online: OnlineStore
    has: Callable[[str], bool]
    taking_over: Callable[[], str]
    kept: Callable[[GroupState], int | None]


@dataclass(frozen=True)
class Loaded:
    """The result of a load.

    Args:
        group: Project and name of the group.
        version: The version that was loaded.
        snapshot: The snapshot that the rows were read from.
        interval: The interval that was requested.
        changed: The number of entities whose row was put or removed.
        online: The number of entities of the version that are online now, from all loads.
        seconds: How long the load took.
    """

    group: str
    version: int
    snapshot: int
    interval: Interval
    changed: int
    online: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.group} version {self.version}, snapshot {self.snapshot}: {plural(self.changed)} changed online; "
            f"{plural(self.online, 'entity')} online"
        )


@dataclass(frozen=True)
class _LoadGoal:
    """A version as it should be online after a load."""

    source: Source
    state: State
    writes: Sequence[SnapshotRecord]
    """The writes to the group's stored rows since the state that the load compares with."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is to be online."""
        return self.source.snapshot

    @property
    def codec(self) -> Codec:
        """The encoding of its rows."""
        return self.source.version.codec


class Loader:
    """Loads versions of groups into online stores."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    def load(self, state: GroupState, number: int, target: Target, ask: Ask) -> Loaded:
        """Load some intervals of a version, in addition to those loaded before.

        Args:
            state: What is known of the group.
            number: The version.
            target: Where to load it.
            ask: What to load.

        Raises:
            GroupDeletedError: The group was deleted; none of its rows is left in the store.
        """
        started = time.perf_counter()
        registry, record = self._catalog.registry, state.record
        at = now() if ask.at is None else ask.at
        load = _Load(self._catalog, self._engine, record, number, target, at, ask)
        requested = [(name, interval) for name in target.names for interval in ask.spans]
        known, begun = [state.loads], dict[tuple[str, Interval], int]()

        def step() -> Loaded:
            # The intervals are recorded before the attempt, which loads all recorded ones. A retry uses the same records.
            loads = [load for load in (known.pop() if known else registry.loads(record)) if load.version == number]
            new = [one for one in requested if one not in begun and not _covers(loads, *one)]
            if new:
                begun.update(zip(new, registry.begin_loads(record, number, new), strict=True))
            changed, online, snapshot = load.run()
            seconds = time.perf_counter() - started
            done = [(*one, begun.get(one)) for one in requested]
            if not registry.end_loads(record, number, done, snapshot, online, seconds):
                begun.clear()
                raise Conflict(f"Version {number} of {record.label} was removed from {target.place} during the load.")
            return Loaded(record.label, number, snapshot, ask.spans[0], changed, online, seconds)

        try:
            with self._catalog.lifetimes.using(record):
                return retry_on_conflict(record.label, step)
        except GroupDeletedError:
            load.withdraw()
            raise


def _covers(loads: Sequence[Load], target: str, interval: Interval) -> bool:
    """Return whether earlier loads into an online store, under this name, requested all of an interval."""
    return not without([interval], [load.interval for load in loads if load.target == target])


@dataclass(frozen=True)
class _Load:
    """One load of a version into an online store."""

    catalog: Catalog
    engine: Engine
    record: GroupRecord
    number: int
    target: Target
    at: int
    ask: Ask

    @property
    def space(self) -> str:
        return space_of(self.record.project, self.record.name, self.number)

    def withdraw(self) -> None:
        """Remove the rows that this load has written for a group that was deleted: the deletion came before them."""
        with suppress(KeyError):
            if State.loads(self.target.online.get(self.space, [])[0]).origin == self.record.created_at:
                self.target.online.drop(self.space)

    def run(self) -> tuple[int, int, int]:
        """Make one attempt, and return how many rows changed, how many are online, and the number of their snapshot.

        The online state is read before the offline snapshot, so that it cannot be the newer of the two. A shared lock keeps a
        vacuum from removing files that this attempt still has to read.
        """
        with self._offline.reading():
            return self._run()

    @cached_property
    def _offline(self) -> OfflineTable:
        stored = self.catalog.origin(self.record)
        return self.catalog.offline(stored.project, stored.name)

    def _run(self) -> tuple[int, int, int]:
        text, before = self._before()
        goal = self._goal(before, before)
        entities = None if before is None or self.ask.full else self._changed(before, goal)
        # Without a state to compare with, or with more changes than fit in one transaction, replace all rows.
        if text is None or entities is None or len(entities) > self.target.online.most_changes:
            online = self.target.online.replace(self.space, self._attempts(goal, text))
            return online, online, goal.snapshot.number
        entries = self._entries_of(goal, entities)
        state = replace(goal.state, events=self._events(goal, before, entries))
        online = self.target.online.change(self.space, text, state.dumps(), entries)
        return len(entries), online, goal.snapshot.number

    def _goal(self, before: State | None, base: State | None) -> _LoadGoal:
        """Return the version as it should be online.

        Args:
            before: The state that is online; None if there is none to build on.
            base: The state to find changes from; None: none.
        """
        known = self.catalog.state_of(self.record, base.snapshot if base else None)
        record = known.record
        # An erasure is recorded online before it is in the registry; see `Mover.take_out`.
        cleared = max(known.erased, (before.cleared if before else None) or 0)
        lookup = FeatureLookup(record.label, version=self.number)
        source = self.catalog.resolved(lookup, record, *self.catalog.read_of(known, self.number))
        snapshot = source.snapshot
        loads = [load for load in known.loads if load.version == self.number and self.target.has(load.target)]
        state = State(
            origin=record.created_at,
            snapshot=snapshot.number,
            files=snapshot.fingerprint,
            spans=tuple(union([load.interval for load in loads])),
            ttl=record.group.materialization.lifetime,
            kept=self.target.kept(known) if self.target.online.forgets else None,
            at=self.at,
            home=self.target.owner.name if self.target.owner else "",
            cleared=cleared,
            layout=source.version.codec.layout,
        )
        writes = known.snapshots
        if record.windowed and base:
            writes = tuple(self.catalog.snapshots(record, base.snapshot))
        return _LoadGoal(source, state, writes)

    def _before(self) -> tuple[bytes | None, State | None]:
        """Return the state that is online, as bytes and, if this load can build on it, as an object.

        Raises:
            StoreError: The rows belong to another home or to a deleted group, and the caller does not take them over.
        """
        try:
            text, _ = self.target.online.get(self.space, [])
        except KeyError:
            return None, None
        state, owner = State.loads(text), self.target.owner
        is_same = state.origin == self.record.created_at
        if owner is None or (is_same and owner.owns(state.home)):
            return text, state if is_same else None
        if self.ask.take_over:
            return text, None
        raise StoreError(
            f"{self.target.place} has rows of version {self.number} of {self.record.label} that belong to another home or to a "
            "deleted group, and nothing was loaded over them. Choose another database or folder. To hand the rows over to this "
            f"home: {self.target.taking_over()}."
        )

    def _changed(self, before: State, goal: _LoadGoal) -> pa.Table | None:
        """Return the entities whose online rows have to change; None if that can no longer be determined."""
        # A comparison of snapshots does not show rows that must go because their interval is no longer requested.
        is_other = before.doubted or before.kept != goal.state.kept or before.layout != goal.state.layout
        if is_other or without(before.spans, goal.state.spans):
            return None
        # With the same files, only intervals that were not loaded before can bring changes.
        old = goal.snapshot if before.files == goal.state.files else self._old(before, goal)
        if old is None:
            return None
        fresh = without(goal.state.spans, before.spans)
        # The clock of the last load was ahead, so it took some rows of the future for visible ones.
        if before.at > self.at:
            ahead = Interval(self.at + 1, before.at)
            fresh += [both for interval in goal.state.spans if (both := interval.intersect(ahead))]
        schema = goal.source.changed_schema()
        found = self._offline.changed(old, goal.snapshot, schema, goal.state.spans, fresh)
        return None if found is None else found.drop_null()

    def _old(self, before: State, goal: _LoadGoal) -> Snapshot | None:
        """Return the snapshot that is online, or one with the same rows; None if neither is known any more."""
        return _made_from(self.catalog, goal.source.stored, before, goal.snapshot, goal.writes)

    def _events(self, goal: _LoadGoal, before: State | None = None, entries: Entries | None = None) -> Events:
        """Return the event times of the online rows, derived from the previous ones and the changed entries if possible."""
        if entries is not None and before is not None and before.events is not None:
            codec = goal.codec
            try:
                _, gone = self.target.online.get(self.space, entries.keys)
            except KeyError:  # another session has removed the rows since their state was read
                raise Conflict(f"{self.space} was removed from {self.target.place} during the load.") from None
            gone_times = codec.times(gone, before.layout)
            known = before.events.after(gone_times, codec.times(entries.values), self.at)
            if known is not None:
                return known
        return Events(*self.engine.event_times(goal.source.rows(*goal.state.spans), self.at))

    def _entries_of(self, goal: _LoadGoal, entities: pa.Table) -> Entries:
        """Return the rows of some entities; None for those that have no row any more."""
        codec = goal.codec
        rows: dict[bytes, tuple[bytes | None, int]] = dict.fromkeys(codec.stored_keys(entities), (None, 0))
        kept = goal.state.kept
        if len(entities):
            for part in self._parts(goal, entities):
                rows |= zip(part.keys, zip(part.values, part.expires or repeat(0), strict=False), strict=True)
        every = sorted(rows.items())
        expires = None if kept is None else [expiry for _, (_, expiry) in every]
        return Entries([key for key, _ in every], [value for _, (value, _) in every], expires)

    def _attempts(self, goal: _LoadGoal, expected: bytes | None) -> Iterator[LoadAttempt]:
        """Yield all rows and then, in up to `_RETRIES` retries, the rows that other processes have changed since."""
        yield LoadAttempt(self._all(goal), expected, replace(goal.state, events=self._events(goal)).dumps())
        for _ in range(_RETRIES):
            base, (text, before) = goal, self._before()
            goal = self._goal(before, base.state)
            entities = self._changed(base.state, goal)
            if entities is None:
                return
            state = replace(goal.state, events=self._events(goal))
            yield LoadAttempt([self._entries_of(goal, entities)], text, state.dumps())

    def _all(self, goal: _LoadGoal) -> Iterator[Entries]:
        count, done = goal.source.rows(*goal.state.spans).count, 0
        for part in self._parts(goal):
            yield part
            done += len(part)
            self.ask.on_progress(f"Loading {self.record.label}: {done:,} entities online, from {plural(count)} in all")

    def _parts(self, goal: _LoadGoal, entities: pa.Table | None = None) -> Iterator[Entries]:
        """Yield the rows of all entities, or of some."""
        source = goal.source
        if isinstance(source, WindowedSource):
            codec = source.version.codec
            kept = source.kept(self.at - codec.looks_back, goal.state.spans)
            yield from codec.entries_of_events(self.engine.events(kept, entities))
            return
        rows = source.rows(*goal.state.spans)
        yield from goal.codec.entries(
            self.engine.latest(rows, future_after=self.at, entities=entities), goal.state.kept
        )


def _made_from(
    catalog: Catalog, record: GroupRecord, state: State, now: Snapshot, writes: Sequence[SnapshotRecord]
) -> Snapshot | None:
    """Return the snapshot that online rows were made from, or one with the same rows; None if neither is known any more.

    `now` has the same rows only if every snapshot in between is known to have merely rearranged rows. An unknown snapshot counts
    as a change of rows.
    """
    known = {one.number: one for one in writes}
    if state.snapshot not in known:
        return None
    old = catalog.stored(record, state.snapshot, known[state.snapshot].files)
    if old.fingerprint != state.files:
        return None
    between = range(state.snapshot + 1, now.number + 1)
    return now if all(number in known and known[number].mode == _REARRANGED for number in between) else old


def events_online(
    catalog: Catalog, engine: Engine, record: GroupRecord, number: int, online: OnlineStore, at: int
) -> Events:
    """Return the event times of the online rows of a version, as of an instant; none if the rows were removed.

    They are read from the offline rows that the online rows were made from or, if those are gone, from the online rows one by one.

    Args:
        catalog: The catalog, which leads to the offline rows.
        engine: Reads the offline rows.
        record: The group.
        number: The version.
        online: The store with the online rows.
        at: The instant, in microseconds since 1970.
    """
    space = space_of(record.project, record.name, number)
    try:
        state = State.loads(online.get(space, [])[0])
    except KeyError:
        return Events(None, None)
    stored = catalog.origin(record)
    with catalog.offline(stored.project, stored.name).reading():
        version, now = catalog.read(record, number)
        writes = catalog.snapshots(stored, state.snapshot)
        old = now if state.files == now.fingerprint else _made_from(catalog, stored, state, now, writes)
        if old is not None and old.is_whole:
            source = catalog.resolved(FeatureLookup(record.label), record, version, old)
            return Events(*engine.event_times(source.rows(*state.spans), at))
    times = _times_online(version.codec, online, space, state.layout)
    newest, following = [time for time in times if time <= at], [time for time in times if time > at]
    return Events(max(newest, default=None), min(following, default=None))


def _times_online(codec: Codec, online: OnlineStore, space: str, layout: bytes) -> set[int]:
    """Return the event times of the online rows of a space, read row by row."""
    times = set[int]()
    with suppress(KeyError):  # another process may remove them during the scan
        keys = iter(online.keys(space))
        while some := list(islice(keys, _AT_ONCE)):
            times |= codec.times(online.get(space, some)[1], layout)
    return times
