"""Sending requests to a server, with retries, over connections that only this process uses.

Both clients share one implementation, a coroutine. `AsyncClient` awaits it. In `Client`, nothing that the coroutine awaits
suspends it, so it runs to its end in one step.
"""

from __future__ import annotations

import io
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from http import HTTPStatus
from typing import IO, Any

import msgspec

from seeknal import errors
from seeknal.client.calls import PreparedRequest
from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.system.extras import how_to_install
from seeknal.system.forks import PerProcess
from seeknal.system.progress import OnProgress, working

try:
    import httpx2
except ImportError:
    raise DefinitionError(f"The client needs httpx2. {how_to_install('client')}") from None

__all__ = ["Sender", "httpx2"]
_BUSY = {429, 503}
_LONGEST_PAUSE = 30.0
_NOT_RETRIED = httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol
"""Errors after which a retry would not help."""
_NEVER_SENT = httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.LocalProtocolError
"""Errors after which it is certain that the server received nothing of the request."""


class Sender(ABC):
    """Sends requests to one server.

    Args:
        url: The address of the server.
        token: The token to authenticate with.
        timeout: How long to wait for the server to accept or send data, in seconds.
        retries: How often a request is sent again if the server cannot be reached or is unavailable. A request that is
            rejected because too many are running is retried for up to `retries` times 30 seconds, after the
            pauses that the server asks for.
        on_progress: Called before each retry with its reason. None: retries are shown on a terminal if they take more
            than a second.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float, retries: int, on_progress: OnProgress | None
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"url={url!r} is not a URL. Write http://127.0.0.1:6789, for example.")
        if token and not (isinstance(token, str) and re.fullmatch("[!-~]+", token)):
            raise DefinitionError(
                "The token has a space, a line break or another character that no token has. Strip it."
            )
        try:
            httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise DefinitionError(f"url={url!r} is not a URL: {error}") from None
        self.url = url
        self._retries, self._timeout, self._on_progress = retries, timeout, on_progress
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}
        self._connections: PerProcess[Any] = PerProcess(self._connect)
        self._connections()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _timeouts(self, call: PreparedRequest) -> httpx2.Timeout:
        return httpx2.Timeout(self._timeout, read=None if call.is_long else self._timeout)

    async def _answer(self, call: PreparedRequest) -> Any:
        """Send a request, with retries where they may help, and return its decoded response.

        Raises:
            SeeknalError: The request failed or was rejected, and a retry would not help or no retries are left.
        """
        began, failures, is_unsure = time.monotonic(), 0, False
        with call.sending() as request, ExitStack() as shown:
            on_progress: OnProgress | None = None
            while True:
                may_help, is_throttled, pause = True, False, 0.1 * 2**failures
                try:
                    response = await self._begin({**request(), "timeout": self._timeouts(call)})
                    if response.is_success:
                        body = call.body()
                        if not call.is_long:  # within the try: a short response that breaks off is retried
                            await self._take(response, body)
                        break
                    await self._take(response, content := io.BytesIO())
                    error = self._reported(response.status_code, content.getvalue())
                    may_help = response.status_code in _BUSY
                    # Sticky: if one attempt may have been executed, an error of a later one cannot rule it out.
                    is_unsure = is_unsure or (response.is_server_error and not may_help)
                    is_throttled = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
                    seconds = response.headers.get("retry-after", "")
                    pause = float(seconds) if seconds.isdecimal() else pause
                except httpx2.RequestError as problem:
                    error = self._unreached(problem)
                    may_help = not isinstance(problem, _NOT_RETRIED) and not _is_tls_error(problem)
                    is_unsure = is_unsure or not isinstance(problem, _NEVER_SENT)
                failures += not is_throttled  # a busy server is up, so only time limits these retries
                is_late = time.monotonic() - began > self._retries * _LONGEST_PAUSE
                if not may_help or failures > self._retries or (is_throttled and is_late):
                    raise type(error)(f"{error} {call.if_unsure}") if is_unsure and call.if_unsure else error
                on_progress = on_progress or shown.enter_context(working(f"Waiting for {self.url}", self._on_progress))
                on_progress(f"Retrying {self.url} after {failures} of {self._retries} failures: {error}")
                pause *= random.uniform(1, 1.5)  # noqa: S311 - jitter, so that clients do not all retry at once
                await self._sleep(min(_LONGEST_PAUSE, pause))
        return await self._finish(call, response, body)

    def _open(self) -> Any:
        """Return the connections of this process.

        Raises:
            DefinitionError: The client is closed.
        """
        if self._is_closed:
            raise DefinitionError(
                f"This client of {self.url} is closed. Make another: {type(self).__name__}(url, token)."
            )
        return self._connections()

    def _forget(self) -> Any:
        """Mark the client as closed, and return its connections in this process, which the caller closes."""
        self._is_closed = True
        return self._connections.forget()

    async def _finish(self, call: PreparedRequest, response: httpx2.Response, body: IO[bytes]) -> Any:
        """Read a response that has begun. A long one that breaks off is not requested again.

        Raises:
            StoreError: The response broke off, is not from a Seeknal server, or answers another request.
        """
        try:
            if call.is_long:
                await self._take(response, body)
            return call.read_answer(body, self.url)
        except httpx2.RequestError as problem:
            body.close()
            raise StoreError(
                f"{self.url} ended in the middle of its response: {_reason(problem)}. The server's stderr may say why. {call.if_unsure}".rstrip()
            ) from None
        except StoreError:
            self._connections.forget()  # the next response on them could also answer another request
            body.close()
            raise
        except BaseException:  # Ctrl-C, or the cancellation of the task
            body.close()
            raise

    @abstractmethod
    def _connect(self) -> Any:
        """Return a new object that holds connections, with none open yet."""

    @abstractmethod
    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        """Send a request, and return the response as soon as it begins."""

    @abstractmethod
    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        """Write the rest of a response into `body`, and release the connection."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait for the given number of seconds."""

    def _unreached(self, problem: httpx2.RequestError) -> SeeknalError:
        """Return the error for a request that got no response."""
        if isinstance(problem, httpx2.LocalProtocolError):
            # The library's own message may quote a header, and so the token.
            return DefinitionError(f"The request to {self.url} cannot be sent over HTTP.")
        if isinstance(problem, httpx2.ReadTimeout | httpx2.WriteTimeout):
            did = "answer" if isinstance(problem, httpx2.ReadTimeout) else "accept the request"
            return StoreError(f"{self.url} did not {did} within {self._timeout:g} s.")
        if _is_tls_error(problem):
            return StoreError(
                f"{self.url} cannot be reached over TLS: {problem}. SSL_CERT_FILE names the certificates to trust."
            )
        return StoreError(f"{self.url} cannot be reached: {_reason(problem)}. Check that the server runs there.")

    def _reported(self, status: int, content: bytes) -> SeeknalError:
        """Return the error that a response reports, in the class in which the library itself would raise it."""
        try:
            problem = msgspec.json.decode(content, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return StoreError(
                f"{self.url} answered with {status}, and not as a Seeknal server does. Check the address."
            )
        # The title of a library error is the name of its class; that of any other problem is the phrase of its status.
        kind = getattr(errors, problem.title, None)
        if isinstance(kind, type) and issubclass(kind, SeeknalError):
            return kind(problem.detail)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DataError(problem.detail)
        is_mine = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _BUSY
        return (DefinitionError if is_mine else StoreError)(f"{problem.title}: {problem.detail}")


def _is_tls_error(problem: httpx2.RequestError) -> bool:
    return "SSL" in str(problem)


def _reason(problem: httpx2.RequestError) -> str:
    return str(problem) or type(problem).__name__


class _Problem(msgspec.Struct):
    title: str
    detail: str
