"""Minima and maxima of windows, whatever their length, with two looks for each.

Level k has the least of each run of 2**k values. A window of n values is covered by two runs of 2**k, where 2**k <= n < 2**(k + 1):
one from its start and one up to its stop (a sparse table; Bender and Farach-Colton, "The LCA problem revisited", 2000).

For example, level 1 of 5, 3, 4, 9 is 3, 3, 4. The window of 5, 3, 4 is covered by the runs 5, 3 and 3, 4: the least is min(3, 3).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from seeknal.engine.windows.selection import Windows, in_place


def extreme(windows: Windows, pick: np.ufunc) -> pa.Array:
    """Return the least value of each window with `np.minimum`, the greatest with `np.maximum`."""
    keys = windows.selection.keys
    if not len(keys.numbers):
        return pa.nulls(len(windows.start), windows.selection.kind)
    found = np.full(len(windows.start), keys.numbers[0])
    # frexp(n) has the exponent k + 1 for 2**k <= n < 2**(k + 1).
    levels = np.frexp(windows.count.astype(np.float64))[1] - 1
    order = np.argsort(levels.astype(np.int8), kind="stable")
    firsts = np.searchsorted(levels[order], np.arange(65))
    level = keys.numbers
    for k in range(int(windows.longest).bit_length()):
        if k:
            level = pick(level[: -(1 << (k - 1))], level[1 << (k - 1) :])
        here = order[firsts[k] : firsts[k + 1]]
        found[here] = pick(level[windows.start[here]], level[windows.stop[here] - (1 << k)])
    return in_place(keys.decode(found), windows.empty)
