"""One aggregation over several windows, by the calls that Seeknal's users make."""

from __future__ import annotations

import duckdb  # noqa: F401 - imports are not timed
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy.dialects.sqlite  # noqa: F401
from job import Job, Task, work

from seeknal import Entity, FeatureLookup, FeatureStore, WindowedGroup
from seeknal.define.aggregations import from_json
from seeknal.define.event_group import event_group

SOURCE = event_group("events", "at", project="bench")


def store(task: Task) -> Job:
    """Write the events."""
    events = pq.read_table(task["events"])
    return lambda: FeatureStore(task["home"]).groups.write(SOURCE, events, mode="append") and None


def windows(task: Task) -> Job:
    """Join an Arrow spine, from opening the store to an Arrow table."""
    spine = pq.read_table(task["spine"])
    group = WindowedGroup("windows", Entity("user", ["user_id"]), SOURCE, {"x": from_json(task["aggregation"])})
    FeatureStore(task["home"]).features.training_set([FeatureLookup(group)], spine.slice(0, 1), "at")  # imports

    def job() -> pa.Table:
        return FeatureStore(task["home"]).features.training_set([FeatureLookup(group)], spine, "at")

    return job


if __name__ == "__main__":
    work({"store": store, "windows": windows})
