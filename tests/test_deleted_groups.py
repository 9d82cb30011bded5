"""Groups that are deleted, or deleted and created again, while other sessions use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, event

from seeknal import (
    Entity,
    FeatureStore,
    Materialization,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.system.locks import is_unlocked

START = datetime(2024, 1, 1, tzinfo=UTC)


GROUP = FeatureGroup("g", Entity("user", ["user"]), Materialization("at", online=True))


pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


def frame(*numbers: int, **more: int) -> pa.Table:
    """Make a row per number, each of an entity and an event time of its own."""
    at = [START + timedelta(seconds=number) for number in numbers]
    columns = {"user": pa.array(numbers, pa.int64()), "at": at, "n": pa.array(numbers, pa.int64())}
    return pa.table(columns | {name: [value] * len(numbers) for name, value in more.items()})


def row(number: int) -> dict[str, object]:
    return {"user": number, "at": START + timedelta(seconds=number), "n": number}


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
