"""The locks of a home that keep deletions, backups and the saving of training sets apart."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from seeknal.system.locks import exclusive_lock, shared_lock, try_exclusive_lock

_DELETIONS, _TURN, _SAVING = "_deletions.lock", "_turn.lock", "datasets/_saving.lock"


class HomeLocks:
    """The locks of a home.

    Args:
        home: The folder of the home.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def deleting(self) -> AbstractContextManager[object]:
        """Take the exclusive lock for deletions and erasures, so that no backup copies a half-finished one."""
        # A backup that waits in `keeping` holds this lock, and goes first: later deletions cannot starve it.
        with exclusive_lock(self.home / _TURN):
            pass
        return exclusive_lock(self.home / _DELETIONS)

    def try_deleting(self) -> AbstractContextManager[object] | None:
        """Take the lock of `deleting` without waiting; return None if it is not free."""
        return try_exclusive_lock(self.home / _DELETIONS)

    def saving(self) -> AbstractContextManager[object]:
        """Take the shared lock that protects a training set while it is in its folder but not yet in the registry."""
        return shared_lock(self.home / _SAVING)

    def try_saved(self) -> AbstractContextManager[object] | None:
        """Take the exclusive lock against saving training sets without waiting; return None if one is being saved."""
        return try_exclusive_lock(self.home / _SAVING)

    def keeping(self) -> AbstractContextManager[object]:
        """Take the shared lock that keeps deletions and erasures out. Several processes can hold it at the same time."""
        with shared_lock(self.home / _TURN):
            return shared_lock(self.home / _DELETIONS)
