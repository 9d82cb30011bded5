"""Windowed features of Seeknal, by the calls that its users make."""

from __future__ import annotations

import duckdb  # noqa: F401 - imports are not timed
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy.dialects.sqlite  # noqa: F401
from deltalake import DeltaTable
from job import Job, Task, work

from seeknal import Count, Entity, FeatureLookup, FeatureStore, Max, Mean, Min, Std, Sum, WindowedGroup
from seeknal.define.event_group import event_group

SOURCE = event_group("events", "at", project="bench")


def _group(task: Task) -> WindowedGroup:
    over = list(task["lengths"])
    features = {
        "n": Count(over=over),
        "sum": Sum("amount", over=over),
        "mean": Mean("amount", over=over),
        "low": Min("amount", over=over),
        "high": Max("amount", over=over),
        "std": Std("amount", over=over),
    }
    return WindowedGroup("windows", Entity("user", ["user_id"]), SOURCE, features)


def store(task: Task) -> Job:
    """Write the events, and name the files that contain them."""

    def job() -> dict[str, object]:
        opened = FeatureStore(task["home"])
        opened.groups.write(SOURCE, pq.read_table(task["events"]), mode="append")
        opened.groups.register(_group(task))
        return {"files": DeltaTable(f"{task['home']}/offline/bench/events").file_uris()}

    return job


def windows(task: Task) -> Job:
    """Join an Arrow spine, from opening the store to an Arrow table."""
    spine, lookup = pq.read_table(task["spine"]), FeatureLookup("bench/windows")
    FeatureStore(task["home"]).features.training_set([lookup], spine.slice(0, 1), "at")  # imports what a join imports

    def job() -> pa.Table:
        return FeatureStore(task["home"]).features.training_set([lookup], spine, "at")

    return job


if __name__ == "__main__":
    work({"store": store, "windows": windows})
