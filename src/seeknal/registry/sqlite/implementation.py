"""The registry in a SQLite database: a file that any number of processes use at once, in short transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, inspect

from seeknal.errors import StoreError
from seeknal.registry.sql import tables as t
from seeknal.registry.sql import upgrade
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.registry.sqlite.database import SqliteDatabase
from seeknal.system.folders import same_access, share
from seeknal.values.sql import comma, quote

T = TypeVar("T")
_opened: dict[tuple[int, int], int] = {}
"""The descriptors of the registries that this process has opened, by the device and the inode of the file."""
_WAL = 2
"""The version of the file format by which SQLite marks a database with a write-ahead log."""


class SqliteRegistry(SqliteDatabase, SqlRegistry):
    """The groups, versions, loads, online tables, training sets and tokens of a home, in a SQLite database.

    Args:
        path: The file of the database; created if it is missing.

    Raises:
        StoreError: The database cannot be created or used.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # `Database` opens existing files only, so a new one is created here.
            if not path.exists():
                with suppress(FileExistsError):
                    path.touch(exist_ok=False)
                    share(path)
        except OSError as error:
            raise StoreError(
                f"The home {path.parent} cannot be created: {error}. Set SEEKNAL_HOME to another folder."
            ) from None
        super().__init__(path)
        self._stand_ins: list[str] = []
        # With a write-ahead log, even readers have to write, and the change counter that `stamp` reads stands still.
        if _WAL in _head(path, path.stat())[:2]:
            self.leave_wal()
        # Only an upgrade takes the write lock, so that a home that cannot be written can be opened.
        if not self.take(upgrade.is_current):
            try:
                self.take(upgrade.upgrade, writes=True)
            except StoreError:
                # A registry of an earlier release that cannot be written is read as it is.
                if (made := self.take(_stand_ins)) is None:
                    raise
                self._stand_ins = made

    def take(self, step: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Run a step in a transaction; see `Database.take`. A write first migrates a registry that could not be migrated before."""
        if not self._stand_ins:
            return super().take(step, writes=writes)

        def as_if_migrated(db: Connection) -> T:
            if writes:
                upgrade.upgrade(db)
            for statement in () if writes else self._stand_ins:
                db.exec_driver_sql(statement)
            return step(db)

        result = super().take(as_if_migrated, writes=writes)
        self._stand_ins = [] if writes else self._stand_ins
        return result

    def stamp(self) -> bytes:
        """Return a stamp that differs after each change of the registry. Only a few bytes are read for it.

        It contains the "file change counter" of the SQLite database (https://sqlite.org/fileformat2.html, section 1.3.7), and the
        inode, size and modification time of the file, which reveal that another file replaced it or was copied over it. With a
        write-ahead log, the counter stands still while the database changes, so such a database is converted back. As long as
        that is not possible, each call returns a new stamp.

        Raises:
            StoreError: The registry is not there, or cannot be read.
        """
        try:
            found = self.path.stat()
            head = _head(self.path, found)
            if _WAL in head[:2]:
                self.leave_wal()
                found = self.path.stat()
                head = _head(self.path, found)
            if _WAL in head[:2]:
                return os.urandom(16)  # changes cannot be detected, so callers have to assume one
            return head[6:] + f"{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()
        except OSError as error:
            raise StoreError(f"The registry {self.path} cannot be read: {error}.") from error

    recent_stamp = stamp


def _head(path: Path, found: os.stat_result) -> bytes:
    """Return the versions of the file format (two bytes), four other bytes, and the change counter (four bytes).

    The file is never closed, because this process would lose the locks that SQLite holds on it
    (https://sqlite.org/howtocorrupt.html, section 2.2). All registries of a process share the descriptor, so that stores that come and go
    do not use them up.
    """
    opened = _opened.get((found.st_dev, found.st_ino))
    if opened is None:
        opened = os.open(path, os.O_RDONLY)
        found = os.fstat(opened)  # of this very file: another one may have taken its place
        opened = _opened.setdefault((found.st_dev, found.st_ino), opened)
    return os.pread(opened, 10, 18)


def copy(source: Path, target: Path) -> None:
    """Copy a registry in a single step, so that the copy is of one moment.

    Raises:
        OSError: The registry cannot be read, or the copy cannot be written.
    """
    try:
        with closing(sqlite3.connect(source, timeout=60)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new, progress=lambda *_: None)  # lets Python handle a Ctrl-C
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
    same_access(source, target)


def _stand_ins(db: Connection) -> list[str] | None:
    """Return the SQL that lets a connection read a registry of an earlier release as if it had been migrated.

    What it lacks is put before the stored tables, for the connection only: an empty table, or a view with nulls for new columns. None:
    it lacks columns that cannot be null.
    """
    found, made = inspect(db), []
    for table in t.metadata.sorted_tables:
        names = [column.name for column in table.columns]
        if not found.has_table(table.name):
            made.append(f"CREATE TEMP TABLE {quote(table.name)} ({comma(map(quote, names))})")
            continue
        known = {one["name"] for one in found.get_columns(table.name)}
        missing = [column for column in table.columns if column.name not in known]
        if any(not column.nullable for column in missing):
            return None
        if missing:
            columns = comma(quote(name) if name in known else f"NULL AS {quote(name)}" for name in names)
            made.append(f"CREATE TEMP VIEW {quote(table.name)} AS SELECT {columns} FROM main.{quote(table.name)}")
    return made
