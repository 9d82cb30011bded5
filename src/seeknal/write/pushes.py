"""Pushes through the push log: acknowledged in a fraction of a millisecond, and committed in batches.

A push goes through the log if each of its rows is certain to be new; see `Stream`. Everything else, such as a replay, a correction or a
late row of a feature group, is committed at once; see `seeknal.write.push`. So the rows in the log replace nothing, and a lookup only has
to add them to what is online.

What is in the log is committed before the group's rows are read by any process, or about a second after the push by the process that
pushed it. The commit is dated to the last push in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from seeknal.define.aggregations import mask_name
from seeknal.define.schema import Schema
from seeknal.errors import DataError, StoreError, plural
from seeknal.offline import Snapshot, Write
from seeknal.offline.evolution import evolved
from seeknal.offline.plan import Settled
from seeknal.offline.push_log import Entry
from seeknal.registry import GroupRecord, GroupState
from seeknal.registry.catalog import Catalog
from seeknal.system.forks import PerProcess
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.values.times import Interval, now
from seeknal.write.erasures import Erasures
from seeknal.write.push import Pushed, Rows, conformed, exact_times, first_of, without
from seeknal.write.streams import Facts, New, Stream, only_pushed

if TYPE_CHECKING:
    from seeknal.engine import Engine

MOST_ROWS = 10_000
"""A push of more rows is committed at once."""
_PATIENCE = 10.0
"""How many seconds a process that may not write waits until another one has committed what is in the log."""
_STEP = 0.02
_TRIES = 100
"""How often a push plans anew because the registry or the table has changed, before it is committed at once."""


class LoggedPushes:
    """The pushes of a home that go through its push log.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine, which evaluates the conditions of windowed groups.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine]) -> None:
        self._catalog = catalog
        self._engine = engine
        self._log = catalog.pushes
        self._streams = PerProcess(dict[str, Stream])

    def push(self, record: GroupRecord, given: Rows) -> Pushed | None:
        """Append rows to the push log; return None if they have to be committed at once.

        Raises:
            DataError: The rows do not fit the group's version; nothing was stored.
            StoreError: The log could not be written; nothing was stored.
        """
        if not 0 < len(given) <= MOST_ROWS or not self._log.is_writable:
            return None
        stream = self._stream(record)
        # The first push of a process is committed at once, because it may be the only one, and to find out whether it can be loaded.
        return self._catalog.gate.closed(lambda: self._push(stream, given)) if stream.pushes else None

    def committed(self, record: GroupRecord) -> None:
        """Note that a push was committed at once and loaded; the next ones may go through the log."""
        self._stream(record).pushes += 1

    def refused(self, record: GroupRecord) -> None:
        """Note that pushes could not be loaded; the next ones are committed at once, so that their callers hear of it."""
        self._stream(record).pushes = 0

    def _stream(self, record: GroupRecord) -> Stream:
        streams = self._streams()
        return streams.get(record.stream) or streams.setdefault(record.stream, Stream(self._catalog, record))

    def push_together(self, record: GroupRecord, every: Sequence[Sequence[Mapping[str, Any]]]) -> list[Pushed] | None:
        """Append the rows of several callers as one entry, and return the result for each; None if `push` returns None.

        Raises:
            DataError: Rows do not fit the group's version; nothing was stored.
            StoreError: The log could not be written; nothing was stored.
        """
        rows = [row for one in every for row in one]
        if (pushed := self.push(record, rows)) is None:
            return None
        if len(every) == 1:
            return [pushed]
        name = record.group.materialization.event_time_col or ""  # a group that was written to has one
        times = iter(exact_times(name, [row[name] for row in rows]))
        firsts = [min(next(times) for _ in one) for one in every]
        return [replace(pushed, rows=len(one), first=first) for one, first in zip(every, firsts, strict=True)]

    def _push(self, stream: Stream, given: Rows) -> Pushed | None:
        for attempt in range(_TRIES):
            if attempt or not stream.is_ready:
                with stream.lock:
                    if not stream.update():
                        return None
            if (waiting := self._waiting(stream, given)) is None:
                return None
            stream.waiting.append(waiting)
            # Who gets the lock first appends what all others have waiting for it, in one transaction.
            with stream.lock:
                if waiting.outcome is None:
                    every, stream.waiting = stream.waiting, []
                    self._append(stream, every if waiting in every else [*every, waiting])
            if waiting.outcome is not Outcome.OUTDATED:
                return waiting.pushed if waiting.outcome is Outcome.APPENDED else None
        return None

    def _waiting(self, stream: Stream, given: Rows) -> Waiting | None:
        """Return rows as they are to be appended; None if one of them is not new, for all that can be told yet."""
        record, facts = stream.record, stream.facts
        assert facts  # noqa: S101 - the caller has updated them
        version, schema = facts.version.number, facts.schema
        plain = None if isinstance(given, pa.Table) else facts.plain.table(given)
        rows = conformed(given, schema, record) if plain is None else plain
        if (new := facts.may_be_new(rows)) is None:
            return None
        masks: Mapping[str, pa.ChunkedArray] = {}
        if facts.conditions:
            try:
                found = self._engine().conditions(schema, rows, facts.conditions)
            except DataError:  # the load, which evaluates the conditions as well, says what to do
                return None
            masks = dict(zip(facts.conditions, found, strict=True))
        pushed = Pushed(record.label, version, None, len(rows), 0, 0, new.first)
        return Waiting(facts, new, _entry(version, rows, masks), pushed)

    def _append(self, stream: Stream, every: Sequence[Waiting]) -> None:
        """Append the rows that wait, as far as they are new, and say which were."""

        def make(others: Sequence[Entry]) -> list[Entry]:
            if not stream.is_current or stream.facts is None:
                return []
            for other in others:
                stream.learn_others(stream.facts, _rows(other))
            checked = [one for one in every if one.facts is stream.facts]
            accepted = [one for one in checked if stream.learn(one.new)]
            outcomes.update(dict.fromkeys(checked, Outcome.KNOWN))
            outcomes.update(dict.fromkeys(accepted, Outcome.APPENDED))
            return [one.entry._replace(base=stream.snapshot, at=now()) for one in accepted]

        outcomes: dict[Waiting, Outcome] = {}
        last = self._log.append(stream.record.stream, stream.seen, make)
        if outcomes:  # else what others have appended is still to be learned
            stream.seen = last
        for one in every:
            one.outcome = outcomes.get(one, Outcome.OUTDATED)

    def commit(self, record: GroupRecord) -> Committed | None:
        """Commit the entries of a group that are in no snapshot yet; return None if it has no entries.

        Raises:
            StoreError: They could not be committed; or this user may not do so, and no other process has.
            GroupDeletedError: The group was deleted.
        """
        log = self._catalog.log(record)
        if not log.is_writable:
            self._wait(record)
            return None
        with log.pushing():
            contents = self._log.contents(record.stream)
            if not contents.entries:
                return None
            last, stored = contents.entries[-1].number, contents.last_stored
            if new := [entry for entry in contents.entries if entry.number > stored]:
                snapshot = retry_on_conflict(record.label, lambda: self._store(record, new))
                self._log.store(record.stream, last, snapshot)
        state = self._catalog.state_of(record)
        schema = self._catalog.version_of(state).schema
        firsts = [first_of(_rows(entry), schema) for entry in contents.entries]
        return Committed(state, last, min(first for first in firsts if first is not None))

    def _store(self, record: GroupRecord, new: Sequence[Entry]) -> int:
        """Commit entries as one snapshot, and return its number."""
        offline = self._catalog.offline(record.project, record.name)
        base = offline.newest()
        state = self._catalog.state_of(record)
        if base is None or base.commit is None:
            raise Conflict(f"{record.label} has no rows yet.")
        version = self._catalog.version_of(state, base.commit.version)
        parts = [_fitted(entry, self._catalog.version_of(state, entry.version).schema, version.schema) for entry in new]
        rows = pa.concat_tables(parts).combine_chunks()
        # Entities may have been erased since.
        rows = without(Erasures(self._catalog, state).mask(version.schema, rows), rows)
        write = self._plan(
            record, base, new, Write(rows, version.schema, version.number, "append", Interval(), at=new[-1].at)
        )
        if not len(write.rows):
            return base.number
        self._log.take(record.stream, new[-1].number, base.number + 1)
        snapshot = offline.write(base, write).snapshot
        self._catalog.committed(state)
        self._catalog.tidy(record, snapshot)
        return snapshot

    def _plan(self, record: GroupRecord, base: Snapshot, new: Sequence[Entry], write: Write) -> Write:
        """Return the write of entries without the rows that are stored, which an interrupted commit may have left."""
        offline, are_events = self._catalog.offline(record.project, record.name), record.event_id is not None
        write = replace(write, are_events=are_events)
        between = min(entry.base for entry in new), base.number
        if only_pushed(self._catalog, record, between, self._log.contents(record.stream, new[-1].number).batches):
            hidden = base.commit.hidden if base.commit else 0
            return replace(write, settled=Settled.as_new(len(write.rows), hidden)) if are_events else write
        if are_events:
            return offline.settled(base, write)
        return replace(write, rows=offline.unknown(base, write.rows, write.schema))

    def _wait(self, record: GroupRecord) -> None:
        """Wait until another process has committed what is in the log now."""
        if not (entries := self._log.contents(record.stream).entries):
            return
        last, until = entries[-1].number, time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            contents = self._log.contents(record.stream)
            if not contents.entries or contents.entries[0].number > last or contents.last_stored >= last:
                return
            time.sleep(_STEP)
        raise StoreError(
            f"{plural(len(entries), 'push')} to {record.label} are in the push log, which this user may not commit. Read the group once "
            "as a user who may write the home, for example: seeknal show " + f"{record.label}."
        )


class Outcome(Enum):
    """What became of rows that waited to be appended: they were; a row is known; or the registry or the table has changed."""

    APPENDED, KNOWN, OUTDATED = range(3)


@dataclass(eq=False)
class Waiting:
    """Rows that wait to be appended.

    Args:
        facts: What they were checked against.
        new: What there is to know of them.
        entry: Their entry.
        pushed: The result for the caller.
        outcome: What became of them; None: they wait.
    """

    facts: Facts
    new: New
    entry: Entry
    pushed: Pushed
    outcome: Outcome | None = None


class Committed(NamedTuple):
    """What was committed.

    Args:
        state: The state of the group afterwards.
        last: The number of the last entry.
        first: The earliest event time of the entries, in microseconds since 1970.
    """

    state: GroupState
    last: int
    first: int


def _entry(version: int, rows: pa.Table, masks: Mapping[str, pa.ChunkedArray]) -> Entry:
    """Return the entry of some rows; its number, base and time are not known yet."""
    for text, mask in masks.items():
        rows = rows.append_column(mask_name(text), mask)
    (batch,) = (rows if rows.column(0).num_chunks == 1 else rows.combine_chunks()).to_batches()
    return Entry(0, version, 0, 0, _layout(batch.schema), batch.serialize().to_pybytes())


@lru_cache(1000)
def _layout(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize().to_pybytes())


def _rows(entry: Entry) -> pa.Table:
    return pa.Table.from_batches([entry.batch()])


def _fitted(entry: Entry, old: Schema, new: Schema) -> pa.Table:
    """Return the rows of an entry in the stored types of the version that is current now."""
    rows = _rows(entry).select(old.names)
    return rows if old == new else evolved(rows, old, new)
