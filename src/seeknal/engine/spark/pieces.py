"""Arrow tables as cells of Spark DataFrames.

Spark shuffles rows of its own types, which are fewer than Arrow's: a row of it cannot hold every uint64 or nanosecond. So a shuffled row
is a piece of a table, in Arrow's own format, with the number of the bucket that it goes to. Every value arrives as it was, and the JVM
moves a few large rows instead of many small ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from seeknal import errors
from seeknal.errors import SeeknalError

SCHEMA = pa.schema([("bucket", pa.int32()), ("data", pa.binary()), ("error", pa.string())])
"""A piece, or the text of an error that ended a task; see `failed`."""
DDL = "bucket int, data binary, error string"
"""The same as Spark writes it."""
_LARGEST = 2**22
"""The most bytes of a piece, about: the JVM has several copies of a cell at once."""


@dataclass(frozen=True)
class Buckets:
    """The buckets that entities are hashed into; entities with many rows are also cut by time.

    For example, with 4 buckets, and an entity of hash 9 that is cut at the times 100 and 200:

        hash   t     bucket
        7      150   7 % 4 = 3
        9      99    4
        9      100   5
        9      250   6

    Args:
        count: The number of buckets of the other entities.
        cuts: For the hash of each entity with many rows, the times, ascending, at which its slices after the first begin.
    """

    count: int
    cuts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def of(self, hashes: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return the bucket of each row."""
        found = (hashes % np.uint64(self.count)).astype(np.int64)
        for whose, first, cuts in self.slices(hashes):
            found[whose] = first + np.searchsorted(cuts, t[whose], side="right")
        return found

    def slices(self, hashes: np.ndarray) -> Iterator[tuple[np.ndarray, int, tuple[int, ...]]]:
        """Yield for each entity that is cut, and is among these, its rows, its first bucket and its cuts."""
        first = self.count
        for value, cuts in self.cuts.items():
            if len(whose := np.flatnonzero(hashes == np.uint64(value))):
                yield whose, first, cuts
            first += len(cuts) + 1


def cut(table: pa.Table, buckets: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of a table.

    Args:
        table: The table.
        buckets: The bucket of each row.
    """
    if not len(table):
        return
    order = np.argsort(buckets, kind="stable")
    sorted_table, numbers = table.take(pa.array(order)), buckets[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        for piece in _small(sorted_table.slice(start, end - start)):
            yield packed(piece, int(numbers[start]))


def _small(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a table in pieces that fit in a cell."""
    count = max(1, min(-(-table.nbytes // _LARGEST), len(table)))
    size = max(1, -(-len(table) // count))
    for start in range(0, max(1, len(table)), size):
        yield table.slice(start, size)


def answered(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the pieces of a result."""
    yield from map(packed, _small(table))


def packed(table: pa.Table, bucket: int = 0) -> pa.RecordBatch:
    """Return a table as one piece."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written = sink.getvalue()
    ends = pa.py_buffer(np.array([0, written.size], np.int32))
    data = pa.Array.from_buffers(pa.binary(), 1, [None, ends, written])  # without a copy
    return pa.RecordBatch.from_arrays(
        [pa.array([bucket], pa.int32()), data, pa.nulls(1, pa.string())],
        schema=SCHEMA,
    )


def unpacked(pieces: pa.Table) -> list[pa.Table]:
    """Return the tables of some pieces.

    Raises:
        SeeknalError: A task ended with this error.
    """
    for text in pieces["error"].drop_null().to_pylist():
        told = json.loads(text)
        raise getattr(errors, told["class"])(told["message"], **told["facts"])
    return [pa.ipc.open_stream(data.as_buffer()).read_all() for chunk in pieces["data"].chunks for data in chunk]


def failed(error: SeeknalError) -> pa.RecordBatch:
    """Return an error as a piece: Spark would run a task that raises it again, and raise another error with its text."""
    facts = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    text = json.dumps({"class": type(error).__name__, "message": str(error), "facts": facts})
    return pa.RecordBatch.from_arrays(
        [pa.array([0], pa.int32()), pa.nulls(1, pa.binary()), pa.array([text])], schema=SCHEMA
    )


def reported(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield pieces; if that raises an error of ours, the last one is the error."""
    try:
        yield from pieces
    except SeeknalError as error:
        yield failed(error)
