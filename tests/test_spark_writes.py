"""Spark DataFrames are written by executors: the same rows, checks and notices as from other frames, in one commit, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

import spark_java
from contract.world import HOUR, NOON
from seeknal import (
    Entity,
    FeatureStore,
    Materialization,
    SeeknalWarning,
    StoreError,
)
from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.schema import Roles
from seeknal.engine.spark import writing
from seeknal.errors import SeeknalError
from seeknal.offline import Snapshot, plan
from seeknal.values.content_hash import content_hash
from seeknal.values.frames import opened
from seeknal.values.frames.spark import InSpark, in_spark_types
from seeknal.values.times import Interval
from seeknal.values.types import UTC
from seeknal.write.distributed import InExecutors
from seeknal.write.given import Asked, Checked
from servers import wait_for
from test_spark import workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


def group(name: str = "spend", **options) -> FeatureGroup:
    return FeatureGroup(name, Entity("user", ["user"]), Materialization("at", **options), "shop")


def table(count: int, *, seed: int = 1, days: int = 30) -> pa.Table:
    random = np.random.default_rng(seed)
    hours = random.permutation(days * 24 * 50)[:count] // 50
    return pa.table(
        {
            "user": pa.array([f"u{n}" for n in random.permutation(count)]),
            "at": pa.array([NOON + int(hour) * HOUR for hour in hours], UTC),
            "x": random.random(count),
        }
    )


def stored(store: FeatureStore, name: str = "spend") -> pa.Table:
    """Return all stored rows, with their numbers."""
    offline = store.core.catalog.offline("shop", name)
    snapshot = offline.snapshot()
    names = [*snapshot.commit.schema.names, "_seeknal_row_id"]
    tables = list(offline.columns(snapshot.files, names))
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in names})


def outcome(store: FeatureStore, name: str, frame: object, **options) -> list[str]:
    """Return what a caller sees of a write: the result or the error, and the notices."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SeeknalWarning)
        try:
            told = str(store.groups.write(group(name, **options.pop("roles", {})), frame, **options))
        except SeeknalError as error:
            told = f"{type(error).__name__}: {error}"
    notices = [str(one.message) for one in caught if issubclass(one.category, SeeknalWarning)]
    return [text.replace(f"shop/{name}", "GROUP").replace(repr(name), "GROUP") for text in [told, *notices]]


IN_BOTH = pytest.mark.parametrize("storage", ["folder", "s3"], indirect=True)


def test_executors_number_all_rows_and_note_the_bounds_of_each_file(spark, on_spark):
    given = table(4000)
    with patch.object(plan, "FILE_ROWS", 500), patch.object(InExecutors, "table", side_effect=AssertionError):
        on_spark.groups.write(group(), spark.createDataFrame(given).repartition(5), mode="append")
        on_spark.groups.write(group(), spark.createDataFrame(table(1000, seed=2)), mode="append")
    found = stored(on_spark).sort_by("_seeknal_row_id")
    assert found["_seeknal_row_id"].to_pylist() == list(range(5000))
    assert content_hash(found[:4000].select(given.column_names).sort_by("user")) == content_hash(given.sort_by("user"))
    offline = on_spark.core.catalog.offline("shop", "spend")
    files = offline.snapshot().files
    assert len(files) >= 8
    for file in files:
        (one,) = offline.columns([file], ["at", "_seeknal_row_id"])
        times = one["at"].cast(pa.int64()).to_pylist()
        assert (file.rows, file.start, file.end) == (len(times), min(times), max(times))
        numbers = one["_seeknal_row_id"].to_pylist()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_rows_of_one_day_are_cut_by_entity(spark, on_spark):
    given = table(1200, days=1)
    with patch.object(writing, "_MOST", 200):
        on_spark.groups.write(group(), spark.createDataFrame(given))
    assert len(on_spark.core.catalog.offline("shop", "spend").snapshot().files) == 8
    found = stored(on_spark).sort_by("_seeknal_row_id")
    assert found["_seeknal_row_id"].to_pylist() == list(range(1200))
    assert content_hash(found.select(given.column_names).sort_by("user")) == content_hash(given.sort_by("user"))


def at(*hours: float | None) -> pa.Array:
    return pa.array([None if hour is None else NOON + timedelta(hours=hour) for hour in hours], UTC)


FIRST = pa.table({"user": ["a", "b", "c", None], "at": at(0, 1, 30, 2), "x": [1, 2, 3, 4], "y": [1.0, 2.0, None, 3.0]})
MADE = {"created_time_col": "made"}
SAME = pa.table({"user": ["a"] * 12 + ["b"] * 11, "at": at(*[2] * 23), "made": at(*[5] * 23), "x": [7] * 23})
CASES = {
    "keys that are null": [(FIRST, {})],
    "rows after now": [(FIRST.set_column(1, "at", at(0, 10**6, 10**6, 1)), {})],
    "duplicates": [(SAME, {}), (SAME, {"roles": MADE}), (SAME, {"roles": MADE, "mode": "append"})],
    "no event time": [
        (FIRST.set_column(1, "at", at(0, None, 1, None)), {"drop_nulls": drop}) for drop in (False, True)
    ],
    "no event time at all": [
        (FIRST.set_column(1, "at", at(*[None] * 4)), {"drop_nulls": drop}) for drop in (False, True)
    ],
    "no rows": [(FIRST[:0], {}), (FIRST, {}), (FIRST[:0], {})],
    "times out of range": [(FIRST.set_column(1, "at", pa.array([0, 0, 0, 2**58], UTC)), {})],
    "an interval": [
        (FIRST, {}),
        (FIRST, {"interval": Interval.between("2023-01-01", "2024-01-01"), "mode": "append"}),
        (FIRST[:1], {"interval": Interval.between("2024-01-01", "2024-01-01")}),
    ],
    "a loss": [(FIRST, {}), (FIRST[2:3], {})],
    "another column": [(FIRST, {}), (FIRST.append_column("z", pa.array([1] * 4)), {"mode": "append"})],
    "a column less": [(FIRST, {}), (FIRST.drop_columns("y"), {"mode": "append"})],
    "a wider type": [(FIRST.set_column(2, "x", pa.array([1] * 4, pa.int8())), {}), (FIRST, {"mode": "append"})],
    "whole numbers that are exact": [(FIRST, {}), (FIRST.set_column(3, "y", pa.array([1] * 4)), {"mode": "append"})],
    "whole numbers that are not": [
        (FIRST, {}),
        (FIRST.set_column(3, "y", pa.array([2**53 + 1] * 4)), {"mode": "append"}),
    ],
    "decimals that need another scale": [
        (FIRST.set_column(3, "y", pa.array([Decimal("1.5")] * 4, pa.decimal128(3, 1))), {}),
        (FIRST.set_column(3, "y", pa.array([Decimal("1.50")] * 4, pa.decimal128(4, 2))), {"mode": "append"}),
        (FIRST.set_column(3, "y", pa.array([Decimal("1.25")] * 4, pa.decimal128(4, 2))), {"mode": "append"}),
    ],
    "text for a number": [(FIRST, {}), (FIRST.set_column(2, "x", pa.array(["1"] * 4)), {"mode": "append"})],
    "nulls of another type": [(FIRST, {}), (FIRST.set_column(2, "x", pa.nulls(4, pa.string())), {"mode": "append"})],
    "a key of a type that cannot be one": [(FIRST.set_column(0, "user", pa.array([1.5] * 4)), {})],
    "times in text": [(FIRST.set_column(1, "at", pa.array(["2024-01-01"] * 3 + ["soon"])), {})],
    "dates, then times": [(FIRST.set_column(1, "at", FIRST["at"].cast(pa.date32())), {}), (FIRST, {"mode": "append"})],
    "a merge": [(FIRST, {}), (FIRST[1:], {"mode": "merge"})],
    "declared types": [(FIRST, {"features": ["x"], "declared": {"x": kind}}) for kind in (pa.int8(), pa.string())],
    "a column that is missing": [(FIRST.drop_columns("at"), {})],
}
"""For each case the writes, one after the other: the frame and the options."""


def test_every_type_of_spark_is_written_by_executors_as_it_is_from_a_table(spark, on_spark):
    from test_types_page import frame

    given = spark.createDataFrame(in_spark_types(frame().drop_columns(["null, declared as int64"])))
    table = given.toArrow()
    with patch.object(InSpark, "table", side_effect=AssertionError):
        for name, one in (("one", table), ("two", given)):
            on_spark.groups.write(FeatureGroup(name, Entity("user", ["user_id"]), Materialization("at"), "shop"), one)
    schemas = [on_spark.groups.version(name).schema for name in ("one", "two")]
    assert schemas[0] == schemas[1]
    hashes = {
        content_hash(stored(on_spark, name).sort_by("user_id").drop_columns("_seeknal_row_id"))
        for name in ("one", "two")
    }
    assert len(hashes) == 1


IN_THE_DRIVER = {"decimals that need another scale", "nulls of another type", "times in text", "dates, then times"}
"""The cases in which the types depend on the values."""


@pytest.mark.parametrize("case", CASES)
def test_a_write_by_executors_does_and_says_what_a_write_of_a_table_does(case, spark, on_spark):
    read = 0
    for given, options in CASES[case]:
        frame = spark.createDataFrame(given)
        with patch.object(InSpark, "table", autospec=True, side_effect=InSpark.table) as noted:
            outcomes = [
                outcome(on_spark, name, one, **options) for name, one in (("one", frame.toArrow()), ("two", frame))
            ]
        read += noted.call_count
        assert outcomes[0] == outcomes[1]
        found = [stored(on_spark, name) for name in ("one", "two") if on_spark.groups.all(name=name)]
        assert len(found) != 1
        if found:
            order = [(name, "ascending") for name in found[0].column_names[:3]]
            hashes = {content_hash(one.drop_columns("_seeknal_row_id").sort_by(order)) for one in found}
            assert len(hashes) == 1
            assert sorted(found[1]["_seeknal_row_id"].to_pylist()) == sorted(found[0]["_seeknal_row_id"].to_pylist())
    assert (read > 0) == (case in {*IN_THE_DRIVER, "a merge"})


@IN_BOTH
def test_events_without_an_id_are_written_by_executors_and_those_with_one_by_the_driver(spark, on_spark, storage):
    given = pa.table({"at": at(0, 1, 2), "order": [1, 2, 2], "x": [1, 2, 3]})
    for name, event_id, count in (("clicks", (), 3), ("orders", ("order",), 2)):
        source = EventGroup(name, materialization=Materialization("at"), project="shop", event_id=event_id)
        with patch.object(InSpark, "table", autospec=True, side_effect=InSpark.table) as noted:
            on_spark.groups.write(source, spark.createDataFrame(given), mode="append")
        assert noted.called == bool(event_id)
        assert on_spark.groups.counts(name, 1)[0] == count


def test_workers_that_are_killed_in_mid_write_change_nothing(spark, on_spark):
    tracker, failed, rows = spark.sparkContext.statusTracker(), 0, 0
    for attempt in range(10):  # a worker may be killed while it is idle, which no task notices
        given = spark.createDataFrame(table(2000, seed=attempt)).repartition(4)
        with patch.object(plan, "FILE_ROWS", 100):
            thread = threading.Thread(target=lambda given=given: on_spark.groups.write(group(), given, mode="append"))
            thread.start()
            while thread.is_alive() and not failed:
                active = [stage for stage in map(tracker.getStageInfo, tracker.getActiveStageIds()) if stage]
                failed = sum(stage.numFailedTasks for stage in active)
                for pid in workers() if not failed and any(stage.numActiveTasks for stage in active) else ():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            thread.join()
        rows += 2000
        assert sorted(stored(on_spark)["_seeknal_row_id"].to_pylist()) == list(range(rows))
        if failed:
            return
    pytest.fail("no task failed")


def test_rows_that_are_lost_with_an_executor_are_computed_again(spark, on_spark):
    given, offline = table(100), on_spark.core.catalog.offline("shop", "spend")
    on_spark.groups.write(group(), given[:0])
    base = offline.snapshot()
    rows = checked(InExecutors(opened(spark.createDataFrame(given)), None), base)
    spark.catalog.clearCache()  # as if the executors were lost
    offline.write(base, rows.to_write(offline, 1))
    assert content_hash(stored(on_spark).select(given.column_names).sort_by("user")) == content_hash(
        given.sort_by("user")
    )


def checked(given: InExecutors, base: Snapshot) -> Checked:
    schema = given.schema(Roles("spend", ("user",), "at"), base.commit.schema)
    return given.checked(schema, Asked("append", Interval(), drop_nulls=False, event_id=None))


def test_rows_that_differ_when_they_are_computed_again_are_an_error_and_nothing_is_stored(spark, on_spark):
    on_spark.groups.write(group(), table(10))
    offline = on_spark.core.catalog.offline("shop", "spend")
    base = offline.snapshot()

    def drawn(batches):
        for batch in batches:
            random = pa.array(np.frombuffer(os.urandom(8 * len(batch)), np.int64) / 2**63)
            yield batch.set_column(batch.schema.get_field_index("x"), "x", random)

    frame = spark.createDataFrame(table(100))
    rows = checked(InExecutors(opened(frame.mapInArrow(drawn, frame.schema)), None), base)
    spark.catalog.clearCache()  # as if the executors were lost
    with pytest.raises(StoreError, match="had other rows when some of them were computed again"):
        offline.write(base, rows.to_write(offline, 1))
    assert offline.snapshot() == base
    assert offline.orphans() == []


KILLED = """
import sys
import pyarrow as pa
from seeknal.engine.spark.session import open_session
from seeknal import FeatureStore
from seeknal.offline import plan
from test_spark_writes import group, table
plan.FILE_ROWS = 100
spark = open_session("local[2]")
FeatureStore().groups.write(group(), spark.createDataFrame(table(30_000)), mode="append")
"""


def test_a_driver_that_is_killed_in_mid_write_leaves_the_table_as_it_was(on_spark, home, tmp_path):
    on_spark.groups.write(group(), table(10))
    offline = on_spark.core.catalog.offline("shop", "spend")
    base, before = offline.snapshot(), len(list(offline.root.glob("*.parquet")))
    with spark_java.found(tmp_path):
        driver = subprocess.Popen(
            [sys.executable, "-c", KILLED], env={**os.environ, "SEEKNAL_ENGINE": "spark"}, start_new_session=True
        )
        wait_for(lambda: len(list(offline.root.glob("*.parquet"))) > before or driver.poll() is not None, 300)
    os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert offline.snapshot() == base
    wait_for(lambda: offline.orphans() != [])
    on_spark.groups.optimize("spend", keep_days=0)
    assert offline.orphans() == []
    assert sorted(stored(on_spark)["_seeknal_row_id"].to_pylist()) == list(range(10))
