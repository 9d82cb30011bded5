"""Rows to ask both stores for, made from the data: moments at the edges of what a row is valid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.feast.plan import PlannedGroup
from seeknal.feast.units import Unit, keys_of

MOMENT = "event_timestamp"
"""The column of the moments, under the name that Feast requires."""
NUMBER = "seeknal_row"
"""A column with the number of the row, since Feast returns rows in another order, and not all of them."""
_SAMPLED = 40
_UTC = pa.timestamp("us", "UTC")


def spine_of(unit: Unit, at: int) -> pa.Table:
    """Return a spine for a unit.

    For some rows of each group, evenly spread over its file, it has four moments: the event time, the microsecond before, the last
    moment within the ttl, and the microsecond after; and now. Request values are made up.
    """
    sampled = [
        [({keys_of(lookup, group)[key]: row[key] for key in group.group.keys}, row[MOMENT]) for row in _sample(group)]
        for lookup, group in unit.lookups
    ]
    found: dict[tuple[object, ...], dict[str, object]] = {}
    for (_, group), rows in zip(unit.lookups, sampled, strict=True):
        for place, (own, event) in enumerate(rows):
            keys = {
                name: value for other in sampled if other for name, value in other[place % len(other)][0].items()
            } | own
            for moment in (*_moments(group, event), at):
                found.setdefault((*keys.values(), moment), {**keys, MOMENT: moment})
    return _with_request(unit, list(found.values()))


def entities_of(unit: Unit, spine: pa.Table) -> pa.Table:
    """Return the keys of a spine, each once, with the request values of their first row."""
    names = list(unit.keys)
    first = {
        tuple(row[name] for name in names): place
        for place, row in reversed(list(enumerate(spine.select(names).to_pylist())))
    }
    return spine.take(sorted(first.values())).select([*names, *unit.request])


def _sample(group: PlannedGroup) -> list[dict[str, Any]]:
    """Return the keys and the event time, in microseconds, of some rows of a group, evenly spread over its file."""
    time = group.group.event_time_col
    table = group.rows.read([*group.group.keys, time]).read_all()
    places = sorted({place * table.num_rows // _SAMPLED for place in range(_SAMPLED)}) if table.num_rows else []
    some = table.take(places)
    moments = some[time].cast(pa.timestamp("ns", "UTC") if is_.is_timestamp(some[time].type) else _UTC).cast(pa.int64())
    per = 1000 if is_.is_timestamp(some[time].type) else 1
    events = [None if one is None else -(-one // per) for one in moments.to_pylist()]
    rows = some.select(list(group.group.keys)).to_pylist()
    return [{**row, MOMENT: event} for row, event in zip(rows, events, strict=True) if event is not None]


def _moments(group: PlannedGroup, event: int) -> Iterator[int]:
    ttl = group.group.materialization.lifetime
    yield from (event - 1, event)
    if ttl is not None:
        yield from (event + ttl, event + ttl + 1)


def _with_request(unit: Unit, rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in unit.keys.items()}
    columns[MOMENT] = pa.array([row[MOMENT] for row in rows], pa.int64()).cast(_UTC)
    for name, kind in unit.request.items():
        columns[name] = pa.array([_made_up(kind, place) for place in range(len(rows))], kind)
    return pa.table({NUMBER: pa.array(range(len(rows)), pa.int64()), **columns})


def _made_up(kind: pa.DataType, place: int) -> object:
    """Return a value of a type, or null if no rule for the type exists."""
    small = place % 100
    if is_.is_boolean(kind):
        return place % 2 == 0
    if is_.is_integer(kind):
        return small
    if is_.is_floating(kind):
        return small + 0.5
    if is_.is_string(kind) or is_.is_large_string(kind):
        return f"text {small}"
    return None
