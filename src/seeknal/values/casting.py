"""Casts of columns between types, in which no value changes: each is exact in its new type, or the cast is refused."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError
from seeknal.values.types import LONGEST_DECIMAL, is_any_list, readable, standard, together, widens


def recast(table: pa.Table, kinds: list[pa.DataType]) -> pa.Table:
    """Cast columns by position. Only floats may be rounded, to the nearest of their type; no other value changes.

    Raises:
        DataError: A value does not fit its new type; the message names the column.
    """
    columns = []
    for name, column, kind in zip(table.column_names, table.columns, kinds, strict=True):
        try:
            columns.append(_renamed(column, kind) if column.type == kind else _cast(column, kind))
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
        _cast(column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def with_readable_zones(table: pa.Table, *, offsets: bool = True) -> pa.Table:
    """Return a table in which each zone that cannot be read is replaced by UTC; see `types.readable`."""
    for i, field in enumerate(table.schema):
        if (kind := readable(field.type, offsets=offsets)) != field.type:
            table = table.set_column(i, field.with_type(kind), _cast(table.column(i), kind))
    return table


def shortest(column: pa.ChunkedArray) -> pa.DataType:
    """Return the shortest decimal type in which all values of a decimal column are exact."""
    import pyarrow.compute as pc

    bounds = pc.min_max(column).as_py()
    largest = max((abs(value) for value in bounds.values() if value), default=Decimal(0))
    whole = max(0, largest.adjusted() + 1) if largest else 0
    scale = next(
        s
        for s in range(column.type.scale + 1)
        if fits(column, pa.decimal128(LONGEST_DECIMAL, s)) or s == column.type.scale
    )
    return pa.decimal128(min(LONGEST_DECIMAL, max(1, whole + scale)), scale)


def decoded(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a dictionary-encoded column as plain values of a type. Each chunk has a dictionary of its own."""
    chunks = [_cast(pa.chunked_array([chunk.dictionary]), kind) for chunk in column.chunks]
    pairs = zip(column.chunks, chunks, strict=True)
    taken = [categories.take(chunk.indices) for chunk, categories in pairs]
    return pa.chunked_array([part for one in taken for part in one.chunks], kind)


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


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast a column.

    Nulls are taken out before a cast to fixed-size lists, and put back afterwards: Arrow 26.0.1 reads values beside
    them that do not exist.
    """
    if column.null_count == len(column) and not is_.is_null(kind):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if is_.is_dictionary(column.type):
        return decoded(column, kind)
    if is_.is_integer(column.type) and is_.is_decimal(kind):
        # Arrow refuses a decimal too short for the largest value of the integer type, whatever the values are.
        return column.cast(pa.decimal128(LONGEST_DECIMAL)).cast(kind)
    if is_.is_fixed_size_list(kind) and column.null_count:
        import pyarrow.compute as pc

        valid = column.is_valid()
        # For the rows "a", null, "b": places 0, null, 1 in the column without nulls.
        places = pc.if_else(valid, pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1), None)
        return _cast(column.drop_null(), kind).take(places)
    if column.type.num_fields and _has_nulls_only(column.type):
        # Arrow 26.0.1 takes wrong offsets from slices of lists of such lists.
        found = pa.chunked_array([pa.array(chunk.to_pylist(), kind) for chunk in column.chunks], kind)
    else:
        found = column.cast(kind, safe=not is_.is_floating(kind))
    if any(name in str(kind) for name in ("float", "double")) and not widens(column.type, kind):
        for before, after in zip(column.chunks, found.chunks, strict=True):
            for one, other in zip(leaves(before), leaves(after), strict=True):
                _check_floats(one, other)
    return found


def _has_nulls_only(kind: pa.DataType) -> bool:
    """Return whether a type is null, or has lists or fields of that type inside."""
    inside = (kind.field(i).type for i in range(kind.num_fields))
    return is_.is_null(kind) or any(map(_has_nulls_only, inside))


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
        why = "has no exact place there"
    else:
        wrong, why = pc.and_(pc.is_inf(near), pc.is_finite(before.cast(pa.float64()))), "is beyond its range"
    if pc.any(wrong).as_py():
        raise pa.ArrowInvalid(f"{before.filter(wrong)[0]} {why}")


def _renamed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column whose inner list fields are named as in the type.

    Arrow calls types equal that differ in such names only, but users would see `list<l: int64>`.
    """
    if str(column.type) == str(kind):
        return column
    return pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)
