"""The online stores of a home, by the names under which its registry lists them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from seeknal.online.lmdb import LmdbStore
from seeknal.online.protocol import OnlineStore
from seeknal.online.redis import RedisStore
from seeknal.system import redis_url, urls

DEFAULT = ""
"""The name of the default online store, which has the tables that name no other store."""


def connect(place: str) -> OnlineStore:
    """Return the online store at a place: LMDB for a folder, Redis for a URL."""
    return RedisStore.of(place) if "://" in place else LmdbStore(Path(place))


@dataclass(frozen=True)
class Stores:
    """The online stores of a home.

    A store has several names if a table names the default store explicitly, if a URL or a folder is spelled in two ways, or if
    the settings changed since a table was registered. So names are for connecting, and addresses for comparing stores.

    Args:
        default: The folder or URL of the default store.
    """

    default: str = field(repr=False)

    def connect(self, name: str) -> OnlineStore:
        """Return the store that a name stands for."""
        return connect(name or self.default)

    def shown(self, name: str) -> str:
        """Return the folder or URL of a store, without its password."""
        return urls.shown(name or self.default)

    def address(self, name: str) -> str:
        """Return the address of a store, which is the same for all of its names."""
        place = name or self.default
        return redis_url.address(place) if "://" in place else os.path.realpath(place)

    def same(self, name: str, other: str) -> bool:
        """Return whether two names stand for the same store."""
        return name == other or self.address(name) == self.address(other)

    def grouped(self, names: Iterable[str]) -> list[list[str]]:
        """Group names by the store that they stand for. The groups are in the order of their first names."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.address(name), []).append(name)
        return list(found.values())
