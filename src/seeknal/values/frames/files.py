"""Frames read from a path: a Parquet or CSV file, or a folder or glob of them, optionally in key=value (Hive) folders.

A file with an Arrow IPC stream (.arrows) can be read as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.errors import DataError
from seeknal.values import types
from seeknal.values.casting import cast
from seeknal.values.frames import texts
from seeknal.values.frames.csv import read_text
from seeknal.values.frames.given import Batches, Frame, InArrow, Kinds, Text

PARQUET = {".parquet", ".pq"}
_CSV = ".csv"
_STREAM = ".arrows"
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def opened_path(path: Path) -> Frame:
    """Return a frame for the file, folder or glob at a path.

    Raises:
        DataError: There are no files, or they cannot be read, or they are not all Parquet or all CSV.
    """
    try:
        found = _list_files(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from None
    suffixes = {file.suffix.lower() for file, _ in found}
    kinds = [kind for kind in ({*PARQUET}, {_CSV}, {_STREAM}) if kind & suffixes]
    if odd := [file for file, _ in found if file.suffix.lower() not in {*PARQUET, _CSV, _STREAM}]:
        hint = " Select the files to read with a glob: 'folder/*.parquet'." if len(found) > 1 else ""
        raise DataError(f"{str(odd[0])!r} is neither .parquet nor .csv.{hint}")
    if len(kinds) > 1:
        raise DataError(
            f"{str(path)!r} contains files of several kinds: {', '.join(sorted(suffixes))}. "
            f"Select those of one kind with a glob: {str(path / '*.parquet')!r}."
        )
    keys = _keys(found)
    if kinds == [{_CSV}]:
        return Text(_texts([(file, read_text(file)) for file, _ in found], keys))
    if kinds == [{_STREAM}]:
        return ArrowFile(found[0][0])
    return ParquetFiles([ParquetFile.at(file) for file, _ in found], keys)


def _list_files(path: Path) -> list[tuple[Path, dict[str, str | None]]]:
    """Return the files of a path, ordered by their paths, each with the key=value pairs of its folders.

    Only folders below the given one count, or, for a glob, below the last folder without a wildcard.
    """
    if path.is_file():
        return [(path, {})]
    if path.is_dir():
        found = [(file, path) for file in _walk(path)]
    elif has_magic(str(path)):
        root, pattern = _split_glob(path)
        found = [(file, root) for one in root.glob(pattern) for file in (_walk(one) if one.is_dir() else [one])]
        found = [(file, root) for file, root in found if not _is_hidden(file.relative_to(root))]
        for folder in {folder for file, _ in found for folder in file.parents if folder.is_relative_to(root)}:
            _refuse_delta(folder)
    else:
        raise DataError(f"There is no file {str(path)!r}.")
    if not found:
        raise DataError(f"There are no Parquet or CSV files in {str(path)!r}.")
    files = {file: _hive_keys(file.relative_to(root).parts[:-1]) for file, root in found}
    # Sorted, because the order of rows breaks ties, and a file system lists files in any order.
    return sorted(files.items())


def _walk(folder: Path) -> list[Path]:
    files = []
    for here, folders, names in os.walk(folder):
        _refuse_delta(Path(here))
        # Assigned in place, so that `os.walk` does not descend into hidden folders.
        folders[:] = [name for name in folders if not _is_hidden(Path(name))]
        files += [Path(here, name) for name in names if not _is_hidden(Path(name))]
    return files


def _refuse_delta(folder: Path) -> None:
    if (folder / "_delta_log").is_dir():
        raise DataError(
            f"{str(folder)!r} is a Delta Lake table, whose files may also hold deleted rows. Read it as a table: "
            f"deltalake.DeltaTable({str(folder)!r}).to_pyarrow_table()."
        )


def _is_hidden(path: Path) -> bool:
    """Return whether a path is one that programs leave beside their data, such as _SUCCESS or .part-0.parquet.crc."""
    return any(part.startswith(("_", ".")) for part in path.parts) or path.suffix == ".crc"


def _split_glob(path: Path) -> tuple[Path, str]:
    """Split a glob into its leading folders without wildcards, and the rest as a pattern."""
    first = next(place for place, part in enumerate(path.parts) if has_magic(part))
    return Path(*path.parts[:first]), str(Path(*path.parts[first:]))


def _hive_keys(folders: Sequence[str]) -> dict[str, str | None]:
    """Parse folder names of the form key=value, with Hive's null and percent-encoding."""
    pairs = (name.split("=", 1) for name in folders if "=" in name)
    return {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, value in pairs}


def _keys(found: Sequence[tuple[Path, Mapping[str, str | None]]]) -> pa.Table:
    """Return the columns from the folder names, as text, with a row for each file.

    Raises:
        DataError: The files are in folders with different keys.
    """
    names = list(found[0][1])
    for file, keys in found:
        if list(keys) != names:
            raise DataError(
                f"The folders of {str(file)!r} have {', '.join(keys) or 'no key'} in their names, but those of "
                f"{str(found[0][0])!r} have {', '.join(names) or 'no key'}. Read files of one layout at a time."
            )
    return pa.table({name: pa.chunked_array([[keys[name] for _, keys in found]], pa.string()) for name in names})


def _check_apart(file: Path, names: Sequence[str], keys: Sequence[str]) -> None:
    if both := [name for name in keys if name in names]:
        raise DataError(
            f"Column {both[0]!r} is in {str(file)!r} and in the name of its folder. Leave it out of one of them.",
            column=both[0],
        )


def _texts(read: Sequence[tuple[Path, pa.Table]], keys: pa.Table) -> pa.Table:
    """Concatenate CSV files, in the column order of the first.

    Raises:
        DataError: A file has other columns than the first, or a column is in a file and in the name of its folder.
    """
    names, tables = read[0][1].column_names, []
    for row, (file, table) in enumerate(read):
        _check_same(file, table.column_names, read[0][0], names)
        _check_apart(file, names, keys.column_names)
        tables.append(_with_keys(table.select(names) if len(read) > 1 else table, keys, row))
    return pa.concat_tables(tables)


def _check_same(file: Path, names: Sequence[str], first: Path, expected: Sequence[str]) -> None:
    if sorted(names) != sorted(expected):
        odd = next(iter(set(names) ^ set(expected)), names[0])
        has, lacks = (file, first) if odd in names else (first, file)
        raise DataError(
            f"{str(has)!r} has a column {odd!r}, which {str(lacks)!r} does not have. Combine the files explicitly, for example "
            f'with duckdb.sql("FROM read_parquet(..., union_by_name = true)").',
            column=odd,
        )


def _with_keys(table: pa.Table, keys: pa.Table, row: int) -> pa.Table:
    for field, column in zip(keys.schema, keys.columns, strict=True):
        table = table.append_column(field, pa.repeat(column[row], len(table)))
    return table


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file that was opened. Reading it raises an error if it has changed since.

    Args:
        path: The path of the file.
        schema: Its columns. An index that pandas wrote to it is left out, as it is from a pandas frame.
        stamp: Its fingerprint (device, inode, size, modification time), to detect changes.
    """

    path: Path
    schema: pa.Schema
    stamp: tuple[int, ...]

    @classmethod
    def at(cls, path: Path) -> ParquetFile:
        """Open a file: read its schema and fingerprint.

        Raises:
            DataError: The file cannot be read.
        """
        try:
            stamp = _stamp(path)  # taken first, so that a change while the schema is read is detected
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{str(path)!r} cannot be read: {error}") from None
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        return cls(path, pa.schema([field for field in schema if field.name not in index]), stamp)

    def batches(self, names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yield its rows in batches, with the columns in the order of the file.

        Raises:
            DataError: The file is corrupt, or was changed since it was opened.
        """
        columns = [name for name in self.schema.names if name in names]
        for batch in _validated(self.path, lambda: pq.ParquetFile(self.path).iter_batches(size, columns=columns)):
            self.check()  # after the read: no batch of a changed file may be passed on
            yield batch.select(columns)

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return its rows as a table; see `batches`."""
        columns = [name for name in self.schema.names if name in names]
        try:
            table = pq.ParquetFile(self.path).read(columns).select(columns)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{str(self.path)!r} cannot be read: {error}") from None
        self.check()
        return table

    def check(self) -> None:
        """Check that the file has not changed since it was opened: its rows must all come from one state of it.

        Raises:
            DataError: The file was changed or removed.
        """
        try:
            is_same = _stamp(self.path) == self.stamp
        except OSError:
            is_same = False
        if not is_same:
            raise DataError(f"{str(self.path)!r} was changed while it was read. Read it again once it is complete.")


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class ParquetFiles(Frame):
    """A frame of Parquet files with the same columns.

    Args:
        files: The files, in order.
        keys: The columns from the names of their folders, as text, with a row for each file.
        kinds: The expected types of those columns, by name.
    """

    kind = "path"

    def __init__(self, files: Sequence[ParquetFile], keys: pa.Table, kinds: Kinds | None = None) -> None:
        self._files = files
        self._text = keys
        self._kinds = kinds or {}

    @property
    def has_text(self) -> bool:
        """See `Frame.has_text`."""
        return bool(self._text.column_names)

    @property
    def _labels(self) -> Sequence[Any]:
        names = self._files[0].schema.names
        for file in self._files:
            _check_same(file.path, file.schema.names, self._files[0].path, names)
            _check_apart(file.path, names, self._text.column_names)
        return [*names, *self._text.column_names]

    def typed(self, kinds: Kinds) -> Frame:
        """See `Frame.typed`."""
        return ParquetFiles(self._files, self._text, kinds)

    @cached_property
    def _keys(self) -> pa.Table:
        """The columns from the folder names, in their expected or inferred types."""
        columns = [
            texts.typed(column, self._kinds.get(name))
            for name, column in zip(self._text.column_names, self._text.columns, strict=True)
        ]
        return pa.Table.from_arrays(columns, names=self._text.column_names)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        names = self.names if names is None else list(names)
        schema = self._schema(names)
        whole = (self._whole(file.table(names), row, schema) for row, file in enumerate(self._files))
        return InArrow(pa.concat_tables(whole).select(names))

    def batches(self, names: Sequence[str], size: int) -> tuple[pa.Schema, Batches]:
        """See `Frame.batches`. Files are read lazily, and again in each iteration."""
        schema = self._schema(names)

        def read() -> Iterator[pa.RecordBatch]:
            for row, file in enumerate(self._files):
                for batch in file.batches(names, size):
                    yield from self._whole(pa.Table.from_batches([batch]), row, schema).to_batches()

        return schema, read

    def _whole(self, table: pa.Table, row: int, schema: pa.Schema) -> pa.Table:
        """Return the rows of a file in the common schema, with the columns from its folder names."""
        table = _with_keys(table, self._keys, row).select(schema.names)
        # Without metadata, which may differ between files: all batches must have one schema.
        return table.cast(schema) if table.schema.types != schema.types else table.replace_schema_metadata()

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([self._field(name) for name in names])

    def _field(self, name: str) -> pa.Field:
        """Return a column with the widest of its types in the files, in which all its values are exact.

        Raises:
            DataError: No file has such a type; the message names a file that does not fit those before it.
        """
        if name in self._keys.column_names:
            return self._keys.schema.field(name)
        wide = self._files[0].schema.field(name).type
        for file in self._files[1:]:
            if (kind := file.schema.field(name).type) != wide:
                kind, before = types.logical(kind), types.logical(wide)
                wide = kind if types.widens(before, kind) else before
                if not types.widens(kind, wide):
                    raise DataError(
                        f"Column {name!r} is {kind} in {str(file.path)!r}, but {wide} in files before it. Cast one.",
                        column=name,
                    )
        return pa.field(name, wide)


def for_parquet(table: pa.Table) -> pa.Table:
    """Return a table that Parquet can write, with plain values for dictionaries of nested values or of views."""
    for place, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if pa.types.is_dictionary(field.type) and _is_view_or_nested(field.type.value_type):
            table = table.set_column(place, field.name, cast(column, types.standard(field.type)))
    return table


def _is_view_or_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def check_parquet(table: pa.Table) -> None:
    """Check that Parquet can store each column of a table.

    Raises:
        DataError: It cannot store a column; the message names the column.
    """
    for field in table.schema:
        if _has_no_width(field.type):
            raise _no_place(field, "all its values are empty.")
        try:
            if _is_odd(field.type):  # whether Parquet can store such a type, only an attempt shows
                pq.write_table(table.select([field.name]), pa.BufferOutputStream())
        except (pa.ArrowException, NotImplementedError) as error:
            raise _no_place(field, str(error)) from None


def _no_place(field: pa.Field, why: str) -> DataError:
    return DataError(
        f"Column {field.name!r} is {field.type}, which Parquet cannot store: {why} Cast it.", column=field.name
    )


def _has_no_width(kind: pa.DataType) -> bool:
    inside = (kind.field(place).type for place in range(kind.num_fields))
    return types.has_no_width(kind) or any(map(_has_no_width, inside))


def _is_odd(kind: pa.DataType) -> bool:
    """Return whether Parquet may be unable to store a type."""
    return not (pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)) or (
        pa.types.is_interval(kind)
    )


class ArrowFile(Frame):
    """A frame in a file with an Arrow IPC stream."""

    kind = "path"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schema = _stream_schema(path)

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._schema.names)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        schema, read = self.batches(self.names if names is None else names, 2**20)
        return InArrow(pa.Table.from_batches(read(), schema))

    def batches(self, names: Sequence[str], size: int) -> tuple[pa.Schema, Batches]:
        """See `Frame.batches`. The file is read lazily, and again in each iteration."""
        path, names = self._path, list(names)
        schema = pa.schema([self._schema.field(name) for name in names])
        return schema, lambda: (batch.select(names) for batch in _validated(path, lambda: _read_stream(path, size)))


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


def _validated(file: Path, read: Any) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file after validating each: offsets in a corrupt one could lead to a crash of the process.

    Raises:
        DataError: The file is corrupt or cannot be read.
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
