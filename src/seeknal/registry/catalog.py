"""The catalog of a home: groups by name over all projects, their versions, and their offline tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import reduce
from numbers import Integral
from typing import TYPE_CHECKING, Any

from seeknal.define.feature_group import FeatureGroup, FeatureLookup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import DataError, DefinitionError, GroupDeletedError, StoreError, notice
from seeknal.names import check_entity, quoted, split_label
from seeknal.offline.push_log import PushLog
from seeknal.offline.table_log import TableLog
from seeknal.registry import GroupRecord, GroupState, Registry, Version
from seeknal.registry.definitions import Definitions
from seeknal.registry.finder import Finder
from seeknal.registry.history import snapshots_after, state_after
from seeknal.registry.lifetimes import Lifetimes
from seeknal.registry.push_gate import CommitPushes, PushGate
from seeknal.registry.records import SnapshotRecord
from seeknal.registry.windowed import WindowedVersion, windowed_versions
from seeknal.system.storage import Location, Storage
from seeknal.values.arguments import check_number
from seeknal.values.times import Moment, instant, instant_or_none, now

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.define.schema import Schema
    from seeknal.offline import Commit, DataFile, OfflineTable, Snapshot
    from seeknal.registry.source import Source

AsOf = Moment | int | Mapping[str, int]
"""Selects what was stored by then: a moment, a snapshot's number, or a mapping from the names of groups to numbers."""


class SnapshotGone(StoreError):  # noqa: N818 - a state, not an error of the caller
    """The files of a snapshot were removed."""


class Catalog(Finder):
    """The content of a home: the registry and the offline tables, kept in sync.

    The log of an offline table is the record of what was written, and the registry is an index of it. If a process is killed
    between a commit and its entry in the registry, the entry is added when the group is next used.

    Args:
        storage: The storage of the home.
        registry: The registry of the home.
        open_table: Opens the offline table at a location.
        check_windows: Checks a windowed group against the schema of its source, before it is registered. None: none will be.
        commit_pushes: Commits what the push log has of a group; see `PushGate`.
    """

    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        open_table: Callable[[Location], OfflineTable],
        check_windows: Callable[[WindowedGroup, Schema], None] | None = None,
        commit_pushes: CommitPushes | None = None,
    ) -> None:
        super().__init__(storage, registry)
        self.definitions = Definitions(self, check_windows)
        self.lifetimes = Lifetimes(storage, registry)
        self.pushes = PushLog(storage.pushes)
        self._open_table = open_table
        self.gate = PushGate(commit_pushes)

    def last_erasures(self) -> Mapping[int, int]:
        """Return the time of the last erasure from each group, by the group's id."""
        return self.registry.last_erasures()

    def register(self, group: FeatureGroup, known: GroupRecord | None) -> GroupRecord:
        """Register a group, or update the parts of it that may change. A changed ttl or `online` gives a notice.

        Args:
            group: The group.
            known: The group as it is registered. None: the caller knows of none.
        """
        if known and isinstance(known.group, FeatureGroup) and known.group == group.completed(known.group):
            return known
        record = self.registry.save_group(group)
        old, new = (one.group.materialization for one in (known or record, record))
        for what in ("ttl", "online"):
            if getattr(old, what) != getattr(new, what):
                notice(f"{record.label} now has {what}={getattr(new, what)}; it had {what}={getattr(old, what)}.")
        return record

    def origin(self, record: GroupRecord) -> GroupRecord:
        """Return the group whose stored rows a group's values come from: the source of a windowed group, else the group itself.

        Raises:
            GroupDeletedError: The source was deleted, and the group before it.
        """
        if record.windowed is None:
            return record
        project, _, name = record.windowed.origin.partition("/")
        if (found := self.registry.group(project, name)) is None:
            raise GroupDeletedError.of(record.label)
        return found

    def offline(self, project: str, name: str) -> OfflineTable:
        """Return the offline table of a group."""
        return self._open_table(self.storage.tables.at(project, name))

    def log(self, group: GroupRecord | FeatureGroup) -> TableLog:
        """Return the log of a group's table, which needs neither Delta Lake nor DuckDB to be opened."""
        return TableLog(self.storage.tables.at(group.project, group.name))

    def catch_up(self, record: GroupRecord) -> list[Commit]:
        """Add to the registry the commits of a group that it does not have yet.

        Returns:
            The commits that could not be added now, for example because the disk is full. They are stored all the same.

        Raises:
            GroupDeletedError: The group was deleted.
        """
        if record.windowed:
            return []
        self.gate.commit(record)
        log, recorded = self.log(record), self.registry.last_snapshot(record)
        last = log.newest()
        if recorded > last:
            self.lifetimes.check(record)  # if the group is being deleted, its table goes first
            log = self.log(record)
            last = log.newest()
        if recorded > last:  # a killed deletion removed the table, but not its entries in the registry
            self.registry.forget_snapshots(record)
            recorded = -1
        if recorded == last:
            return []
        with self.lifetimes.using(record):
            commits = log.commits(recorded)
        try:
            if commits:
                self.registry.add_commits(record, commits)
        except StoreError:
            return commits
        return []

    def tidy(self, record: GroupRecord, number: int) -> None:
        """Trim the table of a group after a write, if it is due. While a backup or a deletion runs, the next write does it.

        Args:
            record: The group.
            number: The number of the newest snapshot.
        """
        if (log := self.log(record)).is_trim_due(number):
            with suppress(StoreError, OSError):  # the write is committed, so this must not make it fail
                if (lock := self.try_deleting()) is not None:
                    with lock:
                        log.trim()

    def state(self, name: str, project: str | None = None, since: int | None = None) -> GroupState:
        """Return the state of a group by its name; see `group`.

        Args:
            name: The name, or "project/name".
            project: The project. None: the only one that has such a group.
            since: Include the writes from this snapshot on. None: include no writes.

        Raises:
            DefinitionError: There is no such group, or several projects have one.
        """
        project, own = split_label("feature group", name, project)
        found = self.registry.states(project, own, since)
        if len(found) != 1:
            return self.state_of(self.group(own, project), since)
        return self._caught_up(found[0], since)

    def state_of(self, record: GroupRecord, since: int | None = None) -> GroupState:
        """Return the state of a group that the caller has found before; see `state`.

        Raises:
            GroupDeletedError: It was deleted, even if there is a group of its name again.
        """
        for state in self.registry.states(record.project, record.name, since):
            if state.record.id == record.id:
                return self._caught_up(state, since)
        raise GroupDeletedError.of(record.label)

    def group_and_versions(self, name: str, project: str | None = None) -> tuple[GroupRecord, Sequence[Version]]:
        """Return a group by its name, with its versions, oldest first; see `group`."""
        state = self.state(name, project)
        return state.record, state.versions

    def group_and_version(self, name: str, project: str, number: int) -> tuple[GroupRecord, Version]:
        """Return a group, and the version with a number.

        A version that the registry has never changes, so the group's table, which may be away, is read only for one that it lacks.

        Raises:
            DefinitionError: There is no such group or version.
        """
        for state in self.registry.states(project, name):
            known: Sequence[Version] = state.versions
            if state.record.windowed:
                known = self._windowed_versions(state.record, self.registry.versions(self.origin(state.record)))
            if found := next((one for one in known if one.number == number), None):
                return state.record, found
        record, versions = self.group_and_versions(name, project)
        return record, self.version_among(record, versions, number)

    def known_state(self, group: FeatureGroup) -> GroupState | None:
        """Return the state of a group that is to be written, with its table; None if it is not registered."""
        table = self.log(group).identity()
        with suppress(GroupDeletedError):
            for state in self.registry.states(group.project, group.name):
                return replace(self._caught_up(state, None), table=table)
        return None

    def _caught_up(self, state: GroupState, since: int | None) -> GroupState:
        """Return a state completed by the commits that the registry does not have yet."""
        record = state.record
        if record.windowed:
            return replace(state, versions=tuple(self.versions(record)))
        self.gate.commit(record)
        if state.last_snapshot == self.log(record).newest():
            return state
        unrecorded = self.catch_up(record)
        for again in self.registry.states(record.project, record.name, since):
            if again.record.id == record.id:
                return state_after(again, unrecorded, since)
        raise GroupDeletedError.of(record.label)

    def committed(self, state: GroupState) -> GroupState:
        """Add to the registry the commits to a group since a state, and return the state after them.

        Raises:
            GroupDeletedError: The group was deleted after the commits, and they with it.
        """
        with self.lifetimes.using(state.record):
            commits = self.log(state.record).commits(state.last_snapshot)
        try:
            return self.registry.add_commits(state.record, commits)
        except StoreError:  # a full disk, for example: the commits are stored, and `catch_up` adds them later
            return state_after(state, commits, None)

    def versions(self, record: GroupRecord, until: int | None = None) -> list[Version]:
        """Return a group's versions, oldest first. If `until` is given, return them as they were after that snapshot.

        Those of a windowed group are versions of its definition, over the source's version as it was after that snapshot.
        """
        if record.windowed:
            return self._windowed_versions(record, self.versions(self.origin(record), until))
        return self.registry.versions(record, until, self.catch_up(record))

    def _windowed_versions(self, record: GroupRecord, sources: Sequence[Version]) -> list[Version]:
        events = next((one for one in sources if one.is_current), None)
        definitions = self.registry.definitions(record) if events else ()
        return [*windowed_versions(record.windowed, definitions, events)] if record.windowed and events else []

    def snapshots(self, record: GroupRecord, first: int = 0) -> list[SnapshotRecord]:
        """Return the writes to a group from the snapshot `first` on, oldest first, including those not in the registry yet."""
        record = self.origin(record)
        unrecorded = self.catch_up(record)
        return snapshots_after(self.registry.snapshots(record, first), unrecorded, first)

    def snapshot_at(self, record: GroupRecord, as_of: AsOf) -> int:
        """Return the number of the newest snapshot at a moment; 0, the empty snapshot, if there was none.

        Args:
            record: The group.
            as_of: A moment that is not in the future, a snapshot's number, or a mapping from the names of groups to numbers.

        Raises:
            DefinitionError: There is no such snapshot; or the moment is in the future, so more may still be stored by then.
        """
        if isinstance(as_of, Mapping):
            origin = self.origin(record)
            named = (record.label, record.name, origin.label, origin.name)
            if not (given := [as_of[name] for name in named if name in as_of]):
                raise DefinitionError(f"as_of names no snapshot of {origin.label}. Add {origin.name!r}: NUMBER.")
            as_of = given[0]
        record = self.origin(record)
        offline = self.offline(record.project, record.name)
        if isinstance(as_of, bool):
            raise DefinitionError(f"as_of={as_of!r} is neither a time nor the number of a snapshot.")
        if isinstance(as_of, int | Integral):
            number = int(as_of)
            last = max([self.registry.last_snapshot(record), *(commit.snapshot for commit in self.catch_up(record))])
            if number not in (known := range(last + 1)):
                raise DefinitionError(
                    f"{record.label} has no snapshot {number}; it has {known.start} to {known.stop - 1}."
                )
            return number
        moment = instant(as_of)
        if moment > now():
            raise DefinitionError(f"as_of={as_of!r} is in the future.")
        self.pushes.wait()  # a push in progress may get a time before the moment, and so may a commit
        self.gate.commit(record)
        if offline.exists():
            self.log(record).wait_for_commits()
        unrecorded = [commit.snapshot for commit in self.catch_up(record) if commit.at <= moment]
        return max([self.registry.snapshot_at(record, moment), *unrecorded])

    def version(self, record: GroupRecord, number: int | None = None, until: int | None = None) -> Version:
        """Return the version with the given number; without a number, the current one.

        Raises:
            DefinitionError: There is no such version.
        """
        return self.version_among(record, self.versions(record, until), number)

    def version_of(self, state: GroupState, number: int | None = None) -> Version:
        """Return the version with the given number, as of a state; without a number, the current one.

        Raises:
            DefinitionError: There is no such version.
        """
        return self.version_among(state.record, state.versions, number)

    def version_among(self, record: GroupRecord, versions: Sequence[Version], number: int | None = None) -> Version:
        """Return the version with the given number among those of a group; without a number, the current one.

        Raises:
            DefinitionError: There is no such version.
        """
        for version in versions:
            if version.number == number or (number is None and version.is_current):
                return version
        if not versions and record.windowed:
            raise DefinitionError(
                f"Nothing was written to {record.windowed.origin} yet, from which {record.label} is computed."
            )
        if not versions:
            raise DefinitionError(f"Nothing was written to {record.kind} {record.name!r} yet. Call write() first.")
        if number is not None:
            check_number("version", number, 1)
        raise DefinitionError(
            f"Feature group {record.name!r} has no version {number}. There are: "
            f"{', '.join(str(version.number) for version in versions)}.",
            version=number,
        )

    def read(
        self, record: GroupRecord, number: int | None = None, as_of: AsOf | None = None
    ) -> tuple[Version, Snapshot]:
        """Return a version and its last snapshot, as of now or as of `as_of`.

        Raises:
            DefinitionError: There is no such version or snapshot.
            StoreError: The snapshot was vacuumed, or another program had changed the table by then.
        """
        until = None if as_of is None else self.snapshot_at(record, as_of)
        versions = self.versions(record, until)
        # By a moment, or as of now, commits of other programs could count too. A snapshot's number excludes them.
        origin = self.origin(record)
        if versions and (as_of is None or isinstance(as_of, date | str)):
            last = max(version.snapshot for version in self.versions(origin, until))
            self.log(origin).refuse_foreign(last, instant_or_none(as_of))
        # Nothing was written by then: return the empty snapshot, in the schema of the requested version, or of the first.
        if until is not None and not versions:
            return self.version(record, 1 if number is None else number), self.log(origin).empty_snapshot()
        version = self.version_among(record, versions, number)
        return version, self.snapshot(record, version)

    def read_of(self, state: GroupState, number: int | None) -> tuple[Version, Snapshot]:
        """Return a version and its last snapshot, as of a state; without a number, the current one.

        Raises:
            DefinitionError: There is no such version.
            StoreError: The snapshot was vacuumed, or another program changed the table.
        """
        if state.record.windowed:
            return self.read(state.record, number)
        version = self.version_of(state, number)
        self.log(state.record).refuse_foreign(state.last_snapshot, None)
        return version, self.snapshot(state.record, version)

    def fingerprint(self, record: GroupRecord, number: int, versions: Sequence[Version] | None = None) -> bytes:
        """Return the fingerprint of the files of a version's last snapshot. If it was recorded, the list of files is not read.

        Args:
            record: The group.
            number: The version.
            versions: The versions of the group, if the caller has them.

        Raises:
            DefinitionError: There is no such version.
            StoreError: Another program changed the table, or the snapshot was vacuumed.
        """
        from seeknal.offline.log import fingerprint_of

        if record.windowed:
            return self.read(record, number)[1].fingerprint
        versions = self.versions(record) if versions is None else versions
        version, last = self.version_among(record, versions, number), max(one.snapshot for one in versions)
        self.log(record).refuse_foreign(last, None)
        if version.files is not None:
            return fingerprint_of(version.files)
        return self.log(record).fingerprint(version.snapshot) or self.snapshot(record, version).fingerprint

    def entity(self, record: GroupRecord, keys: Mapping[str, Any], fields: Sequence[pa.Field] = ()) -> pa.Table:
        """Return the join keys of one entity of a group, as a table with one row, in types that hold the keys of all versions.

        A value outside the range of its key's type keeps a wider type.

        Args:
            record: The group.
            keys: The join keys.
            fields: Their types, if the group is not registered.

        Raises:
            DataError: The keys have wrong names or types.
        """
        import pyarrow as pa

        from seeknal.values.exact import read_keys

        check_entity(keys)
        fields = fields or self._widest_keys(record)
        names = [field.name for field in fields]
        lacking, extra = [name for name in names if name not in keys], [name for name in keys if name not in names]
        if lacking or extra:
            odd = [f"{quoted(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"] if lacking else []
            odd += (
                [f"{quoted(extra)} {'is not a join key' if len(extra) == 1 else 'are not join keys'}"] if extra else []
            )
            raise DataError(f"{record.label} is keyed by {', '.join(names)}; {' and '.join(odd)}.")
        columns = [read_keys(field.name, [keys[field.name]], field.type) for field in fields]
        return pa.Table.from_arrays(columns, names=names)

    def _widest_keys(self, record: GroupRecord) -> list[pa.Field]:
        """Return the join keys in types that hold those of all versions. Writes widen the types, and rollbacks narrow them."""
        from seeknal.values import types

        state = self.state_of(record)
        return [
            reduce(lambda wide, other: wide.with_type(types.together(wide.type, other.type) or wide.type), fields)
            for fields in zip(*(one.schema.keys for one in (self.version_of(state), *state.versions)), strict=True)
        ]

    def snapshot(self, record: GroupRecord, version: Version) -> Snapshot:
        """Return a version's last snapshot; for a version of a windowed group, that of the source's version.

        If its files were vacuumed after another program compacted the table, the result has the compacted files, with the
        same rows.

        Raises:
            SnapshotGone: The snapshot was vacuumed.
            GroupDeletedError: The group was deleted.
        """
        record = self.origin(record)
        found = self.stored(record, version.snapshot, version.files)
        if found.is_whole:
            return found
        self.lifetimes.check(record)  # else the files are gone because the group was deleted
        log = self.log(record)
        for number in log.same_after(found.commit) if version.files is None else ():
            if (again := self.stored(record, number, None)).is_whole:
                return replace(again, number=version.snapshot)
        vacuum = log.vacuumed_by(version.snapshot)
        culprit = f"another program's vacuum, {vacuum}," if vacuum else "`seeknal optimize` or `seeknal erase`"
        raise SnapshotGone(f"Snapshot {version.snapshot} of {record.label} is gone: {culprit} removed its rows.")

    def stored(self, record: GroupRecord, number: int, files: tuple[DataFile, ...] | None) -> Snapshot:
        """Return a snapshot by its number. If entities were erased from it, `files` are those that replaced its own."""
        with self.lifetimes.using(record):
            return self.offline(record.project, record.name).snapshot(number, files)

    def source(self, lookup: FeatureLookup, as_of: AsOf | None = None) -> Source:
        """Return the source of a lookup: the rows of its version, as stored now or as of `as_of`."""
        from seeknal.registry.source import tell_of_ttl

        if isinstance(lookup.source, WindowedGroup):
            return self.definitions.source(lookup, lookup.source, as_of)
        state = None if as_of is not None else self.state(lookup.name, lookup.project)
        record = state.record if state else self.group(lookup.name, lookup.project)
        if record.event_id is not None:
            raise DefinitionError(
                f"{record.label} is an event source, whose events are no features by themselves. Say what to compute of them: "
                f'WindowedGroup(name, entity, source={record.label!r}, features={{"events_7d": Count(over="7d")}}).'
            )
        tell_of_ttl(record, getattr(lookup.source, "materialization", None))
        if state is None:
            return self.resolved(lookup, record, *self.read(record, lookup.version, as_of))
        # The state has what was pushed before; later pushes need not be committed for this call.
        return self.resolved(lookup, record, *self.gate.closed(lambda: self.read_of(state, lookup.version)))

    def resolved(self, lookup: FeatureLookup, record: GroupRecord, version: Version, snapshot: Snapshot) -> Source:
        """Return the source of a lookup whose group, version and snapshot are known."""
        from seeknal.registry.source import Source, WindowedSource

        if isinstance(version, WindowedVersion):
            return WindowedSource(lookup, record, version, snapshot, self.origin(record))
        return Source(lookup, record, version, snapshot)
