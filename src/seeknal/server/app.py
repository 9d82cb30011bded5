"""The ASGI application: the deadlines, metrics, logs and errors of all requests, around the routes that answer them."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import traceback
import uuid
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import perf_counter

import pyarrow as pa
from starlette import routing
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from seeknal.config import Settings
from seeknal.errors import GroupDeletedError, NotOnlineError, SeeknalError, StoreError
from seeknal.home.store import FeatureStore
from seeknal.server import description
from seeknal.server.ending import Ending
from seeknal.server.http import SOON, Problem, Request
from seeknal.server.options import Options
from seeknal.server.routes import LOOKUPS, ROUTES, Route
from seeknal.server.service import Service
from seeknal.server.waiting import Waiting


class App:
    """The ASGI application of a worker.

    Args:
        options: The options of the server.
        settings: The settings that the store of the home is opened with.
        entrance: The socket over which the first process receives the counts of its workers; None if this is the only
            process.
    """

    def __init__(self, options: Options, settings: Settings, entrance: socket.socket | None = None) -> None:
        self.limits = options.limits
        self._options = options
        self._settings = settings
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop the worker."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        else:
            await _handle(scope["state"]["service"], Request(scope, receive, self.limits), receive, send)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        ending = Ending(self._options.drain)
        ending.listen()
        try:
            service = await self._start(ending)
        except SeeknalError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        scope["state"]["service"] = service
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await service.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, ending: Ending) -> Service:
        """Open the home; as long as its registry is away, wait for it.

        Raises:
            SeeknalError: The home cannot be opened, or the worker was asked to end.
        """
        waiting = Waiting()
        while True:
            service = None
            try:
                service = Service(FeatureStore.of(self._settings), self._options, ending, self._entrance)
                await service.start()
            except StoreError as error:
                if ending.asked.is_set() or not waiting.is_worth_it(error):
                    raise
                if service:
                    await service.stop()
                with suppress(TimeoutError):
                    await asyncio.wait_for(ending.asked.wait(), waiting.pause)
            else:
                return service


async def _handle(service: Service, request: Request, receive: Receive, send: Send) -> None:
    """Answer one request, and record it in the metrics, the access log and the traces."""
    request.task = asyncio.current_task()
    request.is_last = service.ending.is_near
    service.running.add(request)
    send = partial(request.forward, send)
    try:
        await _answer(service, request, receive, send)
    except asyncio.CancelledError:
        if request.late is None:  # not the deadline, but the end of the server, cancelled the task
            raise
        asyncio.current_task().uncancel()  # type: ignore[union-attr]  # a request runs in a task
        # Else the connection is closed, which tells the client that the response is incomplete.
        if request.status is None:
            await request.late.answer(request.scope, receive, send)
    finally:
        service.running.discard(request)
        request.scope["state"].clear()  # breaks a reference cycle, which the garbage collector would take long to free
    seconds, status = perf_counter() - request.started, request.status or 0
    service.metrics.answered(request.route, status)
    if request.table and status == HTTPStatus.OK:
        request.table.answered(request.keys, request.reads, seconds)
    if service.log:
        service.log.add(request, status, seconds)
    if service.telemetry:
        service.telemetry.add(request, request.route, status, seconds)


async def _answer(service: Service, request: Request, receive: Receive, send: Send) -> None:
    """Answer one request. Every error becomes a response, unless one has begun."""
    scope = request.scope
    try:
        # Online reads bypass the router, which would try its patterns one by one.
        parts = request.path.split("/")
        if route := LOOKUPS.get((*parts[1:3], len(parts))):
            response = await route.respond(service, request, parts[3:])
            await response(scope, receive, send)
        else:
            scope["state"]["request"] = request
            await ROUTER(scope, receive, send)
    except Exception as error:
        if request.status is not None:
            raise
        await _problem(error).answer(scope, receive, send)


def _problem(error: Exception) -> Problem:
    """Return what the client is told of an error, and print the error if the operator has to know it."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return Problem(error.status_code, error.detail, None, error.headers)
        case SeeknalError():
            if isinstance(error, StoreError):
                print(error, file=sys.stderr)  # noqa: T201 - for the operator
            may_pass, is_gone = isinstance(error, StoreError | NotOnlineError), isinstance(error, GroupDeletedError)
            status = HTTPStatus.NOT_FOUND if is_gone else HTTPStatus.BAD_REQUEST
            status, headers = (HTTPStatus.SERVICE_UNAVAILABLE, SOON) if may_pass else (status, None)
            return Problem(status, str(error), type(error).__name__, headers)
        case pa.ArrowException() | OverflowError() | UnicodeError():
            return Problem(HTTPStatus.BAD_REQUEST, f"A value in the body cannot be read: {error}", "DataError")
        case RecursionError():
            return Problem(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.", "DataError")
    mark = uuid.uuid4().hex
    print(f"Unexpected error {mark}:\n{''.join(traceback.format_exception(error))}", file=sys.stderr)  # noqa: T201 - it is reported nowhere else
    detail = f"Unexpected error {mark}; the server's stderr has more. This is a bug in Seeknal; please report it."
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


class _Path(routing.Route):
    """A route with a stricter pattern.

    Starlette's pattern also matches a path with a line break at its end. It does not match an empty name, for which the
    endpoint has a better error than that there is nothing at the path.
    """

    def __init__(self, route: Route) -> None:
        super().__init__(route.path, route)
        self.path_regex = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]*)", route.path) + r"\Z")


async def _not_found(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {scope['path'][:200]!r}. See /openapi.json.")


ROUTER = routing.Router(
    [_Path(one) for one in (*ROUTES, *description.ROUTES)], redirect_slashes=False, default=_not_found
)
"""Web pages would go here: static files as `routing.Mount`, open to all, and each page that requires a right as a `Route`."""
