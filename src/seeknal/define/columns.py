"""The rule for names of columns, and the column that each stored row has beside its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seeknal.errors import DataError, DefinitionError

ROW_ID = "_seeknal_row_id"
"""Column with the number of each stored row in the order of writing, which breaks ties."""


def check_columns(used: Sequence[str]) -> None:
    """Check that the columns of a group can be stored and looked up side by side.

    Raises:
        DefinitionError: A column has two roles.
        DataError: Two names differ in case only, or a name cannot be used.
    """
    if repeated := [name for name, count in Counter(used).items() if count > 1]:
        raise DefinitionError(f"Column {repeated[0]!r} has two roles (key, time or feature). Give it one.")
    # DuckDB does not distinguish names by case.
    folded = Counter(name.lower() for name in used)
    if alike := [name for name in used if folded[name.lower()] > 1]:
        raise DataError(f"Columns {' and '.join(map(repr, alike))} differ in case only. Rename one.", columns=alike)
    if ROW_ID in (name.lower() for name in used) or "" in used:
        raise DataError(f"A column cannot be named {ROW_ID!r}, or have an empty name. Rename it.")
    if odd := [name for name in used if "\0" in name]:
        raise DataError(f"A column cannot have NUL in its name, as {odd[0]!r} has. Rename it.", column=odd[0])
