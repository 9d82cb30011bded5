"""The feature store: the one object that knows all steps. Every other way in is a call on it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

import duckdb
import pyarrow as pa

from seeknal import config, duck, frames, retrieval, writing
from seeknal.catalog import Catalog
from seeknal.engine import Engine
from seeknal.engine.duckdb import DuckDBEngine
from seeknal.entity import Entity
from seeknal.errors import DefinitionError, notice
from seeknal.feature_group import FeatureGroup, FeatureLookup, check_lookups, check_ttl
from seeknal.names import check_name
from seeknal.offline import Conflict, Write
from seeknal.online import Codec, LmdbStore
from seeknal.registry import GroupRecord, Load, OnlineTableRecord, Registry, TableLookup, Version
from seeknal.registry.records import space_of
from seeknal.retrieval import Source
from seeknal.schema import Change, Roles, difference
from seeknal.serving import Loaded, Loader, OnlineTable
from seeknal.times import Interval, Moment, instant, microseconds, now
from seeknal.writing import Job, Written

_IN_HOME = ""
_stores: WeakSet[FeatureStore] = WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """Let a forked process open its own query engine: DuckDB cannot be carried over.

    What was inherited is kept, since ending it would wait for threads that are not there.
    """
    for store in _stores:
        _inherited.extend(store._forget())  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)


class FeatureStore:
    """A feature store in a folder.

    Args:
        home: The folder. Without it: SEEKNAL_HOME, else `.seeknal` beside the nearest seeknal.toml, else ~/.seeknal.
        memory_limit: Most memory a query may take, such as "4GB".
        lookback_days: How far before its rows a write may reach before it gives a notice.
    """

    def __init__(
        self, home: str | Path | None = None, *, memory_limit: str | None = None, lookback_days: int | None = None
    ) -> None:
        self.settings = config.load(home=home, memory_limit=memory_limit, lookback_days=lookback_days)
        self.home = self.settings.home
        _stores.add(self)

    @cached_property
    def registry(self) -> Registry:
        """What exists."""
        return Registry(self.home / "registry.db")

    @cached_property
    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        return duck.connect(self.home / "scratch", self.settings.memory_limit)

    @cached_property
    def engine(self) -> Engine:
        """What answers queries."""
        return DuckDBEngine(self._duckdb)

    @cached_property
    def catalog(self) -> Catalog:
        """Where things are found."""
        return Catalog(self.home, self.registry, self._duckdb)

    def close(self) -> None:
        """Let go of the query engine and its memory; it opens again when it is next used."""
        for part in self._forget():
            if isinstance(part, duckdb.DuckDBPyConnection):
                part.close()

    def _forget(self) -> list[object]:
        names = ("engine", "catalog", "_duckdb")
        return [self.__dict__.pop(name) for name in names if name in self.__dict__]

    # Groups and their versions

    def get_or_create(self, group: FeatureGroup) -> GroupRecord:
        """Register a group, or find it and bring its description, ttl and online flag up to date.

        Raises:
            DefinitionError: It is registered with another entity or other time columns.
        """
        return self.catalog.register(group)

    def versions(self, name: str, project: str | None = None) -> list[Version]:
        """List a group's versions, the oldest first."""
        return self.catalog.versions(self.catalog.group(name, project))

    def version(self, name: str, project: str | None = None, number: int | None = None) -> Version:
        """Give one version of a group; the current one without a number."""
        return self.catalog.version(self.catalog.group(name, project), number)

    def diff(self, name: str, old: int, new: int, project: str | None = None) -> list[Change]:
        """List what changed between two versions of a group."""
        record = self.catalog.group(name, project)
        return difference(self.catalog.version(record, old).schema, self.catalog.version(record, new).schema)

    def watermarks(self, name: str, project: str | None = None) -> list[int]:
        """List the newest event time of each write to a group's current version, in microseconds since 1970."""
        record = self.catalog.group(name, project)
        versions = self.catalog.versions(record)
        return self.registry.watermarks(record, versions[-1].number) if versions else []

    def sample(self, name: str, project: str | None = None, *, limit: int, version: int | None = None) -> pa.Table:
        """Give the rows written last to a version of a group, the very last first."""
        found, snapshot = self.catalog.read(self.catalog.group(name, project), version)
        return self.engine.sample(snapshot.within(found.schema), limit)

    def delete_group(self, name: str, project: str | None = None) -> None:
        """Remove a group: its rows, its versions, and what of it is online.

        Raises:
            DefinitionError: There is no such group, or an online table needs it.
        """
        record = self.catalog.group(name, project)
        users = [table for table in self.registry.tables() if _uses(table, record)]
        if others := [table.label for table in users if table.label != record.label]:
            raise DefinitionError(
                f"Feature group {record.label!r} is served by online table {', '.join(map(repr, others))}. "
                f"Delete that first: seeknal delete-table {others[0]}."
            )
        root, trash = self.catalog.offline(record.project, record.name).root, self.home / "trash" / uuid.uuid4().hex
        if root.exists():
            trash.parent.mkdir(parents=True, exist_ok=True)
            root.rename(trash)
        loaded = {
            (load.target, space_of(record.project, record.name, load.version)) for load in self.registry.loads(record)
        }
        for table in users:
            self.registry.delete_table(table.project, table.name)
        self.registry.delete_group(record)
        for target, space in loaded:
            self._online(target).drop(space)
        shutil.rmtree(trash, ignore_errors=True)

    # Offline

    def write(
        self,
        group: FeatureGroup,
        frame: object,
        *,
        features: Sequence[str] | None = None,
        declared: Mapping[str, pa.DataType] | None = None,
        interval: Interval = Interval(),
        mode: str = "overwrite",
        drop_nulls: bool = False,
    ) -> Written:
        """Write rows to a group, as one snapshot, all or none; and load them if the group is online.

        Args:
            group: The group; registered if it is new.
            frame: The rows.
            features: Columns that are features; without it all that have no other part.
            declared: Types of features, where the frame's own are not meant.
            interval: Rows outside are not written; `overwrite` replaces what is stored inside.
            mode: "overwrite", "append" or "merge" (on keys and event time).
            drop_nulls: Leave out rows without an event time instead of refusing them.

        Raises:
            DefinitionError: The group has no event time, or the mode is unknown.
            DataError: The frame does not fit; nothing was stored.
            StoreError: Other writers were faster every time, or the disk is in the way.
        """
        roles = Roles(
            group.name,
            group.entity.join_keys,
            group.event_time_col,
            group.materialization.created_time_col,
            None if features is None else tuple(features),
            declared,
        )
        settled = frames.settle(frame)
        frames.require(settled, roles.named, f"The frame for group {group.name!r}")
        job = Job(group, frames.to_arrow(settled, features and roles.named), roles, mode, interval, drop_nulls)
        written = writing.write(self.catalog, job, self.settings.lookback_days)
        if not group.materialization.online:
            return written
        return replace(written, online_rows=self.load(group.name, group.project).online)

    def clean(self, name: str, before: int, project: str | None = None, *, dry_run: bool = False) -> int:
        """Remove the rows of a group's current version that are older than an instant.

        Earlier snapshots, and so other versions, keep theirs.

        Returns:
            How many rows went, or would go.
        """
        record = self.catalog.group(name, project)
        span = Interval(None, before - 1)
        while True:
            version, snapshot = self.catalog.read(record)
            count = self.engine.count(snapshot.within(version.schema, span))
            if dry_run or not count:
                return count
            empty = pa.Table.from_arrays(
                [pa.array([], kind) for kind in version.schema.stored_types], names=version.schema.names
            )
            try:
                offline = self.catalog.offline(record.project, record.name)
                offline.write(snapshot, Write(empty, version.schema, version.number, "overwrite", span))
            except Conflict:
                continue
            self.catalog.catch_up(record)
            self._reload(record, version.number)
            return count

    # Reading

    def sources(self, lookups: Sequence[FeatureLookup]) -> list[Source]:
        """Find what lookups lead to.

        Raises:
            DefinitionError: They are no list of lookups, or a group or feature does not exist.
        """
        check_lookups(lookups)
        return [self.catalog.source(lookup) for lookup in lookups]

    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        span: Interval = Interval(),
        output: str | None = None,
    ) -> Any:
        """Give each row of a spine the features that were known at its moment; see `seeknal.retrieval`.

        Returns:
            A frame of the spine's kind, or of the one asked for: the spine's rows and columns, then the features.
        """
        kind = frames.output_kind(spine, output)
        frame = frames.settle(spine)
        moments = retrieval.Spine(frame, date_col, keep, case_counts=kind != "duckdb")
        names, features = retrieval.training_set(self.engine, self.sources(lookups), moments, span)
        return frames.with_columns(frame, names, features, kind)

    def history(
        self, lookups: Sequence[FeatureLookup], *, span: Interval = Interval(), output: str | None = None
    ) -> Any:
        """Give one row per entity and event time at which any looked-up group changed."""
        kind = frames.output_kind(None, output)
        return frames.from_arrow(retrieval.history(self.engine, self.sources(lookups), span), kind)

    def latest(
        self,
        lookups: Sequence[FeatureLookup],
        *,
        span: Interval = Interval(),
        at: Moment | None = None,
        output: str | None = None,
    ) -> Any:
        """Give one row per entity, as known at a moment (now without one)."""
        kind = frames.output_kind(None, output)
        moment = now() if at is None else instant(at)
        return frames.from_arrow(retrieval.latest(self.engine, self.sources(lookups), span, moment), kind)

    # Online

    def load(
        self, name: str, project: str | None = None, *, span: Interval = Interval(), version: int | None = None
    ) -> Loaded:
        """Put the newest row of each entity of a version online, as far as it lies in a span.

        Every online table that uses the version is refreshed by it. The table named after the group has all
        features of the version loaded last.
        """
        record = self.catalog.group(name, project)
        number = self.catalog.version(record, version).number
        self._point_plain_table_at(record, number)
        space = space_of(record.project, record.name, number)
        targets = {t.target for t in self.registry.tables() if any(lookup.space == space for lookup in t.lookups)}
        results = [self._load(record, number, span, target) for target in sorted(targets or {_IN_HOME})]
        return results[0]

    def serve(
        self,
        lookups: Sequence[FeatureLookup],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
    ) -> OnlineTable:
        """Make an online table of the looked-up features, pinned to the versions that are current, and load it.

        Args:
            lookups: The features.
            name: The table's name; the group's own if there is but one.
            target: Folder of the online store; the one in the home without it.
            ttl: How long values are good for, in place of the groups' own.
        """
        check_ttl(ttl)
        sources = self.sources(lookups)
        if name is None and len(sources) > 1:
            raise DefinitionError('An online table of several groups needs a name: serve(name="...").')
        first = sources[0].record
        retrieval.check_names(sources, sorted({key for source in sources for key in source.keys.values()}))
        table = OnlineTableRecord(
            project=first.project,
            name=check_name("online table", first.group.name if name is None else name),
            lookups=tuple(_pinned(source) for source in sources),
            ttl=None if ttl is None else microseconds(ttl),
            target=_checked_target(target),
            created_at=now(),
        )
        for source in sources:
            self._load(source.record, source.version.number, Interval(), table.target)
        for known in self.registry.tables(table.project, table.name):
            if known != replace(table, created_at=known.created_at):
                notice(f"Online table {table.label!r} is now another: {table}. It was {known}.")
        self.registry.save_table(table)
        return self._open(table)

    def online_table(self, name: str, project: str | None = None) -> OnlineTable:
        """Open an online table."""
        return self._open(self.catalog.online_table(name, project))

    def delete_table(self, name: str, project: str | None = None) -> None:
        """Remove an online table, and rows that no other one uses."""
        table = self.catalog.online_table(name, project)
        self.registry.delete_table(table.project, table.name)
        used = {(other.target, lookup.space) for other in self.registry.tables() for lookup in other.lookups}
        for lookup in table.lookups:
            if (table.target, lookup.space) not in used:
                self.registry.forget_loads(
                    self.catalog.group(lookup.group, lookup.project), lookup.version, table.target
                )
                self._online(table.target).drop(lookup.space)

    def loads(self, name: str, project: str | None = None) -> list[Load]:
        """List what of a group was put online, the oldest load first."""
        return self.registry.loads(self.catalog.group(name, project))

    def entities(self, project: str | None = None) -> list[tuple[str, Entity]]:
        """List the entities, each with its project."""
        return self.registry.entities(project)

    def _load(self, record: GroupRecord, number: int, span: Interval, target: str) -> Loaded:
        loader = Loader(self.registry, self.engine)
        return loader.load(record, span, target, self._online(target), lambda: self.catalog.read(record, number))

    def _reload(self, record: GroupRecord, number: int) -> None:
        for load in {load.target: load for load in self.registry.loads(record, number)}.values():
            self._load(record, number, load.interval, load.target)

    def _point_plain_table_at(self, record: GroupRecord, number: int) -> None:
        """Let the table named after the group have this version, unless somebody made another of that name."""
        lookups = (self._plain(record, number),)
        table = OnlineTableRecord(record.project, record.name, lookups, None, _IN_HOME, now())
        for found in self.registry.tables(table.project, table.name):
            if found.lookups == lookups or not self._is_plain(found, record):
                return
            table = replace(table, ttl=found.ttl, target=found.target)
        self.registry.save_table(table)

    def _is_plain(self, table: OnlineTableRecord, record: GroupRecord) -> bool:
        first = table.lookups[0]
        return _uses(table, record) and table.lookups == (self._plain(record, first.version),)

    def _plain(self, record: GroupRecord, number: int) -> TableLookup:
        """Select all features of a version under their own names."""
        schema = self.catalog.version(record, number).schema
        own = [tuple((name, name) for name in names) for names in (schema.key_names, schema.feature_names)]
        return TableLookup(record.project, record.name, number, *own)

    def _open(self, table: OnlineTableRecord) -> OnlineTable:
        codecs, ttls = [], []
        for lookup in table.lookups:
            record = self.catalog.group(lookup.group, lookup.project)
            codecs.append(Codec(self.catalog.version(record, lookup.version).schema))
            ttls.append(record.group.materialization.lifetime if table.ttl is None else table.ttl)
        return OnlineTable(table, codecs, ttls, self._online(table.target))

    def _online(self, target: str) -> LmdbStore:
        return LmdbStore(Path(target) if target else self.home / "online")


def _pinned(source: Source) -> TableLookup:
    keys, features = tuple(source.keys.items()), tuple(source.features.items())
    return TableLookup(source.record.project, source.record.name, source.version.number, keys, features)


def _uses(table: OnlineTableRecord, record: GroupRecord) -> bool:
    return any((lookup.project, lookup.group) == (record.project, record.name) for lookup in table.lookups)


def _checked_target(target: str | Path | None) -> str:
    if "://" in str(target):
        raise DefinitionError(
            f"target={target!r} is no folder. The online store is LMDB: give a folder, or leave it out."
        )
    return _IN_HOME if target is None else str(Path(target).absolute())
