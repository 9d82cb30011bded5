"""What killed processes left in a home: training sets never registered, groups half deleted, temporary folders.

Orphaned files of a group's table are left to the table: `OfflineTable.vacuum` and `OfflineTable.forget` remove them.
"""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.registry.catalog import Catalog
from seeknal.system.storage import Location


def find(catalog: Catalog) -> list[Location]:
    """List what is left over, without anything that a running process may be using.

    Half-deleted groups are left out while another process holds the deletion lock, and unregistered training sets while one
    is being saved.
    """
    return [*_half_deleted(catalog), *_unregistered(catalog), *catalog.storage.abandoned_scratch()]


def remove(catalog: Catalog) -> None:
    """Remove what is left over. The caller must hold the deletion lock (`Catalog.deleting`)."""
    for location in [*catalog.storage.trash.list(), *_unregistered(catalog)]:
        location.remove()
    catalog.storage.sweep_scratch()


def _half_deleted(catalog: Catalog) -> Sequence[Location]:
    if (lock := catalog.try_deleting()) is None:
        return []
    with lock:
        return catalog.storage.trash.list()


def _unregistered(catalog: Catalog) -> list[Location]:
    if (lock := catalog.try_saved()) is None:  # or no training set was ever saved
        return []
    with lock:
        saved = catalog.storage.training_sets
        known = {saved.at(one.folder) for one in catalog.registry.training_sets()}
        return [one for project in saved.list() for one in project.list() if one not in known and not one.is_recent()]
