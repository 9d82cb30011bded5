"""Copying a registry into another database: all rows, as of one moment, all or nothing, and compared afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, select

from seeknal.errors import DefinitionError, StoreError
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.registry.sql.tables import feature_group, metadata
from seeknal.values.sql import literal, quote

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


def move(
    source: SqlRegistry, target: SqlRegistry, begin: Callable[[Connection], None], step: Callable[[], None]
) -> Content:
    """Copy a registry into another one while nobody writes to the source, run a step, and refuse all later writes to the source.

    Args:
        source: The registry, in a file.
        target: Where to copy it.
        begin: Prepares the target, in the transaction that writes the rows.
        step: Run when the target has all rows. If it fails, the source stays as it is.

    Raises:
        DefinitionError: The target has other content.
        StoreError: A database cannot be used, or the target does not return what was written to it. Nothing was copied.
    """

    def copy_to(old: Connection, new: Connection) -> Content:
        begin(new)
        return _copy(old, new)

    def act(old: Connection) -> Content:
        content = target.take(lambda new: copy_to(old, new), writes=True)
        step()
        freeze(old)
        return content

    return source.take(act, writes=True)


_MOVED = "it was moved, and moved.json beside it says where to"
_CHANGES = "INSERT", "UPDATE", "DELETE"


def freeze(db: Connection) -> None:
    """Refuse all later writes to the rows of a registry in SQLite, also by processes that have it open. It can still be read."""
    for table in metadata.sorted_tables:
        for change in _CHANGES:
            name = quote(f"moved_{table.name}_{change}")
            db.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {change} ON {quote(table.name)} "
                f"BEGIN SELECT RAISE(ABORT, {literal(_MOVED)}); END"
            )


def unfreeze(db: Connection) -> None:
    """Let a registry in SQLite be written again."""
    for table in metadata.sorted_tables:
        for change in _CHANGES:
            db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {quote(f'moved_{table.name}_{change}')}")


def empty(db: Connection) -> None:
    """Remove all rows of a registry."""
    for table in reversed(metadata.sorted_tables):
        if table is feature_group:  # windowed groups refer to their sources
            db.execute(delete(table).where(table.c.source_id.is_not(None)))
        db.execute(delete(table))


def _rows(db: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """Return the rows of a table by the order of its key, in parts."""
    order: list[ColumnElement[Any]] = list(table.primary_key)
    if table is feature_group:  # windowed groups refer to their sources, which come first
        order.insert(0, func.coalesce(table.c.source_id, 0) != 0)
    yield from db.execute(select(table).order_by(*order)).partitions(_AT_ONCE)
