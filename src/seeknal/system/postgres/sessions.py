"""The sessions of this process with a PostgreSQL database: one pool for each URL, closed when its users are gone or the process ends.

A forked process opens sessions of its own, and leaves its parent's alone.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, finalize

from seeknal.errors import StoreError
from seeknal.system.extras import how_to_install
from seeknal.system.forks import PerProcess, unforked
from seeknal.system.postgres.url import split
from seeknal.system.urls import shown

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Engine

CONNECTING = 10
"""Seconds after which an attempt to connect fails, unless the user has set another `connect_timeout`."""
_OWN = {"client_encoding": "UTF8", "fallback_application_name": "seeknal", "autocommit": True}
_ENCODING = "UTF8"
_AT_ONCE = 15
"""How many transactions a process has at once; others wait for one to end."""
_KEPT = 5
"""How many idle sessions a process keeps, for transactions and for locks."""
WRITING = 60
"""Seconds after which waiting for another write is given up, as with SQLite."""
PATIENCE = 600
"""Seconds after which waiting for a lock is given up: a backup, for example, keeps deletions out for as long as it takes."""
_SETTINGS = {
    # The server notices within half a minute that a client, or its machine, is gone, and frees what it held.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_connection_check_interval": "10s",
    "idle_in_transaction_session_timeout": "60s",
    # What an administrator has set must not end a session that holds or waits for a lock.
    "idle_session_timeout": "0",
    "statement_timeout": "0",
}


class Sessions:
    """The sessions of this process with one schema of a database.

    Args:
        url: The URL of the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        _, self.schema = split(url)
        self._engine = PerProcess(partial(_engine_for, url))
        self._idle: PerProcess[deque[psycopg.Connection[tuple[Any, ...]]]] = PerProcess(deque)
        self.holders = PerProcess[dict[int, Any]](dict)
        """By thread, what holds its locks; see `locks`."""
        self._numbers = count(1)
        self.last_write = 0
        """A number that differs after each write by this process."""
        finalize(self, _close, self._engine, self._idle)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def engine(self) -> Engine:
        """The pool of sessions for transactions."""
        return self._engine()

    def key(self, what: str) -> int:
        """Return the number by which the server knows a lock or a channel of this schema: 63 bits of a hash."""
        return int.from_bytes(blake2b(f"seeknal/{self.schema}/{what}".encode(), digest_size=8).digest()) >> 1

    def note_write(self) -> None:
        """Change `last_write`."""
        self.last_write = next(self._numbers)

    def borrow(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a session for one user, who may hold locks in it; see `give_back`."""
        with suppress(IndexError):
            while True:
                if _is_alive(known := self._idle().pop()):
                    return known
        return connect(self.url, PATIENCE)

    def give_back(self, session: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Keep a session that holds nothing for its next user."""
        idle = self._idle()
        if session.closed or len(idle) >= _KEPT:
            session.close()
        else:
            idle.append(session)

    def renew(self) -> None:
        """Close the idle sessions, which were lost with one that was: the server was restarted, for example."""
        self.engine.dispose()


def connect(url: str, patience: int) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session, in which each statement is a transaction unless one begins another.

    Args:
        url: The URL of the database.
        patience: Seconds after which waiting for a lock is given up.

    Raises:
        StoreError: The server cannot be reached, or it refuses the user.
    """
    driver, place = imported(), shown(url)
    from seeknal.system.postgres.watched import WatchedSession

    conninfo, schema = split(url)
    try:
        given = driver.conninfo.conninfo_to_dict(conninfo)
        if not {"connect_timeout", "service"} & set(given) and "PGCONNECT_TIMEOUT" not in os.environ:
            given["connect_timeout"] = CONNECTING
        made: psycopg.Connection[tuple[Any, ...]] = WatchedSession.open(**given, **_OWN)
    except driver.Error as error:
        raise StoreError(f"The registry at {place} cannot be reached: {reason(error)}.", is_away=True) from None
    try:
        _check_encoding(made, place)
        settings = _SETTINGS | {"search_path": f'"{schema}"', "lock_timeout": f"{patience}s"}
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        made.execute(f"SELECT {calls}", [text for one in settings.items() for text in one])
    except driver.Error as error:
        made.close()
        raise StoreError(f"The registry at {place} cannot be used: {reason(error)}.") from None
    except BaseException:
        made.close()
        raise
    return made


def _check_encoding(connection: psycopg.Connection[tuple[Any, ...]], place: str) -> None:
    if (found := connection.info.parameter_status("server_encoding")) != _ENCODING:
        raise StoreError(
            f"The database of the registry at {place} stores text as {found}, which lacks characters. Create one with "
            f"ENCODING '{_ENCODING}'."
        )


def _engine_for(url: str) -> Engine:
    from sqlalchemy import create_engine

    return create_engine(
        "postgresql+psycopg://",
        creator=partial(connect, url, WRITING),
        use_native_hstore=False,  # which asks the server for its types
        pool_size=_KEPT,
        max_overflow=_AT_ONCE - _KEPT,
        pool_use_lifo=True,
        pool_reset_on_return=None,  # `PostgresDatabase` ends each transaction
    )


# A session that was lost is closed, so the pool does not have to log that as well.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
_opened: WeakValueDictionary[str, Sessions] = WeakValueDictionary()
_opening = Lock()


def sessions_of(url: str) -> Sessions:
    """Return the sessions of this process for a URL."""
    with unforked(), _opening:
        if (found := _opened.get(url)) is None:
            found = _opened[url] = Sessions(url)
        return found


def every() -> list[Sessions]:
    """Return the sessions of this process for all URLs."""
    return list(_opened.values())


def imported() -> Any:
    """Return the driver.

    Raises:
        StoreError: It is not installed.
    """
    try:
        import psycopg
    except ImportError:
        raise StoreError(f"A registry in PostgreSQL needs the extra 'postgres'. {how_to_install('postgres')}") from None
    return psycopg


def reason(error: Exception) -> str:
    """Return what the server or the driver says, in one line and without a mark at its end."""
    return " ".join(str(error).split()).rstrip(".?")


def _is_alive(session: psycopg.Connection[tuple[Any, ...]]) -> bool:
    driver = imported()
    try:
        session.execute("SELECT 1")
    except driver.Error:
        session.close()
        return False
    return True


def _close(engine: PerProcess[Engine], idle: PerProcess[deque[Any]]) -> None:
    """Close what this process opened; a forked one has nothing of its parent's in these."""
    if made := engine.forget():
        made.dispose()
    for session in idle.forget() or ():
        session.close()
