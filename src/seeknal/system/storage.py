"""The storage of a home: where its tables and training sets lie, and the locks that its processes share.

All code above `offline/` and `engine/` speaks of a `Storage` and its locations. Only `LocalStorage` knows folders, file names and
lock files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from seeknal.system import folders
from seeknal.system.home_moved import check_moved
from seeknal.system.locks import exclusive_lock, shared_lock, try_exclusive_lock
from seeknal.system.stored_paths import StoredPath

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.system.home_identity import Identity


@dataclass(frozen=True)
class Address:
    """What a home is opened by, in this process or in another one.

    Args:
        home: The folder of the home. What is not shared lies in it.
        storage: The URL of the object store with the offline tables and training sets. None: the folder of the home.
        registry: The URL of the database with the registry. None: a file in the folder of the home.
    """

    home: Path
    storage: str | None = None
    registry: str | None = field(default=None, repr=False)  # it may have a password


LockName = Literal["deletions", "groups", "saving", "tables", "turn"]
"""What a lock is for: deletions, and the turn of those who wait for them; the lifetimes of groups; training sets that are being
saved; the registered online tables.
"""


class Location(Protocol):
    """The place of a table, of a training set, of one of its files, or of several of these. `str()` names it in messages.

    Locations of the same place are equal.
    """

    def at(self, *names: str) -> Location:
        """Return the location that lies in this one under a name, and under further names in that one."""

    def list(self) -> Sequence[Location]:
        """Return the locations that lie in this one; none if it does not exist or is a file."""

    def create(self) -> None:
        """Create this location for others to lie in, unless it exists.

        Raises:
            StoreError: This user may not create it or write to it, or another error of the system.
        """

    def read(self) -> pa.NativeFile:
        """Open the file for reading.

        Raises:
            OSError: It cannot be opened.
        """

    def write(self) -> AbstractContextManager[pa.NativeFile]:
        """Open a new file for writing. It is complete when the block ends without an error.

        Raises:
            OSError: It cannot be written.
        """

    def file(self) -> StoredPath:
        """Return the path of the file that lies here."""

    def remove(self) -> None:
        """Remove all that lies in this location, as far as possible. An error is ignored: `leftovers` tries again."""

    def is_recent(self) -> bool:
        """Return whether another machine may still be writing here. In a local folder, a lock tells that."""

    def table(self) -> StoredPath:
        """Return the folder of the table that lies here; if there is none, of one that does not exist."""

    def begin_table(self) -> StoredPath:
        """Create the folder of a table here, unless there is one, and return it.

        Raises:
            StoreError: This user may not create it, or another error of the system.
        """

    def end_table(self, trash: Location) -> None:
        """Delete the table that lies here, if there is one, in one step. A commit that waits for its turn is then a conflict.

        Args:
            trash: Where it lies from then on, where a storage cannot remove all files of a table in one step.

        Raises:
            StoreError: This user may not delete it, or another error of the system.
        """


class Lock(Protocol):
    """A lock shared by all processes of a home. A process that ends releases what it holds."""

    def exclusive(self) -> AbstractContextManager[object]:
        """Wait for the exclusive lock and take it. Leaving the `with` block releases it."""

    def shared(self) -> AbstractContextManager[object]:
        """Wait for the shared lock and take it. Leaving the `with` block releases it."""

    def try_exclusive(self) -> AbstractContextManager[object] | None:
        """Take the exclusive lock without waiting, or return None if it cannot be had now."""


class Storage(Protocol):
    """The storage of a home. `str()` names the home in messages."""

    @property
    def address(self) -> Address:
        """The address of the home."""

    @property
    def tables(self) -> Location:
        """Location of the offline tables. A group's table is at its project and name."""

    @property
    def training_sets(self) -> Location:
        """Location of the saved training sets. One is at its project and a name of its own."""

    @property
    def trash(self) -> Location:
        """Location of the tables of deleted groups, until they are removed."""

    @property
    def pushes(self) -> Location:
        """Location of the push log."""

    @property
    def online(self) -> str:
        """The online store that no other home can reach, by the name that `seeknal.online.connect` takes."""

    def lock(self, name: LockName) -> Lock:
        """Return the lock of a name."""

    def identity(self) -> Identity:
        """Return the identity of the home; see `seeknal.system.home_identity`."""

    @property
    def whereabouts(self) -> str:
        """A name of where the tables lie, which a registry in a database notes: it is an index of these tables, and of no others."""

    @property
    def scratch(self) -> Path:
        """Folder for data that does not fit in memory; see `seeknal.system.folders.scratch_of`."""

    def probe(self) -> None:
        """Try what is needed of an object store.

        Raises:
            StoreError: It cannot be used.
        """

    def check(self) -> None:
        """Check that an object store answers.

        Raises:
            StoreError: It does not.
        """

    def abandoned_scratch(self) -> Sequence[Location]:
        """Return the temporary folders of ended processes, with rows that did not fit in memory."""

    def sweep_scratch(self) -> None:
        """Remove the temporary folders of ended processes."""


@dataclass(frozen=True)
class LocalLocation:
    """A folder or a file; see `Location`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def at(self, *names: str) -> LocalLocation:
        """See `Location.at`."""
        return LocalLocation(self.path.joinpath(*names))

    def list(self) -> Sequence[LocalLocation]:
        """See `Location.list`."""
        return [LocalLocation(path) for path in self.path.glob("*")]

    def create(self) -> None:
        """See `Location.create`."""
        folders.check_writable(self.path)
        folders.make(self.path)

    def read(self) -> pa.NativeFile:
        """See `Location.read`."""
        import pyarrow as pa

        return pa.OSFile(str(self.path))

    @contextmanager
    def write(self) -> Iterator[pa.NativeFile]:
        """See `Location.write`."""
        import pyarrow as pa

        with pa.OSFile(str(self.path), "wb") as file:
            yield file
        folders.share(self.path)

    def file(self) -> Path:
        """See `Location.file`."""
        return self.path

    def remove(self) -> None:
        """See `Location.remove`."""
        with suppress(OSError):
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink()

    def is_recent(self) -> bool:
        """See `Location.is_recent`."""
        return False

    def table(self) -> Path:
        """See `Location.table`."""
        return self.path

    def begin_table(self) -> Path:
        """See `Location.begin_table`."""
        folders.make(self.path)
        return self.path

    def end_table(self, trash: Location) -> None:
        """See `Location.end_table`."""
        from seeknal.system.postgres.locks import check_held

        target = path_of(trash)
        folders.make(target.parent)
        with exclusive_lock(self.path / "_commit.lock"):
            check_held()
            try:
                self.path.rename(target)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise folders.refused(self.path, error) from error


@dataclass(frozen=True)
class LocalLock:
    """A lock file of a home; see `Lock` and `seeknal.system.locks`. Once the home was moved, others have its locks.

    Args:
        path: The file.
        address: The address of the home.
    """

    path: Path
    address: Address

    def exclusive(self) -> AbstractContextManager[object]:
        """See `Lock.exclusive`."""
        return self._checked(exclusive_lock(self.path))

    def shared(self) -> AbstractContextManager[object]:
        """See `Lock.shared`."""
        return self._checked(shared_lock(self.path))

    def try_exclusive(self) -> AbstractContextManager[object] | None:
        """See `Lock.try_exclusive`."""
        held = try_exclusive_lock(self.path)
        return held and self._checked(held)

    def _checked(self, held: AbstractContextManager[object]) -> AbstractContextManager[object]:
        try:
            check_moved(self.address)  # it may have been moved while this process waited
        except BaseException:
            held.__exit__(None, None, None)
            raise
        return held


class HomeFolder:
    """What is in the folder of a home, wherever its tables lie; see `Storage`.

    The names of folders and lock files must not change: other releases have the same, and some of their locks keep this release out.

    Args:
        address: The address of the home.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def __str__(self) -> str:
        return str(self.home)

    @property
    def home(self) -> Path:
        """The folder of the home."""
        return self.address.home

    @property
    def pushes(self) -> LocalLocation:
        """See `Storage.pushes`."""
        return LocalLocation(self.home / "pushes.db")

    @property
    def online(self) -> str:
        """See `Storage.online`."""
        return str(self.home / "online")

    @property
    def scratch(self) -> Path:
        """Folder for data that does not fit in memory; see `seeknal.system.folders.scratch_of`."""
        return folders.scratch_of(self.home)

    def lock(self, name: LockName) -> Lock:
        """See `Storage.lock`."""
        if self.address.registry is not None:
            return lock_of(self.address.registry, name)
        return LocalLock(self._lock_file(name), self.address)

    def _lock_file(self, name: LockName) -> Path:
        return self.home / f"_{name}.lock"

    def identity(self) -> Identity:
        """See `Storage.identity`."""
        from seeknal.system.home_identity import identify

        return identify(self.home)

    @property
    def whereabouts(self) -> str:
        """See `Storage.whereabouts`."""
        return self.identity().name

    def probe(self) -> None:
        """See `Storage.probe`."""

    def check(self) -> None:
        """See `Storage.check`."""

    def abandoned_scratch(self) -> Sequence[LocalLocation]:
        """See `Storage.abandoned_scratch`."""
        return [LocalLocation(path) for path in folders.abandoned(self.scratch)]

    def sweep_scratch(self) -> None:
        """See `Storage.sweep_scratch`."""
        folders.sweep(self.scratch)


class LocalStorage(HomeFolder):
    """The storage of a home in a local folder; see `Storage`."""

    @property
    def tables(self) -> LocalLocation:
        """See `Storage.tables`."""
        check_moved(self.address)
        return LocalLocation(self.home / "offline")

    @property
    def training_sets(self) -> LocalLocation:
        """See `Storage.training_sets`."""
        check_moved(self.address)
        return LocalLocation(self.home / "datasets")

    @property
    def trash(self) -> LocalLocation:
        """See `Storage.trash`."""
        return LocalLocation(self.home / "trash")

    def _lock_file(self, name: LockName) -> Path:
        return self.home / "datasets" / "_saving.lock" if name == "saving" else super()._lock_file(name)


CACHE_SIZE = 10_000_000_000
"""How many bytes of local copies of an object store are kept, if nothing is said."""


def open_storage(address: Address, cache_size: int = CACHE_SIZE) -> Storage:
    """Return the storage of a home. Nothing is created.

    Args:
        address: The address of the home.
        cache_size: How many bytes of local copies are kept of what lies in an object store.

    Raises:
        StoreError: The tables of the home lie in an object store, and the address does not name it.
    """
    check_moved(address)
    if address.storage is None:
        if (address.home / "storage.json").exists():
            from seeknal.system.object_place import check_local

            check_local(address.home)
        return LocalStorage(address)
    from seeknal.system.object_storage import ObjectStorage

    return ObjectStorage(address, address.storage, cache_size)


def lock_of(registry: str, name: LockName) -> Lock:
    """Return the lock of a name for all machines that share a registry.

    Args:
        registry: The URL of the database with the registry.
        name: What the lock is for.
    """
    from seeknal.system.postgres.locks import PostgresLock

    return PostgresLock(registry, name)


def path_of(location: Location) -> Path:
    """Return the path of a location, for code that works on local files: the push log, and the backup and doctor of `home/`.

    Raises:
        TypeError: It lies in another storage.
    """
    if isinstance(location, LocalLocation):
        return location.path
    raise TypeError(f"{location} is not in a local folder.")
