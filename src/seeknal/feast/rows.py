"""The rows of a feature view of Feast: the file that has them, and the columns that a group takes from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from seeknal.errors import DataError
from seeknal.feast.code import NotPortableError
from seeknal.feast.described import View
from seeknal.names import quoted
from seeknal.system.folders import named

_FORMATS = ("ParquetFormat", "DeltaFormat")


@dataclass(frozen=True)
class Rows:
    """The rows of a feature view.

    Args:
        path: A Parquet file, a folder of them, or a Delta Lake table.
        is_delta: Whether it is a Delta Lake table.
        columns: The file's columns by the names that the group has for them.
    """

    path: str
    is_delta: bool
    columns: Mapping[str, str]

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """The types of the columns."""
        schema = self._dataset().schema
        return {name: schema.field(own).type for name, own in self.columns.items()}

    def read(
        self, names: Sequence[str] | None = None, among: tuple[str, Collection[Any]] | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows, in batches.

        Args:
            names: The columns to read. None: all.
            among: A column and values: only rows with one of these in this column are read.
        """
        fields = {name: ds.field(self.columns[name]) for name in names or self.columns}
        where = None
        if among is not None:
            where = ds.field(self.columns[among[0]]).isin(pa.array(among[1], self.kinds[among[0]]))
        return self._dataset().scanner(columns=fields, filter=where).to_reader()

    def check(self) -> None:
        """Check that the rows can be read and have the columns.

        Raises:
            DataError: They cannot, or lack a column.
        """
        try:
            has = set(self._dataset().schema.names)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        if missing := [own for own in self.columns.values() if own not in has]:
            raise DataError(f"{self.path} has no column {quoted(missing)}")

    def _dataset(self) -> Any:
        if self.is_delta:
            from deltalake import DeltaTable

            return DeltaTable(self.path).to_pyarrow_dataset()
        return ds.dataset(self.path, format="parquet")


def rows_of(view: View, keys: tuple[str, ...], file: str | None) -> Rows:
    """Return the rows of a feature view.

    Args:
        view: The view.
        keys: Its join keys.
        file: A file or folder to read in place of the view's source.

    Raises:
        NotPortableError: The rows are not in local files.
        DataError: The file cannot be read, or lacks a column.
    """
    source = view.source
    if source is None:
        raise NotPortableError("it has a stream and no source of past rows")
    if file is None:
        if source.path is None or source.kind != "FileSource":
            raise NotPortableError(f"its rows are in a {source.kind}, which Seeknal does not read")
        if "://" in source.path:
            raise NotPortableError(f"its rows are in {source.path}, which is no local file")
        if source.format not in _FORMATS:
            raise NotPortableError(f"its rows are in a file of {source.format}")
    own = {new: old for old, new in source.renames.items()}
    roles = [*keys, source.event_time, *([source.created_time] if source.created_time else [])]
    columns = {name: name for name in roles} | {name: own.get(name, name) for name in view.types}
    rows = Rows(file or str(source.path), file is None and source.format == "DeltaFormat", columns)
    if not named(rows.path).exists():
        raise DataError(f"{rows.path} does not exist")
    rows.check()
    return rows
