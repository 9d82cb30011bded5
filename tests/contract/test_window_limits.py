"""Results that one Arrow array cannot hold are refused by the name of their feature. The limit is lowered, not reached."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

import pytest

from seeknal import DataError
from seeknal.define import aggregations as agg
from seeknal.engine import windows
from seeknal.engine.windows import limits

from . import windows_oracle as oracle
from .test_windows import events_of, features_of, moments_of

NAMES = ["word", "items", "i8"]
ROWS = [oracle.Event(0, t, {"word": "abcd"[t] * 5, "items": [1, 2, None], "i8": t}) for t in range(4)]
ASKED = [(0, t) for t in range(4)]
OF_TEXT = [
    *(kind("word") for kind in (agg.First, agg.Last, agg.Min, agg.Max, agg.MostFrequent, agg.Histogram)),
    *(kind("word", 2) for kind in (agg.FirstN, agg.LastN, agg.Largest, agg.Smallest, agg.MostFrequent)),
    agg.Count(by="word"),
    agg.Last("i8", by="word", k=2),
    agg.Last("word", by="i8"),
]
OF_LISTS = [
    *(agg.Last("items"), agg.LastN("items", 2), agg.LastN("i8", 4), agg.Largest("i8", 4), agg.Histogram("i8")),
    *(agg.Count(by="i8"), agg.Sum("i8", by="i8", k=4), agg.MostFrequent("i8", 4)),
]


def compute(wanted, most):
    """Compute aggregations with a lower limit."""
    with patch.object(limits, "MOST", most):
        return windows.compute(events_of(ROWS, NAMES), moments_of(ASKED), features_of(wanted))


def size_of(values):
    """Count the bytes of text and values of lists, whichever are more."""
    return max((int(ends[-1] - ends[0]) for ends in limits.ends_of(values)), default=0)


@pytest.mark.parametrize("wanted", OF_TEXT + OF_LISTS, ids=str)
def test_a_result_too_large_for_an_array_is_refused_by_name(wanted):
    (plain,) = compute([wanted], 10**6)
    size = size_of(plain)
    with pytest.raises(DataError, match="Feature 'f0' has more values of lists, or bytes of text, than") as error:
        compute([wanted], size - 1)
    assert "fewer moments at a time" in str(error.value)
    has_size = any(getattr(wanted, name, None) for name in ("n", "k"))
    assert (", or a smaller " in str(error.value)) == has_size
    (again,) = compute([wanted], max(size, 20))  # the events themselves have 20 bytes of text
    assert again.equals(plain)


def test_lengths_that_fit_one_by_one_are_computed_though_they_do_not_fit_together():
    over = [timedelta(microseconds=length) for length in (1, 2, 3)]
    found = compute([agg.LastN("word", 3, over=over)], 6 * 5 + 3 * 5)
    assert [size_of(one) for one in found] == [20, 35, 45]
    with pytest.raises(DataError, match="Feature 'f0_3us' has more values"):
        compute([agg.LastN("word", 3, over=over)], 35)


def test_a_fill_that_makes_a_column_too_large_is_refused_by_name():
    late = agg.Last("word", offset=timedelta(microseconds=2), fill="x" * 50)
    with pytest.raises(DataError, match="Feature 'f0' has more values"):
        compute([late], 2 * 5 + 2 * 50 - 1)
    (found,) = compute([late], 2 * 5 + 2 * 50)
    assert found.to_pylist() == ["x" * 50, "x" * 50, "aaaaa", "bbbbb"]
