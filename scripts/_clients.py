"""The clients of kill_services.py: what they ask the servers all the time, and how they judge the answers."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Any

from _services import CALM, CUSTOMERS, NO_PRICE, PRODUCTS, PUSHED, SECRETS, UPDATE, Pushes, Seen, World

from servers import Server

PUSHERS = 2
PAUSE = 0.02
"""Seconds between two requests of a client, so that the machine is not what they wait for."""
IDLE = 30
"""Seconds after which a client does not use an idle connection again."""
MOST = {"lookup": 5, "push": 75, "catalog": 25, "readyz": 5, "healthz": 5}
"""Seconds that a request may take, whatever is away; lookups take longer if it is Valkey."""
MOST_WITHOUT_REDIS = 15
NAMED = {"postgres": "registry", "s3": "s3://lake/features", "redis": "online store"}
"""What a message calls a service that is away."""
UNKNOWN = "A commit of rows that were just pushed does not end"
"""Why a lookup may fail if the storage went in the middle of a commit: nobody knows yet whether the online rows have those."""
REPORTED = {"postgres": "registry", "s3": "storage", "redis": "online store"}
"""What /readyz calls it."""


@dataclass
class Outage:
    """A time during which a service was away.

    Args:
        service: The service.
        way: What was done to it.
        ended: When it was back; infinite until then.
        reported: What servers have reported to be away meanwhile.
    """

    service: str
    way: str
    ended: float = inf
    reported: set[str] = field(default_factory=set)

    @property
    def phase(self) -> str:
        """What the summary calls it."""
        return f"{self.service} {self.way}"


@dataclass
class Load:
    """The clients, and what they share."""

    world: World
    token: str
    servers: list[Server]
    seen: Seen = field(default_factory=Seen)
    pushes: dict[int, Pushes] = field(default_factory=lambda: {PUSHED + i: Pushes() for i in range(PUSHERS)})
    ready: set[str] = field(default_factory=set)
    outages: list[Outage] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _turn: int = 0

    def next_server(self) -> str:
        """Return the address of the next server in turn, of those that are ready if any are."""
        urls = [one.url for one in self.servers]
        among = [one for one in urls if one in self.ready] or urls
        self._turn += 1
        return among[self._turn % len(among)]


class Client:
    """Sends requests over connections that it keeps, one to each server."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._used: dict[str, float] = {}

    def ask(self, kind: str, url: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request, count its response, and return status and body."""
        load, began = self._load, time.monotonic()
        phase = load.seen.phase
        status, text = self.send(url, path, body)
        seconds = time.monotonic() - began
        # A request may have been on its way when a service went, or the first server was replaced.
        outage = next((one for one in load.outages if one.ended >= began), None)
        phase = outage.phase if outage else load.seen.phase if load.seen.phase == UPDATE else phase
        load.seen.add(phase, kind, status, seconds)
        if any(secret in text for secret in (*SECRETS, load.token)):
            load.seen.problem(f"{kind}: a secret is in the answer: {text}")
        if kind != "readyz" or phase != UPDATE:
            most = MOST_WITHOUT_REDIS if kind == "lookup" and "redis" in phase else MOST[kind]
            if seconds > most:
                load.seen.problem(f"{kind}: took {seconds:.1f} s, with {status} {text[:200]}")
            self._judge(kind, phase, outage, status, text)
        return status, json.loads(text) if status == HTTPStatus.OK else None

    def _judge(self, kind: str, phase: str, outage: Outage | None, status: int, text: str) -> None:
        """Note a failure that must not be in this phase."""
        if status == HTTPStatus.OK or (kind == "readyz" and "redis" in phase):
            return
        if kind == "lookup" and "s3" in phase and UNKNOWN in text:
            return
        may_fail = "redis" in phase if kind == "lookup" else phase not in {CALM, UPDATE}
        if status not in {503, 429} or not may_fail or kind in {"readyz", "healthz"}:
            self._load.seen.problem(f"{kind}: {status} {text[:300]}")
        elif outage and status == HTTPStatus.SERVICE_UNAVAILABLE and NAMED[outage.service] not in text:
            self._load.seen.problem(f"{kind}: {status} without {NAMED[outage.service]!r}: {text[:300]}")

    def send(self, url: str, path: str, body: object) -> tuple[int, str]:
        """Send a request, and return status and text; the status is 0 if there was no response."""
        address = url.removeprefix("http://")
        connection = self._connections.setdefault(url, http.client.HTTPConnection(address, timeout=120))
        if self._used.get(url, 0) < time.monotonic() - IDLE:  # the server may be closing it just now
            connection.close()
        try:
            headers = {"content-type": "application/json", "authorization": f"Bearer {self._load.token}"}
            text = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, text, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return 0, repr(error)
        finally:
            self._used[url] = time.monotonic()


def read(load: Load, seed: int) -> None:
    """Look up features until told to stop, and compare them with the right ones."""
    client, chance = Client(load), random.Random(seed)
    while not load.stop.wait(PAUSE):
        chance.choice([read_stored, read_windows, read_view])(load, client, load.next_server(), chance)


def read_stored(load: Load, client: Client, url: str, chance: random.Random) -> None:
    """Look up prices, which are three times the key."""
    wanted = [chance.randrange(PRODUCTS) for _ in range(5)]
    body = {"keys": [{"product_id": one} for one in wanted]}
    status, found = client.ask("lookup", url, "/v1/online/shop/stored", body)
    right = {"rows": [{"product_id": one, "price": 3.0 * one} for one in wanted]}
    if status == HTTPStatus.OK and found != right:
        load.seen.wrong(f"stored: {found}, not {right}")


def read_windows(load: Load, client: Client, url: str, chance: random.Random) -> None:
    """Look up windows of a customer whose events never change, and of one whose events are pushed."""
    known, pushed = chance.randrange(CUSTOMERS), chance.choice(list(load.pushes))
    pushes, began = load.pushes[pushed], time.monotonic()
    mine, latest = sorted(pushes.acknowledged[url]), pushes.moments.copy()
    body = {"keys": [{"customer": known}, {"customer": pushed}]}
    status, found = client.ask("lookup", url, "/v1/online/shop/windows", body)
    if status != HTTPStatus.OK:
        return
    first, second = found["rows"]
    count = known % 3 + 1
    if first != {"customer": known, "hits": count, "total": count * known, "newest": known}:
        load.seen.wrong(f"windows: {first}")
    # It has what this server has acknowledged, and of all others any, since they may lie in the push log of another server.
    hits, total, newest = second["hits"], second["total"] or 0, second["newest"] or 0
    every = range(1, pushes.begun + 1)
    if not (len(mine) <= hits <= len(every) and sum(mine) <= total <= sum(every) and max(mine, default=0) <= newest):
        load.seen.wrong(f"windows: {second}, but {mine[-5:]} of {len(every)} events were acknowledged")
    if missing := [moment for number, moment in latest.items() if number > hits]:
        load.seen.lagged(began - min(missing))


def read_view(load: Load, client: Client, url: str, chance: random.Random) -> None:
    """Look up a view for a product with a price and for one whose price is null, with a value of the request."""
    product, cart, began = chance.randrange(PRODUCTS), float(chance.randrange(100)), time.monotonic()
    body = {"keys": [{"product_id": one, "cart_value": cart} for one in (product, NO_PRICE)]}
    status, found = client.ask("lookup", url, "/v1/views/shop/offer", body)
    if status != HTTPStatus.OK:
        return
    default = found["rows"][1]["price"]
    right = [
        {"product_id": one, "cart_value": cart, "price": price, "costs_more": cart > price, "gap": cart - price}
        for one, price in ((product, 3.0 * product), (NO_PRICE, default))
    ]
    allowed = load.world.defaults(began, time.monotonic())
    if found["rows"] != right or default not in allowed:
        load.seen.wrong(f"view: {found}, not {right} with a default among {allowed}")


def push(load: Load, customer: int) -> None:
    """Push one event of a customer after the other, each until it is acknowledged."""
    client, mine = Client(load), load.pushes[customer]
    while not load.stop.wait(5 * PAUSE):
        n = mine.begun = mine.begun + 1
        row = {"id": 10**6 * customer + n, "customer": customer, "at": datetime.now(UTC).isoformat(), "number": n}
        while not load.stop.is_set():
            url = load.next_server()
            status, _ = client.ask("push", url, "/v1/push/shop/hits", {"rows": [row]})
            if status == HTTPStatus.OK:
                mine.acknowledged[url].add(n)
                mine.moments[n] = time.monotonic()
                break
            load.stop.wait(0.5)


def watch(load: Load, server: Server) -> None:
    """Ask a server all the time whether it is ready and alive, and let the others send requests to it while it is."""
    client = Client(load)
    while not load.stop.wait(0.2):
        if not (url := server.url) or server not in load.servers:
            continue
        status, found = client.ask("readyz", url, "/readyz")
        (load.ready.add if status == HTTPStatus.OK else load.ready.discard)(url)
        if load.outages and load.seen.phase == load.outages[-1].phase:
            load.outages[-1].reported.update(found.get("away", []) if found else ["online store"])
        if load.seen.phase != UPDATE:
            client.ask("healthz", url, "/healthz")


def list_catalog(load: Load) -> None:
    """Ask for the catalog all the time, which only the registry has."""
    client = Client(load)
    while not load.stop.wait(0.5):
        client.ask("catalog", load.next_server(), "/v1/catalog")


def is_as_before(load: Load) -> bool:
    """Return whether all servers answer everything, and have all that was pushed before."""
    client = Client(load)
    acknowledged = {customer: max(pushes.moments, default=0) for customer, pushes in load.pushes.items()}
    for url in [one.url for one in load.servers]:
        status, _ = client.send(url, "/readyz", None)
        catalog, _ = client.send(url, "/v1/catalog", None)
        body = {"keys": [{"customer": one} for one in acknowledged]}
        read, text = client.send(url, "/v1/online/shop/windows", body)
        if not status == catalog == read == HTTPStatus.OK:
            return False
        if any(row["hits"] < acknowledged[row["customer"]] for row in json.loads(text)["rows"]):
            return False
    return True
