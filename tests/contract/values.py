"""Python values of every kind that a column may get, and a form in plain Python that tells different values apart."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from dateutil.tz import tzoffset
from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400 * 10**9
ZONES = [None, None, UTC, ZoneInfo("Asia/Jakarta"), timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(0))]
ODD_ZONES = [timezone(timedelta(seconds=19)), tzoffset("IST", 19800)]

wholes = st.sampled_from(
    [0, 1, -1, 127, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**400]
)
floats = st.sampled_from([0.0, -0.0, 0.5, 0.1, 5.0, 2.0**53, 1e300, 5e-324, inf, -inf, nan])
decimals = st.sampled_from(
    ["0", "-0.0", "0E-9", "1.10", "12.5", "9.99", "1E+3", "1E-30", "9" * 30, "1E+40", "NaN", "Infinity"]
)
dates = st.sampled_from([date(1970, 1, 1), date(2024, 2, 29), date.min, date.max])
moments = st.builds(
    lambda moment, zone: moment.replace(tzinfo=zone),
    st.sampled_from([datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(2024, 5, 1), datetime(2024, 5, 1, 18, 0, 0, 1),
                     datetime(1500, 1, 1)]),
    st.sampled_from(ZONES + ODD_ZONES),
)  # fmt: skip
stamps = st.builds(
    lambda text, zone: pd.Timestamp(text, tz=zone),
    st.sampled_from(["2024-05-01", "2024-05-01 18:00:00.123456789", "1969-12-31 23:59:59.999999999"]),
    st.sampled_from([*ZONES, "America/New_York"]),
)
numpy_times = st.sampled_from(
    [np.datetime64("2024-05-01"), np.datetime64("2024-05"), np.datetime64("NaT"), np.datetime64("2024-05-01T18:00:00.5"),
     np.datetime64("2024-05-01T00:00:00.000000001"), np.datetime64(1, "ps"), np.datetime64(10**17, "s")]
)  # fmt: skip
clocks = st.sampled_from([time(0), time(23, 59, 59, 999_999), time(12, tzinfo=UTC)])
spans = st.sampled_from(
    [timedelta(0), timedelta(microseconds=-1), timedelta.max, pd.Timedelta(1, "ns"), np.timedelta64(5, "m"),
     np.timedelta64(1, "M"), np.timedelta64("NaT")]
)  # fmt: skip
texts = st.sampled_from(["", "a", "NaN", "1", "é\x00\U0001f600", "2024-05-01", "\ud800", np.str_("n")])
raw = st.sampled_from([b"", b"\x00\xff", bytearray(b"b"), memoryview(b"m"), np.bytes_(b"n")])
bools = st.sampled_from([True, False, np.True_])
numbers = st.sampled_from(
    [np.int8(1), np.int64(-5), np.uint64(2**64 - 1), np.float32(0.1), np.float16(0.5), np.float64(nan)]
)
missing = st.sampled_from([None, None, None, nan, pd.NaT, pd.NA])
others = st.sampled_from([1j, object(), int, Decimal, ..., np.longdouble(1), np.array(5), pd.Period("2024"), {1: 2}, {"": 3}, {"a\0": 1},
                          {"\ud800": 1}])  # fmt: skip
arrays = st.sampled_from(
    [np.array([1, 2]), np.array([0.5, nan]), np.array([], "float32"), np.array(["a", None], object), np.array([[1], [2]]),
     np.array(["2024-05-01T00:00:00.000000001"], "M8[ns]"), np.array([True]), np.array([1], ">i4")]
)  # fmt: skip

plain = [
    wholes,
    floats,
    decimals.map(Decimal),
    dates,
    moments,
    stamps,
    numpy_times,
    clocks,
    spans,
    texts,
    raw,
    bools,
    numbers,
]


def nested(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw lists and mappings of values."""
    return st.one_of(
        st.lists(of, max_size=2),
        st.lists(of, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b"]), of, max_size=2),
        arrays,
    )


one_kind = st.sampled_from(plain)
two_kinds = st.tuples(one_kind, one_kind).map(lambda pair: st.one_of(*pair))
times = st.one_of(dates, moments, stamps, numpy_times)
kinds = st.one_of(one_kind, one_kind, two_kinds, st.just(times), st.just(others), one_kind.map(nested))
columns = kinds.flatmap(lambda values: st.lists(st.one_of(values, values, values, missing), min_size=1, max_size=5))
"""Values of one column: mostly of one kind, now and then of two, with nulls between."""


def is_missing(value: object, *, nan_too: bool = True) -> bool:
    """Return whether a value is null; in a pandas column, NaN is null too."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, Decimal):
        return nan_too and value.is_nan()
    return nan_too and isinstance(value, float | np.floating) and bool(value != value)  # noqa: PLR0124 - NaN is not itself


def meaning(value: Any, *, nan_too: bool = True) -> Any:  # noqa: PLR0911 - one for each kind of value
    """Return what a value is, so that those which are equal are the same value: its kind, and a number or a text."""
    if is_missing(value, nan_too=nan_too):
        return None
    if isinstance(value, bool | np.bool_):
        return ("bool", bool(value))
    if isinstance(value, date | np.datetime64):
        return ("moment", nanos(value))
    if isinstance(value, time):
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return ("time", seconds * 10**9 + value.microsecond * 1000, value.tzinfo)
    if isinstance(value, timedelta | np.timedelta64):
        return ("span", nanos(value))
    if isinstance(value, int | np.integer | Decimal | float | np.floating):
        return number(value)
    if isinstance(value, str):
        return ("text", str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return ("bytes", bytes(value))
    if isinstance(value, dict):
        return (
            "mapping",
            {name: found for name, one in value.items() if (found := meaning(one, nan_too=nan_too)) is not None},
        )
    return ("list", [meaning(one, nan_too=nan_too) for one in value])


def number(value: Any) -> Any:
    if isinstance(value, Decimal | int | np.integer) or np.isfinite(value):
        plain = (
            int(value) if isinstance(value, np.integer) else float(value) if isinstance(value, np.floating) else value
        )
        sign = isinstance(plain, float) and str(plain) == "-0.0"
        return ("number", Fraction(plain), "-0.0" if sign else "")
    return ("number", str(float(value)), "")


def nanos(value: Any) -> int:
    """Count nanoseconds, since 1970 for a moment."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit = np.datetime_data(value.dtype)[0]
        if unit in "YM":
            return nanos(value.astype("datetime64[D]"))
        size = {"W": 7 * DAY, "D": DAY, "h": DAY // 24, "m": DAY // 1440, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[
            unit
        ]
        return int(value.astype("int64")) * size
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000 + getattr(value, "nanoseconds", 0)
    if isinstance(value, datetime):
        whole = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        aware = whole if whole.tzinfo else whole.replace(tzinfo=UTC)
        return (aware - EPOCH) // timedelta(microseconds=1) * 1000 + getattr(value, "nanosecond", 0)
    return (datetime(value.year, value.month, value.day, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) * 1000


def answered(column: pa.ChunkedArray) -> list[Any]:
    """Return what the values of a column of Arrow are; moments by their numbers, since Python cuts nanoseconds."""
    return [_in_arrow(one, column.type) for one in column]


_LISTS = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view


def _in_arrow(one: pa.Scalar, kind: pa.DataType) -> Any:  # noqa: PLR0911 - one for each kind of type
    if not one.is_valid:
        return None
    if pa.types.is_dictionary(kind):
        return _in_arrow(one.value, kind.value_type)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        size = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[kind.unit]
        return ("moment" if pa.types.is_timestamp(kind) else "span", one.value * size)
    if pa.types.is_struct(kind):
        found = {field.name: _in_arrow(one[field.name], field.type) for field in kind}
        return ("mapping", {name: value for name, value in found.items() if value is not None})
    if any(test(kind) for test in _LISTS):
        return ("list", [_in_arrow(item, kind.value_type) for item in one.values])
    if pa.types.is_time(kind):
        return ("time", one.value * {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[kind.unit], None)
    return meaning(one.as_py(), nan_too=False)


def _of(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array(values, kind)


LEAVES = [
    *(_of(kind, 1, None) for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64())),
    *(_of(kind, "é\x00", None) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *(_of(kind, b"ab", None) for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2))),
    *(_of(kind, date(2024, 5, 1), None) for kind in (pa.date32(), pa.date64())),
    *(_of(kind, time(12), None) for kind in (pa.time32("s"), pa.time64("ns"))),
    *(_of(kind, Decimal("1.5"), None) for kind in (pa.decimal32(3, 1), pa.decimal128(38, 9), pa.decimal256(60, 2))),
    *(pa.array([1, None]).cast(pa.timestamp(unit, zone)) for unit in ("s", "ns")
      for zone in (None, "UTC", "Z", "+05:30", "+0530", "-03", "IST", "Nowhere/Land", "localtime", "Asia/Jakarta")),
    *(pa.array([1, None]).cast(pa.duration(unit)) for unit in ("s", "ns")),
    *(pa.array([True, None]), pa.nulls(2), pa.array([pa.MonthDayNano([1, 2, 3]), None])),
    *(pa.RunEndEncodedArray.from_arrays([1, 2], ["a", None]), _of(pa.binary(16), b"a" * 16, None).cast(pa.uuid())),
    pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
]  # fmt: skip


def _layouts(inside: st.SearchStrategy[pa.Array]) -> st.SearchStrategy[pa.Array]:
    """Put arrays of two values into lists, structs and categories of every layout, two values again."""
    return st.one_of(
        inside.map(lambda x: pa.ListArray.from_arrays([0, 2, 2], x)),
        inside.map(lambda x: pa.LargeListArray.from_arrays([0, 1, 2], x)),
        inside.map(lambda x: pa.FixedSizeListArray.from_arrays(x, 1)),
        inside.map(lambda x: pa.ListViewArray.from_arrays(pa.array([0, 1], "int32"), pa.array([1, 1], "int32"), x)),
        inside.map(lambda x: pa.DictionaryArray.from_arrays(pa.array([1, 0], "int8"), x)),
        st.tuples(inside, st.sampled_from(["a", "a b", "", "a\0", "select", "é", "."])).map(
            lambda pair: pa.StructArray.from_arrays([pair[0], pa.array([1, 2])], [pair[1], "A1"])
        ),
    )


arrow = st.recursive(st.sampled_from(LEAVES), _layouts, max_leaves=3)
"""Columns of Arrow, two values long, of all layouts and types."""
