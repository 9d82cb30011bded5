"""Upstream's Seeknal from the registry, with its DuckDB engine, by the calls of its guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from job import Job, Task, work

from seeknal.entity import Entity
from seeknal.featurestore.duckdbengine.feature_group import (
    FeatureGroupDuckDB,
    FeatureLookup,
    HistoricalFeaturesDuckDB,
    Materialization,
)
from seeknal.featurestore.duckdbengine.featurestore import FeatureStoreFileOutput, OfflineStoreDuckDB


def _group(task: Task, number: int) -> FeatureGroupDuckDB:
    kept = OfflineStoreDuckDB(FeatureStoreFileOutput(path=str(Path(task["home"]) / "upstream")))
    entity = Entity(name="person", join_keys=list(task["groups"][number]["keys"]))
    return FeatureGroupDuckDB(f"g{number}", entity, Materialization("seen_at", offline_store=kept), project="bench")


def store(task: Task) -> Job:
    """Write the groups."""

    def job() -> dict[str, Any]:
        for number, group in enumerate(task["groups"]):
            rows = pd.read_parquet(group["file"], columns=[*group["keys"], "seen_at", *group["features"]])
            rows = rows.rename(columns={name: f"{group['prefix']}{name}" for name in group["features"]})
            _group(task, number).set_dataframe(rows).set_features().write()
        return {}

    return job


def write(task: Task) -> Job:
    """Write a pandas frame in one of the modes."""
    rows, (start, end) = pd.read_parquet(task["rows"]), task["interval"]
    interval = [one and pd.Timestamp(one, unit="us", tz="UTC").to_pydatetime() for one in (start, end)]

    def job() -> dict[str, Any]:
        _group(task, 0).set_dataframe(rows).set_features().write(*interval, mode=task["mode"])
        return {}

    return job


def join(task: Task) -> Job:
    """Make a training set, from pandas to pandas."""
    spine = pd.read_parquet(task["spine"])

    def job() -> pd.DataFrame:
        lookups = [FeatureLookup(_group(task, number)) for number in range(len(task["groups"]))]
        found = HistoricalFeaturesDuckDB(lookups).using_spine(spine, "at").to_dataframe_with_spine()
        return found.rename(columns={"row_x": "row"})

    return job


if __name__ == "__main__":
    work({"store": store, "join": join, "write": write})
