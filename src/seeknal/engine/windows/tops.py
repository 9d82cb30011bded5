"""The best few spans of each window: a span has a rank, and lies over a run of neighbouring windows.

This is the table of `extremes` turned around. A span of n windows is covered by two runs of 2**k windows, where
2**k <= n < 2**(k + 1), and is noted at the beginning of both, on level k, if no better one is. From the highest level on, each
note is then handed down to the two halves of its run. At level 0 each window has its best span.

For the second best, the best spans are cut where they are the best, and all is done again with what is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Lying = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Spans, or parts of them: the first window, the window after the last one, and the rank."""


def best(first: np.ndarray, last: np.ndarray, grade: np.ndarray, size: int, n: int) -> Iterator[np.ndarray]:
    """Go through the n best spans of each window, the best first: the numbers of the spans, -1 where there are no more.

    It ends when no window has more.

    Args:
        first: The first window of each span.
        last: The window after the last one.
        grade: How good each span is, from 0 on, the best being 0. Of equal ones the first is the better one.
        size: The number of windows.
        n: How many spans of each window to find.
    """
    spans = max(len(first), 1)
    kind = np.int32 if (int(grade.max(initial=0)) + 1) * spans < 2**31 else np.int64
    none = np.iinfo(kind).max
    rank: np.ndarray = grade.astype(kind)
    rank *= spans
    rank += np.arange(len(first), dtype=kind)
    height = int((last - first).max(initial=1)).bit_length()
    cells = np.empty(height * size, kind)
    near, far = _cells(first, last, size)
    left, known = rank.copy(), np.zeros((0, size), np.int64)
    for i in range(n):
        cells.fill(none)
        np.minimum.at(cells, near, left)
        np.minimum.at(cells, far, left)
        if i:
            # What was found before is cut where it was found, and the rest of it noted.
            part_first, part_last, part_rank = _without(known, (first, last, rank))
            for at in _cells(part_first, part_last, size):
                np.minimum.at(cells, at, part_rank)
        found = _handed_down(cells.reshape(height, size))
        found = np.where(found == none, -1, found % spans)
        yield found
        if i == n - 1 or (found < 0).all():
            return
        known = np.vstack([known, found])
        left[found.compress(found >= 0)] = none


def _cells(first: np.ndarray, last: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two cells where spans are noted."""
    level = np.frexp((last - first).astype(np.float64))[1] - 1
    base = np.multiply(level, size, dtype=np.int64)
    near = base + first
    base += last
    base -= 1 << level
    return near, base


def _handed_down(rows: np.ndarray) -> np.ndarray:
    """Return the least note of each window, from the notes of all levels."""
    for k in range(len(rows) - 1, 0, -1):
        half = 1 << (k - 1)
        np.minimum(rows[k - 1], rows[k], out=rows[k - 1])
        np.minimum(rows[k - 1, half:], rows[k, :-half], out=rows[k - 1, half:])
    found: np.ndarray = rows[0]
    return found


def _without(known: np.ndarray, whole: Lying) -> Lying:
    """Return what is left of the spans that were found, where the windows that found them are cut out."""
    first, last, rank = whole
    rows, size = known.shape
    # The runs of windows that found the same span, in the order of the spans, and those of a span in the order of the windows.
    flat = known.ravel()
    begin = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]) | (np.arange(rows * size) % size == 0))
    end = np.append(begin[1:], rows * size)
    owner = flat[begin]
    begin, end = begin % size, (end - 1) % size + 1
    order = np.argsort(owner * size + begin)[np.count_nonzero(owner < 0) :]
    owner, begin, end = owner[order], begin[order], end[order]
    is_new = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
    is_last = np.append(is_new[1:], True)[: len(owner)]
    # What is left of a span lies before each of its runs, and after the last one.
    gap = np.where(is_new, first[owner], np.append(0, end[:-1])[: len(owner)]), begin, rank[owner]
    tail = end[is_last], last[owner[is_last]], rank[owner[is_last]]
    both = [np.concatenate(pieces) for pieces in zip(gap, tail, strict=True)]
    left, right, ranks = (one.compress(both[0] < both[1]) for one in both)
    return left, right, ranks
