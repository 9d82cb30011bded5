"""Small worlds for Hypothesis: so few moments, entities and values that every edge is met often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from .oracle import Keys, Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000

# One second before the clocks of New York change.
START = (datetime(2024, 3, 10, 6, 59, 59, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
OFFSETS = (-DAY, -SECOND, -1, 0, 1, SECOND - 1, SECOND, HOUR, DAY)
LAST = START + 30 * DAY

# What is repeated here is drawn more often, so that rows meet, tie and are found.
moments = st.sampled_from([START] * 6 + [START + offset for offset in OFFSETS])
all_moments = [None, *(START + offset for offset in OFFSETS)]
perhaps_moments = st.one_of(st.none(), moments, moments, moments)
ttls = st.sampled_from([None, None, 1, SECOND, HOUR, DAY])
forms = st.sampled_from(["naive", "UTC", "America/New_York", "Asia/Jakarta", "text", "text with zone", "ns", "ns UTC"])
users = st.sampled_from([1, 1, 1, 1, 2, 3, None])
places = st.sampled_from(["1", "1", "1", "1", "12", "", None])
intervals = st.tuples(perhaps_moments, perhaps_moments).map(
    lambda pair: pair if None in pair else (min(pair), max(pair))  # type: ignore[type-var]
)


@dataclass(frozen=True)
class Frame:
    """Rows to be written, and how: the times in one of the forms a user may have them in."""

    rows: tuple[tuple[Keys, int, int | None, int | None], ...]
    mode: str
    interval: tuple[int | None, int | None]
    form: str


def frames(keys: st.SearchStrategy[Keys]) -> st.SearchStrategy[Frame]:
    """Draw a write: rows of (keys, event time, created time, a value)."""
    rows = st.tuples(keys, moments, perhaps_moments, st.sampled_from([None, 0, 1]))
    return st.builds(
        Frame,
        st.lists(rows, min_size=3, max_size=8).map(tuple),
        st.sampled_from(["overwrite", "append", "merge"]),
        st.one_of(st.just((None, None)), intervals),
        forms,
    )


def table(frame: Frame, names: Sequence[str], numbers: count[int], features: Sequence[str] = ("n", "x")) -> pa.Table:
    """Make the Arrow table of a write; `n` numbers the rows so that the winner is known by it."""
    kinds = {"user_id": pa.int64(), "place_id": pa.string()}
    columns: dict[str, Any] = {
        name: pa.array([row[0][i] for row in frame.rows], kinds[name]) for i, name in enumerate(names)
    }
    columns["seen_at"] = times([row[1] for row in frame.rows], frame.form)
    columns["made_at"] = times([row[2] for row in frame.rows], frame.form)
    values = {"n": [next(numbers) for _ in frame.rows]}
    values |= {name: [row[3] for row in frame.rows] for name in features if name != "n"}
    return pa.table(columns | {name: pa.array(values[name], pa.int64()) for name in features})


def rows(frame: Frame, written: pa.Table, features: Sequence[str] = ("n", "x"), *, created: bool = True) -> list[Row]:
    """Return the same rows in the form of the oracle."""
    values = written.select(list(features)).to_pylist()
    return [
        Row(keys, time, made if created else None, value)
        for (keys, time, made, _), value in zip(frame.rows, values, strict=True)
    ]


def times(instants: Sequence[int | None], form: str) -> pa.Array:
    """Write instants in one of the forms that users have them in."""
    if form.startswith("text"):
        return pa.array([None if instant is None else _text(instant, form) for instant in instants], pa.string())
    if form.startswith("ns"):
        kind = pa.timestamp("ns", tz="UTC" if form.endswith("UTC") else None)
        return pa.array([None if instant is None else instant * 1000 for instant in instants], pa.int64()).cast(kind)
    return pa.array(instants, pa.timestamp("us", tz=None if form == "naive" else form))


def _text(instant: int, form: str) -> str:
    moment = EPOCH + timedelta(microseconds=instant)
    if form == "text":
        return moment.replace(tzinfo=None).isoformat()
    return moment.astimezone(timezone(timedelta(hours=7))).isoformat()
