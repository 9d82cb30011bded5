"""Leftovers of killed processes are reported and removed; files that other processes work on stay."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.home import doctor
from seeknal.join.inquiry import Inquiry
from seeknal.system import folders
from seeknal.system.duck import Duck
from seeknal.values.times import instant
from seeknal.write import leftovers

MOMENT = instant("2024-05-02")
SAVE = """
import sys
import pyarrow as pa
import seeknal.join.training_sets
from seeknal import FeatureLookup, FeatureStore
from seeknal.join.inquiry import Inquiry

def wait(answer):
    print("kept", flush=True)
    sys.stdin.read()
    return whole(answer)

whole, seeknal.join.training_sets.content_hash = seeknal.join.training_sets.content_hash, wait
spine = pa.table({"user": [1], "at": pa.array([1714608000000000], pa.timestamp("us", "UTC"))})
FeatureStore().training_sets.save("may", Inquiry([FeatureLookup("spend")], "spine", spine, "at"))
"""
SPILL = """
import sys
import time
from pathlib import Path
from seeknal.system import folders
from seeknal.system.duck import Duck
duck = Duck(Path(sys.argv[1]))
print(duck.connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0], flush=True)
sys.stdin.read()
"""

DELETE = """
import sys
import time
from seeknal import FeatureStore
from seeknal.system.storage import LocalLocation

def wait(place):
    print("half done", flush=True)
    sys.stdin.read()

LocalLocation.remove = wait
store = FeatureStore()
store.training_sets.delete(store.core.registry.training_sets()[0])
"""

FORK = """
import os, sys
from pathlib import Path
from seeknal import FeatureStore
store = FeatureStore()
place = Path(store.core._duck.connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])
if not (child := os.fork()):
    _ = store.core.engine()
    sys.exit()
print(os.waitpid(child, 0)[1], place.exists(), flush=True)
store.close()
del store
print(0, place.exists(), flush=True)
"""


def group(name: str) -> FeatureGroup:
    """Define a group."""
    return FeatureGroup(name, Entity("user", ["user"]), Materialization("at"))


@pytest.fixture
def store(home) -> FeatureStore:
    """A store with two groups."""
    store, at = FeatureStore(home), pa.array([instant("2024-05-01")] * 3, pa.timestamp("us", "UTC"))
    for name in ("spend", "visits"):
        store.groups.write(group(name), pa.table({"user": [1, 2, 3], "at": at, name: [1, 2, 3]}))
    return store


def kept(store: FeatureStore) -> list[str]:
    """List the folders of training sets."""
    place = store.home / "datasets"
    return sorted(str(one.relative_to(place)) for one in place.glob("*/*"))


@contextmanager
def running(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that says a line and waits; give both."""
    started = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill it, and wait until it is gone."""
    process.kill()
    process.wait(60)


def told(store: FeatureStore) -> list[str]:
    """Return doctor's findings on leftovers."""
    return [one.found for one in doctor.examine(store) if one.what == "left behind"]


def removals(store: FeatureStore) -> Iterator[Callable[[], object]]:
    """Return the calls that remove leftovers."""
    yield lambda: store.groups.erase("spend", {"user": 1}, delete_training_sets=True)
    yield lambda: store.groups.optimize("spend")
    yield lambda: store.groups.delete("visits")
    yield lambda: store.training_sets.delete(store.core.registry.training_sets()[0])


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 3))])
def test_the_next_removal_of_anything_removes_what_a_killed_save_left(store, number):
    store.training_sets.save("april", Inquiry([FeatureLookup("spend")], "latest", at=MOMENT))
    with running(SAVE) as (process, line):
        assert line == "kept"
        assert len(kept(store)) == 2
        assert told(store) == []
        assert leftovers.find(store.core.catalog) == []
        kill(process)
    assert told(store)[0].startswith("2 folders, ")  # also its folder for what does not fit in memory
    list(removals(store))[number]()
    assert told(store) == []
    assert kept(store) == [one.folder for one in store.core.registry.training_sets()]


def test_files_of_a_running_save_stay(store):
    with running(SAVE) as (process, line):
        assert line == "kept"
        store.groups.erase("visits", {"user": 1})
        process.communicate("", timeout=60)
        assert process.returncode == 0
    saved = store.core.registry.training_sets()
    assert kept(store) == [saved[0].folder]
    assert len(store.training_sets.reproduce(saved[0])) == 1


def test_a_training_set_that_was_half_deleted_stops_no_erasure_and_goes_with_it(store):
    store.training_sets.save("april", Inquiry([FeatureLookup("spend")], "latest", at=MOMENT))
    with running(DELETE) as (process, line):
        assert line == "half done"
        kill(process)
    assert told(store)[0].startswith("1 folder, ")
    assert store.groups.erase("spend", {"user": 1}).rows == 1
    assert (told(store), kept(store)) == ([], [])


def test_plain_files_among_the_folders_of_training_sets_and_in_the_trash_are_removed_too(store):
    for place in ("trash", "datasets/default"):
        (store.home / place).mkdir(parents=True)
        (store.home / place / ".DS_Store").touch()
    store.groups.optimize("spend")
    assert told(store) == []


def test_a_group_that_was_half_deleted_goes_for_good(store):
    trash = store.home / "trash/0123"
    trash.mkdir(parents=True)
    (trash / "rows.parquet").write_bytes(b"rows of somebody")
    assert told(store)[0].startswith("1 folder, ")
    with store.core.catalog.deleting():
        assert leftovers.find(store.core.catalog) == []
    store.groups.erase("spend", {"user": 1})
    assert not trash.exists()
    assert told(store) == []


def test_each_process_spills_into_a_folder_of_its_own(store):
    scratch = store.home / "scratch"
    with running(SPILL, str(scratch)) as (one, first), running(SPILL, str(scratch)) as (other, second):
        assert Path(first).parent == Path(second).parent == scratch
        assert first != second
        kill(one)
        assert list(map(str, leftovers.find(store.core.catalog))) == [first]
        other.communicate("", timeout=60)
    assert not Path(second).exists()
    (Path(first) / "spilled").write_bytes(b"rows of somebody")
    assert told(store)[0].startswith("1 folder, ")
    third = Duck(scratch).connection
    assert not Path(first).exists()
    assert third.sql("SELECT 1").fetchall() == [(1,)]


def test_a_forked_process_leaves_the_folder_of_its_parent(store):
    with running(FORK) as (process, line):
        assert line == "0 True"
        assert process.stdout
        assert process.stdout.readline() == "0 False\n"
    assert len(list((store.home / "scratch").iterdir())) == 1  # our own


def test_what_does_not_fit_in_memory_needs_no_folder_until_then(tmp_path):
    (tmp_path / "scratch").touch()
    duck = Duck(tmp_path / "scratch")
    assert duck.connection.sql("SELECT 1").fetchall() == [(1,)]


def test_a_new_folder_that_others_remove_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    """Beside one that makes temporary folders, another removes what nobody holds, so that it meets folders in the making."""
    whole, met = os.open, []

    def slow(path: object, *arguments: int, **options: int) -> int:
        file = whole(path, *arguments, **options)
        if not met and str(path).endswith(".part/_making.lock"):
            met.append(path)
            shutil.rmtree(Path(str(path)).parent)
        return file

    monkeypatch.setattr(os, "open", slow)
    with folders.temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert met
    gc.collect()  # a lock that was not closed is told of now, as an error


def test_a_folder_that_is_being_made_is_not_taken_for_one_left_behind(tmp_path):
    part = tmp_path / ".work.0123abcd.part"
    part.mkdir()  # its maker has not locked it yet
    locked = []

    def lock():
        locked.append((part / "_making.lock").open())
        fcntl.flock(locked[0], fcntl.LOCK_EX)

    later = threading.Timer(0.02, lock)
    later.start()
    assert folders.abandoned(tmp_path) == []
    later.join()
    locked[0].close()
    assert folders.abandoned(tmp_path) == [part]


def test_a_closed_store_leaves_nothing_in_its_home_however_long_it_is_kept(tmp_path):
    duck = Duck(tmp_path / "scratch")
    duck.connection.execute("SELECT 1")
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    duck.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_stores_that_come_and_go_leave_no_open_files(store):
    def open_files() -> int:
        another = FeatureStore(store.home)
        another.groups.sample("spend", limit=1)
        another.core.registry.stamp()
        another.close()
        del another
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    first = open_files()
    assert [open_files() for _ in range(5)] == [first] * 5
