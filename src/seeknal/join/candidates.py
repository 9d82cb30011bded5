"""Stored rows of one entity as candidates for a value: what an explanation shows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.registry import SnapshotRecord
from seeknal.values.display import records, shown_duration
from seeknal.values.frames import library
from seeknal.values.times import Interval, show
from seeknal.values.types import UTC

if TYPE_CHECKING:
    import pandas as pd

ALL_ROWS = 100_000_000
"""Maximum number of rows read for one entity, large enough for all of them."""


@dataclass(frozen=True)
class Candidate:
    """A row of the entity, with the verdict on it.

    Args:
        group: Project and name of the group.
        verdict: "won", or why the row lost.
        event_time: The row's event time, in microseconds since 1970.
        created_time: The row's created time, in microseconds since 1970; None if it has none.
        snapshot: Number of the snapshot whose write stored the row.
        written_at: Time of that write, in microseconds since 1970.
        features: The row's values, by their names in the result.
        row_id: The row's number, in the order of writing.
    """

    group: str
    verdict: str
    event_time: int
    created_time: int | None
    snapshot: int
    written_at: int
    features: Mapping[str, Any] = field(default_factory=dict)
    row_id: int = 0

    @property
    def place(self) -> tuple[int, int, int]:
        """The key by which rows compete: the visible row with the greatest key wins. A missing created time comes first."""
        return (self.event_time, -(2**63) if self.created_time is None else self.created_time, self.row_id)


def near(rows: pa.Table, schema: Schema, moment: int, interval: Interval, limit: int | None) -> pa.Table:
    """Return the rows that can be among the first `limit`: the nearest to the moment, and all at the newest visible event time.

    The winner, if there is one, is among the latter, even if more than `limit` other rows are nearer to the moment. For example, for
    the moment 10:00 and a limit of 1, of rows at 08:00, 09:00 and 10:01 those at 09:00 (newest visible) and 10:01 (nearest) are kept.
    """
    if limit is None or len(rows) <= limit:
        return rows
    times = np.asarray(rows[schema.event_time.name].cast(UTC).cast(pa.int64()), np.int64)
    first, last = (
        (-(2**63) if interval.start is None else interval.start),
        (moment if interval.end is None else min(interval.end, moment)),
    )
    seen = times[(times >= first) & (times <= last)]
    newest = np.flatnonzero(times == seen.max()) if len(seen) else np.array([], np.int64)
    nearest = np.argsort(np.abs(times - moment), kind="stable")[:limit]
    return rows.take(pa.array(np.union1d(newest, nearest)))


def candidates_of(
    rows: pa.Table, label: str, schema: Schema, names: Mapping[str, str], writes: Sequence[SnapshotRecord]
) -> list[Candidate]:
    """Return stored rows as candidates, without a verdict.

    Args:
        rows: The rows, with their numbers.
        label: Project and name of the group.
        schema: Their schema.
        names: The names of their values in the result, by their own names.
        writes: The writes to the table, oldest first.
    """

    def instants(name: str) -> list[int | None]:
        return list(rows[name].cast(UTC).cast(pa.int64()).to_pylist())

    created = instants(schema.created_time.name) if schema.created_time else [None] * len(rows)
    features = records(rows.select(list(names)).rename_columns(list(names.values())))
    parts = zip(instants(schema.event_time.name), created, features, rows[ROW_ID].to_pylist(), strict=True)
    found = []
    for time, recorded, values, row_id in parts:
        # Rows are numbered in the order of writing, so a row belongs to the first write whose numbers end beyond its own.
        write = next(write for write in writes if row_id < write.next_row_id)
        found.append(Candidate(label, "", time or 0, recorded, write.number, write.at, values, row_id))
    return found


def written_later(found: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates that a snapshot does not have yet, with the verdict that says so."""
    return [
        replace(one, verdict=f"written later: by snapshot {one.snapshot}, on {show(one.written_at)}") for one in found
    ]


def span_of(microseconds: int) -> str:
    """Return a duration as verdicts show it."""
    return shown_duration(timedelta(microseconds=microseconds))


def to_pandas(found: Sequence[Candidate]) -> pd.DataFrame:
    """Return candidates as a pandas frame with one row each.

    Raises:
        DefinitionError: pandas is not installed.
    """
    library("pandas")
    import pandas as pd

    times = ("event_time", "created_time", "written_at")
    shown = ("group", "verdict", "event_time", "created_time", "snapshot", "written_at", "features")
    frame = pd.DataFrame([{name: getattr(one, name) for name in shown} for one in found], columns=list(shown))
    return frame.assign(**{name: pd.to_datetime(frame[name], unit="us", utc=True) for name in times})
