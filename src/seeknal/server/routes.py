"""The routes: for each path, in one place, how requests are authorized, answered and described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass, field, replace
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from seeknal.server import about, historical, lookups, pushes, views
from seeknal.server.authorization import authorize
from seeknal.server.bodies import Decoder
from seeknal.server.http import ARROW, JSON, MSGPACK, SOON, Problem, Request
from seeknal.server.service import Service

OPEN = ""
FORM, TEXT = "multipart/form-data", "text/plain"


@dataclass(frozen=True)
class Operation:
    """A method of a route.

    Args:
        endpoint: Returns the response to a request.
        name: The operation's name in generated clients.
        answers: The content types of the response, each with the type that it encodes if that has a schema.
        body: The decoder of the body; None if the operation takes none.
        is_form: Whether the body is a form with two parts: what `body` decodes, and a spine.
        query: The decoder whose fields can be given in the query, with each key as a field.
        problems: The statuses of its problems, besides those of every route, every right and every body.
        example: What follows the URL in an example for curl.
    """

    endpoint: Callable[[Service, Request], Awaitable[Response]]
    name: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    body: Decoder | None = None
    is_form: bool = False
    query: Decoder | None = None
    problems: AbstractSet[int] = frozenset()
    example: str = ""

    @property
    def summary(self) -> str:
        """What the operation does, in a sentence: the first line of its endpoint's docstring."""
        return (self.endpoint.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True)
class Route:
    """The operations at a path.

    Args:
        path: The path, with the names in it as {parameters}.
        right: The right that a token must have; empty if the route is open to all.
        operations: The operation of each method.
    """

    path: str
    right: str
    operations: Mapping[str, Operation]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the router has matched to this route."""
        state, names = scope["state"], [*scope["path_params"].values()]
        response = await self.respond(state["service"], state["request"], names)
        await response(scope, receive, send)

    async def respond(self, service: Service, request: Request, names: list[str]) -> Response:
        """Return the response to a request, once it is authorized.

        Raises:
            Problem: Too many requests are running, the path has other methods, or the request is not authorized.
        """
        request.route, request.names = self.path, names
        # Before authorization, so that an overloaded worker spends nothing on the request.
        if len(service.running) > service.limits.requests:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are running.", None, SOON)
        operation = self.operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            allowed = ", ".join([*self.operations, *(["HEAD"] if "GET" in self.operations else [])])
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"Use {allowed}.", None, {"allow": allowed})
        request.project = names[0] if "{project}" in self.path else None
        if self.right != OPEN:
            authorize(service, request, self.right)
        return await operation.endpoint(service, request)


def _with_and_without_project(path: str, right: str, operations: Mapping[str, Operation]) -> list[Route]:
    """Return a route, and its variant without the project in the path, which finds the only project that has the name."""
    by_name = {method: replace(one, name=f"{one.name}_by_name") for method, one in operations.items()}
    return [Route(path, right, operations), Route(path.replace("/{project}", ""), right, by_name)]


_ROWS = {JSON: pushes.Rows, MSGPACK: None, ARROW: None}
_get_features = Operation(
    lookups.post,
    "get_features",
    _ROWS,
    body=lookups.BODY,
    problems={404, 406},
    example="""-H 'Content-Type: application/json' -d '{"keys": [{"customer_id": 1}]}'""",
)
_get_features_of_one = Operation(
    lookups.get,
    "get_features_of_one",
    _ROWS,
    query=lookups.BODY,
    problems={404, 406},
    example="?customer_id=1&features=total",
)
_get_view_features = Operation(
    views.post,
    "get_view_features",
    _ROWS,
    body=lookups.BODY,
    problems={404, 406},
    example="""-H 'Content-Type: application/json' -d '{"keys": [{"customer_id": 1, "cart_value": 31.5}]}'""",
)
_get_view = Operation(views.get, "get_view", {JSON: dict}, problems={404})
_push_rows = Operation(
    pushes.post,
    "push_rows",
    {JSON: pushes.PushResult},
    body=pushes.BODY,
    problems={404, 429},
    example="""-H 'Content-Type: application/json' -d '{"rows": [{"customer_id": 2, "at": "2024-05-04T10:30:00Z", "total": 27}]}'""",
)
_get_training_data = Operation(
    historical.post,
    "get_training_data",
    {ARROW: None},
    body=historical.BODY,
    is_form=True,
    problems={404, 429},
    example="""-F 'query={"lookups": [{"group": "spend"}], "date_col": "at"}' -F spine=@spine.parquet -o training.arrows""",
)
_online = _with_and_without_project(
    "/v1/online/{project}/{table}", "read", {"POST": _get_features, "GET": _get_features_of_one}
)
_views = _with_and_without_project("/v1/views/{project}/{view}", "read", {"POST": _get_view_features, "GET": _get_view})
ROUTES = (
    *_online,
    *_views,
    *_with_and_without_project("/v1/push/{project}/{group}", "push", {"POST": _push_rows}),
    *_with_and_without_project("/v1/historical/{project}", "read", {"POST": _get_training_data}),
    Route("/v1/catalog", "read", {"GET": Operation(about.catalog, "get_catalog", {JSON: dict})}),
    Route("/metrics", "admin", {"GET": Operation(about.metrics, "get_metrics", {TEXT: None})}),
    Route("/healthz", OPEN, {"GET": Operation(about.healthy, "get_health", {JSON: about.Health})}),
    Route("/readyz", OPEN, {"GET": Operation(about.ready, "get_readiness", {JSON: about.Health})}),
)
LOOKUPS = {(*one.path.split("/")[1:3], one.path.count("/") + 1): one for one in (*_online, *_views)}
"""The routes of online reads, by the first two names in their path and the number of parts into which slashes split it."""
