"""Requests per second over HTTP, compared with a bare endpoint on the same stack and with Feast's server; needs `wrk`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import environments
import measure
import pyarrow.parquet as pq
import serving
import stacks
from load import free_port, wrk
from measure import Limits, Worker
from online import GROUP, frame
from report import Section

from seeknal import FeatureLookup, FeatureStore

_FEAST = """
math.randomseed(%d)
local unused = %s
function request()
  local keys = {}
  for i = 1, %d do keys[i] = math.random(0, %d) end
  local body = '{"features":[FEATURES],"entities":{"person_id":[' .. table.concat(keys, ",") .. ']}}'
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
"""
_CLI = "from feast.cli.cli import cli; cli()"
_ABOUT = (
    "One worker each, 8 connections, JSON, {} people; every answer is looked at before. In a row: 99th percentile, ms."
)


def measure_all(rows: int, peers: list[str], rounds: int, seconds: int, root: Path) -> Iterator[Section]:
    """Measure all servers in turn, if `wrk` is installed."""
    section = Section("HTTP", _ABOUT.format(f"{rows:,}"), "requests/s")
    if not shutil.which("wrk"):
        section.row("all", "all").note("not measured: wrk is not installed")
        yield section
        return
    with tempfile.TemporaryDirectory(dir=root) as folder:
        servers = _start(Path(folder), rows, peers)
        try:
            for keys in (1, 100):
                _measure(section, f"{keys} keys", keys, servers, (rounds, seconds, rows))
                yield section
        finally:
            for process, _, _ in servers.values():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


Server = tuple[subprocess.Popen[bytes], str, str | None]


def _start(folder: Path, rows: int, peers: list[str]) -> dict[str, Server]:
    os.environ |= {"STACKS_FOLDER": str(folder / "bare"), "SEEKNAL_HOME": str(folder / "home")}
    stacks.fill(str(folder / "bare"))
    store = FeatureStore()
    store.groups.write(GROUP, frame(rows))
    store.tables.serve([FeatureLookup(GROUP)], "people")
    store.close()
    servers: dict[str, Server] = {name: (*serving.start(name, 1), None) for name in ("bare", "seeknal", "no log")}
    if "feast" in peers:
        servers["Feast, SQLite"] = _start_feast(folder, rows)
    return servers


def _start_feast(folder: Path, rows: int) -> Server:
    pq.write_table(frame(rows), folder / "rows.parquet")
    task = {"job": "folder", "home": str(folder), "rows": str(folder / "rows.parquet")}
    made = measure.run(Worker("Feast", "feast_online", peer="feast"), task, Limits(seconds=600))
    if made.failure:
        raise RuntimeError(made.failure)
    port, names = free_port(), ",".join(f'"people:{name}"' for name in made.more["features"])
    command = [str(environments.python("feast")), "-c", _CLI, "-c", str(folder / "feast"), "serve", "-p", str(port)]
    process = subprocess.Popen(
        [*command, "--no-access-log", "--max-requests", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/get-online-features"
    _wait_for(url, names)
    return process, url, _FEAST.replace("FEATURES", names.replace("%", "%%"))


def _wait_for(url: str, names: str) -> None:
    """Wait until Feast's server responds, and check its response.

    Raises:
        TimeoutError: It did not respond within a minute.
    """
    body = f'{{"features":[{names}],"entities":{{"person_id":[12]}}}}'.encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - http
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - http
                results = json.loads(response.read())["results"]
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
            continue
        assert len(results) == 11, results  # noqa: S101, PLR2004 - a wrong answer is not worth timing
        assert all(one["statuses"] == ["PRESENT"] for one in results), results  # noqa: S101
        return
    raise TimeoutError(url)


def _measure(section: Section, case: str, keys: int, servers: dict[str, Server], how: tuple[int, int, int]) -> None:
    rounds, seconds, rows = how
    slowest: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds):
        for name in list(servers)[:: 1 if number % 2 == 0 else -1]:
            _, url, script = servers[name]
            load = wrk(url, keys, rows, seconds, script=script)
            section.add(case, name, load.rate, failure=f"{load.failed} requests failed" if load.failed else "")
            slowest[name].append(load.p99)
    for name, spans in slowest.items():
        section.row(case, name).note(f"p99 {sorted(spans)[len(spans) // 2]:.1f} ms")
