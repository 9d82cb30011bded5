"""Serving: online tables answer for keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from seeknal import frames
from seeknal.asking import Key, columns_of
from seeknal.dicts import dict_maker
from seeknal.errors import DataError, DefinitionError, NotOnlineError
from seeknal.names import did_you_mean, quoted
from seeknal.online import Codec, OnlineStore, State, WireRow
from seeknal.registry import OnlineTableRecord, TableLookup
from seeknal.schema import UTC
from seeknal.times import moment_of

ONLINE_OUTPUTS = ("pandas", "polars", "arrow", "dicts")
FOUND, NOT_FOUND, EXPIRED = "found", "not_found", "expired"
_MOST_SELECTIONS = 100


class Read(NamedTuple):
    """What was read of a part: what is online, the row of each entity asked for, and those that have not expired."""

    state: State
    rows: list[WireRow | None]
    alive: list[WireRow | None]

    @property
    def statuses(self) -> list[str]:
        """Say of each entity whether it was found."""
        pairs = zip(self.rows, self.alive, strict=True)
        return [NOT_FOUND if row is None else EXPIRED if alive is None else FOUND for row, alive in pairs]

    @property
    def times(self) -> list[int | None]:
        """Give the event time of each row, in microseconds since 1970."""
        return [None if row is None else row[-1] for row in self.rows]


class Part:
    """What a table takes from one version of a group.

    Args:
        lookup: The version, the keys and the features.
        codec: How the version's rows are written.
        online: Where they are.
        ttl: How long values are good for, in microseconds, in place of the group's own.
        place: What people call the store.
        origin: When the group was registered, which tells it from another of its name that came later.
        has_moved: Tells whether the table takes this from elsewhere by now. It is asked when something in the store has
            changed. None: the caller finds out by itself.
    """

    def __init__(
        self,
        lookup: TableLookup,
        codec: Codec,
        online: OnlineStore,
        ttl: int | None,
        place: str,
        origin: int,
        *,
        has_moved: Callable[[], bool] | None = None,
    ) -> None:
        self.origin = origin
        self._has_moved = has_moved
        self.lookup = lookup
        self.place = place
        self.waits = online.waits
        self.online = online
        self.codec = codec
        self.keys = [Key(name, field.type) for (_, name), field in zip(lookup.keys, codec.schema.keys, strict=True)]
        self.features = {out: codec.schema.feature_names.index(own) for own, out in lookup.features}
        self.space = lookup.space
        self._ttl = ttl
        self._known: tuple[bytes, State, int | None] | None = None

    def __reduce__(self) -> tuple[type[Part], tuple[object, ...]]:
        return Part, (self.lookup, self.codec, self.online, self._ttl, self.place, self.origin)

    @property
    def is_quick(self) -> bool:
        """Whether the rows have the values asked for as Python has them, and not many others."""
        return self.codec.is_plain(list(self.features.values())) and 2 * len(self.features) >= self.codec.width

    def read(self, text: bytes, found: Sequence[bytes | None], at: int) -> Read:
        """Read what the store gave for some entities: its state, and what it has of each.

        Raises:
            KeyError: The table has left the version.
        """
        known = self._known
        if known is None or known[0] != text:
            if self._has_moved and self._has_moved():
                raise KeyError(self.space)
            state = State.loads(text)
            if state.origin != self.origin:
                raise KeyError(self.space)
            known = self._known = text, state, state.ttl if self._ttl is None else self._ttl
        _, state, ttl = known
        rows = self.codec.rows(found, at)
        if ttl is None:
            return Read(state, rows, rows)
        oldest = at - ttl
        return Read(state, rows, [None if row is None or row[-1] < oldest else row for row in rows])

    def is_online(self) -> bool:
        """Whether the version was loaded into the store."""
        try:
            self.online.get(self.space, [])
        except KeyError:
            return False
        return True

    def others(self, known: set[bytes], at: int) -> Iterator[tuple[dict[str, Any], State, WireRow]]:
        """Give the entities that are online beside those that are known, with what is online of them.

        Raises:
            KeyError: The version is not online.
        """
        keys = sorted(set(self.online.keys(self.space)) - known)
        read = self.read(*self.online.get(self.space, keys), at)
        for key, row in zip(keys, read.alive, strict=True):
            if row is not None:
                yield self.codec.entity(key), read.state, row


class Entities:
    """Encodes the entities that are asked for, once for all parts that have the same join keys.

    Args:
        parts: The parts that are asked.
        names: The names of the columns of join keys.
    """

    def __init__(self, parts: Sequence[Part], names: Sequence[str]) -> None:
        self.parts = parts
        self.spaces = tuple(part.space for part in parts)
        every = [tuple((key.name, str(key.kind)) for key in part.keys) for part in parts]
        known = list(dict.fromkeys(every))
        firsts = [parts[every.index(one)] for one in known]
        self._each = [
            (part.codec.encode_keys, part.keys, [names.index(key.name) for key in part.keys]) for part in firsts
        ]
        self._places = [known.index(one) for one in every]
        self._is_one = len(known) == 1 and self._each[0][2] == list(range(len(names)))

    def encode(self, columns: Mapping[str, list[Any]]) -> list[list[bytes]]:
        """Encode entities, given by the names of the join keys; return the keys for each part.

        Raises:
            DataError: A value is not of its key's type.
        """
        encoded = [encode([key.wire(columns[key.name]) for key in keys]) for encode, keys, _ in self._each]
        return [encoded[i] for i in self._places]

    def encode_plain(self, columns: Sequence[list[Any]]) -> list[list[bytes]] | None:
        """Encode entities, given in the order of the names, in fewer steps; None if a value is not the same on the wire."""
        encoded = []
        for encode, keys, at in self._each:
            own = columns if self._is_one else [columns[i] for i in at]
            for key, values in zip(keys, own):  # noqa: B905 - there are as many
                if not key.plain.issuperset(map(type, values)):
                    return None
            encoded.append(encode(own))
        return encoded * len(self._places) if self._is_one else [encoded[i] for i in self._places]


@dataclass(frozen=True)
class Piece:
    """Features of one part that are asked for: their names, their places in its rows, and what takes them from there."""

    part: Part
    label: str
    names: list[str]
    places: list[int]
    values: Callable[[Sequence[WireRow | None]], Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Selection:
    """What is asked for: features in order, and the parts they are in."""

    order: list[str]
    pieces: list[Piece]
    entities: Entities


class Found(NamedTuple):
    """What was found of some entities.

    Args:
        table: The table's name.
        keys: The join keys.
        columns: What was asked, as one column per join key.
        selection: The features that were asked for.
        reads: What was read, one for each of the selection's pieces.
    """

    table: str
    keys: Mapping[str, Key]
    columns: Mapping[str, list[Any]]
    selection: Selection
    reads: Sequence[Read]

    def arrow(self, with_status: bool = False) -> pa.Table:
        """Give it as a table."""
        arrays = {name: self.keys[name].array(values) for name, values in self.columns.items()}
        for piece, read in zip(self.selection.pieces, self.reads, strict=True):
            arrays |= zip(piece.names, piece.part.codec.columns(read.alive, piece.places), strict=True)
        arrays = {name: arrays[name] for name in (*self.columns, *self.selection.order)}
        for label, (status, times) in self.statuses().items() if with_status else ():
            arrays[f"{label}_status"] = pa.array(status, pa.string())
            arrays[f"{label}_event_time"] = pa.array(times, pa.int64()).cast(UTC)
        return pa.Table.from_arrays(list(arrays.values()), names=list(arrays))

    def dicts(self, with_status: bool = False) -> list[dict[str, Any]]:
        """Give it as one dictionary per entity."""
        pieces = self.selection.pieces
        with as_python():
            shown = {name: self.keys[name].shown(values) for name, values in self.columns.items()}
            values = [piece.values(read.alive) for piece, read in zip(pieces, self.reads, strict=True)]
        own = [*shown, *(name for piece in pieces for name in piece.names)]
        cut = [[row[: len(p.names)] for row in one] for p, one in zip(pieces, values, strict=True)]
        parts = zip(zip(*shown.values(), strict=True), *cut, strict=True)
        whole = [dict(zip(own, chain(*one), strict=True)) for one in parts]
        names = [*shown, *self.selection.order]
        rows = whole if names == own else [{name: row[name] for name in names} for row in whole]
        if with_status:
            self.add_statuses(rows, moment_of)
        return rows

    def add_statuses(self, rows: Sequence[dict[str, Any]], form: Callable[[int], object]) -> None:
        """Add to dictionaries what is known of each entity: its status, and the event time of its row."""
        for label, (status, times) in self.statuses().items():
            for row, one, moment in zip(rows, status, times, strict=True):
                row[f"{label}_status"] = one
                row[f"{label}_event_time"] = None if moment is None else form(moment)

    def statuses(self) -> dict[str, tuple[list[str], list[int | None]]]:
        """Give status and event time of each entity, by the labels of the parts."""
        reads = {piece.label: read for piece, read in zip(self.selection.pieces, self.reads, strict=True)}
        for label in reads:
            if clash := {f"{label}_status", f"{label}_event_time"} & {*self.columns, *self.selection.order}:
                raise DefinitionError(
                    f"Online table {self.table!r} has a column named {clash.pop()!r}, as the status would be. "
                    "Serve it with another name: FeatureLookup(..., rename={...})."
                )
        return {label: (read.statuses, read.times) for label, read in reads.items()}


class OnlineTable:
    """A named selection of online features; answers for keys.

    Args:
        record: What the table selects.
        parts: What it takes, one for each lookup.
    """

    def __init__(self, record: OnlineTableRecord, parts: Sequence[Part]) -> None:
        self.record = record
        self.parts = list(parts)
        self.features = [name for part in self.parts for name in part.features]
        self._keys = {key.name: key for part in reversed(self.parts) for key in reversed(part.keys)}
        self.keys = list(dict.fromkeys(key.name for part in self.parts for key in part.keys))
        self._labels = _labels([part.lookup for part in self.parts])
        self._all = self._select(self.features)
        self._selections: dict[tuple[str, ...], Selection] = {}
        self._as_dicts = None
        if all(part.is_quick for part in self.parts):
            self._as_dicts = dict_maker(self.keys, layouts(self._all), self.features)

    def __reduce__(self) -> tuple[type[OnlineTable], tuple[OnlineTableRecord, list[Part]]]:
        return OnlineTable, (self.record, self.parts)

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """The type of each feature."""
        fields = {out: part.codec.schema.features[place] for part in self.parts for out, place in part.features.items()}
        return {name: field.type for name, field in fields.items()}

    @property
    def key_fields(self) -> list[pa.Field]:
        """The names that a request must give, with their types."""
        return [pa.field(name, self._keys[name].kind) for name in self.keys]

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        at: int | None = None,
    ) -> Any:
        """Give the newest features of some entities.

        Args:
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features wanted, in order. None: all of them.
            with_status: Say for each group whether its entity was "found", "not_found" or "expired", and the event time
                of its row, in columns GROUP_status and GROUP_event_time.
            at: What counts as now, in microseconds since 1970; the clock if None.

        Returns:
            One row per entity asked for, in order: the keys, then the features, then the status. Unknown and
            expired entities have nulls.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: The output or a feature is unknown.
        """
        moment = time.time_ns() // 1000 if at is None else at
        if output == "dicts" and features is None and not with_status and self._as_dicts and type(keys) is list:
            plain = self.plainly(keys, moment)
            if plain is not None:
                return self._as_dicts(*plain[0], *map(filled, self.parts, plain[1]))
        check_output(output)
        found = self.find(self.columns(keys), features, moment)
        return found.dicts(with_status) if output == "dicts" else frames.from_arrow(found.arrow(with_status), output)

    def find(self, columns: Mapping[str, list[Any]], features: Sequence[str] | None, at: int) -> Found:
        """Look up some entities, given as one column per join key.

        Args:
            columns: What `columns` gives.
            features: Names of the features wanted, in order. None: all of them.
            at: What counts as now, in microseconds since 1970.

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
            self.read(selection.entities, columns, at),
        )

    def plainly(self, keys: list[Any], at: int) -> tuple[list[list[Any]], list[Read]] | None:
        """Look up all features in as few steps as can be; None if a key is not the same on the wire, or `find` would raise.

        Returns:
            The keys, as one column per join key, and what was read, one for each part.
        """
        try:
            columns = [[key[name] for key in keys] for name in self.keys]
            if not {len(columns)}.issuperset(map(len, keys)):
                return None
        except (KeyError, TypeError, IndexError):
            return None
        encoded = self._all.entities.encode_plain(columns)
        try:  # `suppress` would take a tenth of the time of an answer
            return None if encoded is None else (columns, self._read(self._all.entities, encoded, at))
        except NotOnlineError:
            return None

    def read(self, entities: Entities, columns: Mapping[str, list[Any]], at: int) -> list[Read]:
        """Read what some parts have of the entities asked for, given as one column per join key.

        Raises:
            DataError: A key has a wrong type.
            NotOnlineError: A part is not online.
        """
        return self._read(entities, entities.encode(columns), at)

    def _read(self, entities: Entities, encoded: Sequence[list[bytes]], at: int) -> list[Read]:
        """Read parts in one pass over the store, which has them all."""
        parts = entities.parts
        try:
            found = parts[0].online.get_all(entities.spaces, encoded)
            return [part.read(text, rows, at) for part, (text, rows) in zip(parts, found)]  # noqa: B905 - there are as many
        except KeyError as error:
            gone = next(part for part in parts if part.space == error.args[0])
            raise NotOnlineError(
                f"Online table {self.record.label!r} is not online: version {gone.lookup.version} of {gone.lookup.group!r} "
                f"is not in {gone.place}. It was deleted, or never loaded there. Serve it again, or run: seeknal refresh "
                f"{self.record.label}."
            ) from None

    def is_plain(self, key: str, values: list[Any]) -> bool:
        """Tell whether values of a key are of the Python type that is the same on the wire."""
        return self._keys[key].is_plain(values)

    def columns(self, keys: object) -> dict[str, list[Any]]:
        """Take the entities asked for, as one column per join key.

        Raises:
            DataError: The keys have wrong names.
        """
        return columns_of(keys, {name: self._keys[name].kind for name in self.keys}, self.record.name)

    def select(self, features: Sequence[str] | None) -> Selection:
        """Find the parts that some features are in; all features if None.

        Raises:
            DefinitionError: A feature is unknown, or none is named.
        """
        if features is None:
            return self._all
        check_features(features)
        if unknown := [name for name in features if name not in self.features]:
            hint = did_you_mean(unknown[0], self.features)
            raise DefinitionError(f"Online table {self.record.name!r} has no feature {quoted(unknown)}.{hint}")
        asked = tuple(features)
        if (known := self._selections.get(asked)) is None:
            if len(self._selections) >= _MOST_SELECTIONS:
                self._selections.clear()
            known = self._selections[asked] = self._select(features)
        return known

    def _select(self, features: Sequence[str]) -> Selection:
        pieces = []
        for part, label in zip(self.parts, self._labels, strict=True):
            if names := [name for name in dict.fromkeys(features) if name in part.features]:
                places = [part.features[name] for name in names]
                pieces.append(Piece(part, label, names, places, part.codec.values(places)))
        return Selection(list(features), pieces, Entities([piece.part for piece in pieces], self.keys))


def layouts(selection: Selection) -> list[list[str]]:
    """Name the values of the rows that pieces of a selection take features from, for `dict_maker`."""
    named = []
    for i, piece in enumerate(selection.pieces):
        names = [f"\0{i}.{j}" for j in range(piece.part.codec.width)]  # names that nobody asks for
        for name, place in zip(piece.names, piece.places, strict=True):
            names[place] = name
        named.append(names)
    return named


def filled(part: Part, read: Read) -> Sequence[WireRow]:
    """Return the rows of a read, with nulls for entities that have none."""
    if None not in read.alive:
        return read.alive  # type: ignore[return-value]  # as was looked
    nothing = part.codec.nothing
    return [nothing if row is None else row for row in read.alive]


def check_output(output: object) -> None:
    """Refuse a kind of answer that there is not.

    Raises:
        DefinitionError: There is none of that name, or its library is not installed.
    """
    if output not in ONLINE_OUTPUTS:
        raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(ONLINE_OUTPUTS)}.")
    frames.check_installed(str(output))


def check_features(features: Sequence[str] | None) -> None:
    """Refuse what names no features.

    Raises:
        DefinitionError: It is one name, or an empty list.
    """
    if isinstance(features, str):
        raise DefinitionError(f"features={features!r} is no list. Write features=[{features!r}].")
    if features is not None and not len(features):
        raise DefinitionError("features is an empty list. Name some, or leave it out for all.")


@contextmanager
def as_python() -> Iterator[None]:
    """Say what to do about a value that Python has no place for, such as a date in the year 12000.

    Raises:
        DataError: There is one.
    """
    try:
        yield
    except (OverflowError, ValueError) as error:
        raise DataError(
            f'A value is beyond what Python has for its type: {str(error).rstrip(".")}. Take it with output="arrow".'
        ) from None


def _labels(lookups: Sequence[TableLookup]) -> list[str]:
    """Name the parts of a table for its statuses: by their group, and its keys and version if that is not enough."""
    rows = {(lookup.space, lookup.keys) for lookup in lookups}
    groups = [lookup.group for lookup in lookups]
    if len(set(groups)) == len(rows):
        return groups
    return [f"{one.group}_{'_'.join(name for _, name in one.keys)}_{one.version}" for one in lookups]
