"""The point-in-time join of one group in memory: rows are read by SQL, found by number, and put in the spine's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seeknal.columns import gather
from seeknal.engine.asof import nearest
from seeknal.engine.protocol import Wanted
from seeknal.engine.queries import fetch_sql, ordered_sql, rows_sql

_FEW = 20


@dataclass(frozen=True)
class Join:
    """One group's rows, and a spine.

    Args:
        query: Answers SQL, in which it knows Arrow tables by the names given with it.
        wanted: The features.
        rows: SQL that gives the group's rows.
        spine: The spine: k0, k1, ... (keys) and t (microseconds).
        parts: SQL that gives the same rows in parts, each before the one before it.
        cells: How many values may be read for a spine, however small it is.
    """

    query: Callable[..., pa.Table]
    wanted: Wanted
    rows: str
    spine: pa.Table
    parts: Sequence[str] = ()
    cells: int = 2**24

    def answer(self) -> pa.Table:
        """Give the features as f0, f1, ..., in the order of the spine: in the way that is quickest for it."""
        count, asked = self.wanted.rows.count, len(self.spine)
        is_small = asked * _FEW < count and not self.parts[1:]
        found = self.at_once(among=is_small) if is_small or count <= asked else None
        return self.in_steps() if found is None else found

    def at_once(self, *, among: bool = True) -> pa.Table | None:
        """Read the rows of the spine's entities (or all) with their features; None if they are too many."""
        features = self.wanted.features
        most = max(len(self.spine), self.cells // (len(features) + 1)) + 1
        query = rows_sql(self.wanted.rows.schema, self.rows, features, most, among=among)
        rows = self.query(query, spine=self.spine)
        if len(rows) == most:
            return None
        names = [f"f{i}" for i in range(len(features))]
        return _gathered(rows.select(names), nearest(rows.drop_columns(names), self.spine, self.wanted.ttl))

    def in_steps(self) -> pa.Table:
        """Find the rows that count by their keys and times, and then read the features of those alone.

        The latest part is looked through first, and the next for those only who were not found.
        """
        schema, features = self.wanted.rows.schema, self.wanted.features
        ids, places = np.full(len(self.spine), -1), np.full(len(self.spine), -1)
        fetched: list[pa.Table] = []
        for part in self.parts or (self.rows,):
            left = np.flatnonzero(places < 0)
            spine = self.spine.take(pa.array(left)) if len(left) < len(places) else self.spine
            few = len(left) * _FEW < self.wanted.rows.count
            rows = self.query(rows_sql(schema, part, among=few), spine=spine)
            at = nearest(rows, spine, self.wanted.ttl)
            left, at = left[at >= 0], at[at >= 0]
            is_wanted = np.zeros(len(rows), bool)
            is_wanted[at] = True
            wanted = rows["id"].to_numpy()[is_wanted]
            numbered = pa.table({"id": wanted, "i": np.arange(len(wanted))})
            found = self.query(fetch_sql(part, features), wanted=numbered)
            where = np.empty(len(wanted), np.int64)
            where[found["i"].to_numpy()] = np.arange(len(found)) + sum(len(one) for one in fetched)
            number = (np.cumsum(is_wanted) - 1)[at]
            ids[left], places[left] = wanted[number], where[number]
            fetched.append(found.drop_columns(["i"]))
            if (places >= 0).all():
                break
        gathered = _gathered(pa.concat_tables(fetched), places)
        return self._in_order(ids) if gathered is None else gathered

    def _in_order(self, ids: np.ndarray) -> pa.Table:
        """Read the features of rows, in an order: for more text than fits in one array."""
        wanted = pa.table({"id": pa.array(ids, mask=ids < 0), "i": np.arange(len(ids))})
        return self.query(ordered_sql(self.rows, self.wanted.features), wanted=wanted)


def _gathered(features: pa.Table, places: np.ndarray) -> pa.Table | None:
    """Put features in order; None if there is so much text that it has to come in pieces."""
    try:
        return gather(features, places)
    except pa.ArrowInvalid:
        return None
