"""The ASGI application: routes, authorizes and counts requests, and turns errors into responses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
import uuid
from functools import lru_cache
from http import HTTPStatus
from multiprocessing import parent_process
from time import perf_counter

import pyarrow as pa

from seeknal.config import Settings
from seeknal.errors import SeeknalError, StoreError
from seeknal.home.store import FeatureStore
from seeknal.server.http import SOON, Problem, Receive, Request, Response, Scope, Send, send_answer
from seeknal.server.options import Options, is_loopback
from seeknal.server.routes import OPEN, ROUTES, Endpoint, Route
from seeknal.server.service import Service


class App:
    """The ASGI application of a worker.

    Args:
        options: How the server is to run.
        settings: Where the home is, and how it is used; a worker that comes later has the same.
        entrance: Where the first process takes what its workers counted; None if there is but one.
    """

    def __init__(self, options: Options, settings: Settings, entrance: socket.socket | None = None) -> None:
        self.limits = options.limits
        self._options = options
        self._settings = settings
        self._entrance = entrance
        self._service: Service | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop the worker."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._service:
            await _exchange(self._service, Request(scope, receive, self.limits), send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        _end_with_parent()
        try:
            service = Service(FeatureStore.of(self._settings), self._options, self._entrance)
            await service.start()
        except SeeknalError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._service = service
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await service.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _end_with_parent() -> None:
    """Stop this worker when the first process ends, however it ends.

    Otherwise the worker would keep the port, with no process left to stop it.
    """
    if (parent := parent_process()) is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(parent.sentinel, end)


_FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"}


async def _exchange(service: Service, request: Request, send: Send) -> None:
    """Answer one request, and record it in the metrics, the access log and the traces."""
    route = ROUTES.get(_shape(request))
    request.task = asyncio.current_task()
    service.running.add(request)
    is_sent = False
    try:
        answer = await _answer(service, request, route)
        is_sent = True
        await send_answer(answer, request, send)
    except asyncio.CancelledError:
        if request.late is None:
            raise
        asyncio.current_task().uncancel()  # type: ignore[union-attr]  # a request runs in a task
        if not is_sent:  # else the connection is closed, which tells the client that the response is incomplete
            answer = request.late.answer
            await send_answer(answer, request, send)
    finally:
        service.running.discard(request)
    seconds = perf_counter() - request.started
    service.metrics.answered(route.path if route else "none", answer.status)
    if request.table and answer.status == HTTPStatus.OK:
        request.table.answered(request.keys, request.reads, seconds)
    if service.log:
        service.log.add(request, answer.status, seconds)
    if service.telemetry:
        service.telemetry.add(request, route.path if route else "none", answer.status, seconds)


def _shape(request: Request) -> tuple[str, int]:
    """Take the names out of a path, and return what is left and how many names there were: the key of its route."""
    _, *parts = request.path.split("/")
    if len(parts) > 2 and parts[0] == "v1":  # noqa: PLR2004 - /v1/KIND/PROJECT
        request.names = parts[2:]
        return parts[1], len(request.names)
    return request.path, 0


async def _answer(service: Service, request: Request, route: Route | None) -> Response:
    """Return the response to one request; every error becomes one."""
    try:
        return await _endpoint(service, request, route)(service, request)
    except Problem as problem:
        return problem.answer
    except SeeknalError as error:
        if isinstance(error, StoreError):
            print(error, file=sys.stderr)  # noqa: T201 - for the operator
        return Problem.of(error).answer
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        return Problem(HTTPStatus.BAD_REQUEST, f"A value in the body cannot be read: {error}", "DataError").answer
    except RecursionError:
        return Problem(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.", "DataError").answer
    except Exception:  # noqa: BLE001 - the outermost handler of the server
        mark = uuid.uuid4().hex
        print(f"Unexpected error {mark}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201 - it is reported nowhere else
        detail = f"Unexpected error {mark}; the server's stderr has more. This is a bug in Seeknal; please report it."
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).answer


def _endpoint(service: Service, request: Request, route: Route | None) -> Endpoint:
    """Return the endpoint of a request, once the request is authorized.

    Raises:
        Problem: There is no such endpoint, the request is not authorized, or too many are at work.
    """
    if len(service.running) > service.limits.requests:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are at work.", None, SOON)
    if route is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {request.path[:200]!r}. See /openapi.json.")
    endpoint = route.methods.get("GET" if request.method == "HEAD" else request.method)
    if endpoint is None:
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"Use {route.allowed}.", None, (b"allow", route.allowed.encode()))
    request.project = request.names[0] if route.has_project else None
    if route.right != OPEN:
        _authorize(service, request, route)
    return endpoint


def _authorize(service: Service, request: Request, route: Route) -> None:
    """Check that the request has a token with the route's right to the project.

    Raises:
        Problem: There is no valid token, or it lacks the right.
    """
    authenticator = service.definitions.authenticator
    if authenticator.is_open:
        _require_loopback(request)
        return
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    scheme, _, text = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    token = authenticator.find(text.strip()) if is_bearer else None
    if token is None:
        several = "The request has several" if len(given) > 1 else "The request's does not begin with Bearer"
        problem = "That one is unknown, or revoked" if is_bearer else several if given else "The request has none"
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            f"A token is needed: Authorization: Bearer TOKEN. {problem}.",
            None,
            (b"www-authenticate", b"Bearer"),
        )
    request.token = token
    request.check_right(route.right, request.project or token.project)


def _require_loopback(request: Request) -> None:
    """Check, while there are no tokens, that a request addresses this machine by a loopback name, and directly.

    Otherwise it may come from another machine through a proxy, or from another site's web page in a browser here.

    Raises:
        Problem: It has another host or origin, or was forwarded.
    """
    headers = request.headers
    host = headers.get(b"host", b"localhost")
    hosts = [name for name, _ in request.scope["headers"] if name == b"host"]
    if len(hosts) > 1 or not _is_here(host):
        wrong = b"host"
    elif headers.get(b"origin", host).rpartition(b"//")[2] != host:
        wrong = b"origin"
    elif _FORWARDED.isdisjoint(headers):
        return
    else:
        wrong = min(_FORWARDED & headers.keys())
    raise Problem(
        HTTPStatus.FORBIDDEN,
        "Without tokens the server answers to its own machine only, which the request is not from by "
        f"{wrong.decode()}: {headers[wrong][:200].decode('latin-1')!r}. Make one: "
        "seeknal token create NAME --project PROJECT --right read.",
    )


@lru_cache(1000)
def _is_here(host: bytes) -> bool:
    name = host.decode("latin-1")
    return is_loopback(name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0])
