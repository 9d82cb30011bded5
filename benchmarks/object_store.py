"""Reads of a table in an object store, beside hand-written reads from the same server and the same table in a local folder.

    python benchmarks/object_store.py --rows 10000000 --rounds 5

The server is SeaweedFS, started for the run. All ways are measured in turn in each round; the table has the median of each and
its ratio. Each call gets a store that was just opened and has read nothing of the table, so it reads the log first; opening the store
and its query engine is not timed. "Cold" has no local copy of any file. "By hand" is a read of the same columns of the same files by a
pyarrow dataset, with nothing done to them; a join of Seeknal does all of its work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.columns import ROW_ID
from seeknal.define.feature_group import FeatureGroup
from seeknal.offline import Snapshot
from seeknal.offline.scans import scan_stored
from seeknal.system.object_storage import ObjectStorage
from seeknal.values.times import DAY, Interval

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import SeaweedFS

FEATURES = [f"value_{i}" for i in range(7)]
SCANNED = FEATURES[:2]
GROUP = FeatureGroup(
    "clicks", Entity("person", ["person_id"]), Materialization("seen_at", ttl=timedelta(days=7)), project="bench"
)
START = 1_700_000_000_000_000 // DAY * DAY
DAYS, WEEK = 90, 7 * DAY
UTC = pa.timestamp("us", "UTC")
BATCH = 2_000_000


def main() -> int:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server = SeaweedFS(root / "server").start()
        os.environ.update(server.env)
        try:
            _measure(root, server, asked.rows, asked.rounds)
        finally:
            server.stop()
    return 0


def _measure(root: Path, server: SeaweedFS, rows: int, rounds: int) -> None:
    homes = {"folder": (root / "local", None), "store": (root / "remote", "s3://tests/bench")}
    written = {
        name: _timed(lambda home=home, url=url: _write(_open(home, url), rows)) for name, (home, url) in homes.items()
    }
    remote, local = homes["store"], homes["folder"]
    snapshot = _snapshot(_open(*remote))
    size = sum(file.size for file in snapshot.files)
    print(f"{rows:,} rows in {len(snapshot.files)} files, {size / 1e6:.0f} MB; medians of {rounds} rounds, in seconds")
    print(f"write: folder {written['folder']:.1f}, object store {written['store']:.1f}")
    spine = _spine(10_000)
    files = pa.fs.S3FileSystem(
        access_key=server.key, secret_key=server.secret, endpoint_override=server.url, region="us-east-1", scheme="http"
    )
    week = Interval(START + DAYS * DAY - 2 * WEEK, START + DAYS * DAY)
    of_week = [file.path for file in snapshot.files if file.overlaps(week)]
    names = [GROUP.entity.join_keys[0], "seen_at", ROW_ID, *FEATURES]
    prefix = str(snapshot.root).removeprefix("s3://")

    def by_hand(paths: list[str], columns: list[str]) -> pa.Table:
        return ds.dataset([f"{prefix}/{path}" for path in paths], filesystem=files, format="parquet").to_table(columns)

    every = [file.path for file in snapshot.files]
    ways: dict[str, tuple[Callable[[], object], Callable[[FeatureStore], object]]] = {
        "scan of two columns": (lambda: [pc.sum(column) for column in by_hand(every, SCANNED).columns], _scan),
        f"pruned join ({len(of_week)} of {len(every)} files)": (
            lambda: by_hand(of_week, names),
            lambda store: _join(store, spine),
        ),
    }
    for what, (hand, ours) in ways.items():
        times: dict[str, list[float]] = {"by hand": [], "cold": [], "warm": [], "folder": []}
        for _ in range(rounds):
            times["by hand"].append(_timed(hand))
            times["cold"].append(_timed_on(_cold(*remote), ours))
            times["warm"].append(_timed_on(_open(*remote), ours))
            times["folder"].append(_timed_on(_open(*local), ours))
        found = {name: statistics.median(some) for name, some in times.items()}
        print(f"\n{what}")
        for name, seconds in found.items():
            print(f"  {name:8} {seconds:7.3f}")
        print(
            f"  cold / by hand {found['cold'] / found['by hand']:.2f}   warm / folder {found['warm'] / found['folder']:.2f}"
        )
    same = [_join(_open(*one), spine).equals(_join(_open(*local), spine)) for one in (remote, local)]
    print(f"\nthe joins of store and folder are {'equal' if all(same) else 'DIFFERENT'}")


def _open(home: Path, url: str | None) -> FeatureStore:
    store = FeatureStore(home, storage=url)
    store.core.engine()
    store.groups.all()
    if isinstance(storage := store.core.storage, ObjectStorage):
        storage.store.client.children("tables")  # the first request of a process claims the place
    return store


def _cold(home: Path, url: str | None) -> FeatureStore:
    shutil.rmtree(home / "scratch", ignore_errors=True)
    return _open(home, url)


def _write(store: FeatureStore, rows: int) -> None:
    for first in range(0, rows, BATCH):
        rng = np.random.default_rng(first)
        count = min(BATCH, rows - first)
        # Each batch is of days of its own, as the writes of a group are that grows.
        span = DAYS * DAY * count // rows
        at = START + DAYS * DAY * first // rows + rng.integers(0, span, count)
        columns = {"person_id": rng.integers(0, rows // 10, count), "seen_at": pa.array(at, UTC)}
        columns |= {name: rng.random(count) for name in FEATURES}
        store.groups.write(GROUP, pa.table(columns), mode="append")
    store.close()


def _spine(count: int) -> pa.Table:
    rng = np.random.default_rng(7)
    at = START + DAYS * DAY - rng.integers(0, WEEK, count)
    return pa.table({"person_id": rng.integers(0, 1_000_000, count), "at": pa.array(at, UTC)})


def _snapshot(store: FeatureStore) -> Snapshot:
    return store.core.catalog.offline("bench", "clicks").snapshot()


def _scan(store: FeatureStore) -> object:
    snapshot = _snapshot(store)
    rows = snapshot.within(snapshot.commit.schema)
    engine: Any = store.core.engine()  # no public call only scans
    sums = ", ".join(f"sum({name})" for name in SCANNED)
    return engine._query(f"SELECT {sums} FROM {scan_stored(rows.paths, SCANNED)}")  # noqa: SLF001


def _join(store: FeatureStore, spine: pa.Table) -> pa.Table:
    return store.features.training_set([FeatureLookup(GROUP)], spine, "at", output="arrow")


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _timed_on(store: FeatureStore, call: Callable[[FeatureStore], object]) -> float:
    try:
        return _timed(lambda: call(store))
    finally:
        store.close()


if __name__ == "__main__":
    raise SystemExit(main())
