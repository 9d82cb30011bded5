"""While the online store is unreachable, errors say what is stored and what is not, retries store nothing twice, and no erased row comes back."""

from __future__ import annotations

import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta

import pyarrow as pa
import pytest

from commands import seeknal
from contract.world import HOUR, NOON, group, rows, write
from seeknal import DefinitionError, Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning, StoreError
from seeknal.define.feature_group import FeatureGroup
from seeknal.serve.open_tables import ServedTable
from seeknal.values.times import instant
from seeknal.write import maintenance
from servers import Server, Valkey, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def redis(tmp_path, monkeypatch) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey").start()
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", server.url)
    yield server
    server.stop()


@pytest.fixture
def store(redis, home) -> FeatureStore:
    return FeatureStore(home)


def online(store: FeatureStore, user: int = 1) -> int | None:
    return store.tables.open("spend").get_features([{"user_id": user}], "dicts")[0]["x"]


def stored(store: FeatureStore) -> int:
    return store.groups.versions("spend")[0].rows


@pytest.mark.parametrize("mode", ["append", "merge", "overwrite"])
def test_a_write_that_is_stored_says_so_and_can_be_repeated(store, redis, mode):
    fg, frame = group(online=True), pa.concat_tables([rows(1), rows(2, user=2), rows(3, user=2)])
    redis.stop()
    for _ in range(3):  # a task with retries
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(StoreError, match="is stored offline, as") as caught,
        ):
            write(fg, frame, mode=mode)
    assert stored(store) == (2 if mode == "merge" else 3)
    assert caught.value.snapshot == store.groups.versions("spend")[0].snapshot
    assert "run seeknal materialize shop/spend" in str(caught.value)
    redis.start()
    assert seeknal("materialize", "shop/spend").returncode == 0
    assert (online(store), online(store, 2), store.tables.verify("spend").equal) == (1, 3, True)


def test_a_repeated_append_stores_nothing_again_and_brings_the_rows_online(store, redis):
    fg = group(online=True)
    write(fg, rows(1))
    redis.stop()
    more = rows(None, user=2, y=[float("nan")])
    for _ in range(2):
        with warnings.catch_warnings(action="ignore"), pytest.raises(StoreError, match="stored offline, as snapshot 2"):
            write(fg, more, mode="append")
    redis.start()
    with pytest.warns(SeeknalWarning, match="the previous write stored exactly the same 1 row"):
        done = write(fg, more, mode="append")
    assert (done.rows, done.snapshot, done.online_rows) == (0, 2, 2)


def test_only_exactly_the_last_rows_are_taken_for_a_repetition(store, redis):
    fg = group(online=True)
    write(fg, rows(1))
    redis.stop()
    counts = []
    for frame in (rows(1), rows(1, user=2), rows(1), pa.concat_tables([rows(1), rows(2)])):
        with warnings.catch_warnings(action="ignore"), pytest.raises(StoreError, match="stored offline"):
            write(fg, frame, mode="append")
        counts.append(store.groups.version("spend").rows)
    assert counts == [2, 3, 4, 6]  # the first write was an overwrite
    redis.start()
    store.groups.load("spend")
    with warnings.catch_warnings(action="ignore"):  # all is online: rows that are appended twice are meant so
        assert write(fg, pa.concat_tables([rows(1), rows(2)]), mode="append").rows == 2
    assert (store.groups.version("spend").rows, online(store)) == (8, 2)


def test_an_entity_is_erased_everywhere_or_nowhere(store, redis):
    write(group(), rows(1))
    write(group(), rows(2, user=2), mode="append")
    store.groups.load("spend")
    redis.stop()
    for erase in (store.groups.erase, lambda _, keys: store.entities.erase("spend_entity", keys)):
        with pytest.raises(StoreError, match=r"Nothing was erased from shop/spend: .* Erase it again"):
            erase("spend", {"user_id": 1})
    assert stored(store) == 2
    redis.start()
    store.groups.load("spend")
    assert store.groups.erase("spend", {"user_id": 1}).rows == 1
    assert (online(store), online(store, 2), store.tables.verify("spend").equal) == (None, 2, True)


@pytest.fixture
def in_two_stores(redis, home) -> FeatureStore:
    """A home with two groups of one entity: "spend" is online in a folder, and "visits" in the folder and in Redis."""
    store = FeatureStore(home, online_store=str(home / "online"))
    for name in ("spend", "visits"):
        definition = FeatureGroup(name, Entity("user", ["user_id"]), Materialization("at"), "shop")
        store.groups.write(definition, pa.concat_tables([rows(1), rows(2, user=2)]))
        store.tables.serve([FeatureLookup(name)], name)
    store.tables.serve([FeatureLookup("visits")], "far", target=redis.url)
    return store


ERASE = {
    "group": lambda store: store.groups.erase("visits", {"user_id": 1}),
    "entity": lambda store: store.entities.erase("user", {"user_id": 1}),
}


@pytest.mark.parametrize("way", ERASE)
def test_an_entity_is_erased_nowhere_if_one_of_several_online_stores_is_away(in_two_stores, redis, way):
    store = in_two_stores
    redis.stop()
    with pytest.raises(StoreError, match=r"Nothing was erased from (shop/spend, )?shop/visits: .* Erase it again"):
        ERASE[way](store)
    for name in ("spend", "visits"):
        assert (store.groups.version(name).rows, store.tables.verify(name).equal) == (2, True)
    redis.start()
    assert ERASE[way](store).rows == (1 if way == "group" else 2)


def test_a_group_is_deleted_nowhere_if_one_of_several_online_stores_is_away(in_two_stores, redis):
    store = in_two_stores
    with pytest.warns(SeeknalWarning, match="was replaced"):
        store.tables.serve([FeatureLookup("spend")], "spend", target=redis.url)
    redis.stop()
    with pytest.raises(StoreError, match="could not be read"):
        store.groups.delete("spend")
    redis.start()
    store.tables.refresh(["spend"])
    assert store.tables.verify("spend").equal
    store.groups.delete("spend")
    assert [table.name for table in store.core.registry.tables()] == ["far", "visits"]


def test_an_erasure_that_one_of_several_online_stores_refuses_says_what_is_gone(in_two_stores, redis):
    store = in_two_stores
    with redis.client() as client:
        client.config_set("min-replicas-to-write", 1)  # from now on it can be read, but not written
    told = r"Nothing was erased from shop/visits offline, but its row may be gone from some online stores: .* by seeknal refresh"
    with pytest.raises(StoreError, match=told):
        store.groups.erase("visits", {"user_id": 1})
    assert (store.groups.version("visits").rows, store.tables.verify("visits").different) == (2, 1)
    with redis.client() as client:
        client.config_set("min-replicas-to-write", 0)
    store.tables.refresh()
    assert [store.tables.verify(name).equal for name in ("visits", "far")] == [True, True]
    assert store.groups.erase("visits", {"user_id": 1}).rows == 1
    assert [store.tables.verify(name).equal for name in ("visits", "far")] == [True, True]


HEAL = {
    "refresh": lambda store: store.tables.refresh(["spend"]),
    "materialize": lambda store: store.groups.load("spend"),
    "push": lambda store: store.groups.push("spend", {"user_id": 3, "at": NOON, "x": 3}),
    "erase": lambda store: store.groups.erase("spend", {"user_id": 1}),
}


@pytest.mark.filterwarnings("ignore:No row of that entity")
@pytest.mark.parametrize("heal", HEAL)
def test_a_store_in_a_state_from_before_an_erasure_never_serves_the_entity(store, redis, heal):
    write(group(), rows(1))
    write(group(), rows(2, user=2), mode="append")
    store.groups.load("spend")
    held_open = store.tables.open("spend")
    store.groups.push("spend", {"user_id": 2, "at": NOON + HOUR, "x": 4})
    with redis.client() as client:
        client.save()  # what it comes back with
    store.groups.erase("spend", {"user_id": 1})
    assert [row["x"] for row in held_open.get_features([{"user_id": 1}, {"user_id": 2}], "dicts")] == [None, 4]
    redis.kill()
    redis.start()
    for table in (held_open, store.tables.open("spend"), FeatureStore(store.home).tables.open("spend")):
        with pytest.raises(StoreError, match=r"may hold entities that were erased since.*seeknal refresh shop/spend"):
            table.get_features([{"user_id": 1}])
    HEAL[heal](store)
    for table in (held_open, store.tables.open("spend")):
        assert [row["x"] for row in table.get_features([{"user_id": 1}, {"user_id": 2}], "dicts")] == [None, 4]
    assert store.tables.verify("spend").equal


def asked(server: Server, path: str) -> tuple[int, str]:
    """Send a request to a server; return status and body."""
    try:
        with urllib.request.urlopen(server.url + path, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_server_and_its_monitoring_refuse_a_store_in_a_state_from_before_an_erasure(store, redis):
    write(group(), rows(1))
    store.groups.load("spend")
    idle = store.tables.open("spend")
    path = "/v1/online/shop/spend?user_id=1"
    with Server(store.home) as running:
        assert asked(running, path)[0] == 200
        assert idle.get_features([{"user_id": 1}], "dicts")[0]["x"] == 1
        with redis.client() as client:
            client.save()
        store.groups.erase("spend", {"user_id": 1})  # which neither of them sees online
        redis.kill()
        redis.start()
        wait_for(lambda: asked(running, path)[0] == 503)
        with Server(store.home, probe="/healthz") as fresh:
            for server in (running, fresh):
                status, body = asked(server, path)
                assert (status, "may hold entities that were erased since" in body) == (503, True)
                assert asked(server, "/readyz")[0] == 503
                assert (
                    'seeknal_online_data_age_seconds{project="shop",table="spend"}' not in asked(server, "/metrics")[1]
                )
            wait_for(lambda: refuses(idle))
            for command in ("status", "doctor", "verify spend"):
                done = seeknal(*command.split())
                assert (done.returncode, "may hold entities that were erased since" in done.stdout + done.stderr) == (
                    1,
                    True,
                )
            assert seeknal("refresh", "spend").returncode == 0
            for server in (running, fresh):
                wait_for(lambda server=server: asked(server, path) == (200, '{"rows":[{"user_id":1,"x":null}]}'))
                assert asked(server, "/readyz")[0] == 200
    assert idle.get_features([{"user_id": 1}], "dicts")[0]["x"] is None


def refuses(table: ServedTable) -> bool:
    """Return whether an open table raises the error that it may hold erased entities."""
    try:
        table.get_features([{"user_id": 1}], "dicts")
    except StoreError as error:
        return "may hold entities that were erased since" in str(error)
    return False


def test_a_failed_erasure_leaves_the_entity_to_the_next_load(store, redis):
    write(group(), rows(1))
    store.groups.load("spend")
    record = store.core.catalog.group("spend")
    entity = store.core.catalog.entity(record, {"user_id": 1})
    store.core.loads.take_out(record, entity, instant("2024-06-01"))  # and then the process ends
    assert online(store) is None
    assert not store.core.loads.statuses(record)[0].is_fresh
    store.tables.refresh(["spend"])
    assert (online(store), store.tables.verify("spend").equal) == (1, True)


def test_rows_are_cleaned_everywhere_or_an_error_says_so_and_a_retry_does(store, redis):
    write(group(), rows(1))
    write(group(), rows(2, user=2, times=[NOON + HOUR]), mode="append")
    store.groups.load("spend")
    limit = instant(NOON + HOUR)
    redis.stop()
    with pytest.raises(StoreError, match=r"No row of shop/spend was removed.*Clean it again"):
        store.groups.clean("spend", limit)
    assert (stored(store), store.groups.clean("spend", limit, dry_run=True)) == (2, 1)
    redis.start()
    store.groups.load("spend")
    maintenance.clean(
        store.core.catalog, store.core.engine(), store.core.catalog.group("spend"), limit, dry_run=False
    )  # then it ended
    assert seeknal("clean", "spend", "--before", "2024-01-01T13:00:00", "--yes").returncode == 0
    assert (stored(store), online(store), online(store, 2)) == (1, None, 2)


def test_a_group_is_deleted_everywhere_or_nowhere(store, redis):
    write(group(), rows(1))
    store.groups.load("spend")
    redis.stop()
    with pytest.raises(StoreError):
        store.groups.delete("spend")
    assert stored(store) == 1
    redis.start()
    store.groups.load("spend")
    assert online(store) == 1
    store.groups.delete("spend")
    with pytest.raises(DefinitionError, match="No online table"):
        store.tables.open("spend")


def test_other_calls_say_what_is_done_although_the_store_is_unreachable(store, redis):
    fg = group(online=True)
    write(fg, rows(1))
    with warnings.catch_warnings(action="ignore"):
        write(fg, rows(2, y=[1]))
    store.groups.load("spend", version=1)
    redis.stop()
    with pytest.raises(StoreError, match="Version 1 of shop/spend is the current one again, but not all is online"):
        store.groups.rollback("spend", 1)
    assert store.groups.version("spend").number == 1
    told = "The new ttl of shop/spend is registered, but not all is online"
    with warnings.catch_warnings(action="ignore"), pytest.raises(StoreError, match=told):
        group(online=True, ttl=timedelta(hours=1)).get_or_create()
    redis.start()
    with warnings.catch_warnings(action="ignore"):
        assert seeknal("materialize", "shop/spend").returncode == 0
    assert (online(store), store.tables.verify("spend").equal) == (None, True)  # it has expired


@pytest.mark.parametrize("is_away", [False, True], ids=["there", "switched off"])
def test_a_store_that_all_tables_have_left_is_emptied_or_else_not_needed_any_more(redis, home, tmp_path, is_away):
    store, old = FeatureStore(home), Valkey(tmp_path / "left").start()
    another = pytest.warns(SeeknalWarning, match="was replaced")
    try:
        write(group(), pa.concat_tables([rows(1), rows(2, user=2)]))
        store.tables.serve([FeatureLookup("shop/spend")], "table", target=old.url)
        if is_away:
            old.stop()
            with another, pytest.warns(SeeknalWarning, match=f"version 1 .* could not be removed: .*:{old.port}"):
                store.tables.serve([FeatureLookup("shop/spend")], "table")
        else:
            with another:
                store.tables.serve([FeatureLookup("shop/spend")], "table")
            assert not old.client().keys("*")
            old.stop()
        store.tables.refresh()
        told = (
            pytest.warns(
                SeeknalWarning, match="Version 1 of shop/spend was left unchanged in a store where no table uses it"
            )
            if is_away
            else nullcontext()
        )
        with told:
            assert store.groups.erase("spend", {"user_id": 1}).rows == 1
        with told:
            assert store.groups.clean("spend", instant("2030-01-01")) == 1
        store.tables.delete("table")
        with (
            told,
            pytest.warns(SeeknalWarning, match="is deleted, but its rows in .* could not be removed")
            if is_away
            else nullcontext(),
        ):
            store.groups.delete("spend")
        assert store.groups.all() == []
    finally:
        old.stop()
