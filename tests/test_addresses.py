"""Addresses of Redis: no password is stored or shown, and what an address cannot mean is refused."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from commands import seeknal
from contract.world import HOUR, NOON, group, rows, write
from seeknal import DefinitionError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, StoreError
from seeknal.config import checked_store
from seeknal.system.redis_url import problem
from seeknal.system.urls import shown
from servers import Valkey, cluster, free_port

SECRET = "hunter2"
WITH_SECRET = [
    f"redis://:{SECRET}@host:1/0",
    f"redis://me:{SECRET}@host:1/0",
    f"redis://host:1/0?password={SECRET}",
    f"redis://host:1/0?username=me&password={SECRET}&db=1",
    f"redis://host:1/0?pass%77ord={SECRET}",
    f"rediss://host:1/0?ssl_password={SECRET}",
]


@pytest.mark.parametrize("url", WITH_SECRET)
def test_a_password_anywhere_in_an_address_is_neither_stored_nor_shown(url, home, monkeypatch):
    write(group(), rows(1))
    assert SECRET not in shown(url)
    with pytest.raises(DefinitionError, match="would put a password into the registry") as caught:
        HistoricalFeaturesDuckDB([FeatureLookup("spend")]).serve("other", target=url)
    assert SECRET not in str(caught.value)
    assert SECRET.encode() not in (home / "registry.db").read_bytes()
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", url)
    assert SECRET not in seeknal("info").stdout


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host:1/0?nonsense=1", "no parameter 'nonsense'. There are: "),
        ("redis://host:1/0?sockettimeout=1", "Did you mean 'socket_timeout'?"),
        ("redis://host:1/0?decode_responses=true", "no parameter 'decode_responses'"),
        ("redis://host:1/0?ssl_ca_certs=a", "no parameter 'ssl_ca_certs' but with rediss://"),
        ("redis://host:1/0?socket_timeout=soon", "socket_timeout='soon' is not a valid number"),
        ("redis://host:1/0?socket_timeout=-1", "socket_timeout='-1' is not a valid number"),
        ("redis://host:1/0?max_connections=", "max_connections='' is not a valid number"),
        ("redis://host:1/orders", "the database 'orders' is not a number"),  # which redis-py takes for database 0
        ("redis://host:1/1/2", "the database '1/2' is not a number"),  # and this for database 12
        ("redis://host:1/0#1", "everything after # would be ignored"),
        ("redis://host:0/0", "its port is 0"),
        ("http://host:1", "only redis:// and rediss:// are supported"),
        (f"redis://:{SECRET}/x@host:1/0", "cannot be parsed"),
        (f"redis://:{SECRET}?x@host:1/0", "cannot be parsed"),
        (f"redis://host:1/0?passwd={SECRET}", "no parameter 'passwd'. Did you mean 'password'?"),
    ],
)
def test_an_invalid_address_is_refused_before_anything_is_done(url, reason, monkeypatch):
    with pytest.raises(DefinitionError) as caught:
        checked_store(url, "online_store")
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", url)
    answer = seeknal("lookup", "spending", "customer_id=1")
    assert reason in answer.stderr
    assert "This is a bug" not in answer.stderr
    assert SECRET not in answer.stderr


def test_valid_addresses_are_used_unchanged():
    for url in (
        "redis://host",
        "redis://host/",
        "redis://[::1]:6379/2",
        "rediss://me:p%40ss@host:6379/0?socket_timeout=0.2&ssl_ca_certs=/etc/ca.pem",
        *WITH_SECRET,
    ):
        assert problem(url) is None
        assert checked_store(url, "online_store") == url


def test_an_address_that_an_earlier_release_stored_is_shown_without_its_password(home):
    write(group(), rows(1))
    store = FeatureStore(home)
    store.tables.serve([FeatureLookup("spend")], "other")
    table = store.core.registry.tables(name="other")[0]
    url = f"redis://127.0.0.1:{free_port()}/0?password={SECRET}&nonsense=1"
    store.core.registry.save_table(type(table)(**{**vars(table), "target": url}), table)
    assert "password=***" in seeknal("show", "online-table", "other").stdout
    for command in (("show", "online-table", "other"), ("status",), ("lookup", "other", "user_id=1"), ("doctor",)):
        answer = seeknal(*command)
        assert SECRET not in answer.stdout + answer.stderr, command
        assert "This is a bug" not in answer.stdout + answer.stderr, command


PAGE = (Path(__file__).parent.parent / "docs/concepts/online-serving.md").read_text(encoding="utf-8")
WRITER, READER = re.findall(r"ACL SETUSER \S+ on >PASSWORD (.*)", PAGE)
CLUSTER = re.search(r"In a cluster both need `(.*?)`", PAGE)[1]


@pytest.fixture(params=["alone", pytest.param("cluster", marks=pytest.mark.slow)])
def servers(request, tmp_path):
    found = cluster(tmp_path / "cluster") if request.param == "cluster" else [Valkey(tmp_path / "valkey").start()]
    yield found
    for server in found:
        server.stop()


def url_of(servers: list[Valkey], user: str, rights: str) -> str:
    for server in servers:
        with server.client() as client:
            more = CLUSTER.split() if len(servers) > 1 else []
            client.execute_command("ACL", "SETUSER", user, "on", f">{SECRET}", *rights.split(), *more)
    return f"redis://{user}:{SECRET}@127.0.0.1:{servers[0].port}/0"


def test_the_documented_rights_suffice(servers, home):
    writing = FeatureStore(home, online_store=url_of(servers, "writer", WRITER))
    write(group(ttl=1000 * 365 * 24 * HOUR), rows(1))
    writing.tables.serve([FeatureLookup("spend")], "spending")
    writing.groups.push("spend", {"user_id": 2, "at": NOON, "x": 2})
    with warnings.catch_warnings(action="ignore"):
        write(group(ttl=1000 * 365 * 24 * HOUR), rows(5, 6, user=3), mode="append")
    writing.tables.refresh(full=True)
    writing.groups.erase("spend", {"user_id": 2})
    reading = FeatureStore(home, online_store=url_of(servers, "reader", READER))
    for store in (writing, reading):
        assert store.tables.verify("spending").equal
        asked = [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}]
        assert [row["x"] for row in store.tables.open("spending").get_features(asked, "dicts")] == [1, None, 6]
    with pytest.raises(StoreError, match=r"[Nn]o permissions"):
        reading.tables.refresh(full=True)
    writing.tables.delete("spending")
    for server in servers:
        with server.client() as client:
            assert [entry for entry in client.acl_log() if "writer" in str(entry)] == []
            assert not [key for key in client.keys("*") if not key.startswith(b"seeknal:")]


def test_the_error_names_the_rights_that_a_user_lacks(servers, home):
    write(group(), rows(1))
    store = FeatureStore(home, online_store=url_of(servers, "nobody", "~other:* +info +get"))
    with pytest.raises(StoreError, match=r"[Pp]ermissions"):
        store.tables.serve([FeatureLookup("spend")], "spending")
