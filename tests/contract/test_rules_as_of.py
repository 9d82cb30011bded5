"""Rules 7 and 19: what was stored stays to be seen, whatever is written later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import (
    DefinitionError,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
    TrainingSet,
)
from seeknal.values.content_hash import content_hash

from . import strategies as some
from .profiles import PROFILE
from .test_point_in_time import Pair, fresh_project, spine_of
from .world import HOUR, NOON, finished, group, history, look, python, rows, seen, snapshots, write, written

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

STEPS = ("write", "write", "write", "new column", "optimize", "rollback", "clean")


@pytest.mark.slow
@PROFILE
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), some.frames(st.tuples(some.users))), min_size=2, max_size=6),
    ttl=some.ttls,
)
def test_the_same_question_as_of_a_moment_has_the_same_answer_for_ever(store: FeatureStore, steps, ttl):
    """Every answer that was right at some time is asked again after every later step, by snapshot and by moment."""
    pair = Pair(store, "user_id", project=fresh_project(), ttl=ttl)
    spine = spine_of(list(product([3, 1, None, 2], some.all_moments)), "UTC", user_id=pa.int64())
    known = []
    features = ("n", "x")
    for step, frame in [("write", steps[0][1]), *steps]:
        if step == "new column":
            features = (*features, f"c{len(features)}")
        if step in {"write", "new column"}:
            pair.write(frame, features)
        else:
            _maintain(store, step, pair)
        now = datetime.now(UTC)
        record = store.core.catalog.group(pair.group.name, pair.group.project)
        lookup = pair.lookup()
        answers = [
            content_hash(store.features.training_set([lookup], spine, "at")),
            content_hash(store.features.history([lookup], output="arrow")),
            content_hash(store.features.latest([lookup], at=now, output="arrow")),
        ]
        known.append((now, store.core.registry.last_snapshot(record), answers))
        for moment, snapshot, expected in known:
            for as_of in (moment, snapshot):
                assert content_hash(store.features.training_set([lookup], spine, "at", as_of=as_of)) == expected[0]
                assert content_hash(store.features.history([lookup], as_of=as_of, output="arrow")) == expected[1]
                assert (
                    content_hash(store.features.latest([lookup], at=moment, as_of=as_of, output="arrow")) == expected[2]
                )


def _maintain(store: FeatureStore, step: str, pair: Pair) -> None:
    name, project = pair.group.name, pair.group.project
    if step == "optimize":
        store.groups.optimize(name, project=project)
    elif step == "clean":
        store.groups.clean(name, some.START, project=project)
    elif len(versions := store.groups.versions(name, project=project)) > 1:
        others = [version.number for version in versions if not version.is_current]
        store.groups.rollback(name, others[0], project=project)


def test_a_row_that_came_late_is_not_seen_as_of_a_moment_before():
    fg = written(rows(1))
    before = datetime.now(UTC)
    write(fg, rows(2, times=[NOON]), mode="append")
    spine = pa.table({"user_id": [1], "at": [NOON]})
    assert look(fg, spine)["x"].to_pylist() == [2]
    assert look(fg, spine, as_of=before)["x"].to_pylist() == [1]
    assert look(fg, spine, as_of=before.isoformat())["x"].to_pylist() == [1]
    assert look(fg, spine, as_of=1)["x"].to_pylist() == [1]
    assert look(fg, spine, as_of={"spend": 1})["x"].to_pylist() == [1]
    assert look(fg, spine, as_of={"shop/spend": 2})["x"].to_pylist() == [2]


def test_as_of_a_moment_before_the_first_write_nothing_is_known():
    before = datetime.now(UTC)
    fg = written(rows(1))
    spine = pa.table({"user_id": [1], "at": [NOON]})
    found = look(fg, spine, as_of=before)
    assert found["x"].to_pylist() == [None]
    assert found.schema.field("x").type == pa.int64()
    assert len(history(fg, as_of=before)) == 0


def test_as_of_reads_the_version_of_that_time():
    fg = written(rows(1))
    before = datetime.now(UTC)
    write(fg, rows(2, times=[NOON + HOUR], y=["b"]), mode="append")
    assert history(fg, as_of=before).column_names == ["user_id", "at", "x"]
    assert history(FeatureLookup(fg, version=1)).to_pylist() == history(fg, as_of=before).to_pylist()


@pytest.mark.parametrize(
    ("as_of", "message"),
    [
        (datetime.now(UTC) + timedelta(days=1), "is in the future"),
        (9, "has no snapshot 9; it has 0 to 1"),
        ({"visits": 1}, "names no snapshot of shop/spend"),
        ("soon", "is not a valid time"),
    ],
    ids=["tomorrow", "no such snapshot", "another group", "no moment"],
)
def test_an_as_of_whose_result_could_still_change_is_refused(as_of, message):
    fg = written(rows(1))
    with pytest.raises(DefinitionError, match=message):
        look(fg, pa.table({"user_id": [1], "at": [NOON]}), as_of=as_of)


WRITER = """
import datetime, sys, pyarrow as pa
from seeknal import Entity, FeatureGroupDuckDB, Materialization
fg = FeatureGroupDuckDB("spend", Entity("spend_entity", ["user_id"]), Materialization(event_time_col="at"), "shop")
for i in range(40):
    frame = pa.table({"user_id": [1], "at": [datetime.datetime(2024, 1, 1, 12)], "x": [i]})
    fg.set_dataframe(frame).set_features().write(mode="append")
"""


@pytest.mark.slow
def test_a_result_as_of_now_stays_the_same_while_others_write():
    fg = written(rows(-1))
    writer = python(WRITER)
    spine, answers = pa.table({"user_id": [1], "at": [NOON]}), {}
    while writer.poll() is None:
        moment = datetime.now(UTC)
        answers[moment] = look(fg, spine, as_of=moment)["x"].to_pylist()
    finished(writer)
    assert len({value for (value,) in answers.values()}) > 2
    for moment, answer in answers.items():
        assert look(fg, spine, as_of=moment)["x"].to_pylist() == answer


def test_going_back_to_a_version_makes_it_current_and_deletes_nothing():
    fg = written(rows(1))
    write(fg, rows(2, times=[NOON], y=["b"]), mode="append")
    fg.rollback(to=1)
    assert fg.version == 1
    assert history(fg).to_pylist() == [{"user_id": 1, "at": NOON, "x": 1}]
    assert history(FeatureLookup(fg, version=2)).column_names == ["user_id", "at", "x", "y"]
    write(fg, rows(3, times=[NOON + HOUR]), mode="append")
    assert fg.version == 1
    assert seen(fg, NOON, NOON + HOUR) == [1, 3]
    fg.rollback(to=2)
    assert seen(fg, NOON, NOON + HOUR) == [2, 2]
    with pytest.raises(DefinitionError, match="is the current one"):
        fg.rollback(to=2)
    with pytest.raises(DefinitionError, match="has no version 7"):
        fg.rollback(to=7)


def test_going_back_leaves_narrower_types_as_they_were():
    fg = written(rows(1).set_column(2, "x", pa.array([1], pa.int32())))
    write(fg, rows(2**40, times=[NOON + HOUR]), mode="append")
    fg.rollback(to=1)
    assert history(fg).schema.field("x").type == pa.int32()
    with pytest.warns(SeeknalWarning, match="version 3"):
        write(fg, rows(2**40, times=[NOON + HOUR]), mode="append")
    assert history(fg)["x"].to_pylist() == [1, 2**40]


def many_writes():
    fg = written(rows(0))
    for i in range(1, 12):
        write(fg, rows(i, times=[NOON + i * HOUR], user=i % 3), mode="append")
    return fg


def test_optimizing_makes_few_files_of_many_and_changes_no_answer():
    fg = many_writes()
    before, count = history(fg), snapshots(fg)
    older = [history(fg, as_of=number) for number in range(count + 1)]
    done = FeatureStore().groups.optimize("spend")
    assert (done.files_before, done.files, done.removed) == (12, 1, 0)
    assert history(fg).equals(before)
    assert [history(fg, as_of=number) for number in range(count + 1)] == older
    assert FeatureStore().groups.optimize("spend", keep_days=0).removed == 12
    assert [history(fg, as_of=number) for number in range(count + 1)] == older
    assert history(fg, as_of=count).equals(before)
    assert FeatureStore().groups.optimize("spend").snapshot == done.snapshot
    write(fg, rows(99, times=[NOON]), mode="append")
    assert seen(fg, NOON) == [99]


def test_a_vacuum_keeps_last_snapshots_and_training_sets_and_says_what_is_gone():
    fg = many_writes()
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    saved = hist.using_spine(pa.table({"user_id": [1], "at": [NOON + 9 * HOUR]}), "at").save("march", as_of=6)
    write(fg, rows(5, times=[NOON + 20 * HOUR], y=[1]), mode="append")
    write(fg, rows(6, times=[NOON + 21 * HOUR], y=[2]), mode="append")
    first, second = history(FeatureLookup(fg, version=1)), history(fg)
    done = FeatureStore().groups.optimize("spend", keep_days=0)
    assert done.removed > 0
    assert history(FeatureLookup(fg, version=1)).equals(first)
    assert history(fg).equals(second)
    assert TrainingSet.load("march").reproduce("arrow")["x"].to_pylist() == [4]
    assert saved.content_hash == TrainingSet.load("march").content_hash
    with pytest.raises(StoreError, match="Snapshot 13 of shop/spend is gone"):
        history(fg, as_of=13)
    assert FeatureStore().groups.optimize("spend", keep_days=0).removed == 0


@pytest.mark.slow
def test_a_vacuum_waits_for_a_writer_that_is_at_work():
    fg = many_writes()
    writer = python(WRITER)
    while writer.poll() is None:
        FeatureStore().groups.optimize("spend", keep_days=0)
    finished(writer)
    assert sorted(history(fg)["x"].to_pylist()) == [*range(1, 12), 39]


def test_an_erased_entity_is_gone_from_everything_that_can_be_read_and_from_the_files():
    secret = "erase-me-5f3a"
    fg = written(pa.table({"user_id": [secret, "b", "b"], "at": [NOON, NOON, NOON + HOUR], "x": [1, 2, 3]}))
    write(fg, pa.table({"user_id": [secret, "c"], "at": [NOON + HOUR] * 2, "x": [4, 5]}), mode="append")
    write(fg, pa.table({"user_id": ["c"], "at": [NOON], "x": [0]}), mode="append")
    write(fg, pa.table({"user_id": [secret], "at": [NOON], "x": [6], "y": [7]}), mode="append")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg, version=1)])
    others = hist.using_spine(pa.table({"user_id": ["b", "c"], "at": [NOON + HOUR] * 2}), "at").save("others", as_of=1)
    with_it = hist.using_spine(pa.table({"user_id": [secret], "at": [NOON]}), "at").save("with_it", rows=True)
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("scores")
    store = FeatureStore()
    with pytest.raises(DefinitionError, match="Training set 'shop/with_it' holds that entity"):
        store.groups.erase("spend", {"user_id": secret})
    assert with_it.reproduce("arrow").num_rows == 1
    receipt = store.groups.erase("spend", {"user_id": secret}, delete_training_sets=True)
    assert (receipt.rows, receipt.training_sets, receipt.online) == (3, ("shop/with_it",), 1)
    for version in (1, 2):
        assert set(history(FeatureLookup(fg, version=version))["user_id"].to_pylist()) == {"b", "c"}
    assert others.reproduce("arrow")["x"].to_pylist() == [3, None]
    assert table.get_features([{"user_id": secret}, {"user_id": "c"}], "dicts")[0] == {
        "user_id": secret,
        "x": None,
        "y": None,
    }
    with pytest.raises(StoreError, match="is gone"):
        history(fg, as_of=2)
    assert [f for f in store.home.rglob("*.parquet") if secret.encode() in f.read_bytes()] == []
    assert store.groups.erase("spend", {"user_id": secret}).rows == 0


def test_an_entity_of_several_keys_is_erased_by_all_of_them():
    fg = written(
        pa.table({"user_id": [1, 1, 2], "shop_id": ["a", "b", "a"], "at": [NOON] * 3, "x": [1, 2, 3]}),
        keys=("user_id", "shop_id"),
    )
    assert FeatureStore().groups.erase("spend", {"user_id": 1, "shop_id": "a"}).rows == 1
    assert history(fg)["x"].to_pylist() == [2, 3]
    with pytest.raises(Exception, match="keyed by user_id, shop_id; 'shop_id' is missing"):
        FeatureStore().groups.erase("spend", {"user_id": 1})


def test_a_snapshot_number_belongs_to_one_group():
    fg, other = written(rows(1)), group("other")
    write(other, rows(2))
    features = HistoricalFeaturesDuckDB([FeatureLookup(fg), FeatureLookup(other, prefix="other_")])
    for ask in (features.to_dataframe, features.check, lambda as_of: features.save("may", as_of=as_of)):
        with pytest.raises(DefinitionError, match=r"as_of=1 is a snapshot of one group.*as_of=\{'other': 1, \.\.\.\}"):
            ask(as_of=1)
    assert len(features.to_dataframe(as_of={"spend": 1, "other": 1})) == 1
    twice = HistoricalFeaturesDuckDB([FeatureLookup(fg), FeatureLookup("shop/spend", prefix="again_")])
    assert len(twice.to_dataframe(as_of=1)) == 1
