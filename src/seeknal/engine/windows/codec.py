"""Byte encoding of a windowed group's entities in the online store: their events, from which each read computes the features.

The events of an entity are a MessagePack array of lists: the event times, the values of each column that features aggregate, and
whether each condition is true, all in the order of event time, created time and writing. All entities of a version have the same
columns, the layout, which is kept once, in the state of the space, with the number of this format.
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

from seeknal.define.aggregations import columns_of, conditions_of
from seeknal.define.schema import Schema
from seeknal.define.windowed_group import WindowedGroup
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.kernel import compute
from seeknal.engine.windows.one import KernelNeededError, OneEntity
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
_FORMAT = b"\x01"
"""The first byte of a layout: the number of the format of stored values."""
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
        self._layout = pa.schema([*fields, *(pa.field(text, pa.bool_()) for text in self._conditions)])
        self._reach = group.reach
        self.layout = _FORMAT + self._layout.serialize().to_pybytes()

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
            columns = table.drop_columns(self.schema.key_names).columns
            lists = [to_wire(column, field.type) for column, field in zip(columns, self._layout, strict=True)]
            bodies = {
                keys[start]: _encode([values[start:end] for values in lists])
                for start, end in pairwise([*starts, len(keys)])
            }
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
        if kept := [i for i, value in enumerate(found) if value is not None]:
            events = [_decode(value) for value in found if value is not None]
            computed = self._quickly(events, at, layout) or self._computed(events, at, layout)
            # Whether older events are still there depends on when the entity was loaded, so they do not count as a row.
            oldest = -(2**63) if self._reach is None else at - self._reach
            for i, row in zip(kept, computed, strict=True):
                rows[i] = row if row[-1] is not None and row[-1] > oldest else None
        return rows

    def _quickly(self, events: Sequence[Lists], at: int, layout: bytes) -> list[WireRow] | None:
        """Compute the features of a few entities with few events; None if the kernel has to, or is faster."""
        if (layout or self.layout) != self.layout:  # the types of the columns have changed since
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
        group, layout = self._group, self._layout
        kinds = {name: layout.types[1 + i] for i, name in enumerate(self._columns)}
        columns = {name: 1 + i for i, name in enumerate(self._columns)}
        conditions = {text: 1 + len(columns) + i for i, text in enumerate(self._conditions)}
        can = all(OneEntity.can(feature, kinds) for feature in group.windows)
        return OneEntity(group.windows, kinds, columns, conditions, group.hop_length) if can else None

    def times(self, stored: Iterable[bytes | None], layout: bytes = b"") -> set[int]:  # noqa: ARG002 - all layouts begin with the times
        """Return the event times of stored events, including future ones."""
        return {time for value in stored if value is not None for time in _decode(value)[0]}

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
        first = 1 + len(self._columns)
        columns = dict(zip(self._columns, arrays[1:first], strict=True))
        masks = {text: arrays[first + i].to_numpy() for i, text in enumerate(self._conditions)}
        sizes = [len(lists[0]) for lists in events]
        entity = np.repeat(np.arange(len(events)), sizes)
        moments = Moments(np.arange(len(events)), np.full(len(events), at))
        made = Events(entity, arrays[0].to_numpy(), columns, masks)
        features = compute(made, moments, self._group.windows, self._group.hop_length)
        wires = [
            to_wire(self._fitted(*pair), pair[1].type) for pair in zip(features, self.schema.features, strict=True)
        ]
        return list(zip(*wires, (_newest(lists[0], at) for lists in events), strict=True))

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
                f"{error} Serve the table again."
            ) from None


def _newest(times: Sequence[int], at: int) -> int | None:
    """Return the last of the event times up to a moment; None if there is none."""
    count = bisect_right(times, at)
    return times[count - 1] if count else None


@lru_cache(1000)
def _schema_of(layout: bytes) -> pa.Schema:
    if not layout.startswith(_FORMAT):
        raise StoreError(
            "The online events were loaded by another release of Seeknal. Load them again: seeknal refresh."
        )
    return pa.ipc.read_schema(pa.py_buffer(layout[len(_FORMAT) :]))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode
