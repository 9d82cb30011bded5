"""Request features give the same answers for one row and for many: those of their rules, applied row by row."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contract import values as some
from contract.profiles import at_least
from contract.values import answered, meaning
from request_oracle import (
    FLAT,
    KINDS,
    MODES,
    Refused,
    as_item,
    as_python,
    attempt,
    built,
    columns,
    expected_of,
    feature,
    graphs,
    plain,
    same,
    says,
    stored,
)
from seeknal import DataError
from seeknal.request.functions import Functions

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
    numbers = (
        found.cast(pa.timestamp("s")) if pa.types.is_date(kind) else found
    )  # Python's dates end with the year 9999
    for item, one in zip(array, answered(numbers), strict=True):
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
            if "that Python cannot hold" in str(error):  # Arrow's times go further
                return
            alone.append(Refused)
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
