"""Windowed groups and event sources appear wherever groups do: in commands, backups, the server and the client."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pyarrow as pa
import pytest

from commands import seeknal
from seeknal import (
    Client,
    Count,
    DataError,
    DefinitionError,
    Entity,
    EventSource,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
    Sum,
    WindowedGroup,
)
from seeknal.home.backup import backup, restore
from servers import Server

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ORDERS = pa.table(
    {
        "user": [1, 1, 2],
        "at": [START, START + HOUR, START + 3 * HOUR],
        "amount": [5.0, 7.0, None],
        "shop": ["a", "b", "a"],
    }
)
FEATURES = {"spend": Sum("amount", over=["1h", "6h"]), "in_a": Count(over="6h", where="shop = 'a'")}
SPINE = pa.table({"user": [1, 2], "at": [START + 3 * HOUR] * 2})


@pytest.fixture
def spend():
    """A windowed group over a few orders, registered."""
    source = EventSource("orders", "at", project="shop", description="What was sold")
    source.set_dataframe(ORDERS).write(mode="append")
    group = WindowedGroup("spend", Entity("user", ["user"]), source, FEATURES)
    FeatureStore().groups.register(group)
    return group


def table(*command):
    """Run a command, and return its JSON."""
    done = seeknal(*command, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_spine(lookup="spend"):
    """Return the features at the spine's moments."""
    return HistoricalFeaturesDuckDB(FeatureLookup(lookup)).using_spine(SPINE, "at").to_dataframe(output="arrow")


def test_commands_list_and_show_them_by_kind(spend):
    kinds = {one["feature_group"]: (one["kind"], one["entity"]) for one in table("list", "feature-groups")}
    assert kinds == {"orders": ("event source", None), "spend": ("windowed group", "user")}
    assert [one["entity"] for one in table("list", "entities")] == ["user"]
    shown = table("show", "feature-group", "spend")
    assert shown["source"] == "shop/orders"
    assert shown["features"][2] == {"feature": "in_a", "aggregation": "Count(where=\"shop = 'a'\", over='6h')"}
    shown = table("show", "feature-group", "orders")
    assert (shown["event_time"], shown["event_id"], shown["windowed_groups"]) == ("at", None, ["shop/spend"])
    assert [one["features"] for one in table("version", "list", "spend")] == [3]
    assert seeknal("doctor").returncode == 0
    assert "3 features, computed from shop/orders" in seeknal("doctor").stdout


@pytest.mark.filterwarnings("ignore:shop/spend is now at version")
def test_commands_compare_versions_of_a_definition(spend):
    FeatureStore().groups.register(WindowedGroup("spend", spend.entity, spend.source, {"n": Count(over="1h")}))
    told = table("version", "diff", "spend", "--from", "1", "--to", "2")
    assert told["added"] == [{"name": "n", "type": "int64: Count(over='1h')"}]
    assert [one["name"] for one in told["removed"]] == ["spend_1h", "spend_6h", "in_a"]
    assert table("version", "rollback", "spend", "--to", "1")["version"] == 1


def test_an_explanation_names_the_windows_of_each_event_and_why_others_do_not_have_it(spend):
    lines = table("explain", "spend", "user=1", "--at", "2024-03-01T03:00")
    assert [one["verdict"] for one in lines] == [
        "in spend_6h; not in spend_1h: too old by 1:00:00; not in in_a: shop = 'a' is not true",
        "in spend_6h, in_a; not in spend_1h: too old by 2:00:00",
    ]
    (line,) = table("explain", "spend", "user=2", "--at", "2024-03-01T03:00")
    assert line["verdict"] == "in in_a; not in spend_1h, spend_6h: amount is null"
    (line,) = table("explain", "spend", "user=2", "--at", "2024-03-01T02:00")
    assert line["verdict"] == "future: 1:00:00 after the moment"


def test_explanations_agree_with_the_values(spend):
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend)).using_spine(SPINE, "at")
    verdicts = asked.explain({"user": 1, "at": START + 3 * HOUR}, limit=None)
    amounts = [
        row["amount"] for row, told in zip(verdicts.features, verdicts.verdict, strict=True) if "in spend_6h" in told
    ]
    assert sum(amounts) == of_spine()["spend_6h"].to_pylist()[0] == 12.0


def test_leaks_are_looked_for_in_the_events(spend):
    late = EventSource("late", "at", project="shop", created_time_col="seen")
    seen = pa.array([START + timedelta(days=9)] * 3)
    late.set_dataframe(ORDERS.append_column("seen", seen)).write(mode="append")
    group = WindowedGroup("lately", spend.entity, late, FEATURES)
    with pytest.warns(SeeknalWarning, match="recorded more than a day after"):
        found = HistoricalFeaturesDuckDB(FeatureLookup(group)).using_spine(SPINE, "at").check()
    assert len(found) == 1
    assert "computed at each moment, from events up to it" in found.report


def test_a_backup_has_them(spend, home, tmp_path):
    before = of_spine()
    backup(FeatureStore(), tmp_path / "copy")
    store = FeatureStore(tmp_path / "again")
    restore(tmp_path / "copy", store)
    lookups = [FeatureLookup("shop/spend")]
    assert store.features.training_set(lookups, SPINE, "at", output="arrow").equals(before)


def test_a_server_computes_them_and_lists_them(spend, home, tmp_path):
    with Server(home) as server, Client(server.url) as client:
        assert client.training_set([FeatureLookup("shop/spend")], SPINE, "at", output="arrow").equals(of_spine())
        with pytest.raises(DefinitionError, match="Register it in the home"):
            client.training_set([FeatureLookup(spend)], SPINE, "at")
        (project,) = client.catalog()
        kinds = {one["name"]: (one["kind"], one["source"]) for one in project["feature_groups"]}
        assert kinds == {"orders": ("event source", None), "spend": ("windowed group", "shop/orders")}


def test_a_server_looks_them_up_and_tells_how_fresh_they_are(spend, home):
    HistoricalFeaturesDuckDB(FeatureLookup(spend)).serve("scores")
    own = FeatureStore().tables.open("scores").get_features([{"user": 1}, {"user": 9}], "dicts")
    assert own[1] == {"user": 9, "spend_1h": None, "spend_6h": None, "in_a": 0}
    with Server(home) as server, Client(server.url) as client:
        assert client.get_features("scores", [{"user": 1}, {"user": 9}], "dicts") == own
        text = urlopen(f"{server.url}/metrics").read().decode()
        assert 'seeknal_online_data_age_seconds{project="shop",table="scores"}' in text
    assert seeknal("status").returncode == 0


def test_commands_serve_refresh_and_verify_them(spend):
    HistoricalFeaturesDuckDB(FeatureLookup(spend)).serve("scores")
    spend.source.set_dataframe(ORDERS.slice(0, 1)).write(mode="append")
    assert seeknal("refresh", "scores").returncode == 0
    assert seeknal("verify", "scores").returncode == 0
    assert seeknal("doctor").returncode == 0
    assert table("show", "feature-group", "spend")["online"][0]["up_to_date"] is True


@pytest.mark.filterwarnings("ignore:Online table 'shop/scores' was replaced")
def test_an_online_table_keeps_its_definition_until_it_is_served_again(spend):
    table_ = HistoricalFeaturesDuckDB(FeatureLookup(spend)).serve("scores")
    before = FeatureStore().tables.verify("scores")
    other = WindowedGroup(
        "spend", spend.entity, spend.source, FEATURES | {"in_a": Count(over="6h", where="shop = 'b'")}
    )
    with pytest.warns(
        SeeknalWarning, match=r"shop/spend is now at version 2: modified in_a .*until they are served again"
    ):
        FeatureStore().groups.register(other)
    assert seeknal("refresh", "scores").returncode == 0
    assert table("show", "online-table", "scores")["versions"] == ["spend 1"]
    assert FeatureStore().tables.verify("scores").values == before.values
    assert FeatureStore().tables.verify("scores").equal
    assert table_.get_features([{"user": 1}], "dicts")[0]["in_a"] == 0
    HistoricalFeaturesDuckDB(FeatureLookup(other)).serve("scores")
    assert table("show", "online-table", "scores")["versions"] == ["spend 2"]


def test_events_that_lack_a_column_are_refused_unless_they_replace_all(spend):
    with pytest.raises(DataError, match=r"lacks 'amount', which its events have. .*mode='overwrite'"):
        spend.source.set_dataframe(ORDERS.drop_columns("amount")).write()
    assert of_spine()["spend_6h"].to_pylist() == [12.0, None]


def test_a_clean_says_whose_windows_lose_events(spend):
    HistoricalFeaturesDuckDB(FeatureLookup(spend)).serve("scores")
    with pytest.warns(
        SeeknalWarning, match="shop/spend is computed from the events of 6:00:00, and shop/orders has those since"
    ):
        FeatureStore().groups.clean("orders", datetime.now(UTC) - HOUR)


def test_an_interval_that_cuts_windows_says_so(spend):
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend)).using_spine(SPINE, "at")
    with pytest.warns(
        SeeknalWarning, match="Windows of shop/spend lack events: the first window begins at 2024-02-29 21:00"
    ):
        cut = asked.to_dataframe(feature_start_time=START + HOUR, output="arrow")
    assert cut["spend_6h"].to_pylist() == [7.0, None]
    assert asked.to_dataframe(feature_start_time=START - 6 * HOUR, output="arrow").equals(of_spine())


@pytest.mark.filterwarnings("ignore:shop/orders is now at version")
def test_a_source_that_loses_a_column_says_which_group_cannot_be_computed(spend):
    source = spend.source
    with pytest.warns(
        SeeknalWarning, match="shop/spend can no longer be computed: .*'amount', which the events do not have"
    ):
        source.set_dataframe(ORDERS.drop_columns("amount")).write(mode="overwrite")
    with pytest.raises(DefinitionError, match="'amount', which the events do not have"):
        of_spine()
    assert table("version", "list", "spend")[0]["features"] == 3
    assert table("list", "feature-groups")[1]["feature_group"] == "spend"
    source.set_dataframe(ORDERS).write(mode="overwrite")
    assert of_spine()["spend_6h"].to_pylist() == [12.0, None]


def test_the_type_of_a_feature_follows_the_events(spend):
    groups = FeatureStore().groups
    whole = EventSource("counts", "at", project="shop")
    whole.set_dataframe(pa.table({"user": [1], "at": [START], "x": pa.array([3], pa.int8())})).write()
    group = WindowedGroup("largest", spend.entity, whole, {"x": Sum("x"), "top": Count("x")})
    groups.register(group)
    assert str(groups.version("largest").schema.feature("x").type) == "int64"


@pytest.mark.parametrize("name", ["orders", "spend"])
def test_a_group_is_of_one_kind(spend, name):
    with pytest.raises(DefinitionError, match=f"shop/{name} is registered as"):
        FeatureStore().groups.register(
            WindowedGroup("orders", spend.entity, spend.source, FEATURES)
            if name == "orders"
            else EventSource("spend", "at", project="shop").definition
        )


def test_arguments_of_a_source_are_checked_where_they_are_written():
    with pytest.raises(DefinitionError, match="event_id='id' is not a list"):
        EventSource("orders", "at", "id")
    with pytest.raises(DefinitionError, match="names 'id' twice"):
        EventSource("orders", "at", ["id", "id"])
    with pytest.raises(DefinitionError, match="Event source name 'no/name' breaks the rule"):
        EventSource("no/name", "at")
    with pytest.raises(DefinitionError, match="has no event time"):
        EventSource("orders", None)
    with pytest.raises(DefinitionError, match="has no frame"):
        EventSource("orders", "at").write()
    with pytest.raises((DataError, StoreError, DefinitionError)):
        EventSource("orders", "at").set_dataframe(ORDERS.drop_columns("at")).write()
