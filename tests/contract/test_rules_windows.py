"""Windowed groups: what is computed from stored events, through the public classes, against plain loops over all rows ever written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import (
    ApproxCountDistinct,
    ApproxQuantile,
    Count,
    CountDistinct,
    DataError,
    DefinitionError,
    Entity,
    EventSource,
    FeatureGroup,
    FeatureLookup,
    FeatureStore,
    First,
    FirstN,
    HistoricalFeaturesDuckDB,
    Last,
    LastN,
    Materialization,
    Max,
    MostFrequent,
    SeeknalWarning,
    Std,
    Sum,
    TimeSinceLast,
    TrainingSet,
    WindowedGroup,
)
from seeknal.define.aggregations import expand
from seeknal.define.event_group import event_group
from seeknal.engine.duckdb import engine as duckdb_engine
from seeknal.engine.duckdb import queries
from seeknal.engine.windows import spine as shares

from . import windows_oracle as oracle
from .profiles import PROFILE
from .test_point_in_time import fresh_project
from .test_windows import asked_of, same

ON_BOTH = True  # see `pytest_generate_tests`

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
USER = Entity("user", ["user"])
PAIR = Entity("pair", ["user", "shop"])
LARGE = "amount > 2 AND shop <> 'b'"
FEATURES = {
    "n": Count(over=["2h", "6h"]),
    "known": Count("amount", over="6h"),
    "total": Sum("amount", over=["2h", "6h"]),
    "large": Sum("amount", over="6h", where=LARGE),
    "ever": Max("amount"),
    "shops": CountDistinct("shop", over="6h"),
    "about": ApproxCountDistinct("shop", over="6h"),
    "middle": ApproxQuantile("amount", 0.5, over="6h"),
    "first": First("item"),
    "last": Last("item", over="3h"),
    "items": LastN("item", 3, over="6h"),
    "often": MostFrequent("shop", 2, over="6h"),
    "per_shop": Sum("amount", over="6h", by="shop"),
    "before": Sum("amount", over="2h", offset="2h"),
    "spread": Std("amount", over="6h"),
    "since": TimeSinceLast(unit="minutes"),
    "filled": Sum("amount", over="1h", fill=0.0),
}
IN_REACH = {name: one for name, one in FEATURES.items() if one.over and not one.orders_ties}
"""Features of which only the events in reach of a moment are read, without the order of those of equal time."""
SCHEMA = pa.schema(
    [
        ("user", pa.int64()),
        ("shop", pa.string()),
        ("item", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("seen", pa.timestamp("us", "UTC")),
        ("amount", pa.float64()),
    ]
)
HOURS = st.integers(0, 20).map(lambda n: START + n * HOUR / 2)
ROWS = st.fixed_dictionaries(
    {
        "user": st.sampled_from([None, 1, 1, 2, 3]),
        "shop": st.sampled_from([None, "a", "a", "b", "c"]),
        "item": st.integers(0, 4),
        "at": HOURS,
        "seen": st.none() | HOURS,
        "amount": st.sampled_from([None, 0.1, 0.2, 0.3, 1e9, -1e9, 2.5, 7.0]),
    }
)
SPINE = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from([None, 1, 2, 3, 9]),
            "shop": st.sampled_from([None, "a", "b", "z"]),
            "at": st.none() | st.integers(-2, 30).map(lambda n: START + n * HOUR / 2),
        }
    ),
    max_size=8,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment):
    """Return a moment as the oracle counts it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def table(rows):
    """Make a frame of events."""
    return pa.Table.from_pylist(rows, SCHEMA)


def visible(written, same_row):
    """Return the events that count, in the order that settles equal times: of rows that agree, the one of rule 6."""
    order = sorted(
        enumerate(written),
        key=lambda one: (one[1]["at"], -1 if one[1]["seen"] is None else micros(one[1]["seen"]), one[0]),
    )
    if same_row is None:
        return [row for _, row in order]
    last = {tuple(row[name] for name in (*same_row, "at")): row for _, row in order}
    kept = {id(row) for row in last.values()}
    return [row for _, row in order if id(row) in kept]


def expected(written, same_row, entity, features, moments, hop=None, since=None):
    """Return the features of each row of a spine, by plain loops."""
    rows = [row for row in visible(written, same_row) if since is None or row["at"] >= since]
    people: dict[tuple, int] = {}
    events = []
    for row in rows:
        key = tuple(row[name] for name in entity.join_keys)
        if None in key:
            continue
        true = frozenset(
            [LARGE] if row["amount"] is not None and row["amount"] > 2 and row["shop"] not in {None, "b"} else []
        )
        events.append(oracle.Event(people.setdefault(key, len(people)), micros(row["at"]), row, true))
    found = []
    for moment in moments:
        key = tuple(moment[name] for name in entity.join_keys)
        number = -1 if None in key or moment["at"] is None else people.get(key, -1)
        at = 0 if moment["at"] is None else micros(moment["at"])
        every = [one for name, aggregation in features.items() for one in expand(name, aggregation)]
        found.append({one.name: oracle.value(events, number, at, asked_of(one), hop) for one in every})
    return found


def compare(answer, right):
    """Compare an answer with the oracle's, value by value."""
    assert len(answer) == len(right)
    for row, (have, want) in enumerate(zip(answer.to_pylist(), right, strict=True)):
        for name, value in want.items():
            close = name == "spread"
            assert same(have[name], value, close), (row, name, have[name], value)


def source_of(kind, project):
    """Return the definition of a source, and the columns in which rows of equal time are one event; None if each row is one."""
    if kind == "events":
        return event_group("orders", "at", created_time_col="seen", project=project), None
    keys = {"by user": ["user"], "by item": ["user", "item"]}[kind]
    entity = Entity("keyed", keys)
    return FeatureGroup("orders", entity, Materialization("at", created_time_col="seen"), project), tuple(keys)


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@settings(PROFILE, max_examples=2 * PROFILE.max_examples)
@given(
    asked_of=st.sampled_from([("events", USER), ("events", PAIR), ("by user", USER), ("by item", USER)]),
    writes=st.lists(st.lists(ROWS, min_size=1, max_size=8), min_size=1, max_size=3),
    spine=SPINE,
    small=st.booleans(),
    features=st.sampled_from([FEATURES, IN_REACH]),
    data=st.data(),
)
def test_a_training_set_is_what_plain_loops_compute(store, asked_of, writes, spine, small, features, data):
    kind, entity = asked_of
    project = fresh_project()
    source, one = source_of(kind, project)
    written, states = [], []
    for rows in writes:
        store.groups.write(source, table(rows), mode="append")
        written += rows
        states.append(list(written))
    hop = data.draw(st.sampled_from([None, None, "1h", "90m"]))
    group = WindowedGroup("windows", entity, f"{project}/orders", features, project, hop=hop)
    lookups = [FeatureLookup(group)]
    moments = pa.Table.from_pylist(spine, pa.schema([SCHEMA.field(name) for name in ("user", "shop", "at")]))
    ahead = group.hop_length
    asked = HistoricalFeaturesDuckDB(lookups).using_spine(moments, "at")
    with (
        patch.object(queries, "_FEW", data.draw(st.sampled_from([0, 20]))),
        patch.object(shares, "_SHARE", 3 if small else 2**18),
        patch.object(duckdb_engine, "_LITTLE", 0 if small else 2**28),
        patch.object(duckdb_engine.DuckDBEngine, "_passes_for", lambda *_: 3 if small else 1),
    ):
        compare(asked.to_dataframe(output="arrow"), expected(written, one, entity, features, spine, ahead))
        compare(asked.to_batches().read_all(), expected(written, one, entity, features, spine, ahead))
        number = data.draw(st.integers(1, len(states)))
        right = expected(states[number - 1], one, entity, features, spine, ahead)
        compare(asked.to_dataframe(as_of=number, output="arrow"), right)
        since = data.draw(HOURS)
        right = expected(written, one, entity, features, spine, ahead, since)
        compare(asked.to_dataframe(feature_start_time=since, output="arrow"), right)


@pytest.fixture
def orders():
    """A source with a few orders of two users."""
    source = EventSource("orders", "at", project="shop")
    rows = [
        {"user": 1, "shop": "a", "item": 1, "at": START, "seen": None, "amount": 5.0},
        {"user": 1, "shop": "b", "item": 2, "at": START + HOUR, "seen": None, "amount": 7.0},
        {"user": 2, "shop": "a", "item": 3, "at": START + 3 * HOUR, "seen": None, "amount": 1.0},
    ]
    source.set_dataframe(table(rows)).write(mode="append")
    return source


def spend(source, **more):
    """Define a windowed group."""
    return WindowedGroup("spend", USER, source, {"spend": Sum("amount", over=["1h", "6h"]), **more})


def look(group, *hours, user=1, **options):
    """Return the features of a user at some hours after the start."""
    spine = pa.table({"user": [user] * len(hours), "at": [START + hour * HOUR for hour in hours]})
    lookups = group if isinstance(group, list) else [FeatureLookup(group)]
    return HistoricalFeaturesDuckDB(lookups).using_spine(spine, "at").to_dataframe(output="arrow", **options)


def test_an_event_exactly_one_length_old_is_out_and_one_at_the_moment_is_in(orders):
    found = look(spend(orders), 0, 1, 2, 6, 7)
    assert found["spend_1h"].to_pylist() == [5.0, 7.0, None, None, None]
    assert found["spend_6h"].to_pylist() == [5.0, 12.0, 12.0, 7.0, None]


def test_each_moment_of_a_small_spine_has_all_events_of_its_own_window(orders):
    with patch.object(queries, "_FEW", 0):
        assert look(spend(orders), 0, 6, 2000)["spend_6h"].to_pylist() == [5.0, 7.0, None]
        assert look(spend(orders, first=First("item")), 0, 2000)["first"].to_pylist() == [1, 1]


def test_of_events_of_equal_time_the_one_recorded_last_is_the_last():
    source = EventSource("orders", "at", created_time_col="seen", project="shop")
    rows = [
        {"user": 1, "shop": "a", "item": i, "at": START, "seen": START + seen * HOUR, "amount": 1.0}
        for i, seen in enumerate([2, 9, 4, 9, 1])
    ]
    source.set_dataframe(table(rows)).write(mode="append")
    features = {"first": First("item"), "last": Last("item"), "two": FirstN("item", 2), "newest": LastN("item", 3)}
    (found,) = look(WindowedGroup("ends", USER, source, features), 0).to_pylist()
    assert (found["first"], found["last"], found["two"], found["newest"]) == (4, 3, [4, 0], [3, 1, 2])


def test_a_late_event_changes_exactly_the_windows_that_have_it(orders):
    group = spend(orders)
    before = look(group, 0, 1, 2, 6, 7)["spend_6h"].to_pylist()
    late = {"user": 1, "shop": "a", "item": 9, "at": START + HOUR / 2, "seen": None, "amount": 100.0}
    orders.set_dataframe(table([late])).write(mode="append")
    assert look(group, 0, 1, 2, 6, 7)["spend_6h"].to_pylist() == [5.0, 112.0, 112.0, 107.0, None]
    assert look(group, 0, 1, 2, 6, 7, as_of=1)["spend_6h"].to_pylist() == before
    assert look(group, 0, 1, 2, 6, 7, as_of={"orders": 1})["spend_6h"].to_pylist() == before
    FeatureStore().groups.register(group)
    assert look(group, 0, 1, 2, 6, 7, as_of={"spend": 1})["spend_6h"].to_pylist() == before


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_rows_of_a_feature_group_with_equal_keys_and_time_are_one_event(store):
    lines = FeatureGroup(
        "lines", Entity("line", ["user", "item"]), Materialization("at", created_time_col="seen"), "shop"
    )

    def line(item, amount, seen=None):
        return {"user": 1, "shop": "a", "item": item, "at": START, "seen": seen, "amount": amount}

    store.groups.write(lines, table([line(1, 5.0), line(2, 7.0), line(1, 6.0)]), mode="append")
    group = WindowedGroup("spend", USER, "shop/lines", {"n": Count(), "spend": Sum("amount")})
    assert look(group, 1).select(["n", "spend"]).to_pylist() == [{"n": 2, "spend": 13.0}]
    store.groups.write(lines, table([line(2, 1.0, START)]), mode="append")
    store.groups.write(lines, table([line(2, 99.0)]), mode="append")  # later, but recorded earlier than the one before
    assert look(group, 1).select(["n", "spend"]).to_pylist() == [{"n": 2, "spend": 7.0}]


def test_a_windowed_group_appears_beside_others_with_prefix_and_names(orders):
    other = FeatureGroup("profile", USER, Materialization("at"), "shop")
    FeatureStore().groups.write(other, pa.table({"user": [1], "at": [START], "age": [40]}))
    lookups = [FeatureLookup(spend(orders), ["spend_6h"], prefix="p_"), FeatureLookup("profile")]
    found = look(lookups, 1)
    assert found.column_names == ["user", "at", "p_spend_6h", "age"]
    assert found.to_pylist()[0]["p_spend_6h"] == 12.0
    FeatureStore().groups.register(spend(orders))
    renamed = FeatureLookup("shop/spend", ["spend_1h"], rename={"user": "buyer", "spend_1h": "s"})
    spine = pa.table({"buyer": [2], "at": [START + 3 * HOUR]})
    answer = HistoricalFeaturesDuckDB(renamed).using_spine(spine, "at").to_dataframe(output="arrow")
    assert answer["s"].to_pylist() == [1.0]


def test_a_history_has_a_row_for_each_event_and_latest_moves_with_the_clock(orders):
    group = spend(orders)
    history = HistoricalFeaturesDuckDB(FeatureLookup(group)).to_dataframe(output="arrow")
    assert history.select(["user", "spend_6h"]).to_pydict() == {"user": [1, 1, 2], "spend_6h": [5.0, 12.0, 1.0]}
    latest = HistoricalFeaturesDuckDB(FeatureLookup(group))
    assert latest.using_latest(START + HOUR).to_dataframe(output="arrow")["spend_6h"].to_pylist() == [12.0]
    assert latest.using_latest(START + 9 * HOUR).to_dataframe(output="arrow")["spend_6h"].to_pylist() == [None, None]


@pytest.mark.filterwarnings("ignore:shop/spend is now at version")
def test_a_new_definition_is_the_next_version_and_the_same_one_in_another_order_is_not(orders, store):
    first = spend(orders)
    store.groups.register(first)
    assert look(first, 1)["spend_6h"].to_pylist() == [12.0]
    again = WindowedGroup("spend", USER, "shop/orders", dict(reversed(spend(orders, n=Count()).features.items())))
    assert look(again, 1)["n"].to_pylist() == [2]
    assert look(spend(orders, n=Count()), 1)["n"].to_pylist() == [2]
    assert [one.number for one in store.groups.versions("spend")] == [1]  # a read registers nothing
    store.groups.register(spend(orders, n=Count()))
    store.groups.register(again)
    assert [(one.number, one.is_current) for one in store.groups.versions("spend")] == [(1, False), (2, True)]
    assert look(first, 1).column_names == [
        "user",
        "at",
        "spend_1h",
        "spend_6h",
    ]  # its own version, which stays as it is
    assert look([FeatureLookup("shop/spend", version=1)], 1).column_names[2:] == ["spend_1h", "spend_6h"]
    (change,) = store.groups.diff("spend", 1, 2)
    assert str(change) == "added n (int64: Count())"
    store.groups.rollback("spend", 1)
    assert look([FeatureLookup("spend")], 1).column_names[2:] == ["spend_1h", "spend_6h"]


def test_a_saved_training_set_is_rebuilt_after_late_events_an_overwrite_and_a_vacuum(orders, store):
    spine = pa.table({"user": [1, 2], "at": [START + 3 * HOUR] * 2})
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend(orders))).using_spine(spine, "at")
    before = asked.to_dataframe(output="arrow")
    asked.save("kept")
    for hour in range(3):
        orders.set_dataframe(
            table([{"user": 1, "shop": "a", "item": 5, "at": START + hour * HOUR, "seen": None, "amount": 9.0}])
        )
        orders.write(mode="append")
    with pytest.warns(SeeknalWarning, match="replaced all of shop/orders"):
        orders.write(mode="overwrite")
    assert store.groups.optimize("orders", keep_days=0).removed
    assert TrainingSet.load("kept").reproduce(output="arrow").equals(before)


def test_a_training_set_goes_to_a_file(orders, tmp_path):
    spine = pa.table({"user": [1, 2], "at": [START + 3 * HOUR] * 2})
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend(orders))).using_spine(spine, "at")
    assert asked.to_parquet(tmp_path / "set.parquet") == 2
    assert pq.read_table(tmp_path / "set.parquet")["spend_6h"].to_pylist() == [12.0, 1.0]


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("amount > (SELECT 1)", "has a subquery"),
        ("random() < 0.5", "calls random, whose result does not depend on the event alone"),
        ('now() > "at"', "calls now"),
        ("amout > 1", "names 'amout', which is not a column of the events. Did you mean 'amount'?"),
        ("amount", "is double, not true or false"),
        ("version() = 'x'", "calls version"),
        ("item = 1) OR (1 = 1", "is not a condition in SQL"),
        ("at > 1", 'needs double quotes: "at"'),
        ('shop = "a"', "names 'a', which is not a column of the events. Text takes single quotes."),
        ("amount > 1; SELECT 2", "is not a condition in SQL"),
        ("1) FROM read_csv('x') --", "is not a condition in SQL"),
        ("amount > 'x'", "does not fit the events"),
        ("count(*) OVER () > 1", "has a window"),
        ("sum(amount) > 1", "calls sum"),
        ("amount > $1", "has a parameter"),
        ("getenv('HOME') = 'x'", "calls getenv"),
    ],
)
def test_a_condition_about_more_than_one_event_is_refused_before_anything_is_registered(orders, store, where, problem):
    with pytest.raises(DefinitionError, match="of feature 'n'") as caught:
        look(spend(orders, n=Count(where=where)), 1)
    assert problem in str(caught.value)
    assert [one.name for one in store.groups.all()] == ["orders"]


def test_a_condition_may_call_functions_of_the_event(orders):
    calls = {
        "a": "nullif(item, 2) IS NULL",
        "b": "if(amount > 6, true, false)",
        "c": 'hour("at") = 0',
        "d": "lower(shop) LIKE 'b%'",
    }
    found = look(spend(orders, **{name: Count(where=where) for name, where in calls.items()}), 1)
    assert [found[name].to_pylist() for name in calls] == [[1], [1], [1], [1]]


def test_a_source_that_is_a_windowed_group_is_refused_by_name_too(orders, store):
    store.groups.register(spend(orders))
    second = WindowedGroup("second", USER, "shop/spend", {"n": Count()})
    for call in (lambda: store.groups.register(second), lambda: look(second, 1)):
        with pytest.raises(
            DefinitionError, match=r"shop/spend, is a windowed group, .* Name its source, 'shop/orders'"
        ):
            call()


def test_a_call_that_fails_registers_nothing(orders, store):
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend(orders)))
    for call in (
        lambda: asked.serve("bad name!"),
        lambda: asked.using_spine(pa.table({"buyer": [1], "at": [START]}), "at").save("set"),
        lambda: HistoricalFeaturesDuckDB(FeatureLookup(spend(orders), ["spent"])).serve("table"),
    ):
        with pytest.raises((DefinitionError, DataError)):
            call()
    assert [one.name for one in store.groups.all()] == ["orders"]


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.time32("ms"), pa.duration("s"), pa.timestamp("ms"), pa.uint64()])
def test_values_of_every_type_come_out_of_frames_streams_and_files_alike(tmp_path, kind):
    source = EventSource("odd", "at", project="shop")
    source.set_dataframe(
        pa.table(
            {
                "user": [1],
                "at": [START],
                "x": pa.array([1], pa.int64()).cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind),
            }
        )
    ).write()
    asked = HistoricalFeaturesDuckDB(
        FeatureLookup(WindowedGroup("last", USER, source, {"x": Last("x"), "n": Count("x")}))
    )
    asked = asked.using_spine(pa.table({"user": [1, 2], "at": [START, START]}), "at")
    frame = asked.to_dataframe(output="arrow")
    assert frame["n"].to_pylist() == [1, 0]
    assert frame.schema.field("x").type == kind
    assert asked.to_batches().read_all().equals(frame)
    assert asked.to_parquet(tmp_path / "odd.parquet") == 2


@pytest.mark.filterwarnings("ignore:shop/spend is now at version")
def test_a_condition_that_cannot_be_evaluated_for_an_event_is_named(orders):
    with pytest.raises(DataError, match=r"'CAST\(shop AS INT\) > 1'.*TRY_CAST"):
        look(spend(orders, n=Count(where="CAST(shop AS INT) > 1")), 1)
    assert look(spend(orders, n=Count(where="TRY_CAST(shop AS INT) > 1")), 1)["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ({"s": Sum("shop")}, "Sum of column 'shop' is not possible: it is string"),
        ({"s": Sum("amout")}, "column 'amout', which the events do not have. Did you mean 'amount'"),
        ({"s": Sum("amount", by="amount")}, "by='amount' is not possible"),
        ({"at": Count()}, "two roles"),
    ],
)
def test_an_aggregation_that_makes_no_sense_is_refused_before_anything_is_registered(orders, store, features, problem):
    with pytest.raises(DefinitionError) as caught:
        look(WindowedGroup("spend", USER, orders, features), 1)
    assert problem in str(caught.value)
    assert [one.name for one in store.groups.all()] == ["orders"]


def test_names_that_clash_or_are_empty_are_refused_where_they_are_written(orders):
    with pytest.raises(DefinitionError, match="two roles"):
        WindowedGroup("spend", USER, orders, {"user": Count()})
    with pytest.raises(DefinitionError, match="Two features of group 'spend' are named 'n_1h'"):
        WindowedGroup("spend", USER, orders, {"n": Count(over=["1h"]), "n_1h": Count()})
    with pytest.raises(DataError, match="differ in case only"):
        WindowedGroup("spend", USER, orders, {"n": Count(), "N": Count()})
    with pytest.raises(DefinitionError, match="not a mapping with at least one aggregation"):
        WindowedGroup("spend", USER, orders, {})
    with pytest.raises(DefinitionError, match="a windowed group, which has no events of its own"):
        WindowedGroup("spend", USER, spend(orders), {"n": Count()})


def test_what_has_no_rows_says_where_they_are(orders, store):
    store.groups.register(spend(orders))
    for call in (
        lambda: store.groups.push("spend", {}),
        lambda: store.groups.sample("spend", limit=1),
        lambda: store.groups.clean("spend", START),
        lambda: store.groups.optimize("spend"),
        lambda: store.groups.watermarks("spend"),
    ):
        with pytest.raises(DefinitionError, match="shop/spend is computed from shop/orders and has no rows of its own"):
            call()
    with pytest.raises(DefinitionError, match=r"event source, which is not online by itself\. Name .*'shop/spend'"):
        store.groups.load("orders")
    with pytest.raises(DefinitionError, match="event source, whose events are no features"):
        look([FeatureLookup("orders")], 1)
    with pytest.raises(DefinitionError, match="shop/spend is registered as a windowed group, not as a feature group"):
        store.groups.write(
            FeatureGroup("spend", USER, Materialization("at"), "shop"), pa.table({"user": [1], "at": [START], "x": [1]})
        )


def test_a_source_is_not_deleted_before_what_is_computed_from_it(orders, store):
    store.groups.register(spend(orders))
    with pytest.raises(DefinitionError, match=r"shop/orders is the source of 'shop/spend'\. Delete that first"):
        orders.delete()
    assert look(spend(orders), 1)["spend_6h"].to_pylist() == [12.0]
    store.groups.delete("spend")
    orders.delete()
    assert store.groups.all() == []


def test_an_erased_entity_is_gone_from_the_events_and_its_past_is_reported_when_it_returns(orders, store):
    group = spend(orders)
    store.groups.register(group)
    receipt = store.entities.erase("user", {"user": 1})
    assert receipt.rows == 2
    assert look(group, 1, 6)["spend_6h"].to_pylist() == [None, None]
    assert look(group, 3, user=2)["spend_6h"].to_pylist() == [1.0]
    with pytest.warns(match="of erased entities, dated at or before the erasure, stored again"):
        orders.set_dataframe(
            table([{"user": 1, "shop": "a", "item": 1, "at": START, "seen": None, "amount": 5.0}])
        ).write(mode="append")


def test_an_entity_that_is_not_there_is_in_no_training_set(orders, store):
    by_shop = WindowedGroup("by_shop", Entity("shop", ["shop"]), orders, {"n": Count()})
    store.groups.register(spend(orders))
    spine = pa.table({"shop": ["a"], "at": [START + HOUR]})
    HistoricalFeaturesDuckDB(FeatureLookup(by_shop)).using_spine(spine, "at").save("of_shops")
    with pytest.warns(match="No row of that entity was stored"):
        store.entities.erase("user", {"user": 99})
    assert TrainingSet.load("of_shops").reproduce(output="arrow").num_rows == 1


def test_a_receipt_names_sources_that_hold_the_entity_too(orders, store):
    store.groups.register(spend(orders))
    other = EventSource("visits", "at", project="shop")
    other.set_dataframe(table([{"user": 1, "shop": "a", "item": 1, "at": START, "seen": None, "amount": 5.0}])).write()
    second = WindowedGroup("second", USER, orders, {"n": Count()})
    store.groups.register(second)
    receipt = store.entities.erase("user", {"user": 1})
    assert receipt.beside == ("shop/visits",)
    assert [one.group for one in receipt.groups] == ["shop/orders"]
    assert look(second, 1)["n"].to_pylist() == [0]


def test_a_training_set_of_the_same_events_stops_an_erasure(orders, store):
    by_shop = WindowedGroup("by_shop", Entity("shop", ["shop"]), orders, {"n": Count()})
    store.groups.register(spend(orders))
    spine = pa.table({"shop": ["a"], "at": [START + HOUR]})
    HistoricalFeaturesDuckDB(FeatureLookup(by_shop)).using_spine(spine, "at").save("of_shops")
    with pytest.raises(DefinitionError, match="of_shops"):
        store.entities.erase("user", {"user": 1})
    assert look(spend(orders), 1)["spend_6h"].to_pylist() == [12.0]


def test_another_source_needs_another_group(orders, store):
    store.groups.register(spend(orders))
    other = EventSource("returns", "at", project="shop")
    other.set_dataframe(table([{"user": 1, "shop": "a", "item": 1, "at": START, "seen": None, "amount": 5.0}])).write(
        mode="append"
    )
    with pytest.raises(DefinitionError, match="over shop/orders, not as a windowed group of user over shop/returns"):
        look(spend(other), 1)


def test_a_source_without_rows_or_without_a_name_is_said_so(store):
    store.groups.register(event_group("orders", "at", project="shop"))
    with pytest.raises(DefinitionError, match="Nothing was written to event source 'orders' yet"):
        look(spend("shop/orders"), 1)
    with pytest.raises(DefinitionError, match="nowhere"):
        look(spend("shop/nowhere"), 1)
