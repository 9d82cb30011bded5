"""Approximate counts and quantiles by sketches: states of bounded size that are functions of the set of the values alone.

So their results have the same bits in any order of the events, and would have them if sketches of parts of a window were merged.

Counts are by adaptive sampling (Flajolet, "On adaptive sampling", 1990; it is also `uniq` of ClickHouse): the sketch keeps at most
2**14 hashes of distinct values. When there are more, only those below half the largest possible hash are kept, then below a quarter,
and so on, and each stands for 2, 4, ... values.

Quantiles are by buckets whose width grows with their values (Masson, Rim and Lee, "DDSketch", 2019, with the linearly interpolated
mapping of its authors): a bucket has the floats that are equal after rounding to eight significant bits.
"""

from __future__ import annotations

from decimal import Context, Decimal
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from seeknal.engine.windows.grouped import Grouped
from seeknal.engine.windows.keys import Keys, bits_of_floats
from seeknal.engine.windows.selection import Windows
from seeknal.values.types import LONGEST_DECIMAL

MOST = 2**14
"""The most distinct values that are counted exactly. Beyond, the standard error is about 1.2 / sqrt(MOST)."""
_CUT = 52 - 7
"""The bits of a float that rounding to eight significant bits cuts off: one of the eight is not stored."""
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXACT = Context(prec=LONGEST_DECIMAL)


def count_distinct(windows: Windows, grouped: Grouped) -> pa.Array:
    """Return about the number of distinct values of each window: exactly that up to `MOST`."""
    segment, numbers = grouped.order.segment, grouped.keys.numbers
    found = grouped.count(windows)
    which = np.flatnonzero(found > MOST)
    hashed = hashes(grouped.keys) if len(which) else numbers
    level = 0
    while len(which):
        level += 1
        is_kept = hashed >> np.uint64(64 - level) == 0
        before = np.append(0, np.cumsum(is_kept))
        sample = Grouped(segment.compress(is_kept), Keys(numbers.compress(is_kept), grouped.keys.decode))
        kept = sample.count(Windows(windows.selection, before[windows.start[which]], before[windows.stop[which]]))
        found[which] = kept << level
        which = which.compress(kept > MOST)
    return pa.array(found)


def hashes(keys: Keys) -> np.ndarray:
    """Return a hash of 64 bits for each key: the same for a value in wider types of its kind, which a source may get later."""
    known, places = np.unique(keys.numbers, return_inverse=True)
    values = keys.decode(known)
    kind = values.type
    if is_.is_floating(kind):
        numbers = bits_of_floats(values.cast(pa.float64()).to_numpy())
    elif is_.is_boolean(kind) or is_.is_integer(kind):
        numbers = values.cast(pa.int8()).to_numpy() if is_.is_boolean(kind) else values.to_numpy()
    elif is_.is_temporal(kind):
        numbers = values.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_numpy()  # noqa: PLR2004 - bits
        # Products wrap around, which only values thousands of years apart could notice.
        numbers = numbers.astype(np.int64) * _NANOSECONDS[getattr(kind, "unit", "ns")]
    else:
        return np.array([_hash_of_bytes(value) for value in values.to_pylist()], np.uint64)[places]
    return _mixed(numbers.astype(np.int64).view(np.uint64))[places]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return hashes of whole numbers: the output of SplitMix64 (Steele, Lea and Flood, 2014) for each of them."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = z ^ (z >> np.uint64(31))
    return found


def _hash_of_bytes(value: bytes | str | Decimal) -> int:
    if isinstance(value, Decimal):
        value = str(_EXACT.normalize(value))  # without zeros at its end, of which a wider type may have more
    given = value.encode() if isinstance(value, str) else value
    return int.from_bytes(blake2b(given, digest_size=8).digest(), "little")


def rounded(floats: np.ndarray) -> np.ndarray:
    """Return floats rounded to eight significant bits: each is wrong by at most 1/256 of its value.

    Below 2.3e-308, where floats have fewer bits, it is wrong by at most 1e-310. Numbers that are not finite stay as they are.
    """
    bits = floats.view(np.int64)
    near = ((bits + (1 << (_CUT - 1))) >> _CUT << _CUT).view(np.float64)
    below = (bits >> _CUT << _CUT).view(np.float64)
    # The largest floats would become infinite, so they are rounded down.
    return np.where(np.isfinite(floats), np.where(np.isfinite(near), near, below) + 0.0, floats)
