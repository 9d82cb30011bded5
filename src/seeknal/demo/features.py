"""The demo's request feature: computed of what is looked up and what the caller gives, in training and serving alike."""

from __future__ import annotations

from typing import Any

from seeknal.define.request_feature import ARRAY, request_feature


@request_feature(outputs={"delay_100mi": "float64"}, mode=ARRAY)
def delay_100mi(delay_3h: Any, distance: Any) -> Any:
    """Return the recent delays of the carrier, in minutes for each hundred miles of the flight to come."""
    return delay_3h / distance * 100
