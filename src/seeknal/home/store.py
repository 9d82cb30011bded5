"""The feature store: one object whose parts have all operations. The other interfaces only call these parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal import config
from seeknal.home import moved
from seeknal.home.core import Core
from seeknal.registry import has_registry
from seeknal.system.locks import locked_cached_property

if TYPE_CHECKING:
    from seeknal.home.entities import Entities
    from seeknal.home.groups import Groups
    from seeknal.home.projects import Projects
    from seeknal.join.features import Features
    from seeknal.join.training_sets import TrainingSets
    from seeknal.registry.tokens import Tokens
    from seeknal.serve.online_tables import OnlineTables
    from seeknal.views.feature_views import FeatureViews


class FeatureStore:
    """A feature store in a folder.

    Args:
        home: The folder. Default: SEEKNAL_HOME, else `.seeknal` beside the nearest seeknal.toml, else ~/.seeknal.
        memory_limit: Maximum memory of a query, such as "4GB".
        storage: The URL of an object store for offline tables and training sets, such as "s3://bucket/prefix". Default: the home.
        online_store: Where online rows are stored: a folder, or the URL of Redis. Default: `online` in the home.
        registry: URL of the PostgreSQL database with the registry, which several machines share. Default: a file in the home.
        lookback_days: How many days before the bulk of its rows a write's interval may start without a warning.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        memory_limit: str | None = None,
        online_store: str | None = None,
        registry: str | None = None,
        storage: str | None = None,
        lookback_days: int | None = None,
    ) -> None:
        self.core = Core(
            config.load(
                home=home,
                memory_limit=memory_limit,
                online_store=online_store,
                registry=registry,
                storage=storage,
                lookback_days=lookback_days,
            )
        )
        """What the parts share. It is not for users: any release may change it."""

    @classmethod
    def of(cls, settings: config.Settings) -> FeatureStore:
        """Return the store that the settings describe, whatever the current folder and environment say."""
        return cls._on(Core(settings))

    @classmethod
    def _on(cls, core: Core) -> FeatureStore:
        store = cls.__new__(cls)
        store.core = core
        return store

    def __reduce__(self) -> tuple[object, tuple[config.Settings]]:
        return FeatureStore.of, (self.settings,)

    @property
    def settings(self) -> config.Settings:
        """The settings, each with its source."""
        return self.core.settings

    @property
    def home(self) -> Path:
        """The folder of the store."""
        return self.core.home

    @property
    def scratch(self) -> Path:
        """Folder for rows that do not fit in memory."""
        return self.core.scratch

    @property
    def exists(self) -> bool:
        """Whether the home holds anything yet. Reading this property creates nothing."""
        return has_registry(self.settings.address)

    @locked_cached_property
    def projects(self) -> Projects:
        """The projects."""
        from seeknal.home.projects import Projects

        return Projects(self.core)

    @locked_cached_property
    def entities(self) -> Entities:
        """The entities: their groups, and erasing one of their instances from all of them."""
        from seeknal.home.entities import Entities

        return Entities(self.core)

    @locked_cached_property
    def groups(self) -> Groups:
        """The feature groups: writing, pushing and loading them, and changing what is stored."""
        from seeknal.home.groups import Groups

        return Groups(self.core)

    @property
    def features(self) -> Features:
        """Features as they were known: training sets, history, latest rows, explanations."""
        return self.core.features

    @property
    def training_sets(self) -> TrainingSets:
        """The saved training sets."""
        return self.core.training_sets

    @property
    def tables(self) -> OnlineTables:
        """The online tables."""
        return self.core.tables

    @property
    def views(self) -> FeatureViews:
        """The feature views."""
        return self.core.views

    @property
    def tokens(self) -> Tokens:
        """The access tokens of the server."""
        from seeknal.registry.tokens import Tokens

        return Tokens(self.core.registry)

    def overview(self) -> FeatureStore:
        """Return this store as of now, to look at many groups or tables quickly: it reads the registry once."""
        return self._on(self.core.overview())

    def stamp(self) -> bytes:
        """Return a value that differs within a second after each change of the registry. Reading it takes microseconds.

        Raises:
            StoreError: The registry is gone or cannot be read.
        """
        return self.core.registry.recent_stamp()

    def check_registry(self) -> None:
        """Check that the registry can be read now.

        Raises:
            StoreError: It cannot.
        """
        self.core.registry.stamp()

    def check_storage(self) -> None:
        """Check that the object store with the offline tables answers, if they are in one.

        Raises:
            StoreError: It does not.
        """
        self.core.storage.check()

    def close(self) -> None:
        """Close the query engine and release its memory; it opens again on the next use."""
        self.core.close()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Find an attribute where it is now. `FeatureStore` had all operations itself in earlier releases."""
            return moved.find(self, name)
