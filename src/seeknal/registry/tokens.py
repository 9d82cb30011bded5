"""Access tokens, by which a server authenticates and authorizes requests. Only their hashes are stored."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from seeknal.errors import DefinitionError
from seeknal.names import check_name, check_names, did_you_mean
from seeknal.registry import Registry, TokenRecord
from seeknal.values.arguments import check_flag
from seeknal.values.times import now

RIGHTS = ("read", "push", "admin")
EVERY_PROJECT = "*"
_PREFIX = "snk"


class Tokens:
    """The access tokens of a home.

    Args:
        registry: The registry of the home.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self) -> list[TokenRecord]:
        """Return all tokens ever created, revoked ones included."""
        return self._registry.tokens()

    def get(self, name: str) -> TokenRecord:
        """Return a token by its name.

        Raises:
            DefinitionError: There is no such token.
        """
        known = {token.name: token for token in self.all()}
        if name not in known:
            raise DefinitionError(f"There is no token named {name!r}.{did_you_mean(name, known)}")
        return known[name]

    def create(self, name: str, project: str, rights: Sequence[str], *, new_project: bool = False) -> str:
        """Create a token and return its text, which cannot be read again later.

        Args:
            name: A name for people. It is unique among all tokens ever created, revoked ones included.
            project: The project that the token gives access to; "*" for all projects.
            rights: "read" (online features, training data, the catalog), "push", "admin" (both, and the metrics).
            new_project: Whether to accept a project in which nothing is registered yet.

        Raises:
            DefinitionError: A name breaks the naming rule or is taken, the project or a right is unknown, or there is no right.
        """
        check_name("token", name)
        wanted = check_names("rights", rights, "['read']")
        if not wanted:
            raise DefinitionError(f"rights is an empty list. Choose at least one of {', '.join(RIGHTS)}.")
        new_project = check_flag("new_project", new_project)
        if project != EVERY_PROJECT:
            check_name("project", project)
            known = {one.project for one in self._registry.groups()} | {one.project for one in self._registry.tables()}
            if project not in known and not new_project:
                raise DefinitionError(
                    f"There is no project {project!r}, so no token was created.{did_you_mean(project, known)} "
                    "Add --new-project (new_project=True) if the project will be created later.",
                    project=project,
                )
        for right in wanted:
            if right not in RIGHTS:
                raise DefinitionError(f"There is no right {right!r}.{did_you_mean(right, RIGHTS)}")
        ident, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        text = f"{_PREFIX}_{ident}_{secret}"
        ordered = tuple(right for right in RIGHTS if right in wanted)
        self._registry.add_token(TokenRecord(ident, name, project, ordered, _digest(text), now(), None))
        return text

    def revoke(self, name: str) -> None:
        """Revoke a token. Running servers notice it within a second.

        Raises:
            DefinitionError: There is no such token, or it is revoked already.
        """
        if self.get(name).revoked_at is not None:
            raise DefinitionError(f"Token {name!r} is revoked already.")
        self._registry.revoke_token(name, now())


class Authenticator:
    """Authenticates requests by the issued tokens.

    Args:
        tokens: All tokens ever issued, revoked ones included.
        may_be_open: Whether requests need no token as long as none was ever issued.
    """

    def __init__(self, tokens: Sequence[TokenRecord], *, may_be_open: bool) -> None:
        self._tokens = {token.id: token for token in tokens if token.revoked_at is None}
        self.is_open = may_be_open and not tokens
        """Whether requests need no token, because none was ever issued. Revoking the last one does not open access."""

    def find(self, text: str) -> TokenRecord | None:
        """Return the valid token with this text, or None. The time it takes does not depend on how much of the secret is right."""
        token = self._tokens.get(text[len(_PREFIX) + 1 :].partition("_")[0])
        # An unknown token is compared too, so that the time of the check does not reveal which tokens exist.
        is_valid = compare_digest(_digest(text), token.digest if token else "0" * 64)
        return token if is_valid else None


def allows(token: TokenRecord, right: str, project: str) -> bool:
    """Return whether a token grants a right in a project; "admin" includes the other rights."""
    return token.project in {project, EVERY_PROJECT} and (right in token.rights or "admin" in token.rights)


def _digest(text: str) -> str:
    # Text with lone surrogates is no token, but must be rejected like any other instead of raising.
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
