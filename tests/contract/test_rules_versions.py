"""Rules 18 to 20: a version is a schema, keeps its data, and takes what fits."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from decimal import Context, Decimal

import pandas as pd
import pyarrow as pa
import pytest

from commands import seeknal
from registries import in_a_file
from seeknal import DataError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, SeeknalWarning

from .world import HOUR, NOON, group, history, look, rows, seen, snapshots, write, written

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.slow

LATER = [NOON + HOUR]
US = pa.timestamp("us")


def changed(fg, frame, *args, **options) -> list[str]:
    """Write a frame of another schema, and return the changes that the result reports."""
    with pytest.warns(SeeknalWarning, match="version"):
        return list(map(str, write(fg, frame, *args, **options).changes))


def online(fg, version: int) -> list[object]:
    """Load a version and return the online features of one user."""
    store = FeatureStore()
    store.groups.load(fg.name, project=fg.project, version=version)
    return store.tables.open(fg.name).get_features([{"user_id": 1}], "dicts")


def test_writing_the_same_schema_makes_no_version():
    fg = written(rows(1, 2, y=["a", "b"]))
    frame = rows(3, y=["c"])
    for same in (frame, frame.to_pandas(), frame.select(["y", "x", "at", "user_id"])):
        for mode in ("append", "merge", "overwrite"):
            assert write(fg, same, mode=mode).changes == ()
        assert history(fg).column_names == ["user_id", "at", "x", "y"]
    write(fg, frame.slice(0, 0), mode="append")
    assert fg.version == 1


@pytest.mark.parametrize(
    ("wide", "kind"),
    [(pa.int64(), pa.int8()), (pa.int64(), pa.int32()), (pa.int64(), pa.uint32()), (pa.float64(), pa.float32())],
    ids=str,
)
def test_a_narrower_type_fits_the_wider_one_and_makes_no_version(wide, kind):
    fg = written(rows(1).set_column(2, "x", pa.array([1], wide)))
    narrow = rows(2, times=LATER).set_column(2, "x", pa.array([2], kind))
    assert write(fg, narrow, mode="append").version == 1
    assert seen(fg, NOON, *LATER) == [1, 2]


def test_other_zones_and_units_of_the_event_time_make_no_version():
    fg = written(rows(1))
    for i, kind in enumerate([pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms", tz="Asia/Tokyo")]):
        times = pa.array([NOON], US).cast(kind)
        assert write(fg, rows(i, times=times), mode="append").version == 1
        assert seen(fg, NOON) == [i]


@in_a_file
def test_schemas_as_they_were_written_at_first_are_still_read(home):
    fg = written(rows(1, 2, y=["a", "b"]))
    (now,) = FeatureStore().groups.versions(fg.name, project=fg.project)
    with closing(sqlite3.connect(home / "registry.db")) as db, db:
        db.execute("UPDATE snapshot SET schema_text = ?", [json.loads(now.schema_text)["arrow"]])
    (then,) = FeatureStore().groups.versions(fg.name, project=fg.project)
    assert not then.schema_text.startswith("{")
    assert (then.schema, then.columns) == (now.schema, now.columns)
    assert now.columns == now.schema.describe()
    assert write(fg, rows(3, y=["c"]), mode="append").changes == ()


def test_changing_ttl_or_description_makes_no_version():
    fg = written(rows(1))
    other = group(ttl=HOUR)
    other.description = "What a user spends."
    with pytest.warns(SeeknalWarning, match="now has ttl=1:00:00; it had ttl=None"):
        write(other, rows(1))
    assert fg.version == 1
    assert seen(other, NOON + 2 * HOUR) == [None]


def test_a_lookup_by_a_definition_that_is_not_registered_says_which_ttl_holds():
    written(rows(1), ttl=HOUR)
    with pytest.warns(SeeknalWarning, match="has no ttl, but the registered ttl of 1:00:00 applies"):
        assert seen(group(), NOON + 2 * HOUR) == [None]


def test_a_description_that_is_left_out_stays():
    fg = written(rows(1))
    fg.description = "What a user spends."
    fg.get_or_create()
    write(group(), rows(2))
    assert FeatureStore().core.catalog.group("spend").group.description == "What a user spends."


def test_whole_numbers_are_written_to_a_float_feature_if_each_is_exact():
    fg = written(rows(0.5, None))
    assert write(fg, rows(3, times=LATER), mode="append").changes == ()
    assert seen(fg, NOON, LATER[0]) == [0.5, 3.0]
    with pytest.raises(DataError, match="double and cannot become int64"):
        write(fg, rows(2**53 + 1, times=LATER), mode="append")


def test_a_feature_that_seems_renamed_is_pointed_out():
    fg = written(rows(1, balance=[1.0]))
    with pytest.warns(SeeknalWarning, match=r"Is 'Balanse' meant to be 'balance'\? Then run: (.*), and write") as told:
        write(fg, rows(2, times=LATER, Balanse=[2.0]), mode="append")
    _, *command = re.search("Then run: (.*), and write", str(told[0].message))[1].split()
    assert seeknal(*command).returncode == 0  # the advice, followed, loses no row
    write(fg, rows(2, times=LATER, balance=[2.0]), mode="append")
    assert history(fg)["balance"].to_pylist() == [1.0, 2.0]


def test_an_added_feature_makes_a_version_in_which_older_rows_read_null():
    fg = written(rows(1))
    assert changed(fg, rows(2, times=LATER, y=["b"]), mode="append") == ["added y (string)"]
    assert fg.version == 2
    assert history(fg).drop(["user_id", "at"]).to_pylist() == [{"x": 1, "y": None}, {"x": 2, "y": "b"}]


def test_a_removed_feature_is_hidden_from_the_new_version_and_kept_in_the_old():
    fg = written(rows(1, y=["a"]))
    assert changed(fg, rows(2, times=LATER), mode="append") == ["removed y"]
    assert history(fg).column_names == ["user_id", "at", "x"]
    assert history(fg)["x"].to_pylist() == [1, 2]
    assert online(fg, 1) == [{"user_id": 1, "x": 1, "y": "a"}]
    assert online(fg, 2) == [{"user_id": 1, "x": 2}]


def test_a_feature_that_comes_back_reads_null_in_all_rows_from_before():
    fg = written(rows(1, y=["a"]))
    changed(fg, rows(2, times=LATER), mode="append")
    changed(fg, rows(3, times=[NOON + 2 * HOUR], y=["c"]), mode="append")
    assert fg.version == 3
    assert history(fg)["y"].to_pylist() == [None, None, "c"]


def test_a_feature_may_come_back_with_another_type():
    fg = written(rows(1, y=["a"]))
    changed(fg, rows(2, times=LATER), mode="append")
    changed(fg, rows(3, times=LATER, y=[1.5]), mode="append")
    assert history(fg)["y"].to_pylist() == [None, 1.5]


WIDER = [
    (pa.int32(), pa.int64(), [1, None, 2**31 - 1], 2**40),
    (pa.uint32(), pa.int64(), [1, None, 2**32 - 1], -1),
    (pa.uint32(), pa.uint64(), [1, None, 2**32 - 1], 2**40),
    (pa.float32(), pa.float64(), [0.5, None, float("inf")], 0.1),
    (pa.decimal128(4, 2), pa.decimal128(38, 4), ["1.25", None, "-99.99"], Decimal("0.0001")),
    (pa.timestamp("s"), pa.timestamp("ns"), [NOON, None, NOON], pd.Timestamp("2024-01-01 00:00:00.000000001")),
    (pa.list_(pa.int32()), pa.list_(pa.int64()), [[1], None, [None]], [2**40]),
    (pa.list_(pa.float32(), 2), pa.list_(pa.float32()), [[1, 2], None, [None, 0]], [1]),
]


@pytest.mark.parametrize(("narrow", "wide", "values", "wider"), WIDER, ids=str)
def test_a_wider_type_makes_a_version_and_converts_what_is_stored(narrow, wide, values, wider):
    given = pa.array(values).cast(narrow) if pa.types.is_decimal(narrow) else pa.array(values, narrow)
    fg = written(rows(*values, times=[NOON, NOON + HOUR, NOON + 2 * HOUR]).set_column(2, "x", given))
    new = rows(None, times=[NOON + 3 * HOUR]).set_column(2, "x", pa.array([wider], wide))
    assert changed(fg, new, mode="append") == [f"modified x ({narrow} to {wide})"]
    found = history(fg)["x"].combine_chunks()
    assert found.type == wide
    assert found.slice(0, 3).equals(given.cast(wide))


NARROWER = [
    (pa.int64(), pa.float64(), 0.5),
    (pa.float64(), pa.int64(), 2**53 + 1),
    (pa.int64(), pa.string(), "a"),
    (pa.string(), pa.int64(), 1),
    (pa.bool_(), pa.int64(), 1),
    (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), [1.0] * 3),
    (pa.list_(pa.int64()), pa.int64(), 1),
    (US, pa.timestamp("us", tz="UTC"), NOON),
    (pa.struct([("a", pa.int64())]), pa.struct([("b", pa.int64())]), {"b": 1}),
]


@pytest.mark.parametrize(("old", "new", "value"), NARROWER, ids=str)
def test_any_other_change_of_type_is_refused_with_the_difference_and_the_ways_out(old, new, value):
    fg = written(rows(None).set_column(2, "x", pa.nulls(1, old)))
    with pytest.raises(DataError) as error:
        write(fg, rows(None).set_column(2, "x", pa.array([value], new)), mode="append")
    for part in ("'x'", str(old), str(new), "Cast", "another name", "new group"):
        assert part in str(error.value)
    assert snapshots(fg) == 1


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@pytest.mark.parametrize("old", [pa.int64(), pa.uint64(), pa.int16(), pa.uint16()], ids=str)
@pytest.mark.parametrize("new", [pa.int64(), pa.uint64(), pa.int32(), pa.uint32()], ids=str)
def test_whole_numbers_with_a_sign_and_without_are_taken_if_each_fits(old, new):
    fg = written(rows(1).set_column(2, "x", pa.array([1], old)))
    fits = rows(0, times=LATER).set_column(2, "x", pa.array([5], new))
    write(fg, fits, mode="append")
    assert seen(fg, NOON, *LATER) == [1, 5]
    now = history(fg).schema.field("x").type
    far = 2**64 - 1 if new == pa.uint64() else -1
    try:
        pa.array([far], new).cast(now)
    except pa.ArrowInvalid:
        with pytest.raises(DataError, match=f"'x' .*beyond the range of {now}"):
            write(fg, fits.set_column(2, "x", pa.array([far], new)), mode="append")
    except OverflowError:
        assert pa.types.is_unsigned_integer(new)


ADVISED = [
    (pa.int64(), [1.0, None]),
    (pa.int32(), ["7", "8"]),
    (pa.int32(), [0.5, 2.25]),
    (pa.uint64(), [1.0, None]),
    (pa.float64(), ["1.5", "2"]),
    (pa.float32(), [2**24 + 1, 1]),
    (pa.float16(), [2049, 1]),
    (pa.bool_(), [1, 0]),
    (pa.bool_(), [1.0, None]),
    (pa.string(), [1, 2]),
    (pa.string(), [True, False]),
]


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@pytest.mark.parametrize(("known", "values"), ADVISED, ids=str)
def test_the_advised_cast_works(known, values):
    fg = written(rows(None).set_column(2, "x", pa.nulls(1, known)))
    frame = pd.DataFrame({"user_id": [1, 1], "at": [NOON + HOUR, NOON + 2 * HOUR], "x": values})
    with pytest.raises(DataError, match="'x'") as error:
        write(fg, frame, mode="append")
    advised = re.search(r"pandas: (\.round\(\))?\.astype\('(\w+)'\)", str(error.value))
    cast = frame.assign(x=frame["x"].round()) if advised and advised[1] else frame
    cast = cast.astype({"x": advised[2] if advised else "Float64"})
    write(fg, cast, mode="append")
    assert [str(value) for value in seen(fg, *frame["at"])] == [str(None if pd.isna(v) else v) for v in cast["x"]]


FLOATS = [
    (pa.float16(), pa.int64(), 2049, "2049 is not exact"),
    (pa.float16(), pa.int8(), 127, None),
    (pa.float16(), pa.int64(), -(2**63), "is not exact"),
    (pa.float16(), pa.float64(), 65519.0, None),
    (pa.float16(), pa.float64(), -1e6, "-1000000.* is out of range"),
    (pa.float16(), pa.float32(), float("inf"), None),
    (pa.float32(), pa.int64(), 2**25, None),
    (pa.float32(), pa.uint64(), 2**64 - 1, "is not exact"),
    (pa.float32(), pa.int64(), 16777217, "16777217 is not exact"),
    (pa.float32(), pa.float64(), 1e300, "is out of range"),
    (pa.float64(), pa.int64(), 2**53 + 1, "is not exact"),
    (pa.float64(), pa.int64(), 2**63 - 1, "is not exact"),
    (pa.float64(), pa.uint64(), 2**63, None),
]


@pytest.mark.parametrize(("known", "given", "value", "message"), FLOATS, ids=str)
def test_no_number_becomes_another_or_infinite_in_a_narrower_float(known, given, value, message):
    fg = group().set_features(pa.schema([("x", known)])).set_dataframe(rows(1.5))
    fg.write()
    for mode in ("append", "merge", "overwrite"):
        fg.set_dataframe(rows(None).set_column(2, "x", pa.array([value], given)))
        if message:
            with pytest.raises(DataError, match=f"'x'.*{message}"):
                fg.write(mode=mode)
            assert snapshots(fg) == 1
        else:
            fg.write(mode=mode)
            assert seen(fg, NOON) == [pa.array([value], given).cast(known, safe=False)[0].as_py()]


@pytest.mark.parametrize("known", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_whole_numbers_in_lists_and_structs_are_exact_in_floats_or_refused(known):
    least = {16: 2**11 + 1, 32: 2**24 + 1, 64: 2**53 + 1}[known.bit_width]
    for name, old, new, put in (
        ("lists", pa.list_(known), pa.list_(pa.int64()), lambda value: [None, value]),
        ("structs", pa.struct([("a", known)]), pa.struct([("a", pa.int64())]), lambda value: {"a": value}),
    ):
        fg = written(rows(None).set_column(2, "x", pa.nulls(1, old)), name=name)
        for value in (least, 2**63 - 1, -(2**63) + 1):
            with pytest.raises(DataError, match="'x'"):
                write(fg, rows(None).set_column(2, "x", pa.array([put(value)], new)), mode="append")
        exact = rows(None, times=LATER).set_column(2, "x", pa.array([put(least - 1)], new))
        assert write(fg, exact, mode="append").changes == ()
        assert seen(fg, *LATER) == [put(least - 1)]


TYPES = [
    pa.string(),
    pa.int64(),
    pa.bool_(),
    pa.float64(),
    pa.date32(),
    pa.timestamp("s", "Asia/Tokyo"),
    pa.list_(pa.int8()),
]


@pytest.mark.parametrize("given", [*TYPES, pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("known", TYPES, ids=str)
def test_a_column_of_missing_values_alone_fits_every_feature_whatever_its_type(known, given):
    nothing = pa.nulls(1, given)
    if pa.types.is_dictionary(given):
        nothing = pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), ["a"])
    fg = written(rows(None).set_column(2, "x", pa.nulls(1, known)))
    assert write(fg, rows(None, times=LATER).set_column(2, "x", nothing), mode="append").changes == ()
    assert write(fg, rows(None, times=LATER).set_column(2, "x", nothing), mode="merge").changes == ()
    assert history(fg).schema.field("x").type == known
    assert seen(fg, *LATER) == [None]
    declared = group("declared").set_features(pa.schema([("x", known)]))
    declared.set_dataframe(rows(None).set_column(2, "x", nothing)).write()
    assert history(declared).schema.field("x").type == known


DECIMALS = [
    ("9.99", "12.5", pa.decimal128(4, 2)),
    ("12.5", "9.99", pa.decimal128(4, 2)),
    ("1", "0.001", pa.decimal128(4, 3)),
    ("9" * 36, "0.25", pa.decimal128(38, 2)),
]


@pytest.mark.parametrize(("first", "then", "kind"), DECIMALS, ids=str)
def test_decimals_of_growing_precision_widen_in_both_directions(first, then, kind):
    fg = written(rows(Decimal(first)).to_pandas())
    made = changed(fg, rows(Decimal(then), times=LATER).to_pandas(), mode="append")
    assert made == [f"modified x ({pa.array([Decimal(first)]).type} to {kind})"]
    assert history(fg).schema.field("x").type == kind
    assert seen(fg, NOON, *LATER) == [Decimal(first), Decimal(then)]


def test_decimals_in_lists_and_structs_widen_too():
    fg = written(rows([{"a": Decimal("9.99")}]))
    changed(fg, rows([{"a": Decimal("12.5")}], times=LATER), mode="append")
    assert seen(fg, NOON, *LATER) == [[{"a": Decimal("9.99")}], [{"a": Decimal("12.5")}]]


@pytest.mark.parametrize("given", [Decimal("1.5"), 7, Decimal("1E+1"), None], ids=str)
def test_values_that_fit_a_decimal_take_its_type_and_make_no_version(given):
    fg = written(rows(Decimal("99.99")))
    column = pa.array([given], pa.int64() if isinstance(given, int) else pa.decimal128(30, 10))
    assert write(fg, rows(1, times=LATER).set_column(2, "x", column), mode="append").changes == ()
    assert seen(fg, *LATER) == [given]


def test_decimals_that_need_too_many_digits_are_refused_with_advice_that_works_when_it_is_followed():
    fg = written(rows(Decimal("9" * 30 + ".1234")))
    frame = pd.DataFrame({"user_id": [1, 1], "at": LATER * 2, "x": [Decimal("9" * 20 + ".123456789"), None]})
    with pytest.raises(DataError, match="more than 38 digits") as error:
        write(fg, frame, mode="append")
    advised = re.search(r"pandas: \.(map\(.*na_action='ignore'\))", str(error.value))[1]
    rounded = frame.assign(x=eval(f"frame['x'].{advised}", {"frame": frame, "Decimal": Decimal, "Context": Context}))
    assert write(fg, rounded, mode="append").changes == ()
    assert [row["x"] for row in FeatureStore().groups.sample(fg.name, limit=9).to_pylist()].count(
        Decimal("9" * 20 + ".1235")
    ) == 1


MISSING = {
    "text": "a",
    "number": 5,
    "bool": True,
    "moment": pd.Timestamp(NOON),
    "list": [1],
    "zoned": pd.Timestamp(NOON, tz="UTC"),
}


@pytest.mark.parametrize("empty", [float("nan"), pd.NaT, None], ids=str)
@pytest.mark.parametrize("known", MISSING.values(), ids=MISSING)
def test_a_column_that_pandas_made_of_missing_values_alone_takes_the_known_or_the_declared_type(known, empty):
    frame = pd.DataFrame({"user_id": [1], "at": [NOON], "x": [known]})
    nothing = frame.assign(at=LATER, x=empty)
    fg = written(frame)
    kind = history(fg).schema.field("x").type
    assert write(fg, nothing, mode="append").changes == ()
    fg.push(nothing.assign(at=NOON + 2 * HOUR))
    assert history(fg)["x"].to_pylist()[1:] == [None, None]
    other = group("declared")
    other.set_dataframe(nothing).set_features(pa.schema([("x", kind)])).write()
    assert history(other).schema.field("x").type == kind


def test_moments_that_are_all_missing_are_missing():
    fg = written(rows(1, made=[NOON]), created_time_col="made")
    frame = pd.DataFrame({"user_id": [1], "at": [NOON + HOUR], "x": [2], "made": [float("nan")]})
    assert write(fg, frame, mode="append").changes == ()
    spine = pd.DataFrame({"user_id": [1], "at": [float("nan")]})
    assert look(fg, spine)["x"].tolist() == [pd.NA]


def test_a_key_cannot_change_its_kind_but_may_widen():
    fg = written(rows(1).set_column(0, "user_id", pa.array([1], pa.int32())))
    with pytest.raises(DataError, match="user_id"):
        write(fg, rows(1, user="1"), mode="append")
    assert changed(fg, rows(2, user=2**40), mode="append") == ["modified user_id (int32 to int64)"]
    assert seen(fg, NOON, user=1) == [1]
    assert seen(fg, NOON, user=2**40) == [2]
    assert online(fg, 2) == [{"user_id": 1, "x": 1}]


def test_a_date_may_become_a_time():
    fg = written(rows(1, times=pa.array([NOON.date()])))
    changed(fg, rows(2, times=[NOON]), mode="append")
    assert seen(fg, NOON.replace(hour=0), NOON) == [1, 2]


def test_only_a_part_is_overwritten_when_the_schema_changes():
    fg = written(rows(1, 2, 3))
    changed(fg, rows(9, times=LATER, y=["n"]), *LATER, *LATER)
    found = history(fg)
    assert found["x"].to_pylist() == [1, 9, 3]
    assert found["y"].to_pylist() == [None, "n", None]


def test_merging_with_another_schema_merges():
    fg = written(rows(1, 2))
    changed(fg, rows(9, times=LATER, y=["n"]), mode="merge")
    assert history(fg)["x"].to_pylist() == [1, 9]
    assert FeatureStore().groups.versions(fg.name)[-1].rows == 2


def test_ties_keep_their_order_when_the_schema_changes():
    fg = written(rows(1, 2, 3, times=[NOON] * 3))
    changed(fg, rows(4, times=LATER, y=["n"]), mode="append")
    assert seen(fg, NOON) == [3]


def test_a_version_keeps_its_data_whatever_is_written_later():
    fg = written(rows(1, y=["a"]))
    write(fg, rows(2, y=["b"]))
    changed(fg, rows(3))
    write(fg, rows(4))
    changed(fg, rows(5, z=[True]))
    assert online(fg, 1) == [{"user_id": 1, "x": 2, "y": "b"}]
    assert online(fg, 2) == [{"user_id": 1, "x": 4}]
    assert online(fg, 3) == [{"user_id": 1, "x": 5, "z": True}]
    assert [version.number for version in FeatureStore().groups.versions(fg.name)] == [1, 2, 3]
    assert list(map(str, FeatureStore().groups.diff(fg.name, 1, 3))) == ["removed y", "added z (bool)"]


def test_an_older_versions_sample_can_be_looked_at():
    fg = written(rows(1, y=["a"]))
    changed(fg, rows(3))
    assert FeatureStore().groups.sample(fg.name, limit=5, version=1).column_names == ["user_id", "at", "x", "y"]


def test_a_written_subset_of_the_columns_is_the_schema():
    fg = group()
    fg.set_dataframe(rows(1, y=["a"], z=[1])).set_features(["z", "x"]).write()
    assert history(fg).column_names == ["user_id", "at", "z", "x"]
    assert look([FeatureLookup(fg, features=["x"])], pa.table({"user_id": [1], "at": [NOON]})).column_names[2:] == ["x"]


def test_the_current_version_is_what_a_training_set_and_a_new_table_read():
    fg = written(rows(1, y=["a"]))
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(name="pinned")
    changed(fg, rows(2))
    assert seen(fg, NOON) == [2]
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 1, "y": "a"}]
