"""The writes, the content that they must leave, and the process that executes them; used by kill_writers.py."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning, StoreError
from seeknal.define.feature_group import FeatureGroup
from seeknal.errors import DefinitionError
from seeknal.values.times import Interval, instant
from seeknal.write.writing import Written

USERS, MINUTE, MISSING = 500, 60_000_000, -1
START = instant("2024-01-01")
FIRST = "first write"


class Broken(Exception):  # noqa: N818 - a promise, not the program
    """A promise of the store did not hold."""


def expect(holds: object, text: str) -> None:
    """Raise Broken with a text if a condition does not hold."""
    if not holds:
        raise Broken(text)


@dataclass(frozen=True)
class Step:
    """One write: rows of all users at some minutes, with the write's number as value."""

    number: int
    mode: str
    minutes: range
    interval: tuple[int, int] | None = None
    has_y: bool = False
    group: str = "spend"

    def cells(self) -> np.ndarray:
        """Return the rows as columns: 1000 * minute + user, x, y."""
        places = (np.array(self.minutes)[:, None] * 1000 + np.arange(USERS)).ravel()
        y = np.full(len(places), self.number if self.has_y else MISSING)
        return np.column_stack([places, np.full(len(places), self.number), y])

    def frame(self) -> pa.Table:
        """Return the rows as the frame that a user would write."""
        places, x, y = self.cells().T
        at = pa.array(START + places // 1000 * MINUTE).cast(pa.timestamp("us"))
        columns = {"user_id": places % 1000, "at": at, "x": x} | ({"y": y} if self.has_y else {})
        return pa.table(columns)

    def write(self, store: FeatureStore) -> Written:
        """Execute the write."""
        entity, dated = Entity("user", ["user_id"]), Materialization(event_time_col="at")
        ends = [None, None] if self.interval is None else [START + minute * MINUTE for minute in self.interval]
        group = FeatureGroup(self.group, entity, dated, "shop")
        return store.groups.write(group, self.frame(), interval=Interval(*ends), mode=self.mode)


def step_of(kind: str, number: int) -> Step:
    """Return the write of a kind and a number."""
    first = number * 7 % 40
    window, own = range(first, first + 10 - number % 3), range(100 + number, 101 + number)
    if kind == "new version":
        inner = ("overwrite an interval", "append", "merge")[number % 3]
        return replace(step_of(inner, number), has_y=number % 2 == 1)
    return {
        "overwrite an interval": Step(number, "overwrite", window, (first, first + 9)),
        "overwrite one interval": Step(number, "overwrite", range(1 + number * 3 % 10), (0, 9)),
        "overwrite all": Step(number, "overwrite", range(10 - number % 3)),
        "append": Step(number, "append", own),
        "merge": Step(number, "merge", window),
        FIRST: Step(number, "overwrite", range(10), group=f"spend{number}"),
    }[kind]


@dataclass(frozen=True)
class State:
    """The expected content of a group, computed with NumPy; `versions` has the last rows of each version."""

    writes: int = 0
    has_y: bool = False
    versions: tuple[np.ndarray, ...] = ()

    def after(self, step: Step) -> State:
        """Return the state after one more write."""
        new = step.cells()
        old = self.versions[-1].copy() if self.versions else new[:0]
        if step.mode == "overwrite":
            minutes = old[:, 0] // 1000
            old = old[(minutes < step.interval[0]) | (minutes > step.interval[1])] if step.interval else old[:0]
        if step.mode == "merge":
            old = old[~np.isin(old[:, 0], new[:, 0])]
        if not step.has_y:
            old[:, 2] = MISSING
        rows = np.concatenate([old, new])
        earlier = self.versions[:-1] if self.has_y == step.has_y else self.versions
        return State(self.writes + 1, step.has_y, (*earlier, rows[rows[:, 0].argsort()]))


def cells_of(table: pa.Table) -> np.ndarray:
    """Convert rows that were read to the form of `Step.cells`, sorted."""
    places = (table["at"].cast(pa.int64()).to_numpy() - START) // MINUTE * 1000 + table["user_id"].to_numpy()
    y = table["y"].fill_null(MISSING).to_numpy() if "y" in table.column_names else np.full(len(table), MISSING)
    rows = np.column_stack([places, table["x"].to_numpy(), y])
    return rows[rows[:, 0].argsort(kind="stable")]


def read(store: FeatureStore, group: str) -> np.ndarray | None:
    """Return all rows of a group; None if it is not registered or was never written."""
    try:
        return cells_of(store.features.history([FeatureLookup(f"shop/{group}")], output="arrow"))
    except DefinitionError:
        return None


def check(home: Path, group: str, *states: State) -> State:
    """Read a group with a fresh store, and return the one of the given states that it is in, in every respect.

    Raises:
        Broken: It is in none of them.
    """
    store = FeatureStore(home)
    try:
        rows = read(store, group)
        fitting = [state for state in states if _same(rows, state.versions[-1] if state.versions else None)]
        expect(fitting, f"{group} holds {_told(rows)}, which is neither the old nor the new rows")
        _check_versions(store, group, fitting[0])
        return fitting[0]
    finally:
        store.close()


def _check_versions(store: FeatureStore, group: str, state: State) -> None:
    record = store.core.registry.group("shop", group)
    if record is None or not state.versions:
        versions = record and store.core.catalog.versions(record)
        expect(not versions and not state.versions, f"{group} has versions {versions} after {state.writes} writes")
        return
    found = [(version.number, version.rows) for version in store.groups.versions(group, project="shop")]
    wanted = [(i + 1, len(rows)) for i, rows in enumerate(state.versions)]
    expect(found == wanted, f"the versions are {found[-5:]} (number, rows), not {wanted[-5:]}")
    root = store.core.catalog.offline("shop", group).root
    written, newest = writes_of(root), store.core.catalog.snapshot_at(record, datetime.now(UTC))
    expect(len(written) == state.writes, f"the log has {len(written)} writes after {state.writes}")
    expect(newest == last_of(root), f"the newest snapshot is {newest}, the log's {last_of(root)}")
    for number in range(max(1, len(found) - 2), len(found) + 1):
        kept = cells_of(store.groups.sample(group, project="shop", limit=10**9, version=number))
        expect(_same(kept, state.versions[number - 1]), f"version {number} holds {_told(kept)}")


def writes_of(root: Path) -> list[int]:
    """Return the snapshots that writes created, oldest first, from the log alone. Those of compactions are left out."""
    modes: dict[int, str | None] = {}
    for pack in root.glob("_history/*.jsonl.gz"):
        lines = gzip.decompress(pack.read_bytes()).splitlines()
        modes |= {int(pack.name[:20]) + i: _mode_of(json.loads(line)) for i, line in enumerate(lines)}
    for entry in root.glob("_delta_log/*.json"):
        modes[int(entry.stem)] = _mode_of(map(json.loads, entry.read_text().splitlines()))
    return sorted(number for number, mode in modes.items() if mode not in (None, "optimize"))


def last_of(root: Path) -> int:
    """Return the number of the newest snapshot in the log."""
    return max((int(entry.stem) for entry in (root / "_delta_log").glob("*.json")), default=-1)


def _mode_of(actions: Iterable[dict[str, Any]]) -> str | None:
    infos = [action.get("commitInfo", {}) for action in actions]
    return next((json.loads(info["seeknal"])["mode"] for info in infos if "seeknal" in info), None)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _told(rows: np.ndarray | None) -> str:
    return "nothing" if rows is None else f"{len(rows)} rows of writes {np.unique(rows[:, 1]).tolist()[-12:]}"


def digest(rows: np.ndarray | None) -> str:
    """Return a short hash of rows."""
    return "none" if rows is None else hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()[:16]


def be_a_writer(jobs: Connection, says: Connection) -> None:
    """Run the jobs that arrive, and report each step. A message is sent in one piece, so a kill never leaves half of one."""
    os.setsid()
    warnings.simplefilter("ignore", SeeknalWarning)
    while True:
        job = jobs.recv()
        store = FeatureStore(job["home"])
        if job.get("reads"):
            says.send(["read", digest(read(store, "spend"))])
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.get("limit", most), most))
        for number in range(job["first"], job["first"] + job["count"]):
            write_and_tell(store, step_of(job["kind"], number), says)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        store.close()
        says.send(["finished"])


def write_and_tell(store: FeatureStore, step: Step, says: Connection) -> None:
    """Execute one write, and report when it begins and how it ends."""
    began = time.monotonic()
    says.send(["begin", step.number])
    try:
        written = step.write(store)
    except StoreError as error:
        says.send(["refused", step.number, " ".join(str(error).split())])
    except Exception as error:  # noqa: BLE001 - all of them are reported to the parent
        says.send(["crashed", step.number, type(error).__name__, " ".join(str(error).split())])
    else:
        says.send(["done", step.number, written.snapshot, written.version, began, time.monotonic()])


_context = multiprocessing.get_context("forkserver")
# So that a new writer starts at once.
_context.set_forkserver_preload(["pandas", "pyarrow.dataset", "seeknal.home.store"])


class Writer:
    """A process that writes, or does other work, in a session of its own."""

    _all: ClassVar[list[Writer]] = []

    def __init__(self, work: Callable[[Connection, Connection], None] = be_a_writer) -> None:
        self.words: list[list[Any]] = []
        given, self._jobs = _context.Pipe(duplex=False)
        self._said, says = _context.Pipe(duplex=False)
        self._process = _context.Process(target=work, args=(given, says), daemon=True)
        self._process.start()
        self._all.append(self)
        given.close()
        says.close()

    def start(self, **job: object) -> None:
        """Send a job."""
        self._jobs.send(job)

    def wait_for(self, *words: object) -> None:
        """Wait for a message that starts with the given words.

        Raises:
            Broken: The process ended instead, or was silent for two minutes.
        """
        while self._said.poll(120):
            try:
                self.words.append(self._said.recv())
            except EOFError:
                break
            if self.words[-1][: len(words)] == list(words):
                return
        raise Broken(f"a writer ended or hung without saying {words}: {self.words[-3:]}")

    def kill(self) -> None:
        """Kill the process, and receive its last messages.

        Raises:
            Broken: It had ended by itself.
        """
        self._all.remove(self)
        self._process.kill()
        self._process.join()
        with contextlib.suppress(EOFError):
            while True:
                self.words.append(self._said.recv())
        for end in (self._said, self._jobs):
            end.close()
        died = self._process.exitcode
        expect(died == -signal.SIGKILL, f"a writer ended by itself, with {died}: {self.words[-3:]}")

    @classmethod
    def kill_all(cls) -> None:
        """Kill all writers that are still running."""
        for writer in list(cls._all):
            with contextlib.suppress(Broken):
                writer.kill()

    @classmethod
    def running(cls) -> Sequence[Writer]:
        """Return all writers that were not killed."""
        return cls._all

    def said(self, word: str) -> list[list[Any]]:
        """Return the contents of all messages of a kind."""
        return [words[1:] for words in self.words if words[0] == word]
