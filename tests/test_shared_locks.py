"""The locks of a home whose registry is in PostgreSQL: machines share them, and a process that dies holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest
from sqlalchemy import Engine, event

from contract.world import python, rows, written
from seeknal import FeatureLookup, FeatureStore, StoreError
from seeknal.home.backup import backup
from seeknal.join.inquiry import Inquiry
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


@contextmanager
def holding(name: str, mode: str) -> Iterator[None]:
    """Let another process hold a lock; at the end of the block, it is killed."""
    with python(HOLDER, name, mode) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.kill()


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
    with holding(name, mode):
        assert lock.try_exclusive() is None
        taken = threading.Event()

        def take() -> None:
            with lock.exclusive():
                taken.set()

        waiting = threading.Thread(target=take)
        waiting.start()
    assert taken.wait(60)
    waiting.join()


CALLS = {
    ("deletions", "shared"): lambda store, folder: store.groups.delete("spend"),
    ("deletions", "exclusive"): lambda store, folder: backup(store, folder / "saved"),
    ("turn", "exclusive"): lambda store, folder: backup(store, folder / "saved"),
    ("turn", "shared"): lambda store, folder: store.groups.delete("spend"),
    ("groups", "exclusive"): lambda store, folder: written(rows(1), name="visits"),
    ("groups", "shared"): lambda store, folder: store.groups.delete("spend"),
    ("saving", "exclusive"): lambda store, folder: store.training_sets.save("t", Inquiry([FeatureLookup("spend")])),
    ("tables", "exclusive"): lambda store, folder: store.tables.serve([FeatureLookup("spend")], "t"),
}


@pytest.mark.parametrize(("name", "mode"), CALLS)
def test_a_call_waits_for_a_lock_that_a_process_elsewhere_holds(store, postgres, tmp_path, name, mode):
    written(rows(1))
    failed: list[Exception] = []

    def call() -> None:
        try:
            CALLS[name, mode](store, tmp_path)
        except Exception as error:  # noqa: BLE001 - the test fails with it
            failed.append(error)

    calling = threading.Thread(target=call)
    with holding(name, mode), postgres.client() as client:
        calling.start()
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_for(lambda: client.execute(waits).fetchone()[0] == 1)
    calling.join(60)
    assert (failed, calling.is_alive()) == ([], False)


def test_leftovers_of_a_training_set_that_another_process_saves_stay(store):
    written(rows(1))
    with holding("saving", "shared"):
        assert store.core.catalog.try_saved() is None
    wait_for(lambda: in_thread(store.core.catalog.try_saved) is not None)


def test_a_lock_is_shared_by_any_number_or_held_by_one(store):
    lock, other = (store.core.storage.lock("groups") for _ in range(2))
    with lock.shared(), holding("groups", "shared"):
        assert in_thread(other.try_exclusive) is None
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
    with holding("deletions", "shared"):
        with pytest.raises(
            StoreError, match=r"Others have held the lock 'deletions' of the registry at .* for 1 seconds"
        ):
            lock.exclusive()
        with lock.shared():
            pass


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
