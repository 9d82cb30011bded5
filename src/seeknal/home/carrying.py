"""Copying the files of a home to an object store, each compared with what the store returns. What was compared is noted, for the next run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec

from seeknal.errors import StoreError
from seeknal.offline.entries import latest, packs, table_id
from seeknal.offline.log import mentioned_files, read_snapshot
from seeknal.system.object_client import ObjectClient, ObjectStatus
from seeknal.system.object_storage import hashed, pointer_to
from seeknal.system.progress import OnProgress

LOG_ENTRY = re.compile(r"(\d{20})(\.json|\.checkpoint(\.\d{10}\.\d{10})?\.parquet)")
"""The files in the log of a table that matter; others, such as `_last_checkpoint`, are hints."""
FOLDERS = "tables", "datasets"
"""Where the files of a home lie in an object store."""
_TOGETHER = 4
"""How many files are copied at once."""


class Item(NamedTuple):
    """A file to copy, and the key of its object."""

    file: Path
    key: str


class Proof(msgspec.Struct, frozen=True):
    """What is known of an object that was read back after it was written.

    Args:
        key: Its key.
        size: Its size in bytes.
        sha256: Its hash, and that of the file.
        changed: When it was written, by the clock of the store, in nanoseconds since 1970.
        tag: What the store calls this content, as a number.
    """

    key: str
    size: int
    sha256: str
    changed: int
    tag: int

    def holds(self, status: ObjectStatus | None) -> bool:
        """Return whether the object is still the one that was read back."""
        return status == ObjectStatus(self.size, self.changed, self.tag)


def files_of(root: Path, last: int) -> list[Path]:
    """Return the files of a table as of a snapshot: its log, and the files of all snapshots that can still be read."""
    log = root / "_delta_log"
    entries = [
        path for path in sorted(log.glob("*")) if (found := LOG_ENTRY.fullmatch(path.name)) and int(found[1]) <= last
    ]
    # A vacuum may have removed files of earlier snapshots.
    named = (root / name for name in sorted(mentioned_files(root)))
    return [*(pack.path(root) for pack in packs(root)), *entries, *(path for path in named if path.exists())]


def check_whole(root: Path) -> None:
    """Check that the newest snapshot of a table has all its files.

    Raises:
        StoreError: One is missing.
    """
    for file in read_snapshot(root).files:
        if not (root / file.path).exists():
            raise StoreError(f"The table {root} has lost its file {file.path}. Run seeknal doctor.")


def items_of_table(root: Path) -> Iterator[Item]:
    """Return what to copy of a table. Its folder in the object store has the name of the table, which no other table has."""
    folder = f"tables/{root.parent.name}/{root.name}/{hashed(table_id(root))}"
    for file in files_of(root, latest(root)):
        yield Item(file, f"{folder}/{file.relative_to(root).as_posix()}")


def pointer_of(root: Path) -> tuple[str, bytes]:
    """Return key and content of the object that says which folder has the table of a group."""
    name, content = pointer_to(hashed(table_id(root)))
    return f"tables/{root.parent.name}/{root.name}/{name}", content


class Carrier:
    """Copies files to an object store.

    Args:
        client: The store.
        journal: The file in which is noted what was copied and compared.
        place: The name of the place, so that notes of another place do not count.
        on_progress: Called with each file.
    """

    def __init__(self, client: ObjectClient, journal: Path, place: str, on_progress: OnProgress) -> None:
        self._client = client
        self._journal = journal
        self._on_progress = on_progress
        self._lock = Lock()
        self.proofs = _read(journal, place)
        if not self.proofs:
            journal.write_text(f"{place}\n", encoding="utf-8")

    def there(self) -> dict[str, ObjectStatus]:
        """Return all objects of the place, by their keys."""
        return {key: status for folder in FOLDERS for key, status in self._client.under(folder).items()}

    def carry(self, items: Sequence[Item]) -> int:
        """Copy files that are not there yet, and return how many were copied. Files that vanish meanwhile are left out.

        Raises:
            StoreError: The store returns other bytes than were written to it, or it cannot be used.
        """
        there = self.there()
        left = [item for item in items if not self._is_proved(item.key, there)]
        size = {item: item.file.stat().st_size for item in left if item.file.exists()}
        done = [0, 0]

        def copy(item: Item) -> None:
            self._copy(item)
            with self._lock:
                done[:] = done[0] + 1, done[1] + size.get(item, 0)
                told = f"{done[0]} of {len(left)} files, {_megabytes(done[1])} of {_megabytes(sum(size.values()))}"
            self._on_progress(f"Copying to {self._client.url}: {told}")

        with ThreadPoolExecutor(_TOGETHER) as pool:
            try:
                for _ in pool.map(copy, left):
                    pass
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return len(left)

    def complete(self, items: Sequence[Item], more: Mapping[str, bytes]) -> None:
        """Check that the place has exactly these files and objects, and remove what else lies there of an earlier run.

        Raises:
            StoreError: An object is missing, or is not as it was when it was compared.
        """
        for key, content in more.items():
            self._client.put(key, content)
            if self._client.get(key) != content:
                raise self._wrong(key)
        there = self.there()
        wanted = {item.key for item in items}
        for key in wanted:
            if not self._is_proved(key, there):
                raise self._wrong(key)
        self._client.delete(there.keys() - wanted - more.keys())

    def _is_proved(self, key: str, there: Mapping[str, ObjectStatus]) -> bool:
        return key in self.proofs and self.proofs[key].holds(there.get(key))

    def _copy(self, item: Item) -> None:
        try:
            with item.file.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
                size = file.tell()
            self._client.put(item.key, item.file)
        except FileNotFoundError:
            if item.file.exists():
                raise
            return
        status = self._client.status(item.key)
        if status.st_size != size or self._hash(item.key, size) != digest:
            raise self._wrong(item.key)
        self._note(Proof(item.key, size, digest, status.st_mtime_ns, status.st_ino))

    def _hash(self, key: str, size: int) -> str:
        found = sha256()
        for piece in self._client.pieces(key, size):
            found.update(piece)
        return found.hexdigest()

    def _note(self, proof: Proof) -> None:
        with self._lock, self._journal.open("ab") as journal:
            journal.write(msgspec.json.encode(proof) + b"\n")
            self.proofs[proof.key] = proof

    def _wrong(self, key: str) -> StoreError:
        return StoreError(
            f"{self._client.url}/{key} is missing, or is not what was written there. Does another program write to that place? The home "
            "is as it was."
        )


def _read(journal: Path, place: str) -> dict[str, Proof]:
    """Return what a run before noted; nothing if it was for another place. A line that was cut off by a kill is left out."""
    try:
        head, *lines = journal.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found: dict[str, Proof] = {}
    for line in lines if head == place.encode() else ():
        with suppress(msgspec.DecodeError):
            proof = msgspec.json.decode(line, type=Proof)
            found[proof.key] = proof
    return found


def total(proofs: Iterable[Proof]) -> int:
    """Return how many bytes were copied."""
    return sum(proof.size for proof in proofs)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
