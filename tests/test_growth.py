"""What grows with use, and what must not: a push costs the same after many, and old snapshots answer as before."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from seeknal import Entity, FeatureStore, Materialization
from seeknal.feature_group import FeatureGroup
from seeknal.registry import Version
from seeknal.registry.records import NEW_ROWS

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
START = datetime(2024, 1, 1, tzinfo=UTC)
GROUP = FeatureGroup("spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"), "shop")


def table(numbers: list[int], **more: pa.Array) -> pa.Table:
    """Make rows, one for each number."""
    at = [START + timedelta(hours=number) for number in numbers]
    users = pa.array([number % 7 for number in numbers], pa.int64())
    return pa.table({"user_id": users, "at": at, "amount": pa.array(numbers, pa.float64()), **more})


def row(number: int) -> dict[str, object]:
    """Make a row to push."""
    return {"user_id": number % 7, "at": START + timedelta(hours=number), "amount": float(number)}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store with one group of one row."""
    made = FeatureStore(tmp_path / "home")
    made.write(GROUP, table([0]))
    return made


def test_versions_are_those_that_a_pass_over_all_writes_would_tell(store: FeatureStore) -> None:
    store.push("spend", row(1))
    store.write(GROUP, table([2], kind=pa.array(["a"])), mode="append")
    store.optimize("spend")
    store.rollback("spend", 1)
    store.push("spend", row(3))
    store.erase("spend", {"user_id": 2})
    record = store.catalog.group("spend")
    writes = store.registry.snapshots(record)
    for until in [None, *(one.number for one in writes)]:
        seen = [one for one in writes if until is None or one.number <= until]
        found = store.registry.versions(record, until)
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
        store.push("spend", row(number))
    versions: list[Version] = store.versions("spend")
    with sqlite3.connect(store.registry_file) as db:
        texts = [text for (text,) in db.execute("SELECT schema_text FROM snapshot ORDER BY number")]
    assert [bool(text) for text in texts] == [True, *[False] * 5]
    assert versions[0].schema.feature_names == ["amount"]
