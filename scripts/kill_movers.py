"""Kill moves of a home that is in use to an object store and PostgreSQL, and check that nothing is lost and nothing is written twice.

    python scripts/kill_movers.py [--moves 6] [--kills 8] [--rows 20000] [--seed N]

Processes write, push, erase, optimize, load, create versions and delete groups all the time (`tests/busy.py`), and one looks up online
rows. At random moments, `seeknal move` gets SIGKILL, SIGTERM or SIGINT, and is run again. As long as the move was not noted, the home must
go on; then, every write to it must fail. At the end, the old files must be as they were when the new places were opened, and a store
over them must give the same answers as the moved one: the history of each group, as of several snapshots, the training set with its
hash, and every online value. Servers are SeaweedFS and PostgreSQL, from packages. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from seeknal import FeatureLookup, FeatureStore, SeeknalError, SeeknalWarning, StoreError
from seeknal.online import close_all
from seeknal.registry.sql.copying import unfreeze
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.system.home_moved import moved

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from busy import definition, expect, frame, furnish, in_use
from servers import Postgres, SeaweedFS, wait_for

SIGNALS = signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT
AIMS = "any", "moving.jsonl", "moved.json", "moved/offline", "storage.json"
LANDINGS = {"storage.json": "opening the new places", "moved.json": "closing the old ones", "moving.jsonl": "copying"}


def add_ballast(home: Path, rows: int) -> None:
    """Add groups with some files, which take a while to copy."""
    store = FeatureStore(home)
    at = pa.array(np.arange(rows) * 86_400_000_000, pa.timestamp("us", "UTC"))
    noise = np.random.default_rng(1).integers(0, 2**62, rows)
    for number in range(8):
        ballast = pa.table({"user id": np.arange(rows), "at": at, "noise": noise + number})
        store.groups.write(definition(f"ballast{number}"), ballast)
    store.close()


class Lookups:
    """Looks up an entity again and again, in a store that was opened before the move."""

    def __init__(self, home: Path) -> None:
        self.count = 0
        self.refused = 0
        self.failed: list[BaseException] = []
        self._store = FeatureStore(home)
        self._table = self._store.tables.open("both", project="shop")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        with suppress(SeeknalError):
            self._store.close()

    def _run(self) -> None:
        last = 0
        while not self._end.wait(0.002) and not self.failed:
            try:
                (found,) = self._table.get_features([{"user id": 7}], output="arrow").to_pylist()
                expect(found['the "round"'] >= last, f"a lookup went back from {last} to {found}")
                last = found['the "round"']
                self.count += 1
            except StoreError as error:
                # The last step may come between an erasure and the load that follows it, as a kill may: rule 23.
                if "erased since" in str(error):
                    self.refused += 1
                else:
                    self.failed.append(error)
            except Exception as error:  # noqa: BLE001 - the main thread tells it
                self.failed.append(error)


class Trial:
    """One home that is moved.

    Args:
        home: Its folder.
        url: Where its tables go.
        registry: Where its registry goes.
        env: Variables by which the object store is found.
    """

    def __init__(self, home: Path, url: str, registry: str, env: dict[str, str]) -> None:
        self.home = home
        self.targets = {"storage": url, "registry": registry}
        self._env = os.environ | env | {"SEEKNAL_HOME": str(home)}
        self._usual = 4.0

    def kill(self, number: signal.Signals, chance: random.Random) -> str:
        """Run the command, kill it at a random moment, and return how far it had come."""
        aim, started = chance.choice(AIMS), time.monotonic()
        process = self._start()
        wait = chance.uniform(0, 1.05 * self._usual) if aim == "any" else chance.choice([0, chance.uniform(0, 0.3)])
        while aim != "any" and process.poll() is None and not (self.home / aim).exists():
            time.sleep(0.0005)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(number)
        errors = process.communicate()[1]
        if process.returncode == 0:
            self._usual = time.monotonic() - started
            return "it had ended"
        expect(number != process.returncode and b"Unexpected" not in errors, errors.decode())
        expect(process.returncode in {-number, 130, 128 + number}, f"{process.returncode}: {errors.decode()}")
        if moved(self.home) is None:
            FeatureStore(self.home).groups.write(definition("second"), frame(2), mode="merge")
        return next((told for file, told in LANDINGS.items() if (self.home / file).exists()), "beginning")

    def complete(self) -> None:
        """Run the command to its end."""
        process = self._start()
        output, errors = process.communicate(timeout=300)
        expect(process.returncode == 0, errors.decode())
        expect(b'storage = "s3://' in output and b'registry = "postgresql://' in output, output.decode())

    def _start(self) -> subprocess.Popen[bytes]:
        options = [text for name, url in self.targets.items() for text in (f"--{name}", url)]
        program = [sys.executable, "-c", "from seeknal.cli import main; main()", "move", *options]
        return subprocess.Popen(program, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def as_it_was(self, place: Path) -> Path:
        """Make a home of the old files, as if it had not been moved."""
        shutil.copytree(self.home, place)
        for name in ("offline", "datasets"):
            (place / name).unlink()
            (place / "moved" / name).rename(place / name)
        for name in ("moved.json", "storage.json"):
            (place / name).unlink()
        SqliteRegistry(place / "registry.db").take(unfreeze, writes=True)
        return place


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file in a folder."""
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def answers(store: FeatureStore, chance: random.Random) -> dict[str, object]:
    """Return what a store answers."""
    found: dict[str, object] = {}
    for record in store.groups.all():
        lookup, last = [FeatureLookup(record.label)], store.core.registry.last_snapshot(record)
        if last < 0:  # the last step came between its registration and its first write
            found[record.label] = None
            continue
        found[record.label] = store.features.history(lookup, output="arrow").to_pylist()
        for number in sorted(chance.sample(range(last + 1), min(last + 1, 4))):
            try:
                found[f"{record.label} as of {number}"] = store.features.history(
                    lookup, as_of=number, output="arrow"
                ).to_pylist()
            except SeeknalError as error:  # it was removed, in both
                found[f"{record.label} as of {number}"] = type(error).__name__
    for one in store.training_sets.all():
        found[one.label] = one.content_hash, store.training_sets.reproduce(one).to_pylist()
    store.close()
    return found


def move_one(trial: Trial, kills: int, rows: int, chance: random.Random, ends: Counter[tuple[str, str]]) -> int:
    """Move a home, kill the move some times, compare, and return how many lookups were answered meanwhile.

    Raises:
        AssertionError: A promise was broken.
    """
    home = trial.home
    furnish(home)
    add_ballast(home, rows)
    with Lookups(home) as lookups:
        with in_use(home) as rounds:
            wait_for(lambda: min(rounds.values()) > 2)  # noqa: PLR2004 - each has had its turn
            for i in range(kills):
                number = SIGNALS[i % len(SIGNALS)]
                ends[number.name, trial.kill(number, chance)] += 1
            trial.complete()
            before, seen = hashes(home / "moved"), lookups.count + lookups.refused
            wait_for(lambda: lookups.failed or lookups.count + lookups.refused > seen + 100)
            time.sleep(1)  # the others try to write
        expect(hashes(home / "moved") == before, "the old files have changed")
    expect(not lookups.failed, f"{lookups.failed}")
    close_all()
    old = trial.as_it_was(home.with_name("old"))
    seed = chance.random()
    new = FeatureStore(home, **trial.targets)
    expect(answers(FeatureStore(old), random.Random(seed)) == answers(new, random.Random(seed)), "other answers")
    new.tables.refresh(["both"], project="shop")  # over the rows that the home loaded before it was moved
    found = new.tables.verify("both", project="shop")
    expect(found.equal, str(found))
    new.groups.write(definition("first"), frame(10**6), mode="append")
    new.close()
    close_all()
    if lookups.refused:
        print(
            f"  the load after an erasure was cut off by the last step: {lookups.refused} lookups were refused",
            flush=True,
        )
    return lookups.count


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=6, help="how many homes to move")
    parser.add_argument("--kills", type=int, default=8, help="how often each move is killed")
    parser.add_argument("--rows", type=int, default=20_000, help="how many rows the larger groups have")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments (timing stays the machine's)")
    given = parser.parse_args()
    seed = time.time_ns() % 10**6 if given.seed is None else given.seed
    warnings.simplefilter("ignore", SeeknalWarning)
    chance, began, failures, count = random.Random(seed), time.monotonic(), list[str](), 0
    ends: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="seeknal-moves-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        weed, postgres = SeaweedFS(folder / "weed").start(), Postgres().start()
        os.environ.update(weed.env)
        try:
            for i in range(given.moves):
                trial = Trial(folder / f"{i}" / "home", f"s3://tests/{i}", postgres.url(f"moved_{i}"), weed.env)
                trial.home.parent.mkdir()
                try:
                    count += move_one(trial, given.kills, given.rows, chance, ends)
                except (AssertionError, OSError, SeeknalError) as error:
                    failures.append(f"move {i + 1}: {type(error).__name__}: {error}")
                    print(f"  FAILED {failures[-1]}", flush=True)
        finally:
            weed.stop()
            postgres.stop()
    for (signal_name, end), times in sorted(ends.items()):
        print(f"{signal_name}: {end}: {times}")
    print(
        f"{sum(ends.values())} kills of {given.moves} moves, {count} lookups meanwhile, {len(failures)} failures; seed {seed}; {time.monotonic() - began:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
