"""A push is a write and a load under the same rules: offline and online in one call, and however often it comes, once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from seeknal import (
    DataError,
    DefinitionError,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
)
from seeknal.load.loading import Ask, Loader, Target
from seeknal.online import DEFAULT, LmdbStore
from seeknal.registry.catalog import Catalog
from seeknal.values.times import Interval
from seeknal.write import push
from servers import Valkey

from .world import HOUR, MICROSECOND, NOON, finished, group, history, python, rows, seen, snapshots, write, written

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.slow


def online(fg, *users, **options):
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(**options)
    return [row["x"] for row in table.get_features([{"user_id": user} for user in users], "dicts")]


def test_a_pushed_row_is_online_and_offline_at_once():
    fg = written(rows(1))
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    pushed = fg.push({"user_id": 2, "at": NOON + HOUR, "x": 5})
    assert (pushed.rows, pushed.known, pushed.online) == (1, 0, 2)
    assert table.get_features([{"user_id": 2}], "dicts") == [{"user_id": 2, "x": 5}]
    assert seen(fg, NOON, NOON + HOUR, user=2) == [None, 5]
    assert table.verify().equal


def test_rows_come_as_a_mapping_a_list_or_any_frame():
    fg = written(rows(1))
    frame = {"user_id": [7], "at": [NOON], "x": [3]}
    for i, given in enumerate([{"user_id": 7, "at": NOON, "x": 3}, [{"user_id": 7, "at": "2024-01-01T12:00", "x": 3}],
                               pa.table(frame), pd.DataFrame(frame)]):  # fmt: skip
        pushed = fg.push(given)
        assert (pushed.rows, pushed.known) == ((1, 0) if i == 0 else (0, 1))


def test_an_older_event_is_kept_offline_and_never_wins_online():
    fg = written(rows(9, times=[NOON + HOUR]))
    fg.push({"user_id": 1, "at": NOON, "x": 1})
    assert online(fg, 1) == [9]
    assert seen(fg, NOON, NOON + HOUR) == [1, 9]


def test_a_replay_changes_nothing_even_after_a_correction():
    fg = written(rows(0))
    first, corrected = ({"user_id": 1, "at": NOON + HOUR, "x": x} for x in (1, 2))
    fg.push(first)
    fg.push(corrected)
    before = snapshots(fg)
    again = fg.push([first, corrected, first])
    assert (again.rows, again.known, snapshots(fg)) == (0, 3, before)
    assert online(fg, 1) == [2]
    assert len(history(fg)) == 2


def test_a_merge_of_another_entity_leaves_what_a_replay_has_to_find():
    fg = written(rows(0))
    first, corrected = ({"user_id": 1, "at": NOON + HOUR, "x": x} for x in (1, 2))
    fg.push(first)
    fg.push(corrected)
    merged = write(fg, pa.table({"user_id": [2], "at": [NOON + HOUR], "x": [5]}), mode="merge")
    assert merged.replaced == 0
    assert fg.push(first).known == 1
    assert online(fg, 1, 2) == [2, 5]


def test_what_a_merge_replaced_counts_as_new_when_it_comes_again_unless_a_created_time_settles_it():
    for created, expected in ((None, 1), ("made", 2)):
        columns = {} if created is None else {"created_time_col": created}
        fg = written(rows(0, made=[NOON]), name=f"g_{created}", **columns)
        first, corrected = ({"user_id": 1, "at": NOON + HOUR, "x": x, "made": NOON + x * HOUR} for x in (1, 2))
        fg.push(first)
        assert write(fg, pd.DataFrame([corrected]), mode="merge").replaced == 1
        assert fg.push(first).rows == 1
        assert online(fg, 1) == [expected]


def test_rows_that_are_equal_within_one_push_are_stored_once():
    fg = written(rows(0, y=[[1.0, None]]))
    pushed = fg.push([{"user_id": 2, "at": NOON, "x": None, "y": [float("nan"), None]}] * 3)
    assert (pushed.rows, pushed.known) == (1, 2)
    assert fg.push({"user_id": 2, "at": NOON, "x": None, "y": [float("nan"), None]}).rows == 0


def test_the_greatest_created_time_wins_a_push_too():
    fg = written(rows(1, made=[NOON + HOUR]), created_time_col="made")
    fg.push({"user_id": 1, "at": NOON, "x": 2, "made": NOON})
    assert online(fg, 1) == [1]
    fg.push({"user_id": 1, "at": NOON, "x": 3, "made": NOON + 2 * HOUR})
    assert online(fg, 1) == [3]


def test_a_row_of_the_future_shows_when_its_time_has_come():
    fg = written(rows(1))
    table = FeatureStore().tables.serve([FeatureLookup(fg)])
    soon = datetime.now(UTC) + timedelta(hours=1)
    fg.push({"user_id": 1, "at": soon, "x": 2})
    moments = [int((soon + timedelta(microseconds=i)).timestamp() * 1e6) for i in (-1_000_000, 1_000_000)]
    assert [table.get_features([{"user_id": 1}], "dicts", at=at)[0]["x"] for at in moments] == [1, 2]


def test_what_was_erased_stays_erased():
    fg = written(rows(1, 2))
    event = {"user_id": 1, "at": NOON, "x": 1}
    FeatureStore().groups.erase("spend", {"user_id": 1})
    pushed = fg.push([event, {"user_id": 2, "at": NOON, "x": 7}])
    assert (pushed.rows, pushed.erased) == (1, 1)
    assert online(fg, 1, 2) == [None, 7]
    assert 1 not in history(fg)["user_id"].to_pylist()
    later = datetime.now(UTC) + timedelta(microseconds=1)
    fg.push({"user_id": 1, "at": later, "x": 5})  # who comes back begins anew
    assert seen(fg, datetime.now(UTC) + HOUR) == [5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"user_id": 1, "at": NOON}, "lacks 'x'"),
        ({"user_id": 1, "at": NOON, "x": 1, "z": 2}, "has 'z'"),
        ({"user_id": "1", "at": NOON, "x": 1}, "user_id is int64"),
        ({"user_id": 1, "at": NOON, "x": "a"}, "x is int64"),
        ({"user_id": 1, "at": NOON, "x": 5.9}, "x is int64"),
        ([{"user_id": 1, "at": NOON, "x": 7}, {"user_id": 1, "at": NOON, "x": 7.9}], "x is int64"),
        ({"user_id": 1, "at": NOON, "x": True}, "x is int64"),
        ({"user_id": None, "at": NOON, "x": 1}, "without 'user_id'"),
        (pa.table({"user_id": pa.array([None], pa.int64()), "at": [NOON], "x": [1]}), "without 'user_id'"),
        ({"user_id": 1, "at": None, "x": 1}, "no 'at'"),
        ({"user_id": 1, "at": "noon", "x": 1}, "noon"),
        ([1], "1 is not a row"),
        (pa.table({"user_id": [1], "at": [NOON], "x": [0.5]}), "no new version"),
        (pa.table({"user_id": [1], "at": [NOON]}), "lacks 'x'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_stored(given, message):
    fg = written(rows(1))
    before = snapshots(fg)
    with pytest.raises(DataError, match=message):
        fg.push(given)
    assert snapshots(fg) == before


def test_a_group_that_has_no_version_cannot_be_pushed_to():
    with pytest.raises(DefinitionError, match="No feature group"):
        group().push({"user_id": 1, "at": NOON, "x": 1})
    fg = group().get_or_create()
    with pytest.raises(DefinitionError, match="Call write"):
        fg.push({"user_id": 1, "at": NOON, "x": 1})


def test_a_push_that_cannot_be_loaded_says_that_it_is_stored_and_a_retry_loads_it(tmp_path, monkeypatch):
    server = Valkey(tmp_path / "valkey").start()
    try:
        monkeypatch.setenv("SEEKNAL_ONLINE_STORE", server.url)
        fg = written(rows(1))
        table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
        server.kill()
        event = {"user_id": 2, "at": NOON, "x": 2}
        with pytest.raises(StoreError, match=r"stored offline, in snapshot 2, but not online: .* could not be"):
            fg.push(event)
        server.start()
        pushed = fg.push(event)
        assert (pushed.rows, pushed.known, pushed.online) == (0, 1, 2)
        assert table.verify().equal
    finally:
        server.stop()


def test_a_push_of_no_rows_is_no_error():
    fg = written(rows(1))
    assert fg.push([]).rows == 0
    assert online(fg, 1) == [1]


def test_values_of_every_kind_are_pushed_exactly():
    frame = rows(
        1, d=pa.array([Decimal("1.10")]), big=pa.array([2**53 + 1]), e=pa.array([[0.1, 0.2]], pa.list_(pa.float32(), 2))
    )
    fg = written(frame)
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    fg.push({"user_id": 2, "at": NOON, "x": None, "d": Decimal("2.05"), "big": 2**62 + 1, "e": [0.3, float("nan")]})
    found = table.get_features([{"user_id": 2}], "arrow")
    assert found.schema.field("e").type == pa.list_(pa.float32(), 2)
    assert found.select(["x", "d", "big"]).to_pylist() == [{"x": None, "d": Decimal("2.05"), "big": 2**62 + 1}]
    assert table.verify().equal


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.time64("us"), time(12, tzinfo=UTC)),
        (pa.time32("s"), time(12, 0, 0, 500_000)),
        (pa.duration("s"), timedelta(seconds=1.5)),
        (pa.timestamp("s"), datetime(2024, 1, 1, 0, 0, 0, 5)),
        (pa.date32(), datetime(2024, 6, 1, 13)),
        (pa.list_(pa.int64()), [1.5]),
        (pa.list_(pa.int64()), [True]),
        (pa.list_(pa.string()), ["a", 1]),
        (pa.list_(pa.string()), "ab"),
        (pa.struct({"a": pa.int64()}), {"a": 1.5}),
        (pa.float32(), 1e39),
        (pa.float16(), 70000.0),
        (pa.uint64(), 2**64),
        (pa.uint64(), -1),
    ],
    ids=str,
)
def test_a_value_is_refused_rather_than_changed(kind, value):
    fg = written(pa.table({"user_id": [1], "at": [NOON], "x": pa.array([None], kind)}))
    with pytest.raises(DataError, match="does not fit"):
        fg.push({"user_id": 2, "at": NOON, "x": value})
    assert snapshots(fg) == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [(pa.uint64(), 2**64 - 1), (pa.date32(), datetime(2024, 6, 1)), (pa.float32(), float("inf")), (pa.time32("s"), time(12))],
    ids=str,
)  # fmt: skip
def test_a_value_that_fits_is_pushed(kind, value):
    fg = written(pa.table({"user_id": [1], "at": [NOON], "x": pa.array([None], kind)}))
    fg.push({"user_id": 2, "at": NOON, "x": value})
    found = history(fg)["x"].to_pylist()[-1]
    assert found == (value.date() if isinstance(value, datetime) else value)


def test_an_event_of_pandas_that_is_finer_than_a_microsecond_is_rounded_up():
    fg = written(rows(1))
    fg.push({"user_id": 1, "at": pd.Timestamp(NOON) + pd.Timedelta(hours=1, nanoseconds=1), "x": 2})
    assert seen(fg, NOON + HOUR, NOON + HOUR + MICROSECOND) == [1, 2]


def test_a_field_that_a_struct_does_not_have_is_refused():
    kind = pa.list_(pa.struct({"a": pa.int64()}))
    fg = written(pa.table({"user_id": [1], "at": [NOON], "x": pa.array([[{"a": 0}]], kind)}))
    row = {"user_id": 1, "at": NOON + HOUR, "x": [{"a": 1}]}
    with pytest.raises(DataError, match=r"x is .* has a field 'b', which .* does not have"):
        fg.push(row | {"x": [{"a": 1, "b": 2}]})
    assert fg.push(row).rows == 1


def test_pushes_of_many_threads_and_processes_all_arrive():
    fg = written(rows(0, user=0))
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    code = """
import sys
from datetime import datetime
from seeknal import FeatureGroupDuckDB
fg = FeatureGroupDuckDB("spend", project="shop")
for i in range(5):
    fg.push({"user_id": 100 + int(sys.argv[1]) * 5 + i, "at": datetime(2024, 1, 1), "x": i})
"""
    processes = [python(code, str(i)) for i in range(2)]
    threads = [threading.Thread(target=fg.push, args=({"user_id": i, "at": NOON, "x": i},)) for i in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        finished(process)
    users = [*range(1, 6), *range(100, 110)]
    found = [row["x"] for row in table.get_features([{"user_id": user} for user in users], "dicts")]
    assert found == [1, 2, 3, 4, 5, *range(5), *range(5)]
    assert table.verify().equal


class Interrupted(LmdbStore):
    """A store that replaces all rows on each load, and calls a function between the read and the last step."""

    most_changes = -1

    def __init__(self, folder, happen):
        super().__init__(folder)
        self._happen = happen

    def replace(self, space, rounds):
        def interrupted():
            for one in rounds:
                self._happen()
                yield one

        return super().replace(space, interrupted())


def replacing(online: LmdbStore) -> Target:
    """The online stores of a home, with another store in place of the one that it opens."""
    return Target((DEFAULT,), "home", None, online, DEFAULT.__eq__, str, lambda state: None)


def test_a_push_during_a_load_that_replaces_everything_is_not_lost(home):
    fg = written(rows(1))
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    write(fg, rows(7, user=5), mode="append")
    pushes = iter([1, 2])

    def push() -> None:
        if hour := next(pushes, None):
            fg.push({"user_id": 1, "at": NOON + hour * HOUR, "x": 10 + hour})

    store = FeatureStore()
    target = replacing(Interrupted(home / "online", push))
    loaded = Loader(store.core.catalog, store.core.engine()).load(store.core.catalog.state("spend"), 1, target, Ask())
    assert (list(pushes), loaded.online) == ([], 2)
    assert table.get_features([{"user_id": 1}, {"user_id": 5}], "dicts") == [
        {"user_id": 1, "x": 12},
        {"user_id": 5, "x": 7},
    ]
    assert table.verify().equal


def test_files_stay_as_long_as_a_load_reads_them(home):
    fg = written(rows(1))
    write(fg, rows(7, user=5), mode="append")
    optimized = threading.Thread(target=lambda: FeatureStore(home).groups.optimize(fg.name, keep_days=0))

    def optimize() -> None:
        if optimized.ident is None:
            optimized.start()
            optimized.join(timeout=3)  # it waits for the load

    store = FeatureStore()
    target = replacing(Interrupted(home / "online", optimize))
    loaded = Loader(store.core.catalog, store.core.engine()).load(store.core.catalog.state(fg.name), 1, target, Ask())
    optimized.join()
    assert loaded.online == 2
    root = store.core.catalog.offline(fg.project, fg.name).root
    assert len([path for path in root.iterdir() if path.name.endswith(".parquet")]) == 1


class Overtaken(LmdbStore):
    """A store that replaces all rows on each load, and calls a function whenever its state is read."""

    most_changes = -1

    def __init__(self, folder, happen):
        super().__init__(folder)
        self._happen = happen

    def get(self, space, keys):
        self._happen()
        return super().get(space, keys)


def test_a_load_that_lost_the_race_never_restores_older_rows(home):
    fg = written(rows(1))
    table = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve()
    pushes = iter(range(1, 4))

    def push() -> None:
        if hour := next(pushes, None):
            fg.push({"user_id": 1, "at": NOON + hour * HOUR, "x": 10 + hour})

    store = FeatureStore()
    target = replacing(Overtaken(home / "online", push))
    Loader(store.core.catalog, store.core.engine()).load(store.core.catalog.state("spend"), 1, target, Ask())
    newest = max(seen(fg, NOON + 9 * HOUR))
    assert newest >= 11
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": newest}]
    assert table.verify().equal


def test_a_push_that_stores_nothing_loads_nothing():
    fg = written(pa.table({"user_id": [1, 2], "at": [NOON, NOON + HOUR], "x": [1, 2]}))
    store = FeatureStore()
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, None))
    assert fg.push([]).online is None
    store.groups.load("spend", interval=Interval.between(NOON + HOUR, None))
    assert [row["x"] for row in store.tables.open("spend").get_features([{"user_id": 1}, {"user_id": 2}], "dicts")] == [
        None,
        2,
    ]


def test_many_loads_leave_few_records():
    fg = written(rows(0))
    for i in range(60):
        fg.push({"user_id": 1, "at": NOON + i * MICROSECOND, "x": i})
    store = FeatureStore()
    assert len(store.groups.loads("spend")) <= 52
    assert store.groups.load_statuses("spend")[0].holes == []


class Busy(Catalog):
    """A catalog that calls a function after a group was looked up."""

    def __init__(self, store, happen):
        super().__init__(store.core.storage, store.core.registry, store.core.open_table, lambda group, schema: None)
        self._happen = happen

    def state_of(self, record, since=None):
        found = super().state_of(record, since)
        self._happen()
        return found


def test_a_push_that_is_overtaken_by_a_new_version_does_not_bring_the_old_one_back():
    fg = written(rows(1))
    store = FeatureStore()
    writes = iter([rows(2, y=["b"])])

    def new_version() -> None:
        if (frame := next(writes, None)) is not None:
            with pytest.warns(SeeknalWarning, match="version 2"):
                write(fg, frame, mode="append")

    catalog = Busy(store, new_version)
    with pytest.raises(DataError, match="lacks 'y'"):
        push.push(catalog, store.core.catalog.group("spend"), [{"user_id": 2, "at": NOON, "x": 5}])
    assert [(one.number, one.is_current) for one in store.groups.versions("spend")] == [(1, False), (2, True)]


def test_what_is_pushed_is_loaded_from_its_event_time_on():
    fg = written(pa.table({"user_id": [1, 2, 3], "at": [NOON, NOON + HOUR, NOON + 2 * HOUR], "x": [1, 2, 3]}))
    fg.push({"user_id": 4, "at": NOON + HOUR, "x": 4})
    found = FeatureStore().tables.open("spend").get_features([{"user_id": i} for i in (1, 2, 3, 4)], "dicts")
    assert [row["x"] for row in found] == [None, 2, 3, 4]
