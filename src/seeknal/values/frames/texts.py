"""Text parsed into typed columns, without losing a spelling.

A column takes a type only if every value is spelled as values of that type are, and no two spellings become one value.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

_SHORT = 15
"""A number with up to this many digits always prints back unchanged from a 64-bit float."""
_TINY, _FEW = 1e-290, 64
_TIME_OF_DAY = r"^[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?$"
_TRUTHS = ("true", "True", "TRUE", "false", "False", "FALSE")
_WITH_POWER = r"^-?[0-9](\.[0-9]+[eE][+-]?[0-9]+|[eE]([+-][0-9]+|[0-9]{2,}))$"
"""Numbers with an exponent as programs write them: 1.5e3, 1e-5, 1e16. They write 1000 for 1e3, which may be a code."""


def typed(text: pa.ChunkedArray, kind: pa.DataType | None) -> pa.ChunkedArray:
    """Return a text column in the expected type if all its values allow it, else in the inferred type."""
    found = None if kind is None else read(text, kind)
    return infer(text) if found is None else found


def infer(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a text column in the type that all its values have.

    It stays text if there is no such type, or if two spellings would become one value. A column of nulls has type null.

    >>> [str(infer(pa.chunked_array([values])).type) for values in (["1", None], ["007", "1.5"], ["1.10"], ["1.10", "1.1"])]
    ['int64', 'string', 'double', 'string']
    """
    if text.null_count == len(text):
        return pa.chunked_array([pa.nulls(len(text))])
    found = _guess(text)
    return text if found is None or _merges(text, found) else found


def _guess(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column in the first type that all its values have, or None. A few values show which types to try."""
    some = _some(text)
    likely = (read for may_be, read in _GUESSES if may_be(some) is not None)
    return next((found for read in likely if (found := read(text)) is not None), None)


def _some(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return up to 64 of the first values that are not null."""
    parts = (chunk.drop_null().slice(0, _FEW) for chunk in text.chunks)
    return pa.chunked_array([next((part for part in parts if len(part)), pa.array([], pa.string()))])


def read(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Return a text column in the expected type, or None if a value does not have that type."""
    if is_.is_string(kind) or is_.is_binary(kind):
        return text.cast(kind)
    return next((found for test, convert in _READ if test(kind) and (found := convert(text, kind)) is not None), None)


def _merges(text: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Return whether two spellings became one value. Numbers and times are compared only if they can have two."""
    if is_.is_integer(found.type) or is_.is_date32(found.type):
        return False  # each value is accepted in one spelling only
    if is_.is_floating(found.type):
        # Compared by its bits, NaN equals itself, and 0.0 differs from -0.0.
        bits = pa.chunked_array([chunk.view(pa.int64()) for chunk in found.chunks])
        text, found = _near(text, bits)
    elif not is_.is_boolean(found.type) and _is_of_one_shape(text, found.type):
        return False
    return bool(pc.count_distinct(text).as_py() > pc.count_distinct(found).as_py())


def _near(text: pa.ChunkedArray, numbers: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the texts and numbers with an odd spelling, together with all others that are equal to them.

    Only among these can two spellings be one number, since every number has just one spelling that is not odd. These
    spellings are odd: no digit before the point, an exponent, nan and inf, and a zero at the end of the decimals, unless
    all numbers have the same number of decimals. Of .5, 0.5 and 0.7, the first two are returned.
    """
    has_none = pc.or_(pc.starts_with(text, "."), pc.starts_with(text, "-."))
    is_odd = pc.or_(has_none, _has_letter(text, "e", "E", "n", "N"))  # an exponent, or nan and inf
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
    """Return whether moments or times of day are all written in the same format, so that each has just one spelling."""
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
    """Parse whole numbers, or return None. 007 and 0x1A are refused, since they would be written back differently."""
    found = _cast(text, kind)
    return found if found is not None and _equal(found.cast(pa.string()), text) else None


def _truths(text: pa.ChunkedArray, _kind: pa.DataType = pa.bool_()) -> pa.ChunkedArray | None:
    """Parse the spellings of true and false, or return None. Arrow alone would accept 1 as well."""
    return text.cast(pa.bool_()) if _equal(pc.is_in(text.drop_null(), pa.array(_TRUTHS)), pa.scalar(True)) else None


def _times(text: pa.ChunkedArray, kind: pa.DataType = pa.time32("s")) -> pa.ChunkedArray | None:
    """Parse times of day, or return None. Arrow parses them only as part of a timestamp."""
    if not pc.all(pc.match_substring_regex(text, _TIME_OF_DAY)).as_py():
        return None
    found = _cast(pc.binary_join_element_wise("1970-01-01 ", text, ""), pa.timestamp(kind.unit))
    return None if found is None else found.cast(kind)


def _floats(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Parse numbers as the nearest floats, or return None. A whole number may be a count, and has to be exact."""
    found = _numbers(text, kind)
    if found is None:
        return None
    # Only whole numbers with more digits than the type always keeps have to be compared, which is slow.
    digits = {16: 3, 32: 7}.get(kind.bit_width, _SHORT)
    is_whole = pc.and_(_is_long(text, digits), pc.invert(pc.match_substring_regex(text, "[.eE]")))
    return found if _same_numbers(text, found, is_whole) else None


def _exact_floats(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Parse numbers as floats that print back as the same numbers. Return None if one does not, or if all are nan or inf."""
    found = _numbers(text, pa.float64())
    if found is None or not pc.any(pc.is_finite(found)).as_py() or pc.any(pc.ends_with(text, ".")).as_py():
        return None
    powers = text.filter(_has_letter(text, "e", "E"))
    # A single exponent that no program would write, as in 1e3, makes the whole column text: it may hold codes.
    if pc.all(pc.match_substring_regex(powers, _WITH_POWER)).as_py() is False:
        return None
    tiny = pc.less(pc.abs(found), _TINY)
    small, near = text.filter(tiny), found.filter(tiny)
    # A short text can be a number below the least float only if it has an exponent: 1e-400 would become 0.
    has_power = pc.match_substring(small, "e", ignore_case=True)
    is_same = _same_numbers(text, found, _is_long(text)) and _same_numbers(small, near, has_power)
    return found if is_same else None


def _numbers(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Parse floats, or return None. A plus sign, a leading zero or an overflow means that the text is not a number."""
    found = _cast(text, pa.float64())
    if found is None or pc.any(pc.starts_with(text, "+")).as_py():
        return None
    for zero in ("0", "-0"):
        led = text.filter(pc.and_not(pc.starts_with(text, zero), pc.starts_with(text, f"{zero}.")))
        if pc.any(pc.match_substring_regex(led, "^-?0[0-9]")).as_py():
            return None
    # Infinity is accepted as a word only: an infinite float whose text has digits has overflowed.
    near = found.cast(kind, safe=False)
    infinite = text.filter(pc.is_inf(near))
    return None if pc.any(pc.match_substring_regex(infinite, "[0-9]")).as_py() else near


def _is_long(text: pa.ChunkedArray, digits: int = _SHORT) -> pa.ChunkedArray:
    return pc.greater(pc.binary_length(text), digits)


def _same_numbers(text: pa.ChunkedArray, found: pa.ChunkedArray, checked: pa.ChunkedArray) -> bool:
    """Return whether the checked floats print back as the numbers in their text."""
    some, numbers = text.filter(checked), found.filter(checked).cast(pa.float64())
    # Most floats are printed as in the text. Only the others are compared one by one, as decimals.
    differs = pc.and_(pc.not_equal(numbers.cast(pa.string()), some), pc.is_finite(numbers))
    pairs = zip(some.filter(differs).to_pylist(), numbers.filter(differs).to_pylist(), strict=True)
    return all(Decimal(one) == Decimal(repr(number)) for one, number in pairs)


def _moments(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Parse ISO 8601 times of day, dates or timestamps, or return None."""
    if (times := _times(text)) is not None:
        return times
    # Seconds where there are no fractions, else nanoseconds, which keep every digit, else microseconds, with the
    # longest range.
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
"""For each type, in order: the check that a few values must pass, and the parser that all values must pass."""
_READ: tuple[tuple[Callable[[pa.DataType], bool], Callable[..., pa.ChunkedArray | None]], ...] = (
    (is_.is_integer, _whole),
    (is_.is_floating, _floats),
    (is_.is_boolean, _truths),
    (is_.is_time, _times),
    (lambda kind: is_.is_date32(kind) or is_.is_timestamp(kind) or is_.is_decimal(kind), _cast),
)
"""The parser for each kind of expected type."""
