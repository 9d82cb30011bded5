"""The client gives what the library gives, of the same types."""

import asyncio
import gc
import json
import math
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from enum import Enum
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import duckdb
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
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.values import frames
from seeknal.values.times import Interval
from servers import Server, Valkey, free_port, wait_for
from test_server import EVERYTHING, NOON
from test_types_page import COLUMNS, KEPT

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
    store.groups.write(group, EVERYTHING)
    store.tables.serve([FeatureLookup("shop/everything")], "all")
    many = FeatureGroup(
        "by_kind", Entity("parcel", ["day", "price", "raw", "zoned"]), Materialization(event_time_col="at"), "shop"
    )
    store.groups.write(many, EVERYTHING.select(["day", "price", "raw", "zoned", "at", "whole"]).slice(0, 2))
    store.tables.serve([FeatureLookup("shop/by_kind")], "by_kind")
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(store):
    token = store.tokens.create("test", "shop", ["read", "push"])
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
    own = store.tables.open("all", project="shop").get_features(KEYS, output, with_status=with_status)
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
    own = store.tables.open("by_kind", project="shop").get_features(keys, "dicts")
    assert [row["whole"] for row in own] == [2**53 - 1, 2**53]
    assert client.get_features("by_kind", keys, "dicts", project="shop") == own
    assert client.get_features("by_kind", keys.to_pylist(), "dicts", project="shop") == own


KINDS = {
    "text": (pa.string(), "2024-02-29"),
    "price": (pa.decimal128(3, 2), Decimal("1.50")),
    "day": (pa.date32(), date(2024, 2, 29)),
    "naive": (pa.timestamp("ms"), datetime(2024, 2, 29)),
    "zoned": (pa.timestamp("us", "UTC"), NOON),
    "raw": (pa.binary(), b"ab"),
    "number": (pa.int8(), 1),
}
GIVEN = [
    *(value for _, value in KINDS.values()),
    *("1.5", "1", "YWI=", "PT1.000000000S", "2024-01-01T12:00:00Z", True, 1.0, 2**70, Decimal("1.500"), Decimal("1.505")),
    *(timedelta(seconds=1), datetime(2024, 2, 29), datetime(2024, 2, 29, 0, 0, 0, 1), clock(1), np.datetime64("2024-02-29"), np.int64(1), None),
    *(NOON.astimezone(timezone(timedelta(hours=7))), NOON.replace(tzinfo=timezone(timedelta(seconds=19))), bytearray(b"ab"), [1], {"a": 1}),
]  # fmt: skip


@pytest.fixture(scope="module")
def kinds(store):
    """Groups keyed by one kind each."""
    for name, (kind, value) in KINDS.items():
        group = FeatureGroup(f"by_{name}", Entity(f"of_{name}", ["k"]), Materialization(event_time_col="at"), "shop")
        store.groups.write(group, pa.table({"k": pa.array([value], kind), "at": [NOON], "x": pa.array([value], kind)}))
        store.tables.serve([FeatureLookup(f"shop/by_{name}")], f"by_{name}")


def said(ask) -> object:
    """Return the result of a call, or the place of the fault from its error, without the printed value."""
    try:
        return ask()
    except DataError as error:
        return "refused", str(error).split()[0], re.findall(r"in row \d+", str(error))


@pytest.mark.parametrize("name", KINDS)
def test_keys_and_rows_are_refused_for_their_types_where_the_library_refuses_them(client, store, kinds, name):
    _, known = KINDS[name]
    own = store.tables.open(f"by_{name}", project="shop")
    for value in GIVEN:
        keys = [{"k": known}, {"k": value}]
        far = said(lambda keys=keys: client.get_features(f"shop/by_{name}", keys, "arrow"))
        assert far == said(lambda keys=keys: own.get_features(keys, "arrow")), value
        for column in ("k", "x"):
            rows = [{"k": known, "at": NOON, "x": known}, {"k": known, "at": NOON, "x": known, column: value}]
            far = said(lambda rows=rows: client.push(f"shop/by_{name}", rows).known >= 0)
            assert far == said(
                lambda rows=rows: store.groups.push(f"by_{name}", rows, project="shop").known == len(rows)
            ), value


def served(store, label: str, key: str, table: pa.Table):
    group = FeatureGroup(label, Entity(f"of_{label}", [key]), Materialization(event_time_col="at"), "shop")
    store.groups.write(group, table.append_column("at", pa.array([NOON] * len(table))))
    return store.tables.serve([FeatureLookup(f"shop/{label}")], label)


@pytest.mark.parametrize("name", COLUMNS)
def test_an_answer_of_every_stored_type_can_be_pushed_as_it_is(client, store, name):
    values, label = COLUMNS[name], f"pushed_{list(COLUMNS).index(name)}"
    values = values.cast(pa.int64()) if name.startswith("null") else values
    served(store, label, "user_id", pa.table({"user_id": range(len(values)), "x": values}))
    keys, later = [{"user_id": user} for user in range(len(values))], NOON + timedelta(days=1)
    answer = client.get_features(label, keys, "arrow")
    assert client.push(label, answer.append_column("at", pa.array([later] * len(values)))).rows == len(values)
    scalars = [key | {"at": later, "x": value} for key, value in zip(keys, answer["x"], strict=True)]
    assert client.push(label, scalars).known == len(values)
    shown = client.push(label, [row | {"at": later} for row in client.get_features(label, keys, "dicts")])
    assert shown.known == len(values) - (name == "time64[ns]")  # Python's time has no nanoseconds


@pytest.mark.parametrize("name", [name for name, cells in KEPT.items() if cells[4] == "yes"])
def test_an_answer_of_every_type_of_key_can_be_asked_for_as_it_is(client, store, name):
    values, label = COLUMNS[name], f"asked_{list(COLUMNS).index(name)}"
    values = values.drop_null() if values.null_count else values
    own = served(store, label, "k", pa.table({"k": values, "n": range(len(values))}))
    found = client.get_features(label, pa.table({"k": values}), "arrow")
    assert found["n"].null_count == 0
    assert found.equals(own.get_features(pa.table({"k": values}), "arrow"))
    dicts = [{"k": row["k"]} for row in client.get_features(label, found, "dicts")]
    for keys in (found, found.to_pandas(), pl.from_arrow(found), [{"k": value} for value in found["k"]], dicts):
        assert client.get_features(label, keys, "arrow").equals(found)


def test_keys_beyond_pythons_years_are_found(client, store):
    for label, number, kind in (("far_days", 4_000_000, pa.date32()), ("far_times", 10**12, pa.timestamp("s", "UTC"))):
        values = pa.array([number], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
        own = served(store, label, "k", pa.table({"k": values, "n": [7]}))
        for keys in (pa.table({"k": values}), [{"k": values[0]}]):
            assert own.get_features(keys, "arrow")["n"].to_pylist() == [7]
            assert client.get_features(label, keys, "arrow")["n"].to_pylist() == [7]


class Color(str, Enum):  # noqa: UP042 - not StrEnum, whose `str` is its content
    RED = "red"


class Column(str, Enum):  # noqa: UP042
    KEY = "k"
    TIME = "at"


def test_enums_of_text_are_their_text_as_keys_as_values_and_as_names(client, store):
    given = pa.table({"k": ["red"], "x": ["a"], "list": [["a"]], "struct": [{"red": 1}]})
    own = served(store, "enums", "k", given)
    for ask in (own.get_features, partial(client.get_features, "enums")):
        assert ask([{Column.KEY: Color.RED}], "dicts", ["x"]) == [{"k": "red", "x": "a"}]
        with pytest.raises(DataError, match="'k' is missing"):
            ask([{Color.RED: 1}], "dicts")
    row = {
        Column.KEY: Color.RED,
        Column.TIME: NOON + timedelta(days=1),
        "x": Color.RED,
        "list": [Color.RED],
        "struct": {Color.RED: 2},
    }
    assert client.push("enums", row).rows == 1
    assert store.groups.push("enums", row, project="shop").known == 1
    assert client.get_features("enums", [{"k": "red"}], "dicts") == [
        {"k": "red", "x": "red", "list": ["red"], "struct": {"red": 2}}
    ]


def test_event_times_and_keys_beyond_their_type_come_back_alike(client, store):
    own = served(store, "alike", "k", pa.table({"k": pa.array([5], pa.int8()), "x": [1]}))
    for keys in ([{"k": 5}, {"k": 6}], [{"k": np.uint8(200)}], [{"k": np.uint64(2**63)}]):
        for output in ("dicts", "arrow"):
            mine = own.get_features(keys, output, with_status=True)
            theirs = client.get_features("alike", keys, output, with_status=True)
            assert (theirs, repr(theirs)) == (mine, repr(mine))


def test_the_advice_about_a_feature_that_the_output_cannot_hold_is_the_same_and_works(client, store):
    far = pa.array([2**62]).cast(pa.duration("s"))
    served(store, "far", "k", pa.table({"k": [5], "x": [1], "far": far}))
    spine = pl.DataFrame({"k": [5], "t": [NOON]})
    said = []
    for join in (client.training_set, store.features.training_set):
        with pytest.raises(DataError, match=r"'far'.*FeatureLookup\(\.\.\., features=") as error:
            join([FeatureLookup("shop/far")], spine, "t")
        said.append(str(error.value))
        assert join([FeatureLookup("shop/far", features=["x"])], spine, "t")["x"].to_list() == [1]
        assert join([FeatureLookup("shop/far")], spine, "t", output="arrow")["far"].combine_chunks().equals(far)
    assert said[0] == said[1]
    assert "keep_cols" not in said[0]


def test_numbers_of_numpy_and_moments_of_pandas_are_taken(client):
    found = client.get_features("shop/all", [{"user_id": np.int64(1)}], "dicts", ["small"])
    assert found == [{"user_id": 1, "small": 1}]


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("output", [None, "arrow", "pandas"])
def test_training_sets_come_back_as_the_library_gives_them(client, store, form, output):
    spine = form({"user_id": [2, 1, 9, 1], "t": [NOON, NOON - timedelta(hours=1), NOON, NOON], "y": [1, 2, 3, 4]})
    for options in ({}, {"keep": []}, {"interval": Interval.between("2025-01-01", None)}, {"as_of": 1}):
        own = store.features.training_set(LOOKUPS, spine, "t", output=output, **options)
        found = client.training_set(LOOKUPS, spine, "t", output=output, **options)
        assert type(found) is type(own)
        assert found.equals(own)


def test_an_index_of_pandas_is_kept(client, store):
    spine = pd.DataFrame({"user_id": [2, 1], "t": [NOON, NOON]}, index=["b", "a"])
    assert client.training_set(LOOKUPS, spine, "t").equals(store.features.training_set(LOOKUPS, spine, "t"))


def test_a_parquet_file_is_sent_as_it_is_and_comes_back_in_batches(client, store, tmp_path):
    rows = 300_000
    spine = pa.table({"user_id": np.arange(rows) % 3, "t": pa.array([NOON] * rows), "y": np.arange(rows)})
    pq.write_table(spine, tmp_path / "spine.parquet")
    batches = list(client.stream(LOOKUPS, tmp_path / "spine.parquet", "t"))
    assert len(batches) > 1
    assert pa.Table.from_batches(batches).equals(store.features.training_set(LOOKUPS, spine, "t"))


def test_pushed_rows_are_taken_exactly_and_once(client, store):
    row = EVERYTHING.slice(0, 1).to_pylist()[0] | {"user_id": 5, "at": NOON, "span": timedelta(days=1, microseconds=1)}
    pushed = client.push("shop/everything", row)
    assert (pushed.group, pushed.rows, pushed.known, pushed.online) == ("shop/everything", 1, 0, 4)
    assert store.groups.push("everything", row, project="shop").known == 1
    assert client.push("everything", pa.Table.from_pylist([row], EVERYTHING.schema), "shop").known == 1
    found = client.get_features("shop/all", [{"user_id": 5}], "dicts")[0]
    assert {name: found[name] for name in ("price", "raw", "day", "zoned", "span", "fine")} == {
        "price": Decimal("1.50"), "raw": b"", "day": date(2024, 2, 29), "zoned": NOON, "span": row["span"], "fine": row["fine"],
    }  # fmt: skip
    assert store.tables.verify("all", project="shop").equal


def test_values_of_numpy_pandas_and_arrow_are_sent_exactly_or_not_at_all(client, store):
    plain = EVERYTHING.slice(0, 1).to_pylist()[0] | {"user_id": 6, "at": NOON + timedelta(hours=1)}
    fine = pa.scalar(1_700_000_000_000_000_001, pa.int64()).cast(pa.timestamp("ns"))
    given = plain | {
        "at": pd.Timestamp(NOON) + pd.Timedelta(hours=1), "whole": np.int64(5), "half": np.float32(0.1), "span": np.timedelta64(3, "m"),
        "day": np.datetime64("2024-02-29"), "fine": fine, "zoned": pd.Timestamp(NOON).tz_convert("Asia/Jakarta"), "list": np.array([0.5, math.nan]), "clock": clock(1, 2, 3, 4), "yes": pd.NA,
    }  # fmt: skip
    assert client.push("shop/everything", given).rows == 1
    same_here = plain | {"whole": 5, "half": float(np.float32(0.1)), "span": timedelta(minutes=3), "fine": fine, "zoned": NOON,
                         "list": [0.5, math.nan], "clock": clock(1, 2, 3, 4), "yes": None, "day": date(2024, 2, 29)}  # fmt: skip
    assert store.groups.push("everything", same_here, project="shop").known == 1
    for odd in (
        1j,
        object(),
        np.timedelta64(1, "M"),
        np.datetime64(1, "ps"),
        np.longdouble(1),
        "\ud800",
        timedelta.max,
    ):
        with pytest.raises(DataError, match="text in row 1 cannot be sent"):
            client.push("shop/everything", [plain, plain | {"text": odd}])


def test_errors_are_those_of_the_library(client, server, store):
    for call in (
        lambda it: it.get_features([{"user_id": "1"}]),
        lambda it: it.get_features([{"user": 1}]),
        lambda it: it.get_features([{"user_id": 1}], features=["smal"]),
        lambda it: it.get_features({"user_id": 1}),
        lambda it: it.get_features([{"user_id": 1}], "arrows"),
    ):
        with pytest.raises((DataError, DefinitionError)) as own:
            call(store.tables.open("all", project="shop"))
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
    with pytest.raises(DefinitionError, match="is not a URL"):
        Client("localhost:6789")
    with pytest.raises(DefinitionError, match="no right to read in project 'bank'"):
        client.training_set([FeatureLookup("shop/everything"), FeatureLookup("bank/x")], pa.table({"t": [NOON]}), "t")


def test_names_without_a_project_resolve_as_in_the_library(tmp_path):
    store = FeatureStore(tmp_path / "home")
    spine = pa.table({"user_id": [1], "at": [NOON]})
    for project in ("bank", "shop"):
        for name in ("both", f"only_{project}"):
            group = FeatureGroup(name, Entity("user", ["user_id"]), Materialization(event_time_col="at"), project)
            store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], f"{project}_{name}": [1]}))
            store.tables.serve([FeatureLookup(f"{project}/{name}")], name)
    with Server(store.home) as server, Client(server.url) as client:
        for name in ("only_shop", "bank/both", "both", "only_shpo"):
            rows = pa.table({"user_id": [1], "at": [NOON], f"{name.partition('_')[2]}_{name}": [1]})
            if name == "bank/both":
                rows = pa.table({"user_id": [1], "at": [NOON], "bank_both": [1]})
            for call, own in (
                (lambda it, name=name: table_of(it, name).get_features([{"user_id": 1}], "dicts"), store),
                (lambda it, name=name: it.training_set([FeatureLookup(name)], spine, "at").to_pylist(), store.features),
                (lambda it, name=name, rows=rows: it.push(name, rows), store.groups),
            ):
                assert outcome(call, client) == outcome(call, own)
        both = [FeatureLookup("only_shop"), FeatureLookup("bank/both", prefix="b_")]
        assert client.training_set(both, spine, "at") == store.features.training_set(both, spine, "at")
        with pytest.raises(DefinitionError, match="is in project 'shop', not in 'bank'"):
            client.get_features("shop/both", [{"user_id": 1}], project="bank")


def table_of(store, name: str):
    return Remote(store, name) if isinstance(store, Client) else store.tables.open(name)


def outcome(call, store) -> object:
    """Return the result of a call or the text of its error, for a server without the path of the home."""
    try:
        return call(store)
    except DefinitionError as error:
        return type(error), re.sub(r"in /\S+\.(?= |$)", "in any project.", str(error))


class Remote:
    """One table, seen through a client."""

    def __init__(self, client: Client, name: str = "shop/all"):
        self._client = client
        self._name = name

    def get_features(self, keys, output="pandas", features=None):
        return self._client.get_features(self._name, keys, output, features)


def test_an_unreachable_server_is_retried_and_then_named():
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=2) as client, pytest.raises(StoreError, match="cannot be reached"):
        client.catalog()


def test_a_request_is_sent_again_while_the_store_is_away(tmp_path):
    valkey = Valkey(tmp_path / "valkey").start()
    store = FeatureStore(tmp_path / "other", online_store=valkey.url)
    group = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
    store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], "x": [3]}))
    store.tables.serve([FeatureLookup("spend")], "spend")
    with Server(store.home, env={"SEEKNAL_ONLINE_STORE": valkey.url}) as server, Client(server.url, retries=0) as once:
        valkey.pause()
        with pytest.raises(StoreError):
            once.get_features("spend", [{"user_id": 1}])
        with Client(server.url, retries=8) as client:
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
    assert training.equals(store.features.training_set(LOOKUPS, spine, "t"))
    assert pushed.known == 1
    assert catalog == client.catalog()


class Peer(BaseHTTPRequestHandler):
    """A server with prepared responses: each request gets the next one, and the last one repeats.

    An answer is a status and a body; "..." behind a body says that it ends before its end; None is no answer at all, and a
    number the seconds until there is an empty one.
    """

    bodies: list[bytes]
    answers: list[tuple[int, bytes] | float | None]

    def do_POST(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.bodies.append(body)
        self.close_connection = True
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            return
        if isinstance(answer, float):
            time.sleep(answer)
        status, text = (200, b"") if isinstance(answer, float) else answer
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(text) + 9 if text.endswith(b"...") else len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST  # noqa: N815 - the name that http.server gives it

    def chunk(self) -> bytes:
        part = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return part

    def log_message(self, *_: object):
        pass


@pytest.fixture
def peer():
    kind = type("Peer", (Peer,), {"bodies": [], "answers": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kind.url = f"http://127.0.0.1:{server.server_port}"
        yield kind
        server.shutdown()


SPINE = pa.table({"user_id": [1, 2], "at": pa.array([0, 0], pa.timestamp("us", "UTC"))})
SPEND = [FeatureLookup("shop/spend")]
CALLS = {
    "read": lambda it: it.get_features("spend", [{"user_id": 1}]),
    "catalog": lambda it: it.catalog(),
    "push": lambda it: it.push("spend", [{"user_id": 1, "at": NOON}]),
    "training set": lambda it: it.training_set(SPEND, SPINE, "at"),
    "stream": lambda it: it.stream(SPEND, SPINE, "at"),
}


def once(spine: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(spine.schema, iter(spine.to_batches()))


def test_a_spine_that_can_be_read_once_is_sent_again_whole(peer):
    peer.answers = [(503, b""), None, (429, b""), (200, frames.to_stream(SPINE))]
    with Client(peer.url) as client:
        assert client.stream(SPEND, once(SPINE), "at").read_all() == SPINE
    spines = [body[body.index(b"ARROW1" if b"ARROW1" in body else b"octet-stream") :][:-60] for body in peer.bodies]
    assert len(spines) == 4
    assert len({len(one) for one in spines}) == 1
    assert len(spines[0]) > len(frames.to_stream(SPINE)) - 60


@pytest.mark.parametrize("call", CALLS)
def test_a_join_or_push_whose_answer_ends_in_its_middle_is_not_asked_for_again_but_a_read_is(peer, call):
    peer.answers, is_read = [(200, frames.to_stream(SPINE)[:300] + b"...")], call in {"read", "catalog"}
    with (
        Client(peer.url, retries=2) as client,
        pytest.raises(StoreError, match="cannot be reached" if is_read else "ended in the middle of its response"),
    ):
        CALLS[call](client)
    assert len(peer.bodies) == (3 if is_read else 1)


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_ends_before_an_answer_is_tried_again(peer, call):
    peer.answers = [None]
    with Client(peer.url, retries=2) as client, pytest.raises(StoreError, match="cannot be reached"):
        CALLS[call](client)
    assert len(peer.bodies) == 3


@pytest.mark.parametrize("call", CALLS)
def test_a_request_that_is_turned_away_is_sent_again_as_often_as_the_server_says(peer, call):
    peer.answers = [*[(429, b"")] * 9, None, (400, b"")]
    with Client(peer.url, retries=1) as client, pytest.raises(StoreError, match="answered with 400"):
        CALLS[call](client)
    assert len(peer.bodies) == 11
    with Client(peer.url, retries=0) as client, pytest.raises(StoreError, match="answered with 4"):
        CALLS[call](client)
    assert len(peer.bodies) == 12


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", [None, (500, b""), (200, b"{...")])
def test_after_a_push_that_broke_off_the_error_says_what_may_be_stored(peer, call, answer):
    peer.answers = [answer, (429, b"")]
    with Client(peer.url, retries=0) as client, pytest.raises(StoreError) as error:
        CALLS[call](client)
    advice = "The rows may or may not be stored. Push them again: no row is stored twice."
    assert (call == "push") == (advice in str(error.value))


def test_many_threads_that_push_all_get_their_turn(tmp_path):
    store = FeatureStore(tmp_path / "home")
    group = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
    store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], "x": [3]}))
    store.tables.serve([FeatureLookup("spend")], "spend")
    with Server(store.home, "--max-jobs", "1", "--timeout", "1") as server, Client(server.url) as client:
        with ThreadPoolExecutor(32) as threads:
            rows = [{"user_id": user, "at": NOON, "x": user} for user in range(100, 164)]
            assert sum(one.rows for one in threads.map(partial(client.push, "spend"), rows)) == 64
        found = client.get_features("spend", [{"user_id": user} for user in range(100, 164)], "dicts")
    assert [row["x"] for row in found] == list(range(100, 164))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", [b"", b"x" * 10, b"<html>", b"\xff\xff\xff\xff\x10\0\0\0junk", b"[]", b"{}"])
def test_a_response_that_is_not_from_seeknal_is_an_error_that_says_so(peer, call, text):
    peer.answers = [(200, text)]
    with Client(peer.url) as client, pytest.raises(StoreError, match="does not answer as a Seeknal server"):
        CALLS[call](client)
    peer.answers = [(404, text)]
    with Client(peer.url) as client, pytest.raises(StoreError, match="not as a Seeknal server does"):
        CALLS[call](client)


def test_a_forked_process_gets_its_own_answers_and_leaves_the_parent_its_own(client, store):
    store.groups.push(
        "everything", [EVERYTHING.slice(0, 1).to_pylist()[0] | {"user_id": i} for i in range(100, 140)], project="shop"
    )

    def whose(i):
        return client.get_features("shop/all", [{"user_id": i}], "dicts")[0]["user_id"]

    for _ in range(8):
        assert whose(1) == 1
        children = []
        for first in range(100, 140, 10):
            if not (child := os.fork()):
                wrong = 1
                with suppress(BaseException):
                    wrong = [whose(i) for i in range(first, first + 10)] != list(range(first, first + 10))
                os._exit(int(wrong))
            children.append(child)
        assert [whose(i) for i in range(100, 140)] == list(range(100, 140))
        assert {os.waitpid(child, 0)[1] for child in children} == {0}


def answered(rows: list[dict], *keys: str) -> bytes:
    table = pa.Table.from_pylist(rows)
    return frames.to_stream(table.replace_schema_metadata({"seeknal.keys": json.dumps(keys)}) if keys else table)


@pytest.mark.parametrize("form", [list, tuple, pd.DataFrame, pl.DataFrame, pa.Table.from_pylist])
def test_an_answer_for_other_entities_is_an_error(peer, form):
    keys = {"shop": 1, "day": date(2024, 2, 29)}
    asked = form([keys if form in {list, tuple} else keys | {"spend": 0}])  # a frame may have more columns
    right = {"shop": 1, "day": date(2024, 2, 29), "spend": 5}
    with Client(peer.url) as client:
        for rows in ([right | {"day": date(2024, 3, 1)}], [right | {"shop": 2}], [right] * 2, [right | {"shop": None}]):
            peer.answers = [(200, answered(rows, "shop", "day"))]
            with pytest.raises(StoreError, match="answered another request"):
                client.get_features("spend", asked)
        peer.answers = [(200, answered([right], "shop", "day"))]
        assert client.get_features("spend", asked, "dicts") == [right]
        peer.answers = [(200, answered([right]))]  # a server of before, which does not name the keys
        assert client.get_features("spend", asked, "dicts") == [right]


def test_keys_are_compared_as_the_server_reads_them(peer):
    for kind, given, key in (
        (pa.binary(), b"\xff", b"\xff"),
        (pa.string(), "1", "1"),
        (pa.int8(), np.int64(5), 5),
        (pa.date32(), np.datetime64("2024-02-29"), date(2024, 2, 29)),
        (pa.decimal128(5, 2), Decimal("1.5"), Decimal("1.50")),
        (
            pa.timestamp("us", "UTC"),
            datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=1))),
            datetime(2024, 2, 29, tzinfo=UTC),
        ),
        (pa.int64(), None, None),
    ):
        table = pa.table({"k": pa.array([key], kind), "x": [1]})
        peer.answers = [(200, frames.to_stream(table))]
        with Client(peer.url) as client:
            assert client.get_features("t", [{"k": given}], "arrow").equals(table)


def test_an_answer_to_another_push_or_of_another_spine_is_an_error(peer):
    pushed = {
        "group": "shop/sales",
        "version": 1,
        "snapshot": 1,
        "rows": 1,
        "known": 0,
        "erased": 0,
        "first": None,
        "online": 1,
    }
    with Client(peer.url) as client:
        for group in ("spend", "shop/spend", "bank/sales", "ales"):
            peer.answers = [(200, json.dumps(pushed).encode())]
            with pytest.raises(StoreError, match="answered another request: it is of 'shop/sales'"):
                client.push(group, [{"user_id": 1}])
        assert client.push("sales", [{"user_id": 1}]) == client.push("shop/sales", [{"user_id": 1}])
        for other in (SPINE.slice(1), SPINE.take([1, 0])):
            peer.answers = [(200, frames.to_stream(other.append_column("x", pa.array([1] * len(other)))))]
            with pytest.raises(StoreError, match="answered another request"):
                client.training_set(SPEND, SPINE, "at")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the connections of loops that have ended
def test_an_async_client_serves_each_loop_and_a_closed_one_says_so(server, client):
    ask_in_several_loops(server, client.catalog())
    gc.collect()  # here, and not in another test


def ask_in_several_loops(server, expected):
    later = AsyncClient(server.url, server.token)
    assert [asyncio.run(later.catalog()) for _ in range(3)] == [expected] * 3
    asyncio.run(later.close())
    with pytest.raises(DefinitionError, match=r"is closed. Make another: AsyncClient\(url, token\)"):
        asyncio.run(later.catalog())


def test_a_closed_client_says_so(server):
    client = Client(server.url, server.token)
    client.close()
    with pytest.raises(DefinitionError, match=r"is closed. Make another: Client\(url, token\)"):
        client.catalog()


def test_only_reads_of_features_have_to_be_answered_in_time(peer):
    peer.answers = [0.6]
    with Client(peer.url, timeout=0.2) as client:
        for call in ("push", "training set", "stream"):
            with pytest.raises(StoreError, match="does not answer as a Seeknal server"):
                CALLS[call](client)
        assert len(peer.bodies) == 3
        with pytest.raises(StoreError, match=r"did not answer within 0.2 s"):
            CALLS["read"](client)
        wait_for(lambda: len(peer.bodies) == 4)


def test_the_async_client_sends_again_and_waits_as_the_other_does(peer):
    peer.answers = [(503, b""), None, (200, frames.to_stream(SPINE)), 0.6]

    async def run():
        async with AsyncClient(peer.url, timeout=0.2) as client:
            assert (await client.stream(SPEND, once(SPINE), "at")).read_all() == SPINE
            with pytest.raises(StoreError, match=r"did not answer within 0.2 s"):
                await CALLS["read"](client)

    asyncio.run(run())
    wait_for(lambda: len(peer.bodies) == 4)


@pytest.mark.parametrize("token", ["snk_0_secret\n", "tök", "Bearer snk_0_secret", b"snk_0_secret"])
def test_an_invalid_token_is_refused_and_not_shown(token):
    with pytest.raises(DefinitionError) as error:
        Client("http://127.0.0.1:1", token)
    assert "secret" not in str(error.value)


def test_values_that_cannot_be_sent_are_refused_with_the_librarys_errors():
    with Client("http://127.0.0.1:1", retries=0) as client:
        for value in (1j, object(), "\ud800"):
            with pytest.raises(DataError, match="cannot be sent"):
                client.get_features("spend", [{"user_id": value}])
        for name in ("spend?features=x", "spend#x", "../../metrics", "a/b/c", "", "a b"):
            for call in (lambda it, name=name: it.get_features(name, []), lambda it, name=name: it.push(name, [])):
                with pytest.raises(DefinitionError, match="breaks the rule"):
                    call(client)
        with pytest.raises(DefinitionError, match="breaks the rule"):
            client.stream([FeatureLookup("a?b/spend")], SPINE, "at")
    with pytest.raises(DefinitionError, match="is not a URL"):
        Client("http://x:port")


def test_lists_of_names_are_taken_and_refused_alike_wherever_they_are_given(client, store):
    for keys in (KEYS, pa.Table.from_pylist(KEYS)):
        for table in (store.tables.open("all", project="shop"), Remote(client)):
            with pytest.raises(DefinitionError, match="features is an empty list"):
                table.get_features(keys, features=[])
            for odd in (5, [1], [["small"]], [None], "small", b"small"):
                with pytest.raises(DefinitionError, match=r"^features.*Write .*features=\["):
                    table.get_features(keys, features=odd)
            for given in (iter(["small"]), np.array(["small"]), pd.Index(["small"])):
                assert list(table.get_features(keys, "dicts", given)[0]) == ["user_id", "small"]
    spine = pa.table({"user_id": [1], "t": [NOON], "y": [1]})
    for it in (client, store.features):
        for odd in (5, [1], "y", [None]):
            with pytest.raises(DefinitionError, match=r"^keep.*Write .*keep.*=\["):
                it.training_set(LOOKUPS, spine, "t", keep=odd)
        with pytest.raises(DefinitionError, match=r"^date_col=5 is not text"):
            it.training_set(LOOKUPS, spine, 5)
        lookup = FeatureLookup("shop/everything", np.array(["whole"]), rename={np.str_("whole"): np.str_("w")})
        assert it.training_set(lookup, spine, "t", keep=iter(["y"])).column_names == ["user_id", "t", "y", "w"]


def test_a_value_beyond_python_is_an_error_except_as_arrow(client, store):
    group = FeatureGroup("ages", Entity("star", ["star_id"]), Materialization(event_time_col="at"), "shop")
    ages = pa.table({"star_id": [1], "at": [NOON], "age": pa.array([10**14], pa.duration("s"))})
    store.groups.write(group, ages)
    own = store.tables.serve([FeatureLookup("shop/ages")], "ages")
    for ask in (own.get_features, partial(client.get_features, "shop/ages")):
        with pytest.raises(DataError, match=r"beyond what Python has .* output=\"arrow\""):
            ask([{"star_id": 1}], "dicts")
        assert ask([{"star_id": 1}], "arrow")["age"] == ages["age"]


def test_moments_and_durations_of_numpy_and_pandas_are_sent_with_their_nanoseconds(client, store):
    group = FeatureGroup("waits", Entity("queue", ["queue_id"]), Materialization(event_time_col="at"), "shop")
    kinds = {"wait": pa.duration("ns"), "since": pa.timestamp("ns")}
    nothing = {name: pa.array([0], pa.int64()).cast(kind) for name, kind in kinds.items()}
    store.groups.write(group, pa.table({"queue_id": [0], "at": [NOON], **nothing}))
    store.tables.serve([FeatureLookup("shop/waits")], "waits")
    waits = [np.timedelta64(1_500_000_001, "ns"), pd.Timedelta(-1), np.timedelta64(-2, "s"), np.timedelta64("NaT")]
    times = [np.datetime64(1_700_000_000_000_000_001, "ns"), pd.Timestamp(-1), np.datetime64(3, "s"), pd.NaT]
    rows = enumerate(zip(waits, times, strict=True), 1)
    client.push("shop/waits", [{"queue_id": i, "at": NOON, "wait": wait, "since": since} for i, (wait, since) in rows])
    found = client.get_features("shop/waits", [{"queue_id": i} for i in range(1, 5)], "arrow")
    assert found["wait"].cast(pa.int64()).to_pylist() == [1_500_000_001, -1, -2_000_000_000, None]
    assert found["since"].cast(pa.int64()).to_pylist() == [1_700_000_000_000_000_001, -1, 3_000_000_000, None]


def test_the_error_of_a_push_with_a_wrong_key_speaks_of_rows(client):
    row = EVERYTHING.slice(0, 1).to_pylist()[0] | {"user_id": "1"}
    with pytest.raises(DataError, match="user_id is int64, and '1' in row 0 of the rows pushed"):
        client.push("shop/everything", row)


def test_a_relation_whose_order_changes_from_run_to_run_gets_the_features_of_its_own_entities(client):
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE events AS SELECT 2 * (i % 2000) + 1 AS user_id FROM range(100_000) t(i)")
        moment = f"TIMESTAMP '{NOON.year + 1}-01-01'"
        spine = connection.sql(f"SELECT DISTINCT user_id, {moment} AS m FROM events")
        users, later = range(1, 4000, 2), NOON.replace(year=NOON.year + 1)
        plain = client.training_set([LOOKUPS[0]], pa.table({"user_id": users, "m": [later] * len(users)}), "m")
        known = dict(zip(users, plain["whole"].to_pylist(), strict=True))
        assert known[1] is not None
        for output in ("arrow", "duckdb"):
            found = client.training_set([LOOKUPS[0]], spine, "m", output=output)
            table = found if output == "arrow" else found.to_arrow_table()
            whole = dict(zip(table["user_id"].to_pylist(), table["whole"].to_pylist(), strict=True))
            assert whole == known
        assert connection.sql("SELECT count(*) FROM found").fetchall() == [(2000,)]
