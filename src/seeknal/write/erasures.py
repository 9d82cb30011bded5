"""Erased entities, remembered by a digest of their keys so that rows from before an erasure do not return unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Context, Decimal
from functools import reduce
from hashlib import blake2b
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.errors import notice, plural
from seeknal.online import Codec, to_wire
from seeknal.registry import GroupRecord, GroupState
from seeknal.registry.catalog import Catalog
from seeknal.values.types import LONGEST_DECIMAL

_EXACT = Context(prec=LONGEST_DECIMAL)
_TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""The nanoseconds in each unit of a timestamp."""
_encode = msgspec.msgpack.Encoder().encode


def digests(keys: pa.Table) -> list[str]:
    """Return the digests by which erased entities are remembered. Equal keys have equal digests, whatever their types.

    Args:
        keys: The join keys of the entities, in logical types.
    """
    columns = [_canonical(column) for column in keys.columns]
    return [
        blake2b(_encode(entity), digest_size=32, person=b"seeknal erased").hexdigest()
        for entity in zip(*columns, strict=True)
    ]


def elsewhere(digest: str) -> str:
    """Return the digest by which a group of another entity, computed from the same events, remembers an erasure.

    It is none of the group's own entities, even if one of these has an equal key.
    """
    return blake2b(digest.encode(), digest_size=32, person=b"seeknal others").hexdigest()


def _canonical(column: pa.ChunkedArray) -> list[Any]:
    """Return keys in a form that does not depend on their type, so that equal keys of two versions have one digest."""
    values = to_wire(column, column.type)
    if pa.types.is_decimal(column.type):
        return [value and str(Decimal(value).normalize(_EXACT)) for value in values]
    if pa.types.is_timestamp(column.type):
        ticks = _TICKS[column.type.unit]  # the nanoseconds of some timestamps need more than 64 bits
        return [None if value is None else divmod(value * ticks, 10**9) for value in values]
    return values


def _earlier_digest(key: bytes) -> str:
    """Return the digest of an encoded key, by which earlier releases remembered an erased entity."""
    return blake2b(key, digest_size=32, person=b"seeknal erasure").hexdigest()


class Erasures:
    """The entities erased from a group, and from the windowed groups that are computed from it, as of a state.

    Args:
        catalog: The catalog of the group's home.
        state: What is known of the group.
    """

    def __init__(self, catalog: Catalog, state: GroupState) -> None:
        self._state = state
        self._own: Mapping[str, int] = {}
        self._others: list[tuple[GroupRecord, Mapping[str, int]]] = []
        if state.erased:
            self._own = catalog.registry.erasures(state.record)
            every = [
                (group, catalog.registry.erasures(group)) for group in catalog.registry.windowed_groups(state.record)
            ]
            self._others = [(group, erased) for group, erased in every if erased]

    def mask(self, schema: Schema, rows: pa.Table) -> pa.BooleanArray | None:
        """Return a mask of the rows dated at or before the erasure of their entity; None if there are no such rows.

        Args:
            schema: The rows' schema.
            rows: The rows, in stored types.
        """
        if not (self._own or self._others) or not len(rows):
            return None
        times = rows[schema.event_time.name]
        found = [_dated_before(self._own, self._names(schema, rows), times)] if schema.keys else []
        for group, erased in self._others:
            fields = [schema.field(name) for name in group.group.entity.join_keys]
            keys = rows.select([field.name for field in fields]).cast(pa.schema(fields))
            found.append(_dated_before(erased, [digests(keys)], times))
        together = reduce(pc.or_, found) if found else None
        return together if together is not None and pc.any(together).as_py() else None

    def _names(self, schema: Schema, rows: pa.Table) -> list[list[str]]:
        """Return the names by which the group itself may remember each row's entity."""
        keys = rows.select(schema.key_names).cast(pa.schema(schema.keys))
        names = [digests(keys)]
        # Earlier releases digested encoded keys, in the types that the version of that time had.
        for fields in dict.fromkeys(version.schema.keys for version in self._state.versions):
            encoded = Codec(replace(schema, keys=fields)).keys(keys)
            names.append([_earlier_digest(key) for key in encoded])
        return names


def _dated_before(erased: Mapping[str, int], names: Sequence[Sequence[str]], times: pa.ChunkedArray) -> pa.BooleanArray:
    """Return a mask of the rows whose time is at or before the erasure that one of their names has."""
    moments = times.cast(pa.int64()).to_pylist()
    # An entity that was never erased compares with a time before its own row.
    found = [
        any(moment <= erased.get(name, moment - 1) for name in each)
        for each, moment in zip(zip(*names, strict=True), moments, strict=True)
    ]
    return pa.array(found, pa.bool_())


def warn_of_return(catalog: Catalog, state: GroupState, schema: Schema, rows: Callable[[], Iterable[pa.Table]]) -> None:
    """Warn about written rows that bring erased entities back.

    Args:
        catalog: The catalog of the group's home.
        state: What is known of the group.
        schema: The schema of the rows.
        rows: Returns the rows, in stored types. It is called only if entities were erased.
    """
    if not state.erased:
        return
    erasures = Erasures(catalog, state)
    masks = [erasures.mask(schema, some) for some in rows()]
    if back := sum(pc.sum(mask).as_py() for mask in masks if mask is not None):
        notice(
            f"{state.record.label}: {plural(back)} of erased entities, dated at or before the erasure, stored "
            "again. If that was not intended, erase the entities again, and leave these rows out of the frame."
        )
