"""Ctrl-C is a KeyboardInterrupt wherever it comes, and leaves no lock and no half."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from sqlalchemy import text

import interrupted
from seeknal import FeatureStore
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.system.duck import Duck
from seeknal.values.frames.relations import read

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("writes", [False, True])
def test_an_interrupted_transaction_ends_though_its_traceback_is_kept(tmp_path, writes):
    registry = SqliteRegistry(tmp_path / "registry.db")

    def step(db):
        rows = db.execute(text("SELECT name FROM sqlite_master"))
        rows.fetchone()
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        registry.take(step, writes=writes)
    with closing(sqlite3.connect(registry.path, timeout=0)) as db:
        db.execute("BEGIN EXCLUSIVE")
    assert caught.tb.tb_next


class Pressed:
    """Rows in whose reading Ctrl-C is pressed."""

    def __arrow_c_stream__(self, requested_schema=None):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_query_is_a_keyboard_interrupt(tmp_path):
    cursor, begins = Duck(tmp_path).connection.cursor(), threading.Event()
    main = threading.main_thread().ident

    def press():
        begins.wait()
        signal.pthread_kill(main, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    query = cursor.sql("SELECT sum(hash(a.range, b.range)) FROM range(10000000) AS a, range(10000000) AS b")

    def ask():
        begins.set()
        query.to_arrow_table()

    with pytest.raises(KeyboardInterrupt):
        ask()
    pressing.join()
    assert cursor.sql("SELECT 1 AS one").to_arrow_table().to_pydict() == {"one": [1]}


def test_ctrl_c_while_duckdb_reads_from_python_is_a_keyboard_interrupt(tmp_path):
    cursor = Duck(tmp_path).connection.cursor()

    def ask():
        cursor.register("rows", Pressed())
        cursor.sql("FROM rows").to_arrow_table()

    with pytest.raises(KeyboardInterrupt):
        ask()
    own = duckdb.connect()
    reader = pa.RecordBatchReader.from_batches(
        pa.schema([("a", pa.int64())]), (Pressed().__arrow_c_stream__() for _ in "x")
    )
    own.register("rows", reader)
    with pytest.raises(KeyboardInterrupt):
        read(own.sql("FROM rows"), ["a"])


def test_a_word_in_the_rows_is_not_taken_for_ctrl_c(tmp_path):
    cursor = Duck(tmp_path).connection.cursor()
    with pytest.raises(duckdb.ConversionException):
        cursor.execute("SELECT CAST('KeyboardInterrupt' AS INTEGER)")


def test_interrupts_at_any_moment_leave_no_lock_and_no_partial_change(tmp_path):
    home, seed = tmp_path / "home", str(random.getrandbits(32))
    command = [sys.executable, str(Path(interrupted.__file__)), str(home), seed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if line == "done\n":
                break
        store = FeatureStore(home)
        store.groups.write(interrupted.group("kept"), interrupted.rows(1000), mode="append")  # while it lives
        process.stdin.close()
    assert (said, process.returncode) == (["done"], 0), f"seed {seed}"
    stored = Counter(store.groups.sample("kept", limit=10**6)["n"].to_pylist())
    assert set(stored.values()) == {interrupted.USERS}, f"seed {seed}"
    assert set(home.rglob("*.part")) == {store.core._duck._work.folder}  # noqa: SLF001 - this process spills into it
    store.tables.refresh(full=True)
    assert store.tables.verify("table").differences == (), f"seed {seed}"


def test_ctrl_c_is_noticed_while_duckdb_waits_for_its_own_threads(tmp_path):
    """DuckDB alone misses about one in six, whenever the thread that asks has nothing to do itself."""
    for _ in range(12):
        cursor = Duck(tmp_path).connection.cursor()
        query = cursor.sql("SELECT sum(hash(a.range, b.range)) FROM range(10000000) AS a, range(10000000) AS b")
        pressing = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            query.to_arrow_table()
        pressing.join()


def test_ctrl_c_that_wakes_no_wait_is_noticed(tmp_path):
    """As when it arrives just before the wait begins. Here another thread gets it, which never wakes the main thread."""
    cursor = Duck(tmp_path).connection.cursor()
    query = cursor.sql("SELECT sum(hash(a.range, b.range)) FROM range(10000000) AS a, range(10000000) AS b")
    pressing = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        query.to_arrow_table()
    pressing.join()


def test_ctrl_c_before_a_query_begins_leaves_the_connection_free(tmp_path):
    cursor = Duck(tmp_path).connection.cursor()
    for delay in (0, 1e-5, 1e-4, 1e-3):
        pressing = threading.Timer(delay, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
        with suppress(KeyboardInterrupt):
            pressing.start()
            while True:
                cursor.sql("SELECT sum(range) FROM range(1000)").to_arrow_table()
        pressing.join()
        assert cursor.sql("SELECT 1 AS one").to_arrow_table().to_pydict() == {"one": [1]}


STARTED = """
import os, signal, sys, threading
import pyarrow as pa
from seeknal import Entity, FeatureGroup, FeatureLookup, FeatureStore, Materialization

start, number = threading.Thread.start, int(sys.argv[1])

def started(thread):
    global number
    start(thread)
    number -= threading.current_thread() is threading.main_thread()
    if number == -1:
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread.start = started
store, rows = FeatureStore(), range(300_000)
group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"))
table = pa.table({"user": rows, "at": pa.array(rows, pa.timestamp("us", "UTC")), "x": rows})
try:
    store.groups.write(group, table, mode="merge")
    store.features.training_set([FeatureLookup(group)], table.select(["user", "at"]), "at")
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_ctrl_c_while_a_thread_starts_ends_the_call_and_the_process(tmp_path, monkeypatch):
    numbers, codes = iter(range(20)), []
    while 0 not in codes:  # until so many threads are not started at all
        monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / str(number := next(numbers))))
        codes.append(subprocess.run([sys.executable, "-c", STARTED, str(number)], timeout=120, check=False).returncode)
    assert len(codes) > 3
    assert set(codes[:-1]) == {7}


DROPPED = """
import os, signal, sys, time
from seeknal.cli import main

class Dropping:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "pyarrow":
            sys.meta_path.remove(self)
            if ENDS_IN_AN_ERROR:
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    pass
                raise AttributeError("partially initialized module")
            Dropping()  # Python prints the exception of a finalizer, and goes on
            time.sleep(600)

sys.meta_path.insert(0, Slow())
main()
"""


@pytest.mark.parametrize("is_error", [False, True], ids=["dropped", "an error of its own"])
def test_a_ctrl_c_that_a_library_drops_or_makes_an_error_of_ends_a_command_all_the_same(home, is_error):
    store = FeatureStore(home)
    store.groups.write(interrupted.group("spend"), interrupted.rows(0))
    done = subprocess.run(
        [sys.executable, "-c", f"ENDS_IN_AN_ERROR = {is_error}{DROPPED}", "show", "feature-group", "spend"], check=False
    )
    assert done.returncode == 130
