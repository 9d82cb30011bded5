"""Training sets larger than memory: the spine is read batch by batch, and its keys and moments are spilled to files."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.engine import Engine, Spool
from seeknal.errors import DataError, StoreError
from seeknal.join.retrieval import Spine, bounds_of, key_kinds, kinds_of, leaving_out, moments_of, spine_columns
from seeknal.registry.source import Source
from seeknal.system.progress import OnProgress
from seeknal.values.frames import Frame, check_parquet, empty_batch, for_parquet
from seeknal.values.moments import utc
from seeknal.values.times import Interval

_BATCH = 2**17


@dataclass(frozen=True)
class Stream:
    """A request for a training set in batches.

    Args:
        sources: The lookups.
        spine: The spine; Parquet files are read batch by batch.
        date_col: The spine's column with the moments.
        keep: The spine's columns to keep beside keys and moment. None: all.
        interval: Only rows with an event time inside it are visible.
    """

    sources: Sequence[Source]
    spine: Frame
    date_col: str
    keep: Sequence[str] | None
    interval: Interval


def stream(engine: Engine, asked: Stream, on_progress: OnProgress) -> pa.RecordBatchReader:
    """Return the rows of a spine, in order, with the features known at each row's moment.

    The features are those of `seeknal.join.retrieval.training_set`.

    Args:
        engine: The engine that joins.
        asked: The request.
        on_progress: Called with each step.

    Returns:
        A reader of the batches. Parquet files are read once the first batch is requested; any other spine is read immediately.
    """
    used, kept = spine_columns(asked.sources, Spine(asked.spine, asked.date_col, asked.keep))
    with leaving_out(used):
        schema, batches = asked.spine.typed(key_kinds(asked.sources)).batches(kept, _BATCH)
    result = pa.schema([*(schema.field(name) for name in kept), *kinds_of(asked.sources).items()])

    def answers() -> Iterator[pa.RecordBatch]:
        with engine.spools(len(asked.sources)) as spools:
            on_progress("Reading the spine")
            spine = (batch.select(used) for batch in chain([empty_batch(schema)], batches()))
            bounds = _write(asked, spine, spools)
            readers = []
            for source, spool in zip(asked.sources, spools, strict=True):
                on_progress(f"Joining {source.record.label}")
                readers.append(_Rows(spool.as_of(source.request(bounds, asked.interval))))
            on_progress("Putting it together")
            for batch in batches():
                found = [column for reader in readers for column in reader.take(batch.num_rows)]
                yield pa.RecordBatch.from_arrays([*(batch[name] for name in kept), *found], schema=result)

    return pa.RecordBatchReader.from_batches(result, answers())


def _write(asked: Stream, batches: Iterator[pa.RecordBatch], spools: Sequence[Spool]) -> Interval | None:
    """Write the spine's keys and moments to a spool for each source.

    Returns:
        The interval from the first to the last moment; None if there are no moments.
    """
    bounds: Interval | None = None
    position = 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        at = utc(asked.date_col, table[asked.date_col], up=False, first=position)
        for spool, moments in zip(spools, moments_of(asked.sources, table, at), strict=True):
            spool.write(moments)
        here = bounds_of(at)
        bounds = here if bounds is None else bounds.hull(here) if here else bounds
        position += len(table)
    return bounds


class _Rows:
    """A reader of batches from which any number of rows can be taken."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self._rest = reader.schema.empty_table()

    def take(self, count: int) -> list[pa.Array]:
        """Return the columns of the next `count` rows."""
        parts, missing = [self._rest.slice(0, count)], count - len(self._rest)
        self._rest = self._rest.slice(count)
        while missing > 0:
            table = pa.Table.from_batches([self._reader.read_next_batch()])
            parts.append(table.slice(0, missing))
            self._rest = table.slice(missing)
            missing -= len(table)
        whole = pa.concat_tables(parts)
        return [
            pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
            for column in whole.columns
        ]


def write_parquet(batches: pa.RecordBatchReader, path: Path) -> int:
    """Write batches to a Parquet file, which is renamed into place when it is complete.

    Returns:
        The number of rows written.

    Raises:
        DataError: Parquet has no type for a column.
        StoreError: The file cannot be written.
    """
    empty = for_parquet(pa.Table.from_batches([empty_batch(batches.schema)]))
    with leaving_out():
        check_parquet(empty)
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: there is no folder {path.parent}.")
    if path.is_dir():
        raise StoreError(f"{path} cannot be written: it is a folder. Name a file in it.")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    rows = 0
    try:
        with pq.ParquetWriter(part, empty.schema) as writer:
            for batch in batches:
                table = for_parquet(pa.Table.from_batches([batch]))
                try:
                    writer.write_table(table)
                except pa.ArrowException:
                    # Arrow does not name the column. The check does, if the column's type or values are at fault.
                    with leaving_out():
                        check_parquet(table)
                    raise
                rows += batch.num_rows
        part.replace(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be written: {error}. Cast that column, or leave it out.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return rows
