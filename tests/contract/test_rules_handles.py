"""A handle belongs to one store, whatever SEEKNAL_HOME says afterwards; and to look at one makes nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from registries import in_a_file
from seeknal import (
    DefinitionError,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    TrainingSet,
)
from seeknal.home import session

from .world import HOUR, NOON, group, rows, write, written

pytestmark = [in_a_file, pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

SPINE = pa.table({"user_id": [1], "when": [NOON + 9 * HOUR]})
KEYS = [{"user_id": 1}]


def furnished(home: Path, value: int) -> None:
    """Fill a home with a group, a training set and an online table, all of one value."""
    store = FeatureStore(home)
    lookups = [FeatureLookup("shop/spend")]
    store.groups.write(group().definition, rows(value))
    store.groups.write(group().definition, rows(value, y=[value]))
    store.tables.serve(lookups, "table")
    asked = {"date_col": "when"}
    assert store.features.training_set(lookups, SPINE, **asked)["x"].to_pylist() == [value]


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Two homes with the same names and other values; the first is the current one, until `move` is called."""
    first, second = tmp_path / "first", tmp_path / "second"
    furnished(first, 1)
    furnished(second, 2)
    monkeypatch.setenv("SEEKNAL_HOME", str(first))
    return first, lambda: monkeypatch.setenv("SEEKNAL_HOME", str(second))


def seen(home: Path) -> dict[str, object]:
    """Return the contents of a home."""
    store = FeatureStore(home)
    return {
        "groups": [one.label for one in store.core.registry.groups()],
        "tables": [one.label for one in store.core.registry.tables()],
        "sets": [one.label for one in store.core.registry.training_sets()],
        "version": store.groups.version("spend").number if store.core.registry.groups() else None,
        "writes": len(store.core.registry.snapshots(store.core.registry.groups()[0]))
        if store.core.registry.groups()
        else 0,
    }


def moved_group(homes):
    fg = group().get_or_create()
    homes[1]()
    return fg


def moved_features(homes):
    features = HistoricalFeaturesDuckDB(FeatureLookup(group()))
    features.to_dataframe()
    homes[1]()
    return features


def moved_table(homes):
    table = OnlineFeaturesDuckDB("table")
    homes[1]()
    return table


def moved_set(homes):
    features = HistoricalFeaturesDuckDB(FeatureLookup("shop/spend")).using_spine(SPINE, "when")
    saved = features.save("it")
    homes[1]()
    return saved


GROUP_VERBS = {
    "write": lambda fg: write(fg, rows(1, times=[NOON + HOUR]), mode="append"),
    "push": lambda fg: fg.push({"user_id": 1, "at": NOON + HOUR, "x": 1, "y": 1}),
    "rollback": lambda fg: fg.rollback(to=1),
    "get_or_create": lambda fg: fg.get_or_create(),
    "delete": lambda fg: fg.delete(),
}


@pytest.mark.parametrize("verb", GROUP_VERBS)
def test_a_group_stays_in_the_home_of_its_first_operation(homes, tmp_path, verb):
    fg = moved_group(homes)
    FeatureStore(tmp_path / "first").tables.delete("table")  # which needs the group
    before, first = seen(tmp_path / "second"), seen(tmp_path / "first")
    GROUP_VERBS[verb](fg)
    assert seen(tmp_path / "second") == before
    assert (seen(tmp_path / "first") != first) == (verb != "get_or_create")


def test_properties_of_a_group_are_read_from_its_home(homes, tmp_path):
    fg = moved_group(homes)
    fg.rollback(to=1)
    assert (fg.version, [one.number for one in fg.versions], fg.features) == (1, [1, 2], ["x"])
    assert fg.head(output="arrow")["x"].to_pylist() == [1]
    assert fg.schema.names == ["user_id", "at", "x"]
    assert fg.offline_watermarks == [NOON.replace(tzinfo=fg.offline_watermarks[0].tzinfo)]
    assert "version: 1" in repr(fg)
    assert group().version == 2  # another object, that of the second home


def test_a_group_that_was_found_stays_where_it_was_found(homes):
    fg = group()
    assert fg.version == 2
    homes[1]()
    assert fg.head(output="arrow")["x"].to_pylist() == [1]


FEATURES_VERBS = {
    "to_dataframe": lambda f, _: f.to_dataframe(output="arrow")["x"].to_pylist(),
    "using_spine": lambda f, _: f.using_spine(SPINE, "when").to_dataframe()["x"].to_pylist(),
    "using_latest": lambda f, _: f.using_latest().to_dataframe(output="arrow")["x"].to_pylist(),
    "to_batches": lambda f, _: f.using_spine(SPINE, "when").to_batches().read_all()["x"].to_pylist(),
    "to_parquet": lambda f, at: [f.using_spine(SPINE, "when").to_parquet(at / "it.parquet")],
    "save": lambda f, _: f.using_spine(SPINE, "when").save("other").to_dataframe("arrow")["x"].to_pylist(),
    "explain": lambda f, _: [f.using_spine(SPINE, "when").explain(SPINE.to_pylist()[0])["features"][0]["x"]],
    "serve": lambda f, _: [f.serve("new").get_features(KEYS, "dicts")[0]["x"]],
    "check": lambda f, _: [1, *f.using_spine(SPINE, "when").check()],
}


@pytest.mark.parametrize("verb", FEATURES_VERBS)
@pytest.mark.parametrize("close", [False, True], ids=["open", "closed"])
def test_features_stay_in_the_home_of_their_first_operation(homes, tmp_path, verb, close):
    features = moved_features(homes)
    before = seen(tmp_path / "second")
    if close:
        session.close()
    assert FEATURES_VERBS[verb](features, tmp_path) == [1]
    assert seen(tmp_path / "second") == before


def test_features_of_a_group_are_those_of_its_home(homes):
    fg = moved_group(homes)
    assert HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_latest().to_dataframe(output="arrow")["x"].to_pylist() == [
        1
    ]


def test_groups_of_two_homes_are_not_joined(homes, tmp_path):
    first = moved_group(homes)
    second = group("spend").get_or_create()
    with pytest.raises(DefinitionError, match=r"kept in different homes, .*first and .*second"):
        HistoricalFeaturesDuckDB([FeatureLookup(first), FeatureLookup(second, prefix="b_")]).to_dataframe()


TABLE_VERBS = {
    "get_features": lambda t: t.get_features(KEYS, "dicts")[0]["x"] == 1,
    "verify": lambda t: t.verify().equal and t.verify().entities == 1,
    "repr": lambda t: "shop/table" in repr(t) and "shop/table" in t._repr_html_(),
    "delete": lambda t: t.delete() is True,
}


@pytest.mark.parametrize("verb", TABLE_VERBS)
@pytest.mark.parametrize("close", [False, True], ids=["open", "closed"])
def test_a_table_stays_in_the_home_in_which_it_was_found(homes, tmp_path, verb, close):
    table = moved_table(homes)
    FeatureStore(tmp_path / "second").groups.write(group().definition, rows(3, y=[3]), mode="append")  # would differ
    if close:
        session.close()
    assert TABLE_VERBS[verb](table)
    assert seen(tmp_path / "second")["tables"] == ["shop/table"]
    assert seen(tmp_path / "first")["tables"] == ([] if verb == "delete" else ["shop/table"])


def test_a_table_that_was_served_is_verified_and_deleted_where_it_was_served(homes, tmp_path):
    table = HistoricalFeaturesDuckDB(FeatureLookup("shop/spend")).serve("mine")
    homes[1]()
    assert table.verify().equal
    table.delete()
    assert seen(tmp_path / "first")["tables"] == ["shop/table"]


SET_VERBS = {
    "reproduce": lambda s: s.reproduce("arrow")["x"].to_pylist() == [1],
    "to_dataframe": lambda s: s.to_dataframe("arrow")["x"].to_pylist() == [1],
    "repr": lambda s: "shop/it" in repr(s) and "shop/it" in s._repr_html_(),
    "delete": lambda s: s.delete() is None,
}


@pytest.mark.parametrize("verb", SET_VERBS)
@pytest.mark.parametrize("close", [False, True], ids=["open", "closed"])
def test_a_training_set_stays_in_the_home_that_keeps_it(homes, tmp_path, verb, close):
    saved = moved_set(homes)
    if close:
        session.close()
    assert SET_VERBS[verb](saved)
    assert seen(tmp_path / "first")["sets"] == ([] if verb == "delete" else ["shop/it"])
    with pytest.raises(DefinitionError, match="No training set named 'it'"):
        TrainingSet.load("it")


def test_a_handle_that_was_sent_to_another_process_knows_its_home(homes):
    handles = moved_group(homes), *(make(homes) for make in (moved_features, moved_table))
    fg, features, table = pickle.loads(pickle.dumps((group(), *handles[1:])))
    assert fg.version == 2
    fg, features, table = pickle.loads(pickle.dumps(handles))
    assert fg.head(output="arrow")["x"].to_pylist() == [1]
    assert features.to_dataframe(output="arrow")["x"].to_pylist() == [
        2
    ]  # made when the second home was the current one
    assert table.verify().equal


def test_a_relative_home_stays_the_same_when_the_working_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEKNAL_HOME", "here")
    fg = written(rows(1))
    monkeypatch.chdir(tmp_path)
    assert fg.head(output="arrow")["x"].to_pylist() == [1]
    assert not (tmp_path / "here").exists()


def looked_at():
    """Return all objects of the guide that can be created without a home."""
    fg = FeatureGroupDuckDB("spend", Entity("user", ["user_id"]), Materialization("at"), features=["x"])
    features = HistoricalFeaturesDuckDB(FeatureLookup(fg, features=["x"], rename={"x": "y"}))
    return [fg, FeatureGroupDuckDB("bare"), features, features.using_spine(SPINE, "when"), features.using_latest()]


def test_displaying_objects_creates_nothing(home, tmp_path):
    for thing in looked_at():
        assert type(thing).__name__ in repr(thing)
        assert thing._repr_html_().startswith("<table>")
    fg = looked_at()[0]
    assert (fg.version, fg.versions, fg.schema, fg.offline_watermarks, fg.features) == (None, [], None, [], ["x"])
    assert repr(FeatureStore(home)).startswith("<")
    assert not home.exists()
    assert list(Path.cwd().iterdir()) == []


def test_displaying_a_definition_does_not_bind_it(homes):
    fg = group()
    repr(fg)
    fg._repr_html_()
    homes[1]()
    assert fg.head(output="arrow")["x"].to_pylist() == [2]


def test_objects_whose_home_cannot_be_read_can_be_displayed(home):
    home.mkdir()
    (home / "registry.db").write_bytes(b"no database" * 100)
    assert "version: none yet" in repr(group())
    Path("seeknal.toml").write_text("unknown = 1")
    assert "version: none yet" in repr(group())
