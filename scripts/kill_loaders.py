"""Kill loaders while readers look up entities all the time, and check that no reader ever notices.

    python scripts/kill_loaders.py [--kills 200] [--readers 8] [--entities 20000] [--store lmdb|redis] [--seed 1] [--moves]

A loader writes a new round to all entities of a group and loads it; at a random moment it is killed. Readers, in separate
processes, look up random entities, and report each result that is an error, mixes rounds, or is of an earlier round than the
result before. After each kill, another load must complete, and the table must verify. With --moves, each round is written
as a new version of the group, so that the loader moves the table to it, and must leave only that version online.

Lookups are timed on the wall clock. Readers run at a higher priority than loaders, because there are more of them than
cores. How long they wait for each other is measured first, with a process that only counts in place of the loader.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning
from seeknal.define.feature_group import FeatureGroup
from seeknal.online import LmdbStore

GROUP = FeatureGroup("rounds", Entity("item", ["item_id"]), Materialization(event_time_col="at"), "kill")
TABLE = "answers"
LONG = 0.05
ASKED = 50

fork = multiprocessing.get_context("fork")


def frame(entities: int, number: int, moves: bool) -> pa.Table:
    """Return the rows of a round: all entities, a microsecond later than in the round before. Every other round has one more column."""
    at = pa.array(np.full(entities, 1_700_000_000_000_000 + number), pa.timestamp("us", "UTC"))
    numbers = np.full(entities, number)
    more = {"more": numbers} if moves and number % 2 == 0 else {}
    return pa.table(
        {"item_id": np.arange(entities), "at": at, "number": numbers, "again": numbers, "text": ["x" * 40] * entities}
        | more
    )


def load(
    home: str, place: str | None, options: argparse.Namespace, number: int, whole: bool, begun: Connection | None
) -> None:
    """Write a round and load it, as changes or as a whole; report when the load begins."""
    store = FeatureStore(home, online_store=place)
    if number:
        store.groups.write(GROUP, frame(options.entities, number, options.moves), mode="overwrite")
    if whole:
        LmdbStore.most_changes = 0
    if begun:
        begun.send(number)
    if number == 1:
        store.tables.serve([FeatureLookup(GROUP)], TABLE)
    else:
        store.groups.load(GROUP.name)
    if not begun:
        found = store.tables.verify(TABLE, sample=2000)
        if not found.equal:
            sys.exit(str(found))
        if left := {one.version for one in store.groups.loads(GROUP.name)} - {store.groups.version(GROUP.name).number}:
            sys.exit(f"versions {left} are online still")


def in_child(target: Any, *arguments: Any) -> float:
    """Run a function in a child process to its end; return the seconds that it took."""
    started = time.perf_counter()
    process = fork.Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{target.__name__} ended with {process.exitcode}")
    return time.perf_counter() - started


def read(
    home: str, place: str | None, entities: int, seed: int, stop: Event, loading: Event, results: Connection
) -> None:
    """Look up entities until told to stop; report errors, torn and older results, and the times of lookups without and with loads."""
    os.nice(-10)
    rng = random.Random(seed)
    problems: list[str] = []
    times: dict[bool, list[float]] = {False: [], True: []}
    newest = 0
    try:
        table = FeatureStore(home, online_store=place).tables.open(TABLE)
        while not stop.is_set():
            keys = [{"item_id": rng.randrange(entities)} for _ in range(ASKED)]
            with_loads = loading.is_set()
            started = time.perf_counter()
            rows = table.get_features(keys, "dicts")
            times[with_loads].append(time.perf_counter() - started)
            seen = {value for row in rows for value in (row["number"], row["again"])}
            if len(seen) != 1 or min(seen, default=0) is None:
                problems.append(f"torn: {seen}")
            elif min(seen) < newest:
                problems.append(f"older: {seen} after {newest}")
            newest = max(newest, *(value or 0 for value in seen))
            time.sleep(0.002)
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        problems.append(traceback.format_exc())
    results.send((problems, times, newest))


def count_up(seconds: float) -> None:
    """Keep a core busy for some seconds, as a loader does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(10_000))


def kill(home: str, place: str | None, options: argparse.Namespace) -> tuple[int, int, list[float]]:
    """Kill loaders; return how many were killed during a load, how many had ended, and how long the next loads took."""
    rng = random.Random(options.seed)
    killed = ended = 0
    finished: list[float] = []
    usual = in_child(load, home, place, options, 2, False, None)
    number = 2
    while killed < options.kills:
        number += 1
        ours, theirs = fork.Pipe()
        process = fork.Process(target=load, args=(home, place, options, number, number % 2 == 0, theirs))
        process.start()
        ours.recv()
        time.sleep(rng.uniform(0, (0.6 if options.moves else 0.3) * usual))
        alive = process.is_alive()
        if alive:
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        killed += alive
        ended += not alive
        finished.append(in_child(load, home, place, options, 0, False, None))
        if killed % 20 == 0 and alive:
            print(f"{killed} killed", flush=True)
    return killed, ended, finished


def main() -> None:
    """Run the script."""
    warnings.simplefilter("ignore", SeeknalWarning)  # each round replaces all of the one before
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--store", choices=("lmdb", "redis"), default="lmdb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--moves", action="store_true")
    parser.add_argument("--warm-up", type=float, default=20, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, ExitStack() as servers:
        place = None
        if options.store == "redis":
            sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
            from servers import Valkey

            server = Valkey(Path(home) / "valkey").start()
            servers.callback(server.stop)
            place = server.url
        in_child(load, home, place, options, 1, False, None)
        stop, loading = fork.Event(), fork.Event()
        readers, pipes = [], []
        for i in range(options.readers):
            ours, theirs = fork.Pipe()
            reader = fork.Process(target=read, args=(home, place, options.entities, i, stop, loading, theirs))
            reader.start()
            readers.append(reader)
            pipes.append(ours)
        in_child(count_up, options.warm_up)
        loading.set()
        started = time.perf_counter()
        killed, ended, finished = kill(home, place, options)
        seconds = time.perf_counter() - started
        stop.set()
        results = [pipe.recv() for pipe in pipes]
        for reader in readers:
            reader.join()
    problems = [problem for some, _, _ in results for problem in some]
    print(
        f"{options.store}: {killed} loaders killed in {seconds:.0f} s, {ended} had ended before; {len(finished)} loads afterwards"
    )
    print(f"all completed and verified, the slowest in {max(finished):.2f} s")
    for with_loads, what in ((False, "beside a counting process"), (True, "beside loaders")):
        times = sorted(one for _, both, _ in results for one in both[with_loads])
        if not times:
            print(f"{what}: no reader got to answer")
            continue
        late = sum(one > LONG for one in times)
        print(
            f"{what}: {len(times):,} answers of {ASKED} entities; median {1e3 * times[len(times) // 2]:.2f} ms, "
            f"99.9% {1e3 * times[-len(times) // 1000]:.1f} ms, most {1e3 * times[-1]:.1f} ms, {late} over {LONG * 1e3:.0f} ms"
        )
    print(f"errors, torn or older answers: {len(problems)}")
    for problem in problems[:5]:
        print(problem)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
