"""Short transactions on a SQLite database, which no interrupt leaves open.

A KeyboardInterrupt can be raised between any two steps of Python, even on the way into or out of a context manager, and a
notebook keeps the frames of the last error indefinitely. So a transaction begins inside a `try`, and its `finally` closes the
connection, which no other transaction uses, by calls into C.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, ExceptionContext, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from seeknal.errors import StoreError
from seeknal.registry.sql.database import Database
from seeknal.system.folders import read_only
from seeknal.system.forks import unforked

T = TypeVar("T")

# An interrupt during a close is raised, so the pool does not have to log it as well.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


class SqliteDatabase(Database):
    """A SQLite database that any number of processes may use at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The caller creates the file. With mode=rw, SQLite does not: a database that vanished must not come back empty.
        self._uri = f"{path.absolute().as_uri()}?mode=rw"
        self._engine = create_engine(
            URL.create("sqlite", database=self._uri, query={"uri": "true"}),
            connect_args={"timeout": 60, "factory": _Connection, "check_same_thread": False},
            poolclass=NullPool,
            pool_reset_on_return=None,
        )
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "handle_error", self._refuse_moved)

    def take(self, step: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Run a step in a transaction; see `Database.take`."""
        try:
            with unforked():
                db = self._engine.connect()
                raw = cast("_Connection", db.connection.dbapi_connection)
                try:
                    db.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
                    result = step(db)
                    db.commit()
                    db.close()
                    return result
                finally:
                    try:  # `deque` and `map` run the whole loop in C
                        deque(map(sqlite3.Cursor.close, raw.cursors), maxlen=0)
                    except sqlite3.ProgrammingError:
                        pass  # the cursors were closed with the connection
                    finally:
                        sqlite3.Connection.close(raw)
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
                raise read_only(self.path) from error
            raise StoreError(f"The registry {self.path} cannot be used: {error.orig}.") from error

    def _refuse_moved(self, context: ExceptionContext) -> None:
        """Say why a registry that was moved refuses a write; its callers could take that for a row that exists.

        Raises:
            StoreError: It refused one; see `seeknal.registry.sql.copying.freeze`.
        """
        error = context.original_exception
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_TRIGGER":
            raise StoreError(f"The registry {self.path} cannot be written: {error}.") from error

    def leave_wal(self) -> None:
        """Convert a database with a write-ahead log back to a rollback journal; do nothing while another program has it open."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._uri, timeout=0, uri=True)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")


class _Connection(sqlite3.Connection):
    """A connection that tracks its cursors, because one that was not read to its end would hold a lock after the close."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.cursors: list[sqlite3.Cursor] = []
        super().__init__(*arguments, **options)

    def cursor(self, *arguments: Any) -> Any:
        made = super().cursor(*arguments)
        self.cursors.append(made)
        return made

    def close(self) -> None:
        with suppress(sqlite3.ProgrammingError):
            deque(map(sqlite3.Cursor.close, self.cursors), maxlen=0)
        super().close()


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: `take` begins them
    connection.execute("PRAGMA foreign_keys = ON")
