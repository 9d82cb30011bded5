"""Text as typed columns: a type is taken only if every value is written as such values are, and no two spellings become one."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

_SHORT = 15
"""So many digits are always exact in a float of 64 bits."""
_TINY, _FEW = 1e-290, 64
_TIME_OF_DAY = r"^[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?$"
_TRUTHS = ("true", "True", "TRUE", "false", "False", "FALSE")
_WITH_POWER = r"^-?[0-9](\.[0-9]+[eE][+-]?[0-9]+|[eE]([+-][0-9]+|[0-9]{2,}))$"
"""Numbers with a power of ten as programs write them: 1.5e3, 1e-5, 1e16. To them, 1e3 is 1000; in text it may be a code."""


def typed(text: pa.ChunkedArray, kind: pa.DataType | None) -> pa.ChunkedArray:
    """Return a column in the type that is meant, if all its values are of it, else in the one that all have."""
    found = None if kind is None else read(text, kind)
    return infer(text) if found is None else found


def infer(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in the type that all its values have; as text if there is none, or two spellings would become one value.

    >>> [str(infer(pa.chunked_array([values])).type) for values in (["1", None], ["007", "1.5"], ["1.10"], ["1.10", "1.1"])]
    ['int64', 'string', 'double', 'string']
    """
    if text.null_count == len(text):
        return pa.chunked_array([pa.nulls(len(text))])
    found = _guess(text)
    return text if found is None or _merges(text, found) else found


def _guess(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column in the first type that all its values have; a few of them tell which types to try."""
    some = _some(text)
    likely = (read for may_be, read in _GUESSES if may_be(some) is not None)
    return next((found for read in likely if (found := read(text)) is not None), None)


def _some(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the first values that are not null."""
    parts = (chunk.drop_null().slice(0, _FEW) for chunk in text.chunks)
    return pa.chunked_array([next((part for part in parts if len(part)), pa.array([], pa.string()))])


def read(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Return a column in a type that is known to be meant; None if a value is none of that type."""
    if is_.is_string(kind) or is_.is_binary(kind):
        return text.cast(kind)
    return next((found for test, convert in _READ if test(kind) and (found := convert(text, kind)) is not None), None)


def _merges(text: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Tell whether two spellings became one value; of numbers and times, only those that could are compared."""
    if is_.is_integer(found.type) or is_.is_date32(found.type):
        return False  # read only in the one spelling that they have
    if is_.is_floating(found.type):
        bits = pa.chunked_array([chunk.view(pa.int64()) for chunk in found.chunks])  # -0.0 and 0.0 are two, NaN is one
        text, found = _near(text, bits)
    elif not is_.is_boolean(found.type) and _is_of_one_shape(text, found.type):
        return False
    return bool(pc.count_distinct(text).as_py() > pc.count_distinct(found).as_py())


def _near(text: pa.ChunkedArray, numbers: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the numbers that can be spelled in another way, and those that are equal to them."""
    has_none = pc.or_(pc.starts_with(text, "."), pc.starts_with(text, "-."))
    is_odd = pc.or_(has_none, _has_letter(text, "e", "E", "n", "N"))  # a power of ten, or nan and inf
    if not _has_fixed_decimals(text) or pc.any(is_odd).as_py():
        is_odd = pc.or_(is_odd, pc.and_(pc.ends_with(text, "0"), pc.match_substring(text, ".")))
    some = pc.is_in(numbers, numbers.filter(is_odd).unique())
    return text.filter(some), numbers.filter(some)


def _has_fixed_decimals(text: pa.ChunkedArray) -> bool:
    places = pc.find_substring(text, ".")
    lengths = pc.min_max(pc.subtract(pc.binary_length(text), places))
    return bool(pc.min(places).as_py() >= 0 and lengths["min"] == lengths["max"])


def _has_letter(text: pa.ChunkedArray, *letters: str) -> pa.ChunkedArray:
    return reduce(pc.or_, (pc.match_substring(text, letter) for letter in letters))


def _is_of_one_shape(text: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Tell whether moments or times of day are all written alike, so that each has one spelling."""
    lengths, has_t = pc.min_max(pc.binary_length(text)), pc.min_max(pc.match_substring(text, "T"))
    is_alike = all(one["min"] == one["max"] for one in (lengths, has_t))
    return is_alike and (not getattr(kind, "tz", None) or pc.all(pc.ends_with(text, "Z")).as_py())


def _cast(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return None


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return pc.all(pc.equal(one, other)).as_py() is not False


def _whole(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Read whole numbers; 007 and 0x1A would be written back as others."""
    found = _cast(text, kind)
    return found if found is not None and _equal(found.cast(pa.string()), text) else None


def _truths(text: pa.ChunkedArray, _kind: pa.DataType = pa.bool_()) -> pa.ChunkedArray | None:
    """Read what is spelled as true or false; Arrow alone would take 1 as well."""
    return text.cast(pa.bool_()) if _equal(pc.is_in(text.drop_null(), pa.array(_TRUTHS)), pa.scalar(True)) else None


def _times(text: pa.ChunkedArray, kind: pa.DataType = pa.time32("s")) -> pa.ChunkedArray | None:
    """Read times of day, which Arrow reads from text within timestamps only."""
    if not pc.all(pc.match_substring_regex(text, _TIME_OF_DAY)).as_py():
        return None
    found = _cast(pc.binary_join_element_wise("1970-01-01 ", text, ""), pa.timestamp(kind.unit))
    return None if found is None else found.cast(kind)


def _floats(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Read numbers as floats, each rounded to the nearest; a whole number, which may count something, must be exact."""
    found = _numbers(text, kind)
    if found is None:
        return None
    digits = {16: 3, 32: 7}.get(kind.bit_width, _SHORT)
    is_whole = pc.and_(_is_long(text, digits), pc.invert(pc.match_substring_regex(text, "[.eE]")))
    return found if _same_numbers(text, found, is_whole) else None


def _exact_floats(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Read numbers as floats that are written back as the same numbers; words such as nan and inf alone are text."""
    found = _numbers(text, pa.float64())
    if found is None or not pc.any(pc.is_finite(found)).as_py() or pc.any(pc.ends_with(text, ".")).as_py():
        return None
    powers = text.filter(_has_letter(text, "e", "E"))
    if pc.all(pc.match_substring_regex(powers, _WITH_POWER)).as_py() is False:
        return None
    tiny = pc.less(pc.abs(found), _TINY)
    small, near = text.filter(tiny), found.filter(tiny)
    has_power = pc.match_substring(small, "e", ignore_case=True)  # with which a number can be less than the least float
    is_same = _same_numbers(text, found, _is_long(text)) and _same_numbers(small, near, has_power)
    return found if is_same else None


def _numbers(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Read floats; a plus, a leading zero, or a number that overflows make it something else."""
    found = _cast(text, pa.float64())
    if found is None or pc.any(pc.starts_with(text, "+")).as_py():
        return None
    for zero in ("0", "-0"):
        led = text.filter(pc.and_not(pc.starts_with(text, zero), pc.starts_with(text, f"{zero}.")))
        if pc.any(pc.match_substring_regex(led, "^-?0[0-9]")).as_py():
            return None
    near = found.cast(kind, safe=False)
    infinite = text.filter(pc.is_inf(near))
    return None if pc.any(pc.match_substring_regex(infinite, "[0-9]")).as_py() else near


def _is_long(text: pa.ChunkedArray, digits: int = _SHORT) -> pa.ChunkedArray:
    return pc.greater(pc.binary_length(text), digits)


def _same_numbers(text: pa.ChunkedArray, found: pa.ChunkedArray, checked: pa.ChunkedArray) -> bool:
    """Tell whether some floats are the numbers that their text says."""
    some, numbers = text.filter(checked), found.filter(checked).cast(pa.float64())
    differs = pc.and_(pc.not_equal(numbers.cast(pa.string()), some), pc.is_finite(numbers))
    pairs = zip(some.filter(differs).to_pylist(), numbers.filter(differs).to_pylist(), strict=True)
    return all(Decimal(one) == Decimal(repr(number)) for one, number in pairs)


def _moments(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Read ISO 8601 dates, times of day and timestamps."""
    if (times := _times(text)) is not None:
        return times
    kinds = [pa.date32(), *(pa.timestamp(unit, zone) for unit in ("s", "ns", "us") for zone in (None, "UTC"))]
    return next((found for kind in kinds if (found := _cast(text, kind)) is not None), None)


_Read = Callable[[pa.ChunkedArray], pa.ChunkedArray | None]
_GUESSES: tuple[tuple[_Read, _Read], ...] = (
    (lambda text: _cast(text, pa.int64()), lambda text: _whole(text, pa.int64())),
    (lambda text: _cast(text, pa.uint64()), lambda text: _whole(text, pa.uint64())),
    (_truths, _truths),
    (_moments, _moments),
    (lambda text: _numbers(text, pa.float64()), _exact_floats),
)
"""What a few values must pass, and what all of them must."""
_READ: tuple[tuple[Callable[[pa.DataType], bool], Callable[..., pa.ChunkedArray | None]], ...] = (
    (is_.is_integer, _whole),
    (is_.is_floating, _floats),
    (is_.is_boolean, _truths),
    (is_.is_time, _times),
    (lambda kind: is_.is_date32(kind) or is_.is_timestamp(kind) or is_.is_decimal(kind), _cast),
)
