"""A home with many groups: the cost of listing them, of `status`, and of a scrape by Prometheus."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from load import free_port
from measure import Outcome
from report import Section

from seeknal import Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

_MAIN = "from seeknal.cli import main; main()"
_AT = datetime(2024, 5, 1, tzinfo=UTC)
_MOST = {"list feature-groups": 0.5, "status": 1.0, "doctor": 2.0, "GET /metrics": 0.2}
"""Seconds at a thousand groups."""


def measure_all(counts: list[int], rounds: int, root: Path) -> Iterator[Section]:
    """Measure homes with the given numbers of groups, each with a table of its own."""
    section = Section(
        "Many groups", "Each group has two rows and an online table of its own. Commands with their start."
    )
    with tempfile.TemporaryDirectory(dir=root) as folder:
        homes = {count: _home(Path(folder) / str(count), count) for count in counts}
        for _ in range(rounds):
            for count, home in homes.items():
                for command in list(_MOST)[:-1]:
                    section.take(f"{command}, {count:,} groups", "seeknal", _run(home, command))
                with _server(home) as url:
                    _ask(url)  # what is loaded once is not timed
                    began = time.perf_counter()
                    _ask(url)
                    section.take(f"GET /metrics, {count:,} groups", "seeknal", Outcome(time.perf_counter() - began))
                yield section
    many = max(counts)
    for name, seconds in _MOST.items():
        section.hold(f"{name} at {many:,} groups", seconds, section.middle(f"{name}, {many:,} groups", "seeknal"), "s")
    yield section


def _home(home: Path, groups: int) -> Path:
    store = FeatureStore(home)
    for number in range(groups):
        group = FeatureGroup(f"g{number}", Entity("user", ["user_id"]), Materialization("at", online=True), "bench")
        store.groups.write(group, pa.table({"user_id": [1, 2], "at": [_AT] * 2, "amount": [1.0, number]}))
    store.close()
    return home


def _run(home: Path, command: str) -> Outcome:
    """Run a `seeknal` command."""
    environment = os.environ | {"SEEKNAL_HOME": str(home)}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, *command.split()], env=environment, capture_output=True, check=False
    )
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(took, worked, failure="" if done.returncode == 0 else f"failed: {done.stderr.decode()[-160:]}")


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """Serve a home with one worker."""
    port = free_port()
    command = [sys.executable, "-c", _MAIN, "serve", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"SEEKNAL_HOME": str(home)}, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").close()
                    break
            yield f"http://127.0.0.1:{port}/metrics"
        finally:
            process.terminate()


def _ask(url: str) -> None:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own
        answer.read()
