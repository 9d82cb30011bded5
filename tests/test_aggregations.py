"""Definitions of aggregations: what they accept, what they refuse and how, and the features and types they make."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from seeknal import DefinitionError
from seeknal.define import aggregations as agg
from seeknal.define.aggregations.result_types import type_of

DAY = 86_400_000_000
COLUMNS = {
    "flag": pa.bool_(),
    "whole": pa.int32(),
    "big": pa.uint64(),
    "price": pa.decimal128(10, 2),
    "x": pa.float32(),
    "word": pa.string(),
    "raw": pa.binary(),
    "day": pa.date32(),
    "at": pa.timestamp("us", tz="UTC"),
    "vector": pa.list_(pa.float32()),
    "nothing": pa.null(),
}


def test_a_definition_is_frozen_hashable_and_equal_to_one_of_the_same_arguments():
    one, other = agg.Sum("x", over="7d"), agg.Sum("x", over=timedelta(days=7))
    assert one == other
    assert hash(one) == hash(other)
    assert one != agg.Mean("x", over="7d")
    assert one != agg.Sum("x", over=["7d"])
    with pytest.raises(AttributeError):
        one.column = "y"


def test_each_length_of_a_list_makes_a_feature_named_after_it():
    made = agg.expand("spend", agg.Sum("x", over=["7d", timedelta(hours=36), "90m", "30s", "7us"]))
    assert [feature.name for feature in made] == ["spend_7d", "spend_36h", "spend_90m", "spend_30s", "spend_7us"]
    assert [feature.length for feature in made] == [7 * DAY, 36 * DAY // 24, 90 * 60_000_000, 30_000_000, 7]


def test_a_single_length_or_none_makes_a_feature_of_the_name_itself():
    assert agg.expand("spend", agg.Sum("x", over="7d")) == (
        agg.WindowedFeature("spend", agg.Sum("x", over="7d"), 7 * DAY),
    )
    assert agg.expand("spend", agg.Sum("x"))[0].length is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: agg.Sum(3), "column=3 is not text"),
        (lambda: agg.Sum("x", over="soon"), "over='soon' is not a positive length"),
        (lambda: agg.Sum("x", over="0d"), "over='0d' is not a positive length"),
        (lambda: agg.Sum("x", over=pd.Timedelta(nanoseconds=1500)), "is not a whole number of microseconds"),
        (lambda: agg.LastN("x", 2**31), "n=2147483648 is not a count"),
        (lambda: agg.Std("x", ddof=Decimal(0)), "ddof=Decimal('0') should be 1"),
        (lambda: agg.Min("x", fill=pd.NaT), "fill=NaT of Min"),
        (lambda: agg.Min("x", fill=pd.Timestamp(1)), "has nanoseconds"),
        (lambda: agg.Sum("x", over="\u0667d"), "over='\u0667d' is not a positive length. Write over=\"7d\""),
        (lambda: agg.Sum("x", over="0.0000015s"), 'is not a whole number of microseconds. Write over="2us"'),
        (lambda: agg.Sum("x", over=f"{10**70}d"), "is not a positive length"),
        (lambda: agg.Sum("x", over="99999999999d"), "longer than all of time"),
        (lambda: agg.Sum("x", over=pd.NaT), "over=NaT is not a positive length"),
        (lambda: agg.Sum(""), "column='' is empty"),
        (lambda: agg.Count("a\0"), "column='a\\x00' has NUL"),
        (lambda: agg.Count(by=""), "by='' is empty"),
        (lambda: agg.Sum("x", where="a > 1\0"), "where='a > 1\\x00' has NUL"),
        (lambda: agg.expand("", agg.Count()), "name='' is empty"),
        (lambda: agg.Min("x", fill="\ud800"), "lone surrogate"),
        (lambda: agg.Min("x", fill=time(1, tzinfo=UTC)), "has a time zone"),
        (lambda: agg.Min("x", fill=datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))), "after 9999 in UTC"),
        (lambda: agg.Sum("x", over=7), "over=7 is not a positive length"),
        (lambda: agg.Sum("x", over=timedelta(days=-1)), "is not a positive length"),
        (lambda: agg.Sum("x", over=timedelta(days=9_000_000)), "longer than all of time"),
        (lambda: agg.Sum("x", over=[]), "over is an empty list"),
        (lambda: agg.Sum("x", over=["1d", "24h"]), "over has 1d twice"),
        (lambda: agg.Sum("x", over=["1d", None]), "over=None is not a positive length"),
        (lambda: agg.Sum("x", offset="-1d"), "offset='-1d' is not a positive length"),
        (lambda: agg.Sum("x", where=" "), "where is empty"),
        (lambda: agg.Sum("x", where=True), "where=True is not text"),
        (lambda: agg.Sum("x", by=1), "by=1 is not text"),
        (lambda: agg.Sum("x", k=3), "k=3 of Sum is the size of a map"),
        (lambda: agg.Sum("x", by="y", k=0), "k=0 is not a count"),
        (lambda: agg.LastN("x", 3, by="y"), "LastN cannot be taken by 'y'"),
        (lambda: agg.MostFrequent("x", by="y"), "MostFrequent cannot be taken by 'y'"),
        (lambda: agg.Histogram("x", by="y"), "Histogram cannot be taken by 'y'"),
        (lambda: agg.TimeSinceLast(by="y"), "TimeSinceLast cannot be taken by 'y'"),
        (lambda: agg.LastN("x", 0), "n=0 is not a count"),
        (lambda: agg.LastN("x", True), "n=True is not a count"),
        (lambda: agg.LastN("x", 2.0), "n=2.0 is not a count"),
        (lambda: agg.Quantile("x", 1.5), "q=1.5 is not between 0 and 1"),
        (lambda: agg.Quantile("x", float("nan")), "q=nan is not between 0 and 1"),
        (lambda: agg.Var("x", ddof=2), "ddof=2 should be 1"),
        (lambda: agg.TimeSinceLast(unit="weeks"), "unit='weeks' should be one of: seconds, minutes, hours, days"),
        (lambda: agg.Count(fill=1), "fill=1 of Count is never used"),
        (lambda: agg.CountDistinct("x", fill=1), "fill=1 of CountDistinct is never used"),
        (lambda: agg.Mean("x", fill="none"), "fill='none' of Mean should be one of: Decimal, float, int"),
        (lambda: agg.Mean("x", fill=True), "fill=True of Mean should be one of"),
        (lambda: agg.Mean("x", fill=float("nan")), "fill=NaN of Mean"),
        (lambda: agg.Sum("x", fill=Decimal("sNaN")), "fill=NaN of Sum"),
        (lambda: agg.LastN("x", 2, fill=0), "fill=0 of LastN should be []"),
        (lambda: agg.Sum("x", by="y", fill=0), "fill=0 of Sum should be []"),
        (lambda: agg.First("x", fill=[1]), "fill=[1] of First should be one of"),
        (lambda: agg.ApproxCountDistinct("x", fill=1), "fill=1 of ApproxCountDistinct is never used"),
        (lambda: agg.ApproxQuantile("x", 50), "q=50 is not between 0 and 1"),
        (lambda: agg.expand("x", "Sum"), "which is not an aggregation"),
        (lambda: agg.expand(1, agg.Count()), "name=1 is not text"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(make, said):
    with pytest.raises(DefinitionError) as error:
        make()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [
        (agg.Count(), pa.int64()),
        (agg.Count("vector"), pa.int64()),
        (agg.CountDistinct("word"), pa.int64()),
        (agg.Sum("flag"), pa.int64()),
        (agg.Sum("whole"), pa.int64()),
        (agg.Sum("big"), pa.int64()),
        (agg.Sum("x"), pa.float64()),
        (agg.Sum("price"), pa.decimal128(38, 2)),
        (agg.Mean("price"), pa.float64()),
        (agg.Mean("flag"), pa.float64()),
        (agg.Std("whole"), pa.float64()),
        (agg.Quantile("x", 0), pa.float64()),
        (agg.ApproxQuantile("price", 0.5, fill=0.5), pa.float64()),
        (agg.ApproxCountDistinct("word"), pa.int64()),
        (agg.Min("word"), pa.string()),
        (agg.Max("at"), pa.timestamp("us", tz="UTC")),
        (agg.First("vector"), pa.list_(pa.float32())),
        (agg.LastN("day", 2), pa.list_(pa.date32())),
        (agg.Largest("raw", 2), pa.list_(pa.binary())),
        (agg.MostFrequent("word", 3), pa.list_(pa.string())),
        (agg.Histogram("word"), pa.list_(pa.struct([("value", pa.string()), ("count", pa.int64())]))),
        (agg.TimeSinceLast(unit="days"), pa.float64()),
        (agg.Sum("whole", by="word"), pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))),
        (agg.Count(by="price", k=2), pa.list_(pa.struct([("key", pa.decimal128(10, 2)), ("value", pa.int64())]))),
        (agg.Sum("price", fill=Decimal("0.01")), pa.decimal128(38, 2)),
        (agg.Mean("x", fill=0), pa.float64()),
        (agg.Last("at", fill=datetime(2024, 5, 1, tzinfo=UTC)), pa.timestamp("us", tz="UTC")),
        (agg.LastN("x", 3, fill=[]), pa.list_(pa.float32())),
    ],
    ids=str,
)
def test_results_have_a_type_that_follows_from_that_of_the_column(aggregation, kind):
    assert type_of(aggregation, COLUMNS) == kind


@pytest.mark.parametrize(
    ("aggregation", "said"),
    [
        (agg.Sum("prise"), "Sum is of column 'prise', which the events do not have. Did you mean 'price'?"),
        (agg.Sum("x", by="wort"), "Sum is of column 'wort', which the events do not have. Did you mean 'word'?"),
        (agg.Last("nothing"), "Column 'nothing' has no type yet"),
        (agg.Sum("word"), "Sum of column 'word' is not possible: it is string, not a number"),
        (agg.Sum("at"), "Sum of column 'at' is not possible"),
        (agg.Std("flag"), "Std of column 'flag' is not possible"),
        (agg.Quantile("day", 0.5), "Quantile of column 'day' is not possible"),
        (agg.Max("vector"), "Max of column 'vector' is not possible: list<item: float> has no order"),
        (agg.ApproxQuantile("flag", 0.5), "ApproxQuantile of column 'flag' is not possible"),
        (agg.CountDistinct("vector"), "has no order"),
        (agg.ApproxCountDistinct("vector"), "has no order"),
        (agg.Count(by="x"), "by='x' is not possible: it is float"),
        (agg.Count(by="vector"), "by='vector' is not possible"),
        (agg.Last("vector", by="word", k=1), "k=1 is not possible"),
        (agg.Sum("whole", fill=0.5), "Sum cannot have this fill: fill is int64, and 0.5"),
        (agg.Min("word", fill=1), "Min cannot have this fill: fill is string"),
    ],
    ids=str,
)
def test_a_column_of_the_wrong_type_is_refused_by_name(aggregation, said):
    with pytest.raises(DefinitionError) as error:
        type_of(aggregation, COLUMNS)
    assert said in str(error.value)


def test_definitions_load_nothing_heavy():
    code = (
        "import sys, seeknal.define.aggregations; print(*{'pyarrow', 'numpy', 'duckdb', 'pandas'} & set(sys.modules))"
    )
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
