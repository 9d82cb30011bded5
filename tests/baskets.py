"""A feature view of purchases, and training sets of it, for tests of what is made of training sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from seeknal import (
    Count,
    Entity,
    EventSource,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureView,
    Label,
    Materialization,
    Sum,
    WindowedGroup,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUSEHOLDS, DAYS = 6, 60
SPLIT = (START + timedelta(days=30), START + timedelta(days=45))
FEATURES = ["cart_value", "spend_7d", "trips_7d", "area", "size", "income"]


def view(name: str = "next_basket", label: Label | None = None) -> FeatureView:
    """Return a view of the purchases of households, with a feature of each kind: text, a whole number with nulls, a decimal."""
    purchases = EventSource("purchases", event_time_col="at", project="shop")
    purchases.set_dataframe(_purchases()).write()
    household = Entity("household", ["household"])
    totals = {"spend": Sum("amount", over="7d"), "trips": Count(over="7d")}
    activity = WindowedGroup(
        "activity", household, purchases, {"spend_7d": totals["spend"], "trips_7d": totals["trips"]}
    )
    about = FeatureGroupDuckDB("about", household, Materialization(event_time_col="at"), project="shop")
    about.set_dataframe(_about()).write()
    return FeatureView(
        name,
        [FeatureLookup(activity), FeatureLookup(about)],
        request={"cart_value": "float64"},
        label=label or Label(purchases, within="3d", aggregation="any", name="returns"),
    )


def spine() -> pa.Table:
    """Return one moment of each household on each day; the columns have another order than the features."""
    rows = [(START + timedelta(days=day), house) for day in range(1, DAYS) for house in range(HOUSEHOLDS)]
    columns = {
        "note": [f"row {i}" for i in range(len(rows))],
        "household": [house for _, house in rows],
        "moment": [moment for moment, _ in rows],
        "cart_value": [i / 8 for i in range(len(rows))],
    }
    return pa.table(columns)


def _purchases() -> pa.Table:
    rows = [(day, house) for day in range(DAYS + 5) for house in range(HOUSEHOLDS) if day * 7 % (house + 3) == 0]
    columns = {
        "household": [house for _, house in rows],
        "at": [START + timedelta(days=day, hours=house) for day, house in rows],
        "amount": [(day % 9 + 1) / 4 for day, _ in rows],
    }
    return pa.table(columns)


def _about() -> pa.Table:
    sizes = [None, *range(1, HOUSEHOLDS)]
    columns = {
        "household": list(range(HOUSEHOLDS)),
        "at": [START] * HOUSEHOLDS,
        "area": [["north", "south", None][house % 3] for house in range(HOUSEHOLDS)],
        "size": pa.array(sizes, pa.int64()),
        "income": [Decimal("1.10") * (house + 1) for house in range(HOUSEHOLDS)],
    }
    return pa.table(columns)
