"""The services, definitions and expected answers of kill_services.py, and what it counts."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pyarrow as pa

from seeknal import Count, Entity, FeatureLookup, FeatureStore, Materialization, Max, Sum, WindowedGroup
from seeknal.define.event_group import event_group
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.feature_view import ViewDefinition
from servers import Postgres, SeaweedFS, Valkey
from view_functions import costs

HERE = Path(__file__).parent
PRODUCTS, CUSTOMERS, NO_PRICE = 50, 50, 1000
PUSHED = 1000
"""The first customer whose events are pushed; those before have only the events that are written at first."""
CALM, UPDATE = "all there", "servers replaced"
"""The phases of a run in which no service is away; each outage is one of its own, and so is the time after it."""
SECRETS = "swordfish", "open-sesame", SeaweedFS.secret
"""The passwords for PostgreSQL and Valkey, and the secret key for S3: none may appear in an answer or a message."""
NOTICED = 2.0
"""Seconds after which a server has noticed a new version of a view."""


class Services:
    """PostgreSQL, an object store and Valkey, each with data that it keeps when it is killed.

    Args:
        folder: Where they keep their files.
    """

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres()
        self.s3 = SeaweedFS(folder / "s3")
        self.redis = Valkey(folder / "redis", "--appendonly", "yes")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start them, and stop them at the end."""
        with ExitStack() as stack:
            for one in (self.postgres, self.s3, self.redis):
                stack.callback(one.stop)
                one.start()
            yield

    @property
    def env(self) -> dict[str, str]:
        """The settings of a process that uses them."""
        registry = self.postgres.url("seeknal").replace("postgres@", f"postgres:{SECRETS[0]}@")
        return {
            **self.s3.env,
            "SEEKNAL_REGISTRY": registry,
            "SEEKNAL_STORAGE": "s3://lake/features",
            "SEEKNAL_ONLINE_STORE": self.redis.url.replace("//", f"//default:{SECRETS[1]}@"),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent / "tests")]),
        }


class World:
    """The definitions that are served, and the answers that are right.

    Args:
        home: The home of the process that defines them.
    """

    def __init__(self, home: Path) -> None:
        self.store = FeatureStore(home)
        self._versions: list[tuple[float, float, float]] = []
        """The price that each version of the view has in place of null, and when serving it began and ended."""

    def define(self) -> str:
        """Define and serve everything; return a token that may read and push."""
        groups, dated = self.store.groups, Materialization("at")
        started = datetime.now(UTC) - timedelta(hours=1)
        prices = FeatureGroup("prices", Entity("product", ["product_id"]), dated, "shop")
        numbers = [*range(PRODUCTS), NO_PRICE]
        values = [None if one == NO_PRICE else 3.0 * one for one in numbers]
        columns = {"product_id": numbers, "at": self._moments([started] * len(numbers))}
        groups.write(prices, pa.table({**columns, "price": pa.array(values, pa.float64())}))
        self.store.tables.serve([FeatureLookup("shop/prices")], "stored")

        hits = event_group("hits", "at", ["id"], project="shop")
        every = [(customer, i) for customer in range(CUSTOMERS) for i in range(customer % 3 + 1)]
        columns = {"id": [1000 * one + i for one, i in every], "customer": [one for one, _ in every]}
        at = [started + timedelta(seconds=i) for _, i in every]
        groups.write(hits, pa.table({**columns, "at": self._moments(at), "number": [one for one, _ in every]}))
        features = {"hits": Count(over="30d"), "total": Sum("number", over="30d"), "newest": Max("number", over="30d")}
        counted = WindowedGroup("counted", Entity("customer", ["customer"]), "shop/hits", features, "shop")
        groups.register(counted)
        self.store.tables.serve([FeatureLookup("shop/counted")], "windows")
        self.serve_next()
        return self.store.tokens.create("script", "shop", ["read", "push"])

    @staticmethod
    def _moments(moments: list[datetime]) -> pa.Array:
        return pa.array(moments, pa.timestamp("us", "UTC"))

    def serve_next(self) -> None:
        """Serve another version of the view."""
        number, began = float(len(self._versions) + 1), time.monotonic()
        view = ViewDefinition(
            "offer",
            [FeatureLookup("shop/prices")],
            request={"cart_value": "float64"},
            functions=[costs],
            defaults={"price": number},
            project="shop",
        )
        record = self.store.views.register(view)
        self._versions.append((number, began, float("inf")))
        self.store.views.serve(record)
        self._versions[-1] = number, began, time.monotonic()

    def defaults(self, began: float, ended: float) -> set[float]:
        """Return the prices in place of null that an answer may have that was asked for at one moment and came at another."""
        every = list(self._versions)
        nexts = [*(end for _, _, end in every[1:]), float("inf")]
        return {
            price
            for (price, start, _), gone in zip(every, nexts, strict=True)
            if start <= ended and began <= gone + NOTICED
        }


@dataclass
class Pushes:
    """What was pushed of one customer: the events 1, 2, 3 and so on, one after the other."""

    begun: int = 0
    acknowledged: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The events that each server has acknowledged, by its address."""
    moments: dict[int, float] = field(default_factory=dict)
    """When each event was acknowledged."""


@dataclass
class Tally:
    """What came of the requests of a kind in a phase."""

    requests: int = 0
    wrong: int = 0
    failed: int = 0
    longest: float = 0.0


class Seen:
    """What came of all requests, by phase and kind, and what must not have come."""

    def __init__(self) -> None:
        self.phase = CALM
        self.counts: dict[tuple[str, str], Tally] = defaultdict(Tally)
        self.problems: list[str] = []
        self.lag = 0.0
        """For how long at most a server has lacked an event that another has acknowledged, while no service was away."""
        self._lock = threading.Lock()

    def add(self, phase: str, kind: str, status: int, seconds: float) -> None:
        """Count a response; 0 is the status of a request without one."""
        with self._lock:
            one = self.counts[phase, kind]
            one.requests += 1
            one.failed += status != HTTPStatus.OK
            one.longest = max(one.longest, seconds)

    def lagged(self, seconds: float) -> None:
        """Note for how long a server has lacked an event that another has acknowledged."""
        if self.phase in {CALM, UPDATE}:
            self.lag = max(self.lag, seconds)

    def wrong(self, text: str) -> None:
        """Note a wrong answer to a lookup."""
        self.counts[self.phase, "lookup"].wrong += 1
        self.problem(f"WRONG {text}")

    def problem(self, text: str) -> None:
        """Note what must not be."""
        with self._lock:
            self.problems.append(f"{self.phase}: {text}")

    def summary(self) -> str:
        """Return the counts as a table: for each phase and kind, requests / wrong / failed / the longest in seconds."""
        kinds = ["lookup", "push", "catalog", "readyz", "healthz"]
        lines = [["phase", *kinds], ["---"] * (len(kinds) + 1)]
        for phase in dict.fromkeys(phase for phase, _ in self.counts):
            found = [self.counts.get((phase, kind), Tally()) for kind in kinds]
            cells = [f"{one.requests:,} / {one.wrong} / {one.failed:,} / {one.longest:.2f}" for one in found]
            lines.append([phase, *cells])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
