"""The entries of a table's log, by number: a file each in the Delta log while they are new, packed together once they are old.

Entries are packed so that neither the room nor the time to open a table grows with their number. They are kept as they are, since
`as_of` answers from them for ever: one line of JSON for each, in `_history/FIRST-LAST.jsonl.gz`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from seeknal.errors import StoreError
from seeknal.system.delta_log import newest
from seeknal.system.folders import make, put
from seeknal.system.locks import hold

_PACK = re.compile(r"(\d{20})-(\d{20})\.jsonl\.gz")


class Pack(NamedTuple):
    """Entries in one file: from a number to another, both included."""

    first: int
    last: int

    def path(self, root: Path) -> Path:
        """Name its file."""
        return history(root) / f"{self.first:020}-{self.last:020}.jsonl.gz"


def history(root: Path) -> Path:
    """Name the folder of old entries, which readers of Delta Lake pass over."""
    return root / "_history"


def packs(root: Path) -> list[Pack]:
    """List the packs of a table, the oldest first."""
    try:
        names = [file.name for file in history(root).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"The offline table {root} cannot be read: {error}") from error
    return sorted(Pack(int(found[1]), int(found[2])) for name in names if (found := _PACK.fullmatch(name)))


def packed(root: Path) -> int:
    """Give the number of the last entry that is packed; -1 if none is."""
    return max((pack.last for pack in packs(root)), default=-1)


def held(root: Path) -> object:
    """Keep the files that snapshots read from now on are made of, for as long as what this returns is there."""
    *_, newest_lock = locks(root)
    return hold(newest_lock, make=newest_lock.suffix == ".lock")


def locks(root: Path) -> list[Path]:
    """List what readers of a table hold, each the last of its time; see `seeknal.offline.trimming`."""
    return [root / "_read.lock", *(pack.path(root) for pack in packs(root))]


def latest(root: Path) -> int:
    """Give the number of the newest snapshot: that of the last entry of the log, which is never removed.

    Raises:
        StoreError: There is no log.
    """
    if (number := newest(root, entries_only=True)) < 0:
        raise StoreError(f"The offline table {root} cannot be read: it has no log.")
    return number


def exists(root: Path) -> bool:
    """Tell whether there is a log."""
    return has_entry(root, 0)


def has_entry(root: Path, number: int) -> bool:
    """Tell whether the log has an entry of that number."""
    return entry_of(root, number).exists() or number <= packed(root)


def entry_of(root: Path, number: int) -> Path:
    """Name the file of an entry that is not packed."""
    return root / "_delta_log" / f"{number:020}.json"


def actions_of(root: Path, number: int) -> list[dict[str, Any]]:
    """Read an entry of the log: its actions."""
    return next(iter(entries(root, number, number)))[1]


def entries(root: Path, first: int, last: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Read the entries from a number to another: the number and the actions of each.

    Raises:
        StoreError: One of them is missing, or is no JSON.
    """
    number = first
    for pack in packs(root) if first <= last and not entry_of(root, first).exists() else ():
        if pack.first <= number <= pack.last:
            for line in _lines(root, pack)[number - pack.first : last + 1 - pack.first]:
                yield number, _decoded(pack.path(root), [line])[0]
                number += 1
    while number <= last:
        yield number, _read(root, number)
        number += 1


def _read(root: Path, number: int) -> list[dict[str, Any]]:
    entry = entry_of(root, number)
    try:
        return _decoded(entry, entry.read_bytes().splitlines())
    except FileNotFoundError as error:
        if number <= packed(root):  # it was packed just now
            return actions_of(root, number)
        raise StoreError(f"The log entry {entry} cannot be read: {error}") from error
    except OSError as error:
        raise StoreError(f"The log entry {entry} cannot be read: {error}") from error


def _decoded(file: Path, lines: Iterable[bytes]) -> list[Any]:
    try:
        return list(map(msgspec.json.decode, lines))
    except msgspec.DecodeError as error:
        raise StoreError(f"The log entry {file} cannot be read: {error}") from error


def _lines(root: Path, pack: Pack) -> list[bytes]:
    file = pack.path(root)
    try:
        found = file.stat()
        return _unpacked(file, found.st_ino, found.st_mtime_ns)
    except (OSError, EOFError, zlib.error) as error:
        raise StoreError(f"The old log entries {file} cannot be read: {error}") from error


@lru_cache(maxsize=2)
def _unpacked(file: Path, _inode: int, _changed: int) -> list[bytes]:
    return gzip.decompress(file.read_bytes()).splitlines()


def pack_entries(root: Path, pack: Pack) -> None:
    """Write entries into one file, which appears when all of it is on the disk."""
    lines = (
        b"[" + b",".join(entry_of(root, n).read_bytes().splitlines()) + b"]\n" for n in range(pack.first, pack.last + 1)
    )
    make(history(root))
    put(pack.path(root), gzip.compress(b"".join(lines), mtime=0))
