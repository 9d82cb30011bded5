"""Homes created by earlier code can be opened, return the same results as then, and can be used further; see `scripts/make_home.py`."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import httpx2
import pyarrow as pa
import pytest

from commands import seeknal
from contract.world import HOUR, NOON
from seeknal import FeatureGroupDuckDB, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB
from seeknal.errors import NotOnlineError
from seeknal.home.backup import backup, restore
from seeknal.home.doctor import examine
from servers import Server

FOLDER = Path(__file__).parent / "homes"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]


@pytest.fixture(params=NAMES)
def made(request, home) -> dict:
    """The expected contents of a stored home, which replaces the test's own home."""
    with tarfile.open(FOLDER / f"{request.param}.tar.gz") as archive:
        archive.extractall(home.parent, filter="data")
    (home.parent / request.param).rename(home)
    made = json.loads((FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))
    if load_again():
        del made["answers"]["both"]  # a table that is refreshed moves on to the newest version
    return made


def load_again() -> bool:
    """Load the online rows again as the errors advise, if their format is no longer read: until commit 340662d it lacked their owner.

    Returns:
        Whether anything had to be done.
    """
    did = False
    while True:
        try:
            FeatureStore().tables.open("both").get_features([{"user_id": 1}], "dicts")
        except NotOnlineError as error:
            command = re.search(r"run: seeknal (refresh [\w/]+)", str(error))[1]
            done = seeknal(*command.split())
            assert done.returncode == 0, done.stderr
            did = True
        else:
            return did


@pytest.fixture
def answers(monkeypatch):
    """Return the functions that read everything from a home."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import make_home

    return make_home.answers


def group(name: str) -> FeatureGroupDuckDB:
    return FeatureGroupDuckDB(name, project="shop").get_or_create()


def test_there_is_a_home_of_each_format():
    assert len(NAMES) >= 7
    assert all((FOLDER / f"{name}.tar.gz").stat().st_size < 50_000 for name in NAMES)


def test_a_home_returns_what_the_earlier_code_read(made, answers):
    found = answers()
    assert {label: found[label] for label in made["answers"]} == made["answers"]


def test_a_home_is_intact_and_its_online_tables_are_verified(made):
    store = FeatureStore()
    assert [found for found in wrong(store) if "They are set by the next write" not in found] == []
    assert seeknal("refresh").returncode == 0  # tables did not move on with their groups once
    assert_parity(store)


def wrong(store: FeatureStore) -> list[str]:
    return [f"{one.what}: {one.found}" for one in examine(store) if not one.fine and one.what != "free disk"]


def assert_parity(store: FeatureStore) -> None:
    for table in store.core.registry.tables():
        found = store.tables.verify(table.name, project=table.project)
        assert found.equal, str(found)


def test_a_home_can_be_written_pushed_to_and_served_again(made, answers):
    store = FeatureStore()
    before = answers()
    spend, names = group("spend"), [field.name for field in store.groups.version("spend").schema.features]

    def rows(hour: int, x: int) -> pa.Table:
        more = {"y": pa.array([0.5])} if "y" in names else {}
        return pa.table({"user_id": [7], "at": [NOON + hour * HOUR], "x": [x], **more})

    first = spend.set_dataframe(rows(9, 70)).set_features(names).write(mode="append")
    assert spend.push(rows(10, 71)).rows == 1
    then = spend.set_dataframe(rows(10, 72)).set_features(names).write(mode="merge")
    assert (then.version, then.snapshot > first.snapshot) == (first.version, True)
    table = HistoricalFeaturesDuckDB([FeatureLookup(spend)]).serve("again")
    assert [row["x"] for row in table.get_features([{"user_id": 7}, {"user_id": 3}], "dicts")] == [72, 5]
    saved = HistoricalFeaturesDuckDB([FeatureLookup(spend)]).save("later")
    assert saved.reproduce("arrow").num_rows == len(before["spend now"]) + 2
    assert store.groups.erase("spend", {"user_id": 7}, delete_training_sets=True).rows == 2
    assert answers()["spend now"] == before["spend now"]
    for name in ("spend", "kinds", "visits"):
        store.groups.optimize(name, keep_days=0)
    after = answers()
    for label in made["answers"].keys() - {"both"}:  # which moves to the current version with the write
        assert after[label] == made["answers"][label], label
    assert [found for found in wrong(store) if found.startswith("shop/spend")] == []
    assert_parity(store)


def test_a_home_can_be_backed_up_and_restored(made, answers, tmp_path, monkeypatch):
    backup(FeatureStore(), tmp_path / "saved")
    restore(tmp_path / "saved", FeatureStore(tmp_path / "other"))
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "other"))
    found = answers()
    assert {label: found[label] for label in made["answers"]} == made["answers"]


def test_a_server_on_a_home_answers(made, home, answers):
    headers = {"authorization": f"Bearer {made['token']}"} if made["token"] else {}
    with Server(home) as server:
        answer = httpx2.post(f"{server.url}/v1/online/shop/both", json={"keys": [{"user_id": 3}]}, headers=headers)
    assert answer.status_code == 200
    (row,) = answer.json()["rows"]
    assert {name: repr(value) for name, value in row.items()} == answers()["both"][2]
