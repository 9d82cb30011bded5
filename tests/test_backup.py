"""Backups: a folder with a whole home as of one moment, and its restoration; all or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import busy
from commands import seeknal
from contract.world import HOUR, NOON, group, history, rows, write, written
from seeknal import DefinitionError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, SeeknalWarning, StoreError
from seeknal.home.backup import backup, restore
from seeknal.join.inquiry import Inquiry
from seeknal.values.times import Interval, instant

SCRIPTS = Path(__file__).parent.parent / "scripts"
ODD = 'what "x" is, or not'

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]


def answer(*arguments: str):
    done = seeknal(*arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failure(*arguments: str) -> str:
    done = seeknal(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.removeprefix("Error: ").strip()


def furnish() -> None:
    """Create everything that a home can hold."""
    spend = group("spend", ttl=timedelta(days=20_000))
    write(spend, rows(1, 2, 3, **{ODD: ["a", None, ""]}))
    visits = written(rows("x", "y", "z", user=2), name="visits", keys=["user_id"])
    past = FeatureLookup(visits, prefix="v_")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(spend), past])
    hist.serve("both", ttl=timedelta(days=30_000))
    spine = pa.table({"user_id": [1, 2], "at": [NOON + HOUR] * 2, "label": [0, 1]})
    hist.using_spine(spine, "at", keep_cols=["label"]).save("with_spine")
    store = FeatureStore()
    store.training_sets.save("with_rows", Inquiry([FeatureLookup(spend)]), keep_rows=True)
    write(spend, rows(4, 5, user=3, **{ODD: ["d", "e"], "more": [1.5, None]}), mode="append")
    store.groups.load("spend")
    spend.push({"user_id": 7, "at": NOON, "x": 1, ODD: "pushed", "more": None})
    spend.push([{"user_id": 8, "at": NOON + i * HOUR, "x": i, ODD: "b", "more": 2.0} for i in range(3)])
    store.groups.erase("spend", {"user_id": 3})
    spend.rollback(to=1)
    store.groups.load("spend", version=1)
    store.groups.optimize("visits", keep_days=0)
    visits.push({"user_id": 9, "at": NOON, "x": "w"})
    group("never_written").get_or_create()


def state(store: FeatureStore) -> dict[str, object]:
    """Return the results of all reads of a home."""
    registry, users = store.core.registry, [{"user_id": i} for i in range(10)]
    groups = registry.groups()
    tables = {table.label: store.tables.open(table.name, project=table.project) for table in registry.tables()}
    return {
        "groups": groups,
        "entities": store.entities.all(),
        "tables": [table.record for table in tables.values()],
        "versions": [store.groups.versions(one.name) for one in groups],
        "snapshots": [registry.snapshots(one) for one in groups],
        "rows": [
            store.groups.sample(one.name, limit=99, version=v.number)
            for one in groups
            for v in store.groups.versions(one.name)
        ],
        "erased": [registry.erasures(one) for one in groups],
        "sets": registry.training_sets(),
        "built again": [store.training_sets.reproduce(one) for one in registry.training_sets()],
        "online": {label: table.get_features(users, "dicts", with_status=True) for label, table in tables.items()},
        "verified": {label: store.tables.verify(label).equal for label in tables},
    }


@pytest.fixture
def other(tmp_path):
    """The store of another home, which is not there yet."""
    return FeatureStore(tmp_path / "other" / "home")


@pytest.fixture
def saved(tmp_path):
    """A backup of a home with a little of everything."""
    furnish()
    backup(FeatureStore(), tmp_path / "saved")
    return tmp_path / "saved"


def test_a_restored_home_holds_and_answers_what_the_home_did(saved, other):
    done = restore(saved, other)
    assert (done.groups, done.training_sets, done.elsewhere) == (3, 2, ())
    assert done.loaded == ("shop/both", "shop/spend", "shop/visits")
    before, after = state(FeatureStore()), state(other)
    for what, value in before.items():
        assert after[what] == value, what
    assert set(after["verified"].values()) == {True}
    busy.check(other.home)


def test_a_restored_home_goes_on_like_the_home(saved, other):
    restore(saved, other)
    assert other.groups.push("visits", {"user_id": 9, "at": NOON, "x": "w"}).rows == 0
    assert other.groups.push("visits", {"user_id": 9, "at": NOON + HOUR, "x": "v"}).snapshot == 3
    assert other.groups.write(group("spend").definition, rows(1, **{ODD: ["a"]}), mode="append").version == 1
    assert other.groups.erase("visits", {"user_id": 2}, delete_training_sets=True).rows == 3
    assert [one.name for one in other.core.registry.training_sets()] == ["with_rows"]
    for name in ("both", "spend", "visits"):
        other.groups.load("spend", version=1)
        assert other.tables.verify(name).equal


def test_the_commands_say_what_they_did(home, tmp_path, monkeypatch):
    furnish()
    made = answer("backup", str(tmp_path / "saved"))
    assert (made["feature_groups"], made["online_tables"], made["training_sets"]) == (3, 3, 2)
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert made["files"] == len(files) - 1
    assert made["bytes"] == sum(path.stat().st_size for path in files if path.name != "backup.json")
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "other"))
    back = answer("restore", str(tmp_path / "saved"))
    assert (back["home"], back["as_of"], back["feature_groups"]) == (str(tmp_path / "other"), made["at"], 3)
    assert back["tables_online"] == ["shop/both", "shop/spend", "shop/visits"]
    assert "not_loaded" not in back
    assert seeknal("doctor").returncode == 0
    assert seeknal("verify", "both").returncode == 0


def test_an_empty_home_can_be_saved(tmp_path, other):
    assert FeatureStore().core.registry.groups() == []
    assert backup(FeatureStore(), tmp_path / "saved").files == 1  # the registry
    assert restore(tmp_path / "saved", other).groups == 0
    assert other.core.registry.groups() == []


def test_a_home_that_only_its_owner_can_read_is_saved_and_restored_as_such(home, tmp_path, other):
    written(rows(1))
    home.chmod(0o700)
    (home / "registry.db").chmod(0o600)
    backup(FeatureStore(), tmp_path / "saved")
    restore(tmp_path / "saved", other)
    for folder in (tmp_path / "saved", other.home):
        assert (folder.stat().st_mode & 0o777, (folder / "registry.db").stat().st_mode & 0o777) == (0o700, 0o600)


def test_what_was_erased_is_not_in_a_backup_and_stays_erased(tmp_path, other):
    fg = written(rows(1, 2, **{ODD: ["secret", "secret"]}))
    write(fg, rows(3, user=2, **{ODD: ["b"]}), mode="append")
    FeatureStore().groups.erase("spend", {"user_id": 1})
    backup(FeatureStore(), tmp_path / "saved")
    for file in (tmp_path / "saved").rglob("*.parquet"):
        assert b"secret" not in file.read_bytes()
    restore(tmp_path / "saved", other)
    assert other.groups.push("spend", {"user_id": 1, "at": NOON, "x": 1, ODD: "secret"}).erased == 1


def test_a_write_that_the_registry_has_not_recorded_is_saved_too(home, tmp_path, other):
    fg = written(rows(1))
    write(fg, rows(2, user=2), mode="append")
    with closing(sqlite3.connect(home / "registry.db")) as db, db:
        db.execute("DELETE FROM snapshot WHERE number = 2")  # as if the writer had been killed before it could say
    backup(FeatureStore(), tmp_path / "saved")
    restore(tmp_path / "saved", other)
    assert len(other.features.history([FeatureLookup("spend")], output="arrow")) == 2
    assert [one.number for one in other.core.registry.snapshots(other.core.catalog.group("spend"))] == [1, 2]


def test_files_of_writers_who_were_killed_and_of_queries_are_left_out(home, tmp_path):
    written(rows(1))
    (home / "offline/shop/spend/0123.parquet").write_bytes(b"half")
    (home / "scratch").mkdir(exist_ok=True)
    (home / "scratch/spilled").write_bytes(b"rows")
    backup(FeatureStore(), tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").rglob("*")}
    assert not names & {"0123.parquet", "scratch", "online", "_write.lock", "_commit.lock"}


def test_as_of_reads_the_same_in_a_restored_home(tmp_path, other):
    fg = written(rows(1))
    moment = datetime.now(UTC)
    write(fg, rows(2, user=2), mode="append")
    backup(FeatureStore(), tmp_path / "saved")
    restore(tmp_path / "saved", other)
    for as_of in (moment, 1, 2):
        assert other.features.history([FeatureLookup("spend")], as_of=as_of, output="arrow") == history(fg, as_of=as_of)


def test_a_span_that_was_loaded_is_what_is_loaded_again(tmp_path, other):
    written(rows(1, 2, 3))
    store = FeatureStore()
    interval = Interval(instant(NOON), instant(NOON + HOUR))
    store.groups.load("spend", interval=interval)
    backup(store, tmp_path / "saved")
    restore(tmp_path / "saved", other)
    for one in (store, other):
        assert one.tables.open("spend").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 2}]
        assert one.groups.load_statuses("spend")[0].state.spans == (interval,)


def test_a_group_whose_deletion_was_killed_can_be_deleted_in_the_restored_home(home, tmp_path, other):
    written(rows(1))
    written(rows(2), name="visits")
    for name in ("spend", "visits"):
        FeatureStore().groups.load(name)
    (home / "offline/shop/spend").rename(tmp_path / "trash")
    backup(FeatureStore(), tmp_path / "saved")
    restore(tmp_path / "saved", other)
    assert other.tables.verify("visits").equal
    other.groups.delete("spend")
    assert [one.name for one in other.core.registry.groups()] == ["visits"]


def test_a_version_whose_files_are_gone_does_not_prevent_a_backup_of_the_rest(home, tmp_path, other):
    fg = written(rows(1))
    FeatureStore().tables.serve([FeatureLookup(fg, version=1)], "answers")
    first = next((home / "offline/shop/spend").glob("*.parquet"))
    write(fg, rows(2, y=[1]))
    FeatureStore().tables.serve([FeatureLookup(fg)], "newer")
    first.unlink()
    backup(FeatureStore(), tmp_path / "saved")
    with pytest.warns(SeeknalWarning, match="Version 1 of shop/spend cannot be loaded: Snapshot 1 .* is gone"):
        done = restore(tmp_path / "saved", other)
    assert done.loaded == ("shop/newer",)
    assert other.tables.verify("newer").equal


def test_a_home_whose_own_folder_is_named_by_a_link_is_restored_with_its_rows(home, tmp_path):
    fg = written(rows(1))
    FeatureStore().tables.serve([FeatureLookup(fg)], "answers")
    backup(FeatureStore(), tmp_path / "saved")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    other = FeatureStore(tmp_path / "other", online_store=str(tmp_path / "link" / "online"))
    done = restore(tmp_path / "saved", other)
    assert (done.loaded, done.elsewhere) == (("shop/answers",), ())
    assert other.tables.verify("answers").equal


# Where to, and where from


def test_a_backup_replaces_nothing(home, tmp_path):
    written(rows(1))
    (tmp_path / "there").mkdir()
    assert "exists already. Choose a new folder" in failure("backup", str(tmp_path / "there"))
    assert "is in the home" in failure("backup", str(home / "saved"))
    assert "There is no folder" in failure("backup", str(tmp_path / "no" / "saved"))
    assert not any((tmp_path / "there").iterdir())


def test_without_a_home_there_is_no_backup(home, tmp_path):
    assert f"There is no home at {home}" in failure("backup", str(tmp_path / "saved"))
    assert not home.exists()


def test_a_restore_replaces_nothing(home, saved):
    assert f"{home} is not empty" in failure("restore", str(saved))
    assert FeatureStore().tables.verify("both").equal
    shutil.rmtree(home)
    home.mkdir()
    answer("restore", str(saved))
    assert FeatureStore().tables.verify("both").equal


def test_a_folder_that_is_no_backup_is_refused(home, tmp_path):
    assert "is not a backup: it has no backup.json" in failure("restore", str(tmp_path))
    assert not home.exists()


def test_a_restore_through_a_link_creates_the_home_at_its_target(saved, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "home")
    (tmp_path / "disk" / "home").mkdir()
    store = FeatureStore(tmp_path / "link")
    restore(saved, store)
    assert (tmp_path / "disk/home/registry.db").exists()
    assert store.tables.verify("both").equal


def test_a_restored_home_can_be_moved(saved, other, tmp_path):
    restore(saved, other)
    other.home.rename(tmp_path / "moved")
    assert state(FeatureStore(tmp_path / "moved")) == state(FeatureStore())


def test_a_store_that_was_open_reads_the_restored_home(home, saved):
    store = FeatureStore()
    store.groups.push("visits", {"user_id": 9, "at": NOON + HOUR, "x": "later"})
    table = store.tables.open("visits")
    assert table.get_features([{"user_id": 9}], "dicts") == [{"user_id": 9, "x": "later"}]
    home.rename(home.with_name("away"))
    restore(saved, store)
    assert table.get_features([{"user_id": 9}], "dicts") == [{"user_id": 9, "x": "w"}]


# What was changed on the way


def change_byte(file: Path) -> None:
    text = bytearray(file.read_bytes())
    text[len(text) // 2] ^= 1
    file.write_bytes(text)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [change_byte, cut, Path.unlink])
@pytest.mark.parametrize("pattern", ["registry.db", "*.parquet", "*.json", "spine.arrow"])
def test_a_backup_that_was_changed_is_refused_by_the_name_of_the_file(saved, other, damage, pattern):
    file = min(saved.rglob(pattern))
    damage(file)
    with pytest.raises((StoreError, DefinitionError), match=file.name):
        restore(saved, other)
    assert not other.home.parent.exists()


def test_a_list_of_files_that_was_changed_is_refused(saved, other, tmp_path):
    manifest = json.loads((saved / "backup.json").read_text())
    shorter = manifest | {"files": manifest["files"][:-1]}
    outside = manifest | {"files": [manifest["files"][0] | {"name": "../../evil"}]}
    for changed in (shorter, outside, []):
        (saved / "backup.json").write_text(json.dumps(changed))
        with pytest.raises(StoreError, match=r"backup\.json is damaged"):
            restore(saved, other)
    (saved / "backup.json").write_text(json.dumps(manifest | {"format": 2, "seeknal": "9.0"}))
    with pytest.raises(DefinitionError, match=r"made by seeknal 9\.0, in another format"):
        restore(saved, other)
    assert not other.home.parent.exists()


def test_a_table_that_has_lost_a_file_is_not_saved_as_if_it_were_whole(home, tmp_path):
    written(rows(1))
    lost = next((home / "offline/shop/spend").glob("*.parquet"))
    lost.unlink()
    assert lost.name in failure("backup", str(tmp_path / "saved"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "work"]


# Rows that are elsewhere


def test_rows_in_redis_are_left_alone_unless_it_is_asked_for(home, tmp_path, valkey_url, monkeypatch):
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", valkey_url)
    fg = written(rows(1))
    FeatureStore().groups.load("spend")
    backup(FeatureStore(), tmp_path / "saved")
    fg.push({"user_id": 1, "at": NOON + HOUR, "x": 2})
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "look"))
    looked = answer("restore", str(tmp_path / "saved"))
    assert looked["tables_online"] == []
    assert looked["not_loaded"][0]["place"] == valkey_url
    users = [{"user_id": 1}]
    production = FeatureStore(home).tables.open("spend")
    assert production.get_features(users, "dicts") == [{"user_id": 1, "x": 2}]

    program, *arguments = looked["not_loaded"][0]["load_with"].split()
    assert (program, seeknal(*arguments).returncode) == ("seeknal", 0)
    assert production.get_features(users, "dicts") == [{"user_id": 1, "x": 1}]
    assert FeatureStore().tables.verify("spend").equal

    with pytest.raises(StoreError, match=r"to another home.*--take-over"):
        FeatureStore(home).groups.load("spend")
    FeatureStore(home).tables.refresh(["spend"], take_over=True)
    assert production.get_features(users, "dicts") == [{"user_id": 1, "x": 2}]
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "again"))
    assert answer("restore", str(tmp_path / "saved"), "--load-shared")["tables_online"] == ["shop/spend"]
    assert FeatureStore().tables.verify("spend").equal


def test_rows_in_another_folder_are_left_alone_and_the_home_has_its_own(tmp_path, other):
    fg = written(rows(1))
    store = FeatureStore()
    store.tables.serve([FeatureLookup(fg)], "inside")
    store.tables.serve([FeatureLookup(fg)], "outside", target=tmp_path / "rows")
    backup(store, tmp_path / "saved")
    before = (tmp_path / "rows" / "data.mdb").read_bytes()
    done = restore(tmp_path / "saved", other)
    assert (done.loaded, [one.table for one in done.elsewhere]) == (("shop/inside",), ["shop/outside"])
    assert (tmp_path / "rows" / "data.mdb").read_bytes() == before
    assert done.elsewhere[0].commands == ("seeknal refresh shop/outside --take-over",)
    assert other.tables.verify("inside").equal


def test_a_home_is_restored_even_if_rows_elsewhere_cannot_be_loaded(tmp_path, other, valkey_url, monkeypatch):
    FeatureStore(online_store=valkey_url).tables.serve([FeatureLookup(written(rows(1)))], "answers")
    backup(FeatureStore(), tmp_path / "saved")
    away = FeatureStore(other.home, online_store="redis://127.0.0.1:1/0")
    with pytest.raises(StoreError, match=r"is restored to .* Then run: seeknal refresh shop/answers"):
        restore(tmp_path / "saved", away, load_shared=True)
    assert len(other.features.history([FeatureLookup("spend")], output="arrow")) == 1


# Others at work


def test_deletions_wait_for_a_backup(tmp_path):
    fg = written(rows(1, 2))
    write(fg, rows(3, user=2), mode="append")
    store = FeatureStore()
    store.training_sets.save("kept", Inquiry([FeatureLookup(fg)]))
    store.tables.serve([FeatureLookup(fg)], "answers")
    deletes = [
        lambda: store.groups.optimize("spend", keep_days=0),
        lambda: store.training_sets.delete(store.core.catalog.training_set("kept")),
        lambda: store.groups.erase("spend", {"user_id": 1}),
        lambda: store.tables.delete("answers"),
        lambda: store.groups.delete("spend"),
    ]
    for delete in deletes:
        thread = threading.Thread(target=delete)
        with store.core.catalog.keeping():
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            fg.push({"user_id": 5, "at": NOON, "x": 1})  # who only adds does not wait
        thread.join(120)
        assert not thread.is_alive()


def test_a_backup_waits_for_deletions(tmp_path):
    written(rows(1))
    store = FeatureStore()
    thread = threading.Thread(target=lambda: backup(store, tmp_path / "saved"))
    with store.core.catalog.deleting():
        thread.start()
        thread.join(0.3)
        assert not (tmp_path / "saved").exists()
    thread.join(120)
    assert (tmp_path / "saved").exists()


def test_what_a_killed_backup_left_is_removed_but_not_what_another_is_at_work_on(tmp_path):
    written(rows(1))
    dead, alive, foreign = (tmp_path / f".saved.{name}.part" for name in ("0123abcd", "4567abcd", "mine"))
    for part in (dead, alive, foreign):
        (part / "offline").mkdir(parents=True)
    with (alive / "_making.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        backup(FeatureStore(), tmp_path / "saved")
    assert [part.exists() for part in (dead, alive, foreign)] == [False, True, True]


def test_what_is_written_while_a_backup_runs_is_in_the_next_one(tmp_path, other):
    first = written(rows(1), name="first")
    later = group("later")
    later.get_or_create()
    store = FeatureStore()
    store.groups.load("first")
    heard = []

    def on_progress(text: str) -> None:
        heard.append(text)
        if len(heard) == 2:  # the first file is about to be copied
            write(first, rows(2, user=2), mode="append")
            write(later, rows(3))
            store.groups.load("later")

    backup(store, tmp_path / "saved", on_progress=on_progress)
    assert heard[1].startswith("Backing up offline/shop/first/_delta_log")
    restore(tmp_path / "saved", other)
    assert other.groups.sample("first", limit=9)["x"].to_pylist() == [1]
    assert other.core.registry.last_snapshot(other.core.catalog.group("later")) == -1
    assert [table.name for table in other.core.registry.tables()] == ["first"]
    busy.check(other.home)
    backup(store, tmp_path / "next")
    again = FeatureStore(tmp_path / "again")
    restore(tmp_path / "next", again)
    assert [len(again.groups.sample(name, limit=9)) for name in ("first", "later")] == [2, 1]


def test_of_two_backups_to_one_place_one_is_whole_and_the_other_says_so(tmp_path, other):
    written(rows(1))
    said = []

    def take() -> None:
        try:
            backup(FeatureStore(), tmp_path / "saved", on_progress=lambda _: time.sleep(0.02))
        except (StoreError, DefinitionError) as error:
            said.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    restore(tmp_path / "saved", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "other", "saved", "work"]


COMMAND = [sys.executable, "-c", "from seeknal.cli import main; main()"]


TOLD = """
import os, signal, sys
number, when, verb, folder = signal.Signals(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3], sys.argv[4]
sys.argv[1:] = [verb, folder]
opened = 0


def tell(event, details):
    global opened
    if event == "open" and ".part/" in str(details[0]):
        opened += 1
        if opened == when:
            os.kill(os.getpid(), number)


for one in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, signal.SIG_DFL)  # whatever the tests themselves run under, nohup among them
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(tell)
from seeknal.cli import main
try:
    main()
finally:
    print("opened", opened)
"""


def told_to_end(number: signal.Signals, when: int, *arguments: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command that is sent a signal when it opens a file of its work the so manyth time; say how many it opened."""
    program = [sys.executable, "-c", TOLD, str(int(number)), str(when), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    return done, int(done.stdout.rpartition("opened")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_a_terminated_backup_or_restore_leaves_nothing(home, tmp_path, number, verb):
    furnish()
    if verb == "restore":
        backup(FeatureStore(), tmp_path / "saved")
        home.rename(tmp_path / "away")
    folder = tmp_path / ("made" if verb == "backup" else "saved")
    place = folder if verb == "backup" else home
    whole, most = told_to_end(number, 0, verb, str(folder))
    assert (whole.returncode, whole.stderr, place.exists()) == (0, "", True)
    shutil.rmtree(place)
    for when in (1, most // 2, most):
        done, _ = told_to_end(number, when, verb, str(folder))
        assert done.returncode != 0, when
        assert "Traceback" not in done.stderr
        assert not place.exists(), when
        assert not list(tmp_path.glob(".*.part")), when


def test_a_backup_under_nohup_outlives_its_terminal(tmp_path, other):
    written(rows(1))
    command = ["nohup", *COMMAND, "backup", str(tmp_path / "saved")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with FeatureStore().core.catalog.deleting():
        while not list(tmp_path.glob(".saved.*.part")):
            time.sleep(0.001)
        process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert restore(tmp_path / "saved", other).groups == 1


def test_on_a_full_disk_there_is_no_backup_and_no_home(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    monkeypatch.syspath_prepend(SCRIPTS)
    from kill_writers import Disk

    count, values = 30_000, random.Random(1)
    noise = [values.getrandbits(62) for _ in range(count)]
    write(group(), pa.table({"user_id": range(count), "at": [NOON] * count, "x": noise}))
    store, saved = FeatureStore(), tmp_path / "saved"
    store.groups.load("spend")
    backup(store, saved)
    with Disk.small(tmp_path / "disk") as disk:
        if not disk.mounted:
            pytest.skip("no right to mount a small disk")
        small, refused = FeatureStore(disk.folder / "home"), []
        work = {"saved": lambda: backup(store, disk.folder / "saved"), "home": lambda: restore(saved, small)}
        for kilobytes in (0, 16, 64, 100, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200):
            for name, make in work.items():
                with disk.full_but_for(kilobytes):
                    try:
                        make()
                    except StoreError:
                        refused.append(name)
                        assert [path.name for path in disk.folder.iterdir()] == ["ballast"]
                if name == "home" and (disk.folder / name).exists():
                    assert small.tables.verify("spend").equal
                shutil.rmtree(disk.folder / name, ignore_errors=True)
        assert refused.count("saved") > 4
        assert refused.count("home") > refused.count("saved")
        backup(store, disk.folder / "saved")
        restore(disk.folder / "saved", small)
        assert small.tables.verify("spend").equal


def test_a_table_named_after_a_group_shows_a_version_when_its_rows_are_there():
    fg = written(rows(1))
    store, shown = FeatureStore(), []
    store.groups.load("spend")
    write(fg, rows(2, times=[NOON + HOUR], y=[1]))

    def look(_: str) -> None:
        table = store.tables.open("spend")
        shown.append((table.record.lookups[0].version, table.get_features([{"user_id": 1}], "dicts")[0]["x"]))

    store.groups.load("spend", on_progress=look)
    assert set(shown) == {(1, 1)}
    look("")
    assert shown[-1] == (2, 2)


def test_every_backup_of_a_home_in_use_is_whole(home, tmp_path):
    busy.furnish(home)
    checked, lag, seen = 0, set(), {"erased": 0}
    with busy.in_use(home) as rounds:
        while checked < 3 or min(rounds.values()) < 4 or seen["erased"] < 2:
            backup(
                FeatureStore(), tmp_path / "saved", on_progress=lambda _: time.sleep(0.003)
            )  # others get far meanwhile
            restore(tmp_path / "saved", FeatureStore(tmp_path / "other"))
            seen = busy.check(tmp_path / "other")
            first, second = busy.rounds_of(tmp_path / "other")
            lag.add(first - second)
            checked += 1
            for name in ("saved", "other"):
                shutil.rmtree(tmp_path / name)
    assert lag <= {0, 1}  # one moment for all groups: what was written later is not there without what was before


def test_a_table_that_was_behind_when_the_backup_was_taken_passes_verify_in_the_restored_home(home, tmp_path):
    fg = written(rows(1))
    store = FeatureStore(home)
    store.tables.serve([FeatureLookup(fg, features=["x"])], "answers")
    write(fg, rows(2, y=["new"]), mode="append")  # a version that is not online
    assert not store.tables.verify("answers").equal
    backup(store, tmp_path / "taken")
    other = FeatureStore(tmp_path / "other")
    restore(tmp_path / "taken", other)
    assert other.tables.verify("answers").equal
    assert other.tables.open("answers").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 2}]
