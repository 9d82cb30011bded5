"""Features of an entity with many events, from sums of tiles, are what plain loops compute."""

from __future__ import annotations

import math
from datetime import timedelta
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import Entity, WindowedGroup
from seeknal.define import aggregations as agg
from seeknal.define.schema import Schema
from seeknal.define.windowed_schema import schema_of
from seeknal.engine import windows
from seeknal.engine.windows import tiled
from seeknal.engine.windows.codec import WindowCodec
from seeknal.engine.windows.many import ManyEvents
from seeknal.engine.windows.tiled import times_in
from seeknal.online import to_wire

from . import windows_oracle as oracle
from .profiles import at_least
from .test_windows import CLOSE, KINDS, WHERE, crowds, expected, features_of, moments_of, same, worlds
from .test_windows_one import near


def encoded(features, types, columns, hop):
    """Encode events of one entity, given as lists: the times, the columns and whether the condition is true."""
    fields = [("t", pa.int64()), *((f"c{i}", kind) for i, kind in enumerate(types.values())), (WHERE, pa.bool_())]
    schema = pa.schema(fields)
    many = ManyEvents(features, schema, {name: 1 + i for i, name in enumerate(types)}, {WHERE: 1 + len(types)}, hop)
    arrays = [pa.chunked_array([pa.array(values, kind)]) for values, kind in zip(columns, schema.types, strict=True)]
    return many, many.tiled.encode(arrays)


def wires(found, feature, types):
    """Return a value of the oracle as a wire value."""
    kind = agg.result_types.type_of(feature.aggregation, types)
    return to_wire(pa.array([found], kind), kind)[0]


def check(rows, names, asked, wanted, hop):
    """Compare each entity, at each moment, with the oracle; return how many values were compared, and left to the kernel."""
    types = {name: KINDS[name][0] for name in names}
    features = [one for one in features_of(wanted) if expected(rows, asked, one, hop) is not None]
    compared = skipped = 0
    for entity, moment in asked:
        mine = [row for row in rows if row.entity == entity]
        if not mine:
            continue
        columns = [[row.t for row in mine], *([row.values[name] for row in mine] for name in names)]
        many, value = encoded(features, types, [*columns, [WHERE in row.true for row in mine]], hop)
        assert times_in(value).tolist() == columns[0]
        found, left = many.at(value, moment)
        for i, feature in enumerate(features):
            if i in left:
                skipped += 1
                continue
            (right,) = expected(mine, [(entity, moment)], feature, hop)
            right = wires(right, feature, types)
            is_right = near if feature.aggregation.name in CLOSE else same
            assert is_right(found[i], right), (feature, found[i], right)
            compared += 1
    return compared, skipped


@at_least(100)
@given(crowd=crowds(), tile=st.integers(1, 4))
def test_tiles_of_any_size_give_what_plain_loops_compute(crowd, tile):
    with patch.object(tiled, "_TILE", tile):
        check(*crowd)


@at_least(100)
@given(world=worlds(), tile=st.integers(1, 4))
def test_tiles_at_odd_moments_give_what_plain_loops_compute(world, tile):
    with patch.object(tiled, "_TILE", tile):
        check(*world)


HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
MADE = {
    "money": lambda rng, size: np.round(rng.gamma(2, 20, size), 2),
    "offset": lambda rng, size: 1e9 + rng.integers(1, 4, size).astype(float),
    "mixed": lambda rng, size: rng.normal(size=size) * 10.0 ** rng.integers(-300, 300, size),
    "tiny": lambda rng, size: rng.integers(0, 9, size) * 5e-324,
    "huge": lambda rng, size: rng.choice([1.7e308, -1.7e308, 1.0], size),
    "odd": lambda rng, size: rng.choice([math.nan, math.inf, -math.inf, -0.0, 0.0, *[2.5] * 200], size),
    "whole": lambda rng, size: rng.integers(-(2**40), 2**40, size),
    "large": lambda rng, size: rng.choice([2**62, 2**62 - 3, 5], size),
    "small": lambda rng, size: rng.integers(-128, 128, size).astype(np.int8),
}
"""Columns of so many values, by chance."""
ORDINARY = ("money", "offset", "whole", "small")
LENGTHS = [timedelta(hours=1), timedelta(days=7), None]
SIZES = [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 400]


def drawn(name, size, seed, share_of_nulls):
    """Draw times with ties, values and a condition."""
    rng = np.random.default_rng(seed)
    times = np.sort(NOW - rng.integers(0, 720, size) * HOUR)
    values = pa.array(MADE[name](rng, size), mask=rng.random(size) < share_of_nulls)
    return times.tolist(), values, (rng.random(size) < 0.7).tolist()


def features_over(where):
    """Make every feature that can be computed from tiles, over windows of all lengths."""
    kinds = (agg.Count, agg.Sum, agg.Mean, agg.Min, agg.Max, agg.Var, agg.Std, agg.First, agg.Last)
    made = [kind("x", over=one, where=where) for kind in kinds for one in LENGTHS]
    made += [kind("x", 3, over=one, where=where) for kind in (agg.FirstN, agg.LastN) for one in LENGTHS]
    made += [
        kind(over=one, where=where, offset="1h") for kind in (agg.TimeSinceFirst, agg.TimeSinceLast) for one in LENGTHS
    ]
    return features_of(made)


@at_least(30)
@given(
    name=st.sampled_from(sorted(MADE)),
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 2**32),
    nulls=st.sampled_from([0, 0, 0.3, 1]),
    where=st.sampled_from([None, WHERE]),
    hop=st.sampled_from([None, 24 * HOUR]),
    back=st.sampled_from([0, HOUR, 5 * 24 * HOUR]),
)
def test_windows_that_begin_and_end_anywhere_in_tiles_are_what_plain_loops_compute(
    name, size, seed, nulls, where, hop, back
):
    times, values, true = drawn(name, size, seed, nulls)
    types, features, moment = {"x": values.type}, features_over(where), NOW - back
    rows = [
        oracle.Event(0, t, {"x": value}, frozenset([WHERE] if is_true else []))
        for t, value, is_true in zip(times, values.to_pylist(), true, strict=True)
    ]
    many, stored = encoded(features, types, [times, values, true], hop)
    found, left = many.at(stored, moment)
    assert not left or name not in ORDINARY
    for i, feature in enumerate(features):
        right = expected(rows, [(0, moment)], feature, hop)
        assert right is not None or i in left
        if i not in left:
            (right,) = right
            is_right = near if feature.aggregation.name in CLOSE else same
            assert is_right(found[i], right), (feature, found[i], right)


@at_least(60)
@given(
    name=st.sampled_from(sorted(MADE)),
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 2**32),
    back=st.integers(0, 720),
)
def test_sums_and_extremes_from_tiles_have_the_bits_of_training_sets(name, size, seed, back):
    times, values, true = drawn(name, size, seed, 0.1)
    features, moment = features_over(WHERE), NOW - back * HOUR
    many, stored = encoded(features, {"x": values.type}, [times, values, true], None)
    found, left = many.at(stored, moment)
    events = windows.Events(
        np.zeros(size, np.int64), np.array(times), {"x": pa.chunked_array([values])}, {WHERE: np.array(true)}
    )
    here = [i for i in range(len(features)) if i not in left]
    columns = windows.compute(events, moments_of([(0, moment)]), [features[i] for i in here])
    for i, column in zip(here, columns, strict=True):
        is_right = near if features[i].aggregation.name in CLOSE else same
        assert is_right(found[i], to_wire(column, column.type)[0]), (features[i], found[i])


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_the_windows_that_have_it_to_the_kernel_and_no_others(odd):
    kinds = (agg.Count, agg.Last, agg.Sum, agg.Mean, agg.Min, agg.Max, agg.Std)
    wanted = [kind("x", over=timedelta(microseconds=length)) for length in (150, 250) for kind in kinds]
    values = [1.0] * 200
    values[7] = odd
    many, stored = encoded(features_of(wanted), {"x": pa.float64()}, [list(range(200)), values, [True] * 200], None)
    found, left = many.at(stored, 200)
    assert found[:7] == [149, 1.0, 149.0, 1.0, 1.0, 1.0, 0.0]
    assert found[7:9] == [200, 1.0]
    assert left == [9, 10, 11, 12, 13]


def test_the_extremes_of_zeros_of_either_sign_are_positive():
    wanted = [agg.Min("x"), agg.Max("x"), agg.Sum("x"), agg.First("x")]
    columns = [list(range(200)), [-0.0] * 200, [True] * 200]
    many, stored = encoded(features_of(wanted), {"x": pa.float64()}, columns, None)
    found, left = many.at(stored, 200)
    assert [math.copysign(1, one) for one in found] == [1, 1, 1, -1]
    assert not left


def codec_of(kind, features):
    """Make the codec of features of a column x of some type, and of a text."""
    fields = (pa.field("x", kind), pa.field("word", pa.string()))
    events = Schema((pa.field("user", pa.int64()),), pa.field("at", pa.timestamp("us", "UTC")), None, fields)
    group = WindowedGroup("spend", Entity("user", ["user"]), "shop/orders", features)
    return WindowCodec(schema_of(group, events), group, events)


def stored_by(codec, sizes, kind):
    """Encode entities with so many events each, at 1, 2, 3 and so on, of which each third value is null."""
    count = sum(sizes)
    users = [user for user, size in enumerate(sizes) for _ in range(size)]
    columns = {
        "user": pa.array(users),
        "t": pa.array([t for size in sizes for t in range(1, size + 1)]),
        "x": pa.array([None if i % 3 == 0 else i % 100 for i in range(count)], kind),
        "word": pa.array([str(user if i % 2 else i % 5) for i, user in enumerate(users)]),
    }
    (entries,) = codec.entries_of_events([pa.table(columns)])
    return entries.values


FEATURES = {
    "n": agg.Count("x"),
    "s": agg.Sum("x"),
    "words": agg.CountDistinct("word"),
    "often": agg.MostFrequent("word", 1),
}


def test_entities_with_many_and_with_few_events_are_looked_up_together():
    codec = codec_of(pa.int64(), FEATURES)
    stored = stored_by(codec, [3, 300, 2, 200], pa.int64())
    assert [value[0] == tiled.MARK for value in stored] == [False, True, False, True]
    found = codec.rows([*stored, None], 300, codec.layout)
    alone = [codec.rows([value], 300, codec.layout)[0] for value in stored]
    assert found == [*alone, None]
    assert [row[-1] for row in alone] == [3, 300, 2, 200]
    assert alone[1][:2] == (200, sum(i % 100 for i in range(3, 303) if i % 3))


def test_tiles_of_columns_that_have_another_type_now_are_read_as_they_were_written():
    before, now = codec_of(pa.int32(), FEATURES), codec_of(pa.int64(), FEATURES)
    assert before.layout != now.layout
    stored = stored_by(before, [300, 3], pa.int32())
    assert now.rows(stored, 250, before.layout) == now.rows(stored_by(now, [300, 3], pa.int64()), 250, now.layout)


def test_tiles_of_other_selections_are_not_taken_for_those_of_this_release():
    codec = codec_of(pa.int64(), FEATURES)
    (value,) = stored_by(codec, [300], pa.int64())
    right = codec.rows([value], 250, codec.layout)
    with patch.object(tiled, "_TILE", 32):
        other = codec_of(pa.int64(), FEATURES)
        assert other.layout != codec.layout
        assert other.rows([value], 250, codec.layout) == right


def test_the_times_of_tiled_events_are_known():
    codec = codec_of(pa.int64(), FEATURES)
    assert codec.times(stored_by(codec, [200, 3], pa.int64()), codec.layout) == set(range(1, 201))
