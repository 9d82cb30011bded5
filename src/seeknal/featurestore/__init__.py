"""The classes of the user's guide; each of their verbs is one call on the store that they are bound to."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from seeknal.errors import DefinitionError

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore

_binding = Lock()


def current_store() -> FeatureStore:
    """Return the store of this folder and environment; what it needs is loaded now, not when the classes are."""
    from seeknal.home import session

    return session.store()


class Binding:
    """Which store a handle belongs to: none yet, or one for good."""

    def __init__(self, store: FeatureStore | None = None) -> None:
        self.bound = store

    def store(self, *others: Binding) -> FeatureStore:
        """Return the store, which is the current one if none is bound yet; all bindings given are bound to it then.

        Raises:
            DefinitionError: They are bound to different homes.
        """
        with _binding:
            bindings = self, *others
            homes = {one.bound.home: one.bound for one in bindings if one.bound}
            if len(homes) > 1:
                raise DefinitionError(
                    f"These groups are kept in different homes, {' and '.join(map(str, sorted(homes)))}. Look up groups of one "
                    "home at a time, and put the frames together."
                )
            store = next(iter(homes.values()), None) or current_store()
            for one in bindings:
                one.bound = one.bound or store
            return store

    def look(self) -> FeatureStore | None:
        """Return the store, or the current one without binding to it; None if there is nothing in its home yet."""
        store = self.bound or current_store()
        return store if store.exists else None

    def bind(self, store: FeatureStore) -> None:
        """Bind to a store, unless there is one already."""
        self.bound = self.bound or store
