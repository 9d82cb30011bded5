"""Feast's online store on SQLite or Redis: load, read in the process, and the folder that its server is started in."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from job import Job, Task, work

_SETTINGS = """
project: bench
provider: local
registry: {place}/registry.db
online_store: {online}
entity_key_serialization_version: 3
"""
_TYPES = {"share": Float64, "count": Int64, "word": String}


def _loaded(task: Task) -> tuple[FeatureStore, list[str], float]:
    """Make a folder with a store, load it, and give the store, the names of its features and the seconds of the load."""
    place = Path(task["home"]) / "feast"
    place.mkdir(exist_ok=True)
    redis = task.get("redis")
    online = f"{{type: redis, connection_string: '{redis}'}}" if redis else f"{{type: sqlite, path: {place}/online.db}}"
    (place / "feature_store.yaml").write_text(_SETTINGS.format(place=place, online=online), encoding="utf-8")
    rows = pd.read_parquet(task["rows"])
    names = [name for name in rows.columns if name not in {"person_id", "seen_at"}]
    entity = Entity(name="person", join_keys=["person_id"], value_type=ValueType.INT64)
    schema = [Field(name="person_id", dtype=Int64), *(Field(name=n, dtype=_TYPES[n.split("_")[0]]) for n in names)]
    source = FileSource(path=task["rows"], timestamp_field="seen_at")
    store = FeatureStore(str(place))
    store.apply([entity, FeatureView(name="people", entities=[entity], ttl=timedelta(0), source=source, schema=schema)])
    started = time.perf_counter()
    store.write_to_online_store("people", rows)
    return store, names, time.perf_counter() - started


def online(task: Task) -> Job:
    """Load the rows, then read keys of them."""

    def job() -> dict[str, Any]:
        store, names, loading = _loaded(task)
        asked, reads = [f"people:{name}" for name in names], {}
        for count, keys in task["keys"].items():
            entities, spans = [{"person_id": key} for key in keys], []
            found = store.get_online_features(asked, entities).to_dict()
            columns = ["person_id", *names]
            rows = [
                dict(zip(columns, row, strict=True)) for row in zip(*(found[name] for name in columns), strict=True)
            ]
            batch = max(1, 50 // len(keys))
            for _ in range(task["rounds"]):
                started = time.perf_counter()
                for _ in range(batch):
                    store.get_online_features(asked, entities).to_dict()
                spans.append((time.perf_counter() - started) / batch * 1e6)
            reads[count] = {"us": spans, "rows": rows}
        return {"loading": loading, "reads": reads}

    return job


def folder(task: Task) -> Job:
    """Make the folder that a server is started in."""

    def job() -> dict[str, Any]:
        return {"features": _loaded(task)[1]}

    return job


if __name__ == "__main__":
    work({"online": online, "folder": folder})
