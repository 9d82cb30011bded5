"""The offline table under other programs, crashes and rivals."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from seeknal import (
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    StoreError,
    TrainingSet,
)
from seeknal.home import session
from seeknal.offline import Write
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.system.retry import Conflict
from seeknal.values.times import Interval


def visits():
    """Define the group."""
    return FeatureGroupDuckDB("visits", Entity("user", ["user_id"]), Materialization("at"))


def frame(*numbers):
    """Return a row per number, each a minute after the previous one."""
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(list(numbers), unit="min")
    return pd.DataFrame({"user_id": list(numbers), "at": at, "n": list(numbers)})


def stored():
    """Return the stored rows."""
    return HistoricalFeaturesDuckDB([FeatureLookup("visits")]).to_dataframe()["n"].tolist()


def test_other_programs_can_read_the_table(home):
    visits().set_dataframe(frame(1, 2)).write()
    table = pl.read_delta(str(home / "offline" / "default" / "visits"))
    assert table["n"].to_list() == [1, 2]
    assert table.schema["at"] == pl.Datetime("us", "UTC")


def test_a_write_planned_on_an_old_snapshot_is_refused_and_leaves_no_file(home):
    visits().set_dataframe(frame(1)).write()
    catalog = session.store().core.catalog
    offline = catalog.offline("default", "visits")
    base = offline.snapshot()
    rows = session.store().core.engine().sample(base.within(base.commit.schema), 1)
    rows = rows.cast(rows.schema.set(1, rows.schema.field(1).with_type(base.commit.schema.stored_types[1])))
    write = Write(rows, base.commit.schema, 1, "append", Interval())
    offline.write(base, write)
    files = set(offline.root.glob("*.parquet"))
    with pytest.raises(Conflict):
        offline.write(base, write)
    assert set(offline.root.glob("*.parquet")) == files


def test_writes_of_an_interval_leave_the_files_outside_alone(home):
    group = visits()
    group.set_dataframe(frame(1, 2)).write()
    group.set_dataframe(frame(100, 101)).write(mode="append")
    root = home / "offline" / "default" / "visits"
    before = set(DeltaTable(root).file_uris())
    group.set_dataframe(frame(101)).write("2024-01-01T01:40:00")
    after = set(DeltaTable(root).file_uris())
    assert len(before & after) == 1
    assert sorted(stored()) == [1, 2, 101]


def test_a_registry_that_was_lost_is_rebuilt_from_the_tables(home):
    group = visits()
    group.set_dataframe(frame(1)).write()
    with pytest.warns(UserWarning, match="version 2"):
        group.set_dataframe(frame(2).assign(m=1)).write(mode="append")
    session.close()
    for file in home.glob("registry.db*"):
        file.unlink()
    visits().get_or_create()
    assert [version.rows for version in session.store().groups.versions("visits")] == [1, 2]
    assert stored() == [1, 2]


def test_a_commit_that_the_registry_never_heard_of_is_found(home, monkeypatch):
    group = visits()
    group.set_dataframe(frame(1)).write()
    database = (home / "registry.db").read_bytes()
    session.close()
    database = (home / "registry.db").read_bytes()
    group.set_dataframe(frame(2)).write(mode="append")
    session.close()
    (home / "registry.db").write_bytes(database)
    (home / "registry.db-wal").unlink(missing_ok=True)
    assert stored() == [1, 2]


@pytest.fixture
def mounted(home):
    """Return a function that remounts the home: read-only, or as a small disk."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")

    def mount(*options):
        subprocess.run(["mount", *options, str(home)], check=True)

    yield mount
    subprocess.run(["umount", "-l", str(home)], check=True)


def test_a_home_that_cannot_be_written_can_be_read(home, mounted):
    group = visits()
    group.set_dataframe(frame(1, 2)).write()
    hist = HistoricalFeaturesDuckDB([FeatureLookup(group)])
    hist.serve("online")
    session.close()
    mounted("--bind", str(home))
    mounted("-o", "remount,ro,bind")
    assert hist.to_dataframe()["n"].tolist() == hist.to_dataframe(as_of=1)["n"].tolist() == [1, 2]
    assert OnlineFeaturesDuckDB("online").get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "n": 1}]
    with pytest.raises(StoreError):
        group.set_dataframe(frame(3)).write(mode="append")
    session.close()


@pytest.mark.slow
def test_on_a_full_disk_rows_are_readable_and_a_write_says_truly_whether_it_was_stored(home, mounted):
    home.mkdir()
    mounted("tmpfs", "-t", "tmpfs", "-o", "size=16m")
    group, numbers, ended = visits(), iter(range(100_000)), set()
    group.set_dataframe(frame(next(numbers))).write()
    ballast = home / "ballast"
    for kilobytes in range(0, 120, 4):
        before = stored()
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(home).free - kilobytes * 1024)
        new = [next(numbers) for _ in range(100)]
        try:
            with warnings.catch_warnings(action="ignore"):
                group.set_dataframe(frame(*new)).write(mode="append")
            before = [*before, *new]
            ended.add("written")
        except StoreError:
            ended.add("refused")
        assert stored() == before
        ballast.unlink()
    assert ended == {"written", "refused"}
    session.close()


def test_with_little_memory_answers_are_exact_or_an_error_of_the_store():
    visits().set_dataframe(frame(*range(100_000))).write()
    numbers = range(100_000)
    moments = pd.Timestamp("2024-01-01") + pd.to_timedelta([i % 7000 for i in numbers], unit="min")
    spine = pa.table({"user_id": [i % 6000 for i in numbers], "at": moments})
    lookups = [FeatureLookup("visits")]
    ways = {
        "join": lambda store: store.features.training_set(lookups, spine, "at"),
        "stream": lambda store: store.features.stream(lookups, spine, "at").read_all(),
        "history": lambda store: store.features.history(lookups, output="arrow"),
    }
    whole = {name: ask(FeatureStore()) for name, ask in ways.items()}
    refused = set()
    for limit in ("1MB", "4MB", "8MB", "16MB", "64MB"):
        for name, ask in ways.items():
            try:
                found = ask(FeatureStore(memory_limit=limit))
            except StoreError as error:
                assert "Out of Memory" in str(error)  # noqa: PT017 - either is right
                refused.add((limit, name))
            else:
                assert found.equals(whole[name]), (limit, name)
    assert {("1MB", name) for name in ways} <= refused
    assert not {("64MB", name) for name in ways} & refused


def test_a_forked_process_is_told_how_to_start_and_still_reads_online():
    visits().set_dataframe(frame(1)).write()
    table = HistoricalFeaturesDuckDB([FeatureLookup("visits")]).serve("online")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(table.get_features, ([{"user_id": 1}], "dicts")) == [{"user_id": 1, "n": 1}]
        with pytest.raises(StoreError, match="spawn"):
            pool.apply(stored)
    assert stored() == [1]


def after(call, then):
    """Return the function with another call appended to it."""

    def both(*arguments, **options):
        done = call(*arguments, **options)
        then()
        return done

    return both


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_a_write_that_is_interrupted_when_it_was_committed_keeps_its_rows(home, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    visits().set_dataframe(frame(1)).write()
    commit = DeltaTable.create_write_transaction
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", after(commit, ctrl_c))
        for number, mode in ((2, "append"), (3, "merge")):
            with pytest.raises(KeyboardInterrupt):
                visits().set_dataframe(frame(number)).write(mode=mode)
    session.close()
    assert stored() == [1, 2, 3]


def test_a_training_set_that_is_interrupted_when_it_was_registered_keeps_its_spine(monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    visits().set_dataframe(frame(1)).write()
    spine = pd.DataFrame({"user_id": [1], "at": [pd.Timestamp("2025-01-01")]})
    asked = HistoricalFeaturesDuckDB([FeatureLookup("visits")]).using_spine(spine, "at")
    with monkeypatch.context() as patch:
        patch.setattr(SqliteRegistry, "add_training_set", after(SqliteRegistry.add_training_set, ctrl_c))
        with pytest.raises(KeyboardInterrupt):
            asked.save("march")
    assert TrainingSet.load("march").reproduce()["n"].tolist() == [1]


def test_a_push_beside_files_that_cannot_be_read_says_so(home):
    visits().set_dataframe(frame(1)).write()
    for file in (home / "offline" / "default" / "visits").glob("*.parquet"):
        file.write_bytes(b"PAR1 no more")
    with pytest.raises(StoreError, match="could not read"):
        FeatureStore().groups.push("visits", {"user_id": 1, "at": "2024-01-01T00:01:00", "n": 5})


WRITER = """
import pandas as pd, sys
from seeknal import Entity, FeatureGroupDuckDB, Materialization
group = FeatureGroupDuckDB("visits", Entity("user", ["user_id"]), Materialization("at"))
rows = pd.DataFrame({"user_id": range(20_000), "at": pd.Timestamp("2024-01-01")})
for generation in range(1, 1_000):
    group.set_dataframe(rows.assign(n=generation)).write()
    print(generation, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_or_the_new(home):
    for seed in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "1\n"
        time.sleep(random.Random(seed).uniform(0, 0.4))
        writer.send_signal(signal.SIGKILL)
        confirmed = int((["1", *writer.communicate()[0].split()])[-1])
        found = HistoricalFeaturesDuckDB([FeatureLookup("visits")]).to_dataframe()["n"]
        assert len(found) == 20_000
        assert set(found) in ({confirmed}, {confirmed + 1})
        session.close()


def test_a_group_whose_log_cannot_be_read_is_not_taken_for_a_deleted_one(home):
    store = session.store()
    visits().set_dataframe(frame(1, 2)).set_features().write()
    log = store.home / "offline" / "default" / "visits" / "_delta_log"
    DeltaTable(log.parent).create_checkpoint()
    for entry in log.glob("*.json"):
        entry.unlink()
    assert [version.rows for version in store.groups.versions("visits")] == [2]
    shutil.move(log, log.with_name("elsewhere"))
    log.touch()
    with pytest.raises(StoreError, match="cannot be read"):
        store.groups.versions("visits")
    log.unlink()
    shutil.move(log.with_name("elsewhere"), log)
    assert [version.rows for version in store.groups.versions("visits")] == [2]
