"""The online store: the newest row of each entity, found by its key."""

from seeknal.online.codec import Codec, read_keys
from seeknal.online.lmdb import LmdbStore, close_all
from seeknal.online.protocol import OnlineStore

__all__ = ["Codec", "LmdbStore", "OnlineStore", "close_all", "read_keys"]
