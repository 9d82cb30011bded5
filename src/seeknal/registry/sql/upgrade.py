"""The version of the registry's tables: creating them, migrating those of earlier releases, and refusing those of later ones."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from seeknal.errors import StoreError
from seeknal.registry.sql import tables as t

HEAD = "0004"
"""The number of the last migration."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_alembic_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""The table in which Alembic stores the number of a database's last migration."""


def is_current(db: Connection) -> bool:
    """Return whether a registry has the tables of this release.

    Raises:
        StoreError: It has those of a later release.
    """
    if not inspect(db).has_table(_alembic_version.name):
        return False
    number = db.scalar(select(_alembic_version.c.version_num))
    if number is not None and number > HEAD:
        raise StoreError(
            f"The registry has been changed by a later release of Seeknal (migration {number}; this release has up to {HEAD}). "
            "Install that release, or set SEEKNAL_HOME to another home."
        )
    return bool(number == HEAD)


def upgrade(db: Connection) -> None:
    """Migrate a registry to the tables of this release, or create them. The caller holds the write lock."""
    if is_current(db):  # another process migrated it while this one waited for the lock
        return
    if not inspect(db).get_table_names():
        t.metadata.create_all(db, checkfirst=False)
        _alembic_version.create(db)
        db.execute(insert(_alembic_version).values(version_num=HEAD))
        return
    # Imported here, because importing Alembic takes longer than opening a registry, and is rarely needed.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_MIGRATIONS), version_locations=[str(_MIGRATIONS)])
    with EnvironmentContext(Config(), scripts, fn=lambda known, _: scripts._upgrade_revs("head", known)) as context:  # noqa: SLF001
        context.configure(connection=db)
        context.run_migrations()
