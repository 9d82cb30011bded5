"""Served feature views: online tables whose answers also have values of the request and what functions compute of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from seeknal.define.request_feature import ARRAY, RequestFeature
from seeknal.errors import DataError, DefinitionError, NotOnlineError
from seeknal.names import check_features, did_you_mean, quoted
from seeknal.registry import OnlineTableRecord, ViewRecord
from seeknal.registry.view_content import ViewContent
from seeknal.request.recipe import Recipe, request_column
from seeknal.serve.answer_log import ASKED, DEFAULTED, SERVED_AT, Layout
from seeknal.serve.keys import Key, check_keys, exact_columns
from seeknal.serve.online_table import Found, OnlineTable, as_python, labels_of
from seeknal.serve.parts import Part, Read, Selection
from seeknal.serve.request_values import CONVERTERS, Unusual
from seeknal.system.locks import locked_cached_property
from seeknal.values import exact, frames
from seeknal.values.times import now
from seeknal.values.types import UTC

_MOST_PLANS = 100
_FEW = 16
"""Up to so many rows are answered one by one, unless a function takes arrays, which is called once for all of them."""
Values: TypeAlias = "list[Any] | pa.ChunkedArray"


@dataclass(frozen=True)
class Plan:
    """How some features of a view are made: what is looked up and given for them, and the recipe."""

    recipe: Recipe
    selection: Selection
    columns: list[str]
    """The names that a row must have: join keys, then request values."""
    converters: list[Callable[[Any], Any]] | None
    """Converts each request value of a row to its type in few steps, or raises `Unusual`. None: some type needs more steps."""
    few: int
    """Up to how many rows are answered one by one."""


@dataclass(frozen=True)
class Answer:
    """The answer for some rows.

    Args:
        found: What was looked up.
        request: The request values, by name.
        recipe: Makes the features of both.
    """

    found: Found
    request: Mapping[str, pa.ChunkedArray]
    recipe: Recipe

    @property
    def columns(self) -> Mapping[str, list[Any]]:
        """The join keys that were given."""
        return self.found.columns

    @property
    def looked_up_keys(self) -> Mapping[str, Key]:
        """The join keys, by name."""
        return self.found.keys

    @property
    def reads(self) -> Sequence[Read]:
        """The rows read, one `Read` for each of the pieces that were looked up."""
        return self.found.reads

    @locked_cached_property
    def keys(self) -> dict[str, pa.ChunkedArray]:
        """The join keys, as columns."""
        return {
            name: pa.chunked_array([self.found.keys[name].array(values)]) for name, values in self.found.columns.items()
        }

    @locked_cached_property
    def looked_up(self) -> dict[str, pa.ChunkedArray]:
        """The looked-up features, as columns."""
        columns: dict[str, pa.ChunkedArray] = {}
        for piece, read in zip(self.found.selection.pieces, self.found.reads, strict=True):
            arrays = piece.part.codec.columns(read.alive, piece.places)
            columns |= {name: pa.chunked_array([array]) for name, array in zip(piece.names, arrays, strict=True)}
        return columns

    # Until Python 3.12, a plain cached property has one lock for all answers, so that they would be computed one after the other.
    @locked_cached_property
    def _made(self) -> tuple[dict[str, pa.ChunkedArray], dict[str, pa.ChunkedArray]]:
        return self.recipe.answer({**self.looked_up, **self.request}, self.keys)

    @property
    def features(self) -> dict[str, pa.ChunkedArray]:
        """What the model reads, in order.

        Raises:
            DataError: A function fails, or its result is not of the declared type.
        """
        return self._made[0]

    @property
    def defaulted(self) -> list[list[str]]:
        """For each row, the names of the features whose default took the place of null, in order."""
        nulls = {name: column.to_pylist() for name, column in self._made[1].items()}
        return [[name for name, one in nulls.items() if one[row]] for row in range(len(self))]

    def logged(self, asked: list[str] | None, labels: Mapping[str, str]) -> pa.Table:
        """Return the answer as its log has it.

        Args:
            asked: The features that were asked for. None: all.
            labels: The label of each part in the log, by its label in columns of statuses.
        """
        names, count = pa.list_(pa.string()), len(self)
        at = self.reads[0].at if self.reads else now()
        columns: dict[str, Any] = {**self.keys, **self.looked_up, **self.request, **self.features}
        columns[SERVED_AT] = pa.array([at] * count, pa.int64()).cast(UTC)
        columns[ASKED] = pa.array([asked] * count, names)
        columns[DEFAULTED] = pa.array(self.defaulted, names)
        for piece, read in zip(self.found.selection.pieces, self.reads, strict=True):
            label = labels[piece.label]
            columns[f"{label}_status"] = pa.array(read.statuses, pa.string())
            columns[f"{label}_event_time"] = pa.array(read.times, pa.int64()).cast(UTC)
            columns[f"{label}_snapshot"] = pa.array([read.state.snapshot] * count, pa.int64())
        return pa.Table.from_pydict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def arrow(self, with_status: bool = False) -> pa.Table:
        """Return the answer as an Arrow table."""
        columns: dict[str, Any] = {**self.keys, **self.features}
        for label, (status, times) in self.statuses().items() if with_status else ():
            columns[f"{label}_status"] = pa.array(status, pa.string())
            columns[f"{label}_event_time"] = pa.array(times, pa.int64()).cast(UTC)
        if with_status and self.recipe.defaults:
            columns[DEFAULTED] = pa.array(self.defaulted, pa.list_(pa.string()))
        return pa.Table.from_pydict(columns)

    def frame(self, output: str, with_status: bool = False) -> Any:
        """Return the answer as a frame of the given kind."""
        return frames.from_arrow(self.arrow(with_status), output)

    def dicts(self, with_status: bool = False) -> list[dict[str, Any]]:
        """Return the answer as one dictionary per row."""
        with as_python():
            return list(self.arrow(with_status).to_pylist())

    def add_statuses(self, rows: Sequence[dict[str, Any]], form: Callable[[int], object]) -> None:
        """Add the statuses to one dictionary per row; see `Found.add_statuses`."""
        self._check_free(self.found.statuses())
        self.found.add_statuses(rows, form)
        if self.recipe.defaults:
            for row, names in zip(rows, self.defaulted, strict=True):
                row[DEFAULTED] = names

    def statuses(self) -> dict[str, tuple[list[str], list[int | None]]]:
        """Return the status and the event time of each row, by the labels of the parts.

        Raises:
            DefinitionError: A column of the answer has the name that a column of statuses, times or defaults would have.
        """
        found = self.found.statuses()
        self._check_free(found)
        return found

    def _check_free(self, labels: Mapping[str, object]) -> None:
        added = {name for label in labels for name in (f"{label}_status", f"{label}_event_time")}
        added |= {DEFAULTED} if self.recipe.defaults else set()
        if clash := sorted(added & {*self.columns, *self.recipe.names}):
            raise DefinitionError(
                f"View {self.found.table!r} has a column named {clash[0]!r}, as the status would be. Rename it: "
                "FeatureLookup(..., rename={...}), or another name for the request value or output."
            )


class ServedView(OnlineTable):
    """An online table that serves a version of a feature view with request values, functions, defaults or an order of its own.

    The caller gives the join keys and the request values of each row, and gets the join keys and what the model reads.

    Args:
        record: The registered table.
        parts: The features that it takes from each group, one part for each of its lookups.
        content: What the version is.
        functions: Its functions, if the caller has them. None: they are imported.

    Raises:
        DefinitionError: The code of a function cannot be imported, or has changed since it was registered.
    """

    def __init__(
        self,
        record: OnlineTableRecord,
        parts: Sequence[Part],
        content: ViewContent,
        functions: Sequence[RequestFeature] | None = None,
    ) -> None:
        super().__init__(record, parts)
        self._as_dicts = None  # which would return the looked-up features alone
        self.content = content
        private = set().union(*(part.pii for part in parts))
        self.recipe = content.recipe(super().kinds, None if functions is None else list(functions), private)
        self.functions = self.recipe.functions.functions
        # Those of the version itself: the labels of the table can have the versions of groups in them, which change.
        self._log_labels = dict(zip(self.labels, labels_of(content.lookups), strict=True))
        self._nested = {name for name, kind in self.kinds.items() if pa.types.is_nested(kind)}
        self.features = list(self.recipe.names)
        self._whole = self._plan_of(self.recipe)
        self._plans: dict[tuple[str, ...], Plan] = {}

    def __reduce__(self) -> tuple[type[OnlineTable], tuple[Any, ...]]:
        return ServedView, (self.record, self.parts, self.content)

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """The type of each feature that is looked up or read by the model, by its name."""
        return {**super().kinds, **self.recipe.kinds}

    def layout(self, view: ViewRecord) -> Layout:
        """Return the columns of the log of its answers.

        Raises:
            DefinitionError: A column of the view has the name of one of the log.
        """
        recipe = self.recipe
        kinds = {**recipe.request, **recipe.looked_up, **recipe.functions.outputs}
        return Layout(view, self.key_fields, kinds, list(self._log_labels.values()))

    @property
    def request_fields(self) -> list[pa.Field]:
        """The request values that a row must have, with their types."""
        return [pa.field(name, kind) for name, kind in self.recipe.request.items()]

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        at: int | None = None,
    ) -> Any:
        """Return what the model reads for some rows.

        Args:
            keys: A list of mappings from the names of join keys and request values to values, or a frame with them.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the requested features, in order. None: all of them. Only what they need is looked up and computed.
            with_status: Whether to add what `OnlineTable.get_features` adds and, if the view has defaults, a column `defaulted` with the
                names of the features whose default took the place of null.
            at: The time that counts as now, in microseconds since 1970. None: the time at which the rows were read.

        Returns:
            One row per given row, in order: the keys, then the features, then the status.

        Raises:
            DataError: A row has wrong names or types, or a function fails.
            DefinitionError: The output or a feature is unknown.
        """
        plan = self.plan(features)
        if output == "dicts" and not with_status and type(keys) is list and len(keys) <= plan.few:
            quick = self.quickly(plan, keys, at)
            if quick is not None:
                return quick[0]
        return super().get_features(keys, output, features, with_status=with_status, at=at)

    def quickly(self, plan: Plan, rows: list[Any], at: int | None) -> tuple[list[dict[str, Any]], list[Read]] | None:
        """Return the answer for a few rows, in as few steps as possible, and the reads.

        Return None if a value needs more steps, or if `find` would raise an error.
        """
        columns = None if plan.converters is None else exact_columns(rows, plan.columns)
        if columns is None:
            return None
        keys, given = columns[: len(self.keys)], columns[len(self.keys) :]
        encoded = plan.selection.entities.encode_plain(keys)
        if encoded is None:
            return None
        try:
            request = [[make(value) for value in one] for make, one in zip(plan.converters or (), given, strict=True)]
        except Unusual:
            return None
        try:
            reads = self.read(plan.selection.entities, encoded, at)
            found = [piece.values(read.alive) for piece, read in zip(plan.selection.pieces, reads, strict=True)]
        except (NotOnlineError, OverflowError, ValueError):  # the last two are of values that Python cannot hold
            return None
        made, entries, logged = [], list[dict[str, Any]](), self.log is not None and self.log.chosen()
        for i in range(len(rows)):
            values = dict(zip(plan.recipe.request, [one[i] for one in request], strict=True))
            for piece, one in zip(plan.selection.pieces, found, strict=True):
                values.update(zip(piece.names, one[i]))  # noqa: B905 - rows may have further values at their end
            key = dict(zip(self.keys, [one[i] for one in keys], strict=True))
            if logged:
                row, entry = self._with_entry(plan, values, key, reads, i)
                entries.append(entry)
            else:
                row = plan.recipe.row(values, key)
            made.append(key | row)
        if self.log:
            for entry in entries:  # only now: a later row may have failed
                self.log.add(entry)
        return made, reads

    def _with_entry(
        self, plan: Plan, values: dict[str, Any], key: dict[str, Any], reads: Sequence[Read], i: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the model reads for a row, and the entry of the log for it."""
        raw, defaulted = dict(values), list[str]()
        made = plan.recipe.row(values, key, defaulted)
        entry = {**key, **raw, **made, SERVED_AT: reads[0].at, DEFAULTED: [one for one in made if one in defaulted]}
        for name in self._nested & entry.keys():  # the caller may change its answer before the entry is written
            entry[name] = deepcopy(entry[name])
        if plan is not self._whole:
            entry[ASKED] = list(plan.recipe.names)
        for piece, read in zip(plan.selection.pieces, reads, strict=True):
            label, own = self._log_labels[piece.label], read.of([i])
            entry[f"{label}_status"], entry[f"{label}_event_time"] = own.statuses[0], own.times[0]
            entry[f"{label}_snapshot"] = read.state.snapshot
        return made, entry

    def find(self, columns: Mapping[str, Values], features: Sequence[str] | None, at: int | None) -> Answer:  # type: ignore[override]  # an answer is used as what is found
        """Look up and compute the features of some rows, given as one column per join key and request value.

        Args:
            columns: The rows, as `columns` returns them.
            features: Names of the requested features, in order. None: all of them.
            at: The time that counts as now, in microseconds since 1970. None: the time at which the rows were read.

        Raises:
            DataError: A value has a wrong type, or a request value is missing.
            DefinitionError: A feature is unknown, or a group is not online.
        """
        plan = self.plan(features)
        request = self._request(plan, columns)
        selection = plan.selection
        keys = {name: list(columns[name]) for name in self.keys}
        encoded = selection.entities.encode(keys)
        reads = self.read(selection.entities, encoded, at) if selection.pieces else []
        found = Found(self.record.name, {name: self._keys[name] for name in keys}, keys, selection, reads)
        answer = Answer(found, request, plan.recipe)
        if self.log and self.log.chosen():
            asked = None if plan is self._whole else list(plan.recipe.names)
            self.log.add_block(answer.logged(asked, self._log_labels))
        return answer

    def plan(self, features: Sequence[str] | None) -> Plan:
        """Return how some features are made, or all if None.

        Raises:
            DefinitionError: A feature is unknown, or none is named.
        """
        asked = check_features(features)
        if asked is None:
            return self._whole
        if unknown := [name for name in asked if name not in self.recipe.kinds]:
            hint = did_you_mean(unknown[0], self.features)
            raise DefinitionError(f"View {self.record.name!r} has no feature {quoted(unknown)}.{hint}")
        if (known := self._plans.get(asked)) is None:
            if len(self._plans) >= _MOST_PLANS:  # callers may request any number of combinations
                self._plans.clear()
            known = self._plans[asked] = self._plan_of(self.recipe.only(tuple(dict.fromkeys(asked))))
        return known

    def _plan_of(self, recipe: Recipe) -> Plan:
        selection = self._select(list(recipe.looked_up))
        quick = [CONVERTERS.get(str(kind)) for kind in recipe.request.values()]
        usual = [one for one in quick if one is not None]
        of_arrays = any(one.mode == ARRAY for one in recipe.functions.functions)
        return Plan(
            recipe,
            selection,
            [*self.keys, *recipe.request],
            usual if selection.pieces and len(usual) == len(quick) else None,
            1 if of_arrays else _FEW,
        )

    def columns(self, keys: object) -> dict[str, Values]:
        """Return rows as one column per join key and per request value.

        A request value that no row has, or that has no default and is missing in a row, is left out: `find` says if it is needed.

        Raises:
            DataError: A row has an unknown name, or lacks a join key.
        """
        if not isinstance(keys, list | tuple):
            return self._from_frame(keys)
        names = [*self.keys, *self.recipe.request]
        if (columns := exact_columns(keys, names)) is not None:
            return dict(zip(names, columns, strict=True))
        for row in keys:
            self.check_row(row)
        optional = self.recipe.defaults
        given = [
            name for name in self.recipe.request if (any if name in optional else all)(name in row for row in keys)
        ]
        made: dict[str, Values] = {name: [row[name] for row in keys] for name in self.keys}
        made.update({name: [row.get(name) for row in keys] for name in given})
        return made

    def _from_frame(self, rows: object) -> dict[str, Values]:
        check_keys(rows)
        if isinstance(rows, str | bytes | int | float):
            raise DataError(f"rows is {rows!r}. Pass a list of mappings, or a frame. {self._needs()}")
        frame = frames.opened(rows)
        if missing := [name for name in self.keys if name not in frame.names]:
            raise DataError(f"The frame lacks {quoted(missing)}. {self._needs()}")
        request = {name: kind for name, kind in self.recipe.request.items() if name in frame.names}
        frame = frame.only([*self.keys, *request])  # a stream is read once
        typed = frame.typed({field.name: field.type for field in self.key_fields} | request)
        keys = typed.table(self.keys)
        return {
            **{name: exact.values(column) for name, column in zip(self.keys, keys.columns, strict=True)},
            **{name: request_column(typed, name, kind, "The frame's") for name, kind in request.items()},
        }

    def is_plain(self, key: str, values: list[Any]) -> bool:
        """Return whether all values of a join key are of Python types that are the same on the wire. Request values never count as such."""
        return key in self._keys and super().is_plain(key, values)

    def check_row(self, row: object) -> None:
        """Check that a row is a mapping with the join keys and no unknown name.

        Raises:
            DataError: It is not.
        """
        if not isinstance(row, Mapping):
            raise DataError(f"{row!r} is not a mapping. {self._needs()}")
        known = [*self.keys, *self.recipe.request]
        if unknown := [name for name in row if name not in known]:
            hint = did_you_mean(str(unknown[0]), known)
            raise DataError(f"{quoted(unknown)} is neither a join key nor a request value.{hint} {self._needs()}")
        if missing := [name for name in self.keys if name not in row]:
            raise DataError(f"A row lacks {quoted(missing)}. {self._needs()}")

    def _needs(self) -> str:
        request = [
            f"{name}: {kind}{' (has a default)' if name in self.recipe.defaults else ''}"
            for name, kind in self.recipe.request.items()
        ]
        given = f", and the request values {', '.join(request)}" if request else ""
        keys = ", ".join(f"{field.name}: {field.type}" for field in self.key_fields)
        return f"A row of view {self.record.name!r} has the join keys {keys}{given}."

    def _request(self, plan: Plan, columns: Mapping[str, Values]) -> dict[str, pa.ChunkedArray]:
        """Return the request values that a plan needs, in their types."""
        if missing := [
            name for name in plan.recipe.request if name not in columns and name not in self.recipe.defaults
        ]:
            raise DataError(f"The rows lack {quoted(missing)}. {self._needs()}", missing=missing)
        count = len(columns[self.keys[0]])
        request = {}
        for name, kind in plan.recipe.request.items():
            values = columns.get(name, [None] * count)
            request[name] = values if isinstance(values, pa.ChunkedArray) else exact.column(name, values, kind)
        return request
