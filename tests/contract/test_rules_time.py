"""Rules 1 to 6: what is visible when, and which of several rows wins."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seeknal import DataError, DefinitionError, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, SeeknalWarning
from seeknal.values.times import instant

from .world import (
    HOUR,
    MICROSECOND,
    NOON,
    finished,
    group,
    history,
    look,
    python,
    rows,
    seen,
    snapshots,
    utc,
    write,
    written,
)

ON_BOTH = True  # see `pytest_generate_tests`

US = pa.timestamp("us")


def test_an_event_is_visible_at_its_own_moment_and_not_a_microsecond_before():
    fg = written(rows(5))
    assert seen(fg, NOON, NOON - MICROSECOND, NOON + MICROSECOND) == [5, None, 5]


def test_the_newest_visible_event_is_the_one_that_counts():
    fg = written(rows(1, 2, 3))
    assert seen(fg, NOON, NOON + HOUR, NOON + 2 * HOUR - MICROSECOND, NOON + 9 * HOUR) == [1, 2, 2, 3]


def test_a_null_value_in_the_newest_row_is_null_and_not_the_one_before():
    assert seen(written(rows(1, None)), NOON, NOON + HOUR) == [1, None]


def test_a_ttl_is_inclusive_to_the_microsecond():
    fg = written(rows(5), ttl=HOUR)
    assert seen(fg, NOON + HOUR, NOON + HOUR + MICROSECOND) == [5, None]


def test_a_ttl_longer_than_all_of_time_is_refused():
    with pytest.raises(DefinitionError, match="longer than 3,660,000 days"):
        group(ttl=timedelta.max)


def test_an_expired_newest_row_hides_the_older_ones():
    fg = written(rows(1, None, times=[NOON, NOON + MICROSECOND]), ttl=HOUR)
    assert seen(fg, NOON + HOUR + MICROSECOND, NOON + HOUR + 2 * MICROSECOND) == [None, None]
    other = written(rows(1, 2), name="other", ttl=HOUR)
    assert seen(other, NOON + 2 * HOUR, NOON + 2 * HOUR + MICROSECOND) == [2, None]


def test_a_ttl_is_elapsed_time_across_a_change_of_clocks():
    before = datetime(2024, 3, 10, 6, 30, tzinfo=UTC)
    times = pa.array([before], pa.timestamp("us", tz="America/New_York"))
    fg = written(pa.table({"user_id": [1], "at": times, "x": [5]}), ttl=HOUR)
    assert seen(fg, before + HOUR, before + HOUR + MICROSECOND) == [5, None]


def test_without_a_ttl_a_value_is_good_for_ever():
    assert seen(written(rows(5)), datetime(9999, 12, 31, 23, 59, 59, 999999)) == [5]


def test_the_earliest_and_the_latest_moment_of_the_calendar_can_be_written_and_seen():
    first, last = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
    with pytest.warns(SeeknalWarning, match="after now"):
        fg = written(rows(1, 2, times=pa.array([first, last], US)))
    assert seen(fg, first, last - MICROSECOND, last) == [1, 1, 2]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_one_instant_is_the_same_in_every_zone(zone):
    times = pa.array([utc(NOON)], pa.timestamp("us", tz=zone))
    fg = written(pa.table({"user_id": [1], "at": times, "x": [5]}))
    spine = pa.array([utc(NOON), utc(NOON) - MICROSECOND], pa.timestamp("us", tz=zone))
    assert seen(fg, NOON, NOON - MICROSECOND) == [5, None]
    assert look(fg, pa.table({"user_id": [1, 1], "at": spine}))["x"].to_pylist() == [5, None]


NAIVE_IS_UTC = """
import time, pandas as pd, pyarrow as pa
from datetime import UTC, datetime
from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, HistoricalFeaturesDuckDB, Materialization
assert time.timezone, "the machine should not be in UTC"
noon = datetime(2024, 1, 1, 12)
frames = [
    pd.DataFrame({"user_id": [1], "at": [noon], "x": [5]}),
    pa.table({"user_id": [1], "at": [noon], "x": [5]}),
    pa.table({"user_id": [1], "at": ["2024-01-01T12:00:00"], "x": [5]}),
]
for i, frame in enumerate(frames):
    fg = FeatureGroupDuckDB(f"g{i}", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
    fg.set_dataframe(frame).set_features().write(noon, noon)
    for exact in (noon, noon.replace(tzinfo=UTC)):
        spine = pa.table({"user_id": [1, 1], "at": [exact, exact.replace(hour=11, minute=59)]})
        hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
        print(hist.using_spine(spine, "at").to_dataframe()["x"].to_pylist())
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(name=f"t{i}")
    print(online.get_features([{"user_id": 1}], "dicts"))
    print(HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe()["at"][0])
"""


def test_a_naive_time_is_utc_wherever_the_machine_stands():
    printed = finished(python(NAIVE_IS_UTC, env={"TZ": "America/New_York"})).splitlines()
    one_group = ["[5, None]", "[5, None]", "[{'user_id': 1, 'x': 5}]", "2024-01-01 12:00:00"]
    assert printed == one_group * 3


def test_a_date_is_its_midnight():
    fg = written(rows(5, times=pa.array([date(2024, 1, 2)])))
    midnight = datetime(2024, 1, 2)
    assert seen(fg, midnight, midnight - MICROSECOND) == [5, None]
    assert seen(fg, date(2024, 1, 2), date(2024, 1, 1)) == [5, None]


@pytest.mark.parametrize(
    "text",
    ["2024-01-01T12:00:00", "2024-01-01 12:00", "2024-01-01T12:00:00Z", "2024-01-01T19:00:00+07:00"],
)
def test_text_in_iso_8601_is_read_and_never_compared_as_text(text):
    fg = written(rows(5, times=[text]))
    assert seen(fg, NOON, NOON - MICROSECOND) == [5, None]
    other = written(rows(5), name="other")
    assert seen(other, text) == [5]


def test_text_that_is_no_time_is_refused_and_stores_nothing():
    fg = group()
    with pytest.raises(DataError, match="at"):
        write(fg, rows(1, 2, times=["2024-01-01T12:00:00", "yesterday"]))
    assert snapshots(fg) == -1


def test_a_number_is_no_event_time():
    fg = group()
    with pytest.raises(DataError, match="int64"):
        write(fg, rows(1, times=[1704110400]))


@pytest.mark.parametrize("nanos", [1, 999])
def test_parts_of_a_microsecond_round_an_event_up(nanos):
    fg = written(rows(5, times=pa.array([pd.Timestamp(NOON).value + nanos]).cast(pa.timestamp("ns"))))
    assert seen(fg, NOON, NOON + MICROSECOND) == [None, 5]


def test_parts_of_a_microsecond_round_a_spine_down():
    fg = written(rows(5, times=[NOON + MICROSECOND]))
    noon = pd.Timestamp(NOON).value
    spine = pa.array([noon + 999, noon + 1000, noon + 1001]).cast(pa.timestamp("ns"))
    assert look(fg, pa.table({"user_id": [1, 1, 1], "at": spine}))["x"].to_pylist() == [None, 5, 5]


def test_parts_of_a_microsecond_in_text_round_as_well():
    fg = written(rows(5, times=["2024-01-01T12:00:00.000000001"]))
    assert seen(fg, NOON, NOON + MICROSECOND) == [None, 5]
    assert seen(fg, "2024-01-01T12:00:00.000000999", "2024-01-01T12:00:00.000001") == [None, 5]


def test_a_null_event_time_is_refused_and_stores_nothing():
    fg = group()
    with pytest.raises(DataError, match="drop_nulls"):
        write(fg, rows(1, 2, times=pa.array([NOON, None], US)))
    assert snapshots(fg) == -1


def test_rows_without_event_time_are_left_out_on_demand():
    fg = group()
    assert write(fg, rows(1, 2, times=pa.array([None, NOON], US)), drop_nulls=True).rows == 1
    assert seen(fg, NOON) == [2]


def test_a_null_moment_of_a_spine_keeps_its_row():
    fg = written(rows(5))
    assert seen(fg, None, NOON, kind=US) == [None, 5]
    assert seen(fg, None, None, kind=US) == [None, None]
    assert seen(fg, None) == [None]


def test_rows_of_the_future_are_never_the_latest():
    ahead = datetime.now(UTC) + timedelta(days=1)
    with pytest.warns(SeeknalWarning, match="after now"):
        fg = written(rows(1, 2, times=[utc(NOON), ahead]))
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    assert hist.using_latest().to_dataframe()["x"].tolist() == [1]
    assert hist.serve().get_features([{"user_id": 1}], "dicts") == [{"user_id": 1, "x": 1}]
    assert hist.using_latest(now=ahead).to_dataframe()["x"].tolist() == [2]


def test_now_can_be_any_moment():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2)))])
    assert hist.using_latest(now=NOON).to_dataframe()["x"].tolist() == [1]
    assert hist.using_latest(now="2024-01-01T11:59:59").to_dataframe()["x"].tolist() == []


def test_the_latest_rows_lie_in_the_interval_asked_for():
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    assert len(hist.using_latest(now=NOON).to_dataframe(NOON + HOUR)) == 0


def test_of_equal_event_times_the_greatest_created_time_wins():
    made = pa.array([NOON + 2 * HOUR, NOON + 3 * HOUR, None, NOON + HOUR], US)
    fg = written(rows(1, 2, 3, 4, times=[NOON] * 4, made_at=made), created_time_col="made_at")
    assert seen(fg, NOON) == [2]
    write(fg, rows(5, times=[NOON], made_at=[NOON]), mode="append")
    assert seen(fg, NOON) == [2]


def test_a_known_created_time_beats_none():
    made = pa.array([NOON, None], US)
    fg = written(rows(1, 2, times=[NOON] * 2, made_at=made), created_time_col="made_at")
    assert seen(fg, NOON) == [1]


def test_of_equal_event_times_the_later_write_wins_and_in_one_write_the_later_row():
    fg = written(rows(1, 2, 3, times=[NOON] * 3))
    assert seen(fg, NOON) == [3]
    write(fg, rows(5, 4, times=[NOON] * 2), mode="append")
    assert seen(fg, NOON) == [4]
    assert history(fg)["x"].to_pylist() == [4]
    assert FeatureStore().features.latest([FeatureLookup(fg)], output="arrow")["x"].to_pylist() == [4]


def test_the_later_row_wins_among_many_that_several_threads_read():
    count = 150_000
    users = [i % 3 for i in range(count)]
    frame = pa.table({"user_id": users, "at": [NOON] * count, "x": list(range(count))})
    with pytest.warns(SeeknalWarning, match="with the same join keys and event time"):
        fg = written(frame)
    spine = pa.table({"user_id": [0, 1, 2] * 4, "at": [NOON] * 12})
    assert look(fg, spine)["x"].to_pylist() == [count - 3, count - 2, count - 1] * 4
    many = pa.table({"user_id": [0, 1, 2] * 4000, "at": [NOON] * 12_000})
    assert look(fg, many)["x"].to_pylist() == [count - 3, count - 2, count - 1] * 4000


def test_a_moment_with_an_offset_is_taken_as_the_instant_it_is():
    east = datetime(2024, 1, 1, 19, tzinfo=timezone(timedelta(hours=7)))
    assert instant(east) == instant(NOON)
    fg = group()
    write(fg, rows(5), east, east)
    assert seen(fg, east) == [5]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_an_event_beyond_the_calendar_is_refused(unit):
    fg = group()
    with pytest.raises(DataError, match="at"):
        write(fg, rows(5, times=pa.array([2**62], pa.int64()).cast(pa.timestamp(unit))))
    assert snapshots(fg) == -1


def test_a_spine_moment_beyond_the_calendar_sees_the_rows_before_it():
    fg = written(rows(5))
    far = pa.array([2**62, -(2**62)], pa.int64()).cast(US)
    assert look(fg, pa.table({"user_id": [1, 1], "at": far}))["x"].to_pylist() == [5, None]


def test_text_with_a_zone_and_without_is_read_alike_wherever_it_comes_in(tmp_path):
    texts = ["2024-01-01T07:00:00+07:00", "2024-01-02", "2024-01-03 00:00:00.000000001", None]
    moments = [instant("2024-01-01"), instant("2024-01-02"), instant("2024-01-03") + 1]
    fg = written(rows(1, 2, 3, times=texts[:3]))
    pushed = written(rows(0, times=[NOON - 1000 * HOUR]), name="pushed")
    pushed.push([{"user_id": 1, "at": text, "x": x} for x, text in enumerate(texts[:3], 1)])
    assert history(fg)["at"].cast(pa.int64()).to_pylist() == moments
    assert history(pushed)["at"].cast(pa.int64()).to_pylist()[1:] == moments
    spine = pa.table({"user_id": [1] * 4, "at": texts})
    pq.write_table(spine, tmp_path / "spine.parquet")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    hist.using_spine(tmp_path / "spine.parquet", "at").to_parquet(tmp_path / "out.parquet")
    for found in (
        look(fg, spine),
        pq.read_table(tmp_path / "out.parquet"),
    ):  # the nanosecond of a spine is rounded down
        assert found["x"].to_pylist() == [1, 2, 2, None]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2024-01-01", None, "yesterday", "2024-01-02"], "'yesterday' in row 2, which is not an ISO 8601 time"),
        (["2024-01-01T00:00:00Z", "2024-13-01T00:00:00Z"], "'2024-13-01T00:00:00Z' in row 1"),
        (["2024-01-01T00:00:00Z", None, "2024-01-01", "later"], "'later' in row 3, which is not an ISO 8601 time"),
    ],
)
def test_text_that_is_no_time_is_named_with_its_row(texts, message):
    with pytest.raises(DataError, match=message):
        written(rows(*range(len(texts)), times=texts))
