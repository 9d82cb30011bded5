"""Kill processes that push while readers look on, and check that what was acknowledged is there, once, offline and online.

    python scripts/kill_pushers.py [--seconds 300] [--pushers 2] [--seed N]

Pushers push numbered events to a source and numbered rows to a feature group, now and then the last ones again, and look up both
after each push. They report the number of each push before and after it. At a random moment one of them, or all, get SIGKILL. A
reader looks up windows over the source and the latest rows all the time: a count must never fall, and never exceed the number of
pushes that began. After each kill a new process must find every acknowledged push online before anything has committed it, then offline,
and none twice; and `verify` must find nothing different. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
from _writers import Broken, Writer, expect

from seeknal import (
    Count,
    Entity,
    FeatureLookup,
    FeatureStore,
    Last,
    Materialization,
    SeeknalWarning,
    Sum,
    WindowedGroup,
)
from seeknal.define.event_group import event_group
from seeknal.define.feature_group import FeatureGroup

PROJECT, TABLE = "kill", "pushed"
EVENTS = event_group("events", "at", ["id"], project=PROJECT)
ROWS = FeatureGroup("rows", Entity("pusher", ["pusher"]), Materialization("at", online=True), PROJECT)
WINDOWS = WindowedGroup(
    "windows",
    Entity("pusher", ["pusher"]),
    f"{PROJECT}/events",
    {"count": Count(), "sum": Sum("number"), "last": Last("number")},
    PROJECT,
)
LANDINGS = (
    "nothing in the log",
    "in the log",
    "taken, not committed",
    "committed, not recorded",
    "stored, not removed",
)
PUSHES = 10**6
"""The most pushes of one pusher; the id of an event is `pusher * PUSHES + number`."""
AIMS = ("any", "*.parquet", "_delta_log/*.json")


def event(pusher: int, number: int) -> dict[str, object]:
    """Return an event."""
    return {"id": pusher * PUSHES + number, "at": datetime.now(UTC), "pusher": pusher, "number": number}


def row(pusher: int, number: int) -> dict[str, object]:
    """Return a row of the feature group."""
    return {"pusher": pusher, "at": datetime.now(UTC), "latest": number}


def make(home: Path) -> None:
    """Create a home with a source, a group and an online table of both."""
    store = FeatureStore(home)
    store.groups.write(EVENTS, pa.Table.from_pylist([event(0, 1)]), mode="append")
    store.groups.write(ROWS, pa.Table.from_pylist([row(0, 1)]), mode="append")
    store.tables.serve([FeatureLookup(WINDOWS), FeatureLookup(f"{PROJECT}/rows", features=["latest"])], TABLE)
    store.close()


def be_a_pusher(jobs: Connection, says: Connection) -> None:
    """Push until killed, and report each push."""
    os.setsid()
    warnings.simplefilter("ignore", SeeknalWarning)
    job = jobs.recv()
    pusher, store = job["pusher"], FeatureStore(job["home"])
    table, chance = store.tables.open(TABLE), random.Random(pusher)
    for number in range(1, PUSHES):
        one, other = event(pusher, number), row(pusher, number)
        says.send(["begin", number])
        logged = [store.groups.push("events", one).snapshot, store.groups.push("rows", other).snapshot]
        says.send(["done", number, logged.count(None)])
        if not chance.randrange(20):
            for name, again in (("events", one), ("rows", other)):
                if (known := store.groups.push(name, again).known) != 1:
                    says.send(["wrong", f"push {number} to {name}, repeated, was known {known} times"])
        found = table.get_features([{"pusher": pusher}], "dicts")[0]
        if found != wanted(pusher, number):
            says.send(["wrong", f"after push {number} the pusher found {found}"])


def wanted(pusher: int, number: int) -> dict[str, int]:
    """Return what a lookup must find after a number of pushes."""
    return {"pusher": pusher, "count": number, "sum": number * (number + 1) // 2, "last": number, "latest": number}


def be_a_reader(jobs: Connection, says: Connection) -> None:
    """Look up all pushers until told to stop, and report each result that cannot be."""
    os.setsid()
    warnings.simplefilter("ignore", SeeknalWarning)
    table, before, looks = FeatureStore(jobs.recv()["home"]).tables.open(TABLE), dict[int, int](), 0
    pushers: list[int] = []
    says.send(["ready"])
    while True:
        while not pushers or jobs.poll():
            if not (pushers := jobs.recv()["pushers"]):
                says.send(["looked", looks])
                return
        for found in table.get_features([{"pusher": one} for one in pushers], "dicts"):
            pusher, count = found["pusher"], found["count"]
            numbers = {"count": count, "sum": found["sum"] or 0, "last": found["last"] or 0}
            if numbers != {name: wanted(pusher, count)[name] for name in numbers} or count < before.get(pusher, 0):
                says.send(["wrong", f"after {before.get(pusher, 0)} events a reader found {found}"])
            before[pusher] = count
        looks += 1


def landing(store: FeatureStore, name: str) -> str:
    """Return how far the pushes to a group had come, from the log of pushes and the table's log alone."""
    record = store.core.registry.group(PROJECT, name)
    assert record  # noqa: S101 - `make` has created it
    contents, newest = store.core.catalog.pushes.contents(record.stream), store.core.catalog.log(record).newest()
    if not contents.entries:
        return LANDINGS[0]
    taken = [batch for batch in contents.batches if not batch.stored]
    if taken:
        return LANDINGS[3 if newest >= taken[-1].snapshot else 2]
    return LANDINGS[4 if contents.entries[0].number <= contents.last_stored else 1]


def check(home: Path, pusher: int, acknowledged: int, begun: int) -> list[str]:
    """Check what a pusher pushed with a new store, online first; return where the kill found its pushes.

    Raises:
        Broken: An acknowledged push is missing, or a push is there twice.
    """
    store = FeatureStore(home)
    landed = [landing(store, name) for name in ("events", "rows")]
    table = store.tables.open(TABLE)
    online = table.get_features([{"pusher": pusher}], "dicts")[0]
    numbers = online["count"] or 0, online["latest"] or 0
    for what, number in zip(("events", "rows"), numbers, strict=True):
        expect(acknowledged <= number <= begun, f"{what}: {number} online, {acknowledged} to {begun} pushed")
    for name, column, number in zip(("events", "rows"), ("number", "latest"), numbers, strict=True):
        stored = store.groups.sample(name, project=PROJECT, limit=10**9)
        mine = sorted(one[column] for one in stored.to_pylist() if one["pusher"] == pusher)
        expect(mine == list(range(1, number + 1)), f"{name}: {len(mine)} stored, {number} online: {_odd(mine)}")
    verified = store.tables.verify(TABLE)
    expect(verified.equal, str(verified))
    store.close()
    return landed


def _odd(numbers: list[int]) -> str:
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    missing = set(range(1, max(numbers, default=0))) - set(numbers)
    return f"twice {twice[:9]}, missing {sorted(missing)[:9]}"


def wait_for_a_moment(home: Path, chance: random.Random) -> None:
    """Wait for a random moment, or for one soon after the next file or the next commit of a table."""
    folder, aim = home / "offline" / PROJECT / chance.choice(["events", "rows"]), chance.choice(AIMS)
    if aim == "any":
        time.sleep(chance.uniform(0, 1.5))
        return
    before, patience = set(folder.glob(aim)), time.monotonic() + 3
    while not set(folder.glob(aim)) - before and time.monotonic() < patience:
        time.sleep(0.0005)
    time.sleep(chance.choice([0, chance.uniform(0, 0.03), chance.uniform(0, 0.1)]))


def kill_some(home: Path, numbers: list[int], chance: random.Random, reader: Writer) -> Counter[str]:
    """Let some pushers push, kill them, and check everything; return what was counted."""
    pushers = {number: Writer(be_a_pusher) for number in numbers}
    for number, pusher in pushers.items():
        pusher.start(home=str(home), pusher=number)
    reader.start(pushers=numbers)
    for pusher in pushers.values():
        pusher.wait_for("done", chance.randrange(1, 30))
    wait_for_a_moment(home, chance)
    counted = Counter[str]()
    order = list(pushers.items())
    if chance.randrange(2):  # else one after the other, and the next one goes on with what the first has left
        for _, pusher in order:
            pusher.kill()
    for number, pusher in order:
        if pusher in Writer.running():
            pusher.kill()
        done, begun = pusher.said("done"), pusher.said("begin")
        expect(not pusher.said("wrong"), f"{pusher.said('wrong')}")
        counted.update(pushes=2 * len(done), logged=sum(one[1] for one in done), kills=1)
        if not (set(pushers.values()) & set(Writer.running())):
            counted.update(check(home, number, len(done), len(begun)))
    for number, pusher in order[:-1]:
        check(home, number, len(pusher.said("done")), len(pusher.said("begin")))
    return counted


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for how long to begin new rounds")
    parser.add_argument("--pushers", type=int, default=2, help="how many push at once")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments (timing stays the machine's)")
    given = parser.parse_args()
    seed = time.time_ns() % 10**6 if given.seed is None else given.seed
    chance, counted, rounds = random.Random(seed), Counter[str](), 0
    warnings.simplefilter("ignore", SeeknalWarning)
    print(f"Killing pushers for {given.seconds:g} seconds (seed {seed}) ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="seeknal-kill-", ignore_cleanup_errors=True) as name:
        home = Path(name).resolve() / "home"
        make(home)
        reader = Writer(be_a_reader)
        try:
            reader.start(home=str(home))
            reader.wait_for("ready")
            end = time.monotonic() + given.seconds
            while time.monotonic() < end:
                counted += kill_some(
                    home, [rounds * given.pushers + i + 1 for i in range(given.pushers)], chance, reader
                )
                rounds += 1
                if rounds % 10 == 0:
                    print(f"  {rounds} rounds, {counted['kills']} kills", flush=True)
            reader.start(pushers=[])
            reader.wait_for("looked")
            expect(not reader.said("wrong"), f"{reader.said('wrong')[:3]}")
        except Broken as error:
            print(f"BROKEN (round {rounds + 1}): {error}")
            return 1
        finally:
            Writer.kill_all()
    print(
        f"{counted['kills']} kills, {counted['pushes']:,} pushes acknowledged, {counted['logged']:,} of them through the log"
    )
    print(f"{reader.said('looked')[0][0]:,} lookups of the reader, none wrong")
    print("\n".join(f"  {counted[name]:>5} groups with their last pushes {name}" for name in LANDINGS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
