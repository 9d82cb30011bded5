"""Online tables: making, loading, opening and deleting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal import online
from seeknal.addresses import has_password
from seeknal.catalog import Catalog
from seeknal.config import checked_store
from seeknal.errors import DefinitionError, NotOnlineError, SeeknalError, StoreError, notice
from seeknal.feature_group import check_ttl
from seeknal.following import Feed, feeds, uses, whole
from seeknal.moving import DEFAULT, Move, Mover
from seeknal.names import check_name
from seeknal.notebook import Shown
from seeknal.online import State
from seeknal.overview import Overview
from seeknal.progress import Tell, silent
from seeknal.registry import GroupRecord, OnlineTableRecord, TableLookup
from seeknal.registry.records import space_of
from seeknal.served import Erasures, Opener, ServedTable
from seeknal.serving import OnlineTable
from seeknal.times import Interval, microseconds, now, without
from seeknal.turns import take_turns

if TYPE_CHECKING:
    from seeknal.engine import Engine
    from seeknal.loading import Ask, Loaded
    from seeknal.offline import Snapshot
    from seeknal.retrieval import Source
    from seeknal.verification import Verified


@dataclass(frozen=True)
class Ledger:
    """What is online of a version in one store.

    Args:
        version: The version.
        place: The store.
        state: What the rows there are made from; None if there are none.
        mark: What tells the files of the version's last snapshot, from which they would be made now, from others.
        read: Reads that snapshot.
    """

    version: int
    place: str
    state: State | None
    mark: bytes
    read: Callable[[], Snapshot]

    @property
    def is_fresh(self) -> bool:
        """Whether the rows are made from the version's last snapshot, as far as is known."""
        return self.state is not None and not self.state.doubted and self.state.files == self.mark

    @property
    def holes(self) -> list[Interval]:
        """Spans of event time in which rows are stored, but were never loaded."""
        files = self.read().files
        starts = [file.start for file in files if file.start is not None]
        ends = [file.end for file in files if file.end is not None]
        stored = [Interval(min(starts), max(ends))] if starts and ends else []
        return without(stored, self.state.spans if self.state else ())


@dataclass(frozen=True)
class Refreshed(Shown):
    """What a refresh of an online table did.

    Args:
        table: Project and name of the table.
        groups: What was loaded, for each version of a group that feeds the table.
        cut_off: Why groups no longer feed it; see `seeknal.following`.
    """

    table: str
    groups: tuple[Loaded, ...]
    cut_off: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """For how many entities of all groups a row was put or removed."""
        return sum(one.changed for one in self.groups)

    def __str__(self) -> str:
        lines = [f"{self.table} refreshed", *map(str, self.groups), *(f"cut off: {reason}" for reason in self.cut_off)]
        return "\n  ".join(lines)


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
        self._mover = Mover(catalog, engine, place)
        self._opener = Opener(catalog, place)

    def at_once(self) -> OnlineTables:
        """Return the same, for a look at many of them: what is registered is read at once."""
        return OnlineTables(Overview(self._catalog), self._engine, self._place)

    # Loading

    def load(
        self,
        record: GroupRecord,
        span: Interval = Interval(),
        version: int | None = None,
        *,
        at: int | None = None,
        tell: Tell = silent,
    ) -> Loaded:
        """Put the newest row of each entity of a version online, as far as it lies in a span.

        Every online table that uses the version is refreshed, and those that follow the group move to it if it is the
        current one. The table named after the group takes all its features, and stays at it if a version is named.
        """

        def step() -> Loaded:
            found = self._catalog.version(record, version)
            own = self._mover.own(record, whole(record, found, pinned=version is not None))
            return self._mover.bring(record, found.number, _ask((span,), at, tell), own=own)[0]

        loaded = take_turns(record.label, step)
        self.tell_of_cut_off(record)
        return loaded

    def follow(self, record: GroupRecord, span: Interval = Interval(), version: int | None = None) -> Loaded:
        """Load what was written to a version, as `load` does.

        The table named after the group is made where there is none of that name, and is otherwise one like the others.
        """

        def step() -> Loaded:
            found = self._catalog.version(record, version)
            is_there = self._registry.tables(record.project, record.name)
            own = None if is_there else self._mover.own(record, whole(record, found))
            return self._mover.bring(record, found.number, _ask((span,)), own=own)[0]

        return take_turns(record.label, step)

    def refresh(
        self,
        tables: Sequence[OnlineTableRecord],
        *,
        full: bool = False,
        at: int | None = None,
        tell: Tell = silent,
        take_over: bool = False,
    ) -> list[Refreshed]:
        """Load all groups of some tables, in the spans that were asked for before; no table is made by this.

        What no longer feeds a table stays as its version stood. If one table cannot be refreshed, the others are.

        Args:
            tables: The tables.
            full: Write all rows anew, of all time.
            at: What counts as now, in microseconds since 1970; the clock if None.
            tell: Is told how far it is.
            take_over: Make rows this home's that another home loaded into a store that both use.

        Raises:
            StoreError: Tables could not be refreshed.
        """
        done, failed = [], []
        for table in tables:
            try:
                done.append(self._refresh(table, _ask((), at, tell, full, take_over)))
            except SeeknalError as error:
                if len(tables) == 1:
                    raise
                failed.append(f"{table.label}: {error}")
        if failed:
            raise StoreError(f"Of {len(tables)} online tables these could not be refreshed. {' '.join(failed)}")
        return done

    def _refresh(self, table: OnlineTableRecord, ask: Ask) -> Refreshed:
        def step(record: GroupRecord, number: int) -> Loaded:
            known = self._registry.loads(record, number, table.target)
            span = Interval() if ask.full or not known else known[-1].interval
            return self._mover.bring(record, number, replace(ask, spans=(span,)), targets=[table.target])[0]

        wanted = {(one.record.id, one.goal.version): one.record for one in self.feeds(table)}
        done = [take_turns(record.label, partial(step, record, number)) for (_, number), record in wanted.items()]
        return Refreshed(table.label, tuple(done), self.cut_off(table))

    def follow_ttl(self, known: GroupRecord | None, record: GroupRecord) -> None:
        """Let a ttl that was changed hold online as well."""
        if known and known.group.materialization.ttl != record.group.materialization.ttl:
            self.reload(record)

    def reload(
        self,
        record: GroupRecord,
        number: int | None = None,
        target: str | None = None,
        tell: Tell = silent,
        *,
        take_over: bool = False,
    ) -> None:
        """Bring up to date what is online of a version, or of all, in one online store, or in all; not what another home loaded."""
        loads = self._registry.loads(record, number, target)
        for load in {(load.version, load.target): load for load in loads}.values():
            if not take_over and self._mover.is_foreign(record, load.version, load.target):
                place = self.place(load.target)
                notice(
                    f"What {place} has of {record.label} is of another home, or of a group that was deleted, and stays as it is."
                )
                continue
            self._mover.load(record, load.version, load.target, _ask((load.interval,), tell=tell, take_over=take_over))

    def require(self, record: GroupRecord) -> None:
        """Check that each store answers that something of a group was loaded into.

        Raises:
            StoreError: One does not.
        """
        for load in self._registry.loads(record):
            self._mover.state(space_of(record.project, record.name, load.version), load.target)

    def is_behind(self, record: GroupRecord) -> bool:
        """Tell whether the current version is not online as it is stored; if a store does not answer, it is not."""
        number = self._catalog.version(record).number
        targets = {load.target for load in self._registry.loads(record, number)}
        try:
            return not targets or not all(self.line(record, number, target).is_fresh for target in targets)
        except StoreError:
            return True

    def take_out(self, record: GroupRecord, key: bytes, at: int) -> None:
        """Remove an entity that is about to be erased; see `Mover.take_out`."""
        self._mover.take_out(record, key, at)

    # Tables

    def serve(
        self,
        sources: Sequence[Source],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        at: int | None = None,
        tell: Tell = silent,
    ) -> ServedTable:
        """Make an online table of the looked-up features, and load it.

        It keeps these features and their types, and moves on with each group as long as the group has them. A lookup that
        names a version stays at it.

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
            lookups=tuple(_looked_up(source) for source in sources),
            ttl=None if ttl is None else microseconds(ttl),
            target=_checked_target(target),
            created_at=now(),
        )
        ask = _ask((Interval(),), at, tell)
        before = take_turns(table.label, lambda: self._serve(sources, table, ask))
        if before and not self._goes_on(before, table):
            notice(f"Online table {table.label!r} is now another: {table}. It was {before}.")
        return self.served(table)

    def _serve(self, sources: Sequence[Source], table: OnlineTableRecord, ask: Ask) -> OnlineTableRecord | None:
        """Load a table, put it in place of one of its name, and give that one."""
        known = next(iter(self._registry.tables(table.project, table.name)), None)
        for source in sources:
            self._mover.bring(source.record, source.version.number, ask, own=Move(table, table), targets=[table.target])
        self._mover.settle([Move(known, table)])
        for lookup in known.lookups if known else ():
            if known and (record := self._registry.group(lookup.project, lookup.group)):
                self._mover.sweep(record, [known.target])
        return known

    def _goes_on(self, before: OnlineTableRecord, table: OnlineTableRecord) -> bool:
        """Tell whether a table that was served again is the same, but for the versions that it follows."""
        old = self.feeds(before)
        goals = tuple(replace(one.goal, whole=False) for one in old)
        same = replace(before, lookups=goals, created_at=table.created_at) == table
        return same and not any(one.cut_off for one in old)

    def served(self, table: OnlineTableRecord) -> ServedTable:
        """Open an online table, to ask it for as long as it is there."""
        return ServedTable(self._opener, table)

    def open(self, table: OnlineTableRecord, erased: Erasures | None = None) -> OnlineTable:
        """Open an online table as it stands, and with it the erasures that somebody keeps in view, or those of now."""
        return self._opener.open(table, erased=erased)

    def verify(self, table: OnlineTableRecord, at: int | None, sample: int | None, tell: Tell = silent) -> Verified:
        """Compare what a table answers with the offline join as of a moment, now if none; see `seeknal.verification`.

        If rows differ as of now though the store says that they are up to date, the next load writes all of them anew.
        """
        from seeknal import verification

        def doubt(lookup: TableLookup, seen: State) -> None:
            try:
                self._mover.doubt(lookup.space, table.target, seen)
            except StoreError as error:
                notice(f"Only `seeknal refresh --full {table.label}` mends what differs: {error}")

        moment, told = (now(), doubt) if at is None else (at, None)
        try:
            return verification.verify(self._catalog, self._engine(), self.open(table), moment, sample, tell, told)
        except NotOnlineError:
            if not (found := self._registry.tables(table.project, table.name)) or found[0] == table:
                raise
        return self.verify(found[0], at, sample, tell)  # it has moved meanwhile

    def delete(self, table: OnlineTableRecord) -> None:
        """Remove an online table, and rows that no other one uses; the table last, so that it can be tried again."""
        with self._mover.hold():
            others = [one for one in self._registry.tables() if one.label != table.label]
            used = {(other.target, lookup.space) for other in others for lookup in other.lookups}
            for lookup in table.lookups:
                if (table.target, lookup.space) not in used:
                    record = self._catalog.group(lookup.group, lookup.project)
                    self._mover.remove(record, lookup.version, table.target)
            self._registry.delete_table(table.project, table.name)

    def of(self, record: GroupRecord) -> list[OnlineTableRecord]:
        """List the online tables that use a group."""
        return [table for table in self._registry.tables() if uses(table, record)]

    def drop(self, record: GroupRecord) -> None:
        """Remove all that is online of a group, and the tables that use it."""
        for load in self._registry.loads(record):
            self._mover.drop(record, load.version, load.target)
        for table in self.of(record):
            self._registry.delete_table(table.project, table.name)

    # How they are

    def feeds(self, table: OnlineTableRecord) -> list[Feed]:
        """Say what feeds each lookup of a table."""
        return feeds(self._catalog, table)

    def cut_off(self, table: OnlineTableRecord) -> tuple[str, ...]:
        """Say why groups no longer feed a table; nothing if they do."""
        return tuple(dict.fromkeys(one.cut_off for one in self.feeds(table) if one.cut_off))

    def tell_of_cut_off(self, record: GroupRecord) -> None:
        """Give notice of the tables that a group no longer feeds."""
        for table in self.of(record):
            if reasons := self.cut_off(table):
                notice(
                    f"Online table {table.label!r} is cut off: {'; '.join(reasons)}. It keeps the values it has, and is no "
                    "longer refreshed. Write the feature again, in its old type, or serve the table with the features that "
                    "there are."
                )

    def state(self, space: str, target: str) -> State | None:
        """Return what is online in a space of a store; None if nothing is."""
        text = self._mover.state(space, target)
        return State.loads(text) if text else None

    def erased(self) -> dict[int, int]:
        """Return when an entity was last erased from each group, by the groups' numbers."""
        return self._registry.last_erasures()

    def place(self, target: str) -> str:
        """Say where a store is, without its password."""
        return online.shown(target or self._place)

    def ledger(self, record: GroupRecord) -> list[Ledger]:
        """Say what is online of each version of a group, in each store it was ever loaded into."""
        loads = {(load.version, load.target) for load in self._registry.loads(record)}
        return [self.line(record, version, name) for version, name in sorted(loads)]

    def newest(self, record: GroupRecord, line: Ledger, name: str, at: int) -> int | None:
        """Return the newest event time of what is online of a version in the store of a name, up to a moment; None: there is none."""
        if line.state is None:
            return None
        known = line.state.events
        if known is None or not known.holds(at):
            from seeknal.loading import events_online

            store = self._mover.store(name)
            known = events_online(self._catalog, self._engine(), record, line.version, store, at)
        return known.newest

    def line(self, record: GroupRecord, version: int, name: str) -> Ledger:
        """Say what is online of a version in the store of a name."""
        state = self.state(space_of(record.project, record.name, version), name)
        mark = self._catalog.fingerprint(record, version)
        return Ledger(version, self.place(name), state, mark, lambda: self._catalog.read(record, version)[1])


def _ask(
    spans: tuple[Interval, ...],
    at: int | None = None,
    tell: Tell = silent,
    full: bool = False,
    take_over: bool = False,
) -> Ask:
    from seeknal.loading import Ask  # which needs the engine, and so more than most who ask tables

    return Ask(spans, at, tell, full, take_over)


def _looked_up(source: Source) -> TableLookup:
    record, keys, features = source.record, tuple(source.keys.items()), tuple(source.features.items())
    pinned = source.lookup.version is not None
    return TableLookup(record.project, record.name, source.version.number, keys, features, pinned)


def _checked_target(target: str | Path | None) -> str:
    if target is None:
        return DEFAULT
    place = checked_store(str(target), "target")
    if has_password(place):
        raise DefinitionError(
            f"target={online.shown(place)!r} would put a password into the registry. Set online_store in seeknal.toml, or "
            "SEEKNAL_ONLINE_STORE, to that URL, and leave target out."
        )
    return place
