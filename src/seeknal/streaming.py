"""Training sets larger than memory: the spine goes through batch by batch, and waits in files in between."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.columns import is_text, utc
from seeknal.engine import Engine
from seeknal.errors import DataError, StoreError
from seeknal.folders import kept_in, passing
from seeknal.frames import Frame, check_parquet, empty_batch, for_parquet
from seeknal.progress import Tell
from seeknal.retrieval import Source, Spine, bounds_of, key_kinds, leaving_out, moments_of, spine_columns
from seeknal.times import Interval

_BATCH = 2**17


@dataclass(frozen=True)
class Stream:
    """What is asked for, batch by batch.

    Args:
        sources: The lookups.
        spine: The spine; files of Parquet are read batch by batch.
        date_col: Its column with the moments.
        keep: Its columns to keep beside keys and moment. None: all.
        span: Only rows with an event time within it can be seen.
    """

    sources: Sequence[Source]
    spine: Frame
    date_col: str
    keep: Sequence[str] | None
    span: Interval


def stream(engine: Engine, asked: Stream, scratch: Path, tell: Tell) -> pa.RecordBatchReader:
    """Give each row of a spine the features known at its moment, in order; see `seeknal.retrieval.training_set`.

    Args:
        engine: What to ask.
        asked: What is asked for.
        scratch: Folder for what does not fit in memory; nothing is left in it.
        tell: Told what is being done.

    Returns:
        The batches. Files of Parquet are read when the first is asked for; any other spine is read now.
    """
    used, kept = spine_columns(asked.sources, Spine(asked.spine, asked.date_col, asked.keep))
    with leaving_out(used):
        schema, batches = asked.spine.typed(key_kinds(asked.sources)).batches(kept, _BATCH)
    features = [
        pa.field(out, source.version.schema.feature(own).type)
        for source in asked.sources
        for own, out in source.features.items()
    ]
    result = pa.schema([*(schema.field(name) for name in kept), *features])

    def answers() -> Iterator[pa.RecordBatch]:
        with ExitStack() as stack:
            with kept_in(scratch):
                folder = stack.enter_context(passing(scratch))
            tell("Reading the spine")
            spine = (batch.select(used) for batch in chain([empty_batch(schema)], batches()))
            with kept_in(scratch):
                files, bounds = _spool(asked, spine, folder)
            readers = []
            for source, file in zip(asked.sources, files, strict=True):
                tell(f"Joining {source.record.label}")
                with kept_in(scratch):
                    readers.append(_Rows(engine.as_of(source.seen(bounds, asked.span), file)))
            tell("Putting it together")
            for batch in batches():
                found = [column for reader in readers for column in reader.take(batch.num_rows)]
                yield pa.RecordBatch.from_arrays([*(batch[name] for name in kept), *found], schema=result)

    return pa.RecordBatchReader.from_batches(result, answers())


def _spool(asked: Stream, batches: Iterator[pa.RecordBatch], folder: Path) -> tuple[list[Path], Interval | None]:
    """Write the moments to look from to a file for each source; give the first and the last moment too."""
    files = [folder / f"moments-{number}.parquet" for number in range(len(asked.sources))]
    bounds: Interval | None = None
    position, known = 0, pa.chunked_array([], pa.string())
    with ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []
        for batch in batches:
            table = pa.Table.from_batches([batch])
            at, known = _moments(asked.date_col, table[asked.date_col], known, position)
            spooled = [moments_of(source, table, at) for source in asked.sources]
            numbers = pa.array(range(position, position + len(table)), pa.int64())
            spooled = [moments.append_column("i", numbers) for moments in spooled]
            if not writers:
                pairs = zip(files, spooled, strict=True)
                writers = [stack.enter_context(pq.ParquetWriter(file, moments.schema)) for file, moments in pairs]
            for writer, moments in zip(writers, spooled, strict=True):
                writer.write_table(moments)
            here = bounds_of(spooled[0])
            bounds = here if bounds is None else bounds.hull(here) if here else bounds
            position += len(table)
    return files, bounds


def _moments(
    name: str, column: pa.ChunkedArray, known: pa.ChunkedArray, position: int
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Read a batch's moments; text beside the first that was read, as all of it has a zone, or none has.

    Args:
        name: The column's name.
        column: The moments.
        known: The first that was read, where that is text; nothing before.
        position: The number of the batch's first row.

    Returns:
        The moments in UTC, and what is known for the next batch.
    """
    if not is_text(column.type):
        return utc(name, column, up=False, first=position), known
    text = column.cast(pa.string())
    together = pa.chunked_array([*known.chunks, *text.chunks], pa.string())
    at = utc(name, together, up=False, first=position - len(known)).slice(len(known))
    return at, known if len(known) else text.drop_null().slice(0, 1)


class _Rows:
    """A stream of batches of which any number of rows can be taken."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self._rest = reader.schema.empty_table()

    def take(self, count: int) -> list[pa.Array]:
        """Give the columns of the next rows."""
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
    """Write batches to a Parquet file, which appears when it is whole.

    Returns:
        How many rows were written.

    Raises:
        DataError: Parquet has no type for a column.
        StoreError: The file cannot be written.
    """
    empty = for_parquet(pa.Table.from_batches([empty_batch(batches.schema)]))
    with leaving_out():
        check_parquet(empty)
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: there is no folder {path.parent}.")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    rows = 0
    try:
        with pq.ParquetWriter(part, empty.schema) as writer:
            for batch in batches:
                table = for_parquet(pa.Table.from_batches([batch]))
                try:
                    writer.write_table(table)
                except pa.ArrowException:
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
