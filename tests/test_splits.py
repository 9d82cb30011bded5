"""Splits of training sets, compared with loops over the rows that were written from the descriptions of the splits alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baskets
from contract.profiles import PROFILE, at_least
from seeknal import (
    ColumnSplit,
    DataError,
    DefinitionError,
    EntitySplit,
    FeatureLookup,
    FeatureView,
    TimeSplit,
    TrainingSet,
)
from seeknal.define.splits import split_of
from seeknal.join.splits import parts_of

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

START = datetime(2024, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
MANY = at_least(100)
PARTS = ("train", "validation", "test")


def by_time(moment: datetime | None, bounds: list[datetime], gap: timedelta) -> str | None:
    """Return the part that a row belongs to: train before the first bound, test from the last on, and none in a gap."""
    if moment is None or any(bound - gap <= moment < bound for bound in bounds):
        return None
    if moment < bounds[0]:
        return "train"
    return "test" if moment >= bounds[-1] else "validation"


def found(split: Any, table: pa.Table, keys: tuple[str, ...] = ("user",)) -> list[str | None]:
    """Return the parts of the rows, by a split that was saved and read again."""
    parts = parts_of(split, table, "at", keys).to_pylist()
    assert parts_of(split_of(split.to_json()), table, "at", keys).to_pylist() == parts
    return parts


seconds = st.integers(0, 10)
moments = st.builds(
    lambda s, us: START + timedelta(seconds=s, microseconds=us), seconds, st.sampled_from([0, 0, 0, -1, 1])
)


@MANY
@given(
    rows=st.lists(st.none() | moments, min_size=10, max_size=40),
    bounds=st.lists(moments, min_size=1, max_size=2, unique=True).map(sorted),
    gap=st.none() | st.integers(1, 6),
    unit=st.sampled_from(["us", "ns"]),
    zone=st.sampled_from([None, "UTC", "Asia/Jakarta"]),
)
def test_a_split_by_time_is_what_its_description_says(rows, bounds, gap, unit, zone):
    naive = [None if one is None else one.replace(tzinfo=None) for one in rows] if zone is None else rows
    table = pa.table({"at": pa.array(naive, pa.timestamp(unit, zone))})
    split = TimeSplit(bounds, gap=None if gap is None else timedelta(seconds=gap))
    expected = [by_time(one, bounds, timedelta(seconds=gap or 0)) for one in rows]
    assert found(split, table) == expected


def test_a_gap_begins_its_length_before_the_bound_and_ends_there():
    seconds = [7, 8, 9, 10, 17, 18, 19, 20]
    table = pa.table({"at": [START + second * timedelta(seconds=1) for second in seconds]})
    split = TimeSplit([START + timedelta(seconds=10), START + timedelta(seconds=20)], gap="2s")
    expected = ["train", None, None, "validation", "validation", None, None, "test"]
    assert found(split, table) == expected


keys = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    pa.binary(): st.binary(max_size=3),
    pa.bool_(): st.booleans(),
    pa.decimal128(20, 4): st.decimals(-100, 100, places=4),
    pa.timestamp("us", "UTC"): moments,
    pa.date32(): st.dates(date(2024, 1, 1), date(2024, 2, 1)),
}
WIDER = {
    pa.int64(): [],
    pa.string(): [pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    pa.binary(): [pa.large_binary()],
    pa.bool_(): [],
    pa.decimal128(20, 4): [pa.decimal128(30, 9), pa.decimal256(40, 6)],
    pa.timestamp("us", "UTC"): [pa.timestamp("ns", "UTC"), pa.timestamp("us"), pa.timestamp("us", "Asia/Jakarta")],
    pa.date32(): [pa.date64()],
}


@st.composite
def entities(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    """Draw rows with one or two join keys, and the same rows with keys in other types of the same kind."""
    columns, others = {}, {}
    for name in ["user", "shop"][: draw(st.integers(1, 2))]:
        kind = draw(st.sampled_from(list(keys)))
        few = draw(st.lists(st.none() | keys[kind], min_size=1, max_size=6))
        values = draw(st.lists(st.sampled_from(few), min_size=12, max_size=12))
        columns[name] = pa.chunked_array([pa.array(values[:5], kind), pa.array(values[5:], kind)])
        others[name] = pa.array(values, kind).cast(draw(st.sampled_from([kind, *WIDER[kind]])))
    return pa.table(columns), pa.table(others)


@MANY
@given(drawn=entities(), train=st.floats(0, 1), rest=st.floats(0, 1), seed=st.integers(-5, 5), order=st.randoms())
def test_no_entity_is_in_two_parts_nor_in_another_part_in_other_rows_or_types(drawn, train, rest, seed, order):
    table, other = drawn
    split = EntitySplit(train, (1 - train) * rest, seed=seed)
    names = tuple(table.column_names)
    parts = found(split, table, names)
    assert set(parts) <= set(PARTS)
    assert found(split, other, names) == parts
    places = order.sample(range(len(table)), len(table))
    assert found(split, table.take(places), names) == [parts[place] for place in places]
    for place in range(len(table)):
        assert found(split, table.slice(place, 1), names) == [parts[place]]
    assert found(EntitySplit(train, (1 - train) * rest, by=names, seed=seed), table, ()) == parts


def test_the_shares_of_the_parts_are_those_of_the_entities():
    table = pa.table({"user": list(range(20_000)) * 2})
    counts = Counter(found(EntitySplit(0.7, 0.2), table))
    for part, share in zip(PARTS, (0.7, 0.2, 0.1), strict=True):
        assert abs(counts[part] / 40_000 - share) < 0.02  # more than six standard deviations
    assert found(EntitySplit(1.0, 0.0), table) == ["train"] * 40_000
    assert found(EntitySplit(0.0, 0.0), table) == ["test"] * 40_000
    assert found(EntitySplit(0.5, 0.5, seed=1), table) != found(EntitySplit(0.5, 0.5), table)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_an_entity_is_in_the_same_part_in_every_process_and_release(hash_seed):
    code = (
        "import pyarrow as pa; from seeknal.join.splits import parts_of; from seeknal import EntitySplit; "
        "table = pa.table({'a': ['x', 'y', 'z', None, 'ü'] * 2, 'b': list(range(10))}); "
        "print(*(part[:2] for part in parts_of(EntitySplit(0.4, 0.3), table, '', ['a', 'b']).to_pylist()))"
    )
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "va va tr te te va te va te tr\n"  # as the first release printed it


folds = {
    "words": (None, st.none() | st.sampled_from(PARTS), pa.string()),
    "numbers": ({0: "train", 1: "validation", 2: "test", 3: "test"}, st.none() | st.integers(0, 3), pa.int8()),
    "flags": ({False: "train", True: "test"}, st.none() | st.booleans(), pa.bool_()),
    "names": ({"a": "train", "b": "train"}, st.none() | st.sampled_from("ab"), pa.dictionary(pa.int8(), pa.string())),
}


@MANY
@given(data=st.data(), fold=st.sampled_from(list(folds)))
def test_a_split_by_a_column_is_what_its_description_says(data, fold):
    parts, values, kind = folds[fold]
    drawn = data.draw(st.lists(values, max_size=10))
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    table = pa.table({"fold": pa.chunked_array([pa.array(drawn, plain).cast(kind)])})
    names = parts or {part: part for part in PARTS}
    assert found(ColumnSplit("fold", parts), table) == [None if one is None else names[one] for one in drawn]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw a split and the function that says in which part a row of the spine is; None: whatever the entity decides."""
    if draw(st.booleans()):
        first, second = sorted(draw(st.lists(st.integers(2, baskets.DAYS), min_size=2, max_size=2, unique=True)))
        bounds = [baskets.START + timedelta(days=first), baskets.START + timedelta(days=second)]
        gap = draw(st.none() | st.integers(1, 9))
        plan = TimeSplit(bounds, None if gap is None else f"{gap}d")
        return plan, lambda row: by_time(row["moment"].replace(tzinfo=UTC), bounds, timedelta(days=gap or 0))
    if draw(st.booleans()):
        return EntitySplit(0.5, 0.25, draw(st.none() | st.just("household")), draw(st.integers(0, 3))), None
    return ColumnSplit("fold"), lambda row: row["fold"]


_numbers = count()
KINDS = {
    "arrow": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "duckdb": duckdb.from_arrow,
}


@settings(PROFILE)
@given(plan=plans(), kind=st.sampled_from(list(KINDS)), keep=st.booleans())
def test_the_parts_of_a_training_set_are_its_rows_in_order_and_stay_the_same(plan, kind, keep):
    split, part_of = plan
    given = baskets.spine()
    folds = [[*PARTS, None][(i * 7 // 3) % 4] for i in range(len(given))]
    spine = KINDS[kind](given.append_column("fold", pa.chunked_array([folds])))
    view = baskets.view() if not _known() else FeatureView.load("next_basket")
    name = f"set{next(_numbers)}"
    keep_cols = ["note", "fold"] if keep else None
    train = view.training_set(spine, "moment", name, split=split, keep_cols=keep_cols)
    whole = train.to_dataframe("arrow").to_pylist()
    parts = {part: train.part(part, "arrow").to_pylist() for part in PARTS}
    if part_of is None:
        households = [{row["household"] for row in rows} for rows in parts.values()]
        assert sum(map(len, households)) == len(set().union(*households)) == baskets.HOUSEHOLDS
        assert sum(map(len, parts.values())) == len(whole)
        for rows in parts.values():
            notes = {row["note"] for row in rows}
            assert rows == [row for row in whole if row["note"] in notes]
    else:
        assert parts == {part: [row for row in whole if part_of(row) == part] for part in PARTS}
    again = TrainingSet.load(name)
    assert {part: again.part(part, "arrow").to_pylist() for part in PARTS} == parts
    assert kind_of(again.train) == kind


def _known() -> bool:
    try:
        FeatureView.load("next_basket")
    except DefinitionError:
        return False
    return True


def kind_of(frame: object) -> str:
    kinds = {pd.DataFrame: "pandas", pl.DataFrame: "polars", pa.Table: "arrow", duckdb.DuckDBPyRelation: "duckdb"}
    return kinds[type(frame)]


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (ColumnSplit("fold"), "fold"),
        (EntitySplit(by="customer"), "customer"),
    ],
)
def test_a_split_by_a_column_that_the_spine_lacks_is_refused_before_anything_is_saved(split, told):
    view = baskets.view()
    with pytest.raises(DataError, match=told):
        view.training_set(baskets.spine(), "moment", "may", split=split)
    assert view.training_sets == []


def test_a_value_that_names_no_part_is_refused_before_anything_is_saved():
    view = baskets.view()
    with pytest.raises(DataError, match="Column 'note' has 'row 0', which names no part of the split"):
        view.training_set(baskets.spine(), "moment", "may", split=ColumnSplit("note"))
    assert view.training_sets == []


def test_a_split_goes_with_the_training_set_and_a_part_needs_one():
    view = baskets.view()
    plain = FeatureView("plain", [FeatureLookup("shop/about")]).training_set(baskets.spine(), "moment", "plain")
    with pytest.raises(DefinitionError, match=r"shop/plain is not split. Pass split="):
        _ = plain.train
    train = view.training_set(baskets.spine(), "moment", "may", split=("2024-01-31", "2024-02-15"))
    assert train.split == TimeSplit([datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 2, 15, tzinfo=UTC)])
    with pytest.raises(DefinitionError, match="'dev' is not a part of a split"):
        train.part("dev")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeSplit([]),
        lambda: TimeSplit(["2024-01-01", "2024-02-01", "2024-03-01"]),
        lambda: TimeSplit(["2024-02-01", "2024-01-01"]),
        lambda: TimeSplit(["2024-01-01", "2024-01-01"]),
        lambda: EntitySplit(0.8, 0.3),
        lambda: EntitySplit(-0.1),
        lambda: EntitySplit(float("nan")),
        lambda: EntitySplit(seed=0.5),
        lambda: ColumnSplit("fold", {"a": "dev"}),
        lambda: ColumnSplit("fold", {1.5: "train"}),
        lambda: ColumnSplit("fold", {Decimal(1): "train"}),
    ],
)
def test_what_is_no_split_is_refused(make):
    with pytest.raises(DefinitionError):
        make()
