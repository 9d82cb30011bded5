"""Request features give the same answers for one row and for many: those of their rules, applied row by row."""

from __future__ import annotations

import itertools
import math
import time as clock
import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from inspect import Parameter, Signature
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contract import values as some
from contract.profiles import at_least
from contract.values import answered, meaning
from seeknal import DataError, DefinitionError, RequestFeature
from seeknal.request.functions import Functions

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
    if inputs is not None:
        function.__signature__ = Signature([Parameter(one, Parameter.POSITIONAL_ONLY) for one in inputs])
    return RequestFeature(function, outputs, mode)


def says(error, users):
    assert str(error).startswith("test_request_features:made returned ")
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
            lambda x: Decimal(x).scaleb(-kind.scale)
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


MANY = at_least(300)


@MANY
@given(st.data())
def test_a_function_over_rows_gets_each_value_as_python_has_it_or_is_refused(data):
    kind, rows = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from([0, 1, 2, 5]))
    drawn, column = data.draw(columns(kind, rows))
    got = []
    functions = Functions([feature(lambda x: got.append(x) or 0, {"y": "int8"})], {"x": kind})
    expected = [attempt(as_python, cell, kind) for cell in drawn]
    if Refused in expected:
        with pytest.raises(
            DataError, match=r"made takes Python values, and its x, .*, has one that Python cannot hold"
        ):
            functions.columns({"x": column})
        return
    assert functions.columns({"x": column})["y"].to_pylist() == [0] * rows
    assert same(got, expected)
    got.clear()
    for value in expected:
        assert functions.row({"x": value}) == {"y": 0}
    assert same(got, expected)


@MANY
@given(st.data())
def test_a_function_over_arrays_gets_each_value_in_one_type_of_numpy_or_is_refused(data):
    kind = data.draw(st.sampled_from([kind for kind in KINDS if not pa.types.is_decimal(kind)]))
    rows = data.draw(st.sampled_from([0, 1, 2, 5]))
    drawn, column = data.draw(columns(kind, rows))
    got = []

    def take(x):
        got.append(plain(x))
        assert not x.flags.writeable
        return np.zeros(len(x), "int8")

    functions = Functions([feature(take, {"y": "int8"}, "array")], {"x": kind})
    expected = [attempt(as_item, cell, kind) for cell in drawn]
    if Refused in expected:
        with pytest.raises(DataError, match=r"made takes .*, and its x, .*, has "):
            functions.columns({"x": column})
    else:
        assert functions.columns({"x": column})["y"].to_pylist() == [0] * rows
        assert same(got, [(expected[0][0], [item for _, item in expected])] if rows else [])
    for cell, one in zip(drawn, expected, strict=True):
        got.clear()
        if one is Refused:  # a value that Python does not have comes in no row
            if attempt(as_python, cell, kind) is not Refused:
                with pytest.raises(
                    DataError, match=r"made takes arrays, and its x, .*, has a value that is not exact as"
                ):
                    functions.row({"x": as_python(cell, kind)})
        elif (value := attempt(as_python, cell, kind)) is not Refused:
            functions.row({"x": value})
            assert same(got, [(one[0], [one[1]])])


def without_nan(value):
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


@MANY
@given(st.data())
def test_what_a_function_returns_as_it_came_is_the_column_that_came_with_null_for_nan(data):
    mode, rows = data.draw(st.sampled_from(MODES)), data.draw(st.sampled_from([1, 2, 5]))
    kind = data.draw(st.sampled_from([kind for kind in KINDS if mode == "row" or not pa.types.is_decimal(kind)]))
    drawn, column = data.draw(columns(kind, rows))
    rule = as_python if mode == "row" else as_item
    assume(all(attempt(rule, cell, kind) is not Refused for cell in drawn))
    functions = Functions([feature(lambda x: x, {"y": kind}, mode)], {"x": kind})
    found = functions.columns({"x": column})["y"]
    assert found.type == kind
    assert found.combine_chunks().equals(stored(without_nan(drawn), kind))
    values = [attempt(as_python, cell, kind) for cell in drawn]
    for value, one in zip(values, found, strict=True):
        if value is not Refused:
            assert same(functions.row({"x": value})["y"], one.as_py())


def is_kept(given_, found, kind):
    """Return whether a value of a result is the one that a function returned: floats may be rounded to a float, and 1.0 may be a bool."""
    if given_ == found:
        return True
    if None in (given_, found) or given_[0] != "number":
        return False
    value = given_[1]
    if pa.types.is_boolean(kind):
        return found == ("bool", bool(value)) and value in (0, 1)
    if not pa.types.is_floating(kind) or isinstance(value, str):
        return not pa.types.is_floating(kind) and found[:2] == given_[:2]
    with np.errstate(over="ignore"):
        return found[:2] == meaning(kind.to_pandas_dtype()(float(value)))[:2] and not isinstance(found[1], str)


@MANY
@given(st.data())
def test_an_array_that_is_returned_becomes_the_declared_type_exactly_or_is_refused_by_function_and_row(data):
    dtype = data.draw(arrays.scalar_dtypes())
    array = data.draw(arrays.arrays(dtype, st.integers(1, 4)))
    kind = data.draw(st.sampled_from(FLAT))
    functions = Functions([feature(lambda x: array, {"y": kind}, "array")], {"x": pa.int64()})
    try:
        found = functions.columns(
            {"x": pa.chunked_array([list(range(len(array)))])}, {"user": list("abcd"[: len(array)])}
        )["y"]
    except DataError as error:
        says(error, "abcd")
        return
    assert array.dtype.kind != "c"
    found.combine_chunks().validate(full=True)
    for item, one in zip(array, answered(found), strict=True):
        if array.dtype.kind == "m" and pa.types.is_time(kind) and one is not None:
            one = ("span", one[1])  # noqa: PLW2901 - as they arrive
        assert is_kept(meaning(item), one, kind), (item, one, kind)


@MANY
@given(values=some.columns, kind=st.sampled_from(KINDS))
def test_values_that_are_returned_become_the_declared_type_exactly_or_are_refused_by_function_and_row(values, kind):
    functions = Functions([feature(lambda x: values[x], {"y": kind})], {"x": pa.int64()})
    alone = []
    for row in range(len(values)):
        try:
            alone.append(functions.row({"x": row}, {"user": row})["y"])
        except DataError as error:
            says(error, [row])
            alone.append(Refused)
        except (ValueError, OverflowError):  # beyond the times of Python
            return
    given_ = {"x": pa.chunked_array([list(range(len(values)))])}
    if Refused in alone:
        with pytest.raises(DataError, match="made returned ") as caught:
            functions.columns(given_, {"user": list(range(len(values)))})
        assert alone[caught.value.row] is Refused
        assert f"for user={caught.value.row}, " in str(caught.value)
        return
    found = functions.columns(given_)["y"]
    assert same(found.to_pylist(), alone)
    if not pa.types.is_nested(kind):
        assert all(is_kept(meaning(value), one, kind) for value, one in zip(values, answered(found), strict=True))


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


@MANY
@given(st.data())
def test_functions_run_after_those_that_they_need_and_one_row_gives_what_many_give(data):
    given_, drawn = data.draw(graphs())
    rows = data.draw(st.sampled_from([0, 1, 3]))
    cells_ = {name: data.draw(columns(kind, rows)) for name, kind in given_.items()}
    functions = Functions([built(*one) for one in drawn], given_)
    assert list(functions.outputs) == [name for one in drawn for name in one[3]]
    assert functions.inputs == [name for name in given_ if any(name in one[2] for one in drawn)]

    python = [{name: as_python(cells_[name][0][row], kind) for name, kind in given_.items()} for row in range(rows)]
    expected = [expected_of(row, drawn) for row in python]
    found = functions.columns({name: column for name, (_, column) in cells_.items()})
    assert {name: column.type for name, column in found.items()} == functions.outputs
    assert same([{name: found[name][row].as_py() for name in found} for row in range(rows)], expected)
    before = repr(python)
    assert same([functions.row(row) for row in python], expected)
    assert repr(python) == before

    wanted = data.draw(st.sets(st.sampled_from(list(found) or ["none"])))
    needed = functions.needed(wanted)
    assert wanted - {"none"} <= needed.outputs.keys()
    for row, one in zip(python, expected, strict=True):
        assert same(
            needed.row({name: row[name] for name in needed.inputs}), {name: one[name] for name in needed.outputs}
        )
    everything, names = {name: one for one in drawn for name in one[3]}, list(wanted - {"none"})
    reached = set()
    while names:
        reached.add((one := everything[names.pop()])[0])
        names += [name for name in one[2] if name in everything and everything[name][0] not in reached]
    assert needed.outputs.keys() == {name for one in drawn for name in one[3] if one[0] in reached}


# Errors.

SECRET = "ana@example.com"


def failing(mode, fails, error=ZeroDivisionError("no")):
    """Return functions with one that fails for some values of x."""

    def over_rows(x, name):
        if fails(x):
            raise error
        return 1.0

    def over_arrays(x, name):
        if any(map(fails, x)):
            raise error
        return np.ones(len(x))

    made = feature(over_rows if mode == "row" else over_arrays, {"y": "float64"}, mode)
    return Functions([made], {"x": pa.int64(), "name": pa.string()}, pii=["mail"])


GIVEN = {"x": pa.chunked_array([[1, 2], [3, 4]]), "name": pa.chunked_array([["n", "secret", None, "n"]])}
KEYS = {"user": [7, 8, 9, 10], "mail": pa.chunked_array([[SECRET] * 4])}


@pytest.mark.parametrize("mode", MODES)
def test_an_exception_names_the_function_the_keys_of_the_row_and_the_types_of_its_inputs_but_no_values(mode):
    functions = failing(mode, lambda x: x >= 3)
    says = "test_request_features:made failed for user=9, mail=***: ZeroDivisionError: no. There, x is int64, name is null."
    with pytest.raises(DataError) as many:
        functions.columns(GIVEN, KEYS)
    with pytest.raises(DataError) as one:
        functions.row({"x": 3, "name": None}, {"user": 9, "mail": SECRET})
    for error in (many, one):
        assert str(error.value) == says
        assert isinstance(error.value.__cause__, ZeroDivisionError)
        assert error.value.function == "test_request_features:made"
    assert (many.value.row, one.value.row) == (2, 0)
    with pytest.raises(
        DataError, match=r"made failed for row 2: ZeroDivisionError: no. There, x is int64, name is null"
    ):
        functions.columns(GIVEN)
    with pytest.raises(DataError, match="There, x is int64, name is string"):
        functions.row({"x": 4, "name": "secret"})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through_a_function(mode, error):
    functions = failing(mode, lambda x: x == 1, error)
    for call in (lambda: functions.columns(GIVEN), lambda: functions.row({"x": 1, "name": None})):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_ours_that_a_function_raises_names_the_function_too(mode):
    functions = failing(mode, lambda x: x == 1, DataError("bad"))
    for call in (lambda: functions.columns(GIVEN, KEYS), lambda: functions.row({"x": 1, "name": None}, {"user": 7})):
        with pytest.raises(DataError, match=r"made failed for user=7.*: DataError: bad"):
            call()


def test_an_array_function_that_fails_only_for_all_rows_together_says_so():
    def fail(x):
        if len(x) > 1:
            raise ValueError("many")
        return x

    functions = Functions([feature(fail, {"y": "float64"}, "array")], {"x": pa.int64()})
    with pytest.raises(DataError, match="made failed for no row alone, only for all together: ValueError: many"):
        functions.columns({"x": GIVEN["x"]}, KEYS)


WRONG = {
    "a list": (lambda x: [1.0] * len(x), "returned a list as y, not an array of 4 values, one for each row"),
    "a number": (lambda x: 1.0, "returned a float as y, not an array"),
    "a number of NumPy": (lambda x: np.float64(1), "returned a float64 as y, not an array"),
    "an array without dimensions": (lambda x: np.array(1.0), r"returned an array of shape \(\) as y"),
    "two dimensions": (lambda x: np.ones((len(x), 1)), "returned an array of shape"),
    "too few": (lambda x: x[1:], "returned an array of shape"),
    "too many": (lambda x: np.ones(len(x) + 1), "returned an array of shape"),
    "a masked array": (lambda x: np.ma.masked_equal(x, 1), "returned a MaskedArray as y"),
    "nothing": (lambda x: None, "returned a NoneType as y"),
    "a tuple": (lambda x: (x,), "returned a tuple as y"),
    "another name": (lambda x: {"z": x}, "returned a mapping of z, and declares y"),
    "more names": (lambda x: {"y": x, "z": x}, "returned a mapping of y, z, and declares y"),
    "text": (lambda x: np.array(["a"] * len(x)), "returned <U1 as y, which is declared as double: "),
    "bools": (lambda x: x > 1, "returned bool as y, which is declared as double: a bool is no other type"),
    "moments": (lambda x: x.astype("M8[us]"), "which is declared as double: a moment is no other type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_array_function_that_returns_another_form_is_refused_for_one_row_and_for_many(name):
    function, says = WRONG[name]
    functions = Functions([feature(function, {"y": "float64"}, "array")], {"x": pa.int64()})
    with pytest.raises(DataError, match=says):
        functions.columns({"x": GIVEN["x"]})
    with pytest.raises(DataError, match=says.replace("4 values", "1 values")):
        functions.row({"x": 1})


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"y": 1}, "returned a mapping of y, and declares y, z"),
        ({}, "returned a mapping of nothing, and declares y, z"),
        ((1,), "returned a tuple of 1 values, and declares y, z"),
        ((1, 2, 3), "returned a tuple of 3 values"),
        ([1, 2], "returned one list, and declares y, z. Return a mapping from these names, or a tuple"),
        (5, "returned one int, and declares y, z"),
        ((1, "a"), "returned what does not fit its declared type: z is int64, and 'a' in row 0 does not fit"),
        ((1, 2.5), "and 2.5 in row 0 does not fit: it is not a whole number"),
        ((True, 2), "y is int64, and True in row 0 does not fit"),
        ((2**63, 2), "it is out of range"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_with_the_keys_of_their_row(result, says):
    functions = Functions([feature(lambda x: result, {"y": "int64", "z": "int64"})], {"x": pa.int64()}, pii=["mail"])
    for call in (
        lambda: functions.columns({"x": GIVEN["x"]}, KEYS),
        lambda: functions.row({"x": 1}, {"user": 7, "mail": SECRET}),
    ):
        with pytest.raises(DataError) as caught:
            call()
        assert says in str(caught.value)
        assert str(caught.value).endswith("That was for user=7, mail=***, where x is int64.")


def test_a_struct_is_the_value_of_an_output_and_not_a_mapping_of_outputs():
    kind = pa.struct({"y": pa.int64()})
    functions = Functions([feature(lambda x: {"y": x}, {"y": kind})], {"x": pa.int64()})
    assert functions.row({"x": 5}) == {"y": {"y": 5}}
    assert functions.columns({"x": GIVEN["x"]})["y"].to_pylist() == [{"y": 1}, {"y": 2}, {"y": 3}, {"y": 4}]


def simple(inputs, outputs, name, mode="row"):
    return feature(lambda *values: values[0], dict.fromkeys(outputs, "float64"), mode, inputs, name)


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        (
            [simple(["user_agee"], ["y"], "f")],
            r"f needs 'user_agee', which the view does not have. Did you mean 'user_age'",
        ),
        (
            [simple(["user_age"], ["user_age"], "f")],
            "f computes 'user_age', which is the name of a looked-up feature or request value",
        ),
        (
            [simple(["user_age"], ["y"], "f"), simple(["user_age"], ["y"], "g")],
            "g computes 'y', which is the name of what .*:f computes",
        ),
        ([simple(["y"], ["y"], "f")], r"in a circle: test_request_features:f -> test_request_features:f\. "),
        (
            [
                simple(["c"], ["d"], "h"),
                simple(["b"], ["a"], "f"),
                simple(["a"], ["b"], "g"),
                simple(["b"], ["c"], "i"),
            ],
            r"in a circle: \S+:(f -> \S+:g -> \S+:f|g -> \S+:f -> \S+:g)\. ",
        ),
        (
            [simple(["price"], ["y"], "f", "array")],
            r'f takes arrays, and its price is decimal128\(9, 2\).*Write mode="row"',
        ),
    ],
)
def test_functions_that_do_not_fit_a_view_are_refused(functions, says):
    with pytest.raises(DefinitionError, match=says):
        Functions(functions, {"user_age": pa.int64(), "price": pa.decimal128(9, 2)})


# What depends on more than the inputs.

COUNTER, BUFFER = itertools.count(), np.zeros(10)


def kept(x):
    """Return an array that the next call changes."""
    BUFFER[: len(x)] = x
    return BUFFER[: len(x)]


IMPURE = {
    "the other rows": ("array", lambda x: x - x.mean()),
    "their order": ("array", lambda x: x.cumsum()),
    "their number": ("array", lambda x: np.full(len(x), float(len(x)))),
    "a rank": ("array", lambda x: np.argsort(x).argsort().astype(float)),
    "the row before": ("array", lambda x: np.roll(x, 1)),
    "a counter": ("row", lambda x: next(COUNTER)),
    "chance": ("row", lambda x: np.random.default_rng().random()),
    "chance in arrays": ("array", lambda x: np.random.default_rng().random(len(x))),
    "the time": ("row", lambda x: clock.monotonic_ns() / 1e9),
    "an array that is used again": ("array", kept),
    "null for some": ("array", lambda x: np.where(np.arange(len(x)) == 1, np.nan, x)),
}


@pytest.mark.parametrize("name", IMPURE)
def test_a_function_that_depends_on_more_than_its_own_row_is_refused(name):
    mode, function = IMPURE[name]
    functions = Functions([feature(function, {"y": "float64"}, mode)], {"x": pa.float64()})
    with pytest.raises(
        DefinitionError, match=r"made computes y as .* for row=\d among others, and as .* for the same row alone"
    ) as caught:
        functions.check({"x": pa.chunked_array([[3.0, 1.0], [2.0, 5.0]])})
    assert (caught.value.output, caught.value.function) == ("y", "test_request_features:made")


def test_the_function_that_is_refused_is_the_one_that_depends_on_more_not_one_that_uses_it():
    first = feature(lambda z: z + 1, {"y": "float64"}, "array", name="user")
    second = feature(lambda x: x - x.mean(), {"z": "float64"}, "array", name="mean")
    functions = Functions([first, second], {"x": pa.float64()})
    with pytest.raises(
        DefinitionError, match=":mean computes z as -0.5 for user=7 among others, and as 0.0 for the same row"
    ):
        functions.check({"x": pa.chunked_array([[1.0, 2.0]])}, {"user": [7, 8]})


@MANY
@given(st.data())
def test_functions_of_their_own_row_pass_the_check(data):
    given_, drawn = data.draw(graphs())
    rows = data.draw(st.sampled_from([0, 1, 3]))
    columns_ = {name: data.draw(columns(kind, rows))[1] for name, kind in given_.items()}
    Functions([built(*one) for one in drawn], given_).check(columns_)


# What functions do to their inputs.


def changed(x):
    x[0] = 0
    return x


def test_a_function_cannot_change_its_arrays():
    functions = Functions([feature(changed, {"y": "float64"}, "array")], {"x": pa.float64()})
    for call in (lambda: functions.columns({"x": pa.chunked_array([[1.0]])}), lambda: functions.row({"x": 1.0})):
        with pytest.raises(DataError, match="ValueError: assignment destination is read-only"):
            call()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_function_does_to_a_list_is_seen_by_no_other_function_and_not_by_the_caller(mode):
    def longer(x):
        for one in [x] if mode == "row" else x:
            one.append(9)
        return len(x) if mode == "row" else np.array([len(one) for one in x])

    def length(x):
        return len(x) if mode == "row" else np.array([len(one) for one in x])

    made = [feature(longer, {"a": "int64"}, mode, name="a"), feature(length, {"b": "int64"}, mode, name="b")]
    functions = Functions(made, {"x": pa.list_(pa.int64())})
    row = {"x": [1, 2]}
    assert functions.row(row) == {"a": 3, "b": 2}
    assert row == {"x": [1, 2]}
    found = functions.columns({"x": pa.chunked_array([[[1, 2], []]])})
    assert {name: column.to_pylist() for name, column in found.items()} == {"a": [3, 1], "b": [2, 0]}
    functions.check({"x": pa.chunked_array([[[1, 2], []]])})


def test_division_by_zero_is_no_warning_and_gives_an_infinite_number_or_null():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        functions = Functions([feature(lambda x: x / (x - x), {"y": "float64"}, "array")], {"x": pa.int64()})
        assert functions.columns({"x": pa.chunked_array([[0, 1, -1, None]])})["y"].to_pylist() == [
            None,
            math.inf,
            -math.inf,
            None,
        ]
        assert [functions.row({"x": x})["y"] for x in (0, 1, -1, None)] == [None, math.inf, -math.inf, None]


def test_a_function_over_arrays_is_called_once_and_for_no_rows_not_at_all():
    calls = []
    functions = Functions([feature(lambda x: calls.append(len(x)) or x, {"y": "float64"}, "array")], {"x": pa.int64()})
    functions.columns({"x": GIVEN["x"]})
    assert functions.columns({"x": pa.chunked_array([], pa.int64())})["y"].equals(pa.chunked_array([], pa.float64()))
    assert calls == [4]


def test_numbers_without_nulls_reach_a_function_and_its_column_without_a_copy():
    column = pa.chunked_array([np.arange(1000.0)])
    found = Functions([feature(lambda x: x, {"y": "float64"}, "array")], {"x": pa.float64()}).columns({"x": column})
    assert found["y"].chunk(0).buffers()[1].address == column.chunk(0).buffers()[1].address
