"""On Spark, every answer has the same bits as on DuckDB: whatever the data, the buckets, the cuts in time, and the tasks that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import test_types_page as page
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
    Sum,
    WindowedGroup,
    config,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.engine.duckdb import queries
from seeknal.engine.spark import shuffle
from seeknal.engine.spark.pieces import Buckets
from seeknal.engine.spark.session import open_session
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.values.content_hash import content_hash

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

MICROSECOND = timedelta(microseconds=1)
USERS, TIMES = st.sampled_from(["a", "a", "a", "b", "c", None]), st.integers(0, 12)
ROWS = st.lists(
    st.tuples(USERS, st.integers(1, 3), TIMES, st.none() | st.integers(0, 2), st.none() | st.floats()), max_size=20
)
ASKED = st.lists(st.tuples(USERS, st.none() | TIMES), min_size=1, max_size=8)


@pytest.fixture
def on_spark(spark, home) -> FeatureStore:
    """The store in the test's home, with the engine on Spark."""
    return FeatureStore.of(replace(config.load(), engine="spark"))


@pytest.fixture
def on_duckdb(home) -> FeatureStore:
    return FeatureStore.of(replace(config.load(), engine="duckdb"))


def small_buckets(bucket: int = 4, part: int = 6, few: int = 20) -> ExitStack:
    """Cut even a few rows into buckets and parts, and entities with more than two buckets of rows by time."""
    stack = ExitStack()
    for module, name, value in ((shuffle, "BUCKET", bucket), (shuffle, "_PART", part), (queries, "_FEW", few)):
        stack.enter_context(patch.object(module, name, value))
    return stack


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


@settings(PROFILE, max_examples=max(4, PROFILE.max_examples // 4))
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


@pytest.mark.parametrize("few", [20, 0])
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


def test_every_slice_of_an_entity_has_a_bucket_of_its_own():
    buckets = Buckets(4, {9: (100, 200), 2**64 - 1: (50,)})
    hashes = np.array([7, 9, 9, 9, 9, 2**64 - 1, 2**64 - 1], np.uint64)
    t = np.array([150, 99, 100, 199, 250, 49, 50])
    assert buckets.of(hashes, t).tolist() == [3, 4, 5, 5, 6, 7, 8]


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
    group, spine = many(on_duckdb, 4000)
    asked = [FeatureLookup(group)]
    expected = on_duckdb.features.training_set(asked, spine, "at")
    tracker, killed = spark.sparkContext.statusTracker(), []
    found: list[pa.Table] = []

    def join() -> None:
        with small_buckets(20, 100):
            found.append(on_spark.features.training_set(asked, spine, "at"))

    thread = threading.Thread(target=join)
    thread.start()
    failed = 0
    while thread.is_alive() and not failed:
        active = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        failed = sum(stage.numFailedTasks for stage in active if stage)
        if any(stage and stage.numActiveTasks for stage in active) and len(killed) < 6:
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    thread.join()
    assert killed
    assert failed, "no task failed"
    assert content_hash(found[0]) == content_hash(expected)


@pytest.mark.parametrize("few", [20, 0])
def test_every_type_comes_back_as_it_was(few, on_duckdb, on_spark):
    frame = page.frame().drop_columns(["null, declared as int64"])
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


def test_a_java_from_a_package_starts_spark(tmp_path):
    code = (
        "import spark_java, sys; from pathlib import Path; from seeknal.engine.spark.session import open_session\n"
        "spark_java.from_wheel(Path(sys.argv[1])); print(open_session('local[1]').range(3).count())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_without_java_the_error_says_what_to_install(tmp_path):
    code = "from seeknal.engine.spark.session import open_session; open_session('local[1]')"
    env = {**os.environ, "JAVA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "Spark needs Java 17 or later, and neither JAVA_HOME nor the PATH leads to one." in done.stderr
