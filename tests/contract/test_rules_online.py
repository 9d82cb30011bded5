"""Rules 21 to 23: online answers are offline answers of now, one per asked key, whole at once."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from seeknal import (
    DataError,
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    SeeknalWarning,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.values.times import Interval, instant, microseconds

from .world import HOUR, MICROSECOND, NOON, finished, group, python, rows, write, written


def serve(*sources, **options) -> OnlineFeaturesDuckDB:
    lookups = [one if isinstance(one, FeatureLookup) else FeatureLookup(one) for one in sources]
    return HistoricalFeaturesDuckDB(lookups).serve(**options)


def answer(table, *users):
    return [row["x"] for row in table.get_features([{"user_id": user} for user in users], "dicts")]


def three_users() -> pa.Table:
    return pa.table({"user_id": [1, 2, 3], "at": [NOON] * 3, "x": [10, 20, 30], "s": ["a", None, ""]})


def test_there_is_one_row_per_asked_key_in_order_with_duplicates():
    table = serve(written(three_users()))
    assert answer(table, 3, 1, 99, 3, None, 2) == [30, 10, None, 30, None, 20]
    assert answer(table) == []


def test_an_unknown_entity_has_nulls_and_its_key():
    found = serve(written(three_users())).get_features([{"user_id": 99}], "dicts")
    assert found == [{"user_id": 99, "x": None, "s": None}]


def test_the_answer_has_the_keys_first_and_the_features_in_their_order():
    found = serve(written(three_users())).get_features([{"user_id": 1}])
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["user_id", "x", "s"]


def test_every_output_has_the_same_values():
    table = serve(written(three_users()))
    for output, kind in {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table, "dicts": list}.items():
        found = table.get_features([{"user_id": 2}, {"user_id": 9}], output)
        assert type(found) is kind
        as_rows = found if output == "dicts" else pa.table(found).to_pylist()
        assert [(row["user_id"], row["x"]) for row in as_rows] == [(2, 20), (9, None)]


def test_keys_can_be_a_frame():
    table = serve(written(three_users()))
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        assert table.get_features(make({"user_id": [3, 9, 1]}), "arrow")["x"].to_pylist() == [30, None, 10]


def test_other_columns_of_a_frame_of_keys_are_left_out():
    table = serve(written(three_users()))
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        frame = make({"more": [[1], [2]], "user_id": [3, 1], "x": [7, 7]})
        assert table.get_features(frame, "arrow").select(["user_id", "x"]).to_pylist() == [
            {"user_id": 3, "x": 30},
            {"user_id": 1, "x": 10},
        ]


def test_all_keys_that_are_missing_are_named():
    frame = pa.table({"a": [1], "b": [1], "c": [1], "at": [NOON], "x": [1]})
    table = serve(written(frame, keys=["a", "b", "c"]))
    for keys in (pa.table({"a": [1]}), [{"a": 1}]):
        with pytest.raises(DataError, match=r"'spend' are a, b and c; 'b' and 'c' are missing"):
            table.get_features(keys)
    with pytest.raises(DataError, match=r"'B' is not a join key, and 'b' is missing\. Did you mean 'b'\?"):
        table.get_features([{"a": 1, "B": 1, "c": 1}])


def test_a_mapping_with_defaults_lacks_the_keys_that_it_does_not_contain():
    table = serve(written(three_users()))
    for given in ({}, {"user": 1}):
        with pytest.raises(DataError, match="The join key of online table 'spend' is user_id; 'user"):
            table.get_features([defaultdict(int, given)], "dicts")
        with pytest.raises(DataError, match="The join key of online table 'spend' is user_id; 'user"):
            table.get_features([defaultdict(int, given), {"user_id": 1}], "arrow")


def test_groups_of_one_name_in_two_projects_have_a_status_each():
    elsewhere = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at"), "elsewhere")
    FeatureStore().groups.write(elsewhere, rows(2, user=2))
    lookups = [FeatureLookup(written(rows(1))), FeatureLookup("elsewhere/spend", prefix="t_")]
    table = HistoricalFeaturesDuckDB(lookups).serve("both")
    found = table.get_features([{"user_id": 1}], "dicts", with_status=True)[0]
    assert {name: value for name, value in found.items() if name.endswith("_status")} == {
        "shop_spend_user_id_1_status": "found",
        "elsewhere_spend_user_id_1_status": "not_found",
    }


def test_keys_of_another_form_are_refused():
    table = serve(written(three_users()))
    wrong = [
        ({"user_id": 1}, "keys is a single mapping. Pass a list"),
        ([{"user": 1}], "is user_id; 'user' is not a join key, and 'user_id' is missing"),
        ([{}], "is user_id; 'user_id' is missing"),
        ([{"user_id": 1, "more": 2}], "'more' is not a join key"),
        ([1], "1 is not a mapping. Pass {'user_id'"),
        ([{"user_id": "1"}], "user_id is int64, and '1' in row 0 of the keys asked for does not fit"),
        ([{"user_id": 1.0}], "user_id is int64, and 1.0 in row 0 of the keys asked for does not fit"),
        ([{"user_id": []}], "user_id is int64, and .* in row 0 of the keys asked for does not fit"),
    ]
    for keys, message in wrong:
        with pytest.raises(DataError, match=message):
            table.get_features(keys)


def test_an_unknown_output_is_refused():
    table = serve(written(three_users()))
    with pytest.raises(DefinitionError, match="polars"):
        table.get_features([{"user_id": 1}], "spark")


def test_composite_keys_are_given_by_name_in_any_order():
    frame = pa.table({"a": [1, 2], "b": ["x", "x"], "at": [NOON] * 2, "x": [1, 2]})
    table = serve(written(frame, keys=["a", "b"]))
    found = table.get_features([{"b": "x", "a": 2}, {"a": 1, "b": "y"}], "dicts")
    assert found == [{"a": 2, "b": "x", "x": 2}, {"a": 1, "b": "y", "x": None}]


def test_the_newest_row_wins_whatever_the_order_of_writing():
    fg = written(rows(1, 2))
    assert answer(serve(fg), 1) == [2]
    write(fg, rows(0, times=[NOON - HOUR]), mode="append")
    assert answer(serve(fg), 1) == [2]
    write(fg, rows(3, times=[NOON + HOUR]), mode="append")
    assert answer(serve(fg), 1) == [3]


def test_a_newest_value_that_is_null_is_null():
    assert answer(serve(written(rows(1, None))), 1) == [None]


def test_the_greatest_created_time_wins_online():
    fg = written(rows(1, 2, times=[NOON] * 2, made=[NOON + HOUR, NOON]), created_time_col="made")
    assert answer(serve(fg), 1) == [1]


def test_a_row_that_was_overwritten_is_gone_after_the_next_load():
    fg = written(rows(1, 2))
    table = serve(fg)
    write(fg, rows(5, times=[NOON]))
    FeatureStore().groups.load("spend")
    assert answer(table, 1) == [5]
    with pytest.warns(SeeknalWarning, match="An overwrite replaced 1 row of shop/spend by 0 rows"):
        write(fg, rows(5, times=[NOON]).slice(0, 0))
    FeatureStore().groups.load("spend")
    assert answer(table, 1) == [None]


def test_rows_of_the_future_do_not_go_online_until_their_time_has_come():
    with pytest.warns(SeeknalWarning, match="1 row dated after now"):
        fg = written(rows(1, 2, times=[NOON, datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)]))
    assert answer(serve(fg), 1) == [1]


@pytest.mark.parametrize("form", ["naive", "UTC", "America/New_York", "date", "text"])
def test_a_ttl_counts_online_to_the_microsecond(form):
    made = {
        "date": pa.array([date(2024, 1, 1)]),
        "text": pa.array(["2024-01-01T07:00:00+07:00"]),
        "naive": pa.array([datetime(2024, 1, 1)]),
    }
    zoned = pa.array([datetime(2024, 1, 1, tzinfo=UTC)]).cast(pa.timestamp("us", tz=form if "/" in form else "UTC"))
    fg = written(rows(1, times=made.get(form, zoned)), ttl=HOUR)
    table = FeatureStore().tables.serve([FeatureLookup(fg)])
    edge = instant("2024-01-01") + microseconds(HOUR)
    found = [table.get_features([{"user_id": 1}], "dicts", at=moment)[0]["x"] for moment in (edge, edge + 1)]
    assert found == [1, None]


def test_an_expired_newest_row_hides_older_ones_online_too():
    now = datetime.now(UTC)
    fg = written(rows(1, 2, times=[now - 3 * HOUR, now - 2 * HOUR]), ttl=HOUR)
    assert answer(serve(fg), 1) == [None]
    assert answer(serve(fg, name="longer", ttl=3 * HOUR), 1) == [2]


def test_several_groups_are_served_as_one_table():
    users = written(three_users(), name="users")
    shops = written(pa.table({"shop": ["a"], "at": [NOON], "y": [1]}), name="shops", keys=["shop"])
    table = serve(FeatureLookup(users, features=["x"]), shops, name="both")
    found = table.get_features([{"user_id": 2, "shop": "a"}, {"user_id": 9, "shop": "a"}], "dicts")
    assert found == [{"user_id": 2, "shop": "a", "x": 20, "y": 1}, {"user_id": 9, "shop": "a", "x": None, "y": 1}]


def test_one_group_is_served_in_two_roles():
    fg = written(three_users())
    lookups = [FeatureLookup(fg, ["x"], rename={"user_id": role}, prefix=f"{role}_") for role in ("buyer", "seller")]
    table = serve(*lookups, name="roles")
    found = table.get_features([{"buyer": 1, "seller": 3}], "dicts")
    assert found == [{"buyer": 1, "seller": 3, "buyer_x": 10, "seller_x": 30}]


def test_names_that_clash_are_refused_when_they_are_served():
    one, other = written(three_users(), name="one"), written(three_users(), name="other")
    with pytest.raises(DefinitionError, match=r"'x'.*'one'.*'other'"):
        serve(one, other, name="both")


def test_groups_whose_shared_key_has_two_types_cannot_be_asked_together():
    """Or both are answered: but never one of them with nothing."""
    one = written(three_users().rename_columns(["user_id", "at", "y", "z"]), name="one")
    other = written(rows(5, user="1"), name="other")
    with pytest.raises((DataError, DefinitionError), match="user_id"):
        serve(one, other, name="both").get_features([{"user_id": 1}])


def test_a_group_that_is_online_is_loaded_by_every_write():
    fg = group(online=True)
    assert write(fg, rows(1)).online_rows == 1
    assert answer(OnlineFeaturesDuckDB("spend"), 1) == [1]
    write(fg, rows(2, times=[NOON + HOUR]), mode="append")
    assert answer(OnlineFeaturesDuckDB("spend"), 1) == [2]


def test_a_served_table_keeps_its_features_until_it_is_served_again():
    fg = written(rows(1))
    table = serve(fg)
    with pytest.warns(SeeknalWarning, match="version 2"):
        write(fg, rows(2, y=["b"]))
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 1}]
    with pytest.warns(SeeknalWarning, match="x, y of spend version 2. It had x of spend version 1"):
        moved = serve(fg)
    assert moved.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 2, "y": "b"}]


def test_a_table_whose_rows_were_deleted_says_so_instead_of_answering_nulls():
    fg = written(rows(1))
    table = serve(fg)
    FeatureStore().tables.delete("spend")
    with pytest.raises(DefinitionError, match="'shop/spend' is not online"):
        answer(table, 1)
    again = serve(fg)
    fg.delete()
    with pytest.raises(DefinitionError, match="Serve it again"):
        answer(again, 1)


def test_online_equals_a_spine_dated_now():
    fg = written(three_users().append_column("d", pa.array([Decimal("1.10"), None, Decimal("0.01")])), ttl=HOUR)
    late = three_users().set_column(1, "at", pa.array([datetime.now(UTC)] * 3))
    write(fg, late.append_column("d", pa.array([Decimal("1.10"), None, Decimal("0.01")])).slice(1), mode="append")
    spine = pa.table({"user_id": [3, 9, 1, 2], "at": [datetime.now(UTC)] * 4})
    offline = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "at").to_dataframe().drop(["at"])
    online = serve(fg).get_features(spine.select(["user_id"]), "arrow")
    assert online.equals(offline.combine_chunks()) or online.to_pylist() == offline.to_pylist()
    assert online.schema.equals(offline.schema)


LOADER = """
import sys, datetime, pyarrow as pa
from seeknal import Entity, FeatureGroupDuckDB, FeatureStore, HistoricalFeaturesDuckDB, FeatureLookup, Materialization
who = int(sys.argv[1])
materialization = Materialization(event_time_col="at", online=True)
fg = FeatureGroupDuckDB("spend", Entity("spend_entity", ["user_id"]), materialization, "shop")
for i in range(3):
    at = datetime.datetime(2024, 1, 1, i)
    fg.set_dataframe(pa.table({"user_id": [who], "at": [at], "x": [i]})).set_features().write(mode="append")
"""


@pytest.mark.slow
def test_loads_of_several_processes_at_once_all_show():
    fg = group(online=True)
    write(fg, rows(7, user=0))
    table = OnlineFeaturesDuckDB("spend")
    assert answer(table, 0, 1, 2) == [7, None, None]
    for process in [python(LOADER, "1"), python(LOADER, "2")]:
        finished(process)
    assert answer(table, 0, 1, 2) == [7, 2, 2]


READER = """
import sys
from seeknal import OnlineFeaturesDuckDB
table = OnlineFeaturesDuckDB("spend")
print("ready", flush=True)
keys = [{"user_id": i} for i in range(200)]
seen = set()
while 12 not in seen:
    found = {row["x"] for row in table.get_features(keys, "dicts")}
    assert len(found) == 1, found
    seen |= found
print(sorted(seen)[-1])
"""


@pytest.mark.slow
def test_a_reader_in_another_process_sees_each_load_whole():
    fg = group(online=True)

    def load(value: int) -> None:
        write(fg, pa.table({"user_id": list(range(200)), "at": [NOON] * 200, "x": [value] * 200}))

    load(1)
    reader = python(READER)
    assert reader.stdout.readline() == "ready\n"
    for value in range(2, 13):
        load(value)
    assert finished(reader) == "12\n"


def test_a_reader_in_another_thread_sees_each_load_whole():
    fg = group(online=True)
    users = list(range(100))
    frame = pa.table({"user_id": users, "at": [NOON] * 100, "x": [0] * 100})
    write(fg, frame)
    table, torn = OnlineFeaturesDuckDB("spend"), []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = set(answer(table, *users))
            torn.extend([found] if len(found) != 1 else [])

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 8):
        write(fg, frame.set_column(2, "x", pa.array([value] * 100)))
    stop.set()
    reader.join()
    assert torn == []
    assert answer(table, 0, 99) == [7, 7]


def test_a_span_that_is_loaded_stands_beside_those_loaded_before():
    fg = written(pa.table({"user_id": [1, 2, 3], "at": [NOON, NOON + HOUR, NOON + 2 * HOUR], "x": [1, 2, 3]}))
    store = FeatureStore()
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, NOON + HOUR))
    table = OnlineFeaturesDuckDB("spend")
    assert answer(table, 1, 2, 3) == [None, 2, None]
    store.groups.load("spend", interval=Interval.between(NOON, NOON + HOUR - MICROSECOND))
    assert answer(table, 1, 2, 3) == [1, 2, None]
    assert fg.version == 1


def test_a_deleted_table_cannot_be_opened():
    table = serve(written(rows(1)))
    table.delete()
    with pytest.raises(DefinitionError, match="spend"):
        OnlineFeaturesDuckDB("spend")


def test_a_group_made_again_after_it_was_deleted_starts_with_nothing():
    fg = written(rows(1))
    serve(fg)
    fg.delete()
    again = written(pa.table({"user_id": [2], "at": [NOON], "x": [5]}))
    assert answer(serve(again), 1, 2) == [None, 5]
    assert again.version == 1
