"""URLs of services, displayed without passwords."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from seeknal.system import redis_url
from seeknal.system.postgres import url as postgres_url

_HIDDEN = "***"
_USER = re.compile(r"(?<=//).*@", re.DOTALL)
_WITHOUT_BEGINNING = re.compile(r".*@(?=[^/]*:\d+(/|$))", re.DOTALL)
_NO_PORT = re.compile(r"\w+://[^/,:\[\]]*:(?!\d*(/|,|$))")
_OPTIONS = redis_url.OPTIONS | postgres_url.OPTIONS
_SECRET = re.compile("password|secret")


def has_password(url: str) -> bool:
    """Return whether a URL contains a password, or a parameter that may contain one."""
    return shown(url) != url


def shown(place: str) -> str:
    """Return a URL with its passwords masked; a folder is returned unchanged.

    >>> shown("redis://me:secret@host:6379/0?ssl_password=secret&db=1")
    'redis://me:***@host:6379/0?ssl_password=***&db=1'
    >>> shown("postgresql://me:secret/db"), shown("postgresql://one:5432,two:5433/db")
    ('postgresql://me:***', 'postgresql://one:5432,two:5433/db')
    """
    if "://" not in place:
        return _WITHOUT_BEGINNING.sub(f"{_HIDDEN}@", place)
    # Not `urlsplit`: this must also mask the password of a URL that is invalid, and it is most needed there.
    address, mark, query = place.partition("?")
    if "@" not in place and (found := _NO_PORT.match(address)):
        return f"{found[0]}{_HIDDEN}"  # the host was forgotten, so this may be a user with a password
    if "@" in query:  # the password contains a ? that should have been written as %3F
        return _USER.sub(f"{_HIDDEN}@", place)
    return _USER.sub(_without_password, address) + mark + "&".join(map(_without_value, query.split("&")))


def _without_password(match: re.Match[str]) -> str:
    user, mark, _ = match[0].partition(":")
    return f"{user}:{_HIDDEN}@" if mark else match[0]


def _without_value(parameter: str) -> str:
    """Mask the value of a parameter, unless it is known and not a password: a misspelt one may hold a password."""
    name, mark, value = parameter.partition("=")
    known = unquote_plus(name)
    is_harmless = known in _OPTIONS and not _SECRET.search(known)
    return parameter if is_harmless or not value else f"{name}{mark}{_HIDDEN}"
