"""What every engine must answer, with its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from seeknal.offline import Rows


@dataclass(frozen=True)
class FeatureRequest:
    """Features of one group to be looked up.

    Args:
        rows: Its rows.
        features: The names of the features.
        ttl: How long a value is good for.
        parts: The same rows in parts, each before the one before it, for an engine that need not read all; or nothing.
    """

    rows: Rows
    features: tuple[str, ...]
    ttl: int | None = None
    parts: tuple[Rows, ...] = ()


class Engine(Protocol):
    """Reads stored rows. Answers are in logical types; instants and spans of time are whole microseconds, all bounds are inclusive."""

    def as_of(self, wanted: FeatureRequest, moments: pa.Table | Path) -> pa.RecordBatchReader:
        """Give each moment the features known then.

        The row with the latest event time at or before the moment counts; of several, the one with
        the latest created time, then the one written last. When it is older than the ttl, or a key
        or the moment is null, all features are null. A feature that is null in that row is null.

        Args:
            wanted: The features.
            moments: The entities, as join keys k0, k1, ... in the group's order and in stored types, and the moments
                `t`, in microseconds since 1970. If they are too many for the memory, the Parquet file they are in;
                the folder it is in takes what does not fit.

        Returns:
            One row per moment, in order, in logical types.
        """

    def moments(self, groups: Sequence[Rows]) -> pa.Table:
        """List the entities and event times at which any of the groups has a row.

        Returns:
            Distinct rows, ordered: join keys and event time, in stored types.
        """

    def latest(
        self, rows: Rows, *, future_after: int | None = None, entities: pa.Table | None = None
    ) -> pa.RecordBatchReader:
        """Give the row of each entity that wins over its others.

        Args:
            rows: The rows.
            future_after: Rows later than this instant win by event time, beside the one that wins up to it.
            entities: Only of these entities: their join keys, in stored types.

        Returns:
            All columns, ordered by key and event time. Entities with a null key are left out, except with `future_after`.
        """

    def event_times(self, rows: Rows, at: int) -> tuple[int | None, int | None]:
        """Return the newest event time at or before an instant, and the first after it, of rows without a null key."""

    def sample(self, rows: Rows, limit: int, entity: pa.Table | None = None) -> pa.Table:
        """Give the rows written last, the very last one first; of one entity, if its keys are given.

        Returns:
            All columns, and the number of each row in the order of writing.
        """

    def count(self, rows: Rows, columns: Sequence[str] = ()) -> list[int]:
        """Count the rows, and the nulls of some columns."""
