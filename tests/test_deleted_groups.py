"""Groups that are deleted, or deleted and created again, while other sessions use them."""

from __future__ import annotations

import os
import random
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, event

from contract.profiles import NAME
from registries import alone_and_shared, both
from seeknal import (
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    Interval,
    Materialization,
    SeeknalError,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.errors import GroupDeletedError
from seeknal.offline import spare
from seeknal.system.locks import is_unlocked
from seeknal.system.postgres.sessions import every
from seeknal.values.times import DAY

START = datetime(2024, 1, 1, tzinfo=UTC)
GROUP = FeatureGroup("g", Entity("user", ["user"]), Materialization("at", online=True))
OTHER = FeatureGroup("g", Entity("shop", ["shop"]), Materialization("day"))
pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


def frame(*numbers: int, **more: int) -> pa.Table:
    """Return a row per number, each with an entity and an event time of its own."""
    at = [START + timedelta(seconds=number) for number in numbers]
    columns = {"user": pa.array(numbers, pa.int64()), "at": at, "n": pa.array(numbers, pa.int64())}
    return pa.table(columns | {name: [value] * len(numbers) for name, value in more.items()})


def row(number: int) -> dict[str, object]:
    return {"user": number, "at": START + timedelta(seconds=number), "n": number}


def stored(store: FeatureStore) -> set[int]:
    return set(store.groups.sample("g", limit=1000)["n"].to_pylist())


@contextmanager
def before_transaction(number: int, step: Callable[[], object], home: Path) -> Iterator[list[None]]:
    """Run a step just before the transaction of this number that the block begins, unless the block holds a lock that it needs.

    Yields:
        A list that has an item once the step was run.
    """
    left, done = [number], list[None]()

    def count(connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        if not statement.startswith("BEGIN") or done:
            return
        left[0] -= 1
        needed = [*home.glob("*.lock"), *home.glob("online/*.lock"), *home.glob("offline/*/*/_commit.lock")]
        if left[0] <= 0 and all(map(is_unlocked, needed)) and not any(one.holders() for one in every()):
            done.append(None)
            step()

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield done
    finally:
        event.remove(Engine, "before_cursor_execute", count)


CALLS: dict[str, Callable[[FeatureStore], object]] = {
    "append": lambda store: store.groups.write(GROUP, frame(7), mode="append"),
    "a new version": lambda store: store.groups.write(GROUP, frame(7, m=1), mode="append"),
    "another ttl": lambda store: store.groups.write(
        FeatureGroup("g", GROUP.entity, Materialization("at", ttl=timedelta(days=36500), online=True)),
        frame(7),
        mode="merge",
    ),
    "push": lambda store: store.groups.push("g", row(7)),
    "load": lambda store: store.groups.load("g"),
    "refresh": lambda store: store.tables.refresh(["g"], full=True),
    "serve": lambda store: store.tables.serve([FeatureLookup("g", features=["n"])], "table"),
    "rollback": lambda store: store.groups.rollback("g", 1),
    "clean": lambda store: store.groups.clean("g", 1_704_067_201_500_000),
    "optimize": lambda store: store.groups.optimize("g", keep_days=0),
    "erase": lambda store: store.groups.erase("g", {"user": 1}),
    "delete": lambda store: store.groups.delete("g"),
}
GONE = re.compile(
    "No (feature group|online table) named|Feature group 'g' has no version|Version 1 of default/g is the current"
)
"""The errors of calls that look a name up after the deletion."""
OFTEN = {"append", "push", "load", "delete"}
"""The calls that the short run covers."""
WRITES = {"append", "a new version", "another ttl", "push"}


@pytest.fixture
def numbers(storage: str) -> range:
    """Which transactions of a call are tried: each run begins with another one, and leaves out some; only the long one tries all."""
    step = {"fast": 5, "long": 1}.get(NAME, 2 if storage == "folder" else 5)
    return range(random.Random(os.environ["SEEKNAL_TEST_SEED"]).randint(1, step), 40, step)


def furnish(store: FeatureStore) -> None:
    """Make a group with two versions, which is online."""
    store.groups.write(GROUP, frame(1, 2))
    store.groups.write(GROUP, frame(3, k=1), mode="append")
    store.groups.write(GROUP, frame(4), mode="append")


def clear(store: FeatureStore) -> None:
    """Delete the group with everything that uses it, and check that nothing is left that would obstruct a new group of its name."""
    for table in store.tables.all():
        store.tables.delete(table.name)
    for record in store.groups.all():
        store.groups.delete(record.name)
    assert not list(store.home.glob("offline/*/*"))
    assert not list(store.home.glob("trash/*"))
    for number in range(1, 5):
        with pytest.raises(KeyError):
            store.core.stores.connect("").get(f"default/g/{number}", [])
    store.groups.write(OTHER, pa.table({"shop": ["a"], "day": [START], "n": [9]}))
    assert stored(store) == {9}
    store.groups.delete("g")


@alone_and_shared
@pytest.mark.parametrize("is_created_again", [False, True], ids=["deleted", "created again"])
@pytest.mark.parametrize("name", [one if one in OFTEN else pytest.param(one, marks=pytest.mark.slow) for one in CALLS])
def test_a_group_that_is_deleted_during_a_call_leaves_nothing_and_loses_nothing_of_the_next_one(
    home, name, is_created_again, numbers
):
    store, other = FeatureStore(home), FeatureStore(home)

    def delete() -> None:
        for table in other.tables.all():
            if table.name != "g":
                other.tables.delete(table.name)
        other.groups.delete("g")
        if is_created_again:
            other.groups.write(GROUP, frame(8))
            other.groups.write(GROUP, frame(9), mode="append")

    for number in numbers:
        furnish(store)
        with before_transaction(number, delete, home) as done:
            error = error_of(CALLS[name], store)
        if done:
            check(store, name, error, {8, 9} if is_created_again else set())
        clear(store)
        if not done:
            break
    assert number > 2


def error_of(call: Callable[[FeatureStore], object], store: FeatureStore) -> SeeknalError | None:
    try:
        call(store)
    except SeeknalError as error:
        return error
    return None


def check(store: FeatureStore, name: str, error: SeeknalError | None, new: set[int]) -> None:
    """Check the state after a call during which the group was deleted and created again with new rows."""
    exists = bool(store.groups.all())
    found = stored(store) if exists else set()
    if not (name == "delete" and error is None):
        assert found >= new
    assert found <= new | {7}
    if name in WRITES:
        assert (7 in found) == (error is None), error
    assert error is None or isinstance(error, GroupDeletedError) or GONE.match(str(error)), error
    if exists:
        assert set(store.tables.open("g").get_features([{"user": one} for one in found])["n"]) == found


@alone_and_shared
@pytest.mark.parametrize("name", ["append", "push", "load", "refresh", "serve"])
def test_rows_that_are_removed_from_the_online_store_during_a_load_are_loaded_again(home, name, numbers):
    store, other = FeatureStore(home), FeatureStore(home)
    for number in numbers:
        furnish(store)
        with before_transaction(number, lambda: other.tables.delete("g"), home) as done:
            error = error_of(CALLS[name], store)
        assert error is None or (name == "refresh" and GONE.match(str(error)))  # what it refreshes may be gone
        if not done:
            break
        store.groups.load("g")
        assert all(store.tables.verify(table.name).equal for table in store.tables.all())
        clear(store)
    assert number > 2


@both
def test_a_record_of_a_deleted_group_never_stands_for_another_one(home):
    store = FeatureStore(home)
    store.groups.write(GROUP, frame(1))
    record, deletion = store.groups.get("g"), store.projects.deletion("default")
    store.groups.delete("g")
    store.groups.write(GROUP, frame(2))
    assert store.groups.get("g").id != record.id
    registry = store.core.registry
    with pytest.raises(GroupDeletedError, match="'default/g' was deleted in the meantime"):
        deletion.run()
    for step in (
        lambda: registry.add_commits(record, []),
        lambda: registry.begin_loads(record, 1, [("", Interval())]),
        lambda: registry.add_erasure(record, "digest", 1),
        lambda: store.core.catalog.state_of(record),
        lambda: store.core.catalog.catch_up(record),
    ):
        with pytest.raises(GroupDeletedError):
            step()
    assert registry.delete_group(record) == []
    assert stored(store) == {2}
    assert store.groups.loads("g")
    assert [one.name for one in store.entities.all()] == ["user"]


@both
def test_a_load_never_ends_the_record_of_another_one_that_was_begun_after_its_own_was_removed(home):
    store = FeatureStore(home)
    store.groups.write(OTHER, pa.table({"shop": ["a"], "day": [START], "n": [9]}))
    record, registry = store.groups.get("g"), store.core.registry
    first, second = Interval(0, 1), Interval(2, 3)
    (begun,) = registry.begin_loads(record, 1, [("", first)])
    registry.forget_loads(record, 1, [""])
    registry.begin_loads(record, 1, [("", second)])
    assert not registry.end_loads(record, 1, [("", first, begun)], 1, 1, 0.1)
    assert [load.snapshot for load in registry.loads(record)] == [None]


@both
def test_a_table_that_appears_during_its_lookup_is_found_or_unknown(home):
    store, other = FeatureStore(home), FeatureStore(home)
    store.groups.write(GROUP, frame(1))
    for call in (
        lambda: store.tables.get("late"),
        lambda: store.groups.get("late"),
        lambda: store.groups.push("late", row(2)),
    ):
        with before_transaction(2, lambda: make_late(other), home) as done:
            call()
        assert done
        store.tables.delete("late")
        store.groups.delete("late")


def make_late(store: FeatureStore) -> None:
    """Make a group, and an online table of its name."""
    store.groups.write(FeatureGroup("late", GROUP.entity, GROUP.materialization), frame(1))


def test_a_reader_of_a_deleted_table_takes_no_protection_from_the_readers_of_the_next_one(home):
    store = FeatureStore(home)
    store.groups.write(OTHER, pa.table({"shop": ["a"], "day": [START], "n": [9]}))
    catalog = store.core.catalog
    old = catalog.read(store.groups.get("g"))
    store.groups.delete("g")
    store.groups.write(OTHER, pa.table({"shop": ["b"], "day": [START], "n": [10]}))
    new = catalog.read(store.groups.get("g"))
    assert not is_unlocked(home / "offline" / "default" / "g" / "_read.lock")
    del old, new


class Oracle:
    """The writes that sessions were told are stored, and the times at which deletions began and ended, by one clock.

    A session notes the clock before and after each of its calls. A row has to be stored if its call ended well and began after the
    last deletion ended; it must not be stored if its call ended before the last deletion began, or if the call failed before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self.rows: dict[int, tuple[int, int]] = {}
        self.deletions: list[tuple[int, int]] = []
        self.wrong: list[BaseException] = []
        """Errors other than that the group was deleted."""

    def tick(self) -> int:
        with self._lock:
            self._clock += 1
            return self._clock

    def needed(self) -> set[int]:
        ended = max((end for _, end in self.deletions), default=0)
        return {number for number, (begun, _) in self.rows.items() if begun > ended}

    def possible(self) -> set[int]:
        begun = max((begun for begun, _ in self.deletions), default=0)
        return {number for number, (_, ended) in self.rows.items() if ended > begun}


def verbs(store: FeatureStore, number: int) -> dict[str, Callable[[], object]]:
    """Return the calls of a session by name. `number` identifies the row to write."""
    only = START + timedelta(seconds=number)
    spine = pa.table({"user": [number - 1], "asked": [START + timedelta(days=1)]})
    return {
        "append": lambda: store.groups.write(GROUP, frame(number), mode="append"),
        "merge": lambda: store.groups.write(GROUP, frame(number), mode="merge"),
        "overwrite": lambda: store.groups.write(GROUP, frame(number), interval=Interval.between(only, only)),
        "push": lambda: store.groups.push("g", row(number)),
        "delete": lambda: store.groups.delete("g"),
        "load": lambda: store.groups.load("g"),
        "optimize": lambda: store.groups.optimize("g"),
        "join": lambda: store.features.training_set([FeatureLookup("g")], spine, "asked"),
        "lookup": lambda: store.tables.open("g").get_features([{"user": number - 1}]),
    }


def act(verb: str, step: Callable[[], object], oracle: Oracle, number: int) -> None:
    """Make one call on the group, and record its outcome."""
    begun = oracle.tick()
    try:
        step()
    except DefinitionError as error:
        # A write creates the group again. It fails only if the group was deleted after the commit.
        if verb in {"append", "merge", "overwrite"} and not isinstance(error, GroupDeletedError):
            oracle.wrong.append(error)
    except Exception as error:  # noqa: BLE001 - the test names all that are wrong
        oracle.wrong.append(error)
    else:
        if verb == "delete":
            oracle.deletions.append((begun, oracle.tick()))
        elif verb in {"append", "merge", "overwrite", "push"}:
            oracle.rows[number] = begun, oracle.tick()


@alone_and_shared
@pytest.mark.parametrize("seed", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_sessions_that_write_and_delete_one_group_at_random_lose_nothing_and_leave_nothing(home, seed, monkeypatch):
    monkeypatch.setattr(spare, "GRACE", DAY)  # a vacuum in an object store relies on it while others write
    oracle = Oracle()

    def session(who: int) -> None:
        store, choose = FeatureStore(home), random.Random(f"{seed} {who}")
        for number in range(1000 * who + 1, 1000 * who + 21):
            every = verbs(store, number)
            verb = choose.choice([*every, "append", "push", "delete"])
            act(verb, every[verb], oracle, number)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=session, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not oracle.wrong, oracle.wrong
    store = FeatureStore(home)
    found = stored(store) if store.groups.all() else set()
    assert oracle.needed() <= found <= oracle.possible()
    clear(store)
