"""Keep event sources, and windowed groups with the versions of their definitions."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_COLUMNS = {
    "event_id": "TEXT",
    "source_id": "INTEGER REFERENCES feature_group (id)",
    "definition": "INTEGER",
}


def upgrade() -> None:
    """Add the columns of `feature_group`, which are null for a feature group, and the table of definitions."""
    known = {row[1] for row in op.get_bind().exec_driver_sql("PRAGMA table_info(feature_group)")}
    for name, kind in _COLUMNS.items():
        if name not in known:
            op.execute(f"ALTER TABLE feature_group ADD COLUMN {name} {kind}")
    op.execute(
        """CREATE TABLE IF NOT EXISTS definition (
            group_id INTEGER NOT NULL REFERENCES feature_group (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            text TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            PRIMARY KEY (group_id, number)
        )"""
    )
