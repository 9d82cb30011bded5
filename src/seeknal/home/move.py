"""Moving a home to shared services: its tables and training sets to an object store, its registry to a database.

Files are copied while the home is in use, and each is read back. Then, for a moment, nobody can write: what was written meanwhile is
copied too, the old places are closed, and the new ones opened, in this order. So at no moment can both be written. Each step can be
repeated, and a run that was killed is completed by the next one. See docs/decisions/0035-moving-to-shared-services.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from seeknal.config import Settings, checked_registry
from seeknal.errors import DefinitionError, StoreError
from seeknal.home.carrying import FOLDERS, Carrier, Item, check_whole, items_of_table, pointer_of, total
from seeknal.home.store import FeatureStore
from seeknal.registry import has_registry
from seeknal.registry.sql import copying
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.registry.sqlite import file_of
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.system import folders
from seeknal.system.home_identity import identify
from seeknal.system.home_moved import Moved, moved, note_move
from seeknal.system.locks import exclusive_lock, shared_lock, try_exclusive_lock
from seeknal.system.object_client import ObjectClient
from seeknal.system.object_place import Owner, note_place, owner_of, probe, put_owner
from seeknal.system.object_storage import hashed, key_of_registry
from seeknal.system.object_url import storage_of
from seeknal.system.postgres.sessions import imported
from seeknal.system.progress import OnProgress, working
from seeknal.system.storage import Address, LockName, lock_of
from seeknal.system.urls import shown

if TYPE_CHECKING:
    from seeknal.registry.postgres.implementation import PostgresRegistry

_OLD = {"offline": "tables", "datasets": "datasets"}
"""The folders of a home that lie in an object store when it was moved, each with its name there."""
_JOURNAL = "moving.jsonl"
KEPT = "moved"
"""The folder in a home with the old files, once it was moved."""
_PASSES = 5
"""How often what was written during the last pass is copied while the home is in use."""


@dataclass(frozen=True)
class MovedHome:
    """A home that was moved.

    Args:
        home: The folder of the home.
        settings: The lines for `seeknal.toml`, without passwords.
        files: How many files were copied and compared.
        size: Their size in bytes.
        rows: How many rows of the registry were copied and compared; None: it stayed where it is.
        kept: The folder with the old files, which nothing uses any more; None if there is none.
    """

    home: Path
    settings: tuple[str, ...]
    files: int
    size: int
    rows: int | None
    kept: Path | None


def move(
    settings: Settings,
    *,
    storage: str | None = None,
    registry: str | None = None,
    on_progress: OnProgress | None = None,
) -> MovedHome:
    """Move tables and training sets of a home to an object store, its registry to a database, or both. It can be run again.

    Reads and writes go on while files are copied, and wait for the last step. Afterwards, processes with the old settings get an error
    from every write, and from every read of what was moved.

    Args:
        settings: The old settings of the home, or the new ones.
        storage: The URL of the place for tables and training sets. None: they stay.
        registry: The URL of the database for the registry. None: it stays.
        on_progress: Called with each step. None: the steps are shown on a terminal.

    Raises:
        DefinitionError: There is nothing to move, or the target belongs to others.
        StoreError: A service cannot be used, or does not return what was written to it; the home is as it was. Or the move was
            interrupted in its last step: the home can be used when it was run again.
    """
    if not settings.home.is_dir():
        raise _nothing(settings.home)
    with working("Moving", on_progress) as told, _alone(settings.home), _named(settings.home):
        return _Move(_planned(settings, storage, registry), settings, told).run()


@dataclass(frozen=True)
class _Plan:
    """Where a home is, where it is to be, and which of its two parts move."""

    source: Address
    target: Address

    @property
    def home(self) -> Path:
        return self.source.home

    @property
    def storage(self) -> str | None:
        """The object store to move to; None: the tables stay."""
        return None if self.source.storage == self.target.storage else self.target.storage

    @property
    def registry(self) -> str | None:
        """The database to move to; None: the registry stays."""
        return None if self.source.registry == self.target.registry else self.target.registry


def _planned(settings: Settings, storage: str | None, registry: str | None) -> _Plan:
    home, note = settings.home, moved(settings.home)
    place = storage_of(storage, "--storage") if storage else None
    database = checked_registry(registry, "--registry") if registry else None
    if place is None and database is None:
        raise DefinitionError(
            "Say where to: --storage s3://BUCKET/PREFIX, --registry postgresql://USER@HOST/DATABASE, or both."
        )
    old = Address(home, _old_storage(settings, place, note), _old_registry(settings, database, note))
    plan = _Plan(old, Address(home, place or old.storage, database or old.registry))
    if note and not note.is_complete and (note.storage, note.registry) != _noted(plan, note):
        options = [f"--storage {note.storage}"] if note.storage else []
        options += [f"--registry {note.registry}"] if note.registry else []
        raise DefinitionError(
            f"Another move of {home} is not complete. Run it again first: seeknal move {' '.join(options)}."
        )
    if not old.registry and not file_of(home).exists():
        raise _nothing(home)
    return plan


def _old_storage(settings: Settings, place: str | None, note: Moved | None) -> str | None:
    """Return the object store with the tables before the move; None if they lie in the home."""
    known = settings.storage
    if note and note.storage:
        known = note.storage if note.is_complete or place is None else None
    elif place and known == place:  # the new setting may have been written too early
        owner = owner_of(ObjectClient(place), place)
        known = place if owner and not owner.moving else None
    if place and known not in {None, place}:
        raise DefinitionError(
            f"The tables of {settings.home} lie in {known} already. To have them elsewhere, write them to a new home."
        )
    return known


def _old_registry(settings: Settings, database: str | None, note: Moved | None) -> str | None:
    """Return the database with the registry before the move; None if it is a file in the home."""
    known = settings.registry
    if database and known not in {None, database}:
        raise DefinitionError(
            f"The registry of {settings.home} is in {shown(known or '')} already. To move it, see seeknal migrate-registry --help."
        )
    if note and note.registry:
        return database or known if note.is_complete else None
    if database and known == database:
        return known if has_registry(Address(Path(), registry=known)) and _database(database).is_open else None
    return known


def _noted(plan: _Plan, before: Moved | None) -> tuple[str | None, str | None]:
    """Return what to note of where a home was moved to, in addition to what was noted before."""
    storage, registry = plan.storage, plan.registry and shown(plan.registry)
    return storage or (before.storage if before else None), registry or (before.registry if before else None)


def _nothing(home: Path) -> DefinitionError:
    return DefinitionError(
        f"There is no home at {home}, so nothing to move. Write the settings into seeknal.toml, and begin there."
    )


def _database(url: str) -> PostgresRegistry:
    imported()
    from seeknal.registry.postgres.implementation import PostgresRegistry

    return PostgresRegistry(url)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    lock = try_exclusive_lock(home / "_move.lock")
    if lock is None:
        raise StoreError(f"Another process is moving {home}.")
    with lock:
        yield


@contextmanager
def _named(home: Path) -> Iterator[None]:
    """Raise an error of the disk or of a request as a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The home {home} could not be moved: {error}. Run the same again once that is mended."
        ) from error


class _Move:
    """A move in progress.

    Args:
        plan: What to move.
        settings: The settings of the home.
        on_progress: Called with each step.
    """

    def __init__(self, plan: _Plan, settings: Settings, on_progress: OnProgress) -> None:
        self._plan = plan
        self._settings = settings
        self._told = on_progress
        self._home = plan.home
        self._name = identify(plan.home).name
        self._before = moved(plan.home)
        self._rows: int | None = None

    def run(self) -> MovedHome:
        """Move what is not moved yet."""
        if (self._plan.storage or self._plan.registry) and not self._is_open():
            if self._target:
                self._target.check_free(self._name)
                if self._target.home is None:  # before another process can take it for a new one
                    self._target.take(self._begin_registry, writes=True)
            if self._plan.storage:
                self._begin_place(self._plan.storage)
                self._carry_in_use()
            self._told("Waiting for those who write")
            with self._closed():
                if self._plan.storage:
                    self._carry_rest()
                if self._target:
                    self._told("Copying the registry")
                    content = copying.move(self._source, self._target, self._begin_registry, self._leave)
                    self._rows = sum(content.rows.values())
                else:
                    self._leave()
                self._open()
        if self._plan.source != self._plan.target:
            self._note(is_complete=True)
        done = self._carrier.proofs.values() if self._plan.storage else ()
        result = MovedHome(
            self._home,
            self._lines(),
            len(done),
            total(done),
            self._rows,
            self._kept if self._kept.exists() else None,
        )
        self._journal.unlink(missing_ok=True)
        return result

    @cached_property
    def _source(self) -> SqlRegistry:
        """The old registry. `open_registry` would refuse one that is being moved."""
        registry = self._plan.source.registry
        return _database(registry) if registry else SqliteRegistry(file_of(self._home))

    @cached_property
    def _target(self) -> PostgresRegistry | None:
        return _database(self._plan.registry) if self._plan.registry else None

    @cached_property
    def _client(self) -> ObjectClient:
        """The object store with the tables, after the move."""
        assert self._plan.target.storage  # noqa: S101 - the callers have looked
        return ObjectClient(self._plan.target.storage)

    @property
    def _key(self) -> str:
        registry = self._plan.target.registry
        return key_of_registry(registry) if registry else ""

    @property
    def _whereabouts(self) -> str:
        """Where the tables lie after the move; see `Storage.whereabouts`."""
        return hashed(self._plan.target.storage) if self._plan.target.storage else self._name

    @property
    def _journal(self) -> Path:
        return self._home / _JOURNAL

    @property
    def _kept(self) -> Path:
        return self._home / KEPT

    @cached_property
    def _carrier(self) -> Carrier:
        owner = owner_of(self._client, self._client.url)
        assert owner  # noqa: S101 - `_begin_place` has written it
        return Carrier(self._client, self._journal, owner.place, self._told)

    def _is_open(self) -> bool:
        """Return whether a run before had opened the new places, so that they may have changed since."""
        if self._before is None or (self._before.storage, self._before.registry) != _noted(self._plan, self._before):
            return False
        if self._plan.storage:
            owner = owner_of(self._client, self._plan.storage)
            if owner is None or owner.moving or (owner.home, owner.registry) != (self._name, self._key):
                return False
            # Only the registry is left to open, and what was copied to it is complete.
            self._open()
            return True
        return bool(self._target and self._target.home == self._whereabouts)

    # The object store

    def _begin_place(self, url: str) -> None:
        """Let nobody use the place until `_open`.

        Raises:
            DefinitionError: It belongs to others, or has objects.
        """
        owner = owner_of(self._client, url)
        if owner is None:
            probe(self._client, url)
            if any(self._client.children(folder) for folder in FOLDERS):
                raise DefinitionError(
                    f"{url} has objects that are not of a move. Choose another prefix, such as {url}/NAME."
                )
        elif owner.moving != self._name:
            raise DefinitionError(f"{url} belongs to another home. Choose another prefix, such as {url}/NAME.")
        place = owner.place if owner else uuid.uuid4().hex
        put_owner(self._client, url, Owner(self._name, place, self._key, self._name), is_new=owner is None)

    def _carry_in_use(self) -> None:
        if self._before is None:
            self._commit_pushes()
        for _ in range(_PASSES):
            with self._lock("turn", shared=True):
                keeping = self._lock("deletions", shared=True)
            with keeping:  # so that no vacuum removes what is about to be copied
                if not self._carrier.carry(self._items()):
                    break

    def _commit_pushes(self) -> None:
        """Commit what was pushed before. The push log stays in the home, and later pushes with it."""
        old = self._plan.source
        store = FeatureStore.of(replace(self._settings, storage=old.storage, registry=old.registry))
        try:
            for record in store.core.catalog.groups():
                store.core.catalog.gate.commit(record)
        finally:
            store.close()

    def _carry_rest(self) -> None:
        for root in self._tables():
            check_whole(root)
        items = self._items()
        self._carrier.carry(items)
        self._told("Comparing")
        self._carrier.complete(items, dict(map(pointer_of, self._tables())))

    def _items(self) -> list[Item]:
        tables = [item for root in self._tables() for item in items_of_table(root)]
        saved = self._folder("datasets")
        sets = [
            Item(file, f"datasets/{one.folder}/{file.name}")
            for one in self._source.training_sets()
            for file in sorted((saved / one.folder).glob("*"))
        ]
        return [*tables, *sets]

    def _tables(self) -> list[Path]:
        return sorted(log.parent for log in self._folder("offline").glob("*/*/_delta_log") if any(log.glob("*.json")))

    def _folder(self, name: str) -> Path:
        """Return where the old files lie: in the home, or set aside by a run before."""
        here = self._home / name
        return here if here.is_dir() or not (self._kept / name).exists() else self._kept / name

    # Closing the old places

    @contextmanager
    def _closed(self) -> Iterator[None]:
        """Wait for all who write, and keep them waiting. Whoever takes two of these locks takes them in this order."""
        roots: list[Path] | None = None
        with ExitStack() as stack:
            while roots is None or (self._plan.storage and roots != self._tables()):
                stack.close()
                roots = self._tables() if self._plan.storage else []
                names: Sequence[LockName] = "turn", "deletions", "tables"
                locks = [self._locker(name) for name in names]
                locks += [self._file_locker(root / "_write.lock") for root in roots]
                locks += [self._locker(name) for name in ("saving", "groups")]
                locks += [self._file_locker(root / "_commit.lock") for root in roots]
                for lock in locks:
                    stack.enter_context(lock())
            yield

    def _locker(self, name: LockName) -> Callable[[], AbstractContextManager[object]]:
        return lambda: self._lock(name)

    def _file_locker(self, path: Path) -> Callable[[], AbstractContextManager[object]]:
        return lambda: exclusive_lock(path)

    def _lock(self, name: LockName, *, shared: bool = False) -> AbstractContextManager[object]:
        """Take a lock of the old home. `Storage.lock` would refuse that in a home that is being moved."""
        if url := self._plan.source.registry:
            lock = lock_of(url, name)
            return lock.shared() if shared else lock.exclusive()
        is_with_sets = name == "saving" and self._plan.source.storage is None
        folder = self._folder("datasets") if is_with_sets else self._home
        if not folder.exists():
            folders.make(folder)
        return (shared_lock if shared else exclusive_lock)(folder / f"_{name}.lock")

    def _leave(self) -> None:
        """Close the old places for processes that have them open, and for those to come."""
        self._note(is_complete=False)
        for name in _OLD if self._plan.storage else ():
            here, kept = self._home / name, self._kept / name
            if here.is_dir():
                if kept.exists():
                    raise StoreError(
                        f"{here} has appeared beside {kept}, where it was moved to. Is an older release of Seeknal in use?"
                    )
                folders.make(self._kept)
                here.rename(kept)
            if not here.exists():  # a file, so that nothing creates the folder again
                here.write_text(f"The files were moved to {self._plan.storage}/{_OLD[name]}.\n", encoding="utf-8")

    def _note(self, *, is_complete: bool) -> None:
        note_move(self._home, Moved(*_noted(self._plan, self._before), is_complete))

    # Opening the new places

    def _begin_registry(self, db: Connection) -> None:
        assert self._target  # noqa: S101 - the callers have looked
        self._target.begin_move(db, self._name)

    def _open(self) -> None:
        if url := self._plan.target.storage:
            owner = owner_of(self._client, url)
            place = owner.place if owner else uuid.uuid4().hex
            put_owner(self._client, url, Owner(self._name, place, self._key))
            note_place(self._home, url, place)
        if url := self._plan.target.registry:
            registry = self._target or _database(url)
            if registry.home != self._whereabouts:
                registry.end_move(self._name, self._whereabouts)

    def _lines(self) -> tuple[str, ...]:
        named = {"storage": self._plan.target.storage, "registry": self._plan.target.registry}
        return tuple(f'{name} = "{shown(url)}"' for name, url in named.items() if url)
