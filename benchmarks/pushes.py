"""A group that grows by pushes, row by row: the time of one push after many, and the size on disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from measure import Outcome
from report import Section

from seeknal import Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

_START, _USERS, _TIMED = datetime(2024, 1, 1, tzinfo=UTC), 500, 32
_GROUP = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at"), "bench")


def measure_all(counts: list[int], rounds: int, root: Path) -> Iterator[Section]:
    """Push rows one by one, and measure the time of one more push after the given numbers of them, in turn."""
    section = Section(
        "Pushes",
        f"Rows are pushed one by one, of {_USERS} users in the order of time. {_TIMED} more are timed after some numbers of pushes, "
        "in turn, each in a copy of the home as it was then; a figure is that of one push.",
    )
    with tempfile.TemporaryDirectory(dir=root) as folder:
        homes = dict(_grown(Path(folder), counts))
        room = {count: _room(home) for count, home in homes.items()}
        for number in range(rounds):
            for count, home in homes.items():
                section.take(f"a push after {count:,}", "seeknal", _push(home, count + number * _TIMED, _TIMED))
                yield section
    few, many = min(counts), max(counts)
    times = [section.middle(f"a push after {count:,}", "seeknal") for count in (few, many)]
    section.hold(f"a push after {many:,} / after {few:,}", 1.2, times[1] / times[0])
    for count, size in room.items():
        section.hold(f"home after {count:,} pushes of a row", 5 if count <= 3000 else float("inf"), size / 1e6, "MB")  # noqa: PLR2004
    yield section


def _grown(folder: Path, counts: list[int]) -> Iterator[tuple[int, Path]]:
    """Push rows, and return a copy of the home after each of the given numbers of pushes."""
    home, done = folder / "home", 0
    with_first = pa.table({"user_id": [0], "at": [_START], "amount": [0.0]})
    FeatureStore(home).groups.write(_GROUP, with_first)
    for count in sorted(counts):
        _push(home, done, count - done)
        done = count
        yield count, shutil.copytree(home, folder / str(count))


def _push(home: Path, first: int, count: int) -> Outcome:
    """Push rows, and return the time of one push."""
    store = FeatureStore(home)
    store.groups.push("spend", _row(first + 1))  # what is loaded once is not timed
    began, processor = time.perf_counter(), time.process_time()
    for number in range(first + 2, first + count + 1):
        store.groups.push("spend", _row(number))
    took, worked = time.perf_counter() - began, time.process_time() - processor
    store.close()
    return Outcome(took / max(count - 1, 1), worked / max(count - 1, 1))


def _row(number: int) -> dict[str, object]:
    return {"user_id": number % _USERS, "at": _START + timedelta(seconds=number), "amount": float(number)}


def _room(home: Path) -> int:
    """Return the size of a home on disk, in bytes."""
    return sum(path.stat().st_blocks * 512 for path in home.rglob("*") if path.is_file())
