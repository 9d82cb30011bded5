"""The effect of a join by date on a model: it scores better in the test, and worse in use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pandas as pd
import pyarrow as pa

LATE = 30
"""A flight counts as late if its arrival is more than this many minutes late."""

VALIDATE_FROM = pd.Timestamp("2013-10-01", tz="UTC")
"""Models are trained on the flights whose prediction is due before this moment, and tested on the others."""

_GROUP = ["carrier", "origin", "day_of_flight"]
_FEATURES = ["hour", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", "delay_3h"]


def join_by_date(landed: pa.Table) -> pd.Series[float]:
    """Return, for each flight, the mean delay of its carrier at its airport on its day, as a join by date would add it."""
    flights: pd.DataFrame = landed.to_pandas()
    return flights.groupby(_GROUP)["arr_delay"].transform("mean")


@dataclass(frozen=True)
class Future:
    """How much of the future the means of `join_by_date` contain.

    Args:
        rows: Share of the rows whose mean includes at least one flight that had not landed yet.
        flights: Share of the flights in a row's mean that had not landed yet, averaged over all rows.
    """

    rows: float
    flights: float


def measure(landed: pa.Table) -> Future:
    """Measure how many of the flights in each mean of `join_by_date` had landed at the moment of prediction.

    For example, a carrier has four flights from an airport on a day, and only one of them has landed when the third is to be
    predicted. Then three quarters of the flights in the mean that a join by date gives the third are still in the future.
    """
    flights: pd.DataFrame = landed.to_pandas()
    landings = flights.sort_values("landed_at")[[*_GROUP, "landed_at"]]
    landings["so_far"] = landings.groupby(_GROUP).cumcount() + 1
    # The running number of the last landing at or before the moment of prediction is the number of flights known by then.
    asked = flights.sort_values("predict_at")[[*_GROUP, "predict_at"]]
    known = pd.merge_asof(asked, landings, left_on="predict_at", right_on="landed_at", by=_GROUP)["so_far"].fillna(0)
    whole = asked.groupby(_GROUP)["predict_at"].transform("size").to_numpy()
    return Future(float((known < whole).mean()), float(1 - (known / whole).mean()))


@dataclass(frozen=True)
class Score:
    """Areas under the ROC curve: 0.5 is guessing, 1 is perfect.

    Args:
        tested: With the columns as they were joined.
        in_use: With what is known at the moment of prediction.
    """

    tested: float
    in_use: float


def can_train() -> bool:
    """Return whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def compare(training: pa.Table, landed: pa.Table) -> dict[str, Score]:
    """Train two models whose columns differ only in `delay_1d`, and score both.

    Args:
        training: The training set, from the point-in-time join.
        landed: The flights, in the same order, with their actual arrivals.
    """
    honest = training.to_pandas()
    naive = honest.assign(delay_1d=join_by_date(landed))
    return {"by date": _score(naive, honest), "point in time": _score(honest, honest)}


def _score(joined: pd.DataFrame, honest: pd.DataFrame) -> Score:
    from sklearn.ensemble import HistGradientBoostingClassifier

    past = honest["predict_at"] < VALIDATE_FROM
    model = HistGradientBoostingClassifier(max_iter=30, learning_rate=0.2, early_stopping=False, random_state=0)
    model.fit(*_columns(joined[past]))
    return Score(_area(model, joined[~past]), _area(model, honest[~past]))


def _area(model: Any, frame: pd.DataFrame) -> float:
    from sklearn.metrics import roc_auc_score

    columns, late = _columns(frame)
    return float(roc_auc_score(late, model.predict_proba(columns)[:, 1]))


def _columns(frame: pd.DataFrame) -> tuple[Any, Any]:
    return frame[[*_FEATURES, "delay_1d"]].to_numpy("float64"), (frame["arr_delay"] > LATE).to_numpy()
