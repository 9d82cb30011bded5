"""The SQL that looks up rows.

`ASOF JOIN` finds, for each moment of the spine, the greatest row at or before it. Rows are compared by (event time, created
time, order of writing), so that ties have one answer; moments are whole microseconds, so that no time zone and no calendar
takes part.

To compare all three takes twice the time of event times alone, and few rows are tied. So event times are compared alone,
and what is tied is settled before, where all rows are at hand, or among the rows that were found.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import pyarrow as pa

from seeknal.engine.protocol import Wanted
from seeknal.offline.plan import newest_first
from seeknal.schema import ROW_ID, Schema
from seeknal.sql import comma, literal, quote

LAST = 2**63 - 1


def as_of_sql(schema: Schema, wanted: Wanted, rows: str) -> str:
    """Write the query that finds one group's features for each row of `spine`.

    Args:
        schema: The group's schema.
        wanted: The features, and their ttl.
        rows: Query giving the group's rows.

    Returns:
        A query giving the features as f0, f1, ... in the order of the spine, which has the columns
        k0, k1, ... (keys), t (microseconds) and i (position).
    """
    alive = _alive(wanted.ttl)
    return f"""
        WITH r AS ({_places(schema, rows, _features(wanted))})
        SELECT {comma(f"CASE WHEN {alive} THEN r.f{i} END AS f{i}" for i in range(len(wanted.features)))}
        FROM spine AS s ASOF LEFT JOIN r ON {_nearest(_keys(schema))}
        ORDER BY s.i
    """


def entities_sql(schema: Schema, wanted: Wanted, rows: str, most: int, *, among: bool) -> str:
    """Write the query that gives rows, at most so many, as k0, k1, ..., id, created (microseconds), f0, f1, ... and t.

    Args:
        schema: The group's schema.
        wanted: The features.
        rows: Query giving the group's rows.
        most: How many rows to give at most.
        among: Give the rows of the entities in `spine` alone.
    """
    narrow = f"SEMI JOIN spine USING ({comma(_keys(schema))})" if among else ""
    more = f"{quote(ROW_ID)} AS id, {_created(schema)} AS created, {_features(wanted)}"
    return f"SELECT * FROM ({_named(schema, rows, more)}) {narrow} LIMIT {literal(most)}"


def settled_sql(schema: Schema, ttl: int | None) -> str:
    """Write the query that finds, for each row of `spine`, the number of the one of `rows` that counts, if one does.

    Args:
        schema: The group's schema.
        ttl: How long a value is good for.

    Returns:
        A query giving i and number. Rows have what `entities_sql` gives beside the features, and number.
    """
    keys, order = _keys(schema), "row(created, id)" if schema.created_time else "id"
    return f"""
        WITH r AS (SELECT {comma(keys)}, t, arg_max(number, {order}) AS number FROM rows GROUP BY ALL)
        SELECT s.i, r.number FROM spine AS s ASOF JOIN r ON {_nearest_time(keys)} WHERE {_alive(ttl)}
    """


def nearest_sql(schema: Schema, wanted: Wanted, rows: str, *, among: bool = False) -> str:
    """Write the query that finds, for each row of `spine`, the entity and event time of the row that counts, if one does.

    Args:
        schema: The group's schema.
        wanted: The features' ttl.
        rows: Query giving the group's rows.
        among: Read only the rows of the spine's entities, which pays when they are few.

    Returns:
        A query giving i, k0, k1, ... and moment, as they are stored.
    """
    keys, time = _keys(schema), quote(schema.event_time.name)
    narrow = f"SEMI JOIN spine USING ({comma(keys)})" if among else ""
    return f"""
        WITH r AS (SELECT * FROM ({_named(schema, rows, f"{time} AS moment, ")}) {narrow})
        SELECT s.i, {comma(f"r.{key}" for key in keys)}, r.moment
        FROM spine AS s ASOF JOIN r ON {_nearest_time(keys)}
        WHERE {_alive(wanted.ttl)}
    """


def fetch_sql(schema: Schema, wanted: Wanted, rows: str, most: int) -> str:
    """Write the query that gives the rows of the entities and event times in `nearest`.

    Args:
        schema: The group's schema.
        wanted: The features.
        rows: Query giving the group's rows.
        most: How many rows to give at most: of each in `nearest` there is one, or several that are tied.

    Returns:
        A query giving i, id, created (microseconds) and f0, f1, ...
    """
    pairs = [*zip(_keys(schema), schema.key_names, strict=True), ("moment", schema.event_time.name)]
    same = " AND ".join(f"r.{quote(name)} = n.{key}" for key, name in pairs)
    return f"""
        SELECT n.i, r.{quote(ROW_ID)} AS id, {_created(schema)} AS created,
            {comma(f"r.{quote(name)} AS f{i}" for i, name in enumerate(wanted.features))}
        FROM ({rows}) AS r JOIN nearest AS n ON {same} LIMIT {literal(most)}
    """


def newest_sql(schema: Schema, rows: str, apart: int | None, views: Container[str]) -> str:
    """Write the query that finds the row of each entity that wins over its others; see `Engine.newest`.

    Winners are found by keys and times alone, and then fetched with their features.

    Args:
        schema: The group's schema.
        rows: Query giving the group's rows.
        apart: Rows later than this instant win by event time.
        views: What narrows down the rows: `among` has some entities, `low` the first key, `high` the first that is not
            asked for.
    """
    keys, time, row_id = comma(map(quote, schema.key_names)), quote(schema.event_time.name), quote(ROW_ID)
    created = [quote(schema.created_time.name)] if schema.created_time else []
    narrow = f"SEMI JOIN among USING ({keys})" if "among" in views else ""
    sides = [f"row({keys}) {sign} (SELECT row({keys}) FROM {view})" for view, sign in (("low", ">="), ("high", "<"))]
    where = " AND ".join(side for side, view in zip(sides, ("low", "high"), strict=True) if view in views) or "true"
    known = "true" if apart is not None else " AND ".join(f"{quote(key)} IS NOT NULL" for key in schema.key_names)
    by = keys if apart is None else f"{keys}, CASE WHEN epoch_us({time}) > {literal(apart)} THEN {time} END"
    order = f"{time} DESC, {newest_first(schema)}"
    return f"""
        WITH seen AS (SELECT * FROM ({rows}) {narrow} WHERE {where}),
             best AS (
                SELECT {row_id} FROM (SELECT {comma([keys, time, *created, row_id])} FROM seen) WHERE {known}
                QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY {order}) = 1
             )
        SELECT {comma(map(quote, schema.names))} FROM seen SEMI JOIN best USING ({row_id}) ORDER BY {keys}, {time}
    """


def winners_sql(schema: Schema, ttl: int | None, rows: str, spine: str, share: tuple[int, int]) -> str:
    """Write the query that finds the number of the row that counts at each moment of a spine, where there is one.

    Args:
        schema: The group's schema.
        ttl: How long a value is good for.
        rows: Query giving the group's rows.
        spine: What gives the spine: k0, k1, ... (keys), t (microseconds) and i (position).
        share: Which share of the entities to look at, of how many.

    Returns:
        A query giving i and id.
    """
    keys = _keys(schema)
    parts = [f"{key}::DOUBLE" if _is_number(field.type) else key for key, field in zip(keys, schema.keys, strict=True)]
    mine = f"hash({comma(parts)}) % {literal(share[1])} = {literal(share[0])}"
    return f"""
        WITH s AS (SELECT * FROM {spine} WHERE {mine}),
             r AS (SELECT * FROM ({_places(schema, rows, "")}) WHERE {mine})
        SELECT * FROM (SELECT s.i, CASE WHEN {_alive(ttl)} THEN r.id END AS id FROM s ASOF JOIN r ON {_nearest(keys)})
        WHERE id IS NOT NULL
    """


def _keys(schema: Schema) -> list[str]:
    return [f"k{i}" for i in range(len(schema.keys))]


def _features(wanted: Wanted) -> str:
    return "".join(f"{quote(name)} AS f{i}, " for i, name in enumerate(wanted.features))


def _nearest_time(keys: Sequence[str]) -> str:
    """Write what an ASOF join of spine `s` and rows `r` compares, if ties are settled: the last at or before the moment."""
    return " AND ".join([*(f"s.{key} = r.{key}" for key in keys), "s.t >= r.t"])


def _nearest(keys: Sequence[str]) -> str:
    """Write what an ASOF join of spine `s` and rows `r` compares: the last row at or before the moment, ties settled."""
    same = " AND ".join(f"s.{key} = r.{key}" for key in keys)
    return f"{same} AND row(s.t, {LAST}, {LAST}) >= r.place"


def _alive(ttl: int | None) -> str:
    """Write the condition that the row found counts. A moment that is null finds one too, and must not."""
    return "r.t <= s.t" + ("" if ttl is None else f" AND s.t - r.t <= {literal(ttl)}")


def _is_number(kind: pa.DataType) -> bool:
    """Tell whether equal keys may come in types of different width."""
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _created(schema: Schema) -> str:
    return f"coalesce(epoch_us({quote(schema.created_time.name)}), {-LAST})" if schema.created_time else "0"


def _places(schema: Schema, rows: str, features: str) -> str:
    """Write the query that gives rows as join keys k0, k1, ..., time t, and the place that is compared."""
    moment, row_id = f"epoch_us({quote(schema.event_time.name)})", quote(ROW_ID)
    place = f"row({moment}, {_created(schema)}, {row_id}) AS place, "
    return _named(schema, rows, f"{row_id} AS id, {features}{place}")


def _named(schema: Schema, rows: str, more: str) -> str:
    """Write the query that gives rows as join keys k0, k1, ..., time t, and more."""
    named = comma(f"{quote(name)} AS k{i}" for i, name in enumerate(schema.key_names))
    return f"SELECT {named}, {more}epoch_us({quote(schema.event_time.name)}) AS t FROM ({rows})"
