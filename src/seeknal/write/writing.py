"""Writes: a user's frame is checked, cast, cut to an interval, and committed as one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.schema import Change, Roles, Schema, check_evolution, difference, infer
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError, GroupDeletedError, notice, plural
from seeknal.names import quoted
from seeknal.offline import Snapshot
from seeknal.registry import GroupState
from seeknal.registry.catalog import Catalog
from seeknal.registry.records import WRITES
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values.casting import recast
from seeknal.values.content_hash import content_hash
from seeknal.values.display import Shown
from seeknal.values.frames import Frame
from seeknal.values.frames.spark import InSpark
from seeknal.values.times import Interval
from seeknal.write import notices
from seeknal.write.erasures import warn_of_return
from seeknal.write.given import Asked, Given, InMemory
from seeknal.write.rows import rows_to_store

_RECENT = 10
"""How many snapshots back to look for the last write, which compactions and other rearrangements may follow."""


@dataclass(frozen=True)
class Written(Shown):
    """The result of a write.

    Args:
        group: Project and name of the group.
        version: Number of the version written to.
        snapshot: Number of the snapshot that the write made.
        rows: Number of rows written.
        replaced: Number of rows stored before that the write replaced (overwrite, merge, and corrections of events).
        outside: Number of rows of the frame outside the interval, which were not written.
        changes: Differences from the schema of the previous version, if this write made a new version.
        online_rows: Number of entities online now, if the write loaded them.
        superseded: Number of written rows that another row of the same join keys and event time hides: a row of this write,
            or, in a merge, a stored row with a greater created time. A merge leaves them out; the other modes store them,
            but reads show one row. Of events of a source, the number of those written that do not count.
        known: Number of events that were stored already, with equal values, and were not written again.
        are_events: Whether the group is a source of events.
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
    known: int = 0
    are_events: bool = False

    def __str__(self) -> str:
        parts = [f"{self.group} version {self.version}, snapshot {self.snapshot}: {plural(self.rows)} written"]
        parts += [f"{self.known:,} known already"] if self.known else []
        same = "event" if self.are_events else "keys and time"
        parts += [f"{self.superseded:,} of them superseded by others of the same {same}"] if self.superseded else []
        parts += [f"{plural(self.replaced)} replaced"] if self.replaced else []
        parts += [f"{plural(self.outside)} outside the interval"] if self.outside else []
        parts += [f"{plural(self.online_rows, 'entity')} online"] if self.online_rows is not None else []
        return "; ".join(parts + [str(change) for change in self.changes])


@dataclass(frozen=True)
class Job:
    """A request to write rows.

    Args:
        group: The group; registered if it is new.
        given: The rows of the frame.
        roles: The roles of its columns.
        mode: "overwrite", "append" or "merge".
        interval: Rows outside it are not written; `overwrite` replaces the stored rows inside it.
        drop_nulls: Leave out rows without an event time instead of refusing them.
    """

    group: FeatureGroup
    given: Given
    roles: Roles
    mode: str
    interval: Interval
    drop_nulls: bool

    def __post_init__(self) -> None:
        if self.mode not in WRITES:
            raise DefinitionError(f"mode={self.mode!r} is unknown. Choose one of {', '.join(WRITES)}.")
        if self.mode == "merge" and self.event_id == ():
            raise DefinitionError(
                f"{self.label} has no event_id, so no two rows of it are the same event, and none can be merged. Write with "
                "mode='append', or to a new source with event_id=[...], the columns that identify an event."
            )

    @property
    def event_id(self) -> tuple[str, ...] | None:
        """The columns that identify an event, if the rows are events of a source; None if they are not."""
        return self.group.event_id if isinstance(self.group, EventGroup) else None

    @property
    def label(self) -> str:
        """Project and name of the group."""
        return f"{self.group.project}/{self.group.name}"


def given_rows(state: GroupState | None, frame: Frame, roles: Roles, *, by_executors: bool) -> Given:
    """Return the rows of a frame that is to be written.

    Args:
        state: The known state of the group.
        frame: The frame.
        roles: The roles of its columns.
        by_executors: Whether those of Spark write the rows of a Spark DataFrame.

    Raises:
        DataError: A column cannot be read.
    """
    names = roles.features and roles.named
    if by_executors and isinstance(frame, InSpark):
        from seeknal.write.distributed import InExecutors

        return InExecutors(frame, names)
    return InMemory(rows_of(state, frame, names, roles.declared))


def rows_of(
    state: GroupState | None,
    frame: Frame,
    names: Sequence[str] | None = None,
    declared: Mapping[str, pa.DataType] | None = None,
) -> pa.Table:
    """Return columns of a frame as an Arrow table, all of them if no names are given.

    Text of files takes the declared types, else those of the group's current version.

    Raises:
        DataError: A column cannot be read.
    """
    if frame.has_text:
        version = state.current if state else None
        fields = (*version.schema.keys, *version.schema.features) if version else ()
        frame = frame.typed({field.name: field.type for field in fields} | dict(declared or {}))
    return frame.table(names)


def write(catalog: Catalog, job: Job, lookback_days: int, known: GroupState | None) -> tuple[Written, GroupState]:
    """Write rows as one snapshot, all or none; re-plan and retry when another writer committed first.

    Args:
        catalog: The catalog of the group's home.
        job: What to write.
        lookback_days: How many days before the bulk of its rows a write's interval may start without a warning.
        known: The known state of the group; None: it is not registered yet.

    Returns:
        The outcome, and the state of the group afterwards.

    Raises:
        DataError: The frame does not fit; nothing was stored.
        StoreError: Other writers committed first on every attempt.
        GroupDeletedError: The group was deleted after the commit. If it is deleted before, the write creates it again.
    """
    first = [known]

    def step() -> tuple[Written, GroupState]:
        # Only the first attempt uses the state that the caller has read.
        known = first.pop() if first else catalog.known_state(job.group)
        return catalog.gate.closed(lambda: _try_to_write(catalog, job, lookback_days, known))

    return retry_on_conflict(job.label, step)


def _registered(catalog: Catalog, job: Job, known: GroupState | None, base: Snapshot | None) -> GroupState:
    """Register the group of a write, and return its state, which is at least as new as the base snapshot.

    A commit on the snapshot fails if the folder has another table by then. So if the commit succeeds, the folder had this table all
    the time, and the table is that of the returned group.

    Raises:
        Conflict: The group was deleted meanwhile.
    """
    try:
        known = catalog.known_state(job.group) if _is_behind(known, base) else known
        record = catalog.register(job.group, known.record if known else None)
        return known if known and known.record.id == record.id else catalog.state_of(record)
    except GroupDeletedError as error:
        raise Conflict(str(error)) from error


def _is_behind(known: GroupState | None, base: Snapshot | None) -> bool:
    """Return whether the known state of a group belongs to another table than a snapshot, or to a time before its commit."""
    commit = base.commit if base else None
    if known is None:
        return commit is not None
    is_other = known.table != (base.identity if base else "")
    return is_other or (commit is not None and known.last_snapshot < commit.snapshot)


def _created(catalog: Catalog, state: GroupState, schema: Schema) -> Snapshot:
    """Create the table of a group, and return its empty snapshot.

    Raises:
        Conflict: Another writer created and filled it first, or the group was deleted meanwhile.
    """
    record = state.record
    offline = catalog.offline(record.project, record.name)
    try:
        catalog.lifetimes.begin(record, offline, schema)
    except GroupDeletedError as error:
        raise Conflict(str(error)) from error
    base = offline.newest()
    if base is None or base.commit:
        raise Conflict(f"Another writer made {record.label} first.")
    return base


def _try_to_write(
    catalog: Catalog, job: Job, lookback_days: int, known: GroupState | None
) -> tuple[Written, GroupState]:
    group = job.group
    offline = catalog.offline(group.project, group.name)
    base = offline.newest()
    old = base.commit if base else None
    schema = job.given.schema(job.roles, old.schema if old else None)
    # The rows are checked before anything is registered or created, so that invalid input leaves no trace.
    changes = check_evolution(group.name, old.schema, schema) if old else []
    _refuse_narrower(job, changes)
    rows = job.given.checked(schema, Asked(job.mode, job.interval, job.drop_nulls, job.event_id))
    state = _registered(catalog, job, known, base)
    base = base or _created(catalog, state, schema)
    if changes or old is None:
        # Not the current version plus one: after a rollback, later versions exist.
        number = max((version.number for version in state.versions), default=0) + 1
    else:
        number = old.version
    plan = rows.to_write(offline, number)
    commit = offline.write(base, plan)
    state = catalog.committed(state)
    catalog.tidy(state.record, commit.snapshot)
    # A merge does not store its superseded rows, and of events the stored ones do not count. What is missing from old and new rows
    # together was replaced.
    stored = commit.written - (commit.superseded if job.mode == "merge" or plan.are_events else 0)
    replaced = base.rows + stored - commit.rows
    if rows.outside:
        notice(f"{job.label}: {plural(rows.outside)} outside {job.interval} and not written.")
    notices.warn_about_write(job.label, base, plan, rows.facts(offline, commit), replaced, lookback_days)
    notices.on_repeats(job.label, plan, rows.count, rows.unsettled())
    warn_of_return(catalog, state, schema, lambda: rows.tables(offline, commit))
    if changes and old:
        notices.on_version(job.label, old.version, number, changes)
    written = Written(
        job.label,
        number,
        commit.snapshot,
        commit.written,
        replaced,
        rows.outside,
        tuple(changes),
        superseded=commit.superseded,
        known=rows.count - commit.written,
        are_events=plan.are_events,
    )
    return written, state


def _refuse_narrower(job: Job, changes: Sequence[Change]) -> None:
    """Check that events which are added have all columns of the stored ones, which would otherwise lose them.

    Raises:
        DataError: They lack one.
    """
    removed = [change.name for change in changes if change.new is None]
    if removed and job.event_id is not None and job.mode != "overwrite":
        raise DataError(
            f"The frame for {job.label} lacks {quoted(removed)}, which its events have. Add the column, with nulls where it is not "
            "known. To remove it from all events, write them with mode='overwrite'.",
            column=removed[0],
        )


def already_stored(catalog: Catalog, engine: Engine, state: GroupState, job: Job) -> tuple[Written, GroupState] | None:
    """Return the result of an append whose rows are exactly those of the last write, which stores nothing; None otherwise.

    This makes such an append safe to retry: if it was stored and then failed, a repeated call does not store its rows twice.
    """
    record = state.record
    offline = catalog.offline(record.project, record.name)
    base = offline.newest() if job.mode == "append" else None
    if base is None or base.commit is None:
        return None
    recent = catalog.snapshots(record, base.commit.snapshot - _RECENT)
    last = next((one for one in reversed(recent) if one.mode in WRITES), None)
    # A later next_row_id means that rows were added since, by an adoption.
    if last is None or last.mode != job.mode or last.next_row_id != base.commit.next_row_id:
        return None
    table = job.given.table()
    schema = infer(table, job.roles, base.commit.schema)
    if last.version != base.commit.version or difference(base.commit.schema, schema):
        return None
    rows, outside = rows_to_store(table, schema, job.interval, job.drop_nulls)
    if not len(rows) or last.written != len(rows):
        return None
    # A sample begins with the row written last, so its order is reversed to compare it with the frame.
    stored = engine.sample(base.within(schema), len(rows)).select(schema.names)
    stored = stored.take(pa.array(range(len(stored) - 1, -1, -1), pa.int64()))
    if content_hash(stored) != content_hash(recast(rows, [field.type for field in stored.schema])):
        return None
    notice(f"{job.label}: the previous write stored exactly the same {plural(len(rows))}, so nothing was stored again.")
    return Written(job.label, last.version, last.number, 0, 0, outside, ()), state
