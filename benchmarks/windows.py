"""Windowed features: six aggregations over four windows, compared with a range join, Polars and a bare kernel."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joins
import measure
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Limits, Worker
from report import Section

_K, _M, _HOUR = 1_000, 1_000_000, 3_600_000_000
LENGTHS = {"1h": _HOUR, "1d": 24 * _HOUR, "7d": 168 * _HOUR, "30d": 720 * _HOUR}
START, YEAR = 1_704_067_200_000_000, 365 * 24 * _HOUR


@dataclass(frozen=True)
class Case:
    """Events of some users over a year, and a spine."""

    events: int
    keys: int
    spine: int

    @property
    def name(self) -> str:
        """The name of the case in the report."""
        return f"{_short(self.events)} events of {_short(self.keys)}, spine {_short(self.spine)}"


QUICK = [Case(200 * _K, 2 * _K, 20 * _K)]
FULL = [
    Case(10 * _M, 100 * _K, _M),
    Case(10 * _M, _K, _M),
    Case(10 * _M, _K, 100 * _K),
    Case(10 * _M, 100 * _K, 10 * _K),
]
OURS, BARE = Worker("seeknal", "windows_ours"), Worker("DuckDB sort and NumPy, bare", "windows_bare")
SQL, POLARS = Worker("SQL range join", "windows_sql"), Worker("Polars rolling", "windows_polars", peer="polars")


def measure_all(cases: list[Case], peers: list[str], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure case by case, and yield the updated section after each."""
    section = Section(
        "Windowed features",
        "Count, sum, mean, minimum, maximum and standard deviation of one column over 1 hour, 1, 7 and 30 days: 24 features. "
        "All read the same Parquet files; the results are compared with Seeknal's.",
    )
    for case in cases:
        with tempfile.TemporaryDirectory(dir=root) as home:
            print(f"{case.name}: preparing", file=sys.stderr, flush=True)
            task = _prepare(case, home)
            workers = [OURS, BARE, SQL, *([POLARS] if "polars" in peers else [])]
            joins.measure_in_turn(section, case.name, workers, task, _against_the_first(), rounds, limits)
        ours = section.middle(case.name, OURS.name)
        section.hold(f"{case.name}: seeknal / bare kernel", 1.3, ours / section.middle(case.name, BARE.name))
        for peer in (SQL, POLARS):
            section.hold(f"{case.name}: seeknal / {peer.name}", 0.6, ours / section.middle(case.name, peer.name))
        yield section


def _prepare(case: Case, home: str) -> dict[str, object]:
    """Write events and spine, and return the task.

    Raises:
        RuntimeError: The events could not be stored.
    """
    chance = np.random.default_rng(case.keys)
    instants = pa.timestamp("us", "UTC")
    amount = np.round(chance.gamma(2, 20, case.events), 2)
    events = {
        "user_id": chance.integers(0, case.keys, case.events),
        "at": pa.array(np.sort(START + chance.integers(0, YEAR, case.events)), instants),
        "amount": pa.array(amount, mask=chance.random(case.events) < 0.02),  # noqa: PLR2004 - the share of nulls
    }
    spine = {
        "row": np.arange(case.spine),
        "user_id": chance.integers(0, case.keys, case.spine),
        "at": pa.array(START + chance.integers(YEAR // 12, YEAR, case.spine), instants),
    }
    places = {name: f"{home}/{name}.parquet" for name in ("events", "spine")}
    pq.write_table(pa.table(events), places["events"])
    pq.write_table(pa.table(spine), places["spine"])
    task: dict[str, object] = {"home": f"{home}/home", "lengths": LENGTHS, **places}
    stored = measure.run(OURS, {**task, "job": "store"}, Limits(16, 1200))
    if stored.failure:
        raise RuntimeError(stored.failure)
    return {**task, "job": "windows", "files": stored.more["files"]}


def _against_the_first() -> joins.Check:
    """Return the comparison of results with the first of them, which is Seeknal's."""
    firsts: list[pa.Table] = []

    def check(answer: pa.Table) -> oracle.Verdict:
        firsts.append(answer)
        del firsts[1:]
        return oracle.Verdict(_difference(firsts[0], answer))

    return check


def _difference(right: pa.Table, found: pa.Table) -> str:
    """Return where an answer differs from the right one; empty if counts and extremes are equal, and sums and spreads are near."""
    for name in LENGTHS:
        for short in ("n", "low", "high", "sum", "mean", "std"):
            one, other = (
                np.asarray(table[f"{short}_{name}"].cast(pa.float64()).fill_null(np.nan)) for table in (right, found)
            )
            near = {"n": 0, "low": 0, "high": 0, "std": 1e-4}.get(short, 1e-9)
            wrong = ~np.isclose(one, other, rtol=near, atol=near, equal_nan=True)
            if wrong.any():
                return f"{wrong.sum()} values of {short}_{name}"
    return ""


def _short(count: int) -> str:
    return f"{count // _M}M" if count >= _M else f"{count // _K}k" if count >= _K else str(count)
