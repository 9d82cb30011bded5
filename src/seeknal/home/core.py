"""What the parts of a feature store share: its settings, registry, query engine and online stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from seeknal import config
from seeknal.registry import Registry, open_registry
from seeknal.registry.catalog import Catalog
from seeknal.registry.overview import Overview
from seeknal.system.duck import Duck
from seeknal.system.folders import share
from seeknal.system.locks import locked_cached_property
from seeknal.system.storage import Location, open_storage

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.define.windowed_group import WindowedGroup
    from seeknal.engine import Engine
    from seeknal.home.pushing import Pushing
    from seeknal.join.features import Features
    from seeknal.join.training_sets import TrainingSets
    from seeknal.load.loads import Loads
    from seeknal.offline import OfflineTable
    from seeknal.online import Stores
    from seeknal.registry import GroupRecord
    from seeknal.serve.online_tables import OnlineTables
    from seeknal.views.feature_views import FeatureViews

_cores: WeakSet[Core] = WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """Make a forked process open a query engine of its own, because DuckDB does not survive a fork.

    The inherited engine is kept alive: closing it would wait for threads that do not exist in the child.
    """
    for core in _cores:
        _inherited.extend(core._forget())  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)


class Core:
    """What the parts of a feature store share: the settings, the registry, the query engine and the online stores.

    Each is opened on its first use, and opened again on the next use after `close` or in a forked process.

    Args:
        settings: The settings of the store.
    """

    def __init__(self, settings: config.Settings) -> None:
        self.settings = settings
        self.home = settings.home
        self.storage = open_storage(settings.address, settings.cache_size)
        _cores.add(self)

    def __reduce__(self) -> tuple[type[Core], tuple[config.Settings]]:
        return Core, (self.settings,)

    @locked_cached_property
    def registry(self) -> Registry:
        """The registry, which records what exists."""
        return open_registry(self.settings.address)

    @locked_cached_property
    def scratch(self) -> Path:
        """Folder that queries spill to when they do not fit in memory."""
        return self.storage.scratch

    @locked_cached_property
    def _duck(self) -> Duck:
        return Duck(self.scratch, self.settings.memory_limit)

    @locked_cached_property
    def _queries(self) -> _Queries:
        return _Queries(self.settings, self._duck)

    def engine(self) -> Engine:
        """Return the query engine. Each release of it is tested when a home first uses it, at most once in a process."""
        return self._queries.engine()

    def check_engine(self) -> None:
        """Check that the query engine answers a few test cases correctly.

        Raises:
            StoreError: An answer is wrong.
        """
        self._queries.check()

    @property
    def open_table(self) -> Callable[[Location], OfflineTable]:
        """The function that opens the offline table at a location."""
        return _table_opener(self._duck)

    @locked_cached_property
    def catalog(self) -> Catalog:
        """The catalog, which finds groups, versions, snapshots and tables."""
        return Catalog(self.storage, self.registry, self.open_table, self._check_windows, self._commit_pushes)

    def _commit_pushes(self, record: GroupRecord, *, load: bool) -> None:
        pushes = self.catalog.pushes
        if not load and pushes.exists:
            pushes.wait()
            self.pushing.commit(record)
        elif pushes.has(record.stream):
            self.pushing.flush(record)

    @locked_cached_property
    def pushing(self) -> Pushing:
        """The pushes, as far as they go through the push log."""
        from seeknal.home.pushing import Pushing

        return Pushing(self)

    def _check_windows(self, group: WindowedGroup, events: Schema) -> None:
        from seeknal.define.windowed_schema import schema_of

        schema_of(group, events)
        conditions = {one.aggregation.where: one.name for one in reversed(group.windows)}
        self.engine().check_conditions(events, {text: name for text, name in conditions.items() if text is not None})

    @locked_cached_property
    def stores(self) -> Stores:
        """The online stores."""
        from seeknal.online import Stores

        return Stores(self.settings.online_store or self.storage.online)

    @locked_cached_property
    def loads(self) -> Loads:
        """The loads into the online stores."""
        from seeknal.load.loads import Loads

        return Loads(self.catalog, self._queries.engine, self.stores)

    @locked_cached_property
    def tables(self) -> OnlineTables:
        """The online tables."""
        from seeknal.home.log_writer import HomeLogWriter
        from seeknal.serve.online_tables import OnlineTables

        return OnlineTables(self.catalog, self._queries.engine, self.stores, HomeLogWriter(self))

    @locked_cached_property
    def features(self) -> Features:
        """The features as they were known."""
        from seeknal.join.features import Features

        return Features(self.catalog, self._queries.engine)

    @locked_cached_property
    def training_sets(self) -> TrainingSets:
        """The saved training sets."""
        from seeknal.join.training_sets import TrainingSets

        return TrainingSets(self.catalog, self._queries.engine)

    @locked_cached_property
    def views(self) -> FeatureViews:
        """The feature views."""
        from seeknal.views.feature_views import FeatureViews

        return FeatureViews(self.catalog, self._queries.engine, self.training_sets, self.tables)

    def overview(self) -> Core:
        """Return this core with a catalog that reads the registry once; see `seeknal.registry.overview`."""
        return _Overview(self)

    def close(self) -> None:
        """Write what was logged, commit what was pushed, close the query engine and release its memory; it opens again on the next use."""
        if "tables" in self.__dict__:
            self.tables.close()
        if "pushing" in self.__dict__:
            self.pushing.close()
        if "catalog" in self.__dict__:
            self.catalog.pushes.close()
        for part in self._forget():
            if isinstance(part, Duck):
                part.close()

    def _forget(self) -> list[object]:
        names = ("_queries", "pushing", "catalog", "loads", "features", "training_sets", "tables", "views", "_duck")
        return [self.__dict__.pop(name) for name in names if name in self.__dict__]


class _Overview(Core):
    """A core that shares the registry, the engine and the online stores of another, on a catalog that reads the registry once."""

    def __init__(self, core: Core) -> None:
        super().__init__(core.settings)
        self.registry = core.registry
        self._core = core

    @property
    def _queries(self) -> _Queries:
        return self._core._queries  # noqa: SLF001 - an attribute of the base class

    @property
    def stores(self) -> Stores:
        return self._core.stores

    @locked_cached_property
    def catalog(self) -> Catalog:
        return Overview(self._core.catalog)


def _table_opener(duck: Duck) -> Callable[[Location], OfflineTable]:
    """Return the function with which a catalog opens offline tables."""

    def open_table(location: Location) -> OfflineTable:
        from seeknal.offline import OfflineTable

        return OfflineTable(location, duck)

    return open_table


class _Queries:
    """The query engine of a home, created on first use: a process that only looks up online rows never starts it."""

    def __init__(self, settings: config.Settings, duck: Duck) -> None:
        self._settings = settings
        self._home = settings.home
        self._duck = duck

    def engine(self) -> Engine:
        return self._engine

    @locked_cached_property
    def _engine(self) -> Engine:
        from seeknal.engine import selftest
        from seeknal.engine.duckdb.engine import DuckDBEngine

        self._duck.begin()
        checked = self._home / f"checked-{selftest.VERSIONS.replace(', ', '-').replace(' ', '-')}"
        # A home that cannot be written keeps no marker, so there each process runs the test.
        if not checked.exists():
            if not selftest.passed.is_set():
                self.check()
            with suppress(OSError):
                self._home.mkdir(parents=True, exist_ok=True)
                checked.touch()
                share(checked)
        if self._settings.engine == "spark":
            from seeknal.engine.spark.engine import SparkEngine
            from seeknal.engine.spark.session import open_session

            return SparkEngine(self._duck, partial(open_session, self._settings.spark))
        return DuckDBEngine(self._duck)

    def check(self) -> None:
        from seeknal.engine import selftest

        selftest.check(self._duck.connection)
