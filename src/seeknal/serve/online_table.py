"""Online tables: lookups of the newest features of entities by their join keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from seeknal.errors import DataError, DefinitionError, NotOnlineError
from seeknal.names import check_features, did_you_mean, quoted
from seeknal.registry import OnlineTableRecord, PinnedLookup
from seeknal.serve.keys import Key, columns_of, exact_columns
from seeknal.serve.parts import Entities, Part, Piece, Read, Selection, filled
from seeknal.serve.pushed import LaggingError, until_level
from seeknal.values import frames, types
from seeknal.values.row_builder import compile_row_builder
from seeknal.values.types import UTC

if TYPE_CHECKING:
    from seeknal.define.request_feature import RequestFeature
    from seeknal.serve.answer_log import AnswerLog

ONLINE_OUTPUTS = ("pandas", "polars", "arrow", "dicts")
_MOST_SELECTIONS = 100
"""Maximum number of selections of features that a table keeps for the next request."""


class Found(NamedTuple):
    """The result of looking up some entities.

    Args:
        table: The table's name.
        keys: The join keys, by name.
        columns: The requested entities, as one column per join key.
        selection: The requested features.
        reads: The rows read, one `Read` for each of the selection's pieces.
    """

    table: str
    keys: Mapping[str, Key]
    columns: Mapping[str, list[Any]]
    selection: Selection
    reads: Sequence[Read]

    def arrow(self, with_status: bool = False) -> pa.Table:
        """Return the result as an Arrow table."""
        if not with_status and (batch := self._batch()) is not None:
            return pa.Table.from_batches([batch])
        arrays = {name: self.keys[name].array(values) for name, values in self.columns.items()}
        for piece, read in zip(self.selection.pieces, self.reads, strict=True):
            arrays |= zip(piece.names, piece.part.codec.columns(read.alive, piece.places), strict=True)
        arrays = {name: arrays[name] for name in (*self.columns, *self.selection.order)}
        for label, (status, times) in self.statuses().items() if with_status else ():
            arrays[f"{label}_status"] = pa.array(status, pa.string())
            arrays[f"{label}_event_time"] = pa.array(times, pa.int64()).cast(UTC)
        return pa.Table.from_arrays(list(arrays.values()), names=list(arrays))

    def frame(self, output: str, with_status: bool = False) -> Any:
        """Return the result as a frame of the given kind."""
        if output == "pandas" and not with_status and (batch := self._batch()) is not None:
            frame = self.selection.blocks.frame(batch)
            if frame is not None:
                return frame
        return frames.from_arrow(self.arrow(with_status), output)

    def _batch(self) -> pa.RecordBatch | None:
        return self.selection.batch_of_one(list(self.columns.values()), self.reads)

    def dicts(self, with_status: bool = False) -> list[dict[str, Any]]:
        """Return the result as one dictionary per entity."""
        pieces = self.selection.pieces
        with as_python():
            shown = {name: self.keys[name].shown(values) for name, values in self.columns.items()}
            values = [piece.values(read.alive) for piece, read in zip(pieces, self.reads, strict=True)]
        own = [*shown, *(name for piece in pieces for name in piece.names)]
        # Rows that need no conversion are used whole, and may have further values after the requested ones.
        cut = [[row[: len(p.names)] for row in one] for p, one in zip(pieces, values, strict=True)]
        parts = zip(zip(*shown.values(), strict=True), *cut, strict=True)
        whole = [dict(zip(own, chain(*one), strict=True)) for one in parts]
        names = [*shown, *self.selection.order]
        # The dictionaries are built part by part; copy them only if the requested order is another.
        rows = whole if names == own else [{name: row[name] for name in names} for row in whole]
        if with_status:
            self.add_statuses(rows, lambda moment: pa.scalar(moment, UTC).as_py())  # the type of all other timestamps
        return rows

    def add_statuses(self, rows: Sequence[dict[str, Any]], form: Callable[[int], object]) -> None:
        """Add the status of each entity and the event time of its row to its dictionary, for each part.

        Args:
            rows: One dictionary per entity.
            form: Formats an event time, given in microseconds since 1970.
        """
        for label, (status, times) in self.statuses().items():
            for row, one, moment in zip(rows, status, times, strict=True):
                row[f"{label}_status"] = one
                row[f"{label}_event_time"] = None if moment is None else form(moment)

    def statuses(self) -> dict[str, tuple[list[str], list[int | None]]]:
        """Return the status and the event time of each entity, by the labels of the parts.

        Raises:
            DefinitionError: A column of the table has the name that a column of statuses or times would have.
        """
        reads = {piece.label: read for piece, read in zip(self.selection.pieces, self.reads, strict=True)}
        for label in reads:
            if clash := {f"{label}_status", f"{label}_event_time"} & {*self.columns, *self.selection.order}:
                raise DefinitionError(
                    f"Online table {self.table!r} has a column named {clash.pop()!r}, as the status would be. "
                    "Serve it with another name: FeatureLookup(..., rename={...})."
                )
        return {label: (read.statuses, read.times) for label, read in reads.items()}


class OnlineTable:
    """A named selection of online features, which are looked up by key.

    Args:
        record: The registered table.
        parts: The features that it takes from each group, one part for each of its lookups.
    """

    functions: Sequence[RequestFeature] | None = None
    """The functions of the view that it serves; None if that only looks up features."""
    log: AnswerLog | None = None
    """Logs a share of the answers. None: none are logged."""

    def __init__(self, record: OnlineTableRecord, parts: Sequence[Part]) -> None:
        self.record = record
        self.parts = list(parts)
        self.features = [name for part in self.parts for name in part.features]
        self._keys = _widest([key for part in self.parts for key in part.keys])
        self.keys = list(self._keys)
        self.labels = labels_of([part.lookup for part in self.parts])
        """The labels of the parts in the columns of statuses."""
        self._all = self._select(self.features)
        self._selections: dict[tuple[str, ...], Selection] = {}
        self._as_dicts = None
        # A compiled fast path of `get_features`, only for parts whose rows need no conversion; see `Part.is_quick`.
        if all(part.is_quick for part in self.parts):
            self._as_dicts = compile_row_builder(self.keys, self._all.layouts, self.features)

    # Compiled functions cannot be pickled, so a copy compiles its own.
    def __reduce__(self) -> tuple[type[OnlineTable], tuple[Any, ...]]:
        return OnlineTable, (self.record, self.parts)

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """The type of each feature, by its name in the result."""
        fields = {out: part.codec.schema.features[place] for part in self.parts for out, place in part.features.items()}
        return {name: field.type for name, field in fields.items()}

    @property
    def key_fields(self) -> list[pa.Field]:
        """The join keys that a request must contain, with their types."""
        return [pa.field(name, self._keys[name].kind) for name in self.keys]

    @property
    def request_fields(self) -> list[pa.Field]:
        """The request values that a request must contain, with their types: none, unless the table serves a view that has some."""
        return []

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        at: int | None = None,
    ) -> Any:
        """Return the newest features of some entities.

        Args:
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the requested features, in order. None: all of them.
            with_status: Whether to add, for each group, whether its entity was "found", "not_found" or "expired", and
                the event time of its row, in columns GROUP_status and GROUP_event_time.
            at: The time that counts as now, in microseconds since 1970. None: the time at which the rows were read.

        Returns:
            One row per requested entity, in order: the keys, then the features, then the status. Unknown and
            expired entities have nulls.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: The output or a feature is unknown.
        """
        if output == "dicts" and features is None and not with_status and self._as_dicts and type(keys) is list:
            plain = self.plainly(keys, at)
            if plain is not None:
                return self._as_dicts(*plain[0], *map(filled, self.parts, plain[1]))
        check_output(output)
        found = self.find(self.columns(keys), features, at)
        return found.dicts(with_status) if output == "dicts" else found.frame(output, with_status)

    def find(self, columns: Mapping[str, list[Any]], features: Sequence[str] | None, at: int | None) -> Found:
        """Look up some entities, given as one column per join key.

        Args:
            columns: The entities, as `columns` returns them.
            features: Names of the requested features, in order. None: all of them.
            at: The time that counts as now, in microseconds since 1970. None: the time at which the rows were read.

        Raises:
            DataError: A key has a wrong type.
            DefinitionError: A feature is unknown, or a group is not online.
        """
        selection = self.select(features)
        return Found(
            self.record.name,
            {name: self._keys[name] for name in columns},
            columns,
            selection,
            self.read(selection.entities, selection.entities.encode(columns), at),
        )

    def plainly(self, keys: list[Any], at: int | None) -> tuple[list[list[Any]], list[Read]] | None:
        """Look up all features in as few steps as possible.

        Returns:
            The keys, as one column per join key, and the rows read, one `Read` for each part. None if a key is of a
            type that differs on the wire, or if `find` would raise an error.
        """
        if (columns := exact_columns(keys, self.keys)) is None:
            return None
        encoded = self._all.entities.encode_plain(columns)
        try:  # `suppress` would take a tenth of the time of a lookup
            return None if encoded is None else (columns, self.read(self._all.entities, encoded, at))
        except NotOnlineError:
            return None

    def read(self, entities: Entities, encoded: Sequence[list[bytes]], at: int | None) -> list[Read]:
        """Read the rows that some parts have of entities, in one pass over the store, which holds the rows of all parts.

        Args:
            entities: The parts.
            encoded: The encoded keys of the entities, for each part.
            at: The time that counts as now, in microseconds since 1970. None: the time at which the rows were read.

        Raises:
            NotOnlineError: A part is not online.
        """
        parts = entities.parts
        try:
            return self._read(entities, encoded, at)
        except LaggingError:
            return until_level(lambda: self._read(entities, encoded, at))
        except KeyError as error:  # stores and parts raise it with the name of the space
            gone = next(part for part in parts if part.space == error.args[0])
            raise NotOnlineError(
                f"Online table {self.record.label!r} is not online: version {gone.lookup.version} of {gone.lookup.group!r} "
                f"is not in {gone.place}. It was deleted, or never loaded there. Serve it again, or run: seeknal refresh "
                f"{self.record.label}."
            ) from None

    @staticmethod
    def _read(entities: Entities, encoded: Sequence[list[bytes]], at: int | None) -> list[Read]:
        parts = entities.parts
        found = parts[0].online.get_all(entities.spaces, encoded)
        # Not before: a load may have replaced rows of that time by rows of a later one.
        moment = time.time_ns() // 1000 if at is None else at
        # The store returns one result per part.
        return [part.read(text, rows, keys, moment) for part, (text, rows), keys in zip(parts, found, encoded)]  # noqa: B905

    def is_plain(self, key: str, values: list[Any]) -> bool:
        """Return whether all values of a key are of Python types that are the same on the wire."""
        return self._keys[key].is_plain(values)

    def columns(self, keys: object) -> dict[str, list[Any]]:
        """Return the requested entities as one column per join key.

        Raises:
            DataError: The keys have wrong names.
        """
        return columns_of(keys, {name: self._keys[name].kind for name in self.keys}, self.record.name)

    def select(self, features: Sequence[str] | None) -> Selection:
        """Return the selection of some features, or of all if None, with the parts that hold them.

        Raises:
            DefinitionError: A feature is unknown, or none is named.
        """
        asked = check_features(features)
        if asked is None:
            return self._all
        if unknown := [name for name in asked if name not in self.features]:
            hint = did_you_mean(unknown[0], self.features)
            raise DefinitionError(f"Online table {self.record.name!r} has no feature {quoted(unknown)}.{hint}")
        if (known := self._selections.get(asked)) is None:
            if len(self._selections) >= _MOST_SELECTIONS:  # callers may request any number of combinations
                self._selections.clear()
            known = self._selections[asked] = self._select(asked)
        return known

    def _select(self, features: Sequence[str]) -> Selection:
        pieces = []
        for part, label in zip(self.parts, self.labels, strict=True):
            if names := [name for name in dict.fromkeys(features) if name in part.features]:
                places = [part.features[name] for name in names]
                pieces.append(Piece(part, label, names, places, part.codec.values(places)))
        return Selection(list(features), pieces, [self._keys[name] for name in self.keys])


def check_output(output: object) -> None:
    """Check that a kind of output exists and can be made.

    Raises:
        DefinitionError: There is no such kind, or its library is not installed.
    """
    if output not in ONLINE_OUTPUTS:
        raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(ONLINE_OUTPUTS)}.")
    frames.check_installed(str(output))


@contextmanager
def as_python() -> Iterator[None]:
    """Turn the error for a value that Python cannot hold, such as a date in the year 12000, into advice.

    Raises:
        DataError: There is such a value.
    """
    try:
        yield
    except (OverflowError, ValueError) as error:
        raise DataError(
            f'A value is beyond what Python has for its type: {str(error).rstrip(".")}. Request it with output="arrow".'
        ) from None


def _widest(keys: Sequence[Key]) -> dict[str, Key]:
    """Return the join keys by name. A key that parts have in different types gets a type that holds the values of all of them."""
    found: dict[str, Key] = {}
    for key in keys:
        known = found.setdefault(key.name, key)
        if known.kind != key.kind:
            found[key.name] = Key(key.name, types.together(known.kind, key.kind) or known.kind)
    return found


def labels_of(lookups: Sequence[PinnedLookup]) -> list[str]:
    """Return the label of each part, for its status columns: its group, and if that is ambiguous its keys, version and project.

    Lookups of one version by the same keys read the same rows, and share a label. For example, lookups of version 1 of the group `spend`
    by `buyer` and by `seller` are labelled `spend_buyer_1` and `spend_seller_1`.
    """
    rows = {(lookup.space, lookup.keys) for lookup in lookups}
    groups = [lookup.group for lookup in lookups]
    if len(set(groups)) == len(rows):
        return groups
    labels = [f"{one.group}_{'_'.join(name for _, name in one.keys)}_{one.version}" for one in lookups]
    if len(set(labels)) == len(rows):
        return labels
    return [f"{one.project}_{label}" for one, label in zip(lookups, labels, strict=True)]
