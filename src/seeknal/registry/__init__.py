"""The registry: what exists. It is small, and knows nothing of rows."""

from seeknal.registry.records import GroupRecord, Load, OnlineTableRecord, TableLookup, Version
from seeknal.registry.registry import Registry

__all__ = ["GroupRecord", "Load", "OnlineTableRecord", "Registry", "TableLookup", "Version"]
