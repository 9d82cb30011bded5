"""Seeknal, a feature store: training sets that never see the future, and the same values served online."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.client.client import AsyncClient, Client
    from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
    from seeknal.define.schema import Change
    from seeknal.entity import Entity
    from seeknal.errors import DataError, DefinitionError, NotOnlineError, SeeknalError, SeeknalWarning, StoreError
    from seeknal.featurestore.duckdbengine.feature_group import (
        FeatureGroupDuckDB,
        HistoricalFeaturesDuckDB,
        OnlineFeaturesDuckDB,
    )
    from seeknal.featurestore.training_set import TrainingSet
    from seeknal.home.removal import ErasedEntity
    from seeknal.home.store import FeatureStore
    from seeknal.join.explanation import Candidate
    from seeknal.join.leaks import Findings
    from seeknal.load.loading import Loaded
    from seeknal.registry import GroupRecord, Load, Question, TrainingSetRecord, Version
    from seeknal.serve.online_tables import LoadStatus, Refreshed
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Difference, Verified
    from seeknal.values.times import Interval
    from seeknal.write.maintenance import Adopted, Erased, Optimized
    from seeknal.write.push import Pushed
    from seeknal.write.writing import Written

__version__ = "0.1.0"

__all__ = [
    "Adopted",
    "Candidate",
    "Change",
    "DataError",
    "DefinitionError",
    "Difference",
    "Entity",
    "Erased",
    "ErasedEntity",
    "FeatureGroup",
    "FeatureGroupDuckDB",
    "FeatureLookup",
    "FeatureStore",
    "Findings",
    "GroupRecord",
    "HistoricalFeaturesDuckDB",
    "Interval",
    "Load",
    "LoadStatus",
    "Loaded",
    "Materialization",
    "NotOnlineError",
    "OnlineFeaturesDuckDB",
    "Optimized",
    "Pushed",
    "Question",
    "Refreshed",
    "SeeknalError",
    "SeeknalWarning",
    "ServedTable",
    "StoreError",
    "TrainingSet",
    "TrainingSetRecord",
    "Verified",
    "Version",
    "Written",
]

if find_spec("httpx2"):
    __all__ += ["AsyncClient", "Client"]

_MODULES = {
    "seeknal.client.client": ("AsyncClient", "Client"),
    "seeknal.define.feature_group": ("FeatureGroup", "FeatureLookup", "Materialization"),
    "seeknal.define.schema": ("Change",),
    "seeknal.entity": ("Entity",),
    "seeknal.errors": (
        "DataError",
        "DefinitionError",
        "NotOnlineError",
        "SeeknalError",
        "SeeknalWarning",
        "StoreError",
    ),
    "seeknal.featurestore.duckdbengine.feature_group": (
        "FeatureGroupDuckDB",
        "HistoricalFeaturesDuckDB",
        "OnlineFeaturesDuckDB",
    ),
    "seeknal.featurestore.training_set": ("TrainingSet",),
    "seeknal.home.removal": ("ErasedEntity",),
    "seeknal.home.store": ("FeatureStore",),
    "seeknal.join.explanation": ("Candidate",),
    "seeknal.join.leaks": ("Findings",),
    "seeknal.load.loading": ("Loaded",),
    "seeknal.registry": ("GroupRecord", "Load", "Question", "TrainingSetRecord", "Version"),
    "seeknal.serve.online_tables": ("LoadStatus", "Refreshed"),
    "seeknal.serve.open_tables": ("ServedTable",),
    "seeknal.serve.verification": ("Difference", "Verified"),
    "seeknal.values.times": ("Interval",),
    "seeknal.write.maintenance": ("Adopted", "Erased", "Optimized"),
    "seeknal.write.push": ("Pushed",),
    "seeknal.write.writing": ("Written",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that the import itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seeknal' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
