"""Online tables keep their features and types and move on with their groups, or are reported cut off: random histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.errors import NotOnlineError
from seeknal.serve.verification import NOT_LOADED
from seeknal.values.times import instant, moment_of, now

from .oracle import Oracle, Row
from .profiles import PROFILE

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

HOUR = 3_600_000_000
START = instant(datetime(2024, 1, 1, tzinfo=UTC))
USERS = (1, 2, 3)
KINDS = {"int32": pa.int32(), "int64": pa.int64()}
_projects = count()

groups = st.sampled_from(["a", "a", "a", "b"])
some_rows = st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 9)), min_size=1, max_size=6)
schemas = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(list(KINDS)), min_size=1)
names = st.sampled_from(["one", "two", "far"])
wanted = st.sampled_from([("x",), ("y", "x"), ("z",), None])
pins = st.sampled_from([None, None, None, 0, 1])
steps = st.one_of(
    st.tuples(st.just("write"), groups, schemas, some_rows, st.sampled_from(["append", "merge", "overwrite"])),
    st.tuples(st.just("write"), groups, schemas, some_rows, st.just("append")),
    st.tuples(st.just("push"), groups, some_rows),
    st.tuples(st.just("load"), groups),
    st.tuples(st.just("load version"), groups, st.integers(0, 5)),
    st.tuples(st.just("refresh"), names),
    st.tuples(st.just("serve"), names, groups, wanted, pins, st.booleans()),
    st.tuples(st.just("rollback"), groups, st.integers(0, 5)),
    st.tuples(st.just("online"), groups),
    st.tuples(st.just("erase"), groups, st.sampled_from(USERS)),
    st.tuples(st.just("optimize"), groups),
    st.tuples(st.just("delete"), names),
)


@dataclass
class Group:
    """A feature group as the oracle knows it: the features and the rows of each version."""

    name: str
    schemas: dict[int, dict[str, str]] = field(default_factory=dict)
    oracles: dict[int, Oracle] = field(default_factory=dict)
    current: int = 0
    online: bool = False
    erased: set[int] = field(default_factory=set)

    @property
    def schema(self) -> dict[str, str]:
        return self.schemas[self.current]

    def version(self, place: int) -> int:
        return sorted(self.schemas)[place % len(self.schemas)]


@dataclass
class Lookup:
    """The features that an online table takes from a group, with their types, and the version that feeds it."""

    group: Group
    features: dict[str, str]
    fed: int
    pinned: bool = False
    whole: bool = False
    prefix: str = ""

    @property
    def is_cut_off(self) -> bool:
        schema = self.group.schema
        return not (self.pinned or self.whole) and any(schema.get(one) != kind for one, kind in self.features.items())

    def move(self) -> None:
        """Move on to the current version, if that still has all features."""
        if self.whole and not self.pinned:
            self.features = dict(self.group.schema)
        if not self.pinned and not self.is_cut_off:
            self.fed = self.group.current


class World:
    """Two groups and some online tables, kept by the product and by the oracle."""

    def __init__(self, store: FeatureStore, far: str) -> None:
        self.store, self.far = store, far
        self.project = f"following{next(_projects)}"
        self.groups = {name: Group(name) for name in ("a", "b")}
        self.tables: dict[str, list[Lookup]] = {}
        self.handles: dict[str, Any] = {}
        self.numbers = count()

    def definition(self, group: Group) -> FeatureGroup:
        return FeatureGroup(
            group.name, Entity("person", ["user_id"]), Materialization("seen_at", online=group.online), self.project
        )

    def rows(self, schema: Mapping[str, str], drawn: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        return [
            {"user_id": user, "seen_at": moment_of(START + hour * HOUR)} | {name: next(self.numbers) for name in schema}
            for user, hour in drawn
        ]

    def write(self, group: Group, schema: dict[str, str], drawn: Sequence[tuple[int, int]], mode: str) -> None:
        """Write rows; a feature that was wide stays so, as types only widen."""
        known = group.schemas.get(group.current, {})
        schema = {name: "int64" if known.get(name) == "int64" else kind for name, kind in schema.items()}
        rows = self.rows(schema, drawn)
        kinds = {"user_id": pa.int64(), "seen_at": pa.timestamp("us", "UTC")} | {n: KINDS[k] for n, k in schema.items()}
        table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
        self.store.groups.write(self.definition(group), table, features=list(schema), mode=mode)
        if schema != known:
            kept = [replace(row, values=dict(row.values)) for row in group.oracles[group.current].rows] if known else []
            group.current = max(group.schemas, default=0) + 1
            group.schemas[group.current], group.oracles[group.current] = schema, Oracle(rows=kept)
            group.oracles[group.current].take_features(schema)
        self.to_oracle(group, rows, mode)

    def to_oracle(self, group: Group, rows: list[dict[str, Any]], mode: str) -> None:
        made = [
            Row((row["user_id"],), instant(row["seen_at"]), None, {name: row[name] for name in group.schema})
            for row in rows
        ]
        group.oracles[group.current].write(made, mode)

    def load(self, group: Group, version: int | None = None) -> None:
        self.store.groups.load(group.name, project=self.project, version=version)
        number = version or group.current
        own = Lookup(group, dict(group.schemas[number]), number, pinned=version is not None, whole=True)
        self.tables[group.name] = [own]
        self.moved(group, number)

    def moved(self, group: Group, number: int, target: str | None = None) -> None:
        """Record that all tables of a store that follow a group have moved to a version, if it is the current one."""
        for name, lookups in self.tables.items():
            for lookup in lookups:
                if lookup.group is group and number == group.current and target in {None, self.target(name)}:
                    lookup.move()

    def target(self, name: str) -> str:
        return self.far if name == "far" else ""

    def serve(self, name: str, first: Group, features: Sequence[str] | None, pin: int | None, both: bool) -> None:
        lookups, asked = [], []
        for group in self.groups.values() if both else [first]:
            number = group.current if pin is None or group is not first else group.version(pin)
            schema = group.schemas[number]
            taken = [one for one in features or schema if one in schema] or list(schema)
            prefix = f"{group.name}_"
            lookups.append(
                Lookup(group, {one: schema[one] for one in taken}, number, number != group.current, prefix=prefix)
            )
            version = number if number != group.current else None
            asked.append(FeatureLookup(self.definition(group), taken, prefix, version=version))
        self.store.tables.serve(asked, name, target=self.target(name) or None)
        self.tables[name] = lookups
        for lookup in lookups:
            self.moved(lookup.group, lookup.fed, self.target(name))

    def refresh(self, name: str) -> None:
        self.store.tables.refresh([f"{self.project}/{name}"])
        for lookup in self.tables[name]:
            if not lookup.pinned and not lookup.is_cut_off:
                self.moved(lookup.group, lookup.group.current, self.target(name))

    def handle(self, name: str) -> Any:
        """Return the handle of a table that was opened earliest."""
        label, lookups = f"{self.project}/{name}", self.tables[name]
        outs = {lookup.prefix + one for lookup in lookups for one in lookup.features}
        if name in self.handles:
            try:
                found = self.handles[name].get_features([{"user_id": 1}], "dicts")[0]
            except NotOnlineError:
                found = {}
            if outs <= set(found):
                return self.handles[name]
        self.handles[name] = self.store.tables.open(label)
        return self.handles[name]

    def check(self, fresh: set[str], refreshed: set[str]) -> None:
        """Compare all tables with the oracle: those that must be fresh by value, the rest by the causes that verify reports."""
        for name, lookups in self.tables.items():
            label = f"{self.project}/{name}"
            found = self.store.tables.verify(label)
            record = self.store.core.catalog.online_table(label)
            status = self.store.tables.freshness(record, now())
            is_cut_off = any(lookup.is_cut_off for lookup in lookups)
            assert bool(found.cut_off) == bool(status.cut_off) == is_cut_off, (name, str(found))
            assert len(status.pinned) == sum(lookup.pinned for lookup in lookups)
            assert {one.cause for one in found.differences} <= {NOT_LOADED}, str(found)
            assert found.equal or is_cut_off or found.different
            assert [one.version for one in record.lookups] == [lookup.fed for lookup in lookups], name
            self.compare(name, lookups, fresh, name in refreshed)
            if name in refreshed:
                assert not found.different, str(found)
                assert status.is_behind == is_cut_off

    def compare(self, name: str, lookups: list[Lookup], fresh: set[str], all_of_it: bool) -> None:
        answer = self.handle(name).get_features([{"user_id": user} for user in USERS], "arrow")
        at = now()
        for lookup in lookups:
            for own, kind in lookup.features.items():
                assert answer.schema.field(lookup.prefix + own).type == KINDS[kind]
            if not (all_of_it or (lookup.group.name in fresh and lookup.fed == lookup.group.current)):
                continue
            oracle = lookup.group.oracles[lookup.fed]
            rows = answer.select([lookup.prefix + own for own in lookup.features]).to_pylist()
            for user, row in zip(USERS, rows, strict=True):
                expected = oracle.at((user,), at)
                assert row == {lookup.prefix + own: expected.get(own) for own in lookup.features}, (name, user)


def take(world: World, what: str, arguments: Sequence[Any]) -> tuple[set[str], set[str]]:
    """Run a step; return the groups whose current rows are online after it, and the tables that are wholly fresh."""
    if what in {"refresh", "delete", "serve"}:
        return set(), change_table(world, what, *arguments)
    group = world.groups[arguments[0]]
    change(world, group, what, arguments[1:])
    if what in {"push", "load"} or (group.online and what in {"write", "rollback"}):
        world.moved(group, group.current)
        return {group.name}, set()
    return set(), set()


def change_table(world: World, what: str, name: str, *rest: Any) -> set[str]:
    """Run a step on one table; return the table if it is fresh afterwards."""
    if what == "serve":
        first, features, pin, both = rest
        world.serve(name, world.groups[first], features, pin, both)
        return {name}
    if name in world.tables and what == "refresh":
        world.refresh(name)
        return {name}
    if name in world.tables:
        world.store.tables.delete(f"{world.project}/{name}")
        world.handles.pop(name, None)
        del world.tables[name]
    return set()


def change(world: World, group: Group, what: str, rest: Sequence[Any]) -> None:
    """Run a step on one group."""
    store, project = world.store, world.project
    if what == "write":
        world.write(group, *rest)
    elif what == "push":
        rows = world.rows(group.schema, rest[0])
        store.groups.push(group.name, rows, project=project)
        world.to_oracle(group, [row for row in rows if row["user_id"] not in group.erased], "append")
    elif what in {"load", "load version"}:
        world.load(group, group.version(rest[0]) if rest else None)
    elif what == "rollback" and (number := group.version(rest[0])) != group.current:
        store.groups.rollback(group.name, number, project=project)
        group.current = number
    elif what == "online":
        group.online = not group.online
        store.groups.register(world.definition(group))
    elif what == "erase":
        store.groups.erase(group.name, {"user_id": rest[0]}, project=project)
        group.erased.add(rest[0])
        for oracle in group.oracles.values():
            oracle.rows = [row for row in oracle.rows if row.keys != (rest[0],)]
    elif what == "optimize":
        store.groups.optimize(group.name, project=project, keep_days=0)


def play(store: FeatureStore, far: str, drawn: Sequence[tuple[Any, ...]]) -> None:
    """Run the steps in the product and in the oracle, and compare after each; at the end, refresh all tables."""
    world = World(store, far)
    for group in world.groups.values():
        world.write(group, {"x": "int32", "y": "int32"}, [(1, 0), (2, 1)], "append")
        world.load(group)
    world.serve("one", world.groups["a"], ("x",), None, both=False)
    world.serve("two", world.groups["a"], None, None, both=True)
    world.serve("far", world.groups["a"], ("y", "x"), None, both=False)
    world.check({"a", "b"}, set(world.tables))
    for what, *arguments in drawn:
        fresh, refreshed = take(world, what, arguments)
        world.check(fresh, refreshed)
    for name in world.tables:
        world.refresh(name)
    world.check(set(), set(world.tables))
    loaded = {
        (load.version, load.target)
        for group in world.groups.values()
        for load in store.groups.loads(group.name, project=world.project)
    }
    used = {(lookup.fed, world.target(name)) for name, lookups in world.tables.items() for lookup in lookups}
    kept = {(group.current, target) for group in world.groups.values() for target in ("", far)}
    assert loaded <= used | kept, "versions that no table uses are online"


@pytest.mark.slow
@PROFILE
@given(drawn=st.lists(steps, min_size=1, max_size=6))
def test_tables_on_lmdb_follow_their_groups_or_are_reported_cut_off(home, tmp_path, drawn):
    play(FeatureStore(home), str(tmp_path / "far"), drawn)


@pytest.mark.slow
@PROFILE
@given(drawn=st.lists(steps, min_size=1, max_size=6))
def test_tables_on_redis_follow_their_groups_or_are_reported_cut_off(home, tmp_path, valkey_url, drawn):
    play(FeatureStore(home, online_store=valkey_url), str(tmp_path / "far"), drawn)
