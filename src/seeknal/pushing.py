"""Pushing: single rows and small frames go offline and online in one call, and however often they come, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from hashlib import blake2b
from itertools import accumulate
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

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
from seeknal.writing import rows_of, rows_to_store


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
    given = rows if isinstance(rows, Mapping | list | tuple) else rows_of(catalog, record, frames.opened(rows))

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
                columns[field.name] = read_keys(field.name, values, field.type, "the rows pushed")
            elif field in schema.features:
                columns[field.name] = _exactly(values, field.type)
            else:  # each may be written in its own way
                found = map(_found, values)
                moments = [utc(field.name, pa.chunked_array([pa.array([one], one.type)]), up=True) for one in found]
                columns[field.name] = pa.chunked_array([chunk for one in moments for chunk in one.chunks], UTC)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"{field.name} is {field.type}, and does not fit: {error}", column=field.name) from None
    return pa.table(columns)


def _exactly(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of a type; Arrow alone would cut 5.9 down to 5, a time down to its seconds, and take True for 1.

    Raises:
        TypeError: A value is of another kind.
        ValueError: A value has no exact place in the type, or is beyond its range.
    """
    if is_.is_struct(kind):
        return _structs(values, kind)
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        return _lists(values, kind)
    for test, convert in _CONVERT:
        if test(kind):
            return pa.array([None if value is None else convert(value, kind) for value in values], kind)
    if is_.is_decimal(kind):
        return pa.array([value.cast(kind) if isinstance(value, pa.Scalar) else value for value in values], kind)
    found = pa.array(values)
    if is_.is_null(found.type) or any(test(found.type) and test(kind) for test in _SIMPLE):
        return found.cast(kind)
    raise TypeError(f"the values are {found.type}")


def _structs(values: Sequence[Any], kind: pa.StructType) -> pa.Array:
    names = {field.name for field in kind}
    for value in values:
        if not isinstance(value, Mapping | None):
            raise TypeError(f"{value!r} is no mapping")
        if unknown := [name for name in value or () if name not in names]:
            raise TypeError(f"{kind} has no field {unknown[0]!r}")
    parts = [_exactly([value and value.get(field.name) for value in values], field.type) for field in kind]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=_nulls(values))


def _lists(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    lists = [None if value is None else _listed(value) for value in values]
    if not is_.is_fixed_size_list(kind):
        inside = _exactly([one for some in lists for one in some or ()], kind.value_type)
        ends = accumulate((len(some or ()) for some in lists), initial=0)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inside, type=kind, mask=_nulls(values))
    size = kind.list_size
    if wrong := [some for some in lists if some is not None and len(some) != size]:
        raise ValueError(f"a list has {len(wrong[0])} values, not {size}")
    inside = _exactly([one for some in lists for one in some or [None] * size], kind.value_type)
    return pa.FixedSizeListArray.from_arrays(inside, type=kind, mask=_nulls(values))


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{value!r} is no list")
    return list(value)


def _nulls(values: Sequence[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def _whole(value: Any, kind: pa.DataType) -> int:
    number = int(value) if isinstance(value, float | np.floating) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"{value!r} is no whole number")
    limits = np.iinfo(kind.to_pandas_dtype())
    if not limits.min <= int(number) <= limits.max:
        raise ValueError(f"{value} is beyond the range of {kind}")
    return int(number)


def _float(value: Any, kind: pa.DataType) -> Any:
    """Round as people expect of floats, but no whole number, which may count something, and nothing to infinity."""
    if isinstance(value, bool) or not isinstance(value, Integral | float | np.floating):
        raise TypeError(f"{value!r} is no number")
    with np.errstate(over="ignore"):
        near = kind.to_pandas_dtype()(value)
    if math.isinf(near) and not math.isinf(value):
        raise ValueError(f"{value} is beyond the range of {kind}")
    if isinstance(value, Integral) and int(near) != value:
        raise ValueError(f"{value} has no exact place in {kind}")
    return near


def _moment(value: Any, kind: pa.DataType) -> pa.Scalar:
    if isinstance(value, time) and value.tzinfo is not None:
        raise TypeError(f"{value} has a zone, which a time of day has not")
    given = _found(value)
    if not any(test(given.type) and test(kind) for test in _TEMPORAL):
        raise TypeError(f"{value!r} is {given.type}")
    cast = given.cast(kind)
    if not cast.cast(given.type).equals(given):
        raise ValueError(f"{value} has no exact place in {kind}")
    return cast


def _found(value: Any) -> pa.Scalar:
    """Give a value as what Arrow finds it to be; of moments of pandas it would not find the nanoseconds."""
    plain = getattr(value, "asm8", value)
    if isinstance(plain, np.generic):
        return pa.array(np.array([plain]))[0]
    return plain if isinstance(plain, pa.Scalar) else pa.scalar(plain)


_CONVERT: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.DataType], Any]], ...] = (
    (is_.is_integer, _whole),
    (is_.is_floating, _float),
    (is_.is_temporal, _moment),
)
_TEMPORAL = is_.is_time, is_.is_duration, lambda kind: is_.is_timestamp(kind) or is_.is_date(kind)
_SIMPLE = is_.is_boolean, is_.is_string, lambda kind: is_.is_binary(kind) or is_.is_fixed_size_binary(kind)


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
