"""The SQL that reads rows; which of them count at a moment is found by `seeknal.engine.asof`."""

from __future__ import annotations

from collections.abc import Container, Sequence

from seeknal.define.schema import ROW_ID, Schema
from seeknal.offline.plan import newest_first
from seeknal.values.sql import comma, literal, quote

_BEFORE_ALL = -(2**63) + 1


def rows_sql(
    schema: Schema,
    rows: str,
    features: Sequence[str] = (),
    most: int | None = None,
    *,
    of_spine: bool = False,
    share: str = "true",
) -> str:
    """Write the query that gives rows in any order, in numbers that can be compared.

    Args:
        schema: The group's schema.
        rows: Query giving the group's rows.
        features: The features to give beside them.
        most: How many rows to give at most.
        of_spine: Give the rows of the entities in `spine` alone.
        share: The condition that an entity, as k0, k1, ..., is one of those to give.

    Returns:
        A query giving k0, k1, ... (keys), t (microseconds), created (microseconds) where the group has a created time, id
        (the order of writing), and features as f0, f1, ...
    """
    keys = {f"k{i}": quote(name) for i, name in enumerate(schema.key_names)}
    columns = {**keys, "t": f"epoch_us({quote(schema.event_time.name)})"}
    if schema.created_time:
        columns["created"] = f"coalesce(epoch_us({quote(schema.created_time.name)}), {_BEFORE_ALL})"
    columns |= {"id": quote(ROW_ID), **{f"f{i}": quote(name) for i, name in enumerate(features)}}
    narrow = f"SEMI JOIN spine USING ({comma(keys)})" if of_spine else ""
    limit = "" if most is None else f"LIMIT {literal(most)}"
    named = comma(f"{value} AS {name}" for name, value in columns.items())
    return f"SELECT * FROM (SELECT {named} FROM ({rows})) {narrow} WHERE {share} {limit}"


def fetch_sql(rows: str, features: Sequence[str], wanted: str = "wanted") -> str:
    """Write the query that gives the features of the rows whose id is in `wanted`, as f0, f1, ..., beside its column i, in any order."""
    return f"SELECT w.i, {_features(features)} FROM ({rows}) AS r JOIN {wanted} AS w ON r.{quote(ROW_ID)} = w.id"


def ordered_sql(rows: str, features: Sequence[str], wanted: str = "wanted") -> str:
    """Write the query that gives the features of the rows in `wanted` by their id, as f0, f1, ..., in the order of its column i."""
    return f"""
        SELECT {_features(features)} FROM {wanted} AS w LEFT JOIN ({rows}) AS r ON r.{quote(ROW_ID)} = w.id ORDER BY w.i
    """


def share_sql(schema: Schema, number: int | None, count: int) -> str:
    """Write the condition that an entity, as k0, k1, ..., is in one of so many shares; or without a number, in which it is."""
    keys = comma(f"k{i}" for i in range(len(schema.keys)))
    share = f"hash({keys}) % {literal(count)}"
    return share if number is None else "true" if count == 1 else f"{share} = {literal(number)}"


def latest_sql(schema: Schema, rows: str, future_after: int | None, views: Container[str]) -> str:
    """Write the query that finds the row of each entity that wins over its others; see `Engine.latest`.

    Winners are found by keys and times alone, and then fetched with their features.

    Args:
        schema: The group's schema.
        rows: Query giving the group's rows.
        future_after: Rows later than this instant win by event time.
        views: What narrows down the rows: `entities` has some, `low` the first key, `high` the first that is not
            asked for.
    """
    keys, time, row_id = comma(map(quote, schema.key_names)), quote(schema.event_time.name), quote(ROW_ID)
    created = [quote(schema.created_time.name)] if schema.created_time else []
    narrow = f"SEMI JOIN entities USING ({keys})" if "entities" in views else ""
    sides = [f"row({keys}) {sign} (SELECT row({keys}) FROM {view})" for view, sign in (("low", ">="), ("high", "<"))]
    where = " AND ".join(side for side, view in zip(sides, ("low", "high"), strict=True) if view in views) or "true"
    known = (
        "true" if future_after is not None else " AND ".join(f"{quote(key)} IS NOT NULL" for key in schema.key_names)
    )
    by = (
        keys
        if future_after is None
        else f"{keys}, CASE WHEN epoch_us({time}) > {literal(future_after)} THEN {time} END"
    )
    order = f"{time} DESC, {newest_first(schema)}"
    return f"""
        WITH seen AS (SELECT * FROM ({rows}) {narrow} WHERE {where}),
             best AS (
                SELECT {row_id} FROM (SELECT {comma([keys, time, *created, row_id])} FROM seen) WHERE {known}
                QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY {order}) = 1
             )
        SELECT {comma(map(quote, schema.names))} FROM seen SEMI JOIN best USING ({row_id}) ORDER BY {keys}, {time}
    """


def event_times_sql(schema: Schema, rows: str, at: int) -> str:
    """Write the query that finds the newest event time up to an instant, and the first after it; see `Engine.event_times`."""
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in schema.key_names)
    times = f"SELECT epoch_us({quote(schema.event_time.name)}) AS t FROM ({rows}) WHERE {known}"
    return f"SELECT max(t) FILTER (t <= {literal(at)}), min(t) FILTER (t > {literal(at)}) FROM ({times})"


def _features(names: Sequence[str]) -> str:
    return comma(f"r.{quote(name)} AS f{i}" for i, name in enumerate(names))
