"""What there is at which path, and the right it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from seeknal.server import about, historical, lookups, pushes
from seeknal.server.http import Answer, Exchange
from seeknal.server.service import Service

Endpoint = Callable[[Service, Exchange], Awaitable[Answer]]
OPEN = ""


@dataclass(frozen=True)
class Route:
    """What there is at a path.

    Args:
        path: The path, as people write it.
        right: The right that a token must give; none if it is open to all.
        methods: What answers, by method.
    """

    path: str
    right: str
    methods: Mapping[str, Endpoint]

    @property
    def names(self) -> list[str]:
        """What the names in the path are names of."""
        return [part[1:-1].replace("table", "online table") for part in self.path.split("/") if part.startswith("{")]


ROUTES: Mapping[tuple[str, ...], Route] = {
    ("online", "", ""): Route("/v1/online/{project}/{table}", "read", {"POST": lookups.post, "GET": lookups.get}),
    ("push", "", ""): Route("/v1/push/{project}/{group}", "push", {"POST": pushes.post}),
    ("historical", ""): Route("/v1/historical/{project}", "read", {"POST": historical.post}),
    ("/v1/catalog",): Route("/v1/catalog", "read", {"GET": about.catalog}),
    ("/metrics",): Route("/metrics", "admin", {"GET": about.metrics}),
    ("/healthz",): Route("/healthz", OPEN, {"GET": about.healthy}),
    ("/readyz",): Route("/readyz", OPEN, {"GET": about.ready}),
    ("/openapi.json",): Route("/openapi.json", OPEN, {"GET": about.openapi}),
    ("/",): Route("/", OPEN, {"GET": about.page}),
}
"""By what is left of the path without its names."""
