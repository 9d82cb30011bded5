"""Upgrade of the registry of an earlier release to the tables of this one."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import Connection, Table
from sqlalchemy.schema import CreateColumn, CreateTable, DropTable

from seeknal.registry import tables as t

_COLUMNS = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"


def is_current(db: Connection) -> bool:
    """Return whether a registry has all tables, with all columns."""
    return not any(names for _, names in _lacking(db))


def upgrade(db: Connection) -> None:
    """Create the tables and columns that are missing; nothing is lost."""
    # The snapshot table is an index of the logs, and is filled again from them. So one without this column is dropped.
    if "next_row_id" in dict(_lacking(db))[t.snapshot]:
        db.execute(DropTable(t.snapshot, if_exists=True))
    for table in t.metadata.sorted_tables:
        db.execute(CreateTable(table, if_not_exists=True))
    # Releases without this column kept a training set in the folder project/name.
    if "folder" in dict(_lacking(db))[t.training_set]:
        _add(db, "training_set", "folder TEXT NOT NULL DEFAULT ''")
        db.exec_driver_sql("UPDATE training_set SET folder = project || '/' || name")
    for table, names in _lacking(db):
        for name in names:
            _add(db, table.name, str(CreateColumn(table.columns[name]).compile(db)))


def _add(db: Connection, table: str, column: str) -> None:
    db.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")


def _lacking(db: Connection) -> list[tuple[Table, list[str]]]:
    """Return all tables, each with the columns that the registry lacks."""
    there = defaultdict[str, set[str]](set)
    for table, column in db.exec_driver_sql(_COLUMNS):
        there[table].add(column)
    return [
        (table, [column.name for column in table.columns if column.name not in there[table.name]])
        for table in t.metadata.sorted_tables
    ]
