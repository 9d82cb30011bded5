"""What threads make once, they make once."""

import threading
import time

from seeknal import FeatureStore
from seeknal.lock import once


class Slow:
    """Counts how often its part is made."""

    made = 0

    @once
    def part(self) -> object:
        """Take a while."""
        self.made += 1
        time.sleep(0.05)
        return object()


def together(call, count=8):
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
    assert len(set(together(lambda: slow.part))) == 1
    assert slow.made == 1


def test_threads_that_use_a_store_first_share_its_parts():
    store = FeatureStore()
    assert len({id(one) for one in together(lambda: store.online_tables)}) == 1
    assert len({id(one) for one in together(lambda: store.engine)}) == 1
