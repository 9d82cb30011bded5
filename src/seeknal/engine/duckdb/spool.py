"""Entities and moments in a Parquet file, which the engine reads in passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.engine.protocol import Request
from seeknal.system.folders import kept_in, temporary_folder

FileJoin = Callable[[Request, Path], pa.RecordBatchReader]
"""Joins a group to the moments of a file, in which they are numbered by the column `i`; it writes its own files beside it."""


class ParquetSpool:
    """A spool in a file; see `seeknal.engine.Spool`.

    Args:
        file: The file to create.
        scratch: The folder that an error names.
        join: FileJoins a group to the file.
    """

    def __init__(self, file: Path, scratch: Path, join: FileJoin) -> None:
        self._file = file
        self._scratch = scratch
        self._join = join
        self._count = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, moments: pa.Table) -> None:
        """See `Spool.write`."""
        numbers = pa.array(np.arange(self._count, self._count + len(moments)))
        numbered = moments.append_column("i", numbers)
        with kept_in(self._scratch):
            self._writer = self._writer or pq.ParquetWriter(self._file, numbered.schema)
            self._writer.write_table(numbered)
        self._count += len(moments)

    def as_of(self, wanted: Request) -> pa.RecordBatchReader:
        """See `Spool.as_of`."""
        with kept_in(self._scratch):
            self._close()
            return self._join(wanted, self._file)

    def abandon(self) -> None:
        """Close the file, whose content no longer counts."""
        with suppress(OSError, pa.ArrowException):
            self._close()

    def _close(self) -> None:
        if self._writer:
            self._writer.close()


@contextmanager
def parquet_spools(count: int, scratch: Path, join: FileJoin) -> Iterator[list[ParquetSpool]]:
    """Yield spools in a temporary folder; see `seeknal.engine.Engine.spools`.

    Args:
        count: How many.
        scratch: Where the folder is created.
        join: FileJoins a group to the file of a spool.
    """
    with ExitStack() as stack:
        with kept_in(scratch):
            folder = stack.enter_context(temporary_folder(scratch))
        spools = [ParquetSpool(folder / f"moments-{number}.parquet", scratch, join) for number in range(count)]
        for spool in spools:
            stack.callback(spool.abandon)
        yield spools
