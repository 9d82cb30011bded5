"""The files of a backup: copying those of a home, wherever they lie, and the manifest that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from threading import Lock

import msgspec

from seeknal.errors import DefinitionError, StoreError
from seeknal.home.carrying import LOG_ENTRY
from seeknal.offline.entries import exists, latest, packs
from seeknal.offline.log import mentioned_files, read_snapshot
from seeknal.registry import REGISTRY_FILE, copy_registry
from seeknal.system import folders
from seeknal.system.progress import OnProgress
from seeknal.system.storage import Address, Storage
from seeknal.system.stored_paths import StoredPath, backing_of
from seeknal.values.times import now

MANIFEST = "backup.json"
_FORMAT = 1
_TABLES, _TRAINING_SETS = "offline", "datasets"
"""The folders of a backup, which are those of a home."""
_TOGETHER = 8
"""How many objects of an object store are copied at once."""


@dataclass(frozen=True)
class BackupFile:
    """One file of a backup, by its path in the folder."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of a backup. `sha256` is the hash of its list of files, so that an edited list is noticed."""

    format: int
    seeknal: str
    at: int
    files: list[BackupFile]
    sha256: str

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)


class Taking:
    """A backup in progress.

    Args:
        storage: The storage of the home.
        part: The folder to fill.
        on_progress: Called with each step.
    """

    def __init__(self, storage: Storage, part: Path, on_progress: OnProgress) -> None:
        self._storage = storage
        self._address = storage.address
        self._part = part
        self._on_progress = on_progress
        self._lock = Lock()
        self._files: list[BackupFile] = []
        self._size = 0

    def run(self) -> tuple[int, int, int, int, int, int]:
        """Take the backup, and return the fields of `BackedUp` from `at` to `size`."""
        # A table may have commits that a killed process did not add to the registry; they belong to the backup too. They are
        # read before the registry, so that commits after the registry's moment do not get into the backup.
        stored = [group.table() for project in self._storage.tables.list() for group in project.list()]
        tables = {str(root): latest(root) for root in stored if exists(root)}
        registry = copy_registry(self._address, Address(self._part))
        at = now()
        groups, sets = registry.groups(), registry.training_sets()
        for record in groups:
            root = self._storage.tables.at(record.project, record.name).table()
            last = max(tables.get(str(root), -1), registry.last_snapshot(record))
            self._copy_table(root, PurePosixPath(_TABLES, record.project, record.name), last)
        for one in sets:
            for file in sorted(self._storage.training_sets.at(one.folder).list(), key=str):
                self._copy(file.file(), PurePosixPath(_TRAINING_SETS, one.folder, file.file().name))
        self._note(self._part / REGISTRY_FILE)
        manifest = Manifest(_FORMAT, version("seeknal"), at, self._files, _hash_of(self._files))
        (self._part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        return at, len(groups), len(registry.tables()), len(sets), len(manifest.files), manifest.size

    def _copy_table(self, root: StoredPath, place: PurePosixPath, last: int) -> None:
        """Copy a table as it stood after a snapshot, with the files of all earlier snapshots that can still be read.

        Raises:
            StoreError: A file of that snapshot is missing.
        """
        log = root / "_delta_log"
        try:
            names = sorted(path.name for path in log.iterdir())
        except FileNotFoundError:
            return
        entries = [name for name in names if (found := LOG_ENTRY.fullmatch(name)) and int(found[1]) <= last]
        if not entries:
            return
        old = [pack.path(root) for pack in packs(root)]
        self._copy_all([(path, place / "_history" / path.name) for path in old])
        self._copy_all([(log / name, place / "_delta_log" / name) for name in entries])
        copied = self._part / place
        # A vacuum may have removed files of earlier snapshots. Only the files of the last one must exist.
        mentioned = mentioned_files(copied)
        there = sorted(mentioned - backing_of(root).missing(root, mentioned))
        self._copy_all([(root / name, place / name) for name in there])
        for file in read_snapshot(copied).files:
            if not (copied / file.path).exists():
                raise StoreError(f"The table {root} has lost its file {file.path}. Run seeknal doctor.")

    def _copy_all(self, files: Sequence[tuple[StoredPath, PurePosixPath]]) -> None:
        if not files or isinstance(files[0][0], Path):
            for file, name in files:
                self._copy(file, name)
            return
        with ThreadPoolExecutor(_TOGETHER) as pool:
            for _ in pool.map(lambda one: self._copy(*one), files):
                pass

    def _copy(self, file: StoredPath, name: PurePosixPath) -> None:
        self._on_progress(f"Backing up {name.parent}: {megabytes(self._size)} so far")
        place = self._part / name
        copied = BackupFile(str(name), *(folders.copy(file, place) if isinstance(file, Path) else _fetch(file, place)))
        with self._lock:
            self._files.append(copied)
            self._size += copied.size

    def _note(self, file: Path) -> None:
        with file.open("rb") as stream:
            self._files.append(BackupFile(file.name, file.stat().st_size, file_digest(stream, "sha256").hexdigest()))


def _fetch(file: StoredPath, place: Path) -> tuple[int, str]:
    """Copy an object to a path that does not exist yet, and return its size in bytes and its SHA-256."""
    place.parent.mkdir(parents=True, exist_ok=True)
    digest, size = sha256(), 0
    with place.open("xb") as new:
        for piece in backing_of(file).pieces(file):
            digest.update(piece)
            size += new.write(piece)
    return size, digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a backup.

    Raises:
        DefinitionError: The folder is not a backup, or it has the backup format of another release.
        StoreError: The manifest was changed or damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise DefinitionError(
            f"{folder} is not a backup: it has no {MANIFEST}. Name a folder that seeknal backup created."
        )
    damaged = StoreError(f"{file} is damaged. Restore another backup.")
    try:
        text = msgspec.json.decode(file.read_bytes(), type=dict)
        found = msgspec.convert(text, Manifest) if text.get("format") == _FORMAT else None
    except (msgspec.DecodeError, msgspec.ValidationError, OSError) as error:
        raise damaged from error
    if found is None:
        raise DefinitionError(
            f"{folder} was made by seeknal {text.get('seeknal')}, in another format. Restore it with that release."
        )
    for one in found.files:  # a forged path must not lead out of the home
        name = PurePosixPath(one.name)
        if name.is_absolute() or ".." in name.parts:
            raise damaged
    if found.sha256 != _hash_of(found.files):
        raise damaged
    return found


def copy_back(backed_up: Path, manifest: Manifest, part: Path, on_progress: OnProgress) -> None:
    """Copy all files of a backup to a folder, and check their sizes and hashes.

    Raises:
        StoreError: A file is missing or damaged.
    """
    done = 0
    for file in manifest.files:
        try:
            found = folders.copy(backed_up / file.name, part / file.name)
        except FileNotFoundError:
            raise StoreError(f"{backed_up / file.name} is missing. Restore another backup.") from None
        if found != (file.size, file.sha256):
            raise StoreError(f"{backed_up / file.name} is damaged (its checksum differs). Restore another backup.")
        done += file.size
        on_progress(f"Restoring: {megabytes(done)} of {megabytes(manifest.size)}")


def _hash_of(files: Sequence[BackupFile]) -> str:
    return sha256(msgspec.json.encode(files)).hexdigest()


def megabytes(size: int) -> str:
    """Return a size in bytes as text."""
    return f"{size / 1e6:,.0f} MB"
