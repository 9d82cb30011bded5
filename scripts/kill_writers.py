"""Kill writers, let them race, and fill their disk; check that each write is stored completely or not at all.

    python scripts/kill_writers.py [--kills 200] [--seed N] [--quick]

Processes write without pause, and report the number of each write before and after it; the number is
in the rows. At a random moment they get SIGKILL. A fresh reader must find exactly the rows of before
or after the current write, every write that had returned, and exactly the versions that were created;
and the next write must work. Then two and eight processes write concurrently: the result must be that
of some serial order of their writes. Finally the disk is full (a small tmpfs for root, otherwise
RLIMIT_FSIZE). 200 kills take about five minutes on two cores. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from _writers import FIRST, Broken, State, Step, Writer, check, digest, expect, step_of, writes_of

from seeknal import FeatureStore, SeeknalError, SeeknalWarning

KINDS = ("overwrite an interval", "overwrite all", "append", "merge", "new version", FIRST)
RACES = {
    "append to a new group": ("append",),
    "overwrite one interval": ("overwrite one interval",),
    "merge": ("merge",),
    "new version": ("new version",),
    "all modes at once": ("overwrite an interval", "append", "merge", "new version"),
}
LANDINGS = ("between writes", "before files", "files, no commit", "commit, not in registry", "in registry")
FREE = (0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 512)


# Kills


@dataclass
class Ground:
    """A home in which writers of one kind are killed again and again."""

    kind: str
    folder: Path
    homes: int = 0
    number: int = 0
    states: dict[str, State] = field(default_factory=lambda: defaultdict(State))
    files: set[str] = field(default_factory=set)
    took: dict[bool, list[float]] = field(default_factory=lambda: {True: [0.4], False: [0.1]})

    @property
    def home(self) -> Path:
        """The folder of the home."""
        return self.folder / f"{self.kind} {self.homes}"

    def renew(self) -> None:
        """Continue in a new home."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.homes += 1
        self.states.clear()
        self.files.clear()

    def kill(self, writer: Writer, chance: random.Random) -> str:
        """Start a writer, kill it, check everything, write once more; return where the kill landed."""
        if self.kind == FIRST:
            self.renew()
        first, skip = self.number + 1, chance.randrange(3)
        writer.start(home=str(self.home), kind=self.kind, first=first, count=10**6, reads=self.kind != FIRST)
        writer.wait_for("begin", first + skip)
        self._wait_for_a_moment(first, skip, chance)
        writer.kill()
        under_way = self._take_in(writer, first)
        step = step_of(self.kind, self.number if under_way else self.number + 1)
        old = self.states[step.group]
        new = old.after(step)
        landing = self._landing(step.group, old) if under_way else LANDINGS[0]
        self._check_confirmed(step.group)
        found = check(self.home, step.group, *([old, new] if under_way else [old]))
        expect((found is new) == (landing in LANDINGS[3:]), f"the log says {landing!r}, the rows say otherwise")
        self._go_on(step.group, found)
        return landing

    def _wait_for_a_moment(self, first: int, skip: int, chance: random.Random) -> None:
        """Wait for a random moment of the current write, or for one soon after its first file or its commit."""
        usual = float(np.median(self.took[skip == 0]))
        aim = chance.choice(["any", "any", "*.parquet", "_delta_log/*.json"])
        if aim == "any":
            time.sleep(chance.uniform(0, 1.15 * usual))
            return
        group = step_of(self.kind, first + skip).group
        before, patience = self._count(group, aim), time.monotonic() + 3 * usual
        more = 1 if self.kind != FIRST or aim == "*.parquet" else 2
        while self._count(group, aim) < before + more and time.monotonic() < patience:
            time.sleep(0.0003)
        time.sleep(chance.choice([0, chance.uniform(0, 0.2 * usual)]))

    def _count(self, group: str, pattern: str) -> int:
        return sum(1 for _ in self._root(group).glob(pattern))

    def _root(self, group: str) -> Path:
        return self.home / "offline" / "shop" / group

    def _take_in(self, writer: Writer, first: int) -> bool:
        """Account for the writes that returned; return whether another one had begun."""
        if self.kind != FIRST:
            seen, known = writer.said("read")[0][0], self.states["spend"].versions
            expect(seen == digest(known[-1] if known else None), "a fresh process read other rows")
        for wrong in writer.said("refused") + writer.said("crashed"):
            raise Broken(f"a write failed: {wrong}")
        for number, snapshot, version, began, ended in writer.said("done"):
            step = step_of(self.kind, number)
            self.states[step.group] = state = self.states[step.group].after(step)
            self.took[number == first].append(ended - began)
            made = writes_of(self._root(step.group))[state.writes - 1 : state.writes]
            expect([snapshot] == made, f"write {number} said snapshot {snapshot}, the log says {made}")
            expect(version == len(state.versions), f"write {number} said version {version}, not {len(state.versions)}")
        self.number = writer.said("begin")[-1][0]
        return len(writer.said("begin")) > len(writer.said("done"))

    def _landing(self, group: str, old: State) -> str:
        """Return how far a write had come, without using any code of the store."""
        root = self._root(group)
        if new := writes_of(root)[old.writes :]:
            return LANDINGS[4] if registered(self.home, group) >= new[0] else LANDINGS[3]
        logged = {line.split('"path":"')[1].split('"')[0] for line in _added(root)}
        left = {path.name for path in root.glob("*.parquet")} - logged - self.files
        return LANDINGS[2] if left else LANDINGS[1]

    def _check_confirmed(self, but: str) -> None:
        for group in [name for name in self.states if name != but][-2:]:
            check(self.home, group, self.states[group])

    def _go_on(self, group: str, found: State) -> None:
        """Write once more in this process, and check again."""
        self.number += 1
        step = replace(step_of(self.kind, self.number), group=group)
        write_here(self.home, step)
        self.states[group] = check(self.home, group, found.after(step))
        self.files = {path.name for path in self.home.glob("offline/shop/*/*.parquet")}


def write_here(home: Path, step: Step) -> None:
    """Write in this process, with a fresh store."""
    store = FeatureStore(home)
    step.write(store)
    store.close()


def _added(root: Path) -> Iterator[str]:
    for log in root.glob("_delta_log/*.json"):
        yield from (line for line in log.read_text().splitlines() if line.startswith('{"add"'))


def registered(home: Path, group: str) -> int:
    """Read a group's newest snapshot from a copy of the registry; the original stays as the kill left it."""
    with tempfile.TemporaryDirectory() as name:
        for file in home.glob("registry.db*"):
            shutil.copy(file, name)
        with contextlib.closing(sqlite3.connect(f"{name}/registry.db")) as db:
            query = "SELECT max(number) FROM snapshot JOIN feature_group g ON g.id = group_id WHERE g.name = ?"
            return db.execute(query, [group]).fetchone()[0] or 0


def sound(home: Path) -> None:
    """Check the registry with SQLite."""
    with contextlib.closing(sqlite3.connect(home / "registry.db")) as db:
        expect(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], f"{home}/registry.db is corrupt")


def kill_them(folder: Path, kills: int, chance: random.Random, failures: list[str]) -> Counter[tuple[str, str]]:
    """Kill writers of every kind in turn; count where the kills landed."""
    grounds, landed = [Ground(kind, folder) for kind in KINDS], Counter[tuple[str, str]]()
    for i in range(kills):
        ground, writer = grounds[i % len(grounds)], Writer()
        try:
            landed[ground.kind, ground.kill(writer, chance)] += 1
        except (Broken, OSError, SeeknalError) as error:
            landed[ground.kind, "FAILED"] += 1
            fail(failures, f"kill {i + 1} ({ground.kind}): {type(error).__name__}: {error}")
            ground.renew()
        if (i + 1) % 20 == 0:
            print(f"  {i + 1} kills", flush=True)
    for ground in grounds:
        if ground.home.exists():  # after a failure the next one is not there yet
            sound(ground.home)
    return landed


def fail(failures: list[str], text: str) -> None:
    """Record a failure, and print it."""
    failures.append(text)
    print(f"  FAILED {text}", flush=True)


# Rivals


def race(home: Path, writers: Sequence[Writer], kinds: Sequence[str], each: int) -> list[str]:
    """Let processes write concurrently; return the messages of writes that were refused with a StoreError.

    Raises:
        Broken: The content is not that of the writes in the order of their reported snapshots.
    """
    state = State()
    if kinds != ("append",):
        state = state.after(base := step_of("overwrite all", 1))
        write_here(home, base)
    for writer in writers:
        writer.words.clear()
    for who, writer in enumerate(writers):
        writer.start(home=str(home), kind=kinds[who % len(kinds)], first=1000 * (who + 1), count=each)
    done: list[tuple[int, Step, float, float]] = []
    for who, writer in enumerate(writers):
        writer.wait_for("finished")
        expect(not writer.said("crashed"), f"a write failed: {writer.said('crashed')}")
        for number, snapshot, _, began, ended in writer.said("done"):
            done.append((snapshot, step_of(kinds[who % len(kinds)], number), began, ended))
    done.sort(key=lambda write: write[0])
    made = writes_of(home / "offline" / "shop" / "spend")
    expect(
        len(made) == len(done) + state.writes, f"the log has {len(made)} writes, {len(done) + state.writes} returned"
    )
    for i, (snapshot, step, _, ended) in enumerate(done):
        state = state.after(step)
        expected = made[state.writes - 1]
        expect(expected == snapshot, f"write {step.number} says it is snapshot {snapshot}, not {expected}")
        overtaken = [other.number for _, other, began, _ in done[:i] if began > ended]
        expect(not overtaken, f"{overtaken} began after {step.number} had returned, but came before it")
    check(home, "spend", state)
    sound(home)
    return [text for writer in writers for _, text in writer.said("refused")]


def race_them(folder: Path, failures: list[str], *, quick: bool) -> list[tuple[str, ...]]:
    """Let two and then eight processes write concurrently, in every combination of modes; return the rows of the report."""
    rows: list[tuple[str, ...]] = []
    sizes = ((2, 3),) if quick else ((2, 12), (8, 4))
    writers = [Writer() for _ in range(sizes[-1][0])]
    for count, each in sizes:
        for name, kinds in RACES.items():
            try:
                refused = race(folder / f"{name} {count}", writers[:count], kinds, each)
                rows.append((name, f"{count}", f"{count * each}", f"{len(refused)}", "yes"))
                print(*(f"  refused ({name}): {text[:300]}" for text in refused), sep="\n", end="\n" * bool(refused))
            except (Broken, OSError, SeeknalError) as error:
                fail(failures, f"{count} rivals ({name}): {type(error).__name__}: {error}")
                rows.append((name, f"{count}", f"{count * each}", "?", "FAILED"))
        print(f"  {count} rivals", flush=True)
    Writer.kill_all()
    return rows


# The full disk


@dataclass
class Disk:
    """A small disk or, without the right to mount one, a limit on the size of files."""

    folder: Path
    mounted: bool = False

    @classmethod
    @contextlib.contextmanager
    def small(cls, folder: Path) -> Iterator[Disk]:
        """Mount a small disk, if possible."""
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
        mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
        print(
            f"  on {'a tmpfs of 32 MB' if mounted else 'this disk, under RLIMIT_FSIZE: no right to mount'}", flush=True
        )
        try:
            yield cls(folder, mounted)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(folder)], check=True)

    @contextlib.contextmanager
    def full_but_for(self, kilobytes: int) -> Iterator[dict[str, int]]:
        """Leave only this much free space; yield the options that a writer needs for it."""
        if not self.mounted:
            yield {"limit": kilobytes * 1024}
            return
        ballast = self.folder / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(self.folder).free - kilobytes * 1024))
        try:
            yield {}
        finally:
            ballast.unlink()


class FullDisk:
    """A group on a disk that is full from time to time.

    Args:
        disk: The disk.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk, self.writer, self.number, self.homes = disk, Writer(), 0, 0
        self.ends, self.errors = Counter[str](), Counter[str]()
        self.renew()

    def renew(self) -> None:
        """Continue in a new home."""
        self.homes += 1
        self.home = self.disk.folder / f"home{self.homes}"
        self.state = State().after(step := step_of("overwrite all", 1))
        write_here(self.home, step)

    def attempt(self, kind: str, kilobytes: int) -> None:
        """Write with little free space, check the content, free space, and write again.

        Raises:
            Broken: A promise did not hold.
        """
        self.number += 2
        step = step_of(kind, self.number)
        files, new = self._files(), self.state.after(step)
        self.writer.words.clear()
        with self.disk.full_but_for(kilobytes) as told:
            self.writer.start(home=str(self.home), kind=kind, first=self.number, count=1, **told)
            self.writer.wait_for("finished")
            said = next(word for word in ("done", "refused", "crashed") if self.writer.said(word))
            self.errors.update(self._brief(text) for _, text in self.writer.said("refused"))
            expect(said != "crashed", f"the write failed with {self.writer.said('crashed')}")
            self._read_when_full(said, new)
        found = check(self.home, "spend", self.state, new)
        expect(
            (found is new) == (said == "done"), f"the write was {said}, but is {'' if found is new else 'not '}stored"
        )
        expect(said == "done" or self._files() == files, "the refused write left files behind")
        self.ends[{"done": "written: there was room", "refused": "refused, nothing stored"}[said]] += 1
        write_here(self.home, after := step_of(kind, self.number + 1))
        self.state = check(self.home, "spend", found.after(after))

    def _brief(self, text: str) -> str:
        """Return the beginning of a message, which is the same each time."""
        return " ".join(text.replace(str(self.home), "HOME").split())[:100].partition("[")[0]

    def _read_when_full(self, said: str, new: State) -> None:
        try:
            check(self.home, "spend", new if said == "done" else self.state)
        except SeeknalError as error:
            self.errors[f"(reading) {self._brief(str(error))}"] += 1
            self.ends["not readable while full"] += 1
        else:
            self.ends["readable while full"] += 1

    def _files(self) -> set[Path]:
        return set(self.home.glob("offline/**/*.parquet"))


def fill_disk(folder: Path, failures: list[str], *, quick: bool) -> tuple[Counter[str], Counter[str]]:
    """Write with more and more free space; count the outcomes and the messages."""
    with Disk.small(folder) as disk:
        full = FullDisk(disk)
        for kilobytes in FREE[::5] if quick else FREE:
            for kind in RACES["all modes at once"]:
                try:
                    full.attempt(kind, kilobytes)
                except (Broken, OSError, SeeknalError) as error:
                    fail(failures, f"{kind} with {kilobytes} KB free: {type(error).__name__}: {error}")
                    full.ends["FAILED"] += 1
                    full.renew()
        sound(full.home)
        Writer.kill_all()
    return full.ends, full.errors


# The report


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def kills_table(landed: Counter[tuple[str, str]]) -> str:
    """Return a table of where the kills landed, by kind of write."""
    wheres = [*LANDINGS, *(["FAILED"] if any(where == "FAILED" for _, where in landed) else [])]
    rows: list[list[int | str]] = [[kind, *(landed[kind, where] for where in wheres)] for kind in KINDS]
    rows.append(["all", *(sum(landed[kind, where] for kind in KINDS) for where in wheres)])
    return table(["kills", *wheres, "sum"], [[*row, sum(map(int, row[1:]))] for row in rows])


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many writers to kill")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments (timing stays the machine's)")
    parser.add_argument("--quick", action="store_true", help="fewer races, and fewer sizes of the disk")
    given = parser.parse_args()
    seed = time.time_ns() % 10**6 if given.seed is None else given.seed
    warnings.simplefilter("ignore", SeeknalWarning)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the small disk is unmounted
    failures: list[str] = []
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="seeknal-kill-", ignore_cleanup_errors=True) as name:
            folder = Path(name).resolve()
            print(f"Killing {given.kills} writers (seed {seed}) ...", flush=True)
            landed = kill_them(folder / "kills", given.kills, random.Random(seed), failures)
            print(f"Rivals ... ({time.monotonic() - began:.0f} s)", flush=True)
            races = race_them(folder / "races", failures, quick=given.quick)
            print(f"The full disk ... ({time.monotonic() - began:.0f} s)", flush=True)
            ends, errors = fill_disk(folder / "disk", failures, quick=given.quick)
    finally:
        Writer.kill_all()
    head = ["rivals", "processes", "writes", "refused", "as in some order, none lost"]
    print("", kills_table(landed), "", table(head, races), "", table(["full disk", "times"], [*ends.items()]), sep="\n")
    print("\nWhat was said when the disk was full:", *(f"  {n} x {text[:230]}" for text, n in errors.items()), sep="\n")
    print(f"\n{len(failures)} failures, listed above; seed {seed}; {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
