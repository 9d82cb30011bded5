"""What a served feature view costs beside its parts: one row, in process and over HTTP, with and without a log.

    python benchmarks/views_online.py [--rounds 15] [--calls 2000] [--requests 2000]

Everything is measured in turn in one run, in processor time: of this process, and over HTTP of the server. The answers are compared
before any time counts. The log's thread belongs to the process that reads, so its writes count too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import serving
import view_features

from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, FeatureView, HistoricalFeaturesDuckDB, Materialization

_USERS = 10_000
_FUNCTIONS = [view_features.ratio, view_features.log_count]


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed, in turn")
    parser.add_argument("--calls", type=int, default=2000, help="calls in process in each round")
    parser.add_argument("--requests", type=int, default=2000, help="requests over HTTP in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SEEKNAL_HOME"] = home
        lookups = _fill()
        table = HistoricalFeaturesDuckDB(lookups).serve("plain")
        view = FeatureView("carts", lookups, request={"cart": "float64"}, functions=_FUNCTIONS).serve()
        logged = FeatureView("logged", lookups, request={"cart": "float64"}, functions=_FUNCTIONS).serve(log=0.01)
        _in_process(table, view, logged, options.rounds, options.calls)
        _over_http(Path(home), options.rounds, options.requests)


def _fill() -> list[FeatureLookup]:
    """Write three groups of one entity, with seven features."""
    rng, start = np.random.default_rng(5), np.datetime64("2024-01-01", "us")
    lookups = []
    for name, features in (("habits", ["usual", "trips"]), ("limits", ["credit", "age"]), ("visits", ["a", "b", "c"])):
        group = FeatureGroupDuckDB(name, Entity("user", ["user_id"]), Materialization(event_time_col="at"))
        values = {one: 1 + rng.random(_USERS) for one in features}
        group.set_dataframe(pa.table({"user_id": np.arange(_USERS), "at": np.full(_USERS, start), **values})).write()
        lookups.append(FeatureLookup(group))
    return lookups


def _in_process(table: Any, view: FeatureView, logged: FeatureView, rounds: int, calls: int) -> None:
    chance = random.Random(7)
    users = [chance.randrange(_USERS) for _ in range(calls)]
    keys = [[{"user_id": user}] for user in users]
    rows = [[{"user_id": user, "cart": 2.5}] for user in users]

    def read() -> list[Any]:
        return [table.get_features(one, "dicts") for one in keys]

    def bare() -> list[Any]:
        # As a server would call them on what it has read: arrays of one value.
        made = []
        for (one,) in found:
            cart, usual, trips = (np.array([value]) for value in (2.5, one["usual"], one["trips"]))
            made.append((view_features.ratio.function(cart, usual), view_features.log_count.function(cart, trips)))
        return made

    found = read()
    for (row,), (answer,), (ratio, log_count) in zip(
        found, [view.get_features(one, "dicts") for one in rows], bare(), strict=True
    ):
        if answer != row | {"cart": 2.5, "ratio": ratio.item(), "log_count": log_count.item()}:
            raise SystemExit(f"{answer} differs")
    took = _in_turn(
        {
            "plain read": read,
            "bare calls": bare,
            "view": lambda: [view.get_features(one, "dicts") for one in rows],
            "view, log=0.01": lambda: [logged.get_features(one, "dicts") for one in rows],
        },
        rounds,
        time.process_time,
    )
    _show("in process, one row", {name: 1e6 * seconds / calls for name, seconds in took.items()}, "us")
    print(f"view / (plain read + bare calls)      {took['view'] / (took['plain read'] + took['bare calls']):.2f}")
    print(f"view with log=0.01 / without          {took['view, log=0.01'] / took['view']:.2f}")


def _over_http(home: Path, rounds: int, requests: int) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", "from seeknal.cli import main; main()", "serve", "--port", "0", "--no-access-log"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    server = subprocess.Popen(
        [*command, "--module", "view_features"],
        env=env,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        cwd=home,
    )
    try:
        address = (
            next(line for line in server.stderr or [] if " at http" in line).split(" at http://")[1].split(". ")[0]
        )
        connection = http.client.HTTPConnection(address)
        _wait(connection)
        paths = {
            "plain table": ("/v1/online/default/plain", [{"user_id": 1}]),
            "view": ("/v1/views/default/carts", [{"user_id": 1, "cart": 2.5}]),
            "view, log=0.01": ("/v1/views/default/logged", [{"user_id": 1, "cart": 2.5}]),
        }

        def asking(path: str, keys: list[dict[str, Any]]) -> Callable[[], list[bytes]]:
            return lambda: [_post(connection, path, {"keys": keys}) for _ in range(requests)]

        took = _in_turn({name: asking(*one) for name, one in paths.items()}, rounds, lambda: serving.cpu(server.pid))
        _show(
            "HTTP, one row, processor time of the server",
            {name: 1e6 * one / requests for name, one in took.items()},
            "us",
        )
        print(f"rate of the view / of the table       {took['plain table'] / took['view']:.2f}")
        print(f"view with log=0.01 / without          {took['view, log=0.01'] / took['view']:.2f}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _wait(connection: http.client.HTTPConnection) -> None:
    for _ in range(600):
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().read() == b'{"status":"ok"}':
                return
        except OSError:
            connection.close()
        time.sleep(0.1)
    raise SystemExit("The server is not ready.")


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> bytes:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(text.decode())
    return text


def _in_turn(timed: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the median time of each, measured in turn, by a clock of processor time."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):
        for name, run in timed.items():
            began = clock()
            run()
            times[name].append(clock() - began)
    return {name: statistics.median(each[1:]) for name, each in times.items()}  # the first round warms up


def _show(title: str, values: dict[str, float], unit: str) -> None:
    print(title)
    for name, value in values.items():
        print(f"  {name:24} {value:8.1f} {unit}")


if __name__ == "__main__":
    main()
