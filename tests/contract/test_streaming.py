"""Training sets larger than memory are the same training sets."""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import DataError, DefinitionError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, StoreError
from seeknal.define.schema import Schema
from seeknal.engine.duckdb.engine import DuckDBEngine
from seeknal.system.duck import Duck

from . import strategies as some
from .profiles import PROFILE
from .test_point_in_time import NEITHER, Pair, fresh_project, spine_of, user_and_place
from .world import HOUR, NOON, look, python, rows, written

ON_BOTH = True  # see `pytest_generate_tests`


def left_in(scratch: Path) -> list[Path]:
    """Return the files that are left in the scratch folders."""
    return [
        one for one in scratch.rglob("*") if one.is_file() and one.name != "_making.lock" and "objects" not in one.parts
    ]


class InManyPasses(DuckDBEngine):
    """The engine, as it works when there is far more data than memory."""

    def _passes(self, schema: Schema, rows: int) -> int:
        return 3


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@PROFILE
@given(
    frames=st.lists(some.frames(user_and_place), min_size=1, max_size=3),
    form=some.forms,
    ttls=st.tuples(some.ttls, some.ttls),
    created=st.booleans(),
)
@pytest.mark.slow
def test_a_stream_in_many_passes_gives_what_the_oracle_says(home, frames, form, ttls, created):
    store = FeatureStore(home)
    engine = InManyPasses(Duck(home / "scratch"))
    store.core.__dict__["_queries"] = SimpleNamespace(engine=lambda: engine)
    project = fresh_project()
    seen = Pair(store, "user_id", "place_id", project=project, ttl=ttls[0], created=created)
    users = Pair(store, "user_id", project=project, name="users", ttl=ttls[1])
    for frame in frames:
        seen.write(frame)
        users.write(some.Frame(tuple((keys[:1], *rest) for keys, *rest in frame.rows), *_rest(frame)))
    asked = list(product([3, 1, None, 2], ["12", None, "1", ""], some.all_moments))
    spine = spine_of(asked, form, user_id=pa.int64(), place_id=pa.string())
    lookups = [seen.lookup(), users.lookup(prefix="u_")]
    result = store.features.stream(lookups, spine, "at").read_all()
    assert result.equals(store.features.training_set(lookups, spine, "at"))
    assert result.select(spine.column_names).equals(spine)
    for row, (who, where, moment) in zip(result.to_pylist(), asked, strict=True):
        assert {"n": row["n"], "x": row["x"]} == NEITHER | seen.oracle.at((who, where), moment)
        assert {"n": row["u_n"], "x": row["u_x"]} == NEITHER | users.oracle.at((who,), moment)
    assert left_in(home / "scratch") == []


def _rest(frame):
    return frame.mode, frame.interval, frame.form


def spine_file(path, count=300_000):
    users = pa.array([i % 3 for i in range(count)])
    times = pa.array([(NOON + HOUR * (i % 5)).isoformat() for i in range(count)])
    pq.write_table(pa.table({"user_id": users, "at": times, "n": range(count)}), path, row_group_size=70_000)
    return path


def test_a_parquet_spine_is_joined_in_batches_and_comes_back_in_order(tmp_path):
    spine = spine_file(tmp_path / "spine.parquet")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2, 3)))]).using_spine(spine, "at")
    assert hist.to_parquet(tmp_path / "out.parquet") == 300_000
    written_file = pq.read_table(tmp_path / "out.parquet")
    assert written_file.equals(hist.to_dataframe(output="arrow").cast(written_file.schema))
    batches = list(hist.to_batches())
    assert len(batches) > 2
    assert pa.Table.from_batches(batches).equals(written_file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.parquet", "spine.parquet", "work"]


def test_an_empty_spine_and_an_empty_group_stream_too(tmp_path):
    fg = written(rows(1).slice(0, 0))
    spine = pa.table({"user_id": pa.array([1, 2]), "at": [NOON, None]})
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    assert hist.using_spine(spine, "at").to_batches().read_all().to_pylist() == look(fg, spine).to_pylist()
    assert hist.using_spine(spine.slice(0, 0), "at").to_batches().read_all().schema.names == ["user_id", "at", "x"]


def test_only_the_columns_asked_for_and_rows_of_the_span_are_streamed(tmp_path):
    spine = spine_file(tmp_path / "spine.parquet", 10)
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2, 3)))]).using_spine(spine, "at", keep_cols=[])
    found = hist.to_batches(feature_end_time=NOON).read_all()
    assert found.column_names == ["user_id", "at", "x"]
    assert set(found["x"].to_pylist()) == {1, None}


def test_what_cannot_be_streamed_is_refused_before_anything_is_written(tmp_path):
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    with pytest.raises(DefinitionError, match="A stream needs using_spine"):
        hist.to_parquet(tmp_path / "out.parquet")
    with pytest.raises(DataError, match="no column 'when'"):
        hist.using_spine(spine_file(tmp_path / "spine.parquet", 5), "when").to_parquet(tmp_path / "out.parquet")
    with pytest.raises(StoreError, match="cannot be written"):
        hist.using_spine(tmp_path / "spine.parquet", "at").to_parquet(tmp_path / "nowhere" / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_scratch_that_cannot_be_used_is_named(tmp_path, home):
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    shutil.rmtree(home / "scratch")
    (home / "scratch").touch()
    with pytest.raises(StoreError, match=r"scratch could not be written: File exists"):
        hist.using_spine(spine_file(tmp_path / "spine.parquet", 5), "at").to_parquet(tmp_path / "out.parquet")


def test_text_is_read_alike_in_all_batches_and_rows_are_named_by_their_number(tmp_path):
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    plain, path = ["2024-01-01T00:00:00"] * 200_000, tmp_path / "spine.parquet"
    pq.write_table(pa.table({"user_id": [1] * 200_001, "at": [*plain, "yesterday"]}), path)
    asked = hist.using_spine(path, "at")
    for ask in (asked.to_dataframe, partial(asked.to_parquet, tmp_path / "out.parquet")):
        with pytest.raises(DataError, match="'yesterday' in row 200000"):
            ask()


STREAM = """
import sys
from seeknal import FeatureLookup, HistoricalFeaturesDuckDB
hist = HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(sys.argv[1], "at")
while True:
    hist.to_parquet(sys.argv[2])
    print("once", flush=True)
"""


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, home):
    written(rows(1, 2, 3))
    spine, out = spine_file(tmp_path / "spine.parquet"), tmp_path / "out.parquet"
    process = python(STREAM, str(spine), str(out))
    assert process.stdout.readline() == "once\n"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert left_in(home / "scratch") == []
    assert pq.read_metadata(out).num_rows == 300_000


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_run_left_in_scratch(tmp_path, home):
    written(rows(1, 2, 3))
    spine, out, scratch = spine_file(tmp_path / "spine.parquet"), tmp_path / "out.parquet", home / "scratch"
    process = python(STREAM, str(spine), str(out))
    assert process.stdout.readline() == "once\n"
    wait_for = time.monotonic() + 60
    while not any(scratch.glob("*/*.parquet")):
        assert time.monotonic() < wait_for
    process.kill()
    process.communicate(timeout=60)
    assert left_in(scratch)
    HistoricalFeaturesDuckDB([FeatureLookup("spend")]).using_spine(spine, "at").to_parquet(out)
    assert left_in(scratch) == []
