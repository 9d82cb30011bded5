"""Kill processes that change event sources and tables of windowed features, and check that each change is made completely or not at all.

    python scripts/kill_sources.py [--kills 200] [--store lmdb|redis] [--seed 1]

A home has two sources, orders with an `event_id` and visits without one, a windowed group over each, and an online table of both
groups. Each operation runs in a process of its own, which gets SIGKILL at a random moment. A fresh process then compares the home
with a model: the events that count, the versions of the definition, and the windows of all customers, offline and online, which the
model computes in plain loops. All must be as before or as after the operation, and as after it if it had returned. Then the operation
is repeated, unless that would append visits twice, and after a refresh, the table must verify.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
from _events import (
    ASKED,
    KINDS,
    LOOKUPS,
    MINUTE,
    NOW,
    OLDEST,
    SOURCES,
    TABLE,
    Deed,
    Model,
    Rows,
    serve,
    spending,
    visiting,
    windows_of_orders,
    windows_of_visits,
)
from _writers import Broken, expect

from seeknal import FeatureStore, SeeknalWarning
from seeknal.home import doctor

CUSTOMERS = 30
LANDINGS = ("before", "not online", "after", "had ended")
fork = get_context("fork")


@dataclass(frozen=True)
class Expected:
    """What a home may have.

    Args:
        offline: The models that the rows and the definitions may be those of.
        online: The events that may be online, by source.
        customers: All customers that there ever were.
    """

    offline: Sequence[Model]
    online: Mapping[str, Sequence[Rows]]
    customers: Sequence[int]


def check(home: str, place: str | None, told: Connection, expected: Expected, refresh: bool) -> None:
    """Compare a home with what it may have; report what it has, offline and online."""
    store = FeatureStore(home, online_store=place)
    found = check_offline(store, expected)
    online, served = check_online(store, expected)
    if refresh:
        store.tables.refresh([TABLE])
        verified = store.tables.verify(TABLE)
        expect(verified.equal, f"after a refresh: {verified}")
        newest = replace(expected, online={name: [rows] for name, rows in found.rows.items()})
        online, served = check_online(store, newest)
        wrong = [one for one in doctor.examine(store) if not one.fine and one.what not in {"left behind", "free disk"}]
        expect(all("orphaned file" in one.found for one in wrong), f"doctor says {wrong}")
    with contextlib.closing(sqlite3.connect(Path(home) / "registry.db")) as db:
        expect(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the registry is corrupt")
    told.send(("found", replace(found, served=served), online))


def check_offline(store: FeatureStore, expected: Expected) -> Model:
    """Return the content of a home offline; raise Broken if it is none of the expected."""
    rows = {name: rows_of(store, name) for name in SOURCES}
    for name, found in rows.items():
        possible = [model.rows[name] for model in expected.offline]
        differences = [f"more {sorted(found - one)[:4]}, lost {sorted(one - found)[:4]}" for one in possible]
        expect(found in possible, f"{name} has other events: {differences}")
    definitions = store.core.registry.definitions(store.groups.get("spending"))
    current = next(one.number for one in definitions if one.is_current)
    models = [one for one in expected.offline if (len(one.lengths), one.current) == (len(definitions), current)]
    expect(models, f"spending has {len(definitions)} versions, of which {current} is current")
    same = [spending(length).is_same_as(one.text) for length, one in zip(models[0].lengths, definitions, strict=True)]
    expect(all(same), "a version of spending has another definition")
    found = replace(models[0], rows=rows)
    check_windows(store, found, [(customer, moment) for customer in expected.customers for moment in ASKED])
    return found


def rows_of(store: FeatureStore, name: str) -> Rows:
    """Return the events of a source that count."""
    found = store.groups.sample(name, limit=10**6)
    ago = ((NOW - found["at"].cast(pa.int64()).to_numpy()) // MINUTE).tolist()
    parts = (found["id"].to_pylist(), found["customer"].to_pylist(), ago, found["amount"].to_pylist())
    rows = frozenset(zip(*parts, strict=True))
    expect(store.groups.version(name).rows == len(found) == len(rows), f"{name} counts events twice")
    return rows


def check_windows(store: FeatureStore, model: Model, asked: Sequence[tuple[int, int]]) -> None:
    """Compare a training set with the windows of a model."""
    customers, moments = zip(*asked, strict=True)
    spine = pa.table({"customer": customers, "moment": pa.array(moments, pa.timestamp("us", "UTC"))})
    joined = store.features.training_set(LOOKUPS, spine, "moment").to_pylist()
    length = model.lengths[model.current - 1]
    for (customer, moment), row in zip(asked, joined, strict=True):
        wanted = windows_of_orders(model.rows["orders"], customer, moment, length)
        wanted += windows_of_visits(model.rows["visits"], customer, moment)
        expect(tuple(row.values())[2:] == wanted, f"{row} offline instead of {wanted}")


def check_online(store: FeatureStore, expected: Expected) -> tuple[dict[str, Rows], int]:
    """Return the events that the table answers from, and the length that it serves; raise Broken if they are none of the expected."""
    table, keys = store.tables.open(TABLE), [{"customer": one} for one in expected.customers]
    found = [(moment, table.get_features(keys, "dicts", at=moment)) for moment in ASKED]
    answers = [(at, row["customer"], tuple(row.values())[1:]) for at, rows in found for row in rows]

    def orders_fit(rows: Rows, length: int) -> bool:
        return all(values[:3] == windows_of_orders(rows, customer, at, length) for at, customer, values in answers)

    def visits_fit(rows: Rows) -> bool:
        return all(values[3:] == windows_of_visits(rows, customer, at) for at, customer, values in answers)

    lengths = dict.fromkeys(model.served for model in expected.offline)
    orders = [(rows, length) for length in lengths for rows in expected.online["orders"] if orders_fit(rows, length)]
    visits = [rows for rows in expected.online["visits"] if visits_fit(rows)]
    expect(orders, "the windows of orders online are none of those before or after")
    expect(visits, "the windows of visits online are none of those before or after")
    return {"orders": orders[0][0], "visits": visits[0]}, orders[0][1]


def furnish(home: str, place: str | None, _: Connection, deeds: Sequence[Deed]) -> None:
    """Create a home with events in both sources, and an online table."""
    store = FeatureStore(home, online_store=place)
    for deed in deeds:
        deed.do(store)
    store.groups.register(spending(60))
    store.groups.register(visiting())
    serve(store)


def carry_out(home: str, place: str | None, told: Connection, deed: Deed) -> None:
    """Execute an operation."""
    store = FeatureStore(home, online_store=place)
    store.core.engine()
    told.send(("begun",))
    began = time.monotonic()
    deed.do(store)
    told.send(("done", time.monotonic() - began))


def reporting(target: Callable[..., None], home: str, place: str | None, told: Connection, *arguments: Any) -> None:
    """Run a function, and report its error if it raises one."""
    warnings.simplefilter("ignore", SeeknalWarning)
    try:
        target(home, place, told, *arguments)
    except Broken as broken:
        told.send(("broken", str(broken)))
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        told.send(("broken", traceback.format_exc()))


@dataclass
class Trial:
    """A home in which operations are killed."""

    folder: Path
    place: str | None
    rng: random.Random
    homes: int = 0
    number: int = 0
    landed: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.3]))

    @property
    def killed(self) -> int:
        """The number of operations that did not end before they were killed."""
        return sum(count for (_, landing), count in self.landed.items() if landing != LANDINGS[3])

    def renew(self) -> None:
        """Continue in a new home."""
        self.homes += 1
        self.home = self.folder / f"home{self.homes}"
        self.customers = list(range(CUSTOMERS))
        deeds = [Deed("append", 0, name, self._rows(100)) for name in SOURCES]
        self.model = Model({deed.source: deed.rows for deed in deeds})
        self.online: dict[str, list[Rows]] = {name: [rows] for name, rows in self.model.rows.items()}
        said, _ = self._in_child(furnish, deeds)
        expect_sound(said)

    def _rows(self, count: int, ids: Sequence[int] = (), ago: int = 0) -> Rows:
        """Draw events of customers that were not erased, with the number of the deed as amount."""
        self.number += 1
        ids = ids or range(self.number * 1000, self.number * 1000 + count)
        living = self.customers[-CUSTOMERS:]
        return frozenset((one, self.rng.choice(living), self.rng.randint(ago, OLDEST), self.number) for one in ids)

    def _draw(self) -> Deed:
        """Draw the next operation."""
        kind, source = self.rng.choice(KINDS), self.rng.choice(list(SOURCES))
        orders, some = sorted(one[0] for one in self.model.rows["orders"]), self.rng.randint(1, 20)
        value, rows = self.rng.randint(OLDEST // 2, OLDEST - 1), frozenset()
        if kind == "erase":
            at = self.rng.randrange(len(self.customers) - CUSTOMERS, len(self.customers))
            value = self.customers[at]
            # A new customer takes the place of the erased one, of whom nothing is written any more.
            self.customers = [value, *self.customers[:at], *self.customers[at + 1 :], max(self.customers) + 1]
        elif kind == "roll back":
            value = self.rng.randint(1, len(self.model.lengths))
        elif kind == "correct":
            rows = self._rows(0, self.rng.sample(orders, min(some, len(orders)))) if orders else rows
        elif kind in {"append", "push", "overwrite"}:
            rows = self._rows(some, ago=value + 1 if kind == "overwrite" else 0)
        self.number += 1
        return Deed(kind, self.number, "orders" if kind in {"push", "correct"} else source, rows, value)

    def run(self) -> None:
        """Kill one operation, and check the home; then repeat the operation, and check again."""
        deed, before = self._draw(), self.model
        after = deed.after(before)
        said, was_killed = self._in_child(carry_out, deed, is_killed=True)
        try:
            self._account(deed, before, after, said, was_killed)
        except Broken as broken:
            self.landed[deed.kind, "FAILED"] += 1
            self.problems.append(f"{deed.kind} {deed.number} of {deed.source} in {self.home.name}: {broken}")
            print(f"  FAILED {self.problems[-1]}", flush=True)
            self.renew()

    def _account(self, deed: Deed, before: Model, after: Model, said: list[Any], was_killed: bool) -> None:
        """Check a home after an operation that was killed or not."""
        expect_sound(said)
        is_done = any(one[0] == "done" for one in said)
        for name in SOURCES:  # a push may load what was appended before, and nothing else
            loaded = [after.rows[name]] if is_done and deed.loads(name) else [before.rows[name], after.rows[name]]
            self.online[name] = [*loaded, *([] if is_done and deed.loads(name) else self.online[name])]
        found, online = self._check([after] if is_done else [before, after])
        is_new = (found.rows, found.lengths, found.current) == (after.rows, after.lengths, after.current)
        is_online = all(online[name] == after.rows[name] for name in SOURCES) and found.served == after.served
        landing = LANDINGS[3] if not was_killed else LANDINGS[0] if not is_new else LANDINGS[2 if is_online else 1]
        self.landed[deed.kind, landing] += 1
        if deed.is_repeatable or not is_new:
            said, _ = self._in_child(carry_out, deed)
            expect_sound(said)
            self.took[deed.kind] += [said[-1][1]] if not is_new or before == after else []
            for name in SOURCES:
                self.online[name] = [after.rows[name], *([] if deed.loads(name) else self.online[name])]
            found, _ = self._check([after])
        self.model = found

    def _check(self, offline: Sequence[Model]) -> tuple[Model, Mapping[str, Rows]]:
        """Check the home in a fresh process, now and then after a refresh."""
        expected, refresh = Expected(offline, self.online, self.customers), self.rng.choice((True, False))
        said, _ = self._in_child(check, expected, refresh)
        expect_sound(said)
        _, found, online = said[-1]
        self.online = {name: [rows] for name, rows in online.items()}
        return found, online

    def _in_child(
        self, target: Callable[..., None], *arguments: Any, is_killed: bool = False
    ) -> tuple[list[Any], bool]:
        """Run a function in a process; return its messages, and whether it was killed."""
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=reporting, args=(target, str(self.home), self.place, theirs, *arguments))
        process.start()
        theirs.close()
        said = []
        with contextlib.suppress(EOFError):
            while True:
                said.append(ours.recv())
                if said[-1] == ("begun",) and is_killed:
                    process.join(self._moment(arguments[0]))
                    process.kill()
        process.join()
        return said, process.exitcode == -signal.SIGKILL

    def _moment(self, deed: Deed) -> float:
        """Return how many seconds from now to kill an operation: at a random moment, or soon after its commit, which this waits for."""
        usual = sorted(self.took[deed.kind])[len(self.took[deed.kind]) // 2]
        if self.rng.choice((True, False)):
            return self.rng.uniform(0, 1.3 * usual)
        log = self.home / "offline" / "shop" / deed.source / "_delta_log"
        before, end = set(log.glob("*.json")), time.monotonic() + 2 * usual
        while set(log.glob("*.json")) <= before and time.monotonic() < end:
            time.sleep(0.0005)
        return self.rng.uniform(0, 0.3 * usual)


def expect_sound(said: list[Any]) -> None:
    """Raise Broken with what a process reported, if that was an error."""
    broken = [one[1] for one in said if one[0] == "broken"]
    expect(not broken, broken)


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store", choices=("lmdb", "redis"), default="lmdb")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        place = None
        if options.store == "redis":
            sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
            from servers import Valkey

            server = Valkey(Path(folder) / "valkey").start()
            servers.callback(server.stop)
            place = server.url
        trial = Trial(Path(folder), place, random.Random(options.seed))
        trial.renew()
        while (killed := trial.killed) < options.kills:
            trial.run()
            if trial.killed > killed and trial.killed % 20 == 0:
                print(f"  {trial.killed} killed", flush=True)
    print(f"{'':<10} {' '.join(f'{one:>12}' for one in LANDINGS)}")
    for kind in dict.fromkeys(KINDS):
        print(f"{kind:<10} {' '.join(f'{trial.landed[kind, one]:>12}' for one in LANDINGS)}")
    print(f"{options.store}: {killed} operations killed in {time.perf_counter() - started:.0f} s, {trial.homes} homes")
    print(f"promises broken: {len(trial.problems)}")
    for problem in trial.problems[:5]:
        print(problem)
    sys.exit(bool(trial.problems))


if __name__ == "__main__":
    main()
