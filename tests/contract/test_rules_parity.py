"""Rules 21 and 22: verify proves parity on the user's own data, and reports the cause of each difference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from registries import in_a_file
from seeknal import (
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.online import Codec, Entries, State, connect
from seeknal.values.times import Interval
from servers import Valkey

from .world import HOUR, NOON, group, rows, write, written

ON_BOTH = True  # see `pytest_generate_tests`

SPACE = "shop/spend/1"


@pytest.fixture(params=["lmdb", "redis"])
def place(request, home, monkeypatch):
    """The online store that is set, one after the other."""
    if request.param == "lmdb":
        return str(home / "online")
    url = request.getfixturevalue("valkey_url")
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", url)
    return url


def three(**options):
    return written(
        pa.table({"user_id": [1, 2, 3], "at": [NOON, NOON + HOUR, NOON + 2 * HOUR], "x": [1, 2, 3]}), **options
    )


def serve(fg, **options):
    return HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(**options)


def causes(table, **options):
    return {(one.keys["user_id"], one.cause) for one in table.verify(**options).differences}


def tamper(place, changes):
    """Change rows without a load: event time and value by user, or None to remove a row."""
    online = connect(place)
    codec = Codec(FeatureStore().groups.version("spend").schema)
    state, _ = online.get(SPACE, [])
    values = []
    for user, change in changes.items():
        at, x = change or (NOON, 0)
        parts = codec.entries(pa.table({"user_id": [user], "at": [at], "x": [x]}).to_batches(), None)
        values.append(next(value for part in parts for value in part.values) if change else None)
    online.change(SPACE, state, state, Entries(codec.keys(pa.table({"user_id": list(changes)})), values))


def test_all_is_equal_after_a_load(place):
    found = serve(three()).verify()
    assert (found.equal, found.entities, found.values, found.different) == (True, 3, 3, 0)
    assert str(found) == "shop/spend: 3 values of 3 entities compared, all equal"


def test_what_was_written_since_is_not_loaded_yet(place):
    fg = three()
    table = serve(fg)
    write(fg, rows(9, 8, times=[NOON + 3 * HOUR] * 2, user=1), mode="append")
    write(fg, rows(5, user=4), mode="append")
    assert causes(table) == {(1, "not loaded yet"), (4, "not loaded yet")}
    FeatureStore().groups.load("spend")
    assert table.verify().equal


def test_what_was_deleted_since_is_not_loaded_yet(place):
    fg = three()
    table = serve(fg)
    write(fg, rows(1, user=1))
    assert causes(table) == {(2, "not loaded yet"), (3, "not loaded yet")}
    FeatureStore().groups.load("spend")
    assert table.verify().equal


def test_intervals_that_were_never_requested_are_reported_as_not_loaded(place):
    three()
    store = FeatureStore()
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, NOON + HOUR))
    table = OnlineFeaturesDuckDB("spend")
    assert causes(table) == {(1, "not loaded yet"), (3, "not loaded yet")}
    (ledger,) = store.groups.load_statuses("spend")
    assert [str(hole) for hole in ledger.holes] == [
        "2024-01-01 12:00:00 to 2024-01-01 12:59:59.999999",
        "2024-01-01 13:00:00.000001 to 2024-01-01 14:00:00",
    ]
    store.groups.load("spend")
    assert (store.groups.load_statuses("spend")[0].holes, table.verify().equal) == ([], True)


def test_rows_that_are_missing_other_or_too_many_are_found(place):
    table = serve(three())
    tamper(place, {1: None, 3: (NOON + 2 * HOUR, 30), 4: (NOON, 4)})
    found = table.verify()
    assert (found.equal, found.different) == (False, 3)
    assert {(one.keys["user_id"], one.online, one.offline, one.cause) for one in found.differences} == {
        (1, None, 1, "missing"),
        (3, 30, 3, "another value"),
        (4, 4, None, "not stored offline"),
    }


def test_an_older_row_is_found_by_its_value(place):
    fg = written(rows(1, 2))
    table = serve(fg)
    tamper(place, {1: (NOON, 1)})
    assert [str(one) for one in table.verify().differences] == [
        "shop/spend user_id=1: x is 1 online and 2 offline (older)"
    ]


def test_verify_applies_the_ttl_of_the_table():
    times = [datetime.now(UTC) - ago for ago in (timedelta(days=3), timedelta(days=1), HOUR / 6)]
    fg = written(rows(0, 1, times=times[:1] * 2, user=0), ttl=HOUR)
    for user, at in enumerate(times[1:], start=1):
        write(fg, rows(2, 3, times=[at, at], user=user), mode="append")
    assert serve(fg, ttl=timedelta(days=30)).verify().equal


def test_a_ttl_that_only_one_side_applies_is_found(place):
    now = datetime.now(UTC)
    fg = written(rows(1, times=[now - 2 * HOUR]), ttl=3 * HOUR)
    table = serve(fg)
    online = connect(place)
    text, _ = online.get(SPACE, [])
    state = State.loads(text)
    short = State(state.origin, state.snapshot, state.files, state.spans, 3_600_000_000, state.kept, state.at)
    online.change(SPACE, text, short.dumps(), Entries([], []))
    assert causes(table) == {(1, "expired")}


def test_a_sample_has_the_requested_number_of_entities(place):
    table = serve(three())
    assert [table.verify(sample=n).entities for n in (2, 99)] == [2, 3]


def test_nan_equals_nan_and_null_is_not_nan(place):
    table = serve(written(rows(float("nan"), y=[[float("nan"), None]])))
    assert table.verify().equal
    fg = written(rows(float("nan")), name="other")
    other = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("others")
    assert other.verify().equal


def test_tables_of_several_groups_keys_and_versions_are_verified(place):
    users, shops = (
        three(name="users"),
        written(pa.table({"shop": ["a"], "at": [NOON], "y": [1]}), name="shops", keys=["shop"]),
    )
    with pytest.warns(SeeknalWarning, match="version 2"):
        write(users, pa.table({"user_id": [1], "at": [NOON], "x": [1], "z": ["s"]}), mode="append")
    lookups = [FeatureLookup(users, version=1), FeatureLookup(users, prefix="new_"), FeatureLookup(shops)]
    table = HistoricalFeaturesDuckDB(lookups).serve("all")
    found = table.get_features([{"user_id": 1, "shop": "a"}], "dicts", with_status=True)[0]
    assert {name: found[name] for name in ("x", "new_x", "new_z", "y")} == {"x": 1, "new_x": 1, "new_z": "s", "y": 1}
    assert [name for name in found if name.endswith("_status")] == [
        "users_user_id_1_status",
        "users_user_id_2_status",
        "shops_shop_1_status",
    ]
    verified = table.verify()
    assert (verified.equal, verified.entities, verified.values) == (True, 3 + 3 + 1, 3 + 6 + 1)


def test_the_status_says_found_not_found_or_expired_and_when(place):
    now = datetime.now(UTC).replace(microsecond=0)
    fg = written(pa.table({"user_id": [1, 2], "at": [now - HOUR, now - 5 * HOUR], "x": [1, 2]}), ttl=2 * HOUR)
    found = serve(fg).get_features([{"user_id": i} for i in (2, 9, 1, None)], "dicts", with_status=True)
    assert [(row["x"], row["spend_status"], row["spend_event_time"]) for row in found] == [
        (None, "expired", now - 5 * HOUR),
        (None, "not_found", None),
        (1, "found", now - HOUR),
        (None, "not_found", None),
    ]
    table = serve(fg).get_features([{"user_id": 2}], "arrow", with_status=True)
    assert table.column_names == ["user_id", "x", "spend_status", "spend_event_time"]
    assert table.schema.field("spend_event_time").type == pa.timestamp("us", "UTC")


def test_features_can_be_chosen_in_any_order(place):
    both = rows(1, y=["a"], z=[NOON])
    one, other = written(both, name="one"), written(both.rename_columns(["user_id", "at", "p", "q", "r"]), name="other")
    table = HistoricalFeaturesDuckDB([FeatureLookup(one), FeatureLookup(other)]).serve("both")
    for features in (["q", "x"], ["r", "y", "p"], ["x"], ["z", "x"], ["x", "y"]):
        for output in ("dicts", "arrow"):
            found = table.get_features([{"user_id": 1}, {"user_id": 2}], output, features=features)
            row, unknown = found if output == "dicts" else found.to_pylist()
            assert list(row) == ["user_id", *features]
            whole = {"user_id": 1, "x": 1, "y": "a", "z": NOON, "p": 1, "q": "a", "r": NOON}
            assert row == {name: whole[name] for name in row}
            assert set(unknown.values()) == {2, None}
    with pytest.raises(DefinitionError, match=r"no feature .X.\. Did you mean .x."):
        table.get_features([{"user_id": 1}], features=["X"])
    with pytest.raises(DefinitionError, match=r"features=\['x'\]"):
        table.get_features([{"user_id": 1}], features="x")


def test_a_status_that_would_have_the_name_of_a_feature_is_refused():
    table = serve(written(rows(1, spend_status=["late"])))
    with pytest.raises(DefinitionError, match="spend_status"):
        table.get_features([{"user_id": 1}], with_status=True)
    assert table.get_features([{"user_id": 1}], "dicts")[0]["spend_status"] == "late"


def test_a_ttl_that_is_changed_holds_online_at_once(place):
    now = datetime.now(UTC)
    fg = written(rows(1, times=[now - 2 * HOUR]), ttl=HOUR)
    table = serve(fg)
    ask = lambda: table.get_features([{"user_id": 1}], "dicts")[0]["x"]  # noqa: E731
    assert ask() is None
    with pytest.warns(SeeknalWarning, match="ttl"):
        group(ttl=3 * HOUR).get_or_create()
    assert (ask(), table.verify().equal) == (1, True)
    with pytest.warns(SeeknalWarning, match="ttl"):
        group(ttl=timedelta(seconds=1)).get_or_create()
    assert (ask(), table.verify().equal) == (None, True)


def test_versions_are_online_side_by_side_and_a_refresh_reaches_every_table(place):
    fg = three()
    with pytest.warns(SeeknalWarning, match="version 2"):
        write(fg, rows(5, user=1, y=["b"], times=[NOON + 5 * HOUR]), mode="append")
    old = HistoricalFeaturesDuckDB([FeatureLookup(fg, version=1)]).serve("old")
    new, again = serve(fg, name="new"), serve(fg, name="again")
    fg.push({"user_id": 2, "at": NOON + 6 * HOUR, "x": 6, "y": "c"})
    asked = [{"user_id": 1}, {"user_id": 2}]
    assert [row["x"] for row in old.get_features(asked, "dicts")] == [1, 2]
    for table in (new, again):
        assert [row["x"] for row in table.get_features(asked, "dicts")] == [5, 6]
    assert [table.verify().equal for table in (old, new, again)] == [True] * 3


def test_only_what_changed_is_loaded(place):
    fg = written(pa.table({"user_id": range(100), "at": [NOON] * 100, "x": range(100)}))
    store = FeatureStore()
    assert store.groups.load("spend").changed == 100
    assert store.groups.load("spend").changed == 0
    write(fg, rows(5, 6, user=7, times=[NOON + HOUR, NOON - HOUR]), mode="append")
    write(fg, rows(5, user=200), mode="append")
    assert store.groups.load("spend").changed == 2
    write(fg, rows(8, user=8), mode="merge")
    assert store.groups.load("spend").changed == 1
    store.groups.optimize("spend")
    assert store.groups.load("spend").changed == 0
    store.groups.optimize("spend", keep_days=0)
    loaded = store.groups.load("spend")
    assert (loaded.changed, loaded.online) == (0, 101)
    store.groups.clean("spend", 1_704_110_400_000_000 + 1)
    assert store.tables.open("spend").get_features([{"user_id": 7}, {"user_id": 8}], "dicts")[1]["x"] is None


def test_late_rows_of_old_days_are_picked_up(place):
    fg = written(rows(1, times=[NOON]))
    table = serve(fg)
    write(fg, rows(2, user=2, times=[NOON - 365 * 24 * HOUR]), mode="append")
    FeatureStore().groups.load("spend", interval=Interval.between(NOON, None))
    assert table.get_features([{"user_id": 2}], "dicts")[0]["x"] == 2


def test_a_load_by_a_clock_that_was_ahead_is_repaired_by_the_next(place):
    ahead = datetime.now(UTC) + timedelta(days=2)
    with pytest.warns(SeeknalWarning, match="dated after now"):
        fg = written(rows(1, 2, times=[datetime.now(UTC) - HOUR, ahead - timedelta(days=1)]))
    store = FeatureStore()
    store.groups.load("spend", at=ahead)
    store.groups.load("spend")
    table = OnlineFeaturesDuckDB("spend")
    assert table.get_features([{"user_id": 1}], "dicts")[0]["x"] == 1
    assert (table.verify().equal, fg.version) == (True, 1)


def test_a_table_of_a_group_that_was_made_again_is_not_online(place):
    fg = written(rows(1))
    table = serve(fg)
    fg.delete()
    again = serve(written(rows("text")))
    assert again.get_features([{"user_id": 1}], "dicts")[0]["x"] == "text"
    for output in ("dicts", "pandas"):
        with pytest.raises(DefinitionError, match=r"was replaced. .* Open it again"):
            table.get_features([{"user_id": 1}], output)


def test_a_table_whose_rows_cannot_be_deleted_is_still_there(tmp_path, monkeypatch):
    server = Valkey(tmp_path / "valkey").start()
    try:
        monkeypatch.setenv("SEEKNAL_ONLINE_STORE", server.url)
        table = serve(written(rows(1)))
        server.kill()
        with pytest.raises(StoreError, match="could not be read"):
            table.delete()
        server.start()
        table.delete()
        with pytest.raises(DefinitionError, match="No online table"):
            OnlineFeaturesDuckDB("spend")
    finally:
        server.stop()


@pytest.mark.of_files  # a place in an object store belongs to one home
@in_a_file
def test_two_homes_with_a_project_of_one_name_cannot_share_a_database(tmp_path, valkey_url):
    first, second = (FeatureStore(tmp_path / name, online_store=valkey_url) for name in ("one", "two"))
    definition = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at"), "shop")
    for i, store in enumerate((first, second)):
        store.groups.write(definition, rows(i))
    first.tables.serve([FeatureLookup(definition)], "a")
    for target in (None, valkey_url):
        with pytest.raises(
            StoreError,
            match=r"redis://127.0.0.1:\d+/\d+ has rows of version 1 of shop/spend that belong to another home",
        ):
            second.tables.serve([FeatureLookup(definition)], "a", target=target)
    assert first.tables.open("a").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 0}]


def test_a_target_with_a_password_is_refused_and_other_urls_too():
    fg = written(rows(1))
    with pytest.raises(DefinitionError, match=r"redis://:\*\*\*@host.*SEEKNAL_ONLINE_STORE"):
        serve(fg, target="redis://:secret@host:1/0")
    with pytest.raises(DefinitionError, match=r"s3://bucket"):
        serve(fg, target="s3://bucket")
