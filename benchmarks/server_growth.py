"""How a server scales: its start with many tables, and pushes from many concurrent threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from load import free_port
from measure import Outcome
from report import Section

from seeknal import Client, Entity, FeatureLookup, FeatureStore, Materialization, StoreError
from seeknal.define.feature_group import FeatureGroup

_MAIN = "from seeknal.cli import main; main()"
_AT = datetime(2024, 5, 1, tzinfo=UTC)
_PUSHES_OF_A_THREAD = 8


def measure_all(tables: list[int], threads: list[int], rounds: int, root: Path) -> Iterator[Section]:
    """Measure starts with the given numbers of tables, and pushes from the given numbers of threads."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        homes = {count: _home(Path(folder) / str(count), count) for count in tables}
        yield _starts(homes, rounds)
        yield _pushes(homes[min(tables)], threads, rounds)


def _home(home: Path, tables: int) -> Path:
    store = FeatureStore(home)
    for i in range(tables):
        group = FeatureGroup(f"g{i}", Entity("person", ["person_id"]), Materialization("at"), "bench")
        store.groups.write(group, pa.table({"person_id": [1], "at": [_AT], "x": [i]}))
        store.tables.serve([FeatureLookup(f"bench/g{i}")], f"g{i}")
    store.close()
    return home


def _starts(homes: dict[int, Path], rounds: int) -> Section:
    section = Section("Server starts", "Two workers, each table of a group of its own; seconds of the processor.")
    for _ in range(rounds):
        for count, home in homes.items():
            case = f"{count:,} tables"
            with _server(home, workers=2) as (url, process):
                spent = max(map(_processor, _workers(process)))
                section.take(case, "seeknal, a worker until it answers", Outcome(spent))
                before, began = set(_workers(process)), time.perf_counter()
                process.send_signal(signal.SIGHUP)
                _wait(lambda before=before, process=process: not before & set(_workers(process)))
                section.take(case, "seeknal, SIGHUP (wall)", Outcome(time.perf_counter() - began))
                assert b'"x"' in _ask(f"{url}/v1/online/bench/g{count - 1}?person_id=1")  # noqa: S101
    most = max(homes)
    spent = section.middle(f"{most:,} tables", "seeknal, a worker until it answers")
    section.hold(f"start of a worker at {most:,} tables", 2, spent, "s of the processor")
    return section


def _pushes(home: Path, threads: list[int], rounds: int) -> Section:
    section = Section(
        "Pushing clients", f"{_PUSHES_OF_A_THREAD} pushes of one row from each thread of one client.", "pushes/s"
    )
    number = 0
    with _server(home, workers=1) as (url, _), Client(url) as client:

        def push(user: int) -> bool:
            try:
                client.push("bench/g0", {"person_id": user, "at": _AT, "x": user})
            except StoreError:
                return False
            return True

        for _ in range(rounds):
            for count in threads:
                first, number = number, number + count * _PUSHES_OF_A_THREAD
                began = time.perf_counter()
                with ThreadPoolExecutor(count) as pool:
                    done = list(pool.map(push, range(first + 2, number + 2)))
                rate = len(done) / (time.perf_counter() - began)
                failure = "" if all(done) else f"gave up on {done.count(False)} of {len(done)}"
                section.add(f"{count} threads", "seeknal", rate, failure)
                section.hold(f"{count} threads, pushes given up", 0, done.count(False), "pushes")
    return section


@contextmanager
def _server(home: Path, workers: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server; yield its URL and process once all of its workers are ready."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-c", _MAIN, "serve", "--port", str(port), "--workers", str(workers), "--no-access-log"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"SEEKNAL_HOME": str(home)})
    try:
        _wait(lambda: _answers(url) and len(_workers(process)) == workers)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def _workers(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the worker processes: the first process alone, or its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    found = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found or [process.pid]


def _processor(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - http
        return bytes(answer.read())


def _answers(url: str) -> bool:
    try:
        return bool(_ask(f"{url}/healthz"))
    except (urllib.error.URLError, ConnectionError):
        return False


def _wait(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It did not hold within two minutes.
    """
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
