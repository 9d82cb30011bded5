"""Writing: a user's frame is checked, typed, dated, cut to the interval, and committed as one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.feature_group import FeatureGroup
from seeknal.define.schema import Change, Roles, Schema, check_evolution, difference, infer
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError, notice, plural
from seeknal.offline import Write
from seeknal.registry import GroupRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.records import WRITES
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values import types
from seeknal.values.content_hash import content_hash
from seeknal.values.display import Shown
from seeknal.values.frames import Frame, check_times_of_day
from seeknal.values.moments import utc
from seeknal.values.times import Interval, instant
from seeknal.write import notices
from seeknal.write.erasures import warn_of_return

_RECENT = 10
"""How many snapshots back the last write may be: compactions and the like may follow it."""
_FIRST, _LAST = instant("0001-01-01"), instant("9999-12-31", whole_day=True)


@dataclass(frozen=True)
class Written(Shown):
    """What a write did.

    Args:
        group: Project and name of the group.
        version: The version written to.
        snapshot: Number of the snapshot that the write made.
        rows: How many rows were written.
        replaced: How many rows that were stored before gave way (overwrite, merge).
        outside: How many rows of the frame lay outside the interval and were not written.
        changes: How the schema differs from that of the version before, if this write made a new one.
        online_rows: How many entities are online now, if the write loaded them.
        superseded: How many of the rows written are hidden by another row of the same join keys and event time: one of this
            write, or in a merge one that was stored and has a greater created time. A merge leaves them out; in other modes they
            are stored, but reads show one row.
    """

    group: str
    version: int
    snapshot: int
    rows: int
    replaced: int
    outside: int
    changes: tuple[Change, ...]
    online_rows: int | None = None
    superseded: int = 0

    def __str__(self) -> str:
        parts = [f"{self.group} version {self.version}, snapshot {self.snapshot}: {plural(self.rows)} written"]
        parts += (
            [f"{self.superseded:,} of them superseded by others of the same keys and time"] if self.superseded else []
        )
        parts += [f"{plural(self.replaced)} replaced"] if self.replaced else []
        parts += [f"{plural(self.outside)} outside the interval"] if self.outside else []
        parts += [f"{self.online_rows:,} entities online"] if self.online_rows is not None else []
        return "; ".join(parts + [str(change) for change in self.changes])


@dataclass(frozen=True)
class Job:
    """What somebody wants to be written.

    Args:
        group: The group; registered if it is new.
        rows: The frame, as Arrow.
        roles: Which of its columns are what.
        mode: "overwrite", "append" or "merge".
        interval: Rows outside are not written; `overwrite` replaces what is stored inside.
        drop_nulls: Leave out rows without an event time instead of refusing them.
    """

    group: FeatureGroup
    rows: pa.Table
    roles: Roles
    mode: str
    interval: Interval
    drop_nulls: bool

    def __post_init__(self) -> None:
        if self.mode not in WRITES:
            raise DefinitionError(f"mode={self.mode!r} is unknown. Choose one of {', '.join(WRITES)}.")

    @property
    def label(self) -> str:
        """Project and name of the group."""
        return f"{self.group.project}/{self.group.name}"


def rows_of(
    catalog: Catalog,
    record: GroupRecord | None,
    frame: Frame,
    names: Sequence[str] | None = None,
    declared: Mapping[str, pa.DataType] | None = None,
) -> pa.Table:
    """Return columns of a frame (all without names); text takes the types declared, and those of the group's version.

    Raises:
        DataError: A column cannot be read.
    """
    if frame.has_text:
        frame = frame.typed(catalog.kinds(record) | dict(declared or {}))
    return frame.table(names)


def write(catalog: Catalog, job: Job, lookback_days: int) -> Written:
    """Write rows as one snapshot, all or none; plan again when another writer was faster.

    Raises:
        DataError: The frame does not fit; nothing was stored.
        StoreError: Other writers were faster every time.
    """
    return retry_on_conflict(job.label, lambda: _try_to_write(catalog, job, lookback_days))


def _try_to_write(catalog: Catalog, job: Job, lookback_days: int) -> Written:
    group = job.group
    offline = catalog.offline(group.project, group.name)
    base = offline.snapshot() if offline.exists() else None
    old = base.commit if base else None
    schema = infer(job.rows, job.roles, old.schema if old else None)
    changes = check_evolution(group.name, old.schema, schema) if old else []
    rows, outside = rows_to_store(job.rows, schema, job.interval, job.drop_nulls)
    record = catalog.register(group)
    if base is None:
        offline.create(schema)
        base = offline.snapshot()
        if base.commit:
            raise Conflict(f"Another writer made {job.label} first.")
    if changes or old is None:
        number = max((version.number for version in catalog.versions(record)), default=0) + 1
    else:
        number = old.version
    repeats = offline.repeats(rows, schema)
    unsettled = offline.repeats(rows, schema, with_created=True) if repeats.rows and schema.created_time else repeats
    plan = Write(rows, schema, number, job.mode, job.interval, repeats.rows)
    commit = offline.write(base, plan)
    catalog.catch_up(record)
    catalog.tidy(record, commit.snapshot)
    stored = len(rows) - (commit.superseded if job.mode == "merge" else 0)
    replaced = base.rows + stored - commit.rows
    if outside:
        notice(f"{job.label}: {plural(outside)} outside {job.interval} and not written.")
    notices.warn_about_write(job.label, base, plan, replaced, lookback_days)
    notices.on_repeats(job.label, plan, unsettled)
    warn_of_return(catalog, record, schema, rows)
    if changes:
        notices.on_version(job.label, number, changes)
    return Written(
        job.label, number, commit.snapshot, len(rows), replaced, outside, tuple(changes), superseded=commit.superseded
    )


def already_stored(catalog: Catalog, engine: Engine, record: GroupRecord, job: Job) -> Written | None:
    """Return what a write did if it is an append of exactly the rows that were written last; None otherwise.

    So a caller can repeat an append that was stored, and then met an error, without storing its rows again.
    """
    offline = catalog.offline(record.project, record.name)
    base = offline.snapshot() if job.mode == "append" and offline.exists() else None
    if base is None or base.commit is None:
        return None
    recent = catalog.snapshots(record, base.commit.snapshot - _RECENT)
    last = next((one for one in reversed(recent) if one.mode in WRITES), None)
    if last is None or last.mode != job.mode or last.next_row_id != base.commit.next_row_id:
        return None
    schema = infer(job.rows, job.roles, base.commit.schema)
    if last.version != base.commit.version or difference(base.commit.schema, schema):
        return None
    rows, outside = rows_to_store(job.rows, schema, job.interval, job.drop_nulls)
    if not len(rows) or last.written != len(rows):
        return None
    stored = engine.sample(base.within(schema), len(rows)).select(schema.names)
    stored = stored.take(pa.array(range(len(stored) - 1, -1, -1), pa.int64()))
    if content_hash(stored) != content_hash(types.recast(rows, [field.type for field in stored.schema])):
        return None
    notice(
        f"{job.label}: the {plural(len(rows))} given are stored already, by the write before, and were not stored again."
    )
    return Written(job.label, last.version, last.number, 0, 0, outside, ())


def rows_to_store(table: pa.Table, schema: Schema, interval: Interval, drop_nulls: bool) -> tuple[pa.Table, int]:
    """Bring a frame's rows to the stored form of a schema.

    Args:
        table: The frame; columns that the schema does not have are left out.
        schema: The schema to fit.
        interval: Only rows whose event time lies in it are kept.
        drop_nulls: Leave out rows without an event time instead of refusing them.

    Returns:
        The rows, in the frame's order, and how many lay outside the interval.

    Raises:
        DataError: A value does not fit its type, a time is of no day, or an event time is missing.
    """
    times = [schema.event_time, *([schema.created_time] if schema.created_time else [])]
    rows = table.select(schema.names)
    for field in times:
        position = rows.column_names.index(field.name)
        rows = rows.set_column(position, field.name, utc(field.name, rows[field.name], up=True))
    check_times_of_day(rows)
    rows = types.recast(types.recast(rows, _logical_but_times(schema)), schema.stored_types)
    rows = _without_null_times(rows, schema.event_time.name, drop_nulls)
    _check_range(rows, schema.event_time.name)
    kept = _within(rows, schema.event_time.name, interval)
    return kept, len(rows) - len(kept)


def _logical_but_times(schema: Schema) -> list[pa.DataType]:
    times = {schema.event_time.name, schema.created_time.name if schema.created_time else None}
    kinds = zip(schema, schema.stored_types, strict=True)
    return [stored if field.name in times else field.type for field, stored in kinds]


def _without_null_times(rows: pa.Table, name: str, drop_nulls: bool) -> pa.Table:
    missing = rows[name].null_count
    if not missing:
        return rows
    if drop_nulls:
        return rows.filter(pc.is_valid(rows[name]))
    raise DataError(
        f"{missing:,} of {len(rows):,} rows have no {name!r}, so nobody could tell when they became true. "
        "Fill it in, or leave those rows out with write(drop_nulls=True).",
        column=name,
        rows=missing,
    )


def _check_range(rows: pa.Table, name: str) -> None:
    bounds = pc.min_max(rows[name].cast(pa.int64())).as_py()
    if bounds["min"] is not None and not _FIRST <= bounds["min"] <= bounds["max"] <= _LAST:
        raise DataError(f"Column {name!r} holds times before year 1 or after year 9999. Check its unit.", column=name)


def _within(rows: pa.Table, name: str, interval: Interval) -> pa.Table:
    moments = rows[name].cast(pa.int64())
    if interval.start is not None:
        rows = rows.filter(keep := pc.greater_equal(moments, interval.start))
        moments = moments.filter(keep)
    return rows if interval.end is None else rows.filter(pc.less_equal(moments, interval.end))
