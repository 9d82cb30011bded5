"""Backups: consistent copies of a whole home, taken while it is in use, and how to restore one.

A backup holds the state as of the moment at which the registry is copied. Nothing stored by then is deleted before the backup
is done (`Catalog.keeping`), and otherwise tables only grow. So each table can be copied later, as it stood at that moment.
Online rows are not copied, because they can be rebuilt from the rest: a restore loads them again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import msgspec

from seeknal.errors import DefinitionError, StoreError, notice
from seeknal.home.store import FeatureStore
from seeknal.offline.entries import latest, packs
from seeknal.offline.log import mentioned_files, read_snapshot
from seeknal.online import DEFAULT, LmdbStore, shown
from seeknal.registry import REGISTRY_FILE, OnlineTableRecord, copy_registry, has_registry
from seeknal.registry.records import space_of
from seeknal.system import folders
from seeknal.system.home_identity import mark_as_copy
from seeknal.system.progress import OnProgress, working
from seeknal.system.storage import Address, LocalStorage
from seeknal.values.times import now

_FORMAT = 1
_MANIFEST = "backup.json"
_LOG_ENTRY = re.compile(r"(\d{20})(\.json|\.checkpoint(\.\d{10}\.\d{10})?\.parquet)")


@dataclass(frozen=True)
class BackedUp:
    """The result of a backup.

    Args:
        place: The folder of the backup.
        at: The moment whose state it holds, in microseconds since 1970.
        groups: Number of feature groups.
        tables: Number of online tables.
        training_sets: Number of saved training sets.
        files: Number of files.
        size: Total size of the files in bytes.
        seconds: Duration of the backup.
    """

    place: Path
    at: int
    groups: int
    tables: int
    training_sets: int
    files: int
    size: int
    seconds: float


@dataclass(frozen=True)
class Elsewhere:
    """An online table that a restore did not load, because its rows are outside the home's own folder.

    Args:
        table: Project and name of the table.
        place: The online store that holds the rows.
        commands: The commands that load the rows from the restored home.
    """

    table: str
    place: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """The result of a restore.

    Args:
        home: The folder of the restored home.
        at: The moment whose state it holds, in microseconds since 1970.
        groups: Number of feature groups.
        loaded: The online tables that were loaded.
        elsewhere: The online tables that were not loaded, because other homes may use the same online stores.
        training_sets: Number of saved training sets.
        seconds: Duration of the restore.
    """

    home: Path
    at: int
    groups: int
    loaded: tuple[str, ...]
    elsewhere: tuple[Elsewhere, ...]
    training_sets: int
    seconds: float


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """The manifest of a backup. `sha256` is the hash of its list of files, so that an edited list is noticed."""

    format: int
    seeknal: str
    at: int
    files: list[_File]
    sha256: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def backup(store: FeatureStore, place: str | Path, *, on_progress: OnProgress | None = None) -> BackedUp:
    """Copy a whole home, as of one moment, into a new folder. Reads and writes go on in the meantime.

    Erasures, optimizations and deletions that begin later wait for the backup, and the backup waits for those that began before.

    Args:
        store: The store to back up.
        place: The folder to create. It is renamed into place when the backup is complete.
        on_progress: Called with each step. None: the steps are shown on a terminal.

    Raises:
        DefinitionError: `place` exists already, is inside the home, or has no parent folder; or there is no home.
        StoreError: The home could not be read, or the folder could not be written; then no folder is left behind.
    """
    started = time.perf_counter()
    target = folders.named(place)
    _check_target(store, target)
    for record in store.core.catalog.groups():  # the push log is not copied
        store.core.catalog.gate.commit(record)
    with (
        working("Waiting for those who delete", on_progress) as told,
        _saying(f"The home {store.home} could not be backed up to {target}, and nothing is there"),
        folders.atomic_folder(target) as part,
        store.core.catalog.keeping(),
    ):
        folders.same_access(store.home, part)
        taken = _Taking(_local(store), part, told).run()
    return BackedUp(target, *taken, seconds=time.perf_counter() - started)


def _local(store: FeatureStore) -> LocalStorage:
    storage = store.core.storage
    if isinstance(storage, LocalStorage):
        return storage
    raise DefinitionError(
        f"The tables of {store.home} lie in {store.settings.storage}, and not in the home. Back them up with what that store gives: "
        "versions of objects, or a copy of the bucket."
    )


def _check_target(store: FeatureStore, target: Path) -> None:
    _local(store)
    if not has_registry(store.settings.address):
        raise DefinitionError(f"There is no home at {store.home}, so nothing to back up. Set SEEKNAL_HOME to one.")
    if target.exists() or target.is_symlink():
        raise DefinitionError(f"{target} exists already. Choose a new folder: a backup replaces nothing.")
    if target.resolve().is_relative_to(store.home.resolve()):
        raise DefinitionError(f"{target} is in the home, and would be lost with it. Name a folder elsewhere.")
    if not target.parent.is_dir():
        raise DefinitionError(f"There is no folder {target.parent}. Make it first, or name another.")


class _Taking:
    """A backup in progress."""

    def __init__(self, storage: LocalStorage, part: Path, on_progress: OnProgress) -> None:
        self._storage = storage
        self._address = storage.address
        self._part = part
        self._on_progress = on_progress
        self._files: list[_File] = []
        self._size = 0

    def run(self) -> tuple[int, int, int, int, int, int]:
        """Take the backup, and return the fields of `BackedUp` from `at` to `size`."""
        # A table may have commits that a killed process did not add to the registry; they belong to the backup too. They are
        # read before the registry, so that commits after the registry's moment do not get into the backup.
        stored = [table.path for project in self._storage.tables.list() for table in project.list()]
        tables = {root: latest(root) for root in stored if list(root.glob("_delta_log/*.json"))}
        registry = copy_registry(self._address, Address(self._part))
        at = now()
        groups, sets = registry.groups(), registry.training_sets()
        for record in groups:
            root = self._storage.tables.at(record.project, record.name).path
            self._copy_table(root, max(tables.get(root, -1), registry.last_snapshot(record)))
        for one in sets:
            for file in sorted(file.path for file in self._storage.training_sets.at(one.folder).list()):
                self._copy(file)
        self._note(self._part / REGISTRY_FILE)
        manifest = _manifest(at, self._files)
        (self._part / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        return at, len(groups), len(registry.tables()), len(sets), len(manifest.files), manifest.size

    def _copy_table(self, root: Path, last: int) -> None:
        """Copy a table as it stood after a snapshot, with the files of all earlier snapshots that can still be read.

        Raises:
            StoreError: A file of that snapshot is missing.
        """
        log = root / "_delta_log"
        entries = [found for path in sorted(log.glob("*")) if (found := _LOG_ENTRY.fullmatch(path.name))]
        entries = [entry for entry in entries if int(entry[1]) <= last]
        if not entries:
            return
        for pack in packs(root):
            self._copy(pack.path(root))
        for entry in entries:
            self._copy(log / entry[0])
        copied = self._part / root.relative_to(self._address.home)
        # A vacuum may have removed files of earlier snapshots. Only the files of the last one must exist.
        for name in sorted(mentioned_files(copied)):
            if (root / name).exists():
                self._copy(root / name)
        for file in read_snapshot(copied).files:
            if not (copied / file.path).exists():
                raise StoreError(f"The table {root} has lost its file {file.path}. Run seeknal doctor.")

    def _copy(self, file: Path) -> None:
        name = file.relative_to(self._address.home)
        self._on_progress(f"Backing up {name.parent}: {_megabytes(self._size)} so far")
        copied = _File(name.as_posix(), *folders.copy(file, self._part / name))
        self._files.append(copied)
        self._size += copied.size

    def _note(self, file: Path) -> None:
        with file.open("rb") as stream:
            self._files.append(_File(file.name, file.stat().st_size, file_digest(stream, "sha256").hexdigest()))


def _manifest(at: int, files: Sequence[_File]) -> _Manifest:
    return _Manifest(_FORMAT, version("seeknal"), at, list(files), _hash_of(files))


def _hash_of(files: Sequence[_File]) -> str:
    return sha256(msgspec.json.encode(files)).hexdigest()


def restore(
    source: str | Path, store: FeatureStore, *, load_shared: bool = False, on_progress: OnProgress | None = None
) -> Restored:
    """Create a home from a backup, and load the online rows of its own folder. It is renamed into place when it is complete.

    Online rows in Redis, or in another folder, are left alone, because the home that was backed up may still use them.

    Args:
        source: The folder of the backup.
        store: The store to create. Its folder is empty or does not exist yet.
        load_shared: Also load the rows of other online stores, once the home is in place.
        on_progress: Called with each step. None: the steps are shown on a terminal.

    Raises:
        DefinitionError: The home is not empty or is a mount point, `source` is not a backup that this release can read, or the
            settings put the registry into a database.
        StoreError: The backup was changed or damaged, or the home could not be written; then no home was created. With
            `load_shared`: the home is in place, but rows could not be loaded into another store.
    """
    started = time.perf_counter()
    backed_up, target = folders.named(source), _local(store).home.resolve()
    if url := store.settings.registry:
        raise DefinitionError(
            f"A restore creates the registry in a file of the home, and the settings put it into {shown(url)!r}. Leave that setting "
            f"out, restore, and move the registry then: seeknal migrate-registry {target} {shown(url)}."
        )
    manifest = _read_manifest(backed_up)
    _check_home(target)
    store.close()  # else both would keep reading the files of an earlier home in this folder
    LmdbStore(Path(store.core.storage.online)).close()
    with working("Restoring", on_progress) as told:
        with (
            _saying(f"The backup {backed_up} could not be restored to {target}, which is as it was"),
            _parents(target),
            folders.atomic_folder(target) as part,
        ):
            folders.same_access(backed_up, part)
            _copy_back(backed_up, manifest, part, told)
            mark_as_copy(part)
            unread = _load_own(part, store, told) if _has_own_store(store) else set()
        if load_shared:
            _load_others(store, told)
    registry = store.core.registry
    others = () if load_shared else tuple(filter(None, (_elsewhere(store, table) for table in registry.tables())))
    names = {one.table for one in others}
    names |= {one.label for one in registry.tables() if unread & {lookup.space for lookup in one.lookups}}
    loaded = tuple(table.label for table in registry.tables() if table.label not in names)
    groups, sets = len(registry.groups()), len(registry.training_sets())
    return Restored(store.home, manifest.at, groups, loaded, others, sets, time.perf_counter() - started)


def _read_manifest(folder: Path) -> _Manifest:
    """Read and check the manifest of a backup.

    Raises:
        DefinitionError: The folder is not a backup, or it has the backup format of another release.
        StoreError: The manifest was changed or damaged.
    """
    file = folder / _MANIFEST
    if not file.is_file():
        raise DefinitionError(
            f"{folder} is not a backup: it has no {_MANIFEST}. Name a folder that seeknal backup created."
        )
    damaged = StoreError(f"{file} is damaged. Restore another backup.")
    try:
        text = msgspec.json.decode(file.read_bytes(), type=dict)
        found = msgspec.convert(text, _Manifest) if text.get("format") == _FORMAT else None
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


def _check_home(home: Path) -> None:
    if home.is_mount():  # a folder cannot be renamed onto a mount point
        raise DefinitionError(f"{home} is where a disk is mounted. Set SEEKNAL_HOME to a folder on it.")
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise DefinitionError(
            f"{home} is not empty, and a restore replaces nothing. Move it away first, or set SEEKNAL_HOME to another folder."
        )


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Create the missing parents of a folder, and remove them again if the block fails."""
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _copy_back(backed_up: Path, manifest: _Manifest, part: Path, on_progress: OnProgress) -> None:
    """Copy all files of a backup, and check their sizes and hashes.

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
        on_progress(f"Restoring: {_megabytes(done)} of {_megabytes(manifest.size)}")


def _has_own_store(store: FeatureStore) -> bool:
    """Return whether the default online store is the folder in the home."""
    return store.core.stores.same(DEFAULT, store.core.storage.online)


def _load_own(part: Path, store: FeatureStore, on_progress: OnProgress) -> set[str]:
    """Load the online rows of the home's own folder, before the home is renamed into place.

    Returns:
        The spaces of the versions that cannot be read.
    """
    unread: set[str] = set()
    online = LocalStorage(Address(part)).online
    made = FeatureStore(part, memory_limit=store.settings.memory_limit, online_store=online)
    try:
        for record in made.core.registry.groups():
            made.core.catalog.catch_up(record)
            for number in sorted({load.version for load in made.core.registry.loads(record) if load.target == DEFAULT}):
                try:
                    made.core.catalog.read(record, number)
                except StoreError as error:  # it was unreadable before the backup too, so restore the rest
                    notice(f"Version {number} of {record.label} cannot be loaded: {error}")
                    unread.add(space_of(record.project, record.name, number))
                    continue
                made.core.loads.reload(record, number, DEFAULT, on_progress)
        # Tables that were behind when the backup was taken catch up, so that they pass `verify`.
        for table in made.tables.all():
            if table.target == DEFAULT and not unread & {lookup.space for lookup in table.lookups}:
                with suppress(DefinitionError):  # the group was being deleted, and can be deleted again
                    made.tables.refresh([table], on_progress=on_progress)
    finally:
        made.close()
        LmdbStore(Path(online)).close()
    return unread


def _load_others(store: FeatureStore, on_progress: OnProgress) -> None:
    """Load the online rows of other stores, once the home is in place.

    Raises:
        StoreError: Rows could not be loaded. The home stays.
    """
    for record in store.core.registry.groups():
        for target in sorted({load.target for load in store.core.registry.loads(record)}):
            if target == DEFAULT and _has_own_store(store):
                continue
            try:
                store.core.loads.reload(record, target=target, on_progress=on_progress, take_over=True)
            except StoreError as error:
                place = shown(target or str(store.settings.online_store))
                same = store.core.stores.same
                tables = " ".join(one.label for one in store.tables.of(record) if same(one.target, target))
                raise StoreError(
                    f"The home is restored to {store.home}, but {record.label} was not loaded into {place}: {error} "
                    f"Then run: seeknal refresh {tables} --take-over."
                ) from error


def _elsewhere(store: FeatureStore, table: OnlineTableRecord) -> Elsewhere | None:
    """Return what to report about an online table that a restore did not load; None if the restore loaded it."""
    if table.target == DEFAULT and _has_own_store(store):
        return None
    place = shown(table.target or str(store.settings.online_store))
    return Elsewhere(table.label, place, (f"seeknal refresh {table.label} --take-over",))


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn an error of the disk into a StoreError.

    Args:
        what: The start of the message: what failed, and what state was left.

    Raises:
        StoreError: The block raised such an error.
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(f"{what}: {error.strerror or error}{where}.") from error


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
