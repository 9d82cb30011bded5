"""Pushes through the log: acknowledged before they are committed, seen by every read, stored once, and lost by nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import deltalake
import pyarrow as pa
import pytest

from contract.world import finished, python
from seeknal import (
    Count,
    DataError,
    Entity,
    FeatureLookup,
    FeatureStore,
    Last,
    Materialization,
    SeeknalWarning,
    ServedTable,
    StoreError,
    Sum,
    WindowedGroup,
)
from seeknal.define.event_group import event_group
from seeknal.define.feature_group import FeatureGroup
from seeknal.registry import GroupRecord
from servers import wait_for
from unprivileged import make_read_only, unprivileged

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

NOW = datetime.now(UTC)
SOURCE = event_group("events", "at", ["id"], project="shop")
ROWS = FeatureGroup("rows", Entity("user", ["user"]), Materialization("at", online=True), "shop")
WINDOWS = WindowedGroup(
    "windows", Entity("user", ["user"]), "shop/events", {"n": Count(), "sum": Sum("x"), "last": Last("x")}, "shop"
)
GROUPS = ["events", "rows"]


def event(number: int, user: int = 1) -> dict[str, object]:
    return {"id": number, "at": datetime.now(UTC), "user": user, "x": number}


def row(number: int, user: int = 1) -> dict[str, object]:
    return {"user": user, "at": datetime.now(UTC), "x": number}


MADE: dict[str, Callable[..., dict[str, object]]] = {"events": event, "rows": row}


@pytest.fixture
def store():
    """A store with a source, a group and a table of both, whose next pushes go through the log."""
    made = FeatureStore()
    made.groups.write(SOURCE, pa.Table.from_pylist([event(0, user=0)]), mode="append")
    made.groups.write(ROWS, pa.Table.from_pylist([row(0, user=0)]), mode="append")
    made.tables.serve([FeatureLookup(WINDOWS), FeatureLookup("shop/rows", features=["x"])], "table")
    table_of(made)
    warm(made)
    yield made
    made.close()


def warm(store: FeatureStore) -> None:
    for name in GROUPS:
        store.groups.push(name, MADE[name](-1, user=0))


def record_of(store: FeatureStore, name: str) -> GroupRecord:
    return store.groups.find(name, project="shop")


def waiting(store: FeatureStore, name: str) -> int:
    """Count the pushes in the log."""
    return len(store.core.catalog.pushes.contents(record_of(store, name).stream).entries)


def push(store: FeatureStore, name: str, number: int, user: int = 1) -> dict[str, object]:
    """Push a row that goes through the log, and return it."""
    given = MADE[name](number, user)
    assert store.groups.push(name, given).snapshot is None
    return given


@lru_cache(maxsize=1)
def table_of(store: FeatureStore) -> ServedTable:
    """Return the table, which is opened only once: to open one commits what is in the log."""
    return store.tables.open("table")


def online(store: FeatureStore, user: int = 1) -> dict[str, object]:
    (found,) = table_of(store).get_features([{"user": user}], "dicts")
    return found


def offline(store: FeatureStore, name: str, user: int = 1) -> list[int]:
    """Return the numbers of a user's stored rows, in order."""
    rows = store.groups.sample(name, project="shop", limit=10**9).to_pylist()
    return sorted(one["x"] for one in rows if one["user"] == user)


def counted(store: FeatureStore, at: datetime, as_of: object = None) -> int:
    """Return the number of events of user 1 that a training set has."""
    spine = pa.table({"user": [1], "now": pa.array([at], pa.timestamp("us", "UTC"))})
    found = store.features.training_set([FeatureLookup("shop/windows")], spine, "now", output="arrow", as_of=as_of)
    return found["n"][0].as_py()


LOOK = """
import sys
from seeknal import FeatureStore
store = FeatureStore()
print(store.tables.open("table").get_features([{"user": 1}], "dicts")[0])
if sys.argv[1:]:
    print(sorted(one["x"] for one in store.groups.sample("events", project="shop", limit=99).to_pylist() if one["user"] == 1))
"""


def test_a_push_after_the_first_waits_in_the_log_and_every_read_sees_it(store):
    assert online(store) == {"user": 1, "n": 0, "sum": None, "last": None, "x": None}
    for name in GROUPS:
        push(store, name, 5)
        assert waiting(store, name) >= 1
    seen = {"user": 1, "n": 1, "sum": 5, "last": 5, "x": 5}
    assert online(store) == seen
    assert finished(python(LOOK)).strip() == str(seen)
    push(store, "events", 6)
    assert finished(python(LOOK, "offline")).splitlines()[1] == "[5, 6]"
    assert waiting(store, "events") == 0
    assert offline(store, "rows") == [5]
    assert online(store) == seen | {"n": 2, "sum": 11, "last": 6}
    assert store.tables.verify("table").equal


@pytest.mark.parametrize("name", GROUPS)
def test_what_threads_push_at_once_is_stored_once(store, name):
    given = [MADE[name](number) | {"at": NOW + timedelta(seconds=10 + number)} for number in range(60)]

    def work(first: int) -> None:
        for i in range(len(given)):
            store.groups.push(name, given[(first + i) % len(given)])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert offline(store, name) == list(range(60))


PUSH = """
import sys
from datetime import datetime, timedelta
from seeknal import FeatureStore
store, start = FeatureStore(), datetime.fromisoformat(sys.argv[1])
for number in range(40):
    at = start + timedelta(seconds=number)
    store.groups.push("events", {"id": number, "at": at, "user": 1, "x": number})
    store.groups.push("rows", {"user": 1, "at": at, "x": number})
"""


def test_what_processes_push_at_once_is_stored_once(store):
    for process in [python(PUSH, NOW.isoformat()) for _ in range(3)]:
        finished(process)
    for name in GROUPS:
        assert offline(store, name) == list(range(40))
    assert store.tables.verify("table").equal


ENDLESS = """
from datetime import UTC, datetime
from itertools import count
from seeknal import FeatureStore
store = FeatureStore()
for number in count(1):
    at = datetime.now(UTC)
    store.groups.push("events", {"id": number, "at": at, "user": 1, "x": number})
    store.groups.push("rows", {"user": 1, "at": at, "x": number})
    print(number, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_a_kill(store):
    process = python(ENDLESS)
    for _ in range(30):
        process.stdout.readline()
    process.kill()
    done = 30 + len(process.communicate()[0].split())
    found = online(store)
    assert done <= found["n"] <= done + 1
    assert found["x"] in {done, done + 1}
    assert offline(store, "events") == list(range(1, found["n"] + 1))
    assert offline(store, "rows") == list(range(1, found["x"] + 1))


# A profile function sees the calls of all functions without changing any of them.
KILLED = """
import os, signal, sys
from seeknal import FeatureStore
name, where, event = sys.argv[1:]
store = FeatureStore()
store.groups.sample(name, project="shop", limit=1)
def look(frame, seen, _):
    if seen == event and frame.f_code.co_qualname == where:
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(look)
store.groups.sample(name, project="shop", limit=1)
"""
STEPS = [
    ("PushLog._settle", "call"),
    ("PushLog._settle", "return"),
    ("OfflineTable.write", "return"),
    ("PushLog.store", "return"),
    ("PushLog.remove", "call"),
    ("PushLog.remove", "return"),
]
LEAVE = """
import os, signal
from datetime import UTC, datetime
from seeknal import FeatureStore
store = FeatureStore()
for number in (-2, 1, 2, 3):
    at = datetime.now(UTC)
    store.groups.push("events", {"id": number, "at": at, "user": 1 if number > 0 else 0, "x": number})
    store.groups.push("rows", {"user": 1 if number > 0 else 0, "at": at, "x": number})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize(("where", "seen"), STEPS)
def test_a_commit_that_is_killed_at_any_step_is_completed_once(store, name, where, seen):
    store.close()
    python(LEAVE).communicate()
    code = KILLED.replace('store.groups.sample(name, project="shop", limit=1)\ndef', "def")
    process = python(code, name, where, seen)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    found = online(store)
    assert (found["n"], found["x"]) == (3, 3)
    assert offline(store, name) == [1, 2, 3]
    assert waiting(store, name) == 0
    assert online(store) == found
    assert store.tables.verify("table").equal


@pytest.mark.parametrize("name", GROUPS)
def test_replays_and_corrections_are_known_while_their_rows_are_in_the_log(store, name):
    given = push(store, name, 5)
    again = store.groups.push(name, given)
    assert (again.rows, again.known) == (0, 1)
    corrected = store.groups.push(name, given | {"x": 7})
    assert (corrected.rows, corrected.known) == (1, 0)
    assert (online(store)["last"], online(store)["x"]) == ((7, None) if name == "events" else (None, 7))


def test_a_time_after_a_push_sees_it_however_late_it_is_committed(store):
    push(store, "events", 5)
    after = datetime.now(UTC)
    push(store, "rows", 5)
    wait_for(lambda: not waiting(store, "events"))
    assert counted(store, after, as_of=after) == 1


def test_an_erased_entity_does_not_come_back_from_the_log(store):
    given = push(store, "events", 5)
    push(store, "events", 6, user=2)
    store.entities.erase("user", {"user": 1})
    assert store.groups.push("events", given).erased == 1
    assert online(store)["n"] == 0
    assert offline(store, "events") == []
    assert offline(store, "events", user=2) == [6]


def test_nothing_of_an_erased_entity_stays_in_the_files_of_the_log(home):
    store = FeatureStore()
    notes = FeatureGroup("notes", Entity("user", ["user"]), Materialization("at"), "shop")
    store.groups.write(notes, pa.Table.from_pylist([{"user": 0, "at": NOW, "note": "first"}]))
    for note in ("second", "the secret of user 1"):
        store.groups.push("notes", {"user": 1, "at": datetime.now(UTC), "note": note})
    files = [home / f"pushes.db{end}" for end in ("", "-wal")]
    assert any(b"secret of user" in file.read_bytes() for file in files if file.exists())
    store.entities.erase("user", {"user": 1})
    assert not any(b"secret of user" in file.read_bytes() for file in files if file.exists())


def test_a_lookup_finds_the_row_that_a_load_puts_in_the_place_of_an_older_one_while_it_begins(store):
    push(store, "rows", 1)
    store.tables.refresh(["table"])
    table = store.tables.open("table")
    part = table.parts[1]
    store_of_rows = part.online

    class Loading:
        """The online store, into which a later row is loaded just before the first read."""

        def __getattr__(self, name: str) -> object:
            return getattr(store_of_rows, name)

        def get_all(self, *arguments: object) -> object:
            if table.parts[0].online is self:
                table.parts[0].online = store_of_rows
                push(store, "rows", 2)
                store.tables.refresh(["table"])
            return store_of_rows.get_all(*arguments)

    table.parts[0].online = Loading()
    (found,) = table.get_features([{"user": 1}], "dicts", with_status=True)
    assert (found["x"], found["rows_status"]) == (2, "found")


def test_a_group_that_is_deleted_and_created_anew_has_nothing_of_the_log(store):
    store.tables.delete("table")
    push(store, "rows", 5)
    store.groups.delete("rows")
    store.groups.write(ROWS, pa.Table.from_pylist([row(8, user=0)]), mode="append")
    assert offline(store, "rows") == []
    table = store.tables.serve([FeatureLookup("shop/rows")], "again")
    assert table.get_features([{"user": 1}], "dicts")[0]["x"] is None


def test_rows_in_the_log_become_rows_of_a_version_that_comes_meanwhile(store):
    wide = pa.Table.from_pylist([row(0, user=0) | {"y": 1}])
    push(store, "rows", 5)
    catalog = store.core.catalog
    catalog.gate.closed(lambda: store.groups.write(ROWS, wide, mode="append"))  # as if it was pushed during the write
    assert online(store)["x"] == 5
    (stored,) = [one for one in store.groups.sample("rows", project="shop", limit=9).to_pylist() if one["user"] == 1]
    assert (stored["x"], stored["y"]) == (5, None)
    assert store.tables.verify("table").equal


def test_pushes_are_committed_at_once_while_a_table_has_not_moved_to_their_version(store):
    narrow = store.tables.open("table")
    wide = pa.Table.from_pylist([row(0, user=0) | {"y": 1}])
    group = FeatureGroup("rows", ROWS.entity, Materialization("at", online=False), "shop")
    store.groups.write(group, wide, mode="append")
    for number in (1, 2, 3):
        store.groups.push("rows", row(number) | {"y": 1})
        assert narrow.get_features([{"user": 1}], "dicts")[0]["x"] == number


def test_lookups_find_what_is_stored_and_not_yet_online(store):
    store.core.pushing.close()
    python(LEAVE).communicate()  # and no process loads what it has pushed
    for name in GROUPS:
        assert store.core.pushing.commit(record_of(store, name))
    assert (online(store)["n"], online(store)["x"]) == (3, 3)
    assert waiting(store, "events")
    assert offline(store, "events") == [1, 2, 3]
    assert (online(store)["n"], online(store)["x"]) == (3, 3)
    assert not waiting(store, "events")


@pytest.mark.parametrize("name", GROUPS)
def test_a_row_without_a_key_is_refused_as_ever(store, name):
    push(store, name, 5)
    key = "id" if name == "events" else "user"
    with pytest.raises(DataError, match=key):
        store.groups.push(name, MADE[name](6) | {key: None})
    assert offline(store, name) == [5]


def test_of_events_pushed_together_the_one_created_last_is_the_last():
    store = FeatureStore()
    source = event_group("made", "at", ["id"], created_time_col="created", project="shop")
    made = {"at": NOW, "created": NOW, "user": 0, "x": 0}
    store.groups.write(source, pa.Table.from_pylist([made | {"id": 0}]), mode="append")
    group = WindowedGroup("made_windows", Entity("user", ["user"]), "shop/made", {"last": Last("x")}, "shop")
    table = store.tables.serve([FeatureLookup(group)], "made")
    for i in (1, 2):
        store.groups.push("made", made | {"id": i, "created": NOW + timedelta(seconds=i)})
    late, early = (made | {"created": NOW + timedelta(seconds=10 + i), "user": 1, "x": i} for i in (2, 1))
    store.groups.push("made", [late | {"id": 3}, early | {"id": 4}])
    assert table.get_features([{"user": 1}], "dicts")[0]["last"] == 2
    assert store.tables.verify("made").equal


def test_a_condition_may_be_spelt_like_a_column():
    store = FeatureStore()
    flagged = {"at": NOW, "user": 1, "good": True}
    source = event_group("flags", "at", ["id"], project="shop")
    store.groups.write(source, pa.Table.from_pylist([flagged | {"id": 0}]), mode="append")
    group = WindowedGroup("good", Entity("user", ["user"]), "shop/flags", {"n": Count(where="good")}, "shop")
    table = store.tables.serve([FeatureLookup(group)], "good")
    pushed = [store.groups.push("flags", flagged | {"id": i, "good": i != 2}).snapshot for i in (1, 2, 3)]
    assert pushed[-1] is None
    assert table.get_features([{"user": 1}], "dicts")[0]["n"] == 3
    assert store.tables.verify("good").equal


def test_an_event_for_which_a_condition_fails_stops_no_read_of_other_groups(store):
    store.groups.write(event_group("codes", "at", ["id"], project="shop"), coded(0, "7"), mode="append")
    condition = WindowedGroup(
        "fails", Entity("user", ["user"]), "shop/codes", {"n": Count(where="code::INT > 1")}, "shop"
    )
    plain = WindowedGroup("counts", Entity("user", ["user"]), "shop/codes", {"all": Count()}, "shop")
    store.tables.serve([FeatureLookup(condition)], "fails")
    table = store.tables.open("fails")
    store.groups.push("codes", coded(1, "8").to_pylist()[0])
    with pytest.raises(DataError, match="TRY_CAST"):
        store.groups.push("codes", coded(2, "bad").to_pylist()[0])
    for number in (3, 4):
        with suppress(DataError):
            store.groups.push("codes", coded(number, "9").to_pylist()[0])
    spine = pa.table({"user": [1], "now": pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC"))})
    found = store.features.training_set([FeatureLookup(plain)], spine, "now", output="arrow")
    assert found["all"].to_pylist() == [5]
    assert table.get_features([{"user": 1}], "dicts")[0]["n"] >= 2
    store.groups.push("codes", coded(2, "9").to_pylist()[0])  # a correction
    assert table.get_features([{"user": 1}], "dicts") == [{"user": 1, "n": 5}]


def coded(number: int, code: str) -> pa.Table:
    return pa.Table.from_pylist([{"id": number, "at": datetime.now(UTC), "user": 1, "code": code}])


def test_lookups_go_on_after_a_column_of_their_windows_was_removed(store):
    before = online(store)
    frame = pa.Table.from_pylist([event(0, user=0)]).drop_columns("x")
    store.groups.write(SOURCE, frame, mode="overwrite")
    for number in (1, 2, 3):
        given = event(number)
        del given["x"]
        store.groups.push("events", given)
        assert online(store)["sum"] == before["sum"]


def test_a_log_whose_creation_was_killed_is_created_by_the_next_push():
    store = FeatureStore()
    store.groups.write(ROWS, pa.Table.from_pylist([row(0, user=0)]), mode="append")
    with sqlite3.connect(store.home / "pushes.db") as db:
        db.execute("PRAGMA journal_mode = WAL")  # which leaves a file without tables
    warm_ups = [store.groups.push("rows", row(number)).snapshot for number in (1, 2)]
    assert warm_ups[-1] is None
    assert offline(store, "rows") == [1, 2]


def test_rows_of_other_programs_can_be_adopted_while_the_log_has_pushes(store):
    push(store, "rows", 5)
    _write_elsewhere(store)
    with pytest.raises(StoreError, match="Another program changed"):
        store.groups.sample("rows", project="shop", limit=1)
    store.groups.adopt("rows")
    assert offline(store, "rows") == [5]
    assert offline(store, "rows", user=9) == [9]


def _write_elsewhere(store: FeatureStore) -> None:
    """Append a row to the table of the group as another program does."""
    root = str(store.core.catalog.offline("shop", "rows").root)
    rows = pa.table(deltalake.DeltaTable(root).to_pyarrow_table()).slice(0, 1)
    at = rows.schema.field("at").type
    alien = pa.table({"user": [9], "at": pa.array([datetime.now(UTC)], at), "x": [9]})
    deltalake.write_deltalake(root, alien, mode="append", schema_mode="merge")


def test_a_failure_in_the_background_is_told_and_tried_again(store):
    push(store, "rows", 5)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SeeknalWarning)
        _write_elsewhere(store)
        wait_for(lambda: any("safe in the push log" in str(one.message) for one in told))
    store.groups.adopt("rows")
    wait_for(lambda: not waiting(store, "rows"))
    assert offline(store, "rows") == [5]


READER = """
import sys
from seeknal import FeatureStore
store = FeatureStore()
table = store.tables.open("table")
for _ in sys.stdin:
    print(table.get_features([{"user": 1}], "dicts")[0]["n"], flush=True)
"""


def without_rights(store: FeatureStore, code: str) -> subprocess.Popen[str]:
    """Start a process that may read the home, and not write it, while this one may, as root."""
    make_read_only(store.home)
    command, pipe = unprivileged(sys.executable, "-c", code), subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may write what is read-only")


@needs_root
def test_a_user_who_may_not_write_sees_pushes_that_begin_after_the_log_was_at_rest(store):
    store.close()
    reader = without_rights(store, READER)

    def look() -> int:
        reader.stdin.write("\n")
        reader.stdin.flush()
        return int(reader.stdout.readline())

    assert look() == 0
    warm(store)
    for number in range(1, 5):
        push(store, "events", number)
        assert look() == number
    store.close()
    assert look() == 4
    reader.communicate()


@needs_root
def test_a_user_who_may_not_commit_is_told_who_may(store):
    store.close()
    python(LEAVE).communicate()
    code = 'from seeknal import FeatureStore\nFeatureStore().groups.sample("events", project="shop", limit=1)'
    _, errors = without_rights(store, code).communicate(timeout=120)
    assert "which this user may not commit" in errors, errors
    assert offline(store, "events") == [1, 2, 3]


def test_forked_processes_look_up_while_their_parent_pushes(store):
    table, done = store.tables.open("table"), threading.Event()
    fork = multiprocessing.get_context("fork")
    last = fork.Value("l", 0)

    def push_on() -> None:
        number = 0
        while not done.is_set():
            number += 1
            store.groups.push("events", event(number))
            last.value = number

    def look_on(wrong) -> None:
        for _ in range(200):
            least = last.value
            wrong.value += table.get_features([{"user": 1}], "dicts")[0]["n"] < least

    pusher = threading.Thread(target=push_on)
    pusher.start()
    try:
        for _ in range(6):
            wait_for(lambda least=last.value: last.value > least)
            wrong = fork.Value("l", 0)
            child = fork.Process(target=look_on, args=(wrong,))
            child.start()
            child.join(60)
            assert (child.exitcode, wrong.value) == (0, 0)
    finally:
        done.set()
        pusher.join()
