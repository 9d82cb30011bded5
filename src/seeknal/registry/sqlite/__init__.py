"""The registry in a SQLite database, a file in the folder of its home."""

from __future__ import annotations

from pathlib import Path

FILE = "registry.db"


def file_of(home: Path) -> Path:
    """Return the path of a home's registry."""
    return home / FILE
