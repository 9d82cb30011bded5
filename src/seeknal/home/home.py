"""An open home: its settings, and the parts of a feature store, each created on first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from seeknal import config
from seeknal.registry import Registry, Version
from seeknal.registry.catalog import Catalog
from seeknal.system.duck import Duck
from seeknal.system.folders import scratch_of, share
from seeknal.system.locks import locked_cached_property

if TYPE_CHECKING:
    from seeknal.define.schema import Change
    from seeknal.engine import Engine
    from seeknal.entity import Entity
    from seeknal.home.removal import Places
    from seeknal.join.training_sets import TrainingSets
    from seeknal.serve.online_tables import OnlineTables

_homes: WeakSet[Home] = WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """Make a forked process open a query engine of its own, because DuckDB does not survive a fork.

    The inherited engine is kept alive: closing it would wait for threads that do not exist in the child.
    """
    for home in _homes:
        _inherited.extend(home._forget())  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)


class Home:
    """A feature store's folder, and access to its contents.

    Args:
        home: The folder. Default: SEEKNAL_HOME, else `.seeknal` beside the nearest seeknal.toml, else ~/.seeknal.
        memory_limit: Maximum memory of a query, such as "4GB".
        online_store: Where online rows are stored: a folder, or the URL of Redis. Default: `online` in the home.
        lookback_days: How many days before the bulk of its rows a write's interval may start without a warning.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        memory_limit: str | None = None,
        online_store: str | None = None,
        lookback_days: int | None = None,
    ) -> None:
        self._open(
            config.load(home=home, memory_limit=memory_limit, online_store=online_store, lookback_days=lookback_days)
        )

    @classmethod
    def of(cls, settings: config.Settings) -> Self:
        """Return the home that the settings describe, whatever the current folder and environment say."""
        home = cls.__new__(cls)
        home._open(settings)  # noqa: SLF001 - its own
        return home

    def _open(self, settings: config.Settings) -> None:
        self.settings = settings
        self.home = settings.home
        _homes.add(self)

    def __reduce__(self) -> tuple[Callable[[config.Settings], Home], tuple[config.Settings]]:
        return type(self).of, (self.settings,)

    @property
    def exists(self) -> bool:
        """Whether the home holds anything yet. Reading this property creates nothing."""
        return self.registry_file.exists()

    @locked_cached_property
    def registry(self) -> Registry:
        """The registry, which records what exists."""
        return Registry(self.registry_file)

    @property
    def registry_file(self) -> Path:
        """Path of the registry, whether it exists yet or not."""
        return self.home / "registry.db"

    @locked_cached_property
    def scratch(self) -> Path:
        """Folder that queries spill to when they do not fit in memory."""
        return scratch_of(self.home)

    @locked_cached_property
    def _duck(self) -> Duck:
        return Duck(self.scratch, self.settings.memory_limit)

    @locked_cached_property
    def _queries(self) -> _Queries:
        return _Queries(self.home, self._duck)

    @property
    def engine(self) -> Engine:
        """The query engine. Each release of it is tested when a home first uses it."""
        return self._queries.engine

    def check_engine(self) -> None:
        """Check that the query engine answers a few test cases correctly.

        Raises:
            StoreError: An answer is wrong.
        """
        self._queries.check()

    @locked_cached_property
    def catalog(self) -> Catalog:
        """The catalog, which finds groups, versions, snapshots and tables."""
        return Catalog(self.home, self.registry, self._duck)

    @locked_cached_property
    def online_tables(self) -> OnlineTables:
        """The online tables."""
        from seeknal.online import Stores
        from seeknal.serve.online_tables import OnlineTables

        queries, stores = self._queries, Stores(self.settings.online_store or str(self.home / "online"))
        return OnlineTables(self.catalog, lambda: queries.engine, stores)

    @locked_cached_property
    def training_sets(self) -> TrainingSets:
        """The saved training sets."""
        from seeknal.join.training_sets import TrainingSets

        return TrainingSets(self.catalog, self.engine)

    @property
    def places(self) -> Places:
        """The parts of the home from which an erasure or a deletion removes rows."""
        from seeknal.home.removal import Places

        return Places(self.catalog, self.training_sets, self.online_tables)

    def versions(self, name: str, project: str | None = None) -> list[Version]:
        """Return a group's versions, oldest first."""
        return self.catalog.versions(self.catalog.group(name, project))

    def version(self, name: str, project: str | None = None, number: int | None = None) -> Version:
        """Return one version of a group; without a number, the current one."""
        return self.catalog.version(self.catalog.group(name, project), number)

    def diff(self, name: str, old: int, new: int, project: str | None = None) -> list[Change]:
        """Return the changes from one version of a group to another."""
        from seeknal.define.schema import difference

        record = self.catalog.group(name, project)
        return difference(self.catalog.version(record, old).schema, self.catalog.version(record, new).schema)

    def watermarks(self, name: str, project: str | None = None) -> list[int]:
        """Return the newest event time of each write to a group's current version, in microseconds since 1970, without repeats."""
        record = self.catalog.group(name, project)
        current = [version.number for version in self.catalog.versions(record) if version.is_current]
        noted = self.registry.watermarks(record, current[0]) if current else []
        # Commits that the registry could not note, because the disk is full for example, count as well.
        unheard = [one.newest for one in self.catalog.catch_up(record) if one.version in current]
        return sorted({*noted, *(newest for newest in unheard if newest is not None)})

    def entities(self, project: str | None = None) -> list[tuple[str, Entity]]:
        """Return the entities, each with its project."""
        return self.registry.entities(project)

    def close(self) -> None:
        """Close the query engine and release its memory; it opens again on the next use."""
        for part in self._forget():
            if isinstance(part, Duck):
                part.close()

    def _forget(self) -> list[object]:
        names = ("_queries", "catalog", "training_sets", "online_tables", "_duck")
        return [self.__dict__.pop(name) for name in names if name in self.__dict__]


class _Queries:
    """The query engine of a home, created on first use: a process that only looks up online rows never starts it."""

    def __init__(self, home: Path, duck: Duck) -> None:
        self._home = home
        self._duck = duck

    @locked_cached_property
    def engine(self) -> Engine:
        from seeknal.engine import selftest
        from seeknal.engine.duckdb.engine import DuckDBEngine

        self._duck.begin()
        checked = self._home / f"checked-{selftest.VERSIONS.replace(', ', '-').replace(' ', '-')}"
        # A home that cannot be written keeps no marker, so there each process runs the test.
        if not checked.exists():
            self.check()
            with suppress(OSError):
                self._home.mkdir(parents=True, exist_ok=True)
                checked.touch()
                share(checked)
        return DuckDBEngine(self._duck)

    def check(self) -> None:
        from seeknal.engine import selftest

        selftest.check(self._duck.connection)
