"""Copying a registry into another database: all rows, as of one moment, all or nothing, and compared afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, func, insert, select

from seeknal.errors import DefinitionError, StoreError
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.registry.sql.tables import feature_group, metadata

_AT_ONCE = 1000


@dataclass(frozen=True)
class Content:
    """What a registry contains.

    Args:
        rows: The number of rows in each table.
        sha256: The hash of all rows, in hexadecimal. It is the same in all databases.
    """

    rows: dict[str, int]
    sha256: str

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not any(self.rows.values())


def content_of(db: Connection) -> Content:
    """Read what a registry contains."""
    hashed, counts = sha256(), {}
    for table in metadata.sorted_tables:
        hashed.update(table.name.encode())
        counts[table.name] = 0
        for rows in _rows(db, table):
            hashed.update(b"".join(map(msgspec.msgpack.encode, map(tuple, rows))))
            counts[table.name] += len(rows)
    return Content(counts, hashed.hexdigest())


def copy(source: SqlRegistry, target: SqlRegistry) -> Content:
    """Copy a registry into an empty one, and compare the two. A target with the same content already stays as it is.

    The rows are those of one moment of the source, and the target gets all of them or none.

    Raises:
        DefinitionError: The target has other content.
        StoreError: A database cannot be used, or the target does not return what was written to it. Nothing was copied.
    """
    return source.take(lambda old: target.take(lambda new: _copy(old, new), writes=True))


def _copy(old: Connection, new: Connection) -> Content:
    given, found = content_of(old), content_of(new)
    if found == given:
        return found
    if not found.is_empty:
        differing = [name for name, count in found.rows.items() if count != given.rows[name]]
        where = f"in the numbers of rows of {', '.join(differing)}" if differing else "in the values of rows"
        raise DefinitionError(
            f"The target is not empty, and differs from the source {where}. Nothing was copied. Choose another target, or remove "
            "this one first if nobody needs it."
        )
    for table in metadata.sorted_tables:
        for rows in _rows(old, table):
            new.execute(insert(table), [dict(row._mapping) for row in rows])  # noqa: SLF001 - a part of its public interface
    if (made := content_of(new)) != given:
        raise StoreError(
            f"The target returns other rows than were written to it: {made} instead of {given}. Nothing was copied."
        )
    return made


def _rows(db: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """Return the rows of a table by the order of its key, in parts."""
    order: list[ColumnElement[Any]] = list(table.primary_key)
    if table is feature_group:  # windowed groups refer to their sources, which come first
        order.insert(0, func.coalesce(table.c.source_id, 0) != 0)
    yield from db.execute(select(table).order_by(*order)).partitions(_AT_ONCE)
