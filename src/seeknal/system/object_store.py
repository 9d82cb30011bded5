"""A place in an object store that has tables, and the paths of what lies in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from seeknal.errors import StoreError
from seeknal.system import folders
from seeknal.system.copies import Copies, Links
from seeknal.system.locks import locked_cached_property
from seeknal.system.object_client import AS_OPTIONS, ObjectClient, ObjectStatus
from seeknal.system.object_place import OWNER, Owner, claim, owner_in_place
from seeknal.system.stored_paths import StoredPath

T = TypeVar("T")
_TOGETHER = 8
"""Files that are fetched at once."""


class ObjectStore:
    """The tables of a home in an object store, and their local copies; see `Backing`.

    Args:
        url: The URL of the place, without a slash at the end.
        home: The folder of the home.
        copies: The local copies.
        name: Returns the name of the home.
        registry: The key of the database with its registry; "" if that is in the folder of the home.
    """

    is_shared = True

    def __init__(self, url: str, home: Path, copies: Copies, name: Callable[[], str], registry: str = "") -> None:
        self.url = url
        self.copies = copies
        self._home = home
        self._name = name
        self._registry = registry
        self._asking = ObjectClient(url)

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Callable[[str, str, Copies], ObjectStore], tuple[str, str, Copies]]:
        return store_of_executor, (self.url, self.owner.place, self.copies)

    @locked_cached_property
    def owner(self) -> Owner:
        """Whose the place is.

        Raises:
            StoreError: It is another home's, or it cannot do what is needed.
        """
        return claim(self._asking, self.url, self._home, self._name, self._registry)

    @property
    def client(self) -> ObjectClient:
        """The requests to the place, which is claimed for the home by the first one.

        Raises:
            StoreError: Another home has it, or it cannot do what is needed.
        """
        self.owner  # noqa: B018 - claims it
        return self._asking

    def check(self) -> None:
        """Check that the store answers.

        Raises:
            OSError: It does not.
        """
        with suppress(FileNotFoundError):  # nothing was written to the place yet
            self._asking.status(OWNER)

    def path(self, key: str) -> ObjectPath:
        """Return the path of a key."""
        return ObjectPath(self, key, Links(self.copies))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and their local copies."""
        names = list(keys)
        self.client.delete(names)
        for key in names:
            self.copies.forget(self.name_of(key))

    def name_of(self, key: str) -> str:
        """Return what an object is called among the local copies."""
        return f"{self.owner.place}/{key}"

    def tail(self, key: str, size: int) -> tuple[bytes, int]:
        """Return the last bytes of an object, and its size; see `Source`."""
        return self.client.tail(key, size)

    def ranges(self, key: str, wanted: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return parts of an object; see `Source`."""
        return self.client.ranges(key, wanted)

    def label(self, root: StoredPath) -> str:
        """See `TableAccess.label`."""
        return f"{_object(root).parent.parent.name}/{_object(root).parent.name}"

    def lock_file(self, path: StoredPath) -> Path:
        """See `TableAccess.lock_file`."""
        file = self.locks_of(path)
        with suppress(StoreError):  # who may not write the home takes no locks
            folders.make(file.parent)
        return file

    def locks_of(self, path: StoredPath) -> Path:
        """Return the local path that belongs to a path, for its lock or those of the folder."""
        return self._home / "locks" / _object(path).key

    def address(self, root: StoredPath) -> tuple[str | Path, dict[str, str] | None]:
        """See `TableAccess.address`."""
        return str(root), dict(AS_OPTIONS)

    def may_write(self, _root: StoredPath) -> bool:
        """See `TableAccess.may_write`. The store decides when something is written."""
        return True

    def put_file(self, path: StoredPath, content: bytes) -> None:
        """See `FileAccess.put_file`."""
        self.client.put(_object(path).key, content)

    def pieces(self, path: StoredPath) -> Iterator[bytes]:
        """See `FileAccess.pieces`."""
        return self.client.pieces(_object(path).key, path.stat().st_size)

    def prefetch(self, paths: Iterable[StoredPath]) -> None:
        """See `FileAccess.prefetch`."""

        def fetch(path: StoredPath) -> None:
            with suppress(FileNotFoundError):
                path.read_bytes()

        wanted = list(paths)
        if len(wanted) > 1:
            self.at_once(fetch, wanted)

    def missing(self, folder: StoredPath, names: Collection[str]) -> set[str]:
        """See `FileAccess.missing`."""
        if len(names) <= 1:
            return {name for name in names if not (folder / name).exists()}
        return set(names) - self.client.children(_object(folder).key).keys()

    @contextmanager
    def writing(self, path: StoredPath) -> Iterator[Path]:
        """See `FileAccess.writing`."""
        key = _object(path).key
        with self.copies.new(self.name_of(key)) as place:
            yield place
            self.client.put(key, place)

    def readable(self, paths: Sequence[StoredPath], columns: Sequence[str] | None) -> list[str]:
        """See `FileAccess.readable`."""
        there = {path: _object(path).copy_at_hand(columns) for path in paths}
        lacking = [path for path, copy in there.items() if copy is None]
        fetched = dict(zip(lacking, self.at_once(lambda path: _object(path).copied(columns), lacking), strict=True))
        self.copies.trim()
        return [there[path] or fetched[path] for path in paths]

    def at_once(self, function: Callable[[StoredPath], T], paths: Sequence[StoredPath]) -> list[T]:
        """Call a function with each path, several at a time, and return the results in order."""
        if len(paths) <= 1:
            return list(map(function, paths))
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return list(pool.map(function, paths))


class _OfExecutor(ObjectStore):
    """The tables as an executor reads them, which has no home: with options and credentials from its own environment."""

    @locked_cached_property
    def owner(self) -> Owner:
        return owner_in_place(self._asking, self.url, self._name())


@cache
def store_of_executor(url: str, place: str, copies: Copies) -> ObjectStore:
    """Return a place for an executor, which must find there what its driver has found.

    Args:
        url: The URL of the place.
        place: Its name.
        copies: The local copies.
    """
    return _OfExecutor(url, copies.folder, copies, lambda: place)


@dataclass(frozen=True)
class ObjectPath:
    """The path of an object, or of a folder of objects; see `StoredPath`.

    Args:
        backing: The store.
        key: The key, without a slash at the end.
        links: The local copies in use, of all paths that were derived from one.
        known: Its status, if it was listed.
    """

    backing: ObjectStore
    key: str
    links: Links = field(compare=False, repr=False)
    known: ObjectStatus | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.backing.url}/{self.key}"

    @property
    def name(self) -> str:
        """See `StoredPath.name`."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """See `StoredPath.parent`."""
        return ObjectPath(self.backing, self.key.rpartition("/")[0], self.links)

    def __truediv__(self, name: str, /) -> ObjectPath:
        return ObjectPath(self.backing, f"{self.key}/{name}", self.links)

    def exists(self) -> bool:
        """See `StoredPath.exists`."""
        try:
            self.backing.client.status(self.key)
        except FileNotFoundError:
            return False
        return True

    def read_bytes(self) -> bytes:
        """See `StoredPath.read_bytes`."""
        return self.backing.client.get(self.key)

    def iterdir(self) -> Iterator[ObjectPath]:
        """See `StoredPath.iterdir`. A folder that does not exist is empty."""
        for name, status in self.backing.client.children(self.key).items():
            yield ObjectPath(self.backing, f"{self.key}/{name}", self.links, status)

    def stat(self) -> ObjectStatus:
        """See `StoredPath.stat`."""
        return self.known or self.backing.client.status(self.key)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: ARG002 - as that of a local path
        """See `StoredPath.unlink`. A store does not tell whether there was an object."""
        self.backing.delete([self.key])

    def copy_at_hand(self, columns: Sequence[str] | None) -> str | None:
        """Return what `copied` does if nothing has to be fetched for it; else None."""
        return self.links.at_hand(self.backing.name_of(self.key), columns)

    def copied(self, columns: Sequence[str] | None) -> str:
        """Return the path of a local copy that has some columns, or all of them, and that stays while `links` is referenced."""
        return self.links.copy_of(self.backing, self.key, columns)


def _object(path: StoredPath) -> ObjectPath:
    assert isinstance(path, ObjectPath)  # noqa: S101 - `backing_of` has looked
    return path
