"""Joins through Spark Connect, compared with DuckDB's; run as a program, because a process has sessions of one kind."""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

import spark_java
from seeknal import Count, Entity, FeatureLookup, FeatureStore, Materialization, Sum, WindowedGroup, config
from seeknal.define.feature_group import FeatureGroup
from seeknal.values.content_hash import content_hash


def main() -> None:
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory() as folder, spark_java.found(Path(folder)):
        os.environ["PYSPARK_PYTHON"] = sys.executable
        spark = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", "2").getOrCreate()
    settings = config.load()
    on_duckdb, on_spark = (FeatureStore.of(replace(settings, engine=engine)) for engine in ("duckdb", "spark"))
    random = np.random.default_rng(1)

    def drawn(count: int) -> dict[str, pa.Array]:
        at = pa.array(
            random.integers(0, 90 * 86_400_000_000, count) + 1_704_067_200_000_000, pa.timestamp("us", tz="UTC")
        )
        return {"user": pa.array(random.integers(0, 50, count)), "at": at}

    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"), "shop")
    on_duckdb.groups.write(group, pa.table({**drawn(5000), "x": random.random(5000)}), mode="append")
    windows = WindowedGroup(
        "sums", Entity("user", ["user"]), "shop/spend", {"n": Count(over="3d"), "s": Sum("x", over="3d")}
    )
    spine = pa.table({**drawn(2000), "row": range(2000)})
    for asked in ([FeatureLookup(group)], [FeatureLookup(windows)]):
        expected = content_hash(on_duckdb.features.training_set(asked, spine, "at"))
        assert content_hash(on_spark.features.training_set(asked, spine, "at")) == expected
        found = on_spark.features.training_set(asked, spark.createDataFrame(spine), "at")
        assert type(found).__module__.startswith("pyspark.sql.connect")
        assert content_hash(found.toArrow().sort_by("row")) == expected
    copy = replace(group, name="copy")
    on_spark.groups.write(copy, spark.createDataFrame(spine))
    found = on_duckdb.core.catalog.offline("shop", "copy")
    (rows,) = found.columns(found.snapshot().files, spine.column_names)
    assert content_hash(rows.sort_by("row")) == content_hash(spine)
    spark.stop()
    sys.stdout.write("equal\n")


if __name__ == "__main__":
    main()
