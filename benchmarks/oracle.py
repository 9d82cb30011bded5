"""The expected result of a join, computed by sorting and bisection in NumPy alone, and the comparison with a result.

No query engine is involved. The last row at or before each moment wins; of rows with equal event times, the one created last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Verdict:
    """The verdict on a result.

    Args:
        wrong: What is wrong; empty if nothing is.
        in_order: Whether its rows are in the order of the spine.
    """

    wrong: str = ""
    in_order: bool = True


def winners(rows: data.Made, spine: data.Made, ttl: int | None = None) -> np.ndarray:
    """Return the number of the winning row for each row of a spine, -1 if there is none. The result is cached beside the spine."""
    kept = spine.folder / f"winners-{rows.folder.name}-{ttl}.npy"
    if not kept.exists():
        made = _times(rows.file, "made_at") if "made_at" in pq.read_schema(rows.file).names else None
        moments = spine.codes, _times(spine.file, "at")
        np.save(kept, find(rows.codes, _times(rows.file, "seen_at"), *moments, made=made, ttl=ttl))
    return np.load(kept)


def find(
    codes: np.ndarray,
    times: np.ndarray,
    asked: np.ndarray,
    moments: np.ndarray,
    *,
    made: np.ndarray | None = None,
    ttl: int | None = None,
) -> np.ndarray:
    """Return the number of the winning row for each moment, -1 if there is none.

    Args:
        codes: The number of each row's entity.
        times: The event time of each row.
        asked: The number of the entity that is requested at each moment.
        moments: The moments.
        made: The created time of each row, which settles ties.
        ttl: How long a value is valid.
    """
    people = np.unique(asked)
    place = np.searchsorted(people, codes).clip(max=len(people) - 1)
    rows = np.flatnonzero(people[place] == codes)  # of others nobody asks
    if not len(rows):
        return np.full(len(asked), -1)
    first, last = min(times[rows].min(), moments.min()), max(times[rows].max(), moments.max())
    interval = int(last - first) + 1
    if len(people) * interval >= 2**63:  # they have no place in 64 bits together: one half, and then the other
        found = np.full(len(asked), -1)
        for some in np.array_split(people, 2):
            half = (asked >= some[0]) & (asked <= some[-1])
            found[half] = find(codes, times, asked[half], moments[half], made=made, ttl=ttl)
        return found
    places = place[rows] * interval + (times[rows] - first)
    order = np.arange(len(rows)) if made is None else np.argsort(made[rows], kind="stable")
    order = order[np.argsort(places[order], kind="stable")]
    wanted = np.searchsorted(people, asked) * interval + (moments - first)
    found = np.searchsorted(places[order], wanted, side="right") - 1
    winner = rows[order[np.maximum(found, 0)]]
    good = (found >= 0) & (codes[winner] == asked) & (times[winner] <= moments)
    if ttl is not None:
        good &= moments - times[winner] <= ttl
    return np.where(good, winner, -1)


def check(answer: pa.Table, spine: data.Made, expected: list[tuple[data.Made, np.ndarray, dict[str, str]]]) -> Verdict:
    """Compare a result with the expected one, value by value: the spine's rows and columns, then the features.

    Args:
        answer: The result, in any order; the verdict says whether it is the order of the spine.
        spine: The spine.
        expected: For each group: its rows, the winners among them, and the name of each feature in the result.
    """
    moments = pq.read_table(spine.file)
    if len(answer) != len(moments):
        return Verdict(f"{len(answer):,} rows instead of {len(moments):,}")
    numbers = answer["row"].to_numpy()
    in_order = bool(np.array_equal(numbers, np.arange(len(numbers))))
    back = None if in_order else pa.array(np.argsort(numbers, kind="stable"))
    for name in moments.column_names:
        if wrong := _difference(name, answer[name], moments[name], back):
            return Verdict(wrong, in_order)
    for rows, winner, names in expected:
        take = pa.array(np.maximum(winner, 0), mask=winner < 0)
        for feature, name in names.items():
            if name not in answer.column_names:
                return Verdict(f"no column {name}", in_order)
            right = pq.read_table(rows.file, columns=[feature])[feature].combine_chunks().take(take)
            if wrong := _difference(name, answer[name], pa.chunked_array([right]), back):
                return Verdict(wrong, in_order)
    return Verdict("", in_order)


def _difference(name: str, column: pa.ChunkedArray, right: pa.ChunkedArray, order: pa.Array | None) -> str:
    """Return in how many rows a column has a wrong value. Types may differ if the values do not."""
    if order is not None:
        column = column.take(order)
    if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(right.type):
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    column = column.cast(right.type)
    if column.equals(right):
        return ""
    same = pc.fill_null(pc.equal(column, right), False)
    both_null = pc.and_(pc.is_null(column), pc.is_null(right))
    count = len(column) - pc.sum(pc.or_(same, both_null)).as_py()
    return f"{count:,} values of {name} are wrong" if count else ""


def _times(file: Path, name: str) -> np.ndarray:
    return pq.read_table(file, columns=[name])[name].cast(pa.int64()).to_numpy()
