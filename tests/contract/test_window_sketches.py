"""Approximate counts and quantiles: the errors that are documented, and the same bits whatever happens to the order and the types."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import (
    ApproxCountDistinct,
    ApproxQuantile,
    Entity,
    EventSource,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    WindowedGroup,
)
from seeknal.define import aggregations as agg
from seeknal.engine import windows
from seeknal.engine.windows import sketches
from seeknal.engine.windows.keys import Keys
from seeknal.values.times import instant

from . import windows_oracle as oracle
from .profiles import PROFILE

STANDARD_ERROR = 0.01
"""What the documentation says of counts beyond `sketches.MOST`."""


def computed(column, wanted):
    """Compute an aggregation of all values of a column."""
    size = len(column)
    events = windows.Events(np.zeros(size, np.int64), np.arange(size), {"x": pa.chunked_array([column])})
    moments = windows.Moments(np.zeros(1, np.int64), np.full(1, size))
    return windows.compute(events, moments, agg.expand("x", wanted))[0][0].as_py()


@pytest.mark.parametrize("kind", ["whole", "text"])
def test_up_to_16384_distinct_values_are_counted_exactly(kind):
    for size in (1, 1000, 2**14):
        column = pa.array(np.arange(size) * 7)
        column = column.cast(pa.string()) if kind == "text" else column
        assert computed(pa.concat_arrays([column, column]), agg.ApproxCountDistinct("x")) == size


def test_more_distinct_values_are_counted_with_the_standard_error_that_is_documented():
    chance = np.random.default_rng(3)
    errors = []
    for size in (17_000, 25_000, 33_000, 60_000, 150_000):
        for _ in range(20):
            values = np.unique(chance.integers(-(2**62), 2**62, size + 100))[:size]
            errors.append(computed(pa.array(values), agg.ApproxCountDistinct("x")) / size - 1)
    assert np.sqrt(np.mean(np.square(errors))) < STANDARD_ERROR
    assert abs(np.mean(errors)) < STANDARD_ERROR / 4
    assert max(map(abs, errors)) < 4 * STANDARD_ERROR


@pytest.mark.parametrize(
    "make", [np.arange, lambda size: np.arange(size) * 1000.0, lambda size: np.arange(size) * 2**20]
)
def test_regular_values_are_counted_no_worse_than_random_ones(make):
    for size in (20_000, 100_000):
        assert abs(computed(pa.array(make(size)), agg.ApproxCountDistinct("x")) / size - 1) < 4 * STANDARD_ERROR


def test_many_distinct_texts_decimals_and_times_are_counted_within_the_error():
    size = 40_000
    whole = pa.array(np.arange(size))
    for column in (whole.cast(pa.string()), whole.cast(pa.decimal128(38, 2)), whole.cast(pa.timestamp("us", "UTC"))):
        assert abs(computed(column, agg.ApproxCountDistinct("x")) / size - 1) < 4 * STANDARD_ERROR


WIDER = [
    (pa.int8(), pa.int64(), range(-128, 128)),
    (pa.uint32(), pa.uint64(), [0, 1, 7, 2**32 - 1]),
    (pa.uint8(), pa.int16(), range(256)),
    (pa.float32(), pa.float64(), [0.5, -0.0, math.nan, math.inf, 1e30, 0.1]),
    (
        pa.decimal128(5, 2),
        pa.decimal128(38, 4),
        [Decimal("1.10"), Decimal("-100.00"), Decimal("0.00"), Decimal("999.99")],
    ),
    (
        pa.timestamp("us", "UTC"),
        pa.timestamp("ns", "UTC"),
        [datetime(2024, 5, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)],
    ),
    (pa.timestamp("s"), pa.timestamp("us"), [datetime(1, 1, 1), datetime(2024, 5, 1)]),
]


@pytest.mark.parametrize(("narrow", "wide", "values"), WIDER, ids=lambda given: str(given)[:30])
def test_a_value_has_the_same_hash_in_a_wider_type_and_in_plain_python(narrow, wide, values):
    column = pa.array(list(values), narrow)
    hashes = sketches.hashes(Keys.of(column)).tolist()
    assert hashes == sketches.hashes(Keys.of(column.cast(wide))).tolist()
    assert hashes == [oracle.hash_of(one) for one in column.to_pylist()]


def halved(level, hashes):
    """Return the first level from this one on at which at most six hashes are left, and these."""
    while len(hashes) > 6:
        level += 1
        hashes = {one for one in hashes if one < 2 ** (64 - level)}
    return level, hashes


@settings(PROFILE, max_examples=max(60, PROFILE.max_examples))
@given(parts=st.lists(st.sets(st.integers(0, 60)), min_size=1, max_size=4))
def test_the_sketches_of_parts_are_merged_to_that_of_the_whole(parts):
    samples = [halved(0, {oracle.hash_of(one) for one in part}) for part in parts]
    deepest = max(level for level, _ in samples)
    together = {one for _, hashes in samples for one in hashes if one < 2 ** (64 - deepest)}
    level, kept = halved(deepest, together)
    with patch.object(sketches, "MOST", 6):
        whole = pa.array(set().union(*parts), pa.int64())
        assert computed(whole, agg.ApproxCountDistinct("x")) == len(kept) * 2**level


def exact(values, q):
    """Return the two values between which a quantile lies, and the quantile, as exact numbers."""
    place = Fraction(q) * (len(values) - 1)
    low, high = (Fraction(sorted(values)[math.floor(place) + i * (place.denominator > 1)]) for i in (0, 1))
    return low, high, low + (high - low) * (place - math.floor(place))


@settings(PROFILE, max_examples=max(300, PROFILE.max_examples))
@given(
    values=st.lists(st.floats(1e-300, 1.7976931348623157e308) | st.floats(-1e300, -1e-300), min_size=1, max_size=30),
    q=st.floats(0, 1),
)
def test_a_quantile_is_within_the_error_that_is_documented(values, q):
    for some in (values, [abs(one) for one in values]):
        low, high, right = exact(some, q)
        found = Fraction(computed(pa.array(some), agg.ApproxQuantile("x", q)))
        size = abs(right) if low * high > 0 else max(abs(low), abs(high))
        # An interpolation between floats is rounded itself, which shows where it ends near the lesser of two very different ones.
        rounding = max(abs(low), abs(high)) * Fraction(1, 2**51)
        assert abs(found - right) <= size * Fraction(4, 1000) + rounding


def test_quantiles_of_whole_numbers_up_to_256_are_exact():
    chance = random.Random(2)
    for _ in range(50):
        values, q = [chance.randint(-256, 256) for _ in range(chance.randint(1, 40))], chance.random()
        assert computed(pa.array(values), agg.ApproxQuantile("x", q)) == computed(
            pa.array(values), agg.Quantile("x", q)
        )


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, 0.0, 5e-324, 1.7976931348623157e308])
def test_an_odd_number_is_its_own_quantile(odd):
    found = computed(pa.array([odd]), agg.ApproxQuantile("x", 0.5))
    assert (
        math.isnan(found)
        if math.isnan(odd)
        else found == odd or math.isclose(found, odd, rel_tol=1 / 256, abs_tol=1e-310)
    )
    assert math.isinf(found) == math.isinf(odd)


@pytest.mark.parametrize("bits", [0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF])
def test_no_nan_becomes_a_number(bits):
    nan = np.array([bits], np.uint64).view(np.float64)
    assert math.isnan(computed(pa.array(nan), agg.ApproxQuantile("x", 0.5)))


@pytest.mark.filterwarnings("ignore:shop/visits is now at version")
@pytest.mark.parametrize("target", ["lmdb", "redis"])
def test_many_distinct_values_are_counted_online_as_offline_even_after_a_column_got_a_wider_type(target, valkey_url):
    now = datetime.now(UTC)
    source = EventSource("visits", "at", project="shop")

    def write(first, size, kind):
        pages = pa.array(np.arange(first, first + size)).cast(kind)
        user = np.ones(size, np.int64)
        source.set_dataframe(pa.table({"user": user, "at": [now] * size, "page": pages})).write()

    write(0, 20_000, pa.int32())
    features = {"pages": ApproxCountDistinct("page", over="1d"), "middle": ApproxQuantile("page", 0.5, over="1d")}
    group = WindowedGroup("browsing", Entity("user", ["user"]), source, features)
    lookups = HistoricalFeaturesDuckDB(FeatureLookup(group))
    lookups.serve("browsing", target=valkey_url if target == "redis" else None)
    table = FeatureStore().tables.open("browsing")
    for first, kind in ((20_000, pa.int32()), (40_000, pa.int64())):
        write(first, 15_000, kind)
        moment = datetime.now(UTC)
        spine = pa.table({"user": [1], "now": pa.array([moment], pa.timestamp("us", "UTC"))})
        (offline,) = lookups.using_spine(spine, date_col="now").to_dataframe().to_pylist()
        FeatureStore().tables.refresh(["browsing"])
        (online,) = table.get_features([{"user": 1}], "dicts", at=instant(moment))
        assert online == {name: offline[name] for name in online}
        assert online["pages"] % 2 == 0  # it is a sample
        assert FeatureStore().tables.verify("browsing").equal
