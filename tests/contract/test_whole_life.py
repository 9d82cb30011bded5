"""The life cycle of a store: after any calls in any order, its results are those of plain lists of rows.

And they are so wherever registry, tables and online rows are kept, and whatever joins them.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, product
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seeknal import FeatureLookup, FeatureStore, LastN, SeeknalWarning, StoreError, Sum, WindowedGroup
from seeknal.home.pushing import flush_all
from seeknal.join.inquiry import Inquiry
from seeknal.online import close_all
from seeknal.values.times import Interval

from . import strategies as some
from . import windows_oracle
from .oracle import Row, one_per_event
from .profiles import PROFILE
from .services import COMBINATIONS, ON_ONE_MACHINE, Kinds, Opened, Services
from .test_point_in_time import KINDS, NEITHER, Pair, spine_of

pytestmark = pytest.mark.slow

NAMES = ("one", "other")
SMALL = {
    "offline.plan": {"FILE_ROWS": 4, "_BLOCK": 5, "_AT_ONCE": 2},
    "offline.table": {"_SMALL": 2, "_LARGE": 16, "_DUE": 4},
    "offline.commit": {"_CHECKPOINT": 3},
    "offline.trimming": {"_KEPT": 3, "_AT_ONCE": 3},
    "offline.log": {"_PART": 2, "_WORTH_IT": 4},
    "engine.duckdb.engine": {"_PASS": 6, "_SAMPLE": 4, "_LITTLE": 0, "_BATCH": 3, "_ROWS": 3},
    "values.moments": {"_PIECE": 3, "_LITTLE": 0, "_SAMPLE": 4},
    "online.codec": {"_AT_ONCE": 2},
    "serve.verification": {"_AT_ONCE": 2},
    "offline.spare": {"GRACE": 0},
}
"""Thresholds of other code paths, so low that few rows reach them."""

KEYS = st.sampled_from([(1,), (1,), (1,), (2,), (3,), (None,)])
PEOPLE = st.sampled_from([1, 2, 3])
FEATURES = st.sampled_from([("n", "x"), ("n", "x"), ("n", "x", "y"), ("n",)])
ASKED = list(product([3, 1, None, 2], some.all_moments))
GROUPS = st.sampled_from(NAMES)


WINDOWS = {
    "n_total": (windows_oracle.Asked("Sum", "n", some.HOUR), Sum("n", over=timedelta(hours=1))),
    "n_last": (
        windows_oracle.Asked("LastN", "n", 2 * some.DAY, offset=1, extra={"n": 2}),
        LastN("n", 2, over="2d", offset=timedelta(microseconds=1)),
    ),
}
"""Windowed features, as the oracle and as users define them."""


@dataclass
class Life:
    """The expected state of a group, from plain lists."""

    pair: Pair
    features: tuple[str, ...] = ()
    version: int = 0
    versions: dict[int, tuple[tuple[str, ...], list[Row]]] = field(default_factory=dict)
    snapshots: dict[int, tuple[tuple[str, ...], list[Row]]] = field(default_factory=dict)
    may_be_gone: set[int] = field(default_factory=set)
    erased: set[int] = field(default_factory=set)
    is_fresh: bool = False

    @property
    def rows(self) -> list[Row]:
        """The rows of the current version."""
        return self.pair.oracle.rows

    def note(self, store: FeatureStore) -> None:
        """Record the rows of the newest snapshot and of the current version."""
        self.is_fresh = False
        flush_all()  # pushed rows may wait for their snapshot
        number = store.core.catalog.offline(self.pair.group.project, self.pair.group.name).snapshot().number
        held = self.features, deepcopy(self.rows)
        self.versions[self.version] = self.snapshots[number] = held


def windowed(life: Life) -> WindowedGroup:
    """Return a group that is computed from the rows of another."""
    group = life.pair.group
    aggregations = {feature: made for feature, (_, made) in WINDOWS.items()}
    return WindowedGroup(f"{group.name}_windows", group.entity, group, aggregations, project=group.project)


def told(rows: list[Row], features: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Write rows so that they can be compared, in any order."""
    return sorted(((row.keys[0], row.time, *(row.values.get(name) for name in features)) for row in rows), key=repr)


def read(table: pa.Table, features: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Write what was read in the same way."""
    times = table["seen_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    values = [table[name].to_pylist() for name in features]
    return sorted(zip(table["user_id"].to_pylist(), times, *values, strict=True), key=repr)


class WholeLife(RuleBasedStateMachine):
    """Two groups of one project, with all calls on them."""

    saved = Bundle("saved")

    def __init__(self, services: Services, combinations: list[Kinds]) -> None:
        super().__init__()
        self.services, self.combinations = services, combinations
        self.opened: Opened | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="seeknal-life-"))
        self.patch = pytest.MonkeyPatch()
        for module, values in SMALL.items():
            for name, value in values.items():
                self.patch.setattr(f"seeknal.{module}.{name}", value)
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore", SeeknalWarning)
        self.numbers = count()
        self.sets: dict[str, tuple[str, str, set[int]]] = {}
        self.lives: dict[str, Life] = {}

    def teardown(self) -> None:
        if self.opened is not None:
            self.store.close()
        close_all()
        self.caught.__exit__(None, None, None)
        self.patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(data=st.data(), ttl=some.ttls, frames=st.tuples(some.frames(KEYS), some.frames(KEYS)))
    def begin(self, data: st.DataObject, ttl: int | None, frames: tuple[some.Frame, some.Frame]) -> None:
        self.opened = self.services.open(self.folder / "home", data.draw(st.sampled_from(self.combinations)))
        self.store = self.opened.store
        for name, frame, created in zip(NAMES, frames, (True, False), strict=True):
            pair = Pair(self.store, "user_id", project="life", name=name, ttl=ttl, created=created)
            self.lives[name] = Life(pair)
            self.write(name, frame, ("n", "x"))

    # What is done to it

    @rule(name=GROUPS, frame=some.frames(KEYS), features=FEATURES)
    def write(self, name: str, frame: some.Frame, features: tuple[str, ...]) -> None:
        life = self.lives[name]
        if features != life.features:
            life.features, life.version = features, max(life.versions, default=0) + 1
        pair = life.pair
        table = some.table(frame, pair.keys, self.numbers, features)
        interval = Interval(*frame.interval)
        self.store.groups.write(pair.group, table, features=features, interval=interval, mode=frame.mode)
        pair.oracle.take_features(features)
        pair.oracle.write(some.rows(frame, table, features, created=pair.created), frame.mode, *frame.interval)
        life.note(self.store)

    @rule(name=GROUPS, who=PEOPLE, moment=some.moments, x=st.sampled_from([None, 0, 1]))
    def push(self, name: str, who: int, moment: int, x: int | None) -> None:
        life = self.lives[name]
        values = dict.fromkeys(life.features, x) | {"n": 10_000 + who}
        at = some.times([moment], "UTC")[0].as_py()
        row = {"user_id": who, "seen_at": at, **values} | ({"made_at": None} if life.pair.created else {})
        new = Row((who,), moment, None, values)
        done = self.store.groups.push(name, row, project="life")
        assert done.erased == (who in life.erased)
        same = [
            old for old in life.rows if (old.keys, old.time, old.created, old.values) == ((who,), moment, None, values)
        ]
        assert done.rows == (0 if who in life.erased or same else 1)
        if done.rows:
            life.pair.oracle.write([new], "append")
            life.note(self.store)
        life.is_fresh = False

    @rule(name=GROUPS, before=some.moments)
    def clean(self, name: str, before: int) -> None:
        life = self.lives[name]
        kept = [row for row in life.rows if row.time >= before]
        assert self.store.groups.clean(name, before, project="life") == len(life.rows) - len(kept)
        life.pair.oracle.rows = kept
        life.note(self.store)

    @precondition(lambda self: any(len(life.versions) > 1 for life in self.lives.values()))
    @rule(name=GROUPS, data=st.data())
    def rollback(self, name: str, data: st.DataObject) -> None:
        life = self.lives[name]
        if others := sorted(set(life.versions) - {life.version}):
            life.version = data.draw(st.sampled_from(others))
            self.store.groups.rollback(name, life.version, project="life")
            life.features, rows = deepcopy(life.versions[life.version])
            life.pair.oracle.rows = rows
            life.note(self.store)

    @rule(name=GROUPS, keep_days=st.sampled_from([0, 30]))
    def optimize(self, name: str, keep_days: int) -> None:
        life = self.lives[name]
        self.store.groups.optimize(name, project="life", keep_days=keep_days)
        life.may_be_gone |= set(life.snapshots) if keep_days == 0 else set()
        life.note(self.store)

    @rule(name=GROUPS, who=PEOPLE)
    def erase(self, name: str, who: int) -> None:
        life = self.lives[name]
        done = self.store.groups.erase(name, {"user_id": who}, project="life", delete_training_sets=True)
        assert done.rows == sum(row.keys == (who,) for row in life.rows)
        held = {label for label, (group, _, users) in self.sets.items() if group == name and who in users}
        assert {label.partition("/")[2] for label in done.training_sets} == held
        for label in held:
            del self.sets[label]
        for _, rows in (*life.versions.values(), *life.snapshots.values()):
            rows[:] = [row for row in rows if row.keys != (who,)]
        life.pair.oracle.rows = [row for row in life.rows if row.keys != (who,)]
        life.may_be_gone |= set(life.snapshots)
        life.erased.add(who)
        life.note(self.store)
        for table in self.opened.parquet("life", name):
            assert who not in table["user_id"].to_pylist()

    @rule(name=GROUPS)
    def load(self, name: str) -> None:
        self.store.groups.load(name, project="life")
        self.lives[name].is_fresh = True

    @rule(target=saved, name=GROUPS)
    def save(self, name: str) -> str:
        label = f"set{next(self.numbers)}"
        record = self.store.training_sets.save(label, Inquiry([self.lives[name].pair.lookup()]))
        users = {row.keys[0] for row in self.lives[name].rows}
        self.sets[label] = name, record.content_hash, users
        return label

    # What it answers

    @rule(label=saved)
    def reproduce(self, label: str) -> None:
        if label in self.sets:
            record = self.store.core.catalog.training_set(label, "life")
            assert len(self.store.training_sets.reproduce(record)) == record.rows
            assert record.content_hash == self.sets[label][1]

    @rule(name=GROUPS, data=st.data())
    def as_of(self, name: str, data: st.DataObject) -> None:
        life = self.lives[name]
        number = data.draw(st.sampled_from(sorted(life.snapshots)))
        features, rows = life.snapshots[number]
        try:
            found = self.store.features.history([life.pair.lookup()], as_of={name: number}, output="arrow")
        except StoreError as error:
            assert "is gone" in str(error)  # noqa: PT017 - either is right
            assert number in life.may_be_gone
            return
        assert read(found, features) == told(one_per_event(rows), features)

    @rule(name=GROUPS, form=some.forms, kind=st.sampled_from(sorted(KINDS)), streamed=st.booleans())
    def join(self, name: str, form: str, kind: str, streamed: bool) -> None:
        """Look up all users at all moments, with a frame of any kind."""
        asked = [row for row in ASKED if row[0] is not None or kind != "pandas on numpy"]
        spine = KINDS[kind](spine_of(asked, form, user_id=pa.int64()))
        lookup = self.lives[name].pair.lookup()
        if streamed:
            found = self.store.features.stream([lookup], spine, "at").read_all()
        else:
            found = self.store.features.training_set([lookup], spine, "at", output="arrow")
        nothing = dict.fromkeys(self.lives[name].features)
        expected = [nothing | self.lives[name].pair.oracle.at((who,), moment) for who, moment in asked]
        assert found.select(list(nothing)).to_pylist() == expected

    @rule(name=GROUPS, form=some.forms)
    def windows(self, name: str, form: str) -> None:
        life = self.lives[name]
        spine = spine_of(ASKED, form, user_id=pa.int64())
        found = self.store.features.training_set([FeatureLookup(windowed(life))], spine, "at", output="arrow")
        events = [windows_oracle.Event(row.keys[0], row.time, row.values) for row in one_per_event(life.rows)]
        events.sort(key=lambda event: event.t)
        for row, (who, moment) in zip(found.to_pylist(), ASKED, strict=True):
            is_known = who is not None and moment is not None
            for feature, (asked, _) in WINDOWS.items():
                assert row[feature] == (windows_oracle.value(events, who, moment, asked) if is_known else None)

    @rule()
    def join_both(self) -> None:
        one, other = (self.lives[name] for name in NAMES)
        lookups = [one.pair.lookup(features=["n"]), other.pair.lookup(features=["n"], prefix="o_")]
        found = self.store.features.training_set(lookups, spine_of(ASKED, "UTC", user_id=pa.int64()), "at")
        for row, (who, moment) in zip(found.to_pylist(), ASKED, strict=True):
            assert row["n"] == (NEITHER | one.pair.oracle.at((who,), moment))["n"]
            assert row["o_n"] == (NEITHER | other.pair.oracle.at((who,), moment))["n"]

    @rule(name=GROUPS)
    def versions(self, name: str) -> None:
        life = self.lives[name]
        found = self.store.groups.versions(name, project="life")
        assert {one.number for one in found} == set(life.versions)
        for one in found:
            assert one.rows == len(life.versions[one.number][1])
        assert [one.number for one in found if one.is_current] == [life.version]
        for number, (features, rows) in life.versions.items():
            kept = self.store.features.history([life.pair.lookup(version=number)], output="arrow")
            assert read(kept, features) == told(one_per_event(rows), features)

    @precondition(lambda self: any(life.is_fresh for life in self.lives.values()))
    @rule()
    def online(self) -> None:
        for name, life in self.lives.items():
            if life.is_fresh:
                table = self.store.tables.open(name, project="life")
                asked = [{"user_id": who} for who in (1, 2, 3, None)]
                nothing, now = dict.fromkeys(life.features), some.LAST
                found = table.get_features(asked, "dicts", at=now)
                assert found == [key | nothing | life.pair.oracle.at((key["user_id"],), now) for key in asked]
                checked = self.store.tables.verify(name, project="life")
                assert checked.equal, str(checked)

    @rule(name=GROUPS)
    def other_readers(self, name: str) -> None:
        """Check that other programs read the same rows: Delta Lake's own library, and Polars."""
        life, root = self.lives[name], self.opened.table("life", name)
        tables = [
            DeltaTable(root, storage_options=self.opened.options).to_pyarrow_table(),
            pl.read_delta(root, storage_options=self.opened.options).to_arrow(),
        ]
        for table in tables:
            assert read(table, life.features) == told(life.rows, life.features)

    @invariant()
    def the_history_is_what_was_written(self) -> None:
        for life in self.lives.values():
            found = self.store.features.history([life.pair.lookup()], output="arrow")
            assert read(found, life.features) == told(one_per_event(life.rows), life.features)


FEW = settings(PROFILE, max_examples=max(4, PROFILE.max_examples // 5), stateful_step_count=20)


def test_a_store_on_one_machine_keeps_and_answers_what_it_was_given(request):
    services = Services(request.getfixturevalue)
    run_state_machine_as_test(lambda: WholeLife(services, [ON_ONE_MACHINE]), settings=FEW)


def test_a_store_on_any_services_keeps_and_answers_what_it_was_given(request):
    services = Services(request.getfixturevalue)
    run_state_machine_as_test(lambda: WholeLife(services, COMBINATIONS), settings=FEW)
