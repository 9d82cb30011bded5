"""The registry in a PostgreSQL database. Its statements are those of `registry.sql`; here is what the database itself needs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, func, insert, select, update
from sqlalchemy.schema import CreateSchema

from seeknal.errors import StoreError
from seeknal.registry.postgres.changes import Changes
from seeknal.registry.postgres.database import PostgresDatabase
from seeknal.registry.sql import upgrade
from seeknal.registry.sql.copying import empty
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.system.forks import PerProcess

_change = Table("change", MetaData(), Column("number", BigInteger, nullable=False), Column("home", Text))
"""One row: the number of the last change, and the name of where the tables lie that the registry describes."""
_MOVING = "moving "
"""What comes before the name of the home while its registry is being moved here."""


class PostgresRegistry(PostgresDatabase, SqlRegistry):
    """The groups, versions, loads, online tables, training sets and tokens of a store, in a schema of a PostgreSQL database.

    Args:
        url: The URL of the database. The schema and its tables are created if they are missing.
        home: The name of where the tables of the home lie that uses it; see `Storage.whereabouts`. None: the registry is only copied.

    Raises:
        StoreError: The server cannot be reached, its database cannot be used, a later release of Seeknal has changed the registry, or
            it is that of another home.
    """

    def __init__(self, url: str, home: str | None = None) -> None:
        super().__init__(url)
        sessions = self.sessions
        self._changes = PerProcess(lambda: Changes(sessions))
        if not self.take(upgrade.is_current):
            self.take(self._create, writes=True)
        if home:
            self.belong_to(home)

    def _create(self, db: Connection) -> None:
        if not db.scalar(select(func.to_regnamespace(self.sessions.schema).is_not(None))):
            db.execute(CreateSchema(self.sessions.schema))
        upgrade.upgrade(db)
        if not db.scalar(select(func.to_regclass("change").is_not(None))):
            _change.create(db)
            db.execute(insert(_change).values(number=0))

    @property
    def home(self) -> str | None:
        """The name of where the tables lie that the registry describes; None if it describes none yet."""
        found: str | None = self.look(select(_change.c.home))
        return found

    @property
    def is_open(self) -> bool:
        """Whether a home uses it, and is not still being moved here."""
        found = self.home
        return found is not None and not found.startswith(_MOVING)

    def belong_to(self, home: str) -> None:
        """Let the registry describe the tables of a home, unless it describes some.

        Args:
            home: The name of where they lie.

        Raises:
            StoreError: It is that of another home.
        """
        if self.home is None:
            mine = update(_change).where(_change.c.home.is_(None)).values(home=home)
            self.take(lambda db: db.execute(mine), writes=True)
        # The registry is an index of tables. With the tables of another home, each would make it forget what it knows of the other's.
        if (found := self.home) != home:
            raise self._refused(found)

    def _refused(self, home: str | None) -> StoreError:
        if home and home.startswith(_MOVING):
            return StoreError(
                f"A home is being moved to the registry at {self}, and is not ready. Run seeknal move again."
            )
        return StoreError(
            f"The registry at {self} is that of another home, whose tables lie elsewhere. Name that home and its storage, or add another "
            "schema to the URL: ?schema=NAME."
        )

    def check_free(self, home: str) -> None:
        """Check that a home may be moved here: nobody uses the registry, or that home does.

        Raises:
            StoreError: It is the registry of another home.
        """
        if (found := self.home) not in {None, home, _MOVING + home}:
            raise self._refused(found)

    def begin_move(self, db: Connection, home: str) -> None:
        """Let nobody use the registry until `end_move`, in a transaction that copies the rows of a home to it.

        The rows of a copy that was interrupted are removed.

        Args:
            db: The transaction.
            home: The name of the home.

        Raises:
            StoreError: It is the registry of another home.
        """
        found = db.scalar(select(_change.c.home))
        if found == _MOVING + home:
            empty(db)
        elif found not in {None, home}:
            raise self._refused(found)
        db.execute(update(_change).values(home=_MOVING + home))

    def end_move(self, home: str, whereabouts: str) -> None:
        """Let the registry of a home describe tables that lie elsewhere from now on, and be used.

        Raises:
            StoreError: It is the registry of another home.
        """
        mine = update(_change).where(_change.c.home.in_([_MOVING + home, home])).values(home=whereabouts)
        self.take(lambda db: db.execute(mine), writes=True)
        self.belong_to(whereabouts)

    def stamp(self) -> bytes:
        """See `Registry.stamp`."""
        return b"%d" % self.look(select(_change.c.number))

    def recent_stamp(self) -> bytes:
        """See `Registry.recent_stamp`."""
        return b"%d %d" % (self._changes().last(), self.sessions.last_write)


def exists(url: str) -> bool:
    """Return whether a schema has a registry, without creating one.

    Raises:
        StoreError: The server cannot be reached.
    """
    return bool(PostgresDatabase(url).look(select(func.to_regclass("change").is_not(None))))
