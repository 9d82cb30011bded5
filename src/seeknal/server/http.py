"""Requests, responses and problems: the limits, deadlines and content types that all endpoints share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from seeknal.registry import TokenRecord
from seeknal.registry.tokens import EVERY_PROJECT, allows
from seeknal.serve.parts import Read
from seeknal.server.options import Limits

JSON, MSGPACK, ARROW = "application/json", "application/msgpack", "application/vnd.apache.arrow.stream"
TEXTUAL = JSON, MSGPACK
"""Content types of keys and rows in which times and decimals are text."""
PROBLEM = "application/problem+json"
_LONGEST_DETAIL = 1000
SOON = {"retry-after": "1"}
_encode = msgspec.json.Encoder().encode


class Reply(Response):
    """A complete response. It encodes its two headers itself: Starlette takes as long for that as a lookup takes."""

    def __init__(self, body: bytes, kind: str = JSON) -> None:
        self.status_code, self.body, self.background = HTTPStatus.OK, body, None
        self.raw_headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]


class Stream(StreamingResponse):
    """A response in pieces, whose source itself checks whether the client has disconnected.

    Starlette would cancel the source while a thread still computes the next piece, in a folder that is then deleted.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response."""
        await self.stream_response(send)


class ProblemDetails(msgspec.Struct):
    """Why a request failed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """The reason why a request fails; it becomes a response of `application/problem+json`.

    Args:
        status: The status of the response.
        detail: What is wrong, what is there, what to do.
        title: The kind of problem: the class of the error, for errors of the library. None: the phrase of the status.
        headers: Headers of the response.
    """

    def __init__(
        self, status: int, detail: str, title: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.headers = headers

    @property
    def answer(self) -> Response:
        """The response."""
        detail = str(self).encode("utf-8", "backslashreplace").decode()  # the text of an exception may be no valid text
        detail = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL]}…"
        text = _encode(ProblemDetails("about:blank", self.title, int(self.status), detail))
        return Response(text, self.status, self.headers, PROBLEM)


class Request:
    """One request, with what is learned about it while it is answered.

    Args:
        scope: Its ASGI scope.
        receive: Receives the next ASGI message, such as a part of the body.
        limits: The limits of the server.
    """

    route = "none"
    """The path of the route, with the names in it as {parameters}."""
    status: int | None = None
    """The status of the response; None before it begins."""
    names: Sequence[str] = ()
    """The names in the path."""
    project: str | None = None
    """The project that the path names."""
    token: TokenRecord | None = None
    table: Any = None
    """The metrics of the requested table."""
    keys = 0
    reads: Sequence[Read] = ()
    late: Problem | None = None
    """The problem to respond with, once the deadline has passed."""
    task: asyncio.Task[Any] | None = None
    is_last = False
    """Whether its connection is closed after the response, because the server is about to end."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits) -> None:
        self.started = perf_counter()
        self.scope = scope
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.limits = limits
        self.deadline = self.started + limits.seconds
        self._waits_for: tuple[str, int] = _BODY
        self._receive = receive

    @property
    def scope_of_token(self) -> str | None:
        """The only project that the request may see; None: all."""
        return None if self.token is None or self.token.project == EVERY_PROJECT else self.token.project

    def check_right(self, right: str, project: str) -> None:
        """Check that the request's token has a right in a project, if the request needed a token.

        Raises:
            Problem: The token does not have it.
        """
        if self.token and not allows(self.token, right, project):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Token {self.token.name!r} has no right to {right} in project {project[:128]!r}, "
                f"only to {', '.join(self.token.rights)} in {self.token.project!r}.",
            )

    def wait(self, why: str, status: int = HTTPStatus.SERVICE_UNAVAILABLE) -> None:
        """Start a new deadline, and set the problem to respond with when it passes."""
        self.deadline, self._waits_for = perf_counter() + self.limits.seconds, (why, status)

    def end(self) -> None:
        """End the request, because its deadline has passed."""
        why, status = self._waits_for
        # The rest of a late body may still arrive, and must not be taken for the next request.
        headers = {"connection": "close"} if status == HTTPStatus.REQUEST_TIMEOUT else SOON
        self.late = Problem(status, why, None, headers)
        if self.task:
            self.task.cancel()

    def disable_deadline(self) -> None:
        """Let the request take any amount of time, until `wait` is called again."""
        self.deadline = inf

    async def gone(self) -> None:
        """Wait until the client disconnects. Called only after the whole body was received."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @property
    def accepts(self) -> str:
        """The content type of the response: the first in `Accept` that the server has; JSON without `Accept`.

        Raises:
            Problem: The server has none of them.
        """
        accept = self.headers.get(b"accept", b"")
        if accept in _ANY:
            return JSON
        kinds = []
        for one in accept.decode("latin-1").lower().split(","):
            kind, _, weight = (part.strip() for part in one.partition(";"))
            # q=0 excludes a type; other weights are ignored, so the client's order decides.
            if (found := _KINDS.get(kind)) and weight.replace(" ", "") not in _NEVER:
                return found
            kinds.append(kind[:200])
        raise Problem(
            HTTPStatus.NOT_ACCEPTABLE, f"Accept is {', '.join(kinds)}. The server has {JSON}, {MSGPACK} and {ARROW}."
        )

    @property
    def kind(self) -> str:
        """The content type of the body."""
        kind = self.headers.get(b"content-type", b"")
        return JSON if kind == _JSON else kind.decode("latin-1").partition(";")[0].strip().lower()

    @property
    def query(self) -> list[tuple[str, str]]:
        """The fields of the query string.

        Raises:
            Problem: The query string is not percent-encoded UTF-8, or has more than 1,000 fields.
        """
        try:
            return parse_qsl(
                self.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000
            )
        except ValueError:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "The query string is not percent-encoded UTF-8, or has more than 1,000 fields."
            ) from None

    def refuse_query(self) -> None:
        """Check that there is no query string, for an endpoint that does not use one.

        Raises:
            Problem: There is one.
        """
        if self.scope["query_string"]:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "This route takes no query string. Remove it, or put its fields into the body."
            )

    async def body(self) -> bytes:
        """Return the whole body, within one deadline.

        Raises:
            Problem: The body is too long, has a content encoding, or ends early.
        """
        self.wait(*_BODY)
        message = await self._next(0, self.limits.body)
        body: bytes = message["body"]
        while message["more_body"]:
            message = await self._next(len(body), self.limits.body)
            body += message["body"]
        return body

    async def parts(self, most: int) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, with a new deadline for each part.

        Raises:
            Problem: The body is too long, has a content encoding, or ends early.
        """
        got, is_more = 0, True
        while is_more:
            message = await self._next(got, most)
            got += len(message["body"])
            yield message["body"]
            self.wait(*_BODY)
            is_more = message["more_body"]

    async def _next(self, got: int, most: int) -> Message:
        """Receive the next part of the body."""
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body has a Content-Encoding. Send it as it is.", "DataError"
            )
        # Reject an announced length before reading; a chunked body announces none, and is counted below.
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Problem(HTTPStatus.BAD_REQUEST, "The request ended early.")
        if got + len(message["body"]) > most:
            raise _too_large(most)
        return message

    async def forward(self, send: Send, message: Message) -> None:
        """Send a message of the response.

        A large body is sent in pieces, each with a new deadline: `send` waits while the client does not read.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.is_last:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif len(body := message.get("body", b"")) > _AT_ONCE or message.get("more_body"):
            for start in range(0, len(body), _AT_ONCE):
                self.wait("The client did not read the response in time.")
                piece = body[start : start + _AT_ONCE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if message.get("more_body"):
                return
            message = {"type": "http.response.body"}
        await send(message)


_JSON = JSON.encode()
_NEVER = {"q=0", "q=0.0", "q=0.00", "q=0.000"}
_ANY = {b"*/*", b"", _JSON}
_BODY = "The body did not arrive in time.", HTTPStatus.REQUEST_TIMEOUT
_AT_ONCE = 2**18
"""The size of the pieces in which a large body is sent, in bytes."""
_KINDS = {
    "*/*": JSON,
    "application/*": JSON,
    JSON: JSON,
    PROBLEM: JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    ARROW: ARROW,
}


def _too_large(most: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {most:,} bytes. Send less at a time.")
