"""One DuckDB, set up so that its answers do not depend on the machine: UTC, no downloads, bounded memory."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from seeknal.errors import StoreError
from seeknal.folders import Workplace
from seeknal.forks import keep
from seeknal.interrupts import interruptible_calls
from seeknal.lock import once

if TYPE_CHECKING:
    import duckdb

_ducks: WeakSet[Duck] = WeakSet()


def _after_fork() -> None:
    for duck in _ducks:
        duck._begun = None  # noqa: SLF001 - the thread that opens it is the parent's
        if "connection" in duck.__dict__:
            keep(duck.connection)


os.register_at_fork(after_in_child=_after_fork)


class Duck:
    """A DuckDB in memory, which is loaded and opened when it is first asked for.

    Args:
        scratch: Where a folder is made for what does not fit in memory.
        memory_limit: Such as "4GB". None: half of the machine's memory.
    """

    def __init__(self, scratch: Path, memory_limit: str | None = None) -> None:
        _ducks.add(self)
        self._scratch = scratch
        self._memory_limit = memory_limit
        self._begun: Future[duckdb.DuckDBPyConnection] | None = None

    @once
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that all cursors come from.

        Raises:
            StoreError: It cannot be opened.
        """
        begun, self._begun = self._begun, None
        return begun.result() if begun else self._open()

    def begin(self) -> None:
        """Let it open in a thread of its own, while the registry and the log of a table are read."""
        if self._begun or "connection" in self.__dict__:
            return
        pool = ThreadPoolExecutor(1)
        with suppress(RuntimeError):  # when the process ends, no thread begins
            self._begun = pool.submit(self._open)
        pool.shutdown(wait=False)

    @once
    def limit(self) -> int:
        """The most memory that it takes, in bytes."""
        query = "SELECT parse_formatted_bytes(current_setting('memory_limit'))"
        found = self.connection.cursor().execute(query).fetchone()
        assert found  # noqa: S101 - one row
        return int(found[0])

    @property
    def has_own_limit(self) -> bool:
        """Whether somebody chose the limit."""
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
                    "temp_directory": str(self._room()),
                }
            )
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
        except duckdb.Error as error:
            raise StoreError(f"DuckDB could not be opened: {error}") from error
        return interruptible_calls(connection)

    def _room(self) -> Path:
        """Make a folder for what does not fit in memory; where that cannot be, only who needs it will be told."""
        with suppress(OSError, StoreError):
            self._work = Workplace(self._scratch)
            return self._work.folder
        return self._scratch

    def close(self) -> None:
        """Let go of it, if it was opened."""
        if self._begun or "connection" in self.__dict__:
            with suppress(StoreError):
                self.connection.close()
