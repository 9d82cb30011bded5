"""Decimals as the two 64-bit words that Arrow stores them in: unscaled, in two's complement, the low word first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def words_of(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high words of decimals, as int64; those of nulls mean nothing."""
    words = np.frombuffer(values.buffers()[1], np.int64)[2 * values.offset : 2 * (values.offset + len(values))]
    return words[0::2], words[1::2]


def decimals_of(low: np.ndarray, high: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return the decimals of these words."""
    words = np.empty(2 * len(low), np.int64)
    words[0::2], words[1::2] = low, high
    return pa.Array.from_buffers(kind, len(low), [None, pa.py_buffer(words)])
