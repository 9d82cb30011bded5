"""Training sets: point-in-time joins of all kinds, compared with the best SQL and the peers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
import measure
import numpy as np
import oracle
import pyarrow as pa
from measure import Limits, Outcome, Worker
from report import Section

Right = tuple[data.Made, list[tuple[data.Made, np.ndarray, dict[str, str]]]]
Check = Callable[[pa.Table], oracle.Verdict]
_K, _M = 1_000, 1_000_000


@dataclass(frozen=True)
class Join:
    """A case: the rows of one or more groups, a spine, and their special features."""

    rows: int
    keys: int
    spine: int
    groups: int = 1
    kind: str = "plain"

    @property
    def name(self) -> str:
        """The name of the case in the report."""
        size = f"{_short(self.rows)} x {_short(self.keys)}, spine {_short(self.spine)}"
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return size + groups + ("" if self.kind == "plain" else f", {self.kind}")

    @property
    def ttl(self) -> int | None:
        """The ttl in microseconds."""
        return 7 * data.DAY if self.kind == "ttl" else None


QUICK = [
    Join(100 * _K, 10 * _K, 10 * _K),
    Join(100 * _K, 10 * _K, 100 * _K),
    Join(100 * _K, 10 * _K, 100 * _K, 2),
    *(Join(100 * _K, 10 * _K, 100 * _K, kind=kind) for kind in ("ties", "text")),
    Join(_M, 100 * _K, 100 * _K),
]
FULL = [
    *(Join(100 * _K, 10 * _K, count) for count in (10, _K)),
    *(Join(_M, 100 * _K, count) for count in (10, _K)),
    Join(_M, 100 * _K, 10 * _K),
    Join(_M, 100 * _K, _M),
    Join(_M, 10 * _K, _M),
    Join(10 * _M, _M, 10 * _K),
    Join(10 * _M, _M, _M),
    Join(10 * _M, _M, 10 * _M),
    *(Join(_M, 100 * _K, _M, groups) for groups in (2, 5, 20)),
    *(Join(_M, 100 * _K, _M, kind=kind) for kind in ("ttl", "ties", "composite", "text", "skewed", "sorted", "wide")),
]

BARE, PRUNED = Worker("SQL, bare", "sql", {"how": "bare"}), Worker("SQL, pruned", "sql", {"how": "pruned"})
OURS = Worker("seeknal", "ours", {"how": "arrow"})
SECOND = Worker("seeknal, second join of the process", "ours", {"how": "second"})
CONVERTED = Worker("seeknal, Arrow and conversion", "ours", {"how": "converted"})
IN_PANDAS = Worker("seeknal, pandas", "ours", {"how": "pandas"})
SINGLY = Worker("seeknal, group by group", "ours", {"how": "singly", "answer": None})
PEERS = {
    "feast": Worker("Feast", "feast_store", peer="feast"),
    "upstream": Worker("upstream Seeknal", "upstream_store", peer="upstream"),
    "polars": Worker("Polars", "polars_asof", peer="polars"),
    "pandas": Worker("pandas", "pandas_asof", peer="pandas"),
    "pyspark": Worker("PySpark", "spark", {"family": True, "had": None}, "pyspark"),
}


def measure_all(cases: list[Join], peers: list[str], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure case by case, and yield the updated section after each."""
    section = Section(
        "Training sets",
        "Rows x keys of a group of ten features, and a spine. Seeknal is timed from opening the store, with an Arrow spine "
        "in memory, to an Arrow table; SQL reads the same Parquet files; the peers read the same rows from one Parquet file.",
    )
    for case in cases:
        with tempfile.TemporaryDirectory(dir=root) as home:
            task, right = prepare(case, root, home)
            workers = [
                OURS,
                BARE,
                PRUNED,
                *([SECOND, CONVERTED, IN_PANDAS] if case.kind == "plain" else []),
                *([SINGLY] if case.groups > 1 else []),
            ]
            workers += [PEERS[peer] for peer in peers if _ready(section, case, peer, task)]
            measure_in_turn(section, case.name, workers, task, against(right), rounds, limits)
        _targets(section, case)
        yield section


def prepare(case: Join, root: Path, home: str) -> tuple[dict[str, Any], Right]:
    """Create rows and spine, write the groups, and return the task and the expected result."""
    kind = case.kind if case.kind in {"ties", "composite", "text", "skewed", "wide"} else "plain"
    print(f"{case.name}: preparing", file=sys.stderr, flush=True)
    made = [data.rows(root, case.rows, case.keys, kind=kind, seed=seed + 1) for seed in range(case.groups)]
    spine_kind = case.kind if case.kind in {"ties", "composite", "text", "skewed", "sorted"} else "plain"
    spine = data.spine(root, case.spine, case.keys, kind=spine_kind)
    groups = [
        {
            "name": f"group_{number}",
            "file": str(one.file),
            "features": one.features[::40] if kind == "wide" else one.features,
            "prefix": f"g{number}_" if case.groups > 1 else "",
            "keys": {key: key for key in one.keys},
        }
        for number, one in enumerate(made)
    ]
    task = {"home": home, "ttl": case.ttl, "ties": kind == "ties", "groups": groups}
    store(task)
    names = [{feature: f"{group['prefix']}{feature}" for feature in group["features"]} for group in groups]
    winners = [oracle.winners(one, spine, case.ttl) for one in made]
    expected = list(zip(made, winners, names, strict=True))
    return {**task, "job": "join", "spine": str(spine.file)}, (spine, expected)


def store(task: dict[str, Any]) -> None:
    """Write the groups of a task to its home, and record the files that contain them.

    Raises:
        RuntimeError: They could not be written.
    """
    stored = measure.run(Worker("seeknal", "ours"), {**task, "job": "store"}, Limits(16, 1200))
    if stored.failure:
        raise RuntimeError(stored.failure)
    for group in task["groups"]:
        group["files"] = stored.more["files"][group["name"]]


def _ready(section: Section, case: Join, peer: str, task: dict[str, Any]) -> bool:
    """Let a peer with its own storage store the rows; record it if it cannot."""
    if peer not in {"feast", "upstream"}:
        return True
    stored = measure.run(PEERS[peer], {**task, "job": "store"}, Limits(16, 1200))
    if stored.failure:
        section.row(case.name, PEERS[peer].name).note(f"could not store the rows: {stored.failure}")
    return not stored.failure


def against(right: Right) -> Check:
    """Return the comparison of results with the expected one."""
    return lambda answer: oracle.check(answer, *right)


def measure_in_turn(
    section: Section,
    case: str,
    workers: list[Worker],
    task: dict[str, Any],
    check: Check,
    rounds: int,
    limits: Limits,
) -> None:
    """Let the workers do one task in turn, forwards and backwards, and check each result.

    A worker that fails does not run again, nor one whose runs together took as long as a single run may take.
    """
    given_up: set[str] = set()
    for number in range(rounds):
        for worker in workers if number % 2 == 0 else workers[::-1]:
            if worker.name in given_up:
                continue
            answer = Path(task["home"]) / "answer.arrow"
            outcome = measure.run(
                worker, {"answer": str(answer), "had": section.had(case, worker.name), **task}, limits
            )
            verdict = _verdict(outcome, None if worker is SINGLY else answer, check)
            section.take(case, worker.name, outcome, verdict.wrong)
            section.row(case, worker.name).note("" if verdict.in_order else "loses the order")
            row = section.row(case, worker.name)
            if verdict.wrong or sum(row.values) > limits.seconds:
                given_up.add(worker.name)
                row.note(f"{number + 1} rounds" if row.values and number + 1 < rounds else "")


def _verdict(outcome: Outcome, answer: Path | None, check: Check) -> oracle.Verdict:
    if outcome.failure or not answer:
        return oracle.Verdict(outcome.failure)
    if not answer.exists():
        return oracle.Verdict("wrong: no answer")
    with pa.memory_map(str(answer)) as file:
        verdict = check(pa.ipc.open_file(file).read_all())
    answer.unlink()
    return oracle.Verdict(f"wrong: {verdict.wrong}", verdict.in_order) if verdict.wrong else verdict


def _targets(section: Section, case: Join) -> None:
    ours, best = section.middle(case.name, OURS.name), section.middle(case.name, BARE.name, PRUNED.name)
    section.hold(f"{case.name}: seeknal / best SQL", 1.1 if case.spine <= 10 * _K else 1.15, ours / best)
    if case.spine <= 10 * _K:
        second = section.middle(case.name, SECOND.name)
        section.hold(f"{case.name}: second join of the process / best SQL", 0.6, second / best)
    pandas, converted = (section.middle(case.name, one.name) for one in (IN_PANDAS, CONVERTED))
    section.hold(f"{case.name}: pandas / Arrow and conversion", 1.25, pandas / converted)
    section.hold(f"{case.name}: seeknal / group by group", 1.2, ours / section.middle(case.name, SINGLY.name))
    if case.spine == _M:
        memory = section.memory(case.name, OURS.name)
        section.hold(f"{case.name}: peak / bare SQL's", 1.3, memory / section.memory(case.name, BARE.name))
    for peer in ("feast", "upstream"):
        theirs = section.middle(case.name, PEERS[peer].name)
        faster = {(_M, _M): 20, (10 * _M, _M): 8}.get((case.rows, case.spine), 1)
        if peer == "feast" or faster > 1:
            section.hold(f"{case.name}: seeknal / {PEERS[peer].name}", 1 / faster, ours / theirs)
        if (case.rows, case.spine) == (10 * _M, _M):
            taken = section.memory(case.name, OURS.name) / section.memory(case.name, PEERS[peer].name)
            section.hold(f"{case.name}: peak / {PEERS[peer].name}'s", 0.2, taken)


def _short(count: int) -> str:
    return f"{count // _M}M" if count >= _M else f"{count // _K}k" if count >= _K else str(count)
