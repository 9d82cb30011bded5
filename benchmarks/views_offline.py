"""What functions over arrays cost in the training set of a view, beside the bare calls on the same columns.

    python benchmarks/views_offline.py [--rows 1000000] [--rounds 9]

Everything is measured in turn, in processor time of one process. The values are compared before any time counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import view_features

from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, FeatureView, HistoricalFeaturesDuckDB, Materialization
from seeknal.request.functions import Functions


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the spine")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is timed, in turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SEEKNAL_HOME"] = home
        _measure(options.rows, options.rounds)


def _measure(rows: int, rounds: int) -> None:
    rng, users = np.random.default_rng(5), 10_000
    start = np.datetime64("2024-01-01", "us")
    group = FeatureGroupDuckDB("habits", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
    usual = {"usual": 1 + rng.random(users), "trips": rng.integers(0, 50, users).astype(float)}
    group.set_dataframe(pa.table({"user_id": np.arange(users), "at": np.full(users, start), **usual})).write()
    spine = pa.table(
        {
            "user_id": rng.integers(0, users, rows),
            "moment": start + rng.integers(1, 10**12, rows).astype("m8[us]"),
            "cart": rng.random(rows) * 3,
        }
    )
    lookups = [FeatureLookup(group)]
    view = FeatureView("carts", lookups, request={"cart": "float64"}, functions=view_features.FUNCTIONS).register()
    joined = HistoricalFeaturesDuckDB(lookups).using_spine(spine, "moment")
    columns = joined.to_dataframe(output="arrow")
    functions = Functions(view_features.FUNCTIONS, {"cart": pa.float64(), "usual": pa.float64(), "trips": pa.float64()})
    given = {name: columns[name] for name in ("cart", "usual", "trips")}

    def bare(table: pa.Table) -> list[np.ndarray]:
        arrays = {name: table[name].to_numpy() for name in given}
        return [one.function(*(arrays[name] for name in one.inputs)) for one in view_features.FUNCTIONS]

    found = view.to_dataframe(spine, "moment")
    for one, expected in zip(view_features.FUNCTIONS, bare(columns), strict=True):
        if not np.array_equal(found[one.name].to_numpy(), expected):
            raise SystemExit(f"{one.name} differs")
    timed = {
        "functions": lambda: functions.columns(given),
        "bare calls": lambda: bare(columns),
        "training set of the view": lambda: view.to_dataframe(spine, "moment"),
        "join and bare calls": lambda: bare(joined.to_dataframe(output="arrow")),
    }
    took = _in_turn(timed, rounds)
    for name, seconds in took.items():
        print(f"{name:26} {seconds * 1000:8.1f} ms")
    print(f"functions / bare calls                {took['functions'] / took['bare calls']:.2f}")
    print(f"training set / join and bare calls    {took['training set of the view'] / took['join and bare calls']:.2f}")


def _in_turn(timed: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median processor time of each, measured in turn. Results are kept until the next round, as callers keep them."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    kept: dict[str, Any] = {}
    for _ in range(rounds + 1):
        for name, run in timed.items():
            began = time.process_time()
            kept[name] = run()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(each[1:]) for name, each in times.items()}  # the first round warms up


if __name__ == "__main__":
    main()
