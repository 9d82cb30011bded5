"""Transactions on a PostgreSQL database, which no interrupt leaves open, and which are repeated if the server was lost before the commit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from seeknal.errors import DefinitionError, StoreError
from seeknal.registry.sql.database import Database
from seeknal.system.postgres import sessions
from seeknal.system.postgres.locks import check_held
from seeknal.system.postgres.sessions import reason, sessions_of
from seeknal.system.postgres.watched import SilentError

if TYPE_CHECKING:
    from seeknal.system.postgres.sessions import Sessions

T = TypeVar("T")
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock({key})"
_CHANGED = "UPDATE change SET number = number + 1; NOTIFY {channel}; COMMIT"


class PostgresDatabase(Database):
    """A schema of a PostgreSQL database that any number of threads, processes and machines may use at once.

    Args:
        url: The URL of the database.
    """

    def __init__(self, url: str) -> None:
        self.sessions: Sessions = sessions_of(url)
        # One writer at a time, as in SQLite: calls rely on what they have read until they commit.
        self._write = _WRITE.format(key=self.sessions.key("write"))
        self._changed = _CHANGED.format(channel=channel_of(self.sessions))

    def __str__(self) -> str:
        return str(self.sessions)

    def take(self, step: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Run a step in a transaction; see `Database.take`."""
        return self._insist(step, self._write if writes else _READ)

    def look(self, statement: Select[Any]) -> Any:
        """Return the value that a single statement selects, in one round trip."""
        return self._insist(lambda db: db.scalar(statement), None)

    def _insist(self, step: Callable[[Connection], T], begin: str | None) -> T:
        """Run a step, and once more if the session was lost before the commit: nothing was changed then."""
        try:
            try:
                return self._run(step, begin)
            except _LostError:
                self.sessions.renew()  # after a restart or a migration, the idle sessions cannot be used either
                return self._run(step, begin)
        except _LostError as error:
            raise self._lost(error) from error
        except PoolTimeout as error:
            raise StoreError(
                f"All sessions of this process with the registry at {self} have been in use for 30 seconds, by other threads."
            ) from error

    def _run(self, step: Callable[[Connection], T], begin: str | None) -> T:
        db = self.sessions.engine.connect()
        session = cast("psycopg.Connection[Any]", db.connection.dbapi_connection)
        has_ended = False
        try:
            if begin:
                db.exec_driver_sql(begin)
            result = step(db)
            if begin == self._write:
                check_held(self.sessions)
                self._commit(session)
                self.sessions.note_write()
            elif begin:
                session.execute("COMMIT")
            has_ended = True
        except Exception as error:
            with suppress(psycopg.Error):
                session.rollback()
                has_ended = True
            if (told := self._told(error, session)) is error:
                raise
            raise told from error
        finally:
            if not has_ended:  # an interrupt, or a lost session: the server rolls the transaction back
                session.pgconn.finish()
                db.invalidate()
            db.close()
        return result

    def _commit(self, session: psycopg.Connection[Any]) -> None:
        try:
            session.execute(self._changed)
        except psycopg.Error as error:
            if session.closed:
                raise StoreError(
                    f"The registry at {self} was lost in the middle of a commit: {reason(error)}. The change may have been made "
                    "or not: look before you repeat the call."
                ) from error
            raise

    def _told(self, error: Exception, session: psycopg.Connection[Any]) -> Exception:
        """Return the error to raise in place of one of the driver; errors of the step stay as they are."""
        found = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(found, psycopg.Error):
            return error
        if isinstance(found, SilentError):
            return self._lost(found)
        # A statement that the session has prepared does not fit any more once a migration has changed a type.
        if session.closed or isinstance(found, psycopg.errors.FeatureNotSupported):
            return _LostError(reason(found))
        if isinstance(found, psycopg.errors.LockNotAvailable):
            return StoreError(
                f"Another process has been writing to the registry at {self} for {sessions.WRITING} seconds."
            )
        if isinstance(found, psycopg.DataError) and isinstance(error, DBAPIError) and (text := _with_nul(error.params)):
            return DefinitionError(
                f"PostgreSQL stores no text with a NUL character, and {text!r} has one. Leave it out."
            )
        return StoreError(f"The registry at {self} cannot be used: {reason(found)}.")

    def _lost(self, error: Exception) -> StoreError:
        return StoreError(f"The registry at {self} was lost: {reason(error)}. Nothing was changed.", is_away=True)


class _LostError(Exception):
    """The session was lost, or can no longer be used, before the transaction was committed."""


def channel_of(sessions: Sessions) -> str:
    """Return the name of the channel on which the server says that a registry has changed."""
    return f"seeknal_{sessions.key('changes'):016x}"


def _with_nul(parameters: Any) -> str | None:
    rows = parameters if isinstance(parameters, list) else [parameters]
    return next((one for row in rows for one in row.values() if isinstance(one, str) and "\0" in one), None)
