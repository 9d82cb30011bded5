"""Rules 8 to 11: the result is the spine and beside it the features, in every kind of frame."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from seeknal import DataError, DefinitionError, FeatureGroupDuckDB, FeatureLookup, HistoricalFeaturesDuckDB
from seeknal.values import frames

from .world import HOUR, NOON, history, look, rows, seen, snapshots, write, written
from .world import group as define

US = pa.timestamp("us")
SPINE = pa.table(
    {
        "label": pa.array(["b", None, "", "a", "b"]),
        "user_id": pa.array([2, 1, None, 1, 2], pa.int64()),
        "at": pa.array([NOON + HOUR, NOON, NOON, None, NOON + HOUR], US),
        "weight": pa.array([0.5, float("nan"), None, 1.0, 0.5]),
    }
)
EXPECTED = [20, 10, None, None, 20]


def two_users(name: str = "spend", **options):
    frame = pa.table({"user_id": [1, 2], "at": [NOON, NOON], "x": [10, 20]})
    return written(frame, name=name, **options)


def test_the_spine_comes_back_row_by_row_with_its_nulls_and_duplicates():
    result = look(two_users(), SPINE)
    assert result.column_names == [*SPINE.column_names, "x"]
    assert result["x"].to_pylist() == EXPECTED
    assert result.select(SPINE.column_names).schema.equals(SPINE.schema)
    assert repr(result.drop(["x"]).to_pylist()) == repr(SPINE.to_pylist())


def test_a_spine_in_many_chunks_keeps_its_order():
    spine = pa.concat_tables([SPINE.slice(i, 1) for i in (4, 0, 3, 1, 2)])
    assert look(two_users(), spine)["x"].to_pylist() == [EXPECTED[i] for i in (4, 0, 3, 1, 2)]


def test_an_empty_spine_gives_an_empty_answer_with_the_features_types():
    result = look(two_users(), SPINE.slice(0, 0))
    assert result.schema.field("x").type == pa.int64()
    assert len(result) == 0


def test_a_spine_of_nothing_but_keys_and_moments_far_larger_than_the_group_is_answered_in_order():
    users = [1, 2, 3] * 5000
    result = look(two_users(), pa.table({"user_id": users, "at": [NOON] * len(users)}))
    assert result["x"].to_pylist() == [10, 20, None] * 5000


def test_pandas_keeps_its_index_its_dtypes_and_the_callers_frame():
    spine = pd.DataFrame(
        {
            "user_id": pd.array([2, 1], dtype="int32"),
            "at": pd.to_datetime([NOON, NOON]).as_unit("s"),
            "kind": pd.Categorical(["a", "b"]),
            "flag": pd.array([True, None], dtype="boolean"),
        },
        index=pd.Index([7, 7], name="case"),
    )
    before = spine.copy(deep=True)
    result = look(two_users(), spine)
    pd.testing.assert_frame_equal(spine, before)
    pd.testing.assert_frame_equal(result.drop(columns="x"), before)
    assert result["x"].tolist() == [20, 10]


def test_pandas_keeps_an_index_of_several_levels():
    index = pd.MultiIndex.from_tuples([("a", 2), ("a", 1)], names=["one", "other"])
    spine = pd.DataFrame({"user_id": [2, 1], "at": [NOON, NOON]}, index=index)
    assert look(two_users(), spine).index.equals(index)


@pytest.mark.parametrize("things", [[{"a": 1}, 3], [1, "a"], [1 + 2j, 0j], [object, print]], ids=repr)
def test_pandas_keeps_columns_that_only_python_understands(things):
    spine = pd.DataFrame({"user_id": [2, 1], "at": [NOON, NOON], "thing": pd.Series(things)})
    result = look(two_users(), spine)
    assert result["thing"].tolist() == things
    assert result["x"].tolist() == [20, 10]


def test_changing_the_answer_does_not_change_the_spine():
    spine = pd.DataFrame({"user_id": [2, 1], "at": [NOON, NOON], "label": [1.0, 0.0]})
    result = look(two_users(), spine)
    result.loc[:, "label"] = 9.0
    result["user_id"] = 0
    assert spine["label"].tolist() == [1.0, 0.0]
    assert spine["user_id"].tolist() == [2, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_every_column_of_a_pandas_answer_can_be_written_to(count):
    one = pa.table({"whole": [1, 2], "holes": [1, None], "part": [0.5, 1.5], "word": ["a", "b"], "at": [NOON, NOON]})
    for names in (one.column_names, ["part"]):
        table = pa.concat_tables([one.select(names)] * count)
        before = table.to_pylist()
        frame = frames.from_arrow(table, "pandas")
        assert list(frame.columns) == names
        for name in names:
            frame.loc[0, name] = frame[name].iloc[1]
            assert frame[name].isna().iloc[0] == frame[name].isna().iloc[1]
        assert table.to_pylist() == before


def test_only_the_columns_asked_for_are_kept_beside_keys_and_moment():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(two_users())])
    result = hist.using_spine(SPINE, "at", keep_cols=["label"]).to_dataframe()
    assert result.column_names == ["label", "user_id", "at", "x"]
    assert hist.using_spine(SPINE, "at", keep_cols=[]).to_dataframe().column_names == ["user_id", "at", "x"]


def test_features_follow_in_the_order_of_the_lookups():
    two = pa.table({"user_id": [1], "at": [NOON], "a": [1], "b": [2], "c": [3]})
    fg, other = written(two), two_users("other")
    spine = SPINE.select(["user_id", "at"])
    lookups = [FeatureLookup(other), FeatureLookup(fg, features=["c", "a"])]
    assert look(lookups, spine).column_names == ["user_id", "at", "x", "c", "a"]


def test_two_features_of_one_name_are_an_error_that_names_both():
    lookups = [FeatureLookup(two_users("spend")), FeatureLookup(two_users("visits"))]
    with pytest.raises(DefinitionError, match=r"'x'.*'spend'.*'visits'.*prefix=.*rename="):
        look(lookups, SPINE)
    fixed = [lookups[0], FeatureLookup(lookups[1].source, prefix="visits_")]
    assert look(fixed, SPINE)["visits_x"].to_pylist() == EXPECTED


def test_a_feature_named_like_a_column_of_the_spine_is_an_error_that_names_both():
    fg = two_users()
    spine = SPINE.append_column("x", pa.nulls(len(SPINE), pa.int64()))
    with pytest.raises(DefinitionError, match=r"'x'.*spine.*'spend'.*prefix="):
        look(fg, spine)
    assert look([FeatureLookup(fg, rename={"x": "spent"})], spine)["spent"].to_pylist() == EXPECTED


def test_a_prefix_that_makes_a_clash_is_an_error():
    frame = pa.table({"user_id": [1], "at": [NOON], "x": [1], "px": [2]})
    fg = written(frame)
    with pytest.raises(DefinitionError, match="'px'"):
        look([FeatureLookup(fg, features=["px"]), FeatureLookup(fg, features=["x"], prefix="p")], SPINE)


def test_one_group_is_looked_up_in_two_roles():
    fg = two_users()
    spine = pa.table({"origin": [1, 2, 3], "dest": [2, 2, 1], "at": [NOON] * 3})
    lookups = [FeatureLookup(fg, rename={"user_id": role}, prefix=f"{role}_") for role in ("origin", "dest")]
    result = look(lookups, spine)
    assert result["origin_x"].to_pylist() == [10, 20, None]
    assert result["dest_x"].to_pylist() == [20, 20, 10]


def test_a_missing_column_is_an_error_that_says_which_there_are():
    with pytest.raises(DataError, match="user_id"):
        look(two_users(), SPINE.drop(["user_id"]))
    with pytest.raises(DataError, match="'when'"):
        HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(SPINE, "when").to_dataframe()
    with pytest.raises(DataError, match="It is in the index: call reset_index"):
        look("spend", SPINE.to_pandas().set_index("user_id"))
    with pytest.raises(DataError, match="Did you mean 'User_ID'"):
        look("spend", SPINE.rename_columns(["label", "User_ID", "at", "weight"]))


def test_a_csv_file_has_nulls_where_it_has_nothing_and_keeps_leading_zeros(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(
        'user_id,at,zip,word,n\n1,2024-01-01T12:00,007,,1\n1,2024-01-01T13:00,100,"",\n1,2024-01-01T14:00,,NA,3\n'
    )
    found = history(written(str(file)))
    assert found["zip"].to_pylist() == ["007", "100", None]
    assert found["word"].to_pylist() == [None, "", "NA"]
    assert found["n"].to_pylist() == [1, None, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "cannot be read: Empty CSV file"),
        ("rows.parquet", b"PAR1 not really", "cannot be read"),
        ("rows.json", b"{}", "neither .parquet nor .csv"),
        ("rows.csv", b"user_id,at,x\n", "'user_id' holds nothing, so its type is unknown"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        written(file)


def test_an_index_that_pandas_put_into_a_file_is_left_out(tmp_path):
    file = tmp_path / "rows.parquet"
    rows(1, 2).to_pandas().iloc[::-1].to_parquet(file)
    assert history(written(file)).column_names == ["user_id", "at", "x"]


@pytest.mark.parametrize("lookups", [[], "spend", [FeatureLookup("spend"), "visits"]], ids=str)
def test_a_value_that_is_not_a_list_of_lookups_is_refused_at_once(lookups):
    with pytest.raises(DefinitionError, match="takes a list with at least one FeatureLookup"):
        HistoricalFeaturesDuckDB(lookups)


def test_a_value_that_is_not_a_frame_or_an_entity_is_refused_at_once():
    with pytest.raises(DataError, match="Expected a frame, not list"):
        define().set_dataframe([1])
    with pytest.raises(DefinitionError, match="entity='user' of group 'spend' should be created with Entity"):
        FeatureGroupDuckDB("spend", "user")


def as_pandas(table: pa.Table, folder: Path):
    frame = table.to_pandas()
    return frame.astype({"user_id": "Int64"}) if frame["user_id"].hasnans else frame


def as_nullable(table: pa.Table, folder: Path):
    return table.to_pandas().convert_dtypes(dtype_backend="numpy_nullable")


def as_arrow_backed(table: pa.Table, folder: Path):
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def as_parquet(table: pa.Table, folder: Path):
    path = folder / "a 'file' [1].parquet"
    pq.write_table(table, path)
    return path


def as_csv(table: pa.Table, folder: Path):
    path = folder / "file.csv"
    pyarrow.csv.write_csv(table, path)
    return str(path)


KINDS = {
    "pandas": (as_pandas, pd.DataFrame),
    "pandas nullable": (as_nullable, pd.DataFrame),
    "pandas Arrow-backed": (as_arrow_backed, pd.DataFrame),
    "polars": (lambda table, _: pl.from_arrow(table), pl.DataFrame),
    "pyarrow": (lambda table, _: table, pa.Table),
    "duckdb": (lambda table, _: duckdb.from_arrow(table), duckdb.DuckDBPyRelation),
    "parquet": (as_parquet, pd.DataFrame),
    "csv": (as_csv, pd.DataFrame),
}


def values(frame: object, name: str) -> list[object]:
    if isinstance(frame, duckdb.DuckDBPyRelation):
        frame = frame.to_arrow_table()
    column = frame[name]
    found = column.to_list() if hasattr(column, "to_list") else column.to_pylist()
    return [None if pd.isna(value) else value for value in found]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_frame_goes_in_as_rows_and_as_spine_and_the_same_kind_comes_out(kind, tmp_path):
    make, comes_out = KINDS[kind]
    data = pa.table({"user_id": [1, 2], "at": pa.array([NOON, NOON], US), "x": [10, 20], "s": ["é", "NaN"]})
    fg = written(make(data, tmp_path))
    result = look(fg, make(SPINE.select(["user_id", "at"]), tmp_path))
    assert isinstance(result, comes_out)
    assert values(result, "x") == EXPECTED
    assert values(result, "s") == ["NaN", "é", None, None, "NaN"]
    assert history(fg).drop(["at"]).to_pylist() == data.drop(["at"]).to_pylist()


OUTPUTS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table, "duckdb": duckdb.DuckDBPyRelation}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_comes_out_when_it_is_asked_for(kind, tmp_path):
    fg, spine = two_users(), KINDS[kind][0](SPINE.select(["user_id", "at"]), tmp_path)
    for output, comes_out in OUTPUTS.items():
        result = look(fg, spine, output=output)
        assert isinstance(result, comes_out)
        assert values(result, "x") == EXPECTED
        assert values(result, "user_id") == [2, 1, None, 1, 2]


def test_an_unknown_kind_of_output_is_refused():
    with pytest.raises(DefinitionError, match="spark"):
        look(two_users(), SPINE, output="spark")


def test_arrow_backed_pandas_gets_arrow_backed_features():
    spine = SPINE.select(["user_id", "at"]).to_pandas(types_mapper=pd.ArrowDtype)
    assert look(two_users(), spine)["x"].dtype == pd.ArrowDtype(pa.int64())


def test_polars_keeps_its_own_types():
    spine = pl.DataFrame(
        {"user_id": [2, 1], "at": [NOON, NOON], "kind": pl.Series(["a", "b"], dtype=pl.Categorical), "n": [None, 1]}
    )
    assert look(two_users(), spine).drop("x").equals(spine)
    assert look(two_users(), spine).drop("x").schema == spine.schema


@pytest.mark.parametrize(
    "value",
    ["'6d3d3c9e-0a3c-4d27-8bd5-6a5f0d9a0c53'::uuid", "1::hugeint", "'a'::enum('a', 'b')", "'101'::bit", "map {'a': 1}"],
)
def test_duckdb_keeps_its_own_types(value):
    kept = duckdb.sql(f"SELECT 1::bigint AS user_id, TIMESTAMP '2024-01-01 12:00' AS \"at\", {value} AS kept")
    result = look(two_users(), kept)
    assert result.columns == ["user_id", "at", "kept", "x"]
    assert result.types[:3] == kept.types
    assert result.project("kept").fetchall() == kept.project("kept").fetchall()


def test_names_that_differ_in_case_only_do_not_clash_where_case_counts_and_are_an_error_where_not():
    fg = two_users()
    assert look(fg, pa.table({"user_id": [1], "at": [NOON], "X": [0]})).column_names == ["user_id", "at", "X", "x"]
    spine = duckdb.from_arrow(pa.table({"user_id": [1], "at": [NOON], "X": [0]}))
    with pytest.raises(DefinitionError, match="'x'"):
        look(fg, spine)


def test_a_lazy_polars_frame_is_collected():
    spine = pl.LazyFrame({"user_id": [2, 1], "at": [NOON, NOON]})
    assert look(two_users(), spine)["x"].to_list() == [20, 10]


def test_a_list_is_refused_as_a_frame():
    fg = define()
    with pytest.raises(DataError, match="frame"):
        write(fg, [{"user_id": 1, "at": NOON, "x": 1}])
    assert snapshots(fg) == -1


def test_the_history_of_one_group_is_its_rows_by_key_and_time():
    frame = pa.table({"user_id": [2, 1, 1], "at": [NOON, NOON + HOUR, NOON], "x": [3, 2, 1]})
    fg = written(frame)
    assert history(fg).to_pylist() == [
        {"user_id": 1, "at": NOON, "x": 1},
        {"user_id": 1, "at": NOON + HOUR, "x": 2},
        {"user_id": 2, "at": NOON, "x": 3},
    ]
    assert history(fg).schema.equals(frame.schema)


def test_the_history_has_closed_ends_and_a_date_covers_its_day():
    fg = written(rows(1, 2, 3, times=[NOON, datetime(2024, 1, 1, 23, 59, 59, 999999), datetime(2024, 1, 2)]))
    found = history(fg, feature_start_time=NOON, feature_end_time=NOON.date())
    assert found["x"].to_pylist() == [1, 2]
    assert history(fg, feature_start_time="2024-01-02")["x"].to_pylist() == [3]


def test_the_history_of_several_groups_carries_values_forward():
    fg, other = written(rows(1, 3, times=[NOON, NOON + 2 * HOUR])), written(rows(2, times=[NOON + HOUR]), name="other")
    found = history(FeatureLookup(fg), FeatureLookup(other, prefix="other_"))
    assert found.to_pylist() == [
        {"user_id": 1, "at": NOON, "x": 1, "other_x": None},
        {"user_id": 1, "at": NOON + HOUR, "x": 1, "other_x": 2},
        {"user_id": 1, "at": NOON + 2 * HOUR, "x": 3, "other_x": 2},
    ]


def test_the_time_of_groups_that_name_it_differently_is_event_time():
    fg = written(rows(1))
    other = written(rows(2).rename_columns(["user_id", "on", "y"]), name="other", event_time_col="on")
    found = history(fg, other)
    assert found.column_names == ["user_id", "event_time", "x", "y"]
    assert [found["x"].to_pylist(), found["y"].to_pylist()] == [[1], [2]]


def test_groups_with_different_keys_have_no_history_together():
    fg = two_users()
    other = written(pa.table({"shop": [1], "at": [NOON], "y": [1]}), name="other", keys=["shop"])
    with pytest.raises(DefinitionError, match="using_spine"):
        history(fg, other)


@pytest.mark.parametrize("latest", [False, True])
def test_groups_with_keys_of_different_types_have_no_history_together(latest):
    fg = two_users()
    other = written(pa.table({"user_id": ["1"], "at": [NOON], "y": [1]}), name="other")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg), FeatureLookup(other)])
    with pytest.raises((DataError, DefinitionError), match="user_id"):
        (hist.using_latest() if latest else hist).to_dataframe()


@pytest.mark.parametrize("latest", [False, True])
@pytest.mark.parametrize("wide_first", [False, True])
def test_groups_with_whole_number_keys_of_different_width_have_a_history_together(latest, wide_first):
    def keyed(name, user, kind):
        keys = pa.array([user], kind)
        return FeatureLookup(written(pa.table({"user_id": keys, "at": [NOON], name: [user]}), name=name))

    lookups = [keyed("narrow", 1, pa.int32()), keyed("wide", 2**40, pa.int64())]
    hist = HistoricalFeaturesDuckDB(lookups[::-1] if wide_first else lookups)
    found = (hist.using_latest() if latest else hist).to_dataframe(output="arrow")
    assert found["user_id"].to_pylist() == [1, 2**40]
    assert found["narrow"].to_pylist() == [1, None]
    assert found["wide"].to_pylist() == [None, 2**40]


def test_an_interval_limits_what_a_spine_can_see():
    fg = written(rows(1, 2, 3))
    result = look(fg, pa.table({"user_id": [1], "at": [NOON + HOUR]}), feature_start_time=NOON + HOUR)
    assert result["x"].to_pylist() == [2]
    result = look(fg, pa.table({"user_id": [1], "at": [NOON + 9 * HOUR]}), feature_end_time=NOON + HOUR)
    assert result["x"].to_pylist() == [2]
    assert seen(fg, NOON + 9 * HOUR) == [3]


def test_an_interval_that_ends_before_it_starts_is_refused():
    with pytest.raises(DefinitionError, match="before"):
        look(two_users(), SPINE, feature_start_time="2024-01-02", feature_end_time="2024-01-01")


def test_seconds_beyond_milliseconds_are_refused_by_polars_by_name():
    long = pa.array([2**62, 5]).cast(pa.duration("s"))
    fg = written(pa.table({"user_id": [1, 2], "at": [NOON] * 2, "x": long}))
    features = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    assert features.to_dataframe(output="arrow")["x"].cast(pa.int64()).to_pylist() == [2**62, 5]
    with pytest.raises(DataError, match=r"Column 'x' is duration\[s\], .* is not exact in polars"):
        features.to_dataframe(output="polars")


def test_a_column_that_no_keep_cols_can_leave_out_is_refused_without_that_advice():
    """The key is needed, and a feature is no column of the spine."""
    near, far = (pa.array([number]).cast(pa.timestamp("s")) for number in (0, 2**61))
    long = pa.array([2**61]).cast(pa.duration("s"))
    fg = written(pa.table({"user_id": near, "at": [NOON], "x": long}))
    for spine, column in (({"user_id": far}, "user_id"), ({"user_id": near}, "x")):
        with pytest.raises(DataError, match=f"Column '{column}'") as error:
            look(fg, pa.table(spine | {"at": [NOON]}), output="polars")
        assert "keep_cols" not in str(error.value)
    with pytest.raises(DataError, match=r"Column 'note'.*keep_cols="):
        look(fg, pa.table({"user_id": near, "at": [NOON], "note": long}), output="polars")
