"""The storage of a home whose tables and training sets lie in an object store; everything else is in its folder."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from seeknal.errors import StoreError
from seeknal.system import folders
from seeknal.system.copies import Copies, Links
from seeknal.system.home_moved import check_moved
from seeknal.system.locks import exclusive_lock
from seeknal.system.object_place import probe
from seeknal.system.object_store import ObjectPath, ObjectStore
from seeknal.system.postgres.locks import check_held
from seeknal.system.storage import Address, HomeFolder, Location
from seeknal.system.urls import shown

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.system.home_identity import Identity

_CURRENT = "current.json"
_RECENT = 24 * 3600
"""Seconds for which what another machine may just be writing is left alone."""
_NO_TABLE = "none"


class _Pointer(msgspec.Struct, frozen=True):
    """Names the folder of the table of a group. It is written before the table, and deleted before it."""

    folder: str


@dataclass(frozen=True)
class ObjectLocation:
    """A folder, an object, or several of these; see `seeknal.system.storage.Location`."""

    store: ObjectStore = field(repr=False)
    key: str
    _found: list[ObjectPath] = field(default_factory=list, compare=False, repr=False)
    """The folder of the table that lies here, once it is known. The table of another location object may be another one."""

    def __str__(self) -> str:
        return f"{self.store}/{self.key}"

    def at(self, *names: str) -> ObjectLocation:
        """See `Location.at`."""
        return ObjectLocation(self.store, "/".join([self.key, *names]))

    def list(self) -> Sequence[ObjectLocation]:
        """See `Location.list`."""
        with _told(self):
            return [self.at(name) for name in self.store.client.children(self.key)]

    def create(self) -> None:
        """See `Location.create`. A store has no folders; whether it can be written shows when something is."""

    def read(self) -> pa.NativeFile:
        """See `Location.read`."""
        import pyarrow as pa

        links = Links(self.store.copies)
        try:
            copy = links.copy_of(self.store, self.key, None)
        except StoreError as error:
            raise OSError(str(error).rstrip(".")) from error
        return pa.OSFile(copy)  # once it is open, the file stays although the link goes

    @contextmanager
    def write(self) -> Iterator[pa.NativeFile]:
        """See `Location.write`."""
        import pyarrow as pa

        with self.store.writing(self.store.path(self.key)) as place, pa.OSFile(str(place), "wb") as file:
            yield file
            file.close()

    def file(self) -> ObjectPath:
        """See `Location.file`."""
        return self.store.path(self.key)

    def remove(self) -> None:
        """See `Location.remove`."""
        with suppress(OSError, StoreError):
            self.store.delete([self.key, *self.store.client.under(self.key)])

    def is_recent(self) -> bool:
        """See `Location.is_recent`."""
        with _told(self):
            newest = max((one.st_mtime_ns for one in self.store.client.under(self.key).values()), default=0)
        return time.time() - newest / 1e9 < _RECENT

    def table(self) -> ObjectPath:
        """See `Location.table`."""
        if not self._found and (folder := self._pointer()):
            self._found.append(self._folder(folder))
        return self._found[0] if self._found else self._folder(_NO_TABLE)

    def begin_table(self) -> ObjectPath:
        """See `Location.begin_table`. Each table has a folder of its own, so that no commit to a deleted one gets into the next."""
        made = uuid.uuid4().hex
        self._found.clear()  # it may have been deleted
        with _told(self):
            while self._pointer() is None:
                with suppress(FileExistsError):
                    self.store.client.put(f"{self.key}/{_CURRENT}", msgspec.json.encode(_Pointer(made)), is_new=True)
        return self.table()

    def end_table(self, trash: Location) -> None:
        """See `Location.end_table`."""
        folder = self._pointer()
        if folder is None:
            return
        root = self._folder(folder)
        with exclusive_lock(self.store.lock_file(root / "_commit.lock")), _told(self):
            check_held()
            # What lies in the trash tells the next process what to remove, if this one is killed in between.
            self.store.client.put(_key(trash), root.key.encode())
            self.store.delete([f"{self.key}/{_CURRENT}"])
        _Trashed(self.store, _key(trash)).remove()

    def _pointer(self) -> str | None:
        with _told(self):
            try:
                return msgspec.json.decode(self.store.client.get(f"{self.key}/{_CURRENT}"), type=_Pointer).folder
            except FileNotFoundError:
                return None
            except msgspec.DecodeError as error:
                raise StoreError(f"{self}/{_CURRENT} is damaged: {error}.") from None

    def _folder(self, name: str) -> ObjectPath:
        return self.store.path(f"{self.key}/{name}")


class _Trash(ObjectLocation):
    """The tables that were deleted, each an object with the key of its folder."""

    def list(self) -> Sequence[ObjectLocation]:
        """See `Location.list`."""
        return [_Trashed(one.store, one.key) for one in super().list()]


class _Trashed(ObjectLocation):
    """A table that was deleted."""

    def remove(self) -> None:
        """See `Location.remove`."""
        with suppress(OSError, StoreError):
            table, _, folder = self.store.client.get(self.key).decode().rpartition("/")
            if ObjectLocation(self.store, table)._pointer() != folder:  # noqa: SLF001 - else the deletion was cut short
                root = self.store.path(f"{table}/{folder}")
                # First what says that there is a table, so that no reader takes the rest for one.
                self.store.delete([f"{root.key}/_delta_log/{0:020}.json"])
                self.store.delete(self.store.client.under(root.key))
                folders.remove_all(self.store.locks_of(root))
            self.store.delete([self.key])


def _key(location: Location) -> str:
    assert isinstance(location, ObjectLocation)  # noqa: S101 - a home has one storage
    return location.key


@contextmanager
def _told(location: ObjectLocation | str) -> Iterator[None]:
    """Raise an OSError as a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{location} cannot be used: {error}") from error


class ObjectStorage(HomeFolder):
    """The storage of a home whose tables and training sets lie in an object store; see `seeknal.system.storage.Storage`.

    Args:
        address: The address of the home.
        url: The URL of the place.
        cache_size: How many bytes of local copies are kept.
    """

    def __init__(self, address: Address, url: str, cache_size: int) -> None:
        super().__init__(address)
        copies = Copies(folders.scratch_of(self.home) / "objects", cache_size)
        registry = key_of_registry(address.registry) if address.registry else ""
        self.store = ObjectStore(url, self.home, copies, self._name, registry)

    def identity(self) -> Identity:
        """See `Storage.identity`. Homes that share both the registry and the tables are one, which the place names."""
        if self.address.registry is None:
            return super().identity()
        from seeknal.system.home_identity import Identity

        return Identity(self.store.owner.home, is_copy=False)

    @property
    def whereabouts(self) -> str:
        """See `Storage.whereabouts`."""
        return hashed(self.store.url)

    def _name(self) -> str:
        """Return the name that a new place gets."""
        return self.whereabouts if self.address.registry else super().identity().name

    def probe(self) -> None:
        """See `Storage.probe`."""
        probe(self.store.client, self.store.url)  # the first request asks whose the place is

    def check(self) -> None:
        """See `Storage.check`."""
        with _told(self.store.url):
            self.store.check()

    @property
    def tables(self) -> ObjectLocation:
        """See `Storage.tables`."""
        check_moved(self.address)
        return ObjectLocation(self.store, "tables")

    @property
    def training_sets(self) -> ObjectLocation:
        """See `Storage.training_sets`."""
        check_moved(self.address)
        return ObjectLocation(self.store, "datasets")

    @property
    def trash(self) -> ObjectLocation:
        """See `Storage.trash`."""
        return _Trash(self.store, "trash")


def key_of_registry(url: str) -> str:
    """Return by which key a place knows the database with the registry: by its URL, whatever the password."""
    return hashed(shown(url))


def pointer_to(folder: str) -> tuple[str, bytes]:
    """Return name and content of the object that names the folder of a table, in the folder of its group."""
    return _CURRENT, msgspec.json.encode(_Pointer(folder))


def hashed(text: str) -> str:
    """Return a name of a fixed length for a text, which no other text has."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
