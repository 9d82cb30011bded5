"""The client gives what the library gives, of the same types."""

import asyncio
import threading
from datetime import date, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seeknal import (
    AsyncClient,
    Client,
    DataError,
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    Materialization,
    StoreError,
    frames,
    tokens,
)
from seeknal.feature_group import FeatureGroup
from seeknal.times import Interval
from servers import Server, Valkey, free_port
from test_server import EVERYTHING, NOON

pytestmark = pytest.mark.slow
LOOKUPS = [
    FeatureLookup("shop/everything", ["whole", "price"]),
    FeatureLookup("shop/everything", ["whole"], prefix="old_"),
]
KEYS = [{"user_id": 1}, {"user_id": 2**60}, {"user_id": 77}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = FeatureStore(tmp_path_factory.mktemp("asked") / "home")
    group = FeatureGroup("everything", Entity("user", ["user_id"]), Materialization(event_time_col="at"), "shop")
    store.write(group, EVERYTHING)
    store.serve([FeatureLookup("shop/everything")], "all")
    many = FeatureGroup(
        "by_kind", Entity("parcel", ["day", "price", "raw", "zoned"]), Materialization(event_time_col="at"), "shop"
    )
    store.write(many, EVERYTHING.select(["day", "price", "raw", "zoned", "at", "whole"]).slice(0, 2))
    store.serve([FeatureLookup("shop/by_kind")], "by_kind")
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(store):
    token = tokens.create(store.registry, "test", "shop", ["read", "push"])
    with Server(store.home) as server:
        server.token = token
        yield server


@pytest.fixture
def client(server):
    with Client(server.url, server.token) as client:
        yield client


@pytest.mark.parametrize("output", ["pandas", "polars", "arrow", "dicts"])
@pytest.mark.parametrize("with_status", [False, True])
def test_features_come_back_as_the_library_gives_them(client, store, output, with_status):
    own = store.online_table("all", "shop").get_features(KEYS, output, with_status=with_status)
    for keys in (KEYS, tuple(KEYS), pd.DataFrame(KEYS), pl.DataFrame(KEYS), pa.Table.from_pylist(KEYS)):
        found = client.get_features("shop/all", keys, output, with_status=with_status)
        assert type(found) is type(own)
        assert same(plain(found), plain(own))
        if output != "dicts":
            names = "types" if output == "arrow" else "dtypes"
            kinds = [getattr(one.schema if output == "arrow" else one, names) for one in (found, own)]
            assert list(kinds[0]) == list(kinds[1])


def plain(frame) -> list:
    if isinstance(frame, list):
        return frame
    return frame.to_pylist() if isinstance(frame, pa.Table) else list(frame.to_dict().values())


def same(one, other) -> bool:
    """Compare what may have NaN and NA in it."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | pl.Series | np.ndarray):
        return len(one) == len(other) and all(map(same, one, other))
    if one is None or one is pd.NA or one != one:  # noqa: PLR0124 - NaN
        return type(one) is type(other) and (other is None or other is pd.NA or other != other)  # noqa: PLR0124
    return type(one) is type(other) and one == other


def test_keys_of_every_kind_are_found(client, store):
    keys = EVERYTHING.select(["day", "price", "raw", "zoned"]).slice(0, 2)
    own = store.online_table("by_kind", "shop").get_features(keys, "dicts")
    assert [row["whole"] for row in own] == [2**53 - 1, 2**53]
    assert client.get_features("by_kind", keys, "dicts", project="shop") == own
    assert client.get_features("by_kind", keys.to_pylist(), "dicts", project="shop") == own


def test_numbers_of_numpy_and_moments_of_pandas_are_taken(client):
    found = client.get_features("shop/all", [{"user_id": np.int64(1)}], "dicts", ["small"])
    assert found == [{"user_id": 1, "small": 1}]


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("output", [None, "arrow", "pandas"])
def test_training_sets_come_back_as_the_library_gives_them(client, store, form, output):
    spine = form({"user_id": [2, 1, 9, 1], "t": [NOON, NOON - timedelta(hours=1), NOON, NOON], "y": [1, 2, 3, 4]})
    for options in ({}, {"keep": []}, {"span": Interval.between("2025-01-01", None)}, {"as_of": 1}):
        own = store.training_set(LOOKUPS, spine, "t", output=output, **options)
        found = client.training_set(LOOKUPS, spine, "t", output=output, **options)
        assert type(found) is type(own)
        assert found.equals(own)


def test_an_index_of_pandas_is_kept(client, store):
    spine = pd.DataFrame({"user_id": [2, 1], "t": [NOON, NOON]}, index=["b", "a"])
    assert client.training_set(LOOKUPS, spine, "t").equals(store.training_set(LOOKUPS, spine, "t"))


def test_a_parquet_file_is_sent_as_it_is_and_comes_back_in_batches(client, store, tmp_path):
    rows = 300_000
    spine = pa.table({"user_id": np.arange(rows) % 3, "t": pa.array([NOON] * rows), "y": np.arange(rows)})
    pq.write_table(spine, tmp_path / "spine.parquet")
    batches = list(client.stream(LOOKUPS, tmp_path / "spine.parquet", "t"))
    assert len(batches) > 1
    assert pa.Table.from_batches(batches).equals(store.training_set(LOOKUPS, spine, "t"))


def test_pushed_rows_are_taken_exactly_and_once(client, store):
    row = EVERYTHING.slice(0, 1).to_pylist()[0] | {"user_id": 5, "at": NOON, "span": timedelta(days=1, microseconds=1)}
    pushed = client.push("shop/everything", row)
    assert (pushed.group, pushed.rows, pushed.known, pushed.online) == ("shop/everything", 1, 0, 4)
    assert store.push("everything", row, "shop").known == 1
    assert client.push("everything", pa.Table.from_pylist([row], EVERYTHING.schema), "shop").known == 1
    found = client.get_features("shop/all", [{"user_id": 5}], "dicts")[0]
    assert {name: found[name] for name in ("price", "raw", "day", "zoned", "span", "fine")} == {
        "price": Decimal("1.50"), "raw": b"", "day": date(2024, 2, 29), "zoned": NOON, "span": row["span"], "fine": row["fine"],
    }  # fmt: skip
    assert store.verify("all", "shop").equal


def test_errors_are_those_of_the_library(client, server, store):
    for call in (
        lambda it: it.get_features([{"user_id": "1"}]),
        lambda it: it.get_features([{"user": 1}]),
        lambda it: it.get_features([{"user_id": 1}], features=["smal"]),
        lambda it: it.get_features({"user_id": 1}),
        lambda it: it.get_features([{"user_id": 1}], "arrows"),
    ):
        with pytest.raises((DataError, DefinitionError)) as own:
            call(store.online_table("all", "shop"))
        with pytest.raises(type(own.value)) as found:
            call(Remote(client))
        if "output=" not in str(own.value):
            assert str(found.value) == str(own.value)
    with pytest.raises(DefinitionError, match="No online table named 'al' in project 'shop'"):
        client.get_features("shop/al", [])
    with pytest.raises(DefinitionError, match="no right to read in project 'bank'"):
        client.get_features("bank/all", [])
    with pytest.raises(DefinitionError, match="A token is needed"), Client(server.url, "wrong") as stranger:
        stranger.catalog()
    with pytest.raises(DefinitionError, match="is no address"):
        Client("localhost:6789")
    with pytest.raises(DefinitionError, match="one at a time"):
        client.training_set([FeatureLookup("shop/everything"), FeatureLookup("bank/x")], pa.table({"t": [NOON]}), "t")


class Remote:
    """One table, seen through a client."""

    def __init__(self, client: Client):
        self._client = client

    def get_features(self, keys, output="pandas", features=None):
        return self._client.get_features("shop/all", keys, output, features)


def test_a_server_that_is_not_there_is_tried_again_and_then_named():
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=2) as client, pytest.raises(StoreError, match="cannot be reached"):
        client.catalog()


def test_a_request_is_sent_again_while_the_store_is_away(tmp_path):
    valkey = Valkey(tmp_path / "valkey").start()
    store = FeatureStore(tmp_path / "other", online_store=valkey.url)
    group = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
    store.write(group, pa.table({"user_id": [1], "at": [NOON], "x": [3]}))
    store.serve([FeatureLookup("spend")], "spend")
    with Server(store.home, env={"SEEKNAL_ONLINE_STORE": valkey.url}) as server, Client(server.url, retries=0) as once:
        valkey.pause()
        with pytest.raises(StoreError):
            once.get_features("spend", [{"user_id": 1}])
        with Client(server.url, retries=8) as client:
            import threading

            threading.Timer(2, valkey.resume).start()
            assert client.get_features("spend", [{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 3}]
    valkey.stop()


def test_the_async_client_gives_the_same(server, client, store, tmp_path):
    spine = pa.table({"user_id": [2, 1], "t": [NOON, NOON]})

    async def run():
        async with AsyncClient(server.url, server.token) as later:
            found = await asyncio.gather(
                *(later.get_features("shop/all", KEYS[:2], "arrow", ["whole"]) for _ in range(20))
            )
            training = await later.training_set(LOOKUPS, spine, "t")
            streamed = (await later.stream(LOOKUPS, spine, "t")).read_all()
            pushed = await later.push("shop/everything", EVERYTHING.slice(0, 1).to_pylist())
            return found, training, streamed, pushed, await later.catalog()

    found, training, streamed, pushed, catalog = asyncio.run(run())
    assert all(one.equals(client.get_features("shop/all", KEYS[:2], "arrow", ["whole"])) for one in found)
    assert training.equals(streamed)
    assert training.equals(store.training_set(LOOKUPS, spine, "t"))
    assert pushed.known == 1
    assert catalog == client.catalog()


class Faulty(BaseHTTPRequestHandler):
    """A server that is busy once, and then keeps what it was sent."""

    bodies: list[bytes]
    answer = b""

    def do_POST(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append(body)
        is_first = len(self.bodies) == 1
        self.send_response(503 if is_first else 200)
        self.send_header("content-length", str(0 if is_first else len(self.answer) + 9))
        self.end_headers()
        self.wfile.write(b"" if is_first else self.answer)
        self.close_connection = True

    def chunk(self) -> bytes:
        part = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return part

    def log_message(self, *_: object):
        pass


@pytest.fixture
def faulty():
    kind = type("Faulty", (Faulty,), {"bodies": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kind.url = f"http://127.0.0.1:{server.server_port}"
        yield kind
        server.shutdown()


def test_a_spine_that_can_be_read_once_is_sent_again_whole_and_an_answer_cut_short_is_not_asked_again(faulty):
    spine = pa.table({"user_id": [1, 2], "at": pa.array([0, 0], pa.timestamp("us", "UTC"))})
    reader = pa.RecordBatchReader.from_batches(spine.schema, iter(spine.to_batches()))
    faulty.answer = frames.to_stream(spine)[:300]
    with Client(faulty.url) as client, pytest.raises(StoreError, match="ended in the middle of its answer"):
        client.stream([FeatureLookup("shop/spend")], reader, "at")
    first, second = (body.partition(b"spine")[2].partition(b"ARROW")[2] or body for body in faulty.bodies)
    assert len(faulty.bodies) == 2
    assert len(first) == len(second) > 500


@pytest.mark.parametrize("token", ["snk_0_secret\n", "tök", "Bearer snk_0_secret"])
def test_a_token_that_is_none_is_refused_and_not_shown(token):
    with pytest.raises(DefinitionError) as error:
        Client("http://127.0.0.1:1", token)
    assert token.strip() not in str(error.value)


def test_what_cannot_be_sent_or_is_no_name_is_an_error_of_the_library(faulty):
    with Client(faulty.url, retries=0) as client:
        with pytest.raises(DataError, match="cannot be sent"):
            client.get_features("spend", [{"user_id": 2**70}])
        for name in ("spend?features=x", "../../metrics", "a/b/c"):
            with pytest.raises(DefinitionError, match="breaks the rule"):
                client.get_features(name, [])
        with pytest.raises(DefinitionError, match="empty list"):
            client.get_features("spend", [{"user_id": 1}], features=[])
