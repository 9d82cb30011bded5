"""One DuckDB, set up so that its answers do not depend on the machine: UTC, no downloads, bounded memory."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
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
        return self._opening.result()

    def begin(self) -> None:
        """Let it open in a thread of its own, while the registry and the log of a table are read."""
        self._opening  # noqa: B018 - what is named is begun

    @once
    def _opening(self) -> Future[duckdb.DuckDBPyConnection]:
        with_one = ThreadPoolExecutor(1)
        try:
            return with_one.submit(self._open)
        finally:
            with_one.shutdown(wait=False)

    def _open(self) -> duckdb.DuckDBPyConnection:
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
        if "_opening" in self.__dict__ and not self._opening.exception():
            self.connection.close()
