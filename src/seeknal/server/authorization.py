"""Authorization: the token of a request, or, while there are no tokens, proof that it comes from this machine."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from seeknal.server.http import Problem, Request
from seeknal.server.options import is_loopback
from seeknal.server.service import Service

_FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"}


def authorize(service: Service, request: Request, right: str) -> None:
    """Check that the request has a token with a right to its project.

    Raises:
        Problem: There is no valid token, or it lacks the right.
    """
    authenticator = service.definitions.authenticator
    if authenticator.is_open:
        _require_loopback(request)
        return
    # Of several headers, none counts: a proxy and the server could each pick another one.
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    scheme, _, text = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    token = authenticator.find(text.strip()) if is_bearer else None
    if token is None:
        several = "The request has several" if len(given) > 1 else "The one of the request does not begin with Bearer"
        problem = (
            "The one of the request is unknown or revoked"
            if is_bearer
            else several
            if given
            else "The request has none"
        )
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            f"A token is needed: Authorization: Bearer TOKEN. {problem}.",
            None,
            {"www-authenticate": "Bearer"},
        )
    request.token = token
    request.check_right(right, request.project or token.project)


def _require_loopback(request: Request) -> None:
    """Check, while there are no tokens, that a request addresses this machine by a loopback name, and directly.

    Otherwise it may come from another machine through a proxy, or from another site's web page in a browser here. Such a
    page sends its own origin and, if its name was made to resolve to this machine (DNS rebinding), that name as host.

    Raises:
        Problem: The request has another host or origin, or was forwarded.
    """
    headers = request.headers
    host = headers.get(b"host", b"localhost")
    hosts = [name for name, _ in request.scope["headers"] if name == b"host"]
    if len(hosts) > 1 or not _is_here(host):
        wrong = b"host"
    elif headers.get(b"origin", host).rpartition(b"//")[2] != host:
        wrong = b"origin"
    elif _FORWARDED.isdisjoint(headers):
        return
    else:
        wrong = min(_FORWARDED & headers.keys())
    raise Problem(
        HTTPStatus.FORBIDDEN,
        "Without tokens, the server answers only requests from its own machine. This one has the header "
        f"{wrong.decode()}: {headers[wrong][:200].decode('latin-1')!r}. Create a token: "
        "seeknal token create NAME --project PROJECT --right read.",
    )


@lru_cache(1000)
def _is_here(host: bytes) -> bool:
    name = host.decode("latin-1")
    return is_loopback(name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0])
