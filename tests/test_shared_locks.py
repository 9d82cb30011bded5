"""The locks of a home whose registry is in PostgreSQL: machines share them, and a process that dies holds nobody up."""

from __future__ import annotations

import threading
from typing import get_args

import pytest
from sqlalchemy import Engine, event

from contract.world import python, rows, written
from seeknal import FeatureStore, StoreError
from seeknal.system.locks import holds_exclusive
from seeknal.system.postgres import sessions
from seeknal.system.postgres.locks import check_held
from seeknal.system.storage import LockName, lock_of
from servers import wait_for
from test_registry import group_of

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("registry_kind", ["postgres"], indirect=True)]
NAMES = get_args(LockName)
HOLDER = """
import signal, sys
from seeknal import FeatureStore
lock = FeatureStore().core.storage.lock(sys.argv[1])
with getattr(lock, sys.argv[2])():
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def store(home) -> FeatureStore:
    """The store of the test's home."""
    found = FeatureStore(home)
    found.core.registry  # noqa: B018 - it is created
    return found


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
@pytest.mark.parametrize("name", NAMES)
def test_the_lock_of_a_process_that_is_killed_is_free_at_once(store, name, mode):
    lock = store.core.storage.lock(name)
    with python(HOLDER, name, mode) as process:
        assert process.stdout.readline() == "held\n"
        assert lock.try_exclusive() is None
        taken = threading.Event()

        def take() -> None:
            with lock.exclusive():
                taken.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        process.kill()
    assert taken.wait(60)
    waiting.join()


def test_a_lock_is_shared_by_any_number_or_held_by_one(store):
    lock, other = (store.core.storage.lock("groups") for _ in range(2))
    with lock.shared(), python(HOLDER, "groups", "shared") as process:
        assert process.stdout.readline() == "held\n"
        assert in_thread(other.try_exclusive) is None
        process.kill()
    with lock.exclusive():
        assert in_thread(other.try_exclusive) is None
        assert in_thread(store.core.storage.lock("turn").try_exclusive) is not None
    wait_for(lambda: in_thread(other.try_exclusive) is not None)


def in_thread(call):
    """Run a call in a thread of its own, and release what it took."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    if (held := found[0]) is not None:
        with held:
            pass
    return held


def test_a_thread_may_take_again_what_it_holds_but_never_tries_it_successfully(store):
    lock = store.core.storage.lock("saving")
    with lock.shared(), lock.shared():
        assert lock.try_exclusive() is None
        assert not holds_exclusive()
    assert not store.core.registry.sessions.holders()
    with lock.exclusive():
        assert holds_exclusive()
    assert not holds_exclusive()


def test_a_lock_is_released_with_its_object(store):
    lock = store.core.storage.lock("saving")
    held = lock.try_exclusive()
    with lock_of(store.settings.registry, "turn").shared():
        assert in_thread(lock.try_exclusive) is None
        del held
    wait_for(lambda: in_thread(lock.try_exclusive) is not None)
    held = lock.try_exclusive()
    del held
    wait_for(lambda: in_thread(lock.try_exclusive) is not None)


def test_waiting_for_a_lock_ends_with_an_error_that_names_it(store, monkeypatch):
    monkeypatch.setattr(sessions, "PATIENCE", 1)
    lock = store.core.storage.lock("deletions")
    with python(HOLDER, "deletions", "shared") as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            StoreError, match=r"Others have held the lock 'deletions' of the registry at .* for 1 seconds"
        ):
            lock.exclusive()
        with lock.shared():
            pass
        process.kill()


def test_threads_that_wait_for_each_other_are_told_and_not_left_waiting(store):
    first, second = (store.core.storage.lock(name) for name in ("groups", "tables"))
    ready, failed = threading.Barrier(2), []

    def take(one, other) -> None:
        try:
            with one.exclusive():
                ready.wait()
                with other.exclusive():
                    pass
        except StoreError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=take, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 1
    assert "deadlock detected" in failed[0]


def test_a_lost_lock_is_noticed_before_what_it_protects_is_committed(store, postgres):
    registry, lock = store.core.registry, store.core.storage.lock("groups")
    before = registry.stamp()
    with lock.exclusive():
        check_held()
        postgres.cut()
        with pytest.raises(StoreError, match=r"was lost, and the lock 'groups' with it.* Repeat the call"):
            registry.save_group(group_of("spend"))
        with pytest.raises(StoreError, match="was lost"):
            check_held()
    assert (registry.groups(), registry.stamp()) == ([], before)
    with lock.exclusive():
        registry.save_group(group_of("spend"))


def test_a_deletion_whose_lock_is_lost_deletes_nothing_and_can_be_repeated(store, postgres, home):
    written(rows(1))
    registry, cut = store.core.registry, []

    def lose(connection, cursor, statement, *rest):
        held = [name for one in registry.sessions.holders().values() for name in +one.counts]
        if {"deletions", "groups"} <= set(held) and "source_id = " in statement and not cut:
            cut.append(statement)
            postgres.cut()

    event.listen(Engine, "before_cursor_execute", lose)
    try:
        with pytest.raises(StoreError, match="was lost, and the lock 'deletions', 'groups' with it"):
            store.groups.delete("spend")
    finally:
        event.remove(Engine, "before_cursor_execute", lose)
    assert [one.name for one in registry.groups()] == ["spend"]
    assert FeatureStore(home).groups.sample("spend", limit=5)["x"].to_pylist() == [1]
    store.groups.delete("spend")
    assert registry.groups() == []
