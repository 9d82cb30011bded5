"""Online equals offline, step by step: random writes, pushes, loads, schemas, rollbacks, deletions and passing hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.serve.verification import NOT_LOADED
from seeknal.values.times import Interval, instant, moment_of

from .oracle import Oracle, Row
from .profiles import PROFILE

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

HOUR = 3_600_000_000
# Redis forgets by its own clock, so the moments are to come, and "now" is given.
START = instant(datetime.now(UTC)) // HOUR * HOUR + 24 * HOUR
USERS = (1, 2, 3, None)
_projects = count()

hours = st.sampled_from([-5, -2, -1, 0, 0, 0, 1, 2, 3, 9])
users = st.sampled_from([1, 1, 2, 3, None])
some_rows = st.lists(
    st.tuples(users, hours, st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, -1, 0, 1])), max_size=6
)
spans = st.sampled_from([(None, None), (None, None), (0, None), (None, 0), (-2, 1)])
steps = st.one_of(
    st.tuples(st.just("write"), some_rows, st.sampled_from(["overwrite", "append", "merge"]), spans),
    st.tuples(st.just("push"), some_rows.filter(lambda rows: all(row[0] for row in rows))),
    st.tuples(st.just("push again")),
    st.tuples(st.just("load"), spans),
    st.tuples(st.just("time"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("schema")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("erase"), st.sampled_from([1, 2])),
    st.tuples(st.just("clean"), hours),
    st.tuples(st.just("optimize")),
    st.tuples(st.just("ttl"), st.sampled_from([None, 1, 3])),
    st.tuples(st.just("drop")),
)


class Pair:
    """One feature group and its online table, kept by the product; and its rows, kept by the oracle, for each version."""

    def __init__(self, store: FeatureStore, *, created: bool, ttl: int | None) -> None:
        self.store, self.created, self.ttl = store, created, ttl
        self.project = f"parity{next(_projects)}"
        self.features = ["n", "x"]
        self.version, self.newest = 1, 1
        self.oracles = {1: Oracle(ttl)}
        self.numbers = count()
        self.now = START
        self.loaded: list[tuple[int | None, int | None]] = []
        self.pushed: list[dict[str, Any]] = []
        self.erased: dict[int, int] = {}
        self.table: Any = None

    @property
    def group(self) -> FeatureGroup:
        ttl = None if self.ttl is None else timedelta(hours=self.ttl)
        materialization = Materialization("seen_at", "made_at" if self.created else None, ttl)
        return FeatureGroup("seen", Entity("person", ["user_id"]), materialization, self.project)

    @property
    def oracle(self) -> Oracle:
        return self.oracles[self.version]

    def rows(self, drawn: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        made = []
        for user, hour, x, late in drawn:
            row = {"user_id": user, "seen_at": moment_of(START + hour * HOUR)}
            row |= {"made_at": None if late is None else moment_of(START + late)} if self.created else {}
            made.append(row | {"n": next(self.numbers), "x": x} | ({"y": x} if "y" in self.features else {}))
        return made

    def table_of(self, rows: list[dict[str, Any]]) -> pa.Table:
        kinds = {"user_id": pa.int64(), "n": pa.int64(), "x": pa.int64(), "y": pa.int64()}
        time = pa.timestamp("us", "UTC")
        names = ["user_id", "seen_at", *(["made_at"] if self.created else []), *self.features]
        return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name, time)) for name in names})

    def to_oracle(
        self, rows: list[dict[str, Any]], mode: str, start: int | None = None, end: int | None = None
    ) -> None:
        known = [
            Row(
                (row["user_id"],),
                instant(row["seen_at"]),
                instant(row["made_at"]) if row.get("made_at") else None,
                {name: row[name] for name in self.features},
            )
            for row in rows
        ]
        self.oracle.write(known, mode, start, end)

    def write(self, drawn: Sequence[tuple[Any, ...]], mode: str, interval: tuple[int | None, int | None]) -> None:
        start, end = (None if hour is None else START + hour * HOUR for hour in interval)
        rows = self.rows(drawn)
        self.store.groups.write(
            self.group, self.table_of(rows), features=self.features, mode=mode, interval=Interval(start, end)
        )
        self.to_oracle(rows, mode, start, end)

    def push(self, drawn: Sequence[tuple[Any, ...]]) -> None:
        self.pushed = self.rows(drawn)
        before = self.loaded
        self.store.groups.push("seen", self.pushed, project=self.project)
        times = [instant(row["seen_at"]) for row in self.pushed]
        self.loaded = [*before, (min(times, default=None), None)]
        if self.table is None:
            self.serve()
        self.to_oracle(self.pushed, "append")

    def next_version(self) -> None:
        """Start a version with the same rows and the current features; the previous version keeps its rows."""
        kept = [replace(row, values=dict(row.values)) for row in self.oracle.rows]
        self.version = self.newest = self.newest + 1
        self.oracles[self.version] = Oracle(rows=kept)
        self.oracle.take_features(self.features)

    def serve(self) -> None:
        self.table = self.store.tables.serve([FeatureLookup(self.group)], "answers", at=moment_of(self.now))
        self.loaded = [(None, None)]

    def load(self, interval: tuple[int | None, int | None]) -> None:
        start, end = (None if hour is None else START + hour * HOUR for hour in interval)
        self.store.groups.load("seen", project=self.project, interval=Interval(start, end), at=moment_of(self.now))
        self.loaded.append((start, end))

    def check(self, *, fresh: bool) -> None:
        """Compare: with the oracle if all is loaded, and otherwise let every difference say that it is not."""
        self.check_freshness()
        found = self.store.tables.verify("answers", project=self.project, at=moment_of(self.now))
        if not fresh:
            assert {one.cause for one in found.differences} <= {NOT_LOADED}, str(found)
            return
        assert found.equal, str(found)
        oracle = Oracle(None if self.ttl is None else self.ttl * HOUR)
        oracle.rows = self.oracle.rows
        for output in ("dicts", "arrow"):
            answer = self.table.get_features([{"user_id": user} for user in USERS], output, at=self.now)
            expected = [dict.fromkeys(self.table.features) | oracle.at((user,), self.now) for user in USERS]
            rows = answer if output == "dicts" else answer.to_pylist()
            assert [{name: row[name] for name in self.table.features} for row in rows] == expected

    def check_freshness(self) -> None:
        """Compare the reported freshness of the table with the rows that it returns."""
        rows = self.table.get_features([{"user_id": user} for user in USERS], "dicts", with_status=True, at=self.now)
        times = [instant(row["seen_event_time"]) for row in rows if row["seen_event_time"]]
        record = self.store.core.catalog.online_table("answers", self.project)
        found = self.store.tables.freshness(record, self.now)
        assert found.newest == max(times, default=None)
        assert found.is_expired == (bool(times) and all(row["seen_status"] != "found" for row in rows))


def play(pair: Pair, drawn: Sequence[tuple[Any, ...]]) -> None:
    """Run the steps in the product and in the oracle, and compare after each."""
    pair.write([(1, 0, 1, None)], "append", (None, None))
    pair.serve()
    pair.check(fresh=True)
    for what, *arguments in drawn:
        fresh = take(pair, what, arguments)
        pair.check(fresh=fresh)
        if not fresh:
            pair.load((None, None))
            pair.check(fresh=True)


def take(pair: Pair, what: str, arguments: Sequence[Any]) -> bool:
    """Run one step; return whether everything is online after it."""
    if what == "write":
        pair.write(*arguments)
        return False
    if what == "push":
        pair.push(*arguments)
        return True
    if what == "push again":
        pushed = pair.store.groups.push("seen", pair.pushed, project=pair.project) if fits(pair) else None
        assert pushed is None or pair.oracle is None or pushed.rows <= len(pair.pushed)
        if pushed and pushed.rows:  # what was replaced or cleaned since comes again
            known = {repr(row.values) for row in pair.oracle.rows}
            again = [row for row in pair.pushed if repr({name: row[name] for name in pair.features}) not in known]
            pair.to_oracle(
                [row for row in again if pair.erased.get(row["user_id"], -1) < instant(row["seen_at"])], "append"
            )
        return True
    if what == "load":
        pair.load(*arguments)
        return True
    if what == "time":
        pair.now += arguments[0] * HOUR
        return True
    return change(pair, what, arguments)


def fits(pair: Pair) -> bool:
    return bool(pair.pushed) and set(pair.features) <= set(pair.pushed[0])


def change(pair: Pair, what: str, arguments: Sequence[Any]) -> bool:
    """Run a step that changes the stored rows, and load all of them."""
    store, project = pair.store, pair.project
    if what == "schema":
        pair.features = ["n", "x", "y"] if "y" not in pair.features else ["n", "x"]
        pair.next_version()
        pair.write([(2, 0, 1, None)], "append", (None, None))
        pair.serve()
    elif what == "rollback" and pair.version != 1:
        store.groups.rollback("seen", 1, project=project)
        pair.version, pair.features = 1, ["n", "x"]
        pair.serve()
    elif what == "erase":
        store.groups.erase("seen", {"user_id": arguments[0]}, project=project)
        for oracle in pair.oracles.values():
            oracle.rows = [row for row in oracle.rows if row.keys != (arguments[0],)]
        pair.erased[arguments[0]] = instant(datetime.now(UTC))
    elif what == "clean":
        limit = START + arguments[0] * HOUR
        store.groups.clean("seen", limit, project=project)
        pair.oracle.rows = [row for row in pair.oracle.rows if row.time >= limit]
    elif what == "optimize":
        store.groups.optimize("seen", project=project, keep_days=0)
    elif what == "ttl":
        pair.ttl = arguments[0]
        store.groups.register(pair.group)
    elif what == "drop":
        store.tables.delete("answers", project=project)
        pair.serve()
    return True


@PROFILE
@given(drawn=st.lists(steps, min_size=1, max_size=7), created=st.booleans(), ttl=st.sampled_from([None, 2]))
def test_lmdb_answers_what_a_training_set_of_now_would(home, drawn, created, ttl):
    play(Pair(FeatureStore(home), created=created, ttl=ttl), drawn)


@pytest.mark.slow
@PROFILE
@given(drawn=st.lists(steps, min_size=1, max_size=7), created=st.booleans(), ttl=st.sampled_from([None, 2]))
def test_redis_answers_what_a_training_set_of_now_would(home, valkey_url, drawn, created, ttl):
    play(Pair(FeatureStore(home, online_store=valkey_url), created=created, ttl=ttl), drawn)
