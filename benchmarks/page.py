"""Insert the tables of the reports in `results/` into `docs/benchmarks.md`, between its markers.

    python benchmarks/page.py

A marker names a kind: the text between `<!-- join -->` and `<!-- end -->` is generated from `results/join/report.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import median
from typing import Any

from environments import HERE

PAGE = HERE.parent / "docs" / "benchmarks.md"
_MARK = re.compile(r"<!-- (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    """Write the page."""
    PAGE.write_text(_MARK.sub(lambda mark: _filled(mark[1]), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _filled(kind: str) -> str:
    report = HERE / "results" / kind / "report.json"
    lines = _of_report(json.loads(report.read_text(encoding="utf-8"))) if report.exists() else ["Not measured yet."]
    return "\n".join([f"<!-- {kind} -->", *lines, "<!-- end -->"])


def _of_report(report: dict[str, Any]) -> Iterator[str]:
    yield f"`{report['command']}`, begun {report['began']} at commit {report['commit']}:"
    for section in report["sections"]:
        yield from ("", *_table(section["rows"], section["unit"]))
        missed = [goal for goal in section["targets"] if not goal["held"]]
        held = len(section["targets"]) - len(missed)
        told = (f"{goal['name']}: {goal['measured']:.3g}, at most {goal['most']:.3g} {goal['unit']}" for goal in missed)
        if section["targets"]:
            yield f"\n{held} of {len(section['targets'])} targets were held." + (" Missed:\n" if missed else "")
            yield from (f"- {one}" for one in told)


def _table(rows: list[dict[str, Any]], unit: str) -> Iterator[str]:
    """Return a table with a row for each case and a column for each participant: the median, and the peak memory in GB."""
    who = list(dict.fromkeys(row["who"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    found = {(row["case"], row["who"]): row for row in rows}
    yield f"| {unit} | {' | '.join(who)} |"
    yield "|---|" + "--:|" * len(who)
    for case in cases:
        yield f"| {case} | {' | '.join(_cell(found.get((case, one))) for one in who)} |"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["median"] is None:
        return "; ".join(row["notes"])
    peak = f", {median(row['megabytes']) / 1000:.2g} GB" if row["megabytes"] else ""
    return f"{row['median']:,.3g}{peak}" if row["median"] < 1000 else f"{row['median']:,.0f}{peak}"  # noqa: PLR2004


if __name__ == "__main__":
    main()
