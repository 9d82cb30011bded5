"""How a training set on Spark grows: a standalone master with two workers, beside DuckDB in one process.

    python benchmarks/spark_scale.py --rows 10000000 30000000 100000000

The spine has a tenth of the rows, and so has the group entities; it is read from Parquet, and the result is thrown away. For each size: seconds, those of
the processor, the bytes that Spark shuffled, and the most memory that an executor with its Python workers, or the process of DuckDB, has used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import family, processor_seconds, resident

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, config
from seeknal.define.feature_group import FeatureGroup
from seeknal.engine.spark.session import open_session

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import spark_java
from spark_standalone import cluster

START, DAYS, DAY = 1_704_067_200_000_000, 90, 86_400_000_000
FEATURES = 4
BATCH = 5_000_000
UTC = pa.timestamp("us", tz="UTC")
WARM_UP = 100_000
"""The rows of a first join, in which executors and their Python workers start."""
HEAP = "2g"
"""The heap of an executor; its Python worker has memory beside it."""


def main() -> None:
    """Measure each size in turn, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--on-duckdb", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.on_duckdb:
        _on_duckdb(*map(Path, asked.on_duckdb))
        return
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("java", "cluster"):
            (folder / part).mkdir()
        quiet = dict.fromkeys(("spark.ui.enabled", "spark.ui.showConsoleProgress"), "false")
        options = {"spark.executor.memory": HEAP, "spark.driver.memory": HEAP, **quiet}
        os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(f"--conf {name}={value}" for name, value in options.items())
        os.environ["PYSPARK_SUBMIT_ARGS"] += " pyspark-shell"
        with spark_java.found(folder / "java"), cluster(folder / "cluster", memory=HEAP) as master:
            session = open_session(master)
            print(
                f"{'rows':>12} {'spine':>11}  {'way':7} {'seconds':>8} {'cpu':>8} {'cpu us a row':>12} {'shuffled MB':>11} {'peak MB':>8}"
            )
            for rows in (WARM_UP, *asked.rows):
                _measure(folder / str(rows), session, master, rows)


def _measure(folder: Path, session, master: str, rows: int) -> None:  # noqa: ANN001
    store = FeatureStore.of(replace(config.load(home=folder / "home"), engine="duckdb"))
    store.groups.write(_group(), pa.RecordBatchReader.from_batches(_SCHEMA, _batches(rows, rows // 10)), mode="append")
    store.close()
    spine = folder / "spine"
    spine.mkdir()
    for number, batch in enumerate(_batches(rows // 10, rows // 10, seed=1)):
        pq.write_table(pa.Table.from_batches([batch]).select(["user", "at"]), spine / f"{number}.parquet")
    on_spark = FeatureStore.of(replace(store.settings, engine="spark", spark=master))
    before = _shuffled(session)
    with _peak() as peak:
        began, busy = time.perf_counter(), processor_seconds(os.getpid())
        frame = on_spark.features.training_set([FeatureLookup(_group())], session.read.parquet(str(spine)), "at")
        frame.write.format("noop").mode("overwrite").save()
        seconds, busy = time.perf_counter() - began, processor_seconds(os.getpid()) - busy
    _print(rows, "Spark", (seconds, busy), (_shuffled(session) - before) / 1e6, peak[0])
    told = subprocess.run(
        [sys.executable, __file__, "--on-duckdb", str(folder / "home"), str(spine)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, busy, used = json.loads(told.stdout)
    _print(rows, "DuckDB", (seconds, busy), None, used)


def _on_duckdb(home: Path, spine: Path) -> None:
    """Join in this process, and print the seconds and the most memory."""
    store = FeatureStore.of(replace(config.load(home=home), engine="duckdb"))
    began, busy = time.perf_counter(), time.process_time()
    for _ in store.features.stream([FeatureLookup(_group())], pq.ParquetDataset(spine).read(), "at"):
        pass
    took = time.perf_counter() - began, time.process_time() - busy
    print(json.dumps([*took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def _group() -> FeatureGroup:
    return FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"), "bench")


_SCHEMA = pa.schema([("user", pa.int64()), ("at", UTC), *((f"x{i}", pa.float64()) for i in range(FEATURES))])


def _batches(rows: int, users: int, seed: int = 0) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng([rows, seed])
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        at = pa.array(random.integers(0, DAYS * DAY, count) + START, UTC)
        values = [pa.array(random.random(count)) for _ in range(FEATURES)]
        yield pa.record_batch([pa.array(random.integers(0, users, count)), at, *values], schema=_SCHEMA)


def _print(rows: int, way: str, took: tuple[float, float], shuffled: float | None, peak: float) -> None:
    moved = "" if shuffled is None else f"{shuffled:,.0f}"
    seconds, busy = took
    print(
        f"{rows:>12,} {rows // 10:>11,}  {way:7} {seconds:8.1f} {busy:8.1f} {1e6 * busy / rows:12.2f} {moved:>11} {peak:8,.0f}",
        flush=True,
    )


def _shuffled(session) -> int:  # noqa: ANN001
    """Return the bytes that all executors have written for shuffles."""
    executors = session.sparkContext._jsc.sc().statusStore().executorList(False)  # noqa: SLF001 - PySpark has no other way
    return sum(executors.apply(i).totalShuffleWrite() for i in range(executors.size()))


@contextmanager
def _peak() -> Iterator[list[float]]:
    """Yield a list whose only value becomes the most MB that an executor and its Python workers have used."""
    most, is_over = [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            most[0] = max(most[0], *_of_executors(), 0.0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def _of_executors() -> list[float]:
    """Return the MB of memory of each executor with its Python workers; what they share is counted once for each."""
    found = []
    for pid in family(os.getpid()):
        with suppress(OSError):
            if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(sum(map(resident, family(pid))))
    return found


if __name__ == "__main__":
    main()
