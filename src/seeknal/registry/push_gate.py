"""When the rows in the push log are committed: before the rows of their group are read, but not in the middle of a change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from seeknal.registry.records import GroupRecord
from seeknal.system.locks import holds_exclusive
from seeknal.system.retry import retry_on_conflict

T = TypeVar("T")


class CommitPushes(Protocol):
    """Commits what the push log has of a group."""

    def __call__(self, record: GroupRecord, *, load: bool) -> None:
        """Commit it, and load it; or, without `load`, commit what running pushes append as well, and load nothing."""


class PushGate(threading.local):
    """Commits what the push log has of a group, wherever the state of the group is read.

    Args:
        commit: Commits it. None: nothing is pushed.
    """

    def __init__(self, commit: CommitPushes | None) -> None:
        self.commit_now = commit
        self._is_closed = False

    def commit(self, record: GroupRecord) -> None:
        """Commit what the push log has of a group, so that what is read from now on includes it.

        Nothing happens in a step that `closed` runs, or while this thread holds an exclusive lock, for which the commit could wait
        forever.
        """
        if self.commit_now and not self._is_closed and not holds_exclusive():
            self.commit_now(record, load=True)

    def settle(self, record: GroupRecord) -> None:
        """Commit what the push log has of a group, that of running pushes included, and leave it to the caller to load it."""
        if self.commit_now and not record.windowed:
            self.commit_now(record, load=False)

    def closed(self, step: Callable[[], T]) -> T:
        """Run a step that leaves the push log alone, and return its result.

        What the step plans on would otherwise change with every push that it finds in the log.
        """
        before = self._is_closed
        try:
            self._is_closed = True
            return step()
        finally:
            self._is_closed = before

    def committing(self, record: GroupRecord, step: Callable[[], T]) -> T:
        """Run a step that plans on the newest snapshot of a group and commits another, again while other writers commit first.

        Each attempt plans on a snapshot that has what was pushed before.

        Raises:
            StoreError: Other writers committed first in each of 50 attempts.
        """

        def attempt() -> T:
            self.commit(record)
            return self.closed(step)

        return retry_on_conflict(record.label, attempt)
