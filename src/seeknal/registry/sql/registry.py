"""The calls of the registry in SQL; `registry.protocol` documents them. Each is one transaction of the database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from seeknal.define.feature_group import FeatureGroup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.entity import Entity
from seeknal.errors import DefinitionError, GroupDeletedError, StoreError
from seeknal.registry.records import (
    DefinitionRecord,
    GroupRecord,
    GroupState,
    Load,
    ModelRecord,
    OnlineTableRecord,
    SnapshotRecord,
    TokenRecord,
    TrainingSetRecord,
    Version,
    ViewRecord,
)
from seeknal.registry.sql import group_rows, loads, views, writes
from seeknal.registry.sql import tables as t
from seeknal.registry.sql.database import Database, reading, writing
from seeknal.registry.sql.rows import (
    entity_of,
    group_of,
    online_table_of,
    token_of,
    training_set_of,
)
from seeknal.values.times import Interval

if TYPE_CHECKING:
    from seeknal.offline import Commit


class SqlRegistry(Database):
    """The groups, versions, loads, online tables, training sets and tokens of a home, in a database."""

    @abstractmethod
    def stamp(self) -> bytes: ...

    @abstractmethod
    def recent_stamp(self) -> bytes: ...

    @property
    def home(self) -> str | None:
        """The name of the home whose tables the registry describes, if the registry knows it; a file lies in its home."""
        return None

    def belong_to(self, home: str) -> None:
        """Let the registry be that of a home, unless it is that of one."""

    @writing
    def save_group(self, db: Connection, group: FeatureGroup) -> GroupRecord:
        group_rows.save(db, group)
        return group_of(_found(group_rows.row_of(db, group.project, group.name)))

    @writing
    def save_windowed_group(self, db: Connection, group: WindowedGroup, source: GroupRecord) -> tuple[GroupRecord, int]:
        _check(db, source)
        number = group_rows.save_windowed(db, group, source)
        return group_of(_found(group_rows.row_of(db, group.project or source.project, group.name))), number

    @reading
    def definitions(self, db: Connection, record: GroupRecord) -> list[DefinitionRecord]:
        return group_rows.definitions(db, record.id)

    @writing
    def choose_definition(self, db: Connection, record: GroupRecord, number: int) -> None:
        _check(db, record)
        db.execute(update(t.feature_group).where(t.feature_group.c.id == record.id).values(definition=number))

    @reading
    def windowed_groups(self, db: Connection, source: GroupRecord) -> list[GroupRecord]:
        return _over(db, source)

    @reading
    def group(self, db: Connection, project: str, name: str) -> GroupRecord | None:
        row = group_rows.row_of(db, project, name)
        return group_of(row) if row else None

    @reading
    def groups(self, db: Connection, project: str | None = None, name: str | None = None) -> list[GroupRecord]:
        query = _named(group_rows.ALL, t.feature_group, project, name)
        return [group_of(row) for row in db.execute(query)]

    @reading
    def states(self, db: Connection, project: str | None, name: str, since: int | None = None) -> list[GroupState]:
        query = _named(group_rows.ALL, t.feature_group, project, name)
        return [_state(db, group_of(row), since) for row in db.execute(query).all()]

    @writing
    def delete_group(self, db: Connection, record: GroupRecord) -> list[Load]:
        mine = t.feature_group.c.id == record.id
        entity_id, found = db.scalar(select(t.feature_group.c.entity_id).where(mine)), loads.of(db, record.id)
        # Tables refer to groups by name. If the group is gone already, those found belong to a later group of its name.
        for table in _users(db, record) if entity_id is not None else ():
            db.execute(delete(t.online_table).where(_is_table(table.project, table.name)))
        db.execute(delete(t.feature_group).where(mine))  # its snapshots, loads and erasures are deleted by cascade
        if not db.scalar(select(func.count()).where(t.feature_group.c.entity_id == entity_id)):
            db.execute(delete(t.entity).where(t.entity.c.id == entity_id))
        return found

    @reading
    def entities(self, db: Connection, project: str | None = None) -> list[tuple[str, Entity]]:
        query = select(t.entity).where(t.entity.c.name != "").order_by(t.entity.c.project, t.entity.c.name)
        if project is not None:
            query = query.where(t.entity.c.project == project)
        return [(row.project, entity_of(row)) for row in db.execute(query)]

    @reading
    def last_snapshot(self, db: Connection, record: GroupRecord) -> int:
        return _last_snapshot(db, record)

    @writing
    def add_commits(self, db: Connection, record: GroupRecord, commits: Sequence[Commit]) -> GroupState:
        _check(db, record)
        writes.add(db, record.id, commits)
        return _state(db, record)

    @reading
    def versions(
        self, db: Connection, record: GroupRecord, until: int | None = None, unrecorded: Sequence[Commit] = ()
    ) -> list[Version]:
        return writes.versions(db, record.id, until, unrecorded)

    @reading
    def every_version(self, db: Connection) -> dict[int, list[Version]]:
        return writes.every_version(db)

    @reading
    def snapshots(self, db: Connection, record: GroupRecord, first: int = 0) -> list[SnapshotRecord]:
        return writes.snapshots(db, record.id, first)

    @writing
    def forget_snapshots(self, db: Connection, record: GroupRecord) -> None:
        for table in (t.snapshot, t.load):
            db.execute(delete(table).where(table.c.group_id == record.id))

    @reading
    def snapshot_at(self, db: Connection, record: GroupRecord, instant: int) -> int:
        mine = (t.snapshot.c.group_id == record.id) & (t.snapshot.c.at <= instant)
        return int(db.scalar(select(func.max(t.snapshot.c.number)).where(mine)) or 0)

    @reading
    def watermarks(self, db: Connection, record: GroupRecord, version: int) -> list[int]:
        query = select(t.snapshot.c.newest).where(t.snapshot.c.group_id == record.id, t.snapshot.c.version == version)
        return sorted({newest for newest in db.scalars(query) if newest is not None})

    @writing
    def begin_loads(
        self, db: Connection, record: GroupRecord, version: int, intervals: Sequence[tuple[str, Interval]]
    ) -> list[int]:
        _check(db, record)
        return [loads.add(db, record.id, version, target, interval) for target, interval in intervals]

    @writing
    def end_loads(
        self,
        db: Connection,
        record: GroupRecord,
        version: int,
        intervals: Sequence[tuple[str, Interval, int | None]],
        snapshot: int,
        rows: int,
        seconds: float,
    ) -> bool:
        return loads.end(db, record.id, version, intervals, {"snapshot": snapshot, "rows": rows, "seconds": seconds})

    @reading
    def loads(self, db: Connection, record: GroupRecord, version: int | None = None) -> list[Load]:
        return loads.of(db, record.id, version)

    @writing
    def forget_loads(self, db: Connection, record: GroupRecord, version: int, targets: Collection[str]) -> None:
        mine = (t.load.c.group_id == record.id) & (t.load.c.version == version) & t.load.c.target.in_(targets)
        db.execute(delete(t.load).where(mine))

    @writing
    def add_erasure(self, db: Connection, record: GroupRecord, entity: str, at: int) -> None:
        _check(db, record)
        mine = (t.erasure.c.group_id == record.id) & (t.erasure.c.entity == entity)
        db.execute(delete(t.erasure).where(mine))
        db.execute(insert(t.erasure).values(group_id=record.id, entity=entity, at=at))

    @reading
    def erasures(self, db: Connection, record: GroupRecord) -> dict[str, int]:
        query = select(t.erasure.c.entity, t.erasure.c.at).where(t.erasure.c.group_id == record.id)
        return {row.entity: row.at for row in db.execute(query)}

    @reading
    def last_erasures(self, db: Connection) -> dict[int, int]:
        query = select(t.erasure.c.group_id, func.max(t.erasure.c.at)).group_by(t.erasure.c.group_id)
        return {int(row[0]): int(row[1]) for row in db.execute(query)}

    @writing
    def save_table(self, db: Connection, table: OnlineTableRecord, known: OnlineTableRecord | None) -> bool:
        values = asdict(table) | {"lookups": msgspec.json.encode(table.lookups).decode()}
        mine = _is_table(table.project, table.name)
        found = db.execute(select(t.online_table).where(mine)).one_or_none()
        if (None if found is None else online_table_of(found)) != known:  # another process changed the table first
            return False
        # Deleting a group deletes its tables, so none may be registered afterwards.
        if any(group_rows.row_of(db, lookup.project, lookup.group) is None for lookup in table.lookups):
            return False
        db.execute(delete(t.online_table).where(mine))
        db.execute(insert(t.online_table).values(**values))
        return True

    @reading
    def tables(self, db: Connection, project: str | None = None, name: str | None = None) -> list[OnlineTableRecord]:
        query = _named(select(t.online_table), t.online_table, project, name)
        return [online_table_of(row) for row in db.execute(query)]

    @writing
    def delete_table(self, db: Connection, project: str, name: str) -> None:
        db.execute(delete(t.online_table).where(_is_table(project, name)))

    @writing
    def add_training_set(self, db: Connection, made: TrainingSetRecord) -> None:
        texts = {name: msgspec.json.encode(getattr(made, name)).decode() for name in ("pins", "question", "view")}
        if made.view is None:
            del texts["view"]
        try:
            db.execute(insert(t.training_set).values(**(asdict(made) | texts)))
        except IntegrityError:
            raise DefinitionError(f"Project {made.project!r} has a training set {made.name!r}.") from None

    @reading
    def training_sets(
        self, db: Connection, project: str | None = None, name: str | None = None
    ) -> list[TrainingSetRecord]:
        query = _named(select(t.training_set), t.training_set, project, name)
        return [training_set_of(row) for row in db.execute(query)]

    @writing
    def delete_training_set(self, db: Connection, record: TrainingSetRecord) -> None:
        mine = (t.training_set.c.project == record.project) & (t.training_set.c.name == record.name)
        db.execute(delete(t.training_set).where(mine))

    @writing
    def save_view(self, db: Connection, view: ViewRecord) -> ViewRecord | None:
        return views.save(db, view)

    @reading
    def views(self, db: Connection, project: str | None = None, name: str | None = None) -> list[ViewRecord]:
        return views.all_of(db, project, name)

    @writing
    def retire_view(self, db: Connection, view: ViewRecord, at: int | None) -> None:
        views.retire(db, view, at)

    @writing
    def delete_view(self, db: Connection, project: str, name: str) -> None:
        views.remove(db, project, name)

    @writing
    def add_model(self, db: Connection, model: ModelRecord) -> None:
        views.add_model(db, model)

    @reading
    def models(self, db: Connection, project: str, view: str) -> list[ModelRecord]:
        return views.models(db, project, view)

    @writing
    def add_token(self, db: Connection, token: TokenRecord) -> None:
        try:
            db.execute(insert(t.token).values(**asdict(token) | {"rights": _json(token.rights)}))
        except IntegrityError:
            raise DefinitionError(
                f"The name {token.name!r} is or was in use, and cannot be reused. Choose another."
            ) from None

    @reading
    def tokens(self, db: Connection) -> list[TokenRecord]:
        return [token_of(row) for row in db.execute(select(t.token).order_by(t.token.c.name))]

    @writing
    def revoke_token(self, db: Connection, name: str, at: int) -> None:
        db.execute(update(t.token).where(t.token.c.name == name).values(revoked_at=at))


T = TypeVar("T")

_each = {
    "sqlite": func.json_each(t.online_table.c.lookups),
    "postgresql": func.json_array_elements(cast(t.online_table.c.lookups, JSON)),
}
"""The lookups of an online table as rows, by the kind of database."""


def _using(kind: str) -> Select[Any]:
    """Return the query for the online tables that use a group."""
    lookup = column("value", JSON)
    project, group = (lookup[name].as_string() for name in ("project", "group"))
    mine = (project == bindparam("project")) & (group == bindparam("name"))
    found = select(1).select_from(_each[kind].table_valued(lookup, name="lookup")).where(mine)
    columns = t.online_table.c
    return select(t.online_table).where(found.exists()).order_by(columns.project, columns.name)


_USERS = {kind: _using(kind) for kind in _each}


def _found(value: T | None) -> T:
    if value is None:
        raise StoreError("The registry lost a row that this transaction had just written.")
    return value


def _check(db: Connection, record: GroupRecord) -> None:
    if db.scalar(select(t.feature_group.c.id).where(t.feature_group.c.id == record.id)) is None:
        raise GroupDeletedError.of(record.label)


def _state(db: Connection, record: GroupRecord, since: int | None = None) -> GroupState:
    """Return the state of a group, with its writes from the snapshot `since` on, if that is given."""
    return GroupState(
        record,
        tuple(writes.versions(db, record.id, None, ())),
        _last_snapshot(db, record),
        tuple(loads.of(db, record.id)),
        tuple(_users(db, record)),
        _last_erasure(db, record),
        () if since is None else tuple(writes.snapshots(db, record.id, since)),
        tuple(_over(db, record)),
    )


def _over(db: Connection, source: GroupRecord) -> list[GroupRecord]:
    """Return the windowed groups over a source, ordered by project and name."""
    query = _named(group_rows.ALL, t.feature_group, None, None).where(t.feature_group.c.source_id == source.id)
    return [group_of(row) for row in db.execute(query)]


def _users(db: Connection, record: GroupRecord) -> list[OnlineTableRecord]:
    rows = db.execute(_USERS[db.dialect.name], {"project": record.project, "name": record.name})
    return [online_table_of(row) for row in rows]


def _last_snapshot(db: Connection, record: GroupRecord) -> int:
    newest = db.scalar(select(func.max(t.snapshot.c.number)).where(t.snapshot.c.group_id == record.id))
    return -1 if newest is None else int(newest)


def _last_erasure(db: Connection, record: GroupRecord) -> int:
    # Entities are erased from an event source by way of the windowed groups over it.
    over = select(t.feature_group.c.id).where(t.feature_group.c.source_id == record.id)
    mine = (t.erasure.c.group_id == record.id) | t.erasure.c.group_id.in_(over)
    return int(db.scalar(select(func.max(t.erasure.c.at)).where(mine)) or 0)


def _named(query: Select[Any], table: Table, project: str | None, name: str | None) -> Select[Any]:
    """Restrict a query to a project and a name, if they are given, and order it by both."""
    for one, value in ((table.c.project, project), (table.c.name, name)):
        query = query if value is None else query.where(one == value)
    return query.order_by(table.c.project, table.c.name)


def _is_table(project: str, name: str) -> ColumnElement[bool]:
    return (t.online_table.c.project == project) & (t.online_table.c.name == name)


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()
