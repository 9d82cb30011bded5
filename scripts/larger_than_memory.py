"""Build a training set that does not fit in memory, and print time and peak memory.

10 million spine rows against 100 million feature rows of 2 million entities, 5 features, under a memory limit of 4 GB:

    python scripts/larger_than_memory.py [--spine 10] [--rows 100] [--memory 4GB]

Needs about 15 GB of disk in the temporary folder (TMPDIR), and frees it at the end.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, HistoricalFeaturesDuckDB, Materialization

MILLION = 1_000_000
ENTITIES = 2 * MILLION
START = 1_704_067_200_000_000
YEAR = 365 * 86_400 * MILLION


def made(rows: int, seed: int, features: int) -> pa.Table:
    """Return rows of random entities, at random moments of a year."""
    random = np.random.default_rng(seed)
    columns = {
        "customer_id": random.integers(0, ENTITIES, rows),
        "at": pa.array(START + random.integers(0, YEAR, rows)).cast(pa.timestamp("us")),
    }
    return pa.table(columns | {f"f{i}": random.random(rows) for i in range(features)})


def write(rows: int, spine: int, folder: Path) -> None:
    """Write the group, 10 million rows at a time, and the spine."""
    group = FeatureGroupDuckDB("spend", Entity("customer", ["customer_id"]), Materialization(event_time_col="at"))
    started = time.perf_counter()
    for part in range(0, rows, 10):
        group.set_dataframe(made(min(10, rows - part) * MILLION, part, 5)).write(mode="append")
        print(f"  {part + min(10, rows - part)} of {rows} million rows written", flush=True)
    print(f"written in {time.perf_counter() - started:.0f} s")
    with pq.ParquetWriter(folder / "spine.parquet", made(1, 0, 0).schema) as file:
        for part in range(spine):
            file.write_table(made(MILLION, 10_000 + part, 0))


def join(folder: Path) -> None:
    """Build the training set. This runs in a separate process, so that its peak memory is that of the join."""
    started = time.perf_counter()
    features = HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(folder / "spine.parquet", date_col="at")
    rows = features.to_parquet(folder / "training_set.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows:,} rows in {time.perf_counter() - started:.0f} s, peak memory {peak:,.0f} MB")


def main() -> None:
    """Write the data, and join it in another process."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spine", type=int, default=10, metavar="MILLIONS")
    options.add_argument("--rows", type=int, default=100, metavar="MILLIONS")
    options.add_argument("--memory", default="4GB")
    options.add_argument("--join", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.join:
        join(given.join)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SEEKNAL_HOME": f"{folder}/home", "SEEKNAL_MEMORY_LIMIT": given.memory}
        write(given.rows, given.spine, Path(folder))
        subprocess.run([sys.executable, __file__, "--join", folder], check=True)
        found = pq.read_metadata(f"{folder}/training_set.parquet")
        print(f"training set: {found.num_rows:,} rows, {found.num_columns} columns")
        print(f"left in scratch: {len(list(Path(folder, 'home', 'scratch').iterdir()))} files")


if __name__ == "__main__":
    main()
