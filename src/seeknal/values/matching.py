"""Matching of join keys of different types: two keys match if their values are equal, without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.values import types

Column = TypeVar("Column", pa.Array, pa.ChunkedArray)


def match(column: Column, kind: pa.DataType) -> Column:
    """Cast keys to another logical type. A key that is not exact in that type equals no key of it, and becomes null.

    For example, 300 becomes null for int8 keys, 1.25 for decimal(3, 1) keys, and 12:00:00.5 for timestamp[s] keys. Keys of
    fixed-size binary become plain binary.

    Args:
        column: The keys, in a logical type of the same kind; see `types.same_kind`.
        kind: The other type.
    """
    if pa.types.is_timestamp(kind) and not pa.types.is_null(column.type):
        there = there_and_back(column, kind)
        # Other units are stored as microseconds, which hold fewer years than seconds do.
        return there if kind.unit == "ns" else there_and_back(there, types.stored(kind))
    if column.type == kind or pa.types.is_null(column.type):
        return column.cast(kind)
    if pa.types.is_integer(kind):
        (low, high), (least, most) = _range(kind), _range(column.type)
        return _between(column, max(low, least), min(high, most)).cast(kind)
    if pa.types.is_decimal(kind):
        there = there_and_back(column, pa.decimal128(38, kind.scale))
        # Python's default context would round to 28 digits.
        largest = Decimal(10**kind.precision - 1).scaleb(-kind.scale, Context(prec=38))
        return _between(there, largest.copy_negate(), largest).cast(kind)
    if pa.types.is_date(kind):
        return there_and_back(column, kind)
    return column.cast(pa.binary() if pa.types.is_fixed_size_binary(kind) else kind)


def stored_keys(keys: pa.Table, kinds: Sequence[pa.DataType]) -> pa.Table:
    """Cast join keys to the stored types of a group's keys, given by their logical types. A key that no row can have is null."""
    pairs = zip(keys.columns, kinds, strict=True)
    columns = [match(column, kind).cast(types.stored(kind)) for column, kind in pairs]
    return pa.Table.from_arrays(columns, names=keys.column_names)


def there_and_back(column: Column, kind: pa.DataType) -> Column:
    """Cast values to a type. Values that do not survive the cast back become null."""
    there = column.cast(kind, safe=False)
    return pc.if_else(pc.equal(there.cast(column.type, safe=False), column), there, pa.scalar(None, kind))


def _between(column: Column, least: int | Decimal, most: int | Decimal) -> Column:
    is_inside = pc.and_(
        pc.greater_equal(column, pa.scalar(least, column.type)), pc.less_equal(column, pa.scalar(most, column.type))
    )
    return pc.if_else(is_inside, column, pa.scalar(None, column.type))


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits: int = kind.bit_width
    return (0, 2**bits - 1) if pa.types.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
