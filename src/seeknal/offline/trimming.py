"""Keeping a table small: old log entries are packed, and files go whose rows all older snapshots find in the file they were put into.

Readers hold a lock on the newest pack that they find, and look into the log afterwards. So who holds a later pack knows of all that
an earlier one says was put together, and reads none of those files: they go once nobody holds what was there before that pack.
"""

from __future__ import annotations

import re
from pathlib import Path

from seeknal.offline.entries import Pack, entries, history, latest, locks, pack_entries, packed, packs
from seeknal.offline.log import commit_in, read_snapshot
from seeknal.system.folders import put
from seeknal.system.locks import exclusive_lock, is_unlocked, shared_lock

_KEPT, _AT_ONCE = 64, 64
"""So many of the newest entries stay in the Delta log at least, for other programs; so many older ones are packed together."""
_NAME = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")


def is_due(root: Path, number: int) -> bool:
    """Tell whether the log of a table is long enough to be packed.

    Args:
        root: The table.
        number: The newest snapshot.
    """
    return number - packed(root) > _KEPT + _AT_ONCE


def trim(root: Path) -> None:
    """Pack old entries of the log, and remove the files that no snapshot is read from any more.

    No answer changes. A process that is killed on the way leaves entries and files that the next one removes.
    """
    with shared_lock(root / "_write.lock"):
        with exclusive_lock(root / "_commit.lock"):
            _pack(root)
        _sweep(root)


def _pack(root: Path) -> None:
    """Pack the entries before a checkpoint, from which readers of Delta Lake can go on."""
    log = [
        (path, int(found[1]), found[2])
        for path in (root / "_delta_log").iterdir()
        if (found := _NAME.fullmatch(path.name))
    ]
    checkpoints = [number for _, number, kind in log if kind == "checkpoint.parquet"]
    start, first = max((n for n in checkpoints if n <= latest(root) - _KEPT), default=0), packed(root) + 1
    if first < start:
        pack_entries(root, Pack(first, start - 1))
    for path, number, _ in sorted(log, key=lambda one: one[1]):
        if number < start:
            path.unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    """Remove the files that were put together, as far back as nobody can be reading them."""
    every, done = packs(root), _swept(root)
    live = {file.path for file in read_snapshot(root).files}
    for pack, lock in zip(every, locks(root), strict=False):  # what was held before that pack was there
        if not is_unlocked(lock):
            break
        if pack.last <= done:
            continue
        for number, actions in entries(root, pack.first, pack.last):
            commit = commit_in(actions, number)
            for name in set().union(*commit.merged.values()) - live if commit else ():
                (root / name).unlink(missing_ok=True)
        put(_mark(root), str(pack.last).encode())


def unswept(root: Path) -> set[str]:
    """Name the files that were put together and that somebody may be reading, or nobody has removed yet."""
    late = entries(root, _swept(root) + 1, latest(root))
    commits = filter(None, (commit_in(actions, number) for number, actions in late))
    return {name for commit in commits for names in commit.merged.values() for name in names}


def _swept(root: Path) -> int:
    """Give the number of the last entry of which no file is left that was put together; -1 if it is not known."""
    try:
        return int(_mark(root).read_bytes())
    except (OSError, ValueError):
        return -1


def _mark(root: Path) -> Path:
    return history(root) / "swept"
