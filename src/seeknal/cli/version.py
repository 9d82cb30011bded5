"""Commands for the versions of a feature group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, Group, InProject
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore

app = typer.Typer(help="Versions of a feature group: each is a schema, with the rows as of its last write.")


@app.command("list")
def list_versions(
    group: Group,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", "-l", min=1, help="Only this many, the newest ones.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """List the versions of a feature group, oldest first."""
    from seeknal.home import session

    versions = session.existing().groups.versions(group, project=project)
    records = [
        {
            "version": version.number,
            "created": render.when(version.created_at),
            "features": sum(role == "feature" for _, _, role in version.columns),
            "rows": version.rows,
            "last_write": render.when(version.written_at),
            "current": version.is_current,
        }
        for version in (versions if limit is None else versions[-limit:])
    ]
    render.rows(records, form, empty=f"Nothing was written to {group} yet.")


@app.command("show")
def show_version(
    group: Group,
    number: Annotated[
        int | None, typer.Option("--version", "-v", help="The version; by default the current one.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show one version of a feature group: its schema and its last write."""
    from seeknal.home import session

    version = session.existing().groups.version(group, number, project=project)
    render.record(
        {
            "group": group,
            "version": version.number,
            "current": version.is_current,
            "created": render.when(version.created_at),
            "last_write": render.when(version.written_at),
            "snapshot": version.snapshot,
            "rows": version.rows,
            "schema": [{"field": n, "type": kind, "role": role} for n, kind, role in version.columns],
        },
        form,
    )


@app.command("diff")
def diff_versions(
    group: Group,
    old: Annotated[int, typer.Option("--from", "-f", help="The earlier version.")],
    new: Annotated[int, typer.Option("--to", "-t", help="The later version.")],
    project: InProject = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.table,  # -f is --from here
) -> None:
    """Show what was added, removed and modified from one version of a feature group to another."""
    from seeknal.home import session

    store = session.existing()
    changes = store.groups.diff(group, old, new, project=project)
    with working(f"Counting nulls of {group}"):
        before, after = (_nulls(store, group, one, project) for one in (old, new))
    if form is Format.table:
        kinds = {"added": [c for c in changes if c.old is None], "removed": [c for c in changes if c.new is None]}
        kinds["modified"] = [c for c in changes if c.old and c.new]
        found = [
            {
                "change": kind,
                "column": c.name,
                f"version {old}": c.old,
                f"version {new}": c.new,
                f"nulls in {old}": before.shown(c.name),
                f"nulls in {new}": after.shown(c.name),
            }
            for kind, some in kinds.items()
            for c in some
        ]
        render.rows(found, form, empty=f"Versions {old} and {new} of {group} have the same schema.")
        render.note(f"Rows: {before.rows:,} in version {old}, {after.rows:,} in version {new}.")
        return
    render.record(
        {
            "group": group,
            "from": old,
            "to": new,
            "added": [{"name": c.name, "type": c.new} for c in changes if c.old is None],
            "removed": [{"name": c.name, "type": c.old} for c in changes if c.new is None],
            "modified": [{"name": c.name, "from": c.old, "to": c.new} for c in changes if c.old and c.new],
            "rows": {"from": before.rows, "to": after.rows},
            "null_rates": {"from": before.rates, "to": after.rates},
        },
        form,
    )


def _nulls(store: FeatureStore, group: str, number: int, project: str | None) -> _Nulls:
    if store.groups.get(group, project=project).windowed:  # its values are computed at the moments of a spine
        return _Nulls(store.groups.version(group, number, project=project).rows, {})
    return _Nulls(*store.groups.counts(group, number, project=project))


@dataclass(frozen=True)
class _Nulls:
    """The number of rows of a version, and the number of nulls in each of its columns."""

    rows: int
    nulls: dict[str, int]

    @property
    def rates(self) -> dict[str, float]:
        return {name: round(count / self.rows, 6) if self.rows else 0.0 for name, count in self.nulls.items()}

    def shown(self, name: str) -> str:
        return f"{self.rates[name]:.1%}" if name in self.rates else ""


@app.command("rollback")
def rollback(
    group: Group,
    number: Annotated[int, typer.Option("--to", help="The version to make current.")],
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Make an earlier version current again. Nothing is deleted: the versions after it stay."""
    from seeknal.home import session

    with working(f"Rolling back {group} to version {number}"):
        version = session.existing().groups.rollback(group, number, project=project)
    render.record({"group": group, "version": version.number, "snapshot": version.snapshot, "rows": version.rows}, form)
