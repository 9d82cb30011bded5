"""Kill and halt the services of feature servers without a home, under load, and check what goes on and how the rest comes back.

    python scripts/kill_services.py [--away 30] [--ways 6] [--replicas 3] [--updates 2] [--seed 1]

The registry is in PostgreSQL, the tables in SeaweedFS, which speaks S3, the online rows in Valkey. Three servers with nothing in
common but these answer lookups of stored features, windows and a view with a function, and take pushes; the home of one is a folder
that it may not write. Clients send requests all the time, in turn to the servers that are ready, and compare each answer with the
right one. Meanwhile each service is killed for a while and started again with its data, and is halted for a while, in which it
accepts connections and answers nothing.

- While PostgreSQL or S3 is away, each lookup is answered, and each server is ready.
- While Valkey is away, lookups fail with 503 and the name of the online store.
- Whatever is away, no request waits longer than it may, no message has a password or a traceback, and all is as before soon after.

At last, the servers are replaced one by one, by SIGTERM and a new one, while new versions of the view are served: no request fails.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from seeknal import SeeknalWarning

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from _clients import REPORTED, Load, Outage, is_as_before, list_catalog, push, read, watch
from _services import CALM, SECRETS, UPDATE, Services, World

from servers import Server, wait_for
from unprivileged import make_read_only, make_writable, unprivileged

WAYS = [(name, way) for name in ("postgres", "s3", "redis") for way in ("killed", "halted")]
READERS, DRAIN, TIMEOUT = 4, 2, 20
BACK = 60
"""Seconds after which everything must be as before."""


def serve(services: Services, home: Path, *options: str, is_read_only: bool = False) -> Server:
    """Return a server, which is not started."""
    given = ("--module", "view_functions", "--drain", str(DRAIN), "--timeout", str(TIMEOUT), *options)
    return Server(home, *given, run_by=unprivileged() if is_read_only else (), env=services.env)


def when_ready(server: Server) -> float:
    """Start a server; return the moment when it was ready."""
    server.start()
    return time.monotonic()


def away(load: Load, services: Services, late: Server, name: str, way: str, seconds: float) -> str:
    """Take a service away for a while, and start a server meanwhile; return how it came back."""
    service = getattr(services, name)
    outage = Outage(name, way)
    load.outages.append(outage)
    load.seen.phase = outage.phase
    with ThreadPoolExecutor(1) as pool:
        service.kill() if way == "killed" else service.pause()
        starting = pool.submit(when_ready, late)
        time.sleep(seconds)
        if name == "s3":
            starting.result()  # it needs no tables, and is ready while they are away
        service.start() if way == "killed" else service.resume()
        outage.ended = began = time.monotonic()
        load.seen.phase = f"{name} is back"
        try:
            wait_for(lambda: is_as_before(load), BACK)
        except AssertionError:
            load.seen.problem(f"not as before within {BACK} s")
        took, ready = time.monotonic() - began, starting.result() - began
    if REPORTED[name] not in outage.reported:
        load.seen.problem(f"no server has reported that {REPORTED[name]!r} was away: {outage.reported}")
    if ready > BACK:
        load.seen.problem(f"a server that started meanwhile was ready only {ready:.1f} s after")
    if code := late.stop():
        load.seen.problem(f"a server that started meanwhile ended with {code}")
    time.sleep(min(2, seconds))
    load.seen.phase = CALM
    then = f"{ready:.1f} s after" if ready > 0 else "meanwhile"
    return f"{name} {way} for {seconds:g} s: all was as before {took:.1f} s after; a server started meanwhile was ready {then}"


def update(load: Load, updates: int) -> None:
    """Replace the servers one by one, and serve new versions of the view meanwhile."""
    load.seen.phase = UPDATE
    done = threading.Event()

    def define() -> None:
        while not done.wait(2):
            load.world.serve_next()

    defining = threading.Thread(target=define)
    defining.start()
    try:
        for server in load.servers * updates:
            if code := server.stop():
                load.seen.problem(f"a server ended with {code}: {server.errors.read_text()[-2000:]}")
            load.ready.discard(server.url)
            server.start()
            wait_for(lambda server=server: server.url in load.ready)
    finally:
        done.set()
        defining.join()
    wait_for(lambda: is_as_before(load), BACK)


def check_logs(load: Load) -> None:
    """Check that no server has printed a traceback or a secret."""
    for file in load.servers[0].home.parent.glob("*-*.*"):
        text = file.read_text()
        if "Traceback" in text or any(secret in text for secret in (*SECRETS, load.token)):
            load.seen.problem(f"{file.name} has a traceback or a secret: {text[-3000:]}")


def run(folder: Path, options: argparse.Namespace) -> Load:
    """Run everything, and return what was seen."""
    services, chance = Services(folder), random.Random(options.seed)
    with ExitStack() as stack:
        stack.enter_context(services.running())
        os.environ.update(services.env)
        world = World(folder / "author")
        token = world.define()
        servers = []
        for i in range(options.replicas):
            home = folder / f"replica-{i}"
            if is_read_only := i == 0:
                home.mkdir()
                make_read_only(home)
                stack.callback(make_writable, home)
            servers.append(serve(services, home, "--workers", f"{i % 2 + 1}", is_read_only=is_read_only))
            stack.enter_context(servers[-1])
        load = Load(world, token, servers)
        threads = [threading.Thread(target=read, args=(load, options.seed + i)) for i in range(READERS)]
        threads += [threading.Thread(target=push, args=(load, customer)) for customer in load.pushes]
        threads += [threading.Thread(target=watch, args=(load, server)) for server in servers]
        threads += [threading.Thread(target=list_catalog, args=(load,))]
        stack.callback(lambda: [thread.join() for thread in threads])
        stack.callback(load.stop.set)
        for thread in threads:
            thread.start()
        time.sleep(2)
        for name, way in chance.sample(WAYS, options.ways):
            late = serve(services, folder / f"late-{name}-{way}")
            stack.callback(lambda late=late: late.__exit__())
            print(away(load, services, late, name, way, options.away), flush=True)
        update(load, options.updates)
        load.stop.set()
    check_logs(load)
    return load


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=30, help="for how many seconds each service is away")
    parser.add_argument("--ways", type=int, default=len(WAYS), help="how many of the services and ways to try")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2, help="how often each server is replaced")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore", SeeknalWarning)
    with tempfile.TemporaryDirectory(prefix="seeknal-kill-", ignore_cleanup_errors=True) as name:
        load = run(Path(name).resolve(), options)
    problems = load.seen.problems
    print("requests / wrong / not answered with 200 / the longest, in seconds:")
    print(load.seen.summary())
    print(
        f"what a server had acknowledged, another lacked for {load.seen.lag:.1f} s at most while all services were there"
    )
    print(f"problems: {len(problems)}")
    for problem in dict.fromkeys(problems[:20]):
        print(problem)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
