"""DuckDB relations: evaluated once, and kept in DuckDB's own types beside what Arrow can carry of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from os import getpid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from seeknal import types
from seeknal.errors import DataError
from seeknal.sql import comma, quote

if TYPE_CHECKING:
    import duckdb

_LOST = {"uhugeint", "time with time zone", "bit", "bignum", "variant"}
"""Types whose values Arrow has no exact place for. (Bits are read as text where they are a column's own type.)"""
_NARROW = {"hugeint", "time", "time_ns"}
"""Types of which Arrow has a place for most values: not for 39 digits, nor for 24:00."""


@dataclass(frozen=True)
class Held:
    """The rows of one evaluation of a relation, in DuckDB's memory, on the connection of the relation.

    Args:
        names: The columns' names.
        rows: The rows, as a relation, which has one column more.
        number: The name of that column: the rows' numbers, in their order.
    """

    names: list[str]
    rows: Any
    number: str

    @classmethod
    def of(cls, relation: Any, names: Sequence[str]) -> Held:
        """Evaluate some columns of a relation.

        Raises:
            DataError: Its query fails.
        """
        number = f"row_{uuid.uuid4().hex}"
        with _told("The DuckDB relation cannot be read"):
            numbered = relation.project(comma([*map(quote, names), f"row_number() OVER () AS {quote(number)}"]))
            return cls(list(names), numbered.materialize(), number)

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return columns of it in Arrow, in the rows' order.

        Raises:
            DataError: Arrow has no exact place for a value.
        """
        kinds = dict(zip(self.rows.columns, self.rows.types, strict=True))
        columns = [_in_arrow(name, kinds[name]) for name in names]
        with _told("The DuckDB relation cannot be read"):
            found = self.rows.project(comma([*columns, quote(self.number)])).to_arrow_table()
        numbers = found[self.number].to_numpy()
        found = found.drop_columns(self.number)
        if (numbers[1:] < numbers[:-1]).any():
            found = found.take(np.argsort(numbers))
        for name in names:
            _check_values(name, kinds[name], found[name])
        return found

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """Return columns of it as they are, and features beside them, as a relation on the same connection.

        Raises:
            DataError: The connection reads no Arrow tables.
        """
        import duckdb

        row, own = f"{self.number}_", [quote(name) for name in names]
        added = [f"{row}{place}" for place in range(features.num_columns)]
        named = [f"{one} AS {quote(name)}" for one, name in zip(added, features.column_names, strict=True)]
        numbers = pa.array(np.arange(1, len(features) + 1))
        seeknal_features = without_halves(features).rename_columns(added).append_column(row, numbers)  # noqa: F841 - by name
        query = (
            f"SELECT {comma([*own, *named])} FROM {self.number}_spine JOIN seeknal_features "
            f"ON {quote(self.number)} = {quote(row)} ORDER BY {quote(self.number)}"
        )
        try:
            found = self.rows.query(f"{self.number}_spine", query)
        except duckdb.CatalogException as error:
            raise DataError(
                f"The features cannot be put beside the relation: {_first_line(error)} Its connection must read Arrow "
                'tables: SET python_enable_replacements = true. Or ask for output="arrow".'
            ) from None
        with _told("The features cannot be put beside the relation"):
            return found.materialize()


def relation_of(table: pa.Table) -> Any:
    """Return a table as a relation on a connection of its own."""
    return _database(getpid()).cursor().from_arrow(without_halves(table))


@cache
def _database(_process: int) -> duckdb.DuckDBPyConnection:
    """Open the database in memory that answers of this process live in; its threads do not come along in a fork."""
    import duckdb

    return duckdb.connect()


def without_halves(table: pa.Table) -> pa.Table:
    """Widen floats of 16 bits, which DuckDB does not have."""
    kinds = [types.without_halves(kind) if "halffloat" in str(kind) else kind for kind in table.schema.types]
    return types.recast(table, kinds)


def _in_arrow(name: str, kind: Any) -> str:
    """Write the column as Arrow is to get it.

    Raises:
        DataError: Arrow has no exact place for its values.
    """
    if kind.id == "bit":
        return f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}"
    if any(part.id in _LOST or str(part).startswith("GEOMETRY(") for part in _parts(kind)):
        raise _no_place(name, kind)
    return quote(name)


def _check_values(name: str, kind: Any, column: pa.ChunkedArray) -> None:
    if any(part.id in _NARROW for part in _parts(kind)):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise _no_place(name, kind, f" ({error})") from None


def _no_place(name: str, kind: Any, why: str = "") -> DataError:
    return DataError(
        f"Column {name!r} is {kind} of DuckDB, whose values Arrow cannot carry exactly{why}. "
        f"Cast it: CAST({quote(name)} AS VARCHAR).",
        column=name,
    )


def _parts(kind: Any) -> Iterator[Any]:
    """Go through a type and the types inside it."""
    yield kind
    if kind.id in {"list", "array", "struct", "tuple", "map", "union"}:
        for _, inside in kind.children:
            if hasattr(inside, "id"):  # the length of an array is listed too
                yield from _parts(inside)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Name the relation as the cause of an error of its query.

    Raises:
        DataError: The query fails.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise DataError(f"{what}: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
