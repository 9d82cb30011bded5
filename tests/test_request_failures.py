"""Request features fail clearly, and do not depend on more than their inputs or change them."""

from __future__ import annotations

import itertools
import math
import time as clock
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import at_least
from request_oracle import MODES, built, columns, feature, graphs
from seeknal import DataError, DefinitionError, request_feature
from seeknal.request.functions import Functions

MANY = at_least(300)


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
    says = "features:made failed for user=9, mail=***: ZeroDivisionError: no. There, x is int64, name is null."
    with pytest.raises(DataError) as many:
        functions.columns(GIVEN, KEYS)
    with pytest.raises(DataError) as one:
        functions.row({"x": 3, "name": None}, {"user": 9, "mail": SECRET})
    for error in (many, one):
        assert str(error.value) == says
        assert isinstance(error.value.__cause__, ZeroDivisionError)
        assert error.value.function == "features:made"
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
        ([simple(["y"], ["y"], "f")], r"in a circle: features:f -> features:f\. "),
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

COUNTER = itertools.count()


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
    assert (caught.value.output, caught.value.function) == ("y", "features:made")


def test_the_function_that_is_refused_is_the_one_that_depends_on_more_not_one_that_uses_it():
    first = feature(lambda z: z + 1, {"y": "float64"}, "array", name="user")
    second = feature(lambda x: x - x.mean(), {"z": "float64"}, "array", name="mean")
    functions = Functions([first, second], {"x": pa.float64()})
    with pytest.raises(
        DefinitionError, match=r":mean computes z as -0.5 for user=7 among others, and as 0.0 for the same row"
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
    column, addresses = pa.chunked_array([np.arange(1000.0)]), []

    def add(x):
        made = x + 1
        addresses.extend((x.ctypes.data, made.ctypes.data))
        return made

    found = Functions([feature(add, {"y": "float64"}, "array")], {"x": pa.float64()}).columns({"x": column})
    assert addresses == [one.chunk(0).buffers()[1].address for one in (column, found["y"])]


_KEPT, _KEPT_PARTS = np.zeros(2), np.zeros(9)


@request_feature(outputs={"kept": "float64"}, mode="array")
def keeps_its_result(x):
    _KEPT[:] = x * 2
    return _KEPT


@request_feature(outputs={"part": "float64"}, mode="array")
def returns_a_part_of_what_it_keeps(x):
    _KEPT_PARTS[: len(x)] = x * 2
    return _KEPT_PARTS[: len(x)]


def test_a_result_never_changes_after_it_was_returned():
    given = [{"x": pa.chunked_array([pa.array(values)])} for values in ([1.0, 2.0], [5.0, 6.0])]
    parts = Functions([returns_a_part_of_what_it_keeps], {"x": pa.float64()})
    first, second = (parts.columns(one)["part"] for one in given)
    assert (first.to_pylist(), second.to_pylist()) == ([2.0, 4.0], [10.0, 12.0])
    whole = Functions([keeps_its_result], {"x": pa.float64()})
    first = whole.columns(given[0])["kept"]
    with pytest.raises(DataError, match="read-only"):
        whole.columns(given[1])
    assert first.to_pylist() == [2.0, 4.0]
