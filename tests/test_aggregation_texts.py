"""The text form of aggregations: it comes back as the same definition, tells apart what differs, and is refused if it is malformed."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import at_least
from seeknal import DefinitionError
from seeknal.define import aggregations as agg
from seeknal.define.aggregations.kinds import ALL

EXAMPLES = [
    agg.Count(),
    agg.Count("x", over="7d", where="x > 5", by="word", k=3, offset="500us"),
    agg.Sum("x", over=["7d", "36h", timedelta(microseconds=1_000_001)], fill=0),
    agg.Mean("x", fill=0.1),
    agg.Min("x", fill=float("-inf")),
    agg.Max("price", fill=Decimal("1.50")),
    agg.Var("x", ddof=0),
    agg.Std("x"),
    agg.Skew("x"),
    agg.Kurtosis("x"),
    agg.First("word", fill="none"),
    agg.Last("at", fill=datetime(2024, 5, 1, 12, tzinfo=UTC)),
    agg.Last("raw", fill=b"\0\xff"),
    agg.Last("day", fill=date(2024, 5, 1)),
    agg.Last("clock", fill=time(12, 30)),
    agg.Last("span", fill=timedelta(microseconds=-1)),
    agg.Last("flag", fill=False),
    agg.FirstN("x", 2),
    agg.LastN("x", 3, fill=[]),
    agg.Largest("x", 4),
    agg.Smallest("x", 5),
    agg.MostFrequent("word"),
    agg.MostFrequent("word", 3),
    agg.CountDistinct("word"),
    agg.ApproxCountDistinct("word"),
    agg.Quantile("x", 0.1),
    agg.ApproxQuantile("x", 0.1),
    agg.Histogram("word"),
    agg.TimeSinceFirst(unit="days", fill=-1),
    agg.TimeSinceLast(),
]


@pytest.mark.parametrize("aggregation", EXAMPLES, ids=str)
def test_the_text_form_comes_back_as_the_same_definition(aggregation):
    written = json.loads(json.dumps(agg.to_json(aggregation)))
    back = agg.from_json(written)
    assert back == aggregation
    assert type(back.fill) is type(aggregation.fill)
    assert agg.to_json(back) == written


def test_every_aggregation_has_an_example():
    assert {type(one) for one in EXAMPLES} == set(ALL)
    assert {kind.__name__ for kind in ALL} <= set(agg.__all__)


@pytest.mark.parametrize(
    "given", [{"aggregation": "Product", "column": "x"}, {"aggregation": "Sum", "column": "x", "beside": 1}, {}]
)
def test_a_text_form_of_another_release_is_refused(given):
    with pytest.raises(DefinitionError, match="later release"):
        agg.from_json(given)


def nested(depth):
    """Make a list in a list in a list."""
    found = []
    for _ in range(depth):
        found = [found]
    return found


SUM = {"aggregation": "Sum", "column": "x"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "is not the text form of an aggregation"),
        ({"aggregation": nested(10**5)}, "There is no aggregation named"),
        ({"aggregation": "Sum"}, "Sum has no 'column'"),
        ({"aggregation": "Quantile", "column": "x"}, "Quantile has no 'q'"),
        ({**SUM, 1: 2, "z": 3}, "Sum has no argument 'z'"),
        ({**SUM, "column": nested(10**5)}, "column="),
        ({**SUM, "over": {"days": 7}}, "over="),
        ({**SUM, "over": nested(10**5)}, "over="),
        ({**SUM, "over": "9" * 10**5 + "d"}, "over="),
        ({**SUM, "k": nested(10**5)}, "k="),
        ({**SUM, "fill": {}}, "is not a text with one of the tags"),
        ({**SUM, "fill": {"float": "0x1p0", "decimal": "1"}}, "is not a text with one of the tags"),
        ({**SUM, "fill": {"complex": "1j"}}, "is not a text with one of the tags"),
        ({**SUM, "fill": {"float": 1.0}}, "is not a text with one of the tags"),
        ({**SUM, "fill": {"float": "one"}}, "'one' is no float"),
        ({**SUM, "fill": {"float": "0x1p99999"}}, "is no float"),
        ({**SUM, "fill": {"decimal": "1,5"}}, "'1,5' is no decimal"),
        ({**SUM, "fill": {"microseconds": "9" * 30}}, "is no microseconds"),
        ({**SUM, "fill": {"integer": "9" * 5000}}, "is no integer"),
        ({**SUM, "fill": {"date": "2024-13-01"}}, "is no date"),
        ({**SUM, "fill": nested(10**5)}, "fill="),
        ({"aggregation": "ApproxQuantile", "column": "x"}, "ApproxQuantile has no 'q'"),
    ],
    ids=lambda given: None,
)
def test_a_malformed_text_form_is_refused_with_what_is_wrong(given, said):
    with pytest.raises(DefinitionError) as error:
        agg.from_json(given)
    assert said in str(error.value)
    assert len(str(error.value)) < 500


NONSENSE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["7d", "x", "decimal", "0x1p0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text() | st.sampled_from(["decimal", "float", "bytes", "time", "microseconds"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)


@at_least(500)
@given(
    name=st.sampled_from(sorted(kind.__name__ for kind in ALL)),
    arguments=st.dictionaries(
        st.sampled_from(["column", "over", "where", "by", "k", "offset", "fill", "n", "q", "ddof", "unit"]), NONSENSE
    ),
)
def test_from_json_returns_a_definition_or_says_what_is_wrong(name, arguments):
    with suppress(DefinitionError):
        made = agg.from_json({"aggregation": name, "column": "x", **arguments})
        assert agg.from_json(json.loads(json.dumps(agg.to_json(made)))) == made


BERLIN = ZoneInfo("Europe/Berlin")
FILLS = [
    *(
        True,
        1,
        1.0,
        Decimal(1),
        Decimal("1.00"),
        0,
        False,
        0.0,
        -0.0,
        Decimal("-0"),
        Decimal("0E+5"),
        0.1,
        Decimal("0.1"),
    ),
    *(2**53, 2.0**53, 2**53 + 1, 10**30, Decimal("1E+30"), Decimal(10**30), 1e30, float("inf"), Decimal("Infinity")),
    *("1", b"1", "", b"", "True", date(2024, 10, 27), datetime(2024, 10, 27), pd.Timestamp("2024-10-27")),
    *(datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1)),
    *(datetime(2024, 10, 27, hour, 30, tzinfo=UTC) for hour in (0, 1)),
    datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=2))),
    *(datetime(2024, 10, 27, 2, 30, fold=fold) for fold in (0, 1)),
    *(time(2, 30), time(2, 30, fold=1), timedelta(days=1), timedelta(hours=24), pd.Timedelta(days=1), None),
    *(np.float64(0.1), np.str_("1"), np.bytes_(b"1")),
]
LENGTHS = ["7d", timedelta(days=7), "168h", "1.0d", "24h", "86400s", "1us", "0.000001s", pd.Timedelta(hours=24)]


def definitions():
    """Draw a definition from few values, many of which are alike."""
    shared = {
        "over": st.none() | st.sampled_from(LENGTHS) | st.sampled_from(LENGTHS).map(lambda one: [one]),
        "offset": st.none() | st.sampled_from(LENGTHS),
        "where": st.sampled_from([None, "a > 1", np.str_("a > 1")]),
    }
    with_fill = {**shared, "fill": st.sampled_from(FILLS)}
    return st.one_of(
        st.builds(agg.Min, st.sampled_from(["x", np.str_("x")]), **with_fill),
        st.builds(agg.Last, st.just("x"), **with_fill),
        st.builds(agg.Quantile, st.just("x"), st.sampled_from([0, 0.0, -0.0, 1, 1.0, 0.5, np.float64(0.5)]), **shared),
        st.builds(
            agg.MostFrequent, st.just("x"), st.sampled_from([1, 2]), fill=st.sampled_from([None, [], ()]), **shared
        ),
        st.builds(agg.Sum, st.just("x"), by=st.sampled_from(["y", "z"]), k=st.sampled_from([None, 1, 2]), **shared),
    )


def results_of(made):
    """Say all that a result can depend on: lengths and arguments as numbers and text, the fill with its type and bits."""
    fill = made.fill
    if isinstance(fill, datetime) and fill.tzinfo is not None:
        fill = ("instant", fill.timestamp())
    rest = [(name, getattr(made, name, None)) for name in ("column", "where", "by", "k", "n", "q")]
    return made.name, made.lengths, made.shift, made.has_several, rest, type(fill).__name__, str(fill)


@at_least(2000)
@given(one=definitions(), other=definitions())
def test_definitions_are_equal_exactly_if_their_text_forms_are(one, other):
    texts = [json.dumps(agg.to_json(made)) for made in (one, other)]
    assert (one == other) == (texts[0] == texts[1]) == (results_of(one) == results_of(other))
    assert one != other or hash(one) == hash(other)
    assert agg.from_json(json.loads(texts[0])) == one


def test_fills_that_give_different_results_have_different_text_forms():
    for one, other in itertools.combinations([agg.Min("x", fill=fill) for fill in FILLS], 2):
        texts = [json.dumps(agg.to_json(made)) for made in (one, other)]
        assert (one == other) == (texts[0] == texts[1]) == (results_of(one) == results_of(other)), (one, other)


def test_both_moments_of_a_repeated_hour_are_two_fills():
    first, second = (agg.Last("at", fill=datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=BERLIN)) for fold in (0, 1))
    assert first != second
    assert second == agg.Last("at", fill=datetime(2024, 10, 27, 1, 30, tzinfo=UTC))
