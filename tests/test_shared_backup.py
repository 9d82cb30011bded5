"""Backups of a store whose tables are in an object store and whose registry is in PostgreSQL, and restores to such services."""

from __future__ import annotations

import json

import pytest

import busy
from commands import seeknal
from seeknal import DefinitionError, FeatureStore, StoreError, config
from seeknal.home.backup import backup, restore
from seeknal.home.doctor import examine
from seeknal.home.move import move
from test_backup import furnish, state

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]


@pytest.fixture
def services(s3: str, postgres_url: str) -> dict[str, str]:
    """An object store and a database, as the arguments of a store."""
    return {"storage": s3, "registry": postgres_url}


def same(before: dict[str, object], after: dict[str, object]) -> bool:
    """Return whether two stores give the same answers; their entities have ids of their own."""
    return [what for what, value in before.items() if after[what] != value] == []


@pytest.mark.parametrize("names", [("storage", "registry"), ("storage",), ("registry",)], ids=" and ".join)
def test_a_backup_of_a_shared_store_is_restored_to_a_folder_and_to_services(
    home, services, names, tmp_path, monkeypatch
):
    furnish()
    before = state(FeatureStore())
    used = {name: services[name] for name in names}
    move(config.load(), **used)
    shared = FeatureStore(home, **used)
    done = backup(shared, tmp_path / "saved")
    assert (done.groups, done.training_sets) == (3, 2)
    shared.close()
    in_folder = FeatureStore(tmp_path / "folder")
    restored = restore(tmp_path / "saved", in_folder)
    assert (restored.groups, restored.training_sets, restored.elsewhere) == (3, 2, ())
    assert same(before, state(in_folder))
    busy.check(in_folder.home)
    fresh = {"storage": f"{services['storage']}/again", "registry": f"{services['registry']}_again"}
    for name in names:  # as operators do; other tests give them as arguments
        monkeypatch.setenv(f"SEEKNAL_{name.upper()}", fresh[name])
    again = FeatureStore(tmp_path / "again")
    restored = restore(tmp_path / "saved", again)
    assert (restored.groups, restored.training_sets) == (3, 2)
    assert same(before, state(again))
    assert again.groups.push("visits", {"user_id": 9, "at": "2024-02-01", "x": "v"}).rows == 1
    assert not (again.home / "moved").exists()
    with pytest.raises(DefinitionError, match=r"has a (store|registry) already, and a restore replaces nothing"):
        restore(tmp_path / "saved", FeatureStore(tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_a_restore_to_services_that_do_not_answer_leaves_nothing(home, services, tmp_path):
    furnish()
    backup(FeatureStore(), tmp_path / "saved")
    away = FeatureStore(tmp_path / "away", registry="postgresql://127.0.0.1:1/x")
    with pytest.raises(StoreError, match="cannot be reached"):
        restore(tmp_path / "saved", away)
    assert not (tmp_path / "away").exists()


def test_a_restore_that_ends_before_the_home_is_moved_is_completed_by_a_move(home, services, tmp_path, monkeypatch):
    furnish()
    before = state(FeatureStore())
    backup(FeatureStore(), tmp_path / "saved")
    target = FeatureStore(tmp_path / "target", **services)

    def interrupt(step: str) -> None:
        if step.startswith("Copying to s3://"):
            raise StoreError("The network is gone.")

    with pytest.raises(
        StoreError,
        match=r"is restored to .*target, but not moved: The network is gone\. Run seeknal move --storage s3://",
    ):
        restore(tmp_path / "saved", target, on_progress=interrupt)
    with pytest.raises(StoreError, match="Run seeknal move again"):
        target.groups.all()
    move(target.settings, **services)
    assert same(before, state(target))


def findings(store: FeatureStore) -> dict[str, str]:
    """Return what `seeknal doctor` finds wrong."""
    return {one.what: one.found for one in examine(store) if not one.fine}


def test_doctor_names_a_registry_that_cannot_be_reached_or_does_not_belong_to_the_storage(
    home, services, tmp_path, monkeypatch
):
    furnish()
    move(config.load(), **services)
    shared = FeatureStore(home, **services)
    assert findings(shared) == {}
    monkeypatch.setenv("SEEKNAL_REGISTRY", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("SEEKNAL_STORAGE", services["storage"])
    done = seeknal("doctor", "--format", "json")
    told = {one["what"]: one["found"] for one in json.loads(done.stdout) if not one["fine"]}
    assert (done.returncode, list(told)) == (1, ["storage", "registry"])
    assert "cannot be reached" in told["registry"]
    other = FeatureStore(tmp_path / "other", storage=services["storage"], registry=f"{services['registry']}_other")
    assert findings(other)["storage"].startswith(f"{services['storage']} belongs to another home")
    elsewhere = FeatureStore(
        tmp_path / "elsewhere", storage=f"{services['storage']}/elsewhere", registry=services["registry"]
    )
    assert "is that of another home, whose tables lie elsewhere" in findings(elsewhere)["registry"]


def test_doctor_finds_tables_and_a_registry_that_are_not_of_one_moment(home, services):
    furnish()
    move(config.load(), **services)
    shared = FeatureStore(home, **services)
    root = shared.core.catalog.offline("shop", "visits").root
    last = shared.core.registry.last_snapshot(shared.groups.get("visits"))
    (root / "_delta_log" / f"{last:020}.json").unlink()  # as if the bucket had been brought back to an earlier moment
    spend = shared.core.catalog.offline("shop", "spend")
    shared.core.storage.store.client.delete([f"{spend.location.key}/current.json"])
    wrong = findings(FeatureStore(home, **services))
    assert f"ends with snapshot {last - 1}, and the registry knows its snapshot {last}" in wrong["group shop/visits"]
    assert "its table is not in s3://" in wrong["group shop/spend"]
