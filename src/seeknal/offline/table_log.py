"""The log of a table, for callers that do not read or write its rows.

No module of Delta Lake, Arrow or DuckDB is imported before a call needs it, and a forked process can use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from seeknal.system import delta_log
from seeknal.system.locks import exclusive_lock
from seeknal.system.storage import Location
from seeknal.system.stored_paths import StoredPath, backing_of, lock_file

if TYPE_CHECKING:
    from seeknal.offline import Commit, DataFile, Snapshot


class TableLog:
    """The log of a table, which may not exist yet.

    Args:
        location: Where the table lies.
    """

    def __init__(self, location: Location) -> None:
        self._location = location

    @property
    def _root(self) -> StoredPath:
        return self._location.table()

    def newest(self) -> int:
        """Return the number of the newest snapshot, or -1 if there is none. Only file names are read."""
        return delta_log.newest(self._root)

    def identity(self) -> str:
        """Return the identity of the table, which no other table has; "" if there is none."""
        from seeknal.offline.entries import table_id

        return table_id(self._root)

    @property
    def is_writable(self) -> bool:
        """Whether this user may write to the table."""
        return backing_of(self._root).may_write(self._root)

    def pushing(self) -> AbstractContextManager[object]:
        """Take the lock to hold while entries of the push log are committed as a snapshot."""
        return exclusive_lock(lock_file(self._root / "_pushes.lock"))

    def wait_for_commits(self) -> None:
        """Wait until running commits are done; a later commit is dated later."""
        with exclusive_lock(lock_file(self._root / "_commit.lock")):
            pass

    def commits(self, after: int) -> list[Commit]:
        """List Seeknal's commits after a snapshot, oldest first."""
        from seeknal.offline.log import read_commits

        return read_commits(self._root, after)

    def fingerprint(self, number: int) -> bytes | None:
        """Return the fingerprint of a snapshot's files, or None if its commit does not record it."""
        from seeknal.offline.log import mark_of

        return mark_of(self._root, number)

    def empty_snapshot(self) -> Snapshot:
        """Return the snapshot before the first write."""
        from seeknal.offline import Snapshot

        return Snapshot(self._root, 0, None, ())

    def readable(self, files: Mapping[int, Sequence[DataFile] | None]) -> list[Snapshot]:
        """Return the snapshots whose files all exist, with paths and sizes of their files and nothing else.

        Args:
            files: The numbers of the snapshots to look at; see `seeknal.offline.log.read_file_lists`.
        """
        from seeknal.offline.log import read_file_lists

        found = list(read_file_lists(self._root, files))
        # Snapshots share files, so each file is looked for once.
        names = {file.path for one in found for file in one.files}
        gone = backing_of(self._root).missing(self._root, names)
        return [one for one in found if not any(file.path in gone for file in one.files)]

    def refuse_foreign(self, last: int, until: int | None) -> None:
        """Check that no other program changed the table after Seeknal's last commit.

        Args:
            last: The number of Seeknal's last commit.
            until: Only changes committed by this instant count. None: all changes count.

        Raises:
            StoreError: Another program changed the rows or the layout.
        """
        from seeknal.offline.entries import has_entry
        from seeknal.offline.log import newest_commit

        if has_entry(self._root, last + 1):
            from seeknal.offline.foreign import foreign_commits

            foreign_commits(self._root, newest_commit(self._root, last)).refuse(until)

    def same_after(self, commit: Commit | None) -> Sequence[int]:
        """Return the numbers of other programs' commits after one of Seeknal's that left the same rows."""
        from seeknal.offline.foreign import foreign_commits

        return foreign_commits(self._root, commit).same

    def vacuumed_by(self, after: int) -> str:
        """Return which vacuum of another program came first after a snapshot; "" if there was none."""
        from seeknal.offline.foreign import vacuumed_by

        found = vacuumed_by(self._root, after)
        return str(found) if found else ""

    def is_trim_due(self, number: int) -> bool:
        """Return whether `trim` is due after a write.

        Args:
            number: The number of the newest snapshot.
        """
        from seeknal.offline import trimming

        return trimming.is_due(self._root, number)

    def trim(self) -> None:
        """Pack old log entries and remove files that no snapshot is read from; see `seeknal.offline.trimming`."""
        from seeknal.offline import trimming

        trimming.trim(self._root)
