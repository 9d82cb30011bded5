"""Writes of Spark DataFrames: executors check the rows and write them to files, which the driver commits once.

    part of the DataFrame -> executor: convert, check, count by day ---> driver: intervals of time, numbers of rows
    rows of an interval   -> executor: sort, number, write one file ---> driver: the same rows as before? one commit

The DataFrame is evaluated once: between the two steps, its rows are kept on the disks of the executors. If some are lost with an
executor, they are evaluated again, and must be the same. A file of a task that failed, or that ran twice, is never committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Roles, Schema, check_evolution, infer
from seeknal.engine.spark import pieces
from seeknal.engine.spark.engine import mapped
from seeknal.engine.spark.writing import (
    DAYS,
    MISFITS,
    NO_DAYS,
    ROWS,
    TOTALS,
    Files,
    Target,
    pieces_of,
    summed,
    write_files,
)
from seeknal.errors import DataError
from seeknal.offline import Commit, OfflineTable, Repeats, Write
from seeknal.offline.plan import Made, first_moments
from seeknal.system.retry import Conflict
from seeknal.system.stored_paths import StoredPath
from seeknal.values.frames.spark import InSpark, reading
from seeknal.values.moments import is_text
from seeknal.values.times import now
from seeknal.write import executors
from seeknal.write.given import Asked, Checked, InMemory
from seeknal.write.notices import LOW, Facts
from seeknal.write.rows import check_null_times, check_range, rows_to_store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class InExecutors:
    """The rows of a Spark DataFrame; see `Given`.

    They are collected here only where their schema depends on their values, such as for whole numbers in a decimal column.

    Args:
        frame: The DataFrame.
        names: The columns to write; None: all.
    """

    def __init__(self, frame: InSpark, names: Sequence[str] | None) -> None:
        self._frame = frame
        self._names = list(frame.names if names is None else names)
        self._collected: InMemory | None = None
        self._checked: _Kept | None = None
        self._roles: Roles | None = None
        self._known: Schema | None = None

    def table(self) -> pa.Table:
        """See `Given.table`."""
        if self._collected is None:
            self._collected = InMemory(self._frame.table(self._names))
        return self._collected.rows

    def close(self) -> None:
        """See `Given.close`."""
        if self._checked is not None:
            self._checked.close()

    def schema(self, roles: Roles, known: Schema | None) -> Schema:
        """See `Given.schema`."""
        self._roles, self._known = roles, known
        if self._collected is None:
            empty = self._frame.schema(self._names)
            try:
                found = infer(empty, roles, known)
            except DataError as error:
                column = getattr(error, "column", None)
                if column not in self._names or self._have_values([column]):
                    raise
            else:
                kinds = {field.name: field.type for field in known or ()}
                changed = [field.name for field in found if kinds.get(field.name, field.type) != field.type]
                if not _depends_on_rows(empty, found, kinds) and self._have_values(changed):
                    return found
        return infer(self.table(), roles, known)

    def _have_values(self, names: Sequence[str]) -> bool:
        """Return whether each column has a value: one without any has no type that matters."""
        if not names:
            return True
        counts = [f"count(`{name.replace('`', '``')}`) AS c{i}" for i, name in enumerate(names)]
        with reading():
            found = self._frame.frame.selectExpr(*counts).toArrow()
        return all(column[0].as_py() for column in found.columns)

    def checked(self, schema: Schema, asked: Asked) -> Checked:
        """See `Given.checked`.

        Raises:
            Conflict: The schema depends on values. The next attempt has them in memory.
        """
        if self._collected is not None:
            return self._collected.checked(schema, asked)
        if (
            self._checked is None or self._checked.schema != schema
        ):  # else another writer was first, and the rows fit still
            self.close()
            self._checked = _Kept(self._frame, schema, asked)
        if (misfits := self._checked.misfits) is not None:
            self._refuse(misfits, asked)
            self.table()
            raise Conflict("The types of the columns depend on their values.")
        self._checked.check()
        return self._checked

    def _refuse(self, rows: pa.Table, asked: Asked) -> None:
        """Raise the error of rows that cannot be converted to the schema, unless they fit a wider one."""
        assert self._roles is not None  # noqa: S101 - `schema` was called before
        schema = infer(rows, self._roles, self._known)
        if self._known is not None:
            check_evolution(self._roles.group, self._known, schema)
        rows_to_store(rows, schema, asked.interval, drop_nulls=True)


def _depends_on_rows(empty: pa.Table, found: Schema, known: dict[str, pa.DataType]) -> bool:
    """Return whether values could give a column another type than the one found for no rows, or an error has a row's number."""
    times = [found.event_time.name, *([found.created_time.name] if found.created_time else [])]
    is_odd = any(
        is_text(kind := empty.schema.field(name).type)
        or (pa.types.is_date(known.get(name, kind)) and not pa.types.is_date(kind))
        for name in times
    )
    return is_odd or any(pa.types.is_null(kind) for kind in empty.schema.types)


class _Kept:
    """The rows of a Spark DataFrame that can be stored, kept by the executors; see `Checked` and `Spread`."""

    def __init__(self, frame: InSpark, schema: Schema, asked: Asked) -> None:
        from pyspark import StorageLevel

        self.schema = schema
        self._asked = asked
        self._files = Files([], Repeats(), Repeats())
        interval, at = asked.interval, now()
        with reading():
            chosen: DataFrame = frame.select(schema.names)
            self._rows = mapped(chosen, lambda batches: executors.kept(schema, interval, at, batches))
            self._rows = self._rows.persist(StorageLevel.DISK_ONLY)
        try:
            with reading():
                told = self._rows.where(f"bucket <> {ROWS} OR error IS NOT NULL").toArrow()
            pieces.unpacked(told.filter(pc.is_valid(told["error"])))
        except BaseException:
            self.close()
            raise
        self._misfits, days, totals = (pieces_of(told, kind) for kind in (MISFITS, DAYS, TOTALS))
        self._days = summed(pa.concat_tables([NO_DAYS, *days])).sort_by("day")
        self._totals = pa.concat_tables([executors.no_totals(schema), *totals])

    def close(self) -> None:
        """Let the executors remove the rows."""
        with suppress(Exception):  # such as one of a session that was stopped, which has none
            self._rows.unpersist()

    @property
    def misfits(self) -> pa.Table | None:
        """Some rows of the DataFrame, one of which does not fit the schema; None if all fit."""
        return next(iter(self._misfits), None)

    def check(self) -> None:
        """Raise the errors of rows that fit their types; see `rows_to_store`."""
        name, missing = self.schema.event_time.name, self._total("missing")
        if missing:
            check_null_times(name, missing, self._total("rows"), self._asked.drop_nulls)
        check_range(name, pc.min(self._totals["least"]).as_py(), pc.max(self._totals["greatest"]).as_py())

    def _total(self, name: str) -> int:
        return pc.sum(self._totals[name]).as_py() or 0

    @property
    def count(self) -> int:
        """See `Checked.count`."""
        return self._total("kept")

    @property
    def outside(self) -> int:
        """See `Checked.outside`."""
        return self._total("rows") - self._total("missing") - self.count

    def to_write(self, offline: OfflineTable, version: int) -> Write:
        """See `Checked.to_write`."""
        del offline
        kinds = zip(self.schema.names, self.schema.stored_types, strict=True)
        none, asked = pa.schema(list(kinds)).empty_table(), self._asked
        are_events = asked.event_id is not None
        return Write(none, self.schema, version, asked.mode, asked.interval, are_events=are_events, spread=self)

    def write(self, root: StoredPath, first: int, undo: ExitStack, *, added: bool) -> Made:
        """See `Spread.write`."""
        target = Target(root, self.schema, first, added=added)
        self._files = write_files(self._rows, self._days, self._total("bytes"), target, undo)
        return Made(self._files.every, self._files.repeats.rows)

    def unsettled(self) -> Repeats:
        """See `Checked.unsettled`."""
        return self._files.unsettled

    def facts(self, offline: OfflineTable, commit: Commit) -> Facts:
        """See `Checked.facts`."""
        del commit
        missing = {name: self._total(f"n{i}") for i, name in enumerate(self.schema.key_names)}
        least = min((file.start for file in self._files.every if file.start is not None), default=None)
        return Facts(self.count, missing, self._total("later"), least, lambda: self._bulk(offline))

    def _bulk(self, offline: OfflineTable) -> int:
        """Return the event time at the lower end of the bulk of the rows, which lies on a day that the counts tell."""
        days = self._days
        ends, rank = np.cumsum(days["rows"].to_numpy()), int(LOW * (self.count - 1))
        at = int(np.searchsorted(ends, rank, side="right"))
        day = days["day"][at].as_py()
        first, end = first_moments(np.array([day, day + 1])).tolist()
        before = int(days["rows"].to_numpy()[days["day"].to_numpy() < day].sum())
        some = [
            file
            for file in self._files.every
            if file.start is not None and file.start < end and (file.end or 0) >= first
        ]
        name = self.schema.event_time.name
        times = np.concatenate([np.asarray(one[name].cast(pa.int64())) for one in offline.columns(some, [name])])
        return int(np.sort(times[(times >= first) & (times < end)])[rank - before])

    def tables(self, offline: OfflineTable, commit: Commit) -> Iterator[pa.Table]:
        """See `Checked.tables`."""
        held = offline.snapshot(commit.snapshot)  # which protects its files
        yield from offline.columns(self._files.every, self.schema.names)
        del held
