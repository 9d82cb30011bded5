"""Rule 25: every stored event of a source counts once, whatever is corrected, replayed, overwritten or compacted.

The oracle keeps all rows of a source in a list. It knows nothing of files, and compares each row with all others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import DataError, DefinitionError, Entity, FeatureLookup, FeatureStore, StoreError
from seeknal.define.aggregations import Count, Sum
from seeknal.define.event_group import EventGroup, event_group
from seeknal.define.windowed_group import WindowedGroup
from seeknal.offline import Snapshot
from seeknal.system.stored_paths import StoredPath
from seeknal.values.times import Interval

from .oracle import within
from .profiles import PROFILE
from .strategies import DAY, SECOND, START
from .world import finished, python

ON_BOTH = True  # see `pytest_generate_tests`

NUMBER = "_seeknal_row_id"
UTC = pa.timestamp("us", "UTC")
_projects = count(1)


@pytest.fixture(autouse=True)
def tiny_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files at every fourth row, and compact them soon, so that few rows make many files."""
    for name, value in {"FILE_ROWS": 4, "_BLOCK": 5, "_AT_ONCE": 2}.items():
        monkeypatch.setattr(f"seeknal.offline.plan.{name}", value)
    for name, value in {"_SMALL": 3, "_LARGE": 16, "_DUE": 4}.items():
        monkeypatch.setattr(f"seeknal.offline.table.{name}", value)


# The oracle


@dataclass(frozen=True)
class Event:
    """A row: the values of its id, its times, and its other values."""

    id: tuple[Any, ...]
    t: int
    made: int | None
    values: tuple[Any, ...]


@dataclass
class Stored:
    """A row that the oracle keeps, its place in the order of writing, and whether another row superseded it."""

    event: Event
    place: int
    hidden: bool = False


@dataclass
class Events:
    """A source that keeps every row, and scans all of them for each question."""

    rows: list[Stored] = field(default_factory=list)
    places: Iterator[int] = field(default_factory=count)

    def write(self, given: Sequence[Event], mode: str, start: int | None = None, end: int | None = None) -> list[int]:
        """Write the rows that lie in a closed interval.

        Returns:
            How many rows were stored, were known already, do not count though stored, and were replaced.
        """
        given = [event for event in given if within(event.t, start, end)]
        before = [one for one in self.rows if not one.hidden]
        if mode == "overwrite":
            left = [one for one in before if not within(one.event.t, start, end)]
            alive = {one.event.id for one in left} | {event.id for event in given}
            self.rows = left + [one for one in self.rows if one.hidden and one.event.id in alive]
        living = {one.event.id for one in self.rows if not one.hidden}
        known = [one.event for one in self.rows if one.event.id in living]
        new: list[Stored] = []
        for event in given:
            if event not in known and event not in [one.event for one in new]:
                new.append(Stored(event, next(self.places)))
        for one in new:
            self.rows.append(one)
            rivals = [other for other in self.rows if other.event.id == one.event.id and not other.hidden]
            best = max(rivals, key=lambda rival: (rival.event.made is not None, rival.event.made or 0, rival.place))
            for rival in rivals:
                rival.hidden = rival is not best
        lost = sum(one.hidden for one in new)
        replaced = len(before) - sum(one in self.rows and not one.hidden for one in before)
        return [len(new), len(given) - len(new), lost, replaced]

    def erase(self, key: tuple[Any, ...]) -> None:
        """Drop an event in all its forms."""
        self.rows = [one for one in self.rows if one.event.id != key]

    def counting(self) -> list[Event]:
        """Return the events that count, in the order of writing."""
        return [one.event for one in sorted(self.rows, key=lambda one: one.place) if not one.hidden]


# The store


@dataclass
class Source:
    """A source of the store beside its oracle."""

    store: FeatureStore
    group: EventGroup
    kinds: Sequence[pa.DataType]
    created: bool = True
    values: tuple[str, ...] = ("x",)
    oracle: Events = field(default_factory=Events)
    then: dict[int, list[Event]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.group.project}/{self.group.name}"

    @property
    def root(self) -> StoredPath:
        """The folder of its table."""
        return self.store.core.catalog.offline(self.group.project, self.group.name).root

    def table(self, events: Iterable[Event]) -> pa.Table:
        events = list(events)
        kinds = [*self.kinds, *[pa.float64()] * len(self.values)]
        columns = [*zip(*((*event.id, *event.values) for event in events), strict=True)] or [()] * len(kinds)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        made = [pa.array([event.made for event in events], UTC)] if self.created else []
        times = pa.array([event.t for event in events], UTC)
        names = [*self.group.event_id, *self.values, "at", *(["made"] if self.created else [])]
        return pa.Table.from_arrays([*arrays, times, *made], names=names)

    def write(
        self, events: Sequence[Event], mode: str = "append", start: int | None = None, end: int | None = None
    ) -> Any:
        """Write rows to both, and compare what is told of it."""
        with warnings.catch_warnings(action="ignore"):
            done = self.store.groups.write(self.group, self.table(events), mode=mode, interval=Interval(start, end))
        right = self.oracle.write(events, mode, start, end)
        assert [done.rows, done.known, done.superseded, done.replaced] == right
        self.check()
        return done

    def padded(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the values of an event, with nulls for columns that came later."""
        return (*values, *[None] * len(self.values))[: len(self.values)]

    def grow(self) -> None:
        """Add a column, unless there is one already, by an append without rows."""
        self.values = ("x", "y")
        for one in self.oracle.rows:
            one.event = replace(one.event, values=self.padded(one.event.values))
        for number, events in self.then.items():
            self.then[number] = [replace(one, values=self.padded(one.values)) for one in events]
        self.write([])

    def erase(self, key: tuple[Any, ...]) -> None:
        """Erase an event from both."""
        keys = dict(zip(self.group.event_id, key, strict=True))
        before = len(self.oracle.counting())
        self.oracle.erase(key)
        with warnings.catch_warnings(action="ignore"):  # perhaps it was never stored, or overwritten
            done = self.store.groups.erase(self.group.name, keys, project=self.group.project)
        assert done.rows == before - len(self.oracle.counting())
        self.check()

    def check_windows(self) -> None:
        """Compare a windowed group over the source, of the first column of the id, with sums by hand."""
        name, kind = self.group.event_id[0], self.kinds[0]
        lookup = FeatureLookup(
            WindowedGroup("w", Entity("e", [name]), self.group, {"n": Count(over="1d"), "sum": Sum("x", over="1d")})
        )
        asked = [
            (key, START + half * DAY // 2)
            for key in {one.event.id[0] for one in self.oracle.rows}
            for half in range(10)
        ]
        times = pa.array([t for _, t in asked], UTC)
        spine = pa.table({name: pa.array([key for key, _ in asked], kind), "moment": times})
        found = self.store.features.training_set([lookup], spine, "moment", output="arrow")
        for (key, t), count_, total in zip(asked, found["n"].to_pylist(), found["sum"].to_pylist(), strict=True):
            mine = [one for one in self.oracle.counting() if one.id[0] == key and t - DAY < one.t <= t]
            xs = [one.values[0] for one in mine if one.values[0] is not None]
            assert (count_, total) == (len(mine), sum(xs) if xs else None)

    def push(self, events: Sequence[Event]) -> Any:
        """Push rows to both."""
        done = self.store.groups.push(self.group.name, self.table(events), project=self.group.project)
        stored, known, *_ = self.oracle.write(events, "append")
        assert (done.rows, done.known) == (stored, known)
        self.check()
        return done

    def clean(self, before: int) -> None:
        """Remove old events from both."""
        count = self.store.groups.clean(self.group.name, before, project=self.group.project)
        *_, replaced = self.oracle.write([], "overwrite", None, before - 1)
        assert count == replaced
        self.check()

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot."""
        return self.store.core.catalog.offline(self.group.project, self.group.name).snapshot()

    def read(self, number: int | None = None) -> list[Event]:
        """Return the events that count, as of a snapshot, in the order of writing."""
        catalog, engine = self.store.core.catalog, self.store.core.engine()
        version, snapshot = catalog.read(catalog.group(self.group.name, self.group.project), None, number)
        rows = snapshot.within(version.schema)
        found = engine.sample(rows, 10**6)
        assert engine.count(rows) == [len(found)]
        numbers = found[NUMBER].to_pylist()
        assert numbers == sorted(set(numbers), reverse=True)
        return self.events(found)[::-1]

    def events(self, found: pa.Table) -> list[Event]:
        """Return the rows of a table."""
        times = [found[name].cast(pa.int64()).to_pylist() for name in ("at", *(["made"] if self.created else []))]
        made = times[1] if self.created else [None] * len(found)
        return [
            Event(tuple(row[name] for name in self.group.event_id), t, m, tuple(row.get(name) for name in self.values))
            for row, t, m in zip(found.to_pylist(), times[0], made, strict=True)
        ]

    def check(self) -> None:
        """Compare what the store has with the oracle, and remember it for later."""
        right = self.oracle.counting()
        snapshot = self.snapshot()
        assert self.read() == right
        assert snapshot.rows == len(right)
        assert self.store.groups.version(self.group.name, project=self.group.project).rows == len(right)
        numbers = self.stored()[NUMBER].to_numpy()
        assert snapshot.commit is not None
        assert (numbers < 0).sum() == snapshot.commit.hidden == sum(one.hidden for one in self.oracle.rows)
        self.then[snapshot.number] = right

    def check_the_past(self) -> None:
        """Compare each snapshot that was ever newest with what it was then."""
        for number, right in self.then.items():
            assert self.read(number) == right

    def stored(self) -> pa.Table:
        """Return all stored rows as another program sees them, hidden ones included."""
        return pa.table(DeltaTable(str(self.root)).to_pyarrow_table())


def source(
    store: FeatureStore,
    event_id: Sequence[str] = ("order",),
    kinds: Sequence[pa.DataType] = (pa.int64(),),
    *,
    created: bool = False,
) -> Source:
    """Return a source without rows, in a project of its own."""
    group = event_group(
        "tx", "at", event_id, created_time_col="made" if created else None, project=f"p{next(_projects)}"
    )
    return Source(store, group, kinds, created)


@pytest.fixture
def tx(store: FeatureStore) -> Source:
    """A source without rows, whose events have an order number."""
    return source(store)


@pytest.fixture
def made(store: FeatureStore) -> Source:
    """The same with a created time."""
    return source(store, created=True)


def event(order: Any, t: int = 0, x: float | None = 1.0, made: int | None = None) -> Event:
    """Return an event at a number of days from the start."""
    return Event((order,), START + t * DAY, made, (x,))


def days(found: Iterable[Event]) -> list[tuple[Any, int, float]]:
    """Return order, day and x of events."""
    return sorted((one.id[0], (one.t - START) // DAY, one.values[0]) for one in found)


# All together


@dataclass(frozen=True)
class Shape:
    """The columns of an id, and values for each."""

    names: tuple[str, ...]
    kinds: tuple[pa.DataType, ...]
    values: tuple[st.SearchStrategy[Any], ...]


SHAPES = [
    Shape(("order",), (pa.int64(),), (st.integers(0, 3),)),
    Shape(("order", "line"), (pa.string(), pa.int32()), (st.sampled_from(["a", "a'", ""]), st.integers(0, 1))),
    Shape(
        ("number", "file", "c0"),  # names that the SQL uses itself
        (pa.decimal128(5, 2), pa.date32(), pa.bool_()),
        (
            st.sampled_from([Decimal("1.00"), Decimal("1.10")]),
            st.sampled_from([date(2024, 1, 1), date(1, 1, 1)]),
            st.booleans(),
        ),
    ),
]

moments = st.sampled_from([START + day * DAY + more for day in range(4) for more in (0, 1)])
bounds = st.none() | moments
xs = st.sampled_from([None, 0.0, 1.0, 2.5])


def events_of(shape: Shape) -> st.SearchStrategy[Event]:
    """Draw an event; few ids and moments, so that most are corrections of others."""
    perhaps = st.none() | st.sampled_from([START, START + SECOND])
    return st.builds(Event, st.tuples(*shape.values), moments, perhaps, st.tuples(xs))


STEPS = ["append", "append", "merge", "overwrite", "overwrite", "push", "push", "clean", "optimize", "column"]


@settings(PROFILE, max_examples=2 * PROFILE.max_examples)
@given(data=st.data(), shape=st.sampled_from(SHAPES), created=st.booleans())
def test_every_event_counts_once_whatever_is_written_in_whatever_order(
    store: FeatureStore, data: st.DataObject, shape: Shape, created: bool
) -> None:
    tx = source(store, shape.names, shape.kinds, created=created)
    ever: list[Event] = []
    fresh = events_of(shape)

    def some() -> list[Event]:
        replays = [st.sampled_from(ever)] if ever else []
        drawn = data.draw(st.lists(st.one_of(fresh, fresh, *replays), max_size=6))
        shaped = [replace(one, made=one.made if created else None, values=tx.padded(one.values)) for one in drawn]
        ever.extend(shaped)
        return shaped

    tx.write(some())
    for _ in range(data.draw(st.integers(2, 7))):
        step = data.draw(st.sampled_from(STEPS))
        if step == "push":
            tx.push(some())
        elif step == "clean":
            tx.clean(data.draw(moments))
        elif step == "optimize":
            store.groups.optimize("tx", project=tx.group.project)
            tx.check()
        elif step == "column":
            tx.grow()
        else:
            start, end = data.draw(bounds), data.draw(bounds)
            if start is not None and end is not None and end < start:
                start, end = end, start
            tx.write(some(), step, start, end)
    tx.check_the_past()
    if ever:
        tx.check_windows()
        tx.erase(data.draw(st.sampled_from(ever)).id)


# With an id


@pytest.mark.parametrize("mode", ["append", "merge", "overwrite", "push"])
def test_a_correction_replaces_an_event_even_at_another_time(tx: Source, mode: str) -> None:
    tx.write([event(1, 0), event(2, 9)])
    if mode == "push":
        tx.push([event(1, 5, 2.0)])
    else:
        tx.write([event(1, 5, 2.0)], mode, START + 4 * DAY, START + 6 * DAY)
    assert days(tx.read()) == [(1, 5, 2.0), (2, 9, 1.0)]


def test_a_write_tells_how_many_events_it_replaced_and_how_many_of_its_rows_count(tx: Source) -> None:
    tx.write([event(1), event(2), event(3)])
    done = tx.write([event(1), event(2, x=5.0), event(4, x=6.0), event(4, x=7.0)])
    assert (done.rows, done.known, done.superseded, done.replaced) == (3, 1, 1, 1)
    assert str(done).endswith(
        "3 rows written; 1 known already; 1 of them superseded by others of the same event; 1 row replaced"
    )


@pytest.mark.parametrize("mode", ["append", "merge", "push"])
def test_a_replay_of_an_event_before_its_correction_changes_nothing(tx: Source, mode: str) -> None:
    old, new = event(1, 0), event(1, 3, 2.0)
    for one in (old, new):
        tx.push([one]) if tx.then else tx.write([one])
    files = {file.path for file in tx.snapshot().files}
    for one in (old, new, old):
        done = tx.push([one]) if mode == "push" else tx.write([one], mode)
        assert (done.rows, done.known) == (0, 1)
    assert tx.read() == [new]
    assert {file.path for file in tx.snapshot().files} == files  # nothing was stored or written again


def test_a_push_that_is_known_makes_no_snapshot(tx: Source) -> None:
    tx.write([event(1)])
    tx.push([event(1, x=2.0)])
    number = tx.snapshot().number
    assert tx.push([event(1), event(1, x=2.0)]).snapshot == number == tx.snapshot().number


def test_an_overwrite_of_another_interval_does_not_make_a_replay_count(tx: Source) -> None:
    old, new = event(1, 0), event(1, 5, 2.0)
    tx.write([old])
    tx.write([new])
    tx.write([event(2, 0)], "overwrite", START, START + DAY)  # which has nothing of event 1, whose row there is hidden
    assert tx.push([old]).known == 1
    tx.write([old, event(2, 0)], "overwrite", START, START + DAY)
    assert days(tx.read()) == [(1, 5, 2.0), (2, 0, 1.0)]


def test_an_overwrite_may_return_to_an_earlier_form_of_an_event_in_its_interval(tx: Source) -> None:
    for x in (1.0, 2.0):
        tx.write([event(1, 0, x)])
    tx.write([event(1, 0, 1.0)], "overwrite")
    assert days(tx.read()) == [(1, 0, 1.0)]


def test_an_overwrite_keeps_what_is_known_of_the_events_that_it_contains(tx: Source) -> None:
    for x in (1.0, 2.0):
        tx.write([event(1, 0, x)])
    tx.write([event(1, 0, 2.0)], "overwrite", START, START)
    assert tx.push([event(1, 0, 1.0)]).known == 1
    assert days(tx.read()) == [(1, 0, 2.0)]


def test_an_event_that_was_overwritten_is_forgotten_in_all_its_forms(tx: Source) -> None:
    for t, x in ((9, 1.0), (0, 2.0)):
        tx.write([event(1, t, x)])
    tx.write([event(2, 0)], "overwrite", START, START + DAY)
    assert len(tx.stored()) == 1
    assert tx.push([event(1, 9, 1.0)]).rows == 1  # as if it was new
    assert days(tx.read()) == [(1, 9, 1.0), (2, 0, 1.0)]


def test_the_greatest_created_time_counts_and_a_missing_one_is_the_least(made: Source) -> None:
    late, early, none = (event(1, 0, x, t) for x, t in ((1.0, 20), (2.0, 10), (3.0, None)))
    made.write([late])
    for one in (early, none):
        assert made.write([one]).superseded == 1
    assert made.read() == [late]
    tied = event(1, 3, 4.0, 20)
    made.write([tied])
    assert made.read() == [tied]  # the later write


def test_a_created_time_counts_in_an_overwrite_too(made: Source) -> None:
    made.write([event(1, 5, 1.0, 20)])
    made.write([event(1, 0, 2.0, 10), event(2, 0, 1.0, 10)], "overwrite", START, START + DAY)
    assert days(made.read()) == [(1, 5, 1.0), (2, 0, 1.0)]


def test_of_rows_of_one_event_in_one_write_the_later_counts(tx: Source) -> None:
    tx.write([event(1, 3, 1.0), event(1, 2, 2.0), event(1, 1, 3.0), event(1, 3, 1.0)])
    assert days(tx.read()) == [(1, 1, 3.0)]
    assert tx.push([event(1, 2, 2.0)]).known == 1


def test_a_correction_rewrites_only_the_files_that_hold_an_event_of_it(tx: Source) -> None:
    tx.write([event(n, n // 4) for n in range(16)])
    before = {file.path for file in tx.snapshot().files}
    assert len(before) == 4
    tx.write([event(5, 1, 2.0), event(14, 0, 2.0)])
    assert len(before & {file.path for file in tx.snapshot().files}) == 2


def test_a_write_without_corrections_rewrites_no_file_and_its_reads_filter_nothing(tx: Source) -> None:
    tx.write([event(n, n // 4) for n in range(16)])
    before = {file.path for file in tx.snapshot().files}
    tx.write([event(n, 1) for n in range(16, 20)])
    assert before < {file.path for file in tx.snapshot().files}
    assert not tx.snapshot().has_hidden


@pytest.mark.parametrize("mode", ["append", "merge", "overwrite", "push"])
def test_an_event_without_an_id_is_refused_by_the_name_of_the_column(tx: Source, mode: str) -> None:
    tx.write([event(1)])
    number = tx.snapshot().number
    with pytest.raises(DataError, match="1 of 2 rows have no 'order', a column of event_id") as caught:
        tx.push([event(2), event(None)]) if mode == "push" else tx.write([event(2), event(None)], mode)
    assert caught.value.column == "order"
    assert (tx.snapshot().number, tx.read()) == (number, [event(1)])


def test_ids_are_compared_column_by_column(store: FeatureStore) -> None:
    tx = source(store, ["a", "b"], [pa.string(), pa.string()])
    tx.write([Event(("1", "23"), START, None, (1.0,)), Event(("12", "3"), START, None, (2.0,))])
    tx.write([Event(("12", "3"), START, None, (3.0,))])
    assert sorted(one.values for one in tx.read()) == [(1.0,), (3.0,)]


def test_zeros_of_both_signs_are_two_forms_of_an_event(tx: Source) -> None:
    tx.write([event(1, 0, 0.0)])
    assert tx.store.groups.push("tx", tx.table([event(1, 0, -0.0)]), project=tx.group.project).rows == 1
    assert str(tx.read()[0].values) == "(-0.0,)"


def test_an_id_that_widens_still_finds_its_events(store: FeatureStore) -> None:
    tx = source(store, ["order"], [pa.int32()])
    tx.write([event(1), event(2)])
    tx.write([event(1, 1, 2.0)])
    tx.kinds = [pa.int64()]
    tx.write([event(1), event(2, 3, 2.0), event(2**40)])
    assert tx.store.groups.version("tx", project=tx.group.project).number == 2
    assert days(tx.read()) == [(1, 1, 2.0), (2, 3, 2.0), (2**40, 0, 1.0)]


def test_a_new_column_makes_no_replay_of_an_old_row_count(tx: Source) -> None:
    tx.write([event(1)])
    tx.write([event(1, 1, 2.0)])
    tx.grow()
    old = event(1)
    assert tx.push([replace(old, values=(1.0, None))]).known == 1
    assert tx.push([replace(old, values=(1.0, 5.0))]).rows == 1
    assert tx.read() == [replace(old, values=(1.0, 5.0))]


@pytest.mark.slow
def test_each_writer_of_several_sees_the_corrections_of_the_others(tx: Source) -> None:
    tx.write([event(0)])
    folder = str(tx.store.home)
    code = (
        "import sys, pyarrow as pa; from datetime import datetime, UTC; from seeknal import FeatureStore\n"
        f"store = FeatureStore({folder!r})\n"
        "for i in range(8):\n"
        f"    store.groups.push('tx', {{'order': i % 3, 'at': datetime(2024, 3, 1 + i, tzinfo=UTC), 'x': float(sys.argv[1]) + i}}, "
        f"project={tx.group.project!r})"
    )
    running = [python(code, str(n * 100)) for n in range(3)]
    assert [finished(one) for one in running] == ["", "", ""]
    assert sorted(one.id for one in tx.read()) == [(0,), (1,), (2,)]
    assert len(tx.stored()) == 1 + 3 * 8


# Without an id


def test_without_an_id_every_row_is_an_event(store: FeatureStore) -> None:
    tx = source(store, [], [])
    same = [Event((), START, None, (1.0,))] * 20
    with warnings.catch_warnings(action="error"):
        done = [store.groups.write(tx.group, tx.table(same), mode="append") for _ in range(2)]
    assert [(one.rows, one.superseded, one.replaced) for one in done] == [(20, 0, 0)] * 2
    assert len(tx.read()) == 40
    store.groups.optimize("tx", project=tx.group.project)
    assert len(tx.read()) == 40
    with warnings.catch_warnings(action="ignore"):
        done = [store.groups.write(tx.group, tx.table(same[:2]), interval=Interval(START, START))]
    assert (done[0].rows, done[0].replaced, len(tx.read())) == (2, 40, 2)


def test_events_without_an_id_are_not_merged_and_not_pushed(store: FeatureStore) -> None:
    tx = source(store, [], [])
    rows = tx.table([Event((), START, None, (1.0,))])
    with pytest.raises(DefinitionError, match=r"has no event_id, .*mode='append', or to a new source with event_id="):
        store.groups.write(tx.group, rows, mode="merge")
    assert store.groups.find("tx", project=tx.group.project) is None
    store.groups.write(tx.group, rows, mode="append")
    with pytest.raises(DefinitionError, match=r"has no event_id, .*write\(mode='append'\), or push to a new source"):
        store.groups.push("tx", rows, project=tx.group.project)
    assert len(tx.read()) == 1


# What else changes the table


def test_cleaning_removes_the_earlier_forms_of_an_event_too(tx: Source) -> None:
    for t, x in ((9, 1.0), (0, 2.0)):
        tx.write([event(1, t, x)])
    tx.write([event(2, 9)])
    tx.clean(START + 5 * DAY)
    assert (tx.read(), len(tx.stored())) == ([event(2, 9)], 1)


def test_cleaning_keeps_the_earlier_forms_of_an_event_that_stays(tx: Source) -> None:
    for t, x in ((0, 1.0), (9, 2.0)):
        tx.write([event(1, t, x)])
    tx.write([event(2, 0)])
    tx.clean(START + 5 * DAY)
    assert tx.push([event(1, 0, 1.0)]).known == 1
    assert days(tx.read()) == [(1, 9, 2.0)]


def test_an_erased_event_is_gone_in_all_its_forms(tx: Source) -> None:
    tx.write([event(1), event(2), event(3)])
    tx.write([event(1, 5, 2.0), event(2, 5, 2.0)])
    tx.erase((1,))
    assert days(tx.read()) == [(2, 5, 2.0), (3, 0, 1.0)]
    assert not any(
        1 in pq.read_table(pa.BufferReader(path.read_bytes()))["order"].to_pylist()
        for path in tx.root.iterdir()
        if path.name.endswith(".parquet")
    )


def test_old_snapshots_answer_as_they_did_after_compaction_and_vacuum(tx: Source) -> None:
    for n in range(12):
        tx.write([event(n % 5, n, float(n)), event(100 + n, 1)])
    tx.store.groups.optimize("tx", project=tx.group.project)
    tx.check()
    tx.check_the_past()
    for n in range(12):
        tx.push([event(n % 5, n + 1, float(n))])
    tx.store.groups.optimize("tx", project=tx.group.project, keep_days=0)
    tx.check()
    with pytest.raises(StoreError, match="is gone"):
        tx.check_the_past()


def test_old_snapshots_of_a_compacted_file_have_no_later_row_that_did_not_count(made: Source) -> None:
    for n in range(4):
        made.write([event(n % 2, 0, 1.0, 20) if n < 2 else event(n % 2, 0, 2.0, 10)])
    offline = made.store.core.catalog.offline(made.group.project, "tx")
    (file,) = offline.snapshot(2).files
    assert (file.below, offline.snapshot(2).has_hidden) == (2, False)
    made.check_the_past()


def test_a_rollback_shows_the_events_as_they_were(tx: Source) -> None:
    tx.write([event(1), event(2)])
    tx.write([event(1, 1, 2.0)])
    before = tx.read()
    tx.grow()
    tx.write([replace(event(2, 2), values=(5.0, 5.0))])
    tx.store.groups.rollback("tx", 1, project=tx.group.project)
    found = tx.read()
    assert found == [replace(one, values=(*one.values, None)) for one in before]
    snapshot = tx.snapshot()
    assert snapshot.commit is not None
    assert (snapshot.commit.hidden, snapshot.rows) == (1, 2)


def test_what_changed_between_two_snapshots_is_told_by_the_events_that_count(made: Source) -> None:
    made.write([event(1, 0, 1.0, 20), event(2, 0, 1.0, 20), event(3, 0, 1.0, 20)])
    before = made.snapshot()
    made.write([event(1, 1, 2.0, 10), event(2, 1, 2.0, 30)])
    offline = made.store.core.catalog.offline(made.group.project, "tx")
    schema = made.store.groups.version("tx", project=made.group.project).schema
    found = offline.changed(before, offline.snapshot(), schema, [Interval()], [])
    assert found is not None
    assert found["order"].to_pylist() == [2]


# Other programs


def alien(tx: Source, events: Sequence[Event]) -> None:
    """Append rows as another program does."""
    write_deltalake(str(tx.root), tx.table(events), mode="append", schema_mode="merge")


def adopt(tx: Source) -> Any:
    """Adopt the rows of other programs."""
    return tx.store.groups.adopt("tx", project=tx.group.project)


def test_rows_of_another_program_correct_and_replay_events_like_any_others(tx: Source) -> None:
    tx.write([event(n) for n in range(6)])
    tx.write([event(1, 1, 2.0)])
    alien(tx, [event(1), event(2, 3, 2.0), event(9), event(9, 0, 3.0)])
    done = adopt(tx)
    assert (done.rows, done.kept, done.removed) == (4, 0, 1)
    right = [(0, 0, 1.0), (1, 1, 2.0), (2, 3, 2.0), (3, 0, 1.0), (4, 0, 1.0), (5, 0, 1.0), (9, 0, 3.0)]
    assert days(tx.read()) == right
    assert tx.snapshot().rows == len(right)
    for old in (event(2), event(9), event(1)):
        assert tx.store.groups.push("tx", tx.table([old]), project=tx.group.project).known == 1
    assert tx.read(2) == tx.then[2]


def test_a_row_of_another_program_without_an_id_is_refused(tx: Source) -> None:
    tx.write([event(1)])
    alien(tx, [event(None)])
    with pytest.raises(DataError, match="have no 'order', a column of event_id"):
        adopt(tx)


def test_hidden_rows_stay_hidden_when_another_program_copies_or_updates_them(tx: Source) -> None:
    tx.write([event(0), event(1), event(2)])  # the first row, whose number is 0, becomes -1
    tx.write([event(0, 0, 2.0)])
    DeltaTable(str(tx.root)).delete('"order" = 2')
    assert adopt(tx).removed == 1
    assert days(tx.read()) == [(0, 0, 2.0), (1, 0, 1.0)]
    DeltaTable(str(tx.root)).update(predicate="x = 1", updates={"x": "7"})
    adopt(tx)
    assert days(tx.read()) == [(0, 0, 2.0), (1, 0, 7.0)]
    DeltaTable(str(tx.root)).delete("x = 2")  # the row that counts: the other form of the event does not come back
    adopt(tx)
    assert days(tx.read()) == [(1, 0, 7.0)]


def test_a_compaction_by_another_program_changes_no_event(tx: Source) -> None:
    for n in range(3):
        tx.write([event(n), event(0, n, float(n))])
    right = tx.read()
    DeltaTable(str(tx.root)).optimize.compact()
    assert tx.read() == right
    tx.write([event(1, 3, 3.0)])


def test_another_program_sees_the_hidden_rows_and_can_leave_them_out(tx: Source) -> None:
    tx.write([event(1), event(2)])
    tx.write([event(1, 1, 2.0)])
    seen = DeltaTable(str(tx.root)).to_pyarrow_table()
    assert len(seen) == 3
    assert days(tx.events(seen.filter(pc.field(NUMBER) >= 0))) == [(1, 1, 2.0), (2, 0, 1.0)]
