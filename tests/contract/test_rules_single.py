"""The fast path for one entity returns the same as a lookup of several: values, types and order."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import count
from math import inf, nan
from typing import Any

import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.errors import NotOnlineError
from seeknal.online import SingleRow

from .profiles import PROFILE
from .world import NOON

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

_projects = count()
moments = st.sampled_from([datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(2024, 5, 1, 18, 0, 0, 1)])
signed = st.sampled_from([0, 1, -1, -128, 127])
unsigned = st.sampled_from([0, 1, 255])
floats = st.sampled_from([0.0, -0.0, 0.5, inf, -inf, nan])
texts = st.sampled_from(["", "a", "é\x00\U0001f600", "x" * 127, "x" * 129, "y" * 1000])
VALUES = {
    **dict.fromkeys((pa.int8(), pa.int16(), pa.int32(), pa.int64()), signed),
    **dict.fromkeys((pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()), unsigned),
    pa.int64(): st.sampled_from([0, 2**63 - 1, -(2**63)]),
    pa.uint64(): st.sampled_from([0, 2**64 - 1]),
    **dict.fromkeys((pa.float32(), pa.float64()), floats),
    pa.bool_(): st.booleans(),
    pa.date32(): st.sampled_from([date(1970, 1, 1), date(1900, 2, 28), date(2024, 2, 29)]),
    pa.string(): texts,
    pa.binary(): texts.map(str.encode),
    **dict.fromkeys((pa.timestamp("us"), pa.timestamp("ns")), moments),
    pa.timestamp("us", "Asia/Jakarta"): moments.map(lambda moment: moment.replace(tzinfo=UTC)),
    pa.time64("us"): st.just(time(12, 0, 0, 1)),
    pa.decimal128(9, 2): st.sampled_from([Decimal("1.10"), Decimal("-0.05")]),
    pa.list_(pa.int64()): st.lists(signed, max_size=2),
}
kinds = st.sampled_from(list(VALUES))
often = st.sampled_from([pa.int64(), pa.float64(), pa.float64(), pa.string(), pa.bool_(), pa.timestamp("us")])


@st.composite
def groups(draw) -> list[pa.Table]:
    """Draw the columns that some groups have for user 1: of many types, or mostly of the usual ones, with nulls."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        some = draw(st.lists(draw(st.sampled_from([kinds, often])), min_size=1, max_size=8))
        columns = {
            f"g{number}_{i}": pa.array([draw(st.one_of(VALUES[kind], VALUES[kind], st.none()))], kind)
            for i, kind in enumerate(some)
        }
        found.append(pa.table({"user_id": [1], "at": [NOON], **columns}))
    return found


def serve(store: FeatureStore, frames: list[pa.Table], **options: Any) -> Any:
    project, lookups = f"single{next(_projects)}", []
    for number, frame in enumerate(frames):
        group = FeatureGroup(
            f"g{number}", Entity("user", ["user_id"]), Materialization(event_time_col="at", **options), project
        )
        store.groups.write(group, frame)
        lookups.append(FeatureLookup(group))
    return store.tables.serve(lookups, "all")


def check(table: Any, key: object, features: list[str] | None) -> None:
    def ask(keys: list[object], output: str) -> Any:
        return table.get_features([{"user_id": one} for one in keys], output, features)

    alone, among = ask([key], "arrow"), ask([key, key], "arrow")
    alone.validate(full=True)
    assert alone.schema.equals(among.schema, check_metadata=True)
    assert repr(alone.to_pylist()) == repr(among.slice(0, 1).to_pylist())  # NaN is not itself
    first = ask([key, key], "pandas").iloc[:1]
    pd.testing.assert_frame_equal(ask([key], "pandas"), first, check_exact=True)
    polars.testing.assert_frame_equal(ask([key], "polars"), ask([key, key], "polars")[:1])
    assert repr(ask([key], "dicts")) == repr(ask([key, key], "dicts")[:1])


@settings(PROFILE, max_examples=3 * PROFILE.max_examples)
@given(frames=groups(), key=st.sampled_from([1, 1, 1, 2, 2**63]), some=st.randoms())
def test_one_entity_gets_the_same_result_as_among_others(home, frames, key, some):
    table = serve(FeatureStore(home), frames)
    check(table, key, None)
    names = [name for frame in frames for name in frame.column_names[2:]]
    for features in (some.sample(names, some.randint(1, len(names))), some.choices(names, k=3)):
        try:
            table.get_features([{"user_id": key}] * 2, "arrow", features)
        except Exception as error:  # noqa: BLE001 - whatever it is, one entity has the same
            with pytest.raises(type(error)):
                table.get_features([{"user_id": key}], "arrow", features)
        else:
            check(table, key, features)


@pytest.fixture
def wide(home):
    columns = {f"f{i}": [i / 2 if i % 2 else i] for i in range(1000)} | {"name": ["ann"], "at_last": [NOON]}
    return serve(FeatureStore(home), [pa.table({"user_id": [1], "at": [NOON], **columns})])


def test_changing_a_result_changes_no_other_callers_result(wide):
    keys = [{"user_id": 1}]
    first, arrow = wide.get_features(keys), wide.get_features(keys, "arrow")
    expected = first.copy()
    first.loc[0, "f0"], first.loc[0, "f1"], first.loc[0, "name"] = 7, 0.25, "bob"
    first["new"] = 1
    pd.testing.assert_frame_equal(wide.get_features(keys), expected)
    assert wide.get_features(keys, "arrow").equals(arrow)


def test_threads_that_look_up_at_once_get_their_own_results(home):
    users = range(100)
    columns = {f"f{i}": [user * 1000 + i for user in users] for i in range(50)} | {"name": [f"u{u}" for u in users]}
    times = pa.array([NOON] * len(users))
    table = serve(FeatureStore(home), [pa.table({"user_id": list(users), "at": times, **columns})])

    def ask(user: int) -> bool:
        keys, right = [{"user_id": user}], {"user_id": user, **{name: some[user] for name, some in columns.items()}}
        return table.get_features(keys, "arrow").to_pylist() == [right] == table.get_features(keys).to_dict("records")

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, [*users] * 4))


def test_a_pickled_table_returns_the_same_results(wide):
    keys = [{"user_id": 1}]
    other = pickle.loads(pickle.dumps(wide))
    assert other.get_features(keys, "arrow").equals(wide.get_features(keys, "arrow"))
    assert pickle.loads(pickle.dumps(other)).get_features(keys, "dicts") == wide.get_features(keys, "dicts")


def test_a_group_that_is_gone_is_named_whichever_of_several_it_is(home):
    frames = [pa.table({"user_id": [1], "at": [NOON], f"x{i}": [i]}) for i in range(3)]
    store = FeatureStore(home)
    table = serve(store, frames)
    part = table.parts[1]
    part.online.drop(part.space)
    for output in ("dicts", "arrow", "pandas"):
        with pytest.raises(NotOnlineError, match="'g1'"):
            table.get_features([{"user_id": 1}], output)


def test_rows_and_types_that_a_message_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="list"):
        SingleRow(pa.schema([("x", pa.list_(pa.int64()))]))
    maker = SingleRow(pa.schema([("x", pa.string()), ("y", pa.string())]))
    assert maker.make(["a" * 200, None]).to_pylist() == [{"x": "a" * 200, "y": None}]
    with pytest.raises(ValueError):  # noqa: PT011 - only caught
        maker.make(["a" * 300, None])
    assert pl.from_arrow(pa.Table.from_batches([maker.make(["é", ""])])).rows() == [("é", "")]
