"""Byte encoding of a version's keys and rows in the online store.

A row is a MessagePack array: its features in schema order, then its event time. An entity with future rows is an array of all
its rows, latest first, followed by nil where a single row has its event time. With the features (price, stock), an entity with
one row at 3 is `[10, 1, 3]`. With another row at 9, which lies in the future, it is `[[12, 0, 9], [10, 1, 3], nil]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.online.keys import decode_key, encode_whole_numbers, key_encoder
from seeknal.online.protocol import Entries
from seeknal.values import types
from seeknal.values.casting import cast, recast
from seeknal.values.display import shown_values
from seeknal.values.matching import match
from seeknal.values.types import UTC

_AT_ONCE = 10_000

WireRow = tuple[Any, ...]
"""The features of a row, then its event time, as wire values (see `seeknal.values.types.wire`)."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


class Codec:
    """Exact conversion of the keys and rows of one schema to bytes and back."""

    layout = b""
    """How stored values are laid out, for the state of the space. Rows need no layout but the schema."""
    looks_back: int | None = None
    """How long before a load a moment may be for which its rows are complete, in microseconds; None: any time."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._kinds = [types.readable(field.type) for field in schema.features]
        wires = [pa.field(str(i), types.wire(kind)) for i, kind in enumerate(self._kinds)]
        self._row = pa.struct([*wires, pa.field("time", pa.int64())])
        self._plain = [is_plain(kind) for kind in self._kinds]
        self.encode_keys = key_encoder([types.wire(field.type) for field in schema.keys])

    def __reduce__(self) -> tuple[type[Codec], tuple[Schema]]:
        # The key encoder is a closure, which cannot be pickled; the schema is enough to create it again.
        return Codec, (self.schema,)

    @cached_property
    def nothing(self) -> WireRow:
        """The row that stands for an entity without one."""
        return (None,) * (len(self._kinds) + 1)

    def keys(self, table: pa.Table) -> list[bytes]:
        """Return the encoded key of each row of a table; its key columns are found by the names of the join keys.

        Keys may have the types of another version. A key that no key of this version can equal becomes `NOBODY`.
        """
        fields = self.schema.keys
        columns = [match(table[field.name], field.type) for field in fields]
        # The fast path for a single int64 key creates no Python integer per row.
        if len(fields) == 1 and pa.types.is_int64(fields[0].type) and not columns[0].null_count:
            return encode_whole_numbers(columns[0].to_numpy())
        return self.encode_keys([to_wire(column, field.type) for column, field in zip(columns, fields, strict=True)])

    def kind(self, i: int) -> pa.DataType:
        """Return the type of the feature at position `i`, as results have it."""
        return self._kinds[i]

    def value(self, i: int, value: Any) -> Any:
        """Return a wire value of the feature at position `i` as a Python value for display."""
        return shown_values(cast(pa.array([value], self._row[i].type), self._kinds[i]))[0]

    def entity(self, key: bytes) -> dict[str, Any]:
        """Return the join keys of an encoded entity, by name, for display.

        If the entity was too long to be encoded whole, return the first 32 bytes of its key, under the first join key's name.
        """
        fields = self.schema.keys
        values = decode_key(key, [types.wire(field.type) for field in fields])
        if values is None:
            return {field.name: key[:32] for field in fields[:1]}
        columns = zip(values, fields, strict=True)
        return {
            field.name: shown_values(pa.array([one], types.wire(field.type)).cast(field.type))[0]
            for one, field in columns
        }

    def stored_keys(self, table: pa.Table) -> list[bytes]:
        """Return the encoded key of each row of a table whose join keys are in the stored types of this version."""
        return self.encode_keys([to_wire(table[field.name].cast(field.type), field.type) for field in self.schema.keys])

    def entries(self, rows: Iterable[pa.RecordBatch], kept: int | None) -> Iterator[Entries]:
        """Encode rows, in batches of some thousands.

        Args:
            rows: Join keys, event time and features in logical types, ordered by key and time. Where an entity has several
                rows, all but the first are future rows.
            kept: How long a row is needed after its event time, in microseconds; None: forever.
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
            # The next table may have more rows of the last entity, and a single value must hold all of them.
            cut = _last_entity(keys)
            yield _entries(keys[:cut], bodies[:cut], times[:cut], kept)
            keys, bodies, times = keys[cut:], bodies[cut:], times[cut:]
        yield _entries(keys, bodies, times, kept)

    def rows(self, found: Sequence[bytes | None], at: int, layout: bytes = b"") -> list[WireRow | None]:  # noqa: ARG002 - rows need none
        """Decode stored values into rows: features and event time as wire values; None for a missing row.

        Args:
            found: The stored values, as the store returned them.
            at: The instant that counts as now, in microseconds since 1970. Rows dated after it are not visible yet.
            layout: The layout of the values, from the state of the space.
        """
        rows: list[WireRow | None] = []
        for value in found:
            row = None if value is None else _decode(value)
            # The last element is the event time of a single row, and nil after several. Most rows are single and visible.
            if row is not None and ((time := row[-1]) is None or time > at):
                row = _latest_visible(row, at)
            rows.append(row)
        return rows

    def rows_and(
        self, found: Sequence[bytes | None], pushed: Sequence[Sequence[WireRow]], at: int, layout: bytes = b""
    ) -> list[WireRow | None]:
        """Decode stored values as `rows` does, and let later rows that were pushed since take their place.

        Args:
            found: The stored values.
            pushed: The rows of each entity that were pushed since, as `pushed` returns them.
            at: The instant that counts as now.
            layout: The layout of the values.
        """
        rows = self.rows(found, at, layout)
        for i, more in enumerate(pushed):
            for row in more:
                known = rows[i]
                if row[-1] <= at and (known is None or row[-1] >= known[-1]):
                    rows[i] = row
        return rows

    def pushed(self, rows: pa.Table) -> list[tuple[bytes, WireRow]]:
        """Return the encoded key and the row of each of some pushed rows, which are in the stored types of this version."""
        stored = rows.select(self.schema.names)
        logical = recast(stored, self.schema.logical_types)
        columns = [to_wire(logical[field.name], field.type) for field in self.schema.features]
        times = stored[self.schema.event_time.name].cast(pa.int64()).to_pylist()
        return [*zip(self.keys(logical), zip(*columns, times, strict=True), strict=True)]

    def times(self, stored: Iterable[bytes | None], layout: bytes = b"") -> set[int]:  # noqa: ARG002 - rows need none
        """Return the event times of stored rows, including future ones."""
        rows = [_decode(value) for value in stored if value is not None]
        return {time for row in rows for time in ([one[-1] for one in row[:-1]] if row[-1] is None else row[-1:])}

    def columns(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> list[pa.Array]:
        """Return the features at some positions as columns; a row that is None becomes nulls."""
        columns = pa.array(rows, self._row).flatten()
        return [cast(columns[i], self._kinds[i]) for i in wanted]

    @property
    def width(self) -> int:
        """The number of features in a row."""
        return len(self._kinds)

    def is_plain(self, wanted: Sequence[int]) -> bool:
        """Return whether the wire values of the features at some positions are their Python values."""
        return all(self._plain[i] for i in wanted)

    def values(self, wanted: Sequence[int]) -> Callable[[Sequence[WireRow | None]], Sequence[Sequence[Any]]]:
        """Return a function that picks the features at some positions from rows, as Python values.

        Its results may have further elements after the features asked for.
        """
        nothing = self.nothing
        if not self.is_plain(wanted):
            return lambda rows: self._converted(rows, wanted)
        if list(wanted) == list(range(len(wanted))):  # the rows begin with these features, so they need no copy
            return lambda rows: [nothing if row is None else row for row in rows]
        return lambda rows: [[(row or nothing)[i] for i in wanted] for row in rows]

    def _converted(self, rows: Sequence[WireRow | None], wanted: Sequence[int]) -> Sequence[Sequence[Any]]:
        whole = [row or self.nothing for row in rows]
        converted = dict(zip(wanted, self.columns(rows, wanted), strict=True))
        columns = [[row[i] for row in whole] if self._plain[i] else converted[i].to_pylist() for i in wanted]
        return list(zip(*columns, strict=True))


def _latest_visible(row: WireRow, at: int) -> WireRow | None:
    """Return the latest of an entity's rows that is visible at `at`; None if all of them are in the future."""
    return next((tuple(one) for one in row[:-1] if one[-1] <= at), None) if row[-1] is None else None


def to_wire(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    """Return a column of a logical type as Python values that MessagePack can represent."""
    whole = pa.types.is_integer(kind) and pa.types.is_integer(column.type)
    wire = types.wire(kind)
    return list((column if whole or column.type == wire else cast(column, wire)).to_pylist())


def is_plain(kind: pa.DataType) -> bool:
    """Return whether the Python values of a type are also its wire values."""
    if pa.types.is_struct(kind):
        return all(is_plain(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return is_plain(kind.value_type)
    return bool(types.wire(kind) == kind or pa.types.is_unsigned_integer(kind) or pa.types.is_fixed_size_binary(kind))


def _instants(column: pa.ChunkedArray) -> list[int]:
    return list(column.cast(UTC).cast(pa.int64()).to_pylist())


def _with_keys(rows: Iterable[pa.RecordBatch], keys: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows in small tables, without the rows that have a null key."""
    for batch in rows:
        table = pa.Table.from_batches([batch])
        for key in keys:
            table = table.filter(pc.is_valid(table[key])) if table[key].null_count else table
        yield from (table.slice(i, _AT_ONCE) for i in range(0, len(table), _AT_ONCE))


def _last_entity(keys: Sequence[bytes]) -> int:
    """Return the position of the first row of the last entity."""
    first = len(keys)
    while first and keys[first - 1] == keys[-1]:
        first -= 1
    return first


def _entries(keys: list[bytes], bodies: list[bytes], times: list[int], kept: int | None) -> Entries:
    if len(set(keys)) < len(keys):
        runs = [(key, list(run)) for key, run in groupby(range(len(keys)), key=keys.__getitem__)]
        keys = [key for key, _ in runs]
        bodies = [bodies[run[0]] if len(run) == 1 else _pack_rows([bodies[i] for i in run]) for _, run in runs]
        times = [times[run[-1]] for _, run in runs]  # an entity expires when the last of its future rows does
    # The order of the join keys is not always that of their bytes: a long key, for example, ends with a digest.
    if keys != (ordered := sorted(keys)):
        places = sorted(range(len(keys)), key=keys.__getitem__)
        keys, bodies, times = ordered, [bodies[i] for i in places], [times[i] for i in places]
    return Entries(keys, bodies, None if kept is None else [time + kept for time in times])


def _pack_rows(bodies: Sequence[bytes]) -> bytes:
    """Pack the encoded rows of one entity, in order of time, into one array: latest first, followed by nil."""
    # In MessagePack, 0xdd begins an array with a 32-bit length, and 0xc0 is nil.
    return b"\xdd" + (len(bodies) + 1).to_bytes(4, "big") + b"".join(reversed(bodies)) + b"\xc0"
