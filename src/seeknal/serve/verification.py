"""Parity, proved on the user's own data: the online answer beside the offline join with spine time now."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from seeknal.define.feature_group import FeatureLookup
from seeknal.engine import Engine
from seeknal.load.feeds import feeds
from seeknal.online import State, WireRow, to_wire
from seeknal.registry import TableLookup
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.parts import Entities, Part, Read
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.display import Shown
from seeknal.values.times import Interval, moment_of
from seeknal.values.types import UTC

NOT_LOADED, MISSING, OLDER, EXPIRED, OTHER, EXTRA = (
    "not loaded yet",
    "missing",
    "older",
    "expired",
    "another value",
    "not stored offline",
)
_UNMENDED = {MISSING, OLDER, OTHER, EXTRA}
"""Causes that are not in what the state of the rows says, by which a load decides what to do."""
_AT_ONCE = 50_000
_SHOWN = 10
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Difference(Shown):
    """A value that is another online than offline.

    Args:
        group: Project and name of the group.
        version: The version.
        keys: The join keys of the entity, named as in the group.
        feature: The feature, named as in the table.
        online: Its value online.
        offline: Its value offline.
        cause: "not loaded yet" (the row that counts was written, or its time asked for, after the last load), "missing",
            "older", "expired" (one of the two counts a ttl that the other does not), "another value", or
            "not stored offline".
    """

    group: str
    version: int
    keys: dict[str, Any]
    feature: str
    online: Any
    offline: Any
    cause: str

    def __str__(self) -> str:
        keys = ", ".join(f"{name}={value!r}" for name, value in self.keys.items())
        return (
            f"{self.group} {keys}: {self.feature} is {self.online!r} online and {self.offline!r} offline ({self.cause})"
        )


@dataclass(frozen=True)
class Verified(Shown):
    """What a comparison of all or some entities gave.

    Args:
        table: Project and name of the online table.
        at: The moment both sides were asked for, in microseconds since 1970.
        entities: How many entities were compared, counted for each group.
        values: How many values were.
        different: How many of these differ.
        differences: The first of them.
        cut_off: Why groups no longer feed the table, which is then compared with the version that fed it last.
    """

    table: str
    at: int
    entities: int
    values: int
    different: int
    differences: tuple[Difference, ...] = field(default_factory=tuple)
    cut_off: tuple[str, ...] = ()

    _moments = {"at": "time"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def time(self) -> datetime:
        """The moment both sides were asked for, in UTC."""
        return moment_of(self.at)

    @property
    def equal(self) -> bool:
        """Whether online says what the groups say offline: no value differs, and no group is cut off."""
        return not self.different and not self.cut_off

    def __str__(self) -> str:
        compared = f"{self.table}: {self.values:,} values of {self.entities:,} entities compared"
        told = f"{self.different:,} differ" if self.different else "all equal"
        reasons = [f"cut off: {reason}" for reason in self.cut_off]
        return "\n  ".join([f"{compared}, {told}", *reasons, *map(str, self.differences)])


Doubt = Callable[[TableLookup, State], None]
"""Is told of rows that are not what their state says, with the state; at most once for each lookup."""


def verify(
    catalog: Catalog,
    engine: Engine,
    table: OnlineTable,
    at: int,
    sample: int | None,
    on_progress: OnProgress = no_progress,
    doubt: Doubt | None = None,
) -> Verified:
    """Compare what an online table answers with the offline join as of a moment, value by value.

    A lookup that follows its group is compared with the group's current version, even where its rows are of an earlier one
    still. All entities that are stored offline are compared, and all that are online; or so many of the former, drawn by lot.

    Args:
        catalog: Where the groups are.
        engine: What answers offline.
        table: The online table.
        at: What counts as now, in microseconds since 1970.
        sample: How many entities of each group to draw; None: all.
        on_progress: Is told how far it is.
        doubt: Is told of rows that no load will mend by itself.
    """
    entities = values = different = 0
    shown: list[Difference] = []
    every = feeds(catalog, table.record)
    for part, fed in zip(table.parts, every, strict=True):
        doubted: State | None = None
        for compared in _Comparison(catalog, engine, table, part, fed.goal, at).run(sample):
            entities += compared.entities
            values += compared.entities * len(part.features)
            different += compared.different
            shown += compared.differences[: _SHOWN - len(shown)]
            if any(one.cause in _UNMENDED for one in compared.differences):
                doubted = compared.state
            on_progress(f"Verifying {table.record.label}: {values:,} values compared")
        if doubt and doubted:
            doubt(part.lookup, doubted)
    cut_off = tuple(dict.fromkeys(one.cut_off for one in every if one.cut_off))
    return Verified(table.record.label, at, entities, values, different, tuple(shown), cut_off)


@dataclass(frozen=True)
class _Compared:
    state: State
    entities: int
    different: int
    differences: list[Difference]


class _Comparison:
    """One part of a table, online and offline."""

    def __init__(
        self, catalog: Catalog, engine: Engine, table: OnlineTable, part: Part, goal: TableLookup, at: int
    ) -> None:
        lookup = part.lookup
        self._engine, self._table, self._part, self._at = engine, table, part, at
        record = catalog.group(lookup.group, lookup.project)
        rename = dict([*goal.features, *goal.keys])
        wanted = FeatureLookup(record, [own for own, _ in goal.features], rename=rename, version=goal.version)
        self._source: Source = catalog.source(wanted)
        self._ttl = record.group.materialization.lifetime if table.record.ttl is None else table.record.ttl
        self._names = list(part.features)
        self._asked = Entities([part], [key.name for key in part.keys])

    def run(self, sample: int | None) -> Iterator[_Compared]:
        """Compare entities, some thousands at a time."""
        seen: set[bytes] = set()
        for keys in self._entities(sample):
            read = self._online(keys)
            if sample is None:
                encoded = self._part.codec.keys(keys)
                seen.update(key for key, row in zip(encoded, read.rows, strict=True) if row is not None)
            yield self._compare(keys, read, self._offline(keys))
        if sample is None:
            yield from self._extra(seen)

    def _entities(self, sample: int | None) -> Iterator[pa.Table]:
        """Give the entities that are stored offline, as their join keys in logical types."""
        names = self._source.version.schema.key_names
        batches = (batch.select(names) for batch in self._engine.latest(self._source.rows()))
        schema = pa.schema(self._source.version.schema.keys)
        if sample is not None:
            every = pa.Table.from_batches(batches, schema)
            drawn = random.sample(range(len(every)), min(sample, len(every)))
            batches = iter(every.take(pa.array(sorted(drawn), pa.int64())).to_batches())
        for batch in batches:
            table = pa.Table.from_batches([batch], schema)
            yield from (table.slice(i, _AT_ONCE) for i in range(0, len(table), _AT_ONCE))

    def _online(self, keys: pa.Table) -> Read:
        columns = {
            key.name: keys[own].to_pylist() for (own, _), key in zip(self._lookup_keys, self._part.keys, strict=True)
        }
        return self._table.read(self._asked, columns, self._at)[0]

    @property
    def _lookup_keys(self) -> Sequence[tuple[str, str]]:
        return self._part.lookup.keys

    def _offline(self, keys: pa.Table) -> list[list[Any]]:
        """Answer as a training set would, with spine time now: one column of wire values per feature."""
        source = self._source
        stored = source.version.schema.stored_types[: len(source.version.schema.keys)]
        columns = [keys[own].cast(kind) for (own, _), kind in zip(self._lookup_keys, stored, strict=True)]
        moments = pa.Table.from_arrays(
            [*columns, pa.array(np.full(len(keys), self._at, np.int64))],
            names=[*(f"k{i}" for i in range(len(columns))), "t"],
        )
        wanted = replace(source.request(Interval(self._at, self._at), Interval()), ttl=self._ttl, parts=())
        if self._ttl is not None:
            wanted = replace(wanted, rows=source.rows(Interval(self._at - self._ttl, self._at)))
        found = self._engine.as_of(wanted, moments).read_all()
        pairs = zip(source.features.values(), found.columns, strict=True)
        values = {name: to_wire(column, column.type) for name, column in pairs}
        nothing = [None] * len(keys)  # of a feature that the version to be loaded has no longer
        return [values.get(name, nothing) for name in self._names]

    def _compare(self, keys: pa.Table, read: Read, offline: Sequence[Sequence[Any]]) -> _Compared:
        places = [self._part.features[name] for name in self._names]
        differing: list[tuple[int, str, Any, Any]] = []
        for name, place, column in zip(self._names, places, offline, strict=True):
            online = [None if row is None else row[place] for row in read.alive]
            pairs = enumerate(zip(online, column, strict=True))
            differing += [(i, name, one, other) for i, (one, other) in pairs if not _same(one, other)]
        first = sorted(differing, key=lambda one: one[0])[:_SHOWN]
        return _Compared(read.state, len(keys), len(differing), list(self._explained(keys, read, first)))

    def _explained(
        self, keys: pa.Table, read: Read, differing: Sequence[tuple[int, str, Any, Any]]
    ) -> Iterator[Difference]:
        """Say the cause of each difference."""
        if not differing:
            return
        rows = sorted({i for i, *_ in differing})
        asked = keys.take(pa.array(rows, pa.int64()))
        winners = self._winners(asked)
        entities = dict(zip(rows, asked.to_pylist(), strict=True))
        encoded = dict(zip(rows, self._part.codec.keys(asked), strict=True))
        for i, name, online, offline in differing:
            cause = self._cause(read.state, read.rows[i], winners.get(encoded[i]))
            yield self._difference(entities[i], name, online, offline, cause)

    def _winners(self, entities: pa.Table) -> dict[bytes, int]:
        """Give the event time of the row that counts offline, whether or not it has expired, by entity."""
        schema = self._source.version.schema
        kinds = schema.stored_types[: len(schema.keys)]
        entities = pa.Table.from_arrays(
            [entities[name].cast(kind) for name, kind in zip(schema.key_names, kinds, strict=True)],
            names=schema.key_names,
        )
        found = self._engine.latest(self._source.rows(Interval(None, self._at)), entities=entities).read_all()
        times = found[schema.event_time.name].cast(UTC).cast(pa.int64()).to_pylist()
        return dict(zip(self._part.codec.keys(found), times, strict=True))

    def _cause(self, state: State, row: WireRow | None, offline: int | None) -> str:
        behind = state.files != self._source.snapshot.fingerprint
        loaded = offline is None or any(interval.intersect(Interval(offline, offline)) for interval in state.spans)
        if row is not None and row[-1] == offline and not behind:
            return EXPIRED if state.ttl != self._ttl and self._table.record.ttl is None else OTHER
        if behind or not loaded:
            return NOT_LOADED
        if row is None:
            return MISSING
        if offline is None:
            return EXTRA
        return OLDER if row[-1] < offline else OTHER

    def _extra(self, seen: set[bytes]) -> Iterator[_Compared]:
        """Compare what is online of entities that are not stored offline with nothing."""
        for entity, state, row in self._part.others(seen, self._at):
            cause = EXTRA if state.files == self._source.snapshot.fingerprint else NOT_LOADED
            values = [(name, row[self._part.features[name]]) for name in self._names]
            found = [self._difference(entity, name, value, None, cause) for name, value in values if value is not None]
            yield _Compared(state, 1, len(found), found)

    def _difference(self, entity: dict[str, Any], name: str, online: Any, offline: Any, cause: str) -> Difference:
        place, value = self._part.features[name], self._part.codec.value
        label, number = self._source.record.label, self._source.version.number
        return Difference(label, number, entity, name, value(place, online), value(place, offline), cause)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two wire values are the same, to the last bit; NaN equals NaN."""
    return one is other or (one == other and type(one) is type(other)) or _encode(one) == _encode(other)
