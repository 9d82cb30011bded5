"""Acknowledged pushes a second, from one process and over HTTP, beside bare durable appends of the same number of bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import quantiles

import pyarrow as pa
from load import free_port
from report import Section
from serving import SEEKNAL

from seeknal import Count, Entity, EventSource, FeatureLookup, FeatureStore, Mean, Sum, WindowedGroup
from seeknal.home import session

_BYTES, _THREADS, _BATCH = 600, 8, 1000
_CARDS = 2000
OK = HTTPStatus.OK
_SCHEMA = pa.schema(
    [
        ("payment", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("card", pa.int64()),
        ("amount", pa.float64()),
        ("shop", pa.string()),
    ]
)
_ABOUT = (
    "Events of a source with `event_id`, whose windows (sum, mean and count over 1 hour, 1 and 7 days) are online. Each push is of one "
    f"event unless the case says otherwise, and over HTTP it comes from {_THREADS} connections. Beside it, appends of {_BYTES} bytes to "
    "a file, each with `fdatasync`, in turn. In a row: events a second; the 99th percentile of a call."
)
Call = Callable[[], None]


def measure_all(pushes: int, rounds: int, root: Path) -> Iterator[Section]:
    """Measure pushes in turn with bare appends, and again after many pushes."""
    section = Section("Rates of pushes", _ABOUT, "events/s")
    with tempfile.TemporaryDirectory(dir=root) as folder:
        home = Path(folder) / "home"
        os.environ["SEEKNAL_HOME"] = str(home)
        source = _served()
        numbers = count(1)
        with (Path(folder) / "bare").open("wb", buffering=0) as file:
            for number in range(rounds):
                for about in ("", f", after {pushes:,} more") if number == rounds - 1 else ("",):
                    if about:
                        _take(section, "", "", lambda: source.push(_event(next(numbers))), pushes)
                    _take(section, "one thread" + about, "bare", lambda: _append(file), 2000)
                    _take(section, "one thread" + about, "seeknal", lambda: source.push(_event(next(numbers))), 2000)
                    _take(section, f"{_THREADS} threads" + about, "bare", lambda: _append(file), 2000, _THREADS)
                    _take(
                        section,
                        f"{_THREADS} threads" + about,
                        "seeknal",
                        lambda: source.push(_event(next(numbers))),
                        2000,
                        _THREADS,
                    )
                    yield section
                batch = lambda: source.push([_event(next(numbers)) for _ in range(_BATCH)])  # noqa: E731
                _take(section, f"batches of {_BATCH:,}", "seeknal", batch, 30, events=_BATCH)
                yield section
        session.close()
        _over_http(section, next(numbers), rounds)
    yield section


def _served() -> EventSource:
    source = EventSource("payments", event_time_col="at", event_id=["payment"], project="bench")
    source.set_dataframe(pa.Table.from_pylist([_event(0)], _SCHEMA)).write(mode="append")
    windows = {"over": ["1h", "1d", "7d"]}
    features = {"spent": Sum("amount", **windows), "mean": Mean("amount", **windows), "payments": Count(**windows)}
    group = WindowedGroup(
        "spending", entity=Entity("card", ["card"]), source=source, features=features, project="bench"
    )
    FeatureStore().tables.serve([FeatureLookup(group)], "spending")
    return source


def _event(number: int) -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(seconds=number % 5)
    return {"payment": number, "at": at, "card": number % _CARDS, "amount": number / 7, "shop": "a shop"}


def _append(file: object) -> None:
    file.write(os.urandom(_BYTES))  # type: ignore[attr-defined]
    os.fdatasync(file.fileno())  # type: ignore[attr-defined]


def _take(section: Section, case: str, who: str, call: Call, calls: int, threads: int = 1, events: int = 1) -> None:
    def timed(_: int) -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        times = list(pool.map(timed, range(calls))) if threads > 1 else [timed(i) for i in range(calls)]
    if case:
        section.add(case, who, calls * events / (time.perf_counter() - begun))
        section.row(case, who).note(f"p99 {quantiles(times, n=100)[98] * 1e3:.1f} ms")


def _over_http(section: Section, first: int, rounds: int) -> None:
    port = free_port()
    process = subprocess.Popen([*SEEKNAL, "--port", str(port)], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(port)
        for number in range(rounds):
            task = [sys.executable, __file__, str(port), str(first + number * 10**6)]
            found = json.loads(subprocess.run(task, check=True, capture_output=True, text=True).stdout)
            case = f"over HTTP, {_THREADS} connections"
            section.add(case, "seeknal", found["rate"])
            section.row(case, "seeknal").note(f"p99 {found['p99']:.1f} ms")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == OK:
                return
        time.sleep(0.05)
    raise TimeoutError(port)


def main() -> None:
    """Push over HTTP from several connections for some seconds, and print the rate and the 99th percentile."""
    port, first, seconds = int(sys.argv[1]), int(sys.argv[2]), 4
    times: list[float] = []

    def run(thread: int) -> None:
        connection = HTTPConnection("127.0.0.1", port)
        until = time.perf_counter() + seconds
        for number in count(first + thread, _THREADS):
            if (begun := time.perf_counter()) > until:
                return
            event = _event(number)
            body = json.dumps({"rows": [event | {"at": event["at"].isoformat()}]})  # type: ignore[attr-defined]
            connection.request("POST", "/v1/push/bench/payments", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != OK:
                raise SystemExit(content.decode())
            times.append(time.perf_counter() - begun)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(run, range(_THREADS)))
    print(json.dumps({"rate": len(times) / seconds, "p99": quantiles(times, n=100)[98] * 1e3}))


if __name__ == "__main__":
    main()
