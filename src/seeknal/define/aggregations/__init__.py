"""Aggregations of events in windows, as a user defines them. No data, no I/O.

`result_types`, which needs Arrow, is not imported here, so that `import seeknal` stays light.
"""

from seeknal.define.aggregations.as_json import from_json, to_json
from seeknal.define.aggregations.base import Aggregation
from seeknal.define.aggregations.features import WindowedFeature, columns_of, conditions_of, expand, mask_name
from seeknal.define.aggregations.kinds import (
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

__all__ = [
    "Aggregation",
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
    "WindowedFeature",
    "columns_of",
    "conditions_of",
    "expand",
    "from_json",
    "mask_name",
    "to_json",
]
