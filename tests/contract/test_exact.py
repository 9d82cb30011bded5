"""Every value arrives exactly, or is refused by an error of Seeknal's: whatever Python has, wherever it comes in or goes out."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB, SeeknalError
from seeknal.values import exact
from seeknal.values.exact.moments import nanoseconds

from . import values as some
from .profiles import PROFILE
from .values import answered, meaning
from .world import NOON, group, look, rows, write

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
_names = (f"g{number}" for number in count())
MANY = settings(PROFILE, max_examples=20 * PROFILE.max_examples)
TYPES = [
    *map(pa.type_for_alias, ("int8", "uint8", "int64", "uint64", "float16", "float32", "float64", "bool", "string", "binary", "date32")),
    *(pa.timestamp(unit, zone) for unit in ("s", "us", "ns") for zone in (None, "Asia/Jakarta")),
    *(pa.duration(unit) for unit in ("s", "us", "ns")),
    *(pa.time32("s"), pa.time64("us"), pa.time64("ns"), pa.binary(2)),
    *(pa.decimal128(3, 1), pa.decimal128(38, 9), pa.list_(pa.int64()), pa.list_(pa.float32(), 2)),
    *(pa.list_(pa.timestamp("ns")), pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())})),
]  # fmt: skip


def meanings(values, *, nan_too=True) -> list[Any]:
    return [meaning(value, nan_too=nan_too) for value in values]


def says(error: DataError, beginning: str, count: int | None = None) -> None:
    assert str(error).startswith(beginning)
    assert count is None or 0 <= error.row < count


def objects(values) -> pd.Series:
    column = np.empty(len(values), object)
    column[:] = [None] * len(values)
    for i, value in enumerate(values):
        column[i] = value
    return pd.Series(column, dtype=object)


@MANY
@given(values=some.columns)
def test_objects_become_a_column_of_exactly_these_values_or_are_refused_by_name_and_row(values):
    try:
        column = exact.series("x", objects(values))
    except DataError as error:
        says(error, "Column 'x' cannot be read: ", len(values))
        return
    column.validate(full=True)
    assert answered(column) == meanings(values)


@MANY
@example(values=[[-0.0]], kind=pa.list_(pa.int64()))
@given(values=some.columns, kind=st.sampled_from(TYPES))
def test_values_fit_a_known_type_exactly_or_are_refused_by_name_and_row(values, kind):
    try:
        column = exact.column("x", values, kind)
    except DataError as error:
        says(error, f"x is {kind}, and ", len(values))
        return
    column.validate(full=True)
    assert column.type == kind
    assert answered(column) == rounded(values, kind)


def sent(values) -> list[Any]:
    """Return values as a server gets them from a client."""
    text = msgspec.msgpack.encode([exact.packed(value) for value in values])
    return msgspec.msgpack.decode(text, ext_hook=exact.unpacked)


def outcome(read: Callable[..., Any], values, kind) -> Any:
    try:
        return answered(read("x", values, kind))
    except (DataError, ValueError):  # the second of values that cannot be sent, which the client names
        return "refused"


@MANY
@given(values=some.columns, kind=st.sampled_from(TYPES))
def test_values_that_a_client_sends_are_taken_and_refused_as_they_are_without_it(values, kind):
    for read in (exact.column, exact.read_keys):
        own = outcome(read, values, kind)
        assert outcome(lambda name, given, kind, read=read: read(name, sent(given), kind), values, kind) == own


@MANY
@given(column=some.arrow)
def test_scalars_of_arrow_become_exactly_what_their_column_has_or_are_refused(column):
    scalars = list(column)
    own = outcome(lambda name, values, _: exact.column(name, values), scalars, None)
    if own != "refused":
        assert own == answered(column)
    assert outcome(lambda name, values, _: exact.column(name, sent(values)), scalars, None) == own


BEYOND_PYTHON = [
    pa.array([123_456_789]).cast(pa.time64("ns")),
    pa.array([10**7], pa.int32()).cast(pa.date32()),
    pa.array([2**40]).cast(pa.timestamp("s", "UTC")),
]


@pytest.mark.parametrize("values", BEYOND_PYTHON, ids=lambda values: str(values.type))
def test_scalars_of_arrow_that_python_cannot_hold_stay_exact_in_lists_and_beside_other_nulls(values):
    lists, nulls = pa.ListArray.from_arrays([0, 1], values), [pa.scalar(None, pa.int64()), None]
    structs = pa.StructArray.from_arrays([lists], ["a"])
    categories = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values)
    for column in (values, lists, structs, categories):
        kind = column.type.value_type if column is categories else column.type
        for scalars in ([column[0], *nulls], sent([column[0], *nulls])):
            found = exact.column("x", scalars, kind).combine_chunks()
            assert found.equals(pa.concat_arrays([values if column is categories else column, pa.nulls(2, kind)]))


class Color(str, Enum):  # noqa: UP042 - not StrEnum, whose `str` is its content
    RED = "red"


class Level(IntEnum):
    HIGH = 2**63


class Label(str):
    __slots__ = ()

    def __str__(self) -> str:
        return f"<{super().__str__()}>"


class Whole(int):
    __int__ = __str__ = __repr__ = lambda self: "no number"


class Real(float):
    __float__ = __str__ = __repr__ = lambda self: "no number"


class Amount(Decimal):
    __str__ = __repr__ = __int__ = lambda self: "no number"


class Raw(bytes):
    def __bytes__(self) -> bytes:
        return b"other"


class Moment(datetime):
    __sub__ = replace = lambda self, *_, **__: None


class Day(date):
    def toordinal(self) -> int:
        return 1


class Span(timedelta):
    def __floordiv__(self, _):
        return 1


OWN_CLASSES = [
    (Color.RED, "red"),
    (Level.HIGH, 2**63),
    (Label("a"), "a"),
    (Whole(5), 5),
    (Whole(2**63), 2**63),
    (Real(0.5), 0.5),
    (Amount("1.10"), Decimal("1.10")),
    (Raw(b"raw"), b"raw"),
    (Moment(2024, 5, 1, 12), datetime(2024, 5, 1, 12)),
    (Moment(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 12, tzinfo=UTC)),
    (Day(2024, 5, 1), date(2024, 5, 1)),
    (Span(seconds=1), timedelta(seconds=1)),
]


@pytest.mark.parametrize(("value", "plain"), OWN_CLASSES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "wrap", [lambda one: one, lambda one: [one], lambda one: {"a": one}, lambda one: {Color.RED: {Label("a"): one}}]
)
def test_a_value_of_a_subclass_is_its_content_whatever_its_methods_return(value, plain, wrap):
    expected = exact.column("x", [wrap(plain)])
    assert exact.column("x", [wrap(value)]).equals(expected)
    assert exact.column("x", [wrap(value), None], expected.type).slice(0, 1).equals(expected)
    assert exact.column("x", sent([wrap(value)])).equals(expected)
    assert exact.series("x", objects([wrap(value)])).equals(expected)


class Offset(tzinfo):
    """A zone with an offset and without a name."""

    def utcoffset(self, _):
        return timedelta(hours=7)


def nameless() -> ZoneInfo:
    # The content of a file of version 1 for a zone that is UTC always.
    return ZoneInfo.from_file(
        io.BytesIO(b"TZif" + b"\0" * 16 + bytes([0, 0, 0, 0] * 4 + [0, 0, 0, 1, 0, 0, 0, 4]) + b"\0" * 6 + b"UTC\0")
    )


@pytest.mark.parametrize("zone", [nameless(), Offset(), tzinfo()], ids=["of a file", "of a class", "without an offset"])
def test_a_moment_in_a_zone_without_a_name_is_exact_in_a_known_type_and_else_refused(zone):
    moment, kind = datetime(2024, 5, 1, tzinfo=zone), pa.timestamp("us", "UTC")
    known = outcome(exact.column, [None, moment], kind)
    assert known == ("refused" if type(zone) is tzinfo else [None, ("moment", nanoseconds(moment))])
    assert outcome(lambda *given: exact.column(given[0], sent(given[1]), given[2]), [None, moment], kind) == known
    for read in (
        exact.read_keys,
        lambda name, values, _: exact.column(name, values),
        lambda name, values, _: exact.series(name, objects(values)),
    ):
        with pytest.raises(
            DataError, match=r"in row 1 .*has a zone (that cannot be read back.*astimezone|without an offset)"
        ):
            read("x", [None, moment], kind)
    frame = pd.Series(pd.to_datetime(["2024-05-01"])).dt.tz_localize(zone) if type(zone) is ZoneInfo else None
    if frame is not None:
        with pytest.raises(DataError, match=r"zone .* cannot be read back.*tz_convert"):
            exact.series("x", frame)
        assert exact.series("x", frame.dt.tz_convert("UTC")).to_pylist() == [moment]


def test_a_key_beyond_its_type_has_one_type_whether_it_came_from_numpy_or_over_http():
    for value in (np.uint8(200), np.int16(200), np.uint64(200), 200, pa.scalar(200, pa.uint8())):
        assert (
            exact.read_keys("x", [value], pa.int8()).type
            == exact.read_keys("x", sent([value]), pa.int8()).type
            == pa.int64()
        )


@pytest.mark.parametrize("kind", [None, pa.decimal128(38, 9)], ids=str)
@pytest.mark.parametrize("exponent", [-999_999_999, 999_999_999])
def test_a_decimal_far_beyond_all_digits_is_refused_and_a_zero_of_such_an_exponent_is_zero(kind, exponent):
    with pytest.raises(DataError):
        exact.column("x", [Decimal(f"1E{exponent}")], kind)
    assert exact.column("x", [Decimal(f"0E{exponent}"), Decimal(5)], kind).to_pylist() == [0, 5]


def rounded(values, kind) -> list[Any]:
    """Return what the values are once floats are rounded as a user expects, the nearest float of the type."""
    return meanings([fitted(value, kind) for value in values], nan_too=False)


def fitted(value, kind) -> Any:
    if some.is_missing(value, nan_too=False):
        return None
    if pa.types.is_floating(kind):
        return kind.to_pandas_dtype()(value)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return [fitted(one, kind.value_type) for one in value]
    if pa.types.is_struct(kind):
        return {name: fitted(one, kind.field(name).type) for name, one in value.items()}
    is_zero = isinstance(value, float | np.floating) and value == 0
    return 0 if is_zero and pa.types.is_integer(kind) else value  # whole numbers have no -0.0


def comes_out_of_duckdb(ask: Callable[[], Any], count: int) -> None:
    """Check that DuckDB gets all rows, or that the column with nanoseconds that it cannot hold is named."""
    try:
        assert len(ask()) == count
    except DataError as error:
        says(error, "Column 'x'")
        assert "is not exact in duckdb" in str(error)  # noqa: PT017 - it need not be raised


@PROFILE
@given(values=some.columns)
def test_what_is_written_comes_out_of_every_output_as_it_went_in(home, values):
    fg = group(next(_names))
    users = list(range(len(values)))
    frame = pd.DataFrame({"user_id": users, "at": [NOON] * len(values), "x": objects(values)})
    try:
        write(fg, frame)
    except DataError:
        return
    expected = meanings(values)
    past, spine = HistoricalFeaturesDuckDB([FeatureLookup(fg)]), frame[["user_id", "at"]]
    online = past.serve(name=next(_names))
    keys = [{"user_id": user} for user in users]
    assert answered(look(fg, spine, output="arrow")["x"]) == expected
    assert (
        answered(look(fg, spine, output="polars").to_arrow()["x"].cast(past.to_dataframe(output="arrow")["x"].type))
        == expected
    )
    assert answered(online.get_features(keys, "arrow")["x"]) == expected
    assert len(look(fg, spine, output="pandas")) == len(values)
    comes_out_of_duckdb(lambda: look(fg, spine, output="duckdb"), len(values))
    for output in ("pandas", "polars", "dicts"):
        assert len(online.get_features(keys, output)) == len(values)


@PROFILE
@given(first=some.arrow, second=some.arrow)
def test_columns_of_arrow_come_out_of_every_output_as_they_went_in(home, first, second):
    """Frames that are put together have chunks of their own, which may be slices, and categories of their own in each."""
    again = [second] if first.type == second.type else [first.slice(1), first.slice(0, 1)]
    table = pa.table({"x": pa.chunked_array([first, *again])})
    table = table.append_column("user_id", pa.array(range(4))).append_column("at", pa.array([NOON] * 4))
    fg = group(next(_names))
    try:
        write(fg, table)
    except DataError as error:
        says(error, "Column 'x'")
        return
    expected = answered(table["x"])
    past = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(table.select(["user_id", "at"]), "at")
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(name=next(_names))
    assert answered(past.to_dataframe(output="arrow")["x"]) == expected
    assert answered(online.get_features(table.select(["user_id"]), "arrow")["x"]) == expected
    for output in ("pandas", "polars"):
        assert len(past.to_dataframe(output=output)) == 4
    comes_out_of_duckdb(lambda: past.to_dataframe(output="duckdb"), 4)
    for output in ("pandas", "polars", "dicts"):
        assert len(online.get_features(table.select(["user_id"]), output)) == 4


@PROFILE
@given(values=some.columns, kind=st.sampled_from(TYPES))
def test_what_is_pushed_is_stored_exactly_or_not_at_all(home, values, kind):
    fg = group(next(_names))
    write(fg, rows(None, user=-1).set_column(2, "x", pa.nulls(1, kind)))
    try:
        fg.push([{"user_id": user, "at": NOON, "x": value} for user, value in enumerate(values)])
    except DataError:
        assert len(HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe(output="arrow")) == 1
        return
    spine = pa.table({"user_id": list(range(len(values))), "at": [NOON] * len(values)})
    assert answered(look(fg, spine)["x"]) == rounded(values, kind)


@PROFILE
@given(events=st.lists(some.times, min_size=1, max_size=4), asked=st.lists(some.times, min_size=1, max_size=4))
def test_an_event_of_any_form_is_seen_from_its_moment_on_and_never_before(home, events, asked):
    fg = group(next(_names))
    frame = pd.DataFrame({"user_id": range(len(events)), "at": objects(events), "x": range(len(events))})
    try:
        write(fg, frame)
        found = [
            look(fg, pd.DataFrame({"user_id": [user] * len(asked), "at": objects(asked)})) for user in frame["user_id"]
        ]
    except DataError:
        return
    for event, answer in zip(events, found, strict=True):
        first = -(-some.nanos(event) // 1000)
        seen = [not some.is_missing(moment) and some.nanos(moment) // 1000 >= first for moment in asked]
        assert answer["x"].notna().tolist() == seen


@PROFILE
@given(stored=some.columns, asked=some.columns)
def test_a_key_finds_its_own_row_and_no_other_or_is_refused(home, stored, asked):
    fg = group(next(_names))
    once = [value for i, value in enumerate(stored) if not some.is_missing(value) and value_is_new(stored, i)]
    frame = pd.DataFrame({"user_id": objects(once), "at": [NOON] * len(once), "x": range(len(once))})
    try:
        write(fg, frame)
        online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve(name=next(_names))
    except SeeknalError:
        return
    places = {repr(meaning(value)): i for i, value in enumerate(once)}
    spine = pd.DataFrame({"user_id": objects(asked), "at": [NOON] * len(asked)})
    for ask in (
        partial(online.get_features, [{"user_id": key} for key in asked], "arrow"),
        partial(look, fg, spine, output="arrow"),
    ):
        try:
            found = ask()["x"].to_pylist()
        except SeeknalError:
            continue
        assert found == [places.get(repr(meaning(key))) for key in asked]


def value_is_new(values, i) -> bool:
    try:
        return all(meaning(values[i]) != meaning(value) for value in values[:i] if not some.is_missing(value))
    except (TypeError, KeyError, ValueError, OverflowError):
        return True
