"""The command that imports a repository of Feast, and compares both stores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, check_pairs
from seeknal.errors import DataError, DefinitionError
from seeknal.system.progress import working

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.feast.comparing import Compared
    from seeknal.feast.importing import Imported
    from seeknal.feast.plan import LeftOut, Plan

Repo = Annotated[Path, typer.Argument(metavar="REPO", parser=Path, help="The folder with feature_store.yaml.")]
Python = Annotated[str | None, typer.Option(help="The Python that has Feast; by default the one that runs Seeknal.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="The project; by default named as in Feast.")]
Functions = Annotated[Path, typer.Option(parser=Path, help="The module to write the request features to.")]
Data = Annotated[
    list[str] | None,
    typer.Option(metavar="VIEW=FILE", help="Parquet with the rows of a view that Seeknal cannot read."),
]
Spine = Annotated[Path | None, typer.Option(parser=Path, help="The rows to compare; by default made from the data.")]
DateCol = Annotated[str, typer.Option(help="The spine's column with the moments.")]
Compare = Annotated[bool, typer.Option("--compare/--no-compare", help="Compare both stores.")]
Online = Annotated[bool, typer.Option("--online/--no-online", help="Serve, and compare what is served.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the rows of groups that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be imported, and store nothing.")]


def import_feast(  # noqa: PLR0913 - each is an option
    repo: Repo,
    *,
    python: Python = None,
    project: Project = None,
    functions: Functions = Path("features_from_feast.py"),
    data: Data = None,
    spine: Spine = None,
    date_col: DateCol = "event_timestamp",
    compare: Compare = True,
    online: Online = True,
    replace: Replace = False,
    dry_run: DryRun = False,
    form: AsFormat = Format.table,
) -> None:
    """Import the views, services and functions of a Feast repository with their rows, and compare both stores.

    Feast runs in a Python of its own, and nothing in the repository is changed. Import only a repository whose code you trust:
    reading its registry runs code.
    Exit code 1 if a value differs and the reason was not found, or a comparison failed.
    """
    from seeknal.feast import importing, plan
    from seeknal.feast.comparing import compare as compare_stores
    from seeknal.feast.process import Feast
    from seeknal.feast.units import units_of
    from seeknal.home import session

    files = dict(one.split("=", 1) for one in check_pairs(data or []))
    with tempfile.TemporaryDirectory() as scratch, working(f"Reading {repo}") as on_progress:
        feast = Feast(repo, Path(scratch), python)
        described = feast.describe()
        if unknown := files.keys() - {one.name for one in described.views}:
            raise DefinitionError(f"--data names {', '.join(sorted(unknown))}, which the repository does not have.")
        planned = plan.make(described, feast.repo, project or described.project, files)
        asked = None if spine is None else _read_spine(spine, date_col)
        about = {"feast": described.feast, "repository": str(feast.repo), "project": planned.project}
        if dry_run:
            render.record(
                {**about, "would_import": _planned(planned), "not_imported": _left_out(planned.left_out)}, form
            )
            return
        store = session.store()
        made = importing.carry_out(planned, store, functions, replace_rows=replace, on_progress=on_progress)
        units = list(units_of(planned, made)) if compare else []
        served = online and described.has_local_online_store
        compared = compare_stores(feast, store, units, given=asked, online=served, on_progress=on_progress)
    about["functions"] = str(made.functions) if made.functions else ""
    about["notes"] = " ".join(_notes(made, compared=compare and online, served=served))
    told = {**about, "imported": _imported(planned, made), "not_imported": _left_out(made.left_out)}
    render.record(told | _compared(compared, form), form)
    if not all(one.is_explained for one in compared):
        raise typer.Exit(1)


def _read_spine(file: Path, date_col: str) -> pa.Table:
    """Return a spine with its moments in the column event_timestamp, in microseconds.

    Raises:
        DefinitionError: It has no such column, or no times in it.
        DataError: It cannot be read, or a moment is missing.
    """
    import pyarrow as pa

    from seeknal.feast.spines import MOMENT
    from seeknal.values import frames

    table = frames.to_arrow(file)
    if date_col not in table.column_names:
        raise DefinitionError(f"{file} has no column {date_col!r}. Pass --date-col with the column of the moments.")
    try:
        moments = table[date_col].cast(pa.timestamp("us", "UTC"), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DefinitionError(f"{date_col} of {file} is {table[date_col].type}, which are no times.") from None
    if moments.null_count:
        raise DataError(f"{date_col} of {file} has rows without a time, for which Feast has no answer. Leave them out.")
    others = [name for name in table.column_names if name not in (date_col, MOMENT)]
    return table.select(others).append_column(MOMENT, moments)


def _planned(plan: Plan) -> list[dict[str, Any]]:
    groups = [{"from": f"feature view {name}", "to": f"group {one.label}"} for name, one in plan.groups.items()]
    functions = [
        {"from": f"on-demand feature view {name}", "to": f"request feature {one.name}"}
        for name, one in plan.functions.items()
    ]
    views = [{"from": f"feature service {name}", "to": f"feature view {plan.project}/{name}"} for name in plan.views]
    return [*groups, *functions, *views]


def _imported(plan: Plan, made: Imported) -> list[dict[str, Any]]:
    used = {one.view.name for name in made.views for one in plan.views[name].functions}
    kept: dict[str, int | None] = {f"feature view {name}": rows for name, rows in made.groups.items()}
    kept |= {f"on-demand feature view {name}": None for name in used}
    kept |= {f"feature service {name}": None for name in made.views}
    return [{**line, "rows": kept[line["from"]]} for line in _planned(plan) if line["from"] in kept]


def _left_out(left_out: Sequence[LeftOut]) -> list[dict[str, Any]]:
    return [{"what": f"{one.kind} {one.name}", "why": one.reason, "instead": one.instead} for one in left_out]


def _notes(made: Imported, *, compared: bool, served: bool) -> Iterator[str]:
    if made.functions:
        yield f'Add modules = ["{made.functions.stem}"] to seeknal.toml, so that commands and the server find the functions.'
    if compared and not served:
        yield "What is served was not compared, since Feast's registry or online store is no local file."


def _compared(compared: list[Compared], form: Format) -> dict[str, Any]:
    """Return the outcome of the comparison: for people each reason with an example, for programs each value."""
    counts = [
        {
            "what": one.unit,
            "when": one.kind,
            "rows": one.rows,
            "values": one.values,
            "differ": len(one.differences),
            "note": one.note,
        }
        for one in compared
    ]
    lines = [
        {
            "what": one.unit,
            "when": one.kind,
            "of": f"{one.keys} at {one.moment}" if one.kind == "past" else one.keys,
            "feature": one.feature or "",
            "feast": one.feast,
            "seeknal": one.seeknal,
            "why": one.why,
        }
        for each in compared
        for one in each.differences
    ]
    if form is not Format.table:
        return {"compared": counts, "differences": lines}
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in lines:
        found = first.setdefault((line["what"], line["when"], line["why"]), {"count": 0, **line})
        found["count"] += 1
    return {"compared": counts, "differences": list(first.values())}
