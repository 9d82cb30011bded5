"""Groups that are deleted, or deleted and created again, while other sessions use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, event

from seeknal import (
    Entity,
    FeatureLookup,
    FeatureStore,
    Materialization,
    SeeknalError,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.system.locks import is_unlocked

START = datetime(2024, 1, 1, tzinfo=UTC)


GROUP = FeatureGroup("g", Entity("user", ["user"]), Materialization("at", online=True))


OTHER = FeatureGroup("g", Entity("shop", ["shop"]), Materialization("day"))


pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


def frame(*numbers: int, **more: int) -> pa.Table:
    """Make a row per number, each of an entity and an event time of its own."""
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
        if left[0] <= 0 and all(map(is_unlocked, needed)):
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


"""What a call says that looks a name up only after the deletion."""


def furnish(store: FeatureStore) -> None:
    """Make a group with two versions, which is online."""
    store.groups.write(GROUP, frame(1, 2))
    store.groups.write(GROUP, frame(3, k=1), mode="append")
    store.groups.write(GROUP, frame(4), mode="append")


def clear(store: FeatureStore) -> None:
    """Delete the group with all that uses it, and check that nothing is left that stands in the way of another of its name."""
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


def error_of(call: Callable[[FeatureStore], object], store: FeatureStore) -> SeeknalError | None:
    try:
        call(store)
    except SeeknalError as error:
        return error
    return None


@pytest.mark.parametrize("name", ["append", "push", "load", "refresh", "serve"])
def test_rows_that_are_removed_from_the_online_store_during_a_load_are_loaded_again(home, name):
    store, other = FeatureStore(home), FeatureStore(home)
    for number in range(1, 40):
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
