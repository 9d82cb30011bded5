"""Pushing: single rows and small frames go offline and online in one call, and however often they come, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal import frames
from seeknal.catalog import Catalog
from seeknal.columns import utc
from seeknal.errors import DataError, tally
from seeknal.names import did_you_mean
from seeknal.offline import Write
from seeknal.online import Codec, read_keys
from seeknal.registry import GroupRecord
from seeknal.schema import UTC, Roles, Schema, difference, infer
from seeknal.times import Interval
from seeknal.turns import Conflict, take_turns
from seeknal.writing import rows_to_store


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Args:
        group: Project and name of the group.
        version: The version pushed to.
        snapshot: The newest snapshot, which holds the rows.
        rows: How many rows were stored.
        known: How many were there already, value by value, and were not stored again.
        erased: How many were left out, because their entity was erased after they happened.
        first: The earliest event time among the rows that count, in microseconds since 1970; None if there are none.
        online: How many entities of the version are online now; None if there was nothing to bring online.
    """

    group: str
    version: int
    snapshot: int
    rows: int
    known: int
    erased: int
    first: int | None
    online: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.group} version {self.version}, snapshot {self.snapshot}: {tally(self.rows)} pushed"]
        parts += [f"{self.known:,} known already"] if self.known else []
        parts += [f"{self.erased:,} of erased entities left out"] if self.erased else []
        parts += [f"{self.online:,} entities online"] if self.online is not None else []
        return "; ".join(parts)


def push(catalog: Catalog, record: GroupRecord, rows: object) -> Pushed:
    """Store rows of a group's current version that are not stored yet.

    Args:
        catalog: Where the group is.
        record: The group.
        rows: A mapping, a list of mappings, or a frame, with all columns of the version.

    Raises:
        DefinitionError: Nothing was written to the group yet.
        DataError: The rows do not fit the version; nothing was stored.
    """
    given = rows if isinstance(rows, Mapping | list | tuple) else frames.to_arrow(rows)

    def step() -> Pushed:
        schema = catalog.version(record).schema
        offline = catalog.offline(record.project, record.name)
        base = offline.snapshot()
        version = catalog.version(record)  # after the snapshot: if another write makes a new one, this is planned again
        if version.schema != schema or base.commit is None or base.commit.version != version.number:
            raise Conflict(f"Another writer changed {record.label} first.")
        stored, _ = rows_to_store(_fitting(given, schema, record), schema, Interval(), drop_nulls=False)
        for name in schema.key_names:
            if missing := stored[name].null_count:
                raise DataError(
                    f"{tally(missing)} for {record.label} without {name!r}: no lookup would find them.", column=name
                )
        left = _not_erased(catalog, record, schema, stored)
        new = offline.unknown(base, left, schema)
        snapshot = base.number
        if len(new):
            snapshot = offline.write(base, Write(new, schema, version.number, "append", Interval())).snapshot
            catalog.catch_up(record)
        first = pc.min(left[schema.event_time.name].cast(pa.int64())).as_py()
        return Pushed(
            record.label, version.number, snapshot, len(new), len(left) - len(new), len(stored) - len(left), first
        )

    return take_turns(record.label, step)


def digest(key: bytes) -> str:
    """Give what an erased entity is remembered by."""
    return blake2b(key, digest_size=32, person=b"seeknal erasure").hexdigest()


def _fitting(rows: object, schema: Schema, record: GroupRecord) -> pa.Table:
    """Give rows as a table of a version's columns.

    Raises:
        DataError: They lack a column, have one too many, or a value does not fit.
    """
    if not isinstance(rows, pa.Table):
        return _from_mappings([rows] if isinstance(rows, Mapping) else rows, schema, record)  # type: ignore[arg-type]
    _check_names(rows.column_names, schema, record)
    created = schema.created_time.name if schema.created_time else None
    features = tuple(schema.feature_names)
    roles = Roles(record.name, tuple(schema.key_names), schema.event_time.name, created, features)
    found = infer(rows, roles, schema)
    if changes := difference(schema, found):
        raise DataError(
            f"The rows do not fit {record.label}: {', '.join(map(str, changes))}. A push makes no new version: cast the "
            "column, or call write()."
        )
    return rows


def _from_mappings(rows: Sequence[Mapping[str, Any]], schema: Schema, record: GroupRecord) -> pa.Table:
    for row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"{row!r} is no row. Push a mapping from column to value, a list of them, or a frame.")
        _check_names(list(row), schema, record)
    columns = {}
    for field in schema:
        values = [row[field.name] for row in rows]
        try:
            if field in schema.keys:
                columns[field.name] = read_keys(field.name, values, field.type)
            elif field in schema.features:
                columns[field.name] = _exactly(values, field.type)
            else:  # each may be written in its own way
                moments = (utc(field.name, pa.chunked_array([pa.array([one])]), up=True) for one in values)
                columns[field.name] = pa.chunked_array([chunk for one in moments for chunk in one.chunks], UTC)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"{field.name} is {field.type}, and does not fit: {error}", column=field.name) from None
    return pa.table(columns)


def _exactly(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of a type; Arrow alone would cut 5.9 down to 5, and take True for 1.

    Raises:
        TypeError: The values are of another kind.
        pa.ArrowInvalid: A number does not fit.
    """
    if pa.types.is_nested(kind):
        if any(isinstance(value, str | bytes) for value in values):
            raise TypeError("a value is text")
        for value in values:
            _refuse_unknown_fields(value, kind)
    simple = pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_binary
    if not any(test(kind) for test in simple):
        return pa.array(values, kind)
    found = pa.array(values)
    numbers = all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in (found.type, kind))
    if numbers or any(test(found.type) and test(kind) for test in simple) or pa.types.is_null(found.type):
        return found.cast(kind)
    raise TypeError(f"the values are {found.type}")


def _refuse_unknown_fields(value: Any, kind: pa.DataType) -> None:
    """Refuse what Arrow would leave out.

    Raises:
        TypeError: A mapping has a field that its type has not.
    """
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        known = {field.name: field.type for field in kind}
        for name, inside in value.items():
            if name not in known:
                raise TypeError(f"{kind} has no field {name!r}")
            _refuse_unknown_fields(inside, known[name])
    elif (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and isinstance(value, Sequence):
        for inside in value:
            _refuse_unknown_fields(inside, kind.value_type)


def _check_names(names: Sequence[str], schema: Schema, record: GroupRecord) -> None:
    if lacking := [name for name in schema.names if name not in names]:
        raise DataError(
            f"A row for {record.label} lacks {lacking[0]!r}. A push takes whole rows: {', '.join(schema.names)}.",
            column=lacking[0],
        )
    if extra := [name for name in names if name not in schema.names]:
        raise DataError(
            f"A row for {record.label} has {extra[0]!r}, which its version does not.{did_you_mean(extra[0], schema.names)} "
            "A push makes no new version; write() does.",
            column=extra[0],
        )


def _not_erased(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> pa.Table:
    """Leave out what happened to an entity before it was erased, for it would come back."""
    erased = catalog.registry.erasures(record)
    if not erased or not len(rows):
        return rows
    moments = rows[schema.event_time.name].cast(pa.int64()).to_pylist()
    keys = Codec(schema).stored_keys(rows)
    keep = [moment > erased.get(digest(key), moment - 1) for key, moment in zip(keys, moments, strict=True)]
    return rows.filter(pa.array(keep, pa.bool_()))
