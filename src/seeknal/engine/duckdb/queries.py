"""The SQL that reads rows; `seeknal.engine.asof` finds which of them win at a moment."""

from __future__ import annotations

from collections.abc import Container, Sequence

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.offline.plan import newest_first
from seeknal.values.sql import comma, literal, quote

_BEFORE_ALL = -(2**63) + 1
"""The created time, in microseconds, that stands for none: a row with one wins over a row without."""
_FEW = 20
"""A spine is small if there are more than this many times as many stored rows."""


def is_small(spine: int, rows: int) -> bool:
    """Return whether a spine of a size is small, so that only the rows of its entities should be read."""
    return spine * _FEW < rows


def keys_and_times(schema: Schema) -> list[str]:
    """Return the columns that decide which row wins at a moment, beside the row number."""
    return [*schema.key_names, schema.event_time.name, *([schema.created_time.name] if schema.created_time else [])]


def created_sql(name: str) -> str:
    """Return the SQL of a created time, in microseconds."""
    return f"coalesce(epoch_us({quote(name)}), {_BEFORE_ALL})"


def rows_sql(
    schema: Schema,
    rows: str,
    features: Sequence[str] = (),
    most: int | None = None,
    *,
    of_spine: bool = False,
    share: str = "true",
) -> str:
    """Write the query that reads rows, in any order, with times as integers.

    Args:
        schema: The group's schema.
        rows: Query that reads the group's rows.
        features: The features to read too.
        most: How many rows to read at most; None: all.
        of_spine: Read only rows of the entities in the view `spine`.
        share: The SQL condition, on k0, k1, ..., that an entity is in the partition to read.

    Returns:
        A query for k0, k1, ... (keys), t (microseconds), created (microseconds) if the group has a created time, id (the row
        number), and features as f0, f1, ...
    """
    keys = {f"k{i}": quote(name) for i, name in enumerate(schema.key_names)}
    columns = {**keys, "t": f"epoch_us({quote(schema.event_time.name)})"}
    if schema.created_time:
        columns["created"] = created_sql(schema.created_time.name)
    columns |= {"id": quote(ROW_ID), **{f"f{i}": quote(name) for i, name in enumerate(features)}}
    narrow = f"SEMI JOIN spine USING ({comma(keys)})" if of_spine else ""
    limit = "" if most is None else f"LIMIT {literal(most)}"
    named = comma(f"{value} AS {name}" for name, value in columns.items())
    return f"SELECT * FROM (SELECT {named} FROM ({rows})) {narrow} WHERE {share} {limit}"


def fetch_sql(rows: str, features: Sequence[str], wanted: str = "wanted") -> str:
    """Write the query that reads the features of the rows whose id is in `wanted`, as f0, f1, ..., with its column i, in any order."""
    return f"SELECT w.i, {_features(features)} FROM ({rows}) AS r JOIN {wanted} AS w ON r.{quote(ROW_ID)} = w.id"


def ordered_sql(rows: str, features: Sequence[str], wanted: str = "wanted") -> str:
    """Write the query that reads the features of each id in `wanted`, as f0, f1, ..., in the order of its column i; null for a null id."""
    return f"""
        SELECT {_features(features)} FROM {wanted} AS w LEFT JOIN ({rows}) AS r ON r.{quote(ROW_ID)} = w.id ORDER BY w.i
    """


def share_sql(keys: int, number: int | None, count: int) -> str:
    """Write the SQL condition, on k0, k1, ..., that an entity is in a partition; or if `number` is None, its partition.

    Args:
        keys: How many keys there are.
        number: The partition, from 0 on.
        count: How many partitions there are.
    """
    share = f"hash({comma(f'k{i}' for i in range(keys))}) % {literal(count)}"
    return share if number is None else "true" if count == 1 else f"{share} = {literal(number)}"


def latest_sql(schema: Schema, rows: str, future_after: int | None, views: Container[str]) -> str:
    """Write the query that reads the latest row of each entity; see `Engine.latest`.

    Winners are found from keys and times only, and then read with their features by row number.

    For example, with `future_after` 20, all rows of one entity:

        event time   created   group in the window   result
        10           1         null                  loses to the row at 20
        20           1         null                  wins as of 20
        30           1         30                    loses: the lesser created time
        30           2         30                    wins among the rows at 30

    Without `future_after` all rows of an entity are one group, and only the last row wins.

    Args:
        schema: The group's schema.
        rows: Query that reads the group's rows.
        future_after: Of rows after this instant, in microseconds since 1970, each event time has a winner; None: they count like
            all others.
        views: The views that narrow down the rows: `entities` holds the keys to read, `low` the least key to read, inclusive,
            `high` an exclusive upper bound.
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
    # `best` selects its few columns in a subquery, so that features do not pass through the window's sort.
    return f"""
        WITH seen AS (SELECT * FROM ({rows}) {narrow} WHERE {where}),
             best AS (
                SELECT {row_id} FROM (SELECT {comma([keys, time, *created, row_id])} FROM seen) WHERE {known}
                QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY {order}) = 1
             )
        SELECT {comma(map(quote, schema.names))} FROM seen SEMI JOIN best USING ({row_id}) ORDER BY {keys}, {time}
    """


def event_times_sql(schema: Schema, rows: str, at: int) -> str:
    """Write the query for the greatest event time at or before an instant, and the least after it; see `Engine.event_times`."""
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in schema.key_names)
    times = f"SELECT epoch_us({quote(schema.event_time.name)}) AS t FROM ({rows}) WHERE {known}"
    return f"SELECT max(t) FILTER (t <= {literal(at)}), min(t) FILTER (t > {literal(at)}) FROM ({times})"


def _features(names: Sequence[str]) -> str:
    return comma(f"r.{quote(name)} AS f{i}" for i, name in enumerate(names))
