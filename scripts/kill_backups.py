"""Kill backups and restores of a home that is in use, and check that each leaves a complete result or none.

    python scripts/kill_backups.py [--kills 60] [--rows 100000] [--seed N]

Processes write, push, erase, optimize, load, create versions and delete groups all the time (`tests/busy.py`). At a random
moment, a backup or a restore gets SIGKILL, SIGTERM or SIGINT. Then its destination must not exist, or must be complete: every
version, snapshot, training set and online table in it is checked. After SIGTERM and SIGINT, nothing else may be left behind.
After SIGKILL, something may, but the next run with the same destination must work and remove it. 60 kills take about six
minutes on two cores. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa

from seeknal import FeatureLookup, FeatureStore, SeeknalError, SeeknalWarning
from seeknal.home.backup import backup, restore

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from busy import check, definition, expect, furnish, in_use

SIGNALS = signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT
HOME_LASTS = 10
"""How many kills happen in one home. Then a new one is created, because an erasure takes longer the longer the log is."""
Ends = Counter[tuple[str, str, str]]
LANDINGS = {
    "backup": {"registry.db": "copying", "backup.json": "all copied"},
    "restore": {"offline": "copying", "registry.db": "all copied", "online": "loading"},
}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pandas", "pyarrow.dataset", "seeknal.home.store", "seeknal.cli.app", "seeknal.home.backup"]
)


def add_ballast(home: Path, rows: int) -> None:
    """Add a group that takes a while to copy and to load."""
    store = FeatureStore(home)
    at = pa.array(np.full(rows, 1_704_067_200_000_000), pa.timestamp("us", "UTC"))
    noise = np.random.default_rng(1).integers(0, 2**62, rows)
    store.groups.write(definition("ballast"), pa.table({"user id": np.arange(rows), "at": at, "noise": noise}))
    store.tables.serve([FeatureLookup("shop/ballast")], "ballast_online")
    store.close()


def command(home: str, arguments: list[str], begun: Connection) -> None:
    """Run a `seeknal` command."""
    from seeknal.cli import main

    os.environ["SEEKNAL_HOME"] = home
    sys.argv = ["seeknal", *arguments]
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    begun.send(None)
    main()


@dataclass
class Ground:
    """A command that is killed again and again.

    Args:
        verb: "backup" or "restore".
        folder: A folder of its own.
        home: The home of the command.
        arguments: The arguments of the command.
        place: The folder that the command creates.
        make: Creates the folder in this process.
        test: Checks that the folder is complete.
    """

    verb: str
    folder: Path
    home: Path
    arguments: list[str]
    place: Path
    make: Callable[[], object]
    test: Callable[[], object]
    took: list[float] = field(default_factory=list)

    def usual(self) -> None:
        """Measure how long the command takes when it is not killed."""
        process, started = self._start()
        process.join()
        expect(process.exitcode == 0, f"{self.verb} ended with {process.exitcode}")
        self.took.append(time.perf_counter() - started)
        self._clear()

    def kill(self, number: signal.Signals, chance: random.Random) -> str:
        """Kill the command at a random moment, check what it left, and complete the work.

        Returns:
            How far the command had come.

        Raises:
            AssertionError: A promise did not hold.
        """
        process, _ = self._start()
        self._wait_for_a_moment(chance)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, number)
        process.join()
        there, left, landing = self.place.exists(), self._left(), self._landing()
        expect(there or process.exitcode != 0, "it ended well and left nothing")
        if there:
            self.test()
        if number != signal.SIGKILL:
            expect(not left, f"{number.name} left {left}")
        if not there:
            started = time.perf_counter()
            self.make()
            self.took.append(time.perf_counter() - started)
            self.test()
        expect(not self._left(), f"{self._left()} was not removed")
        self._clear()
        if process.exitcode == 0:
            return "it had ended, whole"
        return landing

    def _wait_for_a_moment(self, chance: random.Random) -> None:
        """Wait for a random moment of the command, or for one soon after a landmark: a file, all copies, or rows online."""
        patience = time.monotonic() + (usual := statistics.median(self.took[-9:]))
        aim = chance.choice(["any", *LANDINGS[self.verb]])
        if aim == "any":
            time.sleep(chance.uniform(0, 1.05 * usual))
            return
        while time.monotonic() < patience and not list(self.folder.glob(f".*/{aim}")):
            time.sleep(0.0003)
        time.sleep(chance.choice([0, chance.uniform(0, 0.2 * usual)]))

    def _landing(self) -> str:
        """Return how far the command had come."""
        if self.place.exists():
            return "whole"
        seen = [told for aim, told in LANDINGS[self.verb].items() if list(self.folder.glob(f".*/{aim}"))]
        return f"nothing there, a part left: {seen[-1] if seen else 'waiting'}" if self._left() else "nothing there"

    def _start(self) -> tuple[multiprocessing.process.BaseProcess, float]:
        ours, theirs = _context.Pipe()
        process = _context.Process(target=command, args=(str(self.home), self.arguments, theirs))
        process.start()
        ours.recv()
        return process, time.perf_counter()

    def _left(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path != self.place]

    def _clear(self) -> None:
        shutil.rmtree(self.place)


def grounds(folder: Path, home: Path) -> list[Ground]:
    """Return the commands to kill: backups of the home, and restores of one of them."""
    for name in ("backups", "restores"):
        (folder / name).mkdir()
    taken, back, saved, trial = folder / "backups/saved", folder / "restores/home", folder / "saved", folder / "trial"
    backup(FeatureStore(home), saved)

    def test_backup() -> None:
        restore(taken, FeatureStore(trial))
        check(trial)
        shutil.rmtree(trial)

    def take() -> None:
        backup(FeatureStore(home), taken)

    def bring() -> None:
        restore(saved, FeatureStore(back))

    return [
        Ground("backup", taken.parent, home, ["backup", str(taken)], taken, take, test_backup),
        Ground("restore", back.parent, back, ["restore", str(saved)], back, bring, lambda: check(back)),
    ]


def kill_some(folder: Path, kills: range, rows: int, chance: random.Random, ends: Ends, failures: list[str]) -> None:
    """Kill the commands of some numbers in a new home, and count how they ended."""
    home = folder / "home"
    furnish(home)
    add_ballast(home, rows)
    with in_use(home) as rounds:
        both = grounds(folder, home)
        for ground in both:
            ground.usual()
        for i in kills:
            ground, number = both[i % 2], SIGNALS[i // 2 % len(SIGNALS)]
            try:
                ends[ground.verb, number.name, ground.kill(number, chance)] += 1
            except (AssertionError, OSError, SeeknalError) as error:
                failures.append(f"kill {i + 1} ({ground.verb}, {number.name}): {type(error).__name__}: {error}")
                print(f"  FAILED {failures[-1]}", flush=True)
                shutil.rmtree(ground.folder)
                ground.folder.mkdir()
    took = ", ".join(f"a {one.verb} {statistics.median(one.took):.1f} s, at most {max(one.took):.1f} s" for one in both)
    print(f"  {kills.stop} kills; {took}; rounds meanwhile: {rounds}", flush=True)


def kill_all(folder: Path, kills: int, rows: int, chance: random.Random) -> tuple[Ends, list[str]]:
    """Kill a number of commands, and count how they ended."""
    ends, failures = Ends(), list[str]()
    for first in range(0, kills, HOME_LASTS):
        own = folder / f"{first}"
        own.mkdir()
        kill_some(own, range(first, min(first + HOME_LASTS, kills)), rows, chance, ends, failures)
        shutil.rmtree(own, ignore_errors=True)
    return ends, failures


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="how many to kill")
    parser.add_argument("--rows", type=int, default=100_000, help="how many rows the largest group has")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments (timing stays the machine's)")
    given = parser.parse_args()
    seed = time.time_ns() % 10**6 if given.seed is None else given.seed
    warnings.simplefilter("ignore", SeeknalWarning)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seeknal-backups-", ignore_cleanup_errors=True) as name:
        ends, failures = kill_all(Path(name).resolve(), given.kills, given.rows, random.Random(seed))
    for (verb, signal_name, end), count in sorted(ends.items()):
        print(f"{verb}, {signal_name}: {end}: {count}")
    print(f"{sum(ends.values())} killed, {len(failures)} failures; seed {seed}; {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
