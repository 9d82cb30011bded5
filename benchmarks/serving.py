"""Time the server, compared with a bare endpoint on the same stack: uvicorn, plain ASGI, JSON from LMDB.

    python benchmarks/serving.py [--rounds 5] [--seconds 3] [--workers 1]

Needs `wrk` (a Debian package). 8 connections, alternating rounds; medians, and the CPU time per request of the server's
process. "no log" is the server without its access log.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import stacks
from load import Load, free_port, wait_for, wrk
from online import GROUP, frame

from seeknal import FeatureLookup, FeatureStore

ROWS = 100_000
SEEKNAL = [sys.executable, "-c", "from seeknal.cli import main; main()", "serve"]


def start(name: str, workers: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server; return its process and address."""
    port = free_port()
    bare = [sys.executable, "-m", *stacks.STACKS["uvicorn, ASGI alone"], "--port", str(port), "--workers", str(workers)]
    own = [*SEEKNAL, "--port", str(port), "--workers", str(workers), *(["--no-access-log"] if name == "no log" else [])]
    process = subprocess.Popen(
        bare if name == "bare" else own,
        cwd=Path(__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/v1/online/bench/people"
    wait_for(url)
    return process, url


def cpu(leader: int) -> float:
    """Return the CPU seconds of a process and its children."""
    taken = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader:  # its session
            taken += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return taken


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"STACKS_FOLDER": f"{folder}/bare", "SEEKNAL_HOME": f"{folder}/home"}
        stacks.fill(f"{folder}/bare")
        with_rows = FeatureStore()
        with_rows.groups.write(GROUP, frame(ROWS))
        with_rows.tables.serve([FeatureLookup(GROUP)], "people")
        with_rows.close()
        servers = {name: start(name, args.workers) for name in ("bare", "seeknal", "no log")}
        try:
            print("| keys | server | requests/s | of bare | p50 ms | p99 ms | processor us a request |")
            print("|--:|---|--:|--:|--:|--:|--:|")
            for keys in (1, 100):
                loads: dict[str, list[tuple[Load, float]]] = {name: [] for name in servers}
                for _ in range(args.rounds):
                    for name, (process, url) in servers.items():
                        before = cpu(process.pid)
                        load = wrk(url, keys, ROWS, args.seconds)
                        taken = (cpu(process.pid) - before) / (load.rate * args.seconds) * 1e6
                        loads[name].append((load, taken))
                rates = {name: median(load.rate for load, _ in runs) for name, runs in loads.items()}
                for name, runs in loads.items():
                    p50, p99 = (median(getattr(load, one) for load, _ in runs) for one in ("p50", "p99"))
                    shown = f"{rates[name]:,.0f} | {rates[name] / rates['bare']:.2f} | {p50:.2f} | {p99:.2f}"
                    print(f"| {keys} | {name} | {shown} | {median(taken for _, taken in runs):.0f} |", flush=True)
        finally:
            for process, _ in servers.values():
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
