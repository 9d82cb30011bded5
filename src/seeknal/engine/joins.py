"""The point-in-time join of one group in memory, in three ways that give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seeknal.columns import gather
from seeknal.engine.protocol import Wanted
from seeknal.engine.queries import as_of_sql, entities_sql, fetch_sql, nearest_sql, settled_sql

_FEW = 20
_SPARE = 2**17


@dataclass(frozen=True)
class Join:
    """One group's rows, and a spine.

    Args:
        query: Answers SQL, in which it knows Arrow tables by the names given with it.
        wanted: The features.
        rows: SQL that gives the group's rows.
        spine: The spine: k0, k1, ... (keys), t (microseconds) and i (position).
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
        found = self.of_entities(among=is_small) if is_small or count <= asked else None
        found = self.of_nearest() if found is None else found
        return self.in_full() if found is None else found

    def in_full(self) -> pa.Table:
        """Compare all that tells rows apart."""
        return self.query(as_of_sql(self.wanted.rows.schema, self.wanted, self.rows), spine=self.spine)

    def of_entities(self, *, among: bool = True) -> pa.Table | None:
        """Read the rows of the spine's entities (or all) once, and find those that count by their numbers; None if they are too many."""
        schema, names = self.wanted.rows.schema, [f"f{i}" for i in range(len(self.wanted.features))]
        most = max(len(self.spine), self.cells // (len(names) + 1)) + 1
        rows = self.query(entities_sql(schema, self.wanted, self.rows, most, among=among), spine=self.spine)
        if len(rows) == most:
            return None
        numbered = rows.drop_columns(names).append_column("number", pa.array(np.arange(len(rows))))
        found = self.query(settled_sql(schema, self.wanted.ttl), spine=self.spine, rows=numbered)
        places = np.full(len(self.spine), -1)
        places[found["i"].to_numpy()] = found["number"].to_numpy()
        return _gathered(rows.select(names), places)

    def of_nearest(self) -> pa.Table | None:
        """Find the entities and event times of the rows that count, and then fetch those rows; None if many are tied.

        So features need not be sorted, neither with the rows nor with the spine. The latest part is looked through first,
        and the next for those only who were not found.
        """
        schema, left = self.wanted.rows.schema, self.spine
        places = np.full(len(self.spine), -1)
        fetched: list[pa.Table] = []
        for rows in self.parts or (self.rows,):
            few = len(left) * _FEW < self.wanted.rows.count
            nearest = self.query(nearest_sql(schema, self.wanted, rows, among=few), spine=left)
            most = 2 * len(nearest) + _SPARE
            found = self.query(fetch_sql(schema, self.wanted, rows, most), nearest=nearest)
            if len(found) == most:
                return None
            positions, created, ids = (found[name].to_numpy() for name in ("i", "created", "id"))
            order = np.arange(len(found)) if len(found) == len(nearest) else np.lexsort([ids, created])
            places[positions[order]] = order + sum(len(one) for one in fetched)  # of several for one position, the last
            fetched.append(found.drop_columns(["i", "created", "id"]))
            left = left.filter(pa.array(places[left["i"].to_numpy()] < 0))
            if not len(left):
                break
        return _gathered(pa.concat_tables(fetched), places)


def _gathered(features: pa.Table, places: np.ndarray) -> pa.Table | None:
    """Put features in order; None if there is so much text that it has to come in pieces."""
    try:
        return gather(features, places)
    except pa.ArrowInvalid:
        return None
