"""Seeknal, a feature store: training sets that never see the future, and the same values served online."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.client.async_client import AsyncClient
    from seeknal.client.client import Client
    from seeknal.define.aggregations import (
        ApproxCountDistinct,
        ApproxQuantile,
        Count,
        CountDistinct,
        First,
        FirstN,
        Histogram,
        Kurtosis,
        Largest,
        Last,
        LastN,
        Max,
        Mean,
        Min,
        MostFrequent,
        Quantile,
        Skew,
        Smallest,
        Std,
        Sum,
        TimeSinceFirst,
        TimeSinceLast,
        Var,
    )
    from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
    from seeknal.define.feature_view import ViewDefinition
    from seeknal.define.fill_null import FillNull
    from seeknal.define.label import Label
    from seeknal.define.request_feature import RequestFeature, request_feature
    from seeknal.define.schema import Change
    from seeknal.define.splits import ColumnSplit, EntitySplit, TimeSplit
    from seeknal.define.windowed_group import WindowedGroup
    from seeknal.entity import Entity
    from seeknal.errors import (
        DataError,
        DefinitionError,
        GroupDeletedError,
        NotOnlineError,
        SeeknalError,
        SeeknalWarning,
        StoreError,
    )
    from seeknal.featurestore.duckdbengine.feature_group import (
        FeatureGroupDuckDB,
        HistoricalFeaturesDuckDB,
        OnlineFeaturesDuckDB,
    )
    from seeknal.featurestore.event_source import EventSource
    from seeknal.featurestore.feature_view import FeatureView
    from seeknal.featurestore.former import GetLatestTimeStrategy
    from seeknal.featurestore.training_set import TrainingSet
    from seeknal.home.entities import Entities, RegisteredEntity
    from seeknal.home.groups import Groups
    from seeknal.home.projects import Projects
    from seeknal.home.removal import Deletion, ErasedEntity
    from seeknal.home.store import FeatureStore
    from seeknal.join.candidates import Candidate
    from seeknal.join.features import Features
    from seeknal.join.inquiry import Inquiry
    from seeknal.join.leaks import Findings
    from seeknal.join.training_sets import TrainingSets
    from seeknal.load.loading import Loaded
    from seeknal.load.status import LoadStatus
    from seeknal.registry import (
        GroupRecord,
        Load,
        ModelRecord,
        OnlineTableRecord,
        Question,
        TokenRecord,
        TrainingSetRecord,
        Version,
        ViewRecord,
    )
    from seeknal.registry.tokens import Tokens
    from seeknal.serve.freshness import Freshness
    from seeknal.serve.online_tables import OnlineTables, Refreshed
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Difference, Verified
    from seeknal.values.times import Interval
    from seeknal.views.feature_views import FeatureViews, Retired, ViewSpine
    from seeknal.write.maintenance import Adopted, Erased, Optimized
    from seeknal.write.push import Pushed
    from seeknal.write.writing import Written

__version__ = "0.1.0"

__all__ = [
    "Adopted",
    "ApproxCountDistinct",
    "ApproxQuantile",
    "Candidate",
    "Change",
    "ColumnSplit",
    "Count",
    "CountDistinct",
    "DataError",
    "DefinitionError",
    "Deletion",
    "Difference",
    "Entities",
    "Entity",
    "EntitySplit",
    "Erased",
    "ErasedEntity",
    "EventSource",
    "FeatureGroup",
    "FeatureGroupDuckDB",
    "FeatureLookup",
    "FeatureStore",
    "FeatureView",
    "FeatureViews",
    "Features",
    "FillNull",
    "Findings",
    "First",
    "FirstN",
    "Freshness",
    "GetLatestTimeStrategy",
    "GroupDeletedError",
    "GroupRecord",
    "Groups",
    "Histogram",
    "HistoricalFeaturesDuckDB",
    "Inquiry",
    "Interval",
    "Kurtosis",
    "Label",
    "Largest",
    "Last",
    "LastN",
    "Load",
    "LoadStatus",
    "Loaded",
    "Materialization",
    "Max",
    "Mean",
    "Min",
    "ModelRecord",
    "MostFrequent",
    "NotOnlineError",
    "OnlineFeaturesDuckDB",
    "OnlineTableRecord",
    "OnlineTables",
    "Optimized",
    "Projects",
    "Pushed",
    "Quantile",
    "Question",
    "Refreshed",
    "RegisteredEntity",
    "RequestFeature",
    "Retired",
    "SeeknalError",
    "SeeknalWarning",
    "ServedTable",
    "Skew",
    "Smallest",
    "Std",
    "StoreError",
    "Sum",
    "TimeSinceFirst",
    "TimeSinceLast",
    "TimeSplit",
    "TokenRecord",
    "Tokens",
    "TrainingSet",
    "TrainingSetRecord",
    "TrainingSets",
    "Var",
    "Verified",
    "Version",
    "ViewDefinition",
    "ViewRecord",
    "ViewSpine",
    "WindowedGroup",
    "Written",
    "request_feature",
]

if find_spec("httpx2"):  # of the extra `client`; `import *` must work without it
    __all__ += ["AsyncClient", "Client"]

_MODULES = {
    "seeknal.define.feature_view": ("ViewDefinition",),
    "seeknal.define.request_feature": ("RequestFeature", "request_feature"),
    "seeknal.views.feature_views": ("FeatureViews", "Retired", "ViewSpine"),
    "seeknal.featurestore.feature_view": ("FeatureView",),
    "seeknal.define.splits": ("ColumnSplit", "EntitySplit", "TimeSplit"),
    "seeknal.define.label": ("Label",),
    "seeknal.client.async_client": ("AsyncClient",),
    "seeknal.client.client": ("Client",),
    "seeknal.define.aggregations": (
        "ApproxCountDistinct",
        "ApproxQuantile",
        "Count",
        "CountDistinct",
        "First",
        "FirstN",
        "Histogram",
        "Kurtosis",
        "Largest",
        "Last",
        "LastN",
        "Max",
        "Mean",
        "Min",
        "MostFrequent",
        "Quantile",
        "Skew",
        "Smallest",
        "Std",
        "Sum",
        "TimeSinceFirst",
        "TimeSinceLast",
        "Var",
    ),
    "seeknal.define.feature_group": ("FeatureGroup", "FeatureLookup", "Materialization"),
    "seeknal.define.fill_null": ("FillNull",),
    "seeknal.define.schema": ("Change",),
    "seeknal.define.windowed_group": ("WindowedGroup",),
    "seeknal.entity": ("Entity",),
    "seeknal.errors": (
        "DataError",
        "DefinitionError",
        "GroupDeletedError",
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
    "seeknal.featurestore.event_source": ("EventSource",),
    "seeknal.featurestore.former": ("GetLatestTimeStrategy",),
    "seeknal.featurestore.training_set": ("TrainingSet",),
    "seeknal.home.entities": ("Entities", "RegisteredEntity"),
    "seeknal.home.groups": ("Groups",),
    "seeknal.home.projects": ("Projects",),
    "seeknal.home.removal": ("Deletion", "ErasedEntity"),
    "seeknal.home.store": ("FeatureStore",),
    "seeknal.join.candidates": ("Candidate",),
    "seeknal.join.features": ("Features",),
    "seeknal.join.inquiry": ("Inquiry",),
    "seeknal.join.leaks": ("Findings",),
    "seeknal.join.training_sets": ("TrainingSets",),
    "seeknal.load.loading": ("Loaded",),
    "seeknal.load.status": ("LoadStatus",),
    "seeknal.registry": (
        "GroupRecord",
        "Load",
        "ModelRecord",
        "OnlineTableRecord",
        "Question",
        "TokenRecord",
        "TrainingSetRecord",
        "Version",
        "ViewRecord",
    ),
    "seeknal.registry.tokens": ("Tokens",),
    "seeknal.serve.freshness": ("Freshness",),
    "seeknal.serve.online_tables": ("OnlineTables", "Refreshed"),
    "seeknal.serve.open_tables": ("ServedTable",),
    "seeknal.serve.verification": ("Difference", "Verified"),
    "seeknal.values.times": ("Interval",),
    "seeknal.write.maintenance": ("Adopted", "Erased", "Optimized"),
    "seeknal.write.push": ("Pushed",),
    "seeknal.write.writing": ("Written",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that the import itself costs nothing."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'seeknal' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
