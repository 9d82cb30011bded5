"""The classes of the user's guide; each of their verbs is one call on the store of this folder and environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.store import FeatureStore


def current_store() -> FeatureStore:
    """Give the store of this folder and environment; what it needs is loaded now, not when the classes are."""
    from seeknal import session

    return session.store()
