"""Check that memory limits hold: large joins under several limits, compared with bare SQL under the same limits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import joins
from measure import Limits, Worker
from report import Section

_LIMITS = {"500MB": 500, "1GB": 1000, "2GB": 2000}
_ELSE = 300


def measure_all(cases: list[joins.Join], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure case by case and limit by limit, and yield the updated section after each."""
    section = Section(
        "Memory limits",
        f"The joins of {' and '.join(case.name for case in cases)}, with `FeatureStore(memory_limit=...)` and DuckDB's "
        f"`memory_limit`. Some {_ELSE} MB are taken by the libraries, the spine and the answer, whatever the limit.",
    )
    for case in cases:
        with tempfile.TemporaryDirectory(dir=root) as home:
            task, right = joins.prepare(case, root, home)
            for limit, megabytes in _LIMITS.items():
                name = limit if case.kind == "plain" else f"{limit}, {case.kind}"
                workers = [_limited(worker, limit) for worker in (joins.OURS, joins.BARE)]
                joins.measure_in_turn(section, name, workers, task, joins.against(right), rounds, limits)
                peak = section.had(name, joins.OURS.name)
                section.hold(f"{name}: peak / limit and {_ELSE} MB", 1, peak / (megabytes + _ELSE))
                yield section


def _limited(worker: Worker, limit: str) -> Worker:
    return replace(worker, options={**worker.options, "limit": limit})
