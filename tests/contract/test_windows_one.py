"""Features of one entity in plain Python are those of the kernel."""

from __future__ import annotations

import math

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given

from seeknal import Count, Entity, Max, Mean, Min, Std, StoreError, Sum, WindowedGroup
from seeknal.define.aggregations import expand
from seeknal.define.schema import Schema
from seeknal.define.windowed_schema import schema_of
from seeknal.engine import windows
from seeknal.engine.windows.codec import WindowCodec
from seeknal.engine.windows.one import KernelNeededError, OneEntity
from seeknal.online import to_wire

from .profiles import at_least
from .test_windows import CLOSE, KINDS, WHERE, crowds, events_of, expected, features_of, moments_of, same, worlds


def check(rows, names, asked, wanted, hop):
    """Compare each entity, at each moment, with the kernel."""
    types = {name: KINDS[name][0] for name in names}
    can = [one for one in features_of(wanted) if OneEntity.can(one, types)]
    features = [one for one in can if expected(rows, asked, one, hop) is not None]
    compared = 0
    for entity, moment in asked:
        mine = [row for row in rows if row.entity == entity]
        kernel = windows.compute(events_of(mine, names), moments_of([(entity, moment)]), features, hop)
        right = [to_wire(column, column.type)[0] for column in kernel]
        columns = [to_wire(pa.array([row.values[name] for row in mine], types[name]), types[name]) for name in names]
        lists = [[row.t for row in mine], *columns, [WHERE in row.true for row in mine]]
        places = {name: 1 + i for i, name in enumerate(names)}
        for feature, value in zip(features, right, strict=True):
            one = OneEntity([feature], types, places, {WHERE: 1 + len(names)}, hop)
            try:
                (found,) = one.at(lists, moment)
            except KernelNeededError:
                continue
            close = feature.aggregation.name in CLOSE
            assert near(found, value) if close else same(found, value), (feature, found, value)
            compared += 1
    return compared


def near(one, other):
    """Tell whether two variances are as near as is promised."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-320)


@at_least(100)
@given(crowd=crowds())
def test_one_entity_has_the_values_of_the_kernel(crowd):
    check(*crowd)


@at_least(100)
@given(world=worlds())
def test_one_entity_has_the_values_of_the_kernel_at_odd_moments(world):
    check(*world)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -0.0, 1.7976931348623157e308])
@pytest.mark.parametrize("kind", [Sum, Mean, Min, Max, Std])
def test_values_that_need_care_are_left_to_the_kernel_or_are_the_same(kind, odd):
    (feature,) = expand("x", kind("x"))
    one = OneEntity([feature], {"x": pa.float64()}, {"x": 1}, {}, None)
    for values in ([odd, 1.0], [1.0, odd], [odd, odd]):
        try:
            (found,) = one.at([[1, 2], values], 5)
        except KernelNeededError:
            continue
        assert odd == 0 or abs(odd) > 1e300, (kind, odd, found)
        assert math.isfinite(found)
        assert math.copysign(1, found) in {1.0, math.copysign(1, odd)}


def test_the_deviation_of_tiny_floats_is_left_to_the_kernel_and_that_of_equal_ones_is_zero():
    (feature,) = expand("x", Std("x"))
    one = OneEntity([feature], {"x": pa.float64()}, {"x": 1}, {}, None)
    with pytest.raises(KernelNeededError):
        one.at([[1, 2], [1e-170, 3e-170]], 5)
    assert one.at([[1, 2], [1e-170, 1e-170]], 5) == [0.0]


def test_a_lookup_of_a_few_events_does_not_need_the_kernel():
    features = [
        one
        for name, of in {"n": Count(over="1h"), "s": Sum("x", over=["1h", "2h"])}.items()
        for one in expand(name, of)
    ]
    assert all(OneEntity.can(one, {"x": pa.float64()}) for one in features)
    one = OneEntity(features, {"x": pa.float64()}, {"x": 1}, {}, None)
    hour = 3_600_000_000
    assert one.at([[hour, 2 * hour], [1.5, None]], 2 * hour) == [1, None, 1.5]


def test_events_of_another_format_are_refused_with_advice():
    events = Schema(
        (pa.field("user", pa.int64()),), pa.field("at", pa.timestamp("us")), None, (pa.field("x", pa.float64()),)
    )
    group = WindowedGroup("spend", Entity("user", ["user"]), "shop/orders", {"s": Sum("x", over="1h")})
    codec = WindowCodec(schema_of(group, events), group, events)
    stored = msgspec.msgpack.encode([[1, 2], [1.0, None]])
    assert codec.rows([stored, None], 2, codec.layout) == [(1.0, 2), None]
    with pytest.raises(StoreError, match=r"loaded by another release of Seeknal\. Load them again: seeknal refresh"):
        codec.rows([stored], 2, b"\x03" + codec.layout[1:])
