"""The rows of groups: feature groups, event sources, and windowed groups with the versions of their definitions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Row, and_, func, insert, select, update

from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.registry.records import DefinitionRecord, GroupRecord
from seeknal.registry.sql import tables as t
from seeknal.registry.sql.rows import entity_of, group_of
from seeknal.values.times import now

_A = {kind: f"{'an' if kind[0] == 'e' else 'a'} {kind}" for kind in ("feature group", "event source", "windowed group")}
_ID_BITS = 62
"""The size of random ids; the databases have room for 63 bits."""

_group, _source = t.feature_group, t.feature_group.alias("source")
ALL = (
    select(
        _group,
        t.entity.c.name.label("entity_name"),
        t.entity.c.join_keys,
        t.entity.c.pii_keys,
        t.entity.c.description.label("entity_description"),
        _source.c.project.label("source_project"),
        _source.c.name.label("source_name"),
        t.definition.c.text,
    )
    .join(t.entity, t.entity.c.id == _group.c.entity_id)
    .outerjoin(_source, _source.c.id == _group.c.source_id)
    .outerjoin(t.definition, and_(t.definition.c.group_id == _group.c.id, t.definition.c.number == _group.c.definition))
)
"""All groups, as `rows.group_of` reads them."""


def row_of(db: Connection, project: str, name: str) -> Row[tuple[object, ...]] | None:
    """Return the row of a group; None if there is none."""
    return db.execute(ALL.where(_group.c.project == project, _group.c.name == name)).one_or_none()


def save(db: Connection, group: FeatureGroup) -> None:
    """Register a feature group or an event source, or update what may change; see `Registry.save_group`."""
    dated = group.materialization
    times = {name: getattr(dated, name) for name in ("event_time_col", "created_time_col")}
    event_id = {"event_id": _json(group.event_id)} if isinstance(group, EventGroup) else {}
    saved = _save(db, group, group.project, times | event_id)
    db.execute(update(_group).where(_group.c.id == saved).values(ttl=dated.lifetime))


def save_windowed(db: Connection, group: WindowedGroup, source: GroupRecord) -> int:
    """Register a windowed group, or update what may change; see `Registry.save_windowed_group`.

    Returns:
        The number of the version with this definition.
    """
    saved = _save(db, group, group.project or source.project, {"source_id": source.id})
    known = definitions(db, saved)
    if (same := next((one.number for one in known if group.is_same_as(one.text)), None)) is not None:
        return same
    number = max((one.number for one in known), default=0) + 1
    db.execute(insert(t.definition).values(group_id=saved, number=number, text=group.text, created_at=now()))
    db.execute(update(_group).where(_group.c.id == saved).values(definition=number))
    return number


def _save(db: Connection, group: FeatureGroup | WindowedGroup, project: str, facts: Mapping[str, object]) -> int:
    """Insert a group with facts that never change, or update its description and `online`, and return its id.

    Raises:
        DefinitionError: The registered group differs in what never changes.
    """
    entity_id = _save_entity(db, project, group.entity)
    row = row_of(db, project, group.name)
    if row is None:
        values = {"project": project, "name": group.name, "entity_id": entity_id, "created_at": now(), "online": 0}
        # Random, because a database may reuse the id of a deleted group, and records of that group would then refer to this one.
        found = secrets.randbits(_ID_BITS)
        db.execute(insert(_group).values(**values, **facts, id=found))
    else:
        known = group_of(row)
        _refuse_changes(known.label, _fixed(group), _fixed(known.group))
        found = known.id
    description = func.coalesce(group.description, _group.c.description)
    online = int(group.materialization.online)
    db.execute(update(_group).where(_group.c.id == found).values(description=description, online=online))
    return found


def _fixed(group: FeatureGroup | WindowedGroup) -> dict[str, object]:
    """Return what never changes of a group while it is registered."""
    if isinstance(group, WindowedGroup):
        return {"kind": "windowed group", "entity": group.entity.name, "source": group.origin}
    times = {name: getattr(group.materialization, name) for name in ("event_time_col", "created_time_col")}
    if isinstance(group, EventGroup):
        return {"kind": "event source", **times, "event_id": list(group.event_id)}
    return {"kind": "feature group", "entity": group.entity.name, **times}


def _refuse_changes(label: str, new: Mapping[str, object], old: Mapping[str, object]) -> None:
    if new["kind"] != old["kind"]:
        raise DefinitionError(
            f"{label} is registered as {_A[str(old['kind'])]}, not as {_A[str(new['kind'])]}. Choose another name."
        )
    for what, value in new.items():
        if value != old[what]:
            project, name = label.split("/")
            raise DefinitionError(
                f"Group {name!r} of project {project!r} has {what}={old[what]!r}, not {value!r}. "
                "Keep that, delete the group, or write to a new one."
            )


def definitions(db: Connection, group: int) -> list[DefinitionRecord]:
    """Return the versions of a group's definition, oldest first; none for a group that has no windows."""
    current = db.scalar(select(_group.c.definition).where(_group.c.id == group))
    query = select(t.definition).where(t.definition.c.group_id == group).order_by(t.definition.c.number)
    return [DefinitionRecord(row.number, row.text, row.created_at, row.number == current) for row in db.execute(query)]


def _save_entity(db: Connection, project: str, entity: Entity) -> int:
    query = select(t.entity).where(t.entity.c.project == project, t.entity.c.name == entity.name)
    row = db.execute(query).one_or_none()
    known = Entity.stored(entity.name, entity.join_keys) if row is None else entity_of(row)
    values = {
        "pii_keys": _json(entity.pii_keys or known.pii_keys),
        "description": entity.description or known.description,  # parts that are not given stay as registered
    }
    if row is None:
        found = secrets.randbits(_ID_BITS)
        named = {"project": project, "name": entity.name, "join_keys": _json(entity.join_keys)}
        db.execute(insert(t.entity).values(**named, **values, id=found))
        return found
    if known.join_keys != entity.join_keys:
        raise DefinitionError(
            f"Entity {entity.name!r} of project {project!r} has the join keys {', '.join(known.join_keys)}, "
            f"not {', '.join(entity.join_keys)}. Use those, or give the entity another name."
        )
    db.execute(update(t.entity).where(t.entity.c.id == row.id).values(**values))
    return int(row.id)


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()
