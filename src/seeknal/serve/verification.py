"""Verification of training-serving parity on the user's own data: online values are compared with the offline join as of now."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from seeknal.engine import Engine
from seeknal.load.feeds import feeds
from seeknal.online import State, WireRow, to_wire
from seeknal.registry import PinnedLookup, ViewRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.parts import Entities, Part, Read
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.display import Shown, records, shown_values
from seeknal.values.matching import stored_keys
from seeknal.values.times import Interval, moment_of, show
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
"""Causes that the state of the rows does not show. A load trusts the state, so it would not repair them by itself."""
_AT_ONCE, _SHOWN = 50_000, 10
"""The number of entities compared at once, and of differing values of which the outcome says more than their count."""
NEAR = 1e-9
"""How much a variance may differ, relative to its value."""
_encode = msgspec.msgpack.Encoder().encode
_FLOATS = re.compile("float|double")


@dataclass(frozen=True)
class Difference(Shown):
    """A value that differs between online and offline.

    Args:
        group: Project and name of the group.
        version: The version.
        keys: The join keys of the entity, named as in the group.
        feature: The feature, named as in the table.
        online: Its value online.
        offline: Its value offline.
        cause: "not loaded yet" (the winning row was written, or its interval requested, after the last load),
            "missing", "older", "expired" (one side applies a ttl that the other does not), "another value", or
            "not stored offline".
        at: The moment of the answer that differs, in microseconds since 1970; None if what is online now was compared.
    """

    group: str
    version: int
    keys: dict[str, Any]
    feature: str
    online: Any
    offline: Any
    cause: str
    at: int | None = None

    _moments = {"at": "time"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def time(self) -> datetime | None:
        """The moment of the answer that differs, in UTC; None if what is online now was compared."""
        return None if self.at is None else moment_of(self.at)

    def __str__(self) -> str:
        keys = ", ".join(f"{name}={value!r}" for name, value in self.keys.items())
        when = "" if self.at is None else f" at {show(self.at)}"
        return f"{self.group} {keys}{when}: {self.feature} is {self.online!r} online and {self.offline!r} offline ({self.cause})"


@dataclass(frozen=True)
class Verified(Shown):
    """The outcome of comparing all or some entities of an online table.

    Args:
        table: Project and name of the online table.
        at: The moment as of which both sides were read, in microseconds since 1970.
        entities: Number of entities compared, counted separately for each group; or of logged answers.
        values: Number of values compared.
        different: Number of values that differ.
        differences: The first of these.
        cut_off: Why groups no longer feed the table, which is then compared with the version that fed it last.
        not_compared: What the table returns and was not compared, each with the reason.
        tolerance: How much variances may differ, relative to their value; 0: there are none. All other values are compared to the bit.
        causes: For logged answers, the number of values that differ by each cause. None: what is online now was compared.
    """

    table: str
    at: int
    entities: int
    values: int
    different: int
    differences: tuple[Difference, ...] = field(default_factory=tuple)
    cut_off: tuple[str, ...] = ()
    tolerance: float = 0
    not_compared: tuple[str, ...] = ()
    causes: Mapping[str, int] | None = None

    _moments = {"at": "time"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def time(self) -> datetime:
        """The moment as of which both sides were read, in UTC."""
        return moment_of(self.at)

    @property
    def equal(self) -> bool:
        """Whether online and offline agree: no value differs, and no group is cut off."""
        return not self.different and not self.cut_off

    def __str__(self) -> str:
        one, many = ("entity", "entities") if self.causes is None else ("answer", "answers")
        compared = (
            f"{self.table}: {self.values:,} values of {self.entities:,} {one if self.entities == 1 else many} compared"
        )
        verdict = f"{self.different:,} differ" if self.different else "all equal"
        if self.causes:
            verdict += f" ({', '.join(f'{cause}: {number:,}' for cause, number in self.causes.items())})"
        verdict += f", variances within {self.tolerance:g}" if self.tolerance else ""
        reasons = [f"cut off: {reason}" for reason in self.cut_off]
        reasons += [f"not compared: {reason}" for reason in self.not_compared]
        more = self.different - len(self.differences)
        others = [f"and {more:,} more"] if more else []
        return "\n  ".join([f"{compared}, {verdict}", *reasons, *map(str, self.differences), *others])


Doubt = Callable[[tuple[PinnedLookup, State]], None]
"""Called with a lookup and the state of its rows if the rows do not match the state; at most once per lookup."""


def verify(
    catalog: Catalog,
    engine: Engine,
    table: OnlineTable,
    at: int,
    sample: int | None,
    on_progress: OnProgress = no_progress,
    doubt: Doubt | None = None,
) -> Verified:
    """Compare the values of an online table with the offline join as of a moment, value by value.

    A lookup that follows its group is compared with the group's current version, even while its rows are of an earlier
    one. All entities that are stored offline and all that are online are compared. With `sample`, only a random sample
    of those stored offline is.

    Args:
        catalog: The catalog that has the groups.
        engine: The engine that reads offline.
        table: The online table.
        at: The time that counts as now, in microseconds since 1970.
        sample: The number of entities of each group to draw at random. None: all.
        on_progress: Called with the progress.
        doubt: Called with rows that no load would repair by itself.
    """
    entities = values = different = 0
    tolerance = 0.0
    shown: list[Difference] = []
    every = feeds(catalog, table.record)
    for part, fed in zip(table.parts, every, strict=True):
        doubted: State | None = None
        comparison = _Comparison(catalog, engine, table, part, fed.goal, at)
        tolerance = max(tolerance, NEAR if comparison.is_rounded else 0)
        for compared in comparison.run(sample):
            entities += compared.entities
            values += compared.entities * len(part.features)
            different += compared.different
            shown += compared.differences[: _SHOWN - len(shown)]
            if any(one.cause in _UNMENDED for one in compared.differences):
                doubted = compared.state
            on_progress(f"Verifying {table.record.label}: {values:,} values compared")
        if doubt and doubted:
            doubt((part.lookup, doubted))
    cut_off = tuple(dict.fromkeys(one.cut_off for one in every if one.cut_off))
    return Verified(table.record.label, at, entities, values, different, tuple(shown), cut_off, tolerance)


@dataclass(frozen=True)
class _Compared:
    state: State
    entities: int
    different: int
    differences: list[Difference]


class _Comparison:
    """The comparison of one part of a table."""

    def __init__(
        self, catalog: Catalog, engine: Engine, table: OnlineTable, part: Part, goal: PinnedLookup, at: int
    ) -> None:
        self._engine, self._table, self._part, self._at = engine, table, part, at
        source: Source = catalog.source(goal.lookup)
        self._source = source if table.record.ttl is None else source.with_ttl(table.record.ttl)
        self._asked = Entities([part], [key.name for key in part.keys])

    @property
    def is_rounded(self) -> bool:
        """Whether some of its values are compared with a tolerance."""
        return bool(self._source.rounded & set(self._part.features))

    def run(self, sample: int | None) -> Iterator[_Compared]:
        """Yield the comparisons of the entities, batch by batch."""
        # The entities that are both stored offline and online. All others that are online are extra.
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
        """Yield the entities that are stored offline, as batches of their join keys in logical types."""
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
        return self._table.read(self._asked, [self._part.codec.keys(keys)], self._at)[0]

    def _offline(self, keys: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Return the values of a training set with spine time now, by the features that the version has."""
        source = self._source
        columns = stored_keys(keys, [field.type for field in source.version.schema.keys]).columns
        moments = pa.Table.from_arrays(
            [*columns, pa.array(np.full(len(keys), self._at, np.int64))],
            names=[*(f"k{i}" for i in range(len(columns))), "t"],
        )
        found = self._engine.as_of(source.request(Interval(self._at, self._at), Interval()), moments)
        return dict(zip(source.features.values(), found.columns, strict=True))

    def _compare(self, keys: pa.Table, read: Read, offline: Mapping[str, pa.ChunkedArray]) -> _Compared:
        online = self._part.codec.columns(read.alive, list(self._part.features.values()))
        differing: list[tuple[int, str, pa.Scalar, pa.Scalar]] = []
        for name, one in zip(self._part.features, online, strict=True):
            nothing = pa.chunked_array([pa.nulls(len(one), one.type)])
            other = offline.get(name, nothing)  # the version to be loaded may lack the feature
            column = pa.chunked_array([one])
            places = places_of_difference(column, other)
            if name in self._source.rounded:
                places = [i for i in places if not is_near(one[i].as_py(), other[i].as_py())]
            differing += [(i, name, one[i], other[i]) for i in places]
        # Only differences that are shown get a cause, because that takes another query.
        first = sorted(differing, key=lambda one: one[0])[:_SHOWN]
        return _Compared(read.state, len(keys), len(differing), list(self._explained(keys, read, first)))

    def _explained(
        self, keys: pa.Table, read: Read, differing: Sequence[tuple[int, str, pa.Scalar, pa.Scalar]]
    ) -> Iterator[Difference]:
        """Yield each differing value with its cause."""
        if not differing:
            return
        rows = sorted({i for i, *_ in differing})
        asked = keys.take(pa.array(rows, pa.int64()))
        winners = self._winners(asked)
        entities = dict(zip(rows, records(asked), strict=True))
        encoded = dict(zip(rows, self._part.codec.keys(asked), strict=True))
        for i, name, online, offline in differing:
            cause = self._cause(read.state, read.rows[i], winners.get(encoded[i]))
            (there,), (here,) = (shown_values(pa.repeat(one, 1)) for one in (online, offline))
            yield self._difference(entities[i], name, there, here, cause)

    def _winners(self, entities: pa.Table) -> dict[bytes, int]:
        """Return the event time of each entity's winning row offline, expired or not, by encoded key."""
        schema = self._source.version.schema
        stored = stored_keys(entities, [field.type for field in schema.keys])
        found = self._engine.latest(self._source.rows(Interval(None, self._at)), entities=stored).read_all()
        times = found[schema.event_time.name].cast(UTC).cast(pa.int64()).to_pylist()
        return dict(zip(self._part.codec.keys(found), times, strict=True))

    def _cause(self, state: State, row: WireRow | None, offline: int | None) -> str:
        """Return the cause of a difference.

        Args:
            state: The state of the rows online.
            row: The row online, expired or not; None if there is none.
            offline: The event time of the winning row offline, expired or not; None if there is none.
        """
        # The state names the snapshot whose rows were loaded, and the intervals of event time that were.
        behind = state.files != self._source.snapshot.fingerprint
        loaded = offline is None or any(interval.intersect(Interval(offline, offline)) for interval in state.spans)
        # Both sides have the same row: either its values differ, or only one side hides it, by another ttl.
        if row is not None and row[-1] == offline and not behind:
            return (
                EXPIRED
                if state.ttl != self._source.record.group.materialization.lifetime and self._table.record.ttl is None
                else OTHER
            )
        if behind or not loaded:
            return NOT_LOADED
        if row is None:
            return MISSING
        if offline is None:
            return EXTRA
        return OLDER if row[-1] < offline else OTHER

    def _extra(self, seen: set[bytes]) -> Iterator[_Compared]:
        """Yield a comparison with nothing for each entity that is online but not stored offline."""
        for entity, state, row in self._part.others(seen, self._at):
            cause = EXTRA if state.files == self._source.snapshot.fingerprint else NOT_LOADED
            values = [(name, self._part.codec.value(place, row[place])) for name, place in self._part.features.items()]
            found = [self._difference(entity, name, value, None, cause) for name, value in values if value is not None]
            yield _Compared(state, 1, len(found), found)

    def _difference(self, entity: dict[str, Any], name: str, online: Any, offline: Any, cause: str) -> Difference:
        label, number = self._source.record.label, self._source.version.number
        return Difference(label, number, entity, name, online, offline, cause)


def difference_of(
    view: ViewRecord,
    keys: pa.Table,
    feature: str,
    values: tuple[pa.Scalar, pa.Scalar],
    cause: str,
    at: int | None = None,
) -> Difference:
    """Return the difference between two values of a feature view, online and offline, for one row of join keys."""
    (there,), (here,) = (shown_values(pa.repeat(one, 1)) for one in values)
    return Difference(view.label, view.number, records(keys)[0], feature, there, here, cause, at)


def is_near(one: float | None, other: float | None) -> bool:
    """Return whether two variances agree up to `NEAR`."""
    return one is not None and other is not None and math.isclose(one, other, rel_tol=NEAR)


def places_of_difference(online: pa.ChunkedArray, offline: pa.ChunkedArray) -> list[int]:
    """Return the places where two columns differ: bit by bit, so that NaN equals NaN, and 0.0 does not equal -0.0.

    Columns of two types, from before and after a write that widened the type, are compared in the wider of both.
    """
    if online.type != offline.type:
        # Of the types that `together` does not combine, only dates widen, to timestamps.
        dated = online.type if pa.types.is_date(offline.type) else offline.type
        kind = types.together(online.type, offline.type) or dated
        online, offline = (recast(pa.table({"": column}), [kind])[0] for column in (online, offline))
    # Arrow takes 0.0 and -0.0 for equal, so it can only settle columns without floats.
    if not _FLOATS.search(str(online.type)) and online.equals(offline):
        return []
    pairs = zip(to_wire(online, online.type), to_wire(offline, offline.type), strict=True)
    # MessagePack keeps every bit of a float.
    return [i for i, (one, other) in enumerate(pairs) if one is not other and _encode(one) != _encode(other)]
