"""Requests and answers, over ASGI: what every endpoint needs of HTTP, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.registry import TokenRecord
from seeknal.registry.tokens import EVERY_PROJECT, allows
from seeknal.serve.parts import Read
from seeknal.server.options import Limits

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON, MSGPACK, ARROW = "application/json", "application/msgpack", "application/vnd.apache.arrow.stream"
PROBLEM = "application/problem+json"
_LONGEST_DETAIL = 1000
SOON = (b"retry-after", b"1")
_STATUS = {DataError: HTTPStatus.BAD_REQUEST, DefinitionError: HTTPStatus.BAD_REQUEST}
_encode = msgspec.json.Encoder().encode


@dataclass
class Response:
    """What goes back."""

    status: int
    body: bytes = b""
    kind: str = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None
    """What comes after the body, piece by piece."""


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """A request that cannot be answered as it is; becomes `application/problem+json`.

    Args:
        status: The status.
        detail: What is wrong, what is there, what to do.
        title: What kind of problem it is; the library's name of the error, where it is one.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, detail: str, title: str | None = None, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.headers = list(headers)

    @classmethod
    def of(cls, error: SeeknalError) -> Problem:
        """Say what the library says."""
        status = _STATUS.get(type(error), HTTPStatus.SERVICE_UNAVAILABLE)
        return cls(status, str(error), type(error).__name__, *([SOON] if isinstance(error, StoreError) else []))

    @property
    def answer(self) -> Response:
        """What goes back."""
        detail = str(self)
        detail = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL]}…"
        text = {"type": "about:blank", "title": self.title, "status": int(self.status), "detail": detail}
        return Response(self.status, _encode(text), PROBLEM, self.headers)


class Request:
    """One request, and what is known of it by the time it is answered.

    Args:
        scope: What ASGI says of it.
        receive: Gives what comes of its body.
        limits: What is too much.
    """

    names: Sequence[str] = ()
    project: str | None = None
    """The project that the path names."""
    token: TokenRecord | None = None
    table: Any = None
    keys = 0
    reads: Sequence[Read] = ()
    late: Problem | None = None
    task: asyncio.Task[Any] | None = None

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
        """The only project that the request may know of; None: all."""
        return None if self.token is None or self.token.project == EVERY_PROJECT else self.token.project

    def check_right(self, right: str, project: str) -> None:
        """Refuse what the request's token does not open, if it needed one.

        Raises:
            Problem: It does not.
        """
        if self.token and not allows(self.token, right, project):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Token {self.token.name!r} has no right to {right} in project {project[:128]!r}, "
                f"but to {', '.join(self.token.rights)} in {self.token.project!r}.",
            )

    def wait(self, why: str, status: int = HTTPStatus.SERVICE_UNAVAILABLE) -> None:
        """Say that it may wait from now on, and what to say if it waits for too long."""
        self.deadline, self._waits_for = perf_counter() + self.limits.seconds, (why, status)

    def end(self) -> None:
        """End it, since it waits for too long."""
        why, status = self._waits_for
        header = (b"connection", b"close") if status == HTTPStatus.REQUEST_TIMEOUT else SOON
        self.late = Problem(status, why, None, header)
        if self.task:
            self.task.cancel()

    def disable_deadline(self) -> None:
        """Say that it takes as long as it takes from now on."""
        self.deadline = inf

    async def gone(self) -> None:
        """Wait until nobody waits for the answer any more; after the body has come."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @property
    def accepts(self) -> str:
        """The kind of answer that it wants: the first of its `Accept` that there is; JSON if it does not say."""
        accept = self.headers.get(b"accept", b"")
        if accept in _ANY:
            return JSON
        kinds = []
        for one in accept.decode("latin-1").lower().split(","):
            kind, _, weight = (part.strip() for part in one.partition(";"))
            if (found := _KINDS.get(kind)) and weight.replace(" ", "") not in _NEVER:
                return found
            kinds.append(kind[:200])
        raise Problem(
            HTTPStatus.NOT_ACCEPTABLE, f"Accept is {', '.join(kinds)}. There are {JSON}, {MSGPACK} and {ARROW}."
        )

    @property
    def kind(self) -> str:
        """The kind of its body."""
        kind = self.headers.get(b"content-type", b"")
        return JSON if kind == _JSON else kind.decode("latin-1").partition(";")[0].strip().lower()

    @property
    def query(self) -> list[tuple[str, str]]:
        """What stands behind the question mark.

        Raises:
            Problem: It is no text in UTF-8.
        """
        try:
            return parse_qsl(
                self.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000
            )
        except ValueError:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "The query is no UTF-8, percent-encoded, of 1,000 fields at most."
            ) from None

    def refuse_query(self) -> None:
        """Refuse what stands behind the question mark, where nothing is looked for.

        Raises:
            Problem: Something does.
        """
        if self.scope["query_string"]:
            raise Problem(HTTPStatus.BAD_REQUEST, "The query is not looked at here. Leave it out, or ask in the body.")

    async def body(self) -> bytes:
        """Give its body, whole.

        Raises:
            Problem: It is longer than is allowed, or ends early.
        """
        self.wait(*_BODY)
        message = await self._next(0, self.limits.body)
        body: bytes = message["body"]
        while message["more_body"]:
            message = await self._next(len(body), self.limits.body)
            body += message["body"]
        return body

    async def parts(self, most: int) -> AsyncIterator[bytes]:
        """Give its body as it comes.

        Raises:
            Problem: It is longer than is allowed, or ends early.
        """
        message = await self._next(0, most)
        got = len(message["body"])
        yield message["body"]
        while message["more_body"]:
            self.wait(*_BODY)
            message = await self._next(got, most)
            got += len(message["body"])
            yield message["body"]

    async def _next(self, got: int, most: int) -> dict[str, Any]:
        """Take what comes next of its body."""
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body has a Content-Encoding. Send it as it is.", "DataError"
            )
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Problem(HTTPStatus.BAD_REQUEST, "The request ended early.")
        if got + len(message["body"]) > most:
            raise _too_large(most)
        return message


_JSON = JSON.encode()
_NEVER = {"q=0", "q=0.0", "q=0.00", "q=0.000"}
_ANY = {b"*/*", b"", _JSON}
_BODY = "Its body did not come in time.", HTTPStatus.REQUEST_TIMEOUT
_AT_ONCE = 2**18
"""So many bytes of an answer wait in memory at most for who reads it."""
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
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {most:,} bytes. Ask for less at a time.")


async def send_answer(answer: Response, request: Request, send: Send) -> None:
    """Send an answer; what is large piece by piece, as fast as it is taken."""
    headers = [(b"content-type", answer.kind.encode()), *answer.headers]
    if answer.stream is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    last = answer.body
    if answer.stream is not None or len(last) > _AT_ONCE:
        async for part in _pieces(answer):
            request.wait("The answer was not taken in time.")
            await send({"type": "http.response.body", "body": part, "more_body": True})
        last = b""
    await send({"type": "http.response.body", "body": last})


async def _pieces(answer: Response) -> AsyncIterator[bytes]:
    for start in range(0, len(answer.body), _AT_ONCE):
        yield answer.body[start : start + _AT_ONCE]
    if answer.stream is not None:
        async for part in answer.stream:
            yield part
