"""The registry: which groups, versions, online tables, training sets and tokens exist. It is small, and knows nothing of rows."""

from __future__ import annotations

from pathlib import Path

from seeknal.registry.protocol import Registry
from seeknal.registry.records import (
    GroupRecord,
    GroupState,
    Load,
    OnlineTableRecord,
    PinnedLookup,
    Question,
    SnapshotRecord,
    TokenRecord,
    TrainingSetRecord,
    Version,
)

__all__ = [
    "REGISTRY_FILE",
    "GroupRecord",
    "GroupState",
    "Load",
    "OnlineTableRecord",
    "PinnedLookup",
    "Question",
    "Registry",
    "SnapshotRecord",
    "TokenRecord",
    "TrainingSetRecord",
    "Version",
    "copy_registry",
    "has_registry",
    "open_registry",
]

REGISTRY_FILE = "registry.db"
"""Name of the registry's file in a home."""


def open_registry(home: Path) -> Registry:
    """Open the registry of a home, and create it if it is missing.

    Raises:
        StoreError: It cannot be created or used, or a later release of Seeknal has changed it.
    """
    from seeknal.registry.sqlite.implementation import SqliteRegistry

    return SqliteRegistry(home / REGISTRY_FILE)


def has_registry(home: Path) -> bool:
    """Return whether a home has a registry, without creating one."""
    return (home / REGISTRY_FILE).exists()


def copy_registry(home: Path, target: Path) -> Registry:
    """Copy the registry of a home, as of one moment, to another folder, and open the copy.

    Raises:
        OSError: The registry cannot be read, or the copy cannot be written.
    """
    from seeknal.registry.sqlite.implementation import copy

    copy(home / REGISTRY_FILE, target / REGISTRY_FILE)
    return open_registry(target)
