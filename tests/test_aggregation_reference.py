"""The reference of aggregations is correct: every cell of its tables is computed."""

import ast
import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

import seeknal
from seeknal import DefinitionError, Entity, EventSource, FeatureLookup, HistoricalFeaturesDuckDB, WindowedGroup
from seeknal.define.aggregations import Aggregation

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "aggregations.md"
DAY, HOUR = datetime(2024, 5, 1), timedelta(hours=1)
MOMENT = DAY + 6 * HOUR
VALUES = [6.0, 1.0, 1.0, 1.0, 1.0]
KINDS = {
    "bool": [pa.array([True])],
    "integers": [pa.array([1], f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)],
    "decimals of scale s": [pa.array([Decimal("1.50")], pa.decimal128(width, 2)) for width in (5, 38)],
    "floats": [pa.array([1.5], f"float{bits}") for bits in (16, 32, 64)],
    "text, bytes, times": [
        *(pa.array(["a"]), pa.array([b"a"]), pa.array([date(2024, 5, 1)]), pa.array([time(1)]), pa.array([HOUR])),
        *(pa.array([DAY], pa.timestamp("us", zone)) for zone in (None, "UTC")),
    ],
    "lists, structs": [pa.array([[1]]), pa.array([{"a": 1}])],
}
FILLS = {"a number": [2.5, 2], "a value": [2.5, 2, "none", date(2024, 5, 1)], "`[]`": [[]], "no": []}
_names = count()


def tables() -> Iterator[dict[str, dict[str, str]]]:
    """Read the tables of the page: the cells of each row by their headings, by the first cell."""
    for lines in PAGE.read_text(encoding="utf-8").split("\n\n"):
        if lines.startswith("|"):
            heading, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines.splitlines())
            yield {code(first): dict(zip(heading[1:], rest, strict=True)) for first, *rest in rows}


def code(cell: str) -> str:
    return cell.strip("`")


RESULTS, TYPES, ARGUMENTS, SHARED = tables()
EXPORTED = {
    name: kind
    for name in seeknal.__all__
    if isinstance(kind := getattr(seeknal, name), type) and issubclass(kind, Aggregation)
}


def made(call: str) -> Aggregation:
    """Return the aggregation that a cell calls."""
    node = ast.parse(call, mode="eval").body
    named = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
    return EXPORTED[node.func.id](*map(ast.literal_eval, node.args), **named)


CALLS = {call: made(call) for call in RESULTS}
OF_A_KIND = {one.name: one for one in CALLS.values()}


def same(found: object, cell: str) -> bool:
    """Compare a result with a cell; 1 and 1.0 are not the same, NaN and NaN are."""
    return repr(found) == repr(json.loads(code(cell)))


def events() -> pa.Table:
    """The events of the page, each kind of window with a customer of its own."""
    plain = [(hour, value, "ab"[i % 2]) for i, (hour, value) in enumerate(zip(range(1, 6), VALUES, strict=True))]
    of = {
        "plain": plain,
        "nulls": [(0, None, "a"), *plain, (3.5, None, "a"), (6, None, "b")],
        "nan": [(0, math.nan, "a"), *plain, (6, math.nan, "b")],
        "only nulls": [(1, None, "a"), (2, None, "b")],
        "beside others": [*((hour, value, "kept") for hour, value, _ in plain), (0, 9.0, "other"), (3, 9.0, None)],
        "after an old one": [(-30, 9.0, "a"), *plain],
        **{f"{n} values": [(i, 2.0**i, "a") for i in range(n)] for n in range(1, 5)},
    }
    rows = [
        {"customer": customer, "at": DAY + hour * HOUR, "x": x, "letter": letter}
        for customer, some in of.items()
        for hour, x, letter in some
    ]
    return pa.Table.from_pylist(
        rows, pa.schema({"customer": "string", "at": pa.timestamp("us"), "x": "float64", "letter": "string"})
    )


def source(frame: pa.Table) -> EventSource:
    made = EventSource(f"events_{next(_names)}", event_time_col="at")
    made.set_dataframe(frame).write()
    return made


def compute(of: EventSource, features: dict[str, Aggregation], *entities: str, at: datetime = MOMENT) -> pa.Table:
    """Return the features of some entities at a moment."""
    group = WindowedGroup(f"windows_{next(_names)}", Entity("customer", ["customer"]), of, features)
    spine = pa.table({"customer": list(entities), "moment": [at] * len(entities)})
    return (
        HistoricalFeaturesDuckDB([FeatureLookup(group)])
        .using_spine(spine, "moment")
        .to_dataframe()
        .select([one.name for one in group.windows])
    )


def results(features: dict[str, Aggregation], *entities: str, at: datetime = MOMENT) -> dict[str, dict[str, object]]:
    """Return the results of some aggregations: by entity, then by feature."""
    return dict(zip(entities, compute(source(events()), features, *entities, at=at).to_pylist(), strict=True))


def test_every_aggregation_has_a_row_in_every_table():
    assert {one.name for one in CALLS.values()} == set(EXPORTED)
    assert set(TYPES) == set(EXPORTED)
    assert {call.partition("(")[0] for call in ARGUMENTS} == set(EXPORTED)


def test_every_result_is_that_of_its_cell():
    found = results(CALLS, "plain", "nan", "none at all")
    columns = {"of the values": "plain", "with NaN": "nan", "empty window": "none at all"}
    wrong = [
        (call, heading, found[entity][call])
        for call, cells in RESULTS.items()
        for heading, entity in columns.items()
        if not same(found[entity][call], cells[heading])
    ]
    assert wrong == []


def test_nulls_are_skipped_or_counted_as_the_page_says():
    found = results(CALLS, "plain", "nulls", "only nulls", "none at all")
    for call, cells in RESULTS.items():
        are_equal = found["nulls"][call] == found["plain"][call]
        assert cells["nulls"] == ("skipped" if are_equal else "counted"), call
        assert (found["only nulls"][call] == found["none at all"][call]) == are_equal, call


def test_a_result_needs_as_many_values_as_the_page_says():
    entities = ["none at all", *(f"{n} values" for n in range(1, 5))]
    found = results(CALLS, *entities)
    needed = {call: next(n for n, one in enumerate(entities) if found[one][call] is not None) for call in RESULTS}
    assert needed == {call: int(cells["needs"]) for call, cells in RESULTS.items()}


def test_every_aggregation_takes_a_length_a_condition_and_an_offset():
    right = results(CALLS, "plain")["plain"]
    for argument, entity, at in (
        ({"where": "letter = 'kept'"}, "beside others", MOMENT),
        ({"over": "1d"}, "after an old one", MOMENT),
        ({"offset": "1d"}, "plain", MOMENT + timedelta(days=1)),
    ):
        features = {call: replace(one, **argument) for call, one in CALLS.items()}
        assert results(features, entity, at=at)[entity] == right, argument


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_type_of_column_gives_the_type_of_its_cell_or_is_refused(name):
    assert list(TYPES[name]) == ["no column", *KINDS]
    columns = {str(array.type): (array, TYPES[name][heading]) for heading, some in KINDS.items() for array in some}
    frame = {column: array for column, (array, _) in columns.items()}
    of = source(pa.table({"customer": ["ana"], "at": [DAY], **frame}))
    right = {}
    for column, (array, cell) in {None: (None, TYPES[name]["no column"]), **columns}.items():
        if cell == "-":
            with pytest.raises((DefinitionError, TypeError), match="column"):
                compute(of, {"refused": of_column(name, column)}, "ana")
        else:
            right[f"of {column}"] = of_column(name, column), type_of(cell, array)
    found = compute(of, {feature: aggregation for feature, (aggregation, _) in right.items()}, "ana")
    assert dict(zip(found.column_names, found.schema.types, strict=True)) == {
        feature: kind for feature, (_, kind) in right.items()
    }


def of_column(name: str, column: str | None) -> Aggregation:
    one = OF_A_KIND[name]
    return one if column is None and not hasattr(one, "column") else replace(one, column=column)


def type_of(cell: str, column: pa.Array | None) -> pa.DataType:
    """Return the type that a cell names; T is that of the column."""
    text = code(cell)
    if text.startswith("list<"):
        return pa.list_(type_of(text[5:-1], column))
    if text == "{value: T, count: int64}":
        return pa.struct({"value": column.type, "count": pa.int64()})
    if text == "decimal128(38, s)":
        return pa.decimal128(38, column.type.scale)
    return column.type if text == "T" else pa.type_for_alias(text)


@pytest.mark.parametrize("call", ARGUMENTS)
def test_every_aggregation_takes_the_arguments_of_its_row_and_no_others(call):
    name, cells = call.partition("(")[0], ARGUMENTS[call]
    signature = inspect.signature(EXPORTED[name])
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert call == f"{name}({', '.join(str(one.replace(annotation=inspect.Parameter.empty)) for one in own)})"
    one = OF_A_KIND[name]
    assert takes(one, by="letter") == (cells["`by`"] == "yes")
    for given in (2.5, 2, "none", date(2024, 5, 1), []):
        assert takes(one, fill=given) == (given in FILLS[cells["`fill`"]]), given
    for given in FILLS[cells["`fill`"]]:
        column = {"column": "letter"} if given == "none" else {}
        if not isinstance(given, date):
            assert results({"it": replace(one, fill=given, **column)}, "none at all")["none at all"] == {"it": given}


def takes(one: Aggregation, **argument: object) -> bool:
    try:
        replace(one, **argument)
    except DefinitionError:
        return False
    return True


@pytest.mark.parametrize("arguments", SHARED)
def test_the_arguments_of_all_do_what_their_row_says(arguments):
    found = list(results({"it": made(f'Sum("x", {arguments})')}, "plain")["plain"].values())
    assert f"`{'`, `'.join(map(json.dumps, found))}`" == SHARED[arguments]["result"]
