"""The online store: the latest row of each entity, looked up by its join keys."""

from __future__ import annotations

from seeknal.online.codec import Codec, WireRow, is_plain, to_wire
from seeknal.online.lmdb import LmdbStore, close_all
from seeknal.online.protocol import Entries, LoadAttempt, OnlineStore
from seeknal.online.redis import RedisStore
from seeknal.online.single import SingleRow
from seeknal.online.state import Events, State
from seeknal.online.stores import DEFAULT, Stores, connect
from seeknal.system.urls import shown

__all__ = [
    "DEFAULT",
    "Codec",
    "Entries",
    "Events",
    "LmdbStore",
    "LoadAttempt",
    "OnlineStore",
    "RedisStore",
    "SingleRow",
    "State",
    "Stores",
    "WireRow",
    "close_all",
    "connect",
    "is_plain",
    "shown",
    "to_wire",
]
