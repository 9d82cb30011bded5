"""The narrowest type in which all of some values are exact, found by looking at every one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from seeknal.values import types
from seeknal.values.exact.families import Family, Unfit, families_of, family, settled
from seeknal.values.exact.moments import moment_type, span_type, time_type

T = TypeVar("T")

_DEEPEST = 32
_FLOATS: dict[type[object], pa.DataType] = {np.float16: pa.float16(), np.float32: pa.float32()}


def narrowest(values: Sequence[Any], *, nan: bool = False, depth: int = 0) -> pa.DataType:
    """Return the narrowest type in which all of some values are exact.

    Dates beside timestamps become timestamps; whole numbers beside floats or decimals become such.

    Args:
        values: The values.
        nan: Take NaN for null, as a column of pandas does.
        depth: How many lists and structs the values are in.

    Raises:
        Unfit: There is no such type.
    """
    values = settled(values, nan=nan)
    families = families_of(values)
    for together, find in _TOGETHER:
        if families <= together:
            return find(values)
    nested = _NESTED.get(next(iter(families))) if len(families) == 1 else None
    if nested is None or depth == _DEEPEST:
        raise _mixed(values)
    return nested(values, nan=nan, depth=depth + 1)


def _mixed(values: Sequence[Any]) -> Unfit:
    """Find the first value that is not of a family with those before it."""
    before: set[Family] = set()
    for row, value in enumerate(values):
        if value is None:
            continue
        now = before | {family(value)}
        if not any(now <= together for together, _ in _TOGETHER) and (len(now) > 1 or not now <= set(_NESTED)):
            beside = f", beside {' and '.join(sorted(before))}" if before else ""
            return Unfit(row, value, f"is {family(value)}{beside}")
        before = now
    return Unfit(0, values[0], f"has more than {_DEEPEST} lists and structs in one another")


def _whole(values: Sequence[Any]) -> pa.DataType:
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) == 1 and issubclass(own := kinds.pop(), np.integer):
        return pa.from_numpy_dtype(np.dtype(own))
    there = [value for value in values if value is not None]
    least, most = int(min(there)), int(max(there))
    if least >= -(2**63) and most < 2**63:
        return pa.int64()
    if least >= 0 and most < 2**64:
        return pa.uint64()
    row = next(i for i, v in enumerate(values) if v is not None and not -(2**63) <= int(v) < 2**63)
    raise Unfit(row, values[row], "is beyond the range of whole numbers, 64 bits. Make it text, or a decimal")


def _float(values: Sequence[Any]) -> pa.DataType:
    kinds: set[type[object]] = set(map(type, values)) - {type(None)}
    if len(kinds) == 1:
        return _FLOATS.get(kinds.pop(), pa.float64())
    for row, value in enumerate(values):
        if value is not None and family(value) == Family.WHOLE and not is_exact_float(int(value)):
            raise Unfit(row, value, "has no exact place beside floats. Make it text, or a decimal")
    return pa.float64()


def is_exact_float(value: int) -> bool:
    """Tell whether a whole number has an exact place among floats of 64 bits."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _decimal(values: Sequence[Any]) -> pa.DataType:
    for normal in (False, True):  # zeros at the end are kept where there is room for them
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
        f"needs {whole} digits before the point and {scale} behind it, with the values before it; there is room for "
        f"{types.LONGEST_DECIMAL} in all. Round the column: value.quantize(Decimal('0.01'))",
    )


def _digits(row: int, value: Any, *, normal: bool) -> tuple[int, int]:
    """Count the digits before and behind the point."""
    if family(value) == Family.WHOLE:
        return (1 if -10 < value < 10 else _length(int(value))), 0  # noqa: PLR2004 - one digit
    if not value.is_finite():
        raise Unfit(row, value, "is no finite number")
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
    """Return the type of the numbers in some arrays of NumPy; None unless all of them have one type that Arrow has too."""
    if set(map(type, values)) - {type(None)} != {np.ndarray}:
        return None
    shapes = {(value.dtype, value.ndim) for value in values if value is not None}
    dtype, dimensions = shapes.pop()
    fits = not shapes and dimensions == 1 and dtype.kind in "biuf" and dtype.itemsize <= 8  # noqa: PLR2004 - bytes
    return dtype.newbyteorder("=") if fits else None


def flattened(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return what is in some lists, and where each ends.

    Raises:
        Unfit: An array has no dimension.
    """
    if np.ndarray in set(map(type, values)):
        for row, value in enumerate(values):
            if isinstance(value, np.ndarray) and value.ndim == 0:
                raise Unfit(row, value, "is no list")
    lists = [() if value is None else value for value in values]
    return list(chain.from_iterable(lists)), list(accumulate(map(len, lists)))


def by_list(ends: Sequence[int], step: Callable[[], T]) -> T:
    """Do a step with what is in some lists; where it does not fit, number the list that it is in."""
    try:
        return step()
    except Unfit as error:
        raise Unfit(bisect_right(ends, error.row), error.value, error.why) from None


def _struct(values: Sequence[Any], *, nan: bool, depth: int) -> pa.DataType:
    names: dict[str, None] = {}
    for row, value in enumerate(values):
        for name in value or ():
            if not is_text(name) or not name or "\0" in name:
                raise Unfit(row, value, f"has a field {name!r}, which is no name: text, without NUL")
            names[name] = None
    return pa.struct([pa.field(name, narrowest(fields_of(values, name), nan=nan, depth=depth)) for name in names])


def fields_of(values: Sequence[Mapping[str, Any] | None], name: str) -> list[Any]:
    """Return one field of some mappings; null where a mapping is null, or lacks it."""
    return [None if value is None else value.get(name) for value in values]


def is_text(value: object) -> bool:
    """Tell whether a value is text of whole characters, without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


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
_NESTED: Mapping[Family, Callable[..., pa.DataType]] = {Family.LIST: _list, Family.STRUCT: _struct}
