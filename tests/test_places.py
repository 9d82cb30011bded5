"""A home is the same home under every path that leads to it, and needs neither a home folder of the user nor a working folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from contract.world import HOUR, NOON, rows, written
from seeknal import (
    Entity,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    SeeknalWarning,
    config,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.errors import DefinitionError
from seeknal.online import connect
from seeknal.serve.open_tables import ServedTable

pytestmark = pytest.mark.slow

SEEKNAL = [sys.executable, "-c", "from seeknal.cli import main; main()"]


def test_two_paths_to_one_home_are_one_home(home, tmp_path, monkeypatch):
    fg = written(rows(1))
    FeatureStore(home).tables.serve([FeatureLookup(fg)], "serving")
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "parent").symlink_to(tmp_path)
    stores = [FeatureStore(path) for path in (home, tmp_path / "link", tmp_path / "parent" / "home", f"{home}/../home")]
    assert {store.home for store in stores} == {home}
    tables = [store.tables.open("serving") for store in stores]
    for number, store in enumerate(stores):
        store.groups.push("spend", {"user_id": 1, "at": NOON + (1 + number) * HOUR, "x": number})
        answers = [table.get_features([{"user_id": 1}], "dicts")[0]["x"] for table in tables]
        assert answers == [number] * len(stores)
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "link"))
    other = written(rows(2), name="other")
    both = HistoricalFeaturesDuckDB([FeatureLookup(fg), FeatureLookup(other, rename={"x": "y"})])
    assert both.serve("both").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 3, "y": 2}]


def test_two_paths_to_one_folder_of_online_rows_are_one_store(home, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    written(rows(1))
    store = FeatureStore(home)
    for number, name in enumerate(("real", "link")):
        store.tables.serve([FeatureLookup("spend")], name, target=tmp_path / name)
        store.groups.push("spend", {"user_id": 1, "at": NOON + (1 + number) * HOUR, "x": 10 + number})
        assert OnlineFeaturesDuckDB(name).get_features([{"user_id": 1}], "dicts")[0]["x"] == 10 + number
    assert {table.target for table in store.core.registry.tables()} == {"", str(tmp_path / "real")}


@pytest.fixture(params=["folder", "redis"])
def names(request, tmp_path) -> tuple[str, str]:
    """Two names of one online store."""
    if request.param == "folder":
        (tmp_path / "rows").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "rows")
        return str(tmp_path / "rows"), str(tmp_path / "link")
    url = request.getfixturevalue("valkey_url")
    address, _, database = url.rpartition("/")
    return url, f"{address.replace('127.0.0.1', 'localhost')}?db={database}&socket_timeout=4"


def defined(ttl: timedelta | None = None) -> FeatureGroup:
    return FeatureGroup("spend", Entity("user", ["user_id"]), Materialization("at", ttl=ttl), "shop")


@pytest.fixture(params=["the default one is named", "two targets", "the settings changed", "earlier release"])
def two(request, home, names) -> tuple[FeatureStore, ServedTable, ServedTable]:
    """A home in which two tables are in one online store by two names: "a" pinned and with a long ttl, "b" with the group's own."""
    of_default = FeatureStore(home, online_store=names[0])
    of_default.groups.write(defined(timedelta(days=2)), rows(1, times=[datetime.now(UTC) - timedelta(days=10)]))
    store, target = (FeatureStore(home), names[0]) if request.param == "two targets" else (of_default, None)
    if request.param == "the settings changed":
        FeatureStore(home).tables.serve([FeatureLookup("spend")], "b", target=names[1])
    store.tables.serve([FeatureLookup("spend", version=1)], "a", target=target, ttl=timedelta(days=5000))
    if request.param != "the settings changed":
        store.tables.serve([FeatureLookup("spend")], "b", target=names[1])
    if request.param == "earlier release":  # which kept the target as it was given
        with closing(sqlite3.connect(home / "registry.db")) as registry, registry:
            registry.execute("UPDATE online_table SET target = ? WHERE name = 'b'", [names[1]])
            registry.execute("UPDATE load SET target = ? WHERE id > 1", [names[1]])
    return store, store.tables.open("a"), store.tables.open("b")


def x_of(table: ServedTable, user: int = 1) -> int | None:
    return table.get_features([{"user_id": user}], "dicts")[0]["x"]


def test_tables_in_one_online_store_by_two_names_do_not_take_their_rows_from_each_other(two, names):
    store, a, b = two
    assert (x_of(a), x_of(b)) == (1, None)
    store.tables.refresh(["b"])
    assert x_of(a) == 1
    with pytest.warns(SeeknalWarning, match="is now at version 2"):
        store.groups.write(defined(timedelta(days=2)), rows(2, y=[1], times=[datetime.now(UTC)]), mode="append")
    store.tables.refresh(["b"])
    assert (x_of(a), x_of(b)) == (1, 2)
    store.tables.serve([FeatureLookup("spend", version=1)], "c", target=names[1])
    store.tables.delete("c")
    assert (x_of(a), x_of(b), store.tables.verify("a").equal, store.tables.verify("b").equal) == (1, 2, True, True)
    assert [line.version for line in store.groups.load_statuses("spend")] == [1, 2]
    assert store.groups.erase("spend", {"user_id": 1}).online == 1
    for name in "ab":
        store.tables.delete(name)
    assert store.groups.loads("spend") == []
    for version in (1, 2):
        with pytest.raises(KeyError):
            connect(names[0]).get(f"shop/spend/{version}", [])


def test_intervals_requested_under_one_name_of_a_store_stay_when_another_name_is_used(home, names):
    far, near = FeatureStore(home), FeatureStore(home, online_store=names[0])
    far.groups.write(defined(), pa.concat_tables([rows(1), rows(2, user=2)]))
    table = far.tables.serve([FeatureLookup("spend")], "table", target=names[1])
    with pytest.warns(SeeknalWarning, match="is now at version 2"):
        near.groups.write(defined(), rows(3, user=2, y=[1], times=[NOON + HOUR]), mode="append")
    near.tables.serve([FeatureLookup("spend")], "other")
    near.groups.push("spend", {"user_id": 2, "at": NOON + 2 * HOUR, "x": 4, "y": 1})
    assert (x_of(table), x_of(table, 2)) == (1, 4)
    far.groups.push("spend", {"user_id": 2, "at": NOON + 3 * HOUR, "x": 5, "y": 1})
    assert (x_of(table), x_of(table, 2)) == (x_of(near.tables.open("other")), x_of(near.tables.open("other"), 2))
    assert (x_of(table), x_of(table, 2), far.tables.verify("table").equal) == (1, 5, True)


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(DefinitionError, match="cannot be the path of a folder"):
        FeatureStore(tmp_path / "one")


USE = """
import os, pandas as pd
from seeknal import *
fg = FeatureGroupDuckDB("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
fg.set_dataframe(pd.DataFrame({"user_id": [1], "at": pd.to_datetime(["2024-05-01"]), "x": [1]})).write()
features = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
table = features.serve("serving")
FeatureStore().groups.push("spend", {"user_id": 1, "at": "2024-05-02", "x": 2})
features.save("may")
TrainingSet.load("may").reproduce()
print(features.to_dataframe()["x"].tolist(), table.get_features([{"user_id": 1}], "dicts"), table.verify().equal)
"""
USED = "[1, 2] [{'user_id': 1, 'x': 2}] True\n"


def run(*command: str, folder: Path, deleted: bool = False, **env: str):
    """Run a command in a folder, which may be deleted before, in an environment that names no home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEEKNAL_") and name != "HOME"}
    begin = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"] if deleted else []
    folder.mkdir(exist_ok=True)
    return subprocess.run([*begin, *command], capture_output=True, text=True, check=False, cwd=folder, env=kept | env)


@pytest.fixture
def unknown():
    """Return the command prefix that runs a command as a user without an entry in passwd."""
    command = ("unshare", "--user", "--map-user=54321")
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no right to become a user that nothing is known of")
    return command


def test_a_user_without_a_home_folder_needs_only_a_named_home(home, tmp_path, unknown):
    here = tmp_path / "here"
    done = run(*unknown, sys.executable, "-c", USE, folder=here, SEEKNAL_HOME=str(home))
    assert (done.stdout, done.returncode) == (USED, 0), done.stderr
    for command in (("info",), ("doctor",), ("lookup", "serving", "user_id=1")):
        done = run(*unknown, *SEEKNAL, *command, folder=here, SEEKNAL_HOME=str(home))
        assert done.returncode == 0, done.stderr
    done = run(*unknown, *SEEKNAL, "info", folder=here)
    told = "Error: This user has no home folder, so there is no ~/.seeknal. Set SEEKNAL_HOME.\n"
    assert (done.returncode, done.stderr) == (1, told)
    (here / "seeknal.toml").write_text(f"home = '{home}'")
    assert run(*unknown, *SEEKNAL, "info", folder=here).returncode == 0


def test_a_deleted_folder_is_named_and_a_named_home_works_in_it(home, tmp_path):
    there = {"folder": tmp_path / "gone", "deleted": True}
    done = run(sys.executable, "-c", USE, **there, SEEKNAL_HOME=str(home))
    assert (done.stdout, done.returncode) == (USED, 0), done.stderr
    for command in (("info",), ("doctor",), ("lookup", "serving", "user_id=1"), ("verify", "serving")):
        done = run(*SEEKNAL, *command, **there, SEEKNAL_HOME=str(home))
        assert done.returncode == 0, done.stderr
    for command, env in ((("info",), {}), (("init",), {}), (("info",), {"SEEKNAL_HOME": "relative"})):
        done = run(*SEEKNAL, *command, **there, **env)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        assert "This is a bug" not in done.stderr
        assert done.stderr.count("\n") == 1
        assert "SEEKNAL_HOME" in done.stderr or "folder" in done.stderr


def test_a_folder_that_may_not_be_searched_is_named_and_a_named_home_works_in_it(home, tmp_path, unknown):
    closed = tmp_path / "closed"
    closed.mkdir()
    code = "import os; os.chmod('..', 0); from seeknal import config; print(config.load().home)"
    command = [*unknown, sys.executable, "-c", code]
    done = run(*command, folder=closed / "here", SEEKNAL_HOME=str(home))
    assert (done.stdout, done.returncode) == (f"{home}\n", 0), done.stderr
    closed.chmod(0o700)
    done = run(*command, folder=closed / "here", HOME=str(tmp_path))
    closed.chmod(0o700)
    assert "The search for seeknal.toml failed" in done.stderr.splitlines()[-1]


def test_settings_of_a_named_home_are_still_those_of_the_folder(home):
    Path("seeknal.toml").write_text("lookback_days = 3")
    assert (config.load().home, config.load().lookback_days) == (home, 3)
