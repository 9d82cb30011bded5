"""The parts of a split training set as Parquet files in a folder, which appears when all of them are complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from seeknal.errors import StoreError
from seeknal.join.streaming import write_parquet
from seeknal.system.folders import atomic_folder, refused


def write_parts(parts: Mapping[str, pa.Table], folder: Path) -> int:
    """Write each part to a file of its name in a new folder.

    Returns:
        The number of rows written.

    Raises:
        DataError: Parquet has no type for a column.
        StoreError: The folder exists, or cannot be written.
    """
    if folder.exists():
        raise StoreError(
            f"{folder} cannot be written: it exists. Name a new folder, so that no files of two training sets mix."
        )
    try:
        with atomic_folder(folder) as place:
            return sum(write_parquet(rows.to_reader(), place / f"{part}.parquet") for part, rows in parts.items())
    except FileNotFoundError:
        raise StoreError(f"{folder} cannot be written: there is no folder {folder.parent}.") from None
    except OSError as error:
        raise refused(folder, error) from error
