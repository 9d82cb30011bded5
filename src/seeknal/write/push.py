"""Pushing: single rows and small frames go offline and online in one call, and however often they come, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Roles, Schema, difference, infer
from seeknal.errors import DataError, plural
from seeknal.names import did_you_mean, quoted
from seeknal.offline import Write
from seeknal.registry import GroupRecord
from seeknal.registry.catalog import Catalog
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values import exact, frames
from seeknal.values.display import Shown
from seeknal.values.moments import utc
from seeknal.values.times import Interval, moment_of
from seeknal.values.types import UTC
from seeknal.write.erasures import is_erased
from seeknal.write.writing import rows_of, rows_to_store


@dataclass(frozen=True)
class Pushed(Shown):
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

    _moments = {"first": "first_event"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def first_event(self) -> datetime | None:
        """The earliest event time among the rows that count, in UTC; None if there are none."""
        return None if self.first is None else moment_of(self.first)

    def __str__(self) -> str:
        parts = [f"{self.group} version {self.version}, snapshot {self.snapshot}: {plural(self.rows)} pushed"]
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
                    f"{plural(missing)} for {record.label} without {name!r}: no lookup would find them.", column=name
                )
        left = _not_erased(catalog, record, schema, stored)
        new = offline.unknown(base, left, schema)
        snapshot = base.number
        if len(new):
            snapshot = offline.write(base, Write(new, schema, version.number, "append", Interval())).snapshot
            catalog.catch_up(record)
            catalog.tidy(record, snapshot)
        first = pc.min(left[schema.event_time.name].cast(pa.int64())).as_py()
        return Pushed(
            record.label, version.number, snapshot, len(new), len(left) - len(new), len(stored) - len(left), first
        )

    return retry_on_conflict(record.label, step)


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
        if field in schema.keys:
            columns[field.name] = exact.read_keys(field.name, values, field.type, "the rows pushed")
        elif field in schema.features:
            columns[field.name] = exact.column(field.name, values, field.type)
        else:
            columns[field.name] = _moments(field.name, values)
    return pa.table(columns)


def _moments(name: str, values: list[Any]) -> pa.ChunkedArray:
    """Read event times, of which each may be written in its own way: as text, with a zone or without, or as a moment."""
    texts = [value if isinstance(value, str) else None for value in values]
    others = utc(name, exact.column(name, [None if isinstance(value, str) else value for value in values]), up=True)
    whole = exact.column(name, texts, pa.string())
    try:
        read = utc(name, whole, up=True)
    except DataError:  # some have a zone and some have none, or one cannot be read: then this says which
        each = [utc(name, whole.slice(row, 1), up=True, first=row) for row in range(len(whole))]
        read = pa.chunked_array([chunk for one in each for chunk in one.chunks], UTC)
    return pc.coalesce(read, others)


def _check_names(names: Sequence[str], schema: Schema, record: GroupRecord) -> None:
    if lacking := [name for name in schema.names if name not in names]:
        raise DataError(
            f"A row for {record.label} lacks {quoted(lacking)}. A push takes whole rows: {', '.join(schema.names)}.",
            column=lacking[0],
        )
    if extra := [name for name in names if name not in schema.names]:
        raise DataError(
            f"A row for {record.label} has {quoted(extra)}, which its version does not.{did_you_mean(extra[0], schema.names)} "
            "A push makes no new version; write() does.",
            column=extra[0],
        )


def _not_erased(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> pa.Table:
    """Leave out what happened to an entity before it was erased, for it would come back."""
    gone = is_erased(catalog, record, schema, rows)
    return rows if gone is None else rows.filter(pc.invert(gone))
