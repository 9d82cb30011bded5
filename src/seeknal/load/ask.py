"""The request for a load. It has a module of its own, because the loads themselves import the query engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import Interval


@dataclass(frozen=True)
class Ask:
    """The request for a load.

    Args:
        spans: Intervals of event time, in addition to those requested before.
        at: The instant that counts as now, in microseconds since 1970; None: the current time.
        on_progress: Called with a message as the load proceeds.
        full: Whether to rewrite all rows, instead of only those that changed.
        take_over: Whether to replace the present rows even if another home loaded them.
    """

    spans: Sequence[Interval] = (Interval(),)
    at: int | None = None
    on_progress: OnProgress = no_progress
    full: bool = False
    take_over: bool = False
