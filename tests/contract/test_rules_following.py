"""Rules 21 and 24: online tables keep their features and types, move on with their groups, and say when they cannot."""

from __future__ import annotations

import json
import pickle
import sqlite3
import warnings
from datetime import UTC, datetime

import httpx2
import pyarrow as pa
import pytest

from commands import seeknal
from registries import in_a_file
from seeknal import (
    DefinitionError,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    OnlineFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
)
from seeknal.errors import NotOnlineError
from seeknal.online import Entries, connect
from seeknal.values.times import Interval
from servers import Server, Valkey

from .world import HOUR, NOON, finished, group, python, rows, write, written

pytestmark = pytest.mark.slow

LATER = NOON + 5 * HOUR


@pytest.fixture(params=["lmdb", "redis"])
def place(request, home, monkeypatch):
    """The online store that is set, one after the other."""
    if request.param == "lmdb":
        return str(home / "online")
    url = request.getfixturevalue("valkey_url")
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", url)
    return url


def three(**more):
    return pa.table({"user_id": [1, 2, 3], "at": [NOON, NOON + HOUR, NOON + 2 * HOUR], "x": [1, 2, 3]} | more)


def served(fg, name="model", **options):
    return HistoricalFeaturesDuckDB([FeatureLookup(fg, **options)]).serve(name)


def noticed(step, *matches):
    """Run a step, and check that it gives these warnings among others."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        done = step()
    told = [str(one.message) for one in found if one.category is SeeknalWarning]
    assert all(any(match in text for text in told) for match in matches), told
    return done


def changed(fg, frame, *matches, **options):
    return noticed(lambda: write(fg, frame, **options), "is now at version", *matches)


def xs(table, *users):
    return [row["x"] for row in table.get_features([{"user_id": user} for user in users], "dicts")]


def as_json(*command):
    done = seeknal(*command, "--format", "json")
    return done.returncode, json.loads(done.stdout)


def online_versions(name="spend"):
    store = FeatureStore()
    record = store.core.catalog.group(name)
    spaces = [f"{record.project}/{record.name}/{number}" for number in range(1, 6)]
    there = []
    for number, space in enumerate(spaces, 1):
        try:
            connect(store.settings.online_store or str(store.home / "online")).get(space, [])
        except KeyError:
            continue
        there.append(number)
    return there


@pytest.mark.parametrize("way", ["push", "materialize", "refresh", "write", "serve another"])
def test_rows_of_a_later_version_reach_the_table_by_every_kind_of_load(place, way):
    fg = group(online=way == "write")
    write(fg, three())
    table = served(fg)
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    if way == "push":
        fg.push({"user_id": 2, "at": LATER, "x": 8, "y": "c"})
    elif way == "materialize":
        assert as_json("materialize", "spend")[0] == 0
    elif way == "refresh":
        assert table.refresh().changed > 0
    elif way == "serve another":
        served(fg, "other")
    assert xs(table, 1, 2, 3) == [7, 8 if way == "push" else 2, 3]
    assert xs(OnlineFeaturesDuckDB("model"), 1) == [7]
    assert table.get_features([{"user_id": 1}], "arrow").column_names == ["user_id", "x"]
    assert (table.verify().equal, seeknal("status").returncode, seeknal("doctor").returncode) == (True, 0, 0)
    assert online_versions() == [2]


def test_a_later_version_that_was_not_loaded_yet_shows_as_behind_and_in_verify(place):
    fg = written(three())
    table = served(fg)
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    found = table.verify()
    assert [(one.keys, one.online, one.offline, one.cause) for one in found.differences] == [
        ({"user_id": 1}, 1, 7, "not loaded yet")
    ]
    code, (line,) = as_json("status")
    assert (code, line["behind"], line["cut_off"]) == (0, True, [])


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (pa.table({"user_id": [1], "at": [LATER], "y": [5]}), "version 2 of shop/spend lacks 'x'"),
        (
            pa.table({"user_id": [1], "at": [LATER], "x": pa.array([5], pa.int64()), "y": [5]}),
            "version 2 of shop/spend has 'x' as int64, not int32",
        ),
    ],
    ids=["lacking", "retyped"],
)
def test_a_table_whose_feature_is_gone_or_retyped_is_cut_off_and_everything_says_so(place, frame, reason):
    fg = written(three(y=[1, 2, 3]).set_column(2, "x", pa.array([1, 2, 3], pa.int32())))
    table, fine = served(fg, features=["x"]), served(fg, "fine", features=["y"])
    changed(fg, frame, f"table 'shop/model' is cut off: {reason}", mode="append")
    fg.push(frame.set_column(0, "user_id", pa.array([2])))
    assert xs(table, 1, 2) == [1, 2]
    assert table.get_features([{"user_id": 1}], "arrow").schema.field("x").type == pa.int32()
    assert [row["y"] for row in fine.get_features([{"user_id": 1}, {"user_id": 2}], "dicts")] == [5, 5]
    assert (table.verify().cut_off, table.verify().equal, fine.verify().equal) == ((reason,), False, True)
    assert f"cut off: {reason}" in str(table.verify())
    code, lines = as_json("status")
    assert code == 1
    assert {line["online_table"]: line["cut_off"] for line in lines} == {
        "shop/fine": [],
        "shop/model": [reason],
        "shop/spend": [],
    }
    assert as_json("verify", "model")[0] == as_json("doctor")[0] == 1
    code, (line,) = as_json("refresh", "model")
    assert (code, line["cut_off"], line["version"]) == (1, [reason], 1)
    noticed(lambda: FeatureStore().groups.load("spend"), "'shop/model' is cut off")
    assert online_versions() == [1, 2]


def test_a_table_that_was_cut_off_follows_again_when_its_features_come_back(place):
    fg = written(three(y=[1, 2, 3]))
    table = served(fg, features=["x"])
    changed(fg, pa.table({"user_id": [1], "at": [LATER], "y": [5]}), "is cut off", mode="append")
    changed(fg, rows(9, user=2, times=[LATER], y=[6]), mode="append")
    assert (table.refresh().cut_off, xs(table, 2, 3), table.verify().equal) == ((), [9, None], True)
    FeatureStore().groups.rollback("spend", 1)
    assert table.verify().different
    table.refresh()
    assert (xs(table, 1, 2, 3), table.verify().equal) == ([1, 2, 3], True)


def test_a_rollback_that_cuts_a_table_off_says_so_and_loads_a_group_that_is_online(place):
    fg = group(online=True)
    write(fg, three())
    changed(fg, three(y=[1, 2, 3]))
    both, one = served(fg, "both"), served(fg, "one", features=["x"])
    write(fg, rows(7, user=1, y=[1]))
    noticed(lambda: fg.rollback(1), "'shop/both' is cut off: version 1 of shop/spend lacks 'y'")
    assert xs(one, 1, 2) == [1, 2]
    assert xs(both, 1, 2) == [7, None]


def test_a_lookup_that_names_a_version_stays_at_it_and_is_shown_as_pinned(place):
    fg = written(three())
    pinned, table = served(fg, "pinned", version=1), served(fg)
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    fg.push({"user_id": 2, "at": LATER, "x": 8, "y": "c"})
    for _ in range(2):
        assert (xs(pinned, 1, 2), xs(table, 1, 2)) == ([1, 2], [7, 8])
        FeatureStore().tables.refresh()
    assert (pinned.verify().equal, online_versions()) == (True, [1, 2])
    code, lines = as_json("status")
    assert code == 0
    assert {line["online_table"]: line["pinned"] for line in lines}["shop/pinned"] == ["spend 1"]


def test_a_reader_moves_on_at_once_though_its_old_rows_are_still_there(place):
    fg = written(three())
    served(fg, "pinned", version=1)
    table = served(fg)
    copy = pickle.loads(pickle.dumps(table._table))  # noqa: SLF001 - our own
    assert xs(table, 1) == xs(copy, 1) == [1]
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    FeatureStore().groups.load("spend")
    assert xs(table, 1) == xs(copy, 1) == [7]
    assert online_versions() == [1, 2]


@pytest.fixture
def no_clock(monkeypatch):
    """Open tables look at the registry only when their rows online have changed, however long a test takes."""
    monkeypatch.setattr("seeknal.serve.open_tables._LOOK", 3600.0)


@pytest.mark.usefixtures("no_clock")
def test_a_reader_moves_on_at_once_though_another_lookup_of_the_table_stays_at_the_version(place):
    fg = written(three())
    lookups = [FeatureLookup(fg), FeatureLookup(fg, prefix="then_", version=1)]
    table = HistoricalFeaturesDuckDB(lookups).serve("model")
    assert xs(table, 2) == [2]
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    fg.push({"user_id": 2, "at": LATER, "x": 8, "y": "c"})
    assert table.get_features([{"user_id": 2}], "dicts") == [{"user_id": 2, "x": 8, "then_x": 2}]


@pytest.mark.usefixtures("no_clock")
def test_a_deleted_table_is_an_error_at_once_though_another_table_keeps_its_rows(place):
    fg = written(three())
    table, other = served(fg), served(fg, "other")
    copy = pickle.loads(pickle.dumps(table._table))  # noqa: SLF001 - our own
    assert xs(table, 1) == xs(copy, 1) == xs(other, 1) == [1]
    FeatureStore().tables.delete("model")
    for reader in (table, copy):
        with pytest.raises(NotOnlineError, match="it was deleted"):
            xs(reader, 1)
    assert xs(other, 1) == [1]


def test_a_table_whose_rows_another_one_uses_is_deleted_though_the_store_is_away(tmp_path, monkeypatch):
    server = Valkey(tmp_path / "valkey").start()
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", server.url)
    fg = written(three())
    served(fg)
    served(fg, "other")
    server.kill()
    FeatureStore().tables.delete("model")
    assert [table.name for table in FeatureStore().core.registry.tables()] == ["other"]


READER = """
from seeknal import OnlineFeaturesDuckDB
table, seen = OnlineFeaturesDuckDB("model"), 0
while seen < 5:
    (row,) = table.get_features([{"user_id": 1}], "dicts")
    assert list(row) == ["user_id", "x"] and row["x"] >= seen, row
    if row["x"] > seen:
        seen = row["x"]
        print(seen, flush=True)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_a_reader_in_another_process_moves_on_with_the_table(place, shared):
    fg = written(three())
    if shared:
        served(fg, "pinned", version=1)
    served(fg)
    reader = python(READER)
    assert reader.stdout.readline() == "1\n"
    for number in range(2, 6):
        more = {"y": [number]} if number % 2 == 0 else {}
        changed(fg, rows(number, user=1, times=[NOON + number * HOUR], **more), mode="append")
        FeatureStore().tables.refresh(["model"])
        assert reader.stdout.readline() == f"{number}\n"
    finished(reader)


@pytest.mark.parametrize("shared", [False, True])
def test_a_server_moves_on_with_the_table(place, home, shared):
    fg = written(three())
    if shared:
        served(fg, "pinned", version=1)
    served(fg)
    server = Server(home).start()
    try:
        ask = lambda: httpx2.get(f"{server.url}/v1/online/shop/model?user_id=1").json()["rows"]  # noqa: E731
        assert ask() == [{"user_id": 1, "x": 1}]
        changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
        FeatureStore().tables.refresh(["model"])
        while shared and ask() == [{"user_id": 1, "x": 1}]:  # until the server has looked at the registry again
            pass
        assert ask() == [{"user_id": 1, "x": 7}]
    finally:
        server.stop()


def test_a_reader_of_a_replaced_table_gets_its_features_or_an_error_that_says_so(place):
    fg = written(three(y=["a", "b", "c"]))
    table = served(fg, features=["x"])
    with pytest.warns(SeeknalWarning, match="was replaced"):
        served(fg, features=["y", "x"])
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "y": "a", "x": 1}]
    changed(fg, rows(5, user=1, times=[LATER], z=["d"]), mode="append")
    with pytest.warns(SeeknalWarning, match="was replaced"):
        served(fg, features=["z"])
    for _ in range(2):
        with pytest.raises(NotOnlineError, match=r"was replaced\. It now has z of spend version 2\. It had"):
            table.get_features([{"user_id": 1}])
    FeatureStore().tables.delete("model")
    with pytest.raises(DefinitionError, match="it was deleted"):
        table.get_features([{"user_id": 1}])


def test_serving_a_table_again_that_moved_by_itself_gives_no_warning():
    fg = written(three())
    served(fg, features=["x"])
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    assert xs(served(fg, features=["x"]), 1, 2) == [7, 2]


def test_intervals_requested_of_one_version_are_requested_of_the_next(place):
    fg = written(three())
    store = FeatureStore()
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, None))
    table = OnlineFeaturesDuckDB("spend")
    assert xs(table, 1, 2, 3) == [None, 2, 3]
    changed(fg, rows(9, user=9, y=["z"], times=[LATER]), mode="append")
    fg.push({"user_id": 3, "at": LATER + HOUR, "x": 8, "y": "c"})
    assert xs(table, 1, 2, 3, 9) == [None, 2, 8, 9]
    (ledger,) = store.groups.load_statuses("spend")
    assert (ledger.version, [str(interval) for interval in ledger.state.spans]) == (
        2,
        [str(Interval.between(NOON + HOUR, None))],
    )


def test_a_refresh_that_moves_a_table_requests_no_more_intervals(place):
    fg = written(three())
    store, since = FeatureStore(), Interval.between(NOON + HOUR, None)
    store.groups.load("spend", interval=since)
    table = OnlineFeaturesDuckDB("spend")
    changed(fg, rows(9, user=3, y=["z"], times=[LATER]), mode="append")
    assert table.refresh().groups[0].interval == since
    assert [xs(one, 1, 2, 3) for one in (table, OnlineFeaturesDuckDB("spend"))] == [[None, 2, 9]] * 2
    assert [(load.version, load.interval) for load in store.groups.loads("spend")] == [(2, since)]
    store.groups.rollback("spend", 1)
    assert as_json("refresh", "spend")[0] == 0
    assert xs(OnlineFeaturesDuckDB("spend"), 1, 2, 3) == [None, 2, 3]


def test_the_table_named_after_the_group_has_all_features_of_the_version_loaded_last(place):
    fg = written(three(y=["a", "b", "c"]))
    store = FeatureStore()
    store.groups.load("spend")
    changed(fg, rows(5, user=1, times=[LATER], z=[1.5]), mode="append")
    table = OnlineFeaturesDuckDB("spend")
    assert {(one.feature, one.offline, one.cause) for one in table.verify().differences} == {
        ("x", 5, "not loaded yet"),
        *(("y", None, "not loaded yet") for _ in range(3)),
    }
    noticed(lambda: store.tables.refresh(["spend"]), "these have changed: version 2 of shop/spend lacks 'y'")
    table = OnlineFeaturesDuckDB("spend")
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 5, "z": 1.5}]
    store.groups.load("spend", version=1)
    fg.push({"user_id": 1, "at": LATER + HOUR, "x": 6, "z": 2.5})
    assert OnlineFeaturesDuckDB("spend").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 1, "y": "a"}]
    noticed(lambda: store.groups.load("spend"), "these have changed")
    assert OnlineFeaturesDuckDB("spend").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 6, "z": 2.5}]


@in_a_file
def test_tables_registered_before_pinning_was_recorded_follow_unless_a_version_was_named(home):
    fg = written(three())
    early, own = served(fg, "early"), FeatureStore().groups.load("spend")
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    late = served(fg, "late", version=1)
    with sqlite3.connect(home / "registry.db") as registry:
        for name, lookups in registry.execute("SELECT name, lookups FROM online_table").fetchall():
            old = [{k: v for k, v in one.items() if k not in {"pinned", "whole"}} for one in json.loads(lookups)]
            registry.execute("UPDATE online_table SET lookups = ? WHERE name = ?", (json.dumps(old), name))
    registry.close()
    assert own.online == 3
    fg.push({"user_id": 2, "at": LATER, "x": 8, "y": "c"})
    assert (xs(early, 1, 2), xs(late, 1, 2)) == ([7, 8], [1, 2])
    assert OnlineFeaturesDuckDB("spend").get_features([{"user_id": 2}], "dicts") == [{"user_id": 2, "x": 8, "y": "c"}]
    assert [line["pinned"] for line in as_json("status")[1]] == [[], ["spend 1"], []]


def test_tables_of_several_groups_move_group_by_group_under_their_own_names(place):
    one, other = written(three()), group(name="other")
    write(other, three().rename_columns(["user_id", "at", "p"]))
    lookups = [
        FeatureLookup(one, prefix="a_"),
        FeatureLookup(other, rename={"p": "q"}),
        FeatureLookup(one, rename={"x": "r"}),
    ]
    table = HistoricalFeaturesDuckDB(lookups).serve("both")
    changed(one, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    other.push({"user_id": 1, "at": LATER, "p": 5})
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "a_x": 1, "q": 5, "r": 1}]
    done = table.refresh()
    assert [(load.group, load.version, load.changed) for load in done.groups] == [
        ("shop/spend", 2, 3),
        ("shop/other", 1, 0),
    ]
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "a_x": 7, "q": 5, "r": 7}]
    assert table.verify().equal


def test_a_table_in_another_store_moves_there(tmp_path):
    fg = written(three())
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("far", target=tmp_path / "far")
    near = served(fg, "near")
    changed(fg, rows(7, user=1, y=["b"], times=[LATER]), mode="append")
    FeatureStore().tables.refresh(["near"])
    assert (xs(near, 1), xs(table, 1)) == ([7], [1])
    FeatureStore().groups.load("spend")
    assert (xs(near, 1), xs(table, 1)) == ([7], [7])
    assert {(load.version, load.target) for load in FeatureStore().groups.loads("spend")} == {
        (2, ""),
        (2, str(tmp_path / "far")),
    }


def test_a_ttl_of_a_table_is_kept_by_the_version_it_moves_to(valkey_url, monkeypatch):
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", valkey_url)
    now = datetime.now(UTC)
    fg = written(rows(1, times=[now - 90 * HOUR]), ttl=HOUR)
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("long", ttl=100 * HOUR)
    changed(fg, rows(2, user=2, y=["b"], times=[now]), mode="append")
    table.refresh()
    assert (xs(table, 1), table.verify().equal) == ([1], True)


def test_refresh_loads_what_changed_in_all_tables_and_makes_none():
    fg = written(three())
    one, two = served(fg, "one"), served(fg, "two")
    write(fg, rows(7, user=1, times=[LATER]), mode="append")
    code, lines = as_json("refresh")
    assert (code, [(line["online_table"], line["rows"], line["online"]) for line in lines]) == (
        0,
        [("shop/one", 1, 3), ("shop/two", 0, 3)],
    )
    assert (xs(one, 1), xs(two, 1)) == ([7], [7])
    assert [table.name for table in FeatureStore().core.registry.tables()] == ["one", "two"]
    assert str(one.refresh()).startswith(
        "shop/one refreshed\n  shop/spend version 1, snapshot 2: 0 rows changed online"
    )
    assert "No online table named 'three'" in seeknal("refresh", "three").stderr
    assert "No project named 'nope'" in seeknal("refresh", "--project", "nope").stderr


def test_refresh_repairs_what_verify_found_and_a_full_refresh_repairs_the_rest(place):
    fg = written(three())
    table = served(fg)
    online, space = connect(place), "shop/spend/1"

    def lose_two_rows():
        state, _ = online.get(space, [])
        keys = sorted(online.keys(space))
        online.change(space, state, state, Entries(keys[:2], [None, None]))

    lose_two_rows()
    assert {one.cause for one in table.verify().differences} == {"missing"}
    assert (table.refresh().changed, table.verify().equal) == (3, True)
    lose_two_rows()
    assert (table.refresh().changed, table.refresh(full=True).changed, table.verify().equal) == (0, 3, True)


def test_a_full_refresh_also_requests_intervals_that_were_never_requested():
    written(three())
    store = FeatureStore()
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, None))
    assert [store.tables.refresh(full=full)[0].groups[0].online for full in (False, True)] == [2, 3]
    assert store.tables.verify("spend").equal


def test_a_table_that_cannot_be_refreshed_does_not_hold_up_the_others(tmp_path, valkey_url):
    server = Valkey(tmp_path / "valkey").start()
    fg = written(three())
    HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("far", target=server.url)
    near = served(fg, "near")
    server.kill()
    write(fg, rows(7, user=1, times=[LATER]), mode="append")
    with pytest.raises(StoreError, match=r"Of 2 online tables these could not be refreshed. shop/far: "):
        FeatureStore().tables.refresh()
    assert xs(near, 1) == [7]


def test_materialize_without_dates_loads_all_of_time():
    written(three())
    code, line = as_json("materialize", "spend")
    assert (code, line["rows"]) == (0, 3)
    assert FeatureStore().groups.load_statuses("spend")[0].holes == []
