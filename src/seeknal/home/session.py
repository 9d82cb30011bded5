"""The feature store of the current folder and environment."""

from __future__ import annotations

from threading import Lock
from weakref import WeakSet

from seeknal import config
from seeknal.errors import DefinitionError
from seeknal.home.store import FeatureStore

_stores: dict[tuple[object, ...], FeatureStore] = {}
_given: WeakSet[FeatureStore] = WeakSet()
_opening = Lock()


def store() -> FeatureStore:
    """Return the feature store of the current folder and environment: the same object for as long as they do not change."""
    settings = config.load()
    place = (
        settings.home,
        settings.memory_limit,
        settings.online_store,
        settings.registry,
        settings.storage,
        settings.cache_size,
        settings.lookback_days,
        settings.freshness,
        settings.modules,
        settings.engine,
        settings.spark,
    )
    with _opening:
        if place not in _stores:
            _stores[place] = FeatureStore.of(settings)
            _given.add(_stores[place])
        return _stores[place]


def existing(project: str | None = None) -> FeatureStore:
    """Return the current feature store for a command that must not create it.

    Args:
        project: A project that it must have.

    Raises:
        DefinitionError: The home, or the project, does not exist.
    """
    found = store()
    if not found.exists:
        raise DefinitionError(
            f"There is no feature store in {found.home}. Write a feature group first, or set SEEKNAL_HOME to another."
        )
    if project is not None:
        found.projects.get(project)
    return found


def close() -> None:
    """Close all files. A store that is still referenced, by the objects bound to it, opens them again on its next use."""
    from seeknal.online import close_all

    with _opening:
        for opened in list(_given):
            opened.close()
        _stores.clear()
    close_all()
