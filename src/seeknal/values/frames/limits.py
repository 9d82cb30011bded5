"""Checks for times that a library would silently change: those outside its range, or finer than its unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values.casting import leaves

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST, _MOST_DAYS = 2**63 - 1, 2**31 - 1
_FIRST_IN_DUCKDB = {"us": -9_223_372_022_400_000_000, "ns": -9_223_286_400_000_000_000}
"""The first midnight that DuckDB can represent, in microseconds and in nanoseconds."""
Range = tuple[int, int, int]
"""The numbers of a time type that are allowed: the least, the greatest, and the number of which all are multiples."""


def check(table: pa.Table, kind: str) -> None:
    """Check that every time in a table is exact in a kind of frame.

    Raises:
        DataError: A time would change; the message names its column.
    """
    for field, column in zip(table.schema, table.columns, strict=True):
        for chunk in column.chunks if any(word in str(field.type) for word in ("time", "date", "duration")) else ():
            for leaf in leaves(chunk):
                if (number := _misfit(leaf, _RANGES[kind](leaf.type, leaf.type != field.type))) is not None:
                    raise DataError(
                        f"Column {field.name!r} is {field.type}, and one of its values, {number:,} in units of {leaf.type}, is not "
                        f'exact in {kind}. Cast it, or ask for output="arrow".',
                        column=field.name,
                    )


def check_times_of_day(table: pa.Table) -> None:
    """Check that every time of day in a table lies within a day. Most libraries read 24:00, for example, as another time.

    Raises:
        DataError: A time of day does not; the message names its column.
    """
    for field, column in zip(table.schema, table.columns, strict=True):
        for chunk in column.chunks if "time32" in str(field.type) or "time64" in str(field.type) else ():
            for leaf in leaves(chunk):
                if _misfit(leaf, _of_a_day(leaf.type)) is not None:
                    raise DataError(
                        f"Column {field.name!r} is {field.type}, and one of its times is before 00:00, or at 24:00 or later. "
                        "Write times of one day, or a duration.",
                        column=field.name,
                    )


def _misfit(values: pa.Array, within: Range | None) -> int | None:
    """Return a value that is outside a range, as a number in the unit of its type; None if there is none."""
    if within is None or values.null_count == len(values):
        return None
    least, most, step = within
    is_short = is_.is_date32(values.type) or is_.is_time32(values.type)
    numbers = values.view(pa.int32() if is_short else pa.int64())
    bounds: dict[str, int] = pc.min_max(numbers).as_py()
    if odd := [number for number in bounds.values() if not least <= number <= most]:
        return odd[0]
    if step == 1:
        return None
    # Arrow has no modulo, so the remainder is what the division leaves.
    rest = pc.subtract(numbers, pc.multiply(pc.divide(numbers, step), step))
    finer = numbers.filter(pc.not_equal(rest, 0))
    return finer.drop_null()[0].as_py() if len(finer.drop_null()) else None


def _of_a_day(kind: pa.DataType) -> Range | None:
    return (0, 86_400 * _PER_SECOND[kind.unit] - 1, 1) if is_.is_time(kind) else None


def _in_duckdb(kind: pa.DataType, _is_inside: bool) -> Range | None:
    """Return DuckDB's range. Its extreme timestamps mean infinity, its durations have microseconds, and it has 24:00."""
    if is_.is_time(kind):
        return 0, 86_400 * _PER_SECOND[kind.unit], 1
    if is_.is_date32(kind):
        return -_MOST_DAYS + 1, _MOST_DAYS - 1, 1
    if not (is_.is_timestamp(kind) or is_.is_duration(kind)):
        return None
    per = max(1, 10**6 // _PER_SECOND[kind.unit])
    if is_.is_timestamp(kind):
        # Rounded up, to the first whole unit that DuckDB can represent.
        return -(-_FIRST_IN_DUCKDB["ns" if kind.unit == "ns" else "us"] // per), (_MOST - 1) // per, 1
    return -(_MOST // per), _MOST // per, 1000 if kind.unit == "ns" else 1


def _in_polars(kind: pa.DataType, _is_inside: bool) -> Range | None:
    """Return the range of Polars, which has milliseconds in place of seconds."""
    if (is_.is_timestamp(kind) or is_.is_duration(kind)) and kind.unit == "s":
        return -(_MOST // 1000), _MOST // 1000, 1
    return _of_a_day(kind)


def _in_pandas(kind: pa.DataType, is_inside: bool) -> Range | None:
    """Return the range of pandas. The least number is NaT; in lists and structs, times of day are datetime.time."""
    if is_.is_timestamp(kind) or is_.is_duration(kind):
        return -_MOST, _MOST, 1
    return _of_a_day(kind) if is_inside else None


_RANGES: Mapping[str, Callable[[pa.DataType, bool], Range | None]] = {
    "duckdb": _in_duckdb,
    "polars": _in_polars,
    "pandas": _in_pandas,
}
