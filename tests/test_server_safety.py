"""Access, limits and shutdown of a server."""

import asyncio
import gzip
import io
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from select import PIPE_BUF

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from commands import seeknal, seeknal_process
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.online import LmdbStore
from seeknal.registry import tokens
from seeknal.serve.freshness import Freshness
from seeknal.server.access import _pieces
from seeknal.server.ages import Ages
from seeknal.server.http import Request
from seeknal.server.options import Limits
from seeknal.system.locks import exclusive_lock
from servers import Server, Valkey, wait_for

pytestmark = pytest.mark.slow
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def filled(home: Path, *projects: str, **settings) -> FeatureStore:
    store = FeatureStore(home, **settings)
    for project in projects:
        group = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"), project)
        store.groups.write(group, pa.table({"user_id": [1, 2], "at": [NOON, NOON], "spent": [10, 7]}))
        store.tables.serve([FeatureLookup(f"{project}/spend")], "spend")
        store.tables.serve([FeatureLookup(f"{project}/spend")], f"only_in_{project}")
    return store


def ask(url: str, project: str = "shop", token: str | None = None, **options) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx2.post(f"{url}/v1/online/{project}/spend", json={"keys": [{"user_id": 1}]}, headers=headers, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A home of two projects, with tokens."""
    store = filled(tmp_path_factory.mktemp("kept") / "home", "shop", "bank")
    yield store
    store.close()


@pytest.fixture(scope="module")
def shown(store):
    """Tokens, by what they are for."""
    made = {right: store.tokens.create(right, "shop", [right]) for right in tokens.RIGHTS}
    return made | {"all": store.tokens.create("everything", "*", ["admin"])}


@pytest.fixture(scope="module")
def server(store, shown):
    with Server(store.home) as server:
        yield server


def test_only_the_hash_of_a_token_is_kept(store, shown):
    kept = (store.home / "registry.db").read_bytes()
    for text in shown.values():
        assert text.encode() not in kept
        assert text.split("_", 2)[2].encode() not in kept


def test_a_token_grants_its_rights_in_its_project_and_nothing_else(server, shown):
    push = {"rows": [{"user_id": 1, "at": NOON.isoformat(), "spent": 10}]}
    asked = {
        "read": lambda project, headers: httpx2.post(f"{server.url}/v1/online/{project}/spend", json={"keys": []}, headers=headers),
        "push": lambda project, headers: httpx2.post(f"{server.url}/v1/push/{project}/spend", json=push, headers=headers),
        "admin": lambda _, headers: httpx2.get(f"{server.url}/metrics", headers=headers),
    }  # fmt: skip
    for name, token in shown.items():
        for right, call in asked.items():
            for project in ("shop", "bank"):
                allowed = name == "all" or (project == "shop" and name in {right, "admin"})
                allowed = allowed or (
                    right == "admin" and name == "admin"
                )  # the metrics are of the token's own project
                answer = call(project, {"authorization": f"Bearer {token}"})
                assert answer.status_code == (200 if allowed else 403), (name, right, project, answer.text)


def test_one_projects_token_sees_nothing_of_another(server, shown):
    for path in ("/v1/catalog", "/metrics"):
        text = httpx2.get(server.url + path, headers={"authorization": f"Bearer {shown['admin']}"}).text
        assert "shop" in text
        assert "bank" not in text
        assert "bank" in httpx2.get(server.url + path, headers={"authorization": f"Bearer {shown['all']}"}).text
    for name in ("spend", "spned"):  # what there is and what there is not look the same
        answer = httpx2.post(
            f"{server.url}/v1/online/bank/{name}",
            json={"keys": []},
            headers={"authorization": f"Bearer {shown['read']}"},
        )
        assert (answer.status_code, answer.json()["detail"]) == (
            403,
            "Token 'read' has no right to read in project 'bank', only to read in 'shop'.",
        )


def test_without_a_project_a_token_finds_only_what_it_grants_access_to(server, shown):
    spine = {"query": (None, b'{"lookups": [{"group": "spend"}], "date_col": "at"}'), "spine": spine_file()}
    elsewhere = spine | {"query": (None, b'{"lookups": [{"group": "bank/spend"}], "date_col": "at"}')}
    asked = {
        "read": lambda headers: httpx2.get(f"{server.url}/v1/online/spend?user_id=1", headers=headers),
        "push": lambda headers: httpx2.post(f"{server.url}/v1/push/spend", json={"rows": []}, headers=headers),
    }
    for right, call in asked.items():
        assert call({"authorization": f"Bearer {shown[right]}"}).is_success
        several = call({"authorization": f"Bearer {shown['all']}"})
        assert several.status_code == 400
        assert several.json()["detail"].endswith("Write 'bank/spend' or 'shop/spend'.")
        other = call({"authorization": f"Bearer {shown['push' if right == 'read' else 'read']}"})
        assert other.status_code == 403
    headers = {"authorization": f"Bearer {shown['read']}"}
    unknown = httpx2.get(f"{server.url}/v1/online/only_in_bank?user_id=1", headers=headers)
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "No online table named 'only_in_bank' in project 'shop'. Did you mean 'only_in_shop'?",
    )
    assert httpx2.post(f"{server.url}/v1/historical", files=spine, headers=headers).is_success
    refused = httpx2.post(f"{server.url}/v1/historical", files=elsewhere, headers=headers)
    assert (refused.status_code, "no right to read in project 'bank'" in refused.text) == (403, True)


def spine_file() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"user_id": [1], "at": [NOON]}), out)
    return out.getvalue()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Bearer snk_0_0", "Basic YTpi", "Bearer \xff"])
def test_a_request_without_a_valid_token_gets_401(server, header):
    answer = httpx2.get(f"{server.url}/v1/catalog", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "A token is needed" in answer.json()["detail"]


def test_a_token_with_one_wrong_letter_grants_nothing(server, shown):
    text = shown["read"]
    for i in (0, 5, 21, len(text) - 1):
        wrong = text[:i] + ("a" if text[i] != "a" else "b") + text[i + 1 :]
        assert ask(server.url, token=wrong).status_code == 401


def test_a_revoked_token_soon_grants_nothing_and_revoking_the_last_does_not_open_access(tmp_path):
    store = filled(tmp_path / "other", "shop")
    token = store.tokens.create("web", "shop", ["read"])
    with Server(store.home) as server:
        assert ask(server.url).status_code == 401
        assert ask(server.url, token=token).status_code == 200
        store.tokens.revoke("web")
        wait_for(lambda: ask(server.url, token=token).status_code == 401)
        assert ask(server.url).status_code == 401


def test_tokens_are_made_listed_and_revoked_by_the_command(home):
    filled(home, "shop").close()
    made = seeknal("token", "create", "web", "--project", "shop", "--right", "read", "--right", "push")
    assert made.stdout.startswith("snk_")
    listed = seeknal("token", "list", "--format", "json")
    assert made.stdout.strip() not in listed.stdout
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["project"], row["rights"], row["revoked_at"]) == ("web", "shop", "read, push", None)
    again = seeknal("token", "create", "web", "--project", "shop", "--right", "read")
    assert (again.returncode, again.stderr) == (
        1,
        "Error: The name 'web' is or was in use, and cannot be reused. Choose another.\n",
    )
    assert "Did you mean 'read'?" in seeknal("token", "create", "b", "--project", "shop", "--right", "raed").stderr
    assert "Did you mean 'web'?" in seeknal("token", "revoke", "wbe").stderr
    assert seeknal("token", "revoke", "web").returncode == 0
    assert seeknal("token", "revoke", "web").stderr == "Error: Token 'web' is revoked already.\n"


def test_clients_of_other_hosts_are_accepted_only_with_tokens(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEKNAL_HOME", str(store.home))
        done = seeknal("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert "Create one first: seeknal token create" in done.stderr
    with Server(store.home) as server:  # by the name of a web page, or of a proxy
        answer = httpx2.get(f"{server.url}/v1/catalog", headers={"host": "shop.example"})
        assert answer.status_code == 403
        assert "seeknal token create" in answer.json()["detail"]
        for host in ("localhost", "localhost:80", "127.0.0.1", "[::1]:80"):
            assert httpx2.get(f"{server.url}/v1/catalog", headers={"host": host}).status_code == 200


def test_an_address_that_is_taken_is_named(tmp_path, home):
    assert "There is no feature store in" in seeknal("serve").stderr
    _ = FeatureStore(home).core.registry
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = seeknal_process("serve", "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_tls_takes_a_certificate_and_its_key(store, tmp_path, shown):
    certificate, key = self_signed(tmp_path)
    assert "TLS takes both" in seeknal("serve", "--certificate", str(certificate)).stderr
    assert "There is no file" in seeknal("serve", "--certificate", str(certificate), "--key", "nowhere").stderr
    with Server(store.home, "--certificate", str(certificate), "--key", str(key)) as server:
        trusted = ssl.create_default_context(cafile=str(certificate))
        assert server.url.startswith("https://")
        assert ask(server.url, token=shown["read"], verify=trusted).json()["rows"] == [{"user_id": 1, "spent": 10}]


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(__import__("ipaddress").ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(*encoding))
    return files


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A server with low limits."""
    store = filled(tmp_path_factory.mktemp("narrow") / "home", "shop")
    limits = {"keys": 10, "body": 2000, "spine": 5000, "requests": 8, "jobs": 1, "connections": 30}
    options = [part for name, most in limits.items() for part in (f"--max-{name}", str(most))]
    with Server(store.home, *options) as server:
        yield server
    store.close()


def test_what_is_too_large_gets_413(narrow):
    many = httpx2.post(f"{narrow.url}/v1/online/shop/spend", json={"keys": [{"user_id": 1}] * 11})
    long = httpx2.post(f"{narrow.url}/v1/online/shop/spend", json={"keys": [{"user_id": 1}] * 1000})
    endless = httpx2.post(
        f"{narrow.url}/v1/push/shop/spend",
        content=(b"x" * 100 for _ in range(1000)),
        headers={"content-type": "application/json"},
    )
    spine = {"query": (None, "{}"), "spine": ("s", b"x" * 10_000)}
    wide = httpx2.post(f"{narrow.url}/v1/historical/shop", files=spine)
    assert [answer.status_code for answer in (many, long, endless, wide)] == [413] * 4
    assert "limit of 10" in many.json()["detail"]
    assert "over 2,000 bytes" in endless.json()["detail"]


def raw(url: str, *parts: bytes, pause: float = 0, seconds: float = 60) -> bytes:
    """Send bytes as they are, and return the response."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except OSError:
            return answer
        return answer


JSON = {"content-type": "application/json"}
POST = b"POST /v1/online/shop/spend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_slow_clients_are_disconnected(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with Server(store.home, "--timeout", "1") as server:
        assert raw(server.url, POST + b"Content-Length: 100\r\n\r\n", b'{"keys"').startswith(b"HTTP/1.1 408")
        assert raw(server.url, b"POST /v1").startswith(b"HTTP/1.1 408")
        assert raw(server.url, b"").startswith(b"HTTP/1.1 408")
        drop = raw(server.url, *[POST, *[b"X-A: b\r\n"] * 40], pause=0.1)
        assert drop.startswith(b"HTTP/1.1 408")
        wait_for(lambda: ask(server.url).status_code == 200)


def test_a_client_that_does_not_read_a_large_response_is_disconnected(tmp_path):
    store = filled(tmp_path / "other", "shop")
    notes = FeatureGroup("notes", Entity("user", ["user_id"]), Materialization(event_time_col="at"), "shop")
    store.groups.write(notes, pa.table({"user_id": [1], "at": [NOON], "note": ["x" * 200_000]}))
    store.tables.serve([FeatureLookup("shop/notes")], "notes")
    body = json.dumps({"keys": [{"user_id": 1}] * 100}).encode()
    with Server(store.home, "--timeout", "1") as server:
        assert (
            len(httpx2.post(f"{server.url}/v1/online/shop/notes", content=body, headers=JSON, timeout=20).content) > 2e7
        )
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            reader.sendall(POST.replace(b"spend", b"notes") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: is_given_up(reader))
        assert ask(server.url).status_code == 200


def is_given_up(connection: socket.socket) -> bool:
    """Return whether the other side accepts no more bytes."""
    try:
        connection.send(b" ", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


def test_deadlines_hold_while_another_process_locks_the_registry(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with Server(store.home, "--timeout", "1") as server, closing(sqlite3.connect(store.core.registry.path)) as db:
        store.tokens.create("web", "shop", ["read"])
        db.execute("BEGIN EXCLUSIVE")
        for _ in range(3):  # the server looks at the registry some times a second, and so waits for it by the second
            assert raw(server.url, POST + b"Content-Length: 100\r\n\r\n", seconds=30).startswith(b"HTTP/1.1 408")
        db.rollback()


def test_looking_at_the_registry_keeps_the_locks_that_this_process_holds_on_it(tmp_path):
    registry = filled(tmp_path / "other", "shop").core.registry
    command = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with closing(sqlite3.connect(registry.path)) as db:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            registry.stamp()
        other = subprocess.run(
            [sys.executable, "-c", command, str(registry.path)], check=False, capture_output=True, text=True
        )
        assert "database is locked" in other.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_invalid_certificate_prevents_the_start(tmp_path, workers):
    store = filled(tmp_path / "other", "shop")
    for name in ("one.pem", "two.pem"):
        (tmp_path / name).write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    files = ("--certificate", str(tmp_path / "one.pem"), "--key", str(tmp_path / "two.pem"))
    done = seeknal_process("serve", "--port", "0", "--workers", workers, *files, env={"SEEKNAL_HOME": str(store.home)})
    assert done.returncode == 1
    assert "are not a certificate and its key" in done.stderr
    assert "Serving" not in done.stderr


def test_a_home_without_tokens_in_the_place_of_one_with_tokens_is_not_open(tmp_path):
    one, other = filled(tmp_path / "one", "shop"), filled(tmp_path / "other", "shop")
    token = one.tokens.create("web", "shop", ["read"])
    with Server(one.home) as server:
        assert ask(server.url).status_code == 401
        one.home.rename(tmp_path / "before")
        other.home.rename(one.home)
        wait_for(lambda: ask(server.url, token=token).status_code == 401)
        assert ask(server.url).status_code == 401


def test_a_compressed_body_is_refused_by_its_header(narrow):
    headers = JSON | {"content-encoding": "gzip"}
    answer = httpx2.post(f"{narrow.url}/v1/online/shop/spend", content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, "Content-Encoding" in answer.json()["detail"]) == (415, True)


def test_a_page_of_another_site_gets_nothing(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with Server(store.home) as server:
        for origin, status in (("http://evil.example", 403), (server.url, 200)):
            headers = {"origin": origin}
            assert httpx2.get(f"{server.url}/v1/online/shop/spend?user_id=1", headers=headers).status_code == status


def test_too_many_requests_and_connections_get_503_and_are_told_when_to_come_again(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(9)]
    for one in held:
        one.sendall(POST + b"Content-Length: 100\r\n\r\n{")
    wait_for(lambda: ask(narrow.url).status_code == 503)
    assert ask(narrow.url).headers["retry-after"] == "1"
    more = [socket.create_connection((host, int(port))) for _ in range(40)]
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    wait_for(lambda: raw(narrow.url, health).startswith(b"HTTP/1.1 503"))
    for one in held + more:
        one.close()
    wait_for(lambda: ask(narrow.url).status_code == 200)


def join(url: str) -> int:
    query = (None, b'{"lookups": [{"group": "spend"}], "date_col": "at"}')
    return httpx2.post(f"{url}/v1/historical/shop", files={"query": query, "spine": spine_file()}).status_code


def push(url: str, spent: int = 1) -> httpx2.Response:
    rows = [{"user_id": 1, "at": NOON.isoformat(), "spent": spent}]
    return httpx2.post(f"{url}/v1/push/shop/spend", json={"rows": rows})


def test_pushes_and_joins_wait_for_a_place_among_their_own_kind(tmp_path):
    store = filled(tmp_path / "home", "shop")
    with Server(store.home, "--max-jobs", "1", "--timeout", "2") as server, ThreadPoolExecutor() as threads:
        with exclusive_lock(
            store.home / "offline" / "shop" / "spend" / "_commit.lock"
        ):  # so the first push stays at work
            pushes = [threads.submit(push, server.url, spent) for spent in (2, 3)]
            (ended,), (at_work,) = wait(pushes, return_when=FIRST_COMPLETED)
            refused = ended.result()
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "Nothing was done" in refused.text
            assert join(server.url) == 200
            waiting = threads.submit(push, server.url, 4)
        assert (at_work.result().status_code, waiting.result().status_code) == (200, 200)


def test_bodies_still_arriving_do_not_block_complete_requests(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    head = b"POST /v1/historical/shop HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with ExitStack() as stack:
        for spines in range(1, 5):
            one = stack.enter_context(socket.create_connection((host, int(port))))
            one.sendall(head + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\n")
            assert one.recv(65536).startswith(b"HTTP/1.1 100")  # it is on its way
            assert push(narrow.url).status_code == 200
            assert join(narrow.url) == (200 if spines < 4 else 429)  # half of the requests may be spines
    wait_for(lambda: join(narrow.url) == 200)


def test_requests_in_flight_are_finished_at_shutdown(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with Server(store.home) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = b'{"keys":[{"user_id":1}]}'
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            assert connection.recv(65536).startswith(b"HTTP/1.1 100")  # it is at work on it
            connection.sendall(body[:5])
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: is_refused(host, int(port)))
            connection.sendall(body[5:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b'{"rows":[{"user_id":1,"spent":10}]}')
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.errors.read_text()


def is_refused(host: str, port: int) -> bool:
    """Return whether no process listens at an address any more."""
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_access_log_has_no_keys_and_no_features(store, shown):
    with Server(store.home) as server:
        headers = {"authorization": f"Bearer {shown['read']}", "x-forwarded-for": "1.2.3.4, 5.6.7.8"}
        httpx2.get(f"{server.url}/v1/online/shop/spend", params={"user_id": "2"}, headers=headers)
        httpx2.get(f'{server.url}/no"thing%0A', headers=headers)
        server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if "readyz" not in line]
    assert [
        (line["client"], line["token"], line["method"], line["path"], line["status"], line["keys"]) for line in lines
    ] == [
        ("5.6.7.8", "read", "GET", "/v1/online/shop/spend", 200, 1),
        ("5.6.7.8", None, "GET", '/no"thing\n', 404, 0),
    ]
    assert set(lines[0]) == {"time", "client", "token", "method", "path", "status", "ms", "keys"}
    assert not any(secret in server.log.read_text() for secret in ("user_id", "spent", *shown.values()))


def test_not_ready_while_the_registry_or_a_store_cannot_be_read(tmp_path, valkey_url):
    valkey = Valkey(tmp_path / "valkey").start()
    store = filled(tmp_path / "other", "shop", online_store=valkey.url)
    with Server(store.home, "--timeout", "3", env={"SEEKNAL_ONLINE_STORE": valkey.url}) as server:
        assert ask(server.url).status_code == 200
        valkey.kill()
        answer = httpx2.get(f"{server.url}/readyz", timeout=20)
        assert answer.status_code == 503
        failed = ask(server.url, timeout=20)
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        registry = store.home / "registry.db"
        registry.rename(store.home / "gone")
        assert httpx2.get(f"{server.url}/readyz", timeout=20).status_code == 503
        assert not registry.exists()
        (store.home / "gone").rename(registry)
        valkey.start()  # with nothing in it
        assert httpx2.get(f"{server.url}/readyz", timeout=20).status_code == 503
        assert "Load it again: seeknal refresh shop/" in server.errors.read_text()
        store.groups.load("spend")
        assert httpx2.get(f"{server.url}/readyz", timeout=20).status_code == 200
        valkey.stop()


def test_spans_go_to_opentelemetry(tmp_path):
    got: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            got.append(request)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object):
            pass

    store = filled(tmp_path / "other", "shop")
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with Server(store.home, "--otel", env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as server:
            trace = "0af7651916cd43dd8448eb211c80319c"
            httpx2.get(
                f"{server.url}/v1/online/shop/spend",
                params={"user_id": 1},
                headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
            )
            server.stop()
        collector.shutdown()
    spans = [interval for one in got for r in one.resource_spans for s in r.scope_spans for interval in s.spans]
    (interval,) = [interval for interval in spans if "readyz" not in interval.name]
    assert (interval.name, interval.trace_id.hex()) == ("GET /v1/online/{project}/{table}", trace)
    assert "user_id" not in str(interval)


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(tmp_path):
    store = filled(tmp_path / "other", "shop")
    with socket.create_server(("127.0.0.1", 0)) as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        with Server(store.home, "--otel", env=env) as server:
            assert ask(server.url).status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=25) == 0  # the library would wait for 30 s


def test_a_spine_of_few_bytes_and_many_rows_is_refused(tmp_path):
    store = filled(tmp_path / "other", "shop")
    spine = pa.table({"user_id": [1] * 5, "at": [NOON] * 5})
    written = {"arrow": pa.BufferOutputStream(), "parquet": pa.BufferOutputStream()}
    with pa.ipc.new_stream(written["arrow"], spine.schema) as writer:
        writer.write_table(spine, max_chunksize=2)
    pq.write_table(spine, written["parquet"])
    query = {"lookups": [{"group": "spend"}], "date_col": "at"}
    with Server(store.home, "--max-spine-rows", "4") as server:
        for kind, sink in written.items():
            files = {"query": json.dumps(query), "spine": (kind, sink.getvalue().to_pybytes())}
            answer = httpx2.post(f"{server.url}/v1/historical/shop", files=files, timeout=30)
            assert answer.status_code == 413
            assert "The spine's 5 rows are over the limit of 4" in answer.json()["detail"]


def test_several_workers_answer_and_count_together_and_a_dead_one_is_replaced(store, shown):
    with Server(store.home, "--workers", "2") as server:
        before = set(server.workers)
        for _ in range(30):
            assert ask(server.url, token=shown["read"]).status_code == 200

        def counted() -> str:
            return httpx2.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {shown['admin']}"}).text

        wait_for(lambda: 'seeknal_online_keys_total{project="shop",table="spend"} 30.0' in counted())
        os.kill(next(iter(before)), signal.SIGKILL)
        wait_for(lambda: len(set(server.workers) - before) >= 1, 120)
        wait_for(lambda: ask(server.url, token=shown["read"]).status_code == 200)
        assert "died" in server.errors.read_text()
        assert server.stop() == 0


def test_a_server_whose_working_folder_is_gone_replaces_its_workers_and_ends(store, shown, tmp_path, monkeypatch):
    place = tmp_path / "old release"
    place.mkdir()
    monkeypatch.chdir(place)
    server = Server(store.home, "--workers", "2").start()
    monkeypatch.chdir(tmp_path)
    try:
        place.rmdir()
        before = set(server.workers)
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(set(server.workers) - before) > 0, 120)
        wait_for(lambda: ask(server.url, token=shown["read"]).status_code == 200)
        assert server.stop() == 0
    finally:
        server.__exit__()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_told_to_renew_its_workers_while_it_starts_goes_on(store, shown, workers):
    server = Server(store.home, "--workers", workers)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.1):
            if server.process and b"SigIgn" in (status := Path(f"/proc/{server.process.pid}/status").read_bytes()):
                ignored = int(re.search(rb"SigIgn:\s*(\w+)", status)[1], 16)
                if ignored >> (signal.SIGHUP - 1) & 1:  # Python itself has begun
                    server.process.send_signal(signal.SIGHUP)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        server.start()
        assert ask(server.url, token=shown["read"]).status_code == 200
    finally:
        stop.set()
        renewing.join()
        server.__exit__()


def keys_counted(server: Server) -> float:
    found = text_string_to_metric_families(httpx2.get(f"{server.url}/metrics").text)
    keys = [one for family in found for one in family.samples if one.name == "seeknal_online_keys_total"]
    return sum(one.value for one in keys if one.labels == {"project": "shop", "table": "spend"})


def test_counts_need_no_files_and_outlive_their_workers(tmp_path):
    store = filled(tmp_path / "home", "shop")
    (tmp_path / "passing").mkdir()
    with Server(store.home, "--workers", "2", env={"TMPDIR": str(tmp_path / "passing")}) as server:
        for _ in range(20):
            assert ask(server.url).status_code == 200
        wait_for(lambda: keys_counted(server) == 20)
        assert not list((tmp_path / "passing").iterdir())
        (tmp_path / "passing").rmdir()
        for end in (
            lambda _: server.process.send_signal(signal.SIGHUP),
            lambda pids: os.kill(min(pids), signal.SIGKILL),
        ):
            before = set(server.workers)
            end(before)
            wait_for(lambda before=before: len(set(server.workers) - before) > 0, 120)
            wait_for(lambda: keys_counted(server) == 20)
        wait_for(lambda: ask(server.url).status_code == 200)
        wait_for(lambda: keys_counted(server) >= 21)


def test_ages_that_take_long_to_compute_are_the_previous_ones():
    go, rounds = threading.Event(), iter(range(9))

    def find():
        number = next(rounds)
        if number == 1:
            assert go.wait(60)
        yield Freshness("shop", "spend", number, number, is_behind=False)

    async def run():
        ages = Ages(find)
        request = Request({"headers": [], "method": "GET", "path": "/metrics"}, None, Limits())
        assert [(await ages.get(request))[0].newest for _ in range(3)] == [0, 0, 0]
        go.set()
        while (await ages.get(request))[0].newest != 1:
            pass
        assert (await ages.get(request))[0].newest == 1  # it rests, since it took long
        ages.close()

    asyncio.run(run())


def test_workers_end_with_the_first_process_however_it_ends(tmp_path):
    store = filled(tmp_path / "home", "shop")
    with Server(store.home, "--workers", "2") as server:
        port, workers = int(server.url.rpartition(":")[2]), server.workers
        assert len(workers) == 2
        server.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))
        socket.create_server(("127.0.0.1", port)).close()


def test_tables_beyond_those_opened_at_the_start_are_opened_when_they_are_asked_for(tmp_path):
    store = filled(tmp_path / "home", "shop")
    for i in range(30):
        store.tables.serve([FeatureLookup("shop/spend")], f"z{i:02}")
    with Server(store.home) as server:
        for i in range(30):
            answer = httpx2.get(f"{server.url}/v1/online/shop/z{i:02}?user_id=1")
            assert answer.json() == {"rows": [{"user_id": 1, "spent": 10}]}
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
        LmdbStore(store.home / "online").drop("shop/spend/1")  # behind the back of the registry
        assert httpx2.get(f"{server.url}/readyz").status_code == 503


def test_lines_of_several_workers_stay_whole():
    long = [b"x" * size + b"\n" for size in (100, 4000, 90, 4095, 1, 2000, 2000, 2000)]
    pieces = list(_pieces(long))
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces) == b"".join(long)
