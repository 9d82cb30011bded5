"""Rules 12 to 14: keys keep their type, values come back as written, names are data."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from seeknal import (
    DataError,
    DefinitionError,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    HistoricalFeaturesDuckDB,
    SeeknalWarning,
)

from .world import HOUR, NOON, group, history, look, rows, snapshots, write, written

ON_BOTH = True  # see `pytest_generate_tests`

US = pa.timestamp("us")


# Keys


def keyed(*keys, kind=None, name="spend"):
    frame = pa.table({"user_id": pa.array(keys, kind), "at": [NOON] * len(keys), "x": list(range(len(keys)))})
    return written(frame, name=name)


def found(fg, *keys, kind=None):
    spine = pa.table({"user_id": pa.array(keys, kind), "at": [NOON] * len(keys)})
    return look(fg, spine)["x"].to_pylist()


def served(fg, *keys):
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    return [row["x"] for row in online.get_features([{"user_id": key} for key in keys], "dicts")]


@pytest.mark.parametrize(("stored", "asked"), [(1, "1"), ("1", 1), (1, True), (True, 1), (1, Decimal(1)), (1, 1.0)])
def test_a_key_of_another_kind_is_an_error_and_no_empty_answer(stored, asked):
    fg = keyed(stored)
    with pytest.raises(DataError, match="user_id"):
        found(fg, asked)
    with pytest.raises(DataError, match="user_id"):
        served(fg, asked)


def test_large_whole_numbers_are_told_apart():
    fg = keyed(2**53, 2**53 + 1)
    assert found(fg, 2**53 + 1, 2**53, 2**53 + 2) == [1, 0, None]
    assert served(fg, 2**53 + 1, 2**53, 2**53 + 2) == [1, 0, None]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint8(), pa.uint64()])
def test_whole_numbers_of_any_width_find_each_other(kind):
    assert found(keyed(1, 2), 2, 3, kind=kind) == [1, None]
    narrow = keyed(1, 2, kind=kind, name="other")
    assert found(narrow, 2, 2**40) == [1, None]
    assert served(narrow, 2, 2**40) == [1, None]


def test_the_largest_unsigned_number_is_a_key():
    fg = keyed(2**64 - 1, 2**63, kind=pa.uint64())
    assert found(fg, 2**63, 2**64 - 1, kind=pa.uint64()) == [1, 0]
    assert found(fg, -1, 2**63 - 1, kind=pa.int64()) == [None, None]
    assert served(fg, 2**64 - 1, 2**63, 0) == [0, 1, None]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.list_(pa.int64())])
def test_a_key_that_cannot_be_compared_exactly_is_refused(kind):
    fg = group()
    keys = pa.array([[1]] if pa.types.is_list(kind) else [1.0], kind)
    with pytest.raises(DataError, match="user_id"):
        write(fg, pa.table({"user_id": keys, "at": [NOON], "x": [1]}))
    assert snapshots(fg) == -1


def test_a_spine_of_whole_numbers_that_pandas_made_floats_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="Int64"):
        look(keyed(1), pd.DataFrame({"user_id": [1, None], "at": [NOON, NOON]}))


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_a_null_key_never_matches_and_keeps_its_row():
    fg = keyed(1, None, kind=pa.int64())
    assert found(fg, None, 1, None, kind=pa.int64()) == [None, 0, None]
    assert found(fg, None, None) == [None, None]
    assert served(fg, None, 1) == [None, 0]


def test_composite_keys_are_compared_part_by_part():
    frame = pa.table({"a": ["1", "12", "1"], "b": ["23", "3", "2|3"], "at": [NOON] * 3, "x": [0, 1, 2]})
    fg = written(frame, keys=["a", "b"])
    asked = [("12", "3"), ("1", "23"), ("123", ""), ("1", "2|3"), ("1", None), (None, "3")]
    spine = pa.table({"a": [a for a, _ in asked], "b": [b for _, b in asked], "at": [NOON] * 6})
    assert look(fg, spine)["x"].to_pylist() == [1, 0, None, 2, None, None]
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    answers = online.get_features([{"b": b, "a": a} for a, b in asked], "dicts")
    assert [row["x"] for row in answers] == [1, 0, None, 2, None, None]


KEYS = [
    ("", " ", "a", "A", "é", "e\u0301", "NaN", "None", "null", "a\x00b", "'", "x" * 2000),
    (b"", b"\x00", b"\xff", b"a"),
    (date(1, 1, 1), date(2024, 1, 1)),
    (Decimal("1.10"), Decimal("-0.01")),
    (datetime(2024, 1, 1, microsecond=1), datetime(1969, 12, 31)),
    (datetime(2024, 1, 1, microsecond=1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)),
    (True, False),
    (-1, 0, -(2**63), 2**63 - 1),
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: type(keys[0]).__name__)
def test_keys_of_every_kind_find_exactly_their_own_row(keys):
    fg = keyed(*keys)
    expected = list(range(len(keys)))
    assert found(fg, *keys, *keys[::-1]) == expected + expected[::-1]
    assert served(fg, *keys, *keys[::-1]) == expected + expected[::-1]
    rows_of = history(fg).select(["user_id", "x"]).to_pydict()
    assert dict(zip(rows_of["user_id"], rows_of["x"], strict=True)) == dict(zip(keys, expected, strict=True))


@pytest.mark.parametrize("stored", ["s", "ms", "us", "ns"])
def test_keys_that_are_times_are_compared_as_instants_whatever_their_unit(stored):
    moments = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    fg = keyed(*moments, kind=pa.timestamp(stored))
    units = ["s", "ms", "us", "ns"]
    answers = {asked: found(fg, moments[1], datetime(2025, 1, 1), kind=pa.timestamp(asked)) for asked in units}
    assert answers == {asked: [1, None] for asked in units}


def test_a_finer_time_is_another_key():
    fg = keyed(datetime(2024, 1, 1), kind=US)
    finer = pa.array([pd.Timestamp("2024-01-01").value + 1]).cast(pa.timestamp("ns"))
    assert look(fg, pa.table({"user_id": finer, "at": [NOON]}))["x"].to_pylist() == [None]


def test_categories_are_keys_like_their_text():
    spine = pd.DataFrame({"user_id": pd.Categorical(["b", "a", None]), "at": [NOON] * 3})
    fg = keyed("a", "b")
    assert look(fg, spine)["x"].tolist()[:2] == [1, 0]
    frame = pd.DataFrame({"user_id": pd.Categorical(["a", "b"]), "at": [NOON] * 2, "x": [0, 1]})
    assert found(written(frame, name="other"), "b", "c") == [1, None]


def test_decimals_of_another_scale_are_the_same_key():
    fg = keyed(Decimal("1.10"), Decimal("2.00"), kind=pa.decimal128(10, 2))
    asked = [Decimal(2), Decimal("1.1000"), Decimal("1.1001")]
    assert found(fg, *asked, kind=pa.decimal128(38, 4)) == [1, 0, None]
    assert served(fg, Decimal(2), Decimal("1.1"), Decimal("1.11")) == [1, 0, None]


@pytest.mark.parametrize("digits", [20, 30, 38])
def test_the_longest_decimals_are_keys(digits):
    largest = Decimal(10**digits - 1)
    fg = keyed(largest, largest.copy_negate(), Decimal(5), kind=pa.decimal128(digits))
    asked = [largest.copy_negate(), Decimal(5), largest, None]
    assert found(fg, *asked, kind=pa.decimal128(digits)) == [1, 2, 0, None]
    assert found(fg, *asked, kind=pa.decimal128(38)) == [1, 2, 0, None]
    assert found(fg, Decimal(5), Decimal("5.01"), kind=pa.decimal128(10, 2)) == [2, None]
    assert found(fg, Decimal(10**37), Decimal(-(10**36)), kind=pa.decimal128(38)) == [None, None]


def test_a_binary_key_of_another_length_is_no_key_of_the_group():
    fg = keyed(b"ab", b"cd", kind=pa.binary(2))
    assert found(fg, b"cd", b"c", b"abc", kind=pa.binary()) == [1, None, None]
    assert found(fg, b"abc", kind=pa.binary(3)) == [None]


def test_a_moment_too_far_for_microseconds_is_no_key_of_the_group():
    fg = keyed(datetime(2024, 1, 1), kind=pa.timestamp("s"))
    assert found(fg, datetime(2024, 1, 1), None, kind=pa.timestamp("s")) == [0, None]
    assert found(fg, 2**60, kind=pa.timestamp("s")) == [None]


def test_a_date_with_an_hour_is_no_key_of_a_group_of_dates():
    fg = keyed(date(2024, 1, 1), date(2024, 1, 2), kind=pa.date32())
    day = 24 * 60 * 60 * 1000
    spine = pa.table({"user_id": pa.array([19724 * day, 19724 * day + 1, None]).cast(pa.date64()), "at": [NOON] * 3})
    assert look(fg, spine)["x"].to_pylist() == [1, None, None]


def test_few_moments_beside_many_rows_are_answered_alike():
    users = [str(i % 500) for i in range(5000)]
    frame = pa.table({"user_id": users, "at": [NOON] * 5000, "x": list(range(5000))})
    with pytest.warns(SeeknalWarning, match="with the same join keys and event time"):
        fg = written(frame)
    assert found(fg, "7", None, "nobody", kind=pa.string()) == [4507, None, None]


# Values

NOON_IN_JAKARTA = pa.array([NOON, None], US).cast(pa.timestamp("us", tz="Asia/Jakarta"))
POINT = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
EMBEDDING = pa.list_(pa.float32(), 3)
MOMENTS = pa.struct([("when", pa.timestamp("ns")), ("what", pa.uint64())])
COLUMNS = {
    "int64 with nulls": pa.array([2**53 + 1, None, -(2**63), 2**63 - 1]),
    "int8": pa.array([-128, None, 127], pa.int8()),
    "uint8": pa.array([0, None, 255], pa.uint8()),
    "uint16": pa.array([0, None, 2**16 - 1], pa.uint16()),
    "uint32": pa.array([0, None, 2**32 - 1], pa.uint32()),
    "uint64": pa.array([0, None, 2**63, 2**64 - 1], pa.uint64()),
    "float64": pa.array([nan, None, inf, -inf, -0.0, 5e-324, 0.1]),
    "float32": pa.array([nan, None, 0.1, -0.0], pa.float32()),
    "float16": pa.array([np.float16(0.1), None, np.float16(nan)], pa.float16()),
    "bool": pa.array([True, None, False]),
    "text": pa.array(["NaN", "None", "", None, "null", "é\x00\U0001f600", "1", "a\nb"]),
    "large text": pa.array(["x" * 100_000, None], pa.large_string()),
    "bytes": pa.array([b"", None, b"\x00\xff"]),
    "fixed bytes": pa.array([b"ab", None], pa.binary(2)),
    "date": pa.array([date(1, 1, 1), None, date(9999, 12, 31)]),
    "timestamp s": pa.array([NOON, None], pa.timestamp("s")),
    "timestamp ms": pa.array([NOON, None], pa.timestamp("ms")),
    "timestamp us": pa.array([datetime(1, 1, 1), None, datetime(9999, 12, 31, 23, 59, 59, 999999)], US),
    "timestamp ns": pa.array([1, None, -1, 2**62]).cast(pa.timestamp("ns")),
    "timestamp with zone": NOON_IN_JAKARTA,
    "timestamp ns with zone": pa.array([1, None]).cast(pa.timestamp("ns", tz="America/New_York")),
    "time": pa.array([time(23, 59, 59, 999999), None]),
    "time ns": pa.array([1, None, 86_399_999_999_999]).cast(pa.time64("ns")),
    "time s": pa.array([time(1, 2, 3), None], pa.time32("s")),
    "duration": pa.array([timedelta(microseconds=-1), None], pa.duration("us")),
    "decimal": pa.array([Decimal("1.10"), None, Decimal("-99999999.99")], pa.decimal128(10, 2)),
    "long decimal": pa.array([Decimal(10) ** 37, None, Decimal(-1)], pa.decimal128(38, 0)),
    "small decimal": pa.array([Decimal("1E-30"), None, Decimal("0E-30")], pa.decimal128(38, 30)),
    "list": pa.array([[], None, [None], [1, None, 2**53 + 1]], pa.list_(pa.int64())),
    "list of text": pa.array([["", None, "NaN"], None, []], pa.list_(pa.string())),
    "list of lists": pa.array([[[]], [None, [1]], None, []], pa.list_(pa.list_(pa.int64()))),
    "struct": pa.array([{"a": 1, "b": []}, None, {"a": None, "b": None}, {"a": 2**60, "b": [None, ""]}], POINT),
    "struct of times": pa.array([{"when": None, "what": 2**64 - 1}, None, {"when": 1, "what": None}], MOMENTS),
    "list of structs": pa.array([[{"a": 1, "b": None}, None], None, []], pa.list_(POINT)),
    "list of structs of times": pa.array([[{"when": 1, "what": 2}, None], None, []], pa.list_(MOMENTS)),
    "list of times": pa.array([[NOON, None], None, []], pa.list_(pa.timestamp("us", tz="UTC"))),
    "list of decimals": pa.array([[Decimal("1.10"), None], None, []], pa.list_(pa.decimal128(10, 2))),
    "embedding": pa.array([[1.5, 0.1, nan], None, [0.0, None, 1.0]], EMBEDDING),
    "embedding without nulls": pa.array([[1.5, 0.1, 2.0], [0.0, 3.0, 1.0]], EMBEDDING),
    "struct with embedding": pa.array([{"e": [1, 2, 3]}, None, {"e": None}], pa.struct([("e", EMBEDDING)])),
    "list of nulls": pa.array([[None, None], [None], None, []], pa.list_(pa.null())),
    "list of lists of nulls": pa.array([[[None, None], []], None, [None]], pa.list_(pa.list_(pa.null()))),
    "embedding of nulls": pa.FixedSizeListArray.from_arrays(pa.nulls(4), 2, mask=pa.array([False, True])),
    "struct with nulls": pa.array(
        [{"l": [None, None], "n": None}, None], pa.struct([("l", pa.list_(pa.null())), ("n", pa.null())])
    ),
    "dates in a struct": pa.array([{"d": date(2024, 1, 1)}, None], pa.struct([("d", pa.date32())])),
}


def exactly(values) -> list[str]:
    """Write values so that NaN, null, -0.0 and 0.0, 1 and 1.0 and True all differ."""
    return [repr(value) for value in values]


def values_of(column) -> list[str]:
    column = column.combine_chunks()
    whole = column.cast(pa.int64()) if pa.types.is_temporal(column.type) and "ns" in str(column.type) else column
    return exactly(whole.to_pylist())


def as_given(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) else kind


def wide(columns=COLUMNS) -> pa.Table:
    """All columns side by side, each filled up with nulls, one row per user."""
    count = max(map(len, columns.values()))
    filled = {
        name: pa.concat_arrays([column, pa.nulls(count - len(column), column.type)]) for name, column in columns.items()
    }
    return pa.table({"user_id": list(range(count)), "at": pa.array([NOON] * count, US), **filled})


def differing(answer: pa.Table, asked: pa.Table) -> dict[str, object]:
    """Return the columns that came back with other values or another type."""
    names = [name for name in asked.column_names if name in COLUMNS]
    kinds = {name: answer[name].type for name in names if answer[name].type != as_given(asked[name].type)}
    values = {name: values_of(answer[name]) for name in names if values_of(answer[name]) != values_of(asked[name])}
    return kinds | values


def test_values_come_back_exactly_for_a_spine():
    frame = wide()
    assert differing(look(written(frame), frame.select(["user_id", "at"])), frame) == {}


def test_values_come_back_exactly_in_the_history_and_as_the_latest():
    frame = wide()
    fg = written(frame)
    assert differing(history(fg), frame) == {}
    latest = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_latest().to_dataframe(output="arrow")
    assert differing(latest, frame) == {}


@pytest.mark.parametrize("first", range(0, len(COLUMNS), 6))
def test_values_come_back_exactly_from_narrow_groups(first):
    """A query of a few columns is planned in another way than one of many."""
    frame = wide({name: COLUMNS[name] for name in list(COLUMNS)[first : first + 6]})
    fg = written(frame)
    assert differing(history(fg), frame) == {}
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    assert differing(online.get_features(frame.select(["user_id"]), "arrow"), frame) == {}


def test_values_come_back_exactly_online():
    frame = wide()
    online = HistoricalFeaturesDuckDB([FeatureLookup(written(frame))]).serve()
    assert differing(online.get_features(frame.select(["user_id"]), "arrow"), frame) == {}
    unknown = online.get_features([{"user_id": 999}], "arrow")
    assert set(map(str, unknown.drop(["user_id"]).to_pylist()[0].values())) == {"None"}


def test_values_come_back_exactly_after_later_writes_have_moved_them_to_new_files():
    frame = wide()
    fg = written(frame)
    later = frame.slice(0, 1).set_column(1, "at", pa.array([NOON + HOUR], US))
    write(fg, later, NOON + HOUR, NOON + HOUR)
    write(fg, later, mode="merge")
    assert differing(look(fg, frame.select(["user_id", "at"])), frame) == {}
    with pytest.warns(match="version 2"):
        write(fg, later.append_column("y", pa.array([1])), mode="append")
    assert differing(look(fg, frame.select(["user_id", "at"])), frame) == {}


def test_columns_of_nothing_but_nulls_fit_every_type_that_is_known():
    frame = wide()
    fg = written(frame)
    nulls = {name: pa.nulls(1) for name in COLUMNS}
    later = pa.table({"user_id": [0], "at": pa.array([NOON + HOUR], US), **nulls})
    assert write(fg, later, mode="append").version == 1
    assert differing(look(fg, frame.select(["user_id", "at"])), frame) == {}
    empty = look(fg, later.select(["user_id", "at"])).drop(["user_id", "at"]).to_pylist()[0]
    assert set(map(str, empty.values())) == {"None"}


def test_minus_zero_keeps_its_sign_in_a_training_set_and_online():
    fg = written(rows(-0.0, 0.0, y=[0.0, -0.0]))
    assert exactly(look(fg, pa.table({"user_id": [1], "at": [NOON]}))["x"].to_pylist()) == ["-0.0"]
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve().get_features([{"user_id": 1}], "dicts")
    assert exactly(online[0].values()) == ["1", "0.0", "-0.0"]
    assert history(fg)["x"].to_pylist() == [0.0, 0.0]  # DuckDB's arg_max gives the sign up there


def test_pandas_shows_whole_numbers_with_nulls_as_whole_numbers():
    fg = written(rows(2**53 + 1, None))
    result = look(fg, pd.DataFrame({"user_id": [1, 1], "at": [NOON, NOON + HOUR]}))["x"]
    assert result.dtype == "Int64"
    assert result[0] == 2**53 + 1
    assert result[1] is pd.NA


def test_nan_and_null_are_told_apart_in_polars():
    fg = written(rows(nan, None))
    result = look(fg, pl.DataFrame({"user_id": [1, 1], "at": [NOON, NOON + HOUR]}))["x"]
    assert result.is_nan().to_list() == [True, None]


def test_a_type_that_cannot_be_kept_is_refused_with_the_columns_name():
    fg = group()
    with pytest.raises(DataError, match="'x'"):
        write(fg, rows(1).set_column(2, "x", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))))
    with pytest.raises(DataError, match="'x'"):
        write(fg, pd.DataFrame({"user_id": [1, 1], "at": [NOON, NOON], "x": [1, "a"]}))
    assert snapshots(fg) == -1


def test_a_feature_of_nothing_but_nulls_needs_a_declared_type():
    fg = group()
    with pytest.raises(DataError, match="declare the types"):
        write(fg, rows(None))
    fg.set_dataframe(rows(None)).set_features({"x": "float64"}).write()
    assert history(fg).schema.field("x").type == pa.float64()


# Names

NAMES = [
    *(
        "rn",
        "t",
        "i",
        "k0",
        "k1",
        "f0",
        "f1",
        "s",
        "r",
        "n",
        "m",
        "c0",
        "place",
        "spine",
        "rows",
        "new_rows",
        "kept_rows",
    ),
    *("select", "from", "order", "group", "table", "case", "end", "null", "true", "row", "date", "timestamp", "time"),
    *("filename", "file_row_number", "file_index", "rowid", "row_number", "min", "max", "count", "epoch_us", "index"),
    *('the "best" one', "it's", "a b", "a.b", "a,b", "a;b", "a=b", "(a)", "{a}", "[a]", "a/b", "a\\b", "%s", "$1", "?"),
    *(
        " ",
        "\t",
        "\n",
        "é",
        "名前",
        "🙂",
        "--",
        "/*",
        "1",
        "-",
        "*",
        "a:b",
        "`a`",
        "x" * 200,
        "_seeknal",
        "__index_level_0__",
    ),
]


def test_features_can_have_any_names():
    names = ["user_id", "at", *NAMES]
    frame = pa.table([[1, 1], [NOON, NOON + HOUR], *([i, i + 1] for i in range(len(NAMES)))], names=names)
    fg = written(frame)
    write(fg, frame.slice(0, 1), NOON, NOON)
    write(fg, frame.slice(0, 1), mode="merge")
    expected = frame.drop(["user_id", "at"]).to_pylist()
    assert look(fg, frame.select(["user_id", "at"])).drop(["user_id", "at"]).to_pylist() == expected
    assert history(fg).to_pylist() == frame.to_pylist()
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    assert online.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1} | expected[1]]
    with pytest.warns(match="version 2"):
        write(fg, frame.slice(0, 1).append_column("another", pa.array([1])), NOON, NOON)
    assert look(fg, frame.select(["user_id", "at"])).select(NAMES).to_pylist() == expected


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_keys_can_have_any_names():
    frame = pa.table([[i, i] for i in range(len(NAMES))], names=NAMES)
    frame = frame.append_column("!at", pa.array([NOON, NOON + HOUR])).append_column("!x", pa.array([1, 2]))
    fg = written(frame, keys=NAMES, event_time_col="!at")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    result = hist.using_spine(frame.drop(["!x"]), "!at").to_dataframe()
    assert result["!x"].to_pylist() == [1, 2]
    assert history(fg).to_pylist() == frame.to_pylist()
    key = dict(zip(NAMES, range(len(NAMES)), strict=True))
    assert hist.serve().get_features([key, key | {"t": 9}], "dicts") == [key | {"!x": 2}, key | {"t": 9, "!x": None}]


@pytest.mark.parametrize("name", ["t", "place", "select", 'the "best" one', "a.b"])
def test_times_can_have_any_name(name):
    fg = group(event_time_col=name, created_time_col=f"{name}!")
    names = ["user_id", name, f"{name}!", "x"]
    frame = pa.table([[1, 1, 1], [NOON, NOON + HOUR, NOON], [NOON] * 3, [1, 2, 3]], names=names)
    write(fg, frame)
    write(fg, frame.slice(2, 1), NOON, NOON)
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    result = hist.using_spine(pa.table([[1, 1], [NOON, NOON + HOUR]], names=["user_id", name]), name).to_dataframe()
    assert result["x"].to_pylist() == [3, 2]
    assert history(fg).column_names == ["user_id", name, "x"]
    assert hist.using_latest().to_dataframe()["x"].tolist() == [2]
    assert hist.serve().get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 2}]


WRONG = ["", "1a", "_a", "-a", "a b", "a/b", "a.b", "é", "../a", "a\n", "a" * 129, "a;b", None, 3]


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@pytest.mark.parametrize("name", WRONG, ids=ascii)
def test_names_of_groups_entities_projects_and_tables_follow_one_rule(name):
    entity = Entity("user", ["user_id"])
    with pytest.raises(DefinitionError, match="letter"):
        Entity(name, ["user_id"])
    with pytest.raises(DefinitionError, match="letter"):
        FeatureGroupDuckDB(name, entity)
    with pytest.raises(DefinitionError, match="letter"):
        FeatureGroupDuckDB("spend", entity, project=name)


def test_a_table_needs_a_name_by_the_rule():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    with pytest.raises(DefinitionError, match="letter"):
        hist.serve(name="a b")


def test_the_longest_names_work_throughout():
    name, project = "g" * 128, "p" * 128
    fg = written(rows(1), name="g" * 100)
    assert fg.version == 1
    longest = group()
    longest.name, longest.project = name, project
    write(longest, rows(5))
    online = HistoricalFeaturesDuckDB([FeatureLookup(longest)]).serve(name="t" * 128)
    assert online.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 5}]


def test_names_that_differ_in_case_only_are_refused_in_one_group():
    fg = group()
    with pytest.raises(DataError, match=r"'x'.*'X'"):
        write(fg, rows(1, X=[2]))
    assert snapshots(fg) == -1


def test_groups_whose_names_look_alike_are_apart():
    names = ["a-b", "a_b", "ab"]
    groups = [written(rows(i), name=name) for i, name in enumerate(names)]
    spine = pa.table({"user_id": [1], "at": [NOON]})
    assert [look(fg, spine)["x"].to_pylist() for fg in groups] == [[0], [1], [2]]
