"""The classes of the user's guide, at the paths from which programs import them."""

from seeknal.featurestore.duckdbengine.feature_group import (
    FeatureGroupDuckDB,
    FeatureLookup,
    FillNull,
    GetLatestTimeStrategy,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    TrainingSet,
)

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
