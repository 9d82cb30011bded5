"""Training sets that come back to the byte, and what is said before one would not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import seeknal
from contract.world import HOUR, NOON, group, rows, write, written
from seeknal import (
    DataError,
    DefinitionError,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    StoreError,
    TrainingSet,
)
from seeknal.values.content_hash import content_hash

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

SPINE = pa.table(
    {"user_id": [1, 2, 1], "at": [NOON, NOON, NOON + 3 * HOUR], "label": ["a", None, "b"], "taste": [[1.5], [], None]}
)


def spend_and_visits():
    spend = written(rows(1, 2, 3), ttl=2 * HOUR)
    visits = written(rows("x", "y"), name="visits")
    lookups = [FeatureLookup(spend), FeatureLookup(visits, prefix="visits_")]
    return spend, HistoricalFeaturesDuckDB(lookups).using_spine(SPINE, "at", keep_cols=["label", "taste"])


def test_a_saved_training_set_is_what_to_dataframe_gives_and_stays_it_whatever_comes_later():
    spend, hist = spend_and_visits()
    expected = hist.to_dataframe()
    saved = hist.save("march")
    assert (saved.rows, saved.content_hash) == (3, content_hash(expected))
    write(spend, rows(100, times=[NOON]), mode="append")
    write(spend, rows(7, times=[NOON], y=["new"]))
    spend.materialization = group(ttl=HOUR / 60).materialization
    spend.get_or_create()
    FeatureStore().groups.optimize("spend", keep_days=0)
    FeatureStore().groups.clean("spend", (2**62))
    spend.rollback(to=1)
    again = TrainingSet.load("march").reproduce("arrow")
    assert again.equals(expected)
    assert content_hash(again) == saved.content_hash


@pytest.mark.parametrize("kind", ["pandas", "polars", "duckdb", "parquet"])
def test_a_spine_of_any_kind_can_be_saved(kind, tmp_path):
    import duckdb
    import polars as pl

    file = tmp_path / "spine.parquet"
    pq.write_table(SPINE, file)
    spines = {"pandas": SPINE.to_pandas, "polars": lambda: pl.from_arrow(SPINE), "parquet": lambda: file}
    spine = spines.get(kind, lambda: duckdb.from_arrow(SPINE))()
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2, 3)))]).using_spine(spine, "at")
    assert hist.save("it").reproduce("arrow")["x"].to_pylist() == [1, None, 3]


def test_a_history_and_the_latest_can_be_saved_as_well():
    spend, hist = spend_and_visits()
    latest = hist.using_latest(now=NOON + HOUR).save("latest")
    history = HistoricalFeaturesDuckDB([FeatureLookup(spend)]).save("history", rows=True)
    write(spend, rows(9, times=[NOON + HOUR]))
    assert latest.reproduce()["x"].tolist() == [2]
    assert history.reproduce()["x"].tolist() == history.to_dataframe()["x"].tolist() == [1, 2, 3]


def test_a_training_set_of_a_moment_of_the_past_reads_what_was_stored_then():
    spend, hist = spend_and_visits()
    moment = datetime.now(UTC)
    write(spend, rows(100, times=[NOON]), mode="append")
    assert hist.save("then", as_of=moment).reproduce("arrow")["x"].to_pylist() == [1, None, 3]
    assert hist.save("now").snapshots == {"shop/spend": 2, "shop/visits": 1}


def test_the_name_is_checked_before_the_spine_is_read(tmp_path):
    _, hist = spend_and_visits()
    hist.save("march")
    gone = HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(tmp_path / "gone.parquet", "at")
    with pytest.raises(DefinitionError, match="has a training set 'march'"):
        gone.save("march")
    with pytest.raises(DefinitionError, match="breaks the rule"):
        gone.save("../march")


def test_a_name_is_taken_once_and_nothing_is_left_of_a_save_that_failed():
    _, hist = spend_and_visits()
    hist.save("march")
    with pytest.raises(DefinitionError, match="has a training set 'march', which does not change"):
        hist.save("march")
    with pytest.raises(DefinitionError, match="breaks the rule"):
        hist.save("../march")
    odd = SPINE.append_column("odd", pa.array([timedelta(1)] * 3, pa.duration("us")))
    home = FeatureStore().home
    before = sorted(home.glob("datasets/**/*"))
    bad = odd.append_column("bad", pa.array([None] * 3, pa.month_day_nano_interval()))
    with pytest.raises(DataError, match="month_day_nano_interval cannot be stored"):
        HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(bad, "at").save("april", rows=True)
    assert sorted(home.glob("datasets/**/*")) == before
    assert HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(odd, "at").save("april").rows == 3


def test_a_group_that_a_training_set_needs_cannot_be_deleted_before_it():
    spend, hist = spend_and_visits()
    saved = hist.save("march")
    with pytest.raises(DefinitionError, match="Training set 'shop/march' was made from feature group 'shop/spend'"):
        spend.delete()
    saved.delete()
    spend.delete()
    with pytest.raises(DefinitionError, match="No training set named 'march'"):
        TrainingSet.load("march")


@pytest.mark.of_files
def test_a_changed_file_is_detected():
    _, hist = spend_and_visits()
    saved = hist.save("march")
    (spine,) = FeatureStore().home.glob("datasets/shop/march-*/spine.arrow")
    with pa.OSFile(str(spine)) as file:
        rows_of_it = pa.ipc.open_file(file).read_all()
    with pa.ipc.new_file(spine, rows_of_it.schema) as file:
        file.write_table(rows_of_it.slice(1))
    with pytest.raises(StoreError, match="cannot be reproduced: its content hash was"):
        saved.reproduce()


def test_the_command_line_lists_shows_reproduces_and_deletes(tmp_path):
    _, hist = spend_and_visits()
    saved = hist.save("march", rows=True)
    listed = json.loads(seeknal("dataset", "list", "--format", "json").stdout)
    assert [(one["training_set"], one["rows"], one["rows_kept"]) for one in listed] == [("march", 3, True)]
    shown = json.loads(seeknal("dataset", "show", "march", "--format", "json").stdout)
    assert shown["content_hash"] == saved.content_hash
    assert shown["reads"][0] == {"group": "shop/spend", "version": 1, "snapshot": 1, "features": ["x"]}
    done = seeknal("dataset", "reproduce", "shop/march", "-o", str(tmp_path / "out.parquet"))
    assert (done.returncode, "same" in done.stdout) == (0, True)
    assert pd.read_parquet(tmp_path / "out.parquet")["x"].tolist()[0] == 1
    assert seeknal("dataset", "delete", "march", "--yes").returncode == 0
    assert "No training sets yet" in seeknal("dataset", "list").stdout


def test_times_in_seconds_stay_times_in_seconds():
    _, hist = spend_and_visits()
    spine = SPINE.set_column(1, "at", SPINE["at"].cast(pa.timestamp("s")))
    hist = hist.using_spine(spine, "at")
    assert hist.save("seconds").reproduce("arrow").equals(hist.to_dataframe())


def test_erasing_another_entity_leaves_a_training_set_of_the_newest_snapshot_as_it_was():
    fg = written(pa.table({"user_id": [1, 2], "at": [NOON, NOON], "x": [1, 2]}))
    spine = pa.table({"user_id": pa.array([2], pa.int32()), "at": [NOON]})
    saved = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "at").save("two", rows=True)
    assert FeatureStore().groups.erase("spend", {"user_id": 1}).rows == 1
    assert saved.reproduce("arrow")["x"].to_pylist() == [2]
    FeatureStore().groups.optimize("spend", keep_days=0)
    assert saved.reproduce("arrow")["x"].to_pylist() == [2]
    with pytest.raises(DefinitionError, match="holds that entity"):
        FeatureStore().groups.erase("spend", {"user_id": 2})


def test_erasing_an_entity_beyond_the_type_of_the_key_erases_nothing():
    fg = written(pa.table({"user_id": pa.array([1], pa.int32()), "at": [NOON], "x": [1]}))
    assert FeatureStore().groups.erase("spend", {"user_id": 2**40}).rows == 0
    assert HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe()["x"].tolist() == [1]
