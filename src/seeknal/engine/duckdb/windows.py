"""Windowed features on DuckDB: SQL reads the events, `seeknal.engine.windows` computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.aggregations.result_types import type_of
from seeknal.define.columns import ROW_ID
from seeknal.define.windowed_group import reach_of
from seeknal.engine.duckdb.conditions import condition_sql
from seeknal.engine.duckdb.queries import created_sql, is_small, share_sql
from seeknal.engine.protocol import WindowRequest
from seeknal.engine.windows.spine import Stored, windows_at
from seeknal.errors import DataError, StoreError
from seeknal.names import quoted
from seeknal.offline.plan import newest_first
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.moments import gather
from seeknal.values.sql import comma, quote


@dataclass(frozen=True)
class WindowJoin:
    """The features of one windowed group at the moments of a spine.

    Args:
        query: Runs SQL and returns a table; Arrow tables passed by keyword are views of that name in the SQL.
        wanted: The features.
        rows: SQL that reads the rows of the source.
    """

    query: Callable[..., pa.Table]
    wanted: WindowRequest
    rows: str

    @property
    def schema(self) -> pa.Schema:
        """The names and logical types of the features."""
        columns = {field.name: field.type for field in self.wanted.rows.schema}
        return pa.schema([(one.name, type_of(one.aggregation, columns)) for one in self.wanted.windows])

    def of_table(self, moments: pa.Table, passes: int) -> pa.Table:
        """Return the features at the moments of a table, in passes over partitions of the entities."""
        if passes == 1:
            return self.answer(moments)
        numbered = moments.append_column("i", pa.array(np.arange(len(moments))))
        share = share_sql(len(self.wanted.keys), None, passes)
        parts, places = [], []
        shares = self.query(f"SELECT i, {share} AS share FROM spine", spine=numbered)
        order = np.argsort(shares["i"].to_numpy())
        share_of = shares["share"].to_numpy()[order]
        for number in range(passes):
            mine = np.flatnonzero(share_of == number)
            parts.append(self.answer(moments.take(pa.array(mine)), number, passes))
            places.append(mine)
        back = np.argsort(np.concatenate(places))
        together = pa.concat_tables(parts)
        return pa.Table.from_arrays(gather(together.columns, back), names=together.column_names)

    def answer(self, moments: pa.Table, share: int = 0, shares: int = 1) -> pa.Table:
        """Return the features at these moments, by their names.

        Args:
            moments: k0, k1, ... (keys) and t (microseconds), of one partition of the entities.
            share: The number of that partition.
            shares: How many partitions there are.
        """
        few = is_small(len(moments), self.wanted.rows.count)
        return self.computed(self.read(moments, share, shares, few=few), moments)

    def read(self, moments: pa.Table | None, share: int = 0, shares: int = 1, *, few: bool = False) -> pa.Table:
        """Return the events of a partition of the entities, in any order; see `Stored.rows`.

        Args:
            moments: The moments of a spine, for `few`.
            share: The number of the partition.
            shares: How many partitions there are.
            few: Read only events in reach of the moments.
        """
        is_ordered = any(one.aggregation.orders_ties for one in self.wanted.windows)
        mine = share_sql(len(self.wanted.keys), share, shares)
        return self._read(mine, self._in_reach if few else "", moments, ties=is_ordered)

    def _read(self, share: str, narrow: str, spine: pa.Table | None, *, ties: bool) -> pa.Table:
        return self._events(self._sql(share, narrow, ties=ties), spine)

    def computed(self, rows: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the features at these moments, from the events that `read` has returned."""
        stored = Stored(rows, self._columns, self._masks)
        return pa.Table.from_arrays(
            windows_at(stored, moments, self.wanted.windows, self.wanted.hop), schema=self.schema
        )

    @property
    def _in_reach(self) -> str:
        """SQL that leaves the events that are in reach of the moments in the table `spine`, of each entity by itself."""
        keys = [f"k{i}" for i in range(len(self.wanted.keys))]
        same = [f"events.{key} = spans.{key}" for key in keys]
        spans, within = [*keys, "max(t) AS last"], [*same, "events.t <= spans.last"]
        if (reach := reach_of(self.wanted.windows, self.wanted.hop)) is not None:
            spans.append(f"greatest(min(t), {reach - 2**63}) - {reach} AS first")  # no less than 64 bits can hold
            within.append("events.t >= spans.first")
        of_spine = f"SELECT {comma(spans)} FROM spine GROUP BY {comma(keys)}"
        return f"SEMI JOIN ({of_spine}) AS spans ON {' AND '.join(within)}"

    def _events(self, query: str, spine: pa.Table | None = None) -> pa.Table:
        """Return the events that a query of `_sql` reads, in any order; it may read k0, k1, ... and t of `spine`."""
        schema, wanted = self.wanted.rows.schema, self.wanted
        fields = [schema.field(name) for name in [*wanted.keys, *self._columns]]
        if wanted.rows.is_empty:
            return _nothing(len(wanted.keys), list(self._columns.values()), fields, self._masks)
        try:
            found = self.query(query, **({} if spine is None else {"spine": spine}))
        except StoreError as error:
            if self._masks and isinstance(
                error.__cause__, duckdb.DataError
            ):  # a cast of text that is no number, for example
                raise DataError(
                    f"A condition could not be evaluated for every event: {error.__cause__}. The conditions are "
                    f"{quoted(self._masks)}. For a cast that may fail, write TRY_CAST."
                ) from None
            raise
        kinds = {f"k{i}": types.stored(field.type) for i, field in enumerate(fields[: len(wanted.keys)])}
        stored = [kinds.get(name, kind) for name, kind in zip(found.column_names, found.schema.types, strict=True)]
        logical = list(stored)
        for own, name in self._columns.items():
            place = found.column_names.index(name)
            stored[place], logical[place] = schema.stored_type(own), schema.field(own).type
        return recast(recast(found, stored), logical)

    def _sql(self, share: str, narrow: str, *, ties: bool) -> str:
        """Write the query that reads the events: see `Stored.rows`.

        Args:
            share: A condition for the keys.
            narrow: A join of `events` that leaves out some of them.
            ties: Whether the order of events of equal time matters, so that created times and row numbers are read.
        """
        schema, wanted = self.wanted.rows.schema, self.wanted
        keys = {f"k{i}": quote(name) for i, name in enumerate(wanted.keys)}
        columns = {**keys, "t": f"epoch_us({quote(schema.event_time.name)})"}
        if ties and schema.created_time:
            columns["created"] = created_sql(schema.created_time.name)
        columns |= {"id": quote(ROW_ID)} if ties else {}
        columns |= {name: quote(own) for own, name in self._columns.items()}
        columns |= {name: name for name in self._masks.values()}
        # The conditions get a query of their own, in which their columns have no other names.
        masks = comma(["*", *(f"{condition_sql(text)} AS {name}" for text, name in self._masks.items())])
        rows = f"SELECT {masks} FROM ({self.rows})"
        if wanted.one_of:  # rows that agree in these columns and in their time are one event
            same = comma(map(quote, [*wanted.one_of, schema.event_time.name]))
            rows += f" QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY {newest_first(schema)}) = 1"
        named = comma(f"{value} AS {name}" for name, value in columns.items())
        return f"SELECT * FROM (SELECT {named} FROM ({rows})) AS events {narrow} WHERE {self._known} AND {share}"

    @property
    def _known(self) -> str:
        """The SQL condition that no key is null."""
        return " AND ".join(f"k{i} IS NOT NULL" for i in range(len(self.wanted.keys)))

    @cached_property
    def _columns(self) -> dict[str, str]:
        """The names under which the columns that features aggregate are read."""
        return {own: f"c{i}" for i, own in enumerate(self.wanted.columns)}

    @cached_property
    def _masks(self) -> dict[str, str]:
        """The names under which the conditions of features are read."""
        return {text: f"_seeknal_where_{i}" for i, text in enumerate(self.wanted.conditions)}

    def of_entities(self, entities: pa.Table | None, share: int, shares: int) -> pa.Table:
        """Return the events of a partition of the entities, or of some entities in it; see `Engine.events`."""
        keys = [f"k{i}" for i in range(len(self.wanted.keys))]
        narrow = "" if entities is None else f"SEMI JOIN spine USING ({comma(keys)})"
        query = self._sql(share_sql(len(keys), share, shares), narrow, ties=True)
        found = self._events(query, None if entities is None else entities.rename_columns(keys))
        tie = [name for name in ("created", "id") if name in found.column_names]
        # Keys without an order of their own, such as text of another collation, still stand side by side.
        order = pc.sort_indices(found, [(name, "ascending") for name in [*keys, "t", *tie]])
        names = [*keys, "t", *self._columns.values(), *self._masks.values()]
        events = found.take(order).select(names).rename_columns([*self.wanted.keys, "t", *names[len(keys) + 1 :]])
        logical = [self.wanted.rows.schema.field(name).type for name in self.wanted.keys]
        return recast(events, [*logical, *events.schema.types[len(keys) :]])


def _nothing(keys: int, columns: list[str], fields: list[pa.Field], masks: dict[str, str]) -> pa.Table:
    """Return no events."""
    names = [*(f"k{i}" for i in range(keys)), *columns]
    kinds = {name: field.type for name, field in zip(names, fields, strict=True)}
    others = {"t": pa.int64(), "id": pa.int64(), **dict.fromkeys(masks.values(), pa.bool_())}
    return pa.schema(list({**kinds, **others}.items())).empty_table()
