"""Casts of columns between types in which no value changes: each value is exact in its new type, or the cast fails."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TypeVar

import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values.types import LONGEST_DECIMAL, is_any_list, readable, standard, together, widens

Column = TypeVar("Column", pa.Array, pa.ChunkedArray)


def recast(table: pa.Table, kinds: list[pa.DataType]) -> pa.Table:
    """Cast columns by position. Only floats may be rounded, to the nearest of their type; no other value changes.

    Raises:
        DataError: A value does not fit its new type; the message names the column.
    """
    columns = []
    for name, column, kind in zip(table.column_names, table.columns, kinds, strict=True):
        try:
            columns.append(cast(column, kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"Column {name!r} does not fit its type {kind}: {error}", column=name) from None
    return pa.Table.from_arrays(columns, schema=pa.schema(map(pa.field, table.column_names, kinds)))


def fits(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Return whether all values of a column are exact in a type that need not be wider than theirs.

    For example, the whole number 5 fits a float, and 12.50 fits decimal(3, 1). Some pairs of types never fit, whatever
    the values, such as float64 into float32; see `_may_fit`.
    """
    if not _may_fit(standard(column.type), kind):
        return False
    try:
        cast(column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def with_readable_zones(table: pa.Table, *, offsets: bool = True) -> pa.Table:
    """Return a table in which each zone that cannot be read is replaced by UTC; see `types.readable`."""
    for i, field in enumerate(table.schema):
        if (kind := readable(field.type, offsets=offsets)) != field.type:
            table = table.set_column(i, field.with_type(kind), cast(table.column(i), kind))
    return table


def shortest(column: pa.ChunkedArray) -> pa.DataType:
    """Return the shortest decimal type in which all values of a decimal column are exact."""
    import pyarrow.compute as pc

    column = cast(column, standard(column.type))  # Arrow finds no extremes among shorter decimals and categories
    bounds = pc.min_max(column).as_py()
    largest = max((abs(value) for value in bounds.values() if value), default=Decimal(0))
    whole = max(0, largest.adjusted() + 1) if largest else 0
    scale = next(
        s
        for s in range(column.type.scale + 1)
        if fits(column, pa.decimal128(LONGEST_DECIMAL, s)) or s == column.type.scale
    )
    return pa.decimal128(min(LONGEST_DECIMAL, max(1, whole + scale)), scale)


def cast(column: Column, kind: pa.DataType) -> Column:
    """Cast a column, as `recast` casts each column of a table. Categories, which may differ by chunk, become plain values.

    Raises:
        pa.ArrowInvalid: A value does not fit the type.
        pa.ArrowNotImplementedError: No value of the column's type fits it.
    """
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_cast_array(chunk, kind) for chunk in column.chunks], kind)
    return _cast_array(column, kind)


def leaves(values: pa.Array) -> Iterator[pa.Array]:
    """Yield the arrays of plain values inside an array of lists, structs and maps, at any depth."""
    if is_.is_map(values.type):
        yield from leaves(values.keys)
        yield from leaves(values.items)
    elif is_.is_list(values.type) or is_.is_large_list(values.type) or is_.is_fixed_size_list(values.type):
        yield from leaves(values.flatten())
    elif is_.is_struct(values.type):
        for child in values.flatten():
            yield from leaves(child)
    else:
        yield values


def _may_fit(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether values of one type can be exact in another, so that it makes sense to try the cast."""
    if is_.is_struct(one) and is_.is_struct(other):
        same = [f.name for f in one] == [f.name for f in other]
        return same and all(_may_fit(a.type, b.type) for a, b in zip(one, other, strict=True))
    if is_any_list(one) and is_.is_list(other):
        return _may_fit(one.value_type, other.value_type)
    if is_.is_integer(one) and is_.is_integer(other) and together(one, other) is None:
        return True  # signed and unsigned with no common type: neither is wider
    decimal = is_.is_decimal(other) and (is_.is_decimal(one) or is_.is_integer(one))
    return decimal or (is_.is_integer(one) and is_.is_floating(other)) or widens(one, other)


def _cast_array(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast an array: lists and structs by casting what is inside, so that each rule below holds at any depth.

    Arrow 26.0.1 casts nested arrays itself, but takes wrong offsets from slices of lists of nulls, and reads values
    beside the nulls of fixed-size lists that do not exist.
    """
    if str(values.type) == str(kind):  # types are equal for Arrow if only the names in their lists differ
        return values
    if values.null_count == len(values):
        return pa.nulls(len(values), kind)
    if is_.is_dictionary(values.type):
        # Categories are cast after they are taken, because those of no row need not fit.
        categories = _cast_array(values.dictionary, standard(values.type))
        return _cast_array(categories.take(values.indices), kind)
    if is_any_list(kind) and (is_any_list(values.type) or is_.is_large_list(values.type)):
        return _cast_lists(values, kind)
    if is_.is_struct(kind) and is_.is_struct(values.type) and [f.name for f in kind] == [f.name for f in values.type]:
        parts = [_cast_array(part, field.type) for part, field in zip(values.flatten(), kind, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=values.is_null())
    return _cast_plain(values, kind)


def _cast_plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if is_.is_integer(values.type) and is_.is_decimal(kind):
        # Arrow refuses a decimal too short for the largest value of the integer type, whatever the values are.
        return values.cast(pa.decimal128(LONGEST_DECIMAL)).cast(kind)
    found = values.cast(kind, safe=not is_.is_floating(kind))
    _check_floats(values, found)
    return found


def _cast_lists(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast lists of any layout. For example, [1, 2], null, [3] has the values 1, 2, 3 and the lengths 2, 0, 1."""
    import pyarrow.compute as pc

    inside = _cast_array(values.flatten(), kind.value_type)
    lengths = pc.fill_null(pc.list_value_length(values), 0)
    if not is_.is_fixed_size_list(kind):
        ends = pc.cumulative_sum(lengths.cast(pa.int64()))
        offsets = pa.concat_arrays([pa.array([0]), ends]).cast(pa.int32())
        return pa.ListArray.from_arrays(offsets, inside, type=kind, mask=values.is_null())
    is_valid = values.is_valid()
    if pc.any(pc.and_(is_valid, pc.not_equal(lengths, kind.list_size))).as_py():
        raise pa.ArrowInvalid(f"a list does not have {kind.list_size} values")
    # For the rows "a", null, "b": places 0, null, 1 in the lists without nulls.
    places = pc.if_else(is_valid, pc.subtract(pc.cumulative_sum(is_valid.cast(pa.int64())), 1), None)
    found = pa.FixedSizeListArray.from_arrays(inside, type=kind)
    return found.take(places) if values.null_count else found


def _check_floats(before: pa.Array, after: pa.Array) -> None:
    """Check that an unsafe cast to floats kept whole numbers exact and made no finite number infinite.

    Raises:
        pa.ArrowInvalid: There is such a value.
    """
    if not is_.is_floating(after.type) or widens(before.type, after.type):
        return
    import pyarrow.compute as pc

    near = after.cast(pa.float64())
    if is_.is_integer(before.type):
        limit = 2.0 ** (before.type.bit_width - is_.is_signed_integer(before.type))
        # Floats beyond the integer's range are found by the limit: casting them back would give arbitrary numbers.
        is_beyond = pc.or_(pc.greater_equal(near, limit), pc.is_inf(near))
        wrong = pc.or_(is_beyond, pc.not_equal(near.cast(before.type, safe=False), before))
        why = "is not exact in that type"
    else:
        wrong, why = pc.and_(pc.is_inf(near), pc.is_finite(before.cast(pa.float64()))), "is out of range"
    if pc.any(wrong).as_py():
        raise pa.ArrowInvalid(f"{before.filter(wrong)[0]} {why}")
