"""Commands that delete one object, or a project or an entity with everything in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from seeknal.cli import dataset, render, server
from seeknal.cli.options import AsFormat, Entity, Format, Group, InProject, Project, Table, Yes
from seeknal.errors import notice
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.home.removal import Deletion

app = typer.Typer(help="Delete one object.", no_args_is_help=True)
app.command("dataset")(dataset.delete_dataset)
app.command("token")(server.delete_token)


@app.command("feature-group")
def delete_feature_group(
    name: Group, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table
) -> None:
    """Delete a feature group with its rows, its versions and its online rows."""
    from seeknal.home import session

    store = session.existing()
    record = store.groups.get(name, project=project)
    render.confirm(f"Delete feature group {record.label} with all its rows and versions?", yes)
    with working(f"Deleting {record.label}"):
        store.groups.delete(record.name, project=record.project)
    render.record({"deleted": record.label}, form)


@app.command("online-table")
def delete_table(name: Table, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete an online table. The feature groups behind it stay."""
    from seeknal.home import session

    store = session.existing()
    table = store.tables.get(name, project=project)
    render.confirm(f"Delete online table {table.label}?", yes)
    store.tables.delete(table)
    render.record({"deleted": table.label}, form)


def _delete(label: str, what: str, deletion: Deletion, *, yes: bool, form: Format) -> None:
    """Ask for confirmation, delete, and print what was deleted."""
    render.confirm(f"Delete {what}?", yes)
    with working(f"Deleting {label}") as on_progress:
        deletion.run(on_progress)
    render.record({"deleted": label, **deletion.labels()}, form)


@app.command("project")
def delete_project(name: Project, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete a project with everything in it: online tables, training sets, feature groups with their rows."""
    from seeknal.home import session

    store = session.existing()
    deletion = store.projects.deletion(name)
    _delete(name, f"project {name!r} with everything in it ({deletion})", deletion, yes=yes, form=form)
    for token in store.tokens.all():
        if token.project == name and token.revoked_at is None:
            notice(
                f"Token {token.name!r} still gives access to project {name!r}. Revoke it: seeknal delete token {token.name}"
            )


@app.command("entity")
def delete_entity(name: Entity, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete an entity with all its feature groups. Refused while online tables or training sets use them."""
    from seeknal.home import session

    entities = session.existing().entities
    found, deletion = entities.get(name, project=project), entities.deletion(name, project=project)
    names = ", ".join(one.label for one in deletion.groups)
    _delete(found.label, f"entity {found.label} with all rows of {names}", deletion, yes=yes, form=form)
