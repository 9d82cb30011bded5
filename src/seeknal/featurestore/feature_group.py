"""The import path of the first Seeknal's classes on Spark, for the error that names those to use instead."""

from __future__ import annotations

from typing import NoReturn

from seeknal.featurestore.former import refuse

_HERE = "from seeknal.featurestore.duckdbengine.feature_group import"
_ADVICE = {
    "FeatureGroup": f"There is no Spark engine: {_HERE} FeatureGroupDuckDB. It takes spark_frame.toArrow().",
    "HistoricalFeatures": f"There is no Spark engine: {_HERE} HistoricalFeaturesDuckDB.",
    "OnlineFeatures": f"There is no Spark engine: {_HERE} OnlineFeaturesDuckDB.",
    **{
        name: f"Write: {_HERE} {name}"
        for name in ("FeatureLookup", "FillNull", "GetLatestTimeStrategy", "Materialization")
    },
}


def __getattr__(name: str) -> NoReturn:
    refuse(__name__, name, _ADVICE)
