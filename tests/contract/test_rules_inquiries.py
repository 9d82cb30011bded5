"""A request is one frozen object: no call changes it, and all calls see the same rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seeknal import (
    Client,
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Interval,
    Materialization,
    SeeknalError,
    TrainingSet,
)
from seeknal.join.inquiry import Inquiry
from seeknal.values.content_hash import content_hash

from .world import HOUR, NOON, group, rows, write, written

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

MOMENTS = [NOON + hours * HOUR for hours in (0, 1, 2, 5)]
SPINE = pa.table({"user_id": [1, 1, 2, 1], "when": MOMENTS, "label": [0, 1, 0, 1], "x2": [9, 9, 9, 9]})


def asked(**options):
    fg = written(rows(10, 20, 30, 40), **options)
    return fg, HistoricalFeaturesDuckDB([FeatureLookup(fg)])


def test_a_spine_makes_another_object_and_leaves_the_first_as_it_was():
    _, features = asked()
    train, test = (features.using_spine(part, "when") for part in (SPINE[:2], SPINE[2:]))
    latest = features.using_latest(now=NOON)
    assert train.to_dataframe()["x"].to_pylist() == [10, 20]
    assert test.to_dataframe()["x"].to_pylist() == [None, 40]
    assert latest.to_dataframe(output="arrow")["x"].to_pylist() == [10]
    assert features.to_dataframe(output="arrow")["x"].to_pylist() == [10, 20, 30, 40]
    assert train.using_latest(now=NOON).to_dataframe(output="arrow").column_names == ["user_id", "at", "x"]
    with pytest.raises(AttributeError):
        features.lookups = []


SPANS = [
    {},
    {"feature_start_time": NOON + HOUR},
    {"feature_end_time": NOON + HOUR},
    {"feature_start_time": NOON + HOUR, "feature_end_time": NOON + 2 * HOUR},
    {"feature_end_time": date(2023, 12, 31)},
    {"as_of": 1},
    {"as_of": 1, "feature_start_time": NOON + 3 * HOUR},
]


@pytest.mark.parametrize("keep", [None, ["label"]], ids=repr)
@pytest.mark.parametrize("interval", SPANS, ids=repr)
def test_every_call_sees_what_to_dataframe_sees(interval, keep, tmp_path):
    fg, features = asked()
    write(fg, rows(99, times=[NOON + HOUR]), mode="append")
    features = features.using_spine(SPINE, "when", keep_cols=keep)
    expected = features.to_dataframe(**interval)
    assert features.to_batches(**interval).read_all().equals(expected)
    features.to_parquet(tmp_path / "it.parquet", **interval)
    assert pq.read_table(tmp_path / "it.parquet").equals(expected)
    saved, kept = features.save("it", **interval), features.save("kept", **interval, rows=True)
    assert saved.content_hash == kept.content_hash == content_hash(expected)
    write(fg, rows(7, 7, 7, 7))
    assert TrainingSet.load("it").reproduce("arrow").equals(expected)
    assert kept.to_dataframe("arrow").equals(expected)


@pytest.mark.parametrize("interval", SPANS, ids=repr)
def test_an_explanation_sees_what_to_dataframe_sees(interval):
    fg, features = asked()
    write(fg, rows(99, times=[NOON + HOUR]), mode="append")
    features = features.using_spine(SPINE, "when")
    for row in features.to_dataframe(**interval).to_pylist():
        found = features.explain(row, **interval)
        winners = [
            one["x"] for one, verdict in zip(found["features"], found["verdict"], strict=True) if verdict == "won"
        ]
        assert winners == ([] if row["x"] is None else [row["x"]])


@pytest.mark.parametrize("interval", SPANS, ids=repr)
@pytest.mark.parametrize("kind", ["history", "latest"])
def test_a_request_without_a_spine_is_saved_as_it_is_returned(kind, interval):
    fg, features = asked()
    write(fg, rows(99, times=[NOON + HOUR]), mode="append")
    features = features if kind == "history" else features.using_latest(now=NOON + 2 * HOUR)
    expected = features.to_dataframe(**interval, output="arrow")
    assert features.save("it", **interval).reproduce("arrow").equals(expected)


def test_a_check_sees_what_to_dataframe_sees():
    """A column that is not kept may have a feature's name, and only rows within the span are looked at."""
    late = rows(*range(20)).append_column("made", pa.array([NOON + timedelta(days=3)] * 20))
    fg = written(late, created_time_col="made")
    write(fg, rows(5, times=[NOON + 30 * HOUR], made=[NOON + 30 * HOUR]), mode="append")
    spine = pa.table({"user_id": [1], "when": [NOON], "x": [1]})
    features = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "when", keep_cols=[])
    assert len(features.check()) == 1
    assert features.check(feature_start_time=NOON + 30 * HOUR) == []
    with pytest.raises(DefinitionError, match="has no snapshot 9"):
        features.check(as_of=9)


def test_one_lookup_is_a_list_of_one():
    fg, _ = asked()
    lookup = FeatureLookup(fg)
    assert HistoricalFeaturesDuckDB(lookup).lookups == (lookup,)
    expected = HistoricalFeaturesDuckDB([lookup]).using_spine(SPINE, "when").to_dataframe()
    assert HistoricalFeaturesDuckDB(lookup).using_spine(SPINE, "when").to_dataframe().equals(expected)
    assert FeatureStore().features.training_set(lookup, SPINE, "when").equals(expected)
    assert HistoricalFeaturesDuckDB(lookup).serve().get_features([{"user_id": 1}], "dicts")[0]["x"] == 40
    with pytest.raises(DefinitionError, match="takes a list with at least one FeatureLookup, not FeatureGroupDuckDB"):
        HistoricalFeaturesDuckDB(fg)


def group_of(features) -> list[str]:
    fg = group("declared").set_dataframe(rows(1)).set_features(features)
    fg.write()
    return fg.features


def looked_up(fg, **options) -> list[str]:
    lookup = FeatureLookup(fg, **options)
    return FeatureStore().features.training_set(lookup, SPINE, "when", keep=()).column_names[2:]


LISTS = {
    "features": {
        "of a lookup": lambda fg, given: looked_up(fg, features=given),
        "online": lambda fg, given: list(
            FeatureStore().tables.serve([FeatureLookup(fg)], "t").get_features([{"user_id": 1}], "dicts", given)[0]
        )[1:],
        "of a group": lambda _, given: group_of(given),
        "of a write": lambda _, given: FeatureStore().groups.write(group("declared").definition, rows(1), features=given) and ["x"],
    },
    "keep_cols": {
        "": lambda fg, given: HistoricalFeaturesDuckDB(FeatureLookup(fg, prefix="f_")).using_spine(
            SPINE.rename_columns(["user_id", "when", "x", "y"]), "when", given).to_dataframe().column_names[2:-1],
    },
    "join_keys": {"": lambda _, given: list(Entity("user", given).join_keys)},
    "pii_keys": {"": lambda _, given: list(Entity("user", ["x"], pii_keys=given).pii_keys)},
    "names": {"": lambda fg, given: FeatureStore().tables.serve([FeatureLookup(fg)], "x") and [one.table.rpartition("/")[2] for one in FeatureStore().tables.refresh(given)]},
}  # fmt: skip
"""Arguments that are lists of names, and which names are taken from each where "x" is given."""


@pytest.mark.parametrize(("argument", "where"), [(name, where) for name, calls in LISTS.items() for where in calls])
def test_any_iterable_of_text_is_a_list_of_names_and_anything_else_is_an_error_with_the_fix(argument, where):
    fg, call = written(rows(1, 2)), LISTS[argument][where]
    for given in (["x"], ("x",), iter(["x"]), (name for name in ["x"]), np.array(["x"]), pd.Index(["x"])):
        assert call(fg, given) == ["x"]
    for given in (5, 1.5, True, b"x", object(), NOON, np.array(5)):
        with pytest.raises(DefinitionError, match=rf"^{argument}=.* is not a list of names. Write {argument}=\['x'\]"):
            call(fg, given)
    for given in ([1], [["x"]], [None], ["x", b"x"], iter([1]), ["\ud800"], np.array([1])):
        with pytest.raises(
            DefinitionError, match=rf"^{argument} contains .*, which is not a name. .*{argument}=\['x'\]"
        ):
            call(fg, given)
    with pytest.raises(DefinitionError, match=rf"^{argument}='x' is not a list. Write {argument}=\['x'\]"):
        call(fg, "x")


@pytest.mark.parametrize("given", [5, b"x", ["x"], None, object, np.array(["x"]), "\ud800"], ids=repr)
def test_other_arguments_that_are_names_are_refused_unless_they_are_text(given):
    fg = written(rows(1))
    store, lookup = FeatureStore(), FeatureLookup(fg)
    for ask in (
        lambda: FeatureLookup(fg, rename={"x": given}),
        lambda: FeatureLookup(fg, rename=given or 0),
        lambda: FeatureLookup(fg, prefix=given or 0),
        lambda: store.features.training_set([lookup], SPINE, given),
        lambda: Materialization(given or 0),
        lambda: Materialization("at", given or 0),
        lambda: group("other").set_features({"x": given}),
        lambda: store.groups.write(fg.definition, rows(1), declared={"x": given}),
        lambda: store.tables.open(given),
        lambda: store.groups.push(given, []),
        lambda: store.groups.erase("spend", given),
        lambda: store.features.explain(Inquiry([lookup]), given, NOON),
    ):
        with pytest.raises(SeeknalError):
            ask()


def test_the_requested_interval_is_kept_and_shown():
    _, features = asked()
    saved = features.using_spine(SPINE, "when").save("it", NOON + HOUR, as_of=datetime.now(UTC))
    assert "2024-01-01 13:00:00 to ..." in saved._repr_html_()


@pytest.mark.parametrize(
    "made", [lambda: Interval("2024-05-01"), lambda: Interval(None, NOON), lambda: ("2024-05-01", None)]
)
def test_a_value_that_is_not_an_interval_is_refused_with_the_call_that_makes_one(made):
    fg = written(rows(1))
    store, lookups, spine = FeatureStore(), [FeatureLookup(fg)], pa.table({"user_id": [1], "t": [NOON]})
    for ask in (
        lambda interval: store.features.training_set(lookups, spine, "t", interval=interval),
        lambda interval: store.features.history(lookups, interval=interval),
        lambda interval: store.features.latest(lookups, interval=interval),
        lambda interval: store.features.stream(lookups, spine, "t", interval=interval),
        lambda interval: store.groups.write(fg.definition, rows(1), interval=interval),
        lambda interval: store.groups.load("spend", interval=interval),
        lambda interval: Client("http://127.0.0.1:9").training_set(lookups, spine, "t", interval=interval),
    ):
        with pytest.raises(DefinitionError, match=r"Interval\.between\(start, end\)"):
            ask(made())
