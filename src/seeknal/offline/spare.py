"""The files in the folder of a table that no snapshot needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seeknal.offline.log import DataFile, Snapshot, mentioned_files
from seeknal.system.stored_paths import StoredPath


def spare_files(root: StoredPath, needed: Iterable[Snapshot]) -> list[DataFile]:
    """List the files that none of some snapshots has, without row counts and event times."""
    names = {file.path for snapshot in needed for file in snapshot.files}
    spare = [path for path in _data_files(root) if path.name not in names]
    return [DataFile(path.name, path.stat().st_size, 0, None, None) for path in spare]


def orphans(root: StoredPath) -> list[StoredPath]:
    """List the files that no commit mentions."""
    mentioned = mentioned_files(root)
    return [path for path in _data_files(root) if path.name not in mentioned]


def remove(root: StoredPath, files: Sequence[DataFile]) -> list[DataFile]:
    """Remove files of a table, and return them."""
    for file in files:
        (root / file.path).unlink()
    return list(files)


def _data_files(root: StoredPath) -> list[StoredPath]:
    return [path for path in root.iterdir() if path.name.endswith(".parquet")]
