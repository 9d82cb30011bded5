"""Moving a registry between a file and PostgreSQL: all rows, or an error and none."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from sqlalchemy import text

from commands import seeknal
from contract.world import HOUR, NOON, group, python, rows, seen, write, written
from seeknal import Count, DefinitionError, Entity, EventSource, FeatureLookup, FeatureStore, StoreError, WindowedGroup
from seeknal.home.backup import backup, restore
from seeknal.home.migration import migrate_registry
from seeknal.registry import open_registry
from seeknal.registry.postgres.implementation import PostgresRegistry
from seeknal.registry.sql.copying import content_of
from seeknal.system.storage import Address

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]


@pytest.fixture
def full(home) -> FeatureStore:
    """A store with rows in every table of its registry."""
    written(rows(1, 2))
    write(group(), rows(3, extra=["a"], times=[NOON + 9 * HOUR]), mode="append")
    store = FeatureStore(home)
    store.groups.erase("spend", {"user_id": 1})
    taps = EventSource("taps", event_time_col="at", event_id=["id"], project="shop")
    taps.set_dataframe(pa.table({"id": [1], "user_id": [1], "at": [NOON]})).write()
    store.groups.register(WindowedGroup("habits", Entity("user", ["user_id"]), taps, {"taps": Count(over="7d")}))
    store.tables.serve([FeatureLookup("spend")], "serving")
    store.tokens.create("ci", "shop", ["read"])
    fill = store.core.registry.take
    fill(lambda db: db.execute(text("INSERT INTO model VALUES ('shop', 'serving', 'm', 1, 't', NULL, 5)")), writes=True)
    pins = "'[]', '{\"kind\": \"history\"}', 1, 'hash', 0, 5, 'folder', NULL"
    fill(
        lambda db: db.execute(text(f"INSERT INTO training_set VALUES ('shop', 't', {pins})".replace(":", "\\:"))),
        writes=True,
    )
    return store


def test_a_registry_is_the_same_there_and_back(full, home, postgres_url, tmp_path, monkeypatch):
    before = full.core.registry.take(content_of)
    assert all(before.rows.values()), before.rows
    answer = seeknal("migrate-registry", str(home), postgres_url, "--format", "json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["sha256"], told["rows"]) == (before.sha256, sum(before.rows.values()))
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres_url)
    (home / "registry.db").rename(tmp_path / "set-aside.db")
    shared = FeatureStore(home)
    assert shared.core.registry.take(content_of) == before
    assert [one.label for one in shared.groups.all()] == ["shop/habits", "shop/spend", "shop/taps"]
    assert seen(group(), NOON + 10 * HOUR) == [None]
    write(group(), rows(4, extra=["b"], times=[NOON + 11 * HOUR]), mode="append")
    assert seen(group(), NOON + 12 * HOUR) == [4]
    changed = shared.core.registry.take(content_of)
    assert migrate_registry(postgres_url, str(home)).sha256 == changed.sha256
    monkeypatch.delenv("SEEKNAL_REGISTRY")
    assert FeatureStore(home).core.registry.take(content_of) == changed
    assert seen(group(), NOON + 12 * HOUR) == [4]


def test_a_migration_can_be_repeated_but_replaces_nothing(full, home, postgres_url):
    first = migrate_registry(str(home), postgres_url)
    assert migrate_registry(str(home), postgres_url) == first
    full.tokens.create("another", "shop", ["read"])
    with pytest.raises(
        DefinitionError, match=r"is not empty, and differs from the source in the numbers of rows of token"
    ):
        migrate_registry(str(home), postgres_url)
    full.core.registry.take(lambda db: db.execute(text("DELETE FROM token WHERE name = 'another'")), writes=True)
    assert migrate_registry(str(home), postgres_url) == first
    full.tokens.revoke("ci")
    with pytest.raises(DefinitionError, match="differs from the source in the values of rows"):
        migrate_registry(str(home), postgres_url)


def test_a_migration_that_is_killed_leaves_nothing_and_can_be_repeated(full, home, postgres_url):
    code = """
import os, signal, sys
from seeknal.home.migration import migrate_registry
from seeknal.registry.sql import copying
whole = copying.content_of
def kill(db):
    if db.dialect.name == "postgresql" and (found := whole(db)).rows["token"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(db)
copying.content_of = kill
migrate_registry(*sys.argv[1:])
"""
    with python(code, str(home), postgres_url) as process:
        assert process.wait() == -9, process.stderr.read()
    assert PostgresRegistry(postgres_url).take(content_of).is_empty
    assert migrate_registry(str(home), postgres_url).sha256 == full.core.registry.take(content_of).sha256


def test_text_that_postgresql_cannot_store_is_an_error_and_nothing_is_copied(full, home, postgres_url):
    nul = text("UPDATE feature_group SET description = :text")
    full.core.registry.take(lambda db: db.execute(nul, {"text": "what\0else"}), writes=True)
    with pytest.raises(DefinitionError, match=r"no text with a NUL character, and 'what\\x00else' has one"):
        migrate_registry(str(home), postgres_url)
    assert PostgresRegistry(postgres_url).take(content_of).is_empty


def test_a_migration_without_a_source_or_into_another_home_is_refused(full, home, postgres_url, tmp_path, monkeypatch):
    with pytest.raises(DefinitionError, match=r"There is no registry in .*nowhere"):
        migrate_registry(str(tmp_path / "nowhere"), postgres_url)
    with pytest.raises(DefinitionError, match="There is no registry in postgresql://"):
        migrate_registry(postgres_url, str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(DefinitionError, match=r"TO puts the registry in 'mysql://a'"):
        migrate_registry(str(home), "mysql://a")
    migrate_registry(str(home), postgres_url)
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres_url)
    with pytest.raises(StoreError, match="is that of another home"):
        FeatureStore(tmp_path / "other").groups.all()


def test_a_backup_of_a_home_with_a_shared_registry_has_its_registry_in_a_file(
    full, home, postgres_url, tmp_path, monkeypatch
):
    migrate_registry(str(home), postgres_url)
    (home / "registry.db").unlink()
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres_url)
    shared = FeatureStore(home)
    shared.core.registry.delete_training_set(shared.core.registry.training_sets()[0])  # it has no files
    backup(shared, tmp_path / "saved")
    with pytest.raises(DefinitionError, match="has a registry already, and a restore replaces nothing"):
        restore(tmp_path / "saved", FeatureStore(tmp_path / "restored"))
    monkeypatch.delenv("SEEKNAL_REGISTRY")
    restore(tmp_path / "saved", FeatureStore(tmp_path / "restored"))
    copied = open_registry(Address(tmp_path / "restored"))
    assert [one.label for one in copied.groups()] == [one.label for one in shared.groups.all()]
