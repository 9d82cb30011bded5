"""Read-only commands: list, show, info, explain and debug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import dataset, render, server, view
from seeknal.cli.options import (
    AsFormat,
    Entity,
    Format,
    Group,
    InProject,
    Keys,
    OfProject,
    Project,
    Table,
    read_keys,
)
from seeknal.errors import StoreError, notice
from seeknal.system.progress import working
from seeknal.values.times import show

if TYPE_CHECKING:
    from seeknal.home.entities import RegisteredEntity
    from seeknal.home.groups import Groups
    from seeknal.home.store import FeatureStore
    from seeknal.load.status import LoadStatus
    from seeknal.registry import GroupRecord, OnlineTableRecord

list_app = typer.Typer(help="List the objects of one kind.", no_args_is_help=True)
show_app = typer.Typer(help="Show one object in full.", no_args_is_help=True)
list_app.command("datasets")(dataset.list_datasets)
list_app.command("feature-views")(view.list_views)
list_app.command("tokens")(server.list_tokens)
show_app.command("dataset")(dataset.show_dataset)
show_app.command("token")(server.show_token)

Line = dict[str, Any]
_MASK = "***"
_LOADS = 10


def listed(project: str | None, lines: Callable[[FeatureStore], list[Line]]) -> list[Line]:
    """Return the records of a list, of one project if one is named.

    A home that does not exist has no records, and is not created, unless a project is named: then that is an error.
    """
    from seeknal.home import session

    return [] if project is None and not session.store().exists else lines(session.existing(project))


def info(form: AsFormat = Format.table) -> None:
    """Show the settings, where each of them comes from, and how many groups and tables there are."""
    from importlib.metadata import version

    from seeknal.home import session
    from seeknal.online import shown
    from seeknal.registry import REGISTRY_FILE

    store = session.store()
    unset = {
        "memory_limit": "half of the machine's",
        "online_store": str(store.home / "online"),
        "registry": str(store.home / REGISTRY_FILE),
        "storage": str(store.home),
        "spark": "the session of the process",
        "freshness": "no target",
    }
    names = (
        "home",
        "memory_limit",
        "online_store",
        "registry",
        "storage",
        "engine",
        "spark",
        "lookback_days",
        "freshness",
    )
    settings = [
        {"setting": name, "value": shown(str(getattr(store.settings, name) or unset[name]))}
        | {"from": store.settings.origins.get(name, "default")}
        for name in names
    ]
    render.record(
        {
            "seeknal": version("seeknal"),
            "duckdb": version("duckdb"),
            "deltalake": version("deltalake"),
            "feature_groups": len(store.groups.all()) if store.exists else 0,
            "online_tables": len(store.tables.all()) if store.exists else 0,
            "settings": settings,
        },
        form,
    )


@list_app.command("projects")
def list_projects(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the projects."""

    def lines(store: FeatureStore) -> list[Line]:
        groups, tables = store.groups.all(project=project), store.tables.all(project=project)
        names = [project] if project else store.projects.all()
        return [_project_line(name, groups, tables) for name in names]

    render.rows(
        listed(project, lines), form, empty="No projects yet. A project is created with its first feature group."
    )


def _project_line(name: str, groups: Sequence[GroupRecord], tables: Sequence[OnlineTableRecord]) -> Line:
    return {
        "project": name,
        "feature_groups": sum(group.project == name for group in groups),
        "online_tables": sum(table.project == name for table in tables),
    }


@show_app.command("project")
def show_project(name: Project, form: AsFormat = Format.table) -> None:
    """Show a project: its feature groups, entities, online tables and training sets."""
    from seeknal.home import session

    store = session.existing(name)
    groups, tables = store.groups.all(project=name), store.tables.all(project=name)
    render.record(
        {
            "project": name,
            "feature_groups": _group_lines(store, groups),
            "entities": [_entity_line(one) for one in store.entities.all(project=name)],
            "online_tables": [_table_line(one) for one in tables],
            "datasets": [dataset.line(one) for one in store.training_sets.all(project=name)],
            "feature_views": view.lines(store, name),
        },
        form,
    )


@show_app.command("entity")
def show_entity(name: Entity, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Show an entity: its join keys, and the feature groups that use it."""
    from seeknal.home import session

    store = session.existing()
    found = store.entities.get(name, project=project)
    groups = store.entities.groups(name, project=project)
    render.record({**_entity_line(found), "feature_groups": _group_lines(store, groups)}, form)


def _entity_line(found: RegisteredEntity) -> dict[str, Any]:
    entity = found.entity
    return {
        "project": found.project,
        "entity": entity.name,
        "join_keys": list(entity.join_keys),
        "pii_keys": list(entity.pii_keys),
        "description": entity.description,
    }


@list_app.command("entities")
def list_entities(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the entities."""
    records = listed(project, lambda store: [_entity_line(one) for one in store.entities.all(project=project)])
    render.rows(
        records, form, empty="No entities yet. An entity is registered with the first feature group that uses it."
    )


@list_app.command("feature-groups")
def list_feature_groups(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the feature groups."""
    records = listed(project, lambda store: _group_lines(store, store.groups.all(project=project)))
    render.rows(records, form, empty="No feature groups yet. README.md shows how to write one.")


def _group_lines(store: FeatureStore, records: Sequence[GroupRecord]) -> list[dict[str, Any]]:
    groups = store.overview().groups
    return [_group_line(groups, record) for record in records]


def _group_line(groups: Groups, record: GroupRecord) -> dict[str, Any]:
    versions = groups.versions_of(record)
    current = next((version for version in versions if version.is_current), None)
    return {
        "project": record.project,
        "feature_group": record.name,
        "kind": record.kind,
        "entity": record.group.entity.name or None,
        "version": current.number if current else None,
        "rows": current.rows if current else 0,
        "last_write": render.when(current.written_at if current else None),
    }


@list_app.command("online-tables")
def list_online_tables(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the online tables."""
    records = listed(project, lambda store: [_table_line(table) for table in store.tables.all(project=project)])
    render.rows(records, form, empty="No online tables yet. Create one: seeknal materialize GROUP.")


def _table_line(table: OnlineTableRecord) -> dict[str, Any]:
    return {
        "project": table.project,
        "online_table": table.name,
        "versions": [f"{lookup.group} {lookup.version}" for lookup in table.lookups],
        "features": sum(len(lookup.features) for lookup in table.lookups),
        "created": render.when(table.created_at),
    }


@show_app.command("feature-group")
def show_feature_group(name: Group, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Show a feature group: its definition, its schema, and what is loaded online."""
    from seeknal.home import session

    store = session.existing()
    record = store.groups.get(name, project=project)
    group, line = record.group, _group_line(store.groups, record)
    loads = [
        {
            "version": load.version,
            "interval": str(load.interval),
            "snapshot": load.snapshot,
            "entities": load.rows,
            "seconds": None if load.seconds is None else round(load.seconds, 2),
            "loaded": render.when(load.at) or "not finished",
        }
        for load in store.groups.loads(name, project=record.project)[-_LOADS:]
    ]
    schema = store.groups.version(name, project=record.project).columns if line["version"] else []
    render.record(
        {
            **line,
            "description": group.description,
            **_definition(store, record),
            "schema": [{"field": n, "type": kind, "role": role} for n, kind, role in schema],
            "online": _load_status_lines(store, record),
            "loads": loads,
        },
        form,
    )


def _definition(store: FeatureStore, record: GroupRecord) -> dict[str, Any]:
    """Return what a group consists of, by its kind."""
    group, dated = record.group, record.group.materialization
    keys = {"join_keys": list(group.entity.join_keys)}
    times = {"event_time": dated.event_time_col, "created_time": dated.created_time_col}
    if record.windowed:
        hop = {} if record.windowed.hop is None else {"hop": str(record.windowed.hop)}
        return {**keys, "source": record.windowed.origin, **hop, "features": record.windowed.described}
    if record.event_id is not None:
        used = [one.label for one in store.groups.windowed(record.name, project=record.project)]
        return {"event_id": list(record.event_id) or None, **times, "windowed_groups": used or None}
    return {
        **keys,
        **times,
        "ttl": None if dated.ttl is None else str(dated.ttl),
        "loaded_on_write": dated.online,
    }


def _load_status_lines(store: FeatureStore, record: GroupRecord) -> list[dict[str, Any]]:
    try:
        return [_load_status_line(one) for one in store.groups.load_statuses(record.name, project=record.project)]
    except StoreError as error:  # the rest of the group is shown even if its online store is unavailable
        return [{"problem": str(error)}]


def _load_status_line(one: LoadStatus) -> dict[str, Any]:
    state = one.state
    return {
        "version": one.version,
        "store": one.place,
        "loaded": ", ".join(map(str, state.spans)) if state else "nothing",
        "holes": ", ".join(map(str, one.holes)) or "none",
        "snapshot": state.snapshot if state else None,
        "up_to_date": one.is_fresh,
        "at": render.when(state.at) if state else None,
    }


@show_app.command("online-table")
def show_online_table(name: Table, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Show an online table: its keys, its features, and the versions that they come from."""
    from datetime import timedelta

    from seeknal.home import session
    from seeknal.online import shown

    table = session.existing().tables.open(name, project=project)
    record = table.record
    render.record(
        {
            **_table_line(record),
            "keys": table.keys,
            "ttl": "that of each group" if record.ttl is None else str(timedelta(microseconds=record.ttl)),
            "store": shown(record.target) or "as set (seeknal info)",
            "columns": [
                {"feature": out, "group": lookup.group, "version": lookup.version, "name_in_group": own}
                for lookup in record.lookups
                for own, out in lookup.features
            ],
        },
        form,
    )


def explain(  # noqa: PLR0913, PLR0917 - a command has one parameter per option
    group: Group,
    keys: Keys,
    at: Annotated[str, typer.Option("--at", help="The point in time, such as 2024-01-31T12:30.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Read only what was stored by this time, or by this snapshot.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", "-v", help="The version; by default the current one.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", "-l", min=1, help="Most rows to show.")] = 10,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show which row of an entity wins at a point in time, and why the nearest others do not."""
    from seeknal.define.feature_group import FeatureLookup
    from seeknal.home import session
    from seeknal.join.inquiry import Inquiry

    store = session.existing()
    record = store.groups.get(group, project=project)
    entity = read_keys(
        record.label, store.groups.version(record.name, version, project=record.project).schema.keys, keys
    )
    # Digits are the number of a snapshot; anything else is a time, which the library parses.
    snapshot = int(as_of) if as_of is not None and as_of.isdecimal() else as_of
    found = store.features.explain(
        Inquiry([FeatureLookup(record, version=version)], as_of=snapshot), entity, at, limit + 1
    )
    # One row more than asked for was read, to know whether there are more.
    rows = [
        {
            "verdict": one.verdict,
            "event_time": show(one.event_time),
            "recorded": show(one.created_time),
            "snapshot": one.snapshot,
            **one.features,
        }
        for one in found[:limit]
    ]
    render.rows(rows, form, empty=f"{record.label} has no rows of that entity.")
    if len(found) > limit:
        notice(f"{record.label} has more rows of that entity, further from {at}. See them with --limit {10 * limit}.")


def debug(
    group: Group,
    limit: Annotated[int, typer.Option("--limit", "-n", "-l", min=1, help="Most rows to show.")] = 10,
    version: Annotated[
        int | None, typer.Option("--version", "-v", help="The version; by default the current one.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show the rows of a feature group that were written last. Keys marked as personal data are masked."""
    from seeknal.home import session
    from seeknal.values.display import records

    store = session.existing()
    record = store.groups.get(group, project=project)
    secret = set(record.group.entity.pii_keys)
    with working(f"Reading {group}"):
        sample = records(store.groups.sample(group, project=record.project, limit=limit, version=version))
    shown = [{name: _MASK if name in secret else value for name, value in row.items()} for row in sample]
    render.rows(shown, form, empty=f"{record.label} has no rows.")
