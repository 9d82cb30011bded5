"""Explanations of a value: the rows that could have supplied it, and why all but one of them did not."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.columns import ROW_ID
from seeknal.engine import Engine
from seeknal.join.candidates import ALL_ROWS, Candidate, candidates_of, near, span_of, written_later
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.values.matching import stored_keys
from seeknal.values.times import Interval


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
    visible, stored = (engine.sample(rows, ALL_ROWS, own) for rows in (source.rows(), now.within(schema)))
    # Rows written after the source's snapshot could not win, but are listed as well, as written later.
    later_only = stored.filter(pc.invert(pc.is_in(stored[ROW_ID], visible[ROW_ID].combine_chunks())))
    tables = [near(table, schema, moment, interval, limit) for table in (visible, later_only)]
    writes = catalog.snapshots(source.record)
    seen, later = (candidates_of(table, source.record.label, schema, source.features, writes) for table in tables)
    hidden = {one.row_id: why for one in seen if (why := _why_hidden(one, moment, interval))}
    best = max((one for one in seen if one.row_id not in hidden), key=lambda one: one.place, default=None)
    lifetime = source.record.group.materialization.lifetime
    judged = [replace(one, verdict=hidden.get(one.row_id) or _why_lost(one, best, moment, lifetime)) for one in seen]
    judged += written_later(later)
    # An expired newest row is listed first too, with the verdict that it expired.
    winner = best.row_id if best else None
    return sorted(judged, key=lambda one: (one.row_id != winner, abs(moment - one.event_time)))[:limit]


def _why_hidden(one: Candidate, moment: int, interval: Interval) -> str | None:
    if one.event_time > moment:
        return f"future: {span_of(one.event_time - moment)} after the moment"
    return None if interval.intersect(Interval(one.event_time, one.event_time)) else f"outside {interval}"


def _why_lost(one: Candidate, best: Candidate | None, moment: int, lifetime: int | None) -> str:
    if best is None:
        return "not seen"
    age = moment - best.event_time
    expired = lifetime is not None and age > lifetime
    if one is best:
        return f"expired: {span_of(age)} old, the ttl is {span_of(lifetime or 0)}" if expired else "won"
    # An expired newest row hides the older ones all the same.
    behind = ", which has expired" if expired else ""
    if one.event_time < best.event_time:
        gap = span_of(best.event_time - one.event_time)
        return f"older by {gap} than the newest{behind}" if expired else f"older than the winner by {gap}"
    if one.place[1] != best.place[1]:
        return f"same time, but recorded earlier than the newest{behind}"
    return f"same time, but written earlier than the newest{behind}"
