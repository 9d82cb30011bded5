"""The file of the online store, read by those who cannot lock it, cut short, or held by readers that are gone."""

import os
import random
import signal
import subprocess
import sys

import lmdb
import pytest

from seeknal import StoreError
from seeknal.online import Entries, LmdbStore, LoadAttempt, close_all
from seeknal.online import lmdb as module
from seeknal.online.pages import PageFile, Tree, check_whole
from unprivileged import make_read_only, make_writable, run_unprivileged, unprivileged

SPACE = "shop/spend/1"


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "online"
    close_all()
    if (tmp_path / "online").exists():
        make_writable(tmp_path / "online")


def fill(store, rows, state=b"s", expected=None, space=SPACE):
    keys = sorted(rows)
    return store.replace(space, [LoadAttempt([Entries(keys, [rows[key] for key in keys])], expected, state)])


@pytest.fixture
def file(folder):
    """The file of the first rows, with one row."""
    fill(LmdbStore(folder), {b"1": b"one"})
    with PageFile(folder / "data.mdb") as file:
        yield file


def tree_of(file):
    meta = file.newest()
    return Tree(file, meta, meta.root)


@pytest.mark.parametrize("count", [0, 1, 30, 3000])
def test_pages_hold_what_lmdb_says(folder, file, count):
    chance = random.Random(count)
    store = LmdbStore(folder)
    for i in range(2):  # the second time on pages that were used before
        expected = str(i - 1).encode() if i else b"s"
        rows = {
            chance.randbytes(chance.randint(0, 480)): chance.randbytes(
                chance.choice([0, 9, 200, 2100, 30_000]) if chance.random() < 0.1 else 50
            )
            for _ in range(count)
        }
        fill(store, rows, str(i).encode(), expected)
    close_all()
    tree = tree_of(file)
    with lmdb.open(str(folder)) as environment, environment.begin() as transaction:
        stored = dict(transaction.cursor())
    assert {key: tree.get(key) for key in stored} == stored
    assert list(tree.values()) == list(stored.values())
    keys = list(stored)
    for first in (b"", *chance.sample(keys, min(30, len(keys))), b"\xff" * 500):
        assert list(tree.keys(first)) == [key for key in keys if key >= first]
    assert [tree.get(key + b"\0") for key in keys] == [None] * len(keys)


READER = f"""
import sys
from seeknal.online import lmdb
store, keys = lmdb.LmdbStore(lmdb.Path(sys.argv[1])), [f"{{i:06}}".encode() for i in range(int(sys.argv[2]))]
seen = {{b"0"}}
while seen != {{b"end"}}:
    state, rows = store.get({SPACE!r}, keys)
    seen = set(rows)
    assert seen == {{state}}, (seen, state)
print(type(store._environment).__name__)
"""


def test_a_reader_that_cannot_lock_sees_the_old_or_the_new_but_never_a_mix(folder):
    keys = [f"{i:06}".encode() for i in range(2000)]
    store = LmdbStore(folder)
    fill(store, dict.fromkeys(keys, b"0"), b"0")
    make_read_only(folder)
    command = unprivileged(sys.executable, "-c", READER, str(folder), "2000")
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for i in range(1, 40):
        before, now = str(i - 1).encode(), str(i).encode()
        if i % 2:
            fill(store, dict.fromkeys(keys, now), now, before)
        else:
            store.change(SPACE, before, now, Entries(keys, [now] * len(keys)))
    fill(store, dict.fromkeys(keys, b"end"), b"end", b"39")
    for reader in readers:
        assert reader.communicate(timeout=60)[0].strip() == "_Unlocked"
        assert reader.returncode == 0


def test_a_reader_that_can_lock_but_not_write_reads_under_the_lock(folder):
    fill(LmdbStore(folder), {b"1": b"one"})
    close_all()
    (folder / "data.mdb").chmod(0o444)
    code = f"""
from seeknal.online import lmdb
store = lmdb.LmdbStore(lmdb.Path({str(folder)!r}))
print(type(store._environment).__name__, store.get({SPACE!r}, [b"1"]))
"""
    assert run_unprivileged(code).strip() == "_Environment (b's', [b'one'])"


def test_a_write_without_the_right_is_an_error_that_says_so(folder):
    fill(LmdbStore(folder), {b"1": b"one"})
    close_all()
    make_read_only(folder)
    code = f"""
from seeknal import StoreError
from seeknal.online import Entries, lmdb
store = lmdb.LmdbStore(lmdb.Path({str(folder)!r}))
for write in (lambda: store.change({SPACE!r}, b"s", b"t", Entries([b"1"], [b"x"])), lambda: store.drop({SPACE!r})):
    try:
        write()
    except StoreError as error:
        print(error)
print(store.get({SPACE!r}, [b"1"]), list(store.keys({SPACE!r})))
"""
    *told, found = run_unprivileged(code).splitlines()
    assert [one.split(".")[1] for one in told] == ["mdb is read-only for this user"] * 2
    assert found == "(b's', [b'one']) [b'1']"


def test_a_file_that_was_cut_short_is_an_error_wherever_it_was_cut(folder, tmp_path):
    fill(LmdbStore(folder), {f"{i:06}".encode(): b"x" * (5000 if i % 50 == 0 else 100) for i in range(500)})
    close_all()
    whole = (folder / "data.mdb").read_bytes()
    used = {place // 4096 for place in range(0, len(whole), 4096)}
    for pages in sorted(used - {0}):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "data.mdb").write_bytes(whole[: pages * 4096 - 7])
        with pytest.raises(
            StoreError, match=r"is truncated: data.mdb has .* bytes, and should have at least .* seeknal refresh"
        ):
            LmdbStore(tmp_path / "cut").get(SPACE, [b"000001"])
    check_whole(folder / "data.mdb")


def test_a_file_that_ends_before_free_pages_is_whole(folder, file):
    store = LmdbStore(folder)
    fill(store, {f"{i:06}".encode(): b"x" * 100 for i in range(5000)}, space="shop/large/1")
    store.drop("shop/large/1")
    fill(store, {b"1": b"uno"}, b"t", b"s")
    close_all()
    meta = file.newest()
    free = {number for text in Tree(file, meta, meta.free).values() for number in memoryview(text).cast("Q")[1:]}
    last = max(set(range(meta.last + 1)) - free)
    assert last < meta.last
    os.truncate(folder / "data.mdb", (last + 1) * file.page_size)
    assert store.get(SPACE, [b"1"]) == (b"t", [b"uno"])
    assert fill(store, {b"2": b"two"}, b"u", b"t") == 1
    close_all()
    os.truncate(folder / "data.mdb", last * file.page_size)
    with pytest.raises(StoreError, match="is truncated"):
        store.get(SPACE, [b"1"])


def test_a_damaged_page_is_an_error_for_a_reader_of_pages(folder, file):
    tree = tree_of(file)
    with (folder / "data.mdb").open("r+b") as raw:
        raw.seek(2 * file.page_size)
        raw.write(b"\xff" * (file.size - 2 * file.page_size))
    with pytest.raises(StoreError, match="is corrupt"):
        tree.get(b"1")


def killed_in_mid_read(folder):
    """Leave the lock entry of a killed reader."""
    child = os.fork()
    if child == 0:
        with lmdb.open(str(folder)).begin():
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_killed_reader_holds_no_pages(folder):
    store, keys = LmdbStore(folder), [f"{i:06}".encode() for i in range(2000)]
    fill(store, dict.fromkeys(keys, b"x" * 200), b"0")
    killed_in_mid_read(folder)
    size = (folder / "data.mdb").stat().st_size
    for i in range(1, 400):
        some = keys[i * 37 % 1900 :][:20]
        store.change(SPACE, str(i - 1).encode(), str(i).encode(), Entries(some, [str(i).encode() + b"y" * 200] * 20))
    assert (folder / "data.mdb").stat().st_size < 3 * size


def test_killed_readers_do_not_block_other_readers(folder, monkeypatch):
    monkeypatch.setattr(module, "_MOST_READERS", 3)
    store = LmdbStore(folder)
    fill(store, {b"1": b"one"})
    for _ in range(3):
        killed_in_mid_read(folder)
    assert store.get(SPACE, [b"1"]) == (b"s", [b"one"])
