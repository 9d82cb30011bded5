"""Index the snapshots of each version, so that the last one of each is found without reading those before it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the index, which the first write of some releases created by itself."""
    op.execute("CREATE INDEX IF NOT EXISTS snapshot_of_version ON snapshot (group_id, version, number)")
