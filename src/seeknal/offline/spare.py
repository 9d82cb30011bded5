"""The files in the folder of a table that no snapshot needs.

In a local folder, a lock keeps out those who write or read files that are not on record yet. In an object store there is no such lock.
There, the age of a file takes its place: what was written lately may be about to be committed, and what was removed from the newest
snapshot lately may still be read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import unquote

from seeknal.offline.entries import entries, latest
from seeknal.offline.log import DataFile, Snapshot, commit_in, mentioned_files
from seeknal.system.stored_paths import Status, StoredPath, is_shared
from seeknal.values.times import DAY, now

GRACE = DAY
"""For how many microseconds a file in an object store is left alone. A writer or reader that takes longer fails with an error."""


def spare_files(root: StoredPath, needed: Sequence[Snapshot]) -> list[DataFile]:
    """List the files that none of some snapshots has and no writer may be about to commit, without row counts and event times.

    Args:
        root: The folder of the table.
        needed: The snapshots, the newest among them.
    """
    # Listed before the log is read: a file that is committed in between is then found in the log.
    there = _data_files(root)
    names = {file.path for snapshot in needed for file in snapshot.files}
    spare = [path for path in there if path.name not in names]
    if is_shared(root):
        # Another machine may have committed since the newest of the snapshots was read: what only later commits mention stays.
        known = mentioned_files(root, max(snapshot.number for snapshot in needed))
        spare = [path for path in spare if path.name in known or is_old(path.stat())]
    return [DataFile(path.name, path.stat().st_size, 0, None, None) for path in spare]


def orphans(root: StoredPath) -> list[StoredPath]:
    """List the files that no commit mentions and no writer may be about to commit."""
    there, mentioned = _data_files(root), mentioned_files(root)
    found = [path for path in there if path.name not in mentioned]
    return [path for path in found if is_old(path.stat())] if is_shared(root) else found


def lately_removed(root: StoredPath) -> set[str]:
    """Return the names of the files that commits of the last day removed, which a reader on another machine may be reading."""
    found, since = set(), now() - GRACE
    for number in range(latest(root), -1, -1):
        ((_, actions),) = entries(root, number, number)
        commit = commit_in(actions, number)
        if commit and commit.at < since:
            break
        found |= {unquote(action["remove"]["path"]) for action in actions if "remove" in action}
        found |= {name for names in (commit.merged.values() if commit else ()) for name in names}
    return found


def is_old(status: Status) -> bool:
    """Return whether a file was written so long ago that its writer must have committed it or given up."""
    return time.time_ns() - status.st_mtime_ns > GRACE * 1000


def remove(root: StoredPath, files: Sequence[DataFile]) -> list[DataFile]:
    """Remove files of a table, and return them."""
    for file in files:
        (root / file.path).unlink()
    return list(files)


def _data_files(root: StoredPath) -> list[StoredPath]:
    return [path for path in root.iterdir() if path.name.endswith(".parquet")]
