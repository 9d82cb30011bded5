"""How fresh what is online is: the newest event of each table, and whether newer rows wait to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from seeknal.errors import DefinitionError
from seeknal.online_tables import OnlineTables
from seeknal.registry import OnlineTableRecord, Registry, TableLookup


@dataclass(frozen=True)
class Freshness:
    """How fresh an online table is; of several groups, the one that lags most counts.

    Args:
        project: Name of its project.
        table: Its name.
        newest: The newest event online, in microseconds since 1970; None if a group has none.
        loaded_at: When it was loaded last; None if it is not online.
        is_behind: Whether newer rows are stored than are online.
    """

    project: str
    table: str
    newest: int | None
    loaded_at: int | None
    is_behind: bool

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
        StoreError: A store cannot be read.
    """
    found = [_of_lookup(tables, registry, table, lookup, at) for lookup in table.lookups]
    newest = [one.newest for one in found]
    loaded = [one.loaded_at for one in found]
    return Freshness(
        table.project,
        table.name,
        None if None in newest else min(one for one in newest if one is not None),
        None if None in loaded else min(one for one in loaded if one is not None),
        any(one.is_behind for one in found),
    )


def _of_lookup(
    tables: OnlineTables, registry: Registry, table: OnlineTableRecord, lookup: TableLookup, at: int
) -> Freshness:
    record = registry.group(lookup.project, lookup.group)
    if record is None:
        raise DefinitionError(f"Online table {table.label!r} reads {lookup.project}/{lookup.group}, which is gone.")
    ledger = tables.line(record, lookup.version, table.target)
    if ledger.state is None:
        return Freshness(table.project, table.name, None, None, is_behind=True)
    events = registry.watermarks(record, lookup.version, until=ledger.state.snapshot)
    ends = [span.end for span in ledger.state.spans if span.end is not None]
    last = at if len(ends) < len(ledger.state.spans) else min(at, max(ends, default=at))
    newest = max((one for one in events if one <= last), default=None)
    return Freshness(table.project, table.name, newest, ledger.state.at, is_behind=not ledger.is_fresh)
