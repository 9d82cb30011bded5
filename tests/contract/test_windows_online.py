"""Windows online equal windows offline at every moment, on both stores, whatever was written, pushed, corrected or erased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import (
    Count,
    DefinitionError,
    Entity,
    EventSource,
    FeatureGroup,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Interval,
    Last,
    Materialization,
    StoreError,
    Sum,
    WindowedGroup,
)
from seeknal.define.event_group import event_group
from seeknal.engine.windows import codec, sketches, tiled
from seeknal.values.times import instant, moment_of

from .profiles import PROFILE
from .test_rules_windows import FEATURES, SCHEMA
from .test_windows import same
from .test_windows_one import near

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

HOUR = 3_600_000_000
START = instant(datetime.now(UTC)) // HOUR * HOUR + 24 * HOUR
USERS = [1, 2, 3, 9]
KINDS = ["group", "events", "ids"]
"""A feature group, events that each count, and events that are corrected by id, even to another user."""
_projects = count()

hours = st.sampled_from([-30, -7, -6, -3, -2, -1, 0, 0, 0.5, 1, 2, 4])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from([1, 1, 2, 3]),
            "shop": st.sampled_from(["a", "b", None]),
            "item": st.integers(0, 3),
            "at": hours,
            "seen": st.none() | hours,
            "amount": st.sampled_from([None, 0.1, 0.2, 0.3, 1e9, -1e9, 2.5]),
        }
    ),
    min_size=1,
    max_size=5,
)
steps = st.one_of(
    st.tuples(st.just("push"), rows),
    st.tuples(st.just("push"), rows),
    st.tuples(st.just("write"), rows),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("time"), st.sampled_from([0.5, 1, 2, 6])),
    st.tuples(st.just("erase"), st.sampled_from([1, 2])),
    st.tuples(st.just("clean"), hours),
    st.tuples(st.just("optimize")),
    st.tuples(st.just("definition"), st.sampled_from(["3h", "8h"])),
    st.tuples(st.just("verify")),
)


class World:
    """A source, a windowed group over it, and its online table."""

    def __init__(self, store: FeatureStore, target: str | None, kind: str) -> None:
        self.store, self.kind, self.target = store, kind, target
        self.project = f"windows{next(_projects)}"
        self.now, self.is_behind = START, False
        self.length = "3h"
        first = {"user": 1, "shop": "a", "item": 0, "at": -1, "seen": None, "amount": 1.0}
        self.write([first])
        self.table = self.serve()

    @property
    def source(self) -> FeatureGroup:
        if self.kind == "group":
            dated = Materialization("at", created_time_col="seen")
            return FeatureGroup("orders", Entity("line", ["user", "item"]), dated, self.project)
        event_id = ["item"] if self.kind == "ids" else None
        return event_group("orders", "at", event_id, created_time_col="seen", project=self.project)

    @property
    def group(self) -> WindowedGroup:
        features = FEATURES | {"recent": Sum("amount", over=self.length)}
        return WindowedGroup("windows", Entity("user", ["user"]), f"{self.project}/orders", features, self.project)

    def frame(self, drawn: list[dict[str, object]]) -> pa.Table:
        def moment(hour: float | None) -> datetime | None:
            return None if hour is None else moment_of(START + int(hour * HOUR))

        return pa.Table.from_pylist(
            [row | {"at": moment(row["at"]), "seen": moment(row["seen"])} for row in drawn], SCHEMA
        )

    def write(self, drawn: list[dict[str, object]]) -> None:
        self.store.groups.write(self.source, self.frame(drawn), mode="append")
        self.is_behind = True

    def push(self, drawn: list[dict[str, object]]) -> None:
        if self.kind == "events":
            return self.write(drawn)
        self.store.groups.push("orders", self.frame(drawn), project=self.project)
        self.is_behind = False
        return None

    def serve(self) -> object:
        self.is_behind = False
        return self.store.tables.serve([FeatureLookup(self.group)], "table", target=self.target, at=moment_of(self.now))

    def do(self, what: str, value: object = None) -> None:
        groups = self.store.groups
        if what in {"write", "push"}:
            getattr(self, what)(value)
        elif what == "refresh":
            self.store.tables.refresh([f"{self.project}/table"])
            self.is_behind = False
        elif what == "time":
            self.now += int(value * HOUR)
        elif what == "erase":
            self.store.entities.erase("user", {"user": value}, project=self.project)
            self.is_behind = False
        elif what == "clean":
            groups.clean("orders", moment_of(START + int(value * HOUR)), project=self.project)
            self.is_behind = False
        elif what == "optimize":
            groups.optimize("orders", project=self.project, keep_days=0)
        elif what == "definition":
            self.length = value
            self.table = self.serve()

    def check(self) -> None:
        if self.is_behind:
            return
        online = self.table.get_features([{"user": user} for user in USERS], "arrow", at=self.now).to_pylist()
        spine = pa.table({"user": USERS, "now": pa.array([self.now] * len(USERS), pa.timestamp("us", "UTC"))})
        offline = self.store.features.training_set(
            [FeatureLookup(self.group)], spine, "now", output="arrow"
        ).to_pylist()
        for one, other in zip(online, offline, strict=True):
            for name, value in one.items():
                is_same = near(value, other[name]) if name == "spread" else same(value, other[name])
                assert is_same, (one["user"], name, value, other[name])


def live(store: FeatureStore, target: str | None, kind: str, life: list[tuple[object, ...]]) -> None:
    """Live through some steps, and compare online with offline after each."""
    with patch.object(sketches, "MOST", 1):  # so that a few shops are too many to be counted exactly
        world = World(store, target, kind)
        world.check()
        for what, *value in life:
            world.do(what, *value)
            world.check()
        world.do("refresh")
        world.check()
        verified = store.tables.verify("table", project=world.project, at=moment_of(world.now))
        assert verified.equal, str(verified)


@settings(PROFILE, max_examples=2 * PROFILE.max_examples)
@given(kind=st.sampled_from(KINDS), life=st.lists(steps, max_size=8))
def test_windows_on_lmdb_are_those_of_a_training_set_at_every_moment(store, kind, life):
    live(store, None, kind, life)


@given(kind=st.sampled_from(KINDS), life=st.lists(steps, max_size=8))
@settings(PROFILE)
def test_windows_on_redis_are_those_of_a_training_set_at_every_moment(store, valkey_url, kind, life):
    live(store, valkey_url, kind, life)


@given(
    kind=st.sampled_from(KINDS),
    life=st.lists(steps, max_size=8),
    many=st.integers(1, 3),
    tile=st.integers(1, 3),
    target=st.sampled_from(["LMDB", "Valkey"]),
)
@settings(PROFILE, max_examples=2 * PROFILE.max_examples)
def test_windows_of_entities_that_become_tiled_are_those_of_a_training_set(
    store, valkey_url, kind, life, many, tile, target
):
    with patch.object(codec, "_MANY", many), patch.object(tiled, "_TILE", tile):
        live(store, None if target == "LMDB" else valkey_url, kind, life)


@pytest.fixture
def served():
    """A source with one order now, and an online table of its windows."""
    source = EventSource("orders", "at", project="shop")
    now = datetime.now(UTC)
    frame = pa.table({"user": [1, 1], "at": [now, now - timedelta(hours=5)], "amount": [2.0, 3.0]})
    source.set_dataframe(frame).write(mode="append")
    features = {
        "spend": Sum("amount", over=["1h", "1d"]),
        "n": Count(over="1h"),
        "filled": Sum("amount", over="1h", fill=0.0),
    }
    group = WindowedGroup("spend", Entity("user", ["user"]), source, features)
    return HistoricalFeaturesDuckDB(FeatureLookup(group)).serve("scores")


def test_a_window_moves_with_the_clock_without_a_load(served):
    table = FeatureStore().tables.open("scores")
    now = instant(datetime.now(UTC))
    one = {"user": 1}
    assert table.get_features([one], "dicts", at=now) == [
        one | {"spend_1h": 2.0, "spend_1d": 5.0, "n": 1, "filled": 2.0}
    ]
    later = table.get_features([one], "dicts", at=now + 2 * HOUR)
    assert later == [one | {"spend_1h": None, "spend_1d": 5.0, "n": 0, "filled": 0.0}]
    assert table.get_features([one], "dicts", at=now + 48 * HOUR)[0]["spend_1d"] is None


def test_an_entity_without_events_has_empty_windows_and_is_not_found(served):
    (row,) = served.get_features([{"user": 7}], "dicts", with_status=True)
    assert row == {
        "user": 7,
        "spend_1h": None,
        "spend_1d": None,
        "n": 0,
        "filled": 0.0,
        "spend_status": "not_found",
        "spend_event_time": None,
    }


def test_an_erasure_reaches_the_windows_of_other_entities_online(served):
    source = EventSource("visits", "at", project="shop")
    now = datetime.now(UTC)
    source.set_dataframe(pa.table({"user": [5, 6], "shop": [5, 5], "at": [now, now], "amount": [1.0, 2.0]})).write(
        mode="append"
    )
    by_user = WindowedGroup("by_user", Entity("visitor", ["user"]), source, {"n": Count()})
    by_shop = WindowedGroup("by_shop", Entity("shop", ["shop"]), source, {"n": Count()})
    FeatureStore().groups.register(by_user)
    table = HistoricalFeaturesDuckDB(FeatureLookup(by_shop)).serve("shops")
    assert table.get_features([{"shop": 5}], "dicts") == [{"shop": 5, "n": 2}]
    FeatureStore().entities.erase("visitor", {"user": 5})
    assert table.get_features([{"shop": 5}], "dicts") == [{"shop": 5, "n": 1}]
    source.set_dataframe(pa.table({"user": [6], "shop": [5], "at": [now], "amount": [1.0]})).write(mode="append")
    assert FeatureStore().tables.refresh(["shops"])
    assert table.get_features([{"shop": 5}], "dicts") == [{"shop": 5, "n": 2}]  # shop 5 itself was not erased


def test_the_status_does_not_depend_on_events_that_have_left_all_windows(served):
    table = FeatureStore().tables.open("scores")
    now = instant(datetime.now(UTC))
    status = [
        table.get_features([{"user": 1}], "dicts", with_status=True, at=at)[0]["spend_status"]
        for at in (now, now + 25 * HOUR)
    ]
    assert status == ["found", "not_found"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_keys_that_are_times_find_their_entity_online(unit):
    day, other = datetime(2024, 1, 1), datetime(1970, 1, 20)
    source = EventSource("visits", "at", project="shop")
    keys = pa.array([day], pa.timestamp("us")).cast(pa.timestamp(unit))
    source.set_dataframe(pa.table({"day": keys, "at": [datetime.now(UTC)], "x": [5]})).write()
    group = WindowedGroup("of_day", Entity("opening", ["day"]), source, {"x": Sum("x")})
    table = HistoricalFeaturesDuckDB(FeatureLookup(group)).serve("days")
    assert [row["x"] for row in table.get_features([{"day": day}, {"day": other}], "dicts")] == [5, None]


@pytest.mark.filterwarnings("ignore:shop/visits is now at version")
def test_a_table_opened_before_a_column_got_a_wider_type_has_its_values_or_says_what_to_do():
    now = datetime.now(UTC)

    def visits(value, kind):
        return pa.table({"user": [1], "at": [now], "born": pa.array([value], kind)})

    source = EventSource("visits", "at", project="shop")
    source.set_dataframe(visits(datetime(1970, 1, 2), pa.timestamp("ms"))).write()
    group = WindowedGroup("last", Entity("visitor", ["user"]), source, {"born": Last("born")})
    table = HistoricalFeaturesDuckDB(FeatureLookup(group)).serve("last")
    assert table.get_features([{"user": 1}], "dicts")[0]["born"] == datetime(1970, 1, 2)
    source.set_dataframe(visits(datetime(1970, 1, 3), pa.timestamp("us"))).write()
    FeatureStore().tables.refresh(["last"])
    assert table.get_features([{"user": 1}], "dicts")[0]["born"] == datetime(1970, 1, 3)
    source.set_dataframe(visits(datetime(1970, 1, 4, 0, 0, 0, 7), pa.timestamp("us"))).write()
    FeatureStore().tables.refresh(["last"])
    with pytest.raises(
        StoreError, match=r"'born' of 'last' was timestamp\[ms\] when the table was served.*Serve the table again"
    ):
        table.get_features([{"user": 1}], "arrow")


def test_a_part_of_the_events_is_not_loaded(served):
    with pytest.raises(DefinitionError, match="an interval of them would give other values than a training set"):
        FeatureStore().groups.load("spend", interval=Interval(0, None))


def test_a_ttl_of_windows_is_refused(served):
    with pytest.raises(DefinitionError, match="computed from events at each moment"):
        HistoricalFeaturesDuckDB(FeatureLookup("spend")).serve("other", ttl=timedelta(hours=1))


def test_a_clock_far_behind_the_load_is_refused(served):
    table = FeatureStore().tables.open("scores")
    with pytest.raises(StoreError, match="was loaded at"):
        table.get_features([{"user": 1}], at=instant(datetime.now(UTC)) - 25 * HOUR)


def test_a_table_has_windows_and_stored_features_side_by_side(served):
    profile = FeatureGroup("profile", Entity("user", ["user"]), Materialization("at"), "shop")
    FeatureStore().groups.write(profile, pa.table({"user": [1], "at": [datetime(2024, 1, 1, tzinfo=UTC)], "age": [40]}))
    lookups = [FeatureLookup("profile"), FeatureLookup("spend", ["n"], prefix="orders_")]
    table = HistoricalFeaturesDuckDB(lookups).serve("both", ttl=timedelta(days=1))
    assert table.get_features([{"user": 1}], "dicts") == [{"user": 1, "age": None, "orders_n": 1}]


def test_a_table_of_windows_does_not_expire_by_the_ttl_of_stored_features(served):
    profile = FeatureGroup("profile", Entity("user", ["user"]), Materialization("at"), "shop")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    FeatureStore().groups.write(profile, pa.table({"user": [1], "at": [tomorrow], "age": [40]}))
    lookups = [FeatureLookup("profile"), FeatureLookup("spend")]
    HistoricalFeaturesDuckDB(lookups).serve("both", ttl=timedelta(days=1))
    tables = FeatureStore().tables
    assert not tables.freshness(tables.get("both"), tomorrow + timedelta(hours=12)).is_expired
    assert tables.freshness(tables.get("both"), tomorrow + timedelta(hours=36)).is_expired
