"""The offline store: one Delta Lake table per feature group, each write one atomic snapshot."""

from seeknal.offline.log import Commit, DataFile, Rows, Snapshot
from seeknal.offline.plan import Write
from seeknal.offline.repeats import Repeats
from seeknal.offline.table import OfflineTable

__all__ = ["Commit", "DataFile", "OfflineTable", "Repeats", "Rows", "Snapshot", "Write"]
