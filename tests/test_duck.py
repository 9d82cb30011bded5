"""DuckDB opens beside other work, and says what is wrong once it is asked."""

import subprocess
import sys

import duckdb
import pytest

from seeknal import FeatureStore, StoreError
from seeknal.engine.duckdb.engine import _read
from seeknal.system.duck import Duck

BEGUN = """
import sys
from pathlib import Path
from seeknal.system.duck import Duck
duck = Duck(Path(sys.argv[1]))
duck.begin()
duck.close()
duck = Duck(Path(sys.argv[1]))
duck.begin()
"""

FORKED = """
import os, sys
from pathlib import Path
from seeknal.system.duck import Duck
ducks = [Duck(Path(sys.argv[1])) for _ in range(3)]
for duck in ducks:
    duck.begin()
    duck._begun.exception()  # waits until it is open
if not (child := os.fork()):
    os._exit(0)
print(os.waitpid(child, 0)[1], [duck.connection.sql("SELECT 7").fetchall() for duck in ducks])
"""


def test_an_engine_is_opened_once_however_the_opening_began(tmp_path):
    duck = Duck(tmp_path)
    duck.begin()
    duck.begin()
    connection = duck.connection
    duck.begin()
    assert duck.connection is connection
    assert connection.sql("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    assert duck.limit > 0
    assert not duck.has_own_limit


def test_an_engine_that_could_not_be_opened_is_tried_again(tmp_path, monkeypatch):
    duck, opened = Duck(tmp_path), duckdb.connect

    def fails(**_options):
        raise duckdb.IOException("no room")

    monkeypatch.setattr(duckdb, "connect", fails)
    duck.begin()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"DuckDB could not be opened: .*no room"):
            _ = duck.connection
    monkeypatch.setattr(duckdb, "connect", opened)
    assert duck.connection.sql("SELECT 1").fetchall() == [(1,)]


def test_a_limit_that_duckdb_does_not_take_is_one_clear_error():
    with pytest.raises(StoreError, match="could not be opened"):
        FeatureStore(memory_limit="9" * 30 + "GB").core.check_engine()


def test_every_home_records_that_the_engine_passed_though_a_process_tests_it_once(tmp_path):
    for name in ("first", "second"):
        FeatureStore(tmp_path / name).core.engine()
    first, second = ([one.name for one in (tmp_path / name).glob("checked-*")] for name in ("first", "second"))
    assert first == second != []


def test_an_engine_that_was_opened_but_never_used_ends_silently(tmp_path):
    done = subprocess.run([sys.executable, "-c", BEGUN, str(tmp_path)], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_process_forked_while_engines_are_open_and_not_used_yet_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "0 [[(7,)], [(7,)], [(7,)]]\n", done


def test_a_failure_after_the_first_rows_is_a_store_error():
    query = "SELECT CASE WHEN i = 3000000 THEN error('late') ELSE i END AS i FROM range(4000000) AS t(i)"
    with duckdb.connect(config={"threads": 1}) as connection:  # which has no other to run ahead
        connection.execute("SET streaming_buffer_size = '100KB'")
        batches = _read(connection.sql(query).to_arrow_reader(1000))
        assert next(batches).num_rows == 1000
        with pytest.raises(StoreError, match="late"):
            list(batches)
