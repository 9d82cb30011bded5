"""Types: the one form each has in a schema, on disk and online, and which widen into which.

*Logical* is the type a user gets back, *stored* the nearest exact one that Delta Lake can hold,
*wire* the nearest exact one that MessagePack can hold. Casting there and back changes no value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError, DefinitionError

_LONGEST_DECIMAL = 38
_STANDARD = (
    (is_.is_large_string, pa.string()),
    (is_.is_string_view, pa.string()),
    (is_.is_large_binary, pa.binary()),
    (is_.is_binary_view, pa.binary()),
    (is_.is_date64, pa.date32()),
)
_UNITS = ["s", "ms", "us", "ns"]
_WIDER: dict[pa.DataType, tuple[pa.DataType, ...]] = {
    pa.int8(): (pa.int16(), pa.int32(), pa.int64()),
    pa.int16(): (pa.int32(), pa.int64()),
    pa.int32(): (pa.int64(),),
    pa.uint8(): (pa.uint16(), pa.uint32(), pa.uint64(), pa.int16(), pa.int32(), pa.int64()),
    pa.uint16(): (pa.uint32(), pa.uint64(), pa.int32(), pa.int64()),
    pa.uint32(): (pa.uint64(), pa.int64()),
    pa.float16(): (pa.float32(), pa.float64()),
    pa.float32(): (pa.float64(),),
}


def logical(kind: pa.DataType) -> pa.DataType:
    """Give the one type that stands for all ways to lay out the same values.

    Raises:
        DataError: Seeknal cannot keep such values.
    """
    if is_.is_dictionary(kind):
        return logical(kind.value_type)
    if _is_nested(kind):
        _refuse_alike(kind)
        return _rebuild(kind, logical)
    for test, standard in _STANDARD:
        if test(kind):
            return standard
    if is_.is_decimal(kind) and kind.precision <= _LONGEST_DECIMAL and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    if not _is_plain(kind):
        raise DataError(f"Values of type {kind} cannot be kept. Cast them to a number, text, a list or a struct.")
    return kind


def _refuse_alike(kind: pa.DataType) -> None:
    names = [field.name.lower() for field in kind] if is_.is_struct(kind) else []
    if len(set(names)) < len(names):
        raise DataError(
            f"Values of type {kind} cannot be kept: two of its fields have one name, but for case. Rename one."
        )


def _is_plain(kind: pa.DataType) -> bool:
    kinds = is_.is_primitive, is_.is_null, is_.is_string, is_.is_fixed_size_binary, is_.is_binary
    return any(test(kind) for test in kinds) and kind != pa.month_day_nano_interval()


def _is_nested(kind: pa.DataType) -> bool:
    return bool(
        is_.is_list(kind)
        or is_.is_large_list(kind)
        or is_.is_fixed_size_list(kind)
        or (is_.is_struct(kind) and kind.num_fields > 0)
    )


def _rebuild(kind: pa.DataType, of: Callable[[pa.DataType], pa.DataType], fixed: bool = True) -> pa.DataType:
    if is_.is_struct(kind):
        return pa.struct([pa.field(child.name, of(child.type)) for child in kind])
    if is_.is_fixed_size_list(kind) and fixed:
        return pa.list_(pa.field("item", of(kind.value_type)), kind.list_size)
    return pa.list_(pa.field("item", of(kind.value_type)))


def stored(kind: pa.DataType) -> pa.DataType:
    """Give the type a logical one has in the offline table."""
    if _is_nested(kind):
        return _rebuild(kind, stored, fixed=False)
    if is_.is_timestamp(kind):
        return pa.int64() if kind.unit == "ns" else pa.timestamp("us", tz="UTC")
    if is_.is_time(kind) or is_.is_duration(kind):
        return pa.int32() if is_.is_time32(kind) else pa.int64()
    if is_.is_fixed_size_binary(kind):
        return pa.binary()
    unsigned = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20),
    }
    return pa.float32() if kind == pa.float16() else unsigned.get(kind, kind)


def wire(kind: pa.DataType) -> pa.DataType:
    """Give the type a logical one has in the online store."""
    if _is_nested(kind):
        return _rebuild(kind, wire, fixed=False)
    if is_.is_timestamp(kind):
        return pa.int64()
    if is_.is_date(kind):
        return pa.int32()
    if is_.is_decimal(kind):
        return pa.string()
    return kind if kind == pa.uint64() else stored(kind)


def without_halves(kind: pa.DataType) -> pa.DataType:
    """Give the type a logical one has where floats have at least 32 bits, as in DuckDB."""
    if _is_nested(kind):
        return _rebuild(kind, without_halves)
    return pa.float32() if kind == pa.float16() else kind


def widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Tell whether every value of one logical type has an exact place in the other."""
    if narrow == wide or is_.is_null(narrow) or wide in _WIDER.get(narrow, ()):
        return True
    if is_.is_timestamp(narrow) and is_.is_timestamp(wide):
        return narrow.tz == wide.tz and _UNITS.index(narrow.unit) <= _UNITS.index(wide.unit)
    if is_.is_decimal(narrow) and is_.is_decimal(wide):
        whole = wide.precision - wide.scale >= narrow.precision - narrow.scale
        return bool(whole and wide.scale >= narrow.scale)
    if is_.is_struct(narrow) and is_.is_struct(wide):
        same = [f.name for f in narrow] == [f.name for f in wide]
        return same and all(widens(a.type, b.type) for a, b in zip(narrow, wide, strict=True))
    if is_.is_list(wide) and (is_.is_list(narrow) or is_.is_fixed_size_list(narrow)):
        return widens(narrow.value_type, wide.value_type)
    return False


def same_kind(one: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether keys of these two types can be equal at all."""
    kinds = (
        is_.is_integer,
        is_.is_string,
        is_.is_boolean,
        is_.is_date,
        is_.is_decimal,
        lambda kind: is_.is_binary(kind) or is_.is_fixed_size_binary(kind),
        lambda kind: is_.is_timestamp(kind) and kind.tz is None,
        lambda kind: is_.is_timestamp(kind) and kind.tz is not None,
    )
    return is_.is_null(one) or any(test(one) and test(other) for test in kinds)


def parse(name: str | pa.DataType) -> pa.DataType:
    """Read a type from its Arrow name, such as "int64" or "timestamp[us]".

    Raises:
        DefinitionError: There is no such type.

    >>> parse("float64")
    DataType(double)
    """
    if isinstance(name, pa.DataType):
        return logical(name)
    try:
        return logical(pa.type_for_alias(name))
    except ValueError:
        raise DefinitionError(
            f"{name!r} is no type. Write int64, float64, bool, string, date32, timestamp[us], "
            "or give a pyarrow type such as pyarrow.list_(pyarrow.float32(), 64)."
        ) from None


def recast(table: pa.Table, kinds: list[pa.DataType]) -> pa.Table:
    """Cast the columns, by position, without changing a value.

    Raises:
        DataError: A value has no place in its new type; the message names the column.
    """
    columns = []
    for name, column, kind in zip(table.column_names, table.columns, kinds, strict=True):
        try:
            columns.append(_renamed(column, kind) if column.type == kind else _cast(column, kind))
        except pa.ArrowInvalid as error:
            raise DataError(f"Column {name!r} does not fit its type {kind}: {error}", column=name) from None
    return pa.Table.from_arrays(columns, schema=pa.schema(map(pa.field, table.column_names, kinds)))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast a column; into lists of one length without its nulls, beside which Arrow 26.0.1 reads what is not there."""
    if not is_.is_fixed_size_list(kind) or not column.null_count:
        return column.cast(kind)
    import pyarrow.compute as pc

    valid = column.is_valid()
    places = pc.if_else(valid, pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1), None)
    return column.drop_null().cast(kind).take(places)


def read(name: str, text: str, kind: pa.DataType) -> Any:
    """Read a value from text, as somebody types it.

    Raises:
        DataError: The text does not fit the type.
    """
    try:
        return pa.scalar(text).cast(kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"{name} is {kind}, which {text!r} is not.", key=name) from None


def _renamed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Name what is inside lists as the type does; to Arrow such types are equal, but people see `list<l: int64>`."""
    if str(column.type) == str(kind):
        return column
    return pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)
