"""A home, opened: its settings, and the parts that a feature store is made of, each made when it is first used."""

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
    """Let a forked process open its own query engine: DuckDB cannot be carried over.

    What was inherited is kept, since ending it would wait for threads that are not there.
    """
    for home in _homes:
        _inherited.extend(home._forget())  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)


class Home:
    """What is in a folder.

    Args:
        home: The folder. Without it: SEEKNAL_HOME, else `.seeknal` beside the nearest seeknal.toml, else ~/.seeknal.
        memory_limit: Most memory a query may take, such as "4GB".
        online_store: Where online rows are: a folder, or the URL of Redis. Without it: `online` in the home.
        lookback_days: How far before its rows a write may reach before it gives a notice.
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
        """Return the home that some settings describe, whatever the folder and the environment say now."""
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
        """Whether there is anything in it yet. To ask makes nothing."""
        return self.registry_file.exists()

    @locked_cached_property
    def registry(self) -> Registry:
        """What exists."""
        return Registry(self.registry_file)

    @property
    def registry_file(self) -> Path:
        """Where the registry is, or will be."""
        return self.home / "registry.db"

    @locked_cached_property
    def scratch(self) -> Path:
        """Where what does not fit in memory is kept for a while."""
        return scratch_of(self.home)

    @locked_cached_property
    def _duck(self) -> Duck:
        return Duck(self.scratch, self.settings.memory_limit)

    @locked_cached_property
    def _queries(self) -> _Queries:
        return _Queries(self.home, self._duck)

    @property
    def engine(self) -> Engine:
        """What answers queries; each release of it is tested when a home first meets it."""
        return self._queries.engine

    def check_engine(self) -> None:
        """Ask the query engine a few cases that it must answer rightly.

        Raises:
            StoreError: It does not.
        """
        self._queries.check()

    @locked_cached_property
    def catalog(self) -> Catalog:
        """Where things are found."""
        return Catalog(self.home, self.registry, self._duck)

    @locked_cached_property
    def online_tables(self) -> OnlineTables:
        """What is online."""
        from seeknal.serve.online_tables import OnlineTables

        queries, place = self._queries, self.settings.online_store or str(self.home / "online")
        return OnlineTables(self.catalog, lambda: queries.engine, place)

    @locked_cached_property
    def training_sets(self) -> TrainingSets:
        """Where training sets are kept."""
        from seeknal.join.training_sets import TrainingSets

        return TrainingSets(self.catalog, self.engine)

    @property
    def places(self) -> Places:
        """Where things are that are removed together."""
        from seeknal.home.removal import Places

        return Places(self.catalog, self.training_sets, self.online_tables)

    def versions(self, name: str, project: str | None = None) -> list[Version]:
        """List a group's versions, the oldest first."""
        return self.catalog.versions(self.catalog.group(name, project))

    def version(self, name: str, project: str | None = None, number: int | None = None) -> Version:
        """Give one version of a group; the current one without a number."""
        return self.catalog.version(self.catalog.group(name, project), number)

    def diff(self, name: str, old: int, new: int, project: str | None = None) -> list[Change]:
        """List what changed between two versions of a group."""
        from seeknal.define.schema import difference

        record = self.catalog.group(name, project)
        return difference(self.catalog.version(record, old).schema, self.catalog.version(record, new).schema)

    def watermarks(self, name: str, project: str | None = None) -> list[int]:
        """List the newest event time of each write to a group's current version, in microseconds since 1970."""
        record = self.catalog.group(name, project)
        current = [version.number for version in self.catalog.versions(record) if version.is_current]
        noted = self.registry.watermarks(record, current[0]) if current else []
        unheard = [one.newest for one in self.catalog.catch_up(record) if one.version in current]
        return sorted({*noted, *(newest for newest in unheard if newest is not None)})

    def entities(self, project: str | None = None) -> list[tuple[str, Entity]]:
        """List the entities, each with its project."""
        return self.registry.entities(project)

    def close(self) -> None:
        """Let go of the query engine and its memory; it opens again when it is next used."""
        for part in self._forget():
            if isinstance(part, Duck):
                part.close()

    def _forget(self) -> list[object]:
        names = ("_queries", "catalog", "training_sets", "online_tables", "_duck")
        return [self.__dict__.pop(name) for name in names if name in self.__dict__]


class _Queries:
    """The query engine of a home, made when it is first asked for: who only looks things up does without."""

    def __init__(self, home: Path, duck: Duck) -> None:
        self._home = home
        self._duck = duck

    @locked_cached_property
    def engine(self) -> Engine:
        from seeknal.engine import selftest
        from seeknal.engine.duckdb.engine import DuckDBEngine

        self._duck.begin()
        checked = self._home / f"checked-{selftest.VERSIONS.replace(', ', '-').replace(' ', '-')}"
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
