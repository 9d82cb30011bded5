"""Code written for the first Seeknal works, or raises an error that names the new way."""

import json
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import seeknal
from seeknal import (
    DefinitionError,
    Entity,
    EventSource,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    FeatureView,
    FillNull,
    GetLatestTimeStrategy,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    Sum,
    WindowedGroup,
)

FRAME = pd.DataFrame(
    {
        "user_id": ["u1", "u2", "u2"],
        "timestamp": pd.to_datetime(["2024-01-15", "2024-01-16", "2024-01-18"]),
        "visits": pd.array([3, 5, None], "Int64"),
        "spend": [1.5, 2.5, None],
    }
)


def user() -> Entity:
    return Entity("user", ["user_id"])


def users(**rest) -> FeatureGroupDuckDB:
    return FeatureGroupDuckDB(
        name="users", entity=user(), materialization=Materialization(event_time_col="timestamp"), **rest
    )


@pytest.fixture
def written() -> FeatureGroupDuckDB:
    fg = users(dataframe=FRAME)
    fg.write()
    return fg


# Entities


def test_the_third_positional_argument_of_an_entity_is_its_pii_keys_if_it_is_a_list():
    entity = Entity("user", ["user_id"], ["user_id"], "Who buys")
    assert (entity.pii_keys, entity.description) == (("user_id",), "Who buys")


def test_the_third_positional_argument_of_an_entity_is_its_description_if_it_is_text():
    entity = Entity("user", ["user_id"], "Who buys", ["user_id"])
    assert (entity.pii_keys, entity.description) == (("user_id",), "Who buys")


def test_get_or_create_of_an_entity_returns_it_and_its_first_group_registers_it(written):
    assert user().get_or_create() == user()
    assert FeatureStore().entities.get("user").entity == user()


def test_an_entity_without_join_keys_is_refused_and_the_advice_works(written):
    with pytest.raises(DefinitionError, match=r"FeatureStore\(\)\.entities\.get\('user'\)\.entity"):
        Entity(name="user").get_or_create()
    assert FeatureStore().entities.get("user").entity.join_keys == ("user_id",)


def test_listing_the_entities_by_the_former_call_names_the_new_one(written):
    with pytest.raises(DefinitionError, match=r"FeatureStore\(\)\.entities\.all\(\)"):
        Entity.list()
    assert [one.entity for one in FeatureStore().entities.all()] == [user()]


def test_the_values_that_an_entity_was_given_are_a_key_to_look_up(written):
    table = HistoricalFeaturesDuckDB([FeatureLookup(source=written)]).serve(name="online")
    assert table.get_features(keys=[user().get_or_create().set_key_values("u1")])["visits"].tolist() == [3]
    with pytest.raises(
        DefinitionError, match=r"join key of entity 'user' is user_id; set_key_values was given 2 values"
    ):
        user().set_key_values("u1", "u2")


# Groups


def test_a_frame_can_be_given_with_the_group_or_by_its_former_name():
    assert users(dataframe=FRAME).dataframe is FRAME
    assert users().set_dataframe(dataframe=FRAME).dataframe is FRAME
    assert users().dataframe is None


def test_a_frame_as_the_fourth_argument_of_a_group_is_its_dataframe():
    fg = FeatureGroupDuckDB("users", user(), Materialization("timestamp"), FRAME, "Who buys", ["visits"])
    assert (fg.dataframe is FRAME, fg.project, fg.description, fg.features) == (True, "default", "Who buys", ["visits"])
    with pytest.raises(DefinitionError, match="Project name 7 breaks the rule"):
        FeatureGroupDuckDB("users", user(), Materialization("timestamp"), 7)


def test_features_can_be_set_by_their_former_name():
    fg = users(dataframe=FRAME).set_features(features=["visits"])
    assert fg.features == ["visits"]
    fg.write()
    assert fg.features == ["visits"]


def test_the_features_of_a_group_are_known_before_its_first_write():
    fg = users().set_dataframe(FRAME).set_features()
    before = fg.features
    assert fg.version is None
    fg.write()
    assert before == fg.features == ["visits", "spend"]


def test_a_group_without_an_entity_or_a_frame_has_no_features_yet():
    assert FeatureGroupDuckDB("users", dataframe=FRAME).features == users().features == []


def test_the_features_of_a_frame_are_neither_keys_nor_times():
    dated = Materialization(event_time_col="timestamp", created_time_col="spend")
    assert FeatureGroupDuckDB("users", user(), dated, dataframe=FRAME).features == ["visits"]


def test_the_online_watermarks_are_the_newest_event_time_that_is_online(written, tmp_path):
    assert written.online_watermarks == []
    table = HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("online")
    assert written.online_watermarks == written.offline_watermarks == [datetime(2024, 1, 18, tzinfo=UTC)]
    written.set_dataframe(FRAME.assign(timestamp=pd.Timestamp("2024-02-01"))).write(mode="append")
    assert written.online_watermarks == [datetime(2024, 1, 18, tzinfo=UTC)]
    HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("second", target=tmp_path / "second")
    assert written.online_watermarks == [datetime(2024, 1, 18, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    table.refresh()
    assert written.online_watermarks == [datetime(2024, 2, 1, tzinfo=UTC)]


def test_a_group_that_is_not_registered_has_no_online_watermarks(home):
    assert users().online_watermarks == []
    assert not home.exists()


def test_delete_returns_true_if_it_deleted(written):
    table = HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("online")
    assert table.delete() is True
    assert written.delete() is True
    with pytest.raises(DefinitionError):
        written.delete()


# Online tables


@pytest.mark.parametrize("key", [user(), "user_id"])
def test_a_table_is_found_by_its_name_and_lookup_key(written, key):
    HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("online")
    assert OnlineFeaturesDuckDB(name="online", lookup_key=key).get_features(keys=[{"user_id": "u1"}])["spend"][0] == 1.5


def test_an_entity_as_the_second_argument_of_a_table_is_its_lookup_key(written):
    HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("online")
    assert OnlineFeaturesDuckDB("online", user()).project == "default"
    assert OnlineFeaturesDuckDB("online", "default", lookup_key=user()).project == "default"


def test_a_table_with_other_keys_than_the_lookup_key_is_refused(written):
    HistoricalFeaturesDuckDB([FeatureLookup(written)]).serve("online")
    with pytest.raises(
        DefinitionError, match=r"join key of online table default/online is user_id; .*'shop_id' is not"
    ):
        OnlineFeaturesDuckDB("online", Entity("shop", ["shop_id"]))
    with pytest.raises(DefinitionError, match="lookup_key=7 is not an entity"):
        OnlineFeaturesDuckDB("online", lookup_key=7)


# Features of the past

SPINE = pd.DataFrame(
    {
        "user_id": ["u1", "u2", "u3", None],
        "at": pd.to_datetime(["2024-01-20"] * 4),
        "label": [1.0, None, 0.5, 0.25],
    }
)
FILLS = [FillNull(value="0", dataType="int64"), FillNull(value="-1.5", dataType="double")]


def past(written, *fills) -> HistoricalFeaturesDuckDB:
    return HistoricalFeaturesDuckDB(lookups=[FeatureLookup(source=written)], fill_nulls=list(fills) or None)


def test_a_spine_is_read_by_the_former_name_of_the_method(written):
    asked = past(written).using_spine(spine=SPINE, date_col="at", keep_cols=["label"])
    pd.testing.assert_frame_equal(asked.to_dataframe_with_spine(), asked.to_dataframe())


def test_without_a_spine_the_former_method_says_how_to_set_one(written):
    asked = past(written)
    asked.using_spine(SPINE, date_col="at")
    with pytest.raises(DefinitionError, match=r"using_spine\(\) returns other features .* call it first"):
        asked.to_dataframe_with_spine()


@pytest.mark.parametrize("name", ["entity_df", "spine", "spine_df"])
def test_a_spine_passed_to_the_reading_method_is_refused_with_the_call_to_write(written, name):
    with pytest.raises(
        DefinitionError, match=rf"takes no {name}. Write using_spine\(spine, date_col=...\)\.to_dataframe"
    ):
        past(written).to_dataframe(**{name: SPINE}, timestamp_col="at")


def test_any_other_unknown_argument_is_a_type_error(written):
    with pytest.raises(TypeError, match=r"to_dataframe\(\) got an unexpected keyword argument 'outptu'"):
        past(written).to_dataframe(outptu="pandas")


@pytest.mark.parametrize("output", ["pandas", "polars", "arrow", "duckdb"])
def test_nulls_of_features_are_filled_whether_stored_or_missing_and_those_of_the_spine_stay(written, output):
    frame = past(written, *FILLS).using_spine(SPINE, date_col="at").to_dataframe(output=output)
    table = frame.to_arrow_table() if output == "duckdb" else pa.table(frame)
    assert table["visits"].to_pylist() == [3, 0, 0, 0]
    assert table["spend"].to_pylist() == [1.5, -1.5, -1.5, -1.5]
    plain = past(written).using_spine(SPINE, date_col="at").to_dataframe(output="arrow")
    assert table["label"].to_pylist() == plain["label"].to_pylist() == [1.0, None, 0.5, 0.25]
    assert table["visits"].type == plain["visits"].type == pa.int64()


def test_all_reading_methods_fill_nulls_alike(written, tmp_path):
    asked = past(written, *FILLS)
    spined = asked.using_spine(SPINE, date_col="at")
    assert spined.to_parquet(tmp_path / "set.parquet") == len(SPINE)
    expected = spined.to_dataframe(output="arrow")
    assert spined.to_batches().read_all().to_pylist() == expected.to_pylist()
    assert pq.read_table(tmp_path / "set.parquet").to_pylist() == expected.to_pylist()
    assert asked.to_dataframe()["spend"].tolist() == [1.5, 2.5, -1.5]
    assert asked.using_latest().to_dataframe()["visits"].tolist() == [3, 0]


def test_nulls_are_filled_only_in_the_columns_that_are_named(written):
    spend = HistoricalFeaturesDuckDB(
        [FeatureLookup(written, features=["spend"]), FeatureLookup(written, features=["spend"], prefix="my_")],
        [FillNull(0.5, "double", columns=["my_spend"])],
    )
    found = spend.using_latest().to_dataframe(output="arrow")
    assert (found["spend"].to_pylist(), found["my_spend"].to_pylist()) == ([1.5, None], [1.5, 0.5])


def test_nan_is_a_value_that_is_not_filled():
    frame = pa.table({"user_id": ["u1", "u2"], "timestamp": [datetime(2024, 1, 1)] * 2, "x": [float("nan"), None]})
    fg = users(dataframe=frame)
    fg.write()
    found = past(fg, FillNull("7", "double")).using_latest().to_dataframe(output="arrow")["x"].to_pylist()
    assert (str(found[0]), found[1]) == ("nan", 7.0)


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        (pa.int32(), "int", "7", 7),
        (pa.int64(), "bigint", 7, 7),
        (pa.bool_(), "boolean", "true", True),
        (pa.string(), "string", "", ""),
        (pa.date32(), "date32", "2024-01-31", datetime(2024, 1, 31).date()),
        (pa.timestamp("us"), "timestamp[us]", "2024-01-31", datetime(2024, 1, 31)),
        (pa.list_(pa.int8()), pa.list_(pa.int8()), [1, 2], [1, 2]),
    ],
    ids=str,
)
def test_nulls_of_any_type_can_be_filled(kind, name, value, expected):
    day = pa.array([datetime(2024, 1, 1)])
    fg = users(dataframe=pa.table({"user_id": ["u1"], "timestamp": day, "x": pa.nulls(1, kind)}))
    fg.write()
    found = past(fg, FillNull(value, name)).using_latest().to_dataframe(output="arrow")
    assert (found["x"].type, found["x"].to_pylist()) == (kind, [expected])


def test_windowed_features_are_filled_too(written):
    orders = EventSource("orders", event_time_col="timestamp")
    orders.set_dataframe(FRAME[["user_id", "timestamp", "spend"]]).write()
    spend = WindowedGroup("spend", user(), orders, {"spend_7d": Sum("spend", over="7d")})
    asked = HistoricalFeaturesDuckDB(FeatureLookup(spend), [FillNull("0", "double")])
    assert asked.using_spine(SPINE, date_col="at").to_dataframe()["spend_7d"].tolist() == [1.5, 2.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("fill", "problem"),
    [
        (FillNull("0", "int32"), r"none is of type int32. The features are visits \(int64\), spend \(double\)"),
        (FillNull("0", "int64", columns=["spend"]), "names 'spend', not a feature of type int64"),
        (FillNull("0", "int64", columns=["label"]), "names 'label', not a feature of type int64"),
        (FillNull("0.5", "int64"), "cannot fill int64: dataType is int64, which '0.5' is not"),
        (FillNull(0.5, "int64"), "cannot fill int64"),
        (FillNull(pd.NA, "int64"), "fills nothing: its value is null"),
    ],
    ids=lambda part: part.dataType if isinstance(part, FillNull) else "",
)
def test_a_fill_that_cannot_be_is_refused(written, fill, problem):
    asked = past(written, fill).using_spine(SPINE, date_col="at")
    for read in (asked.to_dataframe, asked.to_batches):
        with pytest.raises(DefinitionError, match=problem):
            read()


def test_two_fills_of_one_feature_are_refused(written):
    with pytest.raises(DefinitionError, match="two values for 'spend'"):
        past(written, FILLS[1], FillNull("1", "double", columns=["spend"])).to_dataframe()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: FillNull(None, "double"),
        lambda: FillNull("0", float),
        lambda: FillNull("0", "whole"),
        lambda: FillNull("0", "double", columns="spend"),
        lambda: past(users(), 0.0),
    ],
)
def test_a_fill_of_the_wrong_form_is_refused(wrong):
    with pytest.raises(DefinitionError, match=r"Write|Pass"):
        wrong()


def test_what_would_not_fill_nulls_is_refused_before_anything_is_stored(written):
    asked = past(written, *FILLS)
    with pytest.raises(DefinitionError, match=r"not a feature of type int8"):
        past(written, FillNull(0, "int8", columns=["visits"])).serve("online")
    with pytest.raises(DefinitionError, match="Save it without fill_nulls"):
        asked.using_spine(SPINE, date_col="at").save("may")
    assert (FeatureStore().tables.all(), FeatureStore().training_sets.all()) == ([], [])


def test_a_view_saves_filled_nulls_as_the_refusal_advises(written):
    view = FeatureView("spenders", [FeatureLookup(written)], defaults={"visits": 0, "spend": -1.5})
    saved = view.training_set(SPINE[["user_id", "at"]], date_col="at", name="may").to_dataframe()
    asked = past(written, *FILLS).using_spine(SPINE, date_col="at", keep_cols=[])
    pd.testing.assert_frame_equal(saved, asked.to_dataframe())


def test_explain_shows_what_is_stored(written):
    found = past(written, *FILLS).using_spine(SPINE, date_col="at").explain(SPINE.iloc[1])
    assert pd.isna(found["features"][0]["spend"])


def test_the_latest_features_of_any_group_are_what_the_former_strategy_returns(written):
    other = FeatureGroupDuckDB(
        "clicks",
        user(),
        Materialization("timestamp"),
        dataframe=FRAME.rename(columns=str.upper)
        .rename(columns={"USER_ID": "user_id", "TIMESTAMP": "timestamp"})
        .assign(user_id=["u2", "u3", "u3"]),
    )
    other.write()
    both = HistoricalFeaturesDuckDB([FeatureLookup(written), FeatureLookup(other)])
    plain = both.using_latest().to_dataframe()
    for strategy in (GetLatestTimeStrategy.REQUIRE_ANY, "require_any"):
        pd.testing.assert_frame_equal(both.using_latest(fetch_strategy=strategy).to_dataframe(), plain)
    pd.testing.assert_frame_equal(both.using_latest(GetLatestTimeStrategy.REQUIRE_ANY).to_dataframe(), plain)
    assert plain["user_id"].tolist() == ["u1", "u2", "u3"]
    with pytest.raises(DefinitionError, match=r"Pass GetLatestTimeStrategy\.REQUIRE_ANY"):
        both.using_latest(fetch_strategy=GetLatestTimeStrategy.REQUIRE_ALL)


def test_the_latest_features_of_one_group_are_those_of_all_groups(written):
    asked = past(written)
    plain = asked.using_latest().to_dataframe()
    pd.testing.assert_frame_equal(asked.using_latest(GetLatestTimeStrategy.REQUIRE_ALL).to_dataframe(), plain)
    with pytest.raises(DefinitionError, match="fetch_strategy='newest' is unknown"):
        asked.using_latest(fetch_strategy="newest")


# Imports


def test_the_classes_can_be_imported_from_the_package_of_the_engine():
    from seeknal.featurestore import duckdbengine
    from seeknal.featurestore.duckdbengine import feature_group

    assert duckdbengine.FeatureGroupDuckDB is FeatureGroupDuckDB
    assert duckdbengine.__all__ == feature_group.__all__
    assert all(getattr(duckdbengine, name) is getattr(feature_group, name) for name in duckdbengine.__all__)


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        ("feature_group", "FeatureGroup", "duckdbengine.feature_group import FeatureGroupDuckDB"),
        ("feature_group", "FillNull", "duckdbengine.feature_group import FillNull"),
        ("duckdbengine.featurestore", "OfflineStoreDuckDB", "set SEEKNAL_HOME"),
        ("duckdbengine.featurestore", "OnlineStoreDuckDB", "online_store in seeknal.toml"),
    ],
)
def test_importing_a_class_that_is_gone_says_what_to_use_instead(module, name, advice):
    with pytest.raises(ImportError, match=advice):
        exec(f"from seeknal.featurestore.{module} import {name}", {})
    assert not hasattr(import_module(f"seeknal.featurestore.{module}"), "anything_else")


# The command line


def answer(*words: str) -> object:
    done = seeknal(*words, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_init_writes_the_name_and_the_description_that_it_was_given(monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    answer("init", "--name", "shop", "--description", "What customers buy [it = all]")
    lines = Path("seeknal.toml").read_text().splitlines()
    assert lines[:2] == ["# Settings of the Seeknal project shop.", "# What customers buy [it = all]"]
    assert answer("info")["settings"][0]["value"] == str(Path.cwd() / ".seeknal")


@pytest.mark.parametrize("option", [("--name", "my shop"), ("--name", ""), ("--description", "x\nhome = '/tmp'")])
def test_init_refuses_what_would_be_no_comment(option):
    assert seeknal("init", *option).returncode in {1, 2}
    assert not Path("seeknal.toml").exists()


def test_init_replaces_settings_only_if_forced_and_keeps_them():
    Path("seeknal.toml").write_text("freshness = '6h'\n")
    refused = seeknal("init", "--name", "shop")
    assert (refused.returncode, "add --force" in refused.stderr) == (1, True)
    made = answer("init", "--name", "shop", "--force")
    assert Path(made["former_settings"]).read_text() == "freshness = '6h'\n"
    assert Path(made["settings"]).read_text().startswith("# Settings of the Seeknal project shop.")
    assert "former_settings" not in answer("init", "-n", "shop", "--force")
    assert Path("seeknal.toml.bak").read_text() == "freshness = '6h'\n"


def test_init_with_force_makes_a_new_project_too():
    assert "former_settings" not in answer("init", "--force")
    assert Path("seeknal.toml").read_text().startswith("# Settings of this Seeknal project.")


def test_a_deletion_with_force_does_not_ask(written):
    assert answer("delete", "feature-group", "users", "--force") == {"deleted": "default/users"}


def test_force_deletes_nothing_that_is_needed(written):
    past(written).using_latest().save("may")
    assert seeknal("delete", "feature-group", "users", "--force").returncode == 1
    assert written.version == 1


@pytest.mark.filterwarnings("ignore:.* is now at version")
def test_the_newest_versions_are_listed_if_there_is_a_limit(written):
    written.set_dataframe(FRAME.assign(more=1)).set_features().write()
    written.set_dataframe(FRAME.assign(more=1, most=2)).set_features().write()
    every = answer("version", "list", "users")
    assert [one["version"] for one in every] == [1, 2, 3]
    for words in (["--limit", "2"], ["-l", "2"], ["-n", "2"]):
        assert answer("version", "list", "users", *words) == every[1:]
    assert answer("version", "list", "users", "--limit", "9") == every
    assert seeknal("version", "list", "users", "--limit", "0").returncode == 2


@pytest.mark.filterwarnings("ignore:.* is now at version")
def test_versions_are_compared_by_the_short_options(written):
    written.set_dataframe(FRAME.assign(more=1)).set_features().write()
    found = answer("version", "diff", "users", "-f", "1", "-t", "2")
    assert found == answer("version", "diff", "users", "--from", "1", "--to", "2")
    assert [one["name"] for one in found["added"]] == ["more"]


def test_the_short_options_of_the_other_commands_work(written):
    assert len(answer("debug", "users", "-l", "1")) == 1
    assert answer("materialize", "users", "-s", "2024-01-16", "-e", "2024-01-17")["rows"] == 1
    assert answer("clean", "users", "-b", "2024-01-16", "--dry-run")["would_be_removed"] == 1


def test_an_entity_is_shown(written):
    found = answer("show", "entity", "user")
    assert (found["join_keys"], found["feature_groups"][0]["feature_group"]) == (["user_id"], "users")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["validate"], "seeknal doctor"),
        (["entity", "show", "user"], "seeknal show entity NAME"),
        (["run", "flow", "--start-date", "2024-01-01"], "no pipelines"),
    ],
)
def test_a_command_that_is_gone_says_what_to_do_instead(words, advice):
    done = seeknal(*words)
    assert done.returncode == 2
    assert advice in " ".join(done.stderr.replace("│", " ").split())
