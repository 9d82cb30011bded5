"""Values as 64-bit whole numbers in the same order, so that one code compares, sorts and counts values of all types.

Whole numbers, times and short decimals stand for themselves, floats for their bits, all others for their rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.engine.windows import limits
from seeknal.engine.windows.decimals import decimals_of, words_of

_SIGN = np.int64(-(2**63))
_SHORT = 18
"""Decimals of at most this many digits fit in 64 bits."""


@dataclass(frozen=True)
class Keys:
    """Values as numbers of the same order. Equal numbers stand for equal values.

    Args:
        numbers: The number of each value.
        decode: The function from numbers to values.
    """

    numbers: np.ndarray
    decode: Callable[[np.ndarray], pa.Array]

    @staticmethod
    def of(values: pa.Array) -> Keys:
        """Return the keys of values, none of which is null. -0.0 becomes 0.0, and each NaN the same."""
        kind = values.type
        if is_.is_floating(kind):
            return Keys(
                _of_floats(values.cast(pa.float64()).to_numpy()), lambda keys: pa.array(_floats_of(keys)).cast(kind)
            )
        if is_.is_boolean(kind):
            return Keys(values.cast(pa.int8()).to_numpy().astype(np.int64), lambda keys: pa.array(keys != 0))
        if is_.is_integer(kind) or is_.is_temporal(kind):
            return _of_whole(values)
        if is_.is_decimal(kind) and kind.precision <= _SHORT:
            return Keys(words_of(values)[0].copy(), lambda keys: decimals_of(keys, keys >> 63, kind))
        return _ranked(values)


def _of_whole(values: pa.Array) -> Keys:
    """Return the keys of integers, or of times, which are integers in their unit."""
    kind = values.type
    if kind == pa.uint64():
        return Keys(values.to_numpy().view(np.int64) ^ _SIGN, lambda keys: pa.array((keys ^ _SIGN).view(np.uint64)))
    if is_.is_temporal(kind):
        values = values.view(pa.int32() if kind.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits
    numbers = values.to_numpy()
    return Keys(numbers.astype(np.int64), lambda keys: pa.array(keys.astype(numbers.dtype)).view(kind))


def bits_of_floats(values: np.ndarray) -> np.ndarray:
    """Return the bits of floats as int64: those of 0.0 for -0.0, and the same for each NaN."""
    plain = values + 0.0  # -0.0 + 0.0 is 0.0
    plain[np.isnan(plain)] = np.nan
    bits: np.ndarray = plain.view(np.int64)
    return bits


def _of_floats(values: np.ndarray) -> np.ndarray:
    """Return the bits of floats, with those below the sign inverted where it is set: their order is that of the floats.

    The bits of positive floats grow with them. Those of a NaN without a sign are above those of infinity.
    """
    bits = bits_of_floats(values)
    keys: np.ndarray = bits ^ ((bits >> 63) & ~_SIGN)
    return keys


def _floats_of(keys: np.ndarray) -> np.ndarray:
    bits: np.ndarray = keys ^ ((keys >> 63) & ~_SIGN)
    return bits.view(np.float64)


def _ranked(values: pa.Array) -> Keys:
    encoded = values.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    ranks = np.empty(len(order), np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    known = encoded.dictionary.take(order)
    return Keys(ranks[encoded.indices.to_numpy()], lambda keys: limits.take(known, keys))
