"""Writes in each mode, compared with a bare Parquet file; many small writes, and their effect on reads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
import joins
import measure
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from measure import Limits, Outcome, Worker
from report import Section

_OURS, _COPY = Worker("seeknal", "ours"), Worker("bare Parquet copy", "sql", {"job": "copy"})
_UPSTREAM = Worker("upstream Seeknal", "upstream_store", peer="upstream")
_MIDDLE = data.START + 45 * data.DAY
_DAY = (_MIDDLE, _MIDDLE + data.DAY - 1)
_GROUP = "group_0"
_ABOUT = (
    "A group of ten features over 90 days, written from an Arrow table in memory. The bare copy writes the same new rows to one "
    "Parquet file with DuckDB, compressed alike. What is stored afterwards is compared with what must be there."
)


def task_of(home: str | Path, made: data.Made) -> dict[str, Any]:
    """Return the fields that all tasks on one group share."""
    group = {
        "name": _GROUP,
        "file": str(made.file),
        "features": made.features,
        "prefix": "",
        "keys": {"person_id": "person_id"},
    }
    return {"home": str(home), "ttl": None, "ties": False, "groups": [group]}


def measure_all(counts: list[int], peers: list[str], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure each mode on groups of the given sizes, and yield the updated section after each size."""
    section = Section("Writes", _ABOUT)
    for count in counts:
        base = data.rows(root, count, count // 10)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            _modes(section, base, peers, rounds, Path(folder), limits)
        yield section


def _modes(section: Section, base: data.Made, peers: list[str], rounds: int, folder: Path, limits: Limits) -> None:
    table = pq.read_table(base.file)
    count, prepared = len(table), folder / "prepared"
    joins.store(task_of(prepared, base))
    if "upstream" in peers:
        measure.run(_UPSTREAM, {**task_of(prepared, base), "job": "store"}, Limits(16, 1200))
    for case in _cases(table):
        pq.write_table(case.new, folder / "new.parquet")
        workers = [_OURS, _COPY, *([_UPSTREAM] if "upstream" in peers and case.name != "first write" else [])]
        name = f"{case.name}, {count:,} rows and {len(case.new):,} new"
        for number in range(rounds):
            for worker in list(workers) if number % 2 == 0 else workers[::-1]:
                task = {**task_of(folder / "home", base), "had": section.had(name, worker.name)}
                outcome = _once(worker, case, task, limits)
                section.take(name, worker.name, outcome)
                workers = [one for one in workers if one is not worker or not outcome.failure]
        bare = section.middle(name, _OURS.name) / section.middle(name, _COPY.name)
        if case.mode == "append":
            section.hold(f"{name}: seeknal / bare copy", 1 / 0.6, bare)


def _once(worker: Worker, case: _Case, task: dict[str, Any], limits: Limits) -> Outcome:
    """Write to a copy of the home, and check what is stored."""
    home = Path(task["home"])
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    if case.name != "first write":
        shutil.copytree(home.parent / "prepared", home, dirs_exist_ok=True)
    task |= {"job": "write", "mode": case.mode, "interval": case.interval, "rows": str(home.parent / "new.parquet")}
    outcome = measure.run(worker, task, limits)
    return outcome if outcome.failure else replace(outcome, failure=_fault(worker, home, case.rows))


@dataclass(frozen=True)
class _Case:
    """A write: its name, mode and interval, the new rows, and the old rows that must stay."""

    name: str
    mode: str
    new: pa.Table
    kept: pa.Table
    interval: tuple[int | None, int | None] = (None, None)

    @property
    def rows(self) -> pa.Table:
        """All rows that must be stored, sorted by their first feature, which is unique."""
        return pa.concat_tables([self.kept, self.new]).sort_by("share_0")


def _cases(table: pa.Table) -> Iterator[_Case]:
    other = table.set_column(2, "share_0", pa.array(np.random.default_rng(5).random(len(table))))
    times = pc.cast(pc.add(pc.cast(table["seen_at"], pa.int64()), 90 * data.DAY), table.schema.field("seen_at").type)
    later, nothing, few = other.set_column(1, "seen_at", times), table.slice(0, 0), len(table) // 20
    that_day = _inside(table, _DAY)
    yield _Case("first write", "append", table, nothing)
    yield _Case("append", "append", later, table)
    yield _Case("overwrite all", "overwrite", other, nothing)
    yield _Case("overwrite a day", "overwrite", other.filter(that_day), table.filter(pc.invert(that_day)), _DAY)
    both = pa.concat_tables([other.slice(0, few), later.slice(0, few)])
    yield _Case("merge", "merge", both, table.slice(few))


def _inside(table: pa.Table, interval: tuple[int, int]) -> pa.ChunkedArray:
    times = table["seen_at"].cast(pa.int64())
    return pc.and_(pc.greater_equal(times, interval[0]), pc.less_equal(times, interval[1]))


def stored(home: Path) -> list[str]:
    """Return the files of the group, as its open table lists them."""
    return DeltaTable(str(home / "offline" / "bench" / _GROUP)).file_uris()


def _fault(worker: Worker, home: Path, expected: pa.Table) -> str:
    """Return what is wrong with the stored rows; empty if nothing is."""
    if worker is _COPY:
        return ""
    files = stored(home) if worker is _OURS else sorted((home / "upstream").rglob("*.parquet"))
    tables = [pq.read_table(file, columns=expected.column_names, partitioning=None) for file in files]
    found = pa.concat_tables(table.cast(expected.schema) for table in tables).sort_by("share_0")
    if len(found) != len(expected):
        return f"wrong: {len(found):,} rows instead of {len(expected):,}"
    return "" if found.equals(expected) else "wrong: other values"


def measure_small(count: int, writes: int, rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Measure many small writes, and reads of the result compared with reads of the same rows after compaction."""
    section = Section(
        "Many small writes", f"{writes:,} appends of 100 rows to a group of {count:,}, then training sets from it."
    )
    base, few = data.rows(root, count, count // 10), data.rows(root, writes * 100, count // 10, seed=77)
    together = pa.concat_tables([pq.read_table(one.file) for one in (base, few)])
    codes = np.concatenate([base.codes, few.codes])
    every = data.keep(root / f"rows-small-{count}-{writes}", together, codes, base.keys, base.features)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        scattered, compact = Path(folder) / "scattered", Path(folder) / "compact"
        joins.store(task_of(scattered, base))
        task = {**task_of(scattered, base), "job": "trickle", "rows": str(few.file), "size": 100}
        outcome = measure.run(_OURS, task, Limits(limits.memory, 1200))
        section.take("all of them", "seeknal", outcome)
        section.add("each", "seeknal", outcome.seconds / writes, outcome.failure)
        shutil.copytree(scattered, compact)
        outcome = measure.run(_OURS, {**task_of(compact, base), "job": "optimize"}, limits)
        section.take("optimize", "seeknal", outcome)
        yield section
        for moments in (10_000, count):
            _read_both(
                section,
                {"scattered": scattered, "compact": compact},
                every,
                data.spine(root, moments, count // 10),
                rounds,
            )
            yield section


def _read_both(section: Section, homes: dict[str, Path], every: data.Made, spine: data.Made, rounds: int) -> None:
    expected = [(every, oracle.winners(every, spine), {name: name for name in every.features})]
    case = f"spine {len(spine.codes):,}"
    for number in range(rounds):
        for name, home in list(homes.items())[:: 1 if number % 2 == 0 else -1]:
            task = {**task_of(home, every), "job": "join", "spine": str(spine.file)}
            worker = Worker(f"seeknal, {name}", "ours", {"how": "arrow"})
            joins.measure_in_turn(section, case, [worker], task, joins.against((spine, expected)), 1, Limits())
    slower = section.middle(case, "seeknal, scattered") / section.middle(case, "seeknal, compact")
    section.hold(f"{case}: scattered / compact", 1.5, slower)
