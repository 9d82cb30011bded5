"""The product and the oracle, on the same writes, give the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import count, pairwise, product
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.values import frames as frames_of_users
from seeknal.values.times import Interval, moment_of

from . import strategies as some
from .oracle import Keys, Oracle
from .profiles import PROFILE

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

_numbers = count()
NEITHER: dict[str, Any] = {"n": None, "x": None}

user = st.tuples(some.users)
user_and_place = st.tuples(some.users, some.places)


class Pair:
    """One feature group, kept by the product and by the oracle."""

    def __init__(
        self, store: FeatureStore, *keys: str, project: str, name: str = "seen", ttl: int | None, created: bool = True
    ) -> None:
        self.store, self.keys, self.created = store, keys, created
        self.group = FeatureGroup(
            name,
            Entity(f"{name}_entity", list(keys)),
            Materialization(
                event_time_col="seen_at",
                created_time_col="made_at" if created else None,
                ttl=None if ttl is None else timedelta(microseconds=ttl),
            ),
            project,
        )
        self.oracle = Oracle(ttl)
        self._numbers = count()

    def write(self, frame: some.Frame, features: Sequence[str] = ("n", "x")) -> None:
        """Write the same rows to both."""
        table = some.table(frame, self.keys, self._numbers, features)
        self.store.groups.write(
            self.group, table, features=features, interval=Interval(*frame.interval), mode=frame.mode
        )
        self.oracle.take_features(features)
        self.oracle.write(some.rows(frame, table, features, created=self.created), frame.mode, *frame.interval)

    def pad(self) -> None:
        """Add rows of an entity that nobody asks for, so that a spine is small beside them."""
        keys: Keys = (99, "elsewhere")[: len(self.keys)]
        rows = tuple((keys, some.START + i, None, 0) for i in range(150))
        self.write(some.Frame(rows, "append", (None, None), "UTC"))

    def lookup(self, **options: Any) -> FeatureLookup:
        """Return the lookup of its features."""
        return FeatureLookup(self.group, **options)


def fresh_project() -> str:
    """Name a project that no other example has."""
    return f"example{next(_numbers)}"


def spine_of(rows: Sequence[tuple[Any, ...]], form: str, **kinds: pa.DataType) -> pa.Table:
    """Make a spine whose last column is the moment."""
    columns = {name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(kinds.items())}
    return pa.table(columns | {"at": some.times([row[-1] for row in rows], form)})


KINDS: dict[str, Any] = {
    "arrow": lambda spine: spine,
    "pandas": lambda spine: spine.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get),
    "pandas on numpy": lambda spine: spine.filter(pc.is_valid(spine["user_id"])).to_pandas(),
    "pandas on Arrow": lambda spine: spine.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.from_arrow,
    "duckdb": duckdb.from_arrow,
    "duckdb query": lambda spine: duckdb.from_arrow(spine).query(
        "s", "SELECT * FROM s UNION ALL SELECT * FROM s WHERE false"
    ),
    "pandas objects": lambda spine: pd.DataFrame(
        {name: pd.Series(spine[name].to_pylist(), dtype=object) for name in spine.column_names}
    ),
}


@PROFILE
@given(
    frames=st.lists(some.frames(user_and_place), min_size=1, max_size=4),
    asked=st.lists(st.tuples(some.users, some.places, some.perhaps_moments), max_size=6),
    form=some.forms,
    interval=st.one_of(st.just((None, None)), some.intervals),
    ttl=some.ttls,
    options=st.fixed_dictionaries(
        {
            "created": st.sampled_from([True, True, False]),
            "padded": st.booleans(),
            "kind": st.sampled_from(sorted(KINDS)),
        }
    ),
)
def test_a_spine_gets_what_the_oracle_says(
    store: FeatureStore,
    frames: list[some.Frame],
    asked: list[tuple[Any, ...]],
    form: str,
    interval: tuple[int | None, int | None],
    ttl: int | None,
    options: dict[str, Any],
) -> None:
    """Several writes in every mode; ties, nulls and duplicates in all columns; composite keys."""
    pair = Pair(store, "user_id", "place_id", project=fresh_project(), ttl=ttl, created=options["created"])
    for frame in frames:
        pair.write(frame)
    if options["padded"]:
        pair.pad()
    everything = list(product([3, 1, None, 2], ["12", None, "1", ""], some.all_moments))
    for rows in (asked, everything):
        spine = spine_of(rows, form, user_id=pa.int64(), place_id=pa.string())
        expected = [NEITHER | pair.oracle.at((who, where), moment, *interval) for who, where, moment in rows]
        result = store.features.training_set([pair.lookup()], spine, "at", interval=Interval(*interval))
        assert result.select(spine.column_names).equals(spine)
        assert result.select(["n", "x"]).to_pylist() == expected
        given = KINDS[options["kind"]](spine)
        result = frames_of_users.to_arrow(
            store.features.training_set([pair.lookup()], given, "at", interval=Interval(*interval))
        )
        if options["kind"] == "pandas on numpy":  # which has no whole numbers beside nulls
            expected = [values for values, (who, *_) in zip(expected, rows, strict=True) if who is not None]
        assert result.select(["n", "x"]).to_pylist() == expected


@PROFILE
@given(
    at_airports=st.lists(some.frames(user), min_size=1, max_size=2),
    at_planes=st.lists(some.frames(user), min_size=1, max_size=2),
    asked=st.permutations([1, 2, 3]),
    form=some.forms,
    ttls=st.tuples(some.ttls, some.ttls),
)
def test_groups_with_different_keys_and_one_group_in_two_roles_are_looked_up_side_by_side(
    store: FeatureStore,
    at_airports: list[some.Frame],
    at_planes: list[some.Frame],
    asked: list[int],
    form: str,
    ttls: tuple[int | None, int | None],
) -> None:
    """Weather at the origin and at the destination, beside the plane: each as if it were alone."""
    project = fresh_project()
    weather = Pair(store, "user_id", project=project, name="weather", ttl=ttls[0])
    planes = Pair(store, "user_id", project=project, name="planes", ttl=ttls[1])
    for pair, frames in ((weather, at_airports), (planes, at_planes)):
        for frame in frames:
            pair.write(frame)
    roles = [*zip([1, 2, 3], asked, [1, 1, 2], strict=True), (1, 1, 1), (None, 1, 1), (1, None, 1), (1, 1, None)]
    rows = [(*who, moment) for moment in some.all_moments for who in roles]
    spine = spine_of(rows, form, origin=pa.int64(), dest=pa.int64(), user_id=pa.int64())
    lookups = [
        weather.lookup(rename={"user_id": "origin"}, prefix="origin_"),
        planes.lookup(),
        weather.lookup(rename={"user_id": "dest", "x": "there"}, prefix="dest_"),
    ]
    result = store.features.training_set(lookups, spine, "at")
    assert result.column_names == [*spine.column_names, "origin_n", "origin_x", "n", "x", "dest_n", "there"]
    for row, (origin, dest, plane, moment) in zip(result.to_pylist(), rows, strict=True):
        there = NEITHER | weather.oracle.at((dest,), moment)
        assert {"n": row["origin_n"], "x": row["origin_x"]} == NEITHER | weather.oracle.at((origin,), moment)
        assert {"n": row["n"], "x": row["x"]} == NEITHER | planes.oracle.at((plane,), moment)
        assert {"n": row["dest_n"], "x": row["there"]} == there


@PROFILE
@given(frames=st.lists(some.frames(user_and_place), min_size=1, max_size=3), interval=some.intervals, ttl=some.ttls)
def test_the_history_of_one_group_is_its_rows_without_those_that_lost_a_tie(
    store: FeatureStore, frames: list[some.Frame], interval: tuple[int | None, int | None], ttl: int | None
) -> None:
    """Rows are ordered by key and time, whatever the ttl."""
    pair = Pair(store, "user_id", "place_id", project=fresh_project(), ttl=ttl)
    for frame in frames:
        pair.write(frame)
    result = store.features.history([pair.lookup()], interval=Interval(*interval), output="arrow")
    assert result.column_names == ["user_id", "place_id", "seen_at", "n", "x"]
    found = [_event(row, "seen_at", ("user_id", "place_id")) for row in result.to_pylist()]
    assert sorted(found, key=repr) == sorted(
        [(row.keys, row.time, row.values["n"], row.values["x"]) for row in pair.oracle.history(*interval)], key=repr
    )
    known = [event for event in found if None not in event[0]]
    assert known == sorted(known, key=lambda event: event[:2])


def _event(row: dict[str, Any], time: str, keys: Sequence[str]) -> tuple[Keys, int, Any, Any]:
    moment = row[time].replace(tzinfo=row[time].tzinfo or some.UTC) - some.EPOCH
    return tuple(row[key] for key in keys), moment // timedelta(microseconds=1), row["n"], row["x"]


@PROFILE
@given(
    first=st.lists(some.frames(st.tuples(st.sampled_from([1, 2]))), min_size=1, max_size=2),
    second=st.lists(some.frames(st.tuples(st.sampled_from([1, 2]))), min_size=1, max_size=2),
    interval=some.intervals,
    ttls=st.tuples(some.ttls, some.ttls),
)
@pytest.mark.slow
def test_the_history_of_two_groups_has_a_row_wherever_one_of_them_changed(
    store: FeatureStore,
    first: list[some.Frame],
    second: list[some.Frame],
    interval: tuple[int | None, int | None],
    ttls: tuple[int | None, int | None],
) -> None:
    """Each group's features are those known at that moment, so older values are carried forward."""
    project = fresh_project()
    pairs = [Pair(store, "user_id", project=project, name=name, ttl=ttl) for name, ttl in zip("ab", ttls, strict=True)]
    for pair, frames in zip(pairs, (first, second), strict=True):
        for frame in frames:
            pair.write(frame)
    lookups = [pair.lookup(prefix=f"{pair.group.name}_") for pair in pairs]
    result = store.features.history(lookups, interval=Interval(*interval), output="arrow")
    events = sorted({(row.keys, row.time) for pair in pairs for row in pair.oracle.history(*interval)})
    expected = [
        [keys, time, *(value for pair in pairs for value in (NEITHER | pair.oracle.at(keys, time)).values())]
        for keys, time in events
    ]
    found = [
        [(row["user_id"],), *_event(row | {"n": 0, "x": 0}, "seen_at", ())[1:2], *list(row.values())[2:]]
        for row in result.to_pylist()
    ]
    assert found == expected


@PROFILE
@given(
    frames=st.lists(some.frames(user_and_place), min_size=1, max_size=3),
    now=st.one_of(some.moments, st.just(some.LAST)),
    ttl=some.ttls,
)
def test_online_answers_are_the_offline_answers_of_now(
    store: FeatureStore, frames: list[some.Frame], now: int, ttl: int | None
) -> None:
    """Latest, a spine dated now, and the online table agree with the oracle for every entity there is."""
    pair = Pair(store, "user_id", "place_id", project=fresh_project(), ttl=ttl)
    for frame in frames:
        pair.write(frame)
    latest = store.features.latest([pair.lookup()], at=moment_of(now), output="arrow").to_pylist()
    newest = pair.oracle.newest(now)
    assert [(row["user_id"], row["place_id"]) for row in latest] == sorted(newest)
    for row in latest:
        keys = (row["user_id"], row["place_id"])
        assert _event(row, "seen_at", ())[1] == newest[keys]
        assert {"n": row["n"], "x": row["x"]} == NEITHER | pair.oracle.at(keys, now)
    after_all = max(now, some.START + some.DAY)
    asked = [{"user_id": who, "place_id": where} for who in (1, 2, 3, None) for where in ("", "1", "12", None)]
    online = store.tables.serve([pair.lookup()]).get_features(asked, "dicts", at=after_all)
    assert online == [key | NEITHER | pair.oracle.at((key["user_id"], key["place_id"]), after_all) for key in asked]


nanoseconds = st.sampled_from([base * 1000 + rest for base in (-1, 0, some.START) for rest in (-1000, -1, 0, 1, 999)])


@PROFILE
@given(
    events=st.lists(nanoseconds, min_size=1, max_size=5),
    asked=st.lists(nanoseconds, min_size=1, max_size=8),
    ttl=st.sampled_from([None, 1, 2]),
    zones=st.tuples(st.sampled_from([None, "UTC", "Asia/Tokyo"]), st.sampled_from([None, "America/New_York"])),
)
def test_parts_of_a_microsecond_never_move_an_event_to_the_past(
    store: FeatureStore, events: list[int], asked: list[int], ttl: int | None, zones: tuple[str | None, str | None]
) -> None:
    """Events are rounded up and moments of a spine down, before 1970 as well."""
    pair = Pair(store, "user_id", project=fresh_project(), ttl=ttl, created=False)
    kinds = [pa.timestamp("ns", tz=zone) for zone in zones]
    rows = some.Frame(tuple(((1,), -(-event // 1000), None, 0) for event in events), "append", (None, None), "UTC")
    table = some.table(rows, ["user_id"], count()).drop(["seen_at"])
    table = table.append_column("seen_at", pa.array(events, pa.int64()).cast(kinds[0]))
    store.groups.write(pair.group, table, features=["n", "x"], mode="append")
    pair.oracle.write(some.rows(rows, table, created=False), "append")
    spine = pa.table({"user_id": pa.array([1] * len(asked)), "at": pa.array(asked, pa.int64()).cast(kinds[1])})
    result = store.features.training_set([pair.lookup()], spine, "at")
    assert result["at"].equals(spine["at"])
    assert result.select(["n", "x"]).to_pylist() == [NEITHER | pair.oracle.at((1,), moment // 1000) for moment in asked]


@PROFILE
@given(
    steps=st.lists(
        st.tuples(some.frames(user), st.sampled_from([("n",), ("n", "x"), ("n", "y"), ("n", "x", "y")])),
        min_size=2,
        max_size=4,
    ),
)
@pytest.mark.slow
def test_a_feature_that_comes_or_goes_is_null_in_the_rows_written_without_it(
    store: FeatureStore, steps: list[tuple[some.Frame, tuple[str, ...]]]
) -> None:
    """Each change of the columns makes one version more; the other columns keep their values."""
    pair = Pair(store, "user_id", project=fresh_project(), ttl=None)
    for frame, features in steps:
        pair.write(frame, features)
    names, asked = steps[-1][1], list(product([1, 2, 3, None], some.all_moments))
    result = store.features.training_set([pair.lookup()], spine_of(asked, "UTC", user_id=pa.int64()), "at")
    nothing = dict.fromkeys(names)
    found = result.select(list(names)).to_pylist()
    assert found == [nothing | pair.oracle.at((who,), moment) for who, moment in asked]
    changes = sum(set(one) != set(other) for (_, one), (_, other) in pairwise(steps))
    assert len(store.groups.versions("seen", project=pair.group.project)) == 1 + changes
