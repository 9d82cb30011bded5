"""The kernel of windowed features computes what plain loops do, bit for bit, whatever the data and however the work is cut."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import DataError, DefinitionError
from seeknal.define import aggregations as agg
from seeknal.define.aggregations.result_types import type_of
from seeknal.engine import windows
from seeknal.engine.windows import (
    blocks,
    grouped,
    levels,
    order,
    powers,
    ranked,
    sketches,
    spans,
    sums,
    timeline,
)

from . import windows_oracle as oracle
from .profiles import PROFILE, at_least

ON_BOTH = True  # see `pytest_generate_tests`

FLOATS = st.sampled_from([0.0, -0.0, 1.5, -2.25, 0.1, 0.2, 0.3, 1e9 + 1, 1e9 + 2, 1e9 + 3, 2.0**53, 1.0, -1.0])
ABSURD = st.one_of(
    FLOATS,
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -5e-324]),
    st.sampled_from([1e16, 1.0, 1e-16, 2.0**-53, 2.0**-54, 1e300, 1e-300, 2.0**970]),
)
LONG = st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-3, 3)
KINDS = {
    "i8": (pa.int8(), st.integers(-128, 127)),
    "i64": (pa.int64(), st.sampled_from([0, 1, 2, 3, -5, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)])),
    "u64": (pa.uint64(), st.sampled_from([0, 1, 7, 2**63 - 1, 2**63, 2**64 - 1])),
    "flag": (pa.bool_(), st.booleans()),
    "f64": (pa.float64(), FLOATS),
    "f32": (pa.float32(), st.floats(width=32)),
    "f16": (pa.float16(), st.floats(width=16)),
    "absurd": (pa.float64(), ABSURD),
    "price": (pa.decimal128(10, 2), st.integers(-500, 500).map(lambda n: Decimal(n).scaleb(-2))),
    "long": (pa.decimal128(38, 4), LONG.map(lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -4)))),
    "word": (pa.string(), st.sampled_from(["", "a", "b", "ä", "zz", "\U0001f600", "\uffff"])),
    "raw": (pa.binary(), st.sampled_from([b"", b"\0", b"a", b"\xff"])),
    "fixed": (pa.binary(2), st.sampled_from([b"ab", b"\0\0", b"\xff\xff"])),
    "day": (pa.date32(), st.sampled_from([date(1, 1, 1), date(1970, 1, 1), date(2024, 5, 1), date(9999, 12, 31)])),
    "at": (
        pa.timestamp("us", tz="UTC"),
        st.sampled_from(
            [datetime(1, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
        ),
    ),
    "clock": (pa.time64("us"), st.sampled_from([time(0), time(12, 30), time(23, 59, 59, 999999)])),
    "span": (pa.duration("ms"), st.sampled_from([timedelta(0), timedelta(days=-3), timedelta(milliseconds=7)])),
    "items": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(0, 3), max_size=2)),
    "pair": (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": st.none() | st.integers(0, 3)})),
}
FIXED = [b"ab", b"\0\0", b"\xff\xff"]
DAY = 86_400_000_000
FAR = [-62_135_596_800_000_000, 253_402_300_799_999_999]
TIMES = st.one_of(st.integers(0, 12), st.sampled_from([DAY, -DAY, *FAR, 2**62, -(2**62)]))
LENGTHS = st.one_of(st.none(), st.integers(1, 8), st.sampled_from([DAY, 2 * DAY, 3_650_000 * DAY]))
OF_COLUMN = [
    *(agg.Count, agg.Sum, agg.Mean, agg.Min, agg.Max, agg.Var, agg.Std, agg.Skew, agg.Kurtosis, agg.First, agg.Last),
    *(agg.CountDistinct, agg.ApproxCountDistinct, agg.Histogram),
]
WITH_N = [agg.FirstN, agg.LastN, agg.Largest, agg.Smallest, agg.MostFrequent]
WITH_POWERS = [agg.Var, agg.Std, agg.Skew, agg.Kurtosis]
CLOSE = {"Var", "Std", "Skew", "Kurtosis"}
WHERE = "is it"


@st.composite
def every_aggregation(draw, names):
    """Draw one aggregation of each kind that makes sense for the columns, all over the same window."""
    length, offset = draw(LENGTHS), draw(st.sampled_from([None, None, 1, 3, DAY]))
    shared = {
        "over": None if length is None else timedelta(microseconds=length),
        "offset": None if offset is None else timedelta(microseconds=offset),
        "where": draw(st.sampled_from([None, None, WHERE])),
    }
    column = draw(st.sampled_from(names))
    made = [agg.Count(**shared), agg.TimeSinceFirst(unit="hours", **shared), agg.TimeSinceLast(fill=-1.0, **shared)]
    made += [kind(column, **shared) for kind in OF_COLUMN]
    made += [kind(column, draw(st.integers(1, 4)), **shared) for kind in WITH_N]
    q = draw(st.sampled_from([0, 0.1, 0.25, 0.5, 0.9, 1]))
    made += [kind(column, q, **shared) for kind in (agg.Quantile, agg.ApproxQuantile)]
    made += [
        agg.Var(column, ddof=0, **shared),
        agg.LastN(column, 2, fill=[], **shared),
        agg.Mean(column, fill=0.5, **shared),
    ]
    by, k = draw(st.sampled_from(names)), draw(st.sampled_from([None, 1, 2]))
    mapped = [kind for kind in OF_COLUMN if kind.has_maps]
    made += [kind(column, by=by, k=k, **shared) for kind in mapped] + [agg.Count(by=by, k=k, **shared)]
    return [one for one in made if makes_sense(one)]


def makes_sense(aggregation):
    """Tell whether an aggregation goes with its columns."""
    try:
        type_of(aggregation, {name: kind for name, (kind, _) in KINDS.items()})
    except DefinitionError:
        return False
    return True


def one_aggregation(names):
    """Draw an aggregation that makes sense for the columns."""
    return every_aggregation(names).flatmap(st.sampled_from)


@st.composite
def crowds(draw):
    """Draw events of two entities so close together that most windows have some, and an aggregation of each kind."""
    name = draw(st.sampled_from(sorted(KINDS)))
    values = st.one_of(st.none(), *[KINDS[name][1]] * 5)
    row = st.tuples(st.integers(0, 1), st.integers(0, 12), values, st.sampled_from([frozenset(), frozenset([WHERE])]))
    rows = [
        oracle.Event(e, t, {name: value}, true) for e, t, value, true in draw(st.lists(row, min_size=6, max_size=14))
    ]
    rows.sort(key=lambda event: (event.entity, event.t))
    asked = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(4, 20)), min_size=1, max_size=5))
    return rows, [name], asked, draw(every_aggregation([name])), draw(st.sampled_from([None, None, 4]))


@st.composite
def worlds(draw):
    """Draw sorted events, moments in any order, features, and a hop."""
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True))
    count = draw(st.integers(0, 14))
    nulls = draw(st.booleans())
    rows = [
        oracle.Event(
            draw(st.integers(0, 2)),
            draw(TIMES),
            {name: draw(st.none() | KINDS[name][1] if nulls else KINDS[name][1]) for name in names},
            draw(st.sampled_from([frozenset(), frozenset([WHERE])])),
        )
        for _ in range(count)
    ]
    rows.sort(key=lambda event: (event.entity, event.t))
    asked = draw(st.lists(st.tuples(st.integers(-1, 3), TIMES | st.sampled_from([2**63 - 1, -(2**63)])), max_size=8))
    wanted = draw(st.lists(one_aggregation(names), min_size=1, max_size=5))
    return rows, names, asked, wanted, draw(st.sampled_from([None, None, 4, DAY]))


def events_of(rows, names):
    """Make the kernel's events."""
    return windows.Events(
        np.array([row.entity for row in rows], np.int64),
        np.array([row.t for row in rows], np.int64),
        {name: pa.chunked_array([pa.array([row.values[name] for row in rows], KINDS[name][0])]) for name in names},
        {WHERE: np.array([WHERE in row.true for row in rows], bool)},
    )


def moments_of(asked):
    """Make the kernel's moments."""
    return windows.Moments(np.array([e for e, _ in asked], np.int64), np.array([t for _, t in asked], np.int64))


def features_of(wanted):
    """Make features, one for each aggregation."""
    return [feature for i, one in enumerate(wanted) for feature in agg.expand(f"f{i}", one)]


def asked_of(feature):
    """Tell the oracle of a feature."""
    of = feature.aggregation
    extra = {name: getattr(of, name) for name in ("n", "q", "ddof", "unit") if hasattr(of, name)}
    return oracle.Asked(of.name, of.source_column, feature.length, of.shift, of.where, of.by, of.k, of.fill, extra)


def expected(rows, asked, feature, hop):
    """Ask the oracle; None if a sum does not fit."""
    try:
        return [oracle.value(rows, entity, t, asked_of(feature), hop) for entity, t in asked]
    except oracle.TooLargeError:
        return None


def same(one, other, close=False):
    """Tell whether two values are equal to the bit; floats nearly, if that is all that is promised."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, close) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], close) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        if close and math.isfinite(one) and math.isfinite(other):
            return math.isclose(one, other, rel_tol=1e-13, abs_tol=1e-320)
        return struct.pack("d", one) == struct.pack("d", other)
    return type(one) is type(other) and one == other


def check(rows, names, asked, wanted, hop):
    """Compare the kernel with the oracle."""
    events, moments, features = events_of(rows, names), moments_of(asked), features_of(wanted)
    right = {feature: expected(rows, asked, feature, hop) for feature in features}
    for feature in [feature for feature in features if right[feature] is None]:
        with pytest.raises(DataError, match=f"Feature '{feature.name}' is a sum that does not fit"):
            windows.compute(events, moments, [feature], hop)
    fit = [feature for feature in features if right[feature] is not None]
    for feature, found in zip(fit, windows.compute(events, moments, fit, hop), strict=True):
        found.validate(full=True)
        assert found.type == type_of(feature.aggregation, {name: KINDS[name][0] for name in names})
        close = feature.aggregation.name in CLOSE
        for have, want in zip(found.to_pylist(), right[feature], strict=True):
            assert same(have, want, close), (feature, have, want)


@settings(PROFILE, max_examples=4 * PROFILE.max_examples)
@given(crowd=crowds())
def test_every_aggregation_is_what_plain_loops_compute(crowd):
    check(*crowd)


@at_least(300)
@given(world=worlds())
def test_features_are_what_plain_loops_compute(world):
    check(*world)


@at_least(100)
@given(world=worlds(), small=st.integers(1, 5))
def test_features_are_the_same_in_the_smallest_parts(world, small):
    with (
        patch.object(timeline, "_MOST_SLICES", small),
        patch.object(timeline, "_LARGEST", 2**40 * small),
        patch.object(sums, "_AT_ONCE", small),
        patch.object(sums, "_CACHED", 1),
        patch.object(powers, "_AT_ONCE", small),
        patch.object(blocks, "_AT_ONCE", small),
        patch.object(grouped, "_AT_ONCE", small),
        patch.object(grouped, "_ROUND", small % 3),
        patch.object(ranked, "_LEVELS", small % 2 * 10**6),
        patch.object(spans, "_CELLS", small % 2 * 100),
        patch.object(levels, "_MOST", 4 * small),
        patch.object(levels, "_AT_ONCE", small),
        patch.object(order, "_BITS", 8 * small),
        patch.object(sketches, "MOST", small),
        patch.object(oracle, "MOST", small),
    ):
        check(*world)


@at_least(100)
@given(world=worlds(), data=st.data())
def test_no_bit_depends_on_the_rest_of_the_spine_or_on_other_entities(world, data):
    rows, names, asked, wanted, hop = world
    features = [one for one in features_of(wanted) if expected(rows, asked, one, hop) is not None]
    whole = windows.compute(events_of(rows, names), moments_of(asked), features, hop)
    order = data.draw(st.permutations(range(len(asked))))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(asked)), max_size=3))), len(asked)]
    for first, end in pairwise(cuts):
        for entity in (-1, 0, 1, 2, 3):
            part = [i for i in order[first:end] if asked[i][0] == entity]
            mine = [row for row in rows if row.entity == entity]
            found = windows.compute(events_of(mine, names), moments_of([asked[i] for i in part]), features, hop)
            for some, all_ in zip(found, whole, strict=True):
                assert same(some.to_pylist(), [all_[i].as_py() for i in part])


ORDER_FREE = [
    *(kind("absurd") for kind in OF_COLUMN if kind not in (agg.First, agg.Last, agg.Skew, agg.Kurtosis)),
    *(kind("f64") for kind in (agg.Skew, agg.Kurtosis)),
    *(kind("absurd", 3) for kind in (agg.Largest, agg.Smallest, agg.MostFrequent)),
    agg.Quantile("absurd", 0.3),
    agg.ApproxQuantile("absurd", 0.3),
    agg.Sum("absurd", by="word", k=2),
]


@at_least(60)
@given(values=st.lists(st.tuples(ABSURD, FLOATS, KINDS["word"][1]), max_size=12), data=st.data())
def test_no_bit_depends_on_the_order_of_arrival(values, data):
    names = ["absurd", "f64", "word"]

    def found(arrived):
        rows = [oracle.Event(0, 5, dict(zip(names, one, strict=True))) for one in arrived]
        made = windows.compute(events_of(rows, names), moments_of([(0, 5)]), features_of(ORDER_FREE))
        return [one.to_pylist() for one in made]

    assert same(found(values), found(data.draw(st.permutations(values))))
