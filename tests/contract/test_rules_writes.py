"""Rules 15 to 17: one write is one snapshot, in one of three modes, of a closed interval."""

from __future__ import annotations

import threading
import time
from datetime import date, datetime, timedelta

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from seeknal import DataError, DefinitionError, FeatureLookup, FeatureStore, Materialization, SeeknalWarning

from .world import HOUR, MICROSECOND, NOON, finished, group, history, python, rows, seen, snapshots, write, written

ON_BOTH = True  # see `pytest_generate_tests`

US = pa.timestamp("us")


def stored(fg) -> list[tuple[object, object]]:
    found = history(fg)
    return list(zip(found["at"].to_pylist(), found["x"].to_pylist(), strict=True))


def test_one_write_is_one_snapshot():
    fg = written(rows(1, 2))
    before = snapshots(fg)
    made = [write(fg, rows(3), mode=mode).snapshot for mode in ("append", "merge", "overwrite")]
    assert made == [before + 1, before + 2, before + 3]
    assert snapshots(fg) == before + 3


def test_overwriting_without_an_interval_replaces_everything():
    fg = written(rows(1, 2, 3))
    with pytest.warns(SeeknalWarning, match="replaced all of shop/spend, which began on 2024-01-01 12:00:00"):
        assert write(fg, rows(4, times=[NOON + HOUR])).replaced == 3
    assert stored(fg) == [(NOON + HOUR, 4)]


def test_overwriting_an_interval_replaces_exactly_what_is_inside():
    fg = written(rows(0, 1, 2, 3, 4))
    write(fg, rows(9, times=[NOON + 2 * HOUR]), NOON + HOUR, NOON + 3 * HOUR)
    assert stored(fg) == [(NOON, 0), (NOON + 2 * HOUR, 9), (NOON + 4 * HOUR, 4)]


def test_overwriting_the_same_interval_twice_changes_nothing():
    fg = written(rows(0, 1, 2, 3, 4))
    for _ in range(3):
        write(fg, rows(7, 8, times=[NOON + HOUR, NOON + HOUR]), NOON + HOUR, NOON + 3 * HOUR)
        assert stored(fg) == [(NOON, 0), (NOON + HOUR, 8), (NOON + 4 * HOUR, 4)]


def test_the_ends_of_an_interval_are_inside_to_the_microsecond():
    start, end = NOON, NOON + HOUR
    edges = [start - MICROSECOND, start, end, end + MICROSECOND]
    fg = written(rows(1, 2, 3, 4, times=edges))
    write(fg, rows(9, times=[NOON + MICROSECOND]), start, end)
    assert stored(fg) == [(edges[0], 1), (NOON + MICROSECOND, 9), (edges[3], 4)]
    with pytest.warns(SeeknalWarning, match="2 rows"):
        report = write(fg, rows(5, 6, 7, 8, times=edges), start, end)
    assert (report.rows, report.outside) == (2, 2)
    assert stored(fg) == [(edges[0], 1), (start, 6), (end, 7), (edges[3], 4)]


def test_a_file_that_reaches_a_microsecond_beyond_the_interval_keeps_that_row():
    fg = written(rows(1, 2, times=[NOON - MICROSECOND, NOON]))
    write(fg, rows(3, 4, times=[NOON + HOUR, NOON + HOUR + MICROSECOND]), mode="append")
    write(fg, rows(9, times=[NOON]), NOON, NOON + HOUR)
    assert stored(fg) == [(NOON - MICROSECOND, 1), (NOON, 9), (NOON + HOUR + MICROSECOND, 4)]


@pytest.mark.parametrize("day", [date(2024, 1, 1), "2024-01-01"])
def test_an_end_that_is_a_date_covers_its_whole_day_and_a_start_its_midnight(day):
    last = datetime(2024, 1, 1, 23, 59, 59, 999999)
    times = [datetime(2024, 1, 1) - MICROSECOND, datetime(2024, 1, 1), last, datetime(2024, 1, 2)]
    fg = written(rows(1, 2, 3, 4, times=times))
    write(fg, rows(9, times=[NOON]), day, day)
    assert stored(fg) == [(times[0], 1), (NOON, 9), (times[3], 4)]


def test_an_end_that_is_a_midnight_is_that_moment():
    fg = written(rows(1, 2, times=[datetime(2024, 1, 2), NOON + timedelta(days=1)]))
    write(fg, rows(9, times=[NOON]), datetime(2024, 1, 1), datetime(2024, 1, 2))
    assert stored(fg) == [(NOON, 9), (NOON + timedelta(days=1), 2)]


def test_an_interval_may_be_open_at_either_side():
    fg = written(rows(1, 2, 3))
    write(fg, rows(9, times=[NOON + 5 * HOUR]), NOON + HOUR)
    assert stored(fg) == [(NOON, 1), (NOON + 5 * HOUR, 9)]
    write(fg, rows(8, times=[NOON]), None, NOON + HOUR)
    assert stored(fg) == [(NOON, 8), (NOON + 5 * HOUR, 9)]


@pytest.mark.parametrize("mode", ["overwrite", "append", "merge"])
def test_rows_outside_the_interval_are_never_written(mode):
    fg = written(rows(1))
    with pytest.warns(SeeknalWarning, match="outside"):
        write(fg, rows(7, 8, times=[NOON + HOUR, NOON + 2 * HOUR]), NOON + HOUR, NOON + HOUR, mode=mode)
    assert stored(fg) == [(NOON, 1), (NOON + HOUR, 7)]


def test_an_interval_the_wrong_way_round_is_refused_and_stores_nothing():
    fg = written(rows(1))
    with pytest.raises(DefinitionError, match="before"):
        write(fg, rows(2), NOON + HOUR, NOON)
    assert (snapshots(fg), stored(fg)) == (1, [(NOON, 1)])


def test_append_adds_and_keeps_what_is_there():
    fg = written(rows(1, 2))
    report = write(fg, rows(3, 4, times=[NOON, NOON + 5 * HOUR]), mode="append")
    assert report.rows == 2
    assert FeatureStore().groups.versions("spend")[0].rows == 4
    assert stored(fg) == [(NOON, 3), (NOON + HOUR, 2), (NOON + 5 * HOUR, 4)]


def test_merge_puts_new_rows_in_place_of_those_with_equal_keys_and_event_time():
    fg = written(pa.table({"user_id": [1, 1, 2], "at": [NOON, NOON + HOUR, NOON], "x": [1, 2, 3]}))
    write(fg, pa.table({"user_id": [1, 3], "at": [NOON, NOON], "x": [None, 4]}), mode="merge")
    assert history(fg)["x"].to_pylist() == [None, 2, 3, 4]
    assert FeatureStore().groups.versions("spend")[0].rows == 4


def test_merging_twice_changes_nothing():
    fg = written(rows(1, 2))
    for _ in range(2):
        write(fg, rows(7, times=[NOON + HOUR]), mode="merge")
        assert stored(fg) == [(NOON, 1), (NOON + HOUR, 7)]
        assert FeatureStore().groups.versions("spend")[0].rows == 2


def test_of_repeated_rows_in_one_merge_the_last_wins():
    fg = group()
    write(fg, rows(1, 2, times=[NOON, NOON]), mode="merge")
    assert FeatureStore().groups.versions("spend")[0].rows == 1
    assert stored(fg) == [(NOON, 2)]


def test_a_merge_does_not_put_a_row_recorded_earlier_in_place_of_a_later_one():
    fg = written(rows(1, made=[NOON + HOUR]), created_time_col="made")
    write(fg, rows(2, made=[NOON]), mode="merge")
    assert stored(fg) == [(NOON, 1)]
    write(fg, rows(3, made=[NOON + HOUR]), mode="merge")
    assert stored(fg) == [(NOON, 3)]


def test_merge_compares_composite_keys_part_by_part():
    fg = written(pa.table({"a": ["1"], "b": ["23"], "at": [NOON], "x": [1]}), keys=["a", "b"])
    write(fg, pa.table({"a": ["12"], "b": ["3"], "at": [NOON], "x": [2]}), mode="merge")
    assert history(fg)["x"].to_pylist() == [1, 2]


def test_an_unknown_mode_is_refused():
    fg = group()
    with pytest.raises(DefinitionError, match="merge"):
        write(fg, rows(1), mode="upsert")
    assert snapshots(fg) == -1


EMPTY = pa.table({"user_id": pa.array([], pa.int64()), "at": pa.array([], US), "x": pa.array([], pa.int64())})


@pytest.mark.parametrize(
    "empty", [EMPTY, EMPTY.to_pandas(), pl.from_arrow(EMPTY), EMPTY.to_pandas(types_mapper=pd.ArrowDtype)], ids=repr
)
def test_an_empty_frame_is_a_typed_write_of_nothing(empty):
    fg = group()
    assert write(fg, empty).rows == 0
    assert fg.version == 1
    assert history(fg).schema.equals(EMPTY.schema)
    assert len(history(fg)) == 0
    assert seen(fg, NOON) == [None]
    write(fg, rows(1), mode="append")
    assert fg.version == 1
    assert seen(fg, NOON) == [1]


def test_an_empty_overwrite_empties_its_interval():
    fg = written(rows(1, 2, 3))
    with pytest.warns(SeeknalWarning, match="replaced .* by 0 rows"):
        write(fg, EMPTY, NOON + HOUR, NOON + HOUR)
    assert stored(fg) == [(NOON, 1), (NOON + 2 * HOUR, 3)]
    for mode in ("append", "merge"):
        assert write(fg, EMPTY, mode=mode).rows == 0
    assert stored(fg) == [(NOON, 1), (NOON + 2 * HOUR, 3)]
    with pytest.warns(SeeknalWarning, match="replaced .* by 0 rows"):
        write(fg, EMPTY)
    assert stored(fg) == []


def test_an_empty_untyped_pandas_frame_fits_what_is_known():
    fg = written(rows(1))
    write(fg, pd.DataFrame({"user_id": [], "at": [], "x": []}, dtype=object), mode="append")
    assert fg.version == 1
    assert stored(fg) == [(NOON, 1)]


def test_an_empty_group_is_served_as_nothing_known():
    fg = written(EMPTY)
    store = FeatureStore()
    assert len(store.features.latest([FeatureLookup(fg)], output="arrow")) == 0
    assert store.tables.serve([FeatureLookup(fg)]).get_features([{"user_id": 1}], "dicts") == [
        {"user_id": 1, "x": None}
    ]


MODES = ("overwrite", "append", "merge")
WRONG = {
    "no key": (rows(1).drop(["user_id"]), "has no column 'user_id'. There are: at, x"),
    "no event time": (rows(1).drop(["at"]), "has no column 'at'. There are: user_id, x"),
    "no features": (rows(1).drop(["x"]), "has no features besides user_id, at"),
    "float key": (
        rows(1, user=1.5),
        "'user_id' is double, which cannot serve as a key. Make it a whole number or text",
    ),
    "null event time": (rows(1, times=pa.array([None], US)), "1 of 1 rows have no 'at'.* write.drop_nulls=True"),
    "narrower": (
        rows(1.5),
        "'x' of group 'spend' is int64 and cannot become double, to which it does not widen. Cast the column",
    ),
    "other kind": (
        rows("a"),
        "'x' of group 'spend' is int64 and cannot become string, to which it does not widen. Cast the column",
    ),
    "key of another kind": (
        rows(1, user="1"),
        "'user_id' of group 'spend' is int64 and cannot become string, to which it does not widen. Cast the column",
    ),
    "time out of range": (rows(1, times=pa.array([2**62], pa.int64()).cast(US)), "'at' holds times .* Check its unit"),
    "differing in case": (rows(1, X=[1]), "'x' and 'X' differ in case only. Rename one"),
    "reserved": (rows(1, _seeknal_row_id=[1]), "cannot be named '_seeknal_row_id', or have an empty name. Rename it"),
    "two of one name": (
        pa.table([[1], [NOON], [1], [2]], names=["user_id", "at", "x", "x"]),
        "two columns named 'x'. Rename or drop one",
    ),
    "no frame": ({"user_id": 1}, "Expected a frame, not dict. Pass a pandas, Polars or Spark frame"),
    "series": (pd.Series([1], name="x"), "Series is a single column, not a frame. .*to_frame"),
    "numbered columns": (pd.DataFrame([[1, NOON, 1]]), "column 0 has a name that is not text. Rename it"),
    "no file": ("nowhere.parquet", "There is no file 'nowhere.parquet'"),
}


@pytest.mark.of_files
@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_an_error_that_names_it_before_anything_is_stored(home, what):
    fg = written(rows(1, 2))
    files = sorted(path for path in home.glob("offline/**/*") if path.is_file())
    frame, message = WRONG[what]
    for mode in MODES:
        with pytest.raises(DataError, match=message):
            write(fg, frame, mode=mode)
    assert snapshots(fg) == 1
    assert fg.version == 1
    assert stored(fg) == [(NOON, 1), (NOON + HOUR, 2)]
    assert sorted(path for path in home.glob("offline/**/*") if path.is_file()) == files


@pytest.mark.of_files
def test_wrong_input_of_a_new_group_leaves_no_trace(home):
    fg = group()
    for what in ("no event time", "null event time"):
        frame, message = WRONG[what]
        with pytest.raises(DataError, match=message):
            write(fg, frame)
    assert FeatureStore().core.registry.groups() == []
    assert list(home.glob("offline/*/*")) == []


def test_a_group_without_event_time_cannot_be_written():
    fg = group()
    fg.materialization = Materialization()
    with pytest.raises(DefinitionError, match="event_time_col"):
        write(fg, rows(1))


WRITER = """
import sys, datetime, pyarrow as pa
from seeknal import Entity, FeatureGroupDuckDB, Materialization
who, mode = int(sys.argv[1]), sys.argv[2]
fg = FeatureGroupDuckDB("spend", Entity("spend_entity", ["user_id"]), Materialization(event_time_col="at"), "shop")
for i in range(4):
    at = datetime.datetime(2024, 1, 1 + who, i)
    frame = pa.table({"user_id": [who] * 3, "at": [at, at + datetime.timedelta(minutes=1), at], "x": [i, i, i + 100]})
    span = (at, at + datetime.timedelta(minutes=1)) if mode == "overwrite" else ()
    fg.set_dataframe(frame).set_features().write(*span, mode=mode)
"""


@pytest.mark.slow
def test_processes_that_write_at_once_in_every_mode_lose_nothing():
    """The writers start with a group that does not exist yet."""
    modes = enumerate(["append", "overwrite", "merge"])
    for process in [python(WRITER, str(who), mode) for who, mode in modes]:
        finished(process)
    fg = group()
    found = history(fg)
    assert found["user_id"].to_pylist() == [0] * 8 + [1] * 8 + [2] * 8
    assert found["x"].to_pylist() == [i + more for _ in range(3) for i in range(4) for more in (100, 0)]
    assert snapshots(fg) == 12
    assert fg.version == 1


KILLED = """
import sys, datetime, pyarrow as pa
from seeknal import Entity, FeatureGroupDuckDB, Materialization
fg = FeatureGroupDuckDB("spend", Entity("spend_entity", ["user_id"]), Materialization(event_time_col="at"), "shop")
at = datetime.datetime(2024, 1, 1, 12)
for i in range(1, 10_000):
    frame = pa.table({"user_id": list(range(500)), "at": [at] * 500, "x": [i] * 500})
    fg.set_dataframe(frame).set_features().write()
    print(i, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_writes_and_no_lock():
    process = python(KILLED)
    assert process.stdout.readline() == "1\n"
    time.sleep(0.013)
    process.kill()
    last = int((process.communicate()[0].splitlines() or ["1"])[-1])
    fg = group()
    found = history(fg)["x"].to_pylist()
    assert len(found) == 500
    assert set(found) in ({last}, {last + 1})
    with pytest.warns(SeeknalWarning, match="An overwrite replaced 500 rows of shop/spend by 1 row"):
        write(fg, rows(7))
    assert stored(fg) == [(NOON, 7)]
    assert snapshots(fg) in (last + 1, last + 2)


FULL = """
import datetime, random, resource, pyarrow as pa
from seeknal import Entity, FeatureGroupDuckDB, Materialization, StoreError
fg = FeatureGroupDuckDB("spend", Entity("spend_entity", ["user_id"]), Materialization(event_time_col="at"), "shop")
at, count = datetime.datetime(2024, 1, 1, 12), 100_000
values = [random.getrandbits(62) for _ in range(count)]
frame = pa.table({"user_id": list(range(count)), "at": [at] * count, "x": values})
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    fg.set_dataframe(frame).set_features().write()
except StoreError as error:
    print("refused")
"""


@pytest.mark.of_files
def test_a_disk_that_is_full_stores_nothing_and_says_so(home):
    fg = written(rows(1))
    files = sorted((home / "offline").glob("**/*.parquet"))
    assert finished(python(FULL)) == "refused\n"
    assert (snapshots(fg), stored(fg)) == (1, [(NOON, 1)])
    assert sorted((home / "offline").glob("**/*.parquet")) == files


def test_threads_that_share_a_store_get_their_own_answers_and_lose_no_writes(store):
    definition = written(rows(0, user=-1)).definition
    answers = {}

    def work(who: int) -> None:
        for i in range(4):
            moment = NOON + i * HOUR
            store.groups.write(definition, rows(i, user=who, times=[moment]), mode="append")
            spine = pa.table({"user_id": [who], "at": [moment]})
            answers[who, i] = store.features.training_set([FeatureLookup("spend")], spine, "at")["x"].to_pylist()

    threads = [threading.Thread(target=work, args=[who]) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {(who, i): [i] for who in range(4) for i in range(4)}
    assert store.groups.versions("spend")[0].rows == 17


def test_readers_see_the_old_or_the_new_and_never_a_mix():
    fg = written(rows(*[0] * 50))
    stop, seen_values = threading.Event(), set()

    def read() -> None:
        store = FeatureStore()
        while not stop.is_set():
            found = store.features.history([FeatureLookup("shop/spend")], output="arrow")["x"].to_pylist()
            seen_values.add((len(found), len(set(found))))

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 15):
        write(fg, rows(*[value] * 50))
    stop.set()
    reader.join()
    assert seen_values == {(50, 1)}
