"""A home is one home by whichever name it is reached, and needs neither a home folder of the user nor a folder to be in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.world import HOUR, NOON, rows, written
from seeknal import FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, OnlineFeaturesDuckDB, config
from seeknal.errors import DefinitionError

pytestmark = pytest.mark.slow

SEEKNAL = [sys.executable, "-c", "from seeknal.cli import main; main()"]


def test_a_home_by_two_names_is_one_home(home, tmp_path, monkeypatch):
    fg = written(rows(1))
    FeatureStore(home).serve([FeatureLookup(fg)], "serving")
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "parent").symlink_to(tmp_path)
    stores = [FeatureStore(path) for path in (home, tmp_path / "link", tmp_path / "parent" / "home", f"{home}/../home")]
    assert {store.home for store in stores} == {home}
    tables = [store.online_table("serving") for store in stores]
    for number, store in enumerate(stores):
        store.push("spend", {"user_id": 1, "at": NOON + (1 + number) * HOUR, "x": number})
        answers = [table.get_features([{"user_id": 1}], "dicts")[0]["x"] for table in tables]
        assert answers == [number] * len(stores)
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "link"))
    other = written(rows(2), name="other")
    both = HistoricalFeaturesDuckDB([FeatureLookup(fg), FeatureLookup(other, rename={"x": "y"})])
    assert both.serve("both").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 3, "y": 2}]


def test_a_folder_of_online_rows_by_two_names_is_one_store(home, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    written(rows(1))
    store = FeatureStore(home)
    for number, name in enumerate(("real", "link")):
        store.serve([FeatureLookup("spend")], name, target=tmp_path / name)
        store.push("spend", {"user_id": 1, "at": NOON + (1 + number) * HOUR, "x": 10 + number})
        assert OnlineFeaturesDuckDB(name).get_features([{"user_id": 1}], "dicts")[0]["x"] == 10 + number
    assert {table.target for table in store.registry.tables()} == {"", str(tmp_path / "real")}


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(DefinitionError, match="names no"):
        FeatureStore(tmp_path / "one")


USE = """
import os, pandas as pd
from seeknal import *
fg = FeatureGroupDuckDB("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
fg.set_dataframe(pd.DataFrame({"user_id": [1], "at": pd.to_datetime(["2024-05-01"]), "x": [1]})).write()
features = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
table = features.serve("serving")
FeatureStore().push("spend", {"user_id": 1, "at": "2024-05-02", "x": 2})
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
    """What runs a command as a user that has no entry in passwd."""
    command = ("unshare", "--user", "--map-user=54321")
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no right to become a user that nothing is known of")
    return command


def test_a_user_without_a_home_folder_needs_but_a_home(home, tmp_path, unknown):
    here = tmp_path / "here"
    done = run(*unknown, sys.executable, "-c", USE, folder=here, SEEKNAL_HOME=str(home))
    assert (done.stdout, done.returncode) == (USED, 0), done.stderr
    for command in (("info",), ("doctor",), ("lookup", "serving", "user_id=1")):
        done = run(*unknown, *SEEKNAL, *command, folder=here, SEEKNAL_HOME=str(home))
        assert done.returncode == 0, done.stderr
    done = run(*unknown, *SEEKNAL, "info", folder=here)
    told = "Error: This user has no home folder that ~/.seeknal could be in. Set SEEKNAL_HOME.\n"
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
    assert "seeknal.toml cannot be looked for" in done.stderr.splitlines()[-1]


def test_settings_of_a_named_home_are_still_those_of_the_folder(home):
    Path("seeknal.toml").write_text("lookback_days = 3")
    assert (config.load().home, config.load().lookback_days) == (home, 3)
