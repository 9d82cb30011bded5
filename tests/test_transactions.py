"""The number of registry transactions of common calls; each transaction opens the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, event

from registries import both
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

pytestmark = both
GROUP = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at", online=True))


def moment(day: int) -> datetime:
    return datetime(2024, 1, day, tzinfo=UTC)


def frame(day: int) -> pa.Table:
    return pa.table({"user_id": [1, 2], "at": [moment(day)] * 2, "x": [day, day]})


def event_of(day: int) -> dict[str, object]:
    return {"user_id": 1, "at": moment(day), "x": day}


KINDS = {
    "BEGIN": "reads",
    "BEGIN IMMEDIATE": "writes",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY": "reads",
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE": "writes",
}


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the transactions that read and those that write, and the other statements."""
    found: Counter[str] = Counter()

    def count(connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        found[KINDS.get(statement.partition(";")[0], "statements")] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@pytest.fixture
def store() -> FeatureStore:
    """A store whose group is online and in use."""
    made = FeatureStore()
    made.groups.write(GROUP, frame(1), mode="append")
    made.groups.write(GROUP, frame(2), mode="append")
    made.groups.push("spend", event_of(3))
    return made


CALLS: list[tuple[str, Callable[[FeatureStore], object], int, int]] = [
    ("append", lambda store: store.groups.write(GROUP, frame(4), mode="append"), 3, 2),
    (
        "push",
        lambda store: store.groups.push("spend", event_of(5)),
        4,
        2,
    ),  # a late row: one read tells that it has to be committed at once
    ("replay", lambda store: store.groups.push("spend", event_of(3)), 4, 2),
    (
        "serve",
        lambda store: store.tables.serve([FeatureLookup("spend")], "t"),
        7,
        3,
    ),  # two and one of these are of the view
    ("join", lambda store: store.features.training_set([FeatureLookup("spend")], frame(9).drop("x"), "at"), 1, 0),
    ("open", lambda store: store.tables.open("spend"), 3, 0),  # one reads the view, which may have defaults
]


@pytest.mark.parametrize(("call", "reads", "writes"), [one[1:] for one in CALLS], ids=[one[0] for one in CALLS])
def test_a_call_makes_few_transactions_however_many_snapshots_there_are(store, call, reads, writes):
    for day in range(10, 20):
        FeatureStore().groups.push("spend", event_of(day))  # the first push of a store is committed at once
    with counted() as few:
        call(store)
    assert few["reads"] <= reads
    assert few["writes"] <= writes


def test_the_statements_of_a_push_do_not_grow_with_the_snapshots(store):
    with counted() as before:
        FeatureStore().groups.push("spend", event_of(4))
    for hour in range(30):
        FeatureStore().groups.push("spend", event_of(5) | {"at": moment(5).replace(hour=hour % 24, minute=hour)})
    with counted() as after:
        FeatureStore().groups.push("spend", event_of(6))
    assert after == before
