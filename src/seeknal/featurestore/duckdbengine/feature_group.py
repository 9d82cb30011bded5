"""The classes of the user's guide, at the path from which the guide imports them."""

from __future__ import annotations

from seeknal.define.feature_group import FeatureLookup, Materialization
from seeknal.define.fill_null import FillNull
from seeknal.featurestore.former import GetLatestTimeStrategy
from seeknal.featurestore.group import FeatureGroupDuckDB
from seeknal.featurestore.historical import HistoricalFeaturesDuckDB
from seeknal.featurestore.online import OnlineFeaturesDuckDB
from seeknal.featurestore.training_set import TrainingSet

__all__ = [
    "FeatureGroupDuckDB",
    "FeatureLookup",
    "FillNull",
    "GetLatestTimeStrategy",
    "HistoricalFeaturesDuckDB",
    "Materialization",
    "OnlineFeaturesDuckDB",
    "TrainingSet",
]
