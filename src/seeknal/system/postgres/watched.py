"""Sessions that notice if the server does not answer any more, although the network does: it hangs, or its machine does.

A statement may take as long as it takes, for example to get a lock. If nothing has come for a while, another session is opened: a server
that lives answers that, and one that does not has lost this session too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Self, TypeVar

import psycopg
from psycopg.waiting import Ready

T = TypeVar("T")
_SILENCE, _ANSWERS = 5.0, 3
"""Seconds of silence after which the server is tried, and for how many seconds it may then take to answer."""


class SilentError(psycopg.OperationalError):
    """The server does not answer any more, so a repeated call would wait in vain."""


class WatchedSession(psycopg.Connection[tuple[Any, ...]]):
    """A session whose statements fail within ten seconds if the server hangs."""

    _given: dict[str, Any]

    @classmethod
    def open(cls, **given: Any) -> Self:
        """Connect; the arguments are those of `psycopg.connect`.

        Raises:
            psycopg.Error: The server cannot be reached, or it refuses the user.
        """
        made = cls.connect(**given)
        made._given = given | {"connect_timeout": _ANSWERS}  # noqa: SLF001 - its own class
        return made

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **named: Any) -> T:
        """Wait for what the server says; see `psycopg.Connection.wait`.

        Raises:
            SilentError: It says nothing, and to another session neither. This one is closed.
        """
        return super().wait(_listening(gen, self._check), *arguments, **named)

    def _check(self) -> None:
        try:
            psycopg.connect(**self._given).close()
        except psycopg.errors.ConnectionTimeout:
            self.pgconn.finish()
            raise SilentError(f"it has not answered for {_SILENCE + _ANSWERS:g} seconds") from None
        except psycopg.Error:  # it answers, or the network says that it is gone, as it does to this session
            return


def _listening(steps: Generator[Any, Any, T], check: Callable[[], None]) -> Generator[Any, Any, T]:
    """Pass steps on, and call a function each time that nothing has come for a while."""
    heard = time.monotonic()
    try:
        asked = next(steps)
        while True:
            ready = yield asked
            if ready != Ready.NONE:
                heard = time.monotonic()
            elif time.monotonic() > heard + _SILENCE:
                check()
                heard = time.monotonic()
            asked = steps.send(ready)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]  # what the steps return
