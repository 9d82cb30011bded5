"""The log of a served view: a share of its answers, appended to an event source in the background.

A row of the log has the join keys and request values of one row of a request, what was looked up and computed for it, the statuses,
and the snapshots that were read. So history can be asked later whether it gives the same answer; see `seeknal.views.logged`.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - see the end of this module
import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

import pyarrow as pa

from seeknal.define.event_group import EventGroup, event_group
from seeknal.errors import DataError, DefinitionError, SeeknalError, SeeknalWarning, notice
from seeknal.registry import ViewRecord
from seeknal.system.forks import PerProcess
from seeknal.system.storage import Address
from seeknal.values import exact
from seeknal.values.types import UTC

SERVED_AT, VERSION, ASKED, DEFAULTED = "served_at", "view_version", "asked", "defaulted"
"""The columns beside those of the view: the moment of the read, the version, the features that were asked for (null: all), and those
whose default took the place of null."""
_NAMES = pa.list_(pa.string())
_AT_ONCE, _MOST = 10_000, 100_000
"""How many rows are written at once, and how many may wait at most. Rows beyond that are dropped, and counted."""
_AGE, _RETRY = 1.0, 10.0
"""After how many seconds rows are written, and after how many that is tried again if it failed."""
_PAUSE = 20
"""How many times as long as a write took the next one waits, so that writing takes at most a twentieth of the time."""


class Entry(NamedTuple):
    """A logged row: when it was taken, in microseconds since 1970, and its values by column. What it lacks is null."""

    taken: int
    values: Mapping[str, Any]


class Block(NamedTuple):
    """Several logged rows: when they were taken, and their columns. Columns that it lacks are null."""

    taken: int
    rows: pa.Table


class LogWriter(Protocol):
    """Stores logged rows."""

    @property
    def address(self) -> Address:
        """The address of the home of the logs."""
        ...

    def register(self, group: EventGroup) -> None:
        """Register the event source of a log.

        Raises:
            DefinitionError: The project has another group of that name.
        """

    def write(self, log: Layout, items: Sequence[Entry | Block]) -> None:
        """Append logged rows, except those taken before the last erasure of an entity from the log was complete.

        Raises:
            StoreError: They cannot be stored now.
        """


class Layout:
    """The columns of the log of a view, and the event source that they are stored in.

    Args:
        view: The version of the view.
        keys: Its join keys, with their types.
        kinds: The types of its request values, of what it looks up, and of what it computes, by name.
        labels: The labels of its parts in the columns of statuses.

    Raises:
        DefinitionError: A column of the view has the name of one of the log.
    """

    def __init__(
        self, view: ViewRecord, keys: Sequence[pa.Field], kinds: Mapping[str, pa.DataType], labels: Sequence[str]
    ) -> None:
        own = [
            pa.field(SERVED_AT, UTC),
            pa.field(VERSION, pa.int64()),
            pa.field(ASKED, _NAMES),
            pa.field(DEFAULTED, _NAMES),
            *(
                pa.field(f"{label}_{what}", kind)
                for label in dict.fromkeys(labels)
                for what, kind in (("status", pa.string()), ("event_time", UTC), ("snapshot", pa.int64()))
            ),
        ]
        taken = {field.name for field in keys} | kinds.keys()
        if clash := [field.name for field in own if field.name in taken]:
            raise DefinitionError(
                f"{view.label} has a column named {clash[0]!r}, as its log would have. Rename it, or serve the view without log.",
                name=clash[0],
            )
        self.view = view
        self._keys = {field.name for field in keys}
        self.schema = pa.schema([*keys, *(pa.field(name, kind) for name, kind in kinds.items()), *own])
        self.group = event_group(view.log, SERVED_AT, project=view.project, description=view.log_description)

    def table(self, items: Sequence[Entry | Block]) -> pa.Table:
        """Return logged rows as one table.

        Raises:
            DataError: A value does not fit the type of its column.
        """
        entries = [one.values for one in items if isinstance(one, Entry)]
        made = [self._of_entries(entries)] if entries else []
        return pa.concat_tables([*made, *(self._whole(one.rows) for one in items if isinstance(one, Block))])

    def _of_entries(self, entries: Sequence[Mapping[str, Any]]) -> pa.Table:
        fixed = {VERSION: [self.view.number] * len(entries)}
        columns = [
            self._column(field, fixed.get(field.name) or [one.get(field.name) for one in entries])
            if field.type != UTC or field.name in self._given
            else pa.chunked_array([pa.array([one.get(field.name) for one in entries], pa.int64()).cast(UTC)])
            for field in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    @property
    def _given(self) -> set[str]:
        """The columns of the view itself."""
        names: list[str] = self.schema.names
        return set(names[: names.index(SERVED_AT)])

    def _column(self, field: pa.Field, values: Sequence[Any]) -> pa.ChunkedArray:
        """Return values of a column. A join key that its type does not hold is null: no entity has it, whatever it was."""
        try:
            return exact.column(field.name, values, field.type)
        except DataError:
            if field.name not in self._keys:
                raise
        return exact.column(field.name, [one if _holds(field, one) else None for one in values], field.type)

    def _whole(self, rows: pa.Table) -> pa.Table:
        columns = [
            pa.chunked_array([pa.repeat(pa.scalar(self.view.number, field.type), len(rows))])
            if field.name == VERSION
            else self._column(field, exact.values(rows[field.name]))
            if field.name in self._keys and rows[field.name].type != field.type
            else rows[field.name].cast(field.type)
            if field.name in rows.column_names
            else pa.chunked_array([pa.nulls(len(rows), field.type)])
            for field in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _holds(field: pa.Field, value: object) -> bool:
    try:
        exact.column(field.name, [value], field.type)
    except DataError:
        return False
    return True


class AnswerLog:
    """Logs a share of the answers of a view. Nothing that it does makes a read wait for a store.

    Args:
        layout: The columns of the log.
        share: The share of the answers to log, from 0 to 1. The answer to a call is logged with all its rows, or not at all.
        writer: Stores them.
    """

    def __init__(self, layout: Layout, share: float, writer: LogWriter) -> None:
        self.layout = layout
        self._share = share
        self._queue = PerProcess(lambda: _Queue(layout, writer))

    def chosen(self) -> bool:
        """Return whether to log the answer to a call, by chance."""
        return random.random() < self._share  # noqa: S311 - no secret

    def add(self, values: Mapping[str, Any]) -> None:
        """Log a row."""
        self._queue().add(Entry(time.time_ns() // 1000, values), 1)

    def add_block(self, rows: pa.Table) -> None:
        """Log several rows."""
        self._queue().add(Block(time.time_ns() // 1000, rows), len(rows))


class _Queue:
    """The rows that this process has logged and not written yet, and the thread that writes them."""

    def __init__(self, layout: Layout, writer: LogWriter) -> None:
        self._layout, self._writer = layout, writer
        self._items: deque[tuple[Entry | Block, int]] = deque()
        self._rows = self._dropped = 0
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        _every().add(self)

    def add(self, item: Entry | Block, rows: int) -> None:
        with self._changed:
            if self._rows + rows > _MOST:
                self._dropped += rows
                return
            self._items.append((item, rows))
            before, self._rows = self._rows, self._rows + rows
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="seeknal-log", daemon=True)
                self._thread.start()
            elif before < _AT_ONCE <= self._rows:
                self._changed.notify()

    def flush(self) -> None:
        """Write all rows now, in this thread.

        Raises:
            StoreError: They cannot be stored. They are kept, and tried again.
        """
        with self._writing:
            while items := self._take():
                try:
                    self._writer.write(self._layout, [item for item, _ in items])
                except SeeknalError:
                    self._put_back(items)
                    raise
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            notice(
                f"{dropped:,} answers of {self._layout.view.label} were not logged: they came faster than they are written."
            )

    @property
    def address(self) -> Address:
        """The address of the home of the log."""
        return self._writer.address

    def _take(self) -> list[tuple[Entry | Block, int]]:
        with self._changed:
            items = list[tuple[Entry | Block, int]]()
            while self._items and len(items) < _AT_ONCE:
                items.append(self._items.popleft())
                self._rows -= items[-1][1]
        return items

    def _put_back(self, items: Sequence[tuple[Entry | Block, int]]) -> None:
        with self._changed:
            self._items.extendleft(reversed(items))
            self._rows += sum(rows for _, rows in items)

    def _run(self) -> None:
        """Write what is added, until there is nothing left to write."""
        pause = _AGE
        while True:
            with self._changed:
                if not self._rows:
                    self._thread = None
                    return
                self._changed.wait_for(lambda: self._rows >= _AT_ONCE, pause)
            began = time.monotonic()
            try:
                self.flush()
                pause = max(_AGE, _PAUSE * (time.monotonic() - began))
            except Exception as error:  # noqa: BLE001 - nothing calls this thread, so the user hears of an error only here
                _tell(f"Answers of {self._layout.view.label} could not be logged yet: {error}")
                pause = _RETRY


def _tell(text: str) -> None:
    """Give a notice from a thread, which must go on even where notices are errors."""
    with suppress(SeeknalWarning):
        notice(text)


# What a parent has logged is its own to write, and its threads may hold the locks of its queues.
_every: PerProcess[WeakSet[_Queue]] = PerProcess(WeakSet)


def flush_of(address: Address) -> None:
    """Write what this process has logged for the views of a home.

    Raises:
        StoreError: It cannot be stored. It is kept, and tried again.
    """
    for one in list(_every()):
        if one.address == address:
            one.flush()


def flush_all() -> None:
    """Write what this process has logged for any view. What cannot be written is told, not raised: the caller is about to end."""
    for one in list(_every()):
        try:
            one.flush()
        except SeeknalError as error:
            notice(f"Some answers are not logged: {error}")


# Writes use thread pools, which end before the functions of `atexit` are called. Those of `threading` are called in reverse order, and
# the pools have registered theirs first.
getattr(threading, "_register_atexit", atexit.register)(flush_all)
