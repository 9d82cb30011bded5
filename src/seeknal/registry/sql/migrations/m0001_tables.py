"""Give a registry of a release before migrations the tables and columns that it lacks."""

from __future__ import annotations

from collections import defaultdict

from alembic import op

revision = "0001"
down_revision = None

_TABLES = {
    "entity": {
        "id": "INTEGER NOT NULL PRIMARY KEY",
        "project": "VARCHAR(128) NOT NULL",
        "name": "VARCHAR(128) NOT NULL",
        "join_keys": "TEXT NOT NULL",
        "pii_keys": "TEXT NOT NULL",
        "description": "TEXT",
    },
    "feature_group": {
        "id": "INTEGER NOT NULL PRIMARY KEY",
        "project": "VARCHAR(128) NOT NULL",
        "name": "VARCHAR(128) NOT NULL",
        "entity_id": "INTEGER NOT NULL REFERENCES entity (id)",
        "description": "TEXT",
        "event_time_col": "TEXT",
        "created_time_col": "TEXT",
        "ttl": "BIGINT",
        "online": "INTEGER NOT NULL",
        "created_at": "BIGINT NOT NULL",
    },
    "snapshot": {
        "group_id": "INTEGER NOT NULL REFERENCES feature_group (id) ON DELETE CASCADE",
        "number": "BIGINT NOT NULL",
        "version": "INTEGER NOT NULL",
        "schema_text": "TEXT NOT NULL",
        "mode": "VARCHAR(16) NOT NULL",
        "start": "BIGINT",
        "end": "BIGINT",
        "written": "BIGINT NOT NULL",
        "rows": "BIGINT NOT NULL",
        "newest": "BIGINT",
        "next_row_id": "BIGINT NOT NULL",
        "files": "TEXT",
        "at": "BIGINT NOT NULL",
    },
    "load": {
        "id": "INTEGER NOT NULL PRIMARY KEY",
        "group_id": "INTEGER NOT NULL REFERENCES feature_group (id) ON DELETE CASCADE",
        "version": "INTEGER NOT NULL",
        "target": "TEXT NOT NULL",
        "start": "BIGINT",
        "end": "BIGINT",
        "snapshot": "BIGINT",
        "rows": "BIGINT",
        "seconds": "FLOAT",
        "at": "BIGINT",
    },
    "erasure": {
        "group_id": "INTEGER NOT NULL REFERENCES feature_group (id) ON DELETE CASCADE",
        "entity": "VARCHAR(64) NOT NULL",
        "at": "BIGINT NOT NULL",
    },
    "online_table": {
        "project": "VARCHAR(128) NOT NULL",
        "name": "VARCHAR(128) NOT NULL",
        "lookups": "TEXT NOT NULL",
        "ttl": "BIGINT",
        "target": "TEXT NOT NULL",
        "created_at": "BIGINT NOT NULL",
    },
    "training_set": {
        "project": "VARCHAR(128) NOT NULL",
        "name": "VARCHAR(128) NOT NULL",
        "pins": "TEXT NOT NULL",
        "question": "TEXT NOT NULL",
        "rows": "BIGINT NOT NULL",
        "content_hash": "VARCHAR(64) NOT NULL",
        "has_rows": "INTEGER NOT NULL",
        "created_at": "BIGINT NOT NULL",
        "folder": "TEXT NOT NULL DEFAULT ''",
    },
    "token": {
        "id": "VARCHAR(16) NOT NULL PRIMARY KEY",
        "name": "VARCHAR(128) NOT NULL UNIQUE",
        "project": "VARCHAR(128) NOT NULL",
        "rights": "TEXT NOT NULL",
        "digest": "VARCHAR(64) NOT NULL",
        "created_at": "BIGINT NOT NULL",
        "revoked_at": "BIGINT",
    },
}
_KEYS = {
    "entity": "UNIQUE (project, name)",
    "feature_group": "UNIQUE (project, name)",
    "snapshot": "PRIMARY KEY (group_id, number)",
    "erasure": "PRIMARY KEY (group_id, entity)",
    "online_table": "PRIMARY KEY (project, name)",
    "training_set": "PRIMARY KEY (project, name)",
}
_COLUMNS = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"


def upgrade() -> None:
    """Create what is missing; nothing is lost."""
    there = _columns()
    # The snapshot table is an index of the logs, and is filled again from them. So one without this column is dropped.
    if "next_row_id" not in there.get("snapshot", {"next_row_id"}):
        op.execute("DROP TABLE snapshot")
        del there["snapshot"]
    for table, columns in _TABLES.items():
        if table not in there:
            told = [*(f'"{name}" {kind}' for name, kind in columns.items()), *filter(None, [_KEYS.get(table)])]
            op.execute(f"CREATE TABLE {table} ({', '.join(told)})")
            continue
        for name, kind in columns.items():
            if name not in there[table]:
                op.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')
    # Releases without this column kept a training set in the folder project/name.
    if "folder" not in there.get("training_set", {"folder"}):
        op.execute("UPDATE training_set SET folder = project || '/' || name")


def _columns() -> dict[str, set[str]]:
    """Return the columns of each table that is there."""
    found = defaultdict[str, set[str]](set)
    for table, column in op.get_bind().exec_driver_sql(_COLUMNS):
        found[table].add(column)
    return dict(found)
