"""URLs of object stores: which are valid. Options, such as credentials, come from the environment and never from a URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from seeknal.errors import DefinitionError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""The extra that each scheme of a URL needs."""


def storage_of(url: str, origin: str) -> str | None:
    """Return the URL of an object store without a slash at its end; None for "file://", the folder of the home.

    >>> storage_of("s3://lake/features/", "seeknal.toml"), storage_of("file://", "seeknal.toml")
    ('s3://lake/features', None)

    Args:
        url: The URL.
        origin: Where it was set, for messages.

    Raises:
        DefinitionError: It is no URL of an object store, or has a part that does not belong there, which could be a secret.
    """
    if url.rstrip("/") == "file:":
        return None
    scheme, _, rest = url.partition("://")
    if scheme not in EXTRAS:
        shown = f"{scheme}://" if "://" in url else "what is not a URL"
        raise DefinitionError(
            f"{origin} sets storage to {shown}. Write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or "
            "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX; without storage, tables lie in the home."
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("s3://")
    user = parts.netloc.rpartition("@")[0]
    has_secret = ":" in user or (bool(user) and not scheme.startswith("abfs"))
    if has_secret or parts.query or parts.fragment or "?" in url or "#" in url:
        raise DefinitionError(
            f"{origin} sets storage to a URL of {scheme}:// with more than a bucket and a prefix. Options and credentials come from the "
            "environment, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL."
        )
    names = rest.rstrip("/").split("/")
    if not all(names) or any(name in {".", ".."} for name in names) or any(c in rest for c in "%\\ \t\n"):
        raise DefinitionError(
            f"{origin} sets storage to {url!r}, which names no bucket and prefix. Write {scheme}://BUCKET/PREFIX."
        )
    return url.rstrip("/")
