"""What one Arrow array can hold: bytes of text, and values of lists, up to the largest number of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

MOST = 2**31 - 1
_NOTHING = np.zeros(1, np.int64)


class BeyondArrowError(Exception):
    """A result does not fit in one array."""


def lists(values: pa.Array, sizes: np.ndarray) -> pa.Array:
    """Return values as lists of these sizes; null in place of an empty list.

    Raises:
        BeyondArrowError: There are more values than an array of lists can have.
    """
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    check_size(int(offsets[-1]))
    kind = pa.list_(pa.field("item", values.type))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind, mask=pa.array(sizes == 0))


def take(values: pa.Array, places: np.ndarray) -> pa.Array:
    """Return the values at these positions; null for -1.

    Raises:
        BeyondArrowError: They have more text, or longer lists, than an array can have.
    """
    is_null = places < 0
    for ends in ends_of(values):
        sizes = np.append(np.diff(ends), 0)  # the last one is for -1
        check_size(int(sizes[places].sum()))
    return values.take(pa.array(places, mask=is_null) if is_null.any() else pa.array(places))


def joined(arrays: Sequence[pa.Array]) -> pa.Array:
    """Return arrays of one type, at least one, as one array.

    Raises:
        BeyondArrowError: They do not fit in one.
    """
    if len(arrays) == 1:
        return arrays[0]
    for ends in zip(*map(ends_of, arrays), strict=True):
        check_size(sum(int(end[-1]) - int(end[0]) for end in ends))
    return pa.concat_arrays(arrays)


def filled(values: pa.Array, fill: pa.Array) -> pa.Array:
    """Return values with the one of `fill` in place of nulls.

    Raises:
        BeyondArrowError: They have more text than an array can have.
    """
    for ends, size in zip(ends_of(values), ends_of(fill), strict=True):
        check_size(int(ends[-1]) - int(ends[0]) + values.null_count * int(size[-1]))
    return values.fill_null(fill[0])


def check_size(size: int) -> None:
    """Check that an array can have so many bytes of text, or values of lists.

    Raises:
        BeyondArrowError: It cannot.
    """
    if size > MOST:
        raise BeyondArrowError


def ends_of(values: pa.Array) -> list[np.ndarray]:
    """Return, for all parts of a type that vary in size, where each value ends in them, from 0 values on.

    Of the lists [["a"], ["bc", "d"]] it returns [0, 1, 3], the values of lists, and [0, 1, 4], the bytes of text.
    """
    kind = values.type
    if is_.is_string(kind) or is_.is_binary(kind):
        return [_offsets(values)]
    if is_.is_list(kind):
        offsets = _offsets(values)
        return [offsets, *(ends[offsets] for ends in ends_of(values.values))]
    if is_.is_struct(kind):
        return [ends for i in range(kind.num_fields) for ends in ends_of(values.field(i))]
    return []


def _offsets(values: pa.Array) -> np.ndarray:
    buffer = values.buffers()[1] if len(values) else None
    if buffer is None:
        return _NOTHING
    return np.frombuffer(buffer, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
