"""The second step of the write of a Spark DataFrame: rows that were checked and counted are brought together, and written to files.

    counts of the rows  -> driver: which interval gets a file, and the number of its first row
    kept rows of a task -> executor: cut by interval -> rows of an interval -> executor: sort, number, write one file

The driver commits the files. A file of a task that failed, or that ran twice, is in no report, and never committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.engine.spark import pieces
from seeknal.engine.spark.engine import grouped, mapped
from seeknal.engine.spark.session import explained
from seeknal.engine.spark.shuffle import hashes_of
from seeknal.engine.spark.work import local
from seeknal.errors import StoreError
from seeknal.offline import DataFile, Repeats
from seeknal.offline.files import FileWriter, remove_new
from seeknal.offline.plan import Part, days_of, first_moments
from seeknal.offline.plan import cut as cut_days
from seeknal.offline.repeats import most_repeated, repeats_of
from seeknal.system import duck
from seeknal.system.stored_paths import StoredPath, backing_of
from seeknal.values.moments import gather
from seeknal.values.sql import comma

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS, MISFITS, DAYS, TOTALS, FILE, REPEATS, UNSETTLED = range(7)
"""What a piece is: it stands in the place of its bucket."""
_CUT = 2**20
"""The rows that are cut into spans at once."""
_SHARES = 16
"""The most files that the rows of a day are cut into, so that each has all rows of its entities."""
_MOST, _MOST_BYTES = 2**21, 2**29
"""The rows and bytes from which on the rows of one day are cut."""
NO_DAYS = pa.schema(
    [("day", pa.int64()), ("share", pa.int64()), ("rows", pa.int64()), ("check", pa.int64())]
).empty_table()
"""How many rows there are of each day, in each share of the entities, and the sum of their hashes; days count from year 1."""


@dataclass(frozen=True)
class Spans:
    """The spans of rows that get a file each: whole days, or a share of the entities of a day with many rows.

    For example, with the starts (100, 200) and the shares (1, 4, 1):

        t      hash   span
        99     7      0
        150    7      1 + 7 % 4 = 4
        200    7      5

    Args:
        starts: The first moments of all intervals but the first, ascending, in microseconds since 1970.
        shares: For each interval in how many shares its entities are cut, a divisor of 16.
    """

    starts: tuple[int, ...]
    shares: tuple[int, ...]

    @classmethod
    def cut(cls, days: pa.Table, size: int) -> Spans:
        """Cut rows into spans.

        Args:
            days: How many rows there are of each day; see `NO_DAYS`.
            size: How many bytes all rows take in memory.
        """
        counts = np.zeros(int(pc.max(days["day"]).as_py() or 0) + 1, np.int64)
        np.add.at(counts, days["day"].to_numpy(), days["rows"].to_numpy())
        intervals = cut_days(counts)
        starts = tuple(one.start for one in intervals[1:] if one.start is not None)
        each = np.bincount(
            np.searchsorted(days_of(np.array(starts, np.int64)), np.arange(len(counts)), side="right"),
            counts,
            len(intervals),
        )
        most = min(_MOST, max(1, _MOST_BYTES * int(counts.sum()) // max(1, size)))
        shares = [next((n for n in (1, 2, 4, 8) if rows <= n * most), _SHARES) for rows in each]
        return cls(starts, tuple(shares))

    @property
    def count(self) -> int:
        """The number of spans."""
        return sum(self.shares)

    @cached_property
    def _of_interval(self) -> tuple[np.ndarray, np.ndarray]:
        shares = np.array(self.shares)
        return np.cumsum(shares) - shares, shares

    def of(self, t: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return the span of each row, given its event time and a hash of its entity."""
        first, shares = self._of_interval
        which = np.searchsorted(np.array(self.starts, np.int64), t, side="right")
        return first[which] + (hashes % shares[which].astype(np.uint64)).astype(np.int64)


@dataclass(frozen=True)
class Target:
    """Where the rows go.

    Args:
        root: The folder of the table.
        schema: The schema of the rows.
        first: The number of the first row.
        added: Whether the commit only adds rows.
    """

    root: StoredPath
    schema: Schema
    first: int
    added: bool


@dataclass(frozen=True)
class Files:
    """The files that executors have written.

    Args:
        every: The files.
        repeats: The rows that share keys and event time.
        unsettled: Those among them that share the created time, too.
    """

    every: list[DataFile]
    repeats: Repeats
    unsettled: Repeats


def write_files(rows: DataFrame, days: pa.Table, size: int, target: Target, undo: ExitStack) -> Files:
    """Write rows to files.

    Args:
        rows: The pieces of the rows, and others.
        days: How many rows there are of each day; see `NO_DAYS`.
        size: How many bytes they take in memory.
        target: Where they go.
        undo: Gets a callback for each file that removes it.

    Raises:
        StoreError: They could not be written, or differ from those that were counted.
    """
    spans = Spans.cut(days, size)
    of_day = spans.of(first_moments(days["day"].to_numpy()), days["share"].to_numpy().astype(np.uint64))
    counts, checks = np.zeros(spans.count, np.int64), np.zeros(spans.count, np.int64)
    np.add.at(counts, of_day, days["rows"].to_numpy())
    np.add.at(checks, of_day, days["check"].to_numpy())
    starts = target.first + np.cumsum(counts) - counts
    with explained("write the rows"):
        cut_rows = mapped(rows.where(f"bucket = {ROWS}"), lambda batches: cut(target.schema, spans, batches))
        found = grouped(cut_rows, lambda given: written(target, starts, given)).toArrow()
    reports: dict[int, DataFile] = {}
    told = pa.concat_tables(files).to_pylist() if (files := pieces_of(found, FILE)) else []
    for one in told:
        undo.callback(remove_new, target.root / one["path"])
        reports[one["span"]] = DataFile(one["path"], one["size"], one["rows"], one["start"], one["end"])
    pieces.unpacked(found.filter(pc.is_valid(found["error"])))
    expected = [(n, int(counts[n]), int(checks[n])) for n in np.flatnonzero(counts).tolist()]
    _check_same(sorted((one["span"], one["rows"], one["check"]) for one in told), expected)
    _check_there(target.root, reports)
    repeats = repeats_of(pieces_of(found, REPEATS), target.schema)
    unsettled = repeats
    if target.schema.created_time:
        unsettled = repeats_of(pieces_of(found, UNSETTLED), target.schema, with_created=True)
    return Files([reports[number] for number in sorted(reports)], repeats, unsettled)


def _check_same(found: list[tuple[int, int, int]], expected: list[tuple[int, int, int]]) -> None:
    """Check that the files have the rows that were counted: of each span their number, and the sum of their hashes.

    Raises:
        StoreError: They have others.
    """
    if found != expected:
        raise StoreError(
            "The Spark DataFrame had other rows when some of them were computed again, since an executor was lost; nothing was stored. "
            "Write it to files first, and then what is in the files."
        )


def _check_there(root: StoredPath, reports: Mapping[int, DataFile]) -> None:
    if gone := backing_of(root).missing(root, [file.path for file in reports.values()]):
        raise StoreError(
            f"{len(gone)} of {len(reports)} files that executors wrote to {root} are not there for the driver. Executors need the folder of "
            "the home at the same path, on a disk that all machines share; or set storage to an object store."
        )


def pieces_of(found: pa.Table, kind: int) -> list[pa.Table]:
    """Return the tables of the pieces of a kind."""
    return pieces.unpacked(found.filter(pc.equal(found["bucket"], kind)))


def days_in(schema: Schema, rows: pa.Table) -> pa.Table:
    """Return how many rows there are of each day; see `NO_DAYS`."""
    shares = (_entities(schema, rows) % np.uint64(_SHARES)).astype(np.int64)
    columns = [days_of(_times(schema, rows)), shares, np.ones(len(rows), np.int64), _checks(schema, rows)]
    return summed(pa.table(columns, names=NO_DAYS.column_names))


def summed(days: pa.Table) -> pa.Table:
    """Return the table of days with one row per day and share; see `NO_DAYS`."""
    found = days.group_by(["day", "share"]).aggregate([("rows", "sum"), ("check", "sum")])
    return found.rename_columns(NO_DAYS.column_names)


def cut(schema: Schema, spans: Spans, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of each span, from pieces that are cut without regard to spans."""
    tables = (table for batch in batches for table in pieces.unpacked(pa.Table.from_batches([batch])))
    for rows in together(tables, _CUT):
        yield from pieces.cut(rows, spans.of(_times(schema, rows), _entities(schema, rows)))


def written(target: Target, starts: np.ndarray, given: pa.Table) -> Iterator[pa.RecordBatch]:
    """Write the rows of a span to a file, and yield what the driver needs to know of it.

    Args:
        target: Where they go.
        starts: For each span, the number of its first row.
        given: The pieces of the rows.
    """
    schema, root = target.schema, target.root
    rows = pa.concat_tables(pieces.unpacked(given))
    span = given["bucket"][0].as_py()
    checks = _checks(schema, rows)
    for kind, with_created in ((REPEATS, False), *([(UNSETTLED, True)] if schema.created_time else [])):
        found = most_repeated(local().cursor(), rows, schema, with_created=with_created)
        if found is not None:
            yield pieces.packed(found, kind)
    rows = _sorted(schema, rows, checks)
    rows = rows.append_column(ROW_ID, pa.array(np.arange(starts[span], starts[span] + len(rows))))
    with ExitStack() as undo:
        try:
            (file,) = FileWriter(root, local().duck, schema, undo).write(
                [Part("SELECT * FROM new_rows", {"new_rows": rows})], added=target.added
            )
        except (duckdb.Error, OSError) as error:
            raise StoreError(
                f"An executor could not write to {root}; nothing was stored: {duck.explained(error)}"
            ) from error
        undo.pop_all()
    told = {"span": span, "path": file.path, "size": file.size, "rows": file.rows, "start": file.start, "end": file.end}
    yield pieces.packed(pa.Table.from_pylist([{**told, "check": int(checks.sum())}]), FILE)


def _sorted(schema: Schema, rows: pa.Table, checks: np.ndarray) -> pa.Table:
    """Return rows by key and time. Those that share both are in the order of their hashes, since a DataFrame has no order."""
    names = [*schema.key_names, schema.event_time.name, *([schema.created_time.name] if schema.created_time else [])]
    columns = {f"c{i}": rows[name] for i, name in enumerate(names)}
    asked = pa.table({**columns, "h": checks, "i": np.arange(len(rows))})
    order = local().query(f"SELECT i FROM rows ORDER BY {comma([*columns, 'h'])}", rows=asked)["i"].to_numpy()
    return pa.Table.from_arrays(gather(rows.columns, order), names=rows.column_names)


def _times(schema: Schema, rows: pa.Table) -> np.ndarray:
    return np.asarray(rows[schema.event_time.name].cast(pa.int64()))


def _entities(schema: Schema, rows: pa.Table) -> np.ndarray:
    """Return a hash of the entity of each row; of events without an id, of the whole row."""
    return hashes_of(rows, schema.key_names or schema.names)


def _checks(schema: Schema, rows: pa.Table) -> np.ndarray:
    """Return a part of a hash of each row, of 32 bits, so that the sum of many fits in 64."""
    return (hashes_of(rows, schema.names) >> np.uint64(32)).astype(np.int64)


def together(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield tables as fewer ones, of so many rows or more, but for the last."""
    some: list[pa.Table] = []
    for table in tables:
        some.append(table)
        if sum(map(len, some)) >= rows:
            yield pa.concat_tables(some)
            some = []
    if some:
        yield pa.concat_tables(some)
