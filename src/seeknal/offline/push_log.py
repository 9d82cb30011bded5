"""The push log of a home: pushed rows that are acknowledged, and that no snapshot or online store holds yet.

A commit of an offline table takes some ten milliseconds, an entry in this log a fraction of one. The log is a SQLite database with a
write-ahead log, so an entry survives a crash as soon as it is appended, and any number of processes may use it at once.

An entry has the rows of one push. It goes through these states:

    appended   no snapshot holds its rows
    taken      its batch is being committed as a snapshot; if that is interrupted, nobody knows whether it was
    stored     its batch is committed as a snapshot, but its rows may not be online yet
    removed    its rows are online, wherever the group is

Beside the database lies a file with a token, which every change of the log replaces. Lookups look at the token alone, so the log costs
them nothing while nobody pushes.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from weakref import WeakSet

from seeknal.errors import StoreError
from seeknal.system.folders import may_write, read_only, refused, share
from seeknal.system.forks import PerProcess, unforked
from seeknal.system.storage import LocalLocation, Location, path_of

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
_TABLES = """
CREATE TABLE IF NOT EXISTS layout (id INTEGER PRIMARY KEY, text BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS entry (
    number INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, version INTEGER NOT NULL, base INTEGER NOT NULL,
    layout INTEGER NOT NULL, at INTEGER NOT NULL, rows BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS entry_of_stream ON entry (stream, number);
CREATE TABLE IF NOT EXISTS batch (
    stream TEXT NOT NULL, last INTEGER NOT NULL, snapshot INTEGER NOT NULL, stored INTEGER NOT NULL, PRIMARY KEY (stream, last)
);
CREATE TABLE IF NOT EXISTS removal (
    stream TEXT NOT NULL, version INTEGER NOT NULL, last INTEGER NOT NULL, snapshot INTEGER NOT NULL, PRIMARY KEY (stream, version)
);
"""
_TOKEN = 8
_KEPT = 100
"""How many stored batches of a stream are remembered."""
_READS, _STEP = 500, 0.01
"""How often a user who may not write tries to read, and how many seconds pass in between."""


class Entry(NamedTuple):
    """The rows of one push.

    Args:
        number: Its number, greater than those of all entries before it.
        version: The version of the group that the rows belong to.
        base: The snapshot that the rows were compared with: it holds none of them.
        at: When it was appended, in microseconds since 1970.
        layout: The Arrow schema of the rows, serialized.
        rows: The rows, as one serialized Arrow record batch.
    """

    number: int
    version: int
    base: int
    at: int
    layout: bytes
    rows: bytes

    def batch(self) -> pa.RecordBatch:
        """Return the rows."""
        import pyarrow as pa

        return pa.ipc.read_record_batch(pa.py_buffer(self.rows), _schema(self.layout))


class Batch(NamedTuple):
    """The entries of a stream that are committed as one snapshot.

    Args:
        last: The number of the last of them.
        snapshot: The snapshot that holds them, if `stored`; otherwise the one that is to hold them.
        stored: Whether the snapshot was committed.
    """

    last: int
    snapshot: int
    stored: bool


class Contents(NamedTuple):
    """What the log has of a stream.

    Args:
        entries: The entries, oldest first.
        batches: The batches, oldest first.
        removals: For each version whose entries were removed, the last of these, and the newest snapshot that holds some of them.
    """

    entries: list[Entry]
    batches: list[Batch]
    removals: dict[int, tuple[int, int]]

    @property
    def last_stored(self) -> int:
        """The number of the last entry that is in a snapshot; 0 if none is."""
        return max((batch.last for batch in self.batches if batch.stored), default=0)

    @property
    def removed_last(self) -> int:
        """The number of the last entry that was removed; 0 if none was."""
        return max((last for last, _ in self.removals.values()), default=0)

    def removed(self, version: int | None) -> int:
        """Return the newest snapshot with rows of removed entries, of a version or of all; -1 if none were removed."""
        return max((found for number, (_, found) in self.removals.items() if version in {None, number}), default=-1)


class PushLog:
    """The push log of a home. A stream is the part of the log that belongs to one group.

    Args:
        location: Where the database lies. It is created by the first entry.
    """

    def __init__(self, location: Location) -> None:
        self._path = path_of(location)
        self._lock = Lock()
        self._without: dict[str, bytes] = {}
        self._connection: sqlite3.Connection | None = None
        self._token = PerProcess(self._map_token)
        _every.add(self)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return _at, (self._path,)

    @property
    def exists(self) -> bool:
        """Whether anything was ever pushed through the log."""
        return os.path.exists(self._path)  # noqa: PTH110 - for lookups, which take microseconds

    @property
    def is_writable(self) -> bool:
        """Whether this user may append to the log."""
        return may_write(self._path)

    def token(self) -> bytes:
        """Return a value that differs after each change of the log; empty if there is no log."""
        token = self._token()
        if token is None:
            if not self.exists:
                return b""
            self._token.forget()
            token = self._token()
        return os.urandom(_TOKEN) if token is None else token[:_TOKEN]

    def has(self, stream: str) -> bool:
        """Return whether a stream has entries. The log is read only if it has changed since the last call."""
        token = self.token()
        if not token or self._without.get(stream) == token:
            return False
        query = "SELECT 1 FROM entry WHERE stream = ? LIMIT 1"
        found = self._run(None, lambda db: db.execute(query, (stream,)).fetchone()) is not None
        if not found:
            self._without[stream] = token
        return found

    def contents(self, stream: str, after: int = 0) -> Contents:
        """Return what the log has of a stream.

        Args:
            stream: The stream.
            after: Leave out the entries up to this number.

        Raises:
            StoreError: The log cannot be read.
        """
        return self._run("BEGIN", lambda db: _contents(db, stream, after)) if self.exists else Contents([], [], {})

    def wait(self) -> None:
        """Wait until running pushes are acknowledged; a later one is dated later."""
        if self.exists and may_write(self._path):
            self._run("BEGIN IMMEDIATE", lambda _: None)

    def append(self, stream: str, after: int, make: Callable[[list[Entry]], Sequence[Entry]]) -> int:
        """Append entries to a stream, and return the number of its last entry. They are stored durably when this call returns.

        Args:
            stream: The stream.
            after: The number of the last entry that the caller knows.
            make: Makes the entries, given those that others have appended since; their numbers are ignored. No other process appends
                meanwhile.

        Raises:
            StoreError: The log cannot be written; nothing was appended.
        """

        def step(db: sqlite3.Connection) -> int:
            others = _entries(db, stream, after)
            last = others[-1].number if others else after
            for entry in make(others):
                found = db.execute("SELECT id FROM layout WHERE text = ?", (entry.layout,)).fetchone()
                found = found or (db.execute("INSERT INTO layout (text) VALUES (?)", (entry.layout,)).lastrowid,)
                query = "INSERT INTO entry (stream, version, base, layout, at, rows) VALUES (?, ?, ?, ?, ?, ?)"
                made = db.execute(query, (stream, entry.version, entry.base, found[0], entry.at, entry.rows))
                last = made.lastrowid or last
            return last

        last = self._run("BEGIN IMMEDIATE", step)
        self._tell()
        return last

    def take(self, stream: str, last: int, snapshot: int) -> None:
        """Record that the entries up to `last` that are not stored yet are about to be committed as a snapshot."""
        self._settle(stream, Batch(last, snapshot, stored=False))

    def store(self, stream: str, last: int, snapshot: int) -> None:
        """Record that the entries up to `last` are in a snapshot."""
        self._settle(stream, Batch(last, snapshot, stored=True))

    def _settle(self, stream: str, batch: Batch) -> None:
        def step(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM batch WHERE stream = ? AND NOT stored", (stream,))
            db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?)", (stream, *batch))

        self._run("BEGIN IMMEDIATE", step)
        self._tell()

    def remove(self, stream: str, last: int) -> None:
        """Remove the stored entries of a stream up to `last`."""

        def step(db: sqlite3.Connection) -> None:
            contents = _contents(db, stream, 0)
            done = [batch for batch in contents.batches if batch.stored and batch.last <= last]
            if done:
                end = done[-1]
                removals = {
                    entry.version: (end.last, end.snapshot) for entry in contents.entries if entry.number <= end.last
                }
                rows = [(stream, version, *one) for version, one in removals.items()]
                db.executemany("INSERT OR REPLACE INTO removal VALUES (?, ?, ?, ?)", rows)
                db.execute("DELETE FROM entry WHERE stream = ? AND number <= ?", (stream, end.last))
                old = [(stream, batch.last) for batch in done[:-_KEPT]]
                db.executemany("DELETE FROM batch WHERE stream = ? AND last = ?", old)

        self._run("BEGIN IMMEDIATE", step)
        self._tell()

    def forget(self, stream: str) -> None:
        """Remove all that the log has of a stream, because its group was deleted."""

        def step(db: sqlite3.Connection) -> None:
            for table in ("entry", "batch", "removal"):
                db.execute(f"DELETE FROM {table} WHERE stream = ?", (stream,))

        if self.exists:
            self._run("BEGIN IMMEDIATE", step)
            self._tell()

    def scrub(self) -> None:
        """Remove from the disk what is left of removed entries, because an entity was erased.

        Raises:
            StoreError: Another process reads the log for too long.
        """
        if not self.exists:
            return
        ((is_busy, *_),) = self._run(None, lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        if is_busy:
            raise StoreError(f"The push log {self._path} is in use, and still has the rows.")

    def close(self) -> None:
        """Close the database; it opens again on the next use."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def prepare_fork(self) -> None:
        """Close the database and keep it closed until `end_fork`: a connection must not reach a forked process, nor a held lock."""
        self._lock.acquire()
        self._close()

    def end_fork(self) -> None:
        """Let the database be used again, in this process and in a forked one."""
        self._lock.release()

    def _run(self, begin: str | None, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run a step in a transaction, which commits if the step ends without an error.

        Args:
            begin: The statement that begins the transaction; None: the step has one statement, which is its own.
            step: Called with the connection.

        Raises:
            StoreError: The log cannot be used.
        """
        try:
            if begin in {None, "BEGIN"} and not may_write(self._path):
                return self._read(step)
            # All are context managers in C, so an interrupt leaves neither the lock held nor the transaction open.
            with self._lock, unforked(), self._connected() as db:
                if begin:
                    db.execute(begin)
                return step(db)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
                raise read_only(self._path) from error
            raise StoreError(f"The push log {self._path} cannot be used: {error}.") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            is_new = not self.exists
            if is_new and not may_write(self._path):
                raise read_only(self._path)
            db = _open(self._path, "mode=rwc")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # an entry survives a loss of power, too
            db.execute("PRAGMA secure_delete = ON")  # nothing of a removed entry stays in the file
            if is_new:
                share(self._path)
            # Another process may be creating it at the same time, or may have been killed while it did.
            if not _is_complete(db):
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT")
                self._tell()
            self._connection = db
        return self._connection

    def _read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run a step that only reads, for a user who may not write the database.

        A database at rest has no write-ahead log, and without one it cannot be opened but as a file that never changes. That may be
        over at any moment, so it is opened anew each time, and read again if it has changed.
        """
        for _ in range(_READS):
            before = self._files()
            with suppress(sqlite3.OperationalError), unforked(), closing(_open(self._path, _options(before))) as db:
                is_complete = _is_complete(db)
                with closing(db if is_complete else _empty()) as found:
                    read = step(found)
                if before[1] or self._files() == before:
                    return read
            time.sleep(_STEP)
        raise StoreError(f"The push log {self._path} cannot be read by this user.")

    def _files(self) -> tuple[tuple[int, int], bool]:
        """Return what tells whether the database has changed, and whether it has a write-ahead log."""
        found = self._path.stat()
        return (found.st_mtime_ns, found.st_size), self._path.with_name(f"{self._path.name}-wal").exists()

    @property
    def _token_path(self) -> Path:
        return self._path.with_suffix(".token")

    def _map_token(self) -> mmap.mmap | None:
        with suppress(OSError, ValueError), self._token_path.open("rb") as file:
            return mmap.mmap(file.fileno(), _TOKEN, prot=mmap.PROT_READ)
        return None

    def _tell(self) -> None:
        """Replace the token, after a change."""
        try:
            file = os.open(self._token_path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, os.urandom(_TOKEN), 0)
            finally:
                os.close(file)
        except OSError as error:
            raise refused(self._token_path, error) from error


@lru_cache(1000)
def _schema(layout: bytes) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(layout))


def _at(path: Path) -> PushLog:
    return PushLog(LocalLocation(path))


def _options(files: tuple[tuple[int, int], bool]) -> str:
    return "mode=ro" if files[1] else "immutable=1"


def _is_complete(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'removal'").fetchone() is not None


def _empty() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript(_TABLES)
    return db


def _open(path: Path, options: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, timeout=60, isolation_level=None, check_same_thread=False, uri=True)


def _entries(db: sqlite3.Connection, stream: str, after: int) -> list[Entry]:
    query = (
        "SELECT number, version, base, at, text, rows FROM entry JOIN layout ON layout.id = entry.layout "
        "WHERE stream = ? AND number > ? ORDER BY number"
    )
    return [Entry(*row) for row in db.execute(query, (stream, after)).fetchall()]


def _contents(db: sqlite3.Connection, stream: str, after: int) -> Contents:
    batches = db.execute(
        "SELECT last, snapshot, stored FROM batch WHERE stream = ? ORDER BY last", (stream,)
    ).fetchall()
    removed = db.execute("SELECT version, last, snapshot FROM removal WHERE stream = ?", (stream,)).fetchall()
    removals = {version: (end, snapshot) for version, end, snapshot in removed}
    every = [Batch(last, snapshot, bool(stored)) for last, snapshot, stored in batches]
    return Contents(_entries(db, stream, after), every, removals)


_every: WeakSet[PushLog] = WeakSet()
_closed: list[PushLog] = []


def _before_fork() -> None:
    _closed[:] = _every
    for log in _closed:
        log.prepare_fork()


def _after_fork() -> None:
    while _closed:
        _closed.pop().end_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
