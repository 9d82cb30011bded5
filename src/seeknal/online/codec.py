"""How keys and rows of a version look as bytes in the online store.

A row is the MessagePack of its features, in the schema's order, and its event time. An entity that has
rows to come has them all, the latest first, and then nil where the event time would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.online.keys import decode_key, encode_whole_numbers, key_encoder
from seeknal.online.protocol import Entries
from seeknal.values import types
from seeknal.values.types import UTC

_AT_ONCE = 10_000

WireRow = tuple[Any, ...]
"""The features of a row and its event time, as they are on the wire."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


class Codec:
    """Turns rows of one schema into bytes and back, exactly."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._kinds = [types.readable(field.type) for field in schema.features]
        wires = [pa.field(str(i), types.wire(kind)) for i, kind in enumerate(self._kinds)]
        self._row = pa.struct([*wires, pa.field("time", pa.int64())])
        self._plain = [_is_plain(kind) for kind in self._kinds]
        self.nothing = (None,) * (len(self._kinds) + 1)
        self.encode_keys = key_encoder([types.wire(field.type) for field in schema.keys])

    def __reduce__(self) -> tuple[type[Codec], tuple[Schema]]:
        return Codec, (self.schema,)

    def keys(self, table: pa.Table) -> list[bytes]:
        """Encode the entities of a table; its columns are found by the join keys' names."""
        fields = self.schema.keys
        if len(fields) == 1 and pa.types.is_int64(fields[0].type) and not table[fields[0].name].null_count:
            return encode_whole_numbers(table[fields[0].name].to_numpy())
        return self.encode_keys([to_wire(table[field.name], field.type) for field in fields])

    def kind(self, i: int) -> pa.DataType:
        """Return the type of a feature in answers."""
        return self._kinds[i]

    def value(self, i: int, value: Any) -> Any:
        """Give one wire value of a feature as Python has it."""
        return _unwired(pa.array([value], self._row[i].type), self._kinds[i])[0].as_py()

    def entity(self, key: bytes) -> dict[str, Any]:
        """Give the join keys of an encoded entity, by name; of one that was too long, the beginning of its bytes."""
        fields = self.schema.keys
        values = decode_key(key, [types.wire(field.type) for field in fields])
        if values is None:
            return {field.name: key[:32] for field in fields[:1]}
        columns = zip(values, fields, strict=True)
        return {
            field.name: pa.array([one], types.wire(field.type)).cast(field.type)[0].as_py() for one, field in columns
        }

    def stored_keys(self, table: pa.Table) -> list[bytes]:
        """Encode the entities of a table whose join keys are in stored types."""
        columns = []
        for field in self.schema.keys:
            column = table[field.name]
            whole = pa.types.is_integer(column.type) and pa.types.is_integer(field.type)
            columns.append(to_wire(column if whole else column.cast(field.type), field.type))
        return self.encode_keys(columns)

    def entries(self, rows: Iterable[pa.RecordBatch], kept: int | None) -> Iterator[Entries]:
        """Encode rows, some thousands at a time.

        Args:
            rows: Keys, event time and features in logical types, ordered by key and time; of an entity that has
                several, all but the first are to come.
            kept: For how long after its event time a row is needed, in microseconds; None: for ever.
        """
        keys: list[bytes] = []
        bodies: list[bytes] = []
        times: list[int] = []
        for table in _with_keys(rows, self.schema.key_names):
            keys += self.keys(table)
            more = _instants(table[self.schema.event_time.name])
            times += more
            columns = [to_wire(table[field.name], field.type) for field in self.schema.features]
            bodies += map(_encode, zip(*columns, more, strict=True))
            cut = _last_entity(keys)
            yield _entries(keys[:cut], bodies[:cut], times[:cut], kept)
            keys, bodies, times = keys[cut:], bodies[cut:], times[cut:]
        yield _entries(keys, bodies, times, kept)

    def rows(self, found: Sequence[bytes | None], at: int) -> list[WireRow | None]:
        """Decode what is stored, as features and event time in wire form.

        Args:
            found: What the store gave.
            at: What counts as now: later rows have not come yet.
        """
        rows: list[WireRow | None] = []
        for value in found:
            row = None if value is None else _decode(value)
            if row is not None and ((time := row[-1]) is None or time > at):
                row = _come(row, at)
            rows.append(row)
        return rows

    def times(self, stored: Iterable[bytes | None]) -> set[int]:
        """List the event times of stored rows, those to come among them."""
        rows = [_decode(value) for value in stored if value is not None]
        return {time for row in rows for time in ([one[-1] for one in row[:-1]] if row[-1] is None else row[-1:])}

    def columns(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> list[pa.Array]:
        """Give some features of rows as columns; a row that is None gives nulls."""
        columns = pa.array(rows, self._row).flatten()
        return [_unwired(columns[i], self._kinds[i]) for i in wanted]

    @property
    def width(self) -> int:
        """How many features a row has."""
        return len(self._kinds)

    def is_plain(self, wanted: Sequence[int]) -> bool:
        """Tell whether features look in Python as they do in a row."""
        return all(self._plain[i] for i in wanted)

    def values(self, wanted: Sequence[int]) -> Callable[[Sequence[WireRow | None]], Sequence[Sequence[Any]]]:
        """Give what takes some features from rows, as Python values; there may be more behind those asked for."""
        nothing = self.nothing
        if not self.is_plain(wanted):
            return lambda rows: self._converted(rows, wanted)
        if list(wanted) == list(range(len(wanted))):
            return lambda rows: [nothing if row is None else row for row in rows]
        return lambda rows: [[(row or nothing)[i] for i in wanted] for row in rows]

    def _converted(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> Sequence[Sequence[Any]]:
        whole = [row or self.nothing for row in rows]
        converted = dict(zip(wanted, self.columns(rows, wanted), strict=True))
        columns = [[row[i] for row in whole] if self._plain[i] else converted[i].to_pylist() for i in wanted]
        return list(zip(*columns, strict=True))


def _unwired(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else _nulls_inside(array).cast(kind)


def _come(row: WireRow, at: int) -> WireRow | None:
    """Give the latest of an entity's rows that has come; None if it is still to come."""
    return next((tuple(one) for one in row[:-1] if one[-1] <= at), None) if row[-1] is None else None


def to_wire(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    """Give a column of a logical type as Python values that MessagePack has a place for."""
    whole = pa.types.is_integer(kind) and pa.types.is_integer(column.type)
    wire = types.wire(kind)
    return list((column if whole or column.type == wire else column.cast(wire)).to_pylist())


def _nulls_inside(array: pa.Array) -> pa.Array:
    """Make the fields of a null struct null as well, also inside lists, so that a cast does not look at what stands there."""
    if pa.types.is_list(array.type):
        inside = _nulls_inside(array.values)
        return pa.ListArray.from_arrays(array.offsets, inside, type=array.type, mask=array.is_null())
    if not pa.types.is_struct(array.type):
        return array
    fields = [_nulls_inside(field) for field in array.flatten()]
    return pa.StructArray.from_arrays(fields, fields=list(array.type), mask=array.is_null())


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether values look in Python as they do on the wire."""
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    return bool(types.wire(kind) == kind or pa.types.is_unsigned_integer(kind) or pa.types.is_fixed_size_binary(kind))


def _instants(column: pa.ChunkedArray) -> list[int]:
    return list(column.cast(UTC).cast(pa.int64()).to_pylist())


def _with_keys(rows: Iterable[pa.RecordBatch], keys: Sequence[str]) -> Iterator[pa.Table]:
    """Cut rows into small tables, without those that lack a key."""
    for batch in rows:
        table = pa.Table.from_batches([batch])
        for key in keys:
            table = table.filter(pc.is_valid(table[key])) if table[key].null_count else table
        yield from (table.slice(i, _AT_ONCE) for i in range(0, len(table), _AT_ONCE))


def _last_entity(keys: Sequence[bytes]) -> int:
    """Find where the last entity begins."""
    first = len(keys)
    while first and keys[first - 1] == keys[-1]:
        first -= 1
    return first


def _entries(keys: list[bytes], bodies: list[bytes], times: list[int], kept: int | None) -> Entries:
    if len(set(keys)) < len(keys):
        runs = [(key, list(run)) for key, run in groupby(range(len(keys)), key=keys.__getitem__)]
        keys = [key for key, _ in runs]
        bodies = [bodies[run[0]] if len(run) == 1 else _stack([bodies[i] for i in run]) for _, run in runs]
        times = [times[run[-1]] for _, run in runs]
    if keys != (ordered := sorted(keys)):
        places = sorted(range(len(keys)), key=keys.__getitem__)
        keys, bodies, times = ordered, [bodies[i] for i in places], [times[i] for i in places]
    return Entries(keys, bodies, None if kept is None else [time + kept for time in times])


def _stack(bodies: Sequence[bytes]) -> bytes:
    """Put the rows of one entity together, the latest first, and nil behind them."""
    return b"\xdd" + (len(bodies) + 1).to_bytes(4, "big") + b"".join(reversed(bodies)) + b"\xc0"
