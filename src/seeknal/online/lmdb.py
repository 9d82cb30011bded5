"""The online store on LMDB: one file, one writer, readers that never wait."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import lmdb

from seeknal.errors import StoreError

_MAP_SIZE = 2**36
_MAX_SPACES = 4096
_open_environments: dict[str, lmdb.Environment] = {}
_opening = Lock()


class LmdbStore:
    """Keeps each space as a database of its own within one LMDB environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def _environment(self) -> lmdb.Environment:
        """The environment of this process: LMDB must not be opened twice, nor carried over a fork."""
        place = str(self._folder)
        with _opening:
            if place not in _open_environments:
                _open_environments[place] = _open(self._folder)
            return _open_environments[place]

    def replace(self, space: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """See `OnlineStore.replace`."""
        environment = self._environment
        try:
            database = environment.open_db(space.encode())
            with environment.begin(write=True) as transaction:
                transaction.drop(database, delete=False)
                _, added = transaction.cursor(database).putmulti(rows, append=True)
        except lmdb.Error as error:
            raise StoreError(f"The online store {self._folder} could not be written: {error}") from error
        return int(added)

    def get(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `OnlineStore.get`."""
        try:
            with self._environment.begin() as transaction:
                database = self._environment.open_db(space.encode(), transaction, create=False)
                return [transaction.get(key, db=database) for key in keys]
        except lmdb.NotFoundError:
            raise KeyError(space) from None
        except lmdb.Error as error:
            raise StoreError(f"The online store {self._folder} could not be read: {error}") from error

    def drop(self, space: str) -> None:
        """See `OnlineStore.drop`."""
        environment = self._environment
        try:
            database = environment.open_db(space.encode(), create=False)
            with environment.begin(write=True) as transaction:
                transaction.drop(database)
        except lmdb.NotFoundError:
            return


def close_all() -> None:
    """Close the environments of this process; they open again when they are next used."""
    with _opening:
        while _open_environments:
            _open_environments.popitem()[1].close()


os.register_at_fork(after_in_child=close_all)


def _open(folder: Path) -> lmdb.Environment:
    only_to_read = (folder / "data.mdb").exists() and not os.access(folder, os.W_OK)
    mode = {"readonly": True, "lock": False} if only_to_read else {"max_readers": 1024}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lmdb.open(str(folder), map_size=_MAP_SIZE, max_dbs=_MAX_SPACES, **mode)
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"The online store {folder} cannot be opened: {error}") from error
