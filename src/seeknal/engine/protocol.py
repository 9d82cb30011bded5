"""The protocol of query engines, with the edge cases that each of them must handle alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from seeknal.define.aggregations import WindowedFeature, columns_of, conditions_of
from seeknal.define.schema import Schema
from seeknal.offline import Rows


@dataclass(frozen=True)
class FeatureRequest:
    """The features of one group to look up.

    Args:
        rows: The rows of the group.
        features: The names of the features.
        ttl: How long before a moment a row may be to count, in microseconds, inclusive; None: any time.
        parts: The same rows cut into parts, the latest first, for an engine that can stop early; empty if they are not cut.
    """

    rows: Rows
    features: tuple[str, ...]
    ttl: int | None = None
    parts: tuple[Rows, ...] = ()


@dataclass(frozen=True)
class WindowRequest:
    """The features of one windowed group to compute.

    Args:
        rows: The rows of the source.
        keys: The columns of the source that are the join keys.
        windows: The features.
        hop: Align the start of each window down to a multiple of this many microseconds since 1970 in UTC; None: do not.
        one_of: Rows that agree in these columns and in their event time are one event: the one with the greatest created time, then
            the one written last. Empty: each row is an event.
    """

    rows: Rows
    keys: tuple[str, ...]
    windows: tuple[WindowedFeature, ...]
    hop: int | None = None
    one_of: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the features aggregate, each once."""
        return columns_of(self.windows)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of the features, each once."""
        return conditions_of(self.windows)


Request = FeatureRequest | WindowRequest
"""What a spine can be answered from: rows of a group, or events of a source."""


class Spool(Protocol):
    """Entities and moments that need not fit in memory: they are written in pieces, and then looked up."""

    def write(self, moments: pa.Table) -> None:
        """Append entities and moments, with the columns of `Engine.as_of`.

        Raises:
            StoreError: They cannot be written, for example because the disk is full.
        """

    def as_of(self, wanted: Request) -> pa.RecordBatchReader:
        """Return the features as known at each moment, as `Engine.as_of` does, in bounded memory. Nothing is written afterwards.

        Returns:
            A stream of one row per moment, in the order of writing, in logical types.

        Raises:
            StoreError: The rows cannot be read, or what does not fit in memory cannot be written.
        """


class Engine(Protocol):
    """Reads stored rows. Results are in logical types; instants and durations are whole microseconds, and all bounds are inclusive."""

    def as_of(self, wanted: Request, moments: pa.Table) -> pa.Table:
        """Return the features as known at each moment.

        The row with the latest event time at or before the moment wins; among several, the one with the latest created time, then
        the one written last. If that row is older than the ttl, or if a key or the moment is null, all features are null. There is
        no fallback to an earlier row: not if the winner has expired, and not for a feature that is null in it.

        For example, with a ttl of 10 and all rows of one entity:

            rows   event time   created   x          moments   x
            a      20           5         1          19        null   no row yet
            b      20           6         2          20        2      b: the greater created time
            c      30           5         null       35        null   c, in which x is null
                                                     41        null   c, which is older than the ttl

        A windowed feature has the value of its aggregation over the events with moment - length < event time <= moment; see
        `seeknal.engine.windows`.

        Args:
            wanted: The features.
            moments: The entities, as join keys k0, k1, ... in the group's order and in stored types, and the moments `t`, in
                microseconds since 1970.

        Returns:
            One row per moment, in the order of the moments, in logical types.
        """

    def check_conditions(self, schema: Schema, conditions: Mapping[str, str]) -> None:
        """Check conditions of aggregations against the columns of the events.

        Args:
            schema: The schema of the source.
            conditions: The conditions, with the name of a feature that has each.

        Raises:
            DefinitionError: One is no condition on the columns of an event; the message names the feature.
        """

    def conditions(self, schema: Schema, rows: pa.Table, conditions: Sequence[str]) -> list[pa.ChunkedArray]:
        """Return for each condition whether it is true for each event; `check_conditions` has accepted them.

        Args:
            schema: The schema of the source.
            rows: The events, in stored types.
            conditions: The conditions.

        Raises:
            DataError: A condition could not be evaluated for every event.
        """

    def spools(self, count: int) -> AbstractContextManager[Sequence[Spool]]:
        """Return empty spools. Leaving the `with` block removes what they hold, and ends the streams that are read from them.

        Raises:
            StoreError: They cannot be created.
        """

    def events(self, wanted: WindowRequest, entities: pa.Table | None = None) -> Iterator[pa.Table]:
        """Yield the events of entities, as they are kept online.

        Args:
            wanted: The features, and the rows of the source.
            entities: The join keys of the only entities to return, in stored types; None: all.

        Yields:
            The join keys in logical types, the event time `t` in microseconds since 1970, then the columns that the features aggregate
            and the conditions as bools, in the order of `WindowRequest.columns` and `conditions`. The events of an entity are in one
            table, side by side, ordered by event time, created time and order of writing.
        """

    def moments(self, groups: Sequence[Rows]) -> pa.Table:
        """Return the entities and event times at which any of the groups has a row.

        Returns:
            Join keys and event time in stored types: distinct rows, ordered by these columns.
        """

    def latest(
        self, rows: Rows, *, future_after: int | None = None, entities: pa.Table | None = None
    ) -> pa.RecordBatchReader:
        """Return the latest row of each entity.

        Args:
            rows: The rows.
            future_after: Return the latest row up to this instant, and in addition the winner of each event time after it; None:
                one row per entity, whatever its event time.
            entities: The join keys of the only entities to return, in stored types; None: all.

        Returns:
            All columns, ordered by key and event time. Entities with a null key are left out, except with `future_after`.
        """

    def event_times(self, rows: Rows, at: int) -> tuple[int | None, int | None]:
        """Return the greatest event time at or before an instant, and the least after it, of rows without a null key; None for none."""

    def sample(
        self, rows: Rows, limit: int, entity: pa.Table | None = None, conditions: Sequence[str] = ()
    ) -> pa.Table:
        """Return the rows written last, in reverse order of writing.

        Args:
            rows: The rows.
            limit: How many rows to return at most.
            entity: Columns of the only entity to return, one row in stored types; None: any.
            conditions: Conditions of aggregations, which `check_conditions` has checked.

        Returns:
            All columns, the row number, which is the order of writing, and for each condition whether it is true.
        """

    def count(self, rows: Rows, columns: Sequence[str] = ()) -> list[int]:
        """Return the number of rows, followed by the number of nulls of each column given."""
