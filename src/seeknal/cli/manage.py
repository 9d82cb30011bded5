"""Commands that make, clean and delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, Group, InProject, Table, Yes
from seeknal.errors import DefinitionError

delete_app = typer.Typer(help="Delete one thing.", no_args_is_help=True)

_TOML = """\
# Settings of this Seeknal project. Its data is in the folder .seeknal beside this file.

# home = ".seeknal"
# memory_limit = "4GB"     # most memory a query may take; half of the machine's without it
# lookback_days = 365      # a write that reaches back further before its rows gives a notice
"""


def init(form: AsFormat = Format.table) -> None:
    """Make this folder a project: feature stores used in it and below it are kept here."""
    from seeknal.config import FILE

    file = Path.cwd() / FILE
    if file.exists():
        raise DefinitionError(f"{file} is there already. This folder is a project.")
    file.write_text(_TOML, encoding="utf-8")
    render.record({"settings": str(file), "home": str(file.parent / ".seeknal")}, form)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo's project goes.")] = Path("seeknal-demo"),
) -> None:
    """Run the whole story on real data: a year of flights from New York, and the weather at its airports."""
    from seeknal.demo import run

    run(folder, render.stdout)


@delete_app.command("feature-group")
def delete_feature_group(
    name: Group, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table
) -> None:
    """Delete a feature group: its rows, its versions, and what of it is online."""
    from seeknal import session

    store = session.store()
    record = store.catalog.group(name, project)
    render.confirm(f"Delete feature group {record.label} with all its rows and versions?", yes)
    with render.working(f"Deleting {record.label}"):
        store.delete_group(name, record.project)
    render.record({"deleted": record.label}, form)


def delete_table(name: Table, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete an online table. The feature groups behind it stay."""
    from seeknal import session

    store = session.store()
    table = store.catalog.online_table(name, project)
    render.confirm(f"Delete online table {table.label}?", yes)
    store.delete_table(name, table.project)
    render.record({"deleted": f"{table.label}"}, form)


def clean(
    group: Group,
    before: Annotated[str | None, typer.Option("--before", help="Remove rows older than this, as 2024-01-31.")] = None,
    ttl: Annotated[
        int | None, typer.Option("--ttl", min=1, metavar="DAYS", help="Remove rows older than so long.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    project: InProject = None,
    yes: Yes = False,
    form: AsFormat = Format.table,
) -> None:
    """Remove old rows from the current version of a feature group. Older snapshots keep theirs."""
    from seeknal import session
    from seeknal.times import instant, now, show

    if (before is None) == (ttl is None):
        raise typer.BadParameter("Say either --before DATE or --ttl DAYS.")
    limit = instant(before) if before is not None else now() - (ttl or 0) * 86_400_000_000
    store = session.store()
    record = store.catalog.group(group, project)
    with render.working(f"Counting old rows of {record.label}"):
        count = store.clean(group, limit, record.project, dry_run=True)
    if not dry_run and count:
        render.confirm(f"Remove {count:,} rows of {record.label} that are older than {show(limit)}?", yes)
        with render.working(f"Cleaning {record.label}"):
            count = store.clean(group, limit, record.project)
    done = "would_be_removed" if dry_run else "removed"
    render.record({"feature_group": record.label, "before": show(limit), done: count}, form)
