"""Writing the Parquet files of a table, and how they are put together."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from seeknal.define.schema import Schema
from seeknal.offline.log import DataFile
from seeknal.offline.plan import Part
from seeknal.system.duck import Duck
from seeknal.system.folders import remove
from seeknal.values.sql import literal, quote, scan

_ADDED = "added-"
"""How the names of files begin all of whose rows are as they were added: none was left out of them, or put into them, by a rewrite.

A snapshot has of such a file the rows with numbers below the first that was written after it, and so of several that were put
together. So their names say of which files older snapshots can be read from the one that they were put into.
"""

_FEW = 2**12
"""Files of fewer rows are put together with each other first, so that one of many rows is not written again for each few."""


@dataclass(frozen=True)
class FileWriter:
    """Writes files to a table.

    Args:
        root: The table.
        duck: What writes.
        schema: The schema of the rows.
        undo: Is told how to remove the files.
    """

    root: Path
    duck: Duck
    schema: Schema
    undo: ExitStack

    def write(self, parts: Iterable[Part], *, added: bool = False) -> list[DataFile]:
        """Write a file for each part, as many at once as there are cores, so that few parts are in memory together.

        Args:
            parts: What the files are to hold.
            added: Whether the rows are as they were added; see `_ADDED`.
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
        """Write what a query gives to a file of its own; nothing if that is no rows."""
        name = f"{prefix}{uuid.uuid4().hex}.parquet"
        path = self.root / name
        self.undo.callback(remove, path)
        cursor = self.duck.connection.cursor()
        for view, rows in part.views.items():
            cursor.register(view, rows)
        options = "FORMAT parquet, COMPRESSION snappy, RETURN_STATS"
        _, count, size, _, stats, *_ = cursor.execute(
            f"COPY ({part.query}) TO {literal(str(path))} ({options})"
        ).fetchall()[0]
        if not count:
            path.unlink()
            return None
        moment = quote(self.schema.event_time.name)
        if int(stats[moment]["null_count"]):  # rows that an earlier release took over from another program
            return DataFile(name, size, count, None, None)
        query = f"SELECT epoch_us(min({moment})), epoch_us(max({moment})) FROM {scan([str(path)])}"  # by its statistics
        return DataFile(name, size, count, *cursor.execute(query).fetchall()[0])


def are_added(files: Iterable[DataFile]) -> bool:
    """Tell whether all rows of some files are as they were added."""
    return all(file.path.startswith(_ADDED) for file in files)


def due(files: Sequence[DataFile], small: int, count: int) -> list[list[DataFile]]:
    """Find the files that are to be put together because there are so many alike: small ones, of rows that are as they were added or not.

    Args:
        files: All files.
        small: The rows that a small file has fewer than.
        count: How many are too many.
    """
    few = [file for file in files if file.rows < min(small, _FEW)]
    more = [file for file in files if min(small, _FEW) <= file.rows < small]
    kinds = [[file for file in some if are_added([file]) == added] for some in (few, more) for added in (True, False)]
    return [kind for kind in kinds if len(kind) >= count]
