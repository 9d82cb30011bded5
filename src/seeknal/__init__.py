"""Seeknal, a feature store: training sets that never see the future, and the same values served online."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.client.client import AsyncClient, Client
    from seeknal.define.feature_group import FeatureLookup, Materialization
    from seeknal.entity import Entity
    from seeknal.errors import DataError, DefinitionError, SeeknalError, SeeknalWarning, StoreError
    from seeknal.featurestore.duckdbengine.feature_group import (
        FeatureGroupDuckDB,
        HistoricalFeaturesDuckDB,
        OnlineFeaturesDuckDB,
    )
    from seeknal.featurestore.training_set import TrainingSet
    from seeknal.home.store import FeatureStore

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "DefinitionError",
    "Entity",
    "FeatureGroupDuckDB",
    "FeatureLookup",
    "FeatureStore",
    "HistoricalFeaturesDuckDB",
    "Materialization",
    "OnlineFeaturesDuckDB",
    "SeeknalError",
    "SeeknalWarning",
    "StoreError",
    "TrainingSet",
]

if find_spec("httpx2"):
    __all__ += ["AsyncClient", "Client"]

_GUIDE = "seeknal.featurestore.duckdbengine.feature_group"
_HOMES = {
    "AsyncClient": "seeknal.client.client",
    "Client": "seeknal.client.client",
    "Entity": "seeknal.entity",
    "FeatureLookup": "seeknal.define.feature_group",
    "FeatureStore": "seeknal.home.store",
    "Materialization": "seeknal.define.feature_group",
    "FeatureGroupDuckDB": _GUIDE,
    "HistoricalFeaturesDuckDB": _GUIDE,
    "OnlineFeaturesDuckDB": _GUIDE,
    "TrainingSet": "seeknal.featurestore.training_set",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that the import itself costs nothing."""
    if name not in {*__all__, *_HOMES}:
        raise AttributeError(f"module 'seeknal' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "seeknal.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
