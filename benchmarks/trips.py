"""The workload of a published comparison of feature stores: taxi trips joined to three groups at each trip's moment.

Its code is in featurestoreorg/featurestore-benchmarks on GitHub: the trips' own features, pick-ups per zone and quarter of
an hour, and drop-offs per zone and half hour. Trips like those of New York are generated from a seed. The result is a pandas
frame, as in the original. The published figures are from machines with 16 vCPUs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data
import joins
import numpy as np
import oracle
import pyarrow as pa
from measure import Limits, Worker
from report import Section

_ZONES, _A_DAY = 265, 100_000
_QUARTER, _HALF = 15 * 60_000_000, 30 * 60_000_000
_PUBLISHED = {
    "Hopsworks": {1: 483_092, 5: 672_948, 10: 967_118},
    "SageMaker": (33_036, 89_590),
    "Vertex": (19_305, 96_098),
    "Databricks": (21_004, 58_555),
}
_WORKERS = [
    Worker("seeknal", "ours", {"how": "to_pandas"}),
    Worker("SQL, bare", "sql", {"how": "bare", "to": "pandas"}),
    Worker("SQL, pruned", "sql", {"how": "pruned", "to": "pandas"}),
]


def measure_all(counts: list[int], peers: list[str], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure tables of trips of the given sizes, and yield the updated section after each."""
    section = Section("Trips", (__doc__ or "").partition("\n\n")[2].strip() + "\n\n" + _published())
    speeds = Section("Trips, rows a second", "The same runs as rows of the answer per second.", "rows/s")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            task, right = _prepare(count, Path(folder))
            joins.store(task)
            case = f"{count:,} trips"
            workers = _WORKERS + [joins.PEERS[peer] for peer in peers if peer in {"polars", "pandas"}]
            joins.measure_in_turn(section, case, workers, task, joins.against(right), rounds, limits)
        for row in section.rows:
            if row.case == case:
                speeds.row(case, row.who).values = [count / value for value in row.values]
        best = section.middle(case, "SQL, bare", "SQL, pruned")
        section.hold(f"{case}: seeknal / best SQL", 1.15, section.middle(case, "seeknal") / best)
        if theirs := _PUBLISHED["Hopsworks"].get(count // 1_000_000):  # type: ignore[union-attr]
            speeds.hold(f"{case}: Hopsworks' rows a second / seeknal's", 1, theirs / speeds.middle(case, "seeknal"))
        yield section
        yield speeds


def _published() -> str:
    rows = [
        f"{name} {interval[0]:,} to {interval[1]:,}"
        for name, interval in _PUBLISHED.items()
        if isinstance(interval, tuple)
    ]
    first = ", ".join(f"{value:,} at {millions}M" for millions, value in _PUBLISHED["Hopsworks"].items())
    return f"Published, in rows a second: Hopsworks {first}; {'; '.join(rows)}."


def _prepare(count: int, folder: Path) -> tuple[dict[str, Any], joins.Right]:
    """Create the trips, the features of the zones, the task, and the expected result."""
    rng = np.random.default_rng(count)
    times = data.START + np.sort(rng.integers(0, count * data.DAY // _A_DAY + 1, count))
    ends = times + rng.integers(60_000_000, 3_600_000_000, count)
    popular = rng.zipf(1.3, _ZONES).astype("float64").clip(1, 200)
    picked, dropped = (rng.choice(_ZONES, count, p=popular / popular.sum()) for _ in range(2))
    values = _values(rng, count)
    trips = pa.table({"trip_id": np.arange(count), "seen_at": _moments(times), **values})
    pickups, pickup_zones = _windows(picked, times, _QUARTER, values["fare_amount"])
    dropoffs, dropoff_zones = _windows(dropped, ends, _HALF, None)
    moments = {"row": np.arange(count), "at": _moments(times), "pickup_id": picked, "dropoff_id": dropped}
    spine = data.keep(folder / "spine", pa.table(moments), np.arange(count), ["row"], [])
    groups, expected = [], []
    for name, table, codes, keys, asked in (
        ("trips", trips, np.arange(count), {"trip_id": "row"}, np.arange(count)),
        ("pickups", pickups, pickup_zones, {"location_id": "pickup_id"}, picked),
        ("dropoffs", dropoffs, dropoff_zones, {"location_id": "dropoff_id"}, dropped),
    ):
        features = table.column_names[2:]
        made = data.keep(folder / name, table, codes, list(keys), features)
        groups.append({"name": name, "file": str(made.file), "features": features, "prefix": f"{name}_", "keys": keys})
        winners = oracle.find(codes, table["seen_at"].cast(pa.int64()).to_numpy(), asked, times)
        expected.append((made, winners, {feature: f"{name}_{feature}" for feature in features}))
    task = {"home": str(folder / "home"), "ttl": None, "ties": False, "groups": groups}
    return {**task, "job": "join", "spine": str(spine.file)}, (spine, expected)


def _values(rng: np.random.Generator, count: int) -> dict[str, Any]:
    cents = {
        name: rng.integers(0, most, count) / 100
        for name, most in (("fare_amount", 9000), ("tip", 2000), ("tolls", 900))
    }
    whole = {name: rng.integers(1, most, count) for name, most in (("passengers", 7), ("vendor", 3), ("payment", 6))}
    flag = pa.array(np.array(["N", "Y"])).take(pa.array(rng.integers(0, 2, count)))
    total = cents["fare_amount"] + cents["tip"] + cents["tolls"]
    return {**whole, "distance": rng.gamma(2, 1.7, count).round(2), **cents, "total": total, "flag": flag}


def _windows(zones: np.ndarray, times: np.ndarray, width: int, fares: np.ndarray | None) -> tuple[pa.Table, np.ndarray]:
    """Count trips by zone and window, with their mean fare or whether it is a weekend."""
    windows = times // width
    first, interval = windows.min(), int(windows.max() - windows.min()) + 1
    places, back, counts = np.unique(zones * interval + (windows - first), return_inverse=True, return_counts=True)
    codes, starts = places // interval, (places % interval + first) * width
    second = {"mean_fare": np.bincount(back, fares) / counts} if fares is not None else {}
    weekend = {"is_weekend": np.isin((starts // data.DAY + 3) % 7, (5, 6)).astype("int64")} if fares is None else {}
    return pa.table({"location_id": codes, "seen_at": _moments(starts), "count": counts, **second, **weekend}), codes


def _moments(times: np.ndarray) -> pa.Array:
    return pa.array(times, pa.timestamp("us", "UTC"))
