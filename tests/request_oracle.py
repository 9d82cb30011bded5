"""The rules of request features for one cell, written out: what a function gets for it, or that it is refused."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from inspect import Parameter, Signature
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from seeknal import RequestFeature

MODES = ["row", "array"]
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
ZONES = {
    None: None,
    "UTC": ZoneInfo("UTC"),
    "Asia/Jakarta": ZoneInfo("Asia/Jakarta"),
    "+05:30": timezone(timedelta(hours=5.5)),
}
WHOLES = [pa.type_for_alias(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
TIMES = [
    *(pa.timestamp(unit, zone) for unit in PER_SECOND for zone in ZONES),
    *map(pa.duration, PER_SECOND),
    *(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.date32()),
]
FLAT = [
    *WHOLES,
    *FLOATS,
    *TIMES,
    pa.bool_(),
    pa.string(),
    pa.binary(),
    pa.binary(2),
    pa.decimal128(5, 2),
    pa.decimal128(38, 0),
]
KINDS = [
    *FLAT,
    *map(pa.list_, (pa.int64(), pa.float32(), pa.string(), pa.timestamp("ns"), pa.time64("ns"))),
    pa.list_(pa.float32(), 2),
    pa.struct({"a": pa.int64(), "b": pa.list_(pa.timestamp("us"))}),
    pa.struct({"a": pa.time64("ns")}),
]


def feature(function, outputs, mode="row", inputs=None, name="made"):
    """Return a request feature of a function that is not one of a module, which the rules of running it do not need."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = "features"
    if inputs is not None:
        function.__signature__ = Signature([Parameter(one, Parameter.POSITIONAL_ONLY) for one in inputs])
    return RequestFeature(function, outputs, mode)


def says(error, users):
    assert str(error).startswith("features:made returned ")
    assert error.row is None or f"That was for user={users[error.row]!r}, where x is int64." in str(error)


class Refused(Exception):  # noqa: N818 - no error: what the rules say
    """The rules refuse a value."""


# What a cell is: a number, text or bytes; for a time the number of its units.


def cells(kind):  # noqa: C901, PLR0911 - one for each kind of type
    """Draw what cells of a type hold."""
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        edges = [
            limits.min,
            limits.max,
            limits.max - 1,
            0,
            1,
            *(x for x in (2**53, 2**53 + 1, -(2**53) - 1) if limits.min <= x <= limits.max),
        ]
        return st.sampled_from(edges) | st.integers(int(limits.min), int(limits.max))
    if pa.types.is_floating(kind):
        return st.sampled_from([0.0, -0.0, 0.1, 5.0, math.inf, -math.inf, math.nan]) | st.floats(-1000, 1000)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        unit = PER_SECOND[kind.unit]
        some = st.integers(-(10**9), 10**9).map(lambda seconds: seconds * unit)
        most = 250_000_000_000 * unit if kind.unit in ("s", "ms") else 2**63 - 1  # beyond the year 9999
        return some | st.integers(-(10**6), 10**6) | st.sampled_from([0, 1, -1, 1000, most, -most])
    if pa.types.is_time(kind):
        return st.integers(0, 86_400 * PER_SECOND[kind.unit] - 1) | st.sampled_from([0, 1000])
    if pa.types.is_date(kind):
        return st.integers(-700_000, 2_900_000)
    if pa.types.is_decimal(kind):
        return st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1).map(
            lambda x: Decimal(f"{x}E{-kind.scale}")  # `scaleb` would round to 28 digits
        )
    if pa.types.is_fixed_size_binary(kind):
        return st.binary(min_size=2, max_size=2)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: st.none() | cells(field.type) for field in kind})
    if pa.types.is_fixed_size_list(kind):
        return st.lists(st.none() | cells(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_list(kind):
        return st.lists(st.none() | cells(kind.value_type), max_size=3)
    return {
        pa.bool_(): st.booleans(),
        pa.string(): st.text(st.characters(codec="utf-8"), max_size=4),
        pa.binary(): st.binary(max_size=3),
    }[kind]


def stored(cells_, kind):
    """Return a column of cells, built from Arrow's own storage."""
    if pa.types.is_struct(kind):
        parts = [stored([None if cell is None else cell[field.name] for cell in cells_], field.type) for field in kind]
        return pa.StructArray.from_arrays(
            parts, fields=list(kind), mask=pa.array([cell is None for cell in cells_], pa.bool_())
        )
    if pa.types.is_fixed_size_list(kind):
        inside = [item for cell in cells_ for item in (cell or [None] * kind.list_size)]
        mask = pa.array([cell is None for cell in cells_], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(stored(inside, kind.value_type), type=kind, mask=mask)
    if pa.types.is_list(kind):
        ends = [0, *itertools.accumulate(len(cell or ()) for cell in cells_)]
        inside = stored([item for cell in cells_ for item in cell or ()], kind.value_type)
        mask = pa.array([cell is None for cell in cells_], pa.bool_())
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inside, type=kind, mask=mask)
    if pa.types.is_temporal(kind):
        return pa.array(cells_, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    if pa.types.is_float16(kind):
        return pa.array([None if cell is None else np.float16(cell) for cell in cells_], kind)
    return pa.array(cells_, kind)


@st.composite
def columns(draw, kind, rows):
    """Draw cells of a column, and the column in some chunks."""
    drawn = draw(st.lists(st.none() | cells(kind), min_size=rows, max_size=rows))
    whole = stored(drawn, kind)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    parts = [whole.slice(a, b - a) for a, b in itertools.pairwise([0, *cuts, rows])]
    return drawn, pa.chunked_array(parts if rows or draw(st.booleans()) else [], kind)


# The rules, for one cell.


def as_python(cell, kind):  # noqa: PLR0911 - one for each kind of type
    """Return what a function over rows gets for a cell, or raise Refused."""
    if cell is None or kind in (pa.bool_(), pa.string()) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return cell
    if pa.types.is_floating(kind):
        return float(np.dtype(kind.to_pandas_dtype()).type(cell))
    if pa.types.is_struct(kind):
        return {field.name: as_python(cell[field.name], field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return [as_python(item, kind.value_type) for item in cell]
    if not pa.types.is_temporal(kind):
        return cell
    micros = timedelta(days=cell) if pa.types.is_date(kind) else in_micros(cell, kind)
    try:
        if pa.types.is_date(kind):
            return date(1970, 1, 1) + micros
        if pa.types.is_duration(kind):
            return timedelta(microseconds=micros)
        if pa.types.is_time(kind):
            return (datetime(1970, 1, 1) + timedelta(microseconds=micros)).time()
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        return moment.astimezone(ZONES[kind.tz]) if kind.tz else moment.replace(tzinfo=None)
    except OverflowError:
        raise Refused from None


def in_micros(cell, kind):
    micros, rest = divmod(cell * 10**6, PER_SECOND[kind.unit])
    if rest or not -(2**63) < micros < 2**63:
        raise Refused
    return micros


def as_item(cell, kind):
    """Return what a function over arrays gets for a cell: the type of its array, and its item as a plain value."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_():
        if isinstance(cell, int) and int(float(cell)) != cell:
            raise Refused
        return "float64", math.nan if cell is None else float(as_python(cell, kind))
    if pa.types.is_date(kind):
        return "datetime64[D]", cell
    if pa.types.is_temporal(kind):
        of = "datetime64[us]" if pa.types.is_timestamp(kind) else "timedelta64[us]"
        return of, None if cell is None else in_micros(cell, kind)
    return "object", as_python(cell, kind)


def attempt(rule, cell, kind):
    try:
        return rule(cell, kind)
    except Refused:
        return Refused


def plain(array):
    """Return the type of an array, and its items as plain values: times as their numbers, with None for NaT."""
    items = array.view("int64").tolist() if array.dtype.kind in "Mm" else array.tolist()
    if array.dtype.kind in "Mm":
        items = [None if np.isnat(one) else item for one, item in zip(array, items, strict=True)]
    return str(array.dtype), items


def same(found, expected):
    """Compare values with their types; NaN equals itself, and -0.0 is not 0.0."""
    return repr(found) == repr(expected) and type(found) is type(expected)


# Functions that need each other.


@st.composite
def graphs(draw):
    """Draw functions that need each other, in any order, each with a rule for one row."""
    given_ = {"a": pa.float64(), "b": pa.int32(), "c": pa.bool_(), "unused": pa.string()}
    known, made = ["a", "b", "c"], []
    for place in range(draw(st.integers(0, 5))):
        inputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        names = [f"f{place}_{part}" for part in range(draw(st.integers(1, 3)))]
        kinds = {name: draw(st.sampled_from(["float64", "float32", "int64", "bool"])) for name in names}
        mode, weights = draw(st.sampled_from(MODES)), draw(st.lists(st.integers(-3, 3), min_size=3, max_size=3))
        made.append((place, mode, inputs, kinds, weights, draw(st.sampled_from(["mapping", "tuple"]))))
        known += names
    return given_, draw(st.permutations(made))


def rule_of(values, weights, kind, place):
    """The rule of drawn functions for one row: a weighted sum, in the declared type; null if an input is."""
    if any(value is None or math.isnan(value) for value in values):
        return None
    total = float(place) + sum(weight * value for weight, value in zip(weights, values, strict=False) if weight)
    if math.isnan(total):
        return None
    if kind == "bool":
        return total > 0
    if kind == "int64":
        return int(total) if abs(total) < 2**40 else None
    return float(np.float32(total)) if kind == "float32" else total


def built(place, mode, inputs, kinds, weights, form):
    """Return a drawn function as a request feature."""

    def one(values):
        return [rule_of(values, weights, kind, place) for kind in kinds.values()]

    def over_rows(*values):
        made = one(values)
        return (
            made[0]
            if len(made) == 1
            else dict(reversed(list(zip(kinds, made, strict=True))))
            if form == "mapping"
            else tuple(made)
        )

    def over_arrays(*columns_):
        rows = [one([float(value) for value in values]) for values in zip(*columns_, strict=True)]
        made = [
            np.array([math.nan if value is None else value for value in column], float)
            for column in zip(*rows, strict=True)
        ]
        return (
            made[0]
            if len(made) == 1 and form == "tuple"
            else dict(zip(kinds, made, strict=True))
            if form == "mapping"
            else tuple(made)
        )

    return feature(over_rows if mode == "row" else over_arrays, kinds, mode, inputs, f"f{place}")


def expected_of(row, functions):
    """Return what functions compute for a row, by asking for each output what it needs."""
    by_output = {name: one for one in functions for name in one[3]}

    def value(name):
        if name in row:
            return row[name]
        place, _, inputs, kinds, weights, _ = by_output[name]
        return rule_of([value(one) for one in inputs], weights, kinds[name], place)

    return {name: value(name) for one in functions for name in one[3]}
