"""Spark DataFrames with features beside their columns, joined in the executors without a row passing through the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from seeknal.engine.protocol import Request
from seeknal.engine.spark import pieces
from seeknal.engine.spark.engine import SparkEngine, mapped
from seeknal.engine.spark.session import explained, quiet
from seeknal.engine.spark.work import work_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

Moments = Callable[[pa.Table], pa.Table]
"""Returns k0, k1, ... (keys, in stored types) and t (microseconds) for the rows of a spine."""


@dataclass(frozen=True)
class Joined:
    """The features of one request, for the rows of a spine.

    Args:
        request: The request.
        moments: Computes entities and moments, in executors.
        names: The names of the features in the result.
    """

    request: Request
    moments: Moments
    names: tuple[str, ...]


def with_features(
    engine: SparkEngine,
    frame: DataFrame,
    joined: Sequence[Joined],
    finished: Callable[[pa.Table], pa.Table],
    schema: StructType,
) -> DataFrame:
    """Return a DataFrame of the rows of another and the features known at their moments. It is evaluated when it is used.

    Args:
        engine: The engine.
        frame: The spine.
        joined: The features; each request costs a shuffle of the spine.
        finished: Makes rows of the result from the columns of the spine and the features, in logical types.
        schema: The schema of the result.
    """
    names = frame.columns

    def packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            # Names of the spine could be those of keys and moments.
            table = pa.Table.from_batches([batch]).rename_columns([f"s{i}" for i in range(len(names))])
            yield from pieces.answered(table)

    with explained():
        found = mapped(frame, packed)
        for number, one in enumerate(joined):
            asked = _asking(found, one.moments, names)
            found = engine.joined(work_of(one.request), asked, 0, prefix=f"g{number}_")

    every = [*names, *(name for one in joined for name in one.names)]

    def unpacked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for table in pieces.unpacked(pa.Table.from_batches([batch])):
                yield from finished(table.rename_columns(every)).to_batches()

    with explained(), quiet():
        return found.mapInArrow(unpacked, schema)


def _asking(found: DataFrame, moments: Moments, names: Sequence[str]) -> DataFrame:
    """Return the pieces of a spine with the entities and moments of one request beside its columns."""

    def asked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for table in pieces.unpacked(pa.Table.from_batches([batch])):
                spine = table.select([f"s{i}" for i in range(len(names))]).rename_columns(list(names))
                own = moments(spine)
                for name, column in zip(own.column_names, own.columns, strict=True):
                    table = table.append_column(name, column)  # noqa: PLW2901 - it grows
                yield from pieces.answered(table)

    return mapped(found, asked)


def schema_of(engine: SparkEngine, schema: pa.Schema) -> StructType:
    """Return a schema in Spark's types."""
    nulls = pa.table(
        [pa.nulls(1, kind) for kind in schema.types], schema=schema
    )  # Spark Connect takes no table without rows
    with explained():
        return engine.session.createDataFrame(nulls).schema
