"""The point-in-time join of one group in memory: SQL reads rows, `seeknal.engine.asof` finds the winners, Arrow gathers features.

There are two ways, which give the same result and differ in what they read:

- At once: one query reads rows with their features. For a spine much smaller than the group these are the rows of the spine's
  entities, for a group no larger than the spine all rows.
- In steps: one query reads only keys, times and row numbers, and a second one the features of the rows that win.

For example, in steps, with two parts of a group (see `Snapshot.parts`), the latest first, and a spine of three rows:

    part       rows as (key, t, id)      spine (a, 9), (b, 9), (c, 9)    `numbers` after it
    t >= 6     (a, 7, 41), (d, 8, 43)    a finds row 41                  0, -1, -1
    t < 6      (a, 1, 10), (b, 2, 11)    b finds row 11, a is done       0, 1, -1

The winners are thus number 0, with id 41, and number 1, with id 11. Their features are fetched in any order, each row with its number
`i`, and gathered for the spine by `numbers`: those of 41, those of 11, and nulls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa

from seeknal.engine.asof import nearest
from seeknal.engine.duckdb.queries import fetch_sql, is_small, ordered_sql, rows_sql, share_sql
from seeknal.engine.protocol import FeatureRequest
from seeknal.offline import Rows
from seeknal.values.moments import gather


class LazyParts(Sequence[str]):
    """The SQL that reads each of some parts, written when it is needed: until then, nothing of a part is fetched from a store.

    Args:
        parts: The parts.
        sql: Writes the SQL of one.
    """

    def __init__(self, parts: Sequence[Rows], sql: Callable[[Rows], str]) -> None:
        self._parts = parts
        self._sql = sql

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> LazyParts: ...

    def __getitem__(self, index: int | slice) -> str | LazyParts:
        found = self._parts[index]
        return self._sql(found) if isinstance(found, Rows) else LazyParts(found, self._sql)


@dataclass(frozen=True)
class Join:
    """A point-in-time join of one group's rows to a spine.

    Args:
        query: Runs SQL and returns a table; Arrow tables passed by keyword are views of that name in the SQL.
        wanted: The features.
        rows: SQL that reads the group's rows, or what writes it when it is first needed.
        spine: The spine: k0, k1, ... (keys) and t (microseconds).
        parts: SQL that reads the same rows in parts, the latest first; empty if they are not cut.
        shares: The number of partitions of the entities, one of which is in memory at a time.
        cells: How many values of 8 bytes may be read at once with any spine, however small it is.
    """

    query: Callable[..., pa.Table]
    wanted: FeatureRequest
    rows: str | Callable[[], str]
    spine: pa.Table
    parts: Sequence[str] = ()
    shares: int = 1
    cells: int = 2**24

    def answer(self) -> pa.Table:
        """Return the features as f0, f1, ..., in the order of the spine, joined in the way that is fastest for it."""
        count, asked = self.wanted.rows.count, len(self.spine)
        # With several parts, a small spine finds most of its rows in the first, which is less to read than all rows of its entities.
        of_spine = is_small(asked, count) and not self.parts[1:]
        is_whole = count <= asked and self.shares == 1
        found = self.at_once(of_spine=of_spine) if of_spine or is_whole else None
        return self.in_steps() if found is None else found

    def at_once(self, *, of_spine: bool = True) -> pa.Table | None:
        """Join by reading the rows of the spine's entities, or all rows, with their features; return None if there are too many.

        Args:
            of_spine: Read only the rows of the spine's entities, rather than all.
        """
        features, source = self.wanted.features, self.wanted.rows
        most = max(len(self.spine), self.cells // self._cells_a_row)
        limit = most + 1 if source.count > most else None  # one row more shows that there are too many
        rows = self.query(rows_sql(source.schema, self._every, features, limit, of_spine=of_spine), spine=self.spine)
        if len(rows) > most:
            return None
        names = [f"f{i}" for i in range(len(features))]
        places, columns = nearest(rows.drop_columns(names), self.spine, self.wanted.ttl), rows.select(names).columns
        del rows  # frees the memory of keys and times before the result takes more
        return _gathered(columns, places)

    @cached_property
    def _every(self) -> str:
        return self.rows if isinstance(self.rows, str) else self.rows()

    @property
    def _cells_a_row(self) -> int:
        """About how many values of 8 bytes a row takes; rows with text, lists and the like are taken to be as large as in the files."""
        features, source = self.wanted.features, self.wanted.rows
        is_fixed = all(pa.types.is_primitive(source.schema.feature(name).type) for name in features)
        return len(features) + 1 + (0 if is_fixed else source.size // (8 * max(source.count, 1)))

    def in_steps(self) -> pa.Table:
        """Join by finding the winners from keys and times, and then reading the features of these rows only.

        The parts are searched in turn, the latest first, and each only for the moments that found no row in those before. That is
        right because every row of a later part has a greater event time than all rows of the parts after it.
        """
        numbers = np.full(len(self.spine), -1)  # of each moment, the number of its winner
        ids, fetched = [np.empty(0, np.int64)], []
        for part in self.parts or (self._every,):
            wanted = self._wanted(part, numbers, sum(map(len, ids)))
            ids.append(wanted["id"].to_numpy())
            fetched.append(self.query(fetch_sql(part, self.wanted.features), wanted=wanted))
            if (numbers >= 0).all():
                break
        features = pa.concat_tables(fetched)
        places = np.full(len(features) + 1, -1)  # the last item is for moments without a row, whose number is -1
        places[features["i"].to_numpy()] = np.arange(len(features))
        columns = features.drop_columns(["i"]).columns
        del features, fetched
        gathered = _gathered(columns, places[numbers])
        return self._in_order(np.concatenate(ids), numbers) if gathered is None else gathered

    def _wanted(self, rows: str, numbers: np.ndarray, first: int) -> pa.Table:
        """Search a part for the moments without a number, and number its winners from `first` on; each winner once.

        Args:
            rows: SQL that reads the part.
            numbers: The number of each moment's row, -1 where it has none yet; those that are found are written into it.
            first: The next number to give.

        Returns:
            The id and the number i of each winner.
        """
        found, start, schema = [np.empty(0, np.int64)], first, self.wanted.rows.schema
        for share in range(self.shares):
            is_left = (numbers < 0) & (self._share_of == share)
            left = np.flatnonzero(is_left)
            if not len(left):
                continue
            spine = self.spine.filter(pa.array(is_left)) if len(left) < len(numbers) else self.spine
            few = is_small(len(left), self.wanted.rows.count)
            mine = share_sql(len(schema.keys), share, self.shares)
            read = self.query(rows_sql(schema, rows, of_spine=few, share=mine), spine=spine)
            at = nearest(read, spine, self.wanted.ttl)
            left, at = left[at >= 0], at[at >= 0]
            # Several moments may share a winner. The running count of winners numbers each once, without a sort.
            is_wanted = np.zeros(len(read), bool)
            is_wanted[at] = True
            numbers[left] = first + (np.cumsum(is_wanted) - 1)[at]
            found.append(read["id"].to_numpy()[is_wanted])
            first += len(found[-1])
        return pa.table({"id": np.concatenate(found), "i": np.arange(start, first)})

    @cached_property
    def _share_of(self) -> np.ndarray:
        """The partition of each spine row's entity; DuckDB computes it, since its hash also partitions the stored rows."""
        shares = np.zeros(len(self.spine), np.int64)
        if self.shares > 1:
            numbered = self.spine.append_column("i", pa.array(np.arange(len(shares))))
            share = share_sql(len(self.wanted.rows.schema.keys), None, self.shares)
            found = self.query(f"SELECT i, {share} AS share FROM spine", spine=numbered)
            shares[found["i"].to_numpy()] = found["share"].to_numpy()
        return shares

    def _in_order(self, ids: np.ndarray, numbers: np.ndarray) -> pa.Table:
        """Read the features again, in the order of the spine: for more text than `_gathered` can put in one array."""
        asked = pa.array(numbers, mask=numbers < 0)
        wanted = pa.table({"id": pa.array(ids).take(asked), "i": np.arange(len(numbers))})
        return self.query(ordered_sql(self._every, self.wanted.features), wanted=wanted)


def _gathered(features: list[pa.ChunkedArray], places: np.ndarray) -> pa.Table | None:
    """Gather features by position, with nulls for -1; return None if a column has more text than one array can hold."""
    names = [f"f{i}" for i in range(len(features))]
    try:
        return pa.Table.from_arrays(gather(features, places), names=names)
    except (pa.ArrowInvalid, pa.ArrowCapacityError):
        return None
