"""One DuckDB, set up so that its answers do not depend on the machine: UTC, no downloads, bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.lock import once

if TYPE_CHECKING:
    import duckdb


class Duck:
    """A DuckDB in memory, which is loaded and opened when it is first asked for.

    Args:
        scratch: Folder for what does not fit in memory; made when needed.
        memory_limit: Such as "4GB". None: half of the machine's memory.
    """

    def __init__(self, scratch: Path, memory_limit: str | None = None) -> None:
        self._scratch = scratch
        self._memory_limit = memory_limit

    @once
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that all cursors come from."""
        import duckdb

        connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": self._memory_limit or "50%",
                "python_enable_replacements": False,
                "temp_directory": str(self._scratch),
            }
        )
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        return connection

    def close(self) -> None:
        """Let go of it, if it was opened."""
        if "connection" in self.__dict__:
            self.connection.close()
