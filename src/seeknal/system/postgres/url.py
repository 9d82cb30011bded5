"""URLs of PostgreSQL databases, as libpq takes them, with one parameter of our own: the schema of the registry.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from seeknal.names import did_you_mean

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_SCHEMA = "seeknal"
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_PARAMETER = r"[^@#&=]+=[^@#&=]*"
_QUERY = rf"(\?(?P<query>{_PARAMETER}(&{_PARAMETER})*))?"
_URL = re.compile(rf"postgres(ql)?://([^@/?#]*@)?(?P<hosts>[^@/?#]*)(/[^@/?#]*)?{_QUERY}", re.DOTALL)
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:(?P<port>\d*))?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LAST_PORT = 65535

OPTIONS = frozenset(
    [
        "schema",
        "application_name",
        "channel_binding",
        "connect_timeout",
        "dbname",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "password",
        "port",
        "require_auth",
        "requirepeer",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    ]
)
"""The parameters of libpq that make sense here, and the schema."""


def problem(url: str) -> str | None:
    """Return why a URL is not a valid address of a registry, or None if it is one.

    >>> problem("postgresql://features@db.internal,other:5433/seeknal?sslmode=verify-full&schema=team_a")
    >>> problem("postgresql://db.internal/seeknal?sslmod=require")
    "it has no parameter 'sslmod'. Did you mean 'sslmode'?"
    >>> problem("mysql://db.internal/seeknal")
    'only postgresql:// is supported.'
    """
    if not url.startswith(SCHEMES):
        return "only postgresql:// is supported."
    found = _URL.fullmatch(url)
    if found is None or _BAD_ESCAPE.search(url):
        return "it cannot be parsed. Percent-encode special characters: write %40 for the @ of a password, for example."
    for host in found["hosts"].split(","):
        parts = _HOST.fullmatch(host)
        if parts is None or int(parts["port"] or 1) not in range(1, _LAST_PORT + 1):
            return "a port is not a number from 1 to 65535."
    for name, value in _parameters(found["query"]):
        if name not in OPTIONS:
            return f"it has no parameter {name!r}.{did_you_mean(name, OPTIONS)}"
        if name == "schema" and not _SCHEMA.fullmatch(value):
            return f"the schema {value!r} is not a name of at most 63 lower-case letters, digits and underscores."
    return None


def split(url: str) -> tuple[str, str]:
    """Return a valid URL as libpq takes it, and the schema.

    >>> split("postgresql://host/db?schema=team_a&sslmode=require")
    ('postgresql://host/db?sslmode=require', 'team_a')
    """
    place, _, query = url.partition("?")
    parameters = [one for one in query.split("&") if one]
    rest = [one for one in parameters if unquote(one.partition("=")[0]) != "schema"]
    return "?".join(filter(None, [place, "&".join(rest)])), dict(_parameters(query)).get("schema", DEFAULT_SCHEMA)


def _parameters(query: str | None) -> list[tuple[str, str]]:
    parts = [one.partition("=") for one in (query or "").split("&") if one]
    return [(unquote(name), unquote(value)) for name, _, value in parts]
