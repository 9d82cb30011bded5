"""Responses of a server to attacks: each is refused by name, and other clients are not affected."""

import gzip
import io
import json
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from urllib.parse import quote

import httpx2
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from contract.profiles import IS_LONG
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from servers import Server, wait_for

JSON, MSGPACK, ARROW = "application/json", "application/msgpack", "application/vnd.apache.arrow.stream"
TYPED = "application/vnd.seeknal.msgpack"
pytestmark = pytest.mark.slow
FORM = "multipart/form-data; boundary=x"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
AT = Materialization(event_time_col="at")
ONLINE, PUSH, HISTORICAL = "/v1/online/shop/people", "/v1/push/shop/people", "/v1/historical/shop"
SECRETS = ("vault", "treasury", "heirloom", "holder", "sesame", "tweet-98")
"""Texts that occur only in the other project, and in a file beside the home."""
KNOWN = [{"customer": "ann", "score": 0.5, "tags": ["a"], "raw": "eA=="}]
INJECTED = [
    *("'; DROP TABLE groups; --", '"; DROP TABLE groups; --', "' OR '1'='1", "x' UNION SELECT * FROM tokens --"),
    *("(SELECT content FROM read_text('../canary.txt'))", "read_csv('../canary.txt')", "$(touch pwned)", "`touch pwned`"),
    *("../../etc/passwd", "..", ".", "%2e%2e%2f", "..\\..\\canary.txt", "/etc/passwd", "file:///etc/passwd", "C:\\x"),
    *("*", "?", "[a-z]", "%", "%s%n", "{0.__class__}", "${jndi:ldap://x}", "\u0441ustomer", "ann\u200b", "\uff0e\uff0e\uff0f"),
    *("a\x00b", "\x00", "\r\nSet-Cookie: a=b", "\n", " ", "", "a" * 129, "A" * 20_000, "\u202e", "\U0001f600", "i\u0307"),
]  # fmt: skip


def entities(*projects: str, home: Path) -> FeatureStore:
    store = FeatureStore(home)
    for project in projects:
        key, feature, group, table = (
            ("holder", "heirloom", "vault", "treasury")
            if project == "bank"
            else ("customer", "score", "people", "people")
        )
        definition = FeatureGroup(group, Entity("person", [key]), AT, project)
        rows = {
            key: ["ann", "sesame-open"],
            "at": [NOON] * 2,
            feature: [0.5, None],
            "tags": [["a"], []],
            "raw": [b"x", b""],
        }
        store.groups.write(definition, pa.table(rows if project == "bank" else {**rows, key: ["ann", "bob"]}))
        store.tables.serve([FeatureLookup(f"{project}/{group}")], table)
    return store


@dataclass
class Target:
    """A server under attack, and what must be so after each."""

    server: Server
    client: httpx2.Client
    token: str | None
    beside: set[Path]

    def send(self, *parts: bytes, seconds: float = 5) -> list[tuple[int, bytes]]:
        """Send bytes as they are, and give the answers, each with its body."""
        host, port = self.server.url.removeprefix("http://").split(":")
        got = b""
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(0.2 if len(parts) > 1 else 0)
            except OSError:
                pass
            try:
                while part := connection.recv(2**16):
                    got += part
            except OSError:
                pass
        found = [(int(one[9:12]), one) for one in re.split(rb"(?=HTTP/1\.1 \d\d\d )", got) if one]
        for status, text in found:
            self.check(status, text)
        return [one for one in found if one[0] >= 200]

    def ask(self, method: str, path: str, content: bytes = b"", kind: str = JSON, **headers: str) -> httpx2.Response:
        """Send a request, and give an answer that is no fault of the server, and tells nothing."""
        if self.token:
            headers.setdefault("authorization", f"Bearer {self.token}")
        headers = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self.client.request(method, self.server.url + path, content=content, headers=headers)
        self.check(answer.status_code, answer.content)
        if answer.status_code >= 400 and method != "HEAD":
            assert set(answer.json()) == {"type", "title", "status", "detail"}
        return answer

    def refused(self, path: str, content: bytes, kind: str = JSON, **headers: str) -> int:
        """Send what has to be refused; give the length of the answer."""
        answer = self.ask("POST", path, content, kind, **headers)
        assert 400 <= answer.status_code < 500, answer.text[:500]
        return len(answer.content)

    def check(self, status: int, text: bytes) -> None:
        assert status < 500, text[:500]
        assert b"Traceback" not in text
        if self.token:
            assert not [one for one in SECRETS if one.encode() in text], text[:500]


def target(folder: Path, *projects: str, token: bool) -> Iterator[Target]:
    (folder / "cwd").mkdir()
    (folder / "canary.txt").write_text("tweet-98")
    store = entities(*projects, home=folder / "home")
    text = store.tokens.create("web", "shop", ["read", "push", "admin"]) if token else None
    served = Server(store.home, "--timeout", "3", env={"TMPDIR": str(folder / "cwd")})
    with chdir(folder / "cwd"), served as server, httpx2.Client(timeout=30, trust_env=False) as client:
        yield Target(server, client, text, around(folder))
    store.close()


def around(folder: Path) -> set[Path]:
    """Return the files beside the home, and at its top level, without those that requests are expected to make."""
    inside = folder / "home"
    found = {one for one in folder.rglob("*") if not one.is_relative_to(inside) or one.parent == inside}
    return {one for one in found if one.name != "scratch" and not one.name.startswith("pushes.")}


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[Target]:
    yield from target(tmp_path_factory.mktemp("opened"), "shop", token=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Iterator[Target]:
    yield from target(tmp_path_factory.mktemp("kept"), "shop", "bank", token=True)


@pytest.fixture
def attacked(kept) -> Iterator[Target]:
    """The server with tokens; after each attack it answers as before, and nothing is left of the attack."""
    before = len(kept.server.errors.read_text())
    yield kept
    assert kept.server.process.poll() is None
    told = kept.server.errors.read_text()[before:]
    assert "Traceback" not in told
    answer = kept.ask("POST", ONLINE, b'{"keys":[{"customer":"ann"}]}')
    assert answer.json() == {"rows": KNOWN}
    assert around(kept.server.home.parent) == kept.beside
    assert {one.name for one in (kept.server.home / "scratch").rglob("*") if one.is_file()} <= {"_making.lock"}


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """Return the body of a multipart form; each part is given with the text after its name."""
    heads = (f"--x\r\ncontent-disposition: form-data; name={name}\r\n\r\n".encode() + body for name, body in parts)
    return b"\r\n".join([*heads, end])


def query(**more: object) -> tuple[str, bytes]:
    return '"query"', json.dumps({"lookups": [{"group": "people"}], "date_col": "t", **more}).encode()


def spine(**more: list) -> pa.Table:
    return pa.table({"customer": ["ann", "bob", None], "t": [NOON] * 3, **more})


def stream_of(table: pa.Table | pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write(table)
    return sink.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


SPINE = '"spine"; filename="s"', stream_of(spine())
KEYS = pa.table({"customer": ["ann", "bob", None]})
ROWS = pa.table({"customer": ["ann"], "at": [NOON], "score": [0.5], "tags": [["a"]], "raw": [b"x"]})


# What fits the description, and what does not

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.none(), max_size=2),
)
KEY_ROWS = st.lists(
    st.dictionaries(st.sampled_from(["customer", "at", "score", "tags", "raw", "x"]), VALUES), max_size=3
)
LOOKUPS = st.lists(st.fixed_dictionaries({"group": st.sampled_from(["people", "people", "vault"])}), max_size=2)
SPINES = st.sampled_from([stream_of(spine()), parquet_of(spine()), stream_of(spine(x=[[]] * 3)), b"", b"PAR1"])
MOSTLY = st.sampled_from([True] * 5 + [False])
CONFORM = [
    *(checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance),
    checks.response_schema_conformance,
]


@schemathesis.serializer(MSGPACK)
def as_messagepack(_context, value):
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, TypeError, UnicodeEncodeError):  # a number that it has no place for, say
        return repr(value).encode(errors="replace")


@schemathesis.serializer(ARROW)
def as_arrow(_context, value):
    rows = (
        value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else [{"customer": str(value)}]
    )
    try:
        return stream_of(pa.Table.from_pylist(rows))
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
        return b"\xff\xff\xff\xff" + repr(value).encode(errors="replace")


def closer(case, draw) -> None:
    """Put real names and shapes into most of the requests, so that they get behind what is refused first."""
    if case.path_parameters and draw(MOSTLY):
        case.path_parameters |= {name: "shop" if name == "project" else "people" for name in case.path_parameters}
    if case.query is not None and draw(st.booleans()):
        case.query["customer"] = draw(st.sampled_from(["ann", "bob", "\x00", "é"]))
    if not isinstance(case.body, dict) or not draw(MOSTLY):
        return
    for name, real in (("keys", KEY_ROWS), ("rows", KEY_ROWS)):
        if name in case.body:
            case.body[name] = draw(real)
    if "query" in case.body and isinstance(case.body["query"], dict):
        real = {"lookups": draw(LOOKUPS), "date_col": draw(st.sampled_from(["t", "t", "customer", "x"]))}
        kept = {name: value for name, value in case.body["query"].items() if draw(st.booleans())}
        case.body = {"query": kept | real, "spine": draw(SPINES)}


def fuzz(target: Target, operation, mode: GenerationMode, examples: int) -> int:
    """Send many variants of the request for one operation; return their number."""
    count = 0
    headers = {"authorization": f"Bearer {target.token}"} if target.token else {}
    session = requests.Session()

    @settings(
        max_examples=examples, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def once(case, data) -> None:
        nonlocal count
        closer(case, data.draw)
        answer = case.call(headers=headers, session=session)
        assert answer.status_code < 500, (case.as_curl_command(), answer.content[:500])
        assert b"Traceback" not in answer.content
        case.validate_response(answer, checks=CONFORM)
        count += 1

    once()
    return count


def fuzz_all(target: Target, examples: int) -> dict[str, int]:
    before = len(target.server.errors.read_text())
    described = schemathesis.openapi.from_url(target.server.url + "/openapi.json")
    done = {}
    for found in described.get_all_operations():
        operation = found.ok()
        modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if "{" in operation.path else [])]
        done[operation.label] = sum(fuzz(target, operation, mode, examples) for mode in modes)
    assert "Traceback" not in target.server.errors.read_text()[before:]
    return done


@pytest.mark.filterwarnings("ignore")  # of what makes the requests
@pytest.mark.parametrize("setting", ["opened", "kept"])
def test_every_request_gets_a_response_as_described(request, setting):
    done = fuzz_all(request.getfixturevalue(setting), 150 if IS_LONG else 40)
    assert len(done) >= 8
    assert all(done.values())


# Bodies

DEEP = 100_000
BAD_JSON = {
    "nothing": b"", "null": b"null", "a list": b"[]", "twice": b'{"keys":[],"rows":[]}{"keys":[],"rows":[]}',
    "deep": b"[" * DEEP, "deep objects": b'{"a":' * DEEP, "deep field": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep value": b'{"keys":[{"customer":' + b"[" * DEEP + b"]" * DEEP + b"}]}",
    "deep row": b'{"rows":[{"customer":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}]}",
    "too far": b'{"keys":[{"customer":1e400}]}', "long number": b'{"keys":[{"customer":1' + b"0" * 5000 + b"}]}",
    "long row": b'{"rows":[{"customer":"a","score":1' + b"0" * 5000 + b"}]}",
    "far row": b'{"rows":[{"customer":"a","at":"2024-01-01","score":1e400,"tags":[],"raw":""}]}',
    "far moment": b'{"rows":[{"customer":"a","at":1e300,"score":1,"tags":[],"raw":""}]}',
    "long moment": b'{"rows":[{"customer":"a","at":"' + b"9" * 5000 + b'-01-01","score":1,"tags":[],"raw":""}]}',
    "year": b'{"rows":[{"customer":"a","at":"9999-12-31T23:59:59-23:59","score":1,"tags":[],"raw":""}]}',
    "nan": b'{"keys":[{"customer":NaN}]}', "not utf-8": b'{"keys":[{"customer":"\xff"}]}',
    "overlong": b'{"keys":[{"customer":"\xc0\xaf"}]}', "surrogate": b'{"keys":[{"customer":"\\ud800"}]}',
    "surrogate bytes": b'{"keys":[{"customer":"\xed\xa0\x80"}]}', "surrogate name": b'{"keys":[{"\\udfff":"a"}]}',
    "surrogate feature": b'{"keys":[],"features":["\\ud800"]}', "nul name": b'{"keys":[{"a\\u0000b":"a"}]}',
    "nul": b'\x00{"keys":[]}', "mark": b'\xef\xbb\xbf{"keys":[]}', "comment": b'{"keys":[]/**/}',
    "utf-16": '{"keys":[],"rows":[]}'.encode("utf-16"), "utf-32": '{"keys":[]}'.encode("utf-32"),
    "gzip": gzip.compress(b'{"keys":[]}'), "huge": b'{"keys":["' + b"a" * 9 * 2**20 + b'"]}',
    "many": b'{"keys":[' + b"{}," * 500_000 + b'{}],"rows":[' + b"{}," * 500_000 + b"{}]}",
    "a long value": b'{"keys":[{"customer":["' + b"a" * 7 * 2**20 + b'"]}]}',
    "a long row": b'{"rows":[{"customer":["' + b"a" * 7 * 2**20 + b'"]}]}',
    "a long name": b'{"keys":[{"' + b"a" * 7 * 2**20 + b'":1}],"rows":[{"' + b"a" * 2**20 + b'":1}]}',
    "a long field": b'{"' + b"a" * 7 * 2**20 + b'":1}', "a long feature": b'{"keys":[],"features":["' + b"a" * 7 * 2**20 + b'"]}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
def test_invalid_json_is_refused_and_not_repeated(attacked, name):
    said = [attacked.refused(path, BAD_JSON[name]) for path in (ONLINE, PUSH)]
    said.append(attacked.refused(HISTORICAL, form(('"query"', BAD_JSON[name]), SPINE), FORM))
    assert max(said) < 3000


def test_json_that_means_something_unusual_is_answered_as_it_reads(attacked):
    assert attacked.ask("POST", ONLINE, b'{"keys":[{"customer":"ann"}],"keys":[]}').json() == {"rows": []}
    found = attacked.ask("POST", ONLINE, b'{"keys":[{"customer":"bob","customer":"a\\u0000b"}]}').json()["rows"]
    assert found == [{"customer": "a\0b", "score": None, "tags": None, "raw": None}]


BAD_MSGPACK = {
    "nothing": b"", "nil": b"\xc0", "never used": b"\xc1", "deep": b"\x91" * DEEP, "deep maps": b"\x81\xa1a" * DEEP,
    "deep value": b"\x81\xa4keys\x91\x81\xa8customer" + b"\x91" * DEEP + b"\xc0",
    "a list of 4 billion": b"\x81\xa4keys\xdd\xff\xff\xff\xff", "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "text of 4 GB": b"\x81\xdb\xff\xff\xff\xffa", "bytes of 4 GB": b"\x81\xa4keys\x91\x81\xa8customer\xc6\xff\xff\xff\xff",
    "extension": b"\x81\xa4keys\x91\x81\xa8customer\xc7\x01\x05a", "moment": b"\x81\xa4keys\x91\x81\xa8customer\xd6\xff\x00\x00\x00\x00",
    "number as name": b"\x81\xa4keys\x91\x81\x01\x01", "not utf-8": b"\x81\xa4keys\x91\x81\xa8customer\xa1\xff",
    "map as name": b"\x81\xa4keys\x91\x81\x80\x01", "surrogate": b"\x81\xa4keys\x91\x81\xa8customer\xa3\xed\xa0\x80",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MSGPACK)
def test_invalid_messagepack_is_refused(attacked, name):
    for path, kind in product((ONLINE, PUSH), (MSGPACK, TYPED)):
        attacked.refused(path, BAD_MSGPACK[name].replace(b"keys", b"rows" if path == PUSH else b"keys"), kind)


BAD_TYPED = {
    "of no kind": (99, b"1"), "a kind below": (-5, b"1"), "no number": (1, b"ann"), "no bytes": (4, b""), "digits without end": (1, b"9" * 2**20),
    "no decimal": (2, b"1.5.5"), "a far decimal": (2, b"1E-999999999"), "a far zero": (2, b"0E-999999999"), "a long decimal": (2, b"9" * 2**20),
    "NaN": (2, b"NaN"), "a far moment": (4, b"9" * 40), "a far day": (3, b"-" + b"9" * 30), "a moment of no zone": (4, b"1 ../../etc/passwd"),
    "nul in a zone": (4, b"1 \0"), "not utf-8": (4, b"1 \xff"), "a moment beyond Python": (4, b"9" * 18 + b"0" * 9), "24:00": (5, b"86400000000000"),
    "a span beyond Python": (6, b"9" * 18 + b"0" * 9),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TYPED)
def test_values_that_no_client_sends_are_refused(attacked, name):
    row = {"customer": msgspec.msgpack.Ext(*BAD_TYPED[name])}
    attacked.refused(ONLINE, msgspec.msgpack.encode({"keys": [row]}), TYPED)
    whole = row | {"at": "2024-01-01", "score": 0.5, "tags": ["a"], "raw": b"x"}
    attacked.refused(PUSH, msgspec.msgpack.encode({"rows": [whole]}), TYPED)


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("", {}), ("text/plain", {}), ("application/x-www-form-urlencoded", {}), ("application/json/json", {}), ("\xff", {}),
        ("multipart/form-data", {}), ("application/vnd.apache.parquet", {}), ("a" * 5000, {}), (f"{MSGPACK}, {JSON}", {}),
        ("application/json; charset=utf-16", {}), (JSON, {"content_encoding": "gzip"}), (JSON, {"content_encoding": "br"}),
        (JSON, {"accept": "text/html"}), (JSON, {"accept": "a" * 5000}), (JSON, {"accept": "\xff"}),
    ],
)  # fmt: skip
def test_other_kinds_and_encodings_are_refused(attacked, kind, headers):
    if headers.get("content_encoding"):
        attacked.refused(ONLINE, gzip.compress(b'{"keys":[]}'), kind, **headers)
    elif "utf-16" in kind:
        attacked.refused(ONLINE, '{"keys":[]}'.encode("utf-16"), kind)
    else:
        headers = {name: value.encode("latin-1") for name, value in headers.items()}
        attacked.refused(ONLINE, b'{"keys":[]}', kind.encode("latin-1"), **headers)


GOOD = {
    "json": (ONLINE, JSON, b'{"keys":[{"customer":"ann"}],"features":["score"]}'),
    "messagepack": (ONLINE, MSGPACK, msgspec.msgpack.encode({"keys": [{"customer": "ann"}], "features": ["score"]})),
    "typed": (ONLINE, TYPED, msgspec.msgpack.encode({"keys": [{"customer": "ann"}], "features": ["score"]})),
    "arrow": (ONLINE, ARROW, stream_of(KEYS)),
    "pushed json": (PUSH, JSON, b'{"rows":[{"customer":"ann","at":"2024-01-01T12:00:00Z","score":0.5,"tags":["a"],"raw":"eA=="}]}'),
    "pushed arrow": (PUSH, ARROW, stream_of(ROWS)),
    "form": (HISTORICAL, FORM, form(query(), SPINE)),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_truncated_bodies_are_refused(attacked, name):
    path, kind, whole = GOOD[name]
    assert attacked.ask("POST", path, whole, kind).status_code == 200
    for end in range(0, len(whole) - 9, 1 if path == ONLINE else 13):
        answer = attacked.ask("POST", path, whole[:end], kind)
        if kind == ARROW and answer.status_code == 200:  # a stream may end between two messages
            assert pa.ipc.open_stream(whole[:end]).read_all().schema.names[0] == "customer"
        else:
            assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("name", GOOD)
def test_random_bytes_are_refused(attacked, name):
    path, kind, whole = GOOD[name]
    chance = random.Random(7)
    for _ in range(25):
        attacked.refused(path, chance.randbytes(chance.randrange(300)), kind)
        attacked.refused(path, whole[: chance.randrange(len(whole) - 20)] + chance.randbytes(30), kind)


# Arrow and Parquet

CORRUPTED: dict[str, tuple[str, Callable[[bytes], bytes], str, bytes]] = {
    "keys": (ONLINE, bytes, ARROW, stream_of(KEYS)),
    "keys by dictionary": (
        ONLINE,
        bytes,
        ARROW,
        stream_of(pa.table({"customer": KEYS["customer"].dictionary_encode()})),
    ),
    "dates": (ONLINE, bytes, ARROW, stream_of(pa.table({"customer": pa.array([1, 2], pa.date32())}))),
    "keys by zstd": (ONLINE, bytes, ARROW, stream_of(KEYS, "zstd")),
    "keys by lz4": (ONLINE, bytes, ARROW, stream_of(KEYS, "lz4")),
    "rows": (PUSH, bytes, ARROW, stream_of(ROWS)),
    "spine": (HISTORICAL, lambda body: form(query(), (SPINE[0], body)), FORM, stream_of(spine(y=[["a"]] * 3))),
    "parquet": (HISTORICAL, lambda body: form(query(), (SPINE[0], body)), FORM, parquet_of(spine(y=[["a"]] * 3))),
}


@pytest.mark.parametrize("name", CORRUPTED)
def test_a_wrong_byte_in_arrow_or_parquet_gets_a_response_and_never_ends_the_server(attacked, name):
    path, wrap, kind, whole = CORRUPTED[name]
    faults = []
    for place in range(0, len(whole), 1 if IS_LONG else 7):
        for flip in (0x01, 0x41, 0x80, 0xFF) if path == ONLINE else (0x41,):
            body = bytearray(whole)
            body[place] ^= flip
            try:
                attacked.ask("POST", path, wrap(bytes(body)), kind)
            except (AssertionError, httpx2.TransportError) as fault:
                faults.append(f"byte {place} ^ {flip:#x}: {fault}"[:300])
    assert not faults, f"{len(faults)} faults: {faults[:3]}"


def array(kind: pa.DataType, length: int, *buffers: bytes | None) -> pa.Array:
    """Return an array without validating it."""
    return pa.Array.from_buffers(kind, length, [None if one is None else pa.py_buffer(one) for one in buffers])


def test_arrow_with_inconsistent_buffers_is_refused(attacked):
    for offsets in ((0, 2**31 - 1), (0, -1), (5, 1), (-8, 0), (2**30, 2**30 + 1)):
        head, mark, tail = stream_of(pa.table({"customer": ["ann"]})).rpartition(struct.pack("<2i", 0, 3))
        assert mark
        attacked.refused(ONLINE, head + struct.pack("<2i", *offsets) + tail, ARROW)
    index = pa.DictionaryArray.from_arrays(pa.array([7], pa.int8()), pa.array(["ann"]), safe=False)
    for lying in (index, array(pa.string(), 1, None, struct.pack("<2i", 0, 1), b"\xff")):
        attacked.refused(ONLINE, stream_of(pa.RecordBatch.from_arrays([lying], ["customer"])), ARROW)
        rows = pa.RecordBatch.from_arrays([lying, *(column.chunk(0) for column in ROWS.columns[1:])], ROWS.column_names)
        attacked.refused(PUSH, stream_of(rows), ARROW)
        moments = pa.RecordBatch.from_arrays([lying, pa.array([NOON])], ["customer", "t"])
        attacked.refused(HISTORICAL, form(query(), (SPINE[0], stream_of(moments))), FORM)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**31 - 1], pa.date32()), pa.array([2**60], pa.timestamp("s")), pa.array([2**62], pa.timestamp("us", "UTC")),
        pa.array([0], pa.timestamp("us", "No/Where")), pa.array([2**62], pa.duration("s")), pa.array([-1], pa.time64("us")),
        pa.nulls(10**9), pa.array([[None] * 10_000]), pa.array([{"a": 1}]), pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.array([2**62], pa.date64()), pa.array([0], pa.timestamp("us", "\udc80".encode(errors="replace").decode())),
    ],
    ids=lambda values: str(values.type),
)  # fmt: skip
def test_arrow_values_that_python_cannot_hold_are_refused(attacked, values):
    attacked.refused(ONLINE, stream_of(pa.RecordBatch.from_arrays([values], ["customer"])), ARROW)


def test_arrow_of_the_wrong_columns_is_refused(attacked):
    for names in (["customer", "customer"], ["\0"], ["x"], [f"c{i}" for i in range(5000)]):
        columns = [pa.array(["ann"])] * len(names)
        attacked.refused(ONLINE, stream_of(pa.RecordBatch.from_arrays(columns, names)), ARROW)
        attacked.refused(PUSH, stream_of(pa.RecordBatch.from_arrays(columns, names)), ARROW)


def swollen(kind: pa.DataType) -> pa.Array:
    """Return a value of 64 MB that compresses to a few kilobytes."""
    return array(kind, 1, None, struct.pack("<2i", 0, 2**26), bytes(2**26))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_bodies_that_decompress_to_far_more_are_refused(attacked, kind):
    keys = stream_of(pa.RecordBatch.from_arrays([swollen(kind)], ["customer"]), "zstd")
    assert len(keys) < 10_000
    attacked.refused(ONLINE, keys, ARROW)
    attacked.refused(PUSH, stream_of(ROWS.set_column(0, "customer", swollen(kind)), "zstd"), ARROW)


def lists(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


MANY = 2**25
NO_BYTES = {
    "nulls": [lists(pa.nulls(MANY))],
    "nulls in structs": [lists(pa.StructArray.from_arrays([pa.nulls(MANY)], ["a"]))],
    "nulls in many columns": [lists(pa.nulls(2**16))] * 1000,
    "empty lists": [lists(pa.Array.from_buffers(pa.list_(pa.int64(), 0), MANY, [None], children=[pa.array([], pa.int64())]))],
    "empty bytes": [lists(pa.Array.from_buffers(pa.binary(0), MANY, [None, pa.py_buffer(b"")]))],
}  # fmt: skip


@pytest.mark.parametrize("name", NO_BYTES)
def test_values_that_take_no_bytes_do_not_hold_up_the_others(attacked, name):
    columns = NO_BYTES[name]
    names = ["customer", *(f"x{i}" for i in range(1, len(columns)))]
    body = stream_of(pa.RecordBatch.from_arrays(columns, names))
    before = attacked.server.cpu_seconds
    for path in (ONLINE, PUSH):
        attacked.refused(path, body, ARROW)
    assert attacked.server.cpu_seconds - before < 3


# Forms

FORMS = {
    "nothing": b"", "only an end": b"--x--\r\n", "no boundary": b"a=b", "another boundary": form(query(), SPINE).replace(b"--x", b"--y"),
    "no end": form(query(), SPINE, end=b""), "no spine": form(query()), "no query": form(SPINE), "two queries": form(query(), query(), SPINE),
    "two spines": form(query(), SPINE, SPINE), "10,000 parts": form(query(), *[('"a"', b"")] * 10_000),
    "10,000 queries": form(*[query()] * 10_000), "a part without a name": form(("", b"a"), query(), SPINE),
    "no disposition": b"--x\r\n\r\na\r\n" + form(query(), SPINE), "a head without end": b"--x\r\n" + b"a" * 2**20,
    "many heads": b"--x\r\n" + b"a: b\r\n" * 200_000, "a long head": b"--x\r\na: " + b"b" * 2**20 + b"\r\n\r\n" + form(query(), SPINE),
    "a long name": form((f'"{"a" * 3000}"', b""), query(), SPINE), "a path as name": form(('"../../spine"', b"x"), query(), SPINE),
    "nul as name": form(('"que\0ry"', b"x"), query(), SPINE), "no colon": b"--x\r\nabc\r\n\r\n" + form(query(), SPINE),
    "bare newlines": form(query(), SPINE).replace(b"\r\n", b"\n"), "noise after": form(query(), (SPINE[0], b"PAR1")) + b"a" * 5000,
    "a long query": form(('"query"', b" " * 2**20 + query()[1]), SPINE), "not utf-8": form(('"\xff"', b"x"), query(), SPINE),
    "an empty spine": form(query(), (SPINE[0], b"")), "a name of another kind": form(("*=utf-8''quer%79", b"{}"), SPINE),
    "a spine in csv": form(query(), (SPINE[0], b"customer,t\nann,2024-01-01\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_an_invalid_form_is_refused(attacked, name):
    attacked.refused(HISTORICAL, FORMS[name], FORM)


@pytest.mark.parametrize(
    "boundary", ["", "; boundary=", '; boundary=""', "; boundary=" + "x" * 5000, "; boundary=\xff", "; charset=x", '; boundary="x']
)  # fmt: skip
def test_a_form_without_a_boundary_is_refused(attacked, boundary):
    attacked.refused(HISTORICAL, b"x" * 100, ("multipart/form-data" + boundary).encode("latin-1"))


@pytest.mark.parametrize(
    "name", ["../../../canary.txt", "/etc/passwd", "..\\x", "a\0b", "%2e%2e%2fx", "s.csv", "", "s" * 4000]
)
def test_the_name_of_an_uploaded_file_means_nothing(attacked, name):
    answer = attacked.ask("POST", HISTORICAL, form(query(), (f'"spine"; filename="{name}"', SPINE[1])), FORM)
    assert answer.status_code in {200, 400}


# Names

ROUTES = ["/v1/online/{}/people", "/v1/online/shop/{}", "/v1/push/{}/people", "/v1/push/shop/{}", "/v1/historical/{}", "/v1/online/{}", "/v1/push/{}", "/v1/{}", "/{}"]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_no_name_in_a_path_leads_anywhere_else(attacked, route):
    for name in INJECTED:
        for written in {quote(name, safe=""), quote(quote(name, safe=""), safe="")}:
            if written in {".", "..", ""}:
                continue  # the client resolves them
            for method in ("GET", "POST"):
                answer = attacked.ask(method, route.format(written))
                assert answer.status_code in {400, 403, 404, 405}, (written, answer.text)


def test_a_value_of_a_key_is_a_value_whatever_it_says(attacked):
    found = attacked.ask("POST", ONLINE, json.dumps({"keys": [{"customer": text} for text in INJECTED]}).encode())
    assert found.json()["rows"] == [{"customer": text, "score": None, "tags": None, "raw": None} for text in INJECTED]
    for text in INJECTED:
        answer = attacked.ask("GET", f"{ONLINE}?customer={quote(text, safe='')}")
        assert answer.json()["rows"][0]["customer"] == text
    asked = pa.table({"customer": INJECTED, "t": [NOON] * len(INJECTED)})
    answer = attacked.ask("POST", HISTORICAL, form(query(), (SPINE[0], stream_of(asked))), FORM)
    found = pa.ipc.open_stream(answer.content).read_all()
    assert (found["customer"].to_pylist(), found["score"].null_count) == (INJECTED, len(INJECTED))


@pytest.mark.parametrize(
    "place",
    [
        lambda text: {"keys": [{text: "ann"}]},
        lambda text: {"keys": [], "features": [text]},
        lambda text: {"keys": [], text: 1},
        lambda text: {"keys": [{"customer": "ann"}], "with_status": text},
        lambda text: {"keys": [{"customer": {text: text}}]},
    ],
    ids=["key", "feature", "field", "with_status", "object"],
)
def test_no_name_in_a_question_leads_anywhere_else(attacked, place):
    for text in INJECTED:
        attacked.refused(ONLINE, json.dumps(place(text)).encode())


def test_no_name_in_a_pushed_row_leads_anywhere_else(attacked):
    row = {"customer": "ann", "at": "2024-01-01T12:00:00Z", "score": 0.5, "tags": ["a"], "raw": "eA=="}
    for text in INJECTED:
        for wrong in ({**row, text: 1}, {**row, "score": text}, {**row, "raw": text + "!"}, {**row, "tags": {text: 1}}):
            attacked.refused(PUSH, json.dumps({"rows": [wrong]}).encode())


WANTED = {
    "group": lambda text: {"lookups": [{"group": text}]},
    "feature": lambda text: {"lookups": [{"group": "people", "features": [text]}]},
    "renamed": lambda text: {"lookups": [{"group": "people", "rename": {text: "y"}}]},
    "date_col": lambda text: {"date_col": text},
    "keep": lambda text: {"keep": [text]},
    "start": lambda text: {"start": text or "x"},
    "as_of": lambda text: {"as_of": text or "x"},
    "as_of group": lambda text: {"as_of": {text: 1}},
    "as_of number": lambda text: {"as_of": {"people": text}},
}
SHOWN = {
    "prefix": lambda text: {"lookups": [{"group": "people", "features": ["score"], "prefix": text}]},
    "rename": lambda text: {"lookups": [{"group": "people", "features": ["score"], "rename": {"score": text}}]},
}


@pytest.mark.parametrize("place", WANTED)
def test_no_name_in_a_query_leads_anywhere_else(attacked, place):
    for text in INJECTED:
        attacked.refused(HISTORICAL, form(query(**WANTED[place](text)), SPINE), FORM)


@pytest.mark.parametrize("place", SHOWN)
def test_a_new_name_of_a_feature_is_a_name_whatever_it_says(attacked, place):
    for text in INJECTED:
        answer = attacked.ask("POST", HISTORICAL, form(query(**SHOWN[place](text)), SPINE), FORM)
        if answer.status_code == 200:
            names = pa.ipc.open_stream(answer.content).read_all().column_names
            assert names == ["customer", "t", text + "score" * (place == "prefix")]


def test_a_column_of_a_spine_is_a_column_whatever_its_name_says(attacked):
    for text in INJECTED:
        moments = pa.table({"customer": ["ann"], text: [NOON]})
        answer = attacked.ask("POST", HISTORICAL, form(query(date_col=text), (SPINE[0], stream_of(moments))), FORM)
        if answer.status_code == 200:
            found = pa.ipc.open_stream(answer.content).read_all()
            assert found.column_names == ["customer", text, "score", "tags", "raw"]
            assert found.select([0, 1]).to_pylist() == [{"customer": "ann", text: NOON}]


def test_what_is_wrong_is_quoted_in_part_only(attacked):
    long = "a" * 20_000
    for path in (f"/v1/online/shop/{long}", f"/v1/push/shop/{long}", f"/v1/online/{long}/people"):
        assert attacked.refused(path, BODY.replace(b"keys", b"rows") if "push" in path else BODY) < 3000, path[:20]
    for body in ({"keys": [{long: 1}]}, {"keys": [{"customer": [long]}]}, {"keys": [], "features": [long]}):
        assert attacked.refused(ONLINE, json.dumps(body).encode()) < 3000
    row = {"customer": "a", "at": "2024-01-01", "score": 1, "tags": [], "raw": ""}
    for body in ({**row, long: 1}, {**row, "at": long}, {**row, "score": long}):
        assert attacked.refused(PUSH, json.dumps({"rows": [body]}).encode()) < 3000
    for place, asked in WANTED.items():
        assert attacked.refused(HISTORICAL, form(query(**asked(long)), SPINE), FORM) < 3000, place
    wide = pa.RecordBatch.from_arrays([pa.array(["ann"])] * 5000, [f"c{i}" for i in range(5000)])
    assert attacked.refused(PUSH, stream_of(wide), ARROW) < 3000
    assert attacked.refused(ONLINE, stream_of(pa.table({"customer": [[None] * 10_000]})), ARROW) < 3000


def test_text_is_not_taken_for_a_list_of_its_letters(attacked):
    row = {"customer": "letters", "at": "2024-01-01", "score": 1, "tags": "ab", "raw": ""}
    attacked.refused(PUSH, json.dumps({"rows": [row]}).encode())


# HTTP

HEAD = b"POST /v1/online/shop/people HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer TOKEN\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
BODY, CHUNKED = b'{"keys":[]}', b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SMUGGLED = {
    "both lengths": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both, turned": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 11\r\nContent-Length: 0\r\n\r\n" + BODY, "a list of lengths": b"Content-Length: 11, 0\r\n\r\n" + BODY,
    "less than nothing": b"Content-Length: -1\r\n\r\n", "plus": b"Content-Length: +11\r\n\r\n" + BODY, "hex": b"Content-Length: 0xb\r\n\r\n" + BODY,
    "a huge length": b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY, "no digit": b"Content-Length: \xb2\r\n\r\n" + BODY,
    "another coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "coding not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "tab in coding": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "no size": CHUNKED + b"zz\r\n", "negative size": CHUNKED + b"-1\r\n", "huge size": CHUNKED + b"f" * 17 + b"\r\n", "size as 0x": CHUNKED + b"0xb\r\n" + BODY,
    "size with newline only": CHUNKED + b"b\n" + BODY + b"\n0\n\n", "chunk without end": CHUNKED + b"b\r\n" + BODY + b"0\r\n\r\n",
    "length in a trailer": CHUNKED + b"b\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n", "folded": b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "nul in a header": b"X: a\x00b\r\nContent-Length: 0\r\n\r\n", "return in a header": b"X: a\rb\r\nContent-Length: 0\r\n\r\n", "no colon": b"X\r\nContent-Length: 0\r\n\r\n",
}  # fmt: skip


def mine(attacked: Target, head: bytes) -> bytes:
    return head.replace(b"TOKEN", attacked.token.encode())


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_whose_end_is_unclear_is_refused_with_all_that_follows(attacked, name):
    ((status, _),) = attacked.send(mine(attacked, HEAD) + SMUGGLED[name] + HIDDEN)
    assert 400 <= status < 500


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("hidden", [HIDDEN, BODY])
def test_a_body_after_an_upgrade_is_no_request_and_is_refused(attacked, protocol, hidden):
    head = mine(attacked, HEAD) + b"Connection: upgrade\r\nUpgrade: " + protocol
    head += b"\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    for parts in ((head + hidden,), (head, hidden)):
        ((status, text),) = attacked.send(*parts, seconds=1)
        assert status == 400, text


def test_an_offer_to_upgrade_without_a_body_is_answered_and_the_connection_closed(attacked):
    ((status, _),) = attacked.send(HEALTH + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", HEALTH + b"\r\n", seconds=1)
    assert status == 200


HEADS = {
    "no version": (1, b"GET /healthz\r\n\r\n"), "1.0": (1, b"GET /healthz HTTP/1.0\r\n\r\n"), "3.7": (1, b"GET /healthz HTTP/3.7\r\n\r\n"),
    "2.0": (1, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "tls": (1, bytes.fromhex("16030100a5010000a10303") + bytes(150)), "zeros": (1, bytes(1000)),
    "100 at once": (100, (HEALTH + b"\r\n") * 99 + HEALTH + b"Connection: close\r\n\r\n"),
    "20,000 headers": (1, HEALTH + b"X-A: b\r\n" * 20_000 + b"\r\n"), "a long header": (1, HEALTH + b"X: " + b"b" * 10**6 + b"\r\n\r\n"),
    "a long path": (1, b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\n\r\n"), "5,000 headers": (1, HEALTH + b"X-A: b\r\n" * 5000 + b"Connection: close\r\n\r\n"),
    "a long extension": (1, HEAD + b"Connection: close\r\n" + CHUNKED + b"b;" + b"a" * 200_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "small chunks": (1, HEAD + b"Connection: close\r\n" + CHUNKED + b"1\r\n \r\n" * 5000 + b"b\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a long address": (1, b"GET http://" + b"a" * 5000 + b"/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    "a wrong address": (1, b"GET http://[::1/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    "another's port": (1, b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n"), "all": (1, b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "trace": (1, b"TRACE / HTTP/1.1\r\nHost: localhost\r\nX: sesame\r\nConnection: close\r\n\r\n"), "no method": (1, b"FOO / HTTP/1.1\r\n\r\n"),
    "no slash": (1, b"GET healthz HTTP/1.1\r\n\r\n"), "letters in a path": (1, b"GET /v1/online/shop/\xff\xfe HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "lone surrogate": (1, b"GET /v1/online/shop/%ed%a0%80 HTTP/1.1\r\nConnection: close\r\n\r\n"), "half a percent": (1, b"GET /v1/%zz%2 HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "letters in a token": (1, b"GET /v1/catalog HTTP/1.1\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n"),
    "continue": (1, HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\nConnection: close\r\n\r\n" + BODY),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_any_shape_are_answered_once_each(attacked, name):
    count, sent = HEADS[name]
    assert len(attacked.send(mine(attacked, sent))) == count


def test_trailers_have_a_limit_as_headers_have(attacked):
    floods = [CHUNKED + b"b\r\n" + BODY + b"\r\n0\r\n", *[b"X-A: b\r\n" * 100_000] * 10, b"\r\n"]
    ((status, _),) = attacked.send(mine(attacked, HEAD) + b"Connection: close\r\n" + floods[0], *floods[1:])
    assert status in {413, 431}


# Projects

DISGUISES = [
    *("bank", "BANK", "%62ank", "b%61nk", "shop%2f..%2fbank", "shop/../bank", "./bank", "shop;bank", "bank%00", "bank%20", "%20bank", "shop%5c..%5cbank"),
    *("/bank", "shop,bank", "shop%7cbank", "*", "%2a", "%25", "b_nk", "bank%0a", "shop%00bank", "shop%2fbank", "sh%6fp/bank", "b\u0430nk"),
]  # fmt: skip


def test_no_spelling_of_another_projects_name_grants_access(attacked):
    bodies = [
        (JSON, b'{"keys":[{"holder":"ann"}]}'.replace(b"holder", b"customer")),
        (JSON, b'{"rows":[]}'),
        (FORM, form(query(), SPINE)),
    ]
    for project in DISGUISES:
        for path in (
            "/v1/online/{}/people",
            "/v1/push/{}/people",
            "/v1/historical/{}",
            "/v1/catalog/{}",
            "/metrics/{}",
        ):
            for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
                kind, body = bodies["online" not in path] if "historical" not in path else bodies[2]
                written = path.format(quote(project, safe="%/;,?="))
                answer = attacked.ask(
                    method, written, body, kind, x_project="bank", x_original_url="/v1/online/bank/people"
                )
                assert answer.status_code >= 400, (method, written, answer.text)
    for path in ("/v1/catalog?project=bank", "/metrics?project=bank", "/v1/catalog"):
        answer = attacked.ask("GET", path)
        assert answer.status_code == (400 if "?" in path else 200)
        assert "bank" not in answer.text


def alike(attacked: Target, there: str, nowhere: str, send: Callable[[str], tuple[str, str, bytes, str]]) -> None:
    """See that what there is in another project looks as what there is not."""
    said = []
    for name in (there, nowhere):
        method, path, body, kind = send(name)
        headers = {"authorization": f"Bearer {attacked.token}", "content-type": kind}
        answer = httpx2.request(method, attacked.server.url + path, content=body, headers=headers)
        assert answer.status_code >= 400
        said.append((answer.status_code, answer.text.replace(name, "NAME"), sorted(answer.headers.items())[:1]))
    assert said[0] == said[1]


def test_what_another_project_has_looks_as_if_it_were_not_there(attacked):
    for project in ("bank", "bonk"):
        alike(
            attacked,
            "treasury",
            "treasurx",
            lambda name, project=project: ("POST", f"/v1/online/{project}/{name}", BODY, JSON),
        )
        alike(
            attacked,
            "vault",
            "vaulx",
            lambda name, project=project: ("POST", f"/v1/push/{project}/{name}", b'{"rows":[]}', JSON),
        )
    for path in ("/v1/online/{}/people", "/v1/push/{}/people", "/v1/historical/{}"):
        alike(attacked, "bank", "bonk", lambda name, path=path: ("POST", path.format(name), BODY, JSON))
    for project in ("/shop", ""):
        alike(attacked, "treasury", "treasurx", lambda name, at=project: ("POST", f"/v1/online{at}/{name}", BODY, JSON))
        alike(
            attacked, "vault", "vaulx", lambda name, at=project: ("POST", f"/v1/push{at}/{name}", b'{"rows":[]}', JSON)
        )
    for group in ("{}", "bank/{}", "../bank/{}", "bank.{}", "*/{}"):
        lookup = lambda name, group=group: form(query(lookups=[{"group": group.format(name)}]), SPINE)  # noqa: E731
        for path in (HISTORICAL, "/v1/historical"):
            alike(
                attacked, "vault", "vaulx",
                lambda name, lookup=lookup, path=path: ("POST", path, lookup(name), FORM),
            )  # fmt: skip
    for more in ({"as_of": {"NAME": 1}}, {"as_of": {"bank/NAME": 1}}):
        asked = json.dumps(more)
        alike(
            attacked, "vault", "vaulx",
            lambda name, asked=asked: ("POST", HISTORICAL, form(query(**json.loads(asked.replace("NAME", name))), SPINE), FORM),
        )  # fmt: skip


def test_a_token_of_one_project_counts_and_lists_nothing_of_another(attacked):
    other = FeatureStore(attacked.server.home).tokens.create(f"bank-{time.time_ns()}", "bank", ["admin"])
    headers = {"authorization": f"Bearer {other}"}
    keys = {"keys": [{"holder": "sesame-open"}]}

    def ask() -> httpx2.Response:
        return httpx2.post(f"{attacked.server.url}/v1/online/bank/treasury", json=keys, headers=headers)

    wait_for(lambda: ask().status_code == 200)  # until it has seen the token
    assert ask().json()["rows"][0]["holder"] == "sesame-open"
    for path in ("/v1/catalog", "/metrics"):
        assert "bank" not in attacked.ask("GET", path).text
