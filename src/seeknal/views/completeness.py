"""Up to when the events of a label are complete, so that a window that ends later has no label yet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.label import DROP
from seeknal.engine import Engine
from seeknal.errors import DefinitionError, notice
from seeknal.join.viewed import Viewed
from seeknal.registry.catalog import AsOf
from seeknal.registry.source import Source
from seeknal.values.times import DAY, Interval, Moment, instant, now, show
from seeknal.values.types import UTC

_LONGEST = 2**62
"""More microseconds than there are between two event times, and more rows than there are."""


def complete_until(engine: Callable[[], Engine], source: Source, as_of: AsOf | None, said: Moment | None) -> int:
    """Return the time up to which the events of a label are complete, in microseconds since 1970.

    That is the event time of the newest event, or the time that counts as now if that is earlier.

    Args:
        engine: Returns the engine that reads rows.
        source: What computes the label.
        as_of: What the caller passed: only what was stored by then is visible.
        said: The time, if the caller knows it.

    Raises:
        DefinitionError: The time is in the future.
    """
    clock = instant(as_of) if isinstance(as_of, str | date) else now()
    if said is not None:
        until = instant(said, whole_day=True)
        if until > clock:
            raise DefinitionError(f"label_until={said!r} is after {show(clock)}, so not all events are known yet.")
        return until
    newest = max((file.end for file in source.snapshot.files if file.end is not None), default=None)
    if newest is not None and source.snapshot.has_hidden:  # it may have been corrected to another time
        newest = _newest_that_counts(engine(), source, newest)
    return clock if newest is None else min(clock, newest)


def _newest_that_counts(engine: Engine, source: Source, newest: int) -> int | None:
    """Return the event time of the newest row that no correction hides; None if there is none. Few rows are read, unless many are hidden.

    Args:
        engine: The engine that reads rows.
        source: What computes the label.
        newest: The event time of the newest row, hidden or not.
    """
    time, span = source.stored_schema.event_time.name, DAY
    while span < _LONGEST:
        rows = engine.sample(source.stored_rows(Interval(newest - span, None)), _LONGEST)
        if len(rows):
            return int(pc.max(rows[time].cast(UTC).cast(pa.int64())).as_py())
        span *= 16
    return None


def tell_of_unfinished(viewed: Viewed, unfinished: int) -> None:
    """Give a notice if the windows of the label of some rows are not over."""
    if viewed.label is None or not unfinished:
        return
    dropped = viewed.label.unfinished == DROP
    notice(
        f"{unfinished:,} {'row was' if unfinished == 1 else 'rows were'} {'left out' if dropped else 'kept without a label'}: the window of "
        f"{viewed.label.column!r} ends after {show(viewed.until)}, up to which its events are known to be complete. If they are complete "
        "until later, pass label_until=..."
    )
