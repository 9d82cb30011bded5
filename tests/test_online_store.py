"""What every online store must do. Subclass the contract, give it a `store` fixture, inherit the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from seeknal.online import Codec, LmdbStore
from seeknal.schema import Schema


class OnlineStoreContract:
    """The tests that every store inherits."""

    def test_rows_are_found_by_key_in_the_order_asked(self, store):
        assert store.replace("a", [(b"1", b"one"), (b"2", b"two")]) == 2
        assert store.get("a", [b"2", b"0", b"1", b"2"]) == [b"two", None, b"one", b"two"]

    def test_a_space_that_was_never_filled_is_not_there(self, store):
        with pytest.raises(KeyError):
            store.get("nowhere", [b"1"])

    def test_a_space_may_hold_no_rows(self, store):
        store.replace("a", [])
        assert store.get("a", [b"1"]) == [None]

    def test_replacing_leaves_nothing_of_what_was_there(self, store):
        store.replace("a", [(b"1", b"one"), (b"2", b"two")])
        store.replace("a", [(b"3", b"three")])
        assert store.get("a", [b"1", b"2", b"3"]) == [None, None, b"three"]

    def test_spaces_know_nothing_of_each_other(self, store):
        store.replace("a", [(b"1", b"one")])
        store.replace("b", [(b"1", b"eins")])
        store.drop("a")
        assert store.get("b", [b"1"]) == [b"eins"]
        with pytest.raises(KeyError):
            store.get("a", [b"1"])

    def test_dropping_twice_is_no_error(self, store):
        store.drop("a")
        store.drop("a")

    def test_a_failed_load_changes_nothing(self, store):
        def broken():
            yield b"1", b"new"
            raise RuntimeError

        store.replace("a", [(b"1", b"old")])
        with pytest.raises(RuntimeError):
            store.replace("a", broken())
        assert store.get("a", [b"1"]) == [b"old"]

    def test_readers_see_the_old_or_the_new_but_never_a_mix(self, store, tmp_path):
        count = 2000
        keys = [f"{i:06}".encode() for i in range(count)]
        store.replace("a", [(key, b"0") for key in keys])
        readers = [subprocess.Popen(self.reader(count), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for generation in range(1, 40):
            store.replace("a", [(key, str(generation).encode()) for key in keys])
        store.replace("a", [(key, b"end") for key in keys])
        for reader in readers:
            printed, _ = reader.communicate(timeout=60)
            assert printed.strip() == "whole"


class TestLmdb(OnlineStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return LmdbStore(tmp_path / "lmdb")

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "lmdb"

    def reader(self, count):
        """Give a process that reads until the end, and says whether every read was of one state."""
        code = f"""
from pathlib import Path
from seeknal.online import LmdbStore
store, keys = LmdbStore(Path({str(self.folder)!r})), [f"{{i:06}}".encode() for i in range({count})]
seen = {{b"0"}}
while seen != {{b"end"}}:
    seen = set(store.get("a", keys))
    assert len(seen) == 1, seen
print("whole")
"""
        return [sys.executable, "-c", code]

    def test_a_forked_process_opens_its_own(self, store):
        store.replace("a", [(b"1", b"one")])
        child = os.fork()
        if child == 0:
            os._exit(0 if store.get("a", [b"1"]) == [b"one"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def codec(key=pa.string(), **features):
    """Make a codec for one key and some features."""
    fields = tuple(pa.field(name, kind) for name, kind in features.items())
    return Codec(Schema((pa.field("k", key),), pa.field("t", pa.timestamp("us")), None, fields))


def test_keys_of_different_types_never_have_the_same_bytes():
    texts, numbers, raw = (codec(kind).keys([pa.array([value], kind)])[0] for kind, value in [
        (pa.string(), "1"), (pa.int64(), 1), (pa.binary(), b"1")
    ])  # fmt: skip
    assert len({texts, numbers, raw}) == 3


def test_long_keys_are_kept_apart():
    one, other = codec().keys([pa.array(["x" * 5000 + "a", "x" * 5000 + "b"])])
    assert one != other
    assert max(len(one), len(other)) < 511


def test_a_struct_that_is_null_comes_back_null(tmp_path: Path):
    kind = pa.struct([("price", pa.decimal128(10, 2)), ("at", pa.timestamp("us"))])
    c = codec(x=kind)
    table = pa.table({"k": ["a", "b"], "t": pa.array([0, 0], pa.timestamp("us")), "x": pa.array([None, {}], kind)})
    rows = [row for _, row in c.rows(table)]
    assert c.decode(rows, None)["x"].to_pylist() == [None, {"price": None, "at": None}]
