"""The layout of files changes no result: writes are split by days, and small files are compacted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import FeatureStore
from seeknal.define.schema import Schema
from seeknal.offline import Snapshot, plan
from seeknal.offline.log import read_file_lists, read_snapshot
from seeknal.values.times import Interval
from seeknal.values.types import UTC

from . import strategies as some
from .oracle import Oracle, within
from .profiles import PROFILE
from .strategies import DAY, START
from .test_point_in_time import Pair, fresh_project, user

ON_BOTH = True  # see `pytest_generate_tests`

YEAR_1 = 719_162 * DAY  # before 1970

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


@pytest.fixture(autouse=True)
def tiny_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files at every fourth row, so that few rows make many of them, and many blocks of rows."""
    for name, value in {"FILE_ROWS": 4, "_BLOCK": 5, "_AT_ONCE": 2}.items():
        monkeypatch.setattr(f"seeknal.offline.plan.{name}", value)
    for name, value in {"_SMALL": 2, "_LARGE": 16, "_DUE": 4}.items():
        monkeypatch.setattr(f"seeknal.offline.table.{name}", value)


@PROFILE
@given(
    frames=st.lists(some.frames(user), min_size=1, max_size=6),
    features=st.lists(st.sampled_from([("n", "x"), ("n", "x"), ("n",)]), min_size=6, max_size=6),
    optimized=st.integers(0, 6),
)
def test_files_split_by_days_and_compacted_hold_the_written_rows(
    store: FeatureStore, frames: Sequence[some.Frame], features: Sequence[tuple[str, ...]], optimized: int
) -> None:
    pair = Pair(store, "user_id", project=fresh_project(), ttl=None)
    then = {}
    for number, (frame, names) in enumerate(zip(frames, features, strict=False)):
        pair.write(frame, names)
        if number == optimized:
            store.groups.optimize("seen", project=pair.group.project)
        snapshot = pair_snapshot(pair)
        assert snapshot.rows == len(pair.oracle.rows)
        assert told(store, pair) == expected(pair.oracle)
        then[snapshot.number] = expected(pair.oracle)
    for number, rows in then.items():
        assert told(store, pair, number) == rows
    root = pair_snapshot(pair).root
    for listed in read_file_lists(root, dict.fromkeys(then)):
        whole = read_snapshot(root, listed.number)
        assert {(one.path, one.size) for one in listed.files} == {(one.path, one.size) for one in whole.files}


def pair_snapshot(pair: Pair) -> Snapshot:
    """Return the newest snapshot of the group."""
    return pair.store.core.catalog.offline(pair.group.project, "seen").snapshot()


def told(store: FeatureStore, pair: Pair, number: int | None = None) -> list[tuple[object, ...]]:
    """Return the store's history of a group, as of a snapshot."""
    found = store.features.history([pair.lookup()], as_of=number, output="arrow").to_pylist()
    return sorted(((row["user_id"], row["n"], row.get("x")) for row in found), key=repr)


def expected(oracle: Oracle) -> list[tuple[object, ...]]:
    """Return the oracle's history."""
    return sorted(((row.keys[0], row.values["n"], row.values.get("x")) for row in oracle.history()), key=repr)


def frame(
    days: Sequence[int], mode: str = "append", interval: tuple[int | None, int | None] = (None, None)
) -> some.Frame:
    """Return a frame with a row on each of some days, all of one user."""
    return some.Frame(
        tuple(((1,), START + day * DAY + i, None, 0) for i, day in enumerate(days)), mode, interval, "UTC"
    )


@pytest.fixture
def pair(store: FeatureStore) -> Pair:
    """A group without rows."""
    return Pair(store, "user_id", project=fresh_project(), ttl=None)


def spans(pair: Pair) -> list[tuple[int, int]]:
    """List the first and the last day of each file, the earliest first."""
    files = pair_snapshot(pair).files
    return sorted(((file.start or 0) // DAY - START // DAY, (file.end or 0) // DAY - START // DAY) for file in files)


def test_a_large_write_is_cut_into_whole_days_in_whatever_order_its_rows_are(pair: Pair) -> None:
    pair.write(frame([3, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 0, 3, 2, 2, 4]))
    assert spans(pair) == [(0, 0), (1, 2), (3, 4)]


def test_overwriting_a_day_writes_no_file_of_other_days(pair: Pair) -> None:
    pair.write(frame([*[0] * 4, *[1] * 4, *[2] * 4, *[3] * 4]))
    before = {file.path for file in pair_snapshot(pair).files}
    day = START // DAY * DAY + 2 * DAY
    pair.write(frame([2, 2, 2], "overwrite", (day, day + DAY - 1)))
    after = pair_snapshot(pair).files
    assert len(before & {file.path for file in after}) == 3
    assert spans(pair) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert sum(file.rows for file in after) == 15


def test_a_merge_rewrites_only_files_into_which_one_of_its_rows_falls(pair: Pair) -> None:
    pair.write(frame([*[0] * 4, *[1] * 4, *[2] * 4, *[3] * 4]))
    before = {file.path for file in pair_snapshot(pair).files}
    same = [((1,), START, None, 1), ((1,), START + 3 * DAY + 15, None, 1)]  # the first and the last row
    pair.write(some.Frame(tuple(same), "merge", (None, None), "UTC"))
    assert len(before & {file.path for file in pair_snapshot(pair).files}) == 2
    assert told(pair.store, pair) == expected(pair.oracle)


def test_a_write_that_finds_enough_small_files_compacts_them(pair: Pair) -> None:
    kept = []
    for day in range(20):
        pair.write(frame([day]))
        kept.append((pair_snapshot(pair).number, expected(pair.oracle)))
        assert sum(file.rows < 2 for file in pair_snapshot(pair).files) < 4
    assert pair_snapshot(pair).number > 20  # the writes, and what put files together
    assert len(spans(pair)) < 10
    for number, rows in kept:  # nothing that could be read before is lost
        assert told(pair.store, pair, number) == rows


def test_optimizing_cuts_a_file_that_is_too_large_and_then_leaves_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("seeknal.offline.plan.FILE_ROWS", 1000)
        pair.write(frame([*[0] * 10, *[1] * 10]))
    assert spans(pair) == [(0, 1)]
    pair.store.groups.optimize("seen", project=pair.group.project)
    assert spans(pair) == [(0, 0), (1, 1)]
    number = pair_snapshot(pair).number
    pair.store.groups.optimize("seen", project=pair.group.project)
    assert pair_snapshot(pair).number == number


@given(days=st.lists(st.integers(0, 40), max_size=60))
@PROFILE
def test_intervals_have_rows_enough_for_a_file_and_cover_all_time(days: list[int]) -> None:
    spans = plan.cut(np.bincount(days, minlength=1))
    assert spans[0].start is None
    assert spans[-1].end is None
    for interval, following in pairwise(spans):
        assert interval.end is not None
        assert following.start == interval.end + 1
        assert following.start % DAY == 0
    counts = [sum(holds(interval, day) for day in days) for interval in spans]
    assert sum(counts) == len(days)
    assert all(count >= 4 for count in counts[:-1])
    assert len(spans) == 1 or counts[-1] >= 2


def holds(interval: Interval, day: int) -> bool:
    """Return whether an interval contains a day, counted from year 1."""
    return within(day * DAY - YEAR_1, interval.start, interval.end)


@PROFILE
@given(days=st.lists(st.integers(-3, 3), max_size=30), edges=st.sets(st.integers(-2, 3)))
def test_rows_are_split_by_intervals_and_keep_their_order(days: list[int], edges: set[int]) -> None:
    starts = [None, *(edge * DAY for edge in sorted(edges))]
    spans = [Interval(a, None if b is None else b - 1) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    fields = [pa.field("user_id", pa.int64()), pa.field("seen_at", UTC)]
    schema = Schema((fields[0],), fields[1], None, ())
    at = pa.array([day * DAY + i for i, day in enumerate(days)], pa.timestamp("us", "UTC"))
    rows = pa.table({"user_id": range(len(days)), "seen_at": at})
    found = list(plan.split(rows, schema, spans))
    for interval, piece in zip(spans, found, strict=True):
        inside = [i for i, day in enumerate(days) if within(day * DAY + i, interval.start, interval.end)]
        assert piece["user_id"].to_pylist() == inside
