"""Threads that share an object compute each of its cached parts only once."""

import fcntl
import multiprocessing
import threading
import time
from typing import get_args

import pytest

from seeknal import FeatureStore, StoreError
from seeknal.system.locks import exclusive_lock, locked_cached_property
from seeknal.system.storage import Address, LocalStorage, LockName


class Slow:
    """Counts how often its part is computed."""

    made = 0

    @locked_cached_property
    def part(self) -> object:
        """Sleep, so that threads overlap."""
        self.made += 1
        time.sleep(0.05)
        return object()


def at_once(call, count=8):
    """Call a function in many threads at once, and return their results."""
    barrier, found = threading.Barrier(count), []

    def one():
        barrier.wait()
        found.append(call())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Waiting:
    """Its part waits for the part of another instance."""

    def __init__(self, other: "Waiting | None" = None) -> None:
        self.other, self.is_made = other, threading.Event()

    @locked_cached_property
    def part(self) -> bool:
        """Wait until the other instance computes its part."""
        self.is_made.set()
        return self.other is None or self.other.is_made.wait(60)


def test_instances_do_not_wait_for_each_other():
    first = Waiting()
    second = Waiting(first)
    waiting = threading.Thread(target=lambda: second.part)
    waiting.start()
    assert second.is_made.wait(60)
    assert first.part
    waiting.join()
    assert second.part
    assert not [name for name in vars(second) if "is made in" in name]


def test_a_cached_property_that_failed_is_computed_again_and_its_class_has_the_descriptor():
    class Fails:
        tries = 0

        @locked_cached_property
        def part(self) -> int:
            self.tries += 1
            if self.tries == 1:
                raise OSError("no")
            return self.tries

    one = Fails()
    with pytest.raises(OSError, match="no"):
        _ = one.part
    assert (one.part, one.part) == (2, 2)
    assert isinstance(Fails.part, locked_cached_property)


def test_one_thread_computes_a_cached_property_while_others_wait():
    slow = Slow()
    assert len(set(at_once(lambda: slow.part))) == 1
    assert slow.made == 1


def test_threads_that_use_a_store_first_share_its_parts():
    store = FeatureStore()
    assert len({id(one) for one in at_once(lambda: store.tables)}) == 1
    assert len({id(one) for one in at_once(store.core.engine)}) == 1


def test_a_lock_ends_though_a_process_was_forked_meanwhile(tmp_path):
    with exclusive_lock(tmp_path / "lock"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with (tmp_path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # once the child has closed what it inherited, long before it ends
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_lock_that_cannot_be_used_where_files_can_be_made_is_an_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(StoreError, match=r"The lock .*lock cannot be used"), exclusive_lock(tmp_path / "lock"):
        pass
    with exclusive_lock(tmp_path / "nowhere" / "lock"):
        pass


def test_folders_and_locks_have_the_names_of_all_releases(tmp_path):
    """Two releases that use a home at the same time keep out of each other's way."""
    storage = LocalStorage(Address(tmp_path))
    places = [storage.tables.at("shop", "spend"), storage.training_sets.at("shop/may-01234567"), storage.trash]
    named = [str(one) for one in places] + [str(storage.lock(name).path) for name in get_args(LockName)]
    assert [one.removeprefix(f"{tmp_path}/") for one in named] == [
        "offline/shop/spend",
        "datasets/shop/may-01234567",
        "trash",
        "_deletions.lock",
        "_groups.lock",
        "datasets/_saving.lock",
        "_tables.lock",
        "_turn.lock",
    ]
