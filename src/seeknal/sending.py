"""Sending calls to a server: again where that may help, over connections that belong to this process alone.

How a call is sent is written once, as a coroutine. The client for `asyncio` awaits it; in the other nothing that it waits for is
put off, so it runs to its end at the first step.
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
from seeknal.calls import Call
from seeknal.errors import DataError, DefinitionError, SeeknalError, StoreError
from seeknal.extras import how_to_install
from seeknal.forks import PerProcess
from seeknal.progress import Tell, working

try:
    import httpx2
except ImportError:
    raise DefinitionError(f"The client needs httpx2. {how_to_install('client')}") from None

__all__ = ["Sender", "httpx2"]
_BUSY = {429, 503}
_LONGEST_PAUSE = 30.0
_IN_VAIN = httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol
"""What another try would not mend."""
_NEVER_SENT = httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.LocalProtocolError
"""After which the server has nothing of the request."""


class Sender(ABC):
    """Sends calls to one address.

    Args:
        url: The address.
        token: What opens it.
        timeout: How long to wait for the server to take or say something, in seconds.
        retries: How often a call is sent again, if the server is not reached or is away. One that is turned away for want of
            a place is sent again for as many half minutes, whenever the server says.
        tell: Called before each retry, with its reason. None: shown on a terminal if they take more than a second.
    """

    def __init__(self, url: str, token: str | None, timeout: float, retries: int, tell: Tell | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"url={url!r} is no address. Write http://127.0.0.1:6789, say.")
        if token and not (isinstance(token, str) and re.fullmatch("[!-~]+", token)):
            raise DefinitionError(
                "The token has a space, a line's end or another character that no token has. Strip it."
            )
        try:
            httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise DefinitionError(f"url={url!r} is no address: {error}") from None
        self.url = url
        self._retries, self._timeout, self._tell = retries, timeout, tell
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}
        self._connections: PerProcess[Any] = PerProcess(self._connect)
        self._connections()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _timeouts(self, call: Call) -> httpx2.Timeout:
        return httpx2.Timeout(self._timeout, read=None if call.is_long else self._timeout)

    async def _answer(self, call: Call) -> Any:
        """Send a request until it is answered or refused, and read the answer.

        Raises:
            SeeknalError: There is no answer, and no further try would help or there were enough.
        """
        began, failures, is_unsure = time.monotonic(), 0, False
        with call.sending() as request, ExitStack() as shown:
            tell: Tell | None = None
            while True:
                may_help, is_turned_away, pause = True, False, 0.1 * 2**failures
                try:
                    response = await self._begin({**request(), "timeout": self._timeouts(call)})
                    if response.is_success:
                        body = call.body()
                        if not call.is_long:  # so a short answer that breaks off is asked for again
                            await self._take(response, body)
                        break
                    await self._take(response, told := io.BytesIO())
                    error = self._told(response.status_code, told.getvalue())
                    may_help = response.status_code in _BUSY
                    is_unsure = is_unsure or (response.is_server_error and not may_help)
                    is_turned_away = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
                    said = response.headers.get("retry-after", "")
                    pause = float(said) if said.isdecimal() else pause
                except httpx2.RequestError as problem:
                    error = self._unreached(problem)
                    may_help = not isinstance(problem, _IN_VAIN) and not _is_distrust(problem)
                    is_unsure = is_unsure or not isinstance(problem, _NEVER_SENT)
                failures += not is_turned_away
                is_late = time.monotonic() - began > self._retries * _LONGEST_PAUSE
                if not may_help or failures > self._retries or (is_turned_away and is_late):
                    raise type(error)(f"{error} {call.if_unsure}") if is_unsure and call.if_unsure else error
                tell = tell or shown.enter_context(working(f"Waiting for {self.url}", self._tell))
                tell(f"Asking {self.url} again, after {failures} of {self._retries} failures: {error}")
                pause *= random.uniform(1, 1.5)  # noqa: S311 - so that not all come back at once
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
        """Close the client, and return the connections that it has in this process."""
        self._is_closed = True
        return self._connections.forget()

    async def _finish(self, call: Call, response: httpx2.Response, body: IO[bytes]) -> Any:
        """Read an answer that has begun; a long one that breaks off is not asked for again."""
        try:
            if call.is_long:
                await self._take(response, body)
            return call.read_answer(body, self.url)
        except httpx2.RequestError as problem:
            body.close()
            raise StoreError(
                f"{self.url} ended in the middle of its answer: {_said(problem)}. Its stderr may say why. {call.if_unsure}".rstrip()
            ) from None
        except StoreError:
            self._connections.forget()  # over which the next answer could be another's too
            body.close()
            raise
        except BaseException:
            body.close()
            raise

    @abstractmethod
    def _connect(self) -> Any:
        """Make what holds connections, none yet."""

    @abstractmethod
    async def _begin(self, request: Mapping[str, Any]) -> httpx2.Response:
        """Send a request, and give its answer as soon as that begins."""

    @abstractmethod
    async def _take(self, response: httpx2.Response, body: IO[bytes]) -> None:
        """Take the rest of an answer, whose connection is free then."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait."""

    def _unreached(self, problem: httpx2.RequestError) -> SeeknalError:
        """Say why there is no answer."""
        if isinstance(problem, httpx2.LocalProtocolError):
            return DefinitionError(f"What is asked of {self.url} cannot be sent over HTTP.")
        if isinstance(problem, httpx2.ReadTimeout | httpx2.WriteTimeout):
            did = "answer" if isinstance(problem, httpx2.ReadTimeout) else "take the request"
            return StoreError(f"{self.url} did not {did} within {self._timeout:g} s.")
        if _is_distrust(problem):
            return StoreError(
                f"{self.url} cannot be trusted: {problem}. SSL_CERT_FILE names the certificates to trust."
            )
        return StoreError(f"{self.url} cannot be reached: {_said(problem)}. Look whether the server runs there.")

    def _told(self, status: int, content: bytes) -> SeeknalError:
        """Give the error that the library would raise here."""
        try:
            told = msgspec.json.decode(content, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return StoreError(f"{self.url} answered with {status}, which is no answer of Seeknal's.")
        kind = getattr(errors, told.title, None)
        if isinstance(kind, type) and issubclass(kind, SeeknalError):
            return kind(told.detail)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DataError(told.detail)
        is_mine = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _BUSY
        return (DefinitionError if is_mine else StoreError)(f"{told.title}: {told.detail}")


def _is_distrust(problem: httpx2.RequestError) -> bool:
    return "SSL" in str(problem)


def _said(problem: httpx2.RequestError) -> str:
    return str(problem) or type(problem).__name__


class _Problem(msgspec.Struct):
    title: str
    detail: str
