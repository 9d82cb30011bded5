"""What an aggregation costs beside `Sum`: each by itself over the same four windows, in turn."""

from __future__ import annotations

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Limits, Outcome, Worker
from report import Section
from windows import FULL as OF_WINDOWS
from windows import LENGTHS, START, YEAR, Case

from seeknal import ApproxCountDistinct, ApproxQuantile, CountDistinct, Histogram, MostFrequent, Quantile, Sum
from seeknal.define.aggregations import Aggregation, to_json

OVER = list(LENGTHS)
CHECKED = 200
"""How many moments of each answer are computed again by plain loops."""
QUICK, FULL = [Case(200_000, 2_000, 20_000)], OF_WINDOWS[:2]


Rows = list[dict[str, Any]]
Window = tuple[int, str, Rows]
"""A row of the spine, the name of a length, and the events."""


@dataclass(frozen=True)
class Cost:
    """An aggregation, and what plain Python says it is.

    Args:
        aggregation: The aggregation.
        right: The result for the events of a window.
        most: How many times `Sum` it may cost; None: it is only reported.
    """

    aggregation: Aggregation
    right: Callable[[Rows], Any]
    most: float | None = 5.0


def _of(column: str, function: Callable[[list[Any]], Any], empty: Any = None) -> Callable[[Rows], Any]:
    """Return a function of the values of a column, and what it returns where there are none."""

    def right(rows: Rows) -> Any:
        values = [row[column] for row in rows if row[column] is not None]
        return function(values) if values else empty

    return right


def _counts(values: list[Any]) -> list[dict[str, Any]]:
    found = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"value": value, "count": count} for value, count in found]


def _per_shop(rows: Rows) -> list[dict[str, Any]] | None:
    shops = sorted({row["shop"] for row in rows if row["amount"] is not None})
    total = _of("amount", math.fsum)
    return [{"key": shop, "value": total([row for row in rows if row["shop"] == shop])} for shop in shops] or None


_distinct_items = _of("item", lambda values: len(set(values)), 0)
_median = _of("amount", lambda values: float(np.median(values)))
COSTS = {
    "Sum": Cost(Sum("amount", over=OVER), _of("amount", math.fsum), None),
    "CountDistinct of 5,000": Cost(CountDistinct("item", over=OVER), _distinct_items),
    "ApproxCountDistinct of 5,000": Cost(ApproxCountDistinct("item", over=OVER), _distinct_items),
    "CountDistinct of 20 texts": Cost(
        CountDistinct("shop", over=OVER), _of("shop", lambda values: len(set(values)), 0)
    ),
    "Quantile": Cost(Quantile("amount", 0.5, over=OVER), _median),
    "ApproxQuantile": Cost(ApproxQuantile("amount", 0.5, over=OVER), _median),
    "MostFrequent of 20 texts": Cost(
        MostFrequent("shop", over=OVER), _of("shop", lambda values: [_counts(values)[0]["value"]])
    ),
    "Sum by 20 texts": Cost(Sum("amount", over=OVER, by="shop"), _per_shop),
    "Histogram of 20 texts": Cost(Histogram("shop", over=OVER), _of("shop", _counts)),
}


def measure_all(cases: list[Case], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure case by case, and yield the updated section after each."""
    section = Section(
        "Costs of aggregations",
        "A training set with one aggregation over 1 hour, 1, 7 and 30 days, from opening the store to an Arrow table: its processor time "
        f"as a multiple of that of `Sum` in the same round. {CHECKED} moments of each answer are computed again by plain loops.",
        unit="times",
    )
    for case in cases:
        with tempfile.TemporaryDirectory(dir=root) as home:
            print(f"{case.name}: preparing", file=sys.stderr, flush=True)
            task = _prepare(case, home)
            windows = list(_windows(pq.read_table(task["events"]), pq.read_table(task["spine"])))
            for number in range(rounds):
                names = list(COSTS) if number % 2 == 0 else [*COSTS][::-1]
                outcomes = {name: _run(name, task, windows, limits) for name in names}
                unit = outcomes["Sum"].processor or math.nan
                for name in COSTS:
                    outcome = replace(outcomes[name], seconds=outcomes[name].processor / unit)
                    section.take(case.name, f"seeknal: {name}", outcome)
        for name, cost in COSTS.items():
            if cost.most is not None:
                measured = section.middle(case.name, f"seeknal: {name}")
                section.hold(f"{case.name}: {name} / Sum", cost.most, measured)
        yield section


def _run(name: str, task: dict[str, Any], windows: list[Window], limits: Limits) -> Outcome:
    """Make the training set of an aggregation, and check it."""
    answer = Path(task["home"]).with_name("answer.arrow")
    more = {"aggregation": to_json(COSTS[name].aggregation), "answer": str(answer)}
    outcome = measure.run(Worker("seeknal", "windows_costs"), {**task, **more}, limits)
    return outcome if outcome.failure else replace(outcome, failure=_difference(name, windows, answer))


def _prepare(case: Case, home: str) -> dict[str, Any]:
    """Write events and spine, and return the task.

    Raises:
        RuntimeError: The events could not be stored.
    """
    chance = np.random.default_rng(case.keys)
    instants = pa.timestamp("us", "UTC")
    amount = np.round(chance.gamma(2, 20, case.events), 2)
    shops = pa.array([f"shop {number}" for number in range(20)])
    events = {
        "user_id": chance.integers(0, case.keys, case.events),
        "at": pa.array(np.sort(START + chance.integers(0, YEAR, case.events)), instants),
        "amount": pa.array(amount, mask=chance.random(case.events) < 0.02),  # noqa: PLR2004 - the share of nulls
        "shop": shops.take(pa.array(chance.integers(0, len(shops), case.events))),
        "item": chance.integers(0, 5_000, case.events),
    }
    spine = {
        "user_id": chance.integers(0, case.keys, case.spine),
        "at": pa.array(START + chance.integers(YEAR // 12, YEAR, case.spine), instants),
    }
    places = {name: f"{home}/{name}.parquet" for name in ("events", "spine")}
    pq.write_table(pa.table(events), places["events"])
    pq.write_table(pa.table(spine), places["spine"])
    task: dict[str, Any] = {"home": f"{home}/home", **places}
    stored = measure.run(Worker("seeknal", "windows_costs"), {**task, "job": "store"}, Limits(16, 1200))
    if stored.failure:
        raise RuntimeError(stored.failure)
    return {**task, "job": "windows"}


def _windows(events: pa.Table, spine: pa.Table) -> Iterator[Window]:
    """Go through the windows of the spine's first rows."""
    whose, at = events["user_id"].to_numpy(), events["at"].cast(pa.int64()).to_numpy()
    moments = spine["at"].cast(pa.int64()).to_pylist()[:CHECKED]
    for row, (user, moment) in enumerate(zip(spine["user_id"].to_pylist(), moments, strict=False)):
        mine = np.flatnonzero((whose == user) & (at <= moment))
        for name, length in LENGTHS.items():
            yield row, name, events.take(pa.array(mine[at[mine] > moment - length])).to_pylist()


def _difference(name: str, windows: list[Window], answer: Path) -> str:
    """Return how an answer differs from plain loops; empty if it does not."""
    found = pa.ipc.open_file(answer.read_bytes()).read_all()
    near = 0.004 if name.startswith("Approx") else 1e-9
    for row, length, events in windows:
        have, want = found[f"x_{length}"][row].as_py(), COSTS[name].right(events)
        if not _alike(have, want, near):
            return f"wrong: {have} instead of {want}"
    return ""


def _alike(have: Any, want: Any, near: float) -> bool:
    if isinstance(have, list) and isinstance(want, list):
        return len(have) == len(want) and all(_alike(*pair, near) for pair in zip(have, want, strict=True))
    if isinstance(have, dict) and isinstance(want, dict):
        return have.keys() == want.keys() and all(_alike(have[key], want[key], near) for key in have)
    is_float = isinstance(have, float) and isinstance(want, float)
    return math.isclose(have, want, rel_tol=near) if is_float else have == want
