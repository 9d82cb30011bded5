"""What the fast ways of pushes compute: plain rows become what any rows become, and equal values have equal identities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal import Entity, FeatureGroup, FeatureStore, Materialization
from seeknal.errors import SeeknalError, SeeknalWarning
from seeknal.registry import GroupRecord
from seeknal.write.identities import KnownIdentities, can_identify, identities
from seeknal.write.plain import PlainRows
from seeknal.write.push import conformed

from .profiles import PROFILE

zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(seconds=-7))])
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones)
VALUES = {
    "user": st.text(max_size=5) | st.none() | st.sampled_from(["", "a\0b", "\ud800", 7]),
    "at": moments | st.none() | st.datetimes() | st.sampled_from(["2024-01-01", datetime(1, 1, 1, tzinfo=UTC)]),
    "made": moments | st.none(),
    "whole": st.integers(-(2**64), 2**64) | st.none() | st.booleans(),
    "real": st.floats() | st.none() | st.integers(0, 2**60),
    "text": st.text(max_size=5) | st.none() | st.binary(max_size=2),
    "flag": st.booleans() | st.none() | st.integers(0, 1),
}
plain_rows = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=4)


@pytest.fixture
def group(store: FeatureStore) -> GroupRecord:
    """A group whose columns have all types of plain values."""
    made = FeatureGroup("plain", Entity("user", ["user"]), Materialization("at", created_time_col="made"), "shop")
    now = datetime.now(UTC)
    first = {"user": "a", "at": now, "made": now, "whole": 1, "real": 0.5, "text": "t", "flag": True}
    store.groups.write(made, pa.Table.from_pylist([first]), mode="append")
    return store.groups.find("plain", project="shop")


@settings(PROFILE, max_examples=20 * PROFILE.max_examples)
@given(rows=plain_rows)
def test_plain_rows_become_what_any_rows_become_or_are_left_to_the_general_way(store, group, rows):
    schema = store.core.pushing.schema(group)
    found = PlainRows(schema).table(rows)
    try:
        wanted = conformed(rows, schema, group)
    except SeeknalError:
        assert found is None
        return
    if found is not None:
        assert found.schema.equals(wanted.schema)
        assert found.to_pylist().__repr__() == wanted.to_pylist().__repr__()  # NaN equals NaN, and 0.0 is not -0.0


def test_ordinary_rows_take_the_fast_way(store, group):
    schema, now = store.core.pushing.schema(group), datetime.now(UTC)
    row = {"user": "a", "at": now, "made": now, "whole": None, "real": 0.5, "text": "", "flag": None}
    assert PlainRows(schema).table([row, row]).num_rows == 2


KINDS = {
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=9),
    pa.large_string(): st.text(max_size=9),
    pa.date32(): st.dates(),
    pa.timestamp("us", "UTC"): moments,
    pa.timestamp("s"): st.datetimes().map(lambda one: one.replace(microsecond=0)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    """Draw a table of one to three columns, and the same rows cut into other chunks, each a slice of a longer array."""
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3))
    assert can_identify(kinds)
    count = draw(st.integers(1, 6))
    columns = [draw(st.lists(KINDS[kind], min_size=count, max_size=count)) for kind in kinds]
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    chunked = []
    for values, kind in zip(columns, kinds, strict=True):
        long = pa.array([values[-1], *values, values[0]], kind)
        ends = [0, *cuts, count]
        chunks = [long.slice(1 + start, end - start) for start, end in pairwise(ends)]
        chunked.append(pa.chunked_array(chunks, kind))
    names = [f"c{i}" for i in range(len(kinds))]
    whole = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    return pa.table(whole, names), pa.table(chunked, names)


@settings(PROFILE, max_examples=20 * PROFILE.max_examples)
@given(both=tables())
def test_rows_with_equal_values_have_equal_identities(both):
    whole, cut = both
    found = identities(whole)
    assert found.tolist() == identities(cut).tolist()
    assert found.tolist() == [identities(whole.slice(i, 1))[0] for i in range(len(whole))]
    rows = [tuple(row.values()) for row in whole.to_pylist()]
    assert len(set(found.tolist())) == len(set(rows))  # numbers of 64 bits do not meet by chance in this many examples


@settings(PROFILE)
@given(batches=st.lists(st.lists(st.integers(0, 300), max_size=20), max_size=20))
def test_known_identities_are_those_that_were_added(batches, monkeypatch):
    monkeypatch.setattr("seeknal.write.identities._SMALL", 7)
    known, wanted = KnownIdentities(), set[int]()
    for batch in batches:
        numbers = np.array(batch, np.uint64)
        assert known.has_any(numbers) == (not wanted.isdisjoint(batch))
        known.add(numbers)
        wanted.update(batch)
        assert all(known.has_any(np.array([one], np.uint64)) == (one in wanted) for one in range(0, 300, 37))


def test_rows_without_a_key_that_are_stored_do_not_matter_to_pushes():
    store = FeatureStore()
    group = FeatureGroup("rows", Entity("user", ["user"]), Materialization("at", online=True), "shop")
    start = datetime.now(UTC)
    kinds = pa.schema([("user", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("x", pa.int64())])
    with pytest.warns(SeeknalWarning, match="without 'user'"):
        store.groups.write(group, pa.Table.from_pylist([{"user": None, "at": start, "x": 0}], kinds))
    for number in range(1, 4):
        store.groups.push("rows", {"user": 1, "at": datetime.now(UTC), "x": number})
    with pytest.warns(SeeknalWarning, match="without 'user'"):
        store.groups.write(
            group, pa.Table.from_pylist([{"user": None, "at": datetime.now(UTC), "x": 9}], kinds), mode="append"
        )
    for number in range(4, 6):
        store.groups.push("rows", {"user": 1, "at": datetime.now(UTC), "x": number})
    assert store.groups.counts("rows", 1)[0] == 7
