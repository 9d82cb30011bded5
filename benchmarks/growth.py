"""A group that has grown for two years: a small training set, appending a day, and overwriting a day."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
import writes
from measure import Limits, Worker
from report import Section

_DAYS, _MONTH, _AGAIN = 730, 30, 400
_SPINE = 10_000
_OURS = Worker("seeknal", "ours")
_WORKERS = [joins.OURS, joins.BARE, joins.PRUNED]


def measure_all(count: int, steps: list[int], rounds: int, root: Path, limits: Limits) -> Iterator[Section]:
    """Grow a group to a number of rows, in writes of a number of days each, and measure."""
    people = max(1000, count // 100)
    section = Section(
        "Growth",
        f"{count:,} rows of {people:,} people over two years, in the order of time. The spine has {_SPINE:,} rows within the "
        "last month but one.",
    )
    asked = _spine(root, people)
    rows = _rows_of(root, np.unique(asked.codes), count // _DAYS, people)
    for step in steps:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            task = writes.task_of(folder, rows) | {
                "days": _DAYS,
                "step": step,
                "a_day": count // _DAYS,
                "people": people,
            }
            name = "written day by day" if step == 1 else f"written {step} days at a time"
            outcome = measure.run(_OURS, {**task, "job": "grow"}, Limits(limits.memory, 3600))
            section.take(f"all writes, {name}", "seeknal", outcome)
            yield section
            _read(section, name, task, asked, rows, rounds)
            yield section
            _write(section, name, task, rounds)
            yield section


def _spine(root: Path, people: int) -> data.Made:
    """Return the spine of one month, moved to the last month but one."""
    made = data.spine(root, _SPINE, people, kind="plain", days=_MONTH)
    table, shift = pq.read_table(made.file), (_DAYS - 2 * _MONTH) * data.DAY
    moved = pc.cast(pc.add(pc.cast(table["at"], pa.int64()), shift), table.schema.field("at").type)
    table = table.set_column(table.column_names.index("at"), "at", moved)
    return data.keep(root / f"spine-month-{people}", table, made.codes, made.keys, [])


def _rows_of(root: Path, codes: np.ndarray, a_day: int, people: int) -> data.Made:
    """Return the rows of the spine's entities, which are all that the oracle needs."""
    tables, owners = [], []
    for number in range(_DAYS):
        whose, rows = data.day(number, a_day, people)
        asked = np.isin(whose, codes)
        owners.append(whose[asked])
        tables.append(rows.filter(pa.array(asked)))
    folder = root / f"rows-grown-{a_day}-{people}"
    return data.keep(folder, pa.concat_tables(tables), np.concatenate(owners), ["person_id"], data.FEATURES)


def _read(section: Section, name: str, task: dict[str, Any], spine: data.Made, rows: data.Made, rounds: int) -> None:
    case = f"spine {_SPINE:,} of a month, {name}"
    task["groups"][0]["files"] = writes.stored(Path(task["home"]))
    expected = [(rows, oracle.winners(rows, spine), {one: one for one in rows.features})]
    asked = {**task, "job": "join", "spine": str(spine.file)}
    joins.measure_in_turn(section, case, _WORKERS, asked, joins.against((spine, expected)), rounds, Limits())
    best = section.middle(case, joins.BARE.name, joins.PRUNED.name)
    section.hold(f"{case}: seeknal", 2, section.middle(case, "seeknal"), "s")
    section.hold(f"{case}: seeknal / best SQL", 1.15, section.middle(case, "seeknal") / best)


def _write(section: Section, name: str, task: dict[str, Any], rounds: int) -> None:
    """Overwrite one day and append another, in turn."""
    home = Path(task["home"])
    before = sum(pq.read_metadata(file).num_rows for file in writes.stored(home))
    for number in range(rounds):
        for case, day in ((f"append a day, {name}", _DAYS + number), (f"overwrite a day, {name}", _AGAIN)):
            _, rows = data.day(day, task["a_day"], task["people"], seed=100 + number)
            pq.write_table(rows, home / "new.parquet")
            start = data.START + day * data.DAY
            interval = (start, start + data.DAY - 1) if day == _AGAIN else (None, None)
            new = {"job": "write", "rows": str(home / "new.parquet"), "interval": interval}
            new["mode"] = "overwrite" if day == _AGAIN else "append"
            outcome = measure.run(_OURS, task | new)
            before += 0 if day == _AGAIN else len(rows)
            failure = outcome.failure or _fault(home, rows, start, before)
            section.take(case, "seeknal", outcome, failure)
    again, more = (section.middle(f"{what} a day, {name}", "seeknal") for what in ("overwrite", "append"))
    section.hold(f"overwrite a day / append a day, {name}", 2, again / more)


def _fault(home: Path, rows: pa.Table, start: int, count: int) -> str:
    """Return what is wrong if the table does not have these rows on that day, or another number in all."""
    files = writes.stored(home)
    found = sum(pq.read_metadata(file).num_rows for file in files)
    if found != count:
        return f"wrong: {found:,} rows instead of {count:,}"
    kind = rows.schema.field("seen_at").type
    interval = [("seen_at", ">=", pa.scalar(start, kind)), ("seen_at", "<", pa.scalar(start + data.DAY, kind))]
    there = np.concatenate(
        [pq.read_table(file, columns=["share_0"], filters=interval)["share_0"].to_numpy() for file in files]
    )
    return (
        "" if np.array_equal(np.sort(there), np.sort(rows["share_0"].to_numpy())) else "wrong: other rows on that day"
    )
