"""On Spark, every answer has the same bits as on DuckDB: whatever the data, the buckets, the cuts in time, and the tasks that die."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import PROFILE
from contract.world import HOUR, NOON, written
from seeknal import (
    Count,
    DataError,
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    Last,
    Materialization,
    Std,
    StoreError,
    Sum,
    WindowedGroup,
    config,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.schema import Schema
from seeknal.engine import FeatureRequest
from seeknal.engine.duckdb import queries
from seeknal.engine.spark import pieces, shuffle
from seeknal.engine.spark.pieces import Buckets
from seeknal.engine.spark.session import open_session
from seeknal.engine.spark.work import Lookup, work_of
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.offline import Rows
from seeknal.system.copies import copies_of_executor
from seeknal.system.object_store import store_of_executor
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.content_hash import content_hash
from seeknal.values.types import UTC

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

MICROSECOND = timedelta(microseconds=1)
IN_S3 = pytest.mark.parametrize("storage", ["s3"], indirect=True)
ANYWHERE = pytest.mark.parametrize("storage", ["folder", "s3"], indirect=True)
USERS, TIMES = st.sampled_from(["a", "a", "a", "b", "c", None]), st.integers(0, 12)
ROWS = st.lists(
    st.tuples(USERS, st.integers(1, 3), TIMES, st.none() | st.integers(0, 2), st.none() | st.floats()), max_size=20
)
ASKED = st.lists(st.tuples(USERS, st.none() | TIMES), min_size=1, max_size=8)


@pytest.fixture
def on_duckdb(home) -> FeatureStore:
    return FeatureStore.of(replace(config.load(), engine="duckdb"))


def small_buckets(bucket: int = 4, part: int = 6, few: int = 20) -> ExitStack:
    """Cut even a few rows into buckets and parts, and entities with more than two buckets of rows by time."""
    stack = ExitStack()
    for module, name, value in ((shuffle, "BUCKET", bucket), (shuffle, "_PART", part), (queries, "_FEW", few)):
        stack.enter_context(patch.object(module, name, value))
    return stack


def every_type() -> pa.Table:
    """Return rows with a column of each type of the types page, which a copy of the tests alone does not have."""
    from test_types_page import frame

    return frame().drop_columns(["null, declared as int64"])


def lines_of(drawn) -> pa.Table:
    users, items, times, seen_at, x = zip(*drawn, strict=True)
    made = [None if at is None else NOON + at * HOUR for at in seen_at]
    return pa.table(
        {
            "user": pa.array(users, pa.string()),
            "item": items,
            "at": [NOON + t * HOUR for t in times],
            "made": pa.array(made, pa.timestamp("us")),
            "x": pa.array(x, pa.float64()),
        }
    )


def spine_of(drawn) -> pa.Table:
    users, times = zip(*drawn, strict=True)
    at = [None if t is None else NOON + t * HOUR for t in times]
    return pa.table(
        {"user": pa.array(users, pa.string()), "item": [1] * len(users), "at": pa.array(at, pa.timestamp("us"))}
    )


@PROFILE
@given(
    first=ROWS.filter(bool),
    second=ROWS,
    asked=ASKED,
    few=st.sampled_from([20, 0]),
    by=st.sampled_from(["user", "item"]),
)
def test_spark_gives_the_bits_that_duckdb_gives(on_duckdb, on_spark, first, second, asked, few, by):
    project = f"p{abs(hash(str((first, second, asked, few, by))))}"
    keyed = ["user", "item"] if by == "user" else ["item"]  # of one event keyed by item, each row may have another user
    lines = FeatureGroup(
        "lines", Entity("line", keyed), Materialization("at", created_time_col="made", ttl=3 * HOUR), project
    )
    for drawn in filter(bool, (first, second)):
        on_duckdb.groups.write(lines, lines_of(drawn), mode="append")
    windows = WindowedGroup(
        "spend",
        Entity("user", ["user"]),
        f"{project}/lines",
        {
            "n": Count(over="3h"),
            "every": Count(),
            "total": Sum("x", over="5h", where="x < 1e300"),
            "std": Std("x", over="5h"),
            "last": Last("x", over="5h"),
        },
    )
    spine = spine_of(asked)
    for lookup in (FeatureLookup(lines, ["x"]), FeatureLookup(windows)):
        expected = on_duckdb.features.training_set([lookup], spine, "at")
        with small_buckets(few=few):
            found = on_spark.features.training_set([lookup], spine, "at")
        assert content_hash(found) == content_hash(expected)


@pytest.mark.parametrize("keyed", [["user", "item"], ["item"]])
def test_an_event_whose_rows_are_in_several_files_counts_once_and_for_one_entity(keyed, on_duckdb, on_spark):
    lines = FeatureGroup("lines", Entity("line", keyed), Materialization("at"), "shop")
    for users in (["a", "a", "b"], ["a", "b", "b"], ["a", "b", None]):
        table = pa.table({"user": users, "item": [1, 2, 3], "at": [NOON] * 3})
        on_duckdb.groups.write(lines, table.append_column("x", pa.array([1.0] * 3)), mode="append")
    windows = WindowedGroup("counts", Entity("user", ["user"]), "shop/lines", {"n": Count()})
    spine = pa.table({"user": ["a", "b", "c"], "at": [NOON] * 3})
    expected = [2, 2, 0] if keyed == ["user", "item"] else [1, 1, 0]
    for store in (on_duckdb, on_spark):
        with small_buckets(part=1):
            assert store.features.training_set([FeatureLookup(windows)], spine, "at")["n"].to_pylist() == expected


def many(store: FeatureStore, count: int = 2000, hot: int = 2) -> tuple[FeatureGroup, pa.Table]:
    """Write rows, one of `hot` of which is of user 0, and return their group and a spine of the same kind."""
    random = np.random.default_rng(1)

    def drawn(size: int) -> dict[str, pa.Array]:
        users = np.where(random.integers(0, hot, size) == 0, 0, random.integers(0, 50, size))
        hours = random.integers(0, 1000, size)
        return {"user": pa.array(users), "at": pa.array([NOON + int(hour) * HOUR for hour in hours])}

    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"), "shop")
    for part in range(4):
        size = count // 4
        store.groups.write(
            group, pa.table({**drawn(size), "x": random.random(size), "part": [part] * size}), mode="append"
        )
    return group, pa.table(drawn(count // 2))


@pytest.mark.parametrize(("few", "storage"), [(20, "folder"), (0, "folder"), (20, "s3")], indirect=["storage"])
def test_an_entity_with_half_of_the_rows_is_cut_by_time(few, on_duckdb, on_spark):
    group, spine = many(on_duckdb)
    windows = WindowedGroup(
        "sums", Entity("user", ["user"]), "shop/spend", {"n": Count(over="9h"), "x": Sum("x", over="9h")}
    )
    cuts: list[dict[int, tuple[int, ...]]] = []

    def noted(*arguments):
        cuts.append(real(*arguments))
        return cuts[-1]

    real = shuffle.cuts_of
    for lookup in (group, windows):
        expected = on_duckdb.features.training_set([FeatureLookup(lookup)], spine, "at")
        with small_buckets(100, 500, few), patch.object(shuffle, "cuts_of", noted):
            found = on_spark.features.training_set([FeatureLookup(lookup)], spine, "at")
        assert content_hash(found) == content_hash(expected)
    assert [len(one) for one in cuts] == ([1, 1] if few else [])
    assert all(len(times) >= 5 for one in cuts for times in one.values())


def test_windows_that_reach_back_to_the_first_event_are_not_cut_by_time(on_duckdb, on_spark):
    _, spine = many(on_duckdb, 400)
    windows = WindowedGroup("sums", Entity("user", ["user"]), "shop/spend", {"n": Count(), "x": Sum("x", over="900h")})
    expected = on_duckdb.features.training_set([FeatureLookup(windows)], spine, "at")
    with small_buckets(20, 100):
        assert content_hash(on_spark.features.training_set([FeatureLookup(windows)], spine, "at")) == content_hash(
            expected
        )


def test_moments_without_a_key_are_spread_over_the_buckets():
    spine = pa.table({"k0": pa.array([None, None, None, None, 1, 1], pa.int64()), "t": pa.array([1, 2, 3, 4, None, 5])})
    schema = Schema((pa.field("user", pa.int64()),), pa.field("at", UTC), None, (pa.field("x", pa.int64()),))
    work = Lookup(FeatureRequest(Rows((), schema, 0), ("x",)))
    found = pa.Table.from_batches(shuffle.cut_moments(work, Buckets(4), iter([pieces.packed(spine)])))
    assert sorted(set(found["bucket"].to_pylist())) == [0, 1, 2, 3]
    assert sum(map(len, pieces.unpacked(found))) == 6


def test_every_slice_of_an_entity_has_a_bucket_of_its_own():
    buckets = Buckets(4, {9: (100, 200), 2**64 - 1: (50,)})
    hashes = np.array([7, 9, 9, 9, 9, 2**64 - 1, 2**64 - 1], np.uint64)
    t = np.array([150, 99, 100, 199, 250, 49, 50])
    assert buckets.of(hashes, t).tolist() == [3, 4, 5, 5, 6, 7, 8]


@ANYWHERE
def test_a_saved_training_set_has_the_same_hash_on_both_engines(on_duckdb, on_spark):
    group, spine = many(on_duckdb, 400)
    asked = [FeatureLookup(group)]
    saved = [
        store.training_sets.save(name, Inquiry(asked, SPINE, spine, "at"))
        for store, name in ((on_duckdb, "one"), (on_spark, "two"))
    ]
    assert saved[0].content_hash == saved[1].content_hash
    assert on_spark.training_sets.reproduce(on_spark.training_sets.get("one")).num_rows == 200


def test_a_sum_that_does_not_fit_names_its_feature(on_duckdb, on_spark):
    big = written(pa.table({"user_id": [1, 1], "at": [NOON, NOON + HOUR], "x": [2**62, 2**62]}), name="big")
    group = WindowedGroup("sums", Entity("user", ["user_id"]), "shop/big", {"total": Sum("x")})
    spine = pa.table({"user_id": [1], "at": [NOON + HOUR]})
    messages = []
    for store in (on_duckdb, on_spark):
        with pytest.raises(DataError, match="'total' is a sum that does not fit") as caught:
            store.features.training_set([FeatureLookup(group)], spine, "at")
        messages.append((str(caught.value), caught.value.feature))
    assert messages[0] == messages[1]
    assert big is not None


@ANYWHERE
def test_a_spark_dataframe_gets_its_features_in_a_spark_dataframe(spark, on_duckdb, on_spark):
    group, spine = many(on_duckdb)
    windows = WindowedGroup(
        "sums", Entity("user", ["user"]), "shop/spend", {"n": Count(over="9h"), "x": Sum("x", over="9h")}
    )
    spine = spine.append_column("row", pa.array(range(len(spine)))).append_column("k0", pa.array(["a"] * len(spine)))
    asked = [FeatureLookup(group, ["x"]), FeatureLookup(windows, prefix="of_9h_")]
    expected = on_duckdb.features.training_set(asked, spine, "at")
    with small_buckets(100, 500):
        found = on_spark.features.training_set(asked, spark.createDataFrame(spine), "at")
    assert found.columns == [*spine.column_names, "x", "of_9h_n", "of_9h_x"]
    table = found.toArrow().sort_by("row")
    kinds = [expected.schema.field(name).type for name in table.column_names]
    assert content_hash(recast(table, kinds)) == content_hash(expected)
    assert found.where("x is null").count() > 0


def test_a_spark_dataframe_is_evaluated_once_and_only_when_the_result_is(spark, on_duckdb, on_spark, tmp_path):
    group, _ = many(on_duckdb, 400)
    log = tmp_path / "log"

    def noted(batches):
        with log.open("a") as file:
            file.write("read\n")
        for batch in batches:
            at = pa.array([NOON] * len(batch), pa.timestamp("us", tz="UTC"))
            yield pa.RecordBatch.from_arrays([batch.column(0), at], names=["user", "at"])

    spine = spark.range(0, 100, 1, 3).mapInArrow(noted, "user long, at timestamp")
    found = on_spark.features.training_set([FeatureLookup(group), FeatureLookup(group, prefix="again_")], spine, "at")
    assert not log.exists()
    assert found.count() == 100
    assert log.read_text().count("read") == 3


def test_types_that_spark_lacks_come_as_delta_lake_stores_them(spark, on_duckdb, on_spark):
    frame = every_type()
    written(frame)
    table = on_duckdb.features.training_set([FeatureLookup("shop/spend")], frame.select(["user_id", "at"]), "at")
    spine = spark.createDataFrame(frame.select(["user_id", "at"]).cast(pa.schema([("user_id", "int64"), ("at", UTC)])))
    found = on_spark.features.training_set([FeatureLookup("shop/spend")], spine, "at").toArrow().sort_by("user_id")
    for name in table.column_names[2:]:
        stored = recast(table.select([name]), [types.stored(table.schema.field(name).type)])
        assert content_hash(recast(found.select([name]), stored.schema.types)) == content_hash(stored), name


@pytest.mark.parametrize(
    ("spine", "message"),
    [
        (
            "select 'one' as user_id, timestamp '2024-01-01' as at",
            "The spine's user_id is string, but group 'spend' is keyed by int64",
        ),
        ("select 1 as user, timestamp '2024-01-01' as at", "The spine has no column 'user_id'"),
        ("select 1 as user_id, timestamp '2024-01-01' as at, 2 as X", "Two columns would be named 'x'"),
    ],
)
def test_a_spark_dataframe_that_does_not_fit_is_refused_before_anything_is_evaluated(
    spine, message, spark, on_duckdb, on_spark
):
    written(pa.table({"user_id": [1], "at": [NOON], "x": [1]}))
    with pytest.raises((DataError, DefinitionError), match=re.escape(message)):
        on_spark.features.training_set([FeatureLookup("shop/spend")], spark.sql(spine), "at")


def test_a_spark_dataframe_needs_the_engine_on_spark(spark, on_duckdb):
    written(pa.table({"user_id": [1], "at": [NOON], "x": [1]}))
    with pytest.raises(DefinitionError, match=re.escape('Set engine = "spark" in seeknal.toml')):
        on_duckdb.features.training_set([FeatureLookup("shop/spend")], spark.sql("select 1 user_id, now() at"), "at")


def test_a_spark_dataframe_can_be_written_and_saved(spark, on_duckdb, on_spark):
    table = pa.table({"user": [1, 2], "at": pa.array([NOON, NOON], UTC), "x": [1.5, None]})
    group = FeatureGroup("given", Entity("user", ["user"]), Materialization("at"), "shop")
    on_spark.groups.write(group, spark.createDataFrame(table), mode="append")
    spine = table.select(["user", "at"])
    assert on_duckdb.features.training_set([FeatureLookup(group)], spine, "at")["x"].to_pylist() == [1.5, None]
    saved = [
        on_spark.training_sets.save(name, Inquiry([FeatureLookup(group)], SPINE, given, "at"))
        for name, given in (("one", spine), ("two", spark.createDataFrame(spine)))
    ]
    assert saved[0].content_hash == saved[1].content_hash


def workers() -> list[int]:
    """Return the processes of Python workers: the children of PySpark's daemons, which are children of Java."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    every = [
        (int(pid), int(parent), args) for pid, parent, args in (line.split(None, 2) for line in found.splitlines()[1:])
    ]
    own = {os.getpid()}
    while more := {pid for pid, parent, _ in every if parent in own} - own:
        own |= more
    return [
        pid
        for pid, parent, args in every
        if pid in own
        and "pyspark.daemon" in args
        and any(pid_of == parent and "pyspark.daemon" in its for pid_of, _, its in every)
    ]


def test_tasks_whose_workers_are_killed_run_again_and_change_nothing(spark, on_duckdb, on_spark):
    group, spine = many(on_duckdb, 20_000)
    asked, tracker = [FeatureLookup(group)], spark.sparkContext.statusTracker()
    expected = content_hash(on_duckdb.features.training_set(asked, spine, "at"))
    found: list[str] = []

    def join() -> None:
        with small_buckets(100, 500):
            found.append(content_hash(on_spark.features.training_set(asked, spine, "at")))

    failed = 0
    for _ in range(10):  # a worker may be killed while it is idle, which no task notices
        thread = threading.Thread(target=join)
        thread.start()
        while thread.is_alive() and not failed:
            active = [stage for stage in map(tracker.getStageInfo, tracker.getActiveStageIds()) if stage]
            failed = sum(stage.numFailedTasks for stage in active)
            for pid in workers() if not failed and any(stage.numActiveTasks for stage in active) else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        thread.join()
        assert found.pop() == expected
        if failed:
            return
    pytest.fail("no task failed")


@pytest.mark.parametrize("few", [20, 0])
def test_every_type_comes_back_as_it_was(few, on_duckdb, on_spark):
    frame = every_type()
    written(frame)
    spine = frame.select(["user_id", "at"]).append_column("other", frame["user_id"])
    expected = on_duckdb.features.training_set([FeatureLookup("shop/spend")], spine, "at")
    with small_buckets(few=few):
        found = on_spark.features.training_set([FeatureLookup("shop/spend")], spine, "at")
    assert found.schema == expected.schema
    assert content_hash(found) == content_hash(expected)


def test_a_session_on_another_master_is_not_used_in_silence(spark):
    assert open_session(None) is not None
    with pytest.raises(
        DefinitionError, match=r"spark is 'local\[3\]', but this process has a Spark session on 'local\[2, 4\]'"
    ):
        open_session("local[3]")


def test_spark_connect_gives_the_same_bits():
    program = Path(__file__).with_name("spark_connect.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr


def test_a_java_that_ends_at_once_is_quoted(tmp_path):
    code = "from seeknal.engine.spark.session import open_session; open_session('local[1]')"
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text(
        "#!/bin/sh\necho 'openjdk version \"17\"' >&2\n[ $1 = -version ] || { echo no memory >&2; exit 1; }\n"
    )
    java.chmod(0o755)
    env = {**os.environ, "JAVA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert re.search(
        r"StoreError: No Spark session can be started on local\[1\]: .*It wrote:\n.*no memory", done.stderr, re.DOTALL
    )


@IN_S3
def test_a_killed_executor_of_a_cluster_changes_nothing():
    program = Path(__file__).with_name("spark_standalone.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr


def test_without_java_the_error_says_what_to_install(tmp_path):
    code = "from seeknal.engine.spark.session import open_session; open_session('local[1]')"
    env = {**os.environ, "JAVA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "Spark needs Java 17 or later, and neither JAVA_HOME nor the PATH leads to one." in done.stderr


@IN_S3
def test_executors_are_told_where_a_table_lies_but_no_credentials(on_duckdb, seaweed):
    group, _ = many(on_duckdb, 40)
    table = on_duckdb.core.catalog.offline(group.project, group.name)
    snapshot = table.snapshot()
    sent = cloudpickle.dumps(work_of(FeatureRequest(snapshot.within(snapshot.commit.schema), ("x",))))
    assert b"s3://tests/" in sent
    assert seaweed.secret.encode() not in sent
    assert seaweed.key.encode() not in sent


@IN_S3
def test_an_executor_that_finds_another_place_than_the_driver_is_an_error(on_duckdb, seaweed, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    group, _ = many(on_duckdb, 40)
    path = on_duckdb.core.catalog.offline(group.project, group.name).root.parent / "current.json"
    here = pickle.loads(pickle.dumps(path))
    assert here.exists()
    bucket, _, prefix = path.backing.url.removeprefix("s3://").partition("/")
    seaweed.client(bucket).put(f"{prefix}/seeknal.json", b'{"home": "another", "place": "another"}')
    assert here.exists()
    copies_of_executor.cache_clear()
    store_of_executor.cache_clear()
    with pytest.raises(StoreError, match="is another place for an executor than for the driver"):
        pickle.loads(pickle.dumps(path)).exists()
