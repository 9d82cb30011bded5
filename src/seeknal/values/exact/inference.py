"""Type inference: the narrowest type in which all values of a column are exact. Every value counts, not just a sample."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from seeknal.names import is_text
from seeknal.values import types
from seeknal.values.exact.families import Family, Unfit, families_of, family, normalized
from seeknal.values.exact.moments import moment_type, span_type, time_type

T = TypeVar("T")

_DEEPEST = 32
"""The most levels of lists and structs. A list that contains itself would otherwise never end."""
_FLOATS: dict[type[object], pa.DataType] = {np.float16: pa.float16(), np.float32: pa.float32()}


def narrowest(values: Sequence[Any], *, nan: bool = False, depth: int = 0) -> pa.DataType:
    """Return the narrowest type in which all values are exact.

    Dates beside timestamps become timestamps. Whole numbers beside floats become floats, and beside decimals decimals.

    | values                           | type                                       |
    |----------------------------------|--------------------------------------------|
    | 1, None, 2**40                   | int64                                      |
    | 1, 2**63                         | uint64                                     |
    | 1, 0.5                           | double                                     |
    | 2**53 + 1, 0.5                   | Unfit: the whole number has no exact float |
    | 12, Decimal("1.50")              | decimal(4, 2)                              |
    | date(2024, 5, 1), datetime.now() | timestamp[us]                              |
    | [1], [0.5, None]                 | list<double>                               |
    | 1, "1"                           | Unfit: text beside a whole number          |

    Args:
        values: The values.
        nan: Take NaN as null, as pandas columns do.
        depth: The number of lists and structs that contain the values.

    Raises:
        Unfit: There is no such type.
    """
    values = normalized(values, nan=nan)
    families = families_of(values)
    for together, find in _TOGETHER:
        if families <= together:
            return find(values)
    nested = _NESTED.get(next(iter(families))) if len(families) == 1 else None
    if nested is None or depth == _DEEPEST:
        raise _mixed(values)
    return nested(values, nan=nan, depth=depth + 1)


def _mixed(values: Sequence[Any]) -> Unfit:
    """Return the error for values without a common type: it names the first that does not go with those before it."""
    before: set[Family] = set()
    for row, value in enumerate(values):
        if value is None:
            continue
        now = before | {family(value)}
        if not any(now <= together for together, _ in _TOGETHER) and (len(now) > 1 or not now <= set(_NESTED)):
            beside = f", beside {' and '.join(sorted(before))}" if before else ""
            return Unfit(row, value, f"is {family(value)}{beside}")
        before = now
    return Unfit(0, values[0], f"has more than {_DEEPEST} levels of lists and structs")


def _whole(values: Sequence[Any]) -> pa.DataType:
    kinds = set(map(type, values)) - {type(None)}
    # NumPy integers of one type keep it. Python's have no width of their own, and get 64 bits.
    if len(kinds) == 1 and issubclass(own := kinds.pop(), np.integer):
        return pa.from_numpy_dtype(np.dtype(own))
    there = [value for value in values if value is not None]
    least, most = int(min(there)), int(max(there))
    if least >= -(2**63) and most < 2**63:
        return pa.int64()
    if least >= 0 and most < 2**64:
        return pa.uint64()
    row = next(i for i, v in enumerate(values) if v is not None and not -(2**63) <= int(v) < 2**63)
    raise Unfit(row, values[row], "is out of range for 64-bit integers. Make it text, or a decimal")


def _float(values: Sequence[Any]) -> pa.DataType:
    kinds: set[type[object]] = set(map(type, values)) - {type(None)}
    if len(kinds) == 1:
        return _FLOATS.get(kinds.pop(), pa.float64())
    for row, value in enumerate(values):
        if value is not None and family(value) == Family.WHOLE and not is_exact_float(int(value)):
            raise Unfit(row, value, "is not exact as a float, and the column has floats. Make it text, or a decimal")
    return pa.float64()


def is_exact_float(value: int) -> bool:
    """Return whether a whole number is exact as a 64-bit float."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _decimal(values: Sequence[Any]) -> pa.DataType:
    # Trailing zeros are kept if there is room for them (1.50 stays decimal(3, 2)), and dropped in a second pass if not.
    for normal in (False, True):
        # `last` is the row that made the type longest so far, so the message can name it.
        whole = scale = 0
        last = next((row for row, value in enumerate(values) if value is not None), 0)
        for row, value in enumerate(values):
            if value is not None:
                own = _digits(row, value, normal=normal)
                last = row if own[0] > whole or own[1] > scale else last
                whole, scale = max(whole, own[0]), max(scale, own[1])
                if whole + scale > types.LONGEST_DECIMAL:
                    break
        else:
            return pa.decimal128(max(1, whole + scale), scale)
    raise Unfit(
        last,
        values[last],
        f"needs, with the values before it, {whole} digits before the point and {scale} after it; a decimal has at most "
        f"{types.LONGEST_DECIMAL} in all. Round the column: value.quantize(Decimal('0.01'))",
    )


def _digits(row: int, value: Any, *, normal: bool) -> tuple[int, int]:
    """Return the number of digits before and after the point; with `normal`, without trailing zeros after it."""
    if family(value) == Family.WHOLE:
        return (1 if -10 < value < 10 else _length(int(value))), 0  # noqa: PLR2004 - numbers of one digit
    if not value.is_finite():
        raise Unfit(row, value, "is not a finite number")
    _, digits, exponent = value.as_tuple()
    while normal and exponent < 0 and digits[-1] == 0 and len(digits) > 1:
        digits, exponent = digits[:-1], exponent + 1
    if not any(digits):
        exponent = 0 if normal else min(exponent, 0)
    return max(0, len(digits) + exponent), max(0, -exponent)


def _length(value: int) -> int:
    return Decimal(value).adjusted() + 1


def _list(values: Sequence[Any], *, nan: bool, depth: int) -> pa.DataType:
    if (dtype := numbers_of(values)) is not None:
        return pa.list_(pa.from_numpy_dtype(dtype))
    inside, ends = flattened(values)
    return pa.list_(by_list(ends, lambda: narrowest(inside, nan=nan, depth=depth)))


def numbers_of(values: Sequence[Any]) -> np.dtype[Any] | None:
    """Return the number type of one-dimensional NumPy arrays if all have the same and Arrow has it, else None."""
    if set(map(type, values)) - {type(None)} != {np.ndarray}:
        return None
    shapes = {(value.dtype, value.ndim) for value in values if value is not None}
    dtype, dimensions = shapes.pop()
    fits = not shapes and dimensions == 1 and dtype.kind in "biuf" and dtype.itemsize <= 8  # noqa: PLR2004 - 64 bits
    return dtype.newbyteorder("=") if fits else None


def flattened(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return the values of all lists one after the other, and where each list ends.

    For example, [[1, 2], None, [3]] gives the values [1, 2, 3] and the ends [2, 2, 3].

    Raises:
        Unfit: A value is a NumPy array without dimensions, which is not a list.
    """
    if np.ndarray in set(map(type, values)):
        for row, value in enumerate(values):
            if isinstance(value, np.ndarray) and value.ndim == 0:
                raise Unfit(row, value, "is not a list")
    lists = [() if value is None else value for value in values]
    return list(chain.from_iterable(lists)), list(accumulate(map(len, lists)))


def by_list(ends: Sequence[int], step: Callable[[], T]) -> T:
    """Run a step on the values of flattened lists. If a value does not fit, the error gets the number of its list.

    For example, value number 2 is in list number 2 where the lists end at [2, 2, 3].
    """
    try:
        return step()
    except Unfit as error:
        raise Unfit(bisect_right(ends, error.row), error.value, error.why) from None


def _struct(values: Sequence[Any], *, nan: bool, depth: int) -> pa.DataType:
    names: dict[str, None] = {}
    for row, value in enumerate(values):
        for name in value or ():
            if not is_text(name) or not name or "\0" in name:
                raise Unfit(row, value, f"has a field {name!r}, which is not a name: names are text without NUL")
            names[name] = None
    return pa.struct([pa.field(name, narrowest(fields_of(values, name), nan=nan, depth=depth)) for name in names])


def fields_of(values: Sequence[Mapping[str, Any] | None], name: str) -> list[Any]:
    """Return one field of some mappings, with None where a mapping is null or lacks the field."""
    return [None if value is None else value.get(name) for value in values]


_TOGETHER: tuple[tuple[set[Family], Callable[[Sequence[Any]], pa.DataType]], ...] = (
    (set(), lambda _: pa.null()),
    ({Family.BOOL}, lambda _: pa.bool_()),
    ({Family.WHOLE}, _whole),
    ({Family.WHOLE, Family.FLOAT}, _float),
    ({Family.WHOLE, Family.DECIMAL}, _decimal),
    ({Family.DATE}, lambda _: pa.date32()),
    ({Family.DATE, Family.MOMENT}, moment_type),
    ({Family.TIME}, time_type),
    ({Family.SPAN}, span_type),
    ({Family.TEXT}, lambda _: pa.string()),
    ({Family.BYTES}, lambda _: pa.binary()),
)
"""Families that may occur together in a column, and the function that finds their type. The first match is used."""
_NESTED: Mapping[Family, Callable[..., pa.DataType]] = {Family.LIST: _list, Family.STRUCT: _struct}
