"""Byte encoding of a windowed group's entities in the online store: their events, from which each read computes the features.

The events of an entity are a MessagePack array of lists: the event times, the values of each column that features aggregate, and
whether each condition is true, all in the order of event time, created time and writing. Those of an entity with many events are
arrays that are not decoded, with sums; see `seeknal.engine.windows.tiled`. All entities of a version have the same columns, the
layout, which is kept once, in the state of the space, with the number of this format.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.aggregations import WindowedFeature, columns_of, conditions_of, mask_name
from seeknal.define.schema import Schema
from seeknal.define.windowed_group import WindowedGroup
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.kernel import compute
from seeknal.engine.windows.many import ManyEvents
from seeknal.engine.windows.one import KernelNeededError, OneEntity
from seeknal.engine.windows.tiled import MARK, events_in, times_in
from seeknal.errors import DataError, StoreError
from seeknal.online import Codec, Entries, WireRow
from seeknal.online.codec import to_wire
from seeknal.values import types
from seeknal.values.casting import cast
from seeknal.values.times import DAY

Lists = Sequence[list[Any]]
"""The events of an entity: times, columns and conditions."""

_FEW_ENTITIES, _FEW_EVENTS = 24, 2000
"""From more entities or events on, the kernel is faster than a loop in Python."""
_MANY = 128
"""From so many events on, an entity is tiled."""
_FORMAT = b"\x02"
"""The first byte of a layout: the number of the format of stored values."""
_LISTS_ONLY = b"\x01"
"""The format before entities were tiled, which is read as well."""
_CLOCKS = DAY
"""How far the clock of a reader may be behind that of the load, in microseconds. Older events are not kept."""


class WindowCodec(Codec):
    """Conversion of the events of entities to bytes, and of these bytes to the features at a moment.

    Args:
        schema: The schema of the windowed group.
        group: Its definition.
        events: The schema of the source.
    """

    looks_back: int = _CLOCKS

    def __init__(self, schema: Schema, group: WindowedGroup, events: Schema) -> None:
        super().__init__(schema)
        self._group, self._events = group, events
        self._columns, self._conditions = columns_of(group.windows), conditions_of(group.windows)
        fields = [pa.field("t", pa.int64()), *(pa.field(name, events.field(name).type) for name in self._columns)]
        schema_of_events = pa.schema([*fields, *(pa.field(text, pa.bool_()) for text in self._conditions)])
        self._many = ManyEvents(group.windows, schema_of_events, *self._places, group.hop_length)
        # Whatever the tiles depend on is in the layout, so that tiles of another release are not taken for those of this one.
        self._layout = schema_of_events.with_metadata({"tiled": self._many.tiled.described})
        self._reach = group.reach
        self.layout = _FORMAT + self._layout.serialize().to_pybytes()
        self._current = {b"", self.layout, _LISTS_ONLY + schema_of_events.serialize().to_pybytes()}

    def __reduce__(self) -> tuple[type[WindowCodec], tuple[Schema, WindowedGroup, Schema]]:  # type: ignore[override]
        return WindowCodec, (self.schema, self._group, self._events)

    @cached_property
    def nothing(self) -> WireRow:
        """The features of empty windows. Loads do not need them, so they are computed at the first use."""
        (nothing,) = self._computed([[[] for _ in self._layout]], 0, self.layout)
        return nothing

    def entries_of_events(self, tables: Iterable[pa.Table]) -> Iterator[Entries]:
        """Encode events as `Engine.events` returns them, one entry for each entity."""
        for table in tables:
            if not len(table):
                continue
            keys = self.keys(table)
            starts = [i for i in range(len(keys)) if not i or keys[i] != keys[i - 1]]
            columns = [
                cast(column, field.type)
                for column, field in zip(table.drop_columns(self.schema.key_names).columns, self._layout, strict=True)
            ]
            bodies, few = dict[bytes, bytes](), []
            for start, end in pairwise([*starts, len(keys)]):
                if end - start < _MANY:
                    few.append((start, end))
                else:
                    bodies[keys[start]] = self._many.tiled.encode([one.slice(start, end - start) for one in columns])
            lists = [to_wire(column, column.type) for column in columns] if few else []
            bodies |= {keys[start]: _encode([values[start:end] for values in lists]) for start, end in few}
            order = sorted(bodies)
            yield Entries(order, [bodies[key] for key in order])

    def rows(self, found: Sequence[bytes | None], at: int, layout: bytes = b"") -> list[WireRow | None]:
        """Compute the features of entities at a moment, and the event time of the newest event up to it.

        An entity without an event in any window has no row.

        Args:
            found: The stored events of each entity, as the store returned them.
            at: The moment, in microseconds since 1970.
            layout: The layout of the events, from the state of the space.
        """
        rows: list[WireRow | None] = [None] * len(found)
        few = {i: value for i, value in enumerate(found) if value is not None and value[0] != MARK}
        many = {i: value for i, value in enumerate(found) if value is not None and value[0] == MARK}
        # Whether older events are still there depends on when the entity was loaded, so they do not count as a row.
        oldest = -(2**63) if self._reach is None else at - self._reach
        for values, computed in ((few, self._of_few), (many, self._of_many)):
            if values:
                for i, row in zip(values, computed(list(values.values()), at, layout), strict=True):
                    rows[i] = row if row[-1] is not None and row[-1] > oldest else None
        return rows

    def rows_and(
        self, found: Sequence[bytes | None], pushed: Sequence[Sequence[WireRow]], at: int, layout: bytes = b""
    ) -> list[WireRow | None]:
        """Compute the features from the stored events and those that were pushed since; see `Codec.rows_and`."""
        pairs = zip(found, pushed, strict=True)
        values = [self._with_events(value, more, layout) if more else value for value, more in pairs]
        return self.rows(values, at, layout)

    def pushed(self, rows: pa.Table) -> list[tuple[bytes, WireRow]]:
        """Return for each of some pushed events that have an entity its encoded key, and its time, columns and conditions."""
        events = self._events
        if not {*self.schema.key_names, *self._columns} <= {*rows.column_names} & {*events.names}:
            return []  # the group can no longer be computed, and keeps what is online
        if lacking := [text for text in self._conditions if mask_name(text) not in rows.column_names]:
            raise StoreError(
                f"{self._group.name!r} has the condition {lacking[0]!r} since an event was pushed, which is not online yet. Try again in a "
                "second."
            )
        for field in self.schema.keys:
            rows = rows.filter(pc.is_valid(rows[field.name])) if rows[field.name].null_count else rows
        times = rows[events.event_time.name].cast(pa.int64()).to_pylist()
        columns = []
        for name in self._columns:
            field = events.field(name)
            try:
                values = cast(cast(rows[name], events.stored_type(name)), field.type)
            except (DataError, pa.ArrowInvalid) as error:
                raise StoreError(
                    f"Column {name!r} of the events of {self._group.name!r} was {field.type} when the table was served: "
                    f"{str(error).rstrip('.')}. Serve the table again."
                ) from None
            columns.append(to_wire(values, field.type))
        masks = [rows[mask_name(text)].to_pylist() for text in self._conditions]
        return [*zip(self.keys(rows), zip(times, *columns, *masks, strict=True), strict=True)]

    def _with_events(self, value: bytes | None, more: Sequence[WireRow], layout: bytes) -> bytes:
        """Return the stored events of an entity with more events, each after those of the same time, as lists."""
        lists: list[list[Any]] = [[] for _ in self._layout]
        if value is not None and value[0] == MARK:
            schema = _schema_of(layout or self.layout)
            lists = [to_wire(column, column.type) for column in events_in(value, schema).columns]
        elif value is not None:
            lists = _decode(value)
        for event in more:
            place = bisect_right(lists[0], event[0])
            for values, one in zip(lists, event, strict=True):
                values.insert(place, one)
        return _encode(lists)

    def _of_few(self, values: Sequence[bytes], at: int, layout: bytes) -> list[WireRow]:
        """Return the features of entities that are lists, and the time of the newest event up to the moment, or None."""
        events = [_decode(value) for value in values]
        return self._quickly(events, at, layout) or self._computed(events, at, layout)

    def _of_many(self, values: Sequence[bytes], at: int, layout: bytes) -> list[WireRow]:
        """Return what `_of_few` does for entities that are tiled."""
        every = range(len(self._group.windows))
        if self._is_current(layout):
            found = [self._many.at(value, at) for value in values]
        else:
            found = [([None for _ in every], list(every)) for _ in values]
        left: dict[tuple[int, ...], list[int]] = {}
        for i, (_, features) in enumerate(found):
            if features:
                left.setdefault(tuple(features), []).append(i)
        for together, entities in left.items():
            batches = [events_in(values[i], _schema_of(layout or self.layout)) for i in entities]
            events = pa.Table.from_batches(batches).columns
            columns = self._by_kernel(events, [len(batch) for batch in batches], at, together)
            for feature, column in zip(together, columns, strict=True):
                for i, value in zip(entities, column, strict=True):
                    found[i][0][feature] = value
        return [(*row, _newest(times_in(value), at)) for (row, _), value in zip(found, values, strict=True)]

    def _is_current(self, layout: bytes) -> bool:
        """Return whether stored columns have the types that they have now."""
        return layout in self._current

    def _quickly(self, events: Sequence[Lists], at: int, layout: bytes) -> list[WireRow] | None:
        """Compute the features of a few entities with few events; None if the kernel has to, or is faster."""
        if not self._is_current(layout):
            return None
        if len(events) > _FEW_ENTITIES or sum(len(lists[0]) for lists in events) > _FEW_EVENTS:
            return None
        if self._one is None:
            return None
        try:
            return [(*self._one.at(lists, at), _newest(lists[0], at)) for lists in events]
        except KernelNeededError:
            return None

    @cached_property
    def _one(self) -> OneEntity | None:
        group = self._group
        kinds = {name: self._layout.types[place] for name, place in self._places[0].items()}
        can = all(OneEntity.can(feature, kinds) for feature in group.windows)
        return OneEntity(group.windows, kinds, *self._places, group.hop_length) if can else None

    @property
    def _places(self) -> tuple[dict[str, int], dict[str, int]]:
        """The positions of the columns and of the conditions in the layout."""
        first = 1 + len(self._columns)
        return (
            {name: 1 + i for i, name in enumerate(self._columns)},
            {text: first + i for i, text in enumerate(self._conditions)},
        )

    def times(self, stored: Iterable[bytes | None], layout: bytes = b"") -> set[int]:  # noqa: ARG002 - all layouts begin with the times
        """Return the event times of stored events, including future ones."""
        known = (value for value in stored if value is not None)
        return {time for value in known for time in (times_in(value) if value[0] == MARK else _decode(value)[0])}

    def columns(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> list[pa.Array]:
        """Return the features at some positions as columns; those of empty windows where an entity has no events."""
        return super().columns([self.nothing if row is None else row for row in rows], wanted)

    def _computed(self, events: Sequence[Lists], at: int, layout: bytes) -> list[WireRow]:
        """Return the features of each entity as wire values, and the time of its newest event up to the moment, or None."""
        schema = _schema_of(layout or self.layout)
        together = [list(chain.from_iterable(lists)) for lists in zip(*events, strict=True)]
        arrays = [
            pa.chunked_array([cast(pa.array(values, types.wire(field.type)), field.type)])
            for values, field in zip(together, schema, strict=True)
        ]
        sizes = [len(lists[0]) for lists in events]
        wires = self._by_kernel(arrays, sizes, at, range(len(self._group.windows)))
        return list(zip(*wires, (_newest(lists[0], at) for lists in events), strict=True))

    def _by_kernel(
        self, arrays: Sequence[pa.ChunkedArray], sizes: Sequence[int], at: int, places: Sequence[int]
    ) -> list[list[Any]]:
        """Return some features of each entity as wire values, one list for each feature.

        Args:
            arrays: The times, columns and conditions of the events of all entities, entity by entity.
            sizes: How many events each entity has.
            at: The moment.
            places: The positions of the features.
        """
        columns, conditions = self._places
        events = Events(
            np.repeat(np.arange(len(sizes)), sizes),
            arrays[0].to_numpy(),
            {name: arrays[i] for name, i in columns.items()},
            {text: arrays[i].to_numpy() for text, i in conditions.items()},
        )
        moments = Moments(np.arange(len(sizes)), np.full(len(sizes), at))
        features: list[WindowedFeature] = [self._group.windows[i] for i in places]
        found = compute(events, moments, features, self._group.hop_length)
        fields = [self.schema.features[i] for i in places]
        return [to_wire(self._fitted(*pair), pair[1].type) for pair in zip(found, fields, strict=True)]

    def _fitted(self, values: pa.Array, field: pa.Field) -> pa.Array:
        """Cast results to the type that the feature had when the table was opened: the source may have got a wider one since.

        Raises:
            StoreError: A value does not fit.
        """
        try:
            return cast(values, field.type)
        except (DataError, pa.ArrowInvalid) as error:
            raise StoreError(
                f"Feature {field.name!r} of {self._group.name!r} was {field.type} when the table was served, and is {values.type} now: "
                f"{str(error).rstrip('.')}. Serve the table again."
            ) from None


def _newest(times: Sequence[int] | memoryview[int], at: int) -> int | None:
    """Return the last of the event times up to a moment; None if there is none."""
    count = bisect_right(times, at)
    return times[count - 1] if count else None


@lru_cache(1000)
def _schema_of(layout: bytes) -> pa.Schema:
    if not layout.startswith((_FORMAT, _LISTS_ONLY)):
        raise StoreError(
            "The online events were loaded by another release of Seeknal. Load them again: seeknal refresh."
        )
    return pa.ipc.read_schema(pa.py_buffer(layout[len(_FORMAT) :]))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode
