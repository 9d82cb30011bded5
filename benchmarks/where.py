"""Show where the time of a join goes: opening the store, finding the rows, and the shares of DuckDB, Arrow and NumPy.

    python benchmarks/where.py [--rows 1000000] [--keys 100000] [--spines 10000 1000000]

For another commit, check it out elsewhere (`git worktree`) and set `PYTHONPATH` to its `src`. The figures are wall-clock
seconds of the median of five joins by total time, each with a new store, after all imports. They include the profiler's
overhead.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from datetime import timedelta
from typing import Any

import data
import pyarrow as pa
import pyarrow.parquet as pq
from environments import HERE

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

_GROUP = FeatureGroup(
    "seen", Entity("person", ["person_id"]), Materialization("seen_at", ttl=timedelta(days=365)), "bench"
)
_ROUNDS, _SHOWN = 5, 6


def join(home: str, spine: pa.Table) -> tuple[float, pstats.Stats]:
    """Join once; return the time, and the profile of it."""
    profile, started = cProfile.Profile(), time.perf_counter()
    with profile:
        FeatureStore(home).features.training_set([FeatureLookup("bench/seen")], spine, "at")
    return time.perf_counter() - started, pstats.Stats(profile)


def told(whole: float, stats: pstats.Stats) -> list[str]:
    """Return the parts of a join: the total time of opening and finding, and the functions that take the most time themselves."""
    found: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]
    lines = [f"{whole:6.3f}  in all"]
    for (file, _, name), (_, _, _, taken, _) in found.items():
        if file.endswith("store.py") and name in {"__init__", "sources"}:
            lines.append(
                f"{taken:6.3f}  {'open the store' if name == '__init__' else 'find version, snapshot and files'}"
            )
    most = sorted(found.items(), key=lambda one: -one[1][2])[:_SHOWN]
    lines += [f"{own:6.3f}  {name.strip('<>{}')} ({calls} times)" for (_, _, name), (_, calls, own, _, _) in most]
    return lines


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--spines", type=int, nargs="+", default=[10_000, 1_000_000])
    options = parser.parse_args()
    root = HERE / ".data"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as home:
        FeatureStore(home).groups.write(_GROUP, pq.read_table(data.rows(root, options.rows, options.keys).file))
        for count in options.spines:
            spine = pq.read_table(data.spine(root, count, options.keys).file)
            runs = sorted((join(home, spine) for _ in range(_ROUNDS)), key=lambda run: run[0])
            print(f"\nspine of {count:,} rows", *told(*runs[_ROUNDS // 2]), sep="\n")


if __name__ == "__main__":
    main()
