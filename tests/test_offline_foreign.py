"""Tables with files of other programs, as earlier releases accepted them, and failures after a commit."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from seeknal import Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.offline import OfflineTable
from seeknal.offline.log import METADATA, newest_commit
from seeknal.values.times import Interval

MOMENT = datetime(2024, 1, 1, 12, 0, 0, 123, UTC)


@pytest.fixture
def root(home: Path) -> Path:
    """A table with one row, of user 1."""
    write(1)
    return home / "offline" / "default" / "visits"


def group() -> FeatureGroup:
    """Define the group."""
    return FeatureGroup("visits", Entity("user", ["user_id"]), Materialization("at"))


def write(user: int, at: datetime = datetime(2024, 1, 1, tzinfo=UTC), n: int = 0, **options: object) -> None:
    """Write one row."""
    frame = pd.DataFrame({"user_id": [user], "at": [pd.Timestamp(at)], "n": [n]})
    FeatureStore().groups.write(group(), frame, **{"mode": "append", **options})  # type: ignore[arg-type]


def write_elsewhere(root: Path, user: int, at: datetime | None) -> None:
    """Write one row as another program does."""
    kinds = pa.schema(DeltaTable(root).schema().to_arrow())
    row = {"user_id": user, "at": at, "n": 5, "_seeknal_row_id": -user}
    write_deltalake(root, pa.Table.from_pylist([row], kinds), mode="append")


def take_over(root: Path) -> None:
    """Commit as an earlier release did, which wrote on top of rows of other programs without looking at them."""
    table = DeltaTable(root)
    old = newest_commit(root, table.version())
    rows = sum(pq.read_metadata(root / unquote(path)).num_rows for path in paths(table))
    note = {key: value for key, value in asdict(old).items() if key != "snapshot"}
    noted = CommitProperties(custom_metadata={METADATA: json.dumps(note | {"rows": rows})})
    table.alter.set_table_properties({"written.by": "an earlier release"}, False, commit_properties=noted)


def paths(table: DeltaTable) -> list[str]:
    """List the files of a table, as its log names them."""
    actions = table.get_add_actions(flatten=True)
    return pa.RecordBatchReader.from_stream(actions).read_all()["path"].to_pylist()


def stored() -> dict[int, int]:
    """Return the stored n of each user; of several, the last one."""
    table = offline()
    files = [str(table.root / file.path) for file in table.snapshot().files]
    found = pd.concat([pd.read_parquet(file) for file in files])
    return dict(zip(found["user_id"], found["n"], strict=True))


def offline() -> OfflineTable:
    """Return the offline table."""
    return FeatureStore().core.catalog.offline("default", "visits")


def test_a_commit_whose_checkpoint_fails_is_stored(root: Path) -> None:
    for number in range(2, 30):
        (root / "_delta_log" / f"{number:020}.checkpoint.parquet").mkdir()
    for user in range(2, 25):
        write(user)
    assert sorted(stored()) == list(range(1, 25))


def test_a_write_is_stored_even_if_small_files_cannot_be_compacted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seeknal.offline.table._DUE", 3)
    broken = root / offline().snapshot().files[0].path
    content = broken.read_bytes()
    broken.write_bytes(b"PAR1 this is no Parquet PAR1")
    for user in range(2, 7):
        write(user)
    broken.write_bytes(content)
    assert sorted(stored()) == list(range(1, 7))


def test_bounds_that_others_truncated_to_milliseconds_lose_no_row(root: Path) -> None:
    write(2, MOMENT)
    DeltaTable(root).optimize.compact()
    start = datetime(2024, 1, 1, 11, tzinfo=UTC)
    interval = [round(moment.timestamp()) * 1_000_000 for moment in (start, MOMENT.replace(microsecond=0))]
    write(3, start, mode="overwrite", interval=Interval(*interval))
    assert sorted(stored()) == [1, 2, 3]
    write(2, MOMENT, 7, mode="merge")
    assert offline().snapshot().rows == 3
    assert stored()[2] == 7


def test_rows_that_others_wrote_without_a_time_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_elsewhere(root, 2, None)
    take_over(root)
    monkeypatch.setattr("seeknal.offline.table._DUE", 3)
    monkeypatch.setattr("seeknal.offline.plan.FILE_ROWS", 1)
    for user in range(3, 9):
        write(user, datetime(2024, 1, user, tzinfo=UTC))
    FeatureStore().groups.optimize("visits")
    assert sorted(stored()) == list(range(1, 9))


def test_a_file_without_a_recorded_row_count_is_counted(root: Path) -> None:
    write_elsewhere(root, 2, MOMENT)
    table = DeltaTable(root)
    name = paths(table)[0]
    add = AddAction("copy.parquet", (root / name).stat().st_size, {}, 0, True, json.dumps({}))
    (root / "copy.parquet").write_bytes((root / name).read_bytes())
    table.create_write_transaction([add], mode="append", schema=table.schema())
    take_over(root)
    assert offline().snapshot().rows == 3
    write(4)
    assert offline().snapshot().rows == 4


def test_a_file_whose_name_is_encoded_in_the_log_is_read_replaced_and_not_taken_for_a_left_over(root: Path) -> None:
    table, before = DeltaTable(root), offline().snapshot().rows
    source = next(root.glob("*.parquet"))
    (root / "my file.parquet").write_bytes(source.read_bytes())
    add = AddAction("my file.parquet", source.stat().st_size, {}, 0, True, json.dumps({"numRecords": 1}))
    table.create_write_transaction([add], mode="append", schema=table.schema())
    take_over(root)
    assert "my%20file.parquet" in paths(DeltaTable(root))
    assert "my file.parquet" not in [path.name for path in offline().orphans()]
    offline().vacuum(list)
    assert offline().snapshot().rows == before + 1
    assert sorted(stored()) == [1]
    write(3, mode="overwrite")
    assert sorted(stored()) == [3]


def test_a_file_whose_name_is_encoded_in_the_log_can_be_adopted(root: Path) -> None:
    table = DeltaTable(root)
    source = next(root.glob("*.parquet"))
    (root / "my file.parquet").write_bytes(source.read_bytes())
    add = AddAction("my file.parquet", source.stat().st_size, {}, 0, True, json.dumps({"numRecords": 1}))
    table.create_write_transaction([add], mode="append", schema=table.schema())
    assert FeatureStore().groups.adopt("visits").rows == 1
    assert offline().snapshot().rows == 2
