"""The registry, in a file and in PostgreSQL: each call sees one state, and changes all or nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from contract.world import HOUR, NOON, rows, write, written
from registries import both
from seeknal import Count, DefinitionError, Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import GroupDeletedError, StoreError
from seeknal.registry import (
    ModelRecord,
    OnlineTableRecord,
    PinnedLookup,
    Question,
    TokenRecord,
    TrainingSetRecord,
    ViewRecord,
    open_registry,
)
from seeknal.registry.sql import migrations, upgrade
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.values.times import Interval
from servers import wait_for

pytestmark = [both, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]


def group_of(name: str, project: str = "shop", **options: object) -> FeatureGroup:
    return FeatureGroup(name, Entity(f"{name}_entity", ["user_id"]), Materialization("at", **options), project)


def lookup_of(record) -> PinnedLookup:
    return PinnedLookup(record.project, record.name, 1, (("user_id", "user_id"),), (("x", "x"),))


@pytest.fixture
def registry(home) -> SqlRegistry:
    """The registry of the test's home."""
    return FeatureStore(home).core.registry


def again(registry: SqlRegistry) -> SqlRegistry:
    """Open the registry of this home once more, as another process would."""
    return open_registry(FeatureStore().settings.address)


NEXT = """
from alembic import op
from sqlalchemy import Column, Text
revision, down_revision = "{number}", "{before}"
def upgrade():
    op.add_column("token", Column("note", Text()))
    op.execute("{statement}")
"""


def next_release(folder, monkeypatch, statement: str) -> str:
    """Have one more migration, which adds a column and runs a statement; return its number."""
    shutil.copytree(Path(migrations.__file__).parent, folder)
    number = f"{int(upgrade.HEAD) + 1:04}"
    text_of = NEXT.format(number=number, before=upgrade.HEAD, statement=statement)
    (folder / f"m{number}_notes.py").write_text(text_of)
    monkeypatch.setattr(upgrade, "_MIGRATIONS", folder)
    monkeypatch.setattr(upgrade, "HEAD", number)
    return number


def test_the_next_migration_is_made_completely_or_not_at_all(registry, tmp_path, monkeypatch):
    registry.add_token(TokenRecord("id", "ci", "shop", ("read",), "digest", 1, None))
    with monkeypatch.context() as patch:
        next_release(tmp_path / "failing", patch, "SELECT * FROM no_such_table")
        with suppress(StoreError):  # a file is read as it is
            again(registry)
        columns = registry.take(lambda db: [one["name"] for one in inspect(db).get_columns("token")])
        assert "note" not in columns
    number = next_release(tmp_path / "working", monkeypatch, "UPDATE token SET note = name")
    migrated = again(registry)
    assert migrated.take(lambda db: db.execute(text("SELECT note FROM token")).all()) == [("ci",)]
    assert migrated.take(lambda db: db.scalar(text("SELECT version_num FROM alembic_version"))) == number


def test_names_are_ordered_by_their_bytes(registry):
    names = ["b", "B", "a_b", "a-b", "ab", "A", "a1", "a10", "a2", "Zz", "zZ"]
    for project in ("b", "B", "a"):
        for name in names:
            registry.save_group(group_of(name, project))
    labels = sorted((project, name) for project in ("b", "B", "a") for name in names)
    assert [(one.project, one.name) for one in registry.groups()] == labels
    assert [(project, entity.name) for project, entity in registry.entities()] == sorted(
        (project, f"{name}_entity") for project, name in labels
    )
    assert [one.record.project for one in registry.states(None, "ab")] == ["B", "a", "b"]


def test_a_group_comes_back_as_it_was_given(registry):
    given = FeatureGroup(
        "spend",
        Entity("customer", ["country", "customer_id"], "someone who buys; œ € 𝄞 '\"\\%s:x", ["customer_id"]),
        Materialization("at", created_time_col="made", ttl=timedelta(days=3), online=True),
        "shop",
        "what they spent\n\t",
    )
    saved = registry.save_group(given)
    assert (saved.group, saved) == (given, again(registry).group("shop", "spend"))
    assert registry.save_group(replace(given, description=None)).group == given
    assert registry.group("shop", "Spend") is None


def test_what_may_not_change_is_refused_and_nothing_is_changed(registry):
    registry.save_group(group_of("spend"))
    before = registry.groups(), registry.entities()
    with pytest.raises(DefinitionError, match="has event_time_col='at', not 'when'"):
        registry.save_group(replace(group_of("spend"), materialization=Materialization("when"), description="new"))
    with pytest.raises(DefinitionError, match="has the join keys user_id, not shop_id"):
        registry.save_group(replace(group_of("spend"), entity=Entity("spend_entity", ["shop_id"], "new")))
    assert (registry.groups(), registry.entities()) == before


def source_and_windows(registry: SqlRegistry, *spans: str):
    """Register an event source, and a windowed group over it with a version for each span."""
    source = EventGroup(
        name="taps", materialization=Materialization("at"), project="shop", description=None, event_id=("tap_id",)
    )
    record = registry.save_group(source)
    user = Entity("user", ["user_id"])
    for span in spans:
        windows = WindowedGroup("habits", user, "shop/taps", {"taps": Count(over=span)})
        found, _ = registry.save_windowed_group(windows, record)
    return record, found


def test_deleting_a_group_deletes_all_that_is_of_it_and_nothing_else(home, registry):
    fg, other = written(rows(1, 2)), written(rows(3), name="visits")
    store = FeatureStore(home)
    store.groups.erase("spend", {"user_id": 1})
    write(fg, rows(4, user=2), mode="append")
    store.tables.serve([FeatureLookup("spend")], "mine")
    store.tables.serve([FeatureLookup("visits")], "theirs")
    record, kept = registry.group("shop", "spend"), registry.group("shop", "visits")
    assert registry.last_erasures().keys() == {record.id}
    loads = registry.loads(record)
    assert registry.delete_group(record) == loads != []
    assert [one.name for one in registry.tables()] == ["theirs"]
    assert registry.groups() == [kept]
    assert [entity.name for _, entity in registry.entities()] == ["visits_entity"]
    assert (registry.every_version().keys(), registry.last_erasures()) == ({kept.id}, {})
    assert (registry.versions(record), registry.snapshots(record), registry.loads(record)) == ([], [], [])
    assert registry.delete_group(record) == []
    assert other.project == "shop"


def test_nothing_is_added_to_a_deleted_group_even_if_one_of_its_name_exists(registry):
    old = registry.save_group(group_of("spend"))
    registry.delete_group(old)
    new = registry.save_group(group_of("spend"))
    assert new.id != old.id
    for call in (
        lambda: registry.add_commits(old, []),
        lambda: registry.begin_loads(old, 1, [("", Interval())]),
        lambda: registry.add_erasure(old, "digest", 1),
        lambda: registry.choose_definition(old, 1),
    ):
        with pytest.raises(GroupDeletedError):
            call()
    assert (registry.loads(new), registry.erasures(new)) == ([], {})
    assert registry.end_loads(old, 1, [("", Interval(), None)], 1, 1, 1.0) is False


def test_a_state_is_what_the_single_calls_return(home, registry):
    fg = written(rows(1, 2))
    write(fg, rows(3, extra=["a"]), mode="append")
    write(fg, rows(4, extra=["b"], times=[NOON + 9 * HOUR]), mode="append")
    FeatureStore(home).tables.serve([FeatureLookup("spend")], "spending")
    record = registry.group("shop", "spend")
    (state,) = registry.states("shop", "spend", since=2)
    assert state.record == record
    assert list(state.versions) == registry.versions(record) == registry.every_version()[record.id]
    assert state.last_snapshot == registry.last_snapshot(record) == 3
    assert (list(state.loads), list(state.tables)) == (registry.loads(record), registry.tables())
    assert list(state.snapshots) == registry.snapshots(record, 2)
    assert [one.number for one in registry.versions(record, until=2)] == [1, 2]
    assert registry.snapshot_at(record, registry.snapshots(record)[1].at) == 2
    assert registry.snapshot_at(record, 0) == 0
    assert registry.watermarks(record, 1) == sorted(registry.watermarks(record, 1)) != []


def test_the_versions_of_a_definition_are_numbered_and_one_is_current(registry):
    source, windows = source_and_windows(registry, "7d", "30d", "7d")
    assert [(one.number, one.is_current) for one in registry.definitions(windows)] == [(1, False), (2, True)]
    registry.choose_definition(windows, 1)
    assert [one.is_current for one in registry.definitions(windows)] == [True, False]
    assert registry.windowed_groups(source) == [registry.group("shop", "habits")]
    assert list(registry.states("shop", "taps")[0].windowed) == registry.windowed_groups(source)
    registry.delete_group(windows)
    assert registry.windowed_groups(source) == []


def test_a_load_that_was_forgotten_is_not_ended(registry):
    record = registry.save_group(group_of("spend"))
    first, second = registry.begin_loads(record, 1, [("", Interval(0, 10)), ("redis://a", Interval())])
    assert first < second
    registry.forget_loads(record, 1, ["redis://a", "redis://b"])
    assert registry.end_loads(record, 1, [("", Interval(0, 10), first)], 3, 5, 0.25)
    assert not registry.end_loads(record, 1, [("redis://a", Interval(), second)], 3, 5, 0.25)
    (load,) = registry.loads(record)
    assert (load.id, load.interval, load.snapshot, load.rows, load.seconds) == (first, Interval(0, 10), 3, 5, 0.25)
    assert registry.loads(record, 2) == []


def test_tables_and_views_change_by_compare_and_swap(registry):
    record = registry.save_group(group_of("spend"))
    table = OnlineTableRecord("shop", "t", (lookup_of(record),), 5, "", 1, None, 0.125)
    assert registry.save_table(table, None)
    moved = replace(table, created_at=2)
    assert not registry.save_table(moved, None)
    assert registry.save_table(moved, table)
    assert not registry.save_table(table, table)
    assert registry.tables(name="t") == [moved]
    assert not registry.save_table(replace(table, name="u", lookups=(replace(lookup_of(record), group="gone"),)), None)
    view = ViewRecord("shop", "v", 1, '{"a": 1}', 7, None, "what", "who", ("x", "ü"))
    assert registry.save_view(view) == view
    assert registry.save_view(replace(view, text="{}")) is None
    assert registry.save_view(replace(view, number=3)) is None
    assert registry.save_view(replace(view, owner="she", description=None)) == replace(view, owner="she")
    registry.retire_view(view, 9)
    assert [one.retired_at for one in registry.views("shop", "v")] == [9]
    for version in (2, 1):
        registry.add_model(ModelRecord("shop", "v", "m", version, "train", f"models:/{version}", 10 - version))
    registry.add_model(ModelRecord("shop", "v", "m", 1, "train", "models:/new", 20))
    assert [(one.version, one.uri) for one in registry.models("shop", "v")] == [(2, "models:/2"), (1, "models:/new")]
    registry.delete_view("shop", "v")
    assert (registry.views(), registry.models("shop", "v")) == ([], [])


def test_names_of_training_sets_and_tokens_are_taken_once(registry):
    record = registry.save_group(group_of("spend"))
    made = TrainingSetRecord("shop", "train", (lookup_of(record),), Question("history"), 7, "hash", True, 1, "folder")
    registry.add_training_set(made)
    with pytest.raises(DefinitionError, match="has a training set 'train'"):
        registry.add_training_set(replace(made, rows=8))
    assert registry.training_sets("shop") == [made]
    registry.delete_training_set(made)
    assert registry.training_sets() == []
    token = TokenRecord("id", "ci", "shop", ("read", "write"), "digest", 1, None)
    registry.add_token(token)
    registry.revoke_token("ci", 5)
    with pytest.raises(DefinitionError, match="is or was in use"):
        registry.add_token(replace(token, id="other"))
    assert [asdict(one) for one in registry.tokens()] == [asdict(replace(token, revoked_at=5))]


def test_the_stamp_differs_after_each_change_and_stays_else(registry):
    other = again(registry)
    seen = [registry.stamp()]
    for number in range(5):
        registry.save_group(group_of(f"g{number}"))
        seen.append(other.stamp())
        assert other.stamp() == seen[-1]
        registry.groups()
    assert len(set(seen)) == 6


def test_a_change_by_this_process_shows_in_the_recent_stamp_at_once(registry):
    other = again(registry)
    for number in range(5):
        before = other.recent_stamp()
        registry.save_group(group_of(f"g{number}"))
        assert other.recent_stamp() != before


def test_a_change_by_another_process_shows_in_the_recent_stamp(registry):
    before = registry.recent_stamp()
    code = "from contract.world import written, rows; written(rows(1))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    wait_for(lambda: registry.recent_stamp() != before)
    assert len(registry.groups()) == 1


MANY = """
import sys
from seeknal import FeatureStore
from test_registry import Interval, group_of
name, others = sys.argv[1], int(sys.argv[2])
registry = FeatureStore().core.registry
shared = registry.save_group(group_of("shared"))
sys.stdin.readline()
for number in range(others):
    record = registry.save_group(group_of(f"{name}_{number}"))
    registry.begin_loads(record, 1, [("", Interval())])
    registry.begin_loads(shared, 1, [(f"{name}-{number}", Interval())])
    registry.save_group(group_of(f"both_{number}"))
"""


def test_processes_that_register_and_load_at_once_lose_and_double_nothing(registry):
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, name, "30"], stdin=subprocess.PIPE, text=True) for name in "ab"
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(timeout=240) or process.stdin.close() for process in processes] == [None, None]
    names = [one.name for one in registry.groups()]
    assert Counter(names) == Counter(["shared", *(f"{who}_{i}" for who in ("a", "b", "both") for i in range(30))])
    targets = [load.target for load in registry.loads(registry.group("shop", "shared"))]
    assert sorted(targets) == sorted(f"{who}-{i}" for who in "ab" for i in range(30))
    assert all(len(registry.loads(one)) == 1 for one in registry.groups() if one.name[:2] in {"a_", "b_"})


def test_more_threads_than_sessions_can_use_the_registry_at_once(registry):
    record, failed = registry.save_group(group_of("shared")), []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                registry.begin_loads(record, 1, [(f"{number}", Interval())])
                registry.states("shop", "shared")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, len(registry.loads(record))) == ([], 125)
