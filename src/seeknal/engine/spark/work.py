"""What executors do for one request: read rows, and join a bucket of them to the moments of the same entities."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.windowed_group import reach_of
from seeknal.engine import selftest
from seeknal.engine.asof import nearest
from seeknal.engine.duckdb.engine import DuckDBEngine, events_sql, features_of, in_logical_types, visible_sql
from seeknal.engine.duckdb.queries import keys_and_times, rows_sql
from seeknal.engine.duckdb.windows import WindowJoin
from seeknal.engine.protocol import FeatureRequest, Request, WindowRequest
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.system.duck import Duck
from seeknal.system.folders import private_scratch
from seeknal.values.moments import gather
from seeknal.values.sql import comma


class LocalEngine(DuckDBEngine):
    """The DuckDB of one Python worker of an executor, on one core: it reads files, hashes keys and evaluates conditions."""

    def __init__(self) -> None:
        duck = Duck(private_scratch() or Path(tempfile.gettempdir()))
        selftest.check(duck.connection)  # the libraries may be of other releases than those of the driver
        duck.connection.execute("SET threads = 1")
        super().__init__(duck)

    @property
    def duck(self) -> Duck:
        """The DuckDB."""
        return self._duck

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a new cursor."""
        return self._duck.connection.cursor()

    def query(self, sql: str, **views: pa.Table) -> pa.Table:
        """Run SQL and return a table; Arrow tables passed by keyword are views of that name in the SQL."""
        return self._query(sql, **views)


VERSIONS = f"seeknal {version('seeknal')}, {selftest.VERSIONS}"
"""What driver and executors must have in common, so that they read, hash and compute alike."""


def check_versions(of_driver: str) -> None:
    """Check that this executor has what the driver has.

    Raises:
        StoreError: It has other releases.
    """
    if of_driver != VERSIONS:
        raise StoreError(f"The driver has {of_driver}, but an executor has {VERSIONS}. Install the same on both.")


@cache
def local() -> LocalEngine:
    """Return the engine of this worker, opened on first use."""
    return LocalEngine()


def known(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the rows without a null in some columns."""
    for name in names:
        if rows[name].null_count:
            rows = rows.filter(rows[name].is_valid())
    return rows


class Work(Protocol):
    """The part of a request's answer that depends on its kind."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the rows that are the join keys."""

    @property
    def rows(self) -> Rows:
        """The rows of the request."""

    @property
    def reach(self) -> int | None:
        """How long before a moment a row may be to count, in microseconds; None: any time. 0 where one row is enough."""

    def read(self, part: Rows, spine: pa.Table | None) -> pa.Table:
        """Return k0, k1, ... (keys), t (microseconds) and the other columns that `answer` needs of some of the rows.

        Args:
            part: These rows.
            spine: Read only what its entities need, if that is little; None: everything.
        """

    def before(self, rows: pa.Table, moment: int) -> np.ndarray:
        """Return the positions of the rows before a moment that moments from it on may need, among all rows of an entity."""

    def answer(self, rows: pa.Table | None, moments: pa.Table) -> pa.Table:
        """Return the features at some moments, in their order and in logical types, from all rows of their entities."""


@dataclass(frozen=True)
class Lookup:
    """The lookup of the last row at or before each moment."""

    wanted: FeatureRequest

    @property
    def keys(self) -> tuple[str, ...]:
        """See `Work.keys`."""
        return tuple(self.rows.schema.key_names)

    @property
    def rows(self) -> Rows:
        """See `Work.rows`."""
        return self.wanted.rows

    @property
    def reach(self) -> int | None:
        """See `Work.reach`."""
        return 0

    def read(self, part: Rows, spine: pa.Table | None) -> pa.Table:
        """See `Work.read`."""
        views = {} if spine is None else {"spine": spine}
        visible = visible_sql(part, [*keys_and_times(part.schema), *self.wanted.features])
        sql = rows_sql(part.schema, visible, self.wanted.features, of_spine=spine is not None)
        rows = known(local().query(sql, **views), [*entity_names(self), "t"])
        return rows if spine is None else self.winners(rows, spine)

    def winners(self, rows: pa.Table, spine: pa.Table) -> pa.Table:
        """Return the rows that win at some moment of a spine, each once. The winner among the winners of parts wins among all rows."""
        at = nearest(rows.select(self._of_search(rows)), spine, self.wanted.ttl)
        return rows.take(pa.array(np.unique(at[at >= 0])))

    def before(self, rows: pa.Table, moment: int) -> np.ndarray:
        """See `Work.before`: the last row of each entity."""
        keys = entity_names(self)
        entities = rows.group_by(keys).aggregate([]).select(keys)
        last = pa.array(np.full(len(entities), moment - 1))
        at = nearest(rows.select(self._of_search(rows)), entities.append_column("t", last))
        return at[at >= 0]

    def answer(self, rows: pa.Table | None, moments: pa.Table) -> pa.Table:
        """See `Work.answer`."""
        if rows is None:
            schema = features_of(self.wanted)
            return pa.table([pa.nulls(len(moments), kind) for kind in schema.types], schema=schema)
        names = [f"f{i}" for i in range(len(self.wanted.features))]
        at = nearest(rows.select(self._of_search(rows)), moments, self.wanted.ttl)
        try:
            found = pa.Table.from_arrays(gather(rows.select(names).columns, at), names=names)
        except (pa.ArrowInvalid, pa.ArrowCapacityError):  # more text than one array can hold
            half = len(moments) // 2
            if not half:
                raise
            return pa.concat_tables([self.answer(rows, moments[:half]), self.answer(rows, moments[half:])])
        return in_logical_types(self.wanted, found.to_reader()).read_all()

    @staticmethod
    def _of_search(rows: pa.Table) -> list[str]:
        return [name for name in rows.column_names if not name.startswith("f")]


@dataclass(frozen=True)
class _Events(WindowJoin):
    """Reads the events of some files. Rows of one event may be in other files, so all of them are read, with what they agree in.

    Args:
        same: The columns in which rows of one event agree; `wanted.one_of` is empty, so that none of them is left out yet.
        keep_unknown: Read rows without a key too.
    """

    same: tuple[str, ...] = ()
    keep_unknown: bool = False

    @cached_property
    def _columns(self) -> dict[str, str]:
        columns = {own: f"c{i}" for i, own in enumerate(self.wanted.columns)}
        return columns | {own: f"o{i}" for i, own in enumerate(self.same) if own not in columns}

    @property
    def _known(self) -> str:
        return "true" if self.keep_unknown else super()._known

    def read_some(self, spine: pa.Table | None) -> pa.Table:
        """Return the events in reach of the moments of a spine, or all."""
        ties = bool(self.same) or any(one.aggregation.orders_ties for one in self.wanted.windows)
        return self._read("true", "" if spine is None else self._in_reach, spine, ties=ties)

    @property
    def event_names(self) -> list[str]:
        """The names under which the columns are read in which rows of one event agree."""
        return [*(self._columns[own] for own in self.same), "t"]

    def each_once(self, rows: pa.Table) -> pa.Table:
        """Return the row that counts of each event."""
        by = self.event_names
        order = [name for name in ("created", "id") if name in rows.column_names]
        # Only row numbers come from the window: in DuckDB, it may return one of two equal values, such as 0.0 and -0.0, for the other.
        best = self.query(
            f"SELECT id FROM rows QUALIFY row_number() OVER (PARTITION BY {comma(by)} ORDER BY "
            f"{comma(f'{name} DESC' for name in order)}) = 1",
            rows=rows.select(list(dict.fromkeys([*by, *order]))),
        )
        return rows.filter(pc.is_in(rows["id"], best["id"].combine_chunks()))


@dataclass(frozen=True)
class Windows:
    """The features of a windowed group."""

    wanted: WindowRequest

    @property
    def keys(self) -> tuple[str, ...]:
        """See `Work.keys`."""
        return self.wanted.keys

    @property
    def rows(self) -> Rows:
        """See `Work.rows`."""
        return self.wanted.rows

    @property
    def reach(self) -> int | None:
        """See `Work.reach`."""
        return reach_of(self.wanted.windows, self.wanted.hop)

    @property
    def is_regrouped(self) -> bool:
        """Whether rows of one event may have different keys, so that they must come together before the entities do."""
        return bool(self.wanted.one_of) and not set(self.keys) <= set(self.wanted.one_of)

    @property
    def event_names(self) -> list[str]:
        """The names of the columns in which rows of one event agree, in the tables of executors."""
        return self._events(self.rows).event_names

    def read(self, part: Rows, spine: pa.Table | None) -> pa.Table:
        """See `Work.read`."""
        return self._events(part).read_some(None if self.is_regrouped else spine)

    def regrouped(self, rows: pa.Table) -> pa.Table:
        """Return the row that counts of each event, if it has all keys, from all rows of these events."""
        return known(self._events(self.rows).each_once(rows), entity_names(self))

    def before(self, rows: pa.Table, moment: int) -> np.ndarray:
        """See `Work.before`: the events of the longest window."""
        t = rows["t"].to_numpy()
        return np.flatnonzero((t < moment) & (t >= moment - (self.reach or 0)))

    def answer(self, rows: pa.Table | None, moments: pa.Table) -> pa.Table:
        """See `Work.answer`."""
        join = WindowJoin(local().query, replace(self.wanted, rows=replace(self.rows, paths=(), cut=())), "")
        if rows is None:
            return join.computed(join.read(None), moments)
        is_partial = self.wanted.one_of and not self.is_regrouped
        return join.computed(self._events(self.rows).each_once(rows) if is_partial else rows, moments)

    def _events(self, part: Rows) -> _Events:
        wanted = replace(self.wanted, rows=part, one_of=())
        return _Events(local().query, wanted, events_sql(self.wanted, part), self.wanted.one_of, self.is_regrouped)


def entity_names(work: Work) -> list[str]:
    """Return the names of the join keys in the tables of executors."""
    return [f"k{i}" for i in range(len(work.keys))]


def work_of(wanted: Request) -> Lookup | Windows:
    """Return the work of a request; executors take no locks, which the driver holds for them."""
    rows = replace(wanted.rows, held=None)
    if isinstance(wanted, WindowRequest):
        return Windows(replace(wanted, rows=rows))
    return Lookup(replace(wanted, rows=rows, parts=()))
