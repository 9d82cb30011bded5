"""Growth with use: a push costs the same after many pushes, and old snapshots return the same rows."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from seeknal import DefinitionError, Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup, FeatureLookup
from seeknal.home.backup import backup, restore
from seeknal.join.inquiry import Inquiry
from seeknal.offline import DataFile
from seeknal.offline.entries import Pack, history, pack_entries, packed, packs
from seeknal.offline.files import due
from seeknal.offline.log import read_commits, read_snapshot
from seeknal.registry import Version
from seeknal.registry.overview import Overview
from seeknal.registry.records import NEW_ROWS
from seeknal.values.times import Interval

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]
START = datetime(2024, 1, 1, tzinfo=UTC)
GROUP = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"), "shop")


def table(numbers: list[int], **more: pa.Array) -> pa.Table:
    """Return rows, one for each number."""
    at = [START + timedelta(hours=number) for number in numbers]
    users = pa.array([number % 7 for number in numbers], pa.int64())
    return pa.table({"user_id": users, "at": at, "amount": pa.array(numbers, pa.float64()), **more})


def row(number: int) -> dict[str, object]:
    """Return a row to push."""
    return {"user_id": number % 7, "at": START + timedelta(hours=number), "amount": float(number)}


def push_alone(store: FeatureStore, given: object) -> None:
    """Push rows, and have them committed as a snapshot of their own."""
    store.groups.push("spend", given)
    store.groups.version("spend")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store with one group of one row."""
    made = FeatureStore(tmp_path / "home")
    made.groups.write(GROUP, table([0]))
    return made


def test_versions_equal_those_of_a_pass_over_all_writes(store: FeatureStore) -> None:
    push_alone(store, row(1))
    store.groups.write(GROUP, table([2], kind=pa.array(["a"])), mode="append")
    store.groups.optimize("spend")
    store.groups.rollback("spend", 1)
    push_alone(store, row(3))
    store.groups.erase("spend", {"user_id": 2})
    record = store.core.catalog.group("spend")
    writes = store.core.registry.snapshots(record)
    for until in [None, *(one.number for one in writes)]:
        seen = [one for one in writes if until is None or one.number <= until]
        found = store.core.registry.versions(record, until)
        assert [one.number for one in found] == sorted({one.version for one in seen})
        for version in found:
            mine = [one for one in seen if one.version == version.number]
            assert (version.created_at, version.snapshot) == (mine[0].at, mine[-1].number)
            assert version.written_at == [one.at for one in mine if one.mode in NEW_ROWS][-1]
            assert version.is_current == (seen[-1].version == version.number)
            assert version.rows == (
                mine[-1].rows if mine[-1].files is None else sum(file.rows for file in mine[-1].files)
            )
        assert all(version.schema.names[:2] == ["user_id", "at"] for version in found)


def test_the_schema_of_a_version_is_kept_once_however_often_it_is_written_to(store: FeatureStore) -> None:
    for number in range(1, 6):
        push_alone(store, row(number))
    versions: list[Version] = store.groups.versions("spend")
    with sqlite3.connect(store.home / "registry.db") as db:
        texts = [text for (text,) in db.execute("SELECT schema_text FROM snapshot ORDER BY number")]
    assert [bool(text) for text in texts] == [True, *[False] * 5]
    assert versions[0].schema.feature_names == ["amount"]


# Many pushes to one table


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack a few entries at a time, so that few pushes make many packs."""
    for name, value in {
        "offline.trimming._KEPT": 4,
        "offline.trimming._AT_ONCE": 4,
        "offline.commit._CHECKPOINT": 2,
    }.items():
        monkeypatch.setattr(f"seeknal.{name}", value)
    monkeypatch.setattr("seeknal.offline.table._DUE", 4)


def told(store: FeatureStore, number: int | None = None) -> list[dict[str, object]]:
    """Return the known values of all users, as of a snapshot."""
    return list(store.features.history([FeatureLookup("spend")], as_of=number, output="arrow").to_pylist())


def root_of(store: FeatureStore) -> Path:
    """Name the folder of the table."""
    return store.core.catalog.offline("shop", "spend").root


def push(store: FeatureStore, numbers: range) -> dict[int, list[dict[str, object]]]:
    """Push a row for each number, and tell what was known after each fourth, by the number of the snapshot."""
    then = {}
    for number in numbers:
        push_alone(store, row(number))
        if number % 4 == 0:
            then[store.core.registry.last_snapshot(store.core.catalog.group("spend"))] = told(store)
    return then


def count_files(store: FeatureStore) -> int:
    """Count the files of the table, but for its old entries."""
    return sum(file.is_file() for file in root_of(store).rglob("*")) - len(packs(root_of(store)))


@pytest.mark.usefixtures("quick")
def test_old_snapshots_answer_the_same_after_their_files_are_gone_and_their_log_is_packed(store: FeatureStore) -> None:
    then = push(store, range(1, 40))
    files, entries = count_files(store), len(list(root_of(store).glob("_delta_log/*.json")))
    assert packed(root_of(store)) > 30
    assert entries < 20
    assert {number: told(store, number) for number in then} == then
    push(store, range(40, 80))
    assert {number: told(store, number) for number in then} == then
    assert count_files(store) < files + 20
    assert len(list(root_of(store).glob("_delta_log/*.json"))) < 20


@pytest.mark.usefixtures("quick")
def test_as_of_a_moment_before_the_log_was_packed_returns_the_same(store: FeatureStore) -> None:
    push(store, range(1, 5))
    moment, before = datetime.now(UTC), told(store)
    push(store, range(5, 30))
    assert list(store.features.history([FeatureLookup("spend")], as_of=moment, output="arrow").to_pylist()) == before


@pytest.mark.usefixtures("quick")
def test_rewritten_rows_are_never_read_from_a_compacted_file(store: FeatureStore) -> None:
    then, more = {}, {}
    for number in range(1, 60):
        if number % 11 == 0:
            store.groups.write(GROUP, table([number - 5], **more), mode="merge")
        elif number % 13 == 0:
            interval = Interval.between(START, START + timedelta(hours=number // 2))
            store.groups.write(GROUP, table([number // 3], **more), mode="overwrite", interval=interval)
        elif number == 20:
            more = {"kind": pa.array(["a"])}
            store.groups.write(GROUP, table([number], **more), mode="append")
        elif number == 35:
            more = {}
            store.groups.rollback("spend", 1)
        else:
            store.groups.write(GROUP, table([number], **more), mode="append")
        then[store.core.registry.last_snapshot(store.core.catalog.group("spend"))] = told(store)
    assert packed(root_of(store)) > 40
    assert {number: told(store, number) for number in then} == then


@pytest.mark.usefixtures("quick")
def test_snapshots_from_packed_entries_equal_those_of_deltalake(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("seeknal.offline.trimming._KEPT", 1000)
        push(store, range(1, 12))
        store.groups.write(GROUP, table([3, 4]), mode="merge")
        push(store, range(12, 30))
        root = root_of(store)
        then = {
            number: (DeltaTable(root, version=number), read_commits(root, number - 1)[0]) for number in range(1, 25)
        }
        names = {number: sorted(opened.file_uris()) for number, (opened, _) in then.items()}
    push(store, range(30, 40))
    assert packed(root) > 24
    monkeypatch.setattr("seeknal.offline.log._put_together", lambda snapshot: snapshot)
    for number, (_, commit) in then.items():
        found = read_snapshot(root, number)
        assert sorted(str(root / file.path) for file in found.files) == [
            name.removeprefix("file://") for name in names[number]
        ]
        assert (found.commit, found.rows) == (commit, commit.rows)
        assert all(file.start is not None and file.end is not None for file in found.files)


@pytest.mark.usefixtures("quick")
def test_a_snapshot_that_is_being_read_keeps_its_files(store: FeatureStore) -> None:
    push(store, range(1, 8))
    held = store.core.catalog.offline("shop", "spend").snapshot()
    push(store, range(8, 40))
    assert held.is_whole
    assert store.core.engine().count(held.within(store.groups.version("spend").schema)) == [8]
    path = held.root / held.files[-1].path
    del held
    push(store, range(40, 60))
    assert not path.exists()


@pytest.mark.usefixtures("quick")
def test_leftovers_of_a_killed_packing_are_removed_and_nothing_is_lost(store: FeatureStore) -> None:
    then, root = push(store, range(1, 30)), root_of(store)
    last = packed(root)
    pack_entries(root, Pack(last + 1, last + 3))  # and no entry was removed
    (history(root) / "swept").unlink()
    (history(root) / ".put.part").write_bytes(b"half")
    then |= push(store, range(30, 50))
    assert {number: told(store, number) for number in then} == then
    assert not list(root.rglob("*.part"))
    assert min(int(file.stem) for file in root.glob("_delta_log/*.json")) > last + 3


@pytest.mark.usefixtures("quick")
def test_the_registry_is_filled_again_from_packed_entries(store: FeatureStore) -> None:
    then, record = push(store, range(1, 40)), store.core.catalog.group("spend")
    writes = store.core.registry.snapshots(record)
    store.core.registry.forget_snapshots(record)
    assert store.groups.versions("spend")[0].rows == 40
    assert store.core.registry.snapshots(record) == writes
    assert {number: told(store, number) for number in then} == then


@pytest.mark.usefixtures("quick")
def test_other_programs_read_a_table_whose_log_is_packed(store: FeatureStore) -> None:
    push(store, range(1, 40))
    opened = DeltaTable(root_of(store))
    assert sorted(opened.to_pyarrow_table()["amount"].to_pylist()) == [float(number) for number in range(40)]
    assert sorted(pl.read_delta(str(root_of(store)))["amount"]) == [float(number) for number in range(40)]
    newest = max(root_of(store).glob("_delta_log/*.checkpoint.parquet"))
    removed = [one for one in pq.read_table(newest)["remove"].to_pylist() if one]
    assert removed == []
    opened.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    assert len(told(store)) == 40


@pytest.mark.usefixtures("quick")
def test_a_backup_has_the_packed_entries_and_is_as_readable_as_the_home(store: FeatureStore, tmp_path: Path) -> None:
    then = push(store, range(1, 40))
    backup(store, tmp_path / "saved")
    restored = FeatureStore(tmp_path / "restored")
    restore(tmp_path / "saved", restored)
    assert {number: told(restored, number) for number in then} == then
    then |= push(restored, range(40, 60))
    assert {number: told(restored, number) for number in then} == then


@pytest.mark.usefixtures("quick")
def test_nothing_is_removed_while_a_backup_is_taken(store: FeatureStore) -> None:
    with store.core.catalog.keeping():
        push(store, range(1, 40))
        assert packs(root_of(store)) == []
    push(store, range(40, 41))
    assert packed(root_of(store)) > 30


@pytest.mark.usefixtures("quick")
def test_an_erased_entity_is_gone_from_snapshots_read_from_compacted_files(store: FeatureStore) -> None:
    push(store, range(1, 10))
    spine = pa.table({"user_id": pa.array([1, 2], pa.int64()), "at": [START + timedelta(hours=50)] * 2})
    store.training_sets.save("others", Inquiry([FeatureLookup("spend")], "spine", spine.slice(1), "at"))
    before = told(store)
    number = store.core.registry.last_snapshot(store.core.catalog.group("spend"))
    push(store, range(10, 40))
    receipt = store.groups.erase("spend", {"user_id": 1})
    assert receipt.rows == sum(number % 7 == 1 for number in range(40))
    assert told(store, number) == [row for row in before if row["user_id"] != 1]
    assert store.training_sets.reproduce(store.core.registry.training_sets()[0])["amount"].to_pylist() == [9.0]
    for file in root_of(store).glob("*.parquet"):
        assert 1 not in pq.read_table(file)["user_id"].to_pylist()
    push(store, range(40, 60))
    assert told(store, number) == [row for row in before if row["user_id"] != 1]


def test_files_of_few_rows_are_compacted_before_those_of_many() -> None:
    few = [DataFile(f"added-{number}.parquet", 1, 1, 0, 0) for number in range(4)]
    rewritten = [DataFile(f"{number}.parquet", 1, 1, 0, 0) for number in range(3)]
    many = [DataFile("added-many.parquet", 1, 5000, 0, 0)]
    assert due([*few, *rewritten, *many], 2**17, 4) == [few]
    assert due([*few[:3], *rewritten, *many], 2**17, 4) == []


def test_a_short_log_is_read_as_deltalake_reads_it(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    push_alone(store, [row(number) for number in range(1, 9)])
    store.groups.write(GROUP, table([3, 4]), mode="merge")
    store.groups.write(GROUP, table([5], kind=pa.array(["a"])), mode="append")
    store.groups.erase("spend", {"user_id": 2})
    root = root_of(store)
    last = store.core.registry.last_snapshot(store.core.catalog.group("spend"))
    by_entries = [read_snapshot(root, number) for number in range(last + 1)]
    monkeypatch.setattr("seeknal.offline.log._SHORT", 0)
    for one in by_entries:
        other = read_snapshot(root, one.number)
        assert other.table is not None
        assert one.table is None
        assert set(one.files) == set(other.files)
        assert (one.number, one.commit, one.settings) == (other.number, other.commit, other.settings)


def test_the_fingerprint_of_a_version_is_that_of_its_files_whether_noted_or_not(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.groups.write(GROUP, table([1], kind=pa.array(["a"])), mode="append")
    store.groups.erase("spend", {"user_id": 1})
    push_alone(store, row(2) | {"kind": "b"})
    record, catalog = store.core.catalog.group("spend"), store.core.catalog
    expected = {one.number: catalog.snapshot(record, one).fingerprint for one in catalog.versions(record)}
    assert {number: catalog.fingerprint(record, number) for number in expected} == expected
    monkeypatch.setattr("seeknal.offline.log.mark_of", lambda *_: None)  # as if an earlier release had made the commits
    assert {number: catalog.fingerprint(record, number) for number in expected} == expected


def test_an_overview_sees_what_single_reads_see_and_later_writes_too(store: FeatureStore) -> None:
    other = FeatureGroup("other", GROUP.entity, GROUP.materialization, "shop")
    store.groups.write(other, table([1, 2]))
    store.groups.register(FeatureGroup("empty", GROUP.entity, GROUP.materialization, "shop"))
    overview = Overview(store.core.catalog)
    assert overview.groups() == store.core.registry.groups()
    for record in overview.groups():
        assert overview.group(record.name) == overview.group(record.label) == record
        assert overview.versions(record) == store.core.catalog.versions(record)
    push_alone(store, row(9))
    later = FeatureGroup("later", GROUP.entity, GROUP.materialization, "shop")
    store.groups.write(later, table([1]))
    assert overview.versions(overview.group("spend")) == store.groups.versions("spend")
    assert overview.versions(overview.group("later")) == store.groups.versions("later")
    with pytest.raises(DefinitionError, match="No feature group named 'none'"):
        overview.group("none")
