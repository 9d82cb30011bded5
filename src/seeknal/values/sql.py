"""The only code that turns names and values into SQL text."""

from __future__ import annotations

from collections.abc import Iterable


def quote(name: str) -> str:
    """Return a column or table name as a quoted identifier.

    >>> print(quote('the "best" one'))
    "the ""best"" one"
    """
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int) -> str:
    """Return a text or a whole number as a SQL literal.

    >>> print(literal("it's"), literal(-3))
    'it''s' -3
    """
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def comma(parts: Iterable[str]) -> str:
    """Return the parts of a list, joined by commas."""
    return ", ".join(parts)


def scan(paths: Iterable[str], path_column: str = "") -> str:
    """Return the table function that reads Parquet files with one schema. Their paths may contain any characters.

    Args:
        paths: The files.
        path_column: The name of a column to add, with the path of each row's file; "" for none.
    """
    path_of = f", filename = {literal(path_column)}" if path_column else ""
    return (
        f"read_parquet([{comma(literal(_without_globs(path)) for path in paths)}], hive_partitioning = false{path_of})"
    )


def _without_globs(path: str) -> str:
    # DuckDB has no escape for wildcards in a path, but a class of one character, [*], matches just that character.
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
