"""The join by number finds what plain loops find: whatever the keys, however far apart the times, however it is cut into shares."""

from __future__ import annotations

from decimal import Decimal
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.engine import asof, numbering

from .profiles import at_least

INT64 = st.sampled_from([0, 1, 2, -5, 2**62, -(2**62), 2**63 - 1, -(2**63)])
KINDS = {
    "near": (st.integers(0, 5), pa.int32()),
    "far": (INT64, pa.int64()),
    "text": (st.sampled_from(["a", "b", "ä", ""]), pa.string()),
    "decimal": (st.sampled_from([Decimal("1.10"), Decimal("1.1"), Decimal(-3)]), pa.decimal128(20, 2)),
    "flag": (st.booleans(), pa.bool_()),
}
TIMES = st.one_of(st.integers(0, 6), st.sampled_from([10**15, -(10**15), 2**61, 2**63 - 1]))


@st.composite
def tables(draw):
    """Draw rows with ids, some with nulls and with created times, and a spine of the same keys."""
    kinds = [KINDS[name] for name in draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))]
    count, asked = draw(st.integers(0, 14)), draw(st.integers(0, 8))

    def column(values, size):
        return draw(st.lists(values, min_size=size, max_size=size))

    known = draw(st.booleans())
    rows = {
        f"k{i}": pa.array(column(values if known else st.none() | values, count), kind)
        for i, (values, kind) in enumerate(kinds)
    }
    rows |= {"t": pa.array(column(TIMES if known else st.none() | TIMES, count), pa.int64())}
    if draw(st.booleans()):
        rows["created"] = pa.array(column(st.integers(0, 2), count), pa.int64())
    rows["id"] = pa.array(draw(st.permutations(range(count))), pa.int64())
    spine = {f"k{i}": pa.array(column(st.none() | values, asked), kind) for i, (values, kind) in enumerate(kinds)}
    return pa.table(rows), pa.table({**spine, "t": pa.array(column(st.none() | TIMES, asked), pa.int64())})


def seen(rows: pa.Table, spine: pa.Table, ttl: int | None) -> list[int]:
    """Return the winning row at each moment, in plain loops."""
    found, stored = [], rows.to_pylist()
    for asked in spine.to_pylist():
        moment, best = asked.pop("t"), -1
        if moment is not None and None not in asked.values():
            mine = [
                i
                for i, row in enumerate(stored)
                if row["t"] is not None and row["t"] <= moment and asked.items() <= row.items()
            ]
            best = max(mine, key=lambda i: (stored[i]["t"], stored[i].get("created", 0), stored[i]["id"]), default=-1)
            if ttl is not None and best >= 0 and moment - stored[best]["t"] > ttl:
                best = -1
        found.append(best)
    return found


@at_least(300)
@given(
    drawn=tables(), ttl=st.none() | st.integers(0, 6) | st.sampled_from([2**61, 8 * 10**19]), share=st.integers(1, 20)
)
def test_the_winning_row_is_found(drawn, ttl, share):
    rows, spine = drawn
    with patch.object(asof, "_PARTITION", share):
        assert asof.nearest(rows, spine, ttl).tolist() == seen(rows, spine, ttl)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(2**63 - 1, (10**6 + 1, 401)), (2**20, (3, 401)), (2**8, (3, 5))],
    ids=["as they are", "keys without gaps", "ranks of times"],
)
def test_numbers_of_63_bits_are_enough(largest, sizes):
    rows = pa.table({"k0": [0, 10**6, 0, 10**6, 5], "t": [0, 3, 200, 400, 10], "id": range(5)})
    spine = pa.table({"k0": [0, 0, 10**6, 10**6, 5, 7], "t": [199, 10**9, 2, 399, 10, 10]})
    with patch.object(asof, "LARGEST", largest), patch.object(numbering, "LARGEST", largest):
        entities, times, _ = asof._numbered(rows, spine, None)  # noqa: SLF001 - which way it took
        assert (entities.size, times.size) == sizes
        assert asof.nearest(rows, spine).tolist() == seen(rows, spine, None) == [0, 2, -1, 1, 4, -1]
        assert asof.nearest(rows, spine, 100).tolist() == seen(rows, spine, 100)


def test_a_null_key_matches_no_key_not_even_zero():
    rows = pa.table({"k0": [0, 1], "t": [1, 1], "id": [0, 1]})
    spine = pa.table({"k0": pa.array([None, 0, 1], pa.int64()), "t": [1, 1, 1]})
    assert asof.nearest(rows, spine).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_text_beyond_the_size_of_one_array_is_numbered_in_large_arrays(kind):
    rows = pa.table({"k0": pa.array(["a", "b", "a"], kind), "t": [1, 2, 3], "id": range(3)})
    spine = pa.table({"k0": pa.array(["a", "c", None, "a", "b"], kind), "t": [2, 9, 9, 3, 2]})
    with patch.object(numbering, "_LONG_TEXT", -1):
        assert asof.nearest(rows, spine).tolist() == [0, -1, -1, 2, 1]
