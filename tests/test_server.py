"""Responses of a server: online features, pushes, training data, the catalog, metrics and the description."""

import io
import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count

import httpx2
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import PROFILE
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.values import frames
from servers import Server, wait_for

pytestmark = pytest.mark.slow

ARROW, MSGPACK = "application/vnd.apache.arrow.stream", "application/msgpack"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
USER = Entity("user", ["user_id"])
AT = Materialization(event_time_col="at")
EVERYTHING = pa.table(
    {
        "user_id": pa.array([1, 2, 2**60]),
        "at": pa.array([NOON] * 3, pa.timestamp("us", "UTC")),
        "whole": pa.array([2**53 - 1, 2**53, -(2**63)]),
        "unsigned": pa.array([0, 2**64 - 1, None], pa.uint64()),
        "small": pa.array([1, None, -1], pa.int8()),
        "share": pa.array([0.1, math.nan, -math.inf]),
        "half": pa.array([0.5, None, 1.5], pa.float32()),
        "price": pa.array([Decimal("1.50"), Decimal("-0.01"), None], pa.decimal128(20, 2)),
        "tiny": pa.array([Decimal(0), Decimal("1E-9"), None], pa.decimal128(38, 9)),
        "text": pa.array(["", "None", 'quo"te\u2028']),
        "raw": pa.array([b"", b"\x00\xff", None]),
        "yes": pa.array([True, False, None]),
        "day": pa.array([date(2024, 2, 29), date(1, 1, 1), None]),
        "zoned": pa.array([NOON, NOON + timedelta(microseconds=1), None], pa.timestamp("us", "UTC")),
        "naive": pa.array([datetime(2024, 1, 1), datetime(1969, 12, 31, 23), None], pa.timestamp("ms")),
        "fine": pa.array([1_700_000_000_000_000_001, 0, None], pa.int64()).cast(pa.timestamp("ns")),
        "clock": pa.array([time(23, 59, 59, 999999), time(0), None]),
        "span": pa.array([timedelta(days=400, microseconds=3), timedelta(0), None], pa.duration("us")),
        "list": pa.array([[1.0, math.nan], [], None], pa.list_(pa.float64())),
        "struct": pa.array([{"a": 2**60, "b": None}, {"a": 1, "b": b"\x01"}, None], pa.struct({"a": pa.int64(), "b": pa.binary()})),
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A home with a few tables, for all tests here."""
    store = FeatureStore(tmp_path_factory.mktemp("served") / "home")
    store.groups.write(FeatureGroup("everything", USER, AT, "shop"), EVERYTHING)
    store.tables.serve([FeatureLookup("shop/everything")], "all")
    spend = pa.table({"user_id": [1, 2], "at": [NOON, NOON], "spent": [10, None]})
    store.groups.write(FeatureGroup("spend", USER, AT, "shop"), spend)
    store.tables.serve([FeatureLookup("shop/spend"), FeatureLookup("shop/everything", ["whole", "share"])], "both")
    store.tables.serve([FeatureLookup("shop/spend")], "brief", ttl=timedelta(days=1))
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(store):
    with Server(store.home) as server:
        yield server


@pytest.fixture
def http(server):
    with httpx2.Client(base_url=server.url) as client:
        yield client


def ask(http, table, keys, **options):
    answer = http.post(f"/v1/online/shop/{table}", json={"keys": keys, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def test_an_answer_has_one_row_for_each_key_in_order(http):
    asked = [{"user_id": 2}, {"user_id": 9}, {"user_id": 1}, {"user_id": 2}]
    found = ask(http, "both", asked)
    assert [row["user_id"] for row in found] == [2, 9, 1, 2]
    assert [row["spent"] for row in found] == [None, None, 10, None]
    assert list(found[0]) == ["user_id", "spent", "whole", "share"]
    assert ask(http, "both", []) == []


def test_json_has_every_value_in_its_exact_form(http):
    assert ask(http, "all", [{"user_id": 1}, {"user_id": 2}, {"user_id": str(2**60)}]) == [
        {
            "user_id": 1, "whole": 2**53 - 1, "unsigned": 0, "small": 1, "share": 0.1, "half": 0.5, "price": "1.50",
            "tiny": "0.000000000", "text": "", "raw": "", "yes": True, "day": "2024-02-29", "zoned": "2024-01-01T12:00:00.000000Z",
            "naive": "2024-01-01T00:00:00.000", "fine": "2023-11-14T22:13:20.000000001", "clock": "23:59:59.999999",
            "span": 400 * 86_400_000_000 + 3, "list": [1.0, "NaN"], "struct": {"a": str(2**60), "b": None},
        },
        {
            "user_id": 2, "whole": str(2**53), "unsigned": str(2**64 - 1), "small": None, "share": "NaN", "half": None,
            "price": "-0.01", "tiny": "0.000000001", "text": "None", "raw": "AP8=", "yes": False, "day": "0001-01-01",
            "zoned": "2024-01-01T12:00:00.000001Z", "naive": "1969-12-31T23:00:00.000",
            "fine": "1970-01-01T00:00:00.000000000", "clock": "00:00:00.000000", "span": 0, "list": [],
            "struct": {"a": 1, "b": "AQ=="},
        },
        {
            "user_id": str(2**60), "whole": str(-(2**63)), "unsigned": None, "small": -1, "share": "-Infinity",
            "half": 1.5, "price": None, "tiny": None, "text": 'quo"te\u2028', "raw": None, "yes": None, "day": None, "zoned": None,
            "naive": None, "fine": None, "clock": None, "span": None, "list": None, "struct": None,
        },
    ]  # fmt: skip


def test_messagepack_has_numbers_and_bytes_as_they_are(http):
    body = msgspec.msgpack.encode({"keys": [{"user_id": 2}, {"user_id": 2**60}]})
    answer = http.post("/v1/online/shop/all", content=body, headers={"content-type": MSGPACK, "accept": MSGPACK})
    assert answer.headers["content-type"] == MSGPACK
    first, second = msgspec.msgpack.decode(answer.content)["rows"]
    assert (first["whole"], first["raw"], first["zoned"]) == (2**53, b"\x00\xff", "2024-01-01T12:00:00.000001Z")
    assert math.isnan(first["share"])
    assert (second["user_id"], second["share"]) == (2**60, -math.inf)


def test_arrow_has_the_same_table_that_the_library_gives(http, store):
    keys = [{"user_id": 1}, {"user_id": 2**60}, {"user_id": 5}]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema({"user_id": pa.int64()})) as writer:
        writer.write_table(pa.Table.from_pylist(keys, pa.schema({"user_id": pa.int64()})))
    for content, kind in (
        (sink.getvalue(), ARROW),
        (json.dumps({"keys": keys, "with_status": True}).encode(), "application/json"),
    ):
        query = {"with_status": "true"} if kind == ARROW else {}
        answer = http.post(
            "/v1/online/shop/all", content=content, params=query, headers={"content-type": kind, "accept": ARROW}
        )
        found = pa.ipc.open_stream(answer.content).read_all()
        own = store.tables.open("all", project="shop").get_features(keys, "arrow", with_status=True)
        assert found.schema.equals(own.schema)
        assert repr(found.to_pylist()) == repr(own.to_pylist())  # NaN is not equal to itself


def test_one_entity_can_be_asked_for_in_the_query(http):
    answer = http.get(
        "/v1/online/shop/both", params={"user_id": "1", "features": ["share", "spent"], "with_status": "true"}
    )
    assert answer.json()["rows"] == [
        {
            "user_id": 1, "share": 0.1, "spent": 10, "spend_status": "found", "everything_status": "found",
            "spend_event_time": "2024-01-01T12:00:00.000000Z", "everything_event_time": "2024-01-01T12:00:00.000000Z",
        }
    ]  # fmt: skip
    assert http.head("/v1/online/shop/both", params={"user_id": "1"}).status_code == 200


def test_status_and_features_can_be_asked_for(http):
    found = ask(http, "brief", [{"user_id": 1}, {"user_id": 7}], with_status=True)
    assert [row["spend_status"] for row in found] == ["expired", "not_found"]
    assert [row["spent"] for row in found] == [None, None]
    assert ask(http, "both", [{"user_id": 1}], features=["share"]) == [{"user_id": 1, "share": 0.1}]


@pytest.mark.parametrize(
    ("status", "said", "path", "body"),
    [
        (404, "No online table named 'al' in project 'shop'. Did you mean 'all'?", "/v1/online/shop/al", {"keys": []}),
        (404, "No online table named 'all' in project 'other'", "/v1/online/other/all", {"keys": []}),
        (400, "breaks the rule", "/v1/online/shop/a%20b", {"keys": []}),
        (404, "There is nothing at", "/v1/online", {"keys": []}),
        (404, "No online table named 'al' in any project. Did you mean 'all'?", "/v1/online/al", {"keys": []}),
        (404, "No feature group named 'spen' in any project", "/v1/push/spen", {"rows": []}),
        (400, "user_id is int64", "/v1/online/shop/all", {"keys": [{"user_id": "1"}]}),
        (400, "user_id is int64", "/v1/online/shop/all", {"keys": [{"user_id": 1.5}]}),
        (400, "user_id is int64", "/v1/online/shop/all", {"keys": [{"user_id": True}]}),
        (400, "'user' is not a join key", "/v1/online/shop/all", {"keys": [{"user": 1}]}),
        (400, "no feature 'shar'. Did you mean 'share'?", "/v1/online/shop/all", {"keys": [], "features": ["shar"]}),
        (400, "Object contains unknown field `feature`", "/v1/online/shop/all", {"keys": [], "feature": []}),
        (400, "Expected `array`, got `object`", "/v1/online/shop/all", {"keys": {"user_id": 1}}),
        (413, "over the limit of 1,000", "/v1/online/shop/all", {"keys": [{"user_id": 1}] * 1001}),
        (404, "No feature group named 'spen'", "/v1/push/shop/spen", {"rows": []}),
        (400, "lacks 'spent'", "/v1/push/shop/spend", {"rows": [{"user_id": 1, "at": "2024-01-01"}]}),
    ],
)  # fmt: skip
def test_invalid_values_get_the_librarys_errors(http, status, said, path, body):
    answer = http.post(path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert said in problem["detail"]
    assert problem["status"] == status


def test_all_keys_that_are_missing_are_named(http, store):
    group = FeatureGroup("visits", Entity("visit", ["shop_id", "user_id", "till"]), AT, "shop")
    store.groups.write(group, pa.table({"shop_id": [1], "user_id": [2], "till": [3], "at": [NOON], "n": [1]}))
    store.tables.serve([FeatureLookup("shop/visits")], "visits")
    asked = http.post("/v1/online/shop/visits", json={"keys": [{"till": 3}]}), http.get("/v1/online/visits?till=3")
    for answer in asked:
        assert answer.status_code == 400
        assert "are shop_id, user_id and till; 'shop_id' and 'user_id' are missing." in answer.json()["detail"]


def test_columns_beside_the_keys_are_passed_over_in_a_table_of_keys(http):
    kinds = pa.array(["a", "b"]).dictionary_encode()
    keys = pa.table({"kind": kinds, "user_id": [2**60, 1], "note": pa.nulls(2), "box": [{"x": 1}, None]})
    answer = http.post("/v1/online/all?features=small", content=stream_of(keys), headers={"content-type": ARROW})
    assert answer.json() == {"rows": [{"user_id": str(2**60), "small": -1}, {"user_id": 1, "small": 1}]}
    misspelt = stream_of(keys.rename_columns(["user", "userid", "note", "box"]).select(["userid", "note"]))
    answer = http.post("/v1/online/all", content=misspelt, headers={"content-type": ARROW})
    assert "the frame has no column 'user_id'. Did you mean 'userid'?" in answer.json()["detail"]


def test_unsupported_methods_and_formats_are_refused_by_name(http):
    assert http.put("/v1/online/shop/all").status_code == 405
    assert http.put("/v1/online/shop/all").headers["allow"] == "POST, GET, HEAD"
    as_form = http.post("/v1/online/shop/all", data={"keys": "1"})
    assert as_form.status_code == 415
    assert "curl -H 'Content-Type: application/json'" in as_form.json()["detail"]
    assert http.post("/v1/online/shop/all", json={"keys": []}, headers={"accept": "text/html"}).status_code == 406


def test_a_push_is_stored_and_online_at_once(http, store):
    store.groups.write(
        FeatureGroup("seen", USER, AT, "shop"), pa.table({"user_id": [1], "at": [NOON], "price": [Decimal("1.00")]})
    )
    store.tables.serve([FeatureLookup("shop/seen")], "seen")
    row = {"user_id": 5, "at": "2024-01-02T00:00:00Z", "price": "2.50"}
    told = http.post("/v1/push/shop/seen", json={"rows": [row]}).json()
    assert (told["rows"], told["known"], told["first"]) == (1, 0, "2024-01-02T00:00:00.000000Z")
    assert http.post("/v1/push/shop/seen", json={"rows": [row]}).json()["known"] == 1
    assert ask(http, "seen", [{"user_id": 5}]) == [{"user_id": 5, "price": "2.50"}]
    assert store.tables.verify("seen", project="shop").equal


TOLD = {
    "clock_us": (pa.time64("us"), ["12:00:00+07:00", "12:00:00.1234567", "T12", "1200", 5], "12:00:00.5"),
    "clock_s": (pa.time32("s"), ["12:00:00.5", "24:00:00"], "12:00"),
    "span_s": (pa.duration("s"), ["PT1.5S", "PT", "P1DT", "P1Y", True, 1.0, 2**63], "-P1DT1M0.0S"),
    "span_ns": (pa.duration("ns"), ["PT0.0000000001S", "1", "P1000000D"], "PT0.000000001S"),
    "whole": (pa.int8(), [1.5, True, "1", 128], 1.0),
    "wide": (pa.uint64(), [2**64, -1], 2**64 - 1),
    "half": (pa.float16(), [70000.0, "nan", True, 2049], 0.1),
    "list": (pa.list_(pa.int64()), [[1.5], ["1"], "x", {}], [1, None]),
    "day": (pa.date32(), ["2024-06-01T13:00:00", "12000-01-01", 5], "2024-06-01"),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_pushed_value_that_would_be_changed_is_refused(http, store, name):
    kind, refused, taken = TOLD[name]
    store.groups.write(
        FeatureGroup(name, USER, AT, "told"), pa.table({"user_id": [1], "at": [NOON], "x": pa.array([None], kind)})
    )
    for value in [*refused, taken]:
        row = {"user_id": 2, "at": "2024-01-02T00:00:00Z", "x": value}
        answer = http.post(f"/v1/push/told/{name}", json={"rows": [row]})
        assert answer.status_code == (200 if value is taken else 400), (value, answer.text)
        if value is not taken:
            assert answer.json()["title"] == "DataError"
            assert "x" in answer.json()["detail"]
    if name == "wide":
        detail = http.post("/v1/push/told/wide", json={"rows": [row | {"x": 2**64}]}).json()["detail"]
        assert "18446744073709551616 in row 0 does not fit: it is out of range" in detail


def historical(http, spine: bytes, **query):
    query = {"lookups": [{"group": "spend"}], "date_col": "t", **query}
    files = {"query": (None, json.dumps(query), "application/json"), "spine": ("spine", spine)}
    return http.post("/v1/historical/shop", files=files)


def stream_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize("form", [stream_of, parquet_of])
def test_a_training_set_comes_back_as_the_library_gives_it(http, store, form):
    times = [NOON - timedelta(hours=1), NOON, NOON + timedelta(hours=1)] * 50
    spine = pa.table({"user_id": [1, 2, 3] * 50, "t": times, "y": list(range(150))})
    answer = historical(http, form(spine))
    assert answer.status_code == 200, answer.text
    found = pa.ipc.open_stream(answer.content).read_all()
    assert found.equals(store.features.training_set([FeatureLookup("shop/spend")], spine, "t"))


@pytest.mark.parametrize(
    ("status", "said", "spine", "query"),
    [
        (404, "No feature group named 'spent'", {"user_id": [1], "t": [NOON]}, {"lookups": [{"group": "spent"}]}),
        (400, "'other/spend' is in project 'other', not in 'shop'", {"user_id": [1], "t": [NOON]}, {"lookups": [{"group": "other/spend"}]}),
        (400, "no column 'user_id'", {"user": [1], "t": [NOON]}, {}),
        (400, "no column 'when'", {"user_id": [1], "t": [NOON]}, {"date_col": "when"}),
        (400, "user_id", {"user_id": ["1"], "t": [NOON]}, {}),
        (400, "'soon'", {"user_id": [1], "t": ["soon"]}, {}),
        (400, "lookups", {"user_id": [1], "t": [NOON]}, {"lookups": []}),
        (400, "as_of", {"user_id": [1], "t": [NOON]}, {"as_of": "2999-01-01"}),
        (400, "unknown field", {"user_id": [1], "t": [NOON]}, {"path": "/etc/passwd"}),
    ],
)  # fmt: skip
def test_a_question_that_does_not_fit_is_refused_before_the_answer_begins(http, store, status, said, spine, query):
    answer = historical(http, stream_of(pa.table(spine)), **query)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_an_invalid_spine_is_refused(http, store):
    for junk in (b"", b"x", b"PAR1", b"\xff\xff\xff\xff\x10\x00\x00\x00junk", b"PAR1" + bytes(100)):
        answer = historical(http, junk)
        assert answer.status_code == 400, answer.text
        assert "spine" in answer.json()["detail"]
    assert not list((store.home / "scratch").glob("spine-*"))


def test_the_catalog_lists_groups_versions_and_tables(http):
    project = {one["name"]: one for one in http.get("/v1/catalog").json()["projects"]}["shop"]
    groups = {group["name"]: group for group in project["feature_groups"]}
    assert groups["spend"]["versions"][0]["features"] == [{"name": "spent", "type": "int64"}]
    tables = {table["name"]: table for table in project["online_tables"]}
    assert tables["both"]["keys"] == [{"name": "user_id", "type": "int64"}]
    assert [one["name"] for one in tables["both"]["features"]] == ["spent", "whole", "share"]


def test_the_metrics_count_each_table(http):
    before = metrics(http)
    ask(http, "brief", [{"user_id": 1}, {"user_id": 7}])
    after = metrics(http)
    table = '{project="shop",table="brief"}'
    for name, more in (("seconds_count", 1), ("keys_total", 2), ("not_found_total", 1), ("expired_total", 1)):
        key = f"seeknal_online_{name}{table}"
        assert after[key] - before.get(key, 0) == more
    assert after[f"seeknal_online_data_age_seconds{table}"] > 3e7
    assert after[f"seeknal_online_behind{table}"] == 0


def metrics(http) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_the_description_names_every_route_and_is_a_page_too(http):
    told = http.get("/openapi.json").json()
    assert told["openapi"] == "3.1.0"
    page = http.get("/").text  # it names nothing of the home, so no view
    for path in told["paths"]:
        assert path in page or path.startswith("/v1/views/shop/")


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_a_table_served_anew_is_answered_anew_without_a_request_that_fails(http, store):
    group = FeatureGroup("changing", USER, AT, "shop")
    store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], "a": [1]}))
    store.tables.serve([FeatureLookup("shop/changing")], "changing")
    assert ask(http, "changing", [{"user_id": 1}]) == [{"user_id": 1, "a": 1}]
    store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], "a": [1], "b": [2]}))
    store.tables.serve([FeatureLookup("shop/changing")], "changing")
    wait_for(lambda: ask(http, "changing", [{"user_id": 1}]) == [{"user_id": 1, "a": 1, "b": 2}])
    store.tables.delete("changing", project="shop")
    store.groups.delete("changing", project="shop")
    store.groups.write(group, pa.table({"user_id": [1], "at": [NOON], "c": [3]}))
    store.tables.serve([FeatureLookup("shop/changing")], "changing")
    assert ask(http, "changing", [{"user_id": 1}]) == [{"user_id": 1, "c": 3}]


def wholes(bits: int, *, signed: bool = True):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([low, high, 0, 1]), st.integers(low, high))


YEARS = (-719_162, 2_932_896)  # days from 0001-01-01 to 9999-12-31
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
UNITS = st.sampled_from(list(PER_DAY))


def counted(kind: pa.DataType, numbers) -> tuple[pa.DataType, st.SearchStrategy]:
    """Values of a type that counts something, as scalars, since Python's values end sooner."""
    inner = pa.int32() if kind.bit_width == 32 else pa.int64()
    return kind, numbers.map(lambda number: pa.scalar(number, inner).cast(kind))


def moments(kind: pa.DataType):
    first, last = ((day * PER_DAY[kind.unit]) for day in YEARS)
    earliest = -(2**63) + 10**9  # Arrow does not read the first second of 1677 that nanoseconds reach
    return counted(kind, st.integers(max(first, earliest), min(last, 2**63 - 1)))


def of_width(width: int):
    kind = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[width]
    one_nan = st.floats(width=width).map(lambda value: math.nan if math.isnan(value) else value)
    return kind, one_nan.map(lambda value: pa.scalar(value, pa.float64()).cast(kind))


def decimals(scale: int):
    return pa.decimal128(20, scale), st.decimals(-(10**9), 10**9, places=scale)


SIMPLE = st.one_of(
    st.sampled_from([8, 16, 32, 64]).flatmap(lambda bits: st.sampled_from([
        (getattr(pa, f"int{bits}")(), wholes(bits)), (getattr(pa, f"uint{bits}")(), wholes(bits, signed=False)),
    ])),
    st.sampled_from([16, 32, 64]).map(of_width),
    st.integers(0, 9).map(decimals),
    st.sampled_from([(pa.string(), st.text()), (pa.binary(), st.binary()), (pa.bool_(), st.booleans())]),
    st.integers(1, 4).map(lambda size: (pa.binary(size), st.binary(min_size=size, max_size=size))),
    st.just(counted(pa.date32(), st.integers(*YEARS))),
    UNITS.map(lambda unit: counted(pa.duration(unit), wholes(64))),
    st.tuples(UNITS, st.sampled_from([None, "UTC", "Asia/Jakarta"])).map(lambda pair: moments(pa.timestamp(*pair))),
    UNITS.map(lambda unit: counted((pa.time32 if unit in {"s", "ms"} else pa.time64)(unit), st.integers(0, PER_DAY[unit] - 1))),
)  # fmt: skip


FIXED = SIMPLE.filter(lambda one: one[0] not in {pa.string(), pa.binary()})
"""What lists of one length are made of here: of nulls among those of texts Arrow's cast reads what is not there (26.0.1)."""


def nested(inner):
    kinds = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lambda one: (pa.list_(one[0]), st.lists(st.none() | one[1], max_size=3))),
        FIXED.map(lambda one: (pa.list_(one[0], 2), st.lists(st.none() | one[1], min_size=2, max_size=2))),
        kinds.map(lambda some: (
            pa.struct([(f"f{i}", kind) for i, (kind, _) in enumerate(some)]),
            st.fixed_dictionaries({f"f{i}": st.none() | values for i, (_, values) in enumerate(some)}),
        )),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pushed_back(tmp_path_factory):
    """A home in which each example has a group of its own."""
    store = FeatureStore(tmp_path_factory.mktemp("pushed-back") / "home")
    store.groups.write(FeatureGroup("first", USER, AT), pa.table({"user_id": [1], "at": [NOON], "x": [1]}))
    with Server(store.home) as server, httpx2.Client(base_url=server.url) as http:
        yield store, http, count()
    store.close()


@PROFILE
@given(data=st.data())
def test_what_the_server_gives_can_be_pushed_back_and_is_the_same(pushed_back, data):
    store, http, numbers = pushed_back
    drawn = data.draw(st.lists(st.recursive(SIMPLE, nested, max_leaves=3), min_size=8, max_size=8))
    columns = {
        f"x{i}": pa.array(data.draw(st.lists(st.none() | values, min_size=2, max_size=2)), kind)
        for i, (kind, values) in enumerate(drawn)
    }
    name = f"g{next(numbers)}"
    store.groups.write(FeatureGroup(name, USER, AT), pa.table({"user_id": [1, 2], "at": [NOON, NOON], **columns}))
    own = store.tables.serve([FeatureLookup(name)], name)
    for user, (kind, codec) in enumerate((("application/json", msgspec.json), (MSGPACK, msgspec.msgpack)), 1):
        body = codec.encode({"keys": [{"user_id": user}]})
        path, headers = f"/v1/online/default/{name}", {"content-type": kind, "accept": kind}
        (given_row,) = codec.decode(http.post(path, content=body, headers=headers).content)["rows"]
        again = codec.encode({"rows": [given_row | {"user_id": user + 10, "at": "2024-01-01T12:00:00Z"}]})
        told = http.post(f"/v1/push/default/{name}", content=again, headers={"content-type": kind})
        assert told.status_code == 200, told.text
        first, second = (own.get_features([{"user_id": one}], "arrow").drop(["user_id"]) for one in (user, user + 10))
        assert frames.to_stream(first) == frames.to_stream(second)
