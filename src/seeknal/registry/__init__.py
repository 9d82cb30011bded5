"""The registry: which groups, versions, online tables, training sets and tokens exist. It is small, and knows nothing of rows."""

from seeknal.registry.records import (
    GroupRecord,
    GroupState,
    Load,
    OnlineTableRecord,
    PinnedLookup,
    Question,
    SnapshotRecord,
    TokenRecord,
    TrainingSetRecord,
    Version,
)
from seeknal.registry.registry import Registry

__all__ = [
    "GroupRecord",
    "GroupState",
    "Load",
    "OnlineTableRecord",
    "PinnedLookup",
    "Question",
    "Registry",
    "SnapshotRecord",
    "TokenRecord",
    "TrainingSetRecord",
    "Version",
]
