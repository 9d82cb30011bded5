"""Detection of features that may know what the label asks: rows that were recorded inside the window of the label."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine import Engine
from seeknal.join.viewed import Viewed
from seeknal.registry.source import WindowedSource
from seeknal.values.times import Interval
from seeknal.values.types import UTC

_SAMPLE = 100_000
_SHARE = 0.01
"""A greater share of rows that were recorded inside the window is a finding."""


def overlaps(engine: Engine, viewed: Viewed) -> tuple[list[str], list[str]]:
    """Return the findings, and what was looked at, one sentence each.

    A row with event time e that was recorded at c > e is visible at every moment t >= e. For t < c it was made after the moment, so it
    can hold what happened in the label's window (t, t + within].

    Args:
        engine: The engine that reads rows.
        viewed: The sources of a view, and what it makes of them, with a label.
    """
    found, looked_at = [], []
    label, length = viewed.label, viewed.source.ahead if viewed.source else 0
    assert label is not None  # noqa: S101 - the caller checks it
    for source in viewed.looked_up:
        name, created = source.record.label, source.stored_schema.created_time
        if isinstance(source, WindowedSource) and created is None:
            looked_at.append(f"{name}: its windows end at the moment, where the window of {label.column} begins")
            continue
        if created is None:
            looked_at.append(
                f"{name}: whether it knows what {label.column} asks is not known, as its rows have no created time"
            )
            continue
        looked_at.append(
            f"{name}: whether its rows were recorded inside the window of {label.column}, by {created.name}"
        )
        rows = engine.sample(source.stored_rows(Interval()), _SAMPLE)
        times, made = (
            rows[one].cast(UTC).cast(pa.int64()) for one in (source.stored_schema.event_time.name, created.name)
        )
        lags = pc.subtract(made, times).drop_null()
        late = lags.filter(pc.greater(lags, 0))
        if len(late) > _SHARE * len(lags):
            most = timedelta(microseconds=pc.max(late).as_py())
            within = timedelta(microseconds=length)
            found.append(
                f"{name}: {len(late) / len(lags):.0%} of its rows were recorded up to {most} after their event time, inside the {within} "
                f"in which {label.column} is looked up. A training set sees them before they were recorded, so they may know the "
                f"label. If {created.name} is when they became known, make that the event time."
            )
    return found, looked_at
