"""A process that gets SIGINT at random moments while it uses a home, and continues, as a notebook does.

python tests/interrupted.py HOME SEED     prints what was wrong after each interrupt, then "done", and ends when its input does
"""

from __future__ import annotations

import fcntl
import random
import shutil
import signal
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from time import monotonic

import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.home.backup import backup
from seeknal.join.inquiry import Inquiry
from seeknal.join.streaming import write_parquet
from seeknal.values.times import instant

USERS = 50
_TIMES = 6
_START = instant("2024-01-01")
_numbers = count(1)


def group(name: str) -> FeatureGroup:
    """Define a group."""
    return FeatureGroup(name, Entity("user", ["user"]), Materialization("at", online=True))


def rows(number: int) -> pa.Table:
    """Return the rows of one write; they contain its number."""
    at = pa.array([_START + number * 1_000_000] * USERS, pa.timestamp("us", "UTC"))
    return pa.table({"user": range(USERS), "at": at, "n": [number] * USERS})


def verbs(store: FeatureStore) -> dict[str, Callable[[], object]]:
    """Return the calls to interrupt."""
    lookups = [FeatureLookup("kept"), FeatureLookup("changed", rename={"n": "m"})]
    spine = rows(500).select(["user", "at"])
    pushed = [{"user": user, "at": "2024-01-01T00:00:00Z", "n": 0} for user in range(3)]
    copy, export = store.home.with_name("copy"), store.home.with_name("export.parquet")

    def back_up() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        backup(store, copy)

    return {
        "append": lambda: store.groups.write(group("kept"), rows(next(_numbers)), mode="append"),
        "merge": lambda: store.groups.write(group("kept"), rows(next(_numbers)), mode="merge"),
        "overwrite": lambda: store.groups.write(group("changed"), rows(next(_numbers)), mode="overwrite"),
        "push": lambda: store.groups.push("changed", pushed),
        "serve": lambda: store.tables.serve(lookups, "table"),
        "refresh": lambda: store.tables.refresh(["table"], full=True),
        "verify": lambda: store.tables.verify("table"),
        "erase": lambda: store.groups.erase("changed", {"user": 1}),
        "save": lambda: store.training_sets.save(f"set{next(_numbers)}", Inquiry(lookups, "spine", spine, "at")),
        "stream": lambda: store.features.stream(lookups, spine, "at").read_all(),
        "sample": lambda: store.groups.sample("kept", limit=5),
        "optimize": lambda: store.groups.optimize("kept", keep_days=0),
        "backup": back_up,
        "export": lambda: write_parquet(store.features.stream(lookups, spine, "at"), export),
    }


def locks(home: Path, spilling: Path) -> Iterator[str]:
    """Return the names of the locks that are held while no call runs, except that of the query engine's spill folder."""
    with closing(sqlite3.connect(home / "registry.db", timeout=0)) as db:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            yield f"registry.db: {error}"
    for path in (
        set(home.rglob("*.lock")) - set(home.rglob("_read.lock")) - set(spilling.iterdir())
    ):  # nobody waits for what a snapshot holds
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield str(path.relative_to(home))


def interrupted(verb: Callable[[], object], delay: float) -> BaseException | None:
    """Run a call, and interrupt it if it has not ended after a while."""
    main, done = threading.main_thread().ident, threading.Event()

    def interrupt() -> None:
        if not done.wait(delay) and main:
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        verb()
        done.set()
        thread.join()
    except BaseException as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


def say(line: str) -> None:
    """Print a line for the observing process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(home: Path, seed: str) -> None:
    """Run each call several times and interrupt it; keep the last error, as a notebook does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    chance, store = random.Random(seed), FeatureStore(home)
    for name in ("kept", "changed"):
        store.groups.write(group(name), rows(next(_numbers)))
    for name, verb in verbs(store).items():
        began = monotonic()
        verb()
        took = monotonic() - began
        for _ in range(_TIMES):
            sys.last_value = interrupted(verb, chance.random() * took)
            if not isinstance(sys.last_value, KeyboardInterrupt | None):
                say(f"{name}: {sys.last_value!r}")
            for lock in locks(home, store.core._duck._work.folder):  # noqa: SLF001 - it is open from the first write on
                say(f"{name}: {lock} is locked, after {sys.last_value!r}")
        store.groups.write(group("kept"), rows(next(_numbers)), mode="append")
    say("done")
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
