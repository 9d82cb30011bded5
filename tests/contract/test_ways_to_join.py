"""All strategies of the join return the oracle's result, however many rows are tied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given
from hypothesis import strategies as st

from seeknal import Entity, FeatureLookup, Materialization
from seeknal.define.columns import ROW_ID
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.schema import Schema
from seeknal.engine import FeatureRequest
from seeknal.engine.duckdb import joins, queries
from seeknal.engine.duckdb.joins import Join
from seeknal.offline import DataFile, Rows, Snapshot, log
from seeknal.values.times import Interval
from seeknal.values.types import UTC

from .profiles import PROFILE
from .test_point_in_time import fresh_project
from .world import HOUR, NOON

DUCK = duckdb.connect()  # to open one takes longer than to ask it
KEYS, TIMES = st.sampled_from(["a", "b", None]), st.integers(0, 6)
ROWS = st.lists(st.tuples(KEYS, TIMES, st.none() | TIMES, st.none() | st.integers(0, 99)), max_size=12)
SPINE = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.none() | TIMES), max_size=8)


def asking(stored: pa.Table) -> Callable[..., pa.Table]:
    """Return a function that runs SQL on some rows, under the name `stored`."""

    def query(sql: str, **views: pa.Table) -> pa.Table:
        with DUCK.cursor() as cursor:
            for name, view in {"stored": stored, **views}.items():
                cursor.register(name, view)
            return cursor.sql(sql).to_arrow_table()

    return query


def seen(rows: list, key: str | None, moment: int | None, ttl: int | None) -> int | None:
    """Return the row that a moment sees, in plain loops."""
    best = None
    for number, (owner, time, created, value) in enumerate(rows):
        if key is None or moment is None or owner != key or time > moment:
            continue
        place = (time, -1 if created is None else created, number)
        if best is None or place > best[0]:
            best = place, value
    if best is None or (ttl is not None and moment - best[0][0] > ttl):
        return None
    return best[1]


@PROFILE
@given(rows=ROWS, spine=SPINE, ttl=st.none() | st.integers(0, 4), cuts=st.lists(TIMES, unique=True, max_size=3))
@example(rows=[("a", 1, None, 1), ("b", 5, None, 2)], spine=[("b", 6), ("a", 6)], ttl=None, cuts=[3])
def test_all_strategies_return_what_the_oracle_says(rows, spine, ttl, cuts):
    schema = Schema(
        (pa.field("user", pa.string()),), pa.field("at", UTC), pa.field("made", UTC), (pa.field("x", pa.int64()),)
    )
    names = [field.name for field in schema]
    kinds = [field.type for field in schema]
    by_name = dict(zip(("user", "at", "made", "x"), zip(*rows, strict=True), strict=True)) if rows else {}
    columns = [pa.array(by_name.get(name, []), kind) for name, kind in zip(names, kinds, strict=True)]
    stored = pa.Table.from_arrays([*columns, pa.array(range(len(rows)))], names=[*names, ROW_ID])
    users, moments = zip(*spine, strict=True) if spine else ((), ())
    asked = pa.table(
        {
            "k0": pa.array(users, pa.string()),
            "t": pa.array(moments, pa.int64()),
        }
    )

    bounds = [-1, *sorted(cuts), 99]
    spans = [f'epoch_us("at") >= {low} AND epoch_us("at") < {high}' for low, high in pairwise(bounds)]
    cut = [f"SELECT * FROM stored WHERE {interval}" for interval in reversed(spans)]
    wanted = FeatureRequest(Rows((), schema, len(rows)), ("x",), ttl)
    join = Join(asking(stored), wanted, "SELECT * FROM stored", asked)
    expected = [seen(rows, key, moment, ttl) for key, moment in spine]
    assert join.in_steps()["f0"].to_pylist() == expected
    assert replace(join, parts=cut).in_steps()["f0"].to_pylist() == expected
    assert replace(join, parts=cut, shares=3).in_steps()["f0"].to_pylist() == expected
    assert join.at_once()["f0"].to_pylist() == expected
    assert join.at_once(of_spine=False)["f0"].to_pylist() == expected
    read = replace(join, cells=0).at_once(of_spine=False)
    assert (read is None) == (len(rows) > len(spine))
    assert read is None or read["f0"].to_pylist() == expected
    assert join.answer()["f0"].to_pylist() == expected
    with patch.object(joins, "gather", side_effect=pa.ArrowInvalid("more text than one array can hold")):
        assert join.at_once() is None
        assert join.in_steps()["f0"].to_pylist() == expected


def test_long_values_count_by_their_length_in_what_is_read_for_a_spine(tmp_path):
    numbers, long = list(range(1000)), [[float(n)] * 500 for n in range(1000)]
    stored = pa.table({"user": numbers, "at": pa.array(numbers, UTC), "x": long, "y": numbers, ROW_ID: numbers})
    pq.write_table(stored, tmp_path / "rows.parquet", use_dictionary=False)
    schema = Schema(
        (pa.field("user", pa.int64()),), pa.field("at", UTC), None, (stored.schema.field("x"), stored.schema.field("y"))
    )
    size = (tmp_path / "rows.parquet").stat().st_size
    asked = pa.table({"k0": numbers[:10], "t": numbers[:10]})

    def at_once(feature: str) -> pa.Table | None:
        wanted = FeatureRequest(Rows((), schema, 1000, size=size), (feature,), None)
        return Join(asking(stored), wanted, "SELECT * FROM stored", asked, cells=4000).at_once(of_spine=False)

    assert at_once("x") is None
    assert at_once("y")["f0"].to_pylist() == numbers[:10]


FILES = st.lists(
    st.tuples(st.integers(0, 3_000_000), st.integers(0, 50), st.integers(0, 20)).map(
        lambda drawn: DataFile(f"{drawn}.parquet", 1, drawn[0], drawn[1], drawn[1] + drawn[2])
    ),
    max_size=8,
    unique=True,
)


@PROFILE
@example(files=[DataFile(name, 1, 2_000_000, 7, 7) for name in "ab"], start=None, end=40, first=50)
@example(files=[DataFile(name, 1, 2_000_000, 7, 9) for name in "abc"], start=7, end=40, first=50)
@given(files=FILES, start=st.none() | st.integers(0, 40), end=st.integers(40, 80), first=st.integers(0, 80))
def test_parts_hold_each_moment_once_the_latest_first(files, start, end, first):
    schema = Schema((), pa.field("at", UTC), None, ())
    snapshot = Snapshot(Path("x"), 1, None, tuple(files))
    found = snapshot.parts(schema, Interval(start, end), first)
    spans = [interval for part in found for interval in part.spans]
    for moment in range(90):
        holding = [
            part for part in found if any(interval.intersect(Interval(moment, moment)) for interval in part.spans)
        ]
        has = [Path("x") / file.path for file in files if file.overlaps(Interval(moment, moment))]
        is_asked = (start is None or moment >= start) and moment <= end
        assert len(holding) == (1 if is_asked and (has or holding) else 0)
        assert all(path in part.paths for part in holding for path in has)
    assert all(new.start > old.end for new, old in pairwise(spans))
    assert all(interval.start is None or interval.start <= interval.end for interval in spans)
    assert all(part.paths for part in found)
    assert len(found) == 1 or not found or sum(file.rows for file in files) >= 4_000_000


WRITES = st.lists(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=3), min_size=1, max_size=5
)
MOMENTS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 9, None]), st.none() | st.integers(0, 3)), max_size=5)


@PROFILE
@given(writes=WRITES, asked=MOMENTS, ttl=st.none() | st.integers(1, 2))
@example(writes=[[(1, 0)], [(2, 0)]], asked=[(1, 1), (9, 1)], ttl=None)
@example(writes=[[(1, 0)], [(2, 0)]], asked=[(1, 1), (None, 1)], ttl=None)
@example(writes=[[(1, 0)], [(2, 0)], [(3, 1)]], asked=[(1, 2), (9, 2)], ttl=2)
def test_a_table_of_many_small_parts_is_joined_as_in_plain_loops(store, writes, asked, ttl):
    group = FeatureGroup(
        "parts",
        Entity("user", ["user"]),
        Materialization("at", ttl=None if ttl is None else ttl * HOUR),
        fresh_project(),
    )
    stored = []
    for number, some in enumerate(writes):
        users, hours = zip(*some, strict=True)
        values = [10 * number + place for place in range(len(some))]
        stored += zip(users, hours, [None] * len(some), values, strict=True)
        store.groups.write(
            group, pa.table({"user": users, "at": [NOON + hour * HOUR for hour in hours], "x": values}), mode="append"
        )
    users, hours = zip(*asked, strict=True) if asked else ((), ())
    at = pa.array([None if hour is None else NOON + hour * HOUR for hour in hours], pa.timestamp("us"))
    spine = pa.table({"user": pa.array(users, pa.int64()), "m": at})
    with patch.multiple(log, _PART=1, _WORTH_IT=1), patch.multiple(queries, _FEW=0):
        found = store.features.training_set([FeatureLookup(group)], spine, "m")
        assert store.features.stream([FeatureLookup(group)], spine, "m").read_all()["x"].equals(found["x"])
    assert found["x"].to_pylist() == [seen(stored, user, hour, ttl) for user, hour in asked]
