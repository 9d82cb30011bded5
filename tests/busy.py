"""A home in use: what processes do in it all the time, and what has to hold of any home that was restored from it.

python tests/busy.py HOME ROLE      plays a role until a line comes in, and prints the number of each round that it has played
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning, StoreError
from seeknal.define.feature_group import FeatureGroup
from seeknal.join.inquiry import Inquiry
from seeknal.online import close_all
from seeknal.registry import GroupRecord
from seeknal.values.sql import quote
from seeknal.values.times import instant
from seeknal.write.erasures import digests

T = TypeVar("T")

USERS = 100
_SECOND = 1_000_000
_START = instant("2024-01-01")
_KEPT = 40


def expect(holds: object, text: str) -> None:
    """Check a condition.

    Raises:
        AssertionError: It does not hold.
    """
    if not holds:
        raise AssertionError(text)


def definition(name: str) -> FeatureGroup:
    """Define a group; all are keyed by user."""
    return FeatureGroup(name, Entity("user", ["user id"]), Materialization(event_time_col="at"), "shop")


def frame(number: int, users: range = range(USERS), **more: int) -> pa.Table:
    """Return the rows of a round; they contain its number."""
    at = pa.array(np.full(len(users), _START + number * _SECOND), pa.timestamp("us", "UTC"))
    columns = {"user id": list(users), "at": at, 'the "round"': np.full(len(users), number)}
    return pa.table(columns | {name: np.full(len(users), value) for name, value in more.items()})


def furnish(home: Path) -> None:
    """Create the home: two groups in one table, one with many versions, one that is created and deleted again."""
    store = FeatureStore(home)
    for name in ("first", "second", "versions"):
        store.groups.write(definition(name), frame(1))
    features = [FeatureLookup("shop/first"), FeatureLookup("shop/second", rename={'the "round"': "second's"})]
    store.tables.serve(features, "both")
    store.groups.load("versions")
    store.training_sets.save("kept", Inquiry(features), keep_rows=True)
    store.close()


def write(store: FeatureStore, number: int) -> None:
    """Write a round to one group and then to the other, so that the first is never behind."""
    store.groups.write(definition("first"), frame(number), mode="append")
    store.groups.write(definition("second"), frame(number), mode="merge")
    time.sleep(0.3)  # so that the home stays small enough to be looked at in a moment
    if number % _KEPT == 0:
        for name in ("first", "second"):
            store.groups.clean(name, _START + (number - _KEPT) * _SECOND)


def push_and_erase(store: FeatureStore, number: int) -> None:
    """Push a user, write on, and erase the user."""
    for later in (0, 1):
        store.groups.push("first", frame(number + later, range(10_000 + number, 10_001 + number)))
    store.groups.erase("first", {"user id": 10_000 + number}, delete_training_sets=True)


def tidy(store: FeatureStore, number: int) -> None:
    """Put files together, and remove those that nothing needs."""
    store.groups.optimize(["first", "second", "versions"][number % 3], keep_days=0)


def change(store: FeatureStore, number: int) -> None:
    """Create a version, roll back, save and delete a training set, create and delete a group."""
    store.groups.write(definition("versions"), frame(number, **{f"x{number % 2}": number}))
    store.groups.load("versions")
    if number % 3 == 0:
        store.groups.rollback("versions", 1)
        store.groups.load("versions", version=1)
    store.training_sets.save(f"set{number}", Inquiry([FeatureLookup("shop/versions")], "latest", at=_START * 2))
    store.groups.write(definition("passing"), frame(number))
    store.groups.load("passing")
    store.training_sets.delete(store.core.catalog.training_set(f"set{number}"))
    store.groups.delete("passing")


ROLES: dict[str, Callable[[FeatureStore, int], None]] = {
    "write": write,
    "push and erase": push_and_erase,
    "tidy": tidy,
    "change": change,
}


def play(home: str, role: str) -> None:
    """Repeat the calls of a role until a line arrives on stdin."""
    warnings.simplefilter("ignore", SeeknalWarning)
    store, told = FeatureStore(home), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    for number in count(2):
        with suppress(
            StoreError
        ):  # a load says so when the files that it reads are removed by keep_days=0 or an erasure
            ROLES[role](store, number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if told.is_set():
            return


@contextmanager
def in_use(home: Path) -> Iterator[dict[str, int]]:
    """Run a process for each role, and count how often each has run its calls.

    Raises:
        AssertionError: One of them failed.
    """
    rounds = dict.fromkeys(ROLES, 0)
    players: dict[str, subprocess.Popen[str]] = {}

    def listen(role: str) -> None:
        for line in players[role].stdout or ():
            rounds[role] = int(line)

    listeners = {role: threading.Thread(target=listen, args=[role]) for role in ROLES}
    with TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        try:
            for role, listener in listeners.items():
                players[role] = subprocess.Popen([sys.executable, __file__, str(home), role], text=True, **pipes)
                listener.start()
            yield rounds
            for role, player in players.items():
                assert player.poll() is None, f"{role} ended by itself: {_said(errors)}"
                player.stdin.write("enough\n")
                player.stdin.flush()
            for role, player in players.items():
                assert player.wait(timeout=300) == 0, f"{role}: {_said(errors)}"
        finally:
            for role, player in players.items():
                player.kill()
                player.wait()
                listeners[role].join()
                player.stdin.close()
                player.stdout.close()


def _said(errors: TextIO) -> str:
    errors.seek(0)
    return errors.read()[-5000:]


def check(home: Path) -> dict[str, int]:
    """See that a home is whole: every version, snapshot, table and training set.

    Returns:
        How many of what were looked at.

    Raises:
        AssertionError: Something is not as it has to be.
    """
    with closing(sqlite3.connect(home / "registry.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    store = FeatureStore(home)
    seen = dict.fromkeys(("versions", "snapshots", "tables", "values", "training sets", "erased"), 0)
    try:
        for record in store.core.registry.groups():
            _check_group(store, record, seen)
        for table in store.core.registry.tables():
            store.tables.refresh(
                [table.name], project=table.project
            )  # a backup may lie between a write and the load that moves its tables
            found = store.tables.verify(table.name, project=table.project)
            assert found.equal, str(found)
            seen["tables"] += 1
            seen["values"] += found.values
        for one in store.core.registry.training_sets():
            assert len(store.training_sets.reproduce(one)) == len(store.training_sets.rows(one)) == one.rows
            seen["training sets"] += 1
    finally:
        store.close()
        close_all()
    return seen


def _check_group(store: FeatureStore, record: GroupRecord, seen: dict[str, int]) -> None:
    if not store.core.catalog.offline(record.project, record.name).exists():
        assert store.core.registry.last_snapshot(record) == -1
        return
    for version in _some(store.core.catalog.versions(record)):
        assert store.groups.counts(record.name, version.number, project=record.project)[0] == version.rows
        seen["versions"] += 1
    root = store.core.catalog.offline(record.project, record.name).root
    for one in _some(store.core.registry.snapshots(record)):
        stored = store.core.catalog.stored(record, one.number, one.files)
        if stored.is_whole:
            rows = sum(_rows(root / file.path, file.below) for file in stored.files)
            assert rows == one.rows or one.files is not None, f"snapshot {one.number} of {record.label}"
            seen["snapshots"] += 1
    seen["erased"] += _check_erased(store, record, root)


def _some(every: Sequence[T]) -> list[T]:
    """Return the newest ones, which may still change, and a few of the others."""
    return [*random.sample(every[:-10], min(5, len(every[:-10]))), *every[-10:]]


def _rows(file: Path, below: int | None) -> int:
    """Count the rows of a file that a snapshot has: those with numbers below one, if that is known."""
    query = "SELECT count(*) FROM read_parquet($1) WHERE coalesce(_seeknal_row_id < $2, true)"
    return duckdb.execute(query, [str(file), below]).fetchall()[0][0]


def _check_erased(store: FeatureStore, record: GroupRecord, root: Path) -> int:
    """See that no file at all holds an entity that the registry says was erased."""
    erased = store.core.registry.erasures(record)
    if erased:
        schema = store.core.catalog.version(record).schema
        names = ", ".join(map(quote, schema.key_names))
        keys = duckdb.sql(f"SELECT DISTINCT {names} FROM read_parquet('{root}/*.parquet')").to_arrow_table()
        assert not erased.keys() & set(digests(keys.cast(pa.schema(schema.keys))))
    return len(erased)


def rounds_of(home: Path) -> tuple[int, int]:
    """Return the last rounds that the first and the second group have."""
    store = FeatureStore(home)
    try:
        tables = [
            store.features.history([FeatureLookup(f"shop/{name}")], output="arrow") for name in ("first", "second")
        ]
        return tuple(max(row['the "round"'] for row in t.to_pylist() if row["user id"] < USERS) for t in tables)
    finally:
        store.close()


if __name__ == "__main__":
    play(*sys.argv[1:])
