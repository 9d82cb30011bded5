"""One DuckDB, set up so that its answers do not depend on the machine: UTC, no downloads, bounded memory."""

from __future__ import annotations

from pathlib import Path

import duckdb


def connect(scratch: Path, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """Open an engine in memory.

    Args:
        scratch: Folder for what does not fit in memory; made when needed.
        memory_limit: Such as "4GB". None: half of the machine's memory.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": memory_limit or "50%",
            "python_enable_replacements": False,
            "temp_directory": str(scratch),
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection
