"""What this process knows of the changes to a registry, by a thread that the server notifies of each."""

from __future__ import annotations

from contextlib import closing
from threading import Event, Thread
from weakref import ref

import psycopg

from seeknal.errors import StoreError
from seeknal.registry.postgres.database import channel_of
from seeknal.system.postgres.sessions import CONNECTING, Sessions, connect, reason

_LOOK = 0.5
"""Seconds after which the number of the last change is read even without a notification: one may be lost with a connection."""


class Changes:
    """Follows the number of the last change of a registry.

    Args:
        sessions: Of the database and schema with the registry.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.number: int | None = None
        """The number of the last known change; None before the first look."""
        self.error: StoreError | None = None
        """Why the registry could not be read at the last look; None if it could."""
        self._looked = Event()
        following = ref(self), sessions, self._looked
        self._thread = Thread(target=_follow, args=following, name="registry changes", daemon=True)
        self._thread.start()

    def last(self) -> int:
        """Return the number of the last known change. While the registry cannot be reached, it stays as it was.

        Raises:
            StoreError: The registry could not be reached so far.
        """
        if self.number is None:
            self._looked.wait(2 * CONNECTING)
        if self.number is None or not self._thread.is_alive():
            raise self.error or StoreError(
                "The registry is not followed: its server did not answer in time.", is_away=True
            )
        return self.number


def _follow(changes: ref[Changes], sessions: Sessions, looked: Event) -> None:
    """Keep the number up to date until nobody wants it any more."""
    while changes() is not None:
        try:
            with closing(connect(sessions.url, CONNECTING)) as session:
                session.execute(f"LISTEN {channel_of(sessions)}")
                while (one := changes()) is not None:
                    (one.number,), one.error = session.execute("SELECT number FROM change").fetchall()[0], None
                    looked.set()
                    del one
                    for _ in session.notifies(timeout=_LOOK, stop_after=1):
                        pass
        except (StoreError, psycopg.Error) as error:
            if (one := changes()) is not None:
                one.error = StoreError(f"The registry at {sessions} cannot be followed: {reason(error)}.", is_away=True)
                looked.set()
                del one
            Event().wait(_LOOK)
