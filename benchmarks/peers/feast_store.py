"""Feast with its DuckDB offline store over the same Parquet files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.repo_config import RegistryConfig
from feast.types import Float64, Int32, Int64, String
from feast.value_type import ValueType
from job import Job, Task, work

_TYPES = {pa.float64(): Float64, pa.int32(): Int32, pa.int64(): Int64, pa.string(): String}


def _opened(task: Task) -> FeatureStore:
    place = Path(task["home"]) / "feast"
    place.mkdir(exist_ok=True)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=RegistryConfig(path=str(place / "registry.db")),
        online_store={"type": "sqlite", "path": str(place / "online.db")},
        offline_store={"type": task.get("offline", "duckdb")},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def _view(task: Task, number: int, group: dict[str, Any], entities: list[Entity]) -> FeatureView:
    made = "made_at" if task["ties"] else ""
    schema = pq.read_schema(group["file"])
    return FeatureView(
        name=f"g{number}",
        entities=entities,
        ttl=timedelta(microseconds=task["ttl"] or 0),
        source=FileSource(path=group["file"], timestamp_field="seen_at", created_timestamp_column=made),
        schema=[
            Field(name=name, dtype=_TYPES[schema.field(name).type]) for name in [*group["keys"], *group["features"]]
        ],
    )


def store(task: Task) -> Job:
    """Register the feature views; the rows stay where they are."""

    def job() -> dict[str, Any]:
        text = ValueType.STRING if list(task["groups"][0]["keys"]) == ["person"] else ValueType.INT64
        entities = [Entity(name=key, join_keys=[key], value_type=text) for key in task["groups"][0]["keys"]]
        views = [_view(task, number, group, entities) for number, group in enumerate(task["groups"])]
        _opened(task).apply([*entities, *views])
        return {}

    return job


def join(task: Task) -> Job:
    """Make a training set from a pandas spine, which is what Feast takes."""
    spine = pq.read_table(task["spine"]).rename_columns({"at": "event_timestamp"}).to_pandas()
    asked = [f"g{number}:{name}" for number, group in enumerate(task["groups"]) for name in group["features"]]
    full = len(task["groups"]) > 1

    def job() -> pa.Table:
        found = _opened(task).get_historical_features(spine, asked, full_feature_names=full).to_arrow()
        names = ["at" if name == "event_timestamp" else name.replace("__", "_") for name in found.column_names]
        return found.rename_columns(names)

    return job


if __name__ == "__main__":
    pd.options.mode.copy_on_write = True
    work({"store": store, "join": join})
