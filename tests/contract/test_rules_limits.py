"""Rule 10: a time value is unchanged in every kind of frame, or its column is refused by name."""

from __future__ import annotations

import pyarrow as pa
import pytest

from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB
from seeknal.values import frames

from .world import NOON, group, history, rows, written

MOST = 2**63 - 1
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
KINDS = [pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "UTC")]
KINDS += [pa.duration(unit) for unit in UNITS] + [pa.date32()]
TIMES = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]


def of(kind: pa.DataType, number: int) -> pa.Array:
    """Return a value of a type, even one that libraries cannot create."""
    whole = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.Array.from_buffers(kind, 1, [None, pa.array([number], whole).buffers()[1]])


def number_in(found: pa.Array, kind: pa.DataType) -> int | None:
    """Return the number of a value in units of a type; None for null."""
    whole = found.view(pa.int32() if found.type.bit_width == 32 else pa.int64())[0].as_py()
    if whole is None or not hasattr(kind, "unit"):
        return whole
    numbers = whole * UNITS[kind.unit]
    return numbers // UNITS[found.type.unit] if numbers % UNITS[found.type.unit] == 0 else None


def numbers(kind: pa.DataType) -> list[int]:
    if kind in TIMES:
        day = 86_400 * UNITS[kind.unit]
        return [0, 1, day - 1, day, day + 1, -1]
    if kind == pa.date32():
        return [2**31 - 1, 2**31 - 2, -(2**31), -(2**31) + 1, -(2**31) + 2, 0, 20_000, 10**7]
    return [MOST, MOST - 1, -MOST - 1, -MOST, -MOST + 1, 0, 1, -1, 1001, 2**60, 2**53 + 1, -(2**62)]


@pytest.mark.parametrize("is_inside", [False, True], ids=["alone", "in a list"])
@pytest.mark.parametrize("output", ["pandas", "polars", "duckdb"])
@pytest.mark.parametrize("kind", [*KINDS, *TIMES], ids=str)
def test_a_time_comes_out_as_the_same_number_or_is_refused_by_name(kind, output, is_inside):
    for number in numbers(kind):
        value = of(kind, number)
        column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), value) if is_inside else value
        try:
            answer = frames.from_arrow(pa.table({"x": column}), output)
        except DataError as error:
            assert "'x'" in str(error)  # noqa: PT017 - either is right
            assert number != 0
            continue
        if output == "duckdb":
            ((text,),) = answer.project("CAST(x AS VARCHAR)").fetchall()
            assert "infinity" not in text
            if "24:00" in text:
                assert number == 86_400 * UNITS[kind.unit]
                continue  # a time to DuckDB, and none to Arrow
            if pa.types.is_duration(kind):
                assert number * 10**6 % UNITS[kind.unit] == 0
                continue  # an interval, of which Arrow has no equal
        if output == "pandas" and is_inside and kind == pa.time64("ns") and number % 1000:
            continue  # Python's own time ends at microseconds, as the page on types says
        found = frames.to_arrow(answer)["x"].combine_chunks()
        assert number_in(found.flatten() if is_inside else found, kind) == number


@pytest.mark.parametrize("kind", TIMES, ids=str)
def test_a_time_beyond_one_day_is_refused_at_the_write_and_the_push(kind):
    day = 86_400 * UNITS[kind.unit]
    fg = written(rows(None).set_column(2, "x", of(kind, day - 1)))
    for number in (day, -1):
        frame = rows(None).set_column(2, "x", of(kind, number))
        for store in (
            lambda frame=frame: fg.set_dataframe(frame).write(mode="append"),
            lambda frame=frame: fg.push(frame),
        ):
            with pytest.raises(DataError, match=r"'x'.*24:00"):
                store()
    assert len(history(fg)) == 1


EMPTY = [(pa.binary(0), b""), (pa.list_(pa.int64(), 0), []), (pa.list_(pa.binary(0)), [b""])]


@pytest.mark.parametrize(("kind", "value"), EMPTY, ids=str)
def test_a_type_that_has_only_empty_values_is_refused_before_anything_is_stored(kind, value, tmp_path):
    column = pa.array([value], kind)
    with pytest.raises(DataError, match=r"'x'.*empty"):
        group("new").set_dataframe(rows(None).set_column(2, "x", column)).write()
    fg = written(rows(1))
    spine = pa.table({"user_id": [1], "at": [NOON], "kept": column})
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(spine, "at")
    assert hist.to_dataframe()["kept"].to_pylist() == [value]
    with pytest.raises(DataError, match=r"'kept'.*Parquet.*empty"):
        hist.to_parquet(tmp_path / "out.parquet")
    with pytest.raises(DataError, match=r"'kept'.*empty"):
        hist.save("may", rows=True)
    assert not (tmp_path / "out.parquet").exists()
