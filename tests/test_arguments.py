"""Arguments of a wrong type or value are refused by name, before anything is done."""

from datetime import UTC, date, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from seeknal import (
    DefinitionError,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
)

USER = Entity("user", ["user_id"])
FRAME = pd.DataFrame({"user_id": [1, 2], "at": pd.to_datetime(["2024-01-01", "2024-01-02"]), "x": [1, 2]})


def group(name: str = "g") -> FeatureGroupDuckDB:
    return FeatureGroupDuckDB(name, USER, Materialization("at")).set_dataframe(FRAME)


@pytest.fixture
def world() -> SimpleNamespace:
    """Return a store with group "g" and online table "o"."""
    one = group()
    one.write()
    features = HistoricalFeaturesDuckDB(FeatureLookup("g"))
    return SimpleNamespace(store=FeatureStore(), group=one, features=features, table=features.serve("o"))


def explain(features, limit):
    spine = pd.DataFrame({"user_id": [1], "at": pd.to_datetime(["2024-02-01"])})
    return features.using_spine(spine, "at").explain(spine.iloc[0], limit=limit)


REFUSED = {
    "group": (lambda w: w.store.groups.write("g", FRAME), "group='g' is not a FeatureGroup"),
    "a handle": (lambda w: w.store.groups.write(FeatureGroupDuckDB("g"), FRAME), "group=.* is not a FeatureGroup"),
    "register": (lambda w: w.store.groups.register("g"), "group='g' is not a FeatureGroup"),
    "before": (lambda w: w.store.groups.clean("g", 1.5), "before: 1.5 is not a time"),
    "before, too late": (lambda w: w.store.groups.clean("g", 10**30), "before=.* is too large for microseconds"),
    "before, a flag": (lambda w: w.store.groups.clean("g", True), "before: True is not a time"),
    "dry_run": (lambda w: w.store.groups.clean("g", "2030-01-01", dry_run="no"), "dry_run='no' is neither True nor"),
    "keep_days": (lambda w: w.store.groups.optimize("g", keep_days="7"), "keep_days='7' .* Write keep_days=30"),
    "negative keep_days": (lambda w: w.store.groups.optimize("g", keep_days=-1), "keep_days=-1 .* at least 0"),
    "delete_training_sets": (
        lambda w: w.store.groups.erase("g", {"user_id": 1}, delete_training_sets="no"),
        "delete_training_sets='no' is neither",
    ),
    "freshness": (lambda w: w.store.tables.freshness("o", 0), "table='o' is not the record of an online table"),
    "sample, text": (lambda w: w.table.verify(sample="5"), "sample='5' is not a whole number"),
    "sample, negative": (lambda w: w.table.verify(sample=-1), "sample=-1 is not a whole number of at least 1"),
    "sample, none": (lambda w: w.table.verify(sample=0), "sample=0 is not a whole number of at least 1"),
    "full": (lambda w: w.table.refresh(full="no"), "full='no' is neither"),
    "limit, text": (lambda w: explain(w.features, "3"), "limit='3' is not a whole number"),
    "limit, negative": (lambda w: explain(w.features, -1), "limit=-1 is not a whole number of at least 1"),
    "rollback": (lambda w: w.group.rollback("1"), "to='1' is not a whole number .* Write to=1"),
    "version": (lambda w: w.store.groups.version("g", "1"), "version='1' is not a whole number"),
    "head": (lambda w: w.group.head(True), "n=True is not a whole number"),
    "on_progress": (lambda w: w.features.to_dataframe(on_progress="x"), "on_progress='x' cannot be called"),
    "on_progress of a stream": (lambda w: w.features.to_batches(on_progress="x"), "on_progress='x' cannot be called"),
    "on_progress of a write": (lambda w: w.group.write(on_progress="x"), "on_progress='x' cannot be called"),
    "on_progress of the store": (
        lambda w: w.store.groups.load("g", on_progress="x"),
        "on_progress='x' cannot be called",
    ),
    "rights": (lambda w: w.store.tokens.create("a", "default", "read"), r"Write rights=\['read'\]"),
    "no rights": (lambda w: w.store.tokens.create("a", "default", []), "rights is an empty list. Choose .* read"),
    "as_of": (lambda w: w.features.to_dataframe(as_of=pd.NaT), "NaT is a missing time"),
    "start": (lambda w: w.features.to_dataframe(feature_start_time=pd.NaT), "NaT is a missing time"),
    "target": (lambda w: w.features.serve("p", target=5), "target=5 is neither a folder nor a URL"),
    "take_over": (lambda w: w.features.serve("p", take_over="no"), "take_over='no' is neither"),
    "drop_nulls": (lambda w: group("n").write(drop_nulls="no"), "drop_nulls='no' is neither"),
    "rows": (lambda w: w.features.save("s", rows="no"), "rows='no' is neither"),
    "online": (lambda w: Materialization("at", online="no"), "online='no' is neither"),
    "offline": (lambda w: Materialization("at", offline="no"), "offline='no' is neither"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_argument_is_refused_by_name_and_nothing_is_done(call, message, world, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DefinitionError, match=message):
        call(world)
    store = world.store
    assert [(one.number, one.snapshot, one.rows) for one in store.groups.versions("g")] == [(1, 1, 2)]
    assert [one.group.name for one in store.groups.all()] == ["g"]
    assert [one.name for one in store.tables.all()] == ["o"]
    assert (store.tokens.all(), store.training_sets.all(), list((tmp_path / "here").iterdir())) == ([], [], [])


@pytest.mark.parametrize(
    "before",
    [
        "2024-01-02",
        date(2024, 1, 2),
        datetime(2024, 1, 2, tzinfo=UTC),
        1_704_153_600_000_000,
        np.int64(1_704_153_600_000_000),
    ],
    ids=lambda before: type(before).__name__,
)
def test_clean_takes_a_moment_in_every_form(before, world):
    assert world.store.groups.clean("g", before) == 1
    assert world.group.head()["x"].tolist() == [2]


def test_a_number_beyond_all_rows_means_all_rows(world):
    assert len(world.group.head(10**30)) == 2
    assert world.table.verify(sample=10**30).entities == 2
    assert len(explain(world.features, 10**30)) == 1


def test_flags_of_numpy_are_accepted_as_those_of_python():
    assert Materialization("at", online=np.True_) == Materialization("at", online=True)
