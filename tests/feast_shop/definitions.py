"""A Feast repository with one of everything that an import could get wrong; `make_data.py` writes its rows."""

import math
import random
from datetime import timedelta

import numpy as np
import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    PushSource,
    RequestSource,
    StreamFeatureView,
)
from feast.data_format import DeltaFormat, JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from prices import to_euros

customer = Entity(name="customer", join_keys=["customer_id"], description="Who buys")
product = Entity(name="product", join_keys=["sku"])
airport = Entity(name="airport", join_keys=["airport"])

# A ttl, a created time that settles ties, and a tag.
spend_source = FileSource(
    name="spend", path="data/spend.parquet", timestamp_field="at", created_timestamp_column="recorded_at"
)
spend = FeatureView(
    name="spend",
    entities=[customer],
    ttl=timedelta(hours=2),
    schema=[
        Field(name="amount", dtype=Float32),
        Field(name="visits", dtype=Int64),
        Field(name="currency", dtype=String),
        Field(name="is_member", dtype=Bool),
    ],
    source=spend_source,
    description="What a customer spends",
    owner="growth",
    tags={"team": "growth", "tier": ""},
)

# No ttl, no created time, repeated rows; naive nanoseconds; columns of the file have other names.
stock_source = FileSource(
    name="stock", path="data/stock", timestamp_field="counted", field_mapping={"qty": "in_stock", "prc": "list_price"}
)
stock = FeatureView(
    name="stock",
    entities=[product],
    ttl=timedelta(0),
    schema=[Field(name="in_stock", dtype=Int32), Field(name="list_price", dtype=Float64)],
    source=stock_source,
)

# A Delta Lake table, two entities, and a feature that another view has, too.
basket_source = FileSource(name="basket", path="data/basket", timestamp_field="at", file_format=DeltaFormat())
basket = FeatureView(
    name="basket",
    entities=[customer, product],
    ttl=timedelta(days=30),
    schema=[Field(name="amount", dtype=Float64), Field(name="note", dtype=String)],
    source=basket_source,
    online=False,
)

# All kinds of values.
kinds_source = FileSource(name="kinds", path="data/kinds.parquet", timestamp_field="at")
kinds = FeatureView(
    name="kinds",
    entities=[customer],
    ttl=timedelta(days=365),
    schema=[
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="scores", dtype=Array(Float32)),
        Field(name="names", dtype=Array(String)),
        Field(name="raw", dtype=Bytes),
        Field(name="big", dtype=Int64),
    ],
    source=kinds_source,
)

weather_source = FileSource(name="weather", path="data/weather.parquet", timestamp_field="at")
weather = FeatureView(
    name="weather",
    entities=[airport],
    ttl=timedelta(days=1),
    schema=[Field(name="wind", dtype=Float64)],
    source=weather_source,
)

# What has no counterpart.
country = FeatureView(
    name="country",
    entities=[],
    schema=[Field(name="inflation", dtype=Float64)],
    source=FileSource(name="country", path="data/country.parquet", timestamp_field="at"),
)
remote = FeatureView(
    name="remote",
    entities=[customer],
    schema=[Field(name="customer_id", dtype=Int64), Field(name="debt", dtype=Float64)],
    source=FileSource(name="remote", path="s3://nobody-has-this/debt.parquet", timestamp_field="at"),
)
gone = FeatureView(
    name="gone",
    entities=[customer],
    schema=[Field(name="lost", dtype=Float64)],
    source=FileSource(name="gone", path="data/gone.parquet", timestamp_field="at"),
)
clicks = StreamFeatureView(
    name="clicks",
    entities=[customer],
    schema=[Field(name="click_count", dtype=Int64)],
    source=KafkaSource(
        name="clicks_stream",
        kafka_bootstrap_servers="localhost:9",
        topic="clicks",
        timestamp_field="at",
        batch_source=kinds_source,
        message_format=JsonFormat(schema_json="customer_id long, at timestamp, click_count long"),
    ),
)
pushed = FeatureView(
    name="pushed",
    entities=[customer],
    ttl=timedelta(hours=2),
    schema=[Field(name="visits", dtype=Int64)],
    source=PushSource(name="spend_push", batch_source=spend_source),
)

cart = RequestSource(name="cart", schema=[Field(name="cart_value", dtype=Float64), Field(name="coupon", dtype=String)])
FACTOR = 3


def scaled(value):
    """Multiply by the constant of the module."""
    return value * FACTOR


@on_demand_feature_view(
    sources=[spend, cart],
    schema=[Field(name="cart_vs_usual", dtype=Float64), Field(name="scaled_visits", dtype=Int64)],
)
def cart_features(inputs: pd.DataFrame) -> pd.DataFrame:
    """Use a helper, a constant, and the long name of a feature."""
    made = pd.DataFrame()
    made["cart_vs_usual"] = inputs["cart_value"] / inputs["spend__amount"]
    made["scaled_visits"] = scaled(inputs["visits"]).astype("Int64")
    return made


@on_demand_feature_view(sources=[spend, cart], schema=[Field(name="euros", dtype=Float64)], mode="python")
def in_euros(inputs):
    """Use a function of another module of the repository."""
    return {
        "euros": [
            None if amount is None or math.isnan(amount) else to_euros(amount, currency)
            for amount, currency in zip(inputs["amount"], inputs["currency"], strict=True)
        ]
    }


@on_demand_feature_view(
    sources=[spend, cart],
    schema=[
        Field(name="ratio", dtype=Float64),
        Field(name="next_visit", dtype=Int64),
        Field(name="is_big", dtype=Bool),
    ],
)
def ratios(inputs: pd.DataFrame) -> pd.DataFrame:
    """Use only pandas and NumPy, which Feast gives to every function, on numbers with and without nulls."""
    made = pd.DataFrame()
    made["ratio"] = inputs["cart_value"] / inputs["spend__amount"]
    made["next_visit"] = (inputs["visits"] + 1).astype("Int64")
    made["is_big"] = inputs["cart_value"] > np.float64(2)
    return made


@on_demand_feature_view(sources=[spend, cart], schema=[Field(name="code", dtype=String)], mode="python")
def codes(inputs):
    """Import inside the function, and take lists."""
    import hashlib

    texts = [f"{currency}/{coupon}" for currency, coupon in zip(inputs["currency"], inputs["coupon"], strict=True)]
    return {"code": [hashlib.sha256(one.encode()).hexdigest()[:8] for one in texts]}


@on_demand_feature_view(
    sources=[spend, cart], schema=[Field(name="has_coupon", dtype=Bool)], mode="python", singleton=True
)
def coupon_of(inputs):
    """Take one row."""
    return {"has_coupon": bool(inputs["coupon"])}


@on_demand_feature_view(sources=[cart, spend], schema=[Field(name="lucky", dtype=Float64)])
def lottery(inputs: pd.DataFrame) -> pd.DataFrame:
    """Return another value at each call."""
    return pd.DataFrame({"lucky": [random.random() for _ in range(len(inputs))]})


@on_demand_feature_view(sources=[spend, cart], schema=[Field(name="share", dtype=Float64)])
def share_of_all(inputs: pd.DataFrame) -> pd.DataFrame:
    """Depend on the other rows of the frame."""
    return pd.DataFrame({"share": inputs["cart_value"] / np.sum(inputs["cart_value"])})


FeatureService(name="unused_object_of_the_module", features=[spend])
plain = FeatureService(
    name="plain",
    features=[spend[["visits", "amount"]], stock],
    description="Two views",
    owner="growth",
    tags={"a": "b"},
)
computed = FeatureService(name="computed", features=[spend[["amount"]], cart_features, in_euros])
working = FeatureService(name="working", features=[spend[["visits"]], ratios, codes])
single = FeatureService(name="single", features=[spend[["visits"]], coupon_of])
same_names = FeatureService(name="same_names", features=[spend[["amount"]], basket])
flight = FeatureService(
    name="flight",
    features=[
        weather.with_name("origin").with_join_key_map({"airport": "from_airport"}),
        weather.with_name("destination").with_join_key_map({"airport": "to_airport"}),
    ],
)
everything = FeatureService(name="everything", features=[kinds])
spend_service = FeatureService(name="spend", features=[spend])  # the name of a view
random_service = FeatureService(name="random_service", features=[lottery])
relative = FeatureService(name="relative", features=[share_of_all])
broken = FeatureService(name="broken", features=[gone, spend[["amount"]]])
