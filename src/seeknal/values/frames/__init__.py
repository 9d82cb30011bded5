"""Any dataframe in, Arrow through, the same kind out.

Known kinds: pandas, Polars, PyArrow and whatever gives its columns to Arrow, DuckDB relations, and paths of Parquet and CSV.
Of these libraries pandas and Polars are extras: a caller who asks for a frame of one that is not installed is told what to
install.
"""

from seeknal.values.frames.answers import (
    OUTPUTS,
    empty_batch,
    from_arrow,
    output_kind,
    records,
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
    "records",
    "to_arrow",
    "to_stream",
    "with_columns",
]
