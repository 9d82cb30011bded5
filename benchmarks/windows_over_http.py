"""Requests per second of a table of windowed features, compared with a table that has the same values stored; needs `wrk`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import serving
from load import ask, wrk
from online import GROUP, frame
from report import Section
from windows import LENGTHS

from seeknal import (
    Count,
    EventSource,
    FeatureGroup,
    FeatureLookup,
    FeatureStore,
    Max,
    Mean,
    Min,
    Std,
    Sum,
    WindowedGroup,
)

_PEOPLE, _EVENTS, _CASE = 1000, 100, "1 key, 24 features"
_STORED, _WINDOWS = "seeknal, stored", "seeknal, windows of 100 events"
_ABOUT = (
    f"{_PEOPLE:,} people with {_EVENTS} events each, six aggregations over four windows; one worker, 8 connections, JSON, and the "
    "processor time of the server for a thousand requests. The stored features are the values of the windows at one moment."
)


def measure_all(rounds: int, seconds: int, root: Path) -> Iterator[Section]:
    """Measure both tables in turn on one server, if `wrk` is installed."""
    section = Section("HTTP, windows", _ABOUT, "requests/s")
    if not shutil.which("wrk"):
        section.row(_CASE, "all").note("not measured: wrk is not installed")
        yield section
        return
    with tempfile.TemporaryDirectory(dir=root) as folder:
        os.environ["SEEKNAL_HOME"] = folder
        _fill(FeatureStore())
        process, url = serving.start("seeknal", 1)
        try:
            places = {_STORED: url.replace("people", "stored"), _WINDOWS: url.replace("people", "windows")}
            assert _names(places[_STORED]) == _names(places[_WINDOWS])  # noqa: S101 - other answers are not worth timing
            for number in range(rounds):
                for name in list(places)[:: 1 if number % 2 == 0 else -1]:
                    before = serving.cpu(process.pid)
                    load = wrk(places[name], 1, _PEOPLE, seconds)
                    taken = serving.cpu(process.pid) - before
                    section.row(_CASE, name).processor.append(1000 * taken / (load.rate * seconds))
                    section.add(_CASE, name, load.rate, f"{load.failed} requests failed" if load.failed else "")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    stored, windows = (section.middle(_CASE, name) for name in (_STORED, _WINDOWS))
    section.hold(f"{_CASE}: stored / windows", 2, stored / windows)
    yield section


def _names(url: str) -> list[str]:
    (row,) = json.loads(ask(url, [7]))["rows"]
    return list(row)


def _fill(store: FeatureStore) -> None:
    """Store events, serve their windows, and serve a group that has the values of the windows as of now."""
    chance, now = np.random.default_rng(7), time.time_ns() // 1000
    count, instants = _PEOPLE * _EVENTS, pa.timestamp("us", "UTC")
    events = {
        "person_id": np.repeat(np.arange(_PEOPLE), _EVENTS),
        "at": pa.array(now - chance.integers(0, max(LENGTHS.values()), count), instants),
        "amount": np.round(chance.gamma(2, 20, count), 2),
    }
    source = EventSource("events", "at", project="bench")
    source.set_dataframe(pa.table(events)).write()
    over = list(LENGTHS)
    features = {"n": Count(over=over)} | {
        kind.__name__.lower(): kind("amount", over=over) for kind in (Sum, Mean, Min, Max, Std)
    }
    group = WindowedGroup("windows", GROUP.entity, source, features)
    store.tables.serve([FeatureLookup(group)], "windows")
    spine = pa.table({"person_id": np.arange(_PEOPLE), "seen_at": pa.array([now] * _PEOPLE, instants)})
    values = store.features.training_set([FeatureLookup(group)], spine, "seen_at")
    stored = FeatureGroup("stored", GROUP.entity, GROUP.materialization, "bench")
    store.groups.write(stored, values)
    store.tables.serve([FeatureLookup(stored)], "stored")
    store.groups.write(GROUP, frame(100))
    store.tables.serve([FeatureLookup(GROUP)], "people")
    store.close()
