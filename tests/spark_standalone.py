"""A join that is written, on a standalone master with two workers, an executor of which is killed; run as a program, since a process has one session.

The Java is the one of a package.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyspark

import spark_java
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, config
from seeknal.define.feature_group import FeatureGroup
from seeknal.engine.spark.session import open_session
from seeknal.values.content_hash import content_hash
from servers import free_port, wait_for

DEPLOY = "org.apache.spark.deploy"
HOME = Path(pyspark.__file__).parent


@contextmanager
def cluster(folder: Path, workers: int = 2, memory: str = "1g") -> Iterator[str]:
    """Run a master and workers with one core and so much memory each, and yield the URL of the master."""
    port, running = free_port(), []
    env = {**os.environ, "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
    url = f"spark://127.0.0.1:{port}"

    def start(name: str, *arguments: str) -> Path:
        log = folder / f"{len(running)}.log"
        with log.open("wb") as out:
            command = [str(HOME / "bin" / "spark-class"), f"{DEPLOY}.{name}", *arguments]
            running.append(subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True))
        return log

    try:
        start("master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
        options = ("--host", "127.0.0.1", "--cores", "1", "--memory", memory, "--webui-port", "0")
        logs = [
            start("worker.Worker", *options, "--work-dir", str(folder / f"worker-{n}"), url) for n in range(workers)
        ]
        wait_for(lambda: all("Successfully registered" in log.read_text() for log in logs), 120)
        yield url
    finally:
        for process in running:  # with its executors
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


def drawn(count: int) -> dict[str, pa.Array]:
    random = np.random.default_rng(count)
    at = random.integers(0, 90 * 86_400_000_000, count) + 1_704_067_200_000_000
    return {"user": pa.array(random.integers(0, 50, count)), "at": pa.array(at, pa.timestamp("us", tz="UTC"))}


def killing(marker: Path):
    """Return a function for `mapInArrow` that kills the executor in which it gets the last row, once."""

    def passed(batches):
        for batch in batches:
            if batch.column("row")[-1].as_py() == 1999 and not marker.exists():
                marker.touch()
                daemon = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2]
                os.kill(int(daemon.split()[1]), signal.SIGKILL)
            yield batch

    return passed


def main(folder: Path) -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = config.load()
    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"), "shop")
    on_duckdb = FeatureStore.of(replace(settings, engine="duckdb"))
    for part in range(4):
        table = pa.table({**drawn(5000 + part), "x": np.random.default_rng(part).random(5000 + part)})
        on_duckdb.groups.write(group, table, mode="append")
    spine = pa.table({**drawn(2000), "row": range(2000)})
    asked = [FeatureLookup(group)]
    expected = on_duckdb.features.training_set(asked, spine, "at")
    with cluster(folder) as master:
        on_spark = FeatureStore.of(replace(settings, engine="spark", spark=master))
        session = open_session(master)
        session.conf.set("spark.sql.shuffle.partitions", "2")
        marker = folder / "killed"
        frame = session.createDataFrame(spine).repartitionByRange(4, "row").sortWithinPartitions("row")
        frame = frame.mapInArrow(killing(marker), frame.schema)
        # The join is evaluated when its result is written.
        on_spark.groups.write(replace(group, name="joined"), on_spark.features.training_set(asked, frame, "at"))
        assert marker.exists()
        joined = on_spark.core.catalog.offline("shop", "joined")
        found = pa.concat_tables(joined.columns(joined.snapshot().files, [*expected.column_names, "_seeknal_row_id"]))
        assert sorted(found["_seeknal_row_id"].to_pylist()) == list(range(2000))
        assert content_hash(found.select(expected.column_names).sort_by("row")) == content_hash(expected)
        executors = [path for path in folder.glob("worker-*/app-*/*") if path.is_dir()]
        assert len(executors) == 3, executors  # two, and one in the place of the one that was killed
        session.stop()
    sys.stdout.write("equal\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "java").mkdir()
        spark_java.from_wheel(Path(name) / "java")
        os.environ.update(spark_java.LIGHT)
        main(Path(name))
