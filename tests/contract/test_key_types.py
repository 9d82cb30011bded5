"""Keys of several types: equal where their values are, through versions that widen them and in tables of several groups."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from itertools import count
from operator import itemgetter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal import DataError, DefinitionError, Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning
from seeknal.define.feature_group import FeatureGroup
from seeknal.load.loads import Loads
from seeknal.online import Codec

from .profiles import PROFILE

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

_numbers = count()
NOON, LATER = datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1)

WIDENED = [
    pytest.param(pa.int32(), 7, pa.int64(), 2**40, id="int32-int64"),
    pytest.param(pa.uint8(), 7, pa.int16(), -1, id="uint8-int16"),
    pytest.param(pa.uint32(), 7, pa.uint64(), 2**63, id="uint32-uint64"),
    pytest.param(pa.decimal128(3, 1), Decimal("1.5"), pa.decimal128(4, 2), Decimal("2.25"), id="decimal"),
    pytest.param(
        pa.timestamp("s"), datetime(2020, 1, 1), pa.timestamp("us"), datetime(2020, 1, 1, 0, 0, 0, 5), id="s-us"
    ),
    pytest.param(pa.timestamp("us"), datetime(2020, 1, 1), pa.timestamp("ns"), datetime(2021, 1, 1), id="us-ns"),
]
"""A key's type and value, then a wider type with a value that only this type has, or another value."""


def group(name: str, entity: str = "thing", project: str = "default") -> FeatureGroup:
    return FeatureGroup(name, Entity(entity, ["k"]), Materialization("at"), project)


def rows(key: object, kind: pa.DataType, x: object = 1, x_kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"k": pa.array([key], kind), "at": [NOON], "x": pa.array([x], x_kind)})


def event(key: object) -> dict[str, object]:
    return {"k": key, "at": NOON, "x": 1}


@pytest.mark.parametrize(("narrow", "key", "wide", "other"), WIDENED)
@pytest.mark.parametrize("back", [False, True], ids=["widened", "rolled back"])
def test_an_erased_entity_stays_erased_through_versions_with_keys_of_other_types(narrow, key, wide, other, back):
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(key, narrow))
    table = store.tables.serve([FeatureLookup("g")], "t")
    if back:
        store.groups.write(g, rows(other, wide, 2), mode="append")
        store.groups.erase("g", {"k": key})
        store.groups.rollback("g", 1)
    else:
        store.groups.erase("g", {"k": key})
        store.groups.write(g, rows(other, wide, 2), mode="append")
    store.tables.refresh(["t"])
    pushed = store.groups.push("g", event(key))
    assert (pushed.rows, pushed.erased) == (0, 1)
    assert table.get_features([{"k": key}], "dicts")[0]["x"] is None
    with pytest.warns(SeeknalWarning, match="of erased entities, dated at or before the erasure"):
        store.groups.write(g, rows(key, narrow if back else wide), mode="append")


@pytest.mark.parametrize(("narrow", "key", "wide", "other"), WIDENED)
def test_an_erasure_that_ends_halfway_is_not_served_by_tables_of_versions_with_keys_of_other_types(
    narrow, key, wide, other, monkeypatch
):
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(key, narrow))
    store.tables.serve([FeatureLookup("g", version=1)], "pinned")
    store.groups.write(g, rows(other, wide, 2), mode="append")

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loads, "reload", end)
    with pytest.raises(KeyboardInterrupt):
        store.groups.erase("g", {"k": key})
    assert FeatureStore(store.home).tables.open("pinned").get_features([{"k": key}], "dicts")[0]["x"] is None


def test_an_entity_of_a_wider_version_is_erased_after_a_rollback():
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(Decimal("1.5"), pa.decimal128(3, 1)))
    store.groups.write(g, rows(Decimal("2.25"), pa.decimal128(4, 2), 2), mode="append")
    store.groups.rollback("g", 1)
    store.groups.erase("g", {"k": Decimal("2.25")})
    spine = pa.table({"k": pa.array([Decimal("2.25"), Decimal("1.5")]), "t": [LATER] * 2})
    found = store.features.training_set([FeatureLookup("g", version=2)], spine, "t")
    assert found["x"].to_pylist() == [None, 1]


def test_what_an_earlier_release_erased_stays_erased():
    store, g = FeatureStore(), group("g")
    store.groups.write(
        g, pa.concat_tables([rows(Decimal("1.5"), pa.decimal128(3, 1)), rows(Decimal("3.5"), pa.decimal128(3, 1))])
    )
    store.groups.erase("g", {"k": Decimal("1.5")})
    record = store.core.catalog.group("g")
    (erased,) = store.core.registry.erasures(record).values()
    # Earlier releases digested the encoded key of the version of that time.
    key = Codec(store.groups.version("g").schema).keys(rows(Decimal("3.5"), pa.decimal128(3, 1)))[0]
    store.core.registry.add_erasure(record, blake2b(key, digest_size=32, person=b"seeknal erasure").hexdigest(), erased)
    store.groups.write(g, rows(Decimal("2.25"), pa.decimal128(4, 2), 2), mode="append")
    pushed = [store.groups.push("g", event(Decimal(text))) for text in ("1.5", "3.5", "4.5")]
    assert [(one.rows, one.erased) for one in pushed] == [(0, 1), (0, 1), (1, 0)]


def test_timestamps_with_equal_counts_of_other_units_are_other_keys_of_an_erasure():
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(EPOCH + timedelta(seconds=5), pa.timestamp("s")))
    store.groups.erase("g", {"k": EPOCH + timedelta(seconds=5)})
    store.groups.write(g, rows(EPOCH, pa.timestamp("us"), 2), mode="append")
    store.groups.write(g, rows(EPOCH + timedelta(microseconds=7), pa.timestamp("us"), 2), mode="append")
    assert store.groups.push("g", event(EPOCH + timedelta(microseconds=5))).rows == 1
    assert store.groups.push("g", event(EPOCH + timedelta(seconds=5))).erased == 1


def test_a_key_cannot_become_another_kind():
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(date(2024, 1, 1), pa.date32()))
    with pytest.raises(DataError, match="cannot become timestamp"):
        store.groups.write(g, rows(datetime(2024, 1, 1, 5), pa.timestamp("us")), mode="append")


VALUES = [
    (pa.int32(), 1, pa.int64(), 2**40),
    (pa.uint8(), 1, pa.uint32(), 2**31),
    (pa.float32(), 1.0, pa.float64(), 1e300),
    (pa.timestamp("s"), EPOCH + timedelta(seconds=5), pa.timestamp("us"), EPOCH + timedelta(microseconds=5)),
    (pa.date32(), date(2020, 1, 1), pa.timestamp("us"), datetime(2020, 1, 1, 5)),
    (pa.decimal128(3, 1), Decimal("1.5"), pa.decimal128(4, 2), Decimal("1.25")),
    (pa.list_(pa.int32()), [1], pa.list_(pa.int64()), [2**40]),
    (pa.struct([("a", pa.int32())]), {"a": 1}, pa.struct([("a", pa.int64())]), {"a": 2**40}),
]


@pytest.mark.parametrize(("narrow", "old", "wide", "new"), VALUES, ids=str)
def test_a_table_whose_feature_was_widened_meanwhile_is_verified_value_by_value(narrow, old, wide, new):
    store, g = FeatureStore(), group("g")
    store.groups.write(g, pa.concat_tables([rows(1, None, old, narrow), rows(2, None, old, narrow)]))
    store.groups.load("g")
    store.groups.write(g, rows(1, None, new, wide), mode="append")
    verified = store.tables.verify("g")
    assert [(one.keys, one.online, one.offline, one.cause) for one in verified.differences] == [
        ({"k": 1}, old, new, "not loaded yet")
    ]
    store.tables.refresh()
    assert store.tables.verify("g").equal


@pytest.mark.parametrize(("narrow", "key", "wide", "other"), WIDENED)
def test_a_table_whose_key_was_widened_meanwhile_is_verified_entity_by_entity(narrow, key, wide, other):
    store, g = FeatureStore(), group("g")
    store.groups.write(g, rows(key, narrow))
    table = store.tables.serve([FeatureLookup("g")], "t")
    store.groups.write(g, rows(other, wide, 2), mode="append")
    (difference,) = store.tables.verify("t").differences
    assert (difference.online, difference.offline, difference.cause) == (None, 2, "not loaded yet")
    assert [row["x"] for row in table.get_features([{"k": key}, {"k": other}], "dicts")] == [1, None]
    store.tables.refresh(["t"])
    assert store.tables.verify("t").equal
    assert [row["x"] for row in table.get_features([{"k": key}, {"k": other}], "dicts")] == [1, 2]


def test_a_zero_of_another_sign_is_a_difference():
    store = FeatureStore()
    store.groups.write(group("g"), rows(1, None, 0.0))
    store.groups.load("g")
    store.groups.write(group("g"), rows(1, None, -0.0), mode="append")
    assert store.tables.verify("g").different == 1


SECONDS = st.integers(0, 3).map(lambda seconds: EPOCH + timedelta(seconds=seconds))
MICROSECONDS = st.integers(0, 3_000_001).map(lambda micros: EPOCH + timedelta(microseconds=micros))
KEYS = {
    "whole": [
        (pa.int8(), st.integers(-3, 3)),
        (pa.uint8(), st.integers(0, 255)),
        (pa.int64(), st.sampled_from([-1, 0, 3, 300, 2**62])),
        (pa.uint64(), st.sampled_from([0, 3, 255, 2**62, 2**63])),
    ],
    "decimal": [
        (pa.decimal128(3, 1), st.integers(-20, 20).map(lambda n: Decimal(n).scaleb(-1))),
        (pa.decimal128(4, 2), st.integers(-200, 200).map(lambda n: Decimal(n).scaleb(-2))),
        (pa.decimal128(9, 0), st.integers(-2, 2).map(Decimal)),
    ],
    "time": [(pa.timestamp("s"), SECONDS), (pa.timestamp("ms"), SECONDS), (pa.timestamp("us"), MICROSECONDS)],
    "bytes": [(pa.binary(2), st.binary(min_size=2, max_size=2)), (pa.binary(), st.binary(max_size=3))],
}


@PROFILE
@given(st.data())
def test_a_table_of_groups_with_keys_of_several_types_answers_as_the_join_does(data):
    """Two groups with keys of one kind, asked for keys of any type of it, against a search in Python."""
    kinds = KEYS[data.draw(st.sampled_from(sorted(KEYS)))]
    store, project, stored = FeatureStore(), f"example{next(_numbers)}", []
    for name in "ab":
        kind, values = data.draw(st.sampled_from(kinds))
        keys = data.draw(st.lists(values, min_size=1, max_size=4, unique=True))
        frame = pa.table({"k": pa.array(keys, kind), "at": [NOON] * len(keys), name: list(range(len(keys)))})
        store.groups.write(group(name, f"entity_{name}", project), frame)
        stored.append(dict(zip(keys, range(len(keys)), strict=True)))
    asked = [*stored[0], *stored[1], *data.draw(st.lists(st.sampled_from(kinds).flatmap(itemgetter(1)), max_size=2))]
    lookups = [FeatureLookup(f"{project}/{name}") for name in "ab"]
    table = store.tables.serve(lookups, "t")
    huge = [key for key in asked if isinstance(key, int) and key >= 2**63]  # no one type has these and negative numbers
    for some, kind in ([key for key in asked if key not in huge], None), (huge, pa.uint64()):
        expected = [(key, stored[0].get(key), stored[1].get(key)) for key in some]
        for output in ("dicts", "arrow"):
            found = table.get_features([{"k": key} for key in some], output)
            rows_found = found if output == "dicts" else found.to_pylist()
            assert [(row["k"], row["a"], row["b"]) for row in rows_found] == expected
        if some:
            spine = pa.table({"k": pa.array(some, kind), "t": [LATER] * len(some)})
            joined = store.features.training_set(lookups, spine, "t").to_pylist()
            assert [(row["k"], row["a"], row["b"]) for row in joined] == expected
    assert store.tables.verify("t", project=project).equal


def test_keys_of_one_name_and_different_kinds_are_not_served_together():
    store = FeatureStore()
    store.groups.write(group("a", "ea"), rows(5, pa.int64()))
    store.groups.write(group("b", "eb"), rows("5", pa.string()))
    with pytest.raises(DefinitionError, match=r"k is int64 in default/a and string in default/b.*rename=\{'k'"):
        store.tables.serve([FeatureLookup("a", ["x"]), FeatureLookup("b", rename={"x": "y"})], "t")
    assert not store.core.registry.tables()
