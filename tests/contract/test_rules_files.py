"""Rule 10: files of Parquet and CSV, alone, in folders and under globs, go in value for value."""

from __future__ import annotations

import os
import struct
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB
from seeknal.values import frames

from .profiles import PROFILE
from .world import NOON, group, history, look, rows, written

ON_BOTH = True  # see `pytest_generate_tests`


def csv(folder: Path, text: str | bytes, name: str = "rows.csv") -> str:
    """Write a file of CSV."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def read(folder: Path, *values: str) -> pa.ChunkedArray:
    """Read a column of a file of CSV; values are quoted where they must be."""
    lines = [
        f'{number},"{value}"' if set(value) & set(',\n"') else f"{number},{value}"
        for number, value in enumerate(values)
    ]
    return frames.to_arrow(csv(folder, "\n".join(["n,x", *lines, ""])))["x"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "", "-3"], pa.int64(), [1, None, -3]),
        (["12345678901234567890", "12345678901234567891"], pa.uint64(), [12345678901234567890, 12345678901234567891]),
        (["-1", "18446744073709551615"], pa.string(), None),
        (["340282366920938463463374607431768211455"], pa.string(), None),
        (["0x1A", "0xFF"], pa.string(), None),
        (["+4912345", "4967890"], pa.string(), None),
        (["1", "007"], pa.string(), None),
        (["007", "1.5"], pa.string(), None),
        (["-007"], pa.string(), None),
        (["1.5", "2", "-.5", "1e+05"], pa.float64(), [1.5, 2.0, -0.5, 1e5]),
        (["1.10", "2.50", "", "3.00"], pa.float64(), [1.1, 2.5, None, 3.0]),
        (["1e16", "-1e-5", "1.0E3"], pa.float64(), [1e16, -1e-5, 1000.0]),
        (["-0", "0.0", "1"], pa.float64(), [-0.0, 0.0, 1.0]),
        (["1.10", "1.1"], pa.string(), None),
        (["1", "1.0"], pa.string(), None),
        (["0.5", ".5"], pa.string(), None),
        (["100000.0", "1e+05"], pa.string(), None),
        (["1e3", "2.5"], pa.string(), None),
        (["12e10", "2.5"], pa.string(), None),
        (["1.", "2."], pa.string(), None),
        (["1_000", "2"], pa.string(), None),
        (["NaN", "nan", "1.5"], pa.string(), None),
        (["Inf", "-Inf", "1.5"], pa.float64(), [float("inf"), -float("inf"), 1.5]),
        ([*["1.10"] * 200, "1.1"], pa.string(), None),
        (
            ["0.1", "0.30000000000000004", "4.2298044247268685e-05"],
            pa.float64(),
            [0.1, 0.1 + 0.2, 4.2298044247268685e-05],
        ),
        (["9007199254740993", "1.5"], pa.string(), None),
        (["0.1000000000000000055511151231257827"], pa.string(), None),
        (["1e400"], pa.string(), None),
        (["1e-400", "1.5"], pa.string(), None),
        (["nan", "inf"], pa.string(), None),
        ([*["nan"] * 99, "1.5"], pa.float64(), None),
        (["True", "FALSE", ""], pa.bool_(), [True, False, None]),
        (["true", "TRUE"], pa.string(), None),
        (["true", "1"], pa.string(), None),
        (["2024-01-31", ""], pa.date32(), [date(2024, 1, 31), None]),
        (["2024-01-31", "2024-02-30"], pa.string(), None),
        (["2024-01-31", "2024-02-01 10:00"], pa.timestamp("s"), [datetime(2024, 1, 31), datetime(2024, 2, 1, 10)]),
        (["2024-01-31 00:00", "2024-01-31"], pa.string(), None),
        (["2024-01-31 10:00", "2024-01-31T10:00"], pa.string(), None),
        (["2024-01-31T10:00:00Z", "2024-01-31T12:00:00+02:00"], pa.string(), None),
        (["2024-01-31T10:00:00+02:00", "2024-01-31T10:00:00+01:00"], pa.timestamp("s", tz="UTC"), None),
        (["10:30", "10:30:00"], pa.string(), None),
        (["9999-12-31T23:59:59.999999"], pa.timestamp("us"), [datetime(9999, 12, 31, 23, 59, 59, 999999)]),
        (["10:30", "23:59:59"], pa.time32("s"), [time(10, 30), time(23, 59, 59)]),
        (["a", "1", "b"], pa.string(), None),
        (["two\nlines", "a,b"], pa.string(), None),
        ([" 5", "6"], pa.string(), None),
        (["5", "6\t"], pa.string(), None),
        ([" 2024-01-31"], pa.string(), None),
        ([" a", "6"], pa.string(), None),
        (["yes", *["1"] * 2000], pa.string(), None),
        ([*["1"] * 2000, "yes"], pa.string(), None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_column_of_csv_takes_a_type_only_if_it_would_be_written_back_the_same(tmp_path, values, kind, expected):
    found = read(tmp_path, *values)
    assert found.type == kind
    if kind == pa.string():
        assert found.to_pylist() == values
    elif expected is not None:
        assert found.to_pylist() == expected


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"\A[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?\Z"),
    st.sampled_from(["0x1F", "007", "nan", "inf", "-0", "1_000", "true", "2024-01-01", " 7"]),
    st.sampled_from(["1", "1.0", "1.00", "1e+00", "1.5", "1.50", ".5", "0.5", "5.", "-0.0", "0.0", "15.0E-1"]),
)


@PROFILE
@given(values=st.lists(NUMBERS.filter(bool), min_size=1, max_size=6))
def test_whatever_is_read_as_a_number_is_that_number(tmp_path_factory, values):
    found = read(tmp_path_factory.mktemp("csv"), *values)
    if pa.types.is_integer(found.type) or pa.types.is_floating(found.type):
        for text, number in zip(values, found.to_pylist(), strict=True):
            assert Decimal(repr(number)).compare(Decimal(text)) == 0 or text in {"nan", "inf"}
            assert isinstance(number, int) <= (str(number) == text)
        assert len({*values}) == len({struct.pack("d", number) for number in found.to_pylist()})
    if pa.types.is_string(found.type):
        assert found.to_pylist() == values


def test_two_spellings_are_two_keys_in_files_and_in_the_names_of_folders(tmp_path):
    for place, values in enumerate(
        ([" 1", "1"], ["1.10", "1.1"], ["TRUE", "true"], ["2024-01-01T10:00", "2024-01-01 10:00"])
    ):
        name = f"g{place}"
        text = "".join(f"{value},2024-01-01,{number}\n" for number, value in enumerate(values))
        assert not group(name).set_dataframe(csv(tmp_path, f"user_id,at,x\n{text}")).write().superseded
        folder = tmp_path / name
        for value in values:
            (folder / f"key={value}").mkdir(parents=True)
            pq.write_table(rows(1), folder / f"key={value}" / "0.parquet")
        assert set(frames.to_arrow(folder)["key"].to_pylist()) == {*values}


@pytest.mark.parametrize("value", ["y" * 2**21, "y\n" * 2**20, "y\r\n" * 2**19 + "é"], ids=["long", "lines", "returns"])
def test_a_value_or_a_name_of_any_length_is_read_as_pandas_reads_it(tmp_path, value):
    for text in (
        f'n,x\n1,"{value}"\n2,b\n',
        "n,x\n" + "1,a\n" * 300_000 + f'2,"{value}"\n3,c\n',
        f'n,"{value}"\n1,a\n2,b\n',
        f'"n\n",x\n1,"{value}"\n',
    ):
        file = csv(tmp_path, text)
        found, expected = frames.to_arrow(file), pd.read_csv(file)
        assert found.column_names == list(expected.columns)
        assert [column.to_pylist() for column in found.columns] == [expected[name].tolist() for name in expected]


def test_types_that_are_declared_or_known_reach_the_file(tmp_path):
    header = "user_id,at,x,zip\n"
    first = csv(tmp_path, f"{header}007,2024-01-01,12345678901234567890,100\n", "first.csv")
    features = pa.schema([("x", pa.decimal128(22, 0)), ("zip", pa.string())])
    fg = group().set_dataframe(first).set_features(features)
    fg.write()
    assert history(fg).drop(["at"]).to_pylist() == [
        {"user_id": "007", "x": Decimal(12345678901234567890), "zip": "100"}
    ]
    assert (
        not fg.set_dataframe(csv(tmp_path, f"{header}8,2024-01-02,1,9\n")).set_features().write(mode="append").changes
    )
    assert history(fg).select(["user_id", "zip"]).to_pylist() == [
        {"user_id": "007", "zip": "100"},
        {"user_id": "8", "zip": "9"},
    ]
    assert fg.push(csv(tmp_path, f"{header}8,2024-01-03,1,7\n")).rows == 1


def test_a_text_key_is_found_by_the_digits_of_a_file(tmp_path):
    fg = written(pa.table({"user_id": ["1", "007"], "at": [NOON, NOON], "x": [10, 20]}))
    spine = csv(tmp_path, "user_id,at\n1,2024-01-02\n7,2024-01-02\n")
    assert look(fg, spine)["x"].tolist()[0] == 10
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "at")
    assert hist.to_dataframe(output="arrow").column("user_id").to_pylist() == ["1", "7"]
    assert hist.to_batches().read_all()["x"].to_pylist() == [10, None]
    hist.save("may").reproduce()


@pytest.mark.parametrize(
    ("declared", "value"), [("uint8", "300"), ("float64", "9007199254740993"), ("int64", "1.5"), ("bool", "maybe")]
)
def test_a_value_that_does_not_fit_the_type_declared_is_refused(tmp_path, declared, value):
    fg = group().set_features({"x": declared}).set_dataframe(csv(tmp_path, f"user_id,at,x\n1,2024-01-01,{value}\n"))
    with pytest.raises(DataError, match="'x'"):
        fg.write()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "user_id,at,x\n1,2024-01-01,tea\n2,2024-01-01,caf\xe9\n".encode("latin-1"),
            r"not UTF-8: column 'x' .* row 1.*iconv",
        ),
        ("user_id,at,prix_\u20ac\n1,2024-01-01,5\n".encode("cp1252"), r"not UTF-8: the name of a column.*iconv"),
        ("user_id,at,x\n1,2024-01-01,5\n".encode("utf-16"), r"not UTF-8: it is UTF-16.*iconv"),
        (b"user_id,at,x,x\n1,2024-01-01,5,6\n", "two columns named 'x'"),
        (b"user_id,at,x\n1,2024-01-01\n", "cannot be read: .*Expected 3 columns"),
    ],
    ids=["value", "header", "utf-16", "twice", "short row"],
)
def test_a_broken_file_of_csv_is_refused_with_the_fix(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        written(csv(tmp_path, content))


def test_a_folder_is_read_in_the_order_of_its_paths_without_what_programs_leave_there(tmp_path):
    folder = tmp_path / "rows"
    for number, name in enumerate(["b/2.parquet", "a.parquet", "b/10.parquet", "c.pq"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(number), folder / name)
    for name in ("_SUCCESS", ".a.parquet.crc", "a.parquet.crc", "_temporary/0.parquet", ".ipynb_checkpoints/x.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert frames.to_arrow(folder)["x"].to_pylist() == [1, 2, 0, 3]
    assert frames.to_arrow(folder / "b" / "*.parquet")["x"].to_pylist() == [2, 0]
    assert frames.to_arrow(str(folder / "**" / "*.parquet"))["x"].to_pylist() == [1, 2, 0]


def test_what_spark_duckdb_and_arrow_write_into_folders_named_key_value_has_the_keys_as_columns(tmp_path):
    table = pa.table(
        {
            "user_id": [1, 2, 3],
            "at": [NOON] * 3,
            "day": ["2024-01-01", "2024-01-02", "2024-01-02"],
            "shop": ["a b", "a/b", None],
        }
    )
    duckdb.from_arrow(table).project("*, 'é' AS word").write_parquet(
        str(tmp_path / "duck"), partition_by=["day", "shop"]
    )
    pq.write_to_dataset(table, tmp_path / "arrow", partition_cols=["day", "shop"])
    table.to_pandas().to_parquet(tmp_path / "pandas", partition_cols=["day", "shop"])
    for name in ("duck", "arrow", "pandas", "arrow/day=*"):
        found = frames.to_arrow(str(tmp_path / name))
        by_user = {row["user_id"]: (row["day"], row["shop"]) for row in found.to_pylist()}
        assert by_user == {1: (date(2024, 1, 1), "a b"), 2: (date(2024, 1, 2), "a/b"), 3: (date(2024, 1, 2), None)}
        assert found.column_names[-2:] == ["day", "shop"]


def test_the_types_of_keys_in_the_names_of_folders_are_those_of_the_group(tmp_path):
    fg = written(pa.table({"user_id": ["1", "2"], "at": [NOON] * 2, "x": [10, 20]}))
    for user in ("1", "2"):
        (tmp_path / "spine" / f"user_id={user}").mkdir(parents=True)
        pq.write_table(pa.table({"at": [NOON]}), tmp_path / "spine" / f"user_id={user}" / "0.parquet")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(tmp_path / "spine", "at")
    assert hist.to_dataframe(output="arrow").to_pylist() == [
        {"at": NOON, "user_id": "1", "x": 10},
        {"at": NOON, "user_id": "2", "x": 20},
    ]
    assert hist.to_batches().read_all().equals(hist.to_dataframe(output="arrow"))
    fg.set_dataframe(tmp_path / "spine" / "*" / "*.parquet")


def test_files_of_a_folder_may_differ_where_one_type_holds_all_values_exactly(tmp_path):
    for name, kind in (("a", pa.int32()), ("b", pa.int64()), ("c", pa.int16())):
        table = pa.table({"x": pa.array([1], kind), "word": pa.array(["w"]).dictionary_encode()})
        pq.write_table(table.select(["x", "word"] if name != "b" else ["word", "x"]), tmp_path / f"{name}.parquet")
    found = frames.to_arrow(tmp_path)
    assert found.schema.field("x").type == pa.int64()
    assert found.to_pylist() == [{"x": 1, "word": "w"}] * 3


def csv_and_parquet(folder: Path) -> None:
    csv(folder, "x\n1\n")
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")


def of_two_types(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"x": ["1"]}), folder / "b.parquet")


def of_two_columns(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"x": [1], "y": [1]}), folder / "b.parquet")


def of_two_layouts(folder: Path) -> None:
    (folder / "day=1").mkdir()
    pq.write_table(pa.table({"x": [1]}), folder / "day=1" / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), folder / "b.parquet")


def key_twice(folder: Path) -> None:
    (folder / "x=1").mkdir()
    pq.write_table(pa.table({"x": [1]}), folder / "x=1" / "a.parquet")


def delta(folder: Path) -> None:
    (folder / "_delta_log").mkdir()
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")


def notes(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")
    (folder / "notes.txt").write_text("x")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (csv_and_parquet, r"several kinds: \.csv, \.parquet.*glob: '.*\*\.parquet'"),
        (of_two_types, r"'x' is string in '.*b\.parquet', but int64"),
        (of_two_columns, r"b\.parquet' has a column 'y'.*a\.parquet' does not have"),
        (of_two_layouts, r"b\.parquet' have no key in their names|a\.parquet' have day in their names"),
        (key_twice, r"'x' is in '.*a\.parquet' and in the name of its folder"),
        (delta, r"Delta Lake table.*DeltaTable\("),
        (notes, r"notes\.txt' is neither .parquet nor .csv.*glob"),
        (lambda _: None, "There are no Parquet or CSV files in"),
    ],
    ids=lambda one: getattr(one, "__name__", "")[:20],
)
def test_a_folder_that_is_not_of_one_kind_is_refused_with_the_fix(tmp_path, fill, message):
    folder = tmp_path / "given"
    folder.mkdir()
    fill(folder)
    with pytest.raises(DataError, match=message):
        frames.to_arrow(folder)
    if fill is delta:
        with pytest.raises(DataError, match=message):
            frames.to_arrow(folder / "*.parquet")


def test_files_of_csv_in_a_folder_take_their_types_together(tmp_path):
    for number, value in enumerate(["1", "007", "2"]):
        csv(
            tmp_path,
            f"n,x\n{number},{value}\n" if number else f"x,n\n{value},{number}\n",
            f"d=2024-01-0{number + 1}/rows.csv",
        )
    found = frames.to_arrow(tmp_path / "d=*")
    assert found["x"].to_pylist() == ["1", "007", "2"]
    assert found["n"].to_pylist() == [0, 1, 2]
    assert found["d"].to_pylist() == [date(2024, 1, day) for day in (1, 2, 3)]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    for path in (tmp_path / "none.parquet", tmp_path / "*.parquet", tmp_path / "x**.csv"):
        with pytest.raises(DataError, match=r"There is no file|There are no Parquet or CSV files|cannot be read"):
            frames.to_arrow(path)


def changing(batches: pa.RecordBatchReader, change: object) -> None:
    batches.read_next_batch()
    change()  # type: ignore[operator]
    batches.read_all()


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("way", ["written over", "replaced", "removed"])
def test_a_spine_whose_file_changes_while_it_is_streamed_is_refused(tmp_path, in_folder, way):
    fg = written(rows(1, 2))
    folder = tmp_path / "spine"
    folder.mkdir()
    file = folder / "a.parquet"
    spine = pa.table({"user_id": [1] * 300_000, "at": [NOON] * 300_000})
    pq.write_table(spine, file)
    pq.write_table(spine.slice(0, 5), folder / "b.parquet")

    def change() -> None:
        if way == "written over":
            pq.write_table(spine.slice(0, 10), file)
        elif way == "replaced":
            pq.write_table(spine, tmp_path / "new")
            (tmp_path / "new").replace(file)
        else:
            file.unlink()

    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(folder if in_folder else file, "at")
    batches = hist.to_batches()
    batches.read_next_batch()
    change()
    with pytest.raises(DataError, match=r"a\.parquet' (was changed while it was read|cannot be read)"):
        batches.read_all()


@pytest.mark.parametrize("in_batches", [False, True], ids=["whole", "in batches"])
def test_a_parquet_file_with_damaged_text_is_refused(tmp_path, in_batches):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": ["abcdefgh"] * 3}), file, compression="none", use_dictionary=False)
    file.write_bytes(file.read_bytes().replace(b"abcdefgh", b"abc\xffefgh"))
    frame = frames.opened(file)
    with pytest.raises(DataError, match=r"rows\.parquet' cannot be read: .*UTF8"):
        list(frame.batches(["x"], 10)[1]()) if in_batches else frame.table()


def test_a_folder_as_spine_is_streamed_in_batches(tmp_path):
    fg = written(rows(1, 2))
    for number in range(3):
        os.makedirs(tmp_path / "spine" / f"part={number}")  # noqa: PTH103
        spine = pa.table({"user_id": [1] * 3, "at": [NOON] * 3, "n": range(3)})
        pq.write_table(spine, tmp_path / "spine" / f"part={number}" / "0.parquet")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(tmp_path / "spine", "at", keep_cols=["part"])
    found = list(hist.to_batches())
    assert len(found) == 3
    assert pa.Table.from_batches(found).equals(hist.to_dataframe(output="arrow"))
    assert found[2].to_pylist() == [{"user_id": 1, "at": NOON, "part": 2, "x": 1}] * 3
    assert isinstance(hist.to_dataframe(), pd.DataFrame)


def test_columns_from_folder_names_can_be_read_alone(tmp_path):
    (tmp_path / "k=1").mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "k=1" / "a.parquet")
    assert frames.opened(tmp_path).table(["k"]).to_pylist() == [{"k": 1}] * 2
    schema, batches = frames.opened(tmp_path).batches(["k"], 1)
    assert pa.Table.from_batches(batches(), schema).to_pylist() == [{"k": 1}] * 2
