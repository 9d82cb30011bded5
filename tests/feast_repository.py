"""A Feast repository with what can and cannot be imported, and the Python that has Feast."""

import subprocess
import venv
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.system.locks import exclusive_lock

FEAST = "feast==0.67.0"
ROOT = Path(__file__).parents[1]


def feast_python() -> Path:
    """Return a Python that has Feast and reads Delta Lake, from the folder .feast, which is made on the first use."""
    folder = ROOT / ".feast"
    ready = folder / FEAST
    with exclusive_lock(ROOT / ".feast.lock"):  # several test processes can be the first
        if not ready.exists():
            venv.create(folder, with_pip=True, clear=True)
            install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, FEAST, "deltalake"], check=True)
            ready.touch()
    return folder / "bin/python"


def run(python: Path, folder: Path, *args: str) -> None:
    """Run a command of Feast."""
    command = [python.with_name("feast"), *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


DEFINITIONS = """
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64, String

SCALE = 100

shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64, description="A shop")
product = Entity(name="product", join_keys=["sku"], value_type=ValueType.STRING)


def rows(name, **more):
    return FileSource(name=name, path=f"data/{name}.parquet", timestamp_field="at", **more)


sales = FeatureView(
    name="sales", entities=[shop], ttl=timedelta(days=2), description="Of a day", owner="growth", tags={"team": "shops"},
    schema=[Field(name="turnover", dtype=Float32), Field(name="visits", dtype=Int64), Field(name="city", dtype=String)],
    source=rows("sales", created_timestamp_column="noted", field_mapping={"takings": "turnover"}),
)
prices = FeatureView(
    name="prices", entities=[shop, product], ttl=timedelta(0), online=False,
    schema=[Field(name="price", dtype=Float64), Field(name="visits", dtype=Int64)], source=rows("prices"),
)
stock = FeatureView(name="stock", entities=[product], schema=[Field(name="left", dtype=Int64)], source=rows("stock"))
world = FeatureView(name="world", entities=[], schema=[Field(name="rate", dtype=Float64)], source=rows("world"))
gone = FeatureView(name="gone", entities=[shop], schema=[Field(name="x", dtype=Float64)], source=rows("gone"))
clicks = FeatureView(
    name="clicks", entities=[shop], schema=[Field(name="clicked", dtype=Int64)],
    source=KafkaSource(name="click_stream", kafka_bootstrap_servers="none", topic="clicks", timestamp_field="at",
                       message_format=JsonFormat("at timestamp"), batch_source=rows("clicks")),
)
asked = RequestSource(name="asked", schema=[Field(name="cart", dtype=Float64)])


def scaled(value):
    return value * SCALE


@on_demand_feature_view(sources=[sales, asked], schema=[Field(name="share", dtype=Float64), Field(name="busy", dtype=Int64)])
def share(inputs: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["share"] = 100 * inputs["cart"] / inputs["turnover"]  # in percent
    out["busy"] = inputs["visits"].astype("object").map(lambda one: len(str(one)))
    return out


@on_demand_feature_view(sources=[asked], schema=[Field(name="percent", dtype=Float64)])
def percent(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"percent": scaled(inputs["cart"])})  # of the module, which Feast does not find


@on_demand_feature_view(sources=[asked, stock], schema=[Field(name="after", dtype=Float64)], mode="python")
def after(inputs):
    return {"after": [None if l is None else c - l for c, l in zip(inputs["cart"], inputs["left"])]}


@on_demand_feature_view(sources=[asked], schema=[Field(name="twice", dtype=Float64)], mode="python", singleton=True)
def twice(inputs):
    return {"twice": 2 * inputs["cart"]}


@on_demand_feature_view(sources=[sales], schema=[Field(name="rank", dtype=Float64)])
def rank(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"rank": inputs["turnover"].rank()})


class Memory:
    seen = []


MEMORY = Memory()
TABLE = {}
TABLE["a"] = 1


@on_demand_feature_view(sources=[asked], schema=[Field(name="looked", dtype=Float64)], mode="python", singleton=True)
def looked(inputs):
    return {"looked": TABLE["a"] * inputs["cart"]}


basket = FeatureService(
    name="basket", features=[sales[["turnover"]], stock, share, after], description="For the basket", owner="growth",
    tags={"model": "b1"},
)
between = FeatureService(
    name="between",
    features=[
        sales[["visits"]].with_name("origin").with_join_key_map({"shop_id": "origin_id"}),
        sales[["visits"]].with_name("target").with_join_key_map({"shop_id": "target_id"}),
    ],
)
helped = FeatureService(name="helped", features=[sales[["city"]], percent])
single = FeatureService(name="single", features=[sales[["city"]], twice])
ranked = FeatureService(name="ranked", features=[sales[["city"]], rank])
lookup = FeatureService(name="lookup", features=[sales[["city"]], looked])
"""

SETTINGS = """\
project: market
registry: data/registry.db
provider: local
online_store:
    type: sqlite
    path: data/online.db
entity_key_serialization_version: 3
"""

DAY = datetime(2024, 5, 1, tzinfo=timezone.utc)  # noqa: UP017 - as in Feast's own code


def make_repository(folder: Path) -> Path:
    """Write the repository with its data, without applying it."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(SETTINGS)
    (folder / "definitions.py").write_text(DEFINITIONS)
    moments = [DAY + timedelta(days=day) for day in range(4)]
    write = lambda name, **columns: pq.write_table(pa.table(columns), folder / f"data/{name}.parquet")  # noqa: E731
    write(
        "sales",
        shop_id=[1, 1, 1, 2, 2, 3],
        # The second and third rows have the same time: the one that was noted first is the later row of the file.
        at=pa.array(
            [moments[0], moments[1], moments[1], moments[0], moments[3], moments[2]], pa.timestamp("ns", "UTC")
        ),
        noted=pa.array([moments[0], moments[3], moments[2], *moments[:3]], pa.timestamp("us")),
        takings=[0.1, 20.0, 30.0, 40.0, None, 60.0],
        visits=pa.array([1, 20, 300, None, 50_000, 6], pa.int64()),
        city=["Oslo", "Oslo", "Oslo", "Rome", "Rome", None],
    )
    write(
        "prices",
        shop_id=[1, 1, 2, 2],
        sku=["a", "b", "a", "b"],
        at=pa.array(moments, pa.timestamp("us")),
        price=[1.5, 2.5, None, 4.5],
        visits=[1, 2, 3, 2**53 + 1],
    )
    # Two rows that nothing tells apart but their order.
    write(
        "stock",
        sku=["a", "a", "b"],
        at=pa.array([*moments[:1] * 2, moments[1]], pa.timestamp("us", "UTC")),
        left=[5, 6, 7],
    )
    write("world", at=pa.array(moments[:1], pa.timestamp("us", "UTC")), rate=[1.0])
    first = pa.scalar(moments[0], pa.timestamp("ns", "UTC")).value
    times = pa.array([first, first + 1], pa.int64()).cast(pa.timestamp("ns", "UTC"))  # one is not a whole microsecond
    write("clicks", shop_id=[1, 2], at=times, clicked=[10, 20])
    write("gone", shop_id=[1], at=pa.array(moments[:1], pa.timestamp("us", "UTC")), x=[1.0])
    return folder
