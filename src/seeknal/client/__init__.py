"""The clients of a server. `Client` and `AsyncClient` are imported on first use, because they need the extra `client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.client.async_client import AsyncClient
    from seeknal.client.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'seeknal.client' has no attribute {name!r}")
    from seeknal.client import async_client, client

    return getattr(async_client if name == "AsyncClient" else client, name)
