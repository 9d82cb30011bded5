"""Keep feature views with their versions and models, and which view an online table or a training set belongs to."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_COLUMNS = {"online_table": {"view": "INTEGER", "log": "FLOAT"}, "training_set": {"view": "TEXT"}}


def upgrade() -> None:
    """Add the columns, which are null for what belongs to no view, and the tables of views."""
    for table, columns in _COLUMNS.items():
        known = {row[1] for row in op.get_bind().exec_driver_sql(f"PRAGMA table_info({table})")}
        for name, kind in columns.items():
            if name not in known:
                op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    op.execute(
        """CREATE TABLE IF NOT EXISTS feature_view (
            project VARCHAR(128) NOT NULL,
            name VARCHAR(128) NOT NULL,
            description TEXT,
            owner TEXT,
            tags TEXT NOT NULL,
            PRIMARY KEY (project, name)
        )"""
    )
    op.execute(
        """CREATE TABLE IF NOT EXISTS view_version (
            project VARCHAR(128) NOT NULL,
            name VARCHAR(128) NOT NULL,
            number INTEGER NOT NULL,
            text TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            retired_at BIGINT,
            PRIMARY KEY (project, name, number)
        )"""
    )
    op.execute(
        """CREATE TABLE IF NOT EXISTS model (
            project VARCHAR(128) NOT NULL,
            view VARCHAR(128) NOT NULL,
            name VARCHAR(256) NOT NULL,
            version INTEGER NOT NULL,
            training_set VARCHAR(128) NOT NULL,
            uri TEXT,
            created_at BIGINT NOT NULL,
            PRIMARY KEY (project, view, name, version, training_set)
        )"""
    )
