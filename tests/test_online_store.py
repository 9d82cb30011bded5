"""The contract of online stores. To test another store, subclass the contract and define the fixture `store`."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import PROFILE
from seeknal import DefinitionError, StoreError
from seeknal.define.schema import Schema
from seeknal.online import Codec, Entries, LmdbStore, LoadAttempt, RedisStore
from seeknal.online.keys import NOBODY, key_encoder
from seeknal.system.retry import Conflict
from seeknal.values.content_hash import content_hash
from servers import Valkey, cluster

pytestmark = pytest.mark.slow

SPACE = "shop/spend/1"


def entries(rows: dict[bytes, bytes | None], expires: int | None = None) -> Entries:
    keys = sorted(rows)
    return Entries(keys, [rows[key] for key in keys], None if expires is None else [expires] * len(keys))


def fill(store, rows, state=b"s", expected=None, space=SPACE) -> int:
    return store.replace(space, [LoadAttempt([entries(rows)], expected, state)])


def rows_of(store, *keys, space=SPACE):
    return store.get(space, list(keys))[1]


class OnlineStoreContract:
    """The tests that every store inherits."""

    def test_rows_are_found_by_key_in_the_order_asked(self, store):
        assert fill(store, {b"1": b"one", b"2": b"two"}) == 2
        assert store.get(SPACE, [b"2", b"0", b"1", b"2"]) == (b"s", [b"two", None, b"one", b"two"])
        assert store.get(SPACE, []) == (b"s", [])

    def test_several_spaces_are_asked_at_once(self, store):
        fill(store, {b"1": b"one"})
        fill(store, {b"1": b"eins"}, b"t", space="shop/other/1")
        found = store.get_all((SPACE, "shop/other/1", SPACE), [[b"1", b"2"], [b"1"], []])
        assert found == [(b"s", [b"one", None]), (b"t", [b"eins"]), (b"s", [])]
        with pytest.raises(KeyError, match=r"^'shop/nowhere/1'$"):
            store.get_all((SPACE, "shop/nowhere/1"), [[b"1"], [b"1"]])

    def test_keys_of_any_bytes_are_kept_apart(self, store):
        rows = {key: key or b"empty" for key in (b"", b"\0", b"*", b"[a]", b"a b", b"\xff" * 480, b"a", b"a\0")}
        fill(store, rows)
        assert rows_of(store, *rows) == list(rows.values())
        assert rows_of(store, NOBODY, b"\xff") == [None, None]
        assert set(store.keys(SPACE)) == set(rows)

    def test_a_space_that_was_never_filled_is_not_there(self, store):
        with pytest.raises(KeyError):
            store.get("shop/nowhere/1", [b"1"])
        with pytest.raises(KeyError):
            list(store.keys("shop/nowhere/1"))

    def test_a_space_may_hold_no_rows(self, store):
        assert fill(store, {}) == 0
        assert store.get(SPACE, [b"1"]) == (b"s", [None])
        assert list(store.keys(SPACE)) == []

    def test_replacing_leaves_nothing_of_what_was_there(self, store):
        fill(store, {b"1": b"one", b"2": b"two"})
        assert fill(store, {b"3": b"three"}, b"t", expected=b"s") == 1
        assert store.get(SPACE, [b"1", b"2", b"3"]) == (b"t", [None, None, b"three"])
        assert list(store.keys(SPACE)) == [b"3"]

    def test_a_space_of_many_parts_is_whole(self, store):
        parts = [entries({f"{i:06}".encode(): b"x" for i in range(start, start + 3000)}) for start in (0, 3000, 6000)]
        assert store.replace(SPACE, [LoadAttempt(parts, None, b"s")]) == 9000
        assert sorted(store.keys(SPACE)) == [f"{i:06}".encode() for i in range(9000)]
        asked = [f"{i:06}".encode() for i in range(12000)]
        assert rows_of(store, *asked) == [b"x"] * 9000 + [None] * 3000

    def test_a_change_puts_and_removes_rows_and_sets_the_state(self, store):
        fill(store, {b"1": b"one", b"2": b"two"})
        assert store.change(SPACE, b"s", b"t", entries({b"1": None, b"2": b"zwei", b"3": b"drei", b"9": None})) == 2
        assert store.get(SPACE, [b"1", b"2", b"3"]) == (b"t", [None, b"zwei", b"drei"])

    def test_a_change_of_another_state_changes_nothing(self, store):
        fill(store, {b"1": b"one"})
        with pytest.raises(Conflict):
            store.change(SPACE, b"other", b"t", entries({b"1": b"new"}))
        with pytest.raises(Conflict):
            store.change("shop/nowhere/1", b"s", b"t", entries({b"1": b"new"}))
        assert store.get(SPACE, [b"1"]) == (b"s", [b"one"])

    def test_replacing_another_state_changes_nothing(self, store):
        fill(store, {b"1": b"one"})
        for expected in (None, b"other"):
            with pytest.raises(Conflict):
                fill(store, {b"1": b"new"}, b"t", expected)
        assert store.get(SPACE, [b"1"]) == (b"s", [b"one"])
        assert list(store.keys(SPACE)) == [b"1"]

    def test_changes_while_a_space_is_replaced_are_requested_again(self, store):
        fill(store, {b"1": b"one", b"2": b"two"})

        def rounds():
            yield LoadAttempt([entries({b"1": b"eins", b"2": b"zwei", b"3": b"drei"})], b"s", b"t")
            store.change(SPACE, b"s2", b"s3", entries({b"2": b"deux"}))
            yield LoadAttempt([entries({b"2": b"deux"})], b"s2", b"t2")
            yield LoadAttempt([entries({b"3": None, b"4": b"quatre"})], b"s3", b"t3")

        store.change(SPACE, b"s", b"s2", entries({b"1": b"un"}))
        assert store.replace(SPACE, rounds()) == 3
        assert store.get(SPACE, [b"1", b"2", b"3", b"4"]) == (b"t3", [b"eins", b"deux", None, b"quatre"])

    def test_spaces_know_nothing_of_each_other(self, store):
        fill(store, {b"1": b"one"})
        fill(store, {b"1": b"eins"}, space="shop/spend/11")
        store.drop(SPACE)
        assert rows_of(store, b"1", space="shop/spend/11") == [b"eins"]
        with pytest.raises(KeyError):
            store.get(SPACE, [b"1"])

    def test_a_space_that_was_dropped_can_be_filled_again(self, store):
        fill(store, {b"1": b"one"})
        store.drop(SPACE)
        store.drop(SPACE)
        assert fill(store, {b"2": b"two"}) == 1
        assert rows_of(store, b"1", b"2") == [None, b"two"]

    def test_a_failed_load_changes_nothing(self, store):
        def broken():
            yield entries({b"1": b"new", b"5": b"five"})
            raise RuntimeError

        fill(store, {b"1": b"old"})
        with pytest.raises(RuntimeError):
            store.replace(SPACE, [LoadAttempt(broken(), b"s", b"t")])
        assert store.get(SPACE, [b"1", b"5"]) == (b"s", [b"old", None])
        assert fill(store, {b"1": b"new"}, b"t", b"s") == 1

    def test_rows_that_may_be_forgotten_are_kept_until_then(self, store):
        soon = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1_000_000)
        store.replace(SPACE, [LoadAttempt([entries({b"1": b"one"}, soon)], None, b"s")])
        store.change(SPACE, b"s", b"t", entries({b"2": b"two"}, soon))
        assert rows_of(store, b"1", b"2") == [b"one", b"two"]
        long_ago = -1_000_000
        assert store.change(SPACE, b"t", b"u", entries({b"3": b"three"}, long_ago)) == 3
        assert rows_of(store, b"3") == [None if store.forgets else b"three"]

    def test_readers_see_the_old_or_the_new_but_never_a_mix(self, store):
        count = 2000
        keys = [f"{i:06}".encode() for i in range(count)]
        fill(store, dict.fromkeys(keys, b"0"), b"0")
        readers = [subprocess.Popen(self.reader(count), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for i in range(1, 40):
            before, now = str(i - 1).encode(), str(i).encode()
            if i % 2:
                fill(store, dict.fromkeys(keys, now), now, before)
            else:
                store.change(SPACE, before, now, entries(dict.fromkeys(keys, now)))
        fill(store, dict.fromkeys(keys, b"end"), b"end", b"39")
        for reader in readers:
            printed, _ = reader.communicate(timeout=60)
            assert printed.strip() == "whole"

    def reader(self, count):
        """Return a process that reads until it is ended, and reports whether each read was of a single state."""
        code = f"""
from seeknal.online import connect
store, keys = connect({self.place!r}), [f"{{i:06}}".encode() for i in range({count})]
seen = {{b"0"}}
while seen != {{b"end"}}:
    state, rows = store.get({SPACE!r}, keys)
    seen = set(rows)
    assert seen == {{state}}, (seen, state)
print("whole")
"""
        return [sys.executable, "-c", code]


class TestLmdb(OnlineStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        self.place = str(tmp_path / "lmdb")
        return LmdbStore(tmp_path / "lmdb")

    def test_a_forked_process_opens_its_own(self, store):
        fill(store, {b"1": b"one"})
        child = os.fork()
        if child == 0:
            os._exit(0 if rows_of(store, b"1") == [b"one"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_it_grows_when_it_is_full_also_under_readers_of_other_processes(self, tmp_path):
        store = LmdbStore(tmp_path / "small", map_size=2**18)
        self.place = str(tmp_path / "small")
        keys = [f"{i:06}".encode() for i in range(2000)]
        fill(store, dict.fromkeys(keys, b"0"), b"0")
        reader = subprocess.Popen(self.reader(2000), stdout=subprocess.PIPE, text=True)
        more = {f"x{i:06}".encode(): b"y" * 200 for i in range(40_000)}
        assert fill(store, more, space="shop/more/1") == 40_000
        fill(store, dict.fromkeys(keys, b"end"), b"end", b"0")
        assert reader.communicate(timeout=60)[0].strip() == "whole"
        assert rows_of(store, b"x039999", space="shop/more/1") == [b"y" * 200]

    def test_free_space_is_reused(self, store, tmp_path):
        rows = {f"{i:06}".encode(): b"x" * 100 for i in range(20_000)}
        fill(store, rows, b"0")
        fill(store, rows, b"1", b"0")
        size = (tmp_path / "lmdb" / "data.mdb").stat().st_size
        for i in range(1, 8):
            fill(store, rows, str(i + 1).encode(), str(i).encode())
        assert (tmp_path / "lmdb" / "data.mdb").stat().st_size < 1.5 * size


class TestRedis(OnlineStoreContract):
    @pytest.fixture
    def store(self, valkey_url):
        self.place = valkey_url
        self.client = redis.Redis.from_url(valkey_url)
        return RedisStore(valkey_url)

    def test_a_forked_process_connects_anew_and_ends_whatever_threads_held(self, store):
        fill(store, {b"1": b"one"})
        code = f"""
import os, sys, threading
from seeknal.online import connect
store = connect({self.place!r})
assert store.get({SPACE!r}, [b"1"])[1] == [b"one"]
held, done = threading.Event(), threading.Event()
def hold():
    with store._client.connection_pool._lock:
        held.set()
        done.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    sys.exit(0 if store.get({SPACE!r}, [b"1"])[1] == [b"one"] else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
sys.exit(code)
"""
        assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0

    def test_all_keys_begin_with_the_project(self, store):
        fill(store, {b"1": b"one"})
        store.change(SPACE, b"s", b"t", entries({b"2": b"two"}))
        assert {key.split(b"{")[0] for key in self.client.scan_iter()} == {b"seeknal:shop:"}

    def test_what_was_replaced_and_what_failed_is_removed(self, store):
        fill(store, {b"1": b"one"})
        with pytest.raises(Conflict):
            fill(store, {b"1": b"x", b"2": b"x"}, b"t", b"other")
        fill(store, {b"3": b"three"}, b"t", b"s")
        assert self.client.dbsize() == 4  # the row, the head, the count, the generations
        store.drop(SPACE)
        assert self.client.dbsize() == 0

    def test_what_a_killed_load_left_is_removed_and_it_cannot_come_back(self, store):
        """Its last heartbeat is set back by hand, as if ten minutes had passed.

        The generation that is online has the same time as its own, if both began within a millisecond.
        """
        fill(store, {b"1": b"one"})

        def parts():
            yield entries({b"2": b"two"})
            shown = self.client.get("seeknal:shop:{spend/1}")[:16]
            (made,) = set(self.client.zrange("seeknal:shop:{spend/1}:generations", 0, -1)) - {shown}
            self.client.zadd("seeknal:shop:{spend/1}:generations", {made: 0})
            assert fill(store, {b"3": b"three"}, b"t", b"s") == 1
            yield entries({b"4": b"four"})

        with pytest.raises(Conflict):
            store.replace(SPACE, [LoadAttempt(parts(), b"t", b"u")])
        assert store.get(SPACE, [b"2", b"3", b"4"]) == (b"t", [None, b"three", None])
        fill(store, {b"5": b"five"}, b"u", b"t")
        assert self.client.dbsize() == 4

    def test_a_load_that_was_taken_for_lost_keeps_its_rows_if_it_ends_while_another_removes_them(self, store):
        began, shown = threading.Event(), threading.Event()

        class Removing(RedisStore):
            """A store that looks for lost loads before the other load is online, and continues after it."""

            def _clock(self, space):
                found = super()._clock(space)
                began.set()
                shown.wait(60)
                return found

        def remove() -> None:
            with suppress(Conflict):
                fill(Removing(self.place), {b"3": b"three"}, b"u", b"other")

        def parts():
            yield entries({b"2": b"two"})
            online = self.client.get("seeknal:shop:{spend/1}")[:16]
            (made,) = set(self.client.zrange("seeknal:shop:{spend/1}:generations", 0, -1)) - {online}
            self.client.zadd("seeknal:shop:{spend/1}:generations", {made: 0})
            remover.start()
            assert began.wait(60)

        fill(store, {b"1": b"one"})
        remover = threading.Thread(target=remove)
        store.replace(SPACE, [LoadAttempt(parts(), b"s", b"t")])
        shown.set()
        remover.join()
        assert store.get(SPACE, [b"1", b"2", b"3"]) == (b"t", [None, b"two", None])

    def test_rows_expire_in_the_server(self, store):
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        store.replace(SPACE, [LoadAttempt([entries({b"1": b"one"}, now + 3_600_000_000)], None, b"s")])
        row = next(key for key in self.client.scan_iter() if key.endswith(b":1"))
        assert 3_590 < self.client.ttl(row) <= 3_600

    def test_a_password_is_not_shown(self):
        store = RedisStore("redis://me:secret@127.0.0.1:1/0")
        with pytest.raises(StoreError, match=r"redis://me:\*\*\*@127.0.0.1:1/0 could not be read") as error:
            store.get(SPACE, [])
        assert "secret" not in str(error.value)

    def test_a_wrong_address_is_named(self):
        with pytest.raises(DefinitionError, match="is not a valid Redis URL"):
            RedisStore("redis://127.0.0.1:port/0").get(SPACE, [])

    def test_a_server_that_was_restarted_is_used_again(self, tmp_path):
        server = Valkey(tmp_path / "own", "--appendonly", "yes", "--appendfsync", "always").start()
        try:
            store = RedisStore(server.url)
            fill(store, {b"1": b"one"})
            server.kill()
            with pytest.raises(StoreError, match="could not be read"):
                store.get(SPACE, [b"1"])
            with pytest.raises(StoreError, match="could not be written"):
                store.change(SPACE, b"s", b"t", entries({b"1": b"new"}))
            server.start()
            assert store.get(SPACE, [b"1"]) == (b"s", [b"one"])
        finally:
            server.stop()

    def test_a_server_that_hangs_is_an_error_and_the_old_rows_are_served_afterwards(self, tmp_path):
        server = Valkey(tmp_path / "own").start()

        def parts():
            yield entries({b"1": b"new"})
            server.pause()
            yield entries({b"2": b"new"})

        try:
            store = RedisStore(f"{server.url}?socket_timeout=0.3")
            fill(store, {b"1": b"one"})
            with pytest.raises(StoreError, match="could not be written"):
                store.replace(SPACE, [LoadAttempt(parts(), b"s", b"t")])
            with pytest.raises(StoreError, match="could not be read"):
                store.get(SPACE, [b"1"])
            server.resume()
            assert store.get(SPACE, [b"1", b"2"]) == (b"s", [b"one", None])
            assert fill(store, {b"1": b"new"}, b"t", b"s") == 1
        finally:
            server.stop()

    def test_a_load_whose_server_loses_everything_is_an_error(self, tmp_path):
        server = Valkey(tmp_path / "own").start()

        def parts():
            yield entries({b"1": b"new"})
            server.kill()
            server.start()
            yield entries({b"2": b"new"})

        try:
            store = RedisStore(server.url)
            with pytest.raises(Conflict):
                store.replace(SPACE, [LoadAttempt(parts(), None, b"s")])
            with pytest.raises(KeyError):
                store.get(SPACE, [b"1"])
            assert fill(store, {b"1": b"one"}) == 1
        finally:
            server.stop()

    def test_a_full_server_says_so_and_still_serves(self, tmp_path):
        server = Valkey(tmp_path / "own", "--maxmemory", "8mb", "--maxmemory-policy", "noeviction").start()
        try:
            store = RedisStore(server.url)
            fill(store, {b"1": b"one"})
            more = [entries({f"{j}-{i}".encode(): b"x" * 1000 for i in range(1000)}) for j in range(12)]
            with pytest.raises(StoreError, match=r"could not be written, and is as it was.*maxmemory"):
                store.replace(SPACE, [LoadAttempt(more, b"s", b"t")])
            assert store.get(SPACE, [b"1"]) == (b"s", [b"one"])
        finally:
            server.stop()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A cluster of three."""
    servers = cluster(tmp_path_factory.mktemp("cluster"))
    yield servers
    for server in servers:
        server.stop()


class TestRedisCluster(OnlineStoreContract):
    @pytest.fixture
    def store(self, servers):
        for server in servers:
            with server.client() as client:
                client.flushall()
        self.place = servers[0].url
        return RedisStore(self.place)

    def test_spaces_are_distributed_over_the_nodes(self, store, servers):
        for i in range(30):
            fill(store, {b"1": b"one"}, space=f"shop/group{i}/1")
        sizes = []
        for server in servers:
            with server.client() as client:
                sizes.append(client.dbsize())
        assert all(sizes), sizes


def codec(key=pa.string(), **features):
    """Return a codec for one key and some features."""
    fields = tuple(pa.field(name, kind) for name, kind in features.items())
    return Codec(Schema((pa.field("k", key),), pa.field("t", pa.timestamp("us")), None, fields))


texts = st.text(alphabet=st.sampled_from("a\0\x01ÿ\uffff🙂"), max_size=4)
raws = st.binary(max_size=4)
numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3))
parts = st.one_of(
    *(
        st.lists(st.tuples(*some), min_size=2, max_size=8).map(lambda rows, kinds=kinds: (rows, kinds))
        for some, kinds in (
            ((texts,), ("string",)),
            ((raws,), ("binary",)),
            ((numbers,), ("int64",)),
            ((texts, texts), ("string", "string")),
            ((raws, numbers, texts), ("binary", "int64", "string")),
            ((numbers, st.booleans(), raws), ("int64", "bool", "binary")),
            ((st.integers(0, 2**64 - 1), texts), ("uint64", "string")),
        )
    )
)


@PROFILE
@given(parts)
def test_keys_are_equal_only_for_equal_entities_and_sort_as_they_do(drawn):
    rows, names = drawn
    kinds = [pa.type_for_alias(name) for name in names]
    keys = key_encoder(kinds)([list(column) for column in zip(*rows, strict=True)])

    def comparable(row):
        return tuple(value.encode() if isinstance(value, str) else value for value in row)

    for one, key in zip(rows, keys, strict=True):
        for other, its in zip(rows, keys, strict=True):
            assert (key < its) == (comparable(one) < comparable(other))
            assert (key == its) == (one == other)


def test_a_value_that_can_be_no_key_matches_no_entity():
    assert key_encoder([pa.int64()])([[1, None, 2**64, -(2**70)]])[1:] == [NOBODY] * 3
    assert key_encoder([pa.string(), pa.int64()])([["a", None, "b"], [1, 2, None]])[1:] == [NOBODY] * 2


def test_many_whole_numbers_are_encoded_as_one_is():
    values = [-(2**63), -1, 0, 1, 2**63 - 1]
    table = pa.table({"k": values})
    assert codec(pa.int64()).keys(table) == key_encoder([pa.int64()])([values])


def test_long_keys_are_kept_apart():
    one, other, short = codec().keys(pa.table({"k": ["x" * 5000 + "a", "x" * 5000 + "b", "x" * 479]}))
    assert len({one, other, short}) == 3
    assert max(map(len, (one, other, short))) <= 480


VALUES = {
    pa.int64(): [2**53 + 1, None, -(2**63)],
    pa.uint64(): [2**64 - 1, None, 0],
    pa.float64(): [float("nan"), None, -0.0],
    pa.float16(): [1.5, None, float("inf")],
    pa.string(): ["", None, "NaN"],
    pa.binary(): [b"\0\xff", None, b""],
    pa.bool_(): [True, None, False],
    pa.decimal128(38, 10): [Decimal("12345678901234567890.0123456789"), None, Decimal("0E-10")],
    pa.timestamp("us", "Asia/Jakarta"): [datetime(2024, 1, 1, tzinfo=UTC), None, datetime(1, 1, 1, tzinfo=UTC)],
    pa.timestamp("ns"): [1_704_067_200_000_000_001, None, -1],
    pa.date32(): [datetime(2024, 1, 1).date(), None, datetime(1, 1, 1).date()],
    pa.time64("ns"): [1, None, 86_399_999_999_999],
    pa.duration("ms"): [timedelta(days=1), None, -timedelta(milliseconds=1)],
    pa.list_(pa.float32(), 3): [[1.0, 2.0, 3.0], None, [0.1, float("nan"), -1.0]],
    pa.list_(pa.int32()): [[], None, [None, 1]],
    pa.struct([("price", pa.decimal128(10, 2)), ("at", pa.timestamp("us"))]): [
        {"price": None, "at": None},
        None,
        {"price": Decimal("1.10"), "at": datetime(2024, 1, 1)},
    ],
    pa.list_(pa.struct([("a", pa.list_(pa.string()))])): [[{"a": None}, None], None, [{"a": ["", None]}]],
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_every_type_comes_back_exactly(kind):
    column = pa.array(VALUES[kind], kind)
    c = codec(x=kind, y=pa.int64())
    table = pa.table({"k": ["a", "b", "c"], "t": pa.array([0, 1, 2], pa.timestamp("us")), "x": column, "y": [1, 2, 3]})
    encoded = [value for part in c.entries(table.to_batches(), None) for value in part.values]
    rows = c.rows([*encoded, None], 10)
    back, y = c.columns(rows, [0, 1])
    assert content_hash(pa.table({"x": back[:3]})) == content_hash(pa.table({"x": column}))
    assert (back[3].is_valid, y.to_pylist()) == (False, [1, 2, 3, None])
    for wanted in ([0, 1], [1, 0], [0]):
        taken = [row[: len(wanted)] for row in c.values(wanted)(rows)]
        expected = [[(back, y)[i][j].as_py() for i in wanted] for j in range(4)]
        assert repr([list(row) for row in taken]) == repr(expected)


def test_future_rows_are_hidden_until_their_time():
    c = codec(x=pa.int64())
    times = pa.array([10, 20, 30, 20, 5], pa.timestamp("us"))
    table = pa.table({"k": ["a", "a", "a", "b", "c"], "t": times, "x": [1, 2, 3, 4, None]})
    for size in (1, 2, 5):
        parts = list(c.entries(table.to_batches(max_chunksize=size), 100))
        assert [key for part in parts for key in part.keys] == [b"a", b"b", b"c"]
        assert [one for part in parts for one in part.expires] == [130, 120, 105]
        encoded = [value for part in parts for value in part.values]
        seen = {at: [row and row[0] for row in c.rows(encoded, at)] for at in (9, 10, 19, 20, 29, 30, 99)}
        assert seen[9] == [None, None, None]
        assert seen[10] == seen[19] == [1, None, None]
        assert seen[20] == seen[29] == [2, 4, None]
        assert seen[30] == seen[99] == [3, 4, None]


def test_rows_without_a_key_are_left_out_and_unsorted_ones_sorted():
    c = codec(x=pa.int64())
    table = pa.table({"k": ["b", None, "a"], "t": pa.array([1, 2, 3], pa.timestamp("us")), "x": [1, 2, 3]})
    parts = [part for part in c.entries(table.to_batches(), None) if len(part)]
    assert [list(part.keys) for part in parts] in ([[b"a", b"b"]], [[b"b"], [b"a"]])
