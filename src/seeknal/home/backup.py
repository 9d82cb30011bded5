"""Backups: consistent copies of a whole home, taken while it is in use, and how to restore one.

A backup holds the state as of the moment at which the registry is copied. Nothing stored by then is deleted before the backup
is done (`Catalog.keeping`), and otherwise tables only grow. So each table can be copied later, as it stood at that moment.
Online rows are not copied, because they can be rebuilt from the rest: a restore loads them again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from seeknal.config import Settings
from seeknal.errors import DefinitionError, StoreError, notice, unfinished
from seeknal.home.backup_files import Manifest, Taking, copy_back, read_manifest
from seeknal.home.move import move
from seeknal.home.store import FeatureStore
from seeknal.online import DEFAULT, LmdbStore, shown
from seeknal.registry import REGISTRY_FILE, OnlineTableRecord, has_registry
from seeknal.registry.records import space_of
from seeknal.system import folders
from seeknal.system.home_identity import mark_as_copy
from seeknal.system.object_client import ObjectClient
from seeknal.system.object_place import owner_of, probe
from seeknal.system.progress import OnProgress, working
from seeknal.system.storage import Address, LocalStorage


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
        if store.home.exists():
            folders.same_access(store.home, part)
        taken = Taking(store.core.storage, part, told).run()
    return BackedUp(target, *taken, seconds=time.perf_counter() - started)


def _check_target(store: FeatureStore, target: Path) -> None:
    if not has_registry(store.settings.address):
        raise DefinitionError(f"There is no home at {store.home}, so nothing to back up. Set SEEKNAL_HOME to one.")
    if target.exists() or target.is_symlink():
        raise DefinitionError(f"{target} exists already. Choose a new folder: a backup replaces nothing.")
    if target.resolve().is_relative_to(store.home.resolve()):
        raise DefinitionError(f"{target} is in the home, and would be lost with it. Name a folder elsewhere.")
    if not target.parent.is_dir():
        raise DefinitionError(f"There is no folder {target.parent}. Make it first, or name another.")


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
        DefinitionError: The home is not empty or is a mount point, `source` is not a backup that this release can read, or there is a
            store at the services of the settings.
        StoreError: The backup was changed or damaged, or the home could not be written; then no home was created. With
            `load_shared`: the home is in place, but rows could not be loaded into another store.
    """
    started = time.perf_counter()
    backed_up, settings = folders.named(source), store.settings
    manifest = read_manifest(backed_up)
    _check_home(store.home.resolve())
    _check_services(settings)
    store.close()  # else both would keep reading the files of an earlier home in this folder
    with working("Restoring", on_progress) as told:
        unread = _restore_home(
            backed_up, manifest, FeatureStore.of(replace(settings, storage=None, registry=None)), told
        )
        if settings.storage or settings.registry:
            _move(settings, told)
        if load_shared:
            _load_others(store, told)
    registry = store.core.registry
    others = () if load_shared else tuple(filter(None, (_elsewhere(store, table) for table in registry.tables())))
    names = {one.table for one in others}
    names |= {one.label for one in registry.tables() if unread & {lookup.space for lookup in one.lookups}}
    loaded = tuple(table.label for table in registry.tables() if table.label not in names)
    groups, sets = len(registry.groups()), len(registry.training_sets())
    return Restored(store.home, manifest.at, groups, loaded, others, sets, time.perf_counter() - started)


def _restore_home(backed_up: Path, manifest: Manifest, store: FeatureStore, on_progress: OnProgress) -> set[str]:
    """Create the folder of a home with all that a backup has.

    Args:
        backed_up: The folder of the backup.
        manifest: Its manifest.
        store: The store to create, in its folder alone.
        on_progress: Called with each step.

    Returns:
        The spaces of the versions that cannot be loaded.
    """
    target = store.home.resolve()
    LmdbStore(Path(store.core.storage.online)).close()
    with (
        _saying(f"The backup {backed_up} could not be restored to {target}, which is as it was"),
        _parents(target),
        folders.atomic_folder(target) as part,
    ):
        folders.same_access(backed_up, part)
        copy_back(backed_up, manifest, part, on_progress)
        mark_as_copy(part)
        return _load_own(part, store, on_progress) if _has_own_store(store) else set()


def _check_services(settings: Settings) -> None:
    """Check that the services to restore to have no store yet.

    Raises:
        DefinitionError: One has.
    """
    if url := settings.storage:
        client = ObjectClient(url)
        probe(client, url)
        if owner_of(client, url):
            raise DefinitionError(
                f"{url} has a store already, and a restore replaces nothing. Set storage to another prefix, such as {url}/NAME."
            )
    if settings.registry and has_registry(settings.address):
        raise DefinitionError(
            f"{shown(settings.registry)} has a registry already, and a restore replaces nothing. Add another schema to the URL: "
            "?schema=NAME."
        )


def _move(settings: Settings, on_progress: OnProgress) -> None:
    """Move a home that was restored to the services of its settings, and remove the files that are left of it.

    Raises:
        SeeknalError: It could not be moved. It can be moved later.
    """
    options = {"storage": settings.storage, "registry": settings.registry}
    command = " ".join(f"--{name} {shown(url)}" for name, url in options.items() if url)
    with unfinished(f"The backup is restored to {settings.home}, but not moved", f"Run seeknal move {command}"):
        moved = move(settings, **options, on_progress=on_progress)
    if moved.kept:
        folders.remove_all(moved.kept)
    if settings.registry:
        folders.remove(settings.home / REGISTRY_FILE)


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
    made = FeatureStore.of(replace(store.settings, home=part, online_store=online))
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
