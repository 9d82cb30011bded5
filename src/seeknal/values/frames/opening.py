"""Detection of a frame's kind, by its class or by the interface it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.values.frames.files import opened_path
from seeknal.values.frames.given import Frame, InArrow, InDuckDB, InPandas, InPolars, Stream
from seeknal.values.frames.spark import InSpark

_CLASSES: dict[tuple[str, str], tuple[str, Callable[[Any], Frame]]] = {
    ("pandas", "DataFrame"): ("pandas", InPandas),
    ("polars", "DataFrame"): ("polars", InPolars),
    ("polars", "LazyFrame"): ("polars", InPolars),
    ("pyarrow", "Table"): ("arrow", InArrow),
    ("pyarrow", "RecordBatch"): ("arrow", lambda batch: InArrow(pa.Table.from_batches([batch]))),
    ("pyarrow", "RecordBatchReader"): ("arrow", Stream),
    ("pyarrow", "Dataset"): ("arrow", lambda dataset: Stream(dataset.scanner().to_reader())),
    ("pyspark", "DataFrame"): ("spark", InSpark),
    ("duckdb", "DuckDBPyRelation"): ("duckdb", InDuckDB),
    ("_duckdb", "DuckDBPyRelation"): ("duckdb", InDuckDB),
}


def _class_of(frame: object) -> tuple[str, Callable[[Any], Frame]]:
    """Return the kind of a frame and the function that opens it.

    Frames are recognized by the names of their classes, so that no library has to be imported.

    Raises:
        DataError: The object is not a frame.
    """
    if isinstance(frame, str | Path):
        return "path", lambda path: opened_path(Path(path))
    if isinstance(frame, Frame):
        return frame.kind, lambda opened: opened
    for base in type(frame).__mro__:  # a subclass, such as a GeoDataFrame, is read as its base class
        if found := _CLASSES.get((base.__module__.partition(".")[0], base.__name__)):
            return found
    if hasattr(frame, "__arrow_c_stream__"):
        return "arrow", Stream
    if hasattr(frame, "__arrow_c_array__"):
        return "arrow", _of_array
    raise DataError(
        f"Expected a frame, not {type(frame).__qualname__}. Pass a pandas, Polars or Spark frame, a PyArrow table or batches, "
        "a DuckDB relation, any object that exports its columns to Arrow, or the path of Parquet or CSV files."
    )


def _of_array(given: Any) -> Frame:
    try:
        return InArrow(pa.Table.from_batches([pa.record_batch(given)]))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{type(given).__qualname__} is not an array of columns: {error}") from None


def kind_of(frame: object) -> str:
    """Return the kind of a frame: "pandas", "polars", "arrow", "duckdb", "spark" or "path".

    Raises:
        DataError: The object is not a frame.
    """
    return _class_of(frame)[0]


def opened(frame: object) -> Frame:
    """Return a `Frame` for an object: it knows the names of the columns, and reads rows on request.

    Raises:
        DataError: The object is not a frame, or the path does not lead to files that can be read.
    """
    return _class_of(frame)[1](frame)


def kept(frame: object) -> object:
    """Return a frame that can be read repeatedly: a stream, which can be read only once, is read now.

    Every other frame is returned unchanged.

    Raises:
        DataError: The object is not a frame, or its stream cannot be read.
    """
    kind, open_it = _class_of(frame)
    is_lasting = kind != "arrow" or isinstance(frame, pa.Table | pa.RecordBatch) or hasattr(frame, "scanner")
    return frame if is_lasting else open_it(frame).table()


def to_arrow(frame: object) -> pa.Table:
    """Return a frame's rows as an Arrow table, in their order.

    Raises:
        DataError: The object is not a frame, or a column cannot be read.
    """
    return opened(frame).table()
