"""Cutover of online tables: first the rows of a version are loaded, then the tables that should use it move to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from seeknal.errors import StoreError, notice
from seeknal.load.ask import Ask
from seeknal.load.feeds import feed, feeds, lack
from seeknal.online import DEFAULT, Entries, OnlineStore, State, Stores
from seeknal.registry import GroupRecord, GroupState, Load, OnlineTableRecord, PinnedLookup
from seeknal.registry.catalog import Catalog
from seeknal.registry.records import space_of
from seeknal.system.home_identity import Identity
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values.times import DAY, Interval, now, union

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.engine import Engine
    from seeknal.load.loading import Loaded

_GRACE = DAY
"""How much longer than its ttl a store that drops expired rows keeps a row.

Clocks differ, and "expired" tells a reader more than "not found".
"""


@dataclass(frozen=True)
class Move:
    """A change of an online table.

    Args:
        known: The table as it is registered now. None: it is not registered.
        table: The table as it should be registered.
    """

    known: OnlineTableRecord | None
    table: OnlineTableRecord


class Mover:
    """Loads versions into online stores, and moves tables to them.

    Args:
        catalog: The content of the home.
        engine: Returns the engine that reads rows. It is called only when rows are loaded.
        stores: The online stores.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine], stores: Stores) -> None:
        self._catalog = catalog
        self._registry = catalog.registry
        self._engine = engine
        self._stores = stores

    def bring(
        self,
        state: GroupState,
        number: int,
        ask: Ask,
        *,
        own: Move | None = None,
        targets: Collection[str] = (),
    ) -> list[Loaded]:
        """Load a version into each online store where a table needs it, and then move these tables to it.

        If the process is killed midway, each table is complete: it has either moved, or stayed as it was.

        Args:
            state: The state of the group.
            number: The version.
            ask: What to load, in addition to the intervals that were requested for the versions that tables leave for this
                one. If there are no intervals at all, all of time is loaded.
            own: The move of a table that this call registers or, if it changes nothing, that the caller registers next.
            targets: Load into these online stores only. Empty: into all.

        Raises:
            Conflict: Another process changed a table meanwhile.
        """
        moves = [*self._moves(state, number, own), *([own] if own else [])]
        addresses = {self._stores.address(name) for name in targets}
        moves = [move for move in moves if not targets or self._stores.address(move.table.target) in addresses]
        if any(move.known and move.known.lookups != move.table.lookups for move in moves):
            # Rows that were pushed to the version before become rows of this one, and tables must not move without them.
            self._catalog.gate.settle(state.record)
        tables = [move.table for move in moves]
        # A store may have several names. It is loaded once, and the load is recorded under each name.
        names = sorted({table.target for table in tables} or targets or {DEFAULT})
        done = []
        for alike in self._stores.grouped(names):
            spans = (*ask.spans, *self._carried(state, number, alike[0], moves)) or (Interval(),)
            done.append(self.load(state, number, alike, replace(ask, spans=spans), tables))
        # Tables move only now, because their readers must find all rows. The old rows stay until no table uses them.
        moved = [move for move in moves if move.known != move.table]
        self.settle(moved)
        # Tables that have moved may have left a version that no other table uses.
        state = self._catalog.state_of(state.record) if moved else state
        self.sweep(state, names, number, tables)
        return done

    def own(self, state: GroupState, lookup: PinnedLookup) -> Move | None:
        """Return the move of the default table of a group, which is named after it, to a lookup.

        Return None if that table has the lookup already, or if a table that is not the default one has the name.
        """
        label = state.record.label
        # `state.tables` has only the tables that use the group. A table of its name may use other groups.
        found = next((table for table in state.tables if table.label == label), None) or next(
            iter(self._registry.tables(state.record.project, state.record.name)), None
        )
        if found is None:
            return Move(
                None, OnlineTableRecord(state.record.project, state.record.name, (lookup,), None, DEFAULT, now())
            )
        # Only the table that loads create by themselves takes all features of a version, whichever these are.
        is_own = all(one.goal.whole for one in feeds(self._catalog, found))
        return Move(found, replace(found, lookups=(lookup,))) if is_own and found.lookups != (lookup,) else None

    def _moves(self, state: GroupState, number: int, own: Move | None) -> list[Move]:
        """Return the moves of the tables that use a version or should move to it, except for the table of `own`."""
        record, moves = state.record, []
        for table in state.tables:
            if own and table.label == own.table.label:
                continue
            goals = [
                feed(self._catalog, record, state.versions, table, lookup).goal if lookup.is_of(record) else lookup
                for lookup in table.lookups
            ]
            pairs = zip(table.lookups, goals, strict=True)
            lookups = tuple(goal if goal.version == number else lookup for lookup, goal in pairs)
            if any(lookup.is_of(record) and lookup.version == number for lookup in lookups):
                moves.append(Move(table, replace(table, lookups=lookups)))
        return moves

    def _carried(self, state: GroupState, number: int, name: str, moves: Sequence[Move]) -> list[Interval]:
        """Return the intervals that were requested for the versions that tables leave for this one, to request them again.

        For example, a table moves from version 1, of which May and July were loaded, to version 2. May and July are returned.
        """
        left = {
            old.version
            for move in moves
            if move.known and self._stores.same(move.table.target, name)
            for old, new in zip(move.known.lookups, move.table.lookups, strict=True)
            if new.is_of(state.record) and new.version == number and old.version != number and not new.pinned
        }
        found = [load for load in state.loads if load.version in left and self._stores.same(load.target, name)]
        return union([load.interval for load in found])

    def settle(self, moves: Sequence[Move]) -> None:
        """Register tables in their new form, after their rows were loaded.

        Raises:
            Conflict: Another process changed a table, or removed its rows, in the meantime.
        """
        if not moves:
            return
        saved = []
        with self.hold():
            for move in moves:
                fresh = [lookup for lookup in move.table.lookups if not move.known or lookup not in move.known.lookups]
                # Another process may have swept the rows, because no registered table used them yet.
                is_there = all(self.state(lookup.space, move.table.target) for lookup in fresh)
                if is_there and self._registry.save_table(move.table, move.known):
                    saved.append(move)
        for move in saved:
            self._warn_of_change(move)
            if move.known:
                self.nudge(move.known)
        if len(saved) < len(moves):
            raise Conflict("Another process changed an online table first.")

    def _warn_of_change(self, move: Move) -> None:
        """Issue a notice if a table with all features of its group loses a feature, or gets one in another type."""
        if move.known is None or not move.table.lookups[0].whole or move.table.lookups[0].pinned:
            return
        old, new = move.known.lookups[0], move.table.lookups[0]
        record = self._catalog.group(new.group, new.project)
        versions = [self._catalog.version(record, one.version) for one in (old, new)]
        if problem := lack(record, old, *versions):
            notice(
                f"Online table {move.table.label!r} has all features of its group, and these have changed: {problem}."
            )

    def nudge(self, before: OnlineTableRecord) -> None:
        """Change the state of the spaces that a table read before it changed, so that its readers look the table up again.

        That includes spaces that the table still reads, because one lookup may stay while another one moves.
        """
        for space in {lookup.space for lookup in before.lookups}:
            # If another writer changed the state, readers notice that as well. If the store is unavailable, they check once a second.
            with suppress(Conflict, StoreError):
                text = self.state(space, before.target)
                if text and self.is_ours(state := State.loads(text), before.target):
                    nudged = replace(state, left=state.left + 1).dumps()
                    self.store(before.target).change(space, text, nudged, Entries([], []))

    def doubt(self, space: str, target: str, seen: State) -> None:
        """Mark a space so that the next load rewrites all of its rows, unless its state has changed since it was read."""
        text = self.state(space, target)
        if text and not seen.doubted and State.loads(text) == seen and self.is_ours(seen, target):
            with suppress(Conflict):
                self.store(target).change(space, text, replace(seen, doubted=True).dumps(), Entries([], []))

    def take_out(self, record: GroupRecord, entity: pa.Table, at: int) -> None:
        """Before an erasure, remove the entity's row from all online stores, and record the time of the erasure there.

        If the erasure fails afterwards, the next load restores the row.

        Args:
            record: The group.
            entity: The entity's join keys, in one row, in logical types.
            at: The time of the erasure, in microseconds since 1970.

        Raises:
            StoreError: An online store cannot be written. The row may be gone from some of the others.
        """

        def step(version: int, target: str) -> None:
            space = space_of(record.project, record.name, version)
            key = self._catalog.version(record, version).codec.keys(
                entity
            )  # the versions may have keys of several types
            try:
                text, (row,) = self.store(target).get(space, key)
            except KeyError:
                return
            state = State.loads(text)
            if self.is_ours(state, target, record):
                # Doubted, so that the next load rewrites all rows. From the snapshot alone, it would not notice the missing row.
                cleared = replace(state, cleared=max(at, state.cleared or 0), doubted=state.doubted or row is not None)
                gone = Entries([], []) if row is None else Entries(key, [None])
                self.store(target).change(space, text, cleared.dumps(), gone)

        for version, target in sorted({(load.version, load.target) for load in self._registry.loads(record)}):
            with self.needed_by_tables(record, version, target):
                retry_on_conflict(record.label, partial(step, version, target))

    def sweep(
        self,
        state: GroupState,
        targets: Collection[str],
        number: int | None = None,
        more: Sequence[OnlineTableRecord] = (),
    ) -> None:
        """Remove from some online stores the versions of a group that no online table uses.

        The current version stays in a store that some table of the group uses, since other tables move to it next.

        Args:
            state: The state of the group.
            targets: The online stores.
            number: A version to keep, besides the current one.
            more: Tables that are about to be registered, whose versions are kept too.
        """
        record, same = state.record, self._stores.same

        def unused(state: GroupState) -> list[tuple[int, str]]:
            tables, found = [*state.tables, *more], set()
            current = {one.number for one in state.versions if one.is_current}
            for name in targets:
                stay = current if any(same(table.target, name) for table in tables) else set()
                for version in {load.version for load in state.loads if same(load.target, name)} - stay - {number}:
                    if not self.users(tables, space_of(record.project, record.name, version), name):
                        found.add((version, name))
            return sorted(found)

        if not unused(state):
            return
        with self.hold():
            again = self._catalog.state_of(record)
            for version, target in unused(again):  # checked again under the lock: a table may use a version by now
                try:
                    self.remove(record, version, target)
                except StoreError as error:
                    notice(f"The unused version {version} of {record.label} could not be removed: {error}")

    @contextmanager
    def needed_by_tables(self, record: GroupRecord, version: int, target: str) -> Iterator[None]:
        """Turn an error of an online store in the block into a notice, unless a table uses the version there.

        A store that tables have left may be switched off for good, and no table serves the rows that are still there.
        """
        try:
            yield
        except StoreError as error:
            if self.users(self._registry.tables(), space_of(record.project, record.name, version), target):
                raise
            notice(f"Version {version} of {record.label} was left unchanged in a store where no table uses it: {error}")

    def remove(self, record: GroupRecord, version: int, target: str) -> None:
        """Remove the rows of a version from an online store, and the records of its loads there."""
        self.drop(record, version, target)
        names = {load.target for load in self.loads(record, version, target)}
        self._registry.forget_loads(record, version, names)

    def drop(self, record: GroupRecord, version: int, target: str) -> None:
        """Remove the rows of a version from an online store, unless they belong to another home or group; see `is_ours`."""
        space = space_of(record.project, record.name, version)
        text = self.state(space, target)
        if text is None or self.is_ours(State.loads(text), target, record):
            self.store(target).drop(space)

    def is_foreign(self, record: GroupRecord, version: int, target: str) -> bool:
        """Return whether the online rows of a version were loaded by another home, or from a group that was deleted."""
        text = self.state(space_of(record.project, record.name, version), target)
        return text is not None and not self.is_ours(State.loads(text), target, record)

    def is_ours(self, state: State, target: str, record: GroupRecord | None = None) -> bool:
        """Return whether rows in an online store were loaded by this home and, if a group is given, from that group."""
        owner = self._owner(target)
        is_same = record is None or record.created_at == state.origin
        return owner is None or (is_same and owner.owns(state.home))

    def _owner(self, target: str) -> Identity | None:
        """Return the identity of this home for an online store that other homes may use as well; None for its own folder."""
        is_own = self._stores.same(target, self._catalog.storage.online)
        return None if is_own else self._catalog.storage.identity()

    def load(
        self, state: GroupState, number: int, names: Sequence[str], ask: Ask, more: Sequence[OnlineTableRecord] = ()
    ) -> Loaded:
        """Load a version into an online store, for the tables that use it there and those in `more`, which will use it.

        Args:
            state: The state of the group.
            number: The version.
            names: The names of the store under which the load is recorded.
            ask: What to load.
            more: Tables that are about to be registered.
        """
        from seeknal.load.loading import Loader, Target

        name = names[0]
        target = Target(
            tuple(names),
            self._stores.shown(name),
            self._owner(name),
            self.store(name),
            partial(self._stores.same, name),
            partial(self._taking_over, state, number, name),
            partial(self._kept, number, name, more),
        )
        return Loader(self._catalog, self._engine()).load(state, number, target, ask)

    def _taking_over(self, state: GroupState, number: int, name: str) -> str:
        """Return the command that takes over a version in an online store, with a table that uses it or should move to it."""
        tables = [move.table for move in self._moves(state, number, None)]
        labels = [table.label for table in tables if self._stores.same(table.target, name)]
        return f"seeknal refresh {labels[0]} --take-over" if labels else "in Python, serve(..., take_over=True)"

    def _kept(self, number: int, name: str, more: Sequence[OnlineTableRecord], state: GroupState) -> int | None:
        """Return how long after their event time the tables that use a version need its rows, in microseconds; None: forever."""
        record = state.record
        mine = self.users([*state.tables, *more], space_of(record.project, record.name, number), name)
        # Those of windows are kept as well: events that have left one window may be in the next, longer one.
        own = record.group.materialization.lifetime
        lifetimes = [own, *(record.ttl_in(one, own) for one in mine)]
        # One table without a ttl is enough to need the rows forever.
        known = [lifetime for lifetime in lifetimes if lifetime is not None]
        return max(known) + _GRACE if len(known) == len(lifetimes) else None

    def users(self, tables: Sequence[OnlineTableRecord], space: str, target: str) -> list[OnlineTableRecord]:
        """Return the tables, among those given, that use a space of an online store."""
        mine = [table for table in tables if any(lookup.space == space for lookup in table.lookups)]
        return [table for table in mine if self._stores.same(table.target, target)]

    def loads(self, record: GroupRecord, version: int | None = None, target: str | None = None) -> list[Load]:
        """Return the loads of a group, oldest first; only those of a version or into an online store, if given."""
        return self.among(self._registry.loads(record), version, target)

    def among(self, loads: Sequence[Load], version: int | None = None, target: str | None = None) -> list[Load]:
        """Return, of the loads of a group, those of a version or into an online store, if given."""
        return [
            load
            for load in loads
            if version in {None, load.version} and (target is None or self._stores.same(load.target, target))
        ]

    def last_loads(self, loads: Sequence[Load]) -> list[Load]:
        """Return, among the given loads, the last one of each version into each online store."""
        found = {(load.version, self._stores.address(load.target)): load for load in loads}
        return sorted(found.values(), key=lambda load: (load.version, load.target))

    def hold(self) -> AbstractContextManager[object]:
        """Take the exclusive lock to hold while tables are registered, or rows that no table uses are removed."""
        return self._catalog.storage.lock("tables").exclusive()

    def state(self, space: str, name: str) -> bytes | None:
        """Return the state of a space in an online store; None if there is no such space."""
        try:
            return self.store(name).get(space, [])[0]
        except KeyError:
            return None

    def store(self, name: str) -> OnlineStore:
        """Return the online store that a name stands for."""
        return self._stores.connect(name)
