"""Why online tables cannot be looked up: their store cannot be read, lacks what was loaded, or has what was erased since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seeknal.errors import StoreError
from seeknal.load.loads import Loads
from seeknal.online import State, Stores
from seeknal.registry import GroupRecord, OnlineTableRecord, PinnedLookup, Registry
from seeknal.serve.parts import refuse_erased


def faults(
    registry: Registry,
    stores: Stores,
    loads: Loads,
    tables: Sequence[OnlineTableRecord],
    groups: Mapping[tuple[str, str], GroupRecord],
    erased: Mapping[int, int],
) -> dict[str, StoreError]:
    """Return why tables cannot be looked up, by label; those that can be are left out.

    Args:
        registry: The registry of the home.
        stores: The online stores.
        loads: The loads of the home.
        tables: Tables of one online store.
        groups: The groups, by project and name.
        erased: The time of the last erasure from each group, by its id.
    """
    try:
        spaces = {(table.target, lookup.space) for table in tables for lookup in table.lookups}
        states = {space: _state(stores, *space) for space in spaces}
    except StoreError as error:
        return {table.label: error for table in tables}
    found: dict[str, StoreError] = {}
    for table in tables:
        for lookup in table.lookups:
            text, group = states[table.target, lookup.space], groups.get((lookup.project, lookup.group))
            try:
                if text and group:
                    refuse_erased(State.loads(text), erased, group, table)
                elif group and _was_loaded(registry, loads, table, lookup, group):
                    found[table.label] = StoreError(
                        f"What was loaded for online table {table.label!r} is no longer in {stores.shown(table.target)}. "
                        f"Load it again: seeknal refresh {table.label}."
                    )
            except StoreError as error:
                found[table.label] = error
    return found


def _state(stores: Stores, target: str, space: str) -> bytes | None:
    try:
        return stores.connect(target).get(space, [])[0]
    except KeyError:
        return None


def _was_loaded(
    registry: Registry, loads: Loads, table: OnlineTableRecord, lookup: PinnedLookup, group: GroupRecord
) -> bool:
    """Return whether rows were loaded for a table, and it was neither deleted nor served otherwise meanwhile."""
    is_served = registry.tables(table.project, table.name) == [table]
    return is_served and any(one.snapshot is not None for one in loads.of(group, lookup.version, table.target))
