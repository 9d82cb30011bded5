"""Fill the disk at random moments of pushes, writes, loads, erasures and registry writes, and check that nothing is lost or misreported.

    python scripts/fill_disks.py [--deeds 300] [--seed 1]

The home is on a small tmpfs (without the right to mount one: under a limit on the size of files). Each operation runs in a
child process. At a random moment, the disk is filled except for a few kilobytes. The process reports whether the operation
succeeded or failed, and with which error. If it succeeded, the process looks up what must be online while the disk is still
full. Then space is freed, and another process compares the home with the expected content: every row, the counts, the online
values, the tokens and the description. A failed operation must be stored if and only if the error says so. A successful one
must be stored and online, and must verify without a refresh. After a refresh, everything must verify. No erased entity may be
found anywhere.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
from kill_writers import Disk

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning, StoreError
from seeknal.define.feature_group import FeatureGroup
from seeknal.values.times import instant

USERS, SECOND, KEPT = 200, 1_000_000, 20
START = instant("2024-01-01")
TABLE = "answers"

fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Reckoning:
    """The expected content of a home.

    Args:
        rows: The rows, as (user, number).
        tokens: The names of the valid tokens.
        description: The description of the group.
        erased: The users that were ever erased.
        gone: Those of them that no write has brought back.
    """

    rows: frozenset[tuple[int, int]] = frozenset()
    tokens: frozenset[str] = frozenset()
    description: str = "made"
    erased: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    def newest(self) -> dict[int, int]:
        """Return the number of the newest row of each user."""
        return dict(sorted(self.rows))


@dataclass(frozen=True)
class Deed:
    """An operation on a home: its kind, its number, and the users that it concerns."""

    kind: str
    number: int
    users: tuple[int, ...] = ()

    def frame(self) -> pa.Table:
        """Return a row of each user, dated `number` seconds after the start."""
        at = pa.array([START + self.number * SECOND] * len(self.users), pa.timestamp("us", "UTC"))
        return pa.table(
            {"user": self.users, "at": at, "x": [self.number] * len(self.users), "text": ["x" * 200] * len(at)}
        )

    def after(self, before: Reckoning) -> Reckoning:
        """Return the expected content after the operation."""
        new = frozenset((user, self.number) for user in self.users)
        # A push leaves out rows that are dated before the erasure of their entity.
        taken = frozenset(row for row in new if row[0] not in before.erased)
        if self.kind == "erase":
            left = frozenset(row for row in before.rows if row[0] not in self.users)
            return replace(before, rows=left, erased=before.erased | {*self.users}, gone=before.gone | {*self.users})
        rows = {
            "push": before.rows | taken,
            "append": before.rows | new,
            "overwrite": new,
            "clean": frozenset(row for row in before.rows if row[1] >= self.number - KEPT),
        }
        tokens = {"token": before.tokens | {f"t{self.number}"}, "revoke": frozenset(sorted(before.tokens)[1:])}
        return replace(
            before,
            gone=before.gone - set(self.users) if self.kind in {"append", "overwrite"} else before.gone,
            rows=rows.get(self.kind, before.rows),
            tokens=tokens.get(self.kind, before.tokens),
            description=f"of {self.number}" if self.kind == "describe" else before.description,
        )

    def do(self, store: FeatureStore) -> None:
        """Execute the operation."""
        steps: Mapping[str, Callable[[], object]] = {
            "push": lambda: store.groups.push("spend", self.frame()),
            "append": lambda: store.groups.write(group(), self.frame(), mode="append"),
            "overwrite": lambda: store.groups.write(group(), self.frame()),
            "clean": lambda: store.groups.clean("spend", START + (self.number - KEPT) * SECOND),
            "erase": lambda: store.groups.erase("spend", {"user": self.users[0]}, delete_training_sets=True),
            "load": lambda: store.tables.refresh([TABLE], full=self.number % 2 == 0),
            "optimize": lambda: store.groups.optimize("spend", keep_days=0),
            "token": lambda: store.tokens.create(f"t{self.number}", "shop", ["read"]),
            "revoke": lambda: revoke(store),
            "describe": lambda: store.groups.register(group(f"of {self.number}")),
        }
        steps[self.kind]()


STORED = ("is stored offline", "went offline", "is erased from", "is registered")
"""Texts of errors that say that the operation is complete except for the online store."""
ONLINE = {"push", "append", "overwrite", "clean", "erase", "load"}
WEIGHTS = {"push": 8, "append": 4, "overwrite": 1, "clean": 1, "erase": 3, "load": 3, "optimize": 1} | dict.fromkeys(
    ("token", "revoke", "describe"), 1
)


def group(description: str | None = None) -> FeatureGroup:
    """Return the definition of the group, which every write loads online."""
    dated = Materialization(event_time_col="at", online=True)
    return FeatureGroup("spend", Entity("user", ["user"]), dated, "shop", description)


def revoke(store: FeatureStore) -> None:
    """Revoke the first token, if there is one."""
    for name in sorted(one.name for one in store.tokens.all() if one.revoked_at is None)[:1]:
        store.tokens.revoke(name)


def online(store: FeatureStore) -> dict[int, int]:
    """Look up all users; return the number in the row of each one that is found."""
    answers = store.tables.open(TABLE).get_features([{"user": user} for user in range(USERS)], "dicts")
    return {row["user"]: row["x"] for row in answers if row["x"] is not None}


def furnish(home: str, _: Connection) -> None:
    """Create a home with a row of each user."""
    store = FeatureStore(home)
    store.groups.register(group("made"))
    store.groups.write(group(), Deed("append", 1, tuple(range(USERS))).frame())
    store.tables.serve([FeatureLookup(group())], TABLE)


def carry_out(home: str, told: Connection, deed: Deed, expected: Reckoning) -> None:
    """Execute an operation, and report its outcome. If it succeeded, check what is online while the disk is still full."""
    store = FeatureStore(home)
    told.send("begun")
    try:
        deed.do(store)
    except StoreError as error:
        told.send(("refused", str(error)))
        return
    wrong = deed.kind in ONLINE and online(store) != expected.newest()
    told.send(("broken", f"{deed.kind} was acknowledged, and is not online") if wrong else ("done", ""))


def check(home: str, told: Connection, expected: Reckoning, is_online: bool) -> None:
    """Compare a home with the expected content."""
    store = FeatureStore(home)
    stored = (
        store.features.latest([FeatureLookup("spend")], output="arrow")
        if expected.rows
        else pa.table({"user": [], "x": []})
    )
    every = store.features.history([FeatureLookup("spend")], output="arrow")
    record = store.core.catalog.group("spend")
    noted, last = store.core.registry.last_snapshot(record), store.groups.version("spend").snapshot
    found = {
        "rows": frozenset(zip(every["user"].to_pylist(), every["x"].to_pylist(), strict=True)) == expected.rows,
        "counted rows": store.groups.version("spend").rows == len(expected.rows),
        "latest rows": dict(zip(stored["user"].to_pylist(), stored["x"].to_pylist(), strict=True)) == expected.newest(),
        "notes of the registry": noted >= last,
        "tokens": {one.name for one in store.tokens.all() if one.revoked_at is None} == expected.tokens,
        "the description": record.group.description == expected.description,
        "what is online, as it was left": not is_online
        or (store.tables.verify(TABLE).equal and online(store) == expected.newest()),
        "erased entities online": not expected.gone & online(store).keys(),
    }
    store.tables.refresh([TABLE])
    found["what is online after a refresh"] = store.tables.verify(TABLE).equal and online(store) == expected.newest()
    rows = frozenset(zip(every["user"].to_pylist(), every["x"].to_pylist(), strict=True))
    lost, more = sorted(expected.rows - rows)[:5], sorted(rows - expected.rows)[:5]
    details = (
        f" (lost, among others, {lost}; more, {more}, of which erased {expected.erased & {user for user, _ in more}})"
    )
    told.send([name + details * (name == "rows") for name, holds in found.items() if not holds])


def in_child(
    target: Callable[..., None], home: Path, *arguments: Any, during: Callable[[], None] = lambda: None
) -> list[Any]:
    """Run a function in a child process; return all its messages."""
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_reporting, args=(target, str(home), theirs, *arguments))
    process.start()
    theirs.close()
    said = []
    try:
        while True:
            said.append(ours.recv())
            if said[-1] == "begun":
                during()
    except EOFError:
        process.join()
    if process.exitcode:
        said.append(("broken", f"the process ended with {process.exitcode}"))
    return said


def _reporting(target: Callable[..., None], home: str, told: Connection, *arguments: Any) -> None:
    warnings.simplefilter("ignore", SeeknalWarning)
    try:
        target(home, told, *arguments)
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        told.send(("broken", traceback.format_exc()))


@dataclass
class Trial:
    """A home on a disk that is filled from time to time."""

    disk: Disk
    rng: random.Random
    homes: int = 0
    number: int = 1
    expected: Reckoning = field(default_factory=Reckoning)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def renew(self) -> None:
        """Continue in a new home."""
        shutil.rmtree(self.disk.folder / f"home{self.homes}", ignore_errors=True)
        self.homes += 1
        self.home = self.disk.folder / f"home{self.homes}"
        in_child(furnish, self.home)
        self.expected = Reckoning(frozenset((user, 1) for user in range(USERS)))

    def run(self) -> None:
        """Execute one operation on a disk that fills up meanwhile, and check the home."""
        self.number += 1
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        most = {"push": 20, "append": USERS, "overwrite": USERS, "erase": 1}.get(kind, 0)
        users = self.rng.sample(range(USERS), self.rng.randint(1, most)) if most else []
        deed = Deed(kind, self.number, tuple(sorted(users)))
        after = deed.after(self.expected)
        moment, left = self.rng.choice((0, self.rng.uniform(0, 0.4))), self.rng.choice((0, 4, 8, 16, 40, 100, 300))
        how, words = self._carry_out(deed, after, moment, left)
        self.ends[kind, how] += 1
        if how == "done" or any(one in words for one in STORED):
            self.expected = after
        broken = [words] if how == "broken" else []
        broken += self._problems(is_online=how == "done" and kind in ONLINE)
        if kind == "erase" and self.expected != after:
            # A refused erasure may be remembered, so that later pushes leave out the entity's past: do as the error says.
            self.expected, (_, (how_again, words_again)) = after, in_child(carry_out, self.home, deed, after)
            broken += [words_again] if how_again != "done" else self._problems(is_online=True)
        if broken:
            self.problems.append(
                f"{kind} {self.number} was {how} ({words}), {left} KB left after {moment:.2f} s: {broken}"
            )
            self.renew()

    def _problems(self, *, is_online: bool) -> list[str]:
        """Return how the home differs from what is expected."""
        found = in_child(check, self.home, self.expected, is_online)
        return [
            problem
            for one in found
            for problem in ([one[1]] if isinstance(one, tuple) else [f"not as reckoned: {name}" for name in one])
        ]

    def _carry_out(self, deed: Deed, after: Reckoning, moment: float, left: int) -> tuple[str, str]:
        full = self.disk.full_but_for(left)
        told: dict[str, int] = {}

        def fill() -> None:
            time.sleep(moment)
            told.update(full.__enter__())

        if self.disk.mounted:
            said = in_child(carry_out, self.home, deed, after, during=fill)
            full.__exit__(None, None, None)
        else:
            said = in_child(_limited, self.home, deed, after, moment, left)
        return next((one for one in said if isinstance(one, tuple)), ("broken", "it said nothing"))


def _limited(home: str, told: Connection, deed: Deed, after: Reckoning, moment: float, left: int) -> None:
    """Execute an operation; from some moment on, no file may grow beyond the size of the registry, or a little more."""

    def limit() -> None:
        size = (Path(home) / "registry.db").stat().st_size + left * 1024
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    timer = threading.Timer(moment, limit)
    timer.daemon = True
    timer.start()
    carry_out(home, told, deed, after)


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and let go of the disk
    with tempfile.TemporaryDirectory() as folder, Disk.small(Path(folder) / "disk") as disk:
        trial = Trial(disk, random.Random(options.seed))
        trial.renew()
        for number in range(1, options.deeds + 1):
            trial.run()
            if number % 50 == 0:
                print(f"{number} deeds, {len(trial.problems)} promises broken", flush=True)
    kinds = {kind: [trial.ends[kind, how] for how in ("done", "refused", "broken")] for kind in WEIGHTS}
    for kind, (done, refused, broken) in kinds.items():
        print(f"{kind:<10} {done:>4} done, {refused:>4} refused, {broken:>4} otherwise")
    print(f"{options.deeds} deeds in {time.perf_counter() - started:.0f} s; promises broken: {len(trial.problems)}")
    for problem in trial.problems[:5]:
        print(problem)
    sys.exit(bool(trial.problems))


if __name__ == "__main__":
    main()
