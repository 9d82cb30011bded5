"""A registry that was switched to a write-ahead log is converted back, and is right as long as that is not possible."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from contract.world import rows, written
from seeknal import FeatureLookup, FeatureStore
from seeknal.home.backup import backup, restore
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.registry.tokens import Authenticator, Tokens
from servers import Server, wait_for


@contextmanager
def with_wal(file: Path) -> Iterator[sqlite3.Connection]:
    """Switch a database to a write-ahead log, as an operator might, and keep it open."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        connection.execute("SELECT count(*) FROM token").fetchone()
        yield connection


def mode(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


@pytest.fixture
def registry(home) -> SqliteRegistry:
    written(rows(1))
    return FeatureStore(home).core.registry


def test_every_change_shows_in_the_stamp_while_another_program_keeps_a_write_ahead_log(registry):
    token = Tokens(registry).create("a", "shop", ["read"])
    with with_wal(registry.path):
        before = registry.stamp()
        Tokens(registry).revoke("a")
        assert registry.stamp() != before
        assert Authenticator(registry.tokens(), may_be_open=True).find(token) is None
        Tokens(SqliteRegistry(registry.path)).create("b", "shop", ["read"])
        assert len(registry.tokens()) == 2
    assert registry.stamp() == registry.stamp()
    assert mode(registry.path) == "delete"
    assert [one.name for one in registry.tokens()] == ["a", "b"]


def test_a_registry_is_converted_when_it_is_opened(registry, tmp_path):
    with with_wal(registry.path):
        Tokens(registry).create("a", "shop", ["read"])
    SqliteRegistry(registry.path)
    assert mode(registry.path) == "delete"
    assert {path.name for path in registry.path.parent.glob("registry.db*")} == {"registry.db"}
    with with_wal(registry.path):
        Tokens(registry).create("b", "shop", ["read"])
        backup(FeatureStore(), tmp_path / "saved")
    restored = restore(tmp_path / "saved", FeatureStore(tmp_path / "restored")).home / "registry.db"
    assert (mode(restored), len(SqliteRegistry(restored).tokens())) == ("delete", 2)


def test_a_registry_that_was_copied_over_another_has_another_stamp(registry, tmp_path):
    saved = tmp_path / "saved.db"
    shutil.copy(registry.path, saved)
    before = registry.stamp()
    with saved.open("r+b") as file:
        counter = before[:4]
        file.seek(24)
        file.write(counter)  # the counters of two files can be equal by chance
    shutil.copy(saved, registry.path)
    os.utime(registry.path, ns=(1, 1))
    assert registry.stamp() != before


@pytest.mark.slow
def test_a_server_takes_no_revoked_token_and_each_new_one_whatever_the_journal(home, registry):
    FeatureStore(home).tables.serve([FeatureLookup("spend")], "serving")
    revoked = Tokens(registry).create("a", "shop", ["read"])

    def status(server: Server, token: str) -> int:
        url = f"{server.url}/v1/online/shop/serving?user_id=1"
        return httpx2.get(url, headers={"Authorization": f"Bearer {token}"}).status_code

    with Server(home) as server, with_wal(registry.path):
        assert status(server, revoked) == 200
        Tokens(registry).revoke("a")
        wait_for(lambda: status(server, revoked) == 401, 10)
        given = Tokens(registry).create("b", "shop", ["read"])
        wait_for(lambda: status(server, given) == 200, 10)
