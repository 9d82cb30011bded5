"""The import path of the first Seeknal's stores, for the error that says how to configure them now."""

from __future__ import annotations

from typing import NoReturn

from seeknal.featurestore.former import refuse

_OFFLINE = "Rows are stored in the home: set SEEKNAL_HOME, or home in seeknal.toml, to choose its folder."
_ONLINE = "The setting online_store in seeknal.toml, or SEEKNAL_ONLINE_STORE, names a folder or the URL of Redis."
_ADVICE = {
    "FeatureStoreFileOutput": _OFFLINE,
    "OfflineStoreDuckDB": _OFFLINE,
    "OfflineStoreEnum": _OFFLINE,
    "OnlineStoreDuckDB": _ONLINE,
    "OnlineStoreEnum": _ONLINE,
}


def __getattr__(name: str) -> NoReturn:
    refuse(__name__, name, _ADVICE)
