"""An in-memory DuckDB, configured so that results do not depend on the machine: UTC, no downloads, bounded memory."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from seeknal.errors import StoreError
from seeknal.system.folders import Workplace
from seeknal.system.forks import keep
from seeknal.system.interrupts import interruptible_calls
from seeknal.system.locks import locked_cached_property

if TYPE_CHECKING:
    import duckdb

_ducks: WeakSet[Duck] = WeakSet()


def _after_fork() -> None:
    for duck in _ducks:
        # One that was being opened, or was opened and not used yet: only the parent has its threads.
        begun, duck._begun = duck._begun, None  # noqa: SLF001
        keep((begun, duck.__dict__.get("connection")))


os.register_at_fork(after_in_child=_after_fork)


class Duck:
    """An in-memory DuckDB. The library is imported and the database opened on first use.

    Args:
        scratch: Folder in which a temporary folder is created for data that spills to disk.
        memory_limit: DuckDB's memory limit, such as "4GB". None: half of the machine's memory.
    """

    def __init__(self, scratch: Path, memory_limit: str | None = None) -> None:
        _ducks.add(self)
        self.scratch = scratch
        self._memory_limit = memory_limit
        self._begun: Future[duckdb.DuckDBPyConnection] | None = None
        self._work: Workplace | None = None

    @locked_cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection from which all cursors are created.

        Raises:
            StoreError: DuckDB cannot be opened.
        """
        # Taken out first: if opening fails, the next use tries again instead of raising the old error.
        begun, self._begun = self._begun, None
        return begun.result() if begun else self._open()

    def begin(self) -> None:
        """Start opening DuckDB in a background thread, while the caller reads the registry and a table's log."""
        if self._begun or "connection" in self.__dict__:
            return
        pool = ThreadPoolExecutor(1)
        with suppress(RuntimeError):  # the interpreter starts no threads while it shuts down
            self._begun = pool.submit(self._open)
        pool.shutdown(wait=False)

    @locked_cached_property
    def limit(self) -> int:
        """DuckDB's memory limit, in bytes."""
        query = "SELECT parse_formatted_bytes(current_setting('memory_limit'))"
        found = self.connection.cursor().execute(query).fetchone()
        assert found  # noqa: S101 - the query returns exactly one row
        return int(found[0])

    @property
    def has_own_limit(self) -> bool:
        """Whether the caller set a memory limit, rather than leaving the default."""
        return self._memory_limit is not None

    def _open(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            connection = duckdb.connect(
                config={
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "memory_limit": self._memory_limit or "50%",
                    "python_enable_replacements": False,
                    "temp_directory": str(self._spill_folder()),
                }
            )
            # Otherwise DuckDB would take naive times to be in the time zone of the machine.
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not be opened: {error}") from error
        return interruptible_calls(connection)

    def _spill_folder(self) -> Path:
        """Create a temporary folder for spilled data and return it, or return the scratch folder if that fails.

        A failure is not raised here: only a query that actually spills needs the folder, and DuckDB reports it then.
        """
        with suppress(OSError, StoreError):
            self._work = Workplace(self.scratch)
            return self._work.folder
        return self.scratch

    def close(self) -> None:
        """Close the connection, if it was opened, and remove the folder for spilled data."""
        if self._begun or "connection" in self.__dict__:
            with suppress(StoreError):
                self.connection.close()
        if self._work:
            self._work.end()


def explained(error: Exception) -> str:
    """Return the text of an error of DuckDB. One that tells of a lack of memory advises Seeknal's setting, not DuckDB's."""
    import duckdb

    text = str(error)
    if not isinstance(error, duckdb.OutOfMemoryException):
        return text
    return (
        f"{text.splitlines()[0].rstrip('.')}. Raise the memory limit: SEEKNAL_MEMORY_LIMIT, or memory_limit in seeknal.toml "
        "or FeatureStore(...)."
    )
