"""Compare Seeknal with its peers on the same data; every result is checked before its time counts.

    python benchmarks/run.py [--quick] [--only join write ...] [--peers feast ...] [--rounds N] [--out DIR]

Quick: a few minutes, small data, no peers. Each kind has a report, rewritten after every case, so the script can be stopped at any time.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import environments
import groups
import growth
import joins
import memory
import over_http
import push_rates
import pushes
import reads
import report
import server_growth
import starts
import trips
import window_costs
import windows
import windows_over_http
import writes
from environments import HERE
from measure import Limits


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small data, no peers, under five minutes")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="which measurements")
    parser.add_argument("--case", nargs="+", default=["*"], help="only joins with such names, as '*, spine 1M'")
    parser.add_argument("--peers", nargs="*", choices=environments.PEERS, help="which peers; without it all")
    parser.add_argument("--rounds", type=int, help="how often each is timed, in turn")
    parser.add_argument("--grown", type=int, default=100_000_000, help="rows of the group that has grown for two years")
    parser.add_argument("--out", type=Path, default=HERE / ".reports", help="where the reports go")
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="where rows are kept for the next run")
    parser.add_argument("--memory", type=float, default=13, help="GB at which a run is ended")
    parser.add_argument("--seconds", type=float, default=240, help="seconds after which a run is ended")
    options = parser.parse_args()
    options.peers = options.peers if options.peers is not None else [] if options.quick else environments.PEERS
    options.rounds = options.rounds or (2 if options.quick else 5)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that `timeout` leaves no folders behind
    options.data.mkdir(parents=True, exist_ok=True)
    versions = {peer: environments.versions(peer) for peer in ["this", *options.peers]}
    try:
        for kind in options.only:
            began, done = datetime.now(UTC).isoformat(timespec="seconds"), {}
            for section in KINDS[kind](options):
                done[section.name] = section
                report.write(options.out / kind, list(done.values()), versions, began)
            print((options.out / kind / "report.md").read_text(encoding="utf-8"))
    except KeyboardInterrupt:
        sys.exit(f"stopped; what there is is in {options.out}")


def _joins(options: argparse.Namespace) -> Iterator[report.Section]:
    every = joins.QUICK if options.quick else joins.FULL
    cases = [case for case in every if any(fnmatch(case.name, pattern) for pattern in options.case)]
    limits = Limits(options.memory, options.seconds)
    return joins.measure_all(cases, options.peers, options.rounds, options.data, limits)


def _writes(options: argparse.Namespace) -> Iterator[report.Section]:
    limits, counts = Limits(options.memory, options.seconds), [100_000] if options.quick else [1_000_000, 10_000_000]
    yield from writes.measure_all(counts, options.peers, options.rounds, options.data, limits)


def _small(options: argparse.Namespace) -> Iterator[report.Section]:
    count, times = (100_000, 50) if options.quick else (1_000_000, 1000)
    return writes.measure_small(count, times, options.rounds, options.data, Limits(options.memory, options.seconds))


def _growth(options: argparse.Namespace) -> Iterator[report.Section]:
    count, steps = (300_000, [30]) if options.quick else (options.grown, [30, 1])
    return growth.measure_all(count, steps, options.rounds, options.data, Limits(options.memory, options.seconds))


def _memory(options: argparse.Namespace) -> Iterator[report.Section]:
    size = (100_000, 10_000, 10_000) if options.quick else (10_000_000, 1_000_000, 1_000_000)
    cases = [joins.Join(*size), *([] if options.quick else [joins.Join(*size, kind="text")])]
    return memory.measure_all(cases, options.rounds, options.data, Limits(options.memory, options.seconds))


def _starts(options: argparse.Namespace) -> Iterator[report.Section]:
    return starts.measure_all(options.peers, options.rounds)


def _trips(options: argparse.Namespace) -> Iterator[report.Section]:
    counts = [200_000] if options.quick else [1_000_000, 5_000_000, 10_000_000]
    limits = Limits(options.memory, options.seconds)
    return trips.measure_all(counts, options.peers, options.rounds, options.data, limits)


def _online(options: argparse.Namespace) -> Iterator[report.Section]:
    rows = 20_000 if options.quick else 200_000
    return reads.measure_all(rows, options.peers, options.rounds, options.data)


def _http(options: argparse.Namespace) -> Iterator[report.Section]:
    rows, seconds = (20_000, 1) if options.quick else (100_000, 3)
    return over_http.measure_all(rows, options.peers, options.rounds, seconds, options.data)


def _windows_http(options: argparse.Namespace) -> Iterator[report.Section]:
    return windows_over_http.measure_all(options.rounds, 1 if options.quick else 3, options.data)


def _servers(options: argparse.Namespace) -> Iterator[report.Section]:
    tables, threads = ([10, 100], [16]) if options.quick else ([10, 1000], [16, 32])
    return server_growth.measure_all(tables, threads, options.rounds, options.data)


def _pushes(options: argparse.Namespace) -> Iterator[report.Section]:
    return pushes.measure_all([10, 300] if options.quick else [10, 1000, 3000, 10_000], options.rounds, options.data)


def _push_rates(options: argparse.Namespace) -> Iterator[report.Section]:
    return push_rates.measure_all(1000 if options.quick else 10_000, options.rounds, options.data)


def _groups(options: argparse.Namespace) -> Iterator[report.Section]:
    return groups.measure_all([50] if options.quick else [10, 1000], options.rounds, options.data)


def _windows(options: argparse.Namespace) -> Iterator[report.Section]:
    limits, cases = Limits(options.memory, options.seconds), windows.QUICK if options.quick else windows.FULL
    return windows.measure_all(cases, options.peers, options.rounds, options.data, limits)


def _window_costs(options: argparse.Namespace) -> Iterator[report.Section]:
    limits, cases = Limits(options.memory, options.seconds), window_costs.QUICK if options.quick else window_costs.FULL
    return window_costs.measure_all(cases, options.rounds, options.data, limits)


KINDS = {
    "join": _joins,
    "windows": _windows,
    "window-costs": _window_costs,
    "write": _writes,
    "small-writes": _small,
    "growth": _growth,
    "pushes": _pushes,
    "push-rates": _push_rates,
    "groups": _groups,
    "memory": _memory,
    "start": _starts,
    "trips": _trips,
    "online": _online,
    "http": _http,
    "windows-http": _windows_http,
    "server": _servers,
}

if __name__ == "__main__":
    main()
