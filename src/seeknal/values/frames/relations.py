"""DuckDB relations: evaluated once, returned in DuckDB's own types, and read if Arrow can represent them exactly."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from os import getpid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.system.interrupts import interruptible
from seeknal.values import types
from seeknal.values.casting import leaves, recast
from seeknal.values.frames import limits
from seeknal.values.sql import comma, quote

if TYPE_CHECKING:
    import duckdb

_LOST = {"uhugeint", "time with time zone", "bit", "bignum", "variant"}
"""Types that Arrow cannot represent exactly. A column of type bit is read as text; bits inside other types are refused."""
_NARROW = {"hugeint", "time", "time_ns"}
"""Types whose values Arrow can represent, except for numbers of 39 digits and the time 24:00."""


@dataclass(frozen=True)
class Held:
    """The materialized rows of a relation, in DuckDB's memory and on the relation's own connection.

    Args:
        rows: The rows, as a relation.
        number: The name of its column with the number of each row, in their original order.
        columns: Its other columns, by their original names. They were renamed because two of the original names may
            differ in case only, such as "a" and "A", which DuckDB does not distinguish.
    """

    rows: Any
    number: str
    columns: Mapping[str, str]

    @classmethod
    def of(cls, relation: Any, names: Sequence[str]) -> Held:
        """Evaluate some columns of a relation, once.

        Raises:
            DataError: The query of the relation fails.
        """
        places = {name: place for place, name in enumerate(relation.columns, 1)}
        columns = {name: f"c{places[name]}" for name in names}
        number = f"row_{uuid.uuid4().hex}"  # a name that no column of the relation has
        taken = [f"#{places[name]} AS {column}" for name, column in columns.items()]
        with _as_data_error("The DuckDB relation cannot be read"):
            numbered = relation.project(comma([*taken, f"row_number() OVER () AS {number}"]))
            return cls(numbered.materialize(), number, columns)

    def only(self, names: Sequence[str]) -> Held:
        """Return the same rows with fewer columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return columns in Arrow, in the original order of the rows.

        Raises:
            DataError: Arrow cannot represent a value exactly.
        """
        places = {column: place for place, column in enumerate(self.rows.columns, 1)}
        wanted = {name: places[self.columns[name]] for name in names}
        found = _read(self.rows, wanted | {self.number: places[self.number]})
        # DuckDB may return the materialized rows in another order. Only then do they have to be sorted.
        numbers = found[self.number].to_numpy()
        found = found.drop_columns(self.number)
        return found.take(np.argsort(numbers)) if (numbers[1:] < numbers[:-1]).any() else found

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """Return columns as they are, with features beside them, as a relation on the same connection.

        Raises:
            DataError: The connection may not read Arrow tables, DuckDB cannot represent a feature exactly, or two
                names differ in case only, which DuckDB does not distinguish.
        """
        import duckdb

        folded = {name.lower(): name for name in names}
        if alike := [name for name in names if folded[name.lower()] != name]:
            raise DataError(
                f"Columns {alike[0]!r} and {folded[alike[0].lower()]!r} differ in case only, which DuckDB does not distinguish. "
                'Rename one, or ask for output="arrow".',
                column=alike[0],
            )
        own = [f"{self.columns[name]} AS {quote(name)}" for name in names]
        added = [f"f{place}" for place in range(features.num_columns)]
        named = [f"{one} AS {quote(name)}" for one, name in zip(added, features.column_names, strict=True)]
        numbers = pa.array(np.arange(1, len(features) + 1))
        seeknal_features = _for_duckdb(features).rename_columns(added).append_column(self.number, numbers)  # noqa: F841 - named in the query
        spine = f"spine_{self.number}"
        query = f"SELECT {comma([*own, *named])} FROM {spine} JOIN seeknal_features USING ({self.number}) ORDER BY {self.number}"
        with _as_data_error("The features cannot be joined to the relation"):
            try:
                found = self.rows.query(spine, query)
            except duckdb.CatalogException as error:
                raise DataError(
                    f"The features cannot be joined to the relation: {str(error).splitlines()[0]} Its connection must read "
                    'Arrow tables: SET python_enable_replacements = true. Or ask for output="arrow".'
                ) from None
            return found.materialize()


def read(relation: Any, names: Sequence[str]) -> pa.Table:
    """Return columns of a relation in Arrow. Its query runs once.

    Raises:
        DataError: The query fails, or Arrow cannot represent a value exactly.
    """
    places = {name: place for place, name in enumerate(relation.columns, 1)}
    return _read(relation, {name: places[name] for name in names})


def _read(relation: Any, places: Mapping[str, int]) -> pa.Table:
    """Return columns in Arrow by their positions, which start at 1 as in SQL."""
    kinds = {name: relation.types[place - 1] for name, place in places.items()}
    columns = [f"{_in_arrow(name, kinds[name], place)} AS c{place}" for name, place in places.items()]
    with _as_data_error("The DuckDB relation cannot be read"):
        found = relation.project(comma(columns)).to_arrow_table().rename_columns(list(places))
    for name, column in zip(places, found.columns, strict=True):
        _check_values(name, kinds[name], column)
    return found


def relation_of(table: pa.Table) -> Any:
    """Return a table as a relation on a separate cursor of this process's database for results.

    Raises:
        DataError: DuckDB cannot represent a value exactly.
    """
    with interruptible():
        return _database(getpid()).cursor().from_arrow(_for_duckdb(table))


def _for_duckdb(table: pa.Table) -> pa.Table:
    """Return a table with types that DuckDB has.

    Raises:
        DataError: DuckDB cannot represent a value exactly.
    """
    limits.check(table, "duckdb")
    return without_halves(table)


@cache
def _database(_process: int) -> duckdb.DuckDBPyConnection:
    """Return the in-memory database for results, one per process id, because its threads do not survive a fork."""
    import duckdb

    return duckdb.connect()


def without_halves(table: pa.Table) -> pa.Table:
    """Return a table with 16-bit floats widened to 32 bits, because DuckDB does not have them."""
    kinds = [types.without_halves(kind) if "halffloat" in str(kind) else kind for kind in table.schema.types]
    return recast(table, kinds)


def _in_arrow(name: str, kind: Any, place: int) -> str:
    """Return the SQL that selects a column, by its position, in a type that Arrow has.

    Raises:
        DataError: Arrow cannot represent values of its type exactly.
    """
    if kind.id == "bit":
        return f"CAST(#{place} AS VARCHAR)"
    if any(part.id in _LOST or str(part).startswith("GEOMETRY(") for part in _parts(kind)):
        raise _no_place(name, kind)
    return f"#{place}"


def _check_values(name: str, kind: Any, column: pa.ChunkedArray) -> None:
    """Check for values that Arrow cannot represent: numbers of 39 digits, the time 24:00, and infinite times.

    Raises:
        DataError: There is such a value.
    """
    try:
        if any(part.id in _NARROW for part in _parts(kind)):
            column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _no_place(name, kind, f" ({str(error).rpartition('Invalid: ')[2]})") from None
    if any(_has_infinite(leaf) for chunk in column.chunks for leaf in leaves(chunk)):
        raise _no_place(name, kind, " (one is infinite)")


def _has_infinite(values: pa.Array) -> bool:
    """Return whether a date or timestamp is infinite in DuckDB: the greatest number of its type, or the second least."""
    if not (is_.is_date32(values.type) or is_.is_timestamp(values.type)):
        return False
    bounds = pc.min_max(values.view(pa.int32() if is_.is_date32(values.type) else pa.int64())).as_py()
    most = 2 ** (values.type.bit_width - 1) - 1
    return bool(bounds["max"] == most or bounds["min"] == -most)


def _no_place(name: str, kind: Any, why: str = "") -> DataError:
    return DataError(
        f"Column {name!r} has DuckDB's type {kind}, whose values Arrow cannot represent exactly{why}. "
        f"Cast it: CAST({quote(name)} AS VARCHAR).",
        column=name,
    )


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type and all types inside it."""
    yield kind
    if kind.id in {"list", "array", "struct", "tuple", "map", "union"}:
        for _, inside in kind.children:
            if hasattr(inside, "id"):  # the children of an array include its length
                yield from _parts(inside)


@contextmanager
def _as_data_error(what: str) -> Iterator[None]:
    """Turn an error of DuckDB into a DataError that begins with `what`, and an interrupt into KeyboardInterrupt.

    Raises:
        DataError: The query fails.
    """
    import duckdb

    try:
        with interruptible():
            yield
    except duckdb.Error as error:
        raise DataError(f"{what}: {error}") from error
