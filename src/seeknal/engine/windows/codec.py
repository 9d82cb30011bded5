"""Byte encoding of a windowed group's entities in the online store: their events, from which each read computes the features.

The events of an entity are one Arrow record batch without its schema: the event times, the columns that features aggregate and the
conditions, ordered by event time, created time and order of writing. All entities of a version have the same schema, the layout, which
is kept once, in the state of the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from seeknal.define.aggregations import columns_of, conditions_of
from seeknal.define.schema import Schema
from seeknal.define.windowed_group import WindowedGroup
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.kernel import compute
from seeknal.online import Codec, Entries, WireRow
from seeknal.online.codec import to_wire
from seeknal.values.times import DAY

_CLOCKS = DAY
"""How far the clock of a reader may be behind that of the load, in microseconds. Older events are not kept."""


class WindowCodec(Codec):
    """Conversion of the events of entities to bytes, and of these bytes to the features at a moment.

    Args:
        schema: The schema of the windowed group.
        group: Its definition.
        events: The schema of the source.
    """

    def __init__(self, schema: Schema, group: WindowedGroup, events: Schema) -> None:
        super().__init__(schema)
        self._group, self._events = group, events
        self._columns, self._conditions = columns_of(group.windows), conditions_of(group.windows)
        fields = [pa.field("t", pa.int64()), *(pa.field(name, events.field(name).type) for name in self._columns)]
        self._layout = pa.schema([*fields, *(pa.field(text, pa.bool_()) for text in self._conditions)])
        self._reach = group.reach
        self.layout = self._layout.serialize().to_pybytes()
        (nothing,) = self._computed([None], np.zeros(1, np.int64), self._layout)
        self.nothing = (*nothing[:-1], None)

    def __reduce__(self) -> tuple[type[WindowCodec], tuple[Schema, WindowedGroup, Schema]]:  # type: ignore[override]
        return WindowCodec, (self.schema, self._group, self._events)

    looks_back: int = _CLOCKS
    """How long before a load a moment may be for which the rows of the load are complete, in microseconds."""

    def entries_of_events(self, tables: Iterable[pa.Table]) -> Iterator[Entries]:
        """Encode events as `Engine.events` returns them, one entry for each entity."""
        for table in tables:
            if not len(table):
                continue
            keys = self.stored_keys(table)
            starts = [i for i in range(len(keys)) if not i or keys[i] != keys[i - 1]]
            events = table.drop_columns(self.schema.key_names).rename_columns(self._layout.names)
            (batch,) = events.cast(self._layout).combine_chunks().to_batches()
            ends = [*starts[1:], len(keys)]
            bodies = [batch.slice(i, end - i).serialize().to_pybytes() for i, end in zip(starts, ends, strict=True)]
            order = sorted(range(len(starts)), key=lambda i: keys[starts[i]])
            yield Entries([keys[starts[i]] for i in order], [bodies[i] for i in order])

    def rows(self, found: Sequence[bytes | None], at: int, layout: bytes = b"") -> list[WireRow | None]:
        """Compute the features of entities at a moment, and the event time of the newest event up to it.

        An entity without an event in any window has no row.

        Args:
            found: The stored events of each entity, as the store returned them.
            at: The moment, in microseconds since 1970.
            layout: The layout of the events, from the state of the space.
        """
        kept = [i for i, value in enumerate(found) if value is not None]
        rows: list[WireRow | None] = [None] * len(found)
        if kept:
            moments, schema = np.full(len(kept), at), _schema_of(layout or self.layout)
            computed = self._computed([found[i] for i in kept], moments, schema)
            # Whether older events are still there depends on when the entity was loaded, so they do not count as a row.
            oldest = -(2**63) if self._reach is None else at - self._reach
            for i, row in zip(kept, computed, strict=True):
                rows[i] = row if row[-1] is not None and row[-1] > oldest else None
        return rows

    def times(self, stored: Iterable[bytes | None], layout: bytes = b"") -> set[int]:
        """Return the event times of stored events, including future ones."""
        schema = _schema_of(layout or self.layout)
        batches = (_batch_of(value, schema) for value in stored if value is not None)
        return {time for batch in batches for time in batch.column(0).to_pylist()}

    def columns(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> list[pa.Array]:
        """Return the features at some positions as columns; those of empty windows where an entity has no events."""
        return super().columns([self.nothing if row is None else row for row in rows], wanted)

    def _computed(self, found: Sequence[bytes | None], at: np.ndarray, layout: pa.Schema) -> list[WireRow]:
        """Return the features of each entity as wire values, and the time of its newest event up to the moment, or None."""
        batches = [_batch_of(value, layout) for value in found]
        sizes = np.array([batch.num_rows for batch in batches])
        table = pa.Table.from_batches(batches, layout).combine_chunks()
        entity, t = np.repeat(np.arange(len(batches)), sizes), table.column(0).to_numpy()
        columns = {name: table.column(1 + i) for i, name in enumerate(self._columns)}
        first = 1 + len(columns)
        masks = {text: table.column(first + i).to_numpy() for i, text in enumerate(self._conditions)}
        moments = Moments(np.arange(len(batches)), at)
        features = compute(Events(entity, t, columns, masks), moments, self._group.windows, self._group.hop_length)
        ends = np.cumsum(sizes)
        newest: list[int | None] = []
        for start, end, moment in zip(ends - sizes, ends, at, strict=True):
            last = start + int(np.searchsorted(t[start:end], moment, side="right"))
            newest.append(int(t[last - 1]) if last > start else None)
        wires = [to_wire(column, field.type) for column, field in zip(features, self.schema.features, strict=True)]
        return list(zip(*wires, newest, strict=True))


def _batch_of(value: bytes | None, layout: pa.Schema) -> pa.RecordBatch:
    if value is None:
        return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in layout], schema=layout)
    return pa.ipc.read_record_batch(pa.py_buffer(value), layout)


@lru_cache(1000)
def _schema_of(layout: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(layout))
