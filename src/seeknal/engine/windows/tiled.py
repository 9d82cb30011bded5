"""Byte encoding of an entity with many events: an Arrow record batch, and exact sums of tiles.

A read decodes nothing: it uses the arrays in place. The values that count for a feature, those that are not null and whose
condition is true, are one array, cut into tiles of 64. The sum of a window is the sum of its whole tiles, which is the difference
of two prefix sums of limbs (see `seeknal.engine.windows.limbs`), plus the values at its edges.

For example, with tiles of 4, a window of the values 3 to 9 has the tile of the values 4 to 7, and the values 3, 8 and 9 at its edges.

    mark | where the numbers and the times are, number of events | batch | numbers of each selection, see `_Place` | their arrays
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from seeknal.engine.windows.limbs import Numbers, prefix, width_for
from seeknal.online import to_wire

MARK = 0xC1
"""The first byte. No MessagePack begins with it."""
_TILE, _WORD = 64, 64
"""The values of a tile, and the bits of a word."""
Code = Literal["d", "q", "i", "h", "b"]
CODES: dict[pa.DataType, Code] = {pa.float64(): "d", pa.int64(): "q", pa.int32(): "i", pa.int16(): "h", pa.int8(): "b"}
"""The types whose tiles are summed, with their codes in `struct` and `memoryview`."""
_START = struct.Struct("<B7xqqq")


class Column(NamedTuple):
    """A selection of the events: those whose value in a column is not null, and for which a condition is true.

    Args:
        place: The position of the column in the batch; 0 for the event times.
        condition: The position of the condition; None: there is none.
        code: The type of the values; None if only their number is needed.
    """

    place: int
    condition: int | None
    code: Code | None


class _Place(NamedTuple):
    """Where the arrays of a selection are in the bytes of an entity.

    Args:
        size: The number of values.
        values: Where the values begin.
        ranks: Where the words begin, one bit for each event, which says whether its value counts. They are followed by the number of
            values before each word. 0: all events count.
        finite: Whether all values are finite: 0 or 1. Others add nothing to sums.
        sums: Where the sums begin: for each limb, the lowest first, the sum of the values before each tile.
        limbs: The number of limbs.
        width: The bits of a limb.
        unit: The unit of the lowest limb, as a power of two.
    """

    size: int
    values: int
    ranks: int
    finite: int = 1
    sums: int = 0
    limbs: int = 0
    width: int = 0
    unit: int = 0


_WIDTH = len(_Place._fields)


class Tiled:
    """The encoding of entities with many events.

    Args:
        schema: The event times, the columns and the conditions.
        columns: The selections.
    """

    def __init__(self, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._schema, self._columns = schema, columns
        self._numbers = struct.Struct(f"<{_WIDTH * len(columns)}q")

    @property
    def described(self) -> str:
        """What is tiled, as text. Only bytes that were encoded under an equal text can be opened."""
        return json.dumps([_TILE, *self._columns])

    def encode(self, columns: Sequence[pa.ChunkedArray]) -> bytes:
        """Return the bytes of an entity, given its event times in order, the columns and the conditions."""
        events = pa.Table.from_arrays(list(columns), schema=self._schema).combine_chunks()
        (message,) = (one.serialize() for one in events.to_batches())
        batch = pa.ipc.read_record_batch(message, self._schema)
        start = _START.size - message.address  # from an address in the message to a place in the bytes
        whole = bytearray(_START.size) + message.to_pybytes()
        numbers_at = _align(whole)
        whole += bytes(self._numbers.size)
        places = [number for column in self._columns for number in _append(whole, batch, start, column)]
        _START.pack_into(whole, 0, MARK, numbers_at, start + batch.column(0).buffers()[1].address, len(batch))
        self._numbers.pack_into(whole, numbers_at, *places)
        return bytes(whole)

    def open(self, value: bytes) -> list[Values]:
        """Return the values of each selection in the bytes of an entity."""
        _, numbers_at, _, events = _START.unpack_from(value)
        numbers, entity = self._numbers.unpack_from(value, numbers_at), _Entity(value, events, self._schema)
        return [
            Values(entity, column, *numbers[i * _WIDTH : (i + 1) * _WIDTH]) for i, column in enumerate(self._columns)
        ]


def events_in(value: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """Return the events in the bytes of an entity."""
    return pa.ipc.read_record_batch(pa.py_buffer(value).slice(_START.size), schema)


def times_in(value: bytes) -> memoryview[int]:
    """Return the event times in the bytes of an entity, in microseconds since 1970."""
    _, _, times, events = _START.unpack_from(value)
    return memoryview(value)[times : times + 8 * events].cast("q")


def _align(whole: bytearray) -> int:
    """Append zeros up to a multiple of eight bytes, and return it."""
    whole += bytes(-len(whole) % 8)
    return len(whole)


def _append(whole: bytearray, batch: pa.RecordBatch, start: int, column: Column) -> _Place:
    """Append the arrays of a selection, and return where they are."""
    values, ranks = batch.column(column.place), 0
    counts = values.is_valid() if column.condition is None else batch.column(column.condition)
    counts = counts.to_numpy(zero_copy_only=False) & values.is_valid().to_numpy(zero_copy_only=False)
    if not counts.all():
        values, ranks = values.filter(pa.array(counts)), _align(whole)
        words = np.zeros(len(counts) // _WORD + 1, "<u8")
        bits = np.packbits(counts, bitorder="little")
        words.view(np.uint8)[: len(bits)] = bits
        whole += words.tobytes() + prefix(counts)[::_WORD].astype("<i8").tobytes()
    if column.code is None:
        return _Place(len(values), 0, ranks)
    at = len(whole) if ranks else start + values.buffers()[1].address
    if ranks:
        whole += values.to_numpy().tobytes()
    if column.place == 0:  # no feature needs the sum of times
        return _Place(len(values), at, ranks)
    numbers, width = Numbers.of(values), width_for(len(values))
    sums, limbs = _align(whole), [prefix(limb)[::_TILE] for limb in numbers.limbs(width)]
    whole += np.concatenate(limbs[::-1]).astype("<i8").tobytes()
    return _Place(len(values), at, ranks, numbers.special is None, sums, len(limbs), width, numbers.exponent)


class _Entity(NamedTuple):
    """The bytes of an entity.

    Args:
        value: The bytes.
        events: The number of its events.
        schema: The event times, the columns and the conditions.
    """

    value: bytes
    events: int
    schema: pa.Schema


class Values:
    """The values of a selection.

    Args:
        entity: The bytes that they are in.
        column: What they are.
        place: Where they are; see `_Place`.
    """

    def __init__(self, entity: _Entity, column: Column, *place: int) -> None:
        size, at, ranks, finite, sums, self._limbs, self._width, self.unit = place
        self._entity, self._column, memory = entity, column, memoryview(entity.value)
        self.code, self.are_finite = column.code, bool(finite)
        self._words = self._counts = memory[:0]
        if ranks:
            width = 8 * (entity.events // _WORD + 1)
            self._words = memory[ranks : ranks + width].cast("Q")
            self._counts = memory[ranks + width : ranks + 2 * width].cast("q")
        if column.code is not None:
            self.items = memory[at : at + size * struct.calcsize(column.code)].cast(column.code)
            self.array = np.frombuffer(entity.value, column.code, size, at)
            self._tiles = size // _TILE + 1
            self._sums = memory[sums : sums + 8 * self._limbs * self._tiles].cast("q")

    def before(self, event: int) -> int:
        """Return how many of the first so many events count."""
        if not self._words:
            return event
        word, bit = divmod(event, _WORD)
        return self._counts[word] + (self._words[word] & ((1 << bit) - 1)).bit_count()

    def summands(self, low: int, high: int) -> tuple[int, list[Any]]:
        """Return the sum of the whole tiles among some values, in units of 2**unit, and the values at the edges."""
        first, stop = -(-low // _TILE), high // _TILE
        if first >= stop:
            return 0, self.items[low:high].tolist()
        total = 0
        for row in range((self._limbs - 1) * self._tiles, -1, -self._tiles):
            total = (total << self._width) + self._sums[row + stop] - self._sums[row + first]
        return total, self.items[low : first * _TILE].tolist() + self.items[stop * _TILE : high].tolist()

    def wires(self, first: int, stop: int) -> list[Any]:
        """Return some of the values as wire values."""
        if self.code is not None:
            return list(self.items[first:stop])
        if first == stop:
            return []
        places = self._event(first), self._event(stop - 1) + 1
        return to_wire(self.between(*places), self._entity.schema.types[self._column.place])

    def between(self, start: int, stop: int) -> pa.Array:
        """Return the values of some events as an Arrow array."""
        batch = events_in(self._entity.value, self._entity.schema).slice(start, stop - start)
        values = batch.column(self._column.place)
        if self._column.condition is not None:
            values = values.filter(batch.column(self._column.condition))
        return values.drop_null()

    def _event(self, index: int) -> int:
        """Return which event has a value."""
        if not self._words:
            return index
        word = bisect_right(self._counts, index) - 1
        bits = self._words[word]
        for _ in range(index - self._counts[word]):
            bits &= bits - 1  # clears the lowest bit
        return word * _WORD + (bits & -bits).bit_length() - 1
