"""Commits of other programs to an offline table are detected: they are read as they are, or refused until they are adopted or undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

from commands import seeknal
from seeknal import DataError, DefinitionError, Entity, FeatureLookup, FeatureStore, Materialization, StoreError
from seeknal.define.feature_group import FeatureGroup
from seeknal.home.doctor import examine
from seeknal.join.inquiry import Inquiry
from seeknal.offline.files import FileWriter
from seeknal.values.times import instant

pytestmark = pytest.mark.slow

START = datetime(2024, 1, 1, tzinfo=UTC)
LATER = datetime(2024, 6, 1, tzinfo=UTC)
GROUP = FeatureGroup("visits", Entity("user", ["user_id"]), Materialization("at"))


def rows(**users: int) -> pa.Table:
    """Return a row for each user, named u1, u2, ...; all with one event time."""
    ids = [int(name[1:]) for name in users]
    return pa.table(
        {"user_id": ids, "at": pa.array([START] * len(ids), pa.timestamp("us", "UTC")), "n": list(users.values())}
    )


@pytest.fixture
def store(home: Path) -> FeatureStore:
    """A store with two writes of three rows: of users 1 and 2, and of user 3."""
    made = FeatureStore(home)
    made.groups.write(GROUP, rows(u1=10, u2=20))
    made.groups.write(GROUP, rows(u3=30), mode="append")
    return made


@pytest.fixture
def root(home: Path, store: FeatureStore) -> Path:
    """Return the folder of the table."""
    return home / "offline" / "default" / "visits"


def latest(store: FeatureStore) -> dict[int, int]:
    """Return each user's n."""
    found = store.features.latest([FeatureLookup("visits")], output="arrow")
    return dict(zip(found["user_id"].to_pylist(), found["n"].to_pylist(), strict=True))


def append(root: Path, table: pa.Table, **options: object) -> None:
    """Append rows as another program does."""
    write_deltalake(root, table, mode="append", **options)  # type: ignore[arg-type]


def with_numbers(table: pa.Table, *numbers: int | None) -> pa.Table:
    """Add row numbers, as they were copied from a read."""
    return table.append_column("_seeknal_row_id", pa.array(numbers, pa.int64()))


def merge(root: Path, source: pa.Table) -> None:
    """Upsert rows as another program does."""
    table = DeltaTable(root)
    merger = table.merge(source, "s.user_id = t.user_id", source_alias="s", target_alias="t")
    merger.when_matched_update({"n": "s.n"}).when_not_matched_insert(
        {"user_id": "s.user_id", "at": "s.at", "n": "s.n"}
    ).execute()


CHANGES: dict[str, tuple[Callable[[Path], object], dict[int, int]]] = {
    "append": (lambda root: append(root, rows(u1=11, u4=40), schema_mode="merge"), {1: 11, 2: 20, 3: 30, 4: 40}),
    "append with copied numbers": (
        lambda root: append(root, with_numbers(rows(u1=11, u2=21), 2, 2)),
        {1: 11, 2: 21, 3: 30},
    ),
    "append of a copy of the table": (
        lambda root: append(root, DeltaTable(root).to_pyarrow_table()),
        {1: 10, 2: 20, 3: 30},
    ),
    "delete": (lambda root: DeltaTable(root).delete("user_id = 1"), {2: 20, 3: 30}),
    "delete of a file": (lambda root: DeltaTable(root).delete("user_id = 3"), {1: 10, 2: 20}),
    "update": (
        lambda root: DeltaTable(root).update(predicate="user_id = 2", updates={"n": "21"}),
        {1: 10, 2: 21, 3: 30},
    ),
    "merge": (lambda root: merge(root, rows(u3=31, u4=40)), {1: 10, 2: 20, 3: 31, 4: 40}),
    "overwrite": (lambda root: write_deltalake(root, with_numbers(rows(u5=50), 0), mode="overwrite"), {5: 50}),
    "restore": (lambda root: DeltaTable(root).restore(1), {1: 10, 2: 20}),
}
CHANGED = r"another program changed the rows or columns of default/visits after snapshot 2: commit 3 \(.*delta-rs"
FOREIGN = rf"{CHANGED}.*adopt default/visits"


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> tuple[Callable[[Path], object], dict[int, int]]:
    """A change of rows by another program, and the correct results after it."""
    return CHANGES[request.param]


USES: dict[str, Callable[[FeatureStore], object]] = {
    "latest": latest,
    "history": lambda store: store.features.history([FeatureLookup("visits")]),
    "training set": lambda store: store.features.training_set(
        [FeatureLookup("visits")], pd.DataFrame({"user_id": [1], "m": [LATER]}), "m"
    ),
    "as of now": lambda store: store.features.history([FeatureLookup("visits")], as_of=datetime.now(UTC)),
    "count": lambda store: store.groups.counts("visits", 1),
    "sample": lambda store: store.groups.sample("visits", limit=1),
    "explain": lambda store: store.features.explain(Inquiry([FeatureLookup("visits")]), {"user_id": 1}, LATER),
    "save": lambda store: store.features.sources(Inquiry([FeatureLookup("visits")])),
    "append": lambda store: store.groups.write(GROUP, rows(u9=9), mode="append"),
    "merge": lambda store: store.groups.write(GROUP, rows(u9=9), mode="merge"),
    "overwrite": lambda store: store.groups.write(GROUP, rows(u9=9)),
    "push": lambda store: store.groups.push("visits", {"user_id": 1, "at": START, "n": 5}),
    "clean": lambda store: store.groups.clean("visits", 0),
    "optimize": lambda store: store.groups.optimize("visits"),
    "erase": lambda store: store.groups.erase("visits", {"user_id": 1}),
    "load": lambda store: store.groups.load("visits"),
    "serve": lambda store: store.tables.serve([FeatureLookup("visits")], "table"),
}


@pytest.mark.parametrize("use", USES)
def test_no_read_and_no_write_ignores_rows_that_another_program_wrote(store, root, use):
    append(root, rows(u4=40), schema_mode="merge")
    before = DeltaTable(root).version()
    with pytest.raises(StoreError, match=f"(?i){FOREIGN}") as caught:
        USES[use](store)
    assert [one.number for one in caught.value.commits] == [3]
    assert DeltaTable(root).version() == before
    store.groups.adopt("visits")
    USES[use](store)


def test_online_loads_and_verify_follow_the_same_rule(store, root):
    table = store.tables.serve([FeatureLookup("visits")], "table")
    append(root, rows(u1=11), schema_mode="merge")
    for use in (lambda: store.tables.verify("table"), lambda: store.groups.load("visits")):
        with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
            use()
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "n": 10}]
    store.groups.adopt("visits")
    store.groups.load("visits")
    assert table.get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "n": 11}]
    assert store.tables.verify("table").equal


def test_each_change_is_refused_and_right_once_adopted(store, root, change):
    make, expected = change
    make(root)
    with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
        latest(store)
    adopted = store.groups.adopt("visits")
    assert latest(store) == expected
    assert (adopted.snapshot, adopted.version) == (4, 1)
    store.groups.write(GROUP, rows(u2=777), mode="append")
    assert latest(store) == expected | {2: 777}
    store.groups.write(GROUP, rows(u3=888), mode="merge")
    assert latest(store) == expected | {2: 777, 3: 888}
    assert store.features.history([FeatureLookup("visits")], as_of=2, output="arrow")["n"].to_pylist() == [10, 20, 30]
    ids = DeltaTable(root).to_pyarrow_table(columns=["_seeknal_row_id"])["_seeknal_row_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_each_change_can_be_undone_as_the_error_says(store, root, change):
    make, _ = change
    make(root)
    with pytest.raises(StoreError) as caught:
        latest(store)
    exec(f"from deltalake import DeltaTable\n{str(caught.value).partition('with deltalake: ')[2].rstrip('.')}")
    assert latest(store) == {1: 10, 2: 20, 3: 30}
    store.groups.write(GROUP, rows(u2=777), mode="append")
    assert latest(store) == {1: 10, 2: 777, 3: 30}


def test_a_row_that_was_only_copied_to_another_file_stays_in_its_place_among_ties(store, root):
    store.groups.write(GROUP, rows(u1=99), mode="append")
    DeltaTable(root).delete("user_id = 2")  # which writes the first row of user 1 again
    adopted = store.groups.adopt("visits")
    assert (adopted.rows, adopted.kept, adopted.removed) == (0, 1, 1)
    assert latest(store) == {1: 99, 3: 30}


def test_rows_of_several_programs_count_in_the_order_of_their_commits(store, root):
    for n in (11, 12, 13):
        append(root, rows(u1=n), schema_mode="merge")
    adopted = store.groups.adopt("visits")
    assert (adopted.rows, len(adopted.commits)) == (3, 3)
    assert latest(store) == {1: 13, 2: 20, 3: 30}


def test_compaction_does_not_hide_rows_that_were_not_adopted(store, root):
    append(root, rows(u1=11), schema_mode="merge")
    DeltaTable(root).optimize.compact()
    with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
        latest(store)
    store.groups.adopt("visits")
    assert latest(store) == {1: 11, 2: 20, 3: 30}


def leave_as_it_is(root: Path) -> None:
    """Make all kinds of commits that leave the rows as they are."""
    DeltaTable(root).optimize.compact()
    DeltaTable(root).optimize.z_order(["n"])
    DeltaTable(root).alter.set_table_properties(
        {"delta.checkpointInterval": "7", "my.own": "x"}, raise_if_not_exists=False
    )
    DeltaTable(root).alter.set_table_description("visits of users")
    DeltaTable(root).create_checkpoint()


def vacuum(root: Path) -> None:
    """Remove the files that the newest commit does not need."""
    DeltaTable(root).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


@pytest.mark.parametrize("vacuums", [False, True])
@pytest.mark.parametrize("use", USES)
def test_commits_that_leave_rows_unchanged_stop_no_read_and_no_write(store, root, use, vacuums):
    leave_as_it_is(root)
    if vacuums:
        vacuum(root)
    assert latest(store) == {1: 10, 2: 20, 3: 30}
    USES[use](store)
    with pytest.raises(DefinitionError, match="nothing to adopt"):
        store.groups.adopt("visits")


def test_a_saved_training_set_comes_back_after_compaction_and_vacuum_by_another_program(store, root):
    record = store.training_sets.save("may", Inquiry([FeatureLookup("visits")], "latest", at=instant(LATER)))
    leave_as_it_is(root)
    vacuum(root)
    assert store.training_sets.reproduce(record)["n"].to_pylist() == [10, 20, 30]


def test_a_vacuum_by_another_program_is_named_in_the_error(store, root):
    store.groups.write(GROUP, rows(u1=1))
    vacuum(root)
    with pytest.raises(StoreError, match=r"Snapshot 2 of .* is gone: another program's vacuum, commit \d \(VACUUM"):
        store.features.history([FeatureLookup("visits")], as_of=2)
    store.groups.optimize("visits")
    store.groups.erase("visits", {"user_id": 1})
    assert latest(store) == {}


@pytest.mark.parametrize("loses", ["a row", "numbers"])
def test_a_false_compaction_is_refused_until_it_is_adopted(store, root, loses):
    table = DeltaTable(root)
    every = table.to_pyarrow_table().sort_by("user_id")
    every = every.slice(1) if loses == "a row" else every.drop_columns("_seeknal_row_id")
    pq.write_table(every, root / "new.parquet")
    size, stats = (root / "new.parquet").stat().st_size, json.dumps({"numRecords": len(every)})
    actions = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    gone = [RemoveAction(path, False, 0, 0, {}) for path in actions["path"].to_pylist()]
    added = AddAction("new.parquet", size, {}, 0, False, stats)
    table.create_write_transaction([added, *gone], mode="append", schema=table.schema())
    for use in ("latest", "append"):
        with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
            USES[use](store)
    adopted = store.groups.adopt("visits")
    assert (adopted.rows, adopted.removed) == ((0, 1) if loses == "a row" else (3, 3))
    assert latest(store) == ({2: 20, 3: 30} if loses == "a row" else {1: 10, 2: 20, 3: 30})


def other_columns(root: Path) -> None:
    """Overwrite the table with another schema."""
    write_deltalake(root, pa.table({"user_id": ["a"], "what": [1.5]}), mode="overwrite", schema_mode="overwrite")


def more_columns(root: Path) -> None:
    """Append rows with one more column."""
    append(root, rows(u1=11).append_column("more", pa.array([1])), schema_mode="merge")


@pytest.mark.parametrize("make", [other_columns, more_columns])
def test_another_schema_is_refused_and_can_be_undone(store, root, make):
    make(root)
    for use in (lambda: latest(store), lambda: store.groups.write(GROUP, rows(u1=1))):
        with pytest.raises(
            StoreError, match=rf"(?i){CHANGED}.*Read what you need of them with that program, then go back"
        ):
            use()
    with pytest.raises(DataError, match="other columns or types") as caught:
        store.groups.adopt("visits")
    way = str(caught.value).partition("with deltalake: ")[2].partition(", and")[0]
    exec(f"from deltalake import DeltaTable\n{way}")
    assert latest(store) == {1: 10, 2: 20, 3: 30}


def test_rows_without_a_time_are_not_adopted(store, root):
    kinds = pa.schema(DeltaTable(root).schema().to_arrow())
    append(root, pa.Table.from_pylist([{"user_id": 4, "n": 4}], kinds))
    with pytest.raises(DataError, match=r"1 of 1 rows have no 'at'.*restore\(2\)"):
        store.groups.adopt("visits")


def test_values_that_do_not_fit_the_type_are_not_adopted(store, root):
    small = FeatureGroup("small", Entity("user", ["user_id"]), Materialization("at"))
    store.groups.write(small, rows(u1=1).set_column(2, "n", pa.array([1], pa.uint8())))
    root = root.with_name("small")
    append(root, rows(u1=300).set_column(2, "n", pa.array([300], pa.int16())), schema_mode="merge")
    with pytest.raises(DataError, match="'n' does not fit its type uint8"):
        store.groups.adopt("small")
    with pytest.raises(StoreError, match="Another program"):
        store.features.latest([FeatureLookup("small")])


def test_a_table_that_another_program_made_is_not_written_over(home, store):
    root = home / "offline" / "default" / "mine"
    write_deltalake(root, rows(u1=1))
    with pytest.raises(StoreError, match=r"rows that Seeknal did not write: commit 0 \(WRITE"):
        store.groups.write(FeatureGroup("mine", Entity("user", ["user_id"]), Materialization("at")), rows(u2=2))
    assert DeltaTable(root).to_pyarrow_table()["user_id"].to_pylist() == [1]


@pytest.mark.parametrize("mode", ["append", "merge", "overwrite"])
def test_rows_that_another_program_commits_during_a_write_are_not_ignored(store, root, monkeypatch, mode):
    write_files = FileWriter.write  # after which a rival can come

    def beaten(*arguments: object, **options: object) -> object:
        done = write_files(*arguments, **options)  # type: ignore[arg-type]
        append(root, rows(u4=40), schema_mode="merge")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(FileWriter, "write", beaten)
        with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
            store.groups.write(GROUP, rows(u1=11), mode=mode)
    assert DeltaTable(root).to_pyarrow_table().num_rows == 4
    store.groups.adopt("visits")
    assert latest(store) == {1: 10, 2: 20, 3: 30, 4: 40}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("delta.appendOnly", 'set_table_properties({"delta.appendOnly": "false"})'),
        ("delta.constraints.small", 'drop_constraint("small")'),
    ],
)
@pytest.mark.filterwarnings("ignore:.* of erased entities, dated at or before the erasure:seeknal.SeeknalWarning")
def test_a_property_that_forbids_a_write_is_named_at_once_with_its_way_out(store, root, name, advice):
    if name == "delta.appendOnly":
        DeltaTable(root).alter.set_table_properties({name: "true"})
    else:
        DeltaTable(root).alter.add_constraint({"small": "n < 100"})
    for use in ("merge", "overwrite", *(["erase"] if name == "delta.appendOnly" else ["append", "push"])):
        with pytest.raises(StoreError, match=name) as caught:
            USES[use](store)
    assert latest(store) == {1: 10, 2: 20, 3: 30}
    way = str(caught.value).partition(": DeltaTable")[2].partition(". Erase it again")[0].removesuffix(".")
    assert advice in way
    exec(f"from deltalake import DeltaTable\nDeltaTable{way}")
    store.groups.write(GROUP, rows(u1=11), mode="merge")
    assert latest(store) == {1: 11, 2: 20, 3: 30}


def test_an_append_only_table_accepts_appends(store, root):
    DeltaTable(root).alter.set_table_properties({"delta.appendOnly": "true"})
    for number in range(20):
        store.groups.write(GROUP, rows(u1=number), mode="append")
    assert latest(store) == {1: 19, 2: 20, 3: 30}


def test_what_was_stored_before_another_programs_commit_can_be_read_as_of_then(store, root):
    before = datetime.now(UTC)
    append(root, rows(u1=11), schema_mode="merge")
    lookups = [FeatureLookup("visits")]
    for as_of in (2, before):
        assert store.features.history(lookups, as_of=as_of, output="arrow")["n"].to_pylist() == [10, 20, 30]
    with pytest.raises(StoreError, match=f"(?i){FOREIGN}"):
        store.features.history(lookups, as_of=(between := datetime.now(UTC)))
    store.groups.adopt("visits")
    assert store.features.history(lookups, as_of=between, output="arrow")["n"].to_pylist() == [10, 20, 30]
    assert store.features.history(lookups, as_of=datetime.now(UTC), output="arrow")["n"].to_pylist() == [11, 20, 30]


def test_doctor_and_the_command_line_report_commits_of_other_programs(home, store, root):
    DeltaTable(root).optimize.compact()
    findings = {one.found: one.fine for one in examine(store) if one.what == "group default/visits"}
    assert any(
        fine and "1 commit of other programs left the rows as they are: commit 3 (OPTIMIZE" in found
        for found, fine in findings.items()
    )
    append(root, rows(u4=40), schema_mode="merge")
    assert any(
        not one.fine and "seeknal adopt" in one.found for one in examine(store) if one.what == "group default/visits"
    )
    done = seeknal("adopt", "visits", "--format", "json")
    assert '"rows_adopted": 1' in done.stdout
    assert latest(store) == {1: 10, 2: 20, 3: 30, 4: 40}
