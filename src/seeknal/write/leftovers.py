"""What processes that were killed left in a home: training sets that were never registered, groups half deleted, folders for work.

Left-over files of a group's table are its own matter: `OfflineTable.vacuum` and `OfflineTable.forget` remove them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from seeknal.registry.catalog import Catalog
from seeknal.system.folders import abandoned, scratch_of, sweep


def find(catalog: Catalog) -> list[Path]:
    """List the folders that nobody is at work on; of deletions and training sets none while one is going on."""
    return [*_half_deleted(catalog), *_unregistered(catalog), *abandoned(scratch_of(catalog.home))]


def remove(catalog: Catalog) -> None:
    """Remove them; the caller holds off whoever else deletes."""
    for folder in [*_in_trash(catalog), *_unregistered(catalog)]:
        shutil.rmtree(folder, ignore_errors=True)
    sweep(scratch_of(catalog.home))


def _half_deleted(catalog: Catalog) -> list[Path]:
    if (lock := catalog.try_deleting()) is None:
        return []
    with lock:
        return _in_trash(catalog)


def _in_trash(catalog: Catalog) -> list[Path]:
    return list((catalog.home / "trash").glob("*"))


def _unregistered(catalog: Catalog) -> list[Path]:
    place = catalog.home / "datasets"
    if not place.exists() or (lock := catalog.try_saved()) is None:
        return []
    with lock:
        known = {place / one.folder for one in catalog.registry.training_sets()}
        return [folder for folder in place.glob("*/*") if folder not in known]
