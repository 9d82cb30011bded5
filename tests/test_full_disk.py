"""On a full disk, loads rely on the stored rows, not on registry records that could not be written."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from seeknal import (
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    StoreError,
)
from seeknal.join.inquiry import Inquiry
from seeknal.online import Entries, LmdbStore
from seeknal.registry.records import space_of
from seeknal.values.times import DAY

pytestmark = pytest.mark.slow

USERS = 100


@pytest.fixture
def group() -> FeatureGroupDuckDB:
    made = FeatureGroupDuckDB("spend", Entity("customer", ["customer_id"]), Materialization(event_time_col="at"))
    days = pd.to_datetime(["2024-05-01"] * USERS)
    return made.set_dataframe(pd.DataFrame({"customer_id": range(USERS), "at": days, "total": 0})).set_features()


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Limit the size of files to that of a given one, as on a disk without a free block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def pushes_until_no_note_fits(home: Path, store: FeatureStore) -> int:
    """Push until a snapshot is stored that the registry could not record; return the number of rows pushed."""
    record = store.core.catalog.group("spend")
    for user in range(USERS):
        store.groups.push("spend", {"customer_id": user, "at": "2024-06-01", "total": 7})
        if store.core.registry.last_snapshot(record) < store.groups.version("spend").snapshot:
            return user + 1
    raise AssertionError("all notes fitted")


def total(store: FeatureStore, user: int) -> int:
    return store.tables.open("spending").get_features([{"customer_id": user}], "dicts")[0]["total"]


def test_an_acknowledged_push_is_online_even_if_the_registry_could_not_record_it(home, group):
    group.write()
    HistoricalFeaturesDuckDB([FeatureLookup(group)]).serve("spending")
    store = FeatureStore()
    with full(home / "registry.db"):
        count = pushes_until_no_note_fits(home, store)
        assert [total(store, user) for user in range(count + 1)] == [7] * count + [0]
        assert store.tables.verify("spending").equal
        pushed = [
            one.number
            for one in store.core.catalog.snapshots(store.core.catalog.group("spend"))
            if one.mode == "append"
        ]
        assert len(pushed) == count  # the others only rearrange files
        assert store.groups.watermarks("spend")[-1] - store.groups.watermarks("spend")[0] == 31 * DAY
        lookups = [FeatureLookup(group)]
        assert (
            store.features.explain(Inquiry(lookups), {"customer_id": count - 1}, "2024-07-01")[0].snapshot == pushed[-1]
        )
    store.groups.push("spend", {"customer_id": 99, "at": "2024-06-02", "total": 8})
    version = store.groups.version("spend")
    assert store.core.registry.last_snapshot(store.core.catalog.group("spend")) == version.snapshot
    assert (total(store, 99), store.tables.verify("spending").equal) == (8, True)


def test_a_vacuum_keeps_what_as_of_reads_even_if_the_registry_could_not_record_it(home, group):
    group.write()
    store = FeatureStore()
    with full(home / "registry.db"):
        for user in range(USERS):
            store.groups.push(
                "spend", {"customer_id": user, "at": "2024-06-01", "total": 7}
            ) if user else store.groups.load("spend")
            if store.core.registry.last_snapshot(store.core.catalog.group("spend")) < (
                last := store.groups.version("spend").snapshot
            ):
                break
        store.groups.optimize("spend", keep_days=1)
        kept = store.features.history([FeatureLookup(group)], as_of=last, output="arrow")
    assert kept["total"].to_pylist().count(7) == user


def test_the_next_load_repairs_what_verify_found(home, group):
    group.write()
    HistoricalFeaturesDuckDB([FeatureLookup(group)]).serve("spending")
    store, online, space = FeatureStore(), LmdbStore(home / "online"), space_of("default", "spend", 1)

    def lose_a_row() -> None:
        key = min(online.keys(space))
        text, _ = online.get(space, [])
        online.change(space, text, text, Entries([key], [None]))

    for load in (lambda: store.tables.refresh(["spending"]), lambda: store.groups.load("spend"), store.tables.refresh):
        lose_a_row()
        seen = store.tables.verify("spending")
        assert (seen.different, seen.differences[0].cause) == (1, "missing")
        assert not store.core.loads.statuses(store.core.catalog.group("spend"))[0].is_fresh
        assert store.tables.verify("spending").differences == seen.differences
        load()
        assert store.tables.verify("spending").equal
        assert store.tables.refresh(["spending"])[0].changed == 0


def test_a_load_that_could_not_be_recorded_is_an_error_and_can_be_repeated(home, group):
    group.write()
    store = FeatureStore()
    store.groups.push("spend", {"customer_id": 1, "at": "2024-06-01", "total": 7})
    target = str(home.parent / "second")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match="registry"):
            store.tables.serve([FeatureLookup("spend")], "spending", target=target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not store.core.registry.tables("default", "spending")
    store.tables.serve([FeatureLookup("spend")], "spending", target=target)
    assert store.tables.verify("spending").equal


def erased_until_no_note_fits(store: FeatureStore) -> tuple[int, str]:
    """Erase entities until an erasure fails; return the entity and the error."""
    for user in range(USERS):
        try:
            store.groups.erase("spend", {"customer_id": user})
        except StoreError as error:
            return user, str(error)
    raise AssertionError("all notes fitted")


def test_an_erasure_that_could_not_be_recorded_says_what_is_done_and_how_to_continue(home, group):
    group.write()
    HistoricalFeaturesDuckDB([FeatureLookup(group)]).serve("spending")
    store = FeatureStore()
    with full(home / "registry.db"):
        user, told = erased_until_no_note_fits(store)
    assert "removed online, but perhaps not offline, from default/spend" in told
    assert "bring it back by seeknal materialize default/spend" in told
    assert store.tables.open("spending").get_features([{"customer_id": user}], "dicts")[0]["total"] is None
    store.groups.load("spend")
    assert total(store, user) == 0
    assert store.tables.verify("spending").equal
    assert store.groups.erase("spend", {"customer_id": user}).rows
