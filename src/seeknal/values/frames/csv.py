"""CSV files, read once and as text, so that the type of a column can be inferred from all its values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from seeknal.errors import DataError

_FIELDS = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": False}
_BLOCKS = (2**20, 2**24, 2**28, 2**31 - 1)
"""Block sizes in bytes to try in turn, because Arrow refuses rows that are longer than its block."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(file: Path) -> pa.Table:
    """Return the rows of a file with all columns as text. Empty fields without quotes are null.

    Raises:
        DataError: The file cannot be read, or is not UTF-8; then the message names the column and the row.
    """
    try:
        data = file.read_bytes()
        names = _header(file, data)
        return _read(data, names, pa.string())
    except pa.ArrowInvalid as error:
        if "invalid UTF8" in str(error):
            raise _not_utf8(file, *_first_unreadable(_read(data, names, pa.binary()))) from None
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None
    except OSError as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from None


def _header(file: Path, data: bytes) -> list[str]:
    if data.startswith(_UTF_16):
        raise _not_utf8(file, "it is UTF-16")
    try:
        return _in_blocks(csv.open_csv, data, csv.ConvertOptions(check_utf8=False)).schema.names  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        name = bytes(error.object).decode("latin-1")
        raise _not_utf8(file, f"the name of a column is {name!r}, if it is Latin-1") from None


def _read(data: bytes, names: list[str], kind: pa.DataType) -> pa.Table:
    return _in_blocks(csv.read_csv, data, csv.ConvertOptions(column_types=dict.fromkeys(names, kind), **_FIELDS))


def _in_blocks(read: Callable[..., Any], data: bytes, options: csv.ConvertOptions) -> Any:
    """Read with the smallest block size that has room for the longest row; Arrow reads small blocks faster."""
    # Only a quoted value can contain a newline, and Arrow reads faster if none can.
    parse = csv.ParseOptions(newlines_in_values=b'"' in data)
    for size in _BLOCKS:
        try:
            block = csv.ReadOptions(block_size=size)
            return read(pa.BufferReader(data), read_options=block, parse_options=parse, convert_options=options)
        except pa.ArrowInvalid as error:
            if size > len(data) or size == _BLOCKS[-1] or "block" not in str(error):
                raise
    raise AssertionError("the last block raises")


def _first_unreadable(table: pa.Table) -> tuple[str, str | None, int | None]:
    """Return the first value that is not UTF-8, described for the message, with its column and row."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        for row, value in enumerate(column.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                return f"column {name!r} holds {value!r} in row {row}", name, row
    raise AssertionError("Arrow found a value that is not UTF-8")


def _not_utf8(file: Path, what: str, column: str | None = None, row: int | None = None) -> DataError:
    return DataError(
        f"{str(file)!r} is not UTF-8: {what}. Convert it, for example a file from Windows with: iconv -f CP1252 -t UTF-8.",
        column=column,
        row=row,
    )
