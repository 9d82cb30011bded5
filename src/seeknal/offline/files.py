"""Writing the Parquet files of a table, and choosing the files to compact."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from seeknal.define.schema import Schema
from seeknal.offline.log import DataFile
from seeknal.offline.plan import Part, Plan
from seeknal.system.duck import Duck
from seeknal.system.stored_paths import StoredPath, backing_of
from seeknal.values.sql import literal, quote, scan

_ADDED = "added-"
"""Name prefix of files that hold only added rows: no rewrite ever dropped rows from them or moved rows into them.

A snapshot sees exactly those rows of such a file whose numbers are below the snapshot's `next_row_id`. The same holds for a file that
several of them were compacted into. So the prefix marks the files whose older snapshots can be read from the compacted file.
"""

_FEW = 2**12
"""Files of fewer rows are compacted among themselves, so that a larger file is not rewritten for every few new rows."""


@dataclass(frozen=True)
class FileWriter:
    """Writes Parquet files into the folder of a table.

    Args:
        root: The folder of the table.
        duck: The DuckDB that writes.
        schema: The schema of the rows.
        undo: Gets a callback for each file that removes it, for a write that is not committed.
    """

    root: StoredPath
    duck: Duck
    schema: Schema
    undo: ExitStack

    def write_plan(self, plan: Plan, *, added: bool = False) -> list[DataFile]:
        """Write the files of a plan.

        Args:
            plan: The plan.
            added: Whether the files that are not corrected ones hold only added rows; see `_ADDED`.
        """
        files = self.write(plan.parts(self.duck.connection), added=added)
        return files + self.write(plan.corrections()) if plan.corrected else files

    def write(self, parts: Iterable[Part], *, added: bool = False) -> list[DataFile]:
        """Write one file per part, in parallel.

        Parts are taken from the iterable only as cores become free, so at most one per core is in memory.

        Args:
            parts: The contents of the files.
            added: Whether the files hold only added rows; see `_ADDED`.

        Returns:
            The files, in the order of the parts; a part without rows gets none.
        """
        cores = os.cpu_count() or 1
        files: list[DataFile | None] = []
        running: deque[Future[DataFile | None]] = deque()
        with ThreadPoolExecutor(cores) as pool:
            for part in parts:
                if len(running) == cores:
                    files.append(running.popleft().result())
                running.append(pool.submit(self._write, part, _ADDED if added else ""))
            files += [one.result() for one in running]
        return [file for file in files if file]

    def _write(self, part: Part, prefix: str) -> DataFile | None:
        """Write the rows of a part's query to a new file; return None, and leave no file, if there are no rows."""
        name = f"{prefix}{uuid.uuid4().hex}.parquet"
        path = self.root / name
        # Registered before the file exists, so that a write that fails half-way leaves nothing either.
        self.undo.callback(remove_new, path)
        try:
            with backing_of(path).writing(path) as place:
                return self._copy(part, name, str(place))
        except _NoRows:
            remove_new(path)
            return None

    def _copy(self, part: Part, name: str, place: str) -> DataFile:
        """Write the rows of a part's query to the local path `place`."""
        cursor = self.duck.connection.cursor()
        for view, rows in part.views.items():
            cursor.register(view, rows)
        options = "FORMAT parquet, COMPRESSION snappy, RETURN_STATS"
        _, count, size, _, stats, *_ = cursor.execute(
            f"COPY ({part.query}) TO {literal(place)} ({options})"
        ).fetchall()[0]
        if not count:
            raise _NoRows
        moment = quote(self.schema.event_time.name)
        if int(stats[moment]["null_count"]):  # rows that an earlier release adopted from another program
            return DataFile(name, size, count, None, None)
        query = f"SELECT epoch_us(min({moment})), epoch_us(max({moment})) FROM {scan([place])}"  # by its statistics
        return DataFile(name, size, count, *cursor.execute(query).fetchall()[0])


class _NoRows(Exception):  # noqa: N818 - a signal, not an error
    """A part has no rows, so its file is not stored."""


def remove_new(path: StoredPath) -> None:
    """Remove a file if possible. A failure is ignored, since the caller already raises the error that led here."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def are_added(files: Iterable[DataFile]) -> bool:
    """Return whether all of these files hold only added rows; see `_ADDED`."""
    return all(file.path.startswith(_ADDED) for file in files)


def due(files: Sequence[DataFile], small: int, count: int) -> list[list[DataFile]]:
    """Return the groups of small files that are due for compaction.

    Files are grouped by size (below `_FEW` rows or not) and by whether they hold only added rows. A group is due if it has at
    least `count` files.

    Args:
        files: All files of a snapshot.
        small: A file with fewer rows than this is small.
        count: How many files make a group due.
    """
    few = [file for file in files if file.rows < min(small, _FEW)]
    more = [file for file in files if min(small, _FEW) <= file.rows < small]
    kinds = [[file for file in some if are_added([file]) == added] for some in (few, more) for added in (True, False)]
    return [kind for kind in kinds if len(kind) >= count]
