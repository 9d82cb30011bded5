"""The offline store: one Delta Lake table per feature group, each write one atomic snapshot."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.offline.log import Commit, DataFile, Rows, Snapshot
    from seeknal.offline.plan import Write
    from seeknal.offline.repeats import Repeats
    from seeknal.offline.table import OfflineTable

__all__ = ["Commit", "DataFile", "OfflineTable", "Repeats", "Rows", "Snapshot", "Write"]

_MODULES = {
    "Commit": "log",
    "DataFile": "log",
    "OfflineTable": "table",
    "Repeats": "repeats",
    "Rows": "log",
    "Snapshot": "log",
    "Write": "plan",
}


def __getattr__(name: str) -> object:
    """Load a name when it is first used, because `seeknal.offline.table_log` needs neither Delta Lake nor DuckDB."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
