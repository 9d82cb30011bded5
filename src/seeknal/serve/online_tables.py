"""Online tables: creating, loading, opening and deleting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.config import checked_store
from seeknal.define.feature_group import check_ttl
from seeknal.errors import DefinitionError, NotOnlineError, SeeknalError, StoreError, notice
from seeknal.load.cutover import Move, Mover
from seeknal.load.feeds import Feed, feeds, uses, whole
from seeknal.names import check_name
from seeknal.online import DEFAULT, State, Stores, shown
from seeknal.registry import GroupRecord, GroupState, Load, OnlineTableRecord, PinnedLookup, Version
from seeknal.registry.catalog import Catalog
from seeknal.registry.overview import Overview
from seeknal.registry.records import space_of
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.open_tables import Opener, ServedTable
from seeknal.serve.parts import View
from seeknal.system.progress import OnProgress, no_progress
from seeknal.system.redis_url import has_password
from seeknal.system.retry import retry_on_conflict
from seeknal.values.display import Shown
from seeknal.values.times import Interval, microseconds, now, without

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.engine import Engine
    from seeknal.load.loading import Ask, Loaded
    from seeknal.offline import Snapshot
    from seeknal.registry.source import Source
    from seeknal.serve.verification import Verified


@dataclass(frozen=True)
class LoadStatus:
    """How much of a version is loaded into one online store.

    Args:
        version: The version.
        place: The location of the store, without its password.
        state: The state of the rows there, which says what they were made from; None if there are no rows.
        mark: Fingerprint of the files of the version's last snapshot, from which a load would make the rows now.
        read: Returns that snapshot.
    """

    version: int
    place: str
    state: State | None
    mark: bytes
    read: Callable[[], Snapshot]

    @property
    def is_fresh(self) -> bool:
        """Whether the rows were made from the version's last snapshot, and their state is not in doubt."""
        return self.state is not None and not self.state.doubted and self.state.files == self.mark

    @property
    def holes(self) -> list[Interval]:
        """Intervals of event time, from the oldest to the newest stored row, that were never loaded."""
        files = self.read().files
        starts = [file.start for file in files if file.start is not None]
        ends = [file.end for file in files if file.end is not None]
        stored = [Interval(min(starts), max(ends))] if starts and ends else []
        return without(stored, self.state.spans if self.state else ())


@dataclass(frozen=True)
class Refreshed(Shown):
    """The outcome of refreshing an online table.

    Args:
        table: Project and name of the table.
        groups: The load of each version of a group that feeds the table.
        cut_off: The reasons why groups no longer feed the table; see `seeknal.load.feeds`.
    """

    table: str
    groups: tuple[Loaded, ...]
    cut_off: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """The number of entities, over all groups, whose row was put or removed."""
        return sum(one.changed for one in self.groups)

    def __str__(self) -> str:
        lines = [f"{self.table} refreshed", *map(str, self.groups), *(f"cut off: {reason}" for reason in self.cut_off)]
        return "\n  ".join(lines)


class OnlineTables:
    """The online tables of a home, and the loads that feed them.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine that reads rows. It is called only when rows are read, as for a load.
        stores: The online stores.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine], stores: Stores) -> None:
        self._catalog = catalog
        self._registry = catalog.registry
        self._engine = engine
        self._stores = stores
        self._mover = Mover(catalog, engine, stores)
        self._opener = Opener(catalog, stores)

    def at_once(self) -> OnlineTables:
        """Return these tables on a catalog that reads the registry once, to inspect many tables quickly."""
        return OnlineTables(Overview(self._catalog), self._engine, self._stores)

    def load(
        self,
        record: GroupRecord,
        interval: Interval = Interval(),
        version: int | None = None,
        *,
        at: int | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Loaded:
        """Load into the online stores the newest row of each entity of a version, among the rows with event times in an interval.

        Every online table that uses the version is refreshed. If the version is the current one, the tables that follow
        the group move to it. The default table, which is named after the group, takes all features of the version, and
        stays at it if the caller names a version.
        """

        def step() -> Loaded:
            state = self._catalog.state(record.name, record.project)
            found = self._catalog.version_of(state, version)
            own = self._mover.own(state, whole(record, found, pinned=version is not None))
            return self._mover.bring(state, found.number, _ask((interval,), at, on_progress), own=own)[0]

        loaded = retry_on_conflict(record.label, step)
        self.tell_of_cut_off(record)
        return loaded

    def follow(self, state: GroupState, interval: Interval = Interval(), version: int | None = None) -> Loaded:
        """Load what was written to a version, as `load` does.

        The default table, which is named after the group, is created if no table has that name. Otherwise it is treated
        like every other table.

        Args:
            state: The state of the group after the write.
            interval: The interval of event time to load.
            version: The version. None: the current one.
        """
        record, known = state.record, [state]

        def step() -> Loaded:
            # The given state is used once: a retry has to plan on a new one.
            state = known.pop() if known else self._catalog.state(record.name, record.project)
            found = self._catalog.version_of(state, version)
            has_own = any(table.label == record.label for table in state.tables)
            is_taken = has_own or self._registry.tables(record.project, record.name)
            own = None if is_taken else self._mover.own(state, whole(record, found))
            return self._mover.bring(state, found.number, _ask((interval,)), own=own)[0]

        return retry_on_conflict(record.label, step)

    def refresh(
        self,
        tables: Sequence[OnlineTableRecord],
        *,
        full: bool = False,
        at: int | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> list[Refreshed]:
        """Load all groups of some tables, in the intervals that were requested before. No table is created.

        A lookup whose group no longer feeds it stays at its version. If one table cannot be refreshed, the others still are.

        Args:
            tables: The tables.
            full: Whether to rewrite all rows, of all event times.
            at: The time that counts as now, in microseconds since 1970; the system clock if None.
            on_progress: Called with the progress of the loads.
            take_over: Whether this home takes ownership of rows that another home loaded into a store that both use.

        Raises:
            StoreError: Some tables could not be refreshed. If only one table is given, its own error is raised instead.
        """
        done, failed = [], []
        for table in tables:
            try:
                done.append(self._refresh(table, _ask((), at, on_progress, full, take_over)))
            except SeeknalError as error:
                if len(tables) == 1:
                    raise
                failed.append(f"{table.label}: {error}")
        if failed:
            raise StoreError(f"Of {len(tables)} online tables these could not be refreshed. {' '.join(failed)}")
        return done

    def _refresh(self, table: OnlineTableRecord, ask: Ask) -> Refreshed:
        def step(record: GroupRecord, number: int) -> Loaded:
            state = self._catalog.state(record.name, record.project)
            # A load covers all intervals requested before. To request the last of them again adds nothing to them.
            known = [load.interval for load in self.loads(record, number, table.target)]
            spans = (Interval(),) if ask.full else tuple(known[-1:])
            return self._mover.bring(state, number, replace(ask, spans=spans), targets=[table.target])[0]

        # Several lookups can be of one version, which is loaded once.
        wanted = {(one.record.id, one.goal.version): one.record for one in self.feeds(table)}
        done = [
            retry_on_conflict(record.label, partial(step, record, number)) for (_, number), record in wanted.items()
        ]
        return Refreshed(table.label, tuple(done), self.cut_off(table))

    def follow_ttl(self, known: GroupRecord | None, record: GroupRecord) -> None:
        """Reload the online rows of a group if its ttl changed, so that the new one applies online as well."""
        if known and known.group.materialization.ttl != record.group.materialization.ttl:
            self.reload(record)

    def reload(
        self,
        record: GroupRecord,
        number: int | None = None,
        target: str | None = None,
        on_progress: OnProgress = no_progress,
        *,
        take_over: bool = False,
    ) -> None:
        """Bring the online rows of a group up to date, of one version or of all, in one online store or in all.

        Rows that another home loaded, or that are of a deleted group, are left alone, with a notice, unless `take_over`.
        """
        state = self._catalog.state(record.name, record.project)
        for load in self._mover.last_loads(self.loads(record, number, target)):
            if not take_over and self._mover.is_foreign(record, load.version, load.target):
                place = self.place(load.target)
                notice(
                    f"What {place} has of {record.label} is of another home, or of a group that was deleted, and stays as it is."
                )
                continue
            ask = _ask((load.interval,), on_progress=on_progress, take_over=take_over)
            self._mover.load(state, load.version, [load.target], ask)

    def require(self, record: GroupRecord) -> None:
        """Check that every online store into which rows of a group were loaded can be read.

        Raises:
            StoreError: A store cannot be read.
        """
        for load in self._registry.loads(record):
            self._mover.state(space_of(record.project, record.name, load.version), load.target)

    def is_behind(self, state: GroupState) -> bool:
        """Return whether the online rows of the current version are missing or outdated. If a store does not answer, return True."""
        number = self._catalog.version_of(state).number
        targets = {load.target for load in state.loads if load.version == number}
        try:
            return not targets or not all(
                self.line(state.record, number, target, state.versions).is_fresh for target in targets
            )
        except StoreError:
            return True

    def take_out(self, record: GroupRecord, entity: pa.Table, at: int) -> None:
        """Remove an entity that is about to be erased; see `Mover.take_out`."""
        self._mover.take_out(record, entity, at)

    def serve(
        self,
        sources: Sequence[Source],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        at: int | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> ServedTable:
        """Create an online table of some features, and load it.

        The table keeps these features and their types. It follows each group to its new versions as long as they have
        the features. A lookup that names a version stays at it.

        Args:
            sources: The features.
            name: The table's name. None: the name of the group, if there is only one.
            target: An online store other than the configured one: a folder, or the URL of Redis, without a password. The
                configured one counts as None, however it is spelled.
            ttl: How long values are valid, in place of the groups' own ttl.
            at: The time that counts as now, in microseconds since 1970; the system clock if None.
            on_progress: Called with the progress of the load.
            take_over: Whether this home takes ownership of rows of another home, or of a deleted group, in the store.
        """
        check_ttl(ttl)
        if name is None and len(sources) > 1:
            raise DefinitionError('An online table of several groups needs a name: serve(name="...").')
        from seeknal.join import retrieval

        first = sources[0].record
        retrieval.check_names(sources, sorted({key for source in sources for key in source.keys.values()}))
        retrieval.check_keys(sources)
        table = OnlineTableRecord(
            project=first.project,
            name=check_name("online table", first.group.name if name is None else name),
            lookups=tuple(source.pin(pinned=source.lookup.version is not None) for source in sources),
            ttl=None if ttl is None else microseconds(ttl),
            target=self._checked_target(target),
            created_at=now(),
        )
        ask = _ask((Interval(),), at, on_progress, take_over=take_over)
        before = retry_on_conflict(table.label, lambda: self._serve(sources, table, ask))
        if before and not self._goes_on(before, table):
            notice(f"Online table {table.label!r} is now another: {table}. It was {before}.")
        return self.served(table)

    def _checked_target(self, target: str | Path | None) -> str:
        """Return the name under which the registry lists an online store: DEFAULT if it is the default one, however spelled."""
        if target is None:
            return DEFAULT
        place = checked_store(str(target), "target")
        if has_password(place):
            raise DefinitionError(
                f"target={shown(place)!r} would put a password into the registry. Set online_store in seeknal.toml, or "
                "SEEKNAL_ONLINE_STORE, to that URL, and leave target out."
            )
        return DEFAULT if self._stores.same(place, DEFAULT) else place

    def _serve(self, sources: Sequence[Source], table: OnlineTableRecord, ask: Ask) -> OnlineTableRecord | None:
        """Load a table, and register it in place of the table of the same name. Return that table; None if there was none."""
        known = next(iter(self._registry.tables(table.project, table.name)), None)
        # The rows are loaded before the table is registered, so that no reader opens a table without rows.
        for source in sources:
            state = self._catalog.state(source.record.name, source.record.project)
            self._mover.bring(state, source.version.number, ask, own=Move(table, table), targets=[table.target])
        self._mover.settle([Move(known, table)])
        for lookup in known.lookups if known else ():
            if known and self._registry.group(lookup.project, lookup.group):
                self._mover.sweep(self._catalog.state(lookup.group, lookup.project), [known.target])
        return known

    def _goes_on(self, before: OnlineTableRecord, table: OnlineTableRecord) -> bool:
        """Return whether a table that was served again is the same as before, apart from the versions that it follows."""
        old = self.feeds(before)
        goals = tuple(replace(one.goal, whole=False) for one in old)
        same = replace(before, lookups=goals, target=table.target, created_at=table.created_at) == table
        return same and self._stores.same(before.target, table.target) and not any(one.cut_off for one in old)

    def served(self, table: OnlineTableRecord) -> ServedTable:
        """Open an online table for lookups, for as long as the table exists."""
        return ServedTable(self._opener, table)

    def open(self, table: OnlineTableRecord, view: View | None = None) -> OnlineTable:
        """Open an online table at the versions that its record names; see `Opener.open`."""
        return self._opener.open(table, view)

    def verify(
        self, table: OnlineTableRecord, at: int | None, sample: int | None, on_progress: OnProgress = no_progress
    ) -> Verified:
        """Compare a table's values with the offline join as of a moment. None: now. See `seeknal.serve.verification`.

        If rows differ as of now although the store says that they are up to date, the next load rewrites all of them.
        """
        from seeknal.serve import verification

        def doubt(lookup: PinnedLookup, seen: State) -> None:
            try:
                self._mover.doubt(lookup.space, table.target, seen)
            except StoreError as error:
                notice(f"Only `seeknal refresh --full {table.label}` mends what differs: {error}")

        moment, told = (now(), doubt) if at is None else (at, None)
        try:
            return verification.verify(
                self._catalog, self._engine(), self.open(table), moment, sample, on_progress, told
            )
        except NotOnlineError:
            if not (found := self._registry.tables(table.project, table.name)) or found[0] == table:
                raise
        return self.verify(found[0], at, sample, on_progress)  # the table moved to other rows meanwhile: compare those

    def delete(self, table: OnlineTableRecord) -> None:
        """Delete an online table, and the rows that no other table uses. The table goes last, so that a retry can finish."""
        with self._mover.hold():
            others = [one for one in self._registry.tables() if one.label != table.label]
            for lookup in table.lookups:
                if not self._mover.users(others, lookup.space, table.target):
                    record = self._catalog.group(lookup.group, lookup.project)
                    self._mover.remove(record, lookup.version, table.target)
            self._registry.delete_table(table.project, table.name)
        with suppress(StoreError):  # the table is deleted all the same: readers notice it at their next regular check
            self._mover.nudge(table)

    def of(self, record: GroupRecord) -> list[OnlineTableRecord]:
        """Return the online tables that use a group."""
        return [table for table in self._registry.tables() if uses(table, record)]

    def drop(self, record: GroupRecord) -> None:
        """Remove all rows of a group from the online stores, and the tables that use it from the registry.

        Raises:
            StoreError: A store did not answer, and nothing was removed; or a store failed midway.
        """
        self.require(record)
        for load in self._registry.loads(record):
            self._mover.drop(record, load.version, load.target)
        for table in self.of(record):
            self._registry.delete_table(table.project, table.name)

    def feeds(self, table: OnlineTableRecord) -> list[Feed]:
        """Return the feed of each lookup of a table; see `seeknal.load.feeds`."""
        return feeds(self._catalog, table)

    def cut_off(self, table: OnlineTableRecord) -> tuple[str, ...]:
        """Return the reasons why groups no longer feed a table; empty if all do."""
        return tuple(dict.fromkeys(one.cut_off for one in self.feeds(table) if one.cut_off))

    def tell_of_cut_off(self, record: GroupRecord) -> None:
        """Issue a notice for each table of a group that is cut off."""
        for table in self.of(record):
            if reasons := self.cut_off(table):
                notice(
                    f"Online table {table.label!r} is cut off: {'; '.join(reasons)}. It keeps the values it has, and is no "
                    "longer refreshed. Write the feature again, in its old type, or serve the table with the features that "
                    "there are."
                )

    def state(self, space: str, target: str) -> State | None:
        """Return the state of a space in a store; None if there is no such space."""
        text = self._mover.state(space, target)
        return State.loads(text) if text else None

    def erased(self) -> dict[int, int]:
        """Return the time of the last erasure from each group, by the group's id."""
        return self._registry.last_erasures()

    def place(self, target: str) -> str:
        """Return the location of a store, without its password."""
        return self._stores.shown(target)

    def loads(self, record: GroupRecord, version: int | None = None, target: str | None = None) -> list[Load]:
        """Return the loads of a group, oldest first; see `Mover.loads`."""
        return self._mover.loads(record, version, target)

    def count_stores(self, record: GroupRecord) -> int:
        """Return the number of stores that rows of a group were loaded into."""
        return len(self._stores.grouped({load.target for load in self.loads(record)}))

    def ledger(self, record: GroupRecord) -> list[LoadStatus]:
        """Return the load status of each version of a group, in each store that it was ever loaded into."""
        state = self._catalog.state(record.name, record.project)
        last = self._mover.last_loads(state.loads)
        return [self.line(record, load.version, load.target, state.versions) for load in last]

    def newest(self, record: GroupRecord, line: LoadStatus, name: str, at: int) -> int | None:
        """Return the newest event time of a version's rows in a store, up to a moment; None if there is none."""
        if line.state is None:
            return None
        known = line.state.events
        # The state has the event times as of its load. Future rows may have become visible since, and states of earlier
        # releases have no event times.
        if known is None or not known.holds(at):
            from seeknal.load.loading import events_online

            store = self._mover.store(name)
            known = events_online(self._catalog, self._engine(), record, line.version, store, at)
        return known.newest

    def line(
        self, record: GroupRecord, version: int, name: str, versions: Sequence[Version] | None = None
    ) -> LoadStatus:
        """Return the load status of a version in the store that the registry calls `name`.

        Args:
            record: The group.
            version: The version.
            name: The name of the store.
            versions: The versions of the group, if the caller has them.
        """
        state = self.state(space_of(record.project, record.name, version), name)
        mark = self._catalog.fingerprint(record, version, versions)
        return LoadStatus(version, self.place(name), state, mark, lambda: self._catalog.read(record, version)[1])


def _ask(
    spans: tuple[Interval, ...],
    at: int | None = None,
    on_progress: OnProgress = no_progress,
    full: bool = False,
    take_over: bool = False,
) -> Ask:
    from seeknal.load.loading import Ask  # imported here, because it imports the engine, which lookups do not need

    return Ask(spans, at, on_progress, full, take_over)
