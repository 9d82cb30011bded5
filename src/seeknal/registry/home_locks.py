"""The locks of a home that keep deletions, backups and the saving of training sets apart."""

from __future__ import annotations

from contextlib import AbstractContextManager

from seeknal.system.storage import Storage


class HomeLocks:
    """The locks of a home.

    Args:
        storage: The storage of the home.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._deletions = storage.lock("deletions")
        self._turn = storage.lock("turn")
        self._saving = storage.lock("saving")

    def deleting(self) -> AbstractContextManager[object]:
        """Take the exclusive lock for deletions and erasures, so that no backup copies a half-finished one."""
        # A backup that waits in `keeping` holds this lock, and goes first: later deletions cannot starve it.
        with self._turn.exclusive():
            pass
        return self._deletions.exclusive()

    def try_deleting(self) -> AbstractContextManager[object] | None:
        """Take the lock of `deleting` without waiting; return None if it is not free."""
        return self._deletions.try_exclusive()

    def saving(self) -> AbstractContextManager[object]:
        """Take the shared lock that protects a training set while it is stored but not yet in the registry."""
        return self._saving.shared()

    def try_saved(self) -> AbstractContextManager[object] | None:
        """Take the exclusive lock against saving training sets without waiting; return None if one is being saved."""
        return self._saving.try_exclusive()

    def keeping(self) -> AbstractContextManager[object]:
        """Take the shared lock that keeps deletions and erasures out. Several processes can hold it at the same time."""
        with self._turn.shared():
            return self._deletions.shared()
