"""The point-in-time join of one group in memory: rows are read by SQL, found by number, and put in the spine's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from seeknal.engine.asof import nearest
from seeknal.engine.duckdb.queries import fetch_sql, ordered_sql, rows_sql, share_sql
from seeknal.engine.protocol import FeatureRequest
from seeknal.values.moments import gather

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
        shares: Into how many shares the entities are cut, of which one is in memory at a time.
        cells: How many values of 8 bytes may be read for a spine, however small it is.
    """

    query: Callable[..., pa.Table]
    wanted: FeatureRequest
    rows: str
    spine: pa.Table
    parts: Sequence[str] = ()
    shares: int = 1
    cells: int = 2**24

    def answer(self) -> pa.Table:
        """Give the features as f0, f1, ..., in the order of the spine: in the way that is quickest for it."""
        count, asked = self.wanted.rows.count, len(self.spine)
        is_small = asked * _FEW < count and not self.parts[1:]
        is_whole = count <= asked and self.shares == 1
        found = self.at_once(of_spine=is_small) if is_small or is_whole else None
        return self.in_steps() if found is None else found

    def at_once(self, *, of_spine: bool = True) -> pa.Table | None:
        """Read the rows of the spine's entities (or all) with their features; None if they are too many."""
        features, source = self.wanted.features, self.wanted.rows
        most = max(len(self.spine), self.cells // self._cells_a_row)
        limit = most + 1 if source.count > most else None
        rows = self.query(rows_sql(source.schema, self.rows, features, limit, of_spine=of_spine), spine=self.spine)
        if len(rows) > most:
            return None
        names = [f"f{i}" for i in range(len(features))]
        places, columns = nearest(rows.drop_columns(names), self.spine, self.wanted.ttl), rows.select(names).columns
        del rows
        return _gathered(columns, places)

    @property
    def _cells_a_row(self) -> int:
        """How many values of 8 bytes a row takes, about: text, lists and such are taken to be as long as they are in files."""
        features, source = self.wanted.features, self.wanted.rows
        is_fixed = all(pa.types.is_primitive(source.schema.feature(name).type) for name in features)
        return len(features) + 1 + (0 if is_fixed else source.size // (8 * max(source.count, 1)))

    def in_steps(self) -> pa.Table:
        """Find the rows that count by their keys and times, and then read the features of those alone.

        The latest part is looked through first, and the next for those only who were not found.
        """
        numbers = np.full(len(self.spine), -1)  # which of the wanted rows counts
        ids, fetched = [np.empty(0, np.int64)], []
        for part in self.parts or (self.rows,):
            wanted = self._wanted(part, numbers, sum(map(len, ids)))
            ids.append(wanted["id"].to_numpy())
            fetched.append(self.query(fetch_sql(part, self.wanted.features), wanted=wanted))
            if (numbers >= 0).all():
                break
        features = pa.concat_tables(fetched)
        places = np.full(len(features) + 1, -1)  # the last is for who has none
        places[features["i"].to_numpy()] = np.arange(len(features))
        columns = features.drop_columns(["i"]).columns
        del features, fetched
        gathered = _gathered(columns, places[numbers])
        return self._in_order(np.concatenate(ids), numbers) if gathered is None else gathered

    def _wanted(self, rows: str, numbers: np.ndarray, first: int) -> pa.Table:
        """Find the rows that count for moments without a number, and give those one, from the first on; give id and number i."""
        found, start, schema = [np.empty(0, np.int64)], first, self.wanted.rows.schema
        for share in range(self.shares):
            is_left = (numbers < 0) & (self._share_of == share)
            left = np.flatnonzero(is_left)
            if not len(left):
                continue
            spine = self.spine.filter(pa.array(is_left)) if len(left) < len(numbers) else self.spine
            few = len(left) * _FEW < self.wanted.rows.count
            mine = share_sql(schema, share, self.shares)
            read = self.query(rows_sql(schema, rows, of_spine=few, share=mine), spine=spine)
            at = nearest(read, spine, self.wanted.ttl)
            left, at = left[at >= 0], at[at >= 0]
            is_wanted = np.zeros(len(read), bool)
            is_wanted[at] = True
            numbers[left] = first + (np.cumsum(is_wanted) - 1)[at]
            found.append(read["id"].to_numpy()[is_wanted])
            first += len(found[-1])
        return pa.table({"id": np.concatenate(found), "i": np.arange(start, first)})

    @cached_property
    def _share_of(self) -> np.ndarray:
        """The share that the entity of each of the spine is in."""
        shares = np.zeros(len(self.spine), np.int64)
        if self.shares > 1:
            numbered = self.spine.append_column("i", pa.array(np.arange(len(shares))))
            share = share_sql(self.wanted.rows.schema, None, self.shares)
            found = self.query(f"SELECT i, {share} AS share FROM spine", spine=numbered)
            shares[found["i"].to_numpy()] = found["share"].to_numpy()
        return shares

    def _in_order(self, ids: np.ndarray, numbers: np.ndarray) -> pa.Table:
        """Read the features of rows, in an order: for more text than fits in one array."""
        asked = pa.array(numbers, mask=numbers < 0)
        wanted = pa.table({"id": pa.array(ids).take(asked), "i": np.arange(len(numbers))})
        return self.query(ordered_sql(self.rows, self.wanted.features), wanted=wanted)


def _gathered(features: list[pa.ChunkedArray], places: np.ndarray) -> pa.Table | None:
    """Put features in order; None if there is so much text that it has to come in pieces."""
    names = [f"f{i}" for i in range(len(features))]
    try:
        return pa.Table.from_arrays(gather(features, places), names=names)
    except (pa.ArrowInvalid, pa.ArrowCapacityError):
        return None
