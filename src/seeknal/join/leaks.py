"""Detection of leaks that a correct join cannot prevent, because they are in the data.

There are three checks: for rows recorded long after their event time; for rows computed from the period they are dated by (see
`seeknal.join.periods`); and for features that equal another column of the spine, which may be the label. Each finding states
its evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine import Engine
from seeknal.errors import plural
from seeknal.join import periods, retrieval
from seeknal.registry import Question
from seeknal.registry.source import Source, WindowedSource
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.moments import utc
from seeknal.values.times import DAY, Interval
from seeknal.values.types import UTC

_SAMPLE = 100_000
_SPINE = 500_000
"""Maximum number of spine rows in the check for rows computed from their own period."""
_SHARE = 0.01
"""A greater share of late rows is a finding. Two columns that differ in no greater share of rows still count as equal."""
_ENOUGH = 10
"""Minimum number of rows in which both columns are known for them to count as equal."""


class Findings(list[str]):
    """The findings, one sentence each; empty if there is no evidence of a leak."""

    def __init__(self, found: Iterable[str] = (), looked_at: Sequence[str] = ()) -> None:
        super().__init__(found)
        self.looked_at = tuple(looked_at)
        """What was checked, and what could not be decided; one sentence each."""

    @property
    def report(self) -> str:
        """The findings and the checks as text, one per line."""
        found = [f"Found: {one}" for one in self] or ["Found: nothing."]
        return "\n".join([*found, *(f"Looked at: {one}" for one in self.looked_at)])


def check(
    engine: Engine,
    sources: Sequence[Source],
    spine: pa.Table | None,
    question: Question,
    on_progress: OnProgress = no_progress,
) -> Findings:
    """Run all checks; without a spine, only the check for late records, which needs none."""
    found: list[str] = []
    looked_at: list[str] = []
    for source in sources:
        on_progress(f"Looking at when {source.record.label} was recorded")
        looked_at.append(_recorded(source))
        found += late_records(engine, source, question.span)
    if spine is None:
        return Findings(found, looked_at)
    answer = retrieval.answer(engine, sources, question, spine, on_progress)
    keys = {question.date_col, *retrieval.keys_of(sources)}
    labels = [name for name in spine.column_names if name not in keys]
    features = [name for source in sources for name in source.features.values()]
    copied = list(copies(answer, spine, labels, features))
    looked_at.append(_compared(features, labels))
    for source in sources:
        on_progress(f"Looking at how {source.record.label} is dated")
        findings, what = _own_periods(engine, source, spine.slice(0, _SPINE), question, labels)
        found += findings
        looked_at.append(what)
    return Findings([*found, *copied], looked_at)


def _compared(features: Sequence[str], labels: Sequence[str]) -> str:
    if not labels:
        return "the spine has no label column to compare with"
    which = f"one of {len(features)} features" if len(features) > 1 else "".join(features)
    columns = f"one of the columns {', '.join(labels)}" if len(labels) > 1 else f"the column {labels[0]}"
    return f"whether {which} equals {columns}"


def _recorded(source: Source) -> str:
    created = source.stored_schema.created_time
    how = f", by {created.name}" if created else ": not known, as it has no created time"
    return f"{source.record.label}: when its rows were recorded{how}"


def late_records(engine: Engine, source: Source, interval: Interval) -> Iterator[str]:
    """Yield a finding if many rows were recorded long after their event time, and so were not known then.

    That is more than 1% of a sample of the rows written last, recorded more than a day after their event time.
    """
    schema = source.stored_schema
    if schema.created_time is None:
        return
    rows = engine.sample(source.stored_rows(interval), _SAMPLE)
    times, created = (rows[field.name].cast(UTC).cast(pa.int64()) for field in (schema.event_time, schema.created_time))
    lags = pc.subtract(created, times).drop_null()
    late = lags.filter(pc.greater(lags, DAY))
    if len(late) > _SHARE * len(lags):
        median = timedelta(microseconds=int(pc.quantile(late, 0.5, interpolation="lower")[0].as_py()))
        yield (
            f"{source.record.label}: {len(late) / len(lags):.0%} of the rows were recorded more than a day after their "
            f"{schema.event_time.name} (half of those {median} or more). A training set sees them before they "
            f"were known. If {schema.created_time.name} is when they became known, make that the event time."
        )


def _own_periods(
    engine: Engine, source: Source, spine: pa.Table, question: Question, labels: Sequence[str]
) -> tuple[list[str], str]:
    """Return the findings on rows computed from the period they are dated by, and a sentence on what was checked."""
    label, time = source.record.label, source.version.schema.event_time.name
    if isinstance(source, WindowedSource):
        return [], f"{label}: its values are computed at each moment, from events up to it"
    dated = periods.period_of(engine, source, question.span)
    if dated is None:
        return [], f"{label}: its rows are dated by events, not by periods such as days"
    period, times = dated
    name = periods.span_of(period)
    at = utc(question.date_col, spine[question.date_col], up=False)
    (moments,) = retrieval.moments_of([source], spine, at)
    known = np.flatnonzero(np.asarray(pc.is_valid(moments["t"])))
    if not len(known):
        return [], f"{label}: no row of the spine has a moment"
    # A spine row without a moment sees no row, so it says nothing about any.
    moments = moments.take(pa.array(known))
    cells = periods.Cells.of(moments, period, times)
    around = periods.look_around(engine, source, moments, question.span, period)
    columns = periods.labels_of(spine.take(pa.array(known)), labels)
    evidence = list(periods.made_of_their_own(around, columns, cells, period))
    each = "" if len(cells.first) == 1 else " each"
    seen = (
        f"{label}: whether the rows, one for each {name}, are computed from the {name} they are dated by: how {', '.join(around) or 'no number'} "
        f"agrees with {', '.join(columns) or 'the number of rows'} in {plural(len(cells.first), 'case')} (one entity, one {name}{each})"
    )
    # A label with two values has few different sums, so a feature can agree with them by chance.
    if columns and all(len(np.unique(one[~np.isnan(one)])) <= 2 for one in columns.values()):  # noqa: PLR2004
        seen += f"; a label with two values has few different sums: for a surer result, add a column of amounts or counts per {name}"
    if cells.periods < periods.FEWEST:
        count = f"one {name}" if cells.periods == 1 else plural(cells.periods, name)
        seen += f"; the spine has only {count}, too few to tell"
    findings = [
        f"{label}: {one}. If a row sums up the {name} starting at its {time}, a training set sees it before that {name} is "
        f"over. Date it by the end of that {name}."
        for one in evidence
    ]
    return findings, seen


def copies(answer: pa.Table, spine: pa.Table, spine_columns: Sequence[str], features: Sequence[str]) -> Iterator[str]:
    """Yield a finding for each feature that equals a column of the spine, which may be the label."""
    for name in features:
        for label in spine_columns:
            if _is_copy(answer[name], spine[label]):
                yield f"{name} equals {label} wherever both are known. If {label} is the label, the feature leaks it."


def _is_copy(feature: pa.ChunkedArray, label: pa.ChunkedArray) -> bool:
    # Arrow does not compare nested columns.
    if pa.types.is_nested(feature.type) or pa.types.is_nested(label.type):
        return False
    try:
        same = pc.equal(feature, label).drop_null()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    # Two constant columns are equal without one being copied from the other.
    varied = pc.count_distinct(label, mode="only_valid").as_py() > 1
    return varied and len(same) >= _ENOUGH and pc.sum(same).as_py() >= (1 - _SHARE) * len(same)
