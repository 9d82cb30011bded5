"""A home has an identity of its own, and rows in a store that several homes can reach belong to one home."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

from commands import seeknal
from contract.world import HOUR, NOON, group, rows, write
from seeknal import FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, SeeknalWarning, StoreError
from seeknal.home.backup import backup, restore
from seeknal.online import Entries, LoadAttempt, connect
from seeknal.system.home_identity import identify

pytestmark = pytest.mark.slow

SPACE = "shop/spend/1"


@pytest.fixture(params=["redis", "folder"])
def place(request, tmp_path) -> str:
    """A store that several homes can reach."""
    return str(tmp_path / "shared") if request.param == "folder" else request.getfixturevalue("valkey_url")


@pytest.fixture
def production(home, place, monkeypatch) -> FeatureStore:
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", place)
    store = FeatureStore(home)
    write(group(), rows(1))
    store.tables.serve([FeatureLookup("spend")], "serving")
    return store


@pytest.fixture(params=["backup", "cp"])
def copy(request, production, tmp_path) -> FeatureStore:
    """A copy of production that was made at some time; production goes on."""
    folder = tmp_path / "staging"
    if request.param == "cp":
        shutil.copytree(production.home, folder)
    else:
        backup(production, tmp_path / "saved")
        restore(tmp_path / "saved", FeatureStore(folder))
    push(production, 2)
    return FeatureStore(folder)


def push(store: FeatureStore, x: int) -> None:
    store.groups.push("spend", {"user_id": 1, "at": NOON + x * HOUR, "x": x})


def online(store: FeatureStore) -> int:
    return store.tables.open("serving").get_features([{"user_id": 1}], "dicts")[0]["x"]


def states(place: str) -> dict[str, object]:
    return msgspec.msgpack.decode(connect(place).get(SPACE, [])[0])


def test_a_copy_of_a_home_changes_nothing_that_production_serves(production, copy, place):
    assert identify(copy.home).name != identify(production.home).name
    with pytest.raises(StoreError, match=r"stored offline, in snapshot 2, but not online: .*take-over"):
        push(copy, -9)
    for load in (
        lambda: copy.groups.load("spend"),
        copy.tables.refresh,
        lambda: copy.tables.serve([FeatureLookup("spend")], "another"),
    ):
        with pytest.raises(StoreError, match=r"to another home.* nothing was loaded over them"):
            load()
    copy.tables.verify("serving")
    copy.tables.delete("serving")
    copy.groups.delete("spend")
    assert (online(production), production.tables.verify("serving").equal) == (2, True)
    push(production, 3)
    assert online(production) == 3


def test_an_erasure_in_a_copy_of_a_home_leaves_what_production_serves(production, copy):
    with pytest.warns(SeeknalWarning, match=r"belong to another home .*left unchanged"):
        assert copy.groups.erase("spend", {"user_id": 1}).rows
    assert copy.groups.version("spend").rows == 0
    assert (online(production), production.tables.verify("serving").equal) == (2, True)
    with pytest.raises(StoreError, match="may hold entities that were erased since"):
        online(copy)


@pytest.mark.filterwarnings("ignore:What was pushed")  # of a thread, if it comes before the next call
def test_a_store_is_handed_over_by_an_explicit_command_alone(production, copy, home, monkeypatch):
    monkeypatch.setenv("SEEKNAL_HOME", str(copy.home))
    assert "to this home: seeknal refresh shop/serving --take-over.\n" in seeknal("refresh", "serving").stderr
    assert seeknal("refresh", "serving", "--take-over").returncode == 0
    assert (online(copy), copy.tables.verify("serving").equal) == (1, True)
    push(copy, 5)
    assert online(copy) == 5
    push(production, 6)  # is in the push log, from which it cannot be loaded, so the next one is committed at once
    production.groups.version("spend")
    with pytest.raises(StoreError, match=r"not online.*to another home"):
        push(production, 7)
    assert online(copy) == 5
    production.tables.refresh(["serving"], take_over=True)
    assert (online(production), production.tables.verify("serving").equal) == (7, True)


def test_a_home_without_a_table_takes_a_store_over_as_the_error_says(production, copy):
    copy.tables.delete("serving")
    for load in (lambda: copy.groups.load("spend"), lambda: copy.tables.serve([FeatureLookup("spend")], "serving")):
        with pytest.raises(
            StoreError, match=r"to another home.* to this home: in Python, serve\(\.\.\., take_over=True\)\.$"
        ):
            load()
    copy.tables.serve([FeatureLookup("spend")], "serving", take_over=True)
    push(copy, 5)
    assert (online(copy), copy.tables.verify("serving").equal) == (5, True)
    with pytest.raises(
        StoreError, match=r"to another home.* to this home: seeknal refresh shop/serving --take-over\.$"
    ):
        production.groups.load("spend")


def test_a_group_that_was_made_again_is_served_over_what_an_older_dump_has_of_the_first(production, place):
    store = connect(place)
    text, values = store.get(SPACE, keys := sorted(store.keys(SPACE)))
    production.tables.delete("serving")
    production.groups.delete("spend")
    again = group()
    write(again, rows(2))
    store.replace(SPACE, [LoadAttempt([Entries(keys, values)], None, text)])
    features = HistoricalFeaturesDuckDB([FeatureLookup(again)])
    with pytest.raises(StoreError, match=r"to a deleted group.*: in Python, serve\(\.\.\., take_over=True\)\.$"):
        features.serve("serving")
    features.serve("serving", take_over=True)
    assert (online(production), production.tables.verify("serving").equal) == (2, True)
    push(production, 3)
    assert online(production) == 3


def test_a_restore_that_is_to_take_the_place_of_the_home_takes_its_store_over(production, tmp_path):
    backup(production, tmp_path / "saved")
    production.home.rename(tmp_path / "lost")
    restored = restore(tmp_path / "saved", FeatureStore(tmp_path / "new"))
    assert [one.commands for one in restored.elsewhere] == [("seeknal refresh shop/serving --take-over",)]
    restore(tmp_path / "saved", FeatureStore(tmp_path / "newer"), load_shared=True)
    push(newer := FeatureStore(tmp_path / "newer"), 4)
    assert (online(newer), newer.tables.verify("serving").equal) == (4, True)


def test_a_home_that_is_renamed_keeps_its_store(production, tmp_path):
    name = identify(production.home)
    production.home.rename(tmp_path / "renamed")
    push(renamed := FeatureStore(tmp_path / "renamed"), 3)
    assert (online(renamed), identify(renamed.home)) == (3, name)


def test_rows_that_an_early_release_loaded_are_of_the_home_that_goes_on_and_of_no_copy(production, place, tmp_path):
    def as_before() -> None:
        store = connect(place)
        text, _ = store.get(SPACE, [])
        early = {key: value for key, value in msgspec.msgpack.decode(text).items() if key not in ("home", "doubted")}
        store.change(SPACE, text, msgspec.msgpack.encode(early), Entries([], []))

    backup(production, tmp_path / "saved")
    restore(tmp_path / "saved", copy := FeatureStore(tmp_path / "staging"))
    as_before()
    with pytest.raises(StoreError, match="to another home"):
        copy.groups.load("spend")
    push(production, 2)
    assert (online(production), states(place)["home"]) == (2, identify(production.home).name)


def test_a_damaged_identity_is_an_error_that_says_what_to_do(production):
    (production.home / "identity.json").write_text("{")
    with pytest.raises(StoreError, match="If it is damaged, remove it"):
        production.groups.load("spend")
    (production.home / "identity.json").unlink()
    production.tables.refresh(["serving"], take_over=True)
    assert production.tables.verify("serving").equal


def test_one_home_used_by_several_processes_at_once_has_one_identity(tmp_path: Path):
    (tmp_path / "home").mkdir()
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        assert len(set(pool.map(identify, [tmp_path / "home"] * 40))) == 1


def test_only_a_store_that_others_can_reach_needs_an_identity(home):
    write(group(), rows(1))
    FeatureStore(home).groups.load("spend")
    assert not (home / "identity.json").exists()
    assert states(str(home / "online"))["home"] == ""
