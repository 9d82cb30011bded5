"""Conditions of aggregations: SQL that a user wrote, which is parsed and checked before it becomes part of a query.

A condition may name the event's columns, and functions whose result depends on nothing but their arguments. It is stored, and evaluated
again years later and online, so the clock, random numbers, settings, files and other tables have no place in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from seeknal.define.schema import Schema
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean
from seeknal.system.duck import explained
from seeknal.values.sql import comma, quote

_ALLOWED = {
    *("COMPARISON", "CONJUNCTION", "OPERATOR", "CONSTANT", "COLUMN_REF", "FUNCTION", "BETWEEN", "CASE", "CAST", "TYPE")
}
"""The classes of expressions that a condition may have. Others are subqueries, windows, parameters, stars and lambdas."""
_MACROS = {"nullif", "ifnull", "if"}
"""Functions that DuckDB writes as others, which are allowed."""
_OF_TIMES = {
    *("+", "-", "year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond"),
    *(
        "dayofmonth",
        "dayofweek",
        "isodow",
        "dayofyear",
        "weekday",
        "weekofyear",
        "isoyear",
        "yearweek",
        "era",
        "century",
        "decade",
    ),
    *(
        "date_part",
        "datepart",
        "date_trunc",
        "datetrunc",
        "date_diff",
        "datediff",
        "date_sub",
        "datesub",
        "time_bucket",
        "last_day",
    ),
    *("dayname", "monthname", "strftime", "timezone", "make_timestamptz", "julian"),
}
"""Functions that DuckDB takes to depend on its settings, but which depend on the time zone alone, and that is always UTC."""


def condition_sql(condition: str) -> str:
    """Return a condition as part of a query: true, or else false or null. `check_conditions` has parsed it in these parentheses."""
    return f"((\n{condition}\n) IS TRUE)"


def check_conditions(cursor: duckdb.DuckDBPyConnection, schema: Schema, conditions: Mapping[str, str]) -> None:
    """Check conditions against the columns of their events.

    Args:
        cursor: A cursor of the engine's DuckDB.
        schema: The schema of the source.
        conditions: The conditions, with the name of a feature that has each.

    Raises:
        DefinitionError: One is no condition on the columns of an event; the message names the feature.
    """
    for condition, feature in conditions.items():
        if problem := _problem(cursor, schema, condition):
            raise DefinitionError(f"where={condition!r} of feature {feature!r} {problem}", feature=feature)


def evaluate(
    cursor: duckdb.DuckDBPyConnection, schema: Schema, rows: pa.Table, conditions: Sequence[str]
) -> list[pa.ChunkedArray]:
    """Return for each condition whether it is true for each event; see `Engine.conditions`."""
    cursor.register("events", rows.select(schema.names))
    masks = comma(f"{condition_sql(text)} AS m{i}" for i, text in enumerate(conditions))
    try:
        return list(cursor.sql(f"SELECT {masks} FROM events").to_arrow_table().columns)
    except duckdb.Error as error:
        raise DataError(f"A condition could not be evaluated for every event: {explained(error)}") from None


def _problem(cursor: duckdb.DuckDBPyConnection, schema: Schema, condition: str) -> str | None:
    # By itself too, or "x = 1) OR (y = 2" would pass, whose parentheses close ours.
    for text in (f"SELECT\n{condition}", f"SELECT {condition_sql(condition)}"):
        found = cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
        parsed = json.loads(found[0][0])
        if parsed.get("error"):
            hint = (
                ""
                if '"' in condition
                else ' A column whose name is a word of SQL, such as at or order, needs double quotes: "at".'
            )
            return f"is not a condition in SQL: {parsed.get('error_message')}.{hint}"
    nodes = list(_nodes(parsed["statements"][0]["node"]["select_list"]))
    if len(parsed["statements"]) != 1 or parsed["statements"][0]["node"]["from_table"]["type"] != "EMPTY":
        return "is more than one condition. Join conditions by AND."
    if odd := [node["class"] for node in nodes if node["class"] not in _ALLOWED]:
        return f"has a {odd[0].lower()}. A condition is about one event: it compares columns, constants and functions of them."
    known = {name.lower() for name in schema.names}
    for node in nodes:
        if node["class"] == "COLUMN_REF" and node["column_names"][0].lower() not in known:
            name = node["column_names"][0]
            quotes = " Text takes single quotes." if f'"{name}"' in condition else ""
            return f"names {name!r}, which is not a column of the events.{quotes}{did_you_mean(name, schema.names)}"
        if node["class"] == "FUNCTION" and not (node["arguments"] and _is_stable(cursor, node["function_name"])):
            return f"calls {node['function_name']}, whose result does not depend on the event alone. Leave it out."
    return _misfit(cursor, schema, condition)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all expressions of a parsed query."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)


def _is_stable(cursor: duckdb.DuckDBPyConnection, name: str) -> bool:
    if name.lower() in _MACROS:
        return True
    query = "SELECT DISTINCT stability FROM duckdb_functions() WHERE function_name = ? AND function_type = 'scalar'"
    found = {row[0] for row in cursor.execute(query, [name.lower()]).fetchall()}
    return bool(found) and (name.lower() in _OF_TIMES or found == {"CONSISTENT"})


def _misfit(cursor: duckdb.DuckDBPyConnection, schema: Schema, condition: str) -> str | None:
    """Return what is wrong with the types of a condition; None if it can be evaluated."""
    # A row of nulls, because a constant of a wrong type is an error only where there is something to compare it with.
    columns = [pa.nulls(1, kind) for kind in schema.stored_types]
    cursor.register("events", pa.Table.from_arrays(columns, names=schema.names))
    query = f"SELECT (\n{condition}\n) AS found FROM (SELECT {comma(map(quote, schema.names))} FROM events)"
    try:
        kind = cursor.sql(query).to_arrow_table().schema.types[0]
    except duckdb.Error as error:
        return f"does not fit the events: {str(error).splitlines()[0]}."
    if pa.types.is_boolean(kind):
        return None
    return f"is {kind}, not true or false. Compare it: {condition} > 0, for example."
