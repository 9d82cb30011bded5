"""A home that this user may only read, and one that a group shares."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from seeknal import (
    Client,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    HistoricalFeaturesDuckDB,
    Materialization,
    StoreError,
)
from seeknal.home import session
from seeknal.system.folders import temporary_folder
from seeknal.system.locks import exclusive_lock
from servers import Server
from unprivileged import make_read_only, make_writable, run_unprivileged, unprivileged

pytestmark = pytest.mark.slow

BEGIN = """
import os, sys, warnings
import pandas as pd
from seeknal import *
warnings.simplefilter("ignore")
store = FeatureStore()
spend = FeatureGroupDuckDB("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at", online=True))
day = pd.Timestamp("2024-05-01")
frame = pd.DataFrame({"user_id": [1, 2], "at": [day] * 2, "x": [10, 7]})
spine = pd.DataFrame({"user_id": [1, 2, 3], "at": [day] * 3})
features = HistoricalFeaturesDuckDB(FeatureLookup(spend)).using_spine(spine, date_col="at")
"""


@pytest.fixture
def read_only_home(home):
    """A home with a group, an online table and a training set, which nobody may write."""
    group = FeatureGroupDuckDB("spend", Entity("user", ["user_id"]), Materialization("at", online=True))
    frame = pd.DataFrame({"user_id": [1, 2], "at": pd.to_datetime(["2024-05-01"] * 2), "x": [10, 7]})
    group.set_dataframe(frame).write()
    spine = pd.DataFrame({"user_id": [1], "at": pd.to_datetime(["2024-05-02"])})
    HistoricalFeaturesDuckDB(FeatureLookup(group)).using_spine(spine, date_col="at").save("may")
    session.close()
    make_read_only(home)
    yield home
    make_writable(home)


def files_of(home):
    return {path: path.stat().st_mtime_ns for path in home.rglob("*")}


def test_every_read_works_in_a_home_that_is_read_only(read_only_home, tmp_path):
    before = files_of(read_only_home)
    code = f"""{BEGIN}
print(store.tables.open("spend").get_features([{{"user_id": 1}}], "dicts"))
print(features.to_dataframe()["x"].tolist())
print(pd.concat([batch.to_pandas() for batch in features.to_batches()])["x"].tolist())
print(features.to_parquet({str(tmp_path / "out.parquet")!r}))
print(features.check(), len(features.explain({{"user_id": 1, "at": day}})))
print(TrainingSet.load("may").reproduce()["x"].tolist())
print(store.tables.verify("spend").equal, len(spend.head()), [one.number for one in spend.versions])
"""
    assert run_unprivileged(code).splitlines() == [
        "[{'user_id': 1, 'x': 10}]",
        "[10, 7, <NA>]",
        "[10.0, 7.0, nan]",
        "3",
        "[] 1",
        "[10]",
        "True 2 [1]",
    ]
    assert files_of(read_only_home) == before


@pytest.mark.usefixtures("read_only_home")
def test_every_reading_command_works_in_a_home_that_is_read_only():
    commands = (
        "status",
        "list feature-groups",
        "show online-table spend",
        "verify spend",
        "doctor",
        "lookup spend user_id=1",
    )
    code = f"""
import sys
from seeknal.cli import main
for command in {commands!r}:
    sys.argv[1:] = command.split()
    try:
        code = main()
    except SystemExit as leaving:
        code = leaving.code
    print("exit code", code or 0)
"""
    assert run_unprivileged(code).count("exit code 0\n") == len(commands)


def test_every_write_says_that_a_home_is_read_only_and_changes_nothing(read_only_home):
    before = files_of(read_only_home)
    writes = (
        'spend.push({"user_id": 1, "at": day + pd.Timedelta("1h"), "x": 3})',
        "spend.set_dataframe(frame.assign(x=1)).write()",
        'FeatureGroupDuckDB("other", Entity("user", ["user_id"]), Materialization("at")).set_dataframe(frame).write()',
        'features.save("june")',
        'features.serve("other")',
        'store.groups.load("spend")',
        "store.tables.refresh()",
        'store.groups.erase("spend", {"user_id": 2})',
        'store.tables.delete("spend")',
    )
    code = f"""{BEGIN}
for write in {writes!r}:
    try:
        print("done", eval(write))
    except StoreError as error:
        print("is read-only for this user. Run this as a user" in str(error), error)
"""
    told = run_unprivileged(code).splitlines()
    assert [one.split()[0] for one in told] == ["True"] * len(writes), told
    assert files_of(read_only_home) == before


def test_a_server_on_a_home_that_is_read_only_answers_and_refuses_pushes(read_only_home):
    spine = pd.DataFrame({"user_id": [1], "at": pd.to_datetime(["2024-05-02"])})
    with Server(read_only_home, run_by=unprivileged()) as server, Client(server.url) as client:
        assert client.get_features("spend", [{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 10}]
        assert client.training_set([FeatureLookup("spend")], spine, date_col="at")["x"].tolist() == [10]
        with pytest.raises(StoreError, match="is read-only for this user"):
            client.push("spend", [{"user_id": 1, "at": "2024-05-03", "x": 3}])


def test_work_of_another_user_does_not_stop_ones_own(tmp_path):
    with temporary_folder(tmp_path / "scratch") as theirs:
        (lock,) = theirs.glob("*.lock")
        lock.chmod(0)
        code = f"""
from pathlib import Path
from seeknal.system.folders import temporary_folder
with temporary_folder(Path({str(tmp_path / "scratch")!r})) as folder:
    print(folder.exists())
"""
        assert run_unprivileged(code) == "True\n"
        assert theirs.exists()


# A home that a group shares


def mode_of(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


def test_all_files_of_a_home_are_for_the_group_that_its_folder_is_for(home):
    home.mkdir()
    home.chmod(0o2770)
    before = os.umask(0o022)
    try:
        code = (
            BEGIN
            + """
for i in range(12):
    spend.set_dataframe(frame.assign(x=i)).write()
spend.push({"user_id": 1, "at": day, "x": 3})
features.save("may")
list(features.to_batches())
"""
        )
        subprocess.run([sys.executable, "-c", code], check=True)
    finally:
        os.umask(before)
    made = [path for path in home.rglob("*") if "_making" not in path.name]
    assert {one.name for one in made} >= {"registry.db", "data.mdb", "lock.mdb", "_delta_log", "spine.arrow", "scratch"}
    assert {path: mode_of(path) for path in made if path.stat().st_mode & 0o060 != 0o060} == {}
    assert {path for path in made if path.is_dir() and path.stat().st_mode & 0o2010 != 0o2010} == set()


def test_what_is_made_where_the_group_may_not_write_is_as_the_umask_says(home):
    home.mkdir()
    home.chmod(0o755)
    with exclusive_lock(home / "lock"):
        pass
    assert mode_of(home / "lock") == "-rw-r--r--"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("umask", ["002", "022"])
def test_the_users_of_a_group_share_a_home(home, umask):
    home.mkdir()
    os.chown(home, -1, 4242)
    home.chmod(0o2770)
    code = (
        BEGIN
        + """
user = os.getuid()
spend.set_dataframe(frame.assign(x=user)).write()
pushed = spend.push({"user_id": 3, "at": day + pd.Timedelta(seconds=user), "x": user})
features.save(f"of_{user}")
store.groups.optimize("spend")
list(features.to_batches())
print(pushed.rows, store.tables.open("spend").get_features([{"user_id": 3}, {"user_id": 1}], "dicts"))
"""
    )
    as_user = "setpriv --reuid {} --regid {} --groups 4242 --inh-caps +dac_read_search --ambient-caps +dac_read_search"
    for user in (11001, 11002):
        command = [*as_user.format(user, user).split(), "sh", "-c", f'umask {umask}; exec "$@"', "sh"]
        done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"1 [{{'user_id': 3, 'x': {user}}}, {{'user_id': 1, 'x': {user}}}]\n"
