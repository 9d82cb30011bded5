"""The classes of the user's guide. Each of their methods is one call on the store that the object is bound to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING

from seeknal.errors import DefinitionError
from seeknal.values.arguments import check_progress

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore
    from seeknal.system.progress import OnProgress

_binding = Lock()
"""Held while objects are bound, so that threads which use one object first at the same time bind it to one store."""


def current_store() -> FeatureStore:
    """Return the store of the current folder and environment. Its modules are imported by this call, not with the classes."""
    from seeknal.home import session

    return session.store()


def working(what: str, on_progress: OnProgress | None) -> AbstractContextManager[OnProgress]:
    """Return a context that yields the function to call with each step of some work; see `seeknal.system.progress`.

    Raises:
        DefinitionError: `on_progress` cannot be called.
    """
    from seeknal.system import progress

    check_progress(on_progress)
    return progress.working(what, on_progress)


class Binding:
    """The store that an object belongs to. It is unset at first, and never changes once it is set."""

    def __init__(self, store: FeatureStore | None = None) -> None:
        self.bound = store

    def store(self, *others: Binding) -> FeatureStore:
        """Return the store that these bindings have in common, and bind to it those that are not bound yet.

        If none of them is bound yet, it is the current store.

        Raises:
            DefinitionError: The bindings are bound to different homes.
        """
        with _binding:
            bindings = self, *others
            homes = {one.bound.home: one.bound for one in bindings if one.bound}
            if len(homes) > 1:
                raise DefinitionError(
                    f"These groups are kept in different homes, {' and '.join(map(str, sorted(homes)))}. Look up groups of one "
                    "home at a time, and combine the frames."
                )
            store = next(iter(homes.values()), None) or current_store()
            for one in bindings:
                one.bound = one.bound or store
            return store

    def look(self) -> FeatureStore | None:
        """Return the bound store, or the current one without binding to it; None if its home has nothing in it yet."""
        store = self.bound or current_store()
        return store if store.exists else None

    def bind(self, store: FeatureStore) -> None:
        """Bind to a store, unless this binding has one already."""
        self.bound = self.bound or store
