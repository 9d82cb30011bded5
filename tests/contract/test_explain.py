"""Why a value is what it is, and the leaks that a correct join cannot see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import seeknal
from seeknal import DataError, DefinitionError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, SeeknalWarning
from seeknal.join.inquiry import Inquiry
from seeknal.values.times import moment_of

from . import strategies as some
from .profiles import PROFILE
from .test_point_in_time import Pair, fresh_project, spine_of
from .world import HOUR, NOON, rows, write, written


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@PROFILE
@given(
    frames=st.lists(some.frames(st.tuples(some.users)), min_size=1, max_size=3),
    ttl=some.ttls,
    moments=st.lists(some.moments, min_size=3, max_size=3),
)
def test_the_explained_winner_is_the_row_that_the_join_returns(store: FeatureStore, frames, ttl, moments):
    """The explanation goes through the rows in Python, the join in SQL: two ways, one answer."""
    pair = Pair(store, "user_id", project=fresh_project(), ttl=ttl)
    for frame in frames:
        pair.write(frame)
    asked = list(zip([1, 1, 2], moments, strict=True))
    joined = store.features.training_set([pair.lookup()], spine_of(asked, "UTC", user_id=pa.int64()), "at")[
        "n"
    ].to_pylist()
    for (who, moment), n in zip(asked, joined, strict=True):
        found = store.features.explain(Inquiry([pair.lookup()]), {"user_id": who}, moment_of(moment))
        assert [one.features["n"] for one in found if one.verdict == "won"] == ([] if n is None else [n])
        assert {one.event_time for one in found} == {row.time for row in pair.oracle.rows if row.keys == (who,)}


def verdicts(fg, moment, **options):
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(
        pa.table({"user_id": [1], "when": [moment]}), "when"
    )
    found = hist.explain({"user_id": 1, "when": moment}, **options)
    return {features["x"]: verdict for features, verdict in zip(found["features"], found["verdict"], strict=True)}


def test_every_row_that_lost_says_why():
    stamps = [NOON, NOON + HOUR, NOON + HOUR, NOON + 5 * HOUR]
    frame = rows(1, 2, 3, 4, times=stamps).append_column("made", pa.array([NOON, NOON + 2 * HOUR, NOON + HOUR, NOON]))
    fg = written(frame, created_time_col="made", ttl=2 * HOUR)
    before = datetime.now(UTC)
    late = rows(5, times=[NOON + HOUR]).append_column("made", pa.array([NOON + 9 * HOUR]))
    write(fg, late, mode="append")
    assert verdicts(fg, NOON + 2 * HOUR, as_of=before) == {
        2: "won",
        3: "same time, but recorded earlier than the newest",
        1: "older than the winner by 1:00:00",
        4: "future: 3:00:00 after the moment",
        5: next(
            text
            for text in verdicts(fg, NOON, as_of=before).values()
            if text.startswith("written later: by snapshot 2")
        ),
    }
    assert verdicts(fg, NOON + 2 * HOUR)[5] == "won"
    assert verdicts(fg, NOON + 4 * HOUR)[5] == "expired: 3:00:00 old, the ttl is 2:00:00"
    assert verdicts(fg, NOON + 4 * HOUR)[1] == "older by 1:00:00 than the newest, which has expired"


def test_ties_without_a_created_time_are_explained_by_the_order_of_writing():
    fg = written(rows(1, 2, times=[NOON, NOON]))
    assert verdicts(fg, NOON) == {2: "won", 1: "same time, but written earlier than the newest"}


def test_what_cannot_be_explained_is_refused():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    with pytest.raises(DefinitionError, match="needs using_spine"):
        hist.explain({"user_id": 1})
    hist = hist.using_spine(pa.table({"user_id": [1], "when": [NOON]}), "when")
    with pytest.raises(DataError, match="no 'when', which is the moment"):
        hist.explain({"user_id": 1})
    with pytest.raises(DataError, match="Expected a row of the spine"):
        hist.explain(3)
    with pytest.raises(DataError, match=r"no 'user_id'\. The join key of shop/spend is user_id"):
        hist.explain({"when": NOON})


def test_a_row_of_the_pandas_spine_can_be_explained_as_it_is():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2)))])
    spine = pa.table({"user_id": [1, 2], "when": [NOON, NOON]}).to_pandas()
    hist = hist.using_spine(spine, "when")
    assert hist.explain(spine.iloc[0])["verdict"].tolist()[0] == "won"
    assert hist.explain(spine.iloc[1]).empty


def test_the_command_line_explains():
    written(rows(1, 2))
    shown = seeknal("explain", "spend", "user_id=1", "--at", "2024-01-01T12:30").stdout
    assert "won" in shown
    assert "future: 0:30:00 after the moment" in shown
    assert (
        "written later" in seeknal("explain", "spend", "user_id=1", "--at", "2024-01-01T12:30", "--as-of", "0").stdout
    )


def found_by_check(fg, spine):
    with pytest.warns(SeeknalWarning):
        return HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "when").check()


def test_rows_recorded_long_after_their_event_time_are_pointed_out():
    frame = rows(*range(20)).append_column("made", pa.array([NOON + timedelta(days=3 + i) for i in range(20)]))
    fg = written(frame, created_time_col="made")
    (text,) = found_by_check(fg, pa.table({"user_id": [1], "when": [NOON]}))
    assert "100% of the rows were recorded more than a day after their at" in text


def test_a_feature_that_equals_the_label_is_pointed_out():
    fg = written(rows(*range(20)))
    spine = pa.table(
        {"user_id": [1] * 20, "when": [NOON + i * HOUR for i in range(20)], "label": list(range(20)), "other": [0] * 20}
    )
    assert found_by_check(fg, spine) == [
        "x equals label wherever both are known. If label is the label, the feature leaks it."
    ]


def test_a_label_that_is_constant_where_it_is_known_is_no_leak():
    fg = written(rows(*[1] * 20))
    spine = pa.table({"user_id": [1] * 20, "when": [NOON + i * HOUR for i in range(20)], "label": [1] * 19 + [None]})
    assert HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "when").check() == []
