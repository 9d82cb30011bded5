"""The registry in a SQLite database: short transactions, by any number of processes at once. `registry.protocol` documents the calls."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
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
from seeknal.registry.sqlite import group_rows, loads, upgrade, views, writes
from seeknal.registry.sqlite import tables as t
from seeknal.registry.sqlite.database import Database, reading, writing
from seeknal.registry.sqlite.rows import (
    entity_of,
    group_of,
    online_table_of,
    token_of,
    training_set_of,
)
from seeknal.system.folders import same_access, share
from seeknal.values.times import Interval

if TYPE_CHECKING:
    from seeknal.offline import Commit


class SqliteRegistry(Database):
    """The groups, versions, loads, online tables, training sets and tokens of a home, in a SQLite database.

    Args:
        path: The file of the database; created if it is missing.

    Raises:
        StoreError: The database cannot be created or used.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # `Database` opens existing files only, so a new one is created here.
            if not path.exists():
                with suppress(FileExistsError):
                    path.touch(exist_ok=False)
                    share(path)
        except OSError as error:
            raise StoreError(
                f"The home {path.parent} cannot be created: {error}. Set SEEKNAL_HOME to another folder."
            ) from None
        super().__init__(path)
        self._opened: int | None = None
        self._stand_ins: list[str] = []
        # With a write-ahead log, even readers have to write, and the change counter that `stamp` reads stands still.
        if _WAL in self._head(path.stat().st_ino)[:2]:
            self.leave_wal()
        # Only an upgrade takes the write lock, so that a home that cannot be written can be opened.
        if not self.take("BEGIN", upgrade.is_current):
            try:
                self.take("BEGIN IMMEDIATE", upgrade.upgrade)
            except StoreError:
                # A registry of an earlier release that cannot be written is read as it is.
                if (made := self.take("BEGIN", upgrade.stand_ins)) is None:
                    raise
                self._stand_ins = made

    def take(self, begin: str, step: Callable[[Connection], T]) -> T:
        """Run a step in a transaction; see `Database.take`. A write first migrates a registry that could not be migrated before."""
        if not self._stand_ins:
            return super().take(begin, step)

        def as_if_migrated(db: Connection) -> T:
            if begin != "BEGIN":
                upgrade.upgrade(db)
            for statement in self._stand_ins if begin == "BEGIN" else ():
                db.exec_driver_sql(statement)
            return step(db)

        result = super().take(begin, as_if_migrated)
        self._stand_ins = self._stand_ins if begin == "BEGIN" else []
        return result

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

    def stamp(self) -> bytes:
        """Return a stamp that differs after each change of the registry. Only a few bytes are read for it.

        It contains the "file change counter" of the SQLite database (https://sqlite.org/fileformat2.html, section 1.3.7), and the
        inode, size and modification time of the file, which reveal that another file replaced it or was copied over it. With a
        write-ahead log, the counter stands still while the database changes, so such a database is converted back. As long as
        that is not possible, each call returns a new stamp.

        Raises:
            StoreError: The registry is not there, or cannot be read.
        """
        try:
            found = self.path.stat()
            head = self._head(found.st_ino)
            if _WAL in head[:2]:
                self.leave_wal()
                found = self.path.stat()
                head = self._head(found.st_ino)
            if _WAL in head[:2]:
                return os.urandom(16)  # changes cannot be detected, so callers have to assume one
            return head[6:] + f"{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()
        except OSError as error:
            raise StoreError(f"The registry {self.path} cannot be read: {error}.") from error

    def _head(self, inode: int) -> bytes:
        """Return the versions of the file format (two bytes), four other bytes, and the change counter (four bytes).

        The file is never closed, because this process would lose the locks that SQLite holds on it
        (https://sqlite.org/howtocorrupt.html, section 2.2).
        """
        if self._opened is None or os.fstat(self._opened).st_ino != inode:
            self._opened = os.open(self.path, os.O_RDONLY)
        return os.pread(self._opened, 10, 18)


def copy(source: Path, target: Path) -> None:
    """Copy a registry in a single step, so that the copy is of one moment.

    Raises:
        OSError: The registry cannot be read, or the copy cannot be written.
    """
    try:
        with closing(sqlite3.connect(source, timeout=60)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new, progress=lambda *_: None)  # lets Python handle a Ctrl-C
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
    same_access(source, target)


T = TypeVar("T")
_WAL = 2
"""The version of the file format by which SQLite marks a database with a write-ahead log."""

_lookup = func.json_each(t.online_table.c.lookups).table_valued("value", name="lookup")
_USERS = (
    select(t.online_table)
    .where(
        select(1)
        .where(
            func.json_extract(_lookup.c.value, "$.project") == bindparam("project"),
            func.json_extract(_lookup.c.value, "$.group") == bindparam("name"),
        )
        .select_from(_lookup)
        .exists()
    )
    .order_by(t.online_table.c.project, t.online_table.c.name)
)
"""The online tables that use a group."""


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
    rows = db.execute(_USERS, {"project": record.project, "name": record.name})
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
    for column, value in ((table.c.project, project), (table.c.name, name)):
        query = query if value is None else query.where(column == value)
    return query.order_by(table.c.project, table.c.name)


def _is_table(project: str, name: str) -> ColumnElement[bool]:
    return (t.online_table.c.project == project) & (t.online_table.c.name == name)


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()
