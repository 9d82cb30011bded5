"""The point-in-time join of one group in memory, in three ways that give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seeknal.columns import gather
from seeknal.engine.protocol import Wanted
from seeknal.engine.queries import among_sql, as_of_sql, fetch_sql, nearest_sql, tied_sql

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
    """

    query: Callable[..., pa.Table]
    wanted: Wanted
    rows: str
    spine: pa.Table
    parts: Sequence[str] = ()

    def answer(self) -> pa.Table:
        """Give the features as f0, f1, ..., in the order of the spine: in the way that is quickest for it."""
        is_small = len(self.spine) * _FEW < self.wanted.rows.count and not self.parts[1:]
        found = self.of_few_entities() if is_small else self.of_nearest()
        return self.in_full() if found is None else found

    def in_full(self) -> pa.Table:
        """Compare all that tells rows apart."""
        return self.query(as_of_sql(self.wanted.rows.schema, self.wanted, self.rows), spine=self.spine)

    def of_few_entities(self) -> pa.Table | None:
        """Take the rows of the spine's entities, and compare event times; None if some are tied."""
        schema = self.wanted.rows.schema
        rows = self.query(among_sql(schema, self.wanted, self.rows), spine=self.spine)
        if len(self.query(tied_sql(schema, "rows"), rows=rows)):
            return None
        query = as_of_sql(schema, self.wanted, "SELECT * FROM rows", settled=True)
        return self.query(query, spine=self.spine, rows=rows)

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
        try:
            return gather(pa.concat_tables(fetched), places)
        except pa.ArrowInvalid:  # so much text that it has to come in pieces
            return None
