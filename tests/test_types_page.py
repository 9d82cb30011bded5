"""The page of types is correct: every cell of its tables is tested."""

import re
from datetime import date
from decimal import Decimal
from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.schema import ArrayType, PrimitiveType, StructType

from contract.world import NOON, group, look, snapshots, write, written
from seeknal import DataError, DefinitionError, FeatureLookup, FillNull, HistoricalFeaturesDuckDB
from seeknal.values.content_hash import content_hash

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "types.md"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
FIRST, LAST, DAY, MOST = -62_135_596_800, 253_402_300_800, 86_400, 2**63 - 1
LONGEST = 999_999_999 * DAY  # of Python's timedelta
TEXTS, BYTES, WHOLES = ["NaN", "é\x00\U0001f600", ""], [b"\x00\xff", b"ab"], [[1, 2**53 + 1], [], [None]]
PROFILE = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])


def table(heading: str) -> dict[str, list[str]]:
    """Read the table under a heading: its rows by their first cell, without the marks of code."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {first.replace("`", ""): rest for first, *rest in cells}


KEPT, REFUSED = table("What is kept"), table("Types that are rejected")


def moments(unit, zone=None):
    """Return the first and the last moment of a type, within Python's years."""
    per, inside = PER_SECOND[unit], DAY if zone else 0
    interval = max((FIRST + inside) * per, -MOST + inside * per), min((LAST - inside) * per - 1, MOST - inside * per)
    return pa.array([*interval, 1], pa.int64()).cast(pa.timestamp(unit, zone))


def spans(unit):
    longest = min(LONGEST * PER_SECOND[unit], MOST)
    return pa.array([-longest, longest, 1], pa.int64()).cast(pa.duration(unit))


def times(kind):
    last = DAY * PER_SECOND[kind.unit] - 1
    return pa.array([0, last], pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind)


def of(kind, *values):
    return pa.array(values, kind)


COLUMNS: dict[str, pa.Array] = {
    **{f"int{n}": of(f"int{n}", -(2 ** (n - 1)), 2 ** (n - 1) - 1, 0) for n in (8, 16, 32, 64)},
    **{f"uint{n}": of(f"uint{n}", 0, 2**n - 1) for n in (8, 16, 32, 64)},
    "float16": of("float16", *map(np.float16, (65504, 6e-8, -inf, nan))),
    "float32": of("float32", 3.4028234663852886e38, 1e-45, -inf, nan),
    "float64": of("float64", 1.7976931348623157e308, 5e-324, -inf, nan),
    "bool": of("bool", True, False),
    **{name: of(name, *TEXTS) for name in ("string", "large_string", "string_view")},
    **{name: of(name, *BYTES) for name in ("binary", "large_binary", "binary_view")},
    "fixed_size_binary[2]": of(pa.binary(2), *BYTES),
    **{name: of(name, date(1, 1, 1), date(9999, 12, 31)) for name in ("date32", "date64")},
    **{f"timestamp[{unit}]": moments(unit) for unit in PER_SECOND},
    **{f"timestamp[{unit}, tz=Asia/Jakarta]": moments(unit, "Asia/Jakarta") for unit in PER_SECOND},
    **{name: times(pa.type_for_alias(name)) for name in ("time32[s]", "time32[ms]", "time64[us]", "time64[ns]")},
    **{f"duration[{unit}]": spans(unit) for unit in PER_SECOND},
    "decimal32(9, 2)": of(pa.decimal32(9, 2), Decimal("9999999.99"), Decimal("-0.01")),
    "decimal64(18, 2)": of(pa.decimal64(18, 2), Decimal("9999999999999999.99"), Decimal("-0.01")),
    "decimal128(38, 9)": of(pa.decimal128(38, 9), Decimal(f"{'9' * 29}.{'9' * 9}"), Decimal("-1E-9")),
    "decimal256(38, 0)": of(pa.decimal256(38, 0), Decimal("9" * 38), Decimal("-" + "9" * 38)),
    "list<item: int64>": of(pa.list_(pa.int64()), *WHOLES),
    "large_list<item: int64>": of(pa.large_list(pa.int64()), *WHOLES),
    "list<item: null>": of(pa.list_(pa.null()), [], [None]),
    "fixed_size_list<item: float>[3]": of(pa.list_(pa.float32(), 3), [0.1, -0.0, 3.4028234663852886e38], [1, 2, inf]),
    str(PROFILE): of(PROFILE, {"a": 2**60, "b": []}, {"a": None, "b": [None, ""]}, {"a": None, "b": None}),
    "dictionary<values=string, indices=int32, ordered=0>": of(None, "b", "a", "b").dictionary_encode(),
    "dictionary<values=int64, indices=int32, ordered=0>": of(None, 2**53 + 1, 1).dictionary_encode(),
    "null, declared as int64": pa.nulls(3),
}
LENGTH = max(map(len, COLUMNS.values())) + 1


def same(kind: pa.DataType, name: str) -> bool:
    """Return whether a type is the one that a cell names, by Arrow's alias or as Arrow prints it."""
    try:
        return kind == pa.type_for_alias(name)
    except ValueError:
        return str(kind) == name


def frame() -> pa.Table:
    """All columns side by side: two rows without nulls in any, the last with nulls in all."""
    filled = {name: pa.concat_arrays([x, pa.nulls(LENGTH - len(x), x.type)]) for name, x in COLUMNS.items()}
    return pa.table({"user_id": range(LENGTH), "at": [NOON] * LENGTH, **filled})


def declared(table: pa.Table) -> pa.Schema:
    """Declare the type of the column that has none."""
    fields = {name: table.schema.field(name).type for name in COLUMNS}
    return pa.schema(fields | {name: pa.int64() for name in COLUMNS if name.startswith("null")})


def values(column) -> list[str]:
    """Write values so that none is taken for another; nanoseconds as the numbers they are."""
    fine = pa.types.is_temporal(column.type) and "ns" in str(column.type)
    return [repr(value) for value in (column.cast(pa.int64()) if fine else column).to_pylist()]


def missing(values: list[str], nan_too: bool) -> list[str]:
    return ["None" if nan_too and value == "nan" else value for value in values]


def delta(kind) -> str:
    if isinstance(kind, PrimitiveType):
        return kind.type
    if isinstance(kind, ArrayType):
        return f"array<{delta(kind.element_type)}>"
    assert isinstance(kind, StructType)
    return f"struct<{', '.join(f'{field.name}: {delta(field.type)}' for field in kind.fields)}>"


def in_pandas(series: pd.Series) -> str:
    """Describe a pandas column: the look of its nulls if it has some, or else the type of its objects."""
    if series.isna().any():
        return f"`{series.dtype}`, `{str(series.iloc[-1]).replace('nan', 'NaN')}`"
    return f"`{series.dtype}`" + (f" of `{type(series.iloc[0]).__name__}`" if series.dtype == object else "")


@pytest.fixture
def kept():
    """All columns, written; and the ways to read them, each by the rows to read and the kind of frame."""
    table = frame()
    fg = group()
    fg.set_dataframe(table).set_features(declared(table)).write()
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    spine = table.select(["user_id", "at"])
    past = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    return table, {
        "history": lambda _, output: past.to_dataframe(output=output),
        "spine": lambda count, output: look(fg, spine.slice(0, count), output=output),
        "online": lambda count, output: online.get_features(spine.slice(0, count).select(["user_id"]), output),
    }


def test_the_page_has_a_row_for_every_type_that_is_tried_and_no_other():
    assert list(KEPT) == list(COLUMNS)
    assert all(same(column.type, name.split(", declared")[0]) for name, column in COLUMNS.items())


@pytest.mark.parametrize("way", ["history", "spine", "online"])
def test_every_value_comes_back_in_the_type_that_the_page_says(kept, way):
    asked, read = kept
    arrow, pandas, polars = (read[way](LENGTH, output) for output in ("arrow", "pandas", "polars"))
    for name, (kind, _, with_nulls, in_polars, _, _, is_online) in KEPT.items():
        back, given = arrow[name], values(asked[name])
        assert same(back.type, kind.strip("`")), name
        assert values(back) == given, name
        assert in_pandas(pandas[name]) == with_nulls, name
        from_pandas = pa.array(pandas[name], back.type, from_pandas=True)
        assert values(from_pandas) == missing(given, nan_too="float" in name), name
        assert polars.schema[name] == eval(in_polars.strip("`"), vars(pl)), name
        assert values(pl.DataFrame(polars[name]).to_arrow()[name].cast(back.type)) == given, name
        assert is_online == "yes", name


@pytest.mark.parametrize("way", ["spine", "online"])
def test_pandas_shows_columns_without_nulls_as_the_page_says(kept, way):
    pandas = kept[1][way](2, "pandas")
    shown = {name: in_pandas(pandas[name]) for name, column in COLUMNS.items() if not pa.types.is_null(column.type)}
    assert shown | {"null, declared as int64": "-"} == {name: cells[1] for name, cells in KEPT.items()}


def test_the_table_on_disk_has_the_types_that_the_page_says(kept, home):
    fields = DeltaTable(home / "offline" / "shop" / "spend").schema().fields
    types = {field.name: f"`{delta(field.type)}`" for field in fields if field.name in COLUMNS}
    assert types == {name: cells[5] for name, cells in KEPT.items()}


@pytest.mark.parametrize("name", KEPT)
def test_a_type_is_a_join_key_if_the_page_says_so(name):
    table = pa.table({"user_id": COLUMNS[name].slice(0, 2), "at": [NOON] * 2, "x": [0, 1]})
    if {"yes": False, "no": True}[KEPT[name][4]]:
        with pytest.raises(DataError, match="'user_id'"):
            write(group(), table)
        return
    fg = written(table)
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    assert look(fg, table.select(["user_id", "at"]))["x"].to_pylist() == [0, 1]
    assert online.get_features(table.select(["user_id"]), "arrow")["x"].to_pylist() == [0, 1]
    assert online.get_features(table.select(["user_id"]).to_pylist(), "dicts")[1]["x"] == 1


WHICH, EITHER = pa.array([0, 1], "int8"), [pa.array([1, 2]), pa.array(["a", "b"])]
BAD_COLUMNS = {
    "map<string, int64>": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "sparse_union<0: int64=0, 1: string=1>": pa.UnionArray.from_sparse(WHICH, EITHER),
    "dense_union<0: int64=0, 1: string=1>": pa.UnionArray.from_dense(WHICH, pa.array([0, 1], "int32"), EITHER),
    "month_day_nano_interval": pa.array([pa.MonthDayNano([1, 2, 3]), None]),
    "decimal256(39, 0)": of(pa.decimal256(39, 0), 1, None),
    "decimal128(5, -2)": of(pa.decimal128(5, -2), Decimal("1E3"), None),
    "struct<>": of(pa.struct([]), {}, None),
    "struct<a: int64, A: int64>": pa.StructArray.from_arrays([pa.array([1, 2])] * 2, ["a", "A"]),
    "timestamp[us, tz=IST]": pa.array([0, None]).cast(pa.timestamp("us", tz="IST")),
    "struct<: int64>": pa.StructArray.from_arrays([pa.array([1, 2])], [""]),
    "list_view<item: int64>": of(pa.list_view(pa.int64()), [1], None),
    "run_end_encoded<run_ends: int64, values: string>": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", None]),
    "extension<arrow.uuid>": of(pa.binary(16), b"a" * 16, None).cast(pa.uuid()),
    "null": pa.nulls(2),
    "periods of pandas": pd.Series(pd.period_range("2024", freq="D", periods=2)),
    "intervals of pandas": pd.Series(pd.interval_range(0, 2)),
    "complex numbers of pandas": pd.Series([1j, 2]),
    "numbers beside text in pandas": pd.Series([1, "a"]),
    "Int128 of Polars": pl.Series([2**70, None], dtype=pl.Int128),
    "Object of Polars": pl.Series([object(), None], dtype=pl.Object),
}
BAD_KEYS = {
    "float64": pa.array([1.0, 2.0]),
    "list<item: double>": pa.array([[1.0], [2.0]]),
    "struct<a: int64>": pa.array([{"a": 1}, {"a": 2}]),
    "time64[us]": times(pa.time64("us")),
    "duration[us]": spans("us").slice(0, 2),
    "null": pa.nulls(2),
}
BAD = BAD_COLUMNS | {f"{name} as a join key": keys for name, keys in BAD_KEYS.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_page_calls_refused_is_an_error_with_those_words_before_anything_is_stored(name):
    column, said = BAD[name], REFUSED[name][0].strip("`")
    library = {pd.Series: pd.DataFrame, pl.Series: pl.DataFrame}.get(type(column), pa.table)
    role = "user_id" if name.endswith("key") else "x"
    others = {"user_id": [1, 2], "at": [NOON] * 2, "x": [1, 2]}
    fg = group()
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        write(fg, library(others | {role: column}))
    assert f"{role!r}" in said
    assert caught.value.column == role
    assert snapshots(fg) == -1


def test_the_page_lists_everything_that_is_tried_and_refused():
    assert list(REFUSED) == list(BAD)


def filling(name, value):
    """Return a feature of one of the types, with a value in place of its nulls."""
    fg = written(frame().select(["user_id", "at", name]))
    kind = HistoricalFeaturesDuckDB(FeatureLookup(fg)).to_dataframe(output="arrow").schema.field(name).type
    return HistoricalFeaturesDuckDB(FeatureLookup(fg), [FillNull(value, kind)])


@pytest.mark.parametrize("name", [name for name in COLUMNS if not name.startswith(("null", "list<item: null>"))])
def test_a_value_of_any_type_that_fills_nulls_for_training_is_served_too(name):
    column = COLUMNS[name].drop_null()
    value = (pa.array([10**12]).cast(column.type) if "[ns" in name else column)[0].as_py()  # in whole microseconds
    asked = filling(name, value)
    spine = pa.table({"user_id": [LENGTH - 1, 10**6], "at": [NOON] * 2})
    trained = asked.using_spine(spine, "at").to_dataframe(output="arrow")[name]
    assert trained.null_count == 0
    served = asked.serve("filled")
    assert served.get_features(spine.select(["user_id"]), "arrow")[name].equals(trained)
    assert served.verify().equal


@pytest.mark.parametrize("name", [name for name in COLUMNS if "[ns" in name])
def test_a_value_with_nanoseconds_that_no_default_can_hold_is_refused_by_name(name):
    moment = pd.Timestamp(1, tz="UTC" if "tz" in name else None)
    given = {"time64": "00:00:00.000000001", "duration": pd.Timedelta(1, "ns"), "timestamp": moment}[name.split("[")[0]]
    with pytest.raises(DefinitionError, match="cannot be kept: it has nanoseconds"):
        filling(name, given).serve("filled")


@pytest.mark.parametrize("way", ["history", "spine"])
def test_rows_that_a_training_set_saved_have_the_types_of_the_features(way):
    asked = frame()
    fg = group()
    fg.set_dataframe(asked).set_features(declared(asked)).write()
    wanted = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    given = asked.rename_columns([name if name in {"user_id", "at"} else f"own {name}" for name in asked.column_names])
    wanted = wanted.using_spine(given, "at") if way == "spine" else wanted
    saved = wanted.save("kept", rows=True)
    found, rebuilt = saved.to_dataframe("arrow"), saved.reproduce("arrow")
    decoded = ["own dictionary<values=int64, indices=int32, ordered=0>"] if way == "spine" else []
    assert [one for one in found.column_names if found[one].type != rebuilt[one].type] == decoded
    assert content_hash(found) == saved.content_hash
    for name in COLUMNS:
        assert same(found[name].type, KEPT[name][0].strip("`")), name
        assert values(found[name]) == values(rebuilt[name]), name
