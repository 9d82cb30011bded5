"""Recomputing logged answers from history: the proof that what was served is what a training set has."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.request_feature import RequestFeature, load
from seeknal.engine import Engine
from seeknal.errors import DefinitionError, StoreError
from seeknal.join import retrieval
from seeknal.join.retrieval import kinds_of
from seeknal.registry import ViewRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.registry.view_content import FunctionContent, ViewContent
from seeknal.request.recipe import Recipe
from seeknal.serve.answer_log import ASKED, DEFAULTED, SERVED_AT
from seeknal.serve.verification import NEAR, OTHER, Difference, Verified, difference_of, is_near, places_of_difference
from seeknal.values.arguments import check_number, check_share
from seeknal.values.times import Interval, Moment, instant, now

LATE, CODE, TYPE, GONE = "late data", "changed code", "type", "not known: what was stored then was removed"
"""Causes of differences between a logged answer and history, besides another value."""
BETWEEN = "not known: rows of the entity were pushed at that time, and stored together"
CAUSES = (OTHER, GONE, BETWEEN, TYPE, CODE, LATE)
"""All causes, in the order in which differences are told."""
_EVERY = 2**62
_AT_ONCE, _SHOWN = 50_000, 10
_LATER = 20
"""How many snapshots after the loaded one are tried: rows that were pushed before a read are committed after it."""

Wanted = bool | float | int | Interval | Sequence[Moment]
"""Which logged answers to recompute: True for all, a share of them, the number of the newest, or those of an interval."""


@dataclass(frozen=True)
class Logged:
    """Logged answers, and what they are compared with.

    Args:
        view: The version of the view.
        sources: Its lookups, as stored now.
        recipe: Makes what the model reads, with the functions as their code is now.
        labels: The labels of the sources in the columns of statuses.
        rows: The rows of the log.
    """

    view: ViewRecord
    sources: Sequence[Source]
    recipe: Recipe
    labels: Sequence[str]
    rows: pa.Table

    @property
    def content(self) -> ViewContent:
        """What the version is."""
        return self.view.content

    @property
    def rounded(self) -> frozenset[str]:
        """The looked-up features that are compared with a tolerance."""
        return frozenset[str]().union(*(one.rounded for one in self.sources))

    def each(self) -> Iterator[Logged]:
        """Yield the rows that were asked for the same features, with the recipe of these. Of others, nothing was logged."""
        asked = pc.fill_null(pc.binary_join(self.rows[ASKED], "\0"), "")
        for one in pc.unique(asked):
            names = one.as_py().split("\0") if one.as_py() else None
            known = [name for name in names or () if name in self.recipe.kinds]
            if names is None or known:  # else nothing of it is computed any more
                recipe = self.recipe if names is None else self.recipe.only(known)
                yield replace(self, recipe=recipe, rows=self.rows.filter(pc.equal(asked, one)))

    def filled(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a looked-up feature as the log has it: with its default, if it was asked for and not only needed for what was."""
        recipe = self.recipe
        is_filled = name in recipe.defaults and name in recipe.names
        return pc.fill_null(column, recipe.defaults[name][0]) if is_filled else column

    def given(self) -> dict[str, pa.ChunkedArray]:
        """Return the inputs of the recipe as they were logged: with null where a default took its place."""
        defaulted = self.rows[DEFAULTED].to_pylist()
        columns = {}
        for name in (*self.recipe.request, *self.recipe.looked_up):
            column = self.rows[name]
            if name in self.recipe.defaults and name in self.recipe.names:
                was_null = pa.array([name in (one or ()) for one in defaulted])
                column = pc.if_else(was_null, pa.scalar(None, column.type), column)
            columns[name] = column
        return columns


def logged_rows(catalog: Catalog, engine: Engine, view: ViewRecord, wanted: Wanted) -> pa.Table:
    """Return logged answers of a version of a view, the newest first. Those of before a key's type was widened are among them.

    Raises:
        DefinitionError: None were logged yet, or `wanted` has the wrong form.
    """
    record = catalog.registry.group(view.project, view.log)
    if record is None or record.group.description != view.log_description or not catalog.versions(record):
        raise DefinitionError(f"No answer of {view.label} was logged yet. Serve it with log=0.01, for example.")
    version, snapshot = catalog.read(record, None)
    span, limit, share = _read_wanted(wanted)
    if limit < _EVERY:
        times = engine.sample(snapshot.within(replace(version.schema, features=())), _EVERY)[SERVED_AT]
        span = _newest(times, limit)
    rows = engine.sample(snapshot.within(version.schema, span), _EVERY)
    # Each process writes its own rows, so the order of writing is not that of the answers.
    rows = rows.sort_by([(SERVED_AT, "descending")]).slice(0, limit)
    if share < 1:
        rows = rows.filter(pa.array(np.random.default_rng().random(len(rows)) < share))
    return rows


def _read_wanted(wanted: Wanted) -> tuple[Interval, int, float]:
    if isinstance(wanted, bool) and wanted:
        return Interval(), _EVERY, 1.0
    if isinstance(wanted, Interval):
        return wanted, _EVERY, 1.0
    if isinstance(wanted, float):
        return Interval(), _EVERY, check_share("log", wanted)
    if isinstance(wanted, list | tuple) and len(wanted) == 2:  # noqa: PLR2004 - start and end
        return Interval(instant(wanted[0]), instant(wanted[1], whole_day=True)), _EVERY, 1.0
    return Interval(), check_number("log", wanted, 1000), 1.0


def _newest(times: pa.ChunkedArray, count: int) -> Interval:
    """Return the interval that has so many of the newest of some times, and all that are equal to the oldest of these."""
    ordered = np.sort(times.cast(pa.int64()).to_numpy())
    return Interval(int(ordered[-count])) if count < len(ordered) else Interval()


def recipe_now(content: ViewContent, sources: Sequence[Source]) -> Recipe:
    """Return the recipe of a view with its functions as their code is now, even if that is not what was registered.

    Raises:
        DefinitionError: A function cannot be imported, or needs other inputs than the view has.
    """
    functions = [_function_now(one) for one in content.functions]
    known = {*content.types, *content.request, *(name for one in functions for name in one.outputs)}
    features = tuple(name for name in content.features if name in known)
    defaults = {name: value for name, value in content.defaults.items() if name in known}
    return replace(content, features=features, defaults=defaults).recipe(kinds_of(sources), functions)


def _function_now(known: FunctionContent) -> RequestFeature:
    try:
        return load(msgspec.to_builtins(known))
    except DefinitionError as error:
        module, _, name = known.function.partition(":")
        found = getattr(importlib.import_module(module), name, None) if hasattr(error, "changed") else None
        if not isinstance(found, RequestFeature):
            raise
        return found


def compare(catalog: Catalog, engine: Engine, logged: Logged) -> Verified:
    """Compare logged answers with what history gives for their moments now, and find the cause of each difference."""
    label, rows = logged.view.label, logged.rows
    compared, found = 0, list[Difference]()
    for start in range(0, len(rows), _AT_ONCE):
        for part in replace(logged, rows=rows.slice(start, _AT_ONCE)).each():
            comparison = _Comparison(catalog, engine, part)
            found += comparison.differences()
            compared += comparison.compared
    found.sort(key=lambda one: CAUSES.index(one.cause))
    gone = [name for name in logged.content.features if name not in logged.recipe.kinds]
    return Verified(
        label,
        now(),
        len(rows),
        compared,
        len(found),
        tuple(found[:_SHOWN]),
        tolerance=NEAR if logged.rounded else 0,
        not_compared=tuple(f"{name}: its function computes it no more" for name in gone),
        causes=Counter(one.cause for one in found),
    )


class _Comparison:
    """The comparison of some logged rows.

    Args:
        catalog: The catalog of the home.
        engine: The engine that joins.
        logged: The rows.
    """

    def __init__(self, catalog: Catalog, engine: Engine, logged: Logged) -> None:
        self._catalog, self._engine, self._logged = catalog, engine, logged
        self.compared = 0
        self._keys = retrieval.keys_of(logged.sources)
        self._causes: dict[tuple[int, str], str] = {}

    def differences(self) -> list[Difference]:
        """Return the values that differ, each with its cause."""
        logged, recipe = self._logged, self._logged.recipe
        looked_up = self._look_up(logged.sources, logged.rows)
        for source, label in zip(logged.sources, logged.labels, strict=True):
            for name in source.features.values():
                if name in recipe.looked_up:
                    self._compare_looked_up(source, label, name, looked_up[name])
        given = logged.given()
        retyped = {name for name, kind in recipe.looked_up.items() if given[name].type != kind}
        history = {name: looked_up.get(name, column) for name, column in given.items()}
        now_it_is = recipe.columns(history, self._own_keys)
        as_logged = recipe.columns(given | {name: looked_up[name] for name in retyped}, self._own_keys)
        for name in recipe.functions.outputs:
            if name in recipe.names and retyped & recipe.only((name,)).looked_up.keys():
                self._set(range(len(logged.rows)), name, TYPE)
            elif name in recipe.names:
                self._compare_computed(name, now_it_is[name], as_logged[name])
        return [self._difference(row, name, cause, now_it_is, looked_up) for (row, name), cause in self._causes.items()]

    @property
    def _own_keys(self) -> dict[str, pa.ChunkedArray]:
        return {name: self._logged.rows[name] for name in self._keys}

    def _set(self, rows: Iterable[int], name: str, cause: str) -> None:
        self._causes |= {(row, name): cause for row in rows}

    def _look_up(self, sources: Sequence[Source], rows: pa.Table) -> dict[str, pa.ChunkedArray]:
        found = retrieval.look_up(self._engine, sources, rows.select(self._keys), rows[SERVED_AT], Interval())
        return dict(zip(found.column_names, found.columns, strict=True))

    def _places(self, name: str, column: pa.ChunkedArray, rows: pa.Table) -> list[int]:
        """Return in which rows a column differs from what was logged."""
        mine = rows[name]
        places = places_of_difference(mine, column)
        if name in self._logged.rounded:
            places = [row for row in places if not is_near(mine[row].as_py(), column[row].as_py())]
        return places

    def _compare_looked_up(self, source: Source, label: str, name: str, column: pa.ChunkedArray) -> None:
        logged = self._logged
        self.compared += len(logged.rows)
        if logged.rows[name].type != column.type:
            self._set(range(len(logged.rows)), name, TYPE)
            return
        snapshots = logged.rows[f"{label}_snapshot"].to_pylist()
        by_snapshot: dict[int, list[int]] = {}
        for row in self._places(name, logged.filled(name, column), logged.rows):
            by_snapshot.setdefault(snapshots[row], []).append(row)
        for snapshot, own in by_snapshot.items():
            self._compare_with_what_was_stored(source, name, snapshot, own)

    def _compare_with_what_was_stored(self, source: Source, name: str, snapshot: int, rows: list[int]) -> None:
        """Find the cause for rows that differ now: whether they are equal to what was stored when they were answered."""
        left, between, is_there = list(rows), set[int](), False
        for version in self._versions(source):
            own = self._logged.rows.take(pa.array(left, pa.int64()))
            before: pa.ChunkedArray | None = None
            missing = set(range(len(left)))
            for number, column in self._stored(source, version, snapshot, own, name):
                is_there = is_there or number == snapshot
                missing &= set(self._places(name, self._logged.filled(name, column), own))
                between |= {left[i] for i in places_of_difference(column if before is None else before, column)}
                before = column
                if not missing:
                    break
            self._set((row for i, row in enumerate(left) if i not in missing), name, LATE)
            if not (left := [left[i] for i in sorted(missing)]):
                return
        self._set(left, name, OTHER if is_there else GONE)
        self._set(between.intersection(left), name, BETWEEN)

    def _stored(
        self, source: Source, version: int, snapshot: int, rows: pa.Table, name: str
    ) -> Iterator[tuple[int, pa.ChunkedArray]]:
        """Yield what a version of a group had for logged rows in the snapshot that was loaded, and in the next ones."""
        last = self._catalog.log(source.stored).newest()
        for number in range(snapshot, min(last, snapshot + _LATER) + 1):
            try:
                then = self._catalog.source(replace(source.lookup, version=version), number)
                column = self._look_up([replace(then, record=source.record)], rows)[name]
            except (StoreError, DefinitionError):  # the snapshot was vacuumed, or is of before the version
                continue
            if column.type == rows[name].type:
                yield number, column

    def _versions(self, source: Source) -> list[int]:
        """Return the versions of a group that may have been served, the newest first: a view follows its groups to new ones."""
        if source.is_pinned:
            return [source.version.number]
        return sorted((one.number for one in self._catalog.versions(source.record)), reverse=True)

    def _compare_computed(self, name: str, column: pa.ChunkedArray, as_logged: pa.ChunkedArray) -> None:
        logged = self._logged
        self.compared += len(logged.rows)
        if logged.rows[name].type != column.type:
            self._set(range(len(logged.rows)), name, TYPE)
            return
        of_code = places_of_difference(logged.rows[name], as_logged)
        self._set(of_code, name, CODE)
        inputs = logged.recipe.only((name,)).looked_up.keys()
        if inputs & logged.rounded:
            return  # equal inputs up to a tolerance can give any other result, so those that were logged decide
        for row in set(places_of_difference(logged.rows[name], column)) - set(of_code):
            causes = {self._causes[row, one] for one in inputs if (row, one) in self._causes}
            self._causes[row, name] = causes.pop() if len(causes) == 1 else OTHER

    def _difference(
        self,
        row: int,
        name: str,
        cause: str,
        computed: Mapping[str, pa.ChunkedArray],
        looked_up: Mapping[str, pa.ChunkedArray],
    ) -> Difference:
        logged = self._logged
        column = computed[name] if name in computed else logged.filled(name, looked_up[name])
        keys = logged.rows.select(self._keys).slice(row, 1)
        at = logged.rows[SERVED_AT].cast(pa.int64())[row].as_py()
        return difference_of(logged.view, keys, name, (logged.rows[name][row], column[row]), cause, at)
