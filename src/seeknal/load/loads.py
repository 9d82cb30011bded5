"""Loads of groups into the online stores, and their status. A load of a version updates all tables that use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from seeknal.errors import DefinitionError, StoreError, notice
from seeknal.load.ask import Ask
from seeknal.load.cutover import Mover
from seeknal.load.feeds import cut_off, uses, whole
from seeknal.load.status import LoadStatus
from seeknal.online import State, Stores
from seeknal.registry import GroupRecord, GroupState, Load, Version
from seeknal.registry.catalog import Catalog
from seeknal.registry.records import space_of
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import Interval

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.engine import Engine
    from seeknal.load.loading import Loaded


class Loads:
    """Loads groups into the online stores, and reports what is loaded there.

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

    def load(
        self,
        record: GroupRecord,
        interval: Interval = Interval(),
        version: int | None = None,
        *,
        at: int | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Loaded:
        """Load the newest row of each entity into the online stores, among a version's rows with event times in an interval.

        Every online table that uses the version is refreshed. If the version is the current one, the tables that follow
        the group move to it. The default table, which is named after the group, takes all features of the version, and
        stays at it if the caller names a version.
        """

        def step() -> Loaded:
            state = self._catalog.state_of(record)
            found = self._catalog.version_of(state, version)
            pinned = version is not None or record.windowed is not None
            own = self._mover.own(state, whole(record, found, pinned=pinned))
            return self._mover.bring(state, found.number, Ask((interval,), at, on_progress), own=own)[0]

        loaded = self._catalog.gate.committing(self._catalog.origin(record), step)
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
            state = known.pop() if known else self._catalog.state_of(record)
            found = self._catalog.version_of(state, version)
            has_own = any(table.label == record.label for table in state.tables)
            is_taken = has_own or self._registry.tables(record.project, record.name)
            own = None if is_taken else self._mover.own(state, whole(record, found))
            return self._mover.bring(state, found.number, Ask((interval,)), own=own)[0]

        return self._catalog.gate.committing(record, step)

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

        Rows that belong to another home or to a deleted group are left unchanged, with a notice, unless `take_over`.
        """
        state = self._catalog.state_of(record)
        for load in self._mover.last_loads(self._mover.among(state.loads, number, target)):
            ask = Ask((load.interval,), on_progress=on_progress, take_over=take_over)
            with self._mover.needed_by_tables(record, load.version, load.target):
                if take_over or not self._mover.is_foreign(record, load.version, load.target):
                    # What was pushed since the state was read is loaded with its commit.
                    self._catalog.gate.closed(partial(self._mover.load, state, load.version, [load.target], ask))
                    continue
                place = self._stores.shown(load.target)
                notice(
                    f"The rows of {record.label} in {place} belong to another home or to a deleted group, and were left unchanged."
                )

    def reload_windows(self, groups: Sequence[GroupRecord]) -> None:
        """Bring the online events of windowed groups up to date."""
        for one in groups:
            # One that can no longer be computed keeps what is online; the caller tells of it.
            with suppress(DefinitionError):
                _ = self._catalog.gate.closed(partial(self._catalog.version, one)).schema
                self.reload(one)

    def require(self, record: GroupRecord) -> None:
        """Check that every online store in which tables use rows of a group can be read.

        Raises:
            StoreError: A store cannot be read.
        """
        for load in self._registry.loads(record):
            with self._mover.needed_by_tables(record, load.version, load.target):
                self._mover.state(space_of(record.project, record.name, load.version), load.target)

    def take_out(self, record: GroupRecord, entity: pa.Table, at: int) -> None:
        """Remove an entity that is about to be erased; see `Mover.take_out`."""
        self._mover.take_out(record, entity, at)

    def drop(self, record: GroupRecord) -> None:
        """Remove all rows of a group from the online stores, and the tables that use it from the registry.

        Raises:
            StoreError: A store did not respond, and nothing was removed; or a store failed midway.
        """
        self.require(record)  # first, so that nothing is removed anywhere if one of the stores is unavailable
        for load in self._registry.loads(record):
            with self._mover.needed_by_tables(record, load.version, load.target):
                self._mover.drop(record, load.version, load.target)
        for table in self._registry.tables():
            if uses(table, record):
                self._registry.delete_table(table.project, table.name)

    def drop_rest(self, record: GroupRecord, load: Load) -> None:
        """Remove the rows that a concurrent load has put into its online store after `drop`. If that fails, issue a notice."""
        try:
            if self._mover.state(space_of(record.project, record.name, load.version), load.target):
                self._mover.drop(record, load.version, load.target)
        except StoreError as error:
            notice(
                f"{record.label} is deleted, but its rows in {self._stores.shown(load.target)} could not be removed: {error}"
            )

    def tell_of_cut_off(self, record: GroupRecord) -> None:
        """Issue a notice for each table of a group that is cut off."""
        for table in self._registry.tables():
            if uses(table, record) and (reasons := cut_off(self._catalog, table)):
                notice(
                    f"Online table {table.label!r} is cut off: {'; '.join(reasons)}. It keeps the values it has, and is no "
                    "longer refreshed. Write the feature again in its old type, or serve the table with the features that exist."
                )

    def of(self, record: GroupRecord, version: int | None = None, target: str | None = None) -> list[Load]:
        """Return the loads of a group, oldest first; only those of a version or into an online store, if given."""
        return self._mover.loads(record, version, target)

    def count_stores(self, record: GroupRecord) -> int:
        """Return the number of stores that rows of a group were loaded into."""
        return len(self._stores.grouped({load.target for load in self.of(record)}))

    def statuses(self, record: GroupRecord) -> list[LoadStatus]:
        """Return the load status of each version of a group, in each store that it was ever loaded into."""
        state = self._catalog.state_of(record)
        last = self._mover.last_loads(state.loads)
        return [self.status(record, load.version, load.target, state.versions) for load in last]

    def status(
        self, record: GroupRecord, version: int, name: str, versions: Sequence[Version] | None = None
    ) -> LoadStatus:
        """Return the load status of a version in the store that the registry calls `name`.

        Args:
            record: The group.
            version: The version.
            name: The name of the store.
            versions: The versions of the group, if the caller has them.
        """
        text = self._mover.state(space_of(record.project, record.name, version), name)
        mark = self._catalog.fingerprint(record, version, versions)
        state = State.loads(text) if text else None
        return LoadStatus(
            version, self._stores.shown(name), state, mark, lambda: self._catalog.read(record, version)[1]
        )

    def is_behind(self, state: GroupState) -> bool:
        """Return whether the online rows of the current version are missing or outdated, or their store does not respond."""
        number = self._catalog.version_of(state).number
        targets = {load.target for load in state.loads if load.version == number}
        try:
            return not targets or not all(
                self.status(state.record, number, target, state.versions).is_fresh for target in targets
            )
        except StoreError:
            return True

    def newest(self, record: GroupRecord, status: LoadStatus, name: str, at: int) -> int | None:
        """Return the newest event time up to a moment among a version's rows in a store; None if there is none."""
        if status.state is None:
            return None
        known = status.state.events
        # The state has the event times as of its load. Future rows may have become visible since, and states of earlier
        # releases have no event times.
        if known is None or not known.holds(at):
            from seeknal.load.loading import events_online

            store = self._mover.store(name)
            known = events_online(self._catalog, self._engine(), record, status.version, store, at)
        return known.newest

    def watermarks(self, record: GroupRecord, version: int, at: int) -> list[int]:
        """Return the newest event time up to a moment in each online store that has rows of a version, without repeats."""
        targets = {load.target for load in self.of(record, version)}
        found = [self.newest(record, self.status(record, version, target), target, at) for target in targets]
        return sorted({newest for newest in found if newest is not None})
