"""Seeknal itself, by the calls that its users make."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - imports are not timed
import pandas as pd  # noqa: F401
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy.dialects.sqlite  # noqa: F401
from deltalake import DeltaTable
from job import Job, Task, work

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.values.times import Interval

_AT_ONCE = 10_000_000
_IMPORTED_ON_USE = [
    "seeknal.engine.duckdb",
    "seeknal.engine.selftest",
    "seeknal.join.features",
    "seeknal.join.retrieval",
    "seeknal.registry.source",
    "seeknal.registry.sqlite.implementation",
    "seeknal.values.frames.csv",
]
"""Modules that a first join imports; imports are not timed, neither ours nor those of the peers."""


def group_of(task: Task, group: dict[str, Any]) -> FeatureGroup:
    """Define a group."""
    ttl = timedelta(microseconds=task["ttl"]) if task["ttl"] else None
    dated = Materialization("seen_at", "made_at" if task["ties"] else None, ttl)
    return FeatureGroup(group["name"], Entity("_".join(group["keys"]), list(group["keys"])), dated, "bench")


def store(task: Task) -> Job:
    """Write groups, ten million rows at a time, and say which files they are in."""

    def job() -> dict[str, Any]:
        files, seconds = {}, {}
        opened = FeatureStore(task["home"])
        for group in task["groups"]:
            defined, started = group_of(task, group), time.perf_counter()
            with pq.ParquetFile(group["file"]) as file:
                several = -(-_AT_ONCE // file.metadata.row_group(0).num_rows)
                for number in range(0, file.num_row_groups, several):
                    part = file.read_row_groups(list(range(number, min(number + several, file.num_row_groups))))
                    opened.groups.write(defined, part, mode="append" if number else "overwrite")
            seconds[group["name"]] = time.perf_counter() - started
            files[group["name"]] = DeltaTable(f"{task['home']}/offline/bench/{group['name']}").file_uris()
            one = pq.ParquetFile(group["file"]).schema_arrow.empty_table().select([*group["keys"], "seen_at"])
            opened.features.training_set([FeatureLookup(defined)], one, "seen_at")
        return {"files": files, "written": seconds}

    return job


def _lookups(task: Task) -> list[FeatureLookup]:
    return [
        FeatureLookup(
            f"bench/{group['name']}",
            group["features"],
            prefix=group["prefix"] or None,
            rename={own: there for own, there in group["keys"].items() if own != there} or None,
        )
        for group in task["groups"]
    ]


def write(task: Task) -> Job:
    """Write rows to a group that is there, in one of the modes."""
    rows, defined = pq.read_table(task["rows"]), group_of(task, task["groups"][0])

    def job() -> dict[str, Any]:
        FeatureStore(task["home"]).groups.write(defined, rows, mode=task["mode"], interval=Interval(*task["interval"]))
        return {}

    return job


def trickle(task: Task) -> Job:
    """Write rows a few at a time."""
    rows, defined, size = pq.read_table(task["rows"]), group_of(task, task["groups"][0]), task["size"]

    def job() -> dict[str, Any]:
        opened = FeatureStore(task["home"])
        for start in range(0, len(rows), size):
            opened.groups.write(defined, rows.slice(start, size), mode="append")
        return {}

    return job


def optimize(task: Task) -> Job:
    """Put the files of a group together."""

    def job() -> dict[str, Any]:
        FeatureStore(task["home"]).groups.optimize(task["groups"][0]["name"], project="bench")
        return {}

    return job


def grow(task: Task) -> Job:
    """Write a group day by day, so many days to a write."""
    sys.path.append(str(Path(__file__).parents[1]))
    import data

    defined = group_of(task, task["groups"][0])

    def job() -> dict[str, Any]:
        opened = FeatureStore(task["home"])
        for start in range(0, task["days"], task["step"]):
            interval = range(start, min(start + task["step"], task["days"]))
            opened.groups.write(
                defined,
                pa.concat_tables([data.day(one, task["a_day"], task["people"])[1] for one in interval]),
                mode="append",
            )
        return {}

    return job


def join(task: Task) -> Job:
    """Make a training set, from an Arrow or a pandas spine, in the spine's kind; or a second one, or group by group."""
    for module in _IMPORTED_ON_USE:
        import_module(module)
    how, spine = task["how"], pq.read_table(task["spine"])
    lookups = _lookups(task)
    if how in {"pandas", "converted"}:
        spine = spine.to_pandas()
    had = FeatureStore(task["home"]) if how == "second" else None
    if had:
        had.features.training_set(lookups, spine, "at")

    def job() -> Any:
        opened = had or FeatureStore(task["home"], memory_limit=task.get("limit"))
        if how == "converted":
            table = pa.Table.from_pandas(spine, preserve_index=False)
            return opened.features.training_set(lookups, table, "at").to_pandas()
        if how == "to_pandas":
            return opened.features.training_set(lookups, spine, "at", output="pandas")
        if how == "singly":
            for lookup in lookups:
                opened.features.training_set([lookup], spine, "at")
            return None
        return opened.features.training_set(lookups, spine, "at")

    return job


if __name__ == "__main__":
    work({"store": store, "join": join, "write": write, "trickle": trickle, "optimize": optimize, "grow": grow})
