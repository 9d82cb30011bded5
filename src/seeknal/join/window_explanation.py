"""Explanations of windowed values: the events of an entity, which windows have them, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.aggregations import WindowedFeature
from seeknal.define.columns import ROW_ID
from seeknal.engine import Engine
from seeknal.join.candidates import ALL_ROWS, Candidate, candidates_of, span_of, written_later
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import WindowedSource
from seeknal.values.matching import stored_keys
from seeknal.values.times import Interval


def explain_windows(
    catalog: Catalog,
    engine: Engine,
    source: WindowedSource,
    entity: pa.Table,
    moment: int,
    interval: Interval,
    limit: int | None = None,
) -> list[Candidate]:
    """Return the events of one entity: those that are in a window, the newest first, then the others by distance from the moment.

    This implements the contract a second time, event by event in Python, and does not use the kernel. For example, for the moment
    10:00 and two features:

        event time   amount   verdict
        09:30        5        in spend_1h, spend_1d
        09:00        7        in spend_1d; not in spend_1h: too old by 0:00:00
        11:30        1        future: 1:30:00 after the moment

    Args:
        catalog: The catalog of the group's home.
        engine: The engine that reads the events.
        source: The lookup, as of some snapshot.
        entity: The join keys in one row, by their names in the source, in logical types.
        moment: The moment of the spine row, in microseconds since 1970.
        interval: Only events with an event time inside it are visible.
        limit: Maximum number of events to return. None: all.
    """
    schema, features = source.stored_schema, source.windows
    own = stored_keys(entity, [source.version.schema.field(name).type for name in source.keys])
    conditions = list(dict.fromkeys(one.aggregation.where for one in features if one.aggregation.where is not None))
    _, now = catalog.read(source.origin)
    seen, stored = (
        engine.sample(snapshot.within(schema), ALL_ROWS, own, conditions) for snapshot in (source.snapshot, now)
    )
    later = stored.filter(pc.invert(pc.is_in(stored[ROW_ID], seen[ROW_ID].combine_chunks())))
    writes = catalog.snapshots(source.origin)
    names = {name: name for name in [*schema.key_names, *schema.feature_names] if name not in source.keys}
    rows = candidates_of(seen, source.record.label, schema, names, writes)
    hidden, judged = _hidden(rows, source), []
    for one, holds in zip(rows, _masks(seen, conditions), strict=True):
        event = _Event(one, moment, interval, holds)
        verdict = hidden.get(one.row_id) or event.verdict(features, source.version.definition.hop_length)
        judged.append(replace(one, verdict=verdict))
    judged += written_later(candidates_of(later, source.record.label, schema, names, writes))
    return sorted(judged, key=lambda one: (not one.verdict.startswith("in "), abs(moment - one.event_time)))[:limit]


def _masks(table: pa.Table, conditions: Sequence[str]) -> list[dict[str, bool]]:
    """Return for each event which conditions are true; they are the last columns of the table."""
    first = table.num_columns - len(conditions)
    columns = [table.column(first + i).to_pylist() for i in range(len(conditions))]
    return [dict(zip(conditions, (column[row] for column in columns), strict=True)) for row in range(len(table))]


def _hidden(rows: Sequence[Candidate], source: WindowedSource) -> dict[int, str]:
    """Return why events are hidden by others, by row number: in a feature group, rows of equal keys and event time are one event."""
    if source.origin.event_id is not None:
        return {}
    keys = [name for name in source.stored_schema.key_names if name not in source.keys]
    winners: dict[tuple[object, ...], Candidate] = {}
    for one in rows:
        same = (one.event_time, *(one.features.get(name) for name in keys))
        winners[same] = max(winners.get(same, one), one, key=lambda row: row.place)
    won = {one.row_id for one in winners.values()}
    return {one.row_id: "same keys and time as a row that counts instead" for one in rows if one.row_id not in won}


@dataclass(frozen=True)
class _Event:
    """An event that counts once.

    Args:
        row: Its values.
        moment: The moment to look from.
        interval: Only events inside it are visible.
        holds: For each condition, whether it is true for the event.
    """

    row: Candidate
    moment: int
    interval: Interval
    holds: dict[str, bool]

    def verdict(self, features: Sequence[WindowedFeature], hop: int | None) -> str:
        """Return which features the event counts in, and why not in the others."""
        time = self.row.event_time
        if not self.interval.intersect(Interval(time, time)):
            return f"outside {self.interval}"
        if time > self.moment:
            return f"future: {span_of(time - self.moment)} after the moment"
        inside, reasons = [], dict[str, list[str]]()
        for one in features:
            if (why := self._why_not(one, hop)) is None:
                inside.append(one.name)
            else:
                reasons.setdefault(why, []).append(one.name)
        parts = [f"in {', '.join(inside)}"] if inside else []
        parts += [f"not in {', '.join(names)}: {why}" for why, names in reasons.items()]
        return "; ".join(parts)

    def _why_not(self, feature: WindowedFeature, hop: int | None) -> str | None:
        """Return why the event does not count in a feature; None if it does."""
        of, end = feature.aggregation, self.moment - feature.aggregation.shift
        if self.row.event_time > end:
            return f"after the window by {span_of(self.row.event_time - end)}"
        if feature.length is not None:
            start = end - feature.length
            start = start if hop is None else start // hop * hop
            if self.row.event_time <= start:
                return f"too old by {span_of(start - self.row.event_time)}"
        if of.where is not None and not self.holds[of.where]:
            return f"{of.where} is not true"
        for name in (of.source_column, of.by):
            if name is not None and name in self.row.features and self.row.features[name] is None:
                return f"{name} is null"
        return None
