"""How fresh what is online is: the newest event of each table, and whether newer rows wait to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from seeknal.following import Feed
from seeknal.online_tables import OnlineTables
from seeknal.registry import OnlineTableRecord, Registry


@dataclass(frozen=True)
class Freshness:
    """How fresh an online table is; of several groups, the one that lags most counts.

    Args:
        project: Name of its project.
        table: Its name.
        newest: The newest event online, in microseconds since 1970; None if a group has none.
        loaded_at: When it was loaded last; None if it is not online.
        is_behind: Whether newer rows are stored than are online.
        pinned: The groups whose version it stays at on purpose, with that version.
        cut_off: Why groups no longer feed it, so that its values are those of a version that is past.
    """

    project: str
    table: str
    newest: int | None
    loaded_at: int | None
    is_behind: bool
    pinned: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.table}"

    def age(self, at: int) -> timedelta | None:
        """Say how old the newest event is at a moment; None if there is none."""
        return None if self.newest is None else timedelta(microseconds=at - self.newest)

    def is_stale(self, at: int, target: timedelta) -> bool:
        """Tell whether the newest event is older than it should be, or there is none."""
        age = self.age(at)
        return age is None or age > target


def freshness(tables: OnlineTables, registry: Registry, table: OnlineTableRecord, at: int) -> Freshness:
    """Say how fresh a table is.

    Args:
        tables: Where it is.
        registry: What exists.
        table: The table.
        at: What counts as now, in microseconds since 1970: events after it are still to come.

    Raises:
        DefinitionError: A group is gone.
        StoreError: A store cannot be read.
    """
    every = tables.feeds(table)
    found = [_of_feed(tables, registry, table, one, at) for one in every]
    newest = [one.newest for one in found]
    loaded = [one.loaded_at for one in found]
    return Freshness(
        table.project,
        table.name,
        None if None in newest else min(one for one in newest if one is not None),
        None if None in loaded else min(one for one in loaded if one is not None),
        any(one.is_behind for one in found),
        tuple(f"{one.record.name} {one.now.version}" for one in every if one.is_pinned),
        tables.cut_off(table),
    )


def _of_feed(tables: OnlineTables, registry: Registry, table: OnlineTableRecord, fed: Feed, at: int) -> Freshness:
    version = fed.now.version
    ledger = tables.line(fed.record, version, table.target)
    if ledger.state is None:
        return Freshness(table.project, table.name, None, None, is_behind=True)
    events = registry.watermarks(fed.record, version, until=ledger.state.snapshot)
    ends = [span.end for span in ledger.state.spans if span.end is not None]
    last = at if len(ends) < len(ledger.state.spans) else min(at, max(ends, default=at))
    newest = max((one for one in events if one <= last), default=None)
    is_behind = fed.has_moved or bool(fed.cut_off) or not ledger.is_fresh
    return Freshness(table.project, table.name, newest, ledger.state.at, is_behind)
