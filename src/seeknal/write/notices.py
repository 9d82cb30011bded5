"""Warnings about a write that is valid, but may not be what the caller meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Change, Schema
from seeknal.errors import notice, plural
from seeknal.names import nearest
from seeknal.offline import Repeats, Snapshot, Write
from seeknal.values.times import now, show

LOW = 0.01
"""The share of rows that may lie before the bulk of a write."""
_MANY = 10
"""Number of superseded rows in one write from which on they draw a warning, because so many are rarely intended."""


@dataclass(frozen=True)
class Facts:
    """What notices tell of the rows of a write.

    Args:
        count: How many there are.
        missing: How many have no value in each join key.
        later: How many are dated after now.
        least: The least event time, in microseconds since 1970; None if there are no rows.
        bulk: Returns the event time that one row in a hundred lies before.
    """

    count: int
    missing: Mapping[str, int]
    later: int
    least: int | None
    bulk: Callable[[], int]

    @classmethod
    def of(cls, rows: pa.Table, schema: Schema) -> Facts:
        """Return the facts of rows in memory."""
        moments = rows[schema.event_time.name].cast(pa.int64())
        return cls(
            len(rows),
            {name: rows[name].null_count for name in schema.key_names},
            pc.sum(pc.greater(moments, now())).as_py() or 0,
            pc.min(moments).as_py(),
            lambda: int(pc.quantile(moments, LOW, interpolation="lower")[0].as_py()),
        )


def warn_about_write(
    label: str, before: Snapshot, write: Write, facts: Facts, replaced: int, lookback_days: int
) -> None:
    """Warn about anything unusual in a committed write.

    Args:
        label: Project and name of the group.
        before: The table before the write.
        write: The write.
        facts: What is known of its rows.
        replaced: The number of stored rows that were replaced.
        lookback_days: How many days before the bulk of its rows a write's interval may start without a warning.
    """
    for name, missing in facts.missing.items():
        if missing:
            they, them = ("It is", "it") if missing == 1 else ("They are", "them")
            notice(f"{label}: {plural(missing)} without {name!r}. {they} kept, but no lookup will find {them}.")
    if facts.later:
        notice(
            f"{label}: {plural(facts.later)} dated after now. A row counts as the latest only once its event time is reached."
        )
    if write.mode == "overwrite" and replaced:
        _on_loss(label, before, write, facts, replaced)
    if write.interval.start is not None and facts.count:
        _on_reach(write.interval.start, facts, lookback_days)


def _on_loss(label: str, before: Snapshot, write: Write, facts: Facts, replaced: int) -> None:
    """Warn if an overwrite replaced many rows by few, or, without an interval, rows older than all of its own."""
    start = min((file.start for file in before.files if file.start is not None), default=None)
    lost = None
    if 10 * facts.count < replaced:
        lost = f"An overwrite replaced {plural(replaced)} of {label} by {plural(facts.count)}"
    elif write.interval.is_unbounded and start is not None and facts.least is not None and start < facts.least:
        lost = f"An overwrite without an interval replaced all of {label}, which began on {show(start)}"
    if lost:
        notice(
            f"{lost}. Was that intended? mode='append' and mode='merge' keep what is stored, and "
            f"feature_start_time= limits what is replaced. The rows are still in snapshot {before.number}."
        )


def _on_reach(start: int, facts: Facts, lookback_days: int) -> None:
    # A quantile, not the minimum: a few stray old rows must not hide that the interval starts far too early.
    bulk = facts.bulk()
    reach = timedelta(microseconds=bulk - start)
    if reach > timedelta(days=lookback_days):
        # Of fewer than a hundred rows, the quantile is the first.
        first = bulk == facts.least
        rows = f"the first of these rows ({show(bulk)})" if first else f"99% of these rows ({show(bulk)} and later)"
        notice(
            f"The interval starts on {show(start)}, {reach.days:,} days before {rows}. A write reads and "
            f"replaces everything stored in its interval, and a load looks through it: start nearer to the data, or set lookback_days (now {lookback_days}) in seeknal.toml."
        )


def on_repeats(label: str, write: Write, count: int, repeats: Repeats) -> None:
    """Warn about many rows that share join keys and event time, and the created time if the group has one."""
    if repeats.rows < _MANY:
        return
    times = "times" if write.schema.created_time else "event time"
    kept = "the write kept the last of each" if write.mode == "merge" else "reads show the last of each"
    notice(
        f"{label}: {repeats.rows:,} of {plural(count)} are superseded by a later one with the same join keys and "
        f"{times} (for example, {plural(repeats.most)} have {repeats.example}); {kept}. Aggregate them first, add the column that tells them apart to the "
        "join keys, or name a created_time_col that says which one counts."
    )


def on_version(label: str, before: int, number: int, changes: Sequence[Change]) -> None:
    """Warn about a new version, and about an added feature that may be a misspelling of a removed one."""
    removed = [change.name for change in changes if change.new is None]
    guesses = {change.name: nearest(change.name, removed) for change in changes if change.old is None}
    hint = "".join(
        f" Is {name!r} meant to be {guess!r}? Then run: seeknal version rollback {label} --to {before}, and write these rows again "
        "with that name."
        for name, guess in guesses.items()
        if guess
    )
    notice(f"{label} is now at version {number}: {', '.join(map(str, changes))}.{hint}")
