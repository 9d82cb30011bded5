"""A home, opened: its settings, and the parts that a feature store is made of, each made when it is first used."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from weakref import WeakSet

import duckdb

from seeknal import config, duck
from seeknal.catalog import Catalog
from seeknal.engine import Engine, selftest
from seeknal.engine.duckdb import DuckDBEngine
from seeknal.online_tables import OnlineTables
from seeknal.registry import Registry
from seeknal.training import TrainingSets

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
        self.settings = config.load(
            home=home, memory_limit=memory_limit, online_store=online_store, lookback_days=lookback_days
        )
        self.home = self.settings.home
        _homes.add(self)

    @cached_property
    def registry(self) -> Registry:
        """What exists."""
        return Registry(self.registry_file)

    @property
    def registry_file(self) -> Path:
        """Where the registry is, or will be."""
        return self.home / "registry.db"

    @cached_property
    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        return duck.connect(self.home / "scratch", self.settings.memory_limit)

    @cached_property
    def engine(self) -> Engine:
        """What answers queries; each release of it is tested when a home first meets it."""
        checked = self.home / f"checked-duckdb-{duckdb.__version__}"
        if not checked.exists():
            self.check_engine()
            with suppress(OSError):
                self.home.mkdir(parents=True, exist_ok=True)
                checked.touch()
        return DuckDBEngine(self._duckdb)

    def check_engine(self) -> None:
        """Ask the query engine a few cases that it must answer rightly.

        Raises:
            StoreError: It does not.
        """
        selftest.check(self._duckdb)

    @cached_property
    def catalog(self) -> Catalog:
        """Where things are found."""
        return Catalog(self.home, self.registry, self._duckdb)

    @cached_property
    def online_tables(self) -> OnlineTables:
        """What is online."""
        return OnlineTables(self.catalog, self.engine, self.settings.online_store or str(self.home / "online"))

    @cached_property
    def training_sets(self) -> TrainingSets:
        """Where training sets are kept."""
        return TrainingSets(self.catalog, self.engine)

    def close(self) -> None:
        """Let go of the query engine and its memory; it opens again when it is next used."""
        for part in self._forget():
            if isinstance(part, duckdb.DuckDBPyConnection):
                part.close()

    def _forget(self) -> list[object]:
        names = ("engine", "catalog", "training_sets", "online_tables", "_duckdb")
        return [self.__dict__.pop(name) for name in names if name in self.__dict__]
