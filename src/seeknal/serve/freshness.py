"""Freshness of online tables: the event time of their newest row, and whether newer rows are stored but not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from seeknal.load.feeds import Feed, feeds
from seeknal.load.loads import Loads
from seeknal.registry import OnlineTableRecord
from seeknal.registry.catalog import Catalog
from seeknal.serve.parts import refuse_erased


@dataclass(frozen=True)
class Freshness:
    """The freshness of an online table. A table of several groups is as fresh as the group that lags most.

    Args:
        project: Name of the table's project.
        table: Name of the table.
        newest: Event time of the newest row online, in microseconds since 1970. None if a group has no row online.
        loaded_at: Time of the last load. None if the table is not online.
        is_behind: Whether rows are stored offline that are not online yet.
        pinned: The groups that the caller pinned to a version, each with that version.
        cut_off: Why groups no longer feed the table, so that its values are those of a past version.
        is_expired: Whether the ttl of all rows of a group has passed, so that lookups return nulls.
    """

    project: str
    table: str
    newest: int | None
    loaded_at: int | None
    is_behind: bool
    pinned: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()
    is_expired: bool = False

    @property
    def label(self) -> str:
        """The table's project and name."""
        return f"{self.project}/{self.table}"

    def age(self, at: int) -> timedelta | None:
        """Return how old the newest event is at a moment; None if there is none."""
        return None if self.newest is None else timedelta(microseconds=at - self.newest)

    def is_stale(self, at: int, target: timedelta) -> bool:
        """Return whether the newest event is older than `target` or has expired, or there is none."""
        age = self.age(at)
        return age is None or age > target or self.is_expired


def freshness(catalog: Catalog, loads: Loads, table: OnlineTableRecord, at: int) -> Freshness:
    """Return the freshness of a table.

    Args:
        catalog: The home's catalog.
        loads: The loads of its groups.
        table: The table.
        at: What counts as now, in microseconds since 1970: events after it are still to come.

    Raises:
        DefinitionError: A group is gone.
        StoreError: A store cannot be read, or may hold erased entities.
    """
    every, erased = feeds(catalog, table), catalog.last_erasures()
    found = [_of_feed(loads, table, one, at, erased) for one in every]
    newest = [one.newest for one in found]
    loaded = [one.loaded_at for one in found]
    return Freshness(
        table.project,
        table.name,
        # A table is as fresh as the group that lags most, so a group without a row leaves the age unknown.
        None if None in newest else min(one for one in newest if one is not None),
        None if None in loaded else min(one for one in loaded if one is not None),
        any(one.is_behind for one in found),
        tuple(f"{one.record.name} {one.now.version}" for one in every if one.is_pinned),
        tuple(dict.fromkeys(one.cut_off for one in every if one.cut_off)),
        any(one.is_expired for one in found),
    )


def _of_feed(loads: Loads, table: OnlineTableRecord, fed: Feed, at: int, erased: Mapping[int, int]) -> Freshness:
    status = loads.status(fed.record, fed.now.version, table.target)
    if status.state is None:  # the version was never loaded into this store
        return Freshness(table.project, table.name, None, None, is_behind=True)
    refuse_erased(status.state, erased, fed.record, table)
    newest = loads.newest(fed.record, status, table.target, at)
    ttl = fed.record.ttl_in(table, status.state.ttl)
    is_expired = ttl is not None and newest is not None and newest < at - ttl
    is_behind = fed.has_moved or bool(fed.cut_off) or not status.is_fresh
    return Freshness(table.project, table.name, newest, status.state.at, is_behind, is_expired=is_expired)
