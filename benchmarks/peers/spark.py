"""PySpark on this machine alone: rows and moments in one window by key, the last row before each moment; it has no ASOF join."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
from job import Job, Task, work
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as f


def _session() -> SparkSession:
    builder = SparkSession.builder.master(f"local[{os.cpu_count()}]").config("spark.driver.memory", "8g")
    settings = {"spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false", "spark.driver.maxResultSize": "0"}
    for name, value in (settings | {"spark.sql.shuffle.partitions": "8"}).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _found(moments: DataFrame, rows: DataFrame, group: dict[str, Any], task: Task) -> DataFrame:
    """Give the row of each moment of a spine, and the group's features."""
    keys = list(group["keys"])
    made = [f.col("made_at")] if task["ties"] else []
    columns = {name: f"{group['prefix']}{name}" for name in group["features"]}
    values = f.struct("seen_at", *(f.col(name).alias(new) for name, new in columns.items()))
    events = rows.select(*keys, f.col("seen_at").alias("t"), f.lit(0).alias("side"), values.alias("v"), *made)
    asked = moments.select(
        *(f.col(there).alias(own) for own, there in group["keys"].items()), f.col("at").alias("t"), "row"
    )
    both = events.unionByName(asked.withColumn("side", f.lit(1)), allowMissingColumns=True)
    past = Window.partitionBy(*keys).orderBy("t", "side", *made).rowsBetween(Window.unboundedPreceding, 0)
    seen = both.withColumn("v", f.last("v", ignorenulls=True).over(past)).where("side = 1")
    return seen.select("row", *(_fresh(f.col(f"v.{new}"), task).alias(new) for new in columns.values()))


def _fresh(value: Column, task: Task) -> Column:
    if not task["ttl"]:
        return value
    age = f.unix_micros("t") - f.unix_micros("v.seen_at")
    return f.when(age <= task["ttl"], value)


def join(task: Task) -> Job:
    """Join a spine in a file, and give an Arrow table in its order."""
    session = _session()
    moments = session.read.parquet(task["spine"])

    def job() -> pa.Table:
        answer = moments
        for group in task["groups"]:
            answer = answer.join(_found(moments, session.read.parquet(group["file"]), group, task), "row")
        order = [*moments.columns, *(name for name in answer.columns if name not in moments.columns)]
        return answer.select(order).orderBy("row").toArrow()

    return job


if __name__ == "__main__":
    work({"join": join})
