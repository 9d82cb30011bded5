"""Edge cases of the contract that drawn examples rarely reach; `scripts/break_the_rest.py` breaks each of them to see these tests fail."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
from seeknal.home.backup import backup, restore
from seeknal.join.inquiry import Inquiry
from seeknal.join.training_sets import TrainingSets
from seeknal.offline import table
from seeknal.offline.log import read_snapshot
from seeknal.online import Entries, LmdbStore, LoadAttempt, RedisStore, State
from seeknal.registry import tokens
from seeknal.registry.catalog import Catalog
from seeknal.server.bodies import read_arrow
from seeknal.values.content_hash import content_hash
from seeknal.values.times import Interval, instant, moment_of, now

from .world import HOUR, MICROSECOND, NOON, group, history, rows, write, written

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


def ago(interval: timedelta) -> datetime:
    return datetime.now(UTC) - interval


def answers(store: FeatureStore, table: str, *users: object) -> list[object]:
    found = store.tables.open(table).get_features([{"user_id": user} for user in users], "dicts")
    return [row["x"] for row in found]


# Online


def test_a_store_that_forgets_keeps_rows_as_long_as_the_table_with_the_longest_ttl_needs_them(valkey_url):
    store = FeatureStore(online_store=valkey_url)
    lookup = FeatureLookup(written(rows(1, times=[ago(timedelta(days=3))]), ttl=HOUR))
    store.tables.serve([lookup], "long", ttl=timedelta(days=30))
    assert answers(store, "long", 1) == [1]


def test_a_table_with_a_longer_ttl_brings_back_rows_that_the_store_has_forgotten(valkey_url):
    store = FeatureStore(online_store=valkey_url)
    lookup = FeatureLookup(written(rows(1, times=[ago(timedelta(days=3))]), ttl=HOUR))
    store.groups.load("spend")
    assert answers(store, "spend", 1) == [None]
    store.tables.serve([lookup], "long", ttl=timedelta(days=30))
    assert answers(store, "long", 1) == [1]


def test_a_load_refreshes_a_version_in_every_store_that_has_it(tmp_path):
    store, fg = FeatureStore(), written(rows(1))
    places = [None, tmp_path / "a", tmp_path / "b"]
    for number, place in enumerate(places):
        store.tables.serve([FeatureLookup(fg)], f"table{number}", target=place)
    write(fg, rows(2, times=[NOON + HOUR]), mode="append")
    store.groups.load("spend")
    assert [answers(store, f"table{number}", 1) for number in range(len(places))] == [[2]] * 3


def test_rows_that_another_table_uses_stay_when_a_table_is_deleted():
    store, fg = FeatureStore(), written(rows(1))
    for name in ("one", "other"):
        store.tables.serve([FeatureLookup(fg)], name)
    store.tables.delete("one")
    assert answers(store, "other", 1) == [1]


class Overtaken(RedisStore):
    """A store that reads few keys at once, and that another load changes after the first few."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._real = RedisStore(url)
        self._replaced = False

    @property
    def _client(self):
        return self

    def mget(self, names):
        found = self._real._client.mget(names)  # noqa: SLF001 - its own
        if not self._replaced:
            self._replaced = True
            self._real.replace(
                "shop/spend/1", [LoadAttempt([Entries([b"1", b"2"], [b"new", b"new"], None)], b"s", b"t")]
            )
        return found

    def get(self, space, *keys):
        return super().get(space, *keys) if keys else self._real._client.get(space)  # noqa: SLF001 - its own


def test_a_lookup_in_several_reads_sees_one_load(valkey_url, monkeypatch):
    monkeypatch.setattr("seeknal.online.redis._AT_ONCE", 1)
    store = Overtaken(valkey_url)
    RedisStore(valkey_url).replace(
        "shop/spend/1", [LoadAttempt([Entries([b"1", b"2"], [b"old", b"old"], None)], None, b"s")]
    )
    assert store.get("shop/spend/1", [b"1", b"2"]) == (b"t", [b"new", b"new"])


def test_freshness_counts_events_up_to_the_end_of_the_requested_interval():
    fg = written(rows(1))
    for hour in (1, 2):
        write(fg, rows(hour, times=[NOON + hour * HOUR]), mode="append")
    for end, newest in ((HOUR, HOUR), (HOUR - MICROSECOND, timedelta(0)), (2 * HOUR, 2 * HOUR)):
        store = FeatureStore()
        store.groups.load("spend", interval=Interval.between(NOON, NOON + end))
        found = store.tables.freshness(store.tables.get("spend"), now())
        assert (found.newest, found.is_behind) == (instant(NOON + newest), False)
        store.tables.delete("spend")


def newest_of(store: FeatureStore, at: datetime | None = None) -> int | None:
    moment = now() if at is None else instant(at)
    return store.tables.freshness(store.tables.get("spend"), moment).newest


def users(times: dict[int | None, datetime]) -> pa.Table:
    """Return a row of each user, at one moment."""
    return pa.table({"user_id": pa.array(times, pa.int64()), "at": list(times.values()), "x": [1] * len(times)})


def test_freshness_counts_only_the_rows_that_the_table_serves():
    fg, store = written(users({1: NOON, 2: NOON + HOUR, None: NOON + 5 * HOUR})), FeatureStore()
    store.groups.load("spend")
    assert newest_of(store) == instant(NOON + HOUR)
    write(fg, users({3: NOON + 2 * HOUR, None: NOON + 6 * HOUR}), mode="append")
    store.groups.load("spend")
    assert newest_of(store) == instant(NOON + 2 * HOUR)
    store.groups.erase("spend", {"user_id": 3})
    assert newest_of(store) == instant(NOON + HOUR)
    write(fg, users({1: NOON - HOUR}))
    store.groups.load("spend")
    assert newest_of(store) == instant(NOON - HOUR)
    write(fg, users({1: NOON})[:0])
    store.groups.load("spend")
    assert newest_of(store) is None


def test_freshness_advances_when_rows_loaded_ahead_of_their_time_become_visible():
    written(users({1: datetime.now(UTC) - HOUR, 2: (ahead := datetime.now(UTC) + HOUR)}))
    store = FeatureStore()
    store.groups.load("spend")
    assert newest_of(store, ahead - MICROSECOND) < instant(datetime.now(UTC))
    assert [newest_of(store, ahead + late) for late in (timedelta(0), HOUR)] == [instant(ahead)] * 2


def test_freshness_of_a_table_that_an_earlier_release_loaded():
    fg, store = written(users({1: NOON, 2: NOON + HOUR})), FeatureStore()
    store.groups.load("spend")
    online, space = LmdbStore(store.home / "online"), "shop/spend/1"
    text, _ = online.get(space, [])
    online.change(space, text, replace(State.loads(text), events=None).dumps(), Entries([], []))
    assert newest_of(store) == instant(NOON + HOUR)
    write(fg, users({1: NOON - HOUR}))
    store.groups.optimize("spend", keep_days=0)
    assert newest_of(store) == instant(NOON + HOUR), (
        "from the rows online, since those that they were made from are gone"
    )
    store.groups.load("spend")
    assert newest_of(store) == instant(NOON - HOUR)


def test_a_table_whose_rows_have_all_expired_is_stale():
    written(rows(1, times=[ago(2 * HOUR)]), ttl=HOUR)
    store = FeatureStore()
    store.groups.load("spend")
    found = store.tables.freshness(store.tables.get("spend"), now())
    assert found.is_stale(now(), 3 * HOUR)
    assert answers(store, "spend", 1) == [None]


# Pushes and erasures


def test_events_at_the_moment_of_an_erasure_are_erased_and_later_ones_are_not():
    fg, store = written(rows(1, 2)), FeatureStore()
    store.groups.erase("spend", {"user_id": 1})
    (erased,) = store.core.registry.erasures(store.core.catalog.group("spend")).values()
    at = moment_of(erased)
    assert (fg.push({"user_id": 1, "at": at, "x": 3}).erased, len(history(fg))) == (1, 0)
    assert (fg.push({"user_id": 1, "at": at + MICROSECOND, "x": 4}).erased, len(history(fg))) == (0, 1)


class Saving(TrainingSets):
    """Training sets; during an erasure, another caller saves one with the entity."""

    happen = None

    def snapshots(self, record):
        happen, self.happen = self.happen, None
        if happen:
            happen()
        return super().snapshots(record)


def test_a_training_set_that_is_saved_during_an_erasure_is_erased_with_the_rest():
    fg = written(rows("secret", user=1))
    write(fg, rows("other", user=2), mode="append")
    store, other = FeatureStore(), FeatureStore()
    saving = Saving(store.core.catalog, store.core.engine)
    saving.happen = lambda: other.training_sets.save("late", Inquiry([FeatureLookup(fg)]), keep_rows=True)
    store.core.__dict__["training_sets"] = saving
    assert store.groups.erase("spend", {"user_id": 1}).training_sets == ("shop/late",)
    assert store.core.registry.training_sets() == []
    assert not [file for file in store.home.rglob("*.parquet") if b"secret" in file.read_bytes()]


# Writes
@pytest.mark.of_files
def test_a_commit_is_never_dated_before_the_one_it_follows():
    fg, store = written(rows(1)), FeatureStore()
    record = store.core.catalog.group("spend")
    entry = store.core.catalog.offline("shop", "spend").root / "_delta_log" / f"{1:020}.json"
    ahead = now() + 3_600_000_000  # by a machine whose clock is an hour ahead
    told = json.loads(
        json.loads(next(line for line in entry.read_text().splitlines() if "commitInfo" in line))["commitInfo"][
            "seeknal"
        ]
    )
    entry.write_text(re.sub(rf'\\"at\\": ?{told["at"]}\b', f'\\\\"at\\\\": {ahead}', entry.read_text()))
    write(fg, rows(2, times=[NOON + HOUR]), mode="append")
    assert read_snapshot(entry.parent.parent, 1).commit.at == ahead
    assert store.core.registry.snapshots(record)[-1].at == ahead


class Racing(Catalog):
    """A catalog in which another caller creates the group just before it is registered."""

    happen = None

    def register(self, definition, known):
        happen, self.happen = self.happen, None
        if happen:
            happen()
        return super().register(definition, known)


def test_a_version_that_another_writer_makes_meanwhile_keeps_its_number():
    class Late(Catalog):
        """A catalog in which another writer commits just after the group was read."""

        def known_state(self, group):
            found = super().known_state(group)
            if happen := list(others):
                others.clear()
                happen[0]()
            return found

    store, others = FeatureStore(), []
    write(group(), rows(1))
    store.core.__dict__["catalog"] = Late(store.core.storage, store.core.registry, store.core.open_table)
    others.append(lambda: write(group(), rows(2).append_column("y", pa.array([2]))))
    done = store.groups.write(group().definition, rows(3).append_column("z", pa.array([3])))
    assert (done.version, [version.number for version in store.groups.versions("spend")]) == (3, [1, 2, 3])


@pytest.mark.parametrize("late", [rows(2, user=2), rows("text", user=2)], ids=["the same schema", "another"])
def test_of_two_concurrent_first_writes_the_second_sees_the_first(late):
    store = FeatureStore()
    racing = Racing(store.core.storage, store.core.registry, store.core.open_table)
    racing.happen = lambda: write(group(), rows(1))
    store.core.__dict__["catalog"] = racing
    if late["x"].type == pa.int64():
        done = store.groups.write(group().definition, late, mode="append")
        assert (done.version, done.snapshot, done.changes) == (1, 2, ())
    else:
        with pytest.raises(DataError, match="'x' of group 'spend' is int64 and cannot become string"):
            store.groups.write(group().definition, late, mode="append")
    assert history(group())["user_id"].to_pylist() == [1, *([2] if late["x"].type == pa.int64() else [])]
    assert [one.number for one in store.groups.versions("spend")] == [1]


@pytest.mark.of_files
def test_a_group_whose_deletion_was_killed_starts_anew_with_the_next_write(home, tmp_path):
    fg = written(rows(1))
    for number in (2, 3):
        write(fg, rows(number, times=[NOON + number * HOUR], y=[number]), mode="append")
    (home / "offline/shop/spend").rename(tmp_path / "trash")
    write(fg, rows(9))
    store = FeatureStore()
    assert history(fg)["x"].to_pylist() == [9]
    assert [(one.number, one.rows) for one in store.groups.versions("spend")] == [(1, 1)]
    assert [one.number for one in store.core.registry.snapshots(store.core.catalog.group("spend"))] == [1]


@pytest.mark.of_files
def test_a_file_whose_last_time_was_cut_to_milliseconds_keeps_its_last_row(home):
    """As some programs write statistics: what they say is the last moment may be almost a millisecond too early."""
    cut = NOON + timedelta(milliseconds=123)
    fg = written(rows(1, times=[cut + 456 * MICROSECOND]))
    entry = home / "offline/shop/spend/_delta_log" / f"{1:020}.json"
    assert ".123456Z" in entry.read_text()
    entry.write_text(entry.read_text().replace(".123456Z", ".123Z"))
    FeatureStore().groups.write(fg.definition, rows(2, times=[NOON]), interval=Interval.between(NOON, cut))
    assert sorted(history(fg)["x"].to_pylist()) == [1, 2]


def test_a_write_that_lost_the_race_leaves_no_file_of_its_first_attempt(monkeypatch):
    fg, store, commit = written(rows(1)), FeatureStore(), table.commit_files

    def overtaken(*arguments):
        monkeypatch.setattr(table, "commit_files", commit)
        write(fg, rows(2, user=2), mode="append")
        return commit(*arguments)

    monkeypatch.setattr(table, "commit_files", overtaken)
    assert write(fg, rows(3, user=3), mode="append").snapshot == 3
    assert history(fg)["x"].to_pylist() == [1, 2, 3]
    assert store.core.catalog.offline("shop", "spend").orphans() == []


def test_a_write_warns_only_if_it_reaches_further_back_than_lookback_days(recwarn):
    fg = group()
    store = FeatureStore(lookback_days=30)

    def told(days: timedelta) -> list[str]:
        recwarn.clear()
        store.groups.write(fg.definition, rows(1), interval=Interval.between(NOON - days, NOON))
        return [str(one.message) for one in recwarn if "The interval starts on" in str(one.message)]

    with pytest.warns(SeeknalWarning, match="31 days before the first of these rows .*set lookback_days .now 30."):
        store.groups.write(fg.definition, rows(1), interval=Interval.between(NOON - timedelta(days=31), NOON))
    assert told(timedelta(days=30)) == []
    assert len(told(timedelta(days=30) + MICROSECOND)) == 1


def test_a_version_created_after_a_rollback_has_a_new_number():
    fg = written(rows(1))
    write(fg, rows(1, y=[1]))
    fg.rollback(to=1)
    assert write(fg, rows(1, z=[1])).version == 3
    assert [(one.number, one.is_current) for one in FeatureStore().groups.versions("spend")] == [
        (1, False),
        (2, False),
        (3, True),
    ]


def test_days_that_are_kept_can_be_read_after_a_vacuum_and_others_cannot():
    fg = written(rows(1))
    for number in (2, 3):
        write(fg, rows(number))
    store = FeatureStore()
    assert store.groups.optimize("spend", keep_days=1).removed == 0
    assert history(fg, as_of=1)["x"].to_pylist() == [1]
    assert store.groups.optimize("spend", keep_days=0).removed == 2
    with pytest.raises(StoreError, match="Snapshot 1 of shop/spend is gone"):
        history(fg, as_of=1)


def test_a_training_set_comes_back_after_a_vacuum_though_nothing_else_needs_its_rows():
    fg, store = written(rows(1)), FeatureStore()
    store.training_sets.save("kept", Inquiry([FeatureLookup(fg)]))
    for number in (2, 3):
        write(fg, rows(number))
    assert store.groups.optimize("spend", keep_days=0).removed == 1
    assert store.training_sets.reproduce(store.core.catalog.training_set("kept"))["x"].to_pylist() == [1]


# Joins


def test_rows_that_do_not_fit_in_memory_are_joined_in_as_many_passes_as_they_need():
    engine = FeatureStore(memory_limit="64MB").core.engine()
    schema = FeatureStore().core.catalog.version(FeatureStore().core.catalog.group(written(rows(1)).name)).schema
    few, some, many = (engine._passes(schema, rows) for rows in (1, 4_000_000, 40_000_000))  # noqa: SLF001 - no other sign
    assert few == 1
    assert 8 <= some <= 12
    assert 80 <= many <= 120
    assert FeatureStore().core.engine()._passes(schema, 1_000_000) == 1  # noqa: SLF001 - where there is room, one


# What is told of data


def check(fg, *spine: object) -> list[str]:
    asked = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    return (asked.using_spine(*spine) if spine else asked).check()


@pytest.mark.parametrize(("late", "is_told"), [(1, False), (2, True)])
def test_more_than_a_hundredth_of_rows_recorded_a_day_late_is_pointed_out(late, is_told):
    times = [NOON + i * HOUR for i in range(100)]
    made = [time + (timedelta(days=1) + (MICROSECOND if i < late else timedelta(0))) for i, time in enumerate(times)]
    fg = written(rows(*range(100), times=times, made=made), created_time_col="made")
    assert any("recorded more than a day after" in text for text in check(fg)) == is_told


@pytest.mark.parametrize(
    ("known", "same", "is_told"), [(9, 9, False), (10, 10, True), (200, 198, True), (200, 197, False)]
)
def test_a_feature_that_equals_the_label_in_99_of_100_of_ten_rows_or_more_is_pointed_out(known, same, is_told):
    times = [NOON + i * HOUR for i in range(known)]
    fg = written(rows(*range(known), times=times))
    labels = [value if value < same else -1 for value in range(known)]
    spine = pa.table({"user_id": [1] * known, "at": times, "label": labels})
    assert any("x equals label" in text for text in check(fg, spine, "at")) == is_told


def test_two_tables_that_differ_only_in_a_null_or_in_where_values_end_have_different_hashes():
    tables = [
        pa.table({"x": column})
        for column in (["a", "b"], ["ab", ""], ["a", None, "b"], [None, "a", "b"], [["a"], ["b"]], [["a", "b"], []])
    ]
    hashes = [content_hash(table) for table in [*tables, pa.table({"xy": [1]}), pa.table({"x": [1]})]]
    assert len(set(hashes)) == len(hashes)


# The server


def test_arrow_text_that_is_not_utf8_is_refused():
    ends = pa.py_buffer(b"".join(number.to_bytes(4, "little") for number in (0, 1)))
    lying = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff")])
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([lying], ["user_id"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(DataError, match="not an Arrow stream"):
        read_arrow(sink.getvalue().to_pybytes(), 10)


def test_a_revoked_token_grants_nothing_and_access_stays_closed(store):
    text = store.tokens.create("web", "shop", ["read"], new_project=True)
    assert tokens.Authenticator(store.core.registry.tokens(), may_be_open=True).find(text).name == "web"
    store.tokens.revoke("web")
    doorkeeper = tokens.Authenticator(store.core.registry.tokens(), may_be_open=True)
    assert (doorkeeper.find(text), doorkeeper.is_open) == (None, False)


@pytest.mark.parametrize("path", ["a\0b", "\udcff", "x" * 5000, "~no-such-user/x", b"x", 5, None], ids=ascii)
@pytest.mark.parametrize("call", ["to_parquet", "backup", "restore"])
def test_a_path_that_no_file_can_have_is_refused_by_name(call, path, tmp_path):
    fg = written(rows(1))
    calls = {
        "to_parquet": lambda: HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(rows(2), "at").to_parquet(path),
        "backup": lambda: backup(FeatureStore(), path),
        "restore": lambda: restore(path, FeatureStore(tmp_path / "other")),
    }
    with pytest.raises(DefinitionError, match="cannot be the path of a file or folder: ") as refused:
        calls[call]()
    assert repr(path) in str(refused.value)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_training_set_is_not_written_over_a_folder(path):
    fg = written(rows(1))
    with pytest.raises(StoreError, match="it is a folder"):
        HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(rows(2).drop_columns("x"), "at").to_parquet(path)
