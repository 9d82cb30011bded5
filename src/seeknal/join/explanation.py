"""Explanations of a value: the rows that could have supplied it, and why all but one of them did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.engine import Engine
from seeknal.registry import SnapshotRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.values.display import records, shown_duration
from seeknal.values.frames import library
from seeknal.values.matching import stored_keys
from seeknal.values.times import Interval, show
from seeknal.values.types import UTC

if TYPE_CHECKING:
    import pandas as pd

_MOST = 100_000_000
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


def explain(
    catalog: Catalog,
    engine: Engine,
    source: Source,
    entity: pa.Table,
    moment: int,
    interval: Interval,
    limit: int | None = None,
) -> list[Candidate]:
    """Return the rows of one entity: the winner first, then the others by distance from the moment.

    This implements the contract a second time, row by row in Python, and does not use the join. For example, for the moment
    10:00, without created times:

        event time   written by   verdict
        09:00        snapshot 2   won
        09:00        snapshot 1   same time, but written earlier than the newest
        11:30        snapshot 1   future: 1:30:00 after the moment
        08:00        snapshot 1   older than the winner by 1:00:00

    Args:
        catalog: The catalog of the group's home.
        engine: The engine that reads the rows.
        source: The lookup, as of some snapshot.
        entity: The join keys in one row, by their names in the group, in logical types.
        moment: The moment of the spine row, in microseconds since 1970.
        interval: Only rows with an event time inside it are visible.
        limit: Maximum number of rows to return. None: all.
    """
    schema = source.version.schema
    _, now = catalog.read(source.record, source.version.number)
    own = stored_keys(entity, [field.type for field in schema.keys])
    visible, stored = (engine.sample(rows, _MOST, own) for rows in (source.rows(), now.within(schema)))
    # Rows written after the source's snapshot could not win, but are listed as well, as written later.
    later_only = stored.filter(pc.invert(pc.is_in(stored[ROW_ID], visible[ROW_ID].combine_chunks())))
    tables = [_near(table, schema, moment, interval, limit) for table in (visible, later_only)]
    writes = catalog.snapshots(source.record)
    seen, later = (_candidates(table, source, schema, writes) for table in tables)
    hidden = {one.row_id: why for one in seen if (why := _why_hidden(one, moment, interval))}
    best = max((one for one in seen if one.row_id not in hidden), key=lambda one: one.place, default=None)
    lifetime = source.record.group.materialization.lifetime
    judged = [
        replace(one, verdict=hidden.get(one.row_id) or _why_lost(one, best, moment, lifetime)) for one in seen
    ] + [replace(one, verdict=f"written later: by snapshot {one.snapshot}, on {show(one.written_at)}") for one in later]
    # An expired newest row is listed first too, with the verdict that it expired.
    winner = best.row_id if best else None
    return sorted(judged, key=lambda one: (one.row_id != winner, abs(moment - one.event_time)))[:limit]


def _near(rows: pa.Table, schema: Schema, moment: int, interval: Interval, limit: int | None) -> pa.Table:
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


def _candidates(rows: pa.Table, source: Source, schema: Schema, writes: list[SnapshotRecord]) -> list[Candidate]:
    def instants(name: str) -> list[int | None]:
        return list(rows[name].cast(UTC).cast(pa.int64()).to_pylist())

    created = instants(schema.created_time.name) if schema.created_time else [None] * len(rows)
    features = records(rows.select(list(source.features)).rename_columns(list(source.features.values())))
    parts = zip(instants(schema.event_time.name), created, features, rows[ROW_ID].to_pylist(), strict=True)
    found = []
    for time, recorded, values, row_id in parts:
        # Rows are numbered in the order of writing, so a row belongs to the first write whose numbers end beyond its own.
        write = next(write for write in writes if row_id < write.next_row_id)
        found.append(Candidate(source.record.label, "", time or 0, recorded, write.number, write.at, values, row_id))
    return found


def _span_of(microseconds: int) -> str:
    return shown_duration(timedelta(microseconds=microseconds))


def _why_hidden(one: Candidate, moment: int, interval: Interval) -> str | None:
    if one.event_time > moment:
        return f"future: {_span_of(one.event_time - moment)} after the moment"
    return None if interval.intersect(Interval(one.event_time, one.event_time)) else f"outside {interval}"


def _why_lost(one: Candidate, best: Candidate | None, moment: int, lifetime: int | None) -> str:
    if best is None:
        return "not seen"
    age = moment - best.event_time
    expired = lifetime is not None and age > lifetime
    if one is best:
        return f"expired: {_span_of(age)} old, the ttl is {_span_of(lifetime or 0)}" if expired else "won"
    # An expired newest row hides the older ones all the same.
    behind = ", which has expired" if expired else ""
    if one.event_time < best.event_time:
        gap = _span_of(best.event_time - one.event_time)
        return f"older by {gap} than the newest{behind}" if expired else f"older than the winner by {gap}"
    if one.place[1] != best.place[1]:
        return f"same time, but recorded earlier than the newest{behind}"
    return f"same time, but written earlier than the newest{behind}"


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
