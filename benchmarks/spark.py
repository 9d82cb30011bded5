"""Training sets on Spark beside DuckDB: the same group, even and with a fifth of its rows in one entity, in one run.

    python benchmarks/spark.py [--rows 1000000 10000000] [--spine 1000000] [--master local[2]] [--rounds 3] [--what joins writes]

Each way is measured in turn, `rounds` times. Seconds of processor time are those of this process, the JVM and its Python workers. Answers are
compared by their content hash, and writes by their number of rows; those that differ end the run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from measure import processor_seconds

from seeknal import Count, Entity, FeatureLookup, FeatureStore, Materialization, Sum, WindowedGroup, config
from seeknal.define.feature_group import FeatureGroup
from seeknal.engine.spark.session import open_session
from seeknal.values.content_hash import content_hash

START, DAYS, DAY = 1_704_067_200_000_000, 90, 86_400_000_000
FEATURES = 7
UTC = pa.timestamp("us", tz="UTC")


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--spine", type=int, default=1_000_000)
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", nargs="+", choices=["joins", "writes"], default=["joins", "writes"])
    asked = parser.parse_args()
    session = open_session(asked.master)
    session.conf.set("spark.sql.shuffle.partitions", "16")
    print(f"{'rows':>12} {'keys':>8}  {'what':8} {'way':20} {'seconds':>8} {'cpu':>8}  beside DuckDB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            engine: FeatureStore.of(replace(config.load(home=Path(folder)), engine=engine))
            for engine in ("duckdb", "spark")
        }
        for rows in asked.rows:
            for share in (0.0, 0.2) if "joins" in asked.what else ():
                _measure(stores, session, rows, share, asked)
            if "writes" in asked.what:
                _measure_writes(stores, session, rows, asked.rounds)


def _measure(stores: dict[str, FeatureStore], session, rows: int, share: float, asked: argparse.Namespace) -> None:  # noqa: ANN001
    random = np.random.default_rng(rows)
    project = f"p{rows}_{round(100 * share)}"
    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"), project)
    features = {f"x{i}": random.random(rows) for i in range(FEATURES)}
    stores["duckdb"].groups.write(
        group, pa.table({**_drawn(random, rows, rows // 10, share), **features}), mode="append"
    )
    del features
    windows = WindowedGroup(
        "sums", Entity("user", ["user"]), f"{project}/spend", {"n": Count(over="7d"), "x": Sum("x0", over="7d")}
    )
    spine = pa.table(_drawn(random, asked.spine, rows // 10, share))
    of_spark = session.createDataFrame(spine).persist()
    of_spark.count()
    for what, lookup in (("as of", FeatureLookup(group)), ("windows", FeatureLookup(windows))):

        def joined(engine: str, given: object, looked_up: FeatureLookup = lookup) -> object:
            return stores[engine].features.training_set([looked_up], given, "at")

        def to_nowhere(joined: Callable[[str, object], object] = joined) -> None:
            joined("spark", of_spark).write.format("noop").mode("overwrite").save()  # type: ignore[attr-defined]

        ways = {
            "DuckDB": lambda joined=joined: joined("duckdb", spine),
            "Spark, Arrow": lambda joined=joined: joined("spark", spine),
            "Spark, DataFrame": to_nowhere,
        }
        _print(ways, rows, f"{what}{' skew' if share else ''}", asked.rounds)
    of_spark.unpersist()


def _measure_writes(stores: dict[str, FeatureStore], session, rows: int, rounds: int) -> None:  # noqa: ANN001
    """Measure how long a Spark DataFrame takes to be written, from its evaluation on, beside a table in memory."""
    days = f"timestamp_micros({START} + cast(rand(1) * {DAYS * DAY} as bigint)) as at"
    features = [f"rand({i + 3}) as x{i}" for i in range(FEATURES)]
    frame = session.range(rows).selectExpr(f"cast(rand(2) * {rows // 10} as bigint) as user", days, *features)
    table = frame.toArrow()

    def written(engine: str, given: pa.Table | object) -> pa.Table:
        group = FeatureGroup("written", Entity("user", ["user"]), Materialization("at"), engine)
        return pa.table({"rows": [stores[engine].groups.write(group, given).rows]})

    ways = {
        "DuckDB": lambda: written("duckdb", table),
        "Spark, collected": lambda: written("duckdb", frame.toArrow()),
        "Spark, DataFrame": lambda: written("spark", frame),
    }
    _print(ways, rows, "write", rounds)


def _drawn(random: np.random.Generator, count: int, keys: int, share: float) -> dict[str, pa.Array]:
    users = np.where(random.random(count) < share, 0, random.integers(0, keys, count))
    return {"user": pa.array(users), "at": pa.array(random.integers(0, DAYS * DAY, count) + START, UTC)}


def _print(ways: dict[str, Callable[[], object]], rows: int, what: str, rounds: int) -> None:
    told: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    hashes = {}
    for turn in range(rounds + 1):  # the first, in which workers start and files are read from disk, does not count
        for name, run in ways.items():
            began, cpu = time.perf_counter(), processor_seconds(os.getpid())
            found = run()
            took = time.perf_counter() - began, processor_seconds(os.getpid()) - cpu
            if turn:
                told[name].append(took)
            elif isinstance(found, pa.Table):
                hashes[name] = content_hash(found)
    assert len(set(hashes.values())) == 1, hashes  # noqa: S101 - a benchmark of wrong answers is worth nothing
    base = median(seconds for seconds, _ in told["DuckDB"])
    for name, every in told.items():
        seconds, cpu = (median(part) for part in zip(*every, strict=True))
        print(
            f"{rows:>12,} {rows // 10:>8,}  {what:13} {name:16} {seconds:8.2f} {cpu:8.2f}  {seconds / base:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
