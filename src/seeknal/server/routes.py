"""The routes: which endpoints are at a path, and the right that they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from seeknal.server import about, historical, lookups, pushes
from seeknal.server.http import Request, Response
from seeknal.server.service import Service

Endpoint = Callable[[Service, Request], Awaitable[Response]]
OPEN = ""


@dataclass(frozen=True)
class Route:
    """The endpoints at a path.

    Args:
        path: The path, with the names in it as {parameters}.
        right: The right that a token must have; empty if the route is open to all.
        methods: The endpoint of each method.
    """

    path: str
    right: str
    methods: Mapping[str, Endpoint]

    @property
    def allowed(self) -> str:
        """The methods of the route, as the header `Allow` lists them."""
        return ", ".join([*self.methods, *(["HEAD"] if "GET" in self.methods else [])])

    @cached_property
    def has_project(self) -> bool:
        """Whether the first name in the path is that of a project."""
        return "{project}" in self.path


ROUTES: Mapping[tuple[str, int], Route] = {
    ("online", 2): Route("/v1/online/{project}/{table}", "read", {"POST": lookups.post, "GET": lookups.get}),
    ("online", 1): Route("/v1/online/{table}", "read", {"POST": lookups.post, "GET": lookups.get}),
    ("push", 2): Route("/v1/push/{project}/{group}", "push", {"POST": pushes.post}),
    ("push", 1): Route("/v1/push/{group}", "push", {"POST": pushes.post}),
    ("historical", 1): Route("/v1/historical/{project}", "read", {"POST": historical.post}),
    ("/v1/historical", 0): Route("/v1/historical", "read", {"POST": historical.post}),
    ("/v1/catalog", 0): Route("/v1/catalog", "read", {"GET": about.catalog}),
    ("/metrics", 0): Route("/metrics", "admin", {"GET": about.metrics}),
    ("/healthz", 0): Route("/healthz", OPEN, {"GET": about.healthy}),
    ("/readyz", 0): Route("/readyz", OPEN, {"GET": about.ready}),
    ("/openapi.json", 0): Route("/openapi.json", OPEN, {"GET": about.openapi}),
    ("/", 0): Route("/", OPEN, {"GET": about.page}),
}
"""The routes by what is left of their paths without the names, and the number of names."""
