"""Online tables: making, loading, opening and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from seeknal import retrieval
from seeknal.catalog import Catalog
from seeknal.engine import Engine
from seeknal.errors import DefinitionError, notice
from seeknal.feature_group import check_ttl
from seeknal.names import check_name
from seeknal.online import Codec, LmdbStore
from seeknal.registry import GroupRecord, OnlineTableRecord, TableLookup
from seeknal.registry.records import space_of
from seeknal.retrieval import Source
from seeknal.serving import Loaded, Loader, OnlineTable
from seeknal.times import Interval, microseconds, now

_IN_HOME = ""


class OnlineTables:
    """What is online of a home."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._registry = catalog.registry
        self._engine = engine

    def load(self, record: GroupRecord, span: Interval, version: int | None) -> Loaded:
        """Put the newest row of each entity of a version online, as far as it lies in a span.

        Every online table that uses the version is refreshed by it. The table named after the group has all
        features of the version loaded last.
        """
        number = self._catalog.version(record, version).number
        self._point_plain_table_at(record, number)
        space = space_of(record.project, record.name, number)
        targets = {t.target for t in self._registry.tables() if any(lookup.space == space for lookup in t.lookups)}
        results = [self._load(record, number, span, target) for target in sorted(targets or {_IN_HOME})]
        return results[0]

    def serve(
        self,
        sources: Sequence[Source],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
    ) -> OnlineTable:
        """Make an online table of the looked-up features, pinned to the versions that are current, and load it.

        Args:
            sources: The features.
            name: The table's name; the group's own if there is but one.
            target: Folder of the online store; the one in the home without it.
            ttl: How long values are good for, in place of the groups' own.
        """
        check_ttl(ttl)
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
        for known in self._registry.tables(table.project, table.name):
            if known != replace(table, created_at=known.created_at):
                notice(f"Online table {table.label!r} is now another: {table}. It was {known}.")
        self._registry.save_table(table)
        return self.open(table)

    def open(self, table: OnlineTableRecord) -> OnlineTable:
        """Open an online table."""
        codecs, ttls = [], []
        for lookup in table.lookups:
            record = self._catalog.group(lookup.group, lookup.project)
            codecs.append(Codec(self._catalog.version(record, lookup.version).schema))
            ttls.append(record.group.materialization.lifetime if table.ttl is None else table.ttl)
        return OnlineTable(table, codecs, ttls, self._online(table.target))

    def delete(self, table: OnlineTableRecord) -> None:
        """Remove an online table, and rows that no other one uses."""
        self._registry.delete_table(table.project, table.name)
        used = {(other.target, lookup.space) for other in self._registry.tables() for lookup in other.lookups}
        for lookup in table.lookups:
            if (table.target, lookup.space) not in used:
                self._registry.forget_loads(
                    self._catalog.group(lookup.group, lookup.project), lookup.version, table.target
                )
                self._online(table.target).drop(lookup.space)

    def of(self, record: GroupRecord) -> list[OnlineTableRecord]:
        """List the online tables that use a group."""
        return [table for table in self._registry.tables() if _uses(table, record)]

    def drop(self, record: GroupRecord) -> None:
        """Remove all that is online of a group, and the tables that use it."""
        for table in self.of(record):
            self._registry.delete_table(table.project, table.name)
        for load in self._registry.loads(record):
            self._online(load.target).drop(space_of(record.project, record.name, load.version))

    def _load(self, record: GroupRecord, number: int, span: Interval, target: str) -> Loaded:
        loader = Loader(self._registry, self._engine)
        return loader.load(record, span, target, self._online(target), lambda: self._catalog.read(record, number))

    def reload(self, record: GroupRecord, number: int) -> None:
        """Load what is online of a version again."""
        for load in {load.target: load for load in self._registry.loads(record, number)}.values():
            self._load(record, number, load.interval, load.target)

    def _point_plain_table_at(self, record: GroupRecord, number: int) -> None:
        """Let the table named after the group have this version, unless somebody made another of that name."""
        lookups = (self._plain(record, number),)
        table = OnlineTableRecord(record.project, record.name, lookups, None, _IN_HOME, now())
        for found in self._registry.tables(table.project, table.name):
            if found.lookups == lookups or not self._is_plain(found, record):
                return
            table = replace(table, ttl=found.ttl, target=found.target)
        self._registry.save_table(table)

    def _is_plain(self, table: OnlineTableRecord, record: GroupRecord) -> bool:
        first = table.lookups[0]
        return _uses(table, record) and table.lookups == (self._plain(record, first.version),)

    def _plain(self, record: GroupRecord, number: int) -> TableLookup:
        """Select all features of a version under their own names."""
        schema = self._catalog.version(record, number).schema
        own = [tuple((name, name) for name in names) for names in (schema.key_names, schema.feature_names)]
        return TableLookup(record.project, record.name, number, *own)

    def _online(self, target: str) -> LmdbStore:
        return LmdbStore(Path(target) if target else self._catalog.home / "online")


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
