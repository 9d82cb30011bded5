"""Leaks that a correct join cannot see, because they are in the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from seeknal import retrieval
from seeknal.columns import utc
from seeknal.engine import Engine
from seeknal.registry import Question
from seeknal.retrieval import Source
from seeknal.schema import UTC
from seeknal.times import DAY, moment_of

_SAMPLE = 100_000
_SHARE = 0.01
_ENOUGH = 10


def check(engine: Engine, sources: Sequence[Source], spine: pa.Table | None, question: Question) -> list[str]:
    """Look for all of them; without a spine, for those that need none."""
    found = [text for source in sources for text in late_records(engine, source)]
    if spine is None:
        return found
    answer = retrieval.answer(engine, sources, question, spine)
    moments = utc(question.date_col, spine[question.date_col], up=False).cast(pa.int64()).drop_null()
    found += [text for source in sources for text in midnights(engine, source, moments)]
    keys = {question.date_col, *(name for source in sources for name in source.keys.values())}
    labels = [name for name in spine.column_names if name not in keys]
    features = [name for source in sources for name in source.features.values()]
    return [*found, *copies(answer, labels, features)]


def late_records(engine: Engine, source: Source) -> Iterator[str]:
    """Tell whether rows were recorded long after the moment they are dated, and so were not known then."""
    schema = source.version.schema
    if schema.created_time is None:
        return
    rows = engine.sample(source.rows(), _SAMPLE)
    times, created = (rows[field.name].cast(UTC).cast(pa.int64()) for field in (schema.event_time, schema.created_time))
    lags = pc.subtract(created, times).drop_null()
    late = lags.filter(pc.greater(lags, DAY))
    if len(late) > _SHARE * len(lags):
        median = timedelta(microseconds=int(pc.quantile(late, 0.5, interpolation="lower")[0].as_py()))
        yield (
            f"{source.record.label}: {len(late) / len(lags):.0%} of the rows were recorded more than a day after their "
            f"{schema.event_time.name} (half of those {median} or more). A training set sees them before anybody "
            f"could. If {schema.created_time.name} is when they became known, make that the event time."
        )


def midnights(engine: Engine, source: Source, moments: pa.ChunkedArray) -> Iterator[str]:
    """Tell whether rows are dated by day, and are looked at within the day."""
    schema = source.version.schema
    rows = engine.sample(source.rows(), _SAMPLE)
    times = rows[schema.event_time.name].cast(UTC).cast(pa.int64())
    if len(times) and _all_midnight(times) and not _all_midnight(moments):
        example = moment_of(times[0].as_py()).date()
        yield (
            f"{source.record.label}: every {schema.event_time.name} is a midnight, but the spine has hours. If the row of "
            f"{example} sums up that day, it is seen before the day is over. Date it by the next midnight."
        )


def _all_midnight(moments: pa.ChunkedArray) -> bool:
    days = pc.multiply(pc.divide(moments, DAY), DAY)
    return bool(pc.all(pc.equal(days, moments)).as_py())


def copies(answer: pa.Table, spine_columns: Sequence[str], features: Sequence[str]) -> Iterator[str]:
    """Tell whether a feature equals a column of the spine, which may be the label."""
    for name in features:
        for label in spine_columns:
            if _is_copy(answer[name], answer[label]):
                yield f"{name} equals {label} wherever both are known. If {label} is the label, the feature gives it away."


def _is_copy(feature: pa.ChunkedArray, label: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(feature.type) or pa.types.is_nested(label.type):
        return False
    try:
        same = pc.equal(feature, label).drop_null()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    varied = len(pc.unique(label)) > 1
    return varied and len(same) >= _ENOUGH and pc.sum(same).as_py() >= (1 - _SHARE) * len(same)
