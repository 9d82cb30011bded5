"""Writing a table: new files first, then one commit that swaps them in, or nothing.

Writers use optimistic concurrency: a write is planned on one snapshot and committed as the next. A writer that loses the race
re-plans on the new snapshot, so concurrent writes are serializable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.errors import StoreError
from seeknal.offline import comparisons
from seeknal.offline.adoption import Changed, number_rows
from seeknal.offline.commit import (
    ADOPTED,
    REARRANGED,
    Step,
    check_newest,
    commit_files,
    commit_properties,
    create_table,
    known_commit,
    lacking,
    refuse_properties,
)
from seeknal.offline.entities import as_stored, holds
from seeknal.offline.entries import check_table, exists, held
from seeknal.offline.events import settle, settle_numbered
from seeknal.offline.files import FileWriter, are_added, due
from seeknal.offline.foreign import ForeignCommits, foreign_commits, newest_foreign
from seeknal.offline.log import Commit, DataFile, Snapshot, read_snapshot
from seeknal.offline.plan import (
    FILE_ROWS,
    Made,
    Part,
    Plan,
    Write,
    cut,
    falls_into,
    instants,
    numbered,
    rows_a_day,
)
from seeknal.offline.repeats import Repeats, find_repeats
from seeknal.offline.scans import files_sql
from seeknal.offline.spare import orphans, remove, spare_files
from seeknal.offline.trimming import in_use
from seeknal.system.duck import Duck, explained
from seeknal.system.forks import refuse_fork
from seeknal.system.locks import exclusive_lock, shared_lock, try_exclusive_lock
from seeknal.system.retry import Conflict
from seeknal.system.storage import Location
from seeknal.system.stored_paths import StoredPath, backing_of, check_writable, is_shared, lock_file
from seeknal.values.sql import comma, quote
from seeknal.values.times import Interval

_SMALL, _LARGE = FILE_ROWS // 2, 4 * FILE_ROWS
"""Files with fewer rows than the first are compacted, files with more than the second are cut if they have more than one day."""
_DUE = 16
"""A write that finds this many small files compacts them."""


class OfflineTable:
    """The rows of a group, stored as a Delta Lake table that any engine can read."""

    def __init__(self, location: Location, duck: Duck) -> None:
        refuse_fork("offline tables", "Online tables work either way.")
        self.location = location
        self._duck = duck

    @property
    def root(self) -> StoredPath:
        """The folder of the table."""
        return self.location.table()

    def exists(self) -> bool:
        """Return whether the table was ever created."""
        return exists(self.root)

    def newest(self) -> Snapshot | None:
        """Return the newest snapshot; None if there is no table. See `snapshot`."""
        try:
            return self.snapshot() if self.exists() else None
        except StoreError:
            if self.exists():
                raise
            return None  # it was deleted meanwhile

    def create(self, schema: Schema) -> None:
        """Create an empty table, unless there is one. Call it by `Lifetimes.begin`, so that the table belongs to a group."""
        create_table(self.location.begin_table(), schema)

    def snapshot(self, number: int | None = None, files: tuple[DataFile, ...] | None = None) -> Snapshot:
        """Return a snapshot of the table, whose files are protected from trimming while the returned object exists.

        Args:
            number: The number of the snapshot; None: the newest.
            files: The files that replace those of the snapshot since entities were erased from it; None if none were.

        Raises:
            StoreError: The newest was asked for, and another program changed rows after Seeknal's newest commit.
        """
        keeper = held(self.root)  # before the log is read: the lock protects the files of what is read after it
        found = replace(read_snapshot(self.root, number, files), held=keeper)
        # Log entries after Seeknal's newest commit are those of other programs.
        if number is None and (found.commit is None or found.number != found.commit.snapshot):
            foreign_commits(self.root, found.commit).refuse()
        return found

    def write(self, base: Snapshot, write: Write) -> Commit:
        """Write and commit the snapshot that follows `base`.

        Raises:
            Conflict: `base` is no longer the newest snapshot. Nothing was written.
            StoreError: The rows could not be written. Nothing was written.
            DataError: Stored rows do not fit the new schema. Nothing was written.
        """
        write = self.settled(base, write)
        plan = Plan(base, write, numbered(base, write))
        refuse_properties(base, removes=bool(plan.replaced or plan.corrected))
        try:
            with self.reading(), self._new_files(base) as undo:
                made = self._spread(plan, undo)
                added = made.files + self._writer(write.schema, undo).write_plan(plan, added=not plan.replaced)
                # Known only from the files; of events, it is known already.
                loses_to_stored = write.mode == "merge" and write.schema.created_time and not write.are_events
                stored = (
                    self._count(added, f">= {base.commit.next_row_id if base.commit else 0}") if loses_to_stored else 0
                )
                step = Step(
                    mode=write.mode,
                    version=write.version,
                    schema=write.schema,
                    removed=[*plan.replaced, *plan.corrected],
                    added=added,
                    interval=write.interval,
                    written=write.count,
                    superseded=len(write.rows) - stored if loses_to_stored else write.superseded + made.superseded,
                    newest=max([*instants(write.rows, write.schema), *_ends(made.files)], default=None),
                    hidden=write.settled.hidden if write.settled else None,
                    at=write.at,
                )
                missing = lacking(base)
                done = commit_files(base, step, undo)
        except StoreError as error:
            raise (*plan.misfits, error)[0] from error.__cause__
        files = [*{*base.files, *step.added}.difference(step.removed)]
        with suppress(Exception):  # the rows are stored already; if this upkeep fails, the next write tries it again
            if missing:
                self.mend()
            if due(files, _SMALL, _DUE):
                newest = self.snapshot()
                self._put_together(newest, due(newest.files, _SMALL, _DUE))
        return done

    def _spread(self, plan: Plan, undo: ExitStack) -> Made:
        if not plan.write.spread:
            return Made([], 0)
        first = plan.base.commit.next_row_id if plan.base.commit else 0
        return plan.write.spread.write(self.root, first, undo, added=not plan.replaced)

    def settled(self, base: Snapshot, write: Write) -> Write:
        """Return a write of events without those that are stored already; other writes as they are. See `seeknal.offline.events`.

        Raises:
            Conflict: `base` is no longer the newest snapshot.
            DataError: Stored rows do not fit the new schema.
        """
        if write.settled or not (write.are_events and write.schema.keys):
            return write
        with self.reading(), self._cursor() as cursor:
            check_newest(base)
            return settle(cursor, base, write)

    def mend(self) -> None:
        """Set required table properties that an earlier release did not set or another program changed.

        Raises:
            Conflict: Another writer committed meanwhile. Nothing was written.
        """
        base = self.snapshot()
        if missing := lacking(base):
            commit_properties(base, missing)

    def foreign(self) -> ForeignCommits:
        """Return the commits of other programs after Seeknal's newest commit."""
        return newest_foreign(self.root)

    def adopt(self, foreign: ForeignCommits, changed: Changed, *, are_events: bool = False) -> Commit:
        """Commit a snapshot that takes in the rows which other programs changed.

        Args:
            foreign: The commits of the other programs.
            changed: The rows of the files that they added, as they are to be stored.
            are_events: Whether they are events of a source; see `Write`.

        Raises:
            Conflict: Another commit was made since `foreign` was read. Nothing was written.
            StoreError: Files that they replaced are gone, so new rows cannot be told from copies; or the write failed.
        """
        base = read_snapshot(self.root)
        commit = known_commit(base)
        if commit != foreign.commit or base.number != foreign.every[-1].number:
            raise Conflict(f"Another writer changed {self.root} first.")
        removed = [file for file in base.files if file.path in foreign.added]
        has_others = len(removed) < len(base.files)
        if has_others and backing_of(self.root).missing(self.root, foreign.removed):
            raise StoreError(
                f"Another program rewrote files of {base.label} and removed the old ones, so that its new rows cannot be told "
                "from old ones. Read the rows with that program, and write them to a new feature group."
            )
        refuse_properties(base, removes=bool(removed), adds=False)
        with self._cursor() as cursor, self.reading(), self._new_files(base) as undo:
            rows, ids = changed.rows, number_rows(cursor, foreign, commit.schema, changed)
            write = Write(rows, commit.schema, commit.version, "append", Interval(), are_events=are_events)
            if are_events and commit.schema.keys:
                rest = tuple(file for file in base.files if file not in removed)
                write, ids = settle_numbered(cursor, replace(base, files=rest), write, ids)
            is_new = np.maximum(ids, ~ids) >= commit.next_row_id  # a copy of a stored row keeps its lower number
            plan = Plan(base, write, rows.append_column(ROW_ID, pa.array(ids)))
            step = Step(
                mode=ADOPTED,
                version=commit.version,
                schema=commit.schema,
                removed=[*removed, *plan.corrected],
                added=self._writer(commit.schema, undo).write_plan(plan),
                written=int(is_new.sum()),
                superseded=int((is_new & (ids < 0)).sum()),
                hidden=write.settled.hidden if write.settled else None,
                newest=max(instants(rows.filter(pa.array(is_new)), commit.schema), default=None),
            )
            return commit_files(base, step, undo)

    def changed(
        self, before: Snapshot, after: Snapshot, schema: Schema, spans: Sequence[Interval], fresh: Sequence[Interval]
    ) -> pa.Table | None:
        """Return the entities whose rows in some intervals of event time differ between two snapshots.

        Args:
            before: The first snapshot.
            after: The second.
            schema: The schema of both.
            spans: The intervals in which rows count.
            fresh: Those among them in which rows of `before` do not count, so that every row of `after` there is a difference.

        Returns:
            Their join keys, each once, in stored types; None if files of `before` are gone, so that it cannot be told.
        """
        with self._cursor() as cursor:
            return comparisons.changed(cursor, (before, after), schema, spans, fresh)

    def repeats(self, rows: pa.Table, schema: Schema, *, with_created: bool = False) -> Repeats:
        """Count the rows, given in stored types, that share join keys and event time; see `find_repeats`."""
        with self._cursor() as cursor:
            return find_repeats(cursor, rows, schema, with_created=with_created)

    def unknown(self, base: Snapshot, rows: pa.Table, schema: Schema) -> pa.Table:
        """Return the rows that a snapshot does not hold, compared value by value; each once, in the order given.

        Args:
            base: The snapshot.
            rows: The rows, in stored types.
            schema: The schema of both.
        """
        with self._cursor() as cursor:
            return comparisons.unknown(cursor, base, rows, schema)

    def columns(self, files: Sequence[DataFile], names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of the rows of each file, hidden rows included."""
        for file in files:
            with self.reading(), self._cursor() as cursor:
                query = f"SELECT {comma(map(quote, names))} FROM {files_sql(self.root, [file], [*names, ROW_ID])}"
                yield cursor.sql(query).to_arrow_table()

    def restore(self, base: Snapshot, old: Snapshot) -> Commit:
        """Commit a snapshot that holds the rows of an older one.

        Raises:
            Conflict: `base` is no longer the newest snapshot. Nothing was written.
        """
        commit = known_commit(old)
        is_same = commit.schema == known_commit(base).schema
        removed, added = comparisons.differing_files(base, old) if is_same else (base.files, old.files)
        if any(file.below is not None for file in added):  # a commit adds whole files, and these hold later rows too
            raise StoreError(
                f"Snapshot {old.number} of {old.label} is not the last of its version, and cannot be restored."
            )
        refuse_properties(base, removes=bool(removed))
        check_writable(self.root)
        step = Step("rollback", commit.version, commit.schema, removed, added, hidden=self._hidden(old, old.files))
        return commit_files(base, step, ExitStack())

    def compact(self, base: Snapshot, *, large: bool = False) -> Commit | None:
        """Compact small files into files cut by days and sorted by key and time; return None if there is nothing to do.

        Args:
            base: The newest snapshot.
            large: Also cut files that are too large.

        Raises:
            Conflict: `base` is no longer the newest snapshot. Nothing was written.
        """
        small = [file for file in base.files if file.rows < _SMALL]
        too_large = [[file] for file in base.files if large and file.rows > _LARGE]
        return self._put_together(base, [*([small] if len(small) > 1 else []), *too_large])

    def _put_together(self, base: Snapshot, groups: Sequence[Sequence[DataFile]]) -> Commit | None:
        """Compact each group of files on its own, in one commit; return None if there is nothing to do."""
        commit = known_commit(base)
        with self.reading(), self._new_files(base) as undo:
            parts = [(files, self._sorted(files, commit.schema)) for files in groups]
            # A single file that would become a single file again is not rewritten.
            parts = [(files, new) for files, new in parts if len(files) > 1 or len(new) > 1]
            if not parts:
                return None
            writer, added, merged = self._writer(commit.schema, undo), [], {}
            for files, new in parts:
                is_one = len(new) == 1 and are_added(files)  # then older snapshots can be read from the new file
                added += writer.write(new, added=is_one)
                if is_one:
                    merged[added[-1].path] = [file.path for file in files]
            removed = [file for files, _ in parts for file in files]
            step = Step(REARRANGED, commit.version, commit.schema, removed, added, merged=merged)
            return commit_files(base, step, undo)

    def _sorted(self, files: Sequence[DataFile], schema: Schema) -> list[Part]:
        """Cut the rows of the files into parts of whole days, each sorted by key and time."""
        rows = files_sql(self.root, files)
        order = comma(map(quote, [*schema.key_names, schema.event_time.name, ROW_ID]))
        return [
            Part(f"SELECT * FROM {rows} WHERE {falls_into(schema, interval)} ORDER BY {order}", {})
            for interval in cut(rows_a_day(self._duck.connection, schema, rows))
        ]

    def erase(self, base: Snapshot, others: Sequence[Snapshot], entities: pa.Table) -> Commit | None:
        """Rewrite the files of the newest snapshot, and of older ones that stay, without some entities.

        Args:
            base: The newest snapshot.
            others: The older snapshots that stay.
            entities: The join keys of the entities, one row each, in logical types.

        Returns:
            The commit; None if none of the snapshots holds the entities.

        Raises:
            Conflict: `base` is no longer the newest snapshot. Nothing was written.
        """
        commit = known_commit(base)
        every = {file.key: file for snapshot in (base, *others) for file in snapshot.files}
        with self.reading(), self._new_files(base) as undo:
            hit = [file for file in every.values() if self._holds(file, entities)]
            if not hit:
                return None
            refuse_properties(base, removes=True, adds=False)
            writer = self._writer(commit.schema, undo)
            new = {file.key: writer.write([self._without(file, entities)]) for file in hit}
            removed = [file for file in base.files if file.key in new]
            added = [one for file in removed for one in new[file.key]]
            step = Step(
                "erase",
                commit.version,
                commit.schema,
                removed,
                added,
                hidden=commit.hidden - self._hidden(base, removed) + self._hidden(base, added),
                rewritten={
                    str(snapshot.number): [kept for file in snapshot.files for kept in new.get(file.key, [file])]
                    for snapshot in others
                    if any(file.key in new for file in snapshot.files)
                },
            )
            return commit_files(base, step, undo)

    def vacuum(self, needed: Callable[[], Iterable[Snapshot]], *, at_once: bool = True) -> list[DataFile]:
        """Remove all files that no snapshot needs, including those that killed writers left.

        Takes the exclusive write lock: it waits for running writers, and new writers wait for it.

        Args:
            needed: Returns the snapshots that stay, beside the newest; called while the lock is held.
            at_once: Also remove files that were compacted away so recently that a reader may be reading them.

        Returns:
            The removed files, without row counts and event times.
        """
        with exclusive_lock(lock_file(self.root / "_write.lock")):
            kept = in_use(self.root, at_once=at_once)
            spare = spare_files(self.root, [self.snapshot(), *needed()])
            return remove(self.root, [file for file in spare if file.path not in kept])

    def forget(self, entities: pa.Table, needed: Callable[[], Iterable[Snapshot]]) -> list[DataFile] | None:
        """Remove the files that hold some entities and that no snapshot needs.

        Args:
            entities: The join keys of the entities, one row each, in logical types.
            needed: Returns the snapshots that stay, beside the newest; called while the exclusive write lock is held.

        Returns:
            The removed files; None, and nothing was removed, if a snapshot that stays holds the entities.
        """

        def holds(file: DataFile) -> bool:
            try:
                return self._holds(file, entities)
            except StoreError:
                return True  # cannot be read: a killed writer left it half-written

        with exclusive_lock(lock_file(self.root / "_write.lock")):
            snapshots = [self.snapshot(), *needed()]
            if any(self._holds(file, entities) for snapshot in snapshots for file in snapshot.files):
                return None
            return remove(self.root, [file for file in spare_files(self.root, snapshots) if holds(file)])

    def orphans(self) -> list[StoredPath]:
        """List files that no commit mentions, which killed writers left; an empty list while a writer runs, whose files they may be."""
        if (lock := try_exclusive_lock(lock_file(self.root / "_write.lock"))) is None:
            return []
        with lock:
            return orphans(self.root)

    def holds(self, snapshot: Snapshot, entities: pa.Table) -> bool:
        """Return whether the files of a snapshot hold one of some entities."""
        return any(self._holds(file, entities) for file in snapshot.files)

    def reading(self) -> AbstractContextManager[object]:
        """Take the shared write lock, which blocks the vacuum, while using files that may not be on record as needed yet."""
        return shared_lock(lock_file(self.root / "_write.lock"))

    def _hidden(self, snapshot: Snapshot, files: Sequence[DataFile]) -> int:
        """Count the hidden rows of files; a snapshot without hidden rows has no file with one."""
        return self._count(files, "< 0") if snapshot.has_hidden else 0

    def _count(self, files: Sequence[DataFile], numbers: str) -> int:
        with self._cursor() as cursor:
            return comparisons.count_rows(cursor, self.root, files, numbers)

    def _holds(self, file: DataFile, entities: pa.Table) -> bool:
        """Return whether a file holds one of the entities, in rows of the snapshot or in others."""
        with self._cursor() as cursor:
            return holds(cursor, self.root / file.path, entities)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a cursor, and turn errors of DuckDB into a `StoreError` that names the table."""
        try:
            yield self._duck.connection.cursor()
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not read {self.root}: {explained(error)}") from error

    def _without(self, file: DataFile, entities: pa.Table) -> Part:
        keys = comma(map(quote, entities.column_names))
        with self._cursor() as cursor:
            stored = as_stored(cursor, self.root / file.path, entities)
        return Part(
            f"SELECT * FROM {files_sql(self.root, [file])} ANTI JOIN entities USING ({keys})", {"entities": stored}
        )

    def _writer(self, schema: Schema, undo: ExitStack) -> FileWriter:
        return FileWriter(self.root, self._duck, schema, undo)

    @contextmanager
    def _new_files(self, base: Snapshot) -> Iterator[ExitStack]:
        """Yield a clean-up stack that removes files which were written but not committed. The caller holds the shared write lock.

        Raises:
            Conflict: `base` is no longer the newest snapshot, so its files may be gone; or the table was deleted meanwhile.
            StoreError: The rows could not be read or written.
        """
        # In an object store, each table has a folder of its own, and this one may be that of a table that was deleted before `base` was read.
        if self.root != base.root:
            raise Conflict(f"The table {self.root} was deleted meanwhile.")
        check_writable(self.root)
        try:
            with ExitStack() as undo:
                check_newest(base)
                yield undo
        except (duckdb.Error, OSError, StoreError) as error:
            check_table(self.root, base.identity, error)
            if is_shared(self.root):
                check_newest(base)  # else files may be gone because another machine replaced and removed them
            if isinstance(error, StoreError):
                raise
            why = explained(error)
            raise StoreError(f"The rows could not be written to {self.root}; nothing was stored: {why}") from error


def _ends(files: Iterable[DataFile]) -> list[int]:
    return [file.end for file in files if file.end is not None]
