"""Maintenance of a group's table: adopting rows, rolling back, cleaning, compacting, erasing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa

from seeknal.define.schema import Schema
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError, plural
from seeknal.offline import Commit, Snapshot, Write
from seeknal.offline.adoption import read_changed
from seeknal.offline.foreign import ForeignCommits
from seeknal.registry import GroupRecord, Version
from seeknal.registry.catalog import Catalog, SnapshotGone
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values.display import Shown, records
from seeknal.values.times import DAY, Interval, moment_of, now
from seeknal.write import leftovers, notices
from seeknal.write.erasures import warn_of_return
from seeknal.write.rows import check_ids, rows_to_store


@dataclass(frozen=True)
class Optimized:
    """The result of optimizing a group.

    Args:
        group: Project and name of the group.
        snapshot: Number of the newest snapshot afterwards.
        files_before: Number of files of the newest snapshot beforehand.
        files: Number of files of the newest snapshot afterwards.
        removed: Number of deleted files, which no snapshot needed any more.
        freed: Size of the deleted files in bytes.
    """

    group: str
    snapshot: int
    files_before: int
    files: int
    removed: int
    freed: int


@dataclass(frozen=True)
class Erased(Shown):
    """The receipt of an erasure.

    Args:
        group: Project and name of the group.
        keys: The erased join keys, by name.
        at: Time of the erasure, in microseconds since 1970.
        rows: Number of rows erased from the current version.
        snapshots: Numbers of the older snapshots that were kept, without the entity.
        files_removed: Number of deleted files, which held the entity.
        lost_snapshots: Number of older snapshots that can no longer be read.
        online: Number of online stores that were reloaded.
        training_sets: The training sets that held the entity and were deleted.
    """

    group: str
    keys: dict[str, object]
    at: int
    rows: int
    snapshots: tuple[int, ...]
    files_removed: int
    lost_snapshots: int
    online: int = 0
    training_sets: tuple[str, ...] = ()

    _moments = {"at": "time"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def time(self) -> datetime:
        """Time of the erasure, in UTC."""
        return moment_of(self.at)

    def __str__(self) -> str:
        keys = ", ".join(f"{name}={value!r}" for name, value in self.keys.items())
        return f"{self.group}: {plural(self.rows)} of {keys} erased; {plural(self.files_removed, 'file')} deleted"


@dataclass(frozen=True)
class Adopted(Shown):
    """The result of adopting the rows that other programs changed.

    Args:
        group: Project and name of the group.
        version: The version that the rows belong to.
        snapshot: Number of the snapshot that adopted them.
        commits: The commits of other programs, as text.
        rows: Number of new rows, which count as written now.
        kept: Number of rows in the changed files that are as Seeknal wrote them.
        removed: Number of rows that Seeknal wrote and that are gone.
        online_rows: Number of entities online now, if the group is online.
    """

    group: str
    version: int
    snapshot: int
    commits: tuple[str, ...]
    rows: int
    kept: int
    removed: int
    online_rows: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.group} version {self.version}, snapshot {self.snapshot}: {plural(self.rows)} adopted"]
        parts += [f"{plural(self.removed)} removed"] if self.removed else []
        parts += [f"{plural(self.online_rows, 'entity')} online"] if self.online_rows is not None else []
        return "; ".join([*parts, *self.commits])


def adopt(catalog: Catalog, record: GroupRecord, lookback_days: int) -> Adopted:
    """Check and number the rows that other programs changed, and commit them as one snapshot.

    Raises:
        DefinitionError: No other program changed rows.
        DataError: The rows do not fit the group; nothing was stored.
        StoreError: The table can no longer be read, or Seeknal never wrote to it.
    """
    offline = catalog.offline(record.project, record.name)

    def step() -> Adopted:
        foreign = offline.foreign()
        # Read after the table, as in the other calls: if the group still exists then, the table that was read is its own.
        state = catalog.state_of(record)
        version = catalog.version_of(state)
        before = foreign.commit
        if before is None or not foreign.harmful:
            foreign.refuse()
            raise DefinitionError(f"No other program changed rows of {record.label}: there is nothing to adopt.")
        if not foreign.has_layout:
            raise DataError(
                f"Another program gave {record.label} other columns or types ({foreign.harmful[0]}), which cannot be adopted: "
                f"Seeknal keeps {', '.join(before.schema.names)}. Read its rows, then {foreign.way_back}, and write() the rows."
            )
        found = read_changed(foreign, before.schema)
        rows = _fitting(found.rows, before.schema, record, foreign)
        done = offline.adopt(foreign, replace(found, rows=rows), are_events=record.event_id is not None)
        state = catalog.committed(state)
        catalog.tidy(record, done.snapshot)
        write = Write(rows, before.schema, version.number, "append", Interval())
        facts = notices.Facts.of(rows, before.schema)
        notices.warn_about_write(record.label, offline.snapshot(done.snapshot), write, facts, 0, lookback_days)
        warn_of_return(catalog, state, before.schema, lambda: [rows])
        return Adopted(
            record.label,
            done.version,
            done.snapshot,
            tuple(map(str, foreign.harmful)),
            done.written,
            len(rows) - done.written,
            before.rows + done.written - done.superseded - done.rows,
        )

    # What was pushed can only be committed afterwards.
    return retry_on_conflict(record.label, lambda: catalog.gate.closed(step))


def _fitting(rows: pa.Table, schema: Schema, record: GroupRecord, foreign: ForeignCommits) -> pa.Table:
    """Return rows of other programs as they are to be stored.

    Raises:
        DataError: They do not fit the group.
    """
    try:
        stored, _ = rows_to_store(rows, schema, Interval(), drop_nulls=None)
        if record.event_id is not None:
            check_ids(stored, schema)
    except DataError as error:
        raise DataError(
            f"Rows that another program wrote to {record.label} do not fit: {error} Or {foreign.way_back}."
        ) from None
    return stored


def rollback(catalog: Catalog, record: GroupRecord, number: int) -> Version:
    """Make a version current again, without deleting anything.

    Raises:
        DefinitionError: There is no such version, or it is the current one.
        StoreError: Its rows were vacuumed.
    """
    catalog.version(record, number)
    offline = catalog.offline(record.project, record.name)

    def step() -> Commit:
        base = offline.snapshot()
        version = catalog.version(record, number)
        if version.is_current:
            raise DefinitionError(f"Version {number} of {record.label} is the current one.")
        return offline.restore(base, catalog.snapshot(record, version))

    catalog.gate.committing(record, step)
    return catalog.version(record, number)


def rollback_definition(catalog: Catalog, record: GroupRecord, number: int) -> Version:
    """Make a version of a windowed group's definition current again.

    Raises:
        DefinitionError: There is no such version, or it is the current one.
    """
    if catalog.version(record, number).is_current:
        raise DefinitionError(f"Version {number} of {record.label} is the current one.")
    catalog.registry.choose_definition(record, number)
    return catalog.version(record, number)


def clean(catalog: Catalog, engine: Engine, record: GroupRecord, before: int, *, dry_run: bool) -> tuple[Version, int]:
    """Remove the rows of the current version that are older than an instant. Earlier snapshots keep their rows.

    Returns:
        The version, and the number of rows that were removed, or that a dry run would remove.
    """
    interval = Interval(None, before - 1)  # intervals are closed
    offline = catalog.offline(record.project, record.name)

    def step() -> tuple[Version, int]:
        snapshot = offline.snapshot()
        version = catalog.version(record)
        # The snapshot and the version are read one after the other, so another writer may have committed in between.
        if snapshot.commit is None or snapshot.commit.snapshot != version.snapshot:
            raise Conflict(f"Another writer changed {record.label} first.")
        count = engine.count(snapshot.within(version.schema, interval))[0]
        if count and not dry_run:
            # An overwrite without rows empties its interval.
            columns = [pa.array([], kind) for kind in version.schema.stored_types]
            empty = pa.Table.from_arrays(columns, names=version.schema.names)
            are_events = record.event_id is not None
            offline.write(
                snapshot,
                Write(empty, version.schema, version.number, "overwrite", interval, are_events=are_events),
            )
        return version, count

    return catalog.gate.committing(record, step)


def optimize(
    catalog: Catalog, record: GroupRecord, pinned: Callable[[], Sequence[Snapshot]], keep_days: int
) -> Optimized:
    """Compact small files, and delete files that no snapshot needs any more.

    Args:
        catalog: The catalog of the group's home.
        record: The group.
        pinned: Returns the snapshots that must stay readable; the last snapshot of each version stays readable too.
        keep_days: Snapshots that `as_of` reads for moments up to this many days back stay readable too.

    Raises:
        DefinitionError: `keep_days` is negative, or nothing was written yet.
    """
    if keep_days < 0:
        raise DefinitionError(f"keep_days={keep_days} is negative. Pass the number of days to keep, or 0.")
    catalog.version(record)
    offline = catalog.offline(record.project, record.name)
    before = offline.snapshot()
    catalog.gate.committing(record, offline.mend)
    catalog.gate.committing(record, lambda: offline.compact(offline.snapshot(), large=True))
    catalog.catch_up(record)
    start = now() - keep_days * DAY

    def needed() -> list[Snapshot]:
        last = _last_of_versions(catalog, record)
        writes = catalog.snapshots(record)
        # `as_of=start` reads the snapshot that was the newest at `start`, which was written at or before it.
        seen_from_start = max((one.number for one in writes if one.at <= start), default=0)
        return [*pinned(), *last, *_readable(catalog, record, seen_from_start)]

    with catalog.deleting():
        # While this call waited for the lock, the group may have been deleted, and another one created in its place.
        catalog.lifetimes.check(record)
        removed = offline.vacuum(needed, at_once=not keep_days)
        leftovers.remove(catalog)
    after = offline.snapshot()
    freed = sum(file.size for file in removed)
    return Optimized(record.label, after.number, len(before.files), len(after.files), len(removed), freed)


def _last_of_versions(catalog: Catalog, record: GroupRecord, *, current: bool = True) -> list[Snapshot]:
    """Return the last snapshot of each version, or of each but the current one, except those that were vacuumed."""
    found = []
    for version in catalog.versions(record):
        with suppress(SnapshotGone):
            found += [catalog.snapshot(record, version)] if current or not version.is_current else []
    return found


def _readable(catalog: Catalog, record: GroupRecord, first: int = 0) -> list[Snapshot]:
    """Return the snapshots from number `first` on whose files all exist, as their numbers and the files' paths and sizes."""
    files = {one.number: one.files for one in catalog.snapshots(record, first)}
    return catalog.log(record).readable(files)


def erase(catalog: Catalog, record: GroupRecord, entity: pa.Table, pinned: Callable[[], Sequence[Snapshot]]) -> Erased:
    """Erase an entity from all offline rows. Older snapshots that are not kept can become unreadable.

    Args:
        catalog: The catalog of the group's home.
        record: The group.
        entity: The entity's join keys, in one row, in logical types.
        pinned: Returns the snapshots to keep, without the entity; the last snapshot of each version is kept too.
    """
    offline = catalog.offline(record.project, record.name)
    catalog.catch_up(record)
    readable = len(_readable(catalog, record))
    rows = 0

    def kept() -> list[Snapshot]:
        last = _last_of_versions(catalog, record, current=False)
        return list({one.number: one for one in (*last, *pinned())}.values())

    def step() -> Commit | None:
        nonlocal rows
        base = offline.snapshot()
        done = offline.erase(base, kept(), entity)
        rows += 0 if done is None else base.rows - done.rows
        return done

    removed = None
    while removed is None:  # a training set saved in the meantime may have pinned a snapshot that holds the entity
        catalog.gate.committing(record, step)
        removed = offline.forget(entity, kept)
    left = len(_readable(catalog, record))
    numbers = tuple(sorted(one.number for one in kept()))
    return Erased(record.label, records(entity)[0], now(), rows, numbers, len(removed), max(readable - left, 0))
