"""Dataframes of any kind: read as Arrow, and returned as the same kind.

The kinds are pandas, Polars, PyArrow and any object that exports its columns to Arrow, DuckDB relations, and paths of
Parquet and CSV files. pandas and Polars are optional extras: a request for a frame of a library that is not installed
raises an error that says what to install.
"""

from seeknal.values.frames.answers import (
    OUTPUTS,
    empty_batch,
    from_arrow,
    output_kind,
    to_stream,
    with_columns,
)
from seeknal.values.frames.blocks import Blocks
from seeknal.values.frames.files import check_parquet, for_parquet
from seeknal.values.frames.given import Batches, Frame
from seeknal.values.frames.libraries import check_installed, library
from seeknal.values.frames.limits import check_times_of_day
from seeknal.values.frames.opening import kept, kind_of, opened, to_arrow

__all__ = [
    "OUTPUTS",
    "Batches",
    "Blocks",
    "Frame",
    "check_installed",
    "check_parquet",
    "check_times_of_day",
    "empty_batch",
    "for_parquet",
    "from_arrow",
    "kept",
    "kind_of",
    "library",
    "opened",
    "output_kind",
    "to_arrow",
    "to_stream",
    "with_columns",
]
