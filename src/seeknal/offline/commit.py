"""Commits: one Delta Lake transaction per snapshot.

File statistics have bounds for the event time only, and a table property declares that. Without the property, a reader that finds
bounds for some columns takes a column without bounds to be all null, and its filters on that column return no rows.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.errors import StoreError
from seeknal.offline.entries import check_table, latest
from seeknal.offline.log import METADATA, Commit, DataFile, Snapshot, fingerprint_of, noted
from seeknal.system.locks import exclusive_lock
from seeknal.system.postgres.locks import check_held
from seeknal.system.retry import Conflict
from seeknal.system.stored_paths import StoredPath, backing_of, is_shared, lock_file, plain, share
from seeknal.values.times import Interval, moment_of, now

REARRANGED = "optimize"
"""The mode of a commit that changes no rows, such as a compaction."""

ADOPTED = "adopt"
"""The mode of a commit that takes in rows written by another program."""

_KEEP_LOG = {"delta.enableExpiredLogCleanup": "false", "delta.logRetentionDuration": "interval 36500 days"}
_CHECKPOINT = 10
"""Commits between two checkpoints, which bounds how many log entries a reader replays to open the table."""
# deltalake's own hook would raise after a successful commit if the checkpoint fails, as if the commit itself had failed.
_NO_CHECKPOINT = PostCommitHookProperties(create_checkpoint=False)
_LONG_AGO = 0
"""Removal time (1970) of files that no snapshot needs: checkpoints name other removed files for a week, and leave these out at once."""
_APPEND_ONLY, _CONSTRAINT = "delta.appendOnly", "delta.constraints."


@dataclass(frozen=True)
class Step:
    """What one commit changes.

    Args:
        mode: The mode of the write, "rollback", "erase", `REARRANGED` or `ADOPTED`.
        version: The version of the group after the commit.
        schema: The schema of that version.
        removed: The files that the next snapshot no longer has.
        added: The files that it has in addition.
        interval: The interval of event time given to the write.
        written: How many rows get a new number.
        superseded: How many of them are hidden by others of the same join keys and event time.
        newest: The greatest event time of the rows written, in microseconds since 1970; None if there are none.
        rewritten: By the number of an older snapshot, the files that replace its own after an erasure.
        merged: By the path of a compacted file, the paths of the files that were compacted into it.
        hidden: How many stored rows do not count afterwards; None: as many as before.
        at: When the rows were acknowledged, in microseconds since 1970, which is then the time of the commit; None: now.
    """

    mode: str
    version: int
    schema: Schema
    removed: Sequence[DataFile] = ()
    added: Sequence[DataFile] = ()
    interval: Interval = field(default_factory=Interval)
    written: int = 0
    superseded: int = 0
    newest: int | None = None
    rewritten: Mapping[str, Sequence[DataFile]] = field(default_factory=dict)
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hidden: int | None = None
    at: int | None = None


def delta_schema(schema: Schema) -> DeltaSchema:
    """Return the Delta Lake schema of a table that holds rows of this version, with the row number as the last column."""
    fields = [pa.field(name, kind) for name, kind in zip(schema.names, schema.stored_types, strict=True)]
    return DeltaSchema.from_arrow(pa.schema([*fields, pa.field(ROW_ID, pa.int64())]))


def properties(schema: Schema) -> dict[str, str]:
    """Return the properties of a table: log entries are never cleaned up, and statistics cover the event time only."""
    name = schema.event_time.name.replace("`", "``")
    return {**_KEEP_LOG, "delta.dataSkippingStatsColumns": f"`{name}`"}


def create_table(root: StoredPath, schema: Schema) -> None:
    """Create an empty table in a folder, unless there is one.

    Raises:
        StoreError: It could not be made.
    """
    address, options = backing_of(root).address(root)
    try:
        with exclusive_lock(lock_file(root / "_commit.lock")):
            DeltaTable.create(
                address,
                delta_schema(schema),
                mode="ignore",
                configuration=properties(schema),
                storage_options=options,
            )
            share_log(root, 0)
    except (DeltaError, OSError) as error:
        raise StoreError(f"{root} could not be made: {plain(error)}") from error


def lacking(base: Snapshot) -> dict[str, str]:
    """Return the required properties that a table lacks, because an earlier release made it or another program changed it."""
    if base.commit is None:
        return {}
    there = base.settings
    return {name: value for name, value in properties(base.commit.schema).items() if there.get(name) != value}


def refuse_properties(base: Snapshot, *, removes: bool, adds: bool = True) -> None:
    """Refuse a write that a table property forbids.

    Args:
        base: The newest snapshot.
        removes: Whether the write removes stored rows.
        adds: Whether the write adds rows that the table does not have.

    Raises:
        StoreError: Another program set such a property.
    """
    there = base.settings
    table = f"DeltaTable({str(base.root)!r})"
    if removes and there.get(_APPEND_ONLY) == "true":
        raise StoreError(
            f"{base.label} has the table property {_APPEND_ONLY}=true, which another program set: rows can be added, but none "
            f'replaced. Unset it: {table}.alter.set_table_properties({{"{_APPEND_ONLY}": "false"}}).'
        )
    if adds and (name := next((name for name in there if name.startswith(_CONSTRAINT)), None)):
        raise StoreError(
            f"{base.label} has the table property {name}={there[name]!r}, a constraint of another program, which Seeknal "
            f'cannot check. Drop it: {table}.alter.drop_constraint("{name.removeprefix(_CONSTRAINT)}").'
        )


def check_newest(base: Snapshot) -> None:
    """Check that a snapshot is still the newest of its table.

    Raises:
        Conflict: Another writer committed since, or the table was deleted.
    """
    check_table(base.root, base.identity)
    try:
        newest = latest(base.root)
    except StoreError as error:  # it is gone since, or the storage does not answer
        check_table(base.root, base.identity, error)
        raise
    if newest != base.number:
        raise Conflict(f"Another writer changed {base.root} first.")


def known_commit(snapshot: Snapshot) -> Commit:
    """Return the newest commit of Seeknal up to a snapshot.

    Raises:
        StoreError: There is none.
    """
    if snapshot.commit is None:
        raise StoreError(f"Nothing was written to {snapshot.root} yet.")
    return snapshot.commit


def commit_files(base: Snapshot, step: Step, undo: ExitStack) -> Commit:
    """Commit the next snapshot, and keep its files unless it is certain that the commit did not happen.

    An interrupt between the commit and the return must not delete files that the new snapshot needs. So the clean-up in `undo`
    runs only if the commit is known to have failed.

    Args:
        base: The snapshot that the step was planned on.
        step: What changes.
        undo: Removes the new files when it is closed.

    Raises:
        Conflict: `base` is no longer the newest snapshot. Nothing was written.
        StoreError: The commit failed, or a lock could not be used. Nothing was stored.
    """
    changes_schema = base.commit is None or base.commit.schema != step.schema
    changes_rows = step.mode != REARRANGED
    actions: list[AddAction | RemoveAction] = [_add(file, step.schema, changes_rows) for file in step.added]
    if not changes_schema:  # a commit with a new schema is a Delta overwrite, which removes all files by itself
        spare = {name for names in step.merged.values() for name in names}
        actions += [
            RemoveAction(file.path, changes_rows, _LONG_AGO if file.path in spare else _milliseconds(), file.size, {})
            for file in step.removed
        ]

    for file in step.added:
        share(base.root / file.path)

    def act(table: DeltaTable, note: CommitProperties) -> None:
        table.create_write_transaction(
            actions,
            mode="overwrite" if changes_schema else "append",
            schema=delta_schema(step.schema),
            commit_properties=note,
            post_commithook_properties=_NO_CHECKPOINT,
        )

    return _commit(base, step, act, undo)


def commit_properties(base: Snapshot, missing: Mapping[str, str]) -> Commit:
    """Set table properties, in a commit whose snapshot holds the same rows.

    Raises:
        Conflict: `base` is no longer the newest snapshot. Nothing was written.
        StoreError: The table has no commit of Seeknal yet, or the commit failed. Nothing was stored.
    """
    if base.commit is None:
        raise StoreError(f"Nothing was written to {base.label} yet.")

    def act(table: DeltaTable, note: CommitProperties) -> None:
        table.alter.set_table_properties(
            dict(missing), False, commit_properties=note, post_commithook_properties=_NO_CHECKPOINT
        )

    return _commit(base, Step(REARRANGED, base.commit.version, base.commit.schema), act, ExitStack())


def _commit(base: Snapshot, step: Step, act: Callable[[DeltaTable, CommitProperties], None], undo: ExitStack) -> Commit:
    with exclusive_lock(lock_file(base.root / "_commit.lock")):
        commit = _commit_of(base, step)
        metadata = json.dumps({k: v for k, v in asdict(commit).items() if k != "snapshot" and (k != "token" or v)})
        check_newest(base)
        check_held()
        # From here on `undo` no longer cleans up. On success or an interrupt, `files` is dropped without running its callbacks.
        table, files = _opened(base), undo.pop_all()
        try:
            act(table, CommitProperties(custom_metadata={METADATA: metadata}, max_commit_retries=0))
        except (DeltaError, OSError) as error:
            _settle(base, metadata, error, files)
        share_log(base.root, commit.snapshot)
        if commit.snapshot % _CHECKPOINT == 0:
            with suppress(DeltaError, OSError):  # a checkpoint only makes reads faster, and the commit is done
                table.create_checkpoint()  # of `base`: a write transaction does not move `table` on
            _share_checkpoints(base.root)
        return commit


def _settle(base: Snapshot, metadata: str, error: Exception, files: ExitStack) -> None:
    """Return if the commit was made all the same: its entry may have been written, and only the answer was lost.

    Args:
        base: The snapshot that was to be followed.
        metadata: The note of the commit, which no other commit has.
        error: The error that was raised.
        files: Removes the new files.

    Raises:
        Conflict: Another writer committed first.
        StoreError: The commit was not made, or it is not known whether it was.
    """
    number, why = base.number + 1, plain(error)
    try:
        newest = latest(base.root)
        if newest > base.number and noted(base.root, number) == metadata:
            return
    except StoreError as unknown:
        raise StoreError(
            f"{base.label} may or may not have been written, as its storage does not answer: {why}. Look at it before you write again."
        ) from unknown
    if newest > base.number and isinstance(error, CommitFailedError):
        files.close()
        # Writers of this machine hold the lock, so the race was lost to another program or machine, whose entry is there by now.
        raise Conflict(f"Another writer changed {base.root} first.") from None
    if newest == base.number and is_shared(base.root):
        # The request may still be on its way. If it arrives, the snapshot needs its files; if not, a vacuum removes them.
        raise StoreError(
            f"{base.label} could not be written; most likely, nothing was stored: {why}. Look at it before you write again."
        ) from error
    files.close()
    raise StoreError(f"{base.label} could not be written; nothing was stored: {why}") from error


def share_log(root: StoredPath, number: int) -> None:
    """Share a table's log, and the entry of a snapshot, with the Unix group of the table's folder; see `seeknal.system.folders.share`."""
    share(root / "_delta_log")
    share(root / "_delta_log" / f"{number:020}.json")


def _share_checkpoints(root: StoredPath) -> None:
    log = root / "_delta_log"
    for file in log.glob("*checkpoint*") if isinstance(log, Path) else ():
        share(file)


def _opened(base: Snapshot) -> DeltaTable:
    """Return the Delta table at the version of a snapshot, reusing the one that the snapshot was read from if it still stands there.

    Raises:
        StoreError: It cannot be opened.
    """
    table = base.table
    try:
        if table and table.version() == base.number:
            return table
        address, options = backing_of(base.root).address(base.root)
        return DeltaTable(address, version=base.number, storage_options=options)
    except DeltaError as error:
        raise StoreError(f"{base.root} could not be opened; nothing was stored: {plain(error)}") from error


def _commit_of(base: Snapshot, step: Step) -> Commit:
    before, gone = base.commit, {file.path for file in step.removed}
    files = [*(file for file in base.files if file.path not in gone), *step.added]
    hidden = (before.hidden if before else 0) if step.hidden is None else step.hidden
    at = now() if step.at is None else step.at
    return Commit(
        snapshot=base.number + 1,
        version=step.version,
        schema_text=step.schema.dumps(),
        mode=step.mode,
        interval=step.interval,
        written=step.written,
        rows=sum(file.rows for file in files) - hidden,
        newest=step.newest,
        next_row_id=(before.next_row_id if before else 0) + step.written,
        at=_not_before(at, before, base.root),
        rewritten=step.rewritten,
        superseded=step.superseded,
        merged=step.merged,
        mark=fingerprint_of(files).hex(),
        hidden=hidden,
        token=uuid.uuid4().hex if is_shared(base.root) else "",
    )


def _not_before(at: int, before: Commit | None, root: StoredPath) -> int:
    """Return the time of a commit, which is that of the commit before or later.

    The clock may step back, and those of two machines may differ. If commit times went back, `as_of` a moment would see a later commit
    without an earlier one. In an object store, no two commits have the same time, so that a time tells which machine was first.
    """
    if before is None:
        return at
    return max(at, before.at + 1) if is_shared(root) else max(at, before.at)


def _add(file: DataFile, schema: Schema, changes_rows: bool) -> AddAction:
    name = schema.event_time.name
    stats: dict[str, object] = {"numRecords": file.rows}
    if file.start is not None and file.end is not None:  # unknown bounds are left out: readers then skip nothing
        bounds = {"minValues": {name: _iso(file.start)}, "maxValues": {name: _iso(file.end)}}
        stats |= {**bounds, "nullCount": {name: 0}}
    return AddAction(file.path, file.size, {}, _milliseconds(), changes_rows, json.dumps(stats))


def _iso(instant: int) -> str:
    return moment_of(instant).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
