"""Pushes: single rows and small frames, stored offline and online in one idempotent call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Roles, Schema, difference, infer
from seeknal.errors import DataError, DefinitionError, plural
from seeknal.names import did_you_mean, quoted
from seeknal.offline import Write
from seeknal.registry import GroupRecord, GroupState
from seeknal.registry.catalog import Catalog
from seeknal.system.retry import Conflict
from seeknal.values import exact, frames
from seeknal.values.display import Shown
from seeknal.values.moments import utc
from seeknal.values.times import Interval, moment_of
from seeknal.write.erasures import Erasures
from seeknal.write.rows import check_ids, rows_to_store
from seeknal.write.writing import rows_of

Rows: TypeAlias = "pa.Table | Sequence[Mapping[str, Any]]"
"""Pushed rows, before they are checked."""


@dataclass(frozen=True)
class Pushed(Shown):
    """The result of a push.

    Args:
        group: Project and name of the group.
        version: Number of the version pushed to.
        snapshot: Number of the newest snapshot, which holds the rows; None if they are in the push log, from which the next read, or
            the next second, commits them.
        rows: Number of rows that were stored.
        known: Number of rows that were stored already, with equal values, and were not stored again.
        erased: Number of rows left out because they are dated at or before the erasure of their entity.
        first: Earliest event time of the rows that were not left out, known ones included, in microseconds since 1970; None if there
            are none.
        online: Number of entities of the version that are online now; None if the push loaded nothing. Lookups find the rows either way.
    """

    group: str
    version: int
    snapshot: int | None
    rows: int
    known: int
    erased: int
    first: int | None
    online: int | None = None

    _moments = {"first": "first_event"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def first_event(self) -> datetime | None:
        """Earliest event time of the rows that were not left out, in UTC; None if there are none."""
        return None if self.first is None else moment_of(self.first)

    def __str__(self) -> str:
        place = "in the push log" if self.snapshot is None else f"snapshot {self.snapshot}"
        parts = [f"{self.group} version {self.version}, {place}: {plural(self.rows)} pushed"]
        parts += [f"{self.known:,} known already"] if self.known else []
        parts += [f"{self.erased:,} of erased entities left out"] if self.erased else []
        parts += [f"{plural(self.online, 'entity')} online"] if self.online is not None else []
        return "; ".join(parts)


def push(catalog: Catalog, record: GroupRecord, given: Rows) -> tuple[Pushed, GroupState]:
    """Commit the rows that the group's current version does not hold yet.

    Args:
        catalog: The catalog of the group's home.
        record: The group.
        given: The rows, as `opened` returns them.

    Returns:
        The outcome, and the state of the group afterwards.

    Raises:
        DefinitionError: Nothing was written to the group yet.
        DataError: The rows do not fit the version; nothing was stored.
    """

    def step() -> tuple[Pushed, GroupState]:
        offline = catalog.offline(record.project, record.name)
        base = offline.newest()
        # The state is read after the snapshot, so that no erasure or deletion is overlooked: a later one makes the commit a conflict.
        state = catalog.state_of(record)
        version = catalog.version_of(state)
        if base is None or base.commit is None or base.commit.version != version.number:
            raise Conflict(f"Another writer changed {record.label} first.")
        schema = version.schema
        stored = conformed(given, schema, record)
        left = without(Erasures(catalog, state).mask(schema, stored), stored)
        # Rows that are stored with equal values are not stored again, so a push can be retried.
        if record.event_id is None:
            new = Write(offline.unknown(base, left, schema), schema, version.number, "append", Interval())
        else:
            new = offline.settled(base, Write(left, schema, version.number, "append", Interval(), are_events=True))
        snapshot = base.number
        if len(new.rows):
            snapshot = offline.write(base, new).snapshot
            state = catalog.committed(state)
            catalog.tidy(record, snapshot)
        # Rows known already count too: the push that stored them may have failed before it loaded them.
        known, erased = len(left) - len(new.rows), len(stored) - len(left)
        return Pushed(
            record.label, version.number, snapshot, len(new.rows), known, erased, first_of(left, schema)
        ), state

    return catalog.gate.committing(record, step)


def opened(catalog: Catalog, record: GroupRecord, rows: object) -> Rows:
    """Return pushed rows as mappings or as a table, read once.

    Raises:
        DefinitionError: The group is a source whose events have no id.
        DataError: They are no rows.
    """
    if record.event_id == ():
        raise DefinitionError(
            f"{record.label} has no event_id, so a push that is repeated after a failure would store its events twice. Append "
            "them by write(mode='append'), or push to a new source with event_id=[...], the columns that identify an event."
        )
    if isinstance(rows, Mapping):
        return [rows]
    return rows if isinstance(rows, list | tuple) else rows_of(catalog.state_of(record), frames.opened(rows))


def conformed(given: Rows, schema: Schema, record: GroupRecord) -> pa.Table:
    """Return pushed rows in the stored types of a version.

    Raises:
        DataError: The rows do not fit the version.
    """
    stored, _ = rows_to_store(_fitting(given, schema, record), schema, Interval(), drop_nulls=None)
    if record.event_id is not None:
        check_ids(stored, schema)
    for name in schema.key_names:
        if missing := stored[name].null_count:
            raise DataError(
                f"{plural(missing)} for {record.label} without {name!r}: no lookup would find them.", column=name
            )
    return stored


def without(erased: pa.BooleanArray | None, rows: pa.Table) -> pa.Table:
    """Return the rows without those dated at or before the erasure of their entity, which would bring it back."""
    return rows if erased is None else rows.filter(pc.invert(erased))


def first_of(rows: pa.Table, schema: Schema) -> int | None:
    """Return the earliest event time of rows, in microseconds since 1970; None if there are none."""
    first: int | None = pc.min(rows[schema.event_time.name].cast(pa.int64())).as_py()
    return first


def _fitting(rows: Rows, schema: Schema, record: GroupRecord) -> pa.Table:
    """Return the rows as a table with the columns of a version.

    Raises:
        DataError: The rows lack a column or have an unknown one, or a value does not fit.
    """
    if not isinstance(rows, pa.Table):
        return _from_mappings(rows, schema, record)
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
            raise DataError(f"{row!r} is not a row. Push a mapping from column to value, a list of them, or a frame.")
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


def exact_times(name: str, values: list[Any]) -> list[int]:
    """Return the times of pushed rows in microseconds since 1970, as they are stored."""
    times: list[int] = _moments(name, values).cast(pa.int64()).to_pylist()
    return times


def _moments(name: str, values: list[Any]) -> pa.ChunkedArray:
    """Read times of which each may have another form: text with a zone, text without one, or a Python value."""
    texts = [value if isinstance(value, str) else None for value in values]
    others = utc(name, exact.column(name, [None if isinstance(value, str) else value for value in values]), up=True)
    return pc.coalesce(utc(name, exact.column(name, texts, pa.string()), up=True), others)


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
