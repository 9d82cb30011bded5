"""The registered feature views, their versions and their models."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, insert, select, update

from seeknal.registry.records import ModelRecord, ViewRecord
from seeknal.registry.sql import tables as t

_ALL = select(t.view_version, t.feature_view.c.description, t.feature_view.c.owner, t.feature_view.c.tags).join(
    t.feature_view,
    and_(t.feature_view.c.project == t.view_version.c.project, t.feature_view.c.name == t.view_version.c.name),
)


def save(db: Connection, view: ViewRecord) -> ViewRecord | None:
    """Register a version; see `seeknal.registry.protocol.Views`."""
    mine = _is_view(t.view_version, view.project, view.name)
    last = db.scalar(select(func.max(t.view_version.c.number)).where(mine)) or 0
    if view.number != last + 1:
        found = db.scalar(select(t.view_version.c.text).where(mine, t.view_version.c.number == view.number))
        if found != view.text:
            return None
    else:
        values = {name: getattr(view, name) for name in ("project", "name", "number", "text", "created_at")}
        db.execute(insert(t.view_version).values(**values))
    _describe(db, view)
    return next(one for one in all_of(db, view.project, view.name) if one.number == view.number)


def _describe(db: Connection, view: ViewRecord) -> None:
    """Store what is given about a view. What is not given stays as it is."""
    mine = _is_view(t.feature_view, view.project, view.name)
    if db.execute(select(t.feature_view).where(mine)).one_or_none() is None:
        db.execute(insert(t.feature_view).values(project=view.project, name=view.name, tags="[]"))
    given = {
        "description": view.description,
        "owner": view.owner,
        "tags": msgspec.json.encode(view.tags).decode() if view.tags else None,
    }
    if changed := {name: value for name, value in given.items() if value is not None}:
        db.execute(update(t.feature_view).where(mine).values(**changed))


def all_of(db: Connection, project: str | None, name: str | None) -> list[ViewRecord]:
    """Return the versions of the views of a project or name, ordered by project, name and number."""
    columns = t.view_version.c
    query = _ALL.order_by(columns.project, columns.name, columns.number)
    for column, value in ((columns.project, project), (columns.name, name)):
        query = query if value is None else query.where(column == value)
    return [
        ViewRecord(**(dict(row._mapping) | {"tags": msgspec.json.decode(row.tags, type=tuple[str, ...])}))  # noqa: SLF001
        for row in db.execute(query)
    ]


def retire(db: Connection, view: ViewRecord, at: int | None) -> None:
    """Mark a version as retired, or as not retired."""
    mine = _is_view(t.view_version, view.project, view.name) & (t.view_version.c.number == view.number)
    db.execute(update(t.view_version).where(mine).values(retired_at=at))


def remove(db: Connection, project: str, name: str) -> None:
    """Remove a view, its versions and the records of its models."""
    for table in (t.view_version, t.feature_view):
        db.execute(delete(table).where(_is_view(table, project, name)))
    db.execute(delete(t.model).where(t.model.c.project == project, t.model.c.view == name))


def add_model(db: Connection, model: ModelRecord) -> None:
    """Register a model, or replace its record."""
    columns, values = t.model.c, asdict(model)
    keys = ("project", "view", "name", "version", "training_set")
    db.execute(delete(t.model).where(*(columns[key] == values[key] for key in keys)))
    db.execute(insert(t.model).values(**values))


def models(db: Connection, project: str, view: str) -> list[ModelRecord]:
    """Return the models of a view, oldest first."""
    query = select(t.model).where(t.model.c.project == project, t.model.c.view == view)
    return [ModelRecord(**row._mapping) for row in db.execute(query.order_by(t.model.c.created_at, t.model.c.name))]  # noqa: SLF001


def _is_view(table: Table, project: str, name: str) -> ColumnElement[bool]:
    return (table.c.project == project) & (table.c.name == name)
