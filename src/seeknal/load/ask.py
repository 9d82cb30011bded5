"""What a load is asked to do. It is apart from the loads themselves, which need the query engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import Interval


@dataclass(frozen=True)
class Ask:
    """What a load is asked to do.

    Args:
        spans: Intervals of event time, in addition to those requested before.
        at: The instant that counts as now, in microseconds since 1970; None: the time of the clock.
        on_progress: Called with a message as the load proceeds.
        full: Whether to rewrite all rows, instead of those that changed.
        take_over: Whether to replace the present rows even if another home loaded them.
    """

    spans: Sequence[Interval] = (Interval(),)
    at: int | None = None
    on_progress: OnProgress = no_progress
    full: bool = False
    take_over: bool = False
