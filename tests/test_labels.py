"""Labels, compared with loops over the events that were written from the description of `Label` and the contract alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.profiles import PROFILE
from seeknal import (
    Count,
    DefinitionError,
    Entity,
    EventSource,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    FeatureView,
    Label,
    Materialization,
    Max,
    SeeknalError,
    Sum,
)
from seeknal.values.content_hash import content_hash

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

START = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
Event = dict[str, Any]
Compute = Callable[[list[Event]], Any]

_numbers = count()


@dataclass(frozen=True)
class Asked:
    """A label: how it is defined, and what it is, of the events of its window in order."""

    options: dict[str, Any]
    compute: Compute


def first(column: str) -> Compute:
    return lambda events: next((event[column] for event in events if event[column] is not None), None)


def known(column: str, events: list[Event]) -> list[Any]:
    return [event[column] for event in events if event[column] is not None]


ASKED = [
    Asked({"feature": "amount"}, first("amount")),
    Asked({"feature": "flag"}, first("flag")),
    Asked({"feature": "word", "aggregation": "first"}, first("word")),
    Asked({"aggregation": "any"}, bool),
    Asked({"feature": "flag", "aggregation": "any"}, lambda events: any(event["flag"] for event in events)),
    Asked({"feature": "amount", "aggregation": "any"}, lambda events: bool(known("amount", events))),
    Asked({"aggregation": "count"}, len),
    Asked({"feature": "word", "aggregation": "count"}, lambda events: len(known("word", events))),
    Asked(
        {"aggregation": Sum("amount")}, lambda events: sum(known("amount", events)) if known("amount", events) else None
    ),
    Asked({"aggregation": Max("amount")}, lambda events: max(known("amount", events), default=None)),
    Asked({"aggregation": Count(where="amount > 2")}, lambda events: sum(one > 2 for one in known("amount", events))),
]
SOURCES = ["events", "events with ids", "feature group"]


@dataclass(frozen=True)
class World:
    """Events in the order of writing, rows of a spine, and a label.

    Args:
        source: The kind of source.
        keys: The join keys of the label.
        looked_up: The join keys of the lookup.
        writes: The events of each write.
        spine: The rows; `row` is the number of each.
        asked: The label.
        within: The length of its window.
        unfinished: What becomes of rows whose window is not over.
        until: The time up to which the events are complete. None: not said.
        renamed: Whether the spine has other names for the join keys.
    """

    source: str
    keys: list[str]
    looked_up: list[str]
    writes: list[list[Event]]
    spine: list[dict[str, Any]]
    asked: Asked
    within: timedelta
    unfinished: str
    until: datetime | None
    renamed: bool

    @property
    def events(self) -> list[Event]:
        """The events that count, in order: of those that are one event, that which was written last."""
        if self.source == "events":
            same = ["place"]
        elif self.source == "events with ids":
            same = ["id"]
        else:
            same = [*self.keys, "at"]
        last = {tuple(event[name] for name in same): event for write in self.writes for event in write}
        return sorted(last.values(), key=lambda event: (event["at"], event["place"]))

    def expected(self) -> dict[int, Any]:
        """Return the label of each row that stays, by the number of the row."""
        newest = max(event["at"] for event in self.events)
        found = {}
        for row in self.spine:
            at = row["moment"]
            if at is not None and at + self.within <= (self.until or newest):
                mine = [
                    event for event in self.events if self._is_of(event, row) and at < event["at"] <= at + self.within
                ]
                found[row["row"]] = self.asked.compute(mine)
            elif self.unfinished == "null":
                found[row["row"]] = None
        return found

    def _is_of(self, event: Event, row: dict[str, Any]) -> bool:
        return all(event[key] is not None and event[key] == row[key] for key in self.keys)


seconds = st.integers(0, 10).map(lambda second: START + second * SECOND)
near = st.builds(lambda at, us: at + timedelta(microseconds=us), seconds, st.sampled_from([0, 0, 0, -1, 1]))
values = {
    "at": seconds,
    "flag": st.none() | st.booleans(),
    "amount": st.none() | st.integers(-8, 40).map(lambda eighths: eighths / 8),
    "word": st.none() | st.sampled_from(["a", "b", ""]),
    "id": st.integers(0, 6),
}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    source = draw(st.sampled_from(SOURCES))
    nobody = st.nothing() if source == "feature group" else st.none()
    people = st.sampled_from([1, 1, 1, 2, 2]) | nobody
    event = st.fixed_dictionaries({"user": people, "shop": st.sampled_from("xxy"), **values})
    places = count()
    drawn = draw(st.lists(st.lists(event, min_size=4, max_size=12), min_size=1, max_size=3))
    writes = [[one | {"place": next(places)} for one in write] for write in drawn]
    row = {"user": st.sampled_from([1, 1, 1, 2, 2, 3, None]), "shop": st.sampled_from("xxyz"), "moment": near}
    rows = draw(st.lists(st.fixed_dictionaries(row), min_size=20, max_size=40))
    rows.append(rows[0] | {"moment": None})
    within = draw(st.integers(1, 5)) * SECOND
    until = draw(st.none() | near | st.sampled_from(rows[:-1]).map(lambda one: one["moment"] + within))
    return World(
        source,
        *draw(st.sampled_from([(["user"], ["user"]), (["user", "shop"],) * 2, (["user", "shop"], ["user"])])),
        writes,
        [one | {"row": number} for number, one in enumerate(rows)],
        draw(st.sampled_from(ASKED)),
        within,
        draw(st.sampled_from(["drop", "null"])),
        until,
        draw(st.booleans()),
    )


SCHEMA = {
    "user": pa.int64(),
    "shop": pa.string(),
    "at": pa.timestamp("us", "UTC"),
    "flag": pa.bool_(),
    "amount": pa.float64(),
    "word": pa.string(),
    "id": pa.int64(),
}


def stored(world: World, project: str) -> EventSource | FeatureGroupDuckDB:
    """Write the events of a world, and return their source."""
    if world.source == "feature group":
        group = FeatureGroupDuckDB("happened", entity_of(world.keys), Materialization(event_time_col="at"), project)
        for events in world.writes:
            write(group, events)
        return group
    ids = ["id"] if world.source == "events with ids" else None
    source = EventSource("happened", event_time_col="at", event_id=ids, project=project)
    for events in world.writes:
        write(source, events)
    return source


def write(source: EventSource | FeatureGroupDuckDB, events: list[Event], mode: str = "append") -> None:
    table = pa.table({name: pa.array([event[name] for event in events], kind) for name, kind in SCHEMA.items()})
    if isinstance(source, FeatureGroupDuckDB):
        keys = source.entity.join_keys
        table = table.select([name for name in SCHEMA if name != "shop" or "shop" in keys])
        source.set_dataframe(table).set_features()
    else:
        source.set_dataframe(table)
    source.write(mode=mode)


def entity_of(keys: list[str]) -> Entity:
    return Entity("_".join(keys), keys)


def view_of(world: World, source: Any, project: str) -> FeatureView:
    """Return a view with the label of a world, beside the features of a group."""
    about = FeatureGroupDuckDB("about", entity_of(world.looked_up), Materialization(event_time_col="at"), project)
    about.set_dataframe(
        pa.table({"user": [1], "shop": ["x"], "at": [START], "size": [7]}).select([*world.looked_up, "at", "size"])
    )
    about.set_features().write()
    names = {key: f"spine_{key}" for key in world.keys} if world.renamed else None
    is_said = world.source != "feature group" and (world.renamed or world.keys != world.looked_up)
    entity = entity_of(world.keys) if is_said else None
    label = Label(
        source,
        **world.asked.options,
        within=world.within,
        name="label",
        unfinished=world.unfinished,
        entity=entity,
        rename=names,
    )
    own = {key: name for key, name in (names or {}).items() if key in world.looked_up}
    return FeatureView("predicts", [FeatureLookup(about, rename=own)], label=label, project=project)


def spine_of(world: World) -> pa.Table:
    prefix = "spine_" if world.renamed else ""
    kinds = {"user": pa.int64(), "shop": pa.string(), "moment": pa.timestamp("us", "UTC"), "row": pa.int64()}
    columns = {
        (prefix if name in world.keys else "") + name: pa.array([row[name] for row in world.spine], kind)
        for name, kind in kinds.items()
    }
    return pa.table(columns)


KINDS = {
    "arrow": lambda table: table,
    "pandas": lambda table: table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get),
    "polars": pl.from_arrow,
    "duckdb": duckdb.from_arrow,
}


@settings(PROFILE, max_examples=2 * PROFILE.max_examples)
@given(world=worlds(), kind=st.sampled_from(list(KINDS)), keep_rows=st.booleans())
def test_a_label_is_what_its_description_says_and_comes_back_to_the_byte(world, kind, keep_rows):
    project = f"p{next(_numbers)}"
    view = view_of(world, stored(world, project), project)
    spine, expected = KINDS[kind](spine_of(world)), world.expected()
    found = view.to_dataframe(spine, "moment", label_until=world.until, output="arrow")
    assert dict(zip(found["row"].to_pylist(), found["label"].to_pylist(), strict=True)) == expected
    assert found["row"].to_pylist() == list(expected)
    train = view.training_set(spine, "moment", "may", label_until=world.until, rows=keep_rows)
    assert train.to_dataframe("arrow").select(["row", "label"]).equals(found.select(["row", "label"]))
    assert content_hash(train.reproduce("arrow")) == train.content_hash
    ends = [row["moment"] + world.within if row["moment"] else None for row in world.spine]
    newest = max(event["at"] for event in world.events)
    assert train.unfinished == sum(end is None or end > (world.until or newest) for end in ends)
    assert train.rows == len(expected)
    assert train.label == "label"


@settings(PROFILE)
@given(world=worlds(), later=worlds())
def test_events_that_are_written_later_change_no_saved_training_set(world, later):
    project = f"p{next(_numbers)}"
    source = stored(world, project)
    train = view_of(world, source, project).training_set(spine_of(world), "moment", "may", label_until=world.until)
    before = train.to_dataframe("arrow")
    for events in later.writes:
        write(source, [event | {"user": event["user"] or 1} for event in events])
    assert train.reproduce("arrow").equals(before)


@settings(PROFILE)
@given(world=worlds())
def test_compaction_changes_no_label(world):
    project = f"p{next(_numbers)}"
    view = view_of(world, stored(world, project), project)
    before = view.to_dataframe(spine_of(world), "moment")
    FeatureStore().groups.optimize("happened", project=project, keep_days=0)
    assert view.to_dataframe(spine_of(world), "moment").equals(before)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Label("purchases", within="7d"), "A label needs feature="),
        (
            lambda: Label("purchases", "bought", within="7d", aggregation="last"),
            "aggregation='last' of a label is unknown",
        ),
        (lambda: Label("purchases", "bought", within="7d", aggregation=Sum("amount")), "both name a column"),
        (lambda: Label("purchases", within="7d", aggregation=Sum("amount", over="7d")), "has a window of its own"),
        (lambda: Label("purchases", "bought", within="7d", unfinished="keep"), "neither 'drop' nor 'null'"),
        (lambda: Label("purchases", "bought", within="7d", entity="user"), "should be created with Entity"),
        (lambda: Label("purchases", "bought", within="0d"), "within"),
        (lambda: Label("purchases", "bought", within="-1d"), "within"),
    ],
)
def test_what_is_no_label_is_refused(make, told):
    with pytest.raises(DefinitionError, match=told):
        make()


def small(**options: Any) -> FeatureView:
    """Return a view by user of one event, whose label has these options."""
    event = {"user": 1, "shop": "x", "at": START, "flag": True, "amount": 1.0, "word": "a", "id": 1}
    source = EventSource("happened", event_time_col="at", project="shop")
    write(source, [event])
    about = FeatureGroupDuckDB("about", Entity("user", ["user"]), Materialization(event_time_col="at"), "shop")
    about.set_dataframe(pa.table({"user": [1], "at": [START], "size": [7]})).set_features().write()
    return FeatureView("predicts", [FeatureLookup(about)], label=Label(source, within="1d", **options))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"feature": "flags"}, "flags"),
        ({"feature": "flag", "name": "size"}, "has the name of a feature or key, 'size'"),
        ({"feature": "flag", "name": "user"}, "has the name of a feature or key, 'user'"),
        (
            {"feature": "flag", "entity": Entity("word", ["word"]), "rename": {"word": "flag"}},
            "has the name of one of its keys, 'flag'",
        ),
        ({"aggregation": Sum("word")}, "word"),
    ],
)
def test_a_label_that_cannot_be_computed_is_refused_before_the_view_is_registered(options, told):
    with pytest.raises(SeeknalError, match=told):
        small(**options).register()
    assert FeatureStore().views.all() == []
    assert [one.label for one in FeatureStore().groups.all()] == ["shop/about", "shop/happened"]


def test_events_of_the_future_are_never_said_to_be_complete():
    spine = pa.table({"user": [1], "moment": [START]})
    with pytest.raises(DefinitionError, match="so not all events are known yet"):
        small(feature="flag").to_dataframe(spine, "moment", label_until=datetime.now(UTC) + timedelta(hours=1))


def test_without_label_until_events_dated_after_now_do_not_end_a_window():
    view = small(feature="flag")
    later = {"user": 1, "shop": "x", "at": datetime.now(UTC) + timedelta(days=9), "flag": False, "amount": 1.0}
    source = EventSource("happened", event_time_col="at", project="shop")
    write(source, [later | {"word": "a", "id": 2}])
    spine = pa.table({"user": [1, 1], "moment": [START - SECOND, datetime.now(UTC) - timedelta(hours=1)]})
    found = view.to_dataframe(spine, "moment")
    assert found["flag"].to_pylist() == [True]
