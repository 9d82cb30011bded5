"""The services that a store can be kept on, to be drawn by properties: each combination gives the same answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from obstore.store import LocalStore, ObjectStore

from seeknal import FeatureStore, config


@dataclass(frozen=True)
class Kinds:
    """Which kind of each service a store uses."""

    registry: str = "sqlite"
    storage: str = "folder"
    online: str = "lmdb"
    engine: str = "duckdb"


ON_ONE_MACHINE = Kinds()
COMBINATIONS = [
    Kinds(*some) for some in product(("sqlite", "postgres"), ("folder", "s3"), ("lmdb", "redis"), ("duckdb", "spark"))
]


class Services:
    """Gives each store a place of its own, on servers that are started when they are first needed.

    Args:
        fixture: Returns a fixture of the tests by its name.
    """

    def __init__(self, fixture: Callable[[str], Any]):
        self._fixture = fixture

    def open(self, home: Path, on: Kinds) -> Opened:
        """Return a new, empty store on services of these kinds."""
        name = f"life_{uuid.uuid4().hex}"
        settings = replace(config.load(home=home), engine=on.engine)
        opened = Opened(str(home / "offline"), LocalStore(home / "offline", mkdir=True), {})
        if on.registry == "postgres":
            settings = replace(settings, registry=self._fixture("postgres").url(name))
        if on.storage == "s3":
            seaweed, environment = self._fixture("seaweed"), self._fixture("monkeypatch")
            for variable, value in seaweed.env.items():
                environment.setenv(variable, value)
            settings = replace(settings, storage=f"s3://tests/{name}")
            opened = Opened(f"{settings.storage}/tables", seaweed.client(f"tests/{name}/tables"), seaweed.env)
        if on.online == "redis":
            settings = replace(settings, online_store=f"redis://127.0.0.1:{self._fixture('valkey').port}/0")
            redis.Redis.from_url(settings.online_store).flushdb()  # no other store of this test is still open
        if on.engine == "spark":
            self._fixture("spark").sparkContext.environment.update(opened.options)
        return replace(opened, store=FeatureStore.of(settings))


@dataclass(frozen=True)
class Opened:
    """A store, and its tables as other programs see them."""

    root: str
    files: ObjectStore
    options: dict[str, str]
    """What libraries need to know to read the tables."""
    store: FeatureStore | None = None

    def table(self, project: str, group: str) -> str:
        """Return the URL or the path of a group's table."""
        if not self.options:
            return f"{self.root}/{project}/{group}"
        current = obstore.get(self.files, f"{project}/{group}/current.json").bytes()
        return f"{self.root}/{project}/{group}/{json.loads(bytes(current))['folder']}"

    def parquet(self, project: str, group: str) -> list[pa.Table]:
        """Return what is in the Parquet files of a group's table."""
        paths = [one["path"] for batch in obstore.list(self.files, f"{project}/{group}") for one in batch]
        return [
            pq.read_table(pa.BufferReader(obstore.get(self.files, path).bytes()))
            for path in paths
            if path.endswith(".parquet") and "_delta_log" not in path
        ]
