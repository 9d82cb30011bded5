"""The registry: which groups, versions, online tables, training sets and tokens exist. It is small, and knows nothing of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal.registry.protocol import Registry
from seeknal.registry.records import (
    GroupRecord,
    GroupState,
    Load,
    ModelRecord,
    OnlineTableRecord,
    PinnedLookup,
    Question,
    SnapshotRecord,
    TokenRecord,
    TrainingSetRecord,
    Version,
    ViewRecord,
    ViewUse,
)
from seeknal.registry.sqlite import FILE as REGISTRY_FILE
from seeknal.registry.sqlite import file_of
from seeknal.system.home_moved import check_moved
from seeknal.system.storage import Address, open_storage

if TYPE_CHECKING:
    from seeknal.registry.sql.registry import SqlRegistry

__all__ = [
    "REGISTRY_FILE",
    "GroupRecord",
    "GroupState",
    "Load",
    "ModelRecord",
    "OnlineTableRecord",
    "PinnedLookup",
    "Question",
    "Registry",
    "SnapshotRecord",
    "TokenRecord",
    "TrainingSetRecord",
    "Version",
    "ViewRecord",
    "ViewUse",
    "copy_registry",
    "has_registry",
    "open_registry",
]


def open_registry(address: Address) -> SqlRegistry:
    """Open the registry of a home, and create it if it is missing.

    Raises:
        StoreError: It cannot be created or used, or a later release of Seeknal has changed it.
    """
    if address.registry is not None:
        from seeknal.system.postgres.sessions import imported

        imported()  # or fails, and says how to install it
        from seeknal.registry.postgres.implementation import PostgresRegistry

        return PostgresRegistry(address.registry, open_storage(address).whereabouts)
    check_moved(address)
    from seeknal.registry.sqlite.implementation import SqliteRegistry

    return SqliteRegistry(file_of(address.home))


def has_registry(address: Address) -> bool:
    """Return whether a home has a registry, without creating one.

    Raises:
        StoreError: The server that may have it cannot be reached.
    """
    if address.registry is not None:
        from seeknal.system.postgres.sessions import imported

        imported()
        from seeknal.registry.postgres.implementation import exists

        return exists(address.registry)
    return file_of(address.home).exists()


def copy_registry(address: Address, target: Address) -> Registry:
    """Copy the registry of a home, as of one moment, to another address, and open the copy.

    Raises:
        OSError: The file with the registry cannot be read, or the copy cannot be written.
        DefinitionError: The target is a database that has other content.
        StoreError: A database cannot be used.
    """
    if address.registry is None and target.registry is None:
        from seeknal.registry.sqlite.implementation import copy as copy_file

        copy_file(file_of(address.home), file_of(target.home))
        return open_registry(target)
    from seeknal.registry.sql.copying import copy

    made = open_registry(target)
    copy(open_registry(address), made)
    return made
