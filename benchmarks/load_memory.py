"""Measure the memory of loads of increasing numbers of entities, each in a separate process.

    python benchmarks/load_memory.py [--millions 1 2 4 8]

The figure is the peak of anonymous memory (Linux: RssAnon) above that of the process before the load. Pages of mapped files,
such as those of LMDB, belong to the page cache and are not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from online import GROUP, frame

from seeknal import FeatureLookup, FeatureStore


def anonymous() -> int:
    """Return the process's anonymous memory in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


def write(home: str, rows: int) -> None:
    """Write one row for each of a number of entities, a million at a time."""
    store = FeatureStore(home)
    for i in range(0, rows, 1_000_000):
        part = frame(min(1_000_000, rows - i), seed=i)
        part = part.set_column(0, "person_id", [[value + i for value in part["person_id"].to_pylist()]])
        store.groups.write(GROUP, part, mode="append")


def load(home: str, results: Connection) -> None:
    """Load the rows, and report seconds and memory."""
    store = FeatureStore(home)
    store.groups.versions(GROUP.name)
    before, most, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    store.tables.serve([FeatureLookup(GROUP)], "clicks_online")
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    results.send((seconds, before, most[0]))


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 2, 4, 8])
    spawn = multiprocessing.get_context("spawn")
    print(
        "| entities | seconds | rows a second | memory before, MB | most during the load, MB |\n|--:|--:|--:|--:|--:|"
    )
    for millions in parser.parse_args().millions:
        rows = int(millions * 1_000_000)
        with tempfile.TemporaryDirectory() as home:
            writer = spawn.Process(target=write, args=(home, rows))
            writer.start()
            writer.join()
            ours, theirs = spawn.Pipe()
            loader = spawn.Process(target=load, args=(home, theirs))
            loader.start()
            seconds, before, most = ours.recv()
            loader.join()
        print(f"| {rows:,} | {seconds:.1f} | {rows / seconds:,.0f} | {before:,} | {most:,} |", flush=True)


if __name__ == "__main__":
    main()
