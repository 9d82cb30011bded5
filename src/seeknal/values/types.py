"""Types: the form that each has in a schema, on disk and online, and which types widen to which.

The *logical* type is the one a user gets back, the *stored* type the nearest exact one that Delta Lake has, and the
*wire* type the nearest exact one that MessagePack has. Casting there and back changes no value.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache

import pyarrow as pa
from pyarrow import types as is_

from seeknal.errors import DataError, DefinitionError
from seeknal.names import check_names

UTC = pa.timestamp("us", tz="UTC")
"""The type of an instant, and the stored type of event times and created times."""
LONGEST_DECIMAL = 38
"""The most digits that a decimal can be stored with."""

_STANDARD = (
    (is_.is_large_string, pa.string()),
    (is_.is_string_view, pa.string()),
    (is_.is_large_binary, pa.binary()),
    (is_.is_binary_view, pa.binary()),
    (is_.is_date64, pa.date32()),
)
_UNITS = ["s", "ms", "us", "ns"]
_UTC = {"UTC", "Z"}
_OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):?([0-5]\d)?", re.ASCII)
_NOWHERE = {"Factory", "localtime", "posixrules"}
"""Names of zones that differ between machines."""
# No integer widens to a float, in which large integers are not exact.
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
    """Return the one type that stands for all Arrow layouts of the same values.

    Raises:
        DataError: Seeknal cannot store such values and read them back.
    """
    found = standard(kind)
    _refuse_unnamed(found)
    return _rebuilt(found, _in_known_zone)


def _refuse_unnamed(kind: pa.DataType) -> None:
    """Raise a DataError for struct fields whose name is empty or has NUL: disk or DuckDB would lose their values."""
    if not _is_nested(kind):
        return
    for field in kind if is_.is_struct(kind) else [kind.value_field]:
        if not field.name or "\0" in field.name:
            raise DataError(
                f"Values of type {str(kind)!a} cannot be stored: a field of a struct has no name, or one with NUL, and "
                "would lose its values. Rename it."
            )
        _refuse_unnamed(field.type)


def _in_known_zone(kind: pa.DataType) -> pa.DataType:
    if not is_.is_timestamp(kind):
        return kind
    if kind.tz and known_zone(kind.tz) is None:
        raise DataError(
            f"Values of type {kind} cannot be stored: no library here can read the zone {kind.tz!r} back. Convert them to "
            'UTC first (pandas: .dt.tz_convert("UTC")).'
        )
    return pa.timestamp(kind.unit, tz=known_zone(kind.tz) if kind.tz else None)


@lru_cache(1024)
def known_zone(name: str) -> str | None:
    """Return the name under which every library finds a zone, or None if there is no such name.

    >>> known_zone("Asia/Jakarta"), known_zone("Z"), known_zone("+0530"), known_zone("IST")
    ('Asia/Jakarta', 'UTC', '+05:30', None)
    """
    if name.upper() in _UTC:
        return "UTC"
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset[1], offset[2], offset[3] or "00"
        return f"{sign}{hours}:{minutes}" if int(hours) + int(minutes) else "UTC"
    if name in _NOWHERE or name[:1] in "+-":  # a sign here means a malformed offset, such as +25:00
        return None
    try:
        pa.lib.string_to_tzinfo(name)
    except (pa.ArrowInvalid, ValueError):
        return None
    return name


def readable(kind: pa.DataType, *, offsets: bool = True) -> pa.DataType:
    """Return a type with UTC in place of each zone that cannot be read. The instants stay the same.

    Tables that earlier versions of Seeknal wrote can have such zones.

    Args:
        kind: The type.
        offsets: Whether the library can read offsets such as +05:30. Polars cannot.
    """

    def read(inner: pa.DataType) -> pa.DataType:
        if not is_.is_timestamp(inner) or not inner.tz:
            return inner
        name = known_zone(inner.tz)
        return pa.timestamp(inner.unit, tz="UTC" if name is None or (name[0] in "+-" and not offsets) else name)

    if "tz=" not in str(kind):
        return kind
    return readable(kind.value_type, offsets=offsets) if is_.is_dictionary(kind) else _rebuilt(kind, read)


def without_seconds(kind: pa.DataType) -> pa.DataType:
    """Return a type with milliseconds in place of seconds, because Polars has no times in seconds."""

    def finer(one: pa.DataType) -> pa.DataType:
        if is_.is_timestamp(one) and one.unit == "s":
            return pa.timestamp("ms", tz=one.tz)
        return pa.duration("ms") if one == pa.duration("s") else one

    return _rebuilt(kind, finer)


def without_nanoseconds(kind: pa.DataType) -> pa.DataType:
    """Return a type with microseconds in place of nanoseconds, because Python's own times have none."""

    def coarser(one: pa.DataType) -> pa.DataType:
        if is_.is_timestamp(one) and one.unit == "ns":
            return pa.timestamp("us", tz=one.tz)
        return {pa.duration("ns"): pa.duration("us"), pa.time64("ns"): pa.time64("us")}.get(one, one)

    return _rebuilt(kind, coarser)


def _rebuilt(kind: pa.DataType, of: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with `of` applied to it, or to the types inside it if it is a list or a struct."""
    return _rebuild(kind, lambda inner: _rebuilt(inner, of)) if _is_nested(kind) else of(kind)


def standard(kind: pa.DataType) -> pa.DataType:
    """Return the one type that stands for all Arrow layouts of the same values, like `logical`.

    Unlike there, zones that cannot be read and struct fields without a proper name are accepted.

    Raises:
        DataError: Seeknal cannot store such values.
    """
    if is_.is_dictionary(kind):
        return standard(kind.value_type)
    if has_no_width(kind):
        raise DataError(f"Values of type {kind}, all of which are empty, cannot be stored. Drop the column.")
    if _is_nested(kind):
        _refuse_alike(kind)
        return _rebuild(kind, standard)
    for test, plain in _STANDARD:
        if test(kind):
            return plain
    if is_.is_decimal(kind) and kind.precision <= LONGEST_DECIMAL and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    if not _is_plain(kind):
        raise DataError(f"Values of type {kind} cannot be stored. Cast them to numbers, text, lists or structs.")
    return kind


def has_no_width(kind: pa.DataType) -> bool:
    """Return whether all values of a type are empty: lists of length 0, binary of 0 bytes. Parquet cannot store them."""
    return bool(is_.is_fixed_size_list(kind) and kind.list_size == 0) or kind == pa.binary(0)


def _refuse_alike(kind: pa.DataType) -> None:
    # DuckDB does not distinguish field names by case, so it would read one field in place of the other.
    names = [field.name.lower() for field in kind] if is_.is_struct(kind) else []
    if len(set(names)) < len(names):
        raise DataError(
            f"Values of type {kind} cannot be stored: the names of two fields differ in case only. Rename one."
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
    """Return the stored type of a logical type: the one it has in the offline table."""
    if _is_nested(kind):
        return _rebuild(kind, stored, fixed=False)
    if is_.is_timestamp(kind):  # those of Delta Lake have microseconds
        return pa.int64() if kind.unit == "ns" else pa.timestamp("us", tz="UTC")
    if is_.is_time(kind) or is_.is_duration(kind):
        return pa.int32() if is_.is_time32(kind) else pa.int64()
    if is_.is_fixed_size_binary(kind):
        return pa.binary()
    # Delta Lake has no unsigned integers: each becomes the next wider signed type, or a decimal with room for 64 bits.
    unsigned = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20),
    }
    return pa.float32() if kind == pa.float16() else unsigned.get(kind, kind)


def wire(kind: pa.DataType) -> pa.DataType:
    """Return the wire type of a logical type: the one it has in the online store."""
    if _is_nested(kind):
        return _rebuild(kind, wire, fixed=False)
    if is_.is_timestamp(kind):
        return pa.int64()
    if is_.is_date(kind):
        return pa.int32()
    if is_.is_decimal(kind):  # as a float, a decimal would not be exact
        return pa.string()
    return kind if kind == pa.uint64() else stored(kind)


def without_halves(kind: pa.DataType) -> pa.DataType:
    """Return a type with 32-bit floats in place of 16-bit ones, which DuckDB does not have."""
    if _is_nested(kind):
        return _rebuild(kind, without_halves)
    return pa.float32() if kind == pa.float16() else kind


def widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Return whether every value of one logical type is exact in the other.

    Structs must have the same field names in the same order.
    """
    if narrow == wide or is_.is_null(narrow) or wide in _WIDER.get(narrow, ()):
        return True
    if is_.is_timestamp(narrow) and is_.is_timestamp(wide):
        return _zone(narrow) == _zone(wide) and _UNITS.index(narrow.unit) <= _UNITS.index(wide.unit)
    if is_.is_decimal(narrow) and is_.is_decimal(wide):
        whole = wide.precision - wide.scale >= narrow.precision - narrow.scale
        return bool(whole and wide.scale >= narrow.scale)
    if is_.is_struct(narrow) and is_.is_struct(wide):
        same = [f.name for f in narrow] == [f.name for f in wide]
        return same and all(widens(a.type, b.type) for a, b in zip(narrow, wide, strict=True))
    if is_.is_list(wide) and (is_.is_list(narrow) or is_.is_fixed_size_list(narrow)):
        return widens(narrow.value_type, wide.value_type)
    return False


def _zone(kind: pa.DataType) -> str | None:
    return (known_zone(kind.tz) or kind.tz) if kind.tz else None


def together(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type in which all values of two logical types are exact, or None if there is none.

    >>> together(pa.decimal128(3, 2), pa.decimal128(3, 1))
    Decimal128Type(decimal128(4, 2))
    """
    if widens(one, other):
        return other
    if widens(other, one):
        return one
    if is_.is_decimal(one) and is_.is_decimal(other):
        scale = max(one.scale, other.scale)
        digits = max(one.precision - one.scale, other.precision - other.scale) + scale
        return pa.decimal128(digits, scale) if digits <= LONGEST_DECIMAL else None
    if is_.is_struct(one) and is_.is_struct(other) and [f.name for f in one] == [f.name for f in other]:
        kinds = [together(a.type, b.type) for a, b in zip(one, other, strict=True)]
        return None if None in kinds else pa.struct([(f.name, kind) for f, kind in zip(one, kinds, strict=True)])
    if is_any_list(one) and is_any_list(other):
        inside = together(one.value_type, other.value_type)
        # -1 stands for lists of any length, which `pa.list_` takes in the same sense. Fixed lists must have one length.
        sizes = {kind.list_size if is_.is_fixed_size_list(kind) else -1 for kind in (one, other)}
        both_fixed = len(sizes) > 1 and -1 not in sizes
        return None if inside is None or both_fixed else pa.list_(inside, min(sizes))
    return None


def is_any_list(kind: pa.DataType) -> bool:
    """Return whether values of a type are lists, of any or of one length."""
    return bool(is_.is_list(kind) or is_.is_fixed_size_list(kind))


def same_kind(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether a key of one type can equal a key of the other."""
    kinds = (
        is_.is_integer,
        is_.is_string,
        is_.is_boolean,
        is_.is_date,
        is_.is_decimal,
        lambda kind: is_.is_binary(kind) or is_.is_fixed_size_binary(kind),
        # Naive and zoned timestamps are two kinds: whether a naive key means UTC is not for us to decide.
        lambda kind: is_.is_timestamp(kind) and kind.tz is None,
        lambda kind: is_.is_timestamp(kind) and kind.tz is not None,
    )
    return is_.is_null(one) or any(test(one) and test(other) for test in kinds)


def parse(name: str | pa.DataType) -> pa.DataType:
    """Return the logical type with an Arrow name, such as "int64" or "timestamp[us]".

    Raises:
        DefinitionError: There is no such type.
        DataError: Seeknal cannot store values of the type.

    >>> parse("float64")
    DataType(double)
    """
    if isinstance(name, pa.DataType):
        return logical(name)
    with suppress(ValueError):
        if isinstance(name, str):
            return logical(_named(name))
    raise DefinitionError(
        f"{name!r} is not a type. Write int64, float64, bool, string, date32, timestamp[us], "
        "or pass a pyarrow type such as pyarrow.list_(pyarrow.float32(), 64)."
    )


_SCHEMA = "arrow:"
"""How the text of a type begins that has no name: a schema with one field of that type follows."""
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), (?:tz=)?([^\]]+)\]")
_DECIMAL = re.compile(r"decimal128\((\d{1,2}), ?(-?\d{1,2})\)")


def _named(text: str) -> pa.DataType:
    """Return the type with a name of Arrow, or with the text of a type that has no name.

    Raises:
        ValueError: There is none.
    """
    if found := _ZONED.fullmatch(text):
        return pa.timestamp(found[1], found[2])
    if found := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(found[1]), int(found[2]))
    if text.startswith(_SCHEMA):
        return pa.ipc.read_schema(pa.py_buffer(b64decode(text.removeprefix(_SCHEMA)))).field(0).type
    return pa.type_for_alias(text)


def as_text(kind: pa.DataType) -> str:
    """Return the text of a logical type, of which `parse` returns the same type.

    >>> as_text(pa.float64()), as_text(UTC)
    ('double', 'timestamp[us, tz=UTC]')
    """
    with suppress(ValueError):
        if _named(str(kind)) == kind:
            return str(kind)
    return _SCHEMA + b64encode(pa.schema([pa.field("", kind)]).serialize().to_pybytes()).decode()


def parse_each(argument: str, given: object) -> dict[str, pa.DataType]:
    """Return an argument that maps column names to types, with logical types; see `parse`.

    Raises:
        DefinitionError: It is not a mapping from names to types.
        DataError: Seeknal cannot store values of a type.
    """
    example = "{'x': 'int64'}"
    if not isinstance(given, Mapping):
        raise DefinitionError(f"{argument}={given!r} is not a mapping. Write {argument}={example}, for example.")
    names = check_names(argument, list(given), example)
    return dict(zip(names, map(parse, given.values()), strict=True))
