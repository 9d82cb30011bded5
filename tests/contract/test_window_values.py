"""Values of windowed features that are easily got wrong: sums that cancel, outliers, decimals, zeros of both signs, and maps."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import DataError
from seeknal.define import aggregations as agg
from seeknal.engine import windows
from seeknal.engine.windows import levels, outliers, spread

from . import windows_oracle as oracle
from .profiles import at_least
from .test_windows import (
    ABSURD,
    FIXED,
    OF_COLUMN,
    WITH_N,
    WITH_POWERS,
    check,
    events_of,
    features_of,
    makes_sense,
    moments_of,
    same,
)


@at_least(60)
@given(values=st.lists(ABSURD, min_size=1, max_size=40))
def test_a_sum_of_floats_is_that_of_math_fsum(values):
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate(values)]
    (found,) = windows.compute(
        events_of(rows, ["absurd"]), moments_of([(0, len(values))]), features_of([agg.Sum("absurd")])
    )
    try:
        right = math.fsum(values)
    except ValueError:  # infinities of both signs
        right = math.nan
    except OverflowError:  # it raises where the exact sum may be back in range, or is infinite
        return
    assert same(found.to_pylist(), [right])


@at_least(200)
@given(data=st.data(), most=st.sampled_from([0, 2**16 - 1]))
def test_the_kth_smallest_is_that_of_the_sorted_part(data, most):
    numbers = data.draw(st.lists(st.integers(0, 2**9 - 1), min_size=1, max_size=40))
    parts = st.integers(0, len(numbers) - 1).flatmap(lambda i: st.tuples(st.just(i), st.integers(i + 1, len(numbers))))
    asked = [
        (low, high, data.draw(st.integers(0, high - low - 1))) for low, high in data.draw(st.lists(parts, max_size=9))
    ]
    low, high, k = (np.array([one[i] for one in asked], np.int64) for i in range(3))
    with patch.object(levels, "_MOST", most), patch.object(levels, "_AT_ONCE", 4):
        found = levels.kth(np.array(numbers), 9, (low, high), k)
    assert found.tolist() == [sorted(numbers[low:high])[k] for low, high, k in asked]


def test_small_noise_on_large_values_has_its_exact_deviation():
    rows = [oracle.Event(0, i, {"f64": 1e9 + i}) for i in (1, 2, 3)]
    (found,) = windows.compute(events_of(rows, ["f64"]), moments_of([(0, 3)]), features_of([agg.Std("f64")]))
    assert found.to_pylist() == [1.0]


def test_the_sum_that_cancels_leaves_the_small_values():
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate([1e300, 1.0, 1e-300, -1e300, -1.0])]
    (found,) = windows.compute(events_of(rows, ["absurd"]), moments_of([(0, 9)]), features_of([agg.Sum("absurd")]))
    assert found.to_pylist() == [1e-300]


@pytest.mark.parametrize("name", ["absurd", "i8", "i64", "price", "word", "at"])
def test_windows_of_many_events_are_what_plain_loops_compute(name):
    chance = random.Random(name)
    draw = {
        "absurd": lambda: chance.lognormvariate(0, 12),
        "i8": lambda: chance.randint(-128, 127),
        "i64": lambda: chance.randint(-(2**55), 2**55),
        "price": lambda: Decimal(chance.randint(0, 10**9)).scaleb(-2),
        "word": lambda: chance.choice("abcdefghijklmnop"),
        "at": lambda: datetime(2024, 5, 1, tzinfo=UTC) + timedelta(days=chance.randint(0, 40)),
    }[name]
    rows = [oracle.Event(e, t, {name: draw(), "fixed": chance.choice(FIXED)}) for e in (0, 1) for t in range(200)]
    over = [timedelta(microseconds=length) for length in (3, 60, 150)]
    shared = {"over": over, "offset": timedelta(microseconds=2)}
    made = [kind(name, **shared) for kind in OF_COLUMN] + [kind(name, 3, **shared) for kind in WITH_N]
    made += [kind(name, by="fixed", k=k, **shared) for kind in OF_COLUMN if kind.has_maps for k in (None, 2)]
    made += [agg.Quantile(name, q, **shared) for q in (0.1, 0.5)] + [agg.Histogram("fixed", **shared)]
    asked = [(chance.randint(0, 1), chance.randint(-5, 210)) for _ in range(12)]
    check(rows, [name, "fixed"], asked, [one for one in made if makes_sense(one)], 7)


def test_all_ways_to_a_variance_give_the_same_bits():
    chance = random.Random(7)
    values = [chance.choice([chance.lognormvariate(0, 6), 1e9 + chance.randint(0, 3), 0.1]) for _ in range(2000)]
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate(values)]
    over = [timedelta(microseconds=length) for length in (2, 3, 5, 50, 700)]
    features = features_of([agg.Var("absurd", over=over), agg.Std("absurd", over=over)])
    events, moments = events_of(rows, ["absurd"]), moments_of([(0, i) for i in range(len(rows))])
    short = windows.compute(events, moments, features)
    with patch.object(spread, "_USES_DOUBLES", False):  # by digits alone
        assert same(
            [one.to_pylist() for one in windows.compute(events, moments, features)], [one.to_pylist() for one in short]
        )


@pytest.mark.parametrize("large", [1.7e308, *(pytest.param(one, marks=pytest.mark.slow) for one in (1e300, 2.0**700))])
def test_windows_with_outliers_have_their_exact_moments(large):
    chance = random.Random(large)
    far = [large, -large, large * 0.75, 1e-200, -3e-250, 5e-324, 1e150]
    values = [chance.choice([1.0, chance.lognormvariate(0, 3), -1.0, 0.0, chance.choice(far)]) for _ in range(120)]
    # Windows of outliers alone that are equal, that cancel in their sums, and that are symmetrical.
    values += [large, large, large, -large, -large, 1.0, -1.0, 1e-200, -1e-200, 0.0, large, -large, 1.0, -1.0]
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate(values)]
    over = [timedelta(microseconds=n) for n in (2, 3, 4, 9, 60)]
    wanted = [kind("absurd", over=over) for kind in WITH_POWERS]
    check(rows, ["absurd"], [(0, i) for i in range(len(rows))], wanted, None)


def test_two_floats_and_whole_numbers_give_the_same_moments_of_outliers():
    chance = random.Random(5)
    values = [chance.choice([chance.gauss(0, 1), chance.gauss(0, 1) * 1e300, 1e300]) for _ in range(300)]
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate(values)]
    over = [timedelta(microseconds=n) for n in (2, 3, 10, 200)]
    features = features_of([kind("absurd", over=over) for kind in WITH_POWERS])
    events, moments = events_of(rows, ["absurd"]), moments_of([(0, i) for i in range(len(rows))])
    quick = windows.compute(events, moments, features)
    with patch.object(outliers, "_ERROR", 1e9):  # so that no sum of two floats is sure
        assert same(
            [one.to_pylist() for one in windows.compute(events, moments, features)], [one.to_pylist() for one in quick]
        )


@pytest.mark.parametrize("order", [1, -1])
def test_values_are_no_less_exact_beside_outliers(order):
    usual, far = [1.0, 2.5, 4.0, 0.0, 7.5], [1.7e308, 5e-324, -1e-300, 1e300]
    rows = [oracle.Event(0, i, {"absurd": x}) for i, x in enumerate([*usual, *usual, *far, *usual][::order])]
    wanted = [kind("absurd", over=timedelta(microseconds=n)) for kind in WITH_POWERS for n in (2, 4, 5, 9)]
    wanted += [agg.Var("absurd", ddof=0, over=timedelta(microseconds=n)) for n in (1, 2, 9)]
    check(rows, ["absurd"], [(0, i) for i in range(len(rows))], wanted, None)


def test_aggregations_of_unsorted_spines_come_back_in_the_order_of_the_spine():
    rows = [oracle.Event(e, t, {"i8": t}) for e in (0, 1) for t in (1, 2, 3)]
    asked = [(1, 3), (0, 2), (-1, 0), (1, 1), (0, 3), (7, 3)]
    (found,) = windows.compute(events_of(rows, ["i8"]), moments_of(asked), features_of([agg.Sum("i8")]))
    assert found.to_pylist() == [6, 3, None, 1, 6, None]


def test_a_sum_that_does_not_fit_is_named_among_those_of_several_lengths():
    rows = [oracle.Event(0, i, {"i64": 2**62, "word": "a"}) for i in (0, 5)]
    over = [timedelta(microseconds=length) for length in (2, 7)]
    for by in (None, "word"):
        features = features_of([agg.Count("i64", over=over), agg.Sum("i64", over=over, by=by)])
        with pytest.raises(DataError, match="Feature 'f1_7us' is a sum that does not fit in int64"):
            windows.compute(events_of(rows, ["i64", "word"]), moments_of([(0, 5), (0, 4)]), features)


def computed(values, name, wanted):
    """Compute aggregations of all values of a column, at one moment."""
    rows = [oracle.Event(0, i, {name: value}) for i, value in enumerate(values)]
    made = windows.compute(events_of(rows, [name]), moments_of([(0, len(rows))]), features_of(wanted))
    return [one[0].as_py() for one in made]


def test_zeros_of_both_signs_are_one_value():
    plain = [agg.Min("f64"), agg.Max("f64"), agg.Sum("f64"), agg.Quantile("f64", 0), agg.MostFrequent("f64")]
    several = [agg.Largest("f64", 2), agg.Histogram("f64"), agg.CountDistinct("f64")]
    for values in ([-0.0, 0.0, -0.0], [0.0, -0.0, 0.0], [-0.0, -0.0, -0.0]):
        histogram = [{"value": 0.0, "count": 3}]
        found = computed(values, "f64", plain + several)
        assert same(found, [0.0, 0.0, 0.0, 0.0, [0.0], [0.0, 0.0], histogram, 1])
        assert same(computed(values, "f64", [agg.First("f64"), agg.LastN("f64", 1)]), [values[0], values[-1:]])


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([math.inf, 1.0, -math.inf], [math.nan, math.nan, -math.inf, math.inf, math.nan]),
        ([math.inf, 1.0, math.inf], [math.inf, math.inf, 1.0, math.inf, math.nan]),
        ([-math.inf, 1.0], [-math.inf, -math.inf, -math.inf, 1.0, math.nan]),
        ([math.nan, 1.0, math.inf], [math.nan, math.nan, 1.0, math.nan, math.nan]),
        ([math.nan, math.nan], [math.nan, math.nan, math.nan, math.nan, math.nan]),
        ([1.7e308, 1.7e308], [math.inf, 1.7e308, 1.7e308, 1.7e308, 0.0]),
    ],
)
def test_numbers_that_are_not_finite_follow_the_rules_of_floats(values, right):
    wanted = [kind("absurd") for kind in (agg.Sum, agg.Mean, agg.Min, agg.Max, agg.Var)]
    assert same(computed(values, "absurd", wanted), right)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_of_decimals_has_38_digits_and_no_more(sign):
    largest, least = (Decimal((int(sign < 0), tuple(map(int, str(n))), -4)) for n in (10**38 - 1, 1))
    assert computed([largest], "long", [agg.Sum("long")]) == [largest]
    assert computed([largest, largest, largest.copy_negate()], "long", [agg.Sum("long")]) == [largest]
    for values in ([largest, least], [largest] * 5):
        with pytest.raises(DataError, match="does not fit in decimal128"):
            computed(values, "long", [agg.Sum("long")])


def test_a_quantile_keeps_the_small_value_beside_a_large_one():
    q = 1 - 2.0**-53
    assert computed([-1e17, 1.0], "f64", [agg.Quantile("f64", q)]) == [float(np.quantile([-1e17, 1.0], q))]


def test_a_map_has_no_key_without_events_in_the_window():
    rows = [oracle.Event(0, i, {"word": "ab"[i > 5], "i8": None if i == 40 else 1}) for i in range(50)]
    rows[40].values["word"] = "c"
    check(rows, ["word", "i8"], [(0, 49)], [agg.Count("i8", over=timedelta(microseconds=40), by="word")], None)


def test_the_mean_and_the_median_of_decimals_are_rounded_once():
    chance = random.Random(11)
    for digits in (15, 17, 20, 38):
        top = 10**digits - 1
        values = [Decimal((chance.randint(0, 1), tuple(map(int, str(chance.randint(1, top)))), -4)) for _ in range(300)]
        # The mean of the last two is exactly between two floats, and that of the two before nearly 0.
        half = Decimal((0, tuple(map(int, str((2**54 + 2) * 10**4))), -4))
        values += [values[0], values[0].copy_negate(), half, half.copy_abs()]
        rows = [oracle.Event(0, i, {"long": value}) for i, value in enumerate(values)]
        over = [timedelta(microseconds=length) for length in (1, 2, 3, 7)]
        wanted = [agg.Mean("long", over=over), *(agg.Quantile("long", q, over=over) for q in (0.1, 0.5, 0.77))]
        check(rows, ["long"], [(0, i) for i in range(len(rows))], wanted, None)
