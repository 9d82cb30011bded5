"""The entries of a table's log, by number: new ones are files in the Delta log, old ones are packed into archives.

Entries are packed so that neither disk usage nor the time to open a table grows with their number. None is dropped, because `as_of`
can read every old snapshot. A pack is the file `_history/FIRST-LAST.jsonl.gz`, with one line of JSON per entry.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from seeknal.errors import StoreError
from seeknal.system.delta_log import newest
from seeknal.system.locks import hold
from seeknal.system.retry import Conflict
from seeknal.system.stored_paths import StoredPath, backing_of, lock_file

P = TypeVar("P", bound=StoredPath)
_PACK = re.compile(r"(\d{20})-(\d{20})\.jsonl\.gz")


class Pack(NamedTuple):
    """One file of packed entries, `first` to `last`, both inclusive."""

    first: int
    last: int

    def path(self, root: P) -> P:
        """Return the path of the pack."""
        return history(root) / f"{self.first:020}-{self.last:020}.jsonl.gz"


def history(root: P) -> P:
    """Return the folder of packed entries, which Delta Lake readers ignore."""
    return root / "_history"


def packs(root: StoredPath) -> list[Pack]:
    """List the packs of a table, oldest first.

    Raises:
        StoreError: The folder cannot be read.
    """
    try:
        names = [file.name for file in history(root).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"The offline table {root} cannot be read: {error}") from error
    return sorted(Pack(int(found[1]), int(found[2])) for name in names if (found := _PACK.fullmatch(name)))


def packed(root: StoredPath) -> int:
    """Return the number of the last packed entry; -1 if none is packed."""
    return max((pack.last for pack in packs(root)), default=-1)


def held(root: StoredPath) -> object:
    """Take a shared lock that protects the files of all snapshots read from now on, held until the returned object is gone."""
    *_, newest_lock = locks(root)
    # Only the lock file is created: a pack that disappeared must not come back as an empty file.
    return hold(newest_lock, make=newest_lock.suffix == ".lock")


def locks(root: StoredPath) -> list[Path]:
    """List the files that readers lock, oldest first. A reader locks the newest one when it begins; see `seeknal.offline.trimming`."""
    return [lock_file(path) for path in (root / "_read.lock", *(pack.path(root) for pack in packs(root)))]


def latest(root: StoredPath) -> int:
    """Return the number of the newest snapshot, that of the last log entry, which is never removed.

    Raises:
        StoreError: There is no log.
    """
    if (number := newest(root, entries_only=True)) < 0:
        raise StoreError(f"The offline table {root} cannot be read: it has no log.")
    return number


def exists(root: StoredPath) -> bool:
    """Return whether the table has a log."""
    return has_entry(root, 0)


def table_id(root: StoredPath) -> str:
    """Return the identity of the table in a folder; "" if there is none. A table created there later has another identity.

    It is the id that Delta Lake gives a new table, from the first entry of the log.
    """
    # The first entry is a file until it is packed, and then the first line of the first pack.
    for file in (entry_of(root, 0), *(pack.path(root) for pack in packs(root)[:1])):
        with suppress(OSError, StoreError):
            found = file.stat()
            return _table_id(root, file, found.st_ino, found.st_mtime_ns)
    return ""


@lru_cache(maxsize=4096)  # inode and time are in the key, so that a table created again at the same path is read again
def _table_id(root: StoredPath, _file: StoredPath, _inode: int, _changed: int) -> str:
    return next((action["metaData"]["id"] for action in actions_of(root, 0) if "metaData" in action), "")


@contextmanager
def one_table(root: StoredPath) -> Iterator[str]:
    """Yield the identity of a table. If the block fails because the table was deleted meanwhile, raise a conflict instead.

    Raises:
        Conflict: The block raised an error, and the folder now has another table or none.
    """
    identity = table_id(root)
    try:
        yield identity
    except (OSError, StoreError) as error:
        check_table(root, identity, error)
        raise


def check_table(root: StoredPath, identity: str, cause: Exception | None = None) -> None:
    """Check that a folder still has the table of this identity.

    Raises:
        Conflict: It has another table, or none.
    """
    if table_id(root) != identity:
        raise Conflict(f"The table {root} was deleted meanwhile.") from cause


def has_entry(root: StoredPath, number: int) -> bool:
    """Return whether the log has an entry of this number, packed or not."""
    return entry_of(root, number).exists() or number <= packed(root)


def entry_of(root: StoredPath, number: int) -> StoredPath:
    """Return the path that an entry has while it is not packed."""
    return root / "_delta_log" / f"{number:020}.json"


def actions_of(root: StoredPath, number: int) -> list[dict[str, Any]]:
    """Return the actions of a log entry."""
    return next(iter(entries(root, number, number)))[1]


def entries(root: StoredPath, first: int, last: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield number and actions of the entries from `first` to `last`, both inclusive, in order.

    Raises:
        StoreError: An entry is missing, or is not valid JSON.
    """
    number = first
    # Most callers want recent entries, so packs are listed only if the first entry is not a file of its own.
    for pack in packs(root) if first <= last and not entry_of(root, first).exists() else ():
        if pack.first <= number <= pack.last:
            for line in _lines(root, pack)[number - pack.first : last + 1 - pack.first]:
                yield number, _decoded(pack.path(root), [line])[0]
                number += 1
    backing_of(root).prefetch(entry_of(root, one) for one in range(number, last + 1))
    while number <= last:
        yield number, _read(root, number)
        number += 1


def _read(root: StoredPath, number: int) -> list[dict[str, Any]]:
    entry = entry_of(root, number)
    try:
        return _decoded(entry, entry.read_bytes().splitlines())
    except FileNotFoundError as error:
        if number <= packed(root):  # another process packed it since the caller looked
            return actions_of(root, number)
        raise StoreError(f"The log entry {entry} cannot be read: {error}") from error
    except OSError as error:
        raise StoreError(f"The log entry {entry} cannot be read: {error}") from error


def _decoded(file: StoredPath, lines: Iterable[bytes]) -> list[Any]:
    try:
        return list(map(msgspec.json.decode, lines))
    except msgspec.DecodeError as error:
        raise StoreError(f"The log entry {file} cannot be read: {error}") from error


def _lines(root: StoredPath, pack: Pack) -> list[bytes]:
    file = pack.path(root)
    try:
        found = file.stat()
        return _unpacked(file, found.st_ino, found.st_mtime_ns)
    except (OSError, EOFError, zlib.error) as error:
        raise StoreError(f"The old log entries {file} cannot be read: {error}") from error


@lru_cache(maxsize=2)
def _unpacked(file: StoredPath, _inode: int, _changed: int) -> list[bytes]:
    return gzip.decompress(file.read_bytes()).splitlines()


def pack_entries(root: StoredPath, pack: Pack) -> None:
    """Write the entries of a pack to its file, by an atomic rename once all of it is on disk."""
    lines = (
        b"[" + b",".join(entry_of(root, n).read_bytes().splitlines()) + b"]\n" for n in range(pack.first, pack.last + 1)
    )
    backing_of(root).put_file(
        pack.path(root), gzip.compress(b"".join(lines), mtime=0)
    )  # without the time, equal entries give equal bytes
