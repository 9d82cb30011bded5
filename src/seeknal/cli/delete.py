"""Commands that delete one object, or a project or an entity with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from seeknal.cli import dataset, render, server
from seeknal.cli.options import AsFormat, Entity, Format, Group, InProject, Project, Table, Yes
from seeknal.errors import DefinitionError, notice, plural
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore
    from seeknal.registry import GroupRecord, OnlineTableRecord, TrainingSetRecord

app = typer.Typer(help="Delete one thing.", no_args_is_help=True)
app.command("dataset")(dataset.delete_dataset)
app.command("token")(server.delete_token)


@app.command("feature-group")
def delete_feature_group(
    name: Group, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table
) -> None:
    """Delete a feature group: its rows, its versions, and what of it is online."""
    from seeknal.home import session

    store = session.existing()
    record = store.catalog.group(name, project)
    render.confirm(f"Delete feature group {record.label} with all its rows and versions?", yes)
    with working(f"Deleting {record.label}"):
        store.delete_group(record.name, record.project)
    render.record({"deleted": record.label}, form)


@app.command("online-table")
def delete_table(name: Table, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete an online table. The feature groups behind it stay."""
    from seeknal.home import session

    store = session.existing()
    table = store.catalog.online_table(name, project)
    render.confirm(f"Delete online table {table.label}?", yes)
    store.delete_table(table.name, table.project)
    render.record({"deleted": table.label}, form)


@dataclass(frozen=True)
class _Doomed:
    """The objects that one command deletes, in the order of deletion: nothing is deleted before the objects that need it."""

    tables: Sequence[OnlineTableRecord]
    sets: Sequence[TrainingSetRecord]
    groups: Sequence[GroupRecord]

    def __str__(self) -> str:
        kinds = (self.tables, "online table"), (self.sets, "training set"), (self.groups, "feature group")
        return ", ".join(plural(len(some), noun) for some, noun in kinds if some)

    def check(self, store: FeatureStore) -> None:
        """Check that no object that stays needs one of the groups.

        Raises:
            DefinitionError: An online table or a training set that stays needs one.
        """
        for group in self.groups:
            users = [one for one in store.online_tables.of(group) if one not in self.tables]
            if others := [one for one in users if one.label != group.label]:  # the table of its name goes with it
                raise DefinitionError(
                    f"Feature group {group.label!r} is served by online table {others[0].label!r}. "
                    f"Delete that first: seeknal delete online-table {others[0].label}."
                )
            if kept := [one for one in store.training_sets.users(group) if one not in self.sets]:
                raise DefinitionError(
                    f"Training set {kept[0].label!r} was made from feature group {group.label!r} and needs its rows. "
                    f"Delete that first: seeknal delete dataset {kept[0].label}."
                )

    def delete(self, store: FeatureStore, on_progress: Callable[[str], None]) -> None:
        """Delete the objects. If the process is killed midway, the same command deletes the rest."""
        for table in self.tables:
            on_progress(f"Deleting {table.label}")
            store.delete_table(table.name, table.project)
        for one in self.sets:
            on_progress(f"Deleting {one.label}")
            store.delete_training_set(one)
        for group in self.groups:
            on_progress(f"Deleting {group.label}")
            store.delete_group(group.name, group.project)

    def record(self) -> dict[str, list[str]]:
        """Return the labels of the deleted objects, by kind."""
        return {
            "online_tables": [one.label for one in self.tables],
            "datasets": [one.label for one in self.sets],
            "feature_groups": [one.label for one in self.groups],
        }


@app.command("project")
def delete_project(name: Project, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete a project with all that is in it: online tables, training sets, feature groups with their rows."""
    from seeknal.home import session

    store = session.existing()
    project = store.catalog.project(name)
    registry = store.registry
    doomed = _Doomed(registry.tables(project), registry.training_sets(project), registry.groups(project))
    doomed.check(store)
    render.confirm(f"Delete project {project!r} with all that is in it ({doomed})?", yes)
    with working(f"Deleting {project}") as on_progress:
        doomed.delete(store, on_progress)
    render.record({"deleted": project, **doomed.record()}, form)
    for token in registry.tokens():
        if token.project == project and token.revoked_at is None:
            notice(
                f"Token {token.name!r} is for project {project!r} still. Revoke it: seeknal delete token {token.name}"
            )


@app.command("entity")
def delete_entity(name: Entity, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete an entity with all its feature groups. What serves them, or was trained on them, is deleted first."""
    from seeknal.cli.explore import find_entity
    from seeknal.home import session

    store = session.existing()
    found = find_entity(store, name, project)
    groups = [one for one in store.registry.groups(found.project) if one.group.entity.name == found.name]
    doomed = _Doomed([], [], groups)
    doomed.check(store)
    names = ", ".join(one.label for one in groups)
    render.confirm(f"Delete entity {found.label} with all rows of {names}?", yes)
    with working(f"Deleting {found.label}") as on_progress:
        doomed.delete(store, on_progress)
    render.record({"deleted": found.label, **doomed.record()}, form)
