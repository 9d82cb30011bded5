"""What threads make once, they make once."""

import fcntl
import multiprocessing
import threading
import time

import pytest

from seeknal import FeatureStore, StoreError
from seeknal.system.locks import exclusive_lock, locked_cached_property


class Slow:
    """Counts how often its part is made."""

    made = 0

    @locked_cached_property
    def part(self) -> object:
        """Take a while."""
        self.made += 1
        time.sleep(0.05)
        return object()


def shared_lock(call, count=8):
    """Call something in many threads at once, and give what they were given."""
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


def test_a_part_is_made_by_one_thread_for_which_others_wait():
    slow = Slow()
    assert len(set(shared_lock(lambda: slow.part))) == 1
    assert slow.made == 1


def test_threads_that_use_a_store_first_share_its_parts():
    store = FeatureStore()
    assert len({id(one) for one in shared_lock(lambda: store.online_tables)}) == 1
    assert len({id(one) for one in shared_lock(lambda: store.engine)}) == 1


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
