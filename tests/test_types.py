"""Types at their edges: where a library has none of the kind, or another one."""

from datetime import UTC, date, time
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dateutil.tz import tzoffset

from contract.world import HOUR, NOON, group, history, look, rows, snapshots, write, written
from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB, TrainingSet
from seeknal.values import frames, types
from seeknal.values.casting import recast

pytestmark = pytest.mark.slow


def test_half_floats_are_exact_in_duckdb_which_lacks_the_type():
    fg = written(
        rows(1).set_column(2, "x", pa.array([np.float16(65504)])).append_column("y", pa.array([[np.float16(2)]]))
    )
    relation = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe(output="duckdb")
    assert list(map(str, relation.types[2:])) == ["FLOAT", "FLOAT[]"]
    assert relation.project("x, y").fetchall() == [(65504.0, [2.0])]


def test_times_of_day_end_at_microseconds_where_they_are_values_of_python():
    last = pa.array([86_399_999_999_999]).cast(pa.time64("ns"))
    fg = written(rows(1).set_column(2, "x", last).append_column("y", pa.ListArray.from_arrays([0, 1], last)))
    past = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    cut = time.max
    assert past.to_dataframe()["y"][0] == [cut]
    assert past.serve().get_features([{"user_id": 1}], "dicts")[0]["x"] == cut


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b"])])
def test_categories_of_polars_are_text_as_feature_and_as_key(kind):
    texts = pl.Series(["b", "a", None], dtype=kind)
    table = pl.DataFrame({"user_id": texts, "at": [NOON] * 3, "x": texts, "y": [texts] * 3})
    fg = written(table[:2])
    assert look(fg, table[:, :2])["x"].to_list() == ["b", "a", None]
    assert history(fg)["y"].to_pylist() == [["b", "a", None]] * 2


def test_a_list_of_nulls_takes_a_type_with_its_first_value():
    fg = written(rows([], [None]))
    with pytest.warns(match="version 2"):
        write(fg, rows([1], times=[NOON + 2 * HOUR]), mode="append")
    assert history(fg)["x"].to_pylist() == [[], [None], [1]]
    write(fg, rows([], times=[NOON + 3 * HOUR]), mode="append")
    assert fg.version == 2


def test_lists_are_named_inside_as_arrow_names_them():
    fg = written(rows([1]).append_column("y", pa.array([{"a": [[1]]}])))
    kinds = ["list<item: int64>", "struct<a: list<item: list<item: int64>>>"]
    assert list(map(str, history(fg).drop(["user_id", "at"]).schema.types)) == kinds
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve().get_features([{"user_id": 1}], "arrow")
    assert list(map(str, online.drop(["user_id"]).schema.types)) == kinds


def test_a_feature_cannot_be_declared_as_null():
    fg = group()
    with pytest.raises(DataError, match="type is unknown"):
        fg.set_dataframe(rows(None)).set_features({"x": "null"}).write()


def test_lists_of_one_length_are_cast_beside_nulls():
    """Arrow 26.0.1 alone reads out of bounds here, and may end the process."""
    values = [[["a"], ["b", "c"]], None, [["d"], []], None] * 50
    kind = pa.list_(pa.list_(pa.string()), 2)
    table = pa.table(
        {"x": pa.chunked_array([pa.array(values[i : i + 7], pa.list_(kind.value_type)) for i in range(0, 200, 7)])}
    )
    found = recast(table, [kind])
    found.validate(full=True)
    assert (found["x"].type, found["x"].to_pylist()) == (kind, values)


FORMS_OF_UTC = ["UTC", "Z", "utc", "+00:00", "-0000", "+00"]


@pytest.mark.parametrize(
    ("given", "kept"), [*((name, "UTC") for name in FORMS_OF_UTC), ("+0530", "+05:30"), ("-03", "-03:00")]
)
def test_a_zone_has_one_name_however_it_is_written_and_every_output_can_read_it(given, kept):
    noon = pa.array([NOON], pa.timestamp("us")).cast(pa.timestamp("us", tz=given))
    fg = written(
        rows(1, times=noon).set_column(2, "x", noon).append_column("y", pa.array([[0]]).cast(pa.list_(noon.type)))
    )
    past, online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]), HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    answer = past.to_dataframe(output="arrow")
    assert [answer.schema.field(name).type.tz for name in ("at", "x")] == [kept] * 2
    moment = NOON.replace(tzinfo=UTC)
    assert past.to_dataframe()["x"][0] == past.to_dataframe(output="polars")["x"][0] == moment
    assert past.to_dataframe(output="duckdb").project("x").fetchall() == [(moment,)]
    assert online.get_features([{"user_id": 1}], "dicts")[0]["x"] == moment
    assert online.get_features([{"user_id": 1}], "polars")["x"][0] == moment
    assert write(fg, rows(2, times=noon).set_column(2, "x", noon.cast(pa.timestamp("us", tz=kept))).append_column(
        "y", pa.array([[0]]).cast(pa.list_(noon.type))), mode="append").changes == ()  # fmt: skip


@pytest.mark.parametrize("zone", ["IST", "Nowhere/Land", "localtime", "+24:00", "+05:30:10", "UTC+05:30", "a\0b"])
@pytest.mark.parametrize("place", ["at", "x", "user_id", "list"])
def test_a_zone_that_cannot_be_read_back_is_refused_by_name_with_the_way_out(zone, place):
    odd = pa.array([NOON], pa.timestamp("us")).cast(pa.timestamp("us", tz=zone))
    table = rows(pd.Timestamp(NOON)).append_column("list", pa.array([[pd.Timestamp(NOON)]]))
    column = pa.ListArray.from_arrays([0, 1], odd) if place == "list" else odd
    fg = group()
    with pytest.raises(DataError, match=rf"Column '{place}': .*tz_convert\(\"UTC\"\)"):
        write(fg, table.set_column(table.column_names.index(place), place, column))
    frame = pd.DataFrame({"user_id": [1], "at": [NOON], "x": [NOON]})
    frame["at"] = pd.Series(frame["at"]).dt.tz_localize("UTC").dt.tz_convert(tzoffset("IST", 19800))
    with pytest.raises(DataError, match="IST"):
        write(fg, frame)
    assert write(fg, frame.assign(at=frame["at"].dt.tz_convert("UTC"))).rows == 1


def test_a_table_of_an_earlier_version_with_such_a_zone_is_read_in_utc():
    """Before, such a type was kept as it came."""
    for name, known in (("Z", "UTC"), ("IST", "UTC"), ("+0530", "+05:30"), ("Asia/Jakarta", "Asia/Jakarta")):
        kind = types.readable(pa.list_(pa.timestamp("us", tz=name)))
        assert kind == pa.list_(pa.timestamp("us", tz=known))
    table = pa.table({"x": pa.array([0], pa.timestamp("us", tz="IST"))})
    assert frames.from_arrow(table, "pandas")["x"][0] == frames.from_arrow(table, "polars")["x"][0]
    assert types.widens(pa.timestamp("us", tz="UTC"), pa.timestamp("us", tz="Z"))


CATEGORIES = {
    "text": pa.string(),
    "large text": pa.large_string(),
    "views": pa.string_view(),
    "whole numbers": pa.int64(),
    "moments": pa.timestamp("ns"),
}


def two_frames(kind):
    """Put two frames together, each with categories of its own."""
    parts = []
    for user, text in enumerate(("a", "b")):
        values = pa.array([user]).cast(kind) if kind in (pa.int64(), pa.timestamp("ns")) else pa.array([text], kind)
        column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values)
        parts.append(pa.table({"user_id": [user], "at": [NOON], "x": column}))
    return pa.concat_tables(parts)


@pytest.mark.parametrize("kind", CATEGORIES.values(), ids=CATEGORIES)
def test_categories_of_frames_that_were_put_together_are_written_looked_up_and_saved(kind):
    table = two_frames(kind)
    fg = written(table)
    values = [value.as_py() for value in table["x"]]
    assert look(fg, table.select(["user_id", "at"]))["x"].to_pylist() == values
    past = HistoricalFeaturesDuckDB([FeatureLookup(fg, prefix="f_")]).using_spine(table, "at")
    past.save("both")
    again = TrainingSet.load("both").reproduce(output="arrow")
    assert again["f_x"].to_pylist() == values


def test_categories_of_lists_are_decoded_as_a_feature_and_as_a_key_refused():
    lists = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), pa.array([[1], [2, None]]))
    fg = written(rows(1, 2, 3).set_column(2, "x", lists))
    assert history(fg)["x"].to_pylist() == [[2, None], [1], None]
    with pytest.raises(DataError, match="'user_id'"):
        write(group("other"), rows(1, 2, 3).set_column(0, "user_id", lists))


def test_categories_that_pandas_keeps_as_objects_are_read_exactly():
    moments = pd.Categorical([date(2024, 1, 1), pd.Timestamp("2024-01-01 18:00:00.000000001")])
    frame = pd.DataFrame({"user_id": [1, 2], "at": moments, "x": moments})
    fg = written(frame)
    assert history(fg)["x"].cast(pa.int64()).to_pylist() == [1704067200 * 10**9, 1704132000 * 10**9 + 1]
    assert history(fg)["at"].cast(pa.int64()).to_pylist() == [1704067200 * 10**6, 1704132000 * 10**6 + 1]


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_would_lose_values_are_refused(name):
    fg = group()
    for frame in (
        rows(1).set_column(2, "x", pa.StructArray.from_arrays([pa.array([1])], [name])),
        rows(1).set_column(2, "x", pa.array([[{name: 3, "a": 1}]])),
        pd.DataFrame({"user_id": [1], "at": [NOON], "x": [{name: 3, "a": 1}]}),
        pd.DataFrame({"user_id": [1], "at": [NOON], name: [1]}),
        rows(1).rename_columns(["user_id", "at", name]),
    ):
        with pytest.raises(DataError, match=r"[Rr]ename|not a name"):
            write(fg, frame)
    assert snapshots(fg) == -1


def test_sparse_columns_are_read_as_what_they_stand_for():
    frame = pd.DataFrame({"user_id": [1, 2], "at": [NOON] * 2, "x": pd.arrays.SparseArray([0, 7])})
    assert history(written(frame))["x"].to_pylist() == [0, 7]


def test_slices_of_lists_of_lists_of_nulls_are_cast_as_they_are():
    nulls = pa.ListArray.from_arrays([0, 2, 2], pa.nulls(2))
    for outer in (pa.LargeListArray, pa.ListArray):
        lists = outer.from_arrays([0, 1, 2], nulls)
        for column in (pa.chunked_array([part]) for part in (lists, lists.slice(1), lists.slice(0, 1))):
            for kind in (pa.list_(pa.list_(pa.null())), pa.list_(pa.list_(pa.int64()))):
                (cast,) = recast(pa.table({"x": column}), [kind]).columns
                cast.validate(full=True)
                assert cast.to_pylist() == column.to_pylist()


TIMES_OF_DAY = pa.array([123_456_789]).cast(pa.time64("ns"))
FAR_TIME = pa.array([2**40]).cast(pa.timestamp("s"))
FAR_DATE = pa.array([10**7], pa.int32()).cast(pa.date32())


@pytest.mark.parametrize("values", [TIMES_OF_DAY, FAR_TIME, FAR_DATE], ids=lambda values: str(values.type))
@pytest.mark.parametrize("nothing", [pa.nulls(1), pa.array([[None]]), pa.array([[]], pa.list_(pa.null()))])
def test_a_value_beside_nulls_without_a_type_stays_as_it_is(values, nothing):
    """Python has no nanoseconds and no years beyond 9999, so no value may go through it."""
    known = pa.array([1]) if pa.types.is_null(nothing.type) else pa.array([[1]])
    fg = written(rows(1).set_column(2, "x", pa.StructArray.from_arrays([known, values], ["a", "b"])))
    again = rows(1, user=2).set_column(2, "x", pa.StructArray.from_arrays([nothing, values], ["a", "b"]))
    write(fg, again, mode="append")
    found = history(fg)["x"].combine_chunks()
    assert found.field("b").equals(pa.concat_arrays([values, values]))
    assert (fg.version, found.field("a").to_pylist()) == (1, [*known.to_pylist(), *nothing.to_pylist()])


@pytest.mark.parametrize("inside", [pa.null(), pa.list_(pa.field("element", pa.null()))], ids=str)
@pytest.mark.parametrize(
    "outer", [lambda of: pa.list_(pa.field("element", of)), pa.large_list, lambda of: pa.list_(of, 2)]
)
def test_a_slice_of_lists_of_nulls_is_written_as_it_is(outer, inside):
    lists = pa.array([[None, None], [None, None], None, [None, None]], outer(inside)).slice(1, 2)
    fg = written(rows(1, 2).set_column(2, "x", lists))
    assert history(fg)["x"].to_pylist() == lists.to_pylist()


def in_parts(table):
    """Put a table between two without rows, which have categories of their own."""
    return pa.concat_tables([table.slice(0, 0), table, table.slice(0, 0)])


@pytest.mark.parametrize(
    ("known", "values"),
    [
        (pa.float64(), pa.array([3])),
        (pa.float64(), pa.array([3]).dictionary_encode()),
        (pa.decimal128(5, 2), pa.array([Decimal("3.0")])),
        (pa.list_(pa.float64()), pa.array([[3]])),
        (pa.struct([("a", pa.float64())]), pa.array([{"a": 3}])),
    ],
    ids=str,
)
def test_a_part_without_rows_changes_nothing(known, values, tmp_path):
    fg = written(rows(1).set_column(2, "x", pa.nulls(1, known)))
    write(fg, in_parts(rows(1, user=2).set_column(2, "x", values)), mode="append")
    fg.push(in_parts(rows(1, user=3).set_column(2, "x", values)))
    folder = tmp_path / "parts"
    folder.mkdir()
    whole = rows(1, user=4).set_column(2, "x", values)
    for number, part in enumerate((whole.slice(0, 0), whole, whole.slice(0, 0))):
        pq.write_table(part, folder / f"{number}.parquet")
    write(fg, folder, mode="append")
    found = history(fg)["x"]
    assert (fg.version, found.type, found.to_pylist()) == (1, known, [None, *values.to_pylist() * 3])


def test_frames_of_pandas_put_together_with_an_empty_one_are_written():
    fg = written(rows(0.5))
    frame = pd.DataFrame({"user_id": [2], "at": [NOON], "x": pd.array([1], dtype="int64[pyarrow]")})
    write(fg, pd.concat([frame, frame[:0]]), mode="append")
    assert history(fg)["x"].to_pylist() == [0.5, 1.0]


DECIMALS = [pa.array([Decimal("1.5")]).cast(pa.decimal128(5, 1)).cast(kind(5, 1)) for kind in
            (pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256)]  # fmt: skip
DECIMALS += [pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values) for values in DECIMALS]


@pytest.mark.parametrize("values", DECIMALS, ids=lambda values: str(values.type))
def test_decimals_of_every_width_and_layout_widen_a_feature(values):
    fg = written(rows(1).set_column(2, "x", pa.array([Decimal(1)], pa.decimal128(3, 0))))
    wider = rows(1, user=2).set_column(2, "x", values)
    with pytest.raises(DataError, match="makes no new version"):
        fg.push(wider)
    with pytest.warns(match="version 2"):
        write(fg, wider, mode="append")
    assert history(fg)["x"].equals(pa.chunked_array([[Decimal("1.0"), Decimal("1.5")]], pa.decimal128(5, 1)))


def test_decimals_that_pandas_keeps_as_categories_widen_a_feature():
    fg = written(rows(Decimal(1)))
    with pytest.warns(match="version 2"):
        write(fg, pd.DataFrame({"user_id": [2], "at": [NOON], "x": pd.Categorical([Decimal("1.5")])}), mode="append")
    assert history(fg)["x"].to_pylist() == [Decimal("1.0"), Decimal("1.5")]


def test_a_category_of_no_row_need_not_fit():
    fg = written(rows(1).set_column(2, "x", pa.array([Decimal(1)], pa.decimal128(3, 0))))
    categories = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), pa.array([Decimal("0.5"), Decimal("2.0")]))
    write(fg, rows(1, user=2).set_column(2, "x", categories), mode="append")
    assert (fg.version, history(fg)["x"].to_pylist()) == (1, [1, 2])
