"""Redis URLs: which are valid, and which mean the same database."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from seeknal.names import did_you_mean

# Matched whole: host:6379/0, redis:/host, and me:password@host:6379.
_ADDRESS = re.compile(r"[\w.-]+:\d+(/\d+)?|\s*rediss?[:/].*|.*@[^/]*:\d+(/.*)?", re.IGNORECASE | re.DOTALL)
_UNREADABLE = "it cannot be parsed. Percent-encode special characters in a password: write %40 for @, for example."
_DATABASE = re.compile(r"(/\d*)?")
_PORT = 6379
_THIS_MACHINE = {"", "127.0.0.1", "::1"}


def _seconds(text: str) -> None:
    if not 0 < float(text) < math.inf:
        raise ValueError(text)


def _whole(text: str) -> None:
    if not text.isdecimal():
        raise ValueError(text)


def _any(_: str) -> None: ...


# The parameters of redis-py that make sense here, each with the check of its value.
_PLAIN: dict[str, Callable[[str], None]] = {
    "client_name": _any,
    "db": _whole,
    "health_check_interval": _whole,
    "max_connections": _whole,
    "password": _any,
    "protocol": _whole,
    "retry_on_timeout": _any,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _any,
    "socket_read_size": _whole,
    "socket_timeout": _seconds,
    "username": _any,
}
_TLS: dict[str, Callable[[str], None]] = {
    "ssl_ca_certs": _any,
    "ssl_ca_path": _any,
    "ssl_cert_reqs": _any,
    "ssl_certfile": _any,
    "ssl_check_hostname": _any,
    "ssl_keyfile": _any,
    "ssl_min_version": _whole,
    "ssl_password": _any,
}
OPTIONS = frozenset(_PLAIN | _TLS)
"""The names of all parameters."""


def is_address(place: str) -> bool:
    """Return whether a place is a URL, or an address whose scheme is missing or misspelt, rather than a folder.

    >>> is_address("redis://host:6379/0"), is_address("host:6379"), is_address("redis:/host"), is_address("/data/me@host")
    (True, True, True, False)
    """
    return "://" in place or _ADDRESS.fullmatch(place) is not None


def problem(url: str) -> str | None:
    """Return why a URL is not a valid Redis URL, or None if it is one.

    >>> problem("redis://host:6379/0?socket_timeout=0.2")
    >>> problem("redis://host/orders")
    "the database 'orders' is not a number."
    >>> problem("redis://host?sockettimeout=2")
    "it has no parameter 'sockettimeout'. Did you mean 'socket_timeout'?"
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return _UNREADABLE
    if not url.startswith(("redis://", "rediss://")) or port == 0:
        return "its port is 0, which no server has." if port == 0 else "only redis:// and rediss:// are supported."
    if "@" in parts.path:  # a slash in the password ended the host, so what follows it counts as the path
        return _UNREADABLE
    if not _DATABASE.fullmatch(parts.path):  # redis-py would silently use another database
        return f"the database {parts.path.strip('/')!r} is not a number."
    if parts.fragment:
        return "everything after # would be ignored. Write %23 for #."
    return next(filter(None, (_problem_of(parts.scheme, name, value) for name, value in given)), None)


def _problem_of(scheme: str, name: str, value: str) -> str | None:
    known = _PLAIN | _TLS if scheme == "rediss" else _PLAIN
    if name not in known:
        tls = " but with rediss://" if name in _TLS else ""
        return f"it has no parameter {name!r}{tls}.{did_you_mean(name, known)}"
    try:
        known[name](value)
    except ValueError:
        return f"{name}={value!r} is not a valid number."
    return None


def address(url: str) -> str:
    """Return the server and database of a URL. All URLs of one database have the same address, whatever else they contain.

    >>> address("redis://me@HOST"), address("rediss://host:6379/0?socket_timeout=1"), address("redis://127.0.0.1?db=1")
    ('host:6379/0', 'host:6379/0', 'localhost:6379/1')
    """
    parts = urlsplit(url)
    host = unquote(parts.hostname or "")
    database = dict(reversed(parse_qsl(parts.query))).get("db") or parts.path.strip("/") or 0
    return f"{'localhost' if host in _THIS_MACHINE else host}:{parts.port or _PORT}/{int(database)}"
