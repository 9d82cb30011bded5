"""Folders that killed processes left in a home: training sets never registered, groups half deleted, temporary folders.

Orphaned files of a group's table are left to the table: `OfflineTable.vacuum` and `OfflineTable.forget` remove them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from seeknal.registry.catalog import Catalog
from seeknal.system.folders import abandoned, scratch_of, sweep


def find(catalog: Catalog) -> list[Path]:
    """List the left-over folders, without any that a running process may be using.

    Half-deleted groups are left out while another process holds the deletion lock, and unregistered training sets while one
    is being saved.
    """
    return [*_half_deleted(catalog), *_unregistered(catalog), *abandoned(scratch_of(catalog.home))]


def remove(catalog: Catalog) -> None:
    """Remove the left-over folders. The caller must hold the deletion lock (`Catalog.deleting`)."""
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
