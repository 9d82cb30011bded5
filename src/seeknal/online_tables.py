"""Online tables: making, loading, opening and deleting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seeknal import online
from seeknal.catalog import Catalog
from seeknal.config import checked_store
from seeknal.errors import DefinitionError, notice
from seeknal.feature_group import check_ttl
from seeknal.names import check_name
from seeknal.online import Codec, OnlineStore, State
from seeknal.registry import GroupRecord, OnlineTableRecord, TableLookup
from seeknal.registry.records import space_of
from seeknal.serving import OnlineTable, Part
from seeknal.times import DAY, Interval, microseconds, now, without

if TYPE_CHECKING:
    from seeknal.engine import Engine
    from seeknal.loading import Loaded
    from seeknal.offline import Snapshot
    from seeknal.progress import Tell
    from seeknal.retrieval import Source


@dataclass(frozen=True)
class Ledger:
    """What is online of a version in one store.

    Args:
        version: The version.
        place: The store.
        state: What the rows there are made from; None if there are none.
        snapshot: The version's last snapshot, from which they would be made now.
    """

    version: int
    place: str
    state: State | None
    snapshot: Snapshot

    @property
    def is_fresh(self) -> bool:
        """Whether the rows are made from the version's last snapshot."""
        return self.state is not None and self.state.files == self.snapshot.fingerprint

    @property
    def holes(self) -> list[Interval]:
        """Spans of event time in which rows are stored, but were never loaded."""
        starts = [file.start for file in self.snapshot.files if file.start is not None]
        ends = [file.end for file in self.snapshot.files if file.end is not None]
        stored = [Interval(min(starts), max(ends))] if starts and ends else []
        return without(stored, self.state.spans if self.state else ())


_DEFAULT = ""
_GRACE = DAY
"""How much longer than its ttl a store that forgets keeps a row: clocks differ, and "expired" says more than "not found"."""


class OnlineTables:
    """What is online of a home.

    Args:
        catalog: What the home holds.
        engine: Gives what reads rows; asked when something is loaded.
        place: The online store that holds where a table does not say another.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine], place: str) -> None:
        self._catalog = catalog
        self._registry = catalog.registry
        self._engine = engine
        self._place = place

    def load(
        self,
        record: GroupRecord,
        span: Interval,
        version: int | None = None,
        *,
        at: int | None = None,
        tell: Tell = lambda _: None,
    ) -> Loaded:
        """Put the newest row of each entity of a version online, as far as it lies in a span.

        Every online table that uses the version is refreshed by it. The table named after the group has all
        features of the version loaded last.
        """
        number = self._catalog.version(record, version).number
        space = space_of(record.project, record.name, number)
        plain = self._new_plain_table(record, number)
        tables = [*self._registry.tables(), *([plain] if plain else [])]
        targets = {table.target for table in tables if any(lookup.space == space for lookup in table.lookups)}
        results = [self._load(record, number, span, name, at, tell, plain) for name in sorted(targets or {_DEFAULT})]
        if plain := self._new_plain_table(record, number):  # now that its rows are there
            self._registry.save_table(plain)
        return results[0]

    def serve(
        self,
        sources: Sequence[Source],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        at: int | None = None,
        tell: Tell = lambda _: None,
    ) -> OnlineTable:
        """Make an online table of the looked-up features, pinned to the versions that are current, and load it.

        Args:
            sources: The features.
            name: The table's name; the group's own if there is but one.
            target: Another online store than the home's: a folder, or the URL of Redis, without a password.
            ttl: How long values are good for, in place of the groups' own.
            at: What counts as now, in microseconds since 1970; the clock if None.
            tell: Is told how far it is.
        """
        check_ttl(ttl)
        if name is None and len(sources) > 1:
            raise DefinitionError('An online table of several groups needs a name: serve(name="...").')
        from seeknal import retrieval

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
            self._load(source.record, source.version.number, Interval(), table.target, at, tell, table)
        for known in self._registry.tables(table.project, table.name):
            if known != replace(table, created_at=known.created_at):
                notice(f"Online table {table.label!r} is now another: {table}. It was {known}.")
        self._registry.save_table(table)
        return self.open(table)

    def open(self, table: OnlineTableRecord) -> OnlineTable:
        """Open an online table."""
        parts = []
        for lookup in table.lookups:
            record = self._catalog.group(lookup.group, lookup.project)
            codec = Codec(self._catalog.version(record, lookup.version).schema)
            place = online.shown(table.target or self._place)
            parts.append(Part(lookup, codec, self._online(table.target), table.ttl, place, record.created_at))
        return OnlineTable(table, parts)

    def delete(self, table: OnlineTableRecord) -> None:
        """Remove an online table, and rows that no other one uses; the table last, so that it can be tried again."""
        others = [one for one in self._registry.tables() if (one.project, one.name) != (table.project, table.name)]
        used = {(other.target, lookup.space) for other in others for lookup in other.lookups}
        for lookup in table.lookups:
            if (table.target, lookup.space) not in used:
                self._online(table.target).drop(lookup.space)
                record = self._catalog.group(lookup.group, lookup.project)
                self._registry.forget_loads(record, lookup.version, table.target)
        self._registry.delete_table(table.project, table.name)

    def of(self, record: GroupRecord) -> list[OnlineTableRecord]:
        """List the online tables that use a group."""
        return [table for table in self._registry.tables() if _uses(table, record)]

    def drop(self, record: GroupRecord) -> None:
        """Remove all that is online of a group, and the tables that use it."""
        for load in self._registry.loads(record):
            self._online(load.target).drop(space_of(record.project, record.name, load.version))
        for table in self.of(record):
            self._registry.delete_table(table.project, table.name)

    def reload(
        self,
        record: GroupRecord,
        number: int | None = None,
        target: str | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        """Bring up to date what is online of a version, or of all, in one online store, or in all."""
        loads = self._registry.loads(record, number, target)
        for load in {(load.version, load.target): load for load in loads}.values():
            self._load(record, load.version, load.interval, load.target, tell=tell)

    def ledger(self, record: GroupRecord) -> list[Ledger]:
        """Say what is online of each version of a group, in each store it was ever loaded into."""
        loads = {(load.version, load.target) for load in self._registry.loads(record)}
        return [self.line(record, version, name) for version, name in sorted(loads)]

    def line(self, record: GroupRecord, version: int, name: str) -> Ledger:
        """Say what is online of a version in the store of a name."""
        state, place = self._state(record, version, name), online.shown(name or self._place)
        return Ledger(version, place, state, self._catalog.read(record, version)[1])

    def _state(self, record: GroupRecord, version: int, name: str) -> State | None:
        try:
            return State.loads(self._online(name).get(space_of(record.project, record.name, version), [])[0])
        except KeyError:
            return None

    def _load(
        self,
        record: GroupRecord,
        number: int,
        span: Interval,
        name: str,
        at: int | None = None,
        tell: Tell = lambda _: None,
        more: OnlineTableRecord | None = None,
    ) -> Loaded:
        from seeknal.loading import Loader, Target

        place = name or self._place
        is_shared = place != str(self._catalog.home / "online")
        kept = self._kept(record, number, name, more)
        target = Target(name, online.shown(place), is_shared, self._online(name), kept)
        loader = Loader(self._catalog, self._engine())
        return loader.load(record, number, target, span, now() if at is None else at, tell)

    def _kept(self, record: GroupRecord, number: int, name: str, more: OnlineTableRecord | None) -> int | None:
        """Say how long the tables that use a version need its rows; None: for ever."""
        space = space_of(record.project, record.name, number)
        tables = [*self._registry.tables(), *([more] if more else [])]
        mine = [one for one in tables if one.target == name and any(lookup.space == space for lookup in one.lookups)]
        own = self._catalog.group(record.name, record.project).group.materialization.lifetime
        lifetimes = [own, *(own if one.ttl is None else one.ttl for one in mine)]
        known = [lifetime for lifetime in lifetimes if lifetime is not None]
        return max(known) + _GRACE if len(known) == len(lifetimes) else None

    def _new_plain_table(self, record: GroupRecord, number: int) -> OnlineTableRecord | None:
        """Give the table named after the group with this version; None if it has it, or somebody made another."""
        lookups = (self._plain(record, number),)
        table = OnlineTableRecord(record.project, record.name, lookups, None, _DEFAULT, now())
        for found in self._registry.tables(table.project, table.name):
            if found.lookups == lookups or not self._is_plain(found, record):
                return None
            table = replace(table, ttl=found.ttl, target=found.target)
        return table

    def _is_plain(self, table: OnlineTableRecord, record: GroupRecord) -> bool:
        first = table.lookups[0]
        return _uses(table, record) and table.lookups == (self._plain(record, first.version),)

    def _plain(self, record: GroupRecord, number: int) -> TableLookup:
        """Select all features of a version under their own names."""
        schema = self._catalog.version(record, number).schema
        own = [tuple((name, name) for name in names) for names in (schema.key_names, schema.feature_names)]
        return TableLookup(record.project, record.name, number, *own)

    def _online(self, target: str) -> OnlineStore:
        return online.connect(target or self._place)


def _pinned(source: Source) -> TableLookup:
    keys, features = tuple(source.keys.items()), tuple(source.features.items())
    return TableLookup(source.record.project, source.record.name, source.version.number, keys, features)


def _uses(table: OnlineTableRecord, record: GroupRecord) -> bool:
    return any((lookup.project, lookup.group) == (record.project, record.name) for lookup in table.lookups)


def _checked_target(target: str | Path | None) -> str:
    if target is None:
        return _DEFAULT
    place = checked_store(str(target), "target")
    if "://" in place and urlsplit(place).password:
        raise DefinitionError(
            f"target={online.shown(place)!r} would put a password into the registry. Set online_store in seeknal.toml, or "
            "SEEKNAL_ONLINE_STORE, to that URL, and leave target out."
        )
    return place
