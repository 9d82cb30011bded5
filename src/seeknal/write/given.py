"""The rows that a write is given: in memory here, or in the executors of Spark, for which see `seeknal.write.distributed`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from seeknal.define.schema import Roles, Schema, infer
from seeknal.offline import Commit, OfflineTable, Repeats, Write
from seeknal.values.times import Interval
from seeknal.write.notices import Facts
from seeknal.write.rows import check_ids, rows_to_store


@dataclass(frozen=True)
class Asked:
    """What is to be done with the rows.

    Args:
        mode: "overwrite", "append" or "merge".
        interval: Rows outside it are not written.
        drop_nulls: Leave out rows without an event time instead of refusing them.
        event_id: The columns that identify an event, if the rows are events of a source; None if they are not.
    """

    mode: str
    interval: Interval
    drop_nulls: bool
    event_id: tuple[str, ...] | None


class Checked(Protocol):
    """Rows that can be stored, in the types of a schema."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def outside(self) -> int:
        """How many rows of the frame lie outside the interval, and are not among these."""

    def to_write(self, offline: OfflineTable, version: int) -> Write:
        """Return what is to be written."""

    def unsettled(self) -> Repeats:
        """Count the rows, once they are written, between which neither keys nor times decide."""

    def facts(self, offline: OfflineTable, commit: Commit) -> Facts:
        """Return what notices tell of the rows, once they are written."""

    def tables(self, offline: OfflineTable, commit: Commit) -> Iterator[pa.Table]:
        """Yield the rows, once they are written, in stored types."""


class Given(Protocol):
    """The rows of a frame."""

    def table(self) -> pa.Table:
        """Return them as an Arrow table."""

    def close(self) -> None:
        """Give up what is kept for the write."""

    def schema(self, roles: Roles, known: Schema | None) -> Schema:
        """Return the schema that the rows need; see `infer`."""

    def checked(self, schema: Schema, asked: Asked) -> Checked:
        """Convert the rows to the types of a schema, and check them; see `rows_to_store` and `check_ids`."""


@dataclass(frozen=True)
class InMemory:
    """Rows in an Arrow table; see `Given`."""

    rows: pa.Table

    def table(self) -> pa.Table:
        """See `Given.table`."""
        return self.rows

    def close(self) -> None:
        """See `Given.close`."""

    def schema(self, roles: Roles, known: Schema | None) -> Schema:
        """See `Given.schema`."""
        return infer(self.rows, roles, known)

    def checked(self, schema: Schema, asked: Asked) -> Checked:
        """See `Given.checked`."""
        rows, outside = rows_to_store(self.rows, schema, asked.interval, asked.drop_nulls)
        if asked.event_id is not None:
            check_ids(rows, schema)
        return _Rows(rows, outside, schema, asked)


@dataclass
class _Rows:
    """Rows in memory that can be stored; see `Checked`."""

    rows: pa.Table
    outside: int
    schema: Schema
    asked: Asked
    _unsettled: Repeats = field(default_factory=Repeats)

    @property
    def count(self) -> int:
        """See `Checked.count`."""
        return len(self.rows)

    def to_write(self, offline: OfflineTable, version: int) -> Write:
        """See `Checked.to_write`."""
        asked, are_events = self.asked, self.asked.event_id is not None
        repeats = Repeats() if are_events else offline.repeats(self.rows, self.schema)
        self._unsettled = repeats
        if repeats.rows and self.schema.created_time:  # it decides between rows that share keys and event time
            self._unsettled = offline.repeats(self.rows, self.schema, with_created=True)
        return Write(self.rows, self.schema, version, asked.mode, asked.interval, repeats.rows, are_events=are_events)

    def unsettled(self) -> Repeats:
        """See `Checked.unsettled`."""
        return self._unsettled

    def facts(self, offline: OfflineTable, commit: Commit) -> Facts:
        """See `Checked.facts`."""
        del offline, commit
        return Facts.of(self.rows, self.schema)

    def tables(self, offline: OfflineTable, commit: Commit) -> Iterator[pa.Table]:
        """See `Checked.tables`."""
        del offline, commit
        yield self.rows
