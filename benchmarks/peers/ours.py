"""Seeknal itself, by the calls that its users make."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import duckdb  # noqa: F401 - imports are not timed
import pandas as pd  # noqa: F401
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy.dialects.sqlite  # noqa: F401
from deltalake import DeltaTable
from job import Job, Task, work

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.feature_group import FeatureGroup


def group_of(task: Task, group: dict[str, Any]) -> FeatureGroup:
    """Define a group."""
    ttl = timedelta(microseconds=task["ttl"]) if task["ttl"] else None
    dated = Materialization("seen_at", "made_at" if task["ties"] else None, ttl)
    return FeatureGroup(group["name"], Entity("_".join(task["keys"]), task["keys"]), dated, "bench")


def store(task: Task) -> Job:
    """Write groups, ten million rows at a time, and say which files they are in."""

    def job() -> dict[str, Any]:
        files, seconds = {}, {}
        opened = FeatureStore(task["home"])
        for group in task["groups"]:
            defined, started = group_of(task, group), time.perf_counter()
            with pq.ParquetFile(group["file"]) as file:
                for number in range(0, file.num_row_groups, 10):
                    part = file.read_row_groups(list(range(number, min(number + 10, file.num_row_groups))))
                    opened.write(defined, part, mode="append" if number else "overwrite")
            seconds[group["name"]] = time.perf_counter() - started
            files[group["name"]] = DeltaTable(f"{task['home']}/offline/bench/{group['name']}").file_uris()
            one = pq.ParquetFile(group["file"]).schema_arrow.empty_table().select([*task["keys"], "seen_at"])
            opened.training_set([FeatureLookup(defined)], one, "seen_at")
        return {"files": files, "written": seconds}

    return job


def _lookups(task: Task) -> list[FeatureLookup]:
    return [
        FeatureLookup(f"bench/{group['name']}", group["features"], prefix=group["prefix"] or None)
        for group in task["groups"]
    ]


def join(task: Task) -> Job:
    """Make a training set, from an Arrow or a pandas spine, in the spine's kind; or group by group."""
    from seeknal import store as _loaded  # noqa: F401 - imports are not timed

    how, spine = task["how"], pq.read_table(task["spine"])
    lookups = _lookups(task)
    if how in {"pandas", "converted"}:
        spine = spine.to_pandas()

    def job() -> Any:
        opened = FeatureStore(task["home"])
        if how == "converted":
            table = pa.Table.from_pandas(spine, preserve_index=False)
            return opened.training_set(lookups, table, "at").to_pandas()
        if how == "singly":
            for lookup in lookups:
                opened.training_set([lookup], spine, "at")
            return None
        return opened.training_set(lookups, spine, "at")

    return job


if __name__ == "__main__":
    work({"store": store, "join": join})
