"""The SQL that reads stored rows from the data files of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seeknal.define.columns import ROW_ID
from seeknal.offline.log import DataFile
from seeknal.system.stored_paths import StoredPath, is_shared, readable
from seeknal.values.sql import comma, literal, quote, scan


def scan_stored(paths: Sequence[StoredPath], columns: Sequence[str] | None = None, path_column: str = "") -> str:
    """Write the SQL that reads data files of one table, for use after FROM.

    Args:
        paths: The files.
        columns: The columns that the query reads. None: all. Only these need to be fetched from an object store, and no other is then
            in the result, so that none can be read which was not fetched.
        path_column: The name of a column to add, with the path of each row's file; "" for none.
    """
    every = scan(readable(paths, columns), path_column)
    if columns is None or not is_shared(paths[0]):
        return every
    names = dict.fromkeys([*columns, *([path_column] if path_column else [])])
    return f"(SELECT {comma(map(quote, names))} FROM {every})"


def stored_sql(
    whole: Sequence[StoredPath], cut: Sequence[StoredPath] = (), below: int = 0, columns: Sequence[str] | None = None
) -> str:
    """Write the SQL that reads stored rows, for use after FROM.

    Args:
        whole: The files of which all rows are read.
        cut: The files of which only the rows with numbers below `below` are read.
        below: That number, exclusive.
        columns: The columns that the query reads, with the row number; None: all. See `scan_stored`.
    """
    sides = [scan_stored(whole, columns)] if whole else []
    # A hidden row with the number n is stored with ~n, which is -n - 1.
    numbers = f"{quote(ROW_ID)} BETWEEN {literal(-below)} AND {literal(below - 1)}"
    sides += [f"(SELECT * FROM {scan_stored(cut, columns)} WHERE {numbers})"] if cut else []
    return sides[0] if len(sides) == 1 else f"({' UNION ALL BY NAME '.join(f'SELECT * FROM {side}' for side in sides)})"


def files_sql(root: StoredPath, files: Iterable[DataFile], columns: Sequence[str] | None = None) -> str:
    """Write the SQL that reads the rows of files that belong to their snapshot; files with `below` must be of one snapshot.

    Args:
        root: The folder of the table.
        files: The files.
        columns: The columns that the query reads, with the row number; None: all. See `scan_stored`.
    """
    paths: dict[int | None, list[StoredPath]] = {}
    for file in files:
        paths.setdefault(file.below, []).append(root / file.path)
    whole = paths.pop(None, [])
    below, cut = next(iter(paths.items()), (0, []))
    return stored_sql(whole, cut, below or 0, columns)
