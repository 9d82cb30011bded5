"""Cases drawn from the semantics of Chronon, Tecton, Snowflake and Databricks, with the values of each convention.

All cases on which they agree must hold, and all cases of our convention: an event at the start of the window is out, one at its end
is in, and where there is nothing, counts are 0 and all others null. Each case is tested or has a reason why it is not.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from seeknal import DataError, DefinitionError
from seeknal.define import aggregations as agg
from seeknal.define.aggregations.result_types import type_of
from seeknal.engine import windows
from seeknal.values.times import instant

CASES = json.loads(Path(__file__).with_name("window_vectors.json").read_text())["cases"]
OURS = (
    "open_closed",
    "sql",  # nothing in the window: count 0, all others null
    "ieee (Spark, Snowflake, DuckDB)",
    "ieee",
    "NaN is the greatest (Spark, Snowflake, DuckDB)",
    "null or error (Spark ANSI)",
    "sample (SQL VARIANCE; Databricks VarSamp; Tecton var_samp)",
    "the later row (Seeknal rule 6)",
    "the earlier row",
    "newest first (Chronon, Snowflake)",
    "skipped (Chronon)",
)
"""The conventions that we follow; a case has one of them at most."""
_TILES = "the window is made of whole tiles, or an event at its end is out; ours is exact at both ends"
_STORED = "which rows are events is settled before the kernel, by the store of the source"
NOT_OURS = {
    "hop-1h": _TILES,
    "hop-1d": _TILES,
    "hop-11h-border": _TILES,
    "tile-not-over-yet": _TILES,
    "tumbling-day": _TILES,
    "sliding-6h": _TILES,
    "histogram-top-k": "a histogram has all values; MostFrequent has the most frequent ones",
    "mutation-update": _STORED,
    "mutation-delete": _STORED,
    "correction-by-created-time": _STORED,
}
REFUSED = {"list-flattened", "list-elementwise"}
"""Aggregations of lists, which are refused at definition."""
OPERATIONS = {
    "count": lambda column, _, **window: agg.Count(column, **window),
    "sum": lambda column, _, **window: agg.Sum(column, **window),
    "mean": lambda column, _, **window: agg.Mean(column, **window),
    "min": lambda column, _, **window: agg.Min(column, **window),
    "max": lambda column, _, **window: agg.Max(column, **window),
    "var_pop": lambda column, _, **window: agg.Var(column, ddof=0, **window),
    "var_samp": lambda column, _, **window: agg.Var(column, **window),
    "variance": lambda column, _, **window: agg.Var(column, **window),
    "std_pop": lambda column, _, **window: agg.Std(column, ddof=0, **window),
    "std_samp": lambda column, _, **window: agg.Std(column, **window),
    "skew": lambda column, _, **window: agg.Skew(column, **window),
    "kurtosis": lambda column, _, **window: agg.Kurtosis(column, **window),
    "first": lambda column, _, **window: agg.First(column, **window),
    "last": lambda column, _, **window: agg.Last(column, **window),
    "last_k": lambda column, more, **window: agg.LastN(column, more["k"], **window),
    "top_k": lambda column, more, **window: agg.Largest(column, more["k"], **window),
    "quantile_cont": lambda column, more, **window: agg.Quantile(column, more["q"], **window),
    "histogram": lambda column, _, **window: agg.Histogram(column, **window),
    "distinct_count": lambda column, _, **window: agg.CountDistinct(column, **window),
    "bounded_distinct_count": lambda column, _, **window: agg.CountDistinct(column, **window),
}
APPROXIMATE = {
    "approx distinct": lambda column, _, **window: agg.ApproxCountDistinct(column, **window),
    "approx quantile": lambda column, more, **window: agg.ApproxQuantile(column, more["q"], **window),
}
"""The operations of cases with these tags."""


def expected_of(case):
    """Return the values that we should give, or None if the case is of other conventions alone."""
    if "expected" in case:
        return case["expected"]
    given = [case["expected_by_convention"][name] for name in OURS if name in case["expected_by_convention"]]
    assert len(given) <= 1, case["id"]
    return given[0] if given else None


def aggregation_of(case):
    """Return the aggregation of a case in our words."""
    feature = case["feature"]
    window = {"over": feature["window"], "where": feature.get("where"), "by": feature.get("bucket_by")}
    window["offset"] = feature.get("delay")
    operation = next((one for tag, one in APPROXIMATE.items() if tag in case["tags"]), OPERATIONS[feature["operation"]])
    return operation(feature["column"], feature.get("params", {}), **window)


def number(value):
    """Return a value, with the floats that JSON has no words for."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def micros(text):
    """Return a moment of the file."""
    return instant(datetime.fromisoformat(text).astimezone(UTC) if "+" in text else text)


def computed(case, query, aggregation):
    """Compute the value of a query."""
    rows = [event for event in case["events"] if event.get("recorded", "") <= query.get("as_of", "9")]
    keys = sorted({json.dumps(event["key"]) for event in rows})
    rows.sort(key=lambda event: (json.dumps(event["key"]), micros(event["t"])))
    names = sorted({name for event in case["events"] for name in event} - {"key", "t", "recorded"})
    told = {name: pa.array([number(event.get(name)) for event in rows]) for name in names}
    # A column of nulls has the type of numbers, which the file does not say.
    table = pa.table({name: made.cast(pa.int64()) if made.type == pa.null() else made for name, made in told.items()})
    masks = {}
    if aggregation.where:
        with duckdb.connect() as connection:
            found = connection.register("events", table).sql(f"SELECT {aggregation.where} FROM events").fetchall()
        masks[aggregation.where] = np.array([one is True for (one,) in found], bool)
    events = windows.Events(
        np.array([keys.index(json.dumps(event["key"])) for event in rows], np.int64),
        np.array([micros(event["t"]) for event in rows], np.int64),
        {name: table[name] for name in names},
        masks,
    )
    key = json.dumps(query["key"])
    entity = keys.index(key) if key in keys else -1
    moments = windows.Moments(np.array([entity]), np.array([micros(query["t"])]))
    type_of(aggregation, dict(zip(names, table.schema.types, strict=True)))
    (found,) = windows.compute(events, moments, agg.expand("x", aggregation))
    return found[0].as_py()


def in_their_form(value, case):
    """Return our value as the file has it: maps and histograms as mappings, a bounded count with its bound."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {next(iter(one.values())): list(one.values())[1] for one in value}
    if case["feature"]["operation"] == "bounded_distinct_count":
        return min(value, case["feature"]["params"]["k"])
    return value


def agree(have, want, tolerance):
    """Tell whether two values are equal, floats within 1e-9 or what the case allows."""
    if isinstance(want, dict) and isinstance(have, dict):
        return have.keys() == want.keys() and all(agree(have[key], want[key], tolerance) for key in want)
    if isinstance(want, list) and isinstance(have, list):
        return len(have) == len(want) and all(agree(a, b, tolerance) for a, b in zip(have, want, strict=True))
    want = number(want)
    if isinstance(have, float) and want is not None:
        close = math.isclose(have, want, rel_tol=tolerance.get("relative", 1e-9), abs_tol=tolerance.get("absolute", 0))
        return close or (math.isnan(have) and math.isnan(want))
    if tolerance and want is not None:
        return abs(have - want) <= tolerance.get("relative", 0) * want
    return have == want


TESTED = [case for case in CASES if expected_of(case) is not None]


@pytest.mark.parametrize("case", TESTED, ids=lambda case: case["id"])
def test_a_case_of_the_peers_has_the_value_of_our_convention(case):
    aggregation = aggregation_of(case)
    for query, want in zip(case["queries"], expected_of(case), strict=True):
        if want == "error":
            with pytest.raises(DataError, match="does not fit in int64"):
                computed(case, query, aggregation)
        else:
            have = in_their_form(computed(case, query, aggregation), case)
            assert agree(have, want, case.get("tolerance", {})), (have, want)


@pytest.mark.parametrize("case", [case for case in CASES if case["id"] in REFUSED], ids=lambda case: case["id"])
def test_an_aggregation_of_lists_is_refused(case):
    with pytest.raises(DefinitionError, match="not a number"):
        computed(case, case["queries"][0], aggregation_of(case))


def test_every_case_is_tested_or_has_a_reason():
    tested = {case["id"] for case in TESTED}
    assert not tested & (NOT_OURS.keys() | REFUSED)
    assert tested | NOT_OURS.keys() | REFUSED == {case["id"] for case in CASES}
    assert {case["id"] for case in CASES if case["group"] == "agreed"} <= tested
    assert {case["id"] for case in CASES if "open_closed" in case.get("expected_by_convention", {})} <= tested
    assert (len(tested), len(NOT_OURS), len(REFUSED)) == (86, 10, 2)


def test_a_hop_aligns_the_start_of_a_window_and_nothing_else():
    at = np.array([0, 299, 300, 301, 900]) * 1_000_000
    events = windows.Events(np.zeros(5, np.int64), at)
    moments = windows.Moments(np.zeros(2, np.int64), np.array([900, 899]) * 1_000_000)
    (feature,) = agg.expand("x", agg.Count(over=timedelta(seconds=500)))
    # The starts 400 s and 399 s become 300 s, and the event at 300 s stays out.
    assert windows.compute(events, moments, [feature], hop=300_000_000)[0].to_pylist() == [2, 1]
    assert windows.compute(events, moments, [feature])[0].to_pylist() == [1, 0]
