"""The measurements, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from measure import Outcome


@dataclass
class Row:
    """The figures of one participant for one case, one per round.

    Args:
        case: The case.
        who: The participant.
        values: Its figures, in the section's unit.
        processor: Its CPU seconds, over all threads: steadier if others use the machine too.
        megabytes: Its peak memory.
        notes: Further notes, such as why there is no figure.
    """

    case: str
    who: str
    values: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_failed: bool = False
    """Whether a run failed or gave a wrong answer: then no figure of it counts."""

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values) if self.values else float("nan")

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text and text not in self.notes:
            self.notes.append(text)


@dataclass
class Target:
    """A target, and the measured value."""

    name: str
    most: float
    measured: float
    unit: str = "times"

    @property
    def held(self) -> bool:
        """Whether the target was reached."""
        return self.measured <= self.most


@dataclass
class Section:
    """One kind of measurement: its rows, its targets, and the meaning of its figures."""

    name: str
    about: str
    unit: str = "s"
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def had(self, case: str, who: str) -> float:
        """Return the peak memory of a participant in a case so far, in MB."""
        return max(self.row(case, who).megabytes, default=0)

    def row(self, case: str, who: str) -> Row:
        """Return a participant's row for a case; it is created if there is none."""
        for row in self.rows:
            if (row.case, row.who) == (case, who):
                return row
        self.rows.append(Row(case, who))
        return self.rows[-1]

    def add(self, case: str, who: str, value: float, failure: str = "") -> None:
        """Record one figure, or why there is none, and print it. If Seeknal has none, a target is missed."""
        row = self.row(case, who)
        row.note(failure)
        if failure and not row.has_failed and who.startswith("seeknal"):
            self.hold(f"{case}: {who}, failures", 0, 1)
        row.has_failed = row.has_failed or bool(failure)
        row.values = [] if row.has_failed else [*row.values, value]
        memory = f", {row.megabytes[-1]:,.0f} MB" if row.megabytes else ""
        told = failure or f"{value:,.4g} {self.unit}"
        print(f"{self.name}: {case}: {who}: {told}{memory}", file=sys.stderr, flush=True)

    def take(self, case: str, who: str, outcome: Outcome, failure: str = "") -> None:
        """Record the time of a run, or why it failed."""
        row = self.row(case, who)
        if outcome.megabytes:
            row.megabytes.append(outcome.megabytes)
        if outcome.processor:
            row.processor.append(outcome.processor)
        self.add(case, who, outcome.seconds, outcome.failure or failure)

    def middle(self, case: str, *who: str) -> float:
        """Return the lowest median of some participants; NaN if none has one."""
        found = [row.middle for row in self.rows if row.case == case and row.who in who and row.values]
        return min(found, default=float("nan"))

    def memory(self, case: str, *who: str) -> float:
        """Return the lowest median peak memory of some participants."""
        found = [median(row.megabytes) for row in self.rows if row.case == case and row.who in who and row.values]
        return min(found, default=float("nan"))

    def hold(self, name: str, most: float, measured: float, unit: str = "times") -> None:
        """Compare a value with a target, unless nothing was measured."""
        if measured == measured:  # noqa: PLR0124 - not a number is not itself
            self.targets.append(Target(name, most, measured, unit))


def commit() -> str:
    """Return the current commit, and whether files differ from it; empty without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return {"processor": model, "cores": os.cpu_count(), "memory_gb": round(memory, 1), "system": system}


def write(folder: Path, sections: list[Section], versions: dict[str, dict[str, str]], began: str) -> None:
    """Write `report.md` and `report.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {
        "began": began,
        "command": shlex.join(["python", *sys.argv]),
        "python": platform.python_version(),
        "commit": commit(),
    }
    told = {**head, "machine": machine(), "versions": versions, "sections": [_told(section) for section in sections]}
    (folder / "report.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    lines = [*_head(head, versions), *(line for section in sections for line in _lines(section))]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(section: Section) -> dict[str, Any]:
    told = asdict(section)
    for row, one in zip(told["rows"], section.rows, strict=True):
        row["median"] = one.middle if one.values else None
    for target, goal in zip(told["targets"], section.targets, strict=True):
        target["held"] = goal.held
    return told


def _head(head: dict[str, str], versions: dict[str, dict[str, str]]) -> Iterator[str]:
    on = machine()
    yield "# Benchmarks\n"
    yield f"`{head['command']}`, begun {head['began']} at {head['commit']}, Python {head['python']}, on {on['cores']} cores of {on['processor']}"
    yield f"with {on['memory_gb']} GB, {on['system']}. Medians, and the least and the greatest in brackets.\n"
    for peer, found in versions.items():
        named = ("seeknal", "duckdb", "deltalake", "pyarrow", "pandas", "polars", "feast", "pyspark", "lmdb", "uvicorn")
        yield f"- {peer}: {', '.join(f'{name} {found[name]}' for name in named if name in found)}"
    yield ""


def _lines(section: Section) -> Iterator[str]:
    yield f"## {section.name}\n\n{section.about}\n"
    yield f"| case | who | {section.unit} | processor s | peak MB | |\n|---|---|--:|--:|--:|---|"
    cases = list(dict.fromkeys(row.case for row in section.rows))
    case = ""
    for row in sorted(section.rows, key=lambda one: cases.index(one.case)):
        memory = f"{median(row.megabytes):,.0f}" if row.megabytes else ""
        processor = f"{median(row.processor):,.3g}" if row.processor else ""
        yield f"| {row.case if row.case != case else ''} | {row.who} | {_spread(row)} | {processor} | {memory} | {'; '.join(row.notes)} |"
        case = row.case
    if section.targets:
        yield "\n| target | at most | measured | |\n|---|--:|--:|---|"
    for goal in section.targets:
        held = "held" if goal.held else "**missed**"
        yield f"| {goal.name} | {goal.most:,.4g} {goal.unit} | {goal.measured:,.3g} | {held} |"
    yield ""


def _spread(row: Row) -> str:
    if not row.values:
        return ""
    if len(row.values) == 1:
        return f"{row.middle:,.3g}" if row.middle < 1000 else f"{row.middle:,.0f}"  # noqa: PLR2004
    digits = 3 if row.middle < 1 else 2 if row.middle < 100 else 0  # noqa: PLR2004 - three figures that count
    return f"{row.middle:,.{digits}f} ({min(row.values):,.{digits}f}-{max(row.values):,.{digits}f})"
