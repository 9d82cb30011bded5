"""Trimming a table: packing old log entries, and removing files that were compacted away and that no reader can still be reading.

A reader takes a shared lock on the newest pack, and reads the log afterwards. So a reader that locks a pack knows of every compaction
noted in it, and reads the result of the compaction instead of the files that went into it. Those files are removed once no reader
holds a lock that is older than the pack. No reader waits for that; a long read only delays the removal.
"""

from __future__ import annotations

import re

from seeknal.offline.entries import Pack, entries, history, latest, locks, pack_entries, packed, packs
from seeknal.offline.log import commit_in, read_snapshot
from seeknal.offline.spare import is_old, lately_removed
from seeknal.system.locks import exclusive_lock, is_unlocked, shared_lock
from seeknal.system.stored_paths import StoredPath, backing_of, is_shared, lock_file

_KEPT, _AT_ONCE = 64, 64
"""How many of the newest entries stay in the Delta log at least, for other programs, and how many older ones make packing due."""
_NAME = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")


def is_due(root: StoredPath, number: int) -> bool:
    """Return whether the log of a table is long enough to be packed.

    Args:
        root: The folder of the table.
        number: The number of the newest snapshot.
    """
    return number - packed(root) > _KEPT + _AT_ONCE


def trim(root: StoredPath) -> None:
    """Pack old log entries, and remove the files that no snapshot is read from any more.

    No answer changes. If the process is killed, the next call removes the entries and files that it leaves.
    """
    with shared_lock(lock_file(root / "_write.lock")):
        with exclusive_lock(lock_file(root / "_commit.lock")):
            _pack(root)
        _sweep(root)


def _pack(root: StoredPath) -> None:
    """Pack the entries before a checkpoint, from which Delta Lake readers can start."""
    log = [
        (path, int(found[1]), found[2])
        for path in (root / "_delta_log").iterdir()
        if (found := _NAME.fullmatch(path.name))
    ]
    checkpoints = [number for _, number, kind in log if kind == "checkpoint.parquet"]
    start, first = max((n for n in checkpoints if n <= latest(root) - _KEPT), default=0), packed(root) + 1
    if first < start:
        pack_entries(root, Pack(first, start - 1))
    # Oldest first, so that a process that is killed leaves a log without gaps.
    for path, number, _ in sorted(log, key=lambda one: one[1]):
        if number < start:
            path.unlink(missing_ok=True)


def _sweep(root: StoredPath) -> None:
    """Remove the files that were compacted away, pack by pack, up to the first that a reader may still need.

    For example, with packs A (entries 0 to 63) and B (64 to 127), readers lock one of three files:

        locked file   when the reader began   it may be reading files that were compacted away in
        _read.lock    before pack A           A, B or later entries
        pack A        before pack B           B or later entries
        pack B        after pack B            later entries

    So files compacted away in A go if `_read.lock` is free, and those of B if pack A is free too. Those of later entries stay.
    """
    every, done = packs(root), _swept(root)
    live = {file.path for file in read_snapshot(root).files}
    # `locks` has one item more, at its front, so each pack is paired with the lock that readers took just before it existed.
    for pack, lock in zip(every, locks(root), strict=False):
        # A reader on another machine takes no lock here. One that began before the pack is given a day to end.
        if not is_unlocked(lock) or (is_shared(root) and not is_old(pack.path(root).stat())):
            break
        if pack.last <= done:
            continue
        for number, actions in entries(root, pack.first, pack.last):
            commit = commit_in(actions, number)
            for name in set().union(*commit.merged.values()) - live if commit else ():
                (root / name).unlink(missing_ok=True)
        backing_of(root).put_file(_mark(root), str(pack.last).encode())


def in_use(root: StoredPath, *, at_once: bool) -> set[str]:
    """Return the names of files that the newest snapshot no longer has, but that a reader may be reading.

    Args:
        root: The folder of the table.
        at_once: Leave out those that were compacted away, in a local folder.
    """
    removed = lately_removed(root) if is_shared(root) else set()
    return removed if at_once else removed | _unswept(root)


def _unswept(root: StoredPath) -> set[str]:
    """Return the names of files that were compacted away, but that no process has removed yet."""
    late = entries(root, _swept(root) + 1, latest(root))
    commits = filter(None, (commit_in(actions, number) for number, actions in late))
    return {name for commit in commits for names in commit.merged.values() for name in names}


def _swept(root: StoredPath) -> int:
    """Return the last log entry up to which all files that were compacted away are removed; -1 if it is not known."""
    try:
        return int(_mark(root).read_bytes())
    except (OSError, ValueError):
        return -1


def _mark(root: StoredPath) -> StoredPath:
    return history(root) / "swept"
