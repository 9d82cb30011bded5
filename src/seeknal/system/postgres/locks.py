"""Locks that machines share: advisory locks of a PostgreSQL session, which the server frees however the session ends.

https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS

A thread holds all of its locks in one session, so that the server can tell when threads wait for each other in a circle. The server counts
how often a session took a lock, and a thread can take a lock again that it holds, even if others wait for it.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, Self

from seeknal.errors import StoreError
from seeknal.system.locks import note_exclusive
from seeknal.system.postgres import sessions as of_process
from seeknal.system.postgres.sessions import Sessions, imported, reason, sessions_of

if TYPE_CHECKING:
    import psycopg

_Mode = Literal["exclusive", "shared"]
_TAKE = {"exclusive": "SELECT pg_advisory_lock(%s)", "shared": "SELECT pg_advisory_lock_shared(%s)"}
_FREE = {"exclusive": "SELECT pg_advisory_unlock(%s)", "shared": "SELECT pg_advisory_unlock_shared(%s)"}
_TRY = "SELECT pg_try_advisory_lock(%s)"


class PostgresLock:
    """A lock shared by all processes that use one schema of a database; see `seeknal.system.storage.Lock`.

    Args:
        url: The URL of the database.
        name: What the lock is for.
    """

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._sessions = sessions_of(url)

    def exclusive(self) -> Held:
        """See `Lock.exclusive`.

        Raises:
            StoreError: Others still hold it after `PATIENCE`, or the server cannot be reached.
        """
        return self._take("exclusive")

    def shared(self) -> Held:
        """See `Lock.shared`.

        Raises:
            StoreError: Others still hold it after `PATIENCE`, or the server cannot be reached.
        """
        return self._take("shared")

    def try_exclusive(self) -> Held | None:
        """See `Lock.try_exclusive`.

        Raises:
            StoreError: The server cannot be reached.
        """
        with _of_thread(self._sessions) as holder:
            # The session could take again what this thread holds, but what that protects is not finished.
            if holder.counts[self.name] or not holder.ask(_TRY, self.name):
                return None
            return Held(holder, self.name, "exclusive")

    def _take(self, mode: _Mode) -> Held:
        with _of_thread(self._sessions) as holder:
            holder.ask(_TAKE[mode], self.name)
            return Held(holder, self.name, mode)


class Held:
    """A lock that is held until the end of a `with` block, or until this object is garbage-collected."""

    def __init__(self, holder: _Holder, name: str, mode: _Mode) -> None:
        self.closed = False
        self._holder, self._name, self._mode = holder, name, mode
        holder.counts[name] += 1
        if mode == "exclusive":
            note_exclusive(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.closed:
            self.closed = True
            self._holder.free(self._name, self._mode)

    def __del__(self) -> None:
        if not self.closed:
            self._holder.drop(self._name)


class _Holder:
    """The session in which a thread holds its locks. The thread gives it back when it holds none."""

    def __init__(self, sessions: Sessions) -> None:
        self.counts: Counter[str] = Counter()
        self._sessions = sessions
        self._thread = get_ident()
        self._process = os.getpid()
        self._session: psycopg.Connection[tuple[Any, ...]] | None = None
        self._asking = 0
        self._is_spent = False

    def __enter__(self) -> Self:
        self._asking += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._asking -= 1
        if kind is not None and not issubclass(kind, Exception):
            self._abandon()  # the server may have granted the lock just before the interrupt
        if not self._asking and not self.counts.total():
            self._sessions.holders().pop(self._thread, None)
            session, self._session = self._session, None
            if session is not None:
                if self._is_spent:
                    session.close()
                self._sessions.give_back(session)

    def ask(self, statement: str, name: str) -> Any:
        """Run a statement about a lock, and return its result.

        Raises:
            StoreError: Others hold the lock, or the session or the server is gone.
        """
        driver = imported()
        if self._session is None:
            self._session = self._sessions.borrow()
        try:
            row = self._session.execute(statement, [self._sessions.key(f"lock/{name}")]).fetchone()
        except driver.errors.LockNotAvailable:
            raise StoreError(
                f"Others have held the lock {name!r} of the registry at {self._sessions} for {of_process.PATIENCE} seconds: a "
                "backup, a deletion, an erasure or an optimization takes that long. Try again when it has ended."
            ) from None
        except driver.Error as error:
            raise StoreError(
                f"The lock {name!r} of the registry at {self._sessions} cannot be used: {reason(error)}."
            ) from None
        return row and row[0]

    @property
    def is_lost(self) -> bool:
        """Whether the session is gone, and its locks with it."""
        if self._session is not None:
            with suppress(imported().Error):
                self._session.execute("SELECT 1")
        return self._session is None or bool(self._session.closed)

    def free(self, name: str, mode: _Mode) -> None:
        """Release a lock. A forked process releases nothing of its parent's."""
        self.counts[name] -= 1
        if self._process == os.getpid():
            with self, suppress(StoreError):  # the server frees the locks of a session that is gone
                self.ask(_FREE[mode], name)

    def drop(self, name: str) -> None:
        """Release a lock whose object was garbage-collected, by calls into C only: that may come in the middle of a query.

        If the thread holds more, the lock is released with the last of them.
        """
        self.counts[name] -= 1
        self._is_spent = True
        if self._process == os.getpid() and not self._asking and not self.counts.total():
            self._abandon()
            self._sessions.holders().pop(self._thread, None)

    def _abandon(self) -> None:
        """Close the session at once, so that the server frees all its locks."""
        if self._session is not None:
            self._session.pgconn.finish()


def check_held(sessions: Sessions | None = None) -> None:
    """Check that this thread still holds the locks that it has taken, before it commits what they protect.

    Args:
        sessions: Of which database and schema. None: of all.

    Raises:
        StoreError: Their session was lost, so another process may have taken them since.
    """
    for one in [sessions] if sessions else of_process.every():
        holder = one.holders().get(get_ident())
        if holder is not None and holder.counts.total() and holder.is_lost:
            names = ", ".join(map(repr, +holder.counts))
            raise StoreError(
                f"The connection to the registry at {one} was lost, and the lock {names} with it, so another process may have taken "
                "it. What was about to be committed was not. Repeat the call."
            )


def _of_thread(sessions: Sessions) -> _Holder:
    holder: _Holder = sessions.holders().setdefault(get_ident(), _Holder(sessions))
    return holder
