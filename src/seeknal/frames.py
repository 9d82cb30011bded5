"""Any dataframe in, Arrow through, the same kind out.

Known kinds: pandas, Polars, PyArrow, a DuckDB relation, and a path to a Parquet or CSV file. Of these libraries pandas and
Polars are extras: whoever asks for a frame of one that is not installed is told what to install.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seeknal import types
from seeknal.errors import DataError, DefinitionError
from seeknal.extras import how_to_install
from seeknal.names import did_you_mean
from seeknal.sql import comma, quote

_PARQUET = {".parquet", ".pq"}
_STREAM = ".arrows"
OUTPUTS = ("pandas", "polars", "arrow", "duckdb")
_EXTRAS = ("pandas", "polars")


def kind_of(frame: object) -> str:
    """Say which kind a frame is: "pandas", "polars", "arrow", "duckdb" or "path".

    Raises:
        DataError: It is none of them.
    """
    module = type(frame).__module__.partition(".")[0]
    kinds = {"pandas": "pandas", "polars": "polars", "pyarrow": "arrow", "duckdb": "duckdb", "_duckdb": "duckdb"}
    if isinstance(frame, str | Path):
        return "path"
    if module not in kinds:
        raise DataError(
            f"Expected a frame, not {type(frame).__qualname__}. Give a pandas or Polars frame, a PyArrow table, "
            "a DuckDB relation, or the path of a Parquet or CSV file."
        )
    return kinds[module]


def settle(frame: Any) -> Any:
    """Give a frame that can be read more than once: what is lazy or in a file is read now.

    Raises:
        DataError: It is no frame, or there is no such file.
    """
    kind = kind_of(frame)
    if kind == "path":
        return _read(Path(str(frame)))
    if isinstance(frame, pa.RecordBatchReader):
        return frame.read_all()
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    lazy = kind == "polars" and hasattr(frame, "collect")
    settled = frame.collect() if lazy else frame
    if not hasattr(settled, "columns"):
        raise DataError(f"Expected a frame with columns, not a {kind} {type(frame).__name__}. Give a whole frame.")
    return settled


def names_of(frame: Any) -> list[str]:
    """List the columns of a settled frame.

    Raises:
        DataError: A name is not text, or stands twice.
    """
    names = list(frame.column_names if isinstance(frame, pa.Table) else frame.columns)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise DataError(f"The frame's column {odd[0]!r} has a name that is not text. Rename it.", column=odd[0])
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"The frame has two columns named {repeated[0]!r}. Rename or drop one.", column=repeated[0])
    return names


def require(frame: Any, names: Iterable[str], what: str) -> None:
    """Refuse a settled frame that lacks a column.

    Args:
        frame: The frame.
        names: The columns it should have.
        what: What to call it in the message, such as "The spine".

    Raises:
        DataError: It names the column, and the nearest one there is.
    """
    there = names_of(frame)
    for name in names:
        if name not in there:
            in_index = kind_of(frame) == "pandas" and name in frame.index.names
            hint = " It is in the index: call reset_index() first." if in_index else did_you_mean(name, there)
            raise DataError(f"{what} has no column {name!r}.{hint}", column=name)


def to_arrow(frame: object, names: Sequence[str] | None = None) -> pa.Table:
    """Take a frame's rows as an Arrow table, in their order; an index of pandas is left out.

    Args:
        frame: The frame.
        names: The columns to take. None: all.

    Raises:
        DataError: It is no frame, or a column mixes types.
    """
    settled = settle(frame)
    return _READERS[kind_of(settled)](settled, names_of(settled) if names is None else list(names))


def batches(frame: object, size: int) -> tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]:
    """Take a frame's rows in batches; a file of Parquet or an Arrow stream is read as they are asked for, each time anew.

    Raises:
        DataError: It is no frame, or the file cannot be read.
    """
    if kind_of(frame) == "path" and Path(str(frame)).suffix.lower() in _PARQUET:
        file = Path(str(frame))
        schema = _parquet_schema(file)
        return schema, lambda: _sound(file, lambda: pq.ParquetFile(file).iter_batches(size, columns=schema.names))
    if kind_of(frame) == "path" and Path(str(frame)).suffix.lower() == _STREAM:
        stream = Path(str(frame))
        return _stream_schema(stream), lambda: _sound(stream, lambda: _read_stream(stream, size))
    table = to_arrow(frame)
    return table.schema, lambda: iter(table.to_batches(max_chunksize=size))


def to_stream(table: pa.Table) -> bytes:
    """Write a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _stream_schema(file: Path) -> pa.Schema:
    try:
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
            return reader.schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None


def _read_stream(file: Path, size: int) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from (batch.slice(i, size) for i in range(0, batch.num_rows, size))


def _sound(file: Path, read: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Go through the batches of a file, and look whether they are whole.

    Raises:
        DataError: The file is broken.
    """
    batches = None
    while True:
        try:
            batches = read() if batches is None else batches
            batch = next(batches, None)
            if batch is not None:
                batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise DataError(f"{str(file)!r} cannot be read: {error}") from None
        if batch is None:
            return
        yield batch


def _from_pandas(frame: Any, names: list[str]) -> pa.Table:
    return pa.Table.from_arrays([_from_series(name, frame[name]) for name in names], names=names)


def _from_series(name: str, series: Any) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise DataError(f"Column {name!r} cannot be read as values of one type: {error}", column=name) from None


def _from_polars(frame: Any, names: list[str]) -> pa.Table:
    return pa.Table.from_arrays([_from_polars_column(frame, name) for name in names], names=names)


def _from_polars_column(frame: Any, name: str) -> pa.ChunkedArray:
    """Read a column in Arrow's older layouts: the categories of the newest one cannot be cast to text."""
    pl = library("polars")
    problem: object = "Python objects have no type"
    try:
        if frame.schema[name] != pl.Object:
            return frame.select(name).to_arrow(compat_level=pl.CompatLevel.oldest())[name]
    except pa.ArrowInvalid as error:
        problem = error
    raise DataError(f"Column {name!r} is {frame.schema[name]}, which cannot be read: {problem}", column=name)


def _from_duckdb(relation: Any, names: list[str]) -> pa.Table:
    """Read a relation; bits, which Arrow would garble, are read as text."""
    return relation.project(
        comma(
            f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" if str(kind) == "BIT" else quote(name)
            for name, kind in zip(relation.columns, relation.types, strict=True)
            if name in names
        )
    ).to_arrow_table()


def _read(file: Path) -> pa.Table:
    if not file.exists():
        raise DataError(f"There is no file {str(file)!r}.")
    suffix = file.suffix.lower()
    if suffix not in {*_PARQUET, ".csv"}:
        raise DataError(f"{str(file)!r} is neither .parquet nor .csv.")
    try:
        return _read_csv(file) if suffix == ".csv" else pq.ParquetFile(file).read(_parquet_schema(file).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None


def _parquet_schema(file: Path) -> pa.Schema:
    """Read the schema of a file; an index that pandas put into it is left out, as it is from a frame."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return pa.schema([field for field in schema if field.name not in index])


def _read_csv(file: Path) -> pa.Table:
    """Read a file whose empty fields are null; numbers with leading zeros, such as 007, are text."""
    from pyarrow import csv

    options = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": False}
    table = csv.read_csv(file, convert_options=csv.ConvertOptions(**options))
    if whole := [field.name for field in table.schema if pa.types.is_integer(field.type)]:
        as_text = dict.fromkeys(whole, pa.string())
        texts = csv.read_csv(
            file, convert_options=csv.ConvertOptions(include_columns=whole, column_types=as_text, **options)
        )
        for name in whole:
            if pc.any(pc.match_substring_regex(texts[name], r"^[+-]?0[0-9]")).as_py():
                table = table.set_column(table.column_names.index(name), name, texts[name])
    return table


_READERS: Mapping[str, Callable[[Any, list[str]], pa.Table]] = {
    "pandas": _from_pandas,
    "polars": _from_polars,
    "arrow": lambda table, names: table.select(names),
    "duckdb": _from_duckdb,
}


def output_kind(frame: object, output: str | None) -> str:
    """Say which kind to answer in: the one asked for, else the frame's own; pandas for a path, or without a frame.

    Raises:
        DefinitionError: Nobody knows the kind asked for, or its library is not installed.
    """
    if output is not None and output not in OUTPUTS:
        raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(OUTPUTS)}.")
    own = "pandas" if frame is None else kind_of(frame)
    kind = output or ("pandas" if own == "path" else own)
    check_installed(kind)
    return kind


def check_installed(kind: str) -> None:
    """Refuse a kind of answer whose library is not there, before any work is done.

    Raises:
        DefinitionError: It says what to install, and what to ask for instead.
    """
    if kind in _EXTRAS:
        library(kind, ' Ask for output="arrow", or install it.')


def library(kind: str, instead: str = "") -> Any:
    """Load pandas or Polars.

    Raises:
        DefinitionError: It is not installed.
    """
    try:
        return import_module(kind)
    except ImportError:
        raise DefinitionError(
            f"The answer would be a {kind} frame, and {kind} is not installed.{instead} {how_to_install(kind)}"
        ) from None


def from_arrow(table: pa.Table, kind: str) -> Any:
    """Give a table as a frame of the kind."""
    if kind == "arrow":
        return table
    if kind == "polars":
        return library("polars").from_arrow(table)
    if kind == "duckdb":
        import duckdb

        return duckdb.from_arrow(types.recast(table, [_in_duckdb(kind) for kind in table.schema.types]))
    return _to_pandas(table, arrow_backed=False)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Give a table's rows for people to see; a column that Python has no place for, as for nanoseconds, as text.

    Raises:
        DataError: A column cannot be shown.
    """
    columns = [_shown(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _shown(name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        pass
    try:
        return list(column.cast(pa.string()).to_pylist())
    except pa.ArrowException as error:
        raise DataError(f"Column {name!r} is {column.type} and cannot be shown: {error}", column=name) from None


def _in_duckdb(kind: pa.DataType) -> pa.DataType:
    return types.without_halves(kind) if "halffloat" in str(kind) else kind


def with_columns(frame: Any, names: list[str], features: pa.Table, kind: str) -> Any:
    """Give a settled frame with columns added at its right.

    Args:
        frame: What the caller gave; not touched.
        names: Those of its columns that are to be kept.
        features: The columns to add, row by row.
        kind: The kind to answer in; columns of the frame's own kind stay as they are.
    """
    own = kind_of(frame)
    if kind == own == "pandas":
        return _beside(frame, names, features)
    if kind == own == "polars":
        return frame.select(names).hstack(library("polars").from_arrow(features))
    table = to_arrow(frame, names)
    for field, column in zip(features.schema, features.columns, strict=True):
        table = table.append_column(field, column)
    return _with_own_types(table, frame, names) if kind == own == "duckdb" else from_arrow(table, kind)


def _with_own_types(table: pa.Table, relation: Any, names: list[str]) -> Any:
    """Make a relation whose first columns have the types they had, where Arrow has no such type."""
    own = dict(zip(relation.columns, relation.types, strict=True))
    columns = [
        f"CAST({quote(name)} AS {own[name]}) AS {quote(name)}" if name in names else quote(name)
        for name in table.column_names
    ]
    return from_arrow(table, "duckdb").project(comma(columns))


def _beside(frame: Any, keep: list[str], features: pa.Table) -> Any:
    pd = library("pandas")

    arrow_backed = any(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)
    right = _to_pandas(features, arrow_backed)
    right.index = frame.index
    return pd.concat([frame[keep], right], axis=1)


def _to_pandas(table: pa.Table, arrow_backed: bool) -> Any:
    """Make a pandas frame that holds every value exactly; whole numbers with nulls become Int64 and the like."""
    pd = library("pandas")

    if arrow_backed:
        return table.to_pandas(types_mapper=pd.ArrowDtype)
    parts = [pd.DataFrame(index=pd.RangeIndex(table.num_rows))]
    for is_plain, names in groupby(table.column_names, lambda name: _is_plain(table[name])):
        run = table.select(list(names))
        parts.append(_plain(run) if is_plain else pd.DataFrame({name: _series(run[name]) for name in run.column_names}))
    return pd.concat(parts, axis=1)


def _plain(table: pa.Table) -> Any:
    """Make a frame as Arrow does, but one that can be written to: a column of one chunk may be Arrow's own memory."""
    frame = table.to_pandas(ignore_metadata=True)
    return frame if all(column.num_chunks > 1 for column in table.columns) else frame.copy()


def _is_plain(column: pa.ChunkedArray) -> bool:
    """Whether Arrow gives pandas each value exactly."""
    kind = column.type
    is_whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return not (pa.types.is_nested(kind) or kind == pa.time64("ns") or (is_whole and column.null_count))


def _series(column: pa.ChunkedArray) -> Any:
    """Make a column of what Arrow would give inexactly."""
    pd = library("pandas")
    kind = column.type
    if pa.types.is_nested(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    if kind == pa.time64("ns"):
        return column.to_pandas(types_mapper={kind: pd.ArrowDtype(kind)}.get)  # Python's time has no nanoseconds
    if pa.types.is_boolean(kind):
        return column.to_pandas(types_mapper={kind: pd.BooleanDtype()}.get)
    name = str(kind).replace("i", "I").replace("uI", "UI")
    return column.to_pandas(types_mapper={kind: getattr(pd, f"{name}Dtype")()}.get)
