"""Serving: online tables answer for keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from seeknal import frames, types
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean
from seeknal.online import Codec, OnlineStore, State, encode_keys, read_keys, to_wire
from seeknal.registry import OnlineTableRecord, TableLookup
from seeknal.schema import UTC
from seeknal.times import moment_of

ONLINE_OUTPUTS = ("pandas", "polars", "arrow", "dicts")
FOUND, NOT_FOUND, EXPIRED = "found", "not_found", "expired"

_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], type], ...] = (
    (pa.types.is_integer, int),
    (pa.types.is_string, str),
    (pa.types.is_binary, bytes),
    (pa.types.is_boolean, bool),
)

WireRow = list[Any]
"""The features of a row and its event time, as they are on the wire."""


@dataclass(frozen=True)
class Read:
    """What was read of a part.

    Args:
        state: What is online.
        rows: The row of each entity asked for; None where there is none.
        alive: Those of them that have not expired.
    """

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
    """

    def __init__(self, lookup: TableLookup, codec: Codec, online: OnlineStore, ttl: int | None) -> None:
        self.lookup = lookup
        self.codec = codec
        self.keys = [(name, field.type) for (_, name), field in zip(lookup.keys, codec.schema.keys, strict=True)]
        self.features = {out: codec.schema.feature_names.index(own) for own, out in lookup.features}
        self._online = online
        self._ttl = ttl
        self._key_types = [types.wire(kind) for _, kind in self.keys]
        self._state: tuple[bytes, State] | None = None

    def read(self, keys: Sequence[Sequence[Any]], at: int) -> Read:
        """Read the rows of some entities, given as one column of wire values per join key.

        Raises:
            KeyError: The version is not online.
        """
        text, found = self._online.get(self.lookup.space, encode_keys(keys, self._key_types))
        if self._state is None or self._state[0] != text:
            self._state = text, State.loads(text)
        state = self._state[1]
        rows = self.codec.rows(found, at)
        ttl = state.ttl if self._ttl is None else self._ttl
        if ttl is None:
            return Read(state, rows, rows)
        oldest = at - ttl
        return Read(state, rows, [None if row is None or row[-1] < oldest else row for row in rows])


class Asked:
    """The values of one join key that are asked for: as they are shown, and as they are on the wire."""

    def __init__(self, name: str, values: list[Any], kind: pa.DataType) -> None:
        self._name, self._kind = name, kind
        self.values = self.wire = values
        plain = next((one for test, one in _PLAIN if test(kind)), None)
        if not {plain, type(None)}.issuperset(map(type, values)):
            array = read_keys(name, values, kind)
            self.values, self.wire = array.to_pylist(), to_wire(array, kind)

    @property
    def array(self) -> pa.Array:
        """The values as a column, in the key's type if it has a place for them."""
        return read_keys(self._name, self.values, self._kind)


class OnlineTable:
    """A named selection of online features; answers for keys.

    Args:
        record: What the table selects.
        parts: What it takes, one for each lookup.
    """

    def __init__(self, record: OnlineTableRecord, parts: Sequence[Part]) -> None:
        self.record = record
        self.parts = list(parts)
        self.key_kinds = {name: kind for part in reversed(self.parts) for name, kind in part.keys}
        self.keys = list(dict.fromkeys(name for part in self.parts for name, _ in part.keys))
        self.features = [name for part in self.parts for name in part.features]
        self._labels = _labels([part.lookup for part in self.parts])
        self._all = [(part, list(part.features)) for part in self.parts]

    @property
    def key_fields(self) -> list[pa.Field]:
        """The names that a request must give, with their types."""
        return [pa.field(name, self.key_kinds[name]) for name in self.keys]

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
        if output not in ONLINE_OUTPUTS:
            raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(ONLINE_OUTPUTS)}.")
        wanted = self._all if features is None else self._select(features)
        asked = self.ask(keys)
        moment = time.time_ns() // 1000 if at is None else at
        found = [self.read(part, asked, moment) for part, _ in wanted]
        order = [*self.keys, *(self.features if features is None else features)]
        statuses = self._statuses(wanted, found) if with_status else {}
        if output == "dicts":
            return _as_dicts(self.keys, asked, wanted, found, statuses, order)
        columns = {name: asked[name, self.key_kinds[name]].array for name in self.keys}
        for (part, names), read in zip(wanted, found, strict=True):
            columns |= zip(names, part.codec.columns(read.alive, [part.features[name] for name in names]), strict=True)
        for label, (status, times) in statuses.items():
            columns |= {f"{label}_status": pa.array(status, pa.string())}
            columns |= {f"{label}_event_time": pa.array(times, pa.int64()).cast(UTC)}
        names = [*order, *(name for name in columns if name not in {*self.keys, *self.features})]
        table = pa.Table.from_arrays([columns[name] for name in names], names=names)
        return frames.from_arrow(table, output)

    def read(self, part: Part, asked: Mapping[tuple[str, pa.DataType], Asked], at: int) -> Read:
        """Read what a part has of the entities asked for.

        Raises:
            DefinitionError: The part is not online.
        """
        try:
            return part.read([asked[key].wire for key in part.keys], at)
        except KeyError:
            raise DefinitionError(
                f"Online table {self.record.label!r} is not online: version {part.lookup.version} of "
                f"{part.lookup.group!r} was deleted from the online store, or never loaded into this one. Serve it again."
            ) from None

    def ask(self, keys: object) -> dict[tuple[str, pa.DataType], Asked]:
        """Take the entities that are asked for, by the name and type of each join key.

        Raises:
            DataError: The keys have wrong names or types.
        """
        columns = self._key_columns(keys)
        return {key: Asked(key[0], columns[key[0]], key[1]) for part in self.parts for key in part.keys}

    def _key_columns(self, keys: object) -> dict[str, list[Any]]:
        if isinstance(keys, Mapping):
            raise DataError(f"keys is one mapping. Give a list: keys=[{dict(keys)!r}].")
        if isinstance(keys, str | bytes | int | float):
            raise DataError(f"keys is {keys!r}. Give a list of mappings: keys=[{{{self.keys[0]!r}: {keys!r}}}].")
        if not isinstance(keys, list | tuple):
            table = frames.to_arrow(keys)
            self._check(dict.fromkeys(table.column_names))
            return {name: table[name].to_pylist() for name in self.keys}
        try:
            columns = {name: [key[name] for key in keys] for name in self.keys}
            fits = all(len(key) == len(columns) for key in keys)
        except (KeyError, TypeError, IndexError):
            fits = False
        for key in () if fits else keys:
            self._check(key)
        return columns

    def _check(self, key: object) -> None:
        """Refuse an entity that is not given by its join keys."""
        if not isinstance(key, Mapping):
            raise DataError(f"{key!r} is no mapping. Write {{{self.keys[0]!r}: {key!r}}}.")
        expected = set(self.keys)
        if wrong := min(map(str, set(key) ^ expected), default=""):
            problem = f"lacks {wrong!r}" if wrong in expected else f"has {wrong!r}, which is no key of it"
            hint = "" if wrong in expected else did_you_mean(wrong, expected)
            raise DataError(
                f"Online table {self.record.name!r} is asked by {', '.join(self.keys)}; a key {problem}.{hint}",
                key=dict(key),
            )

    def _select(self, features: Sequence[str]) -> list[tuple[Part, list[str]]]:
        """Give the parts that some features are in, each with those."""
        if isinstance(features, str):
            raise DefinitionError(f"features={features!r} is no list. Write features=[{features!r}].")
        for name in features:
            if name not in self.features:
                raise DefinitionError(
                    f"Online table {self.record.name!r} has no feature {name!r}.{did_you_mean(name, self.features)}"
                )
        chosen = [(part, [name for name in dict.fromkeys(features) if name in part.features]) for part in self.parts]
        return [(part, names) for part, names in chosen if names]

    def _statuses(
        self, wanted: Sequence[tuple[Part, list[str]]], found: Sequence[Read]
    ) -> dict[str, tuple[list[str], list[int | None]]]:
        labels = dict(zip(map(id, self.parts), self._labels, strict=True))
        statuses = {labels[id(part)]: read for (part, _), read in zip(wanted, found, strict=True)}
        for label in statuses:
            if clash := {f"{label}_status", f"{label}_event_time"} & {*self.keys, *self.features}:
                raise DefinitionError(
                    f"Online table {self.record.name!r} has a column named {clash.pop()!r}, as the status would be. "
                    "Serve it with another name: FeatureLookup(..., rename={...})."
                )
        return {label: (read.statuses, read.times) for label, read in statuses.items()}


def _labels(lookups: Sequence[TableLookup]) -> list[str]:
    """Name the parts of a table for its statuses: by their group, and its keys and version if that is not enough."""
    rows = {(lookup.space, lookup.keys) for lookup in lookups}
    groups = [lookup.group for lookup in lookups]
    if len(set(groups)) == len(rows):
        return groups
    return [f"{one.group}_{'_'.join(name for _, name in one.keys)}_{one.version}" for one in lookups]


def _as_dicts(
    keys: Sequence[str],
    asked: Mapping[tuple[str, pa.DataType], Asked],
    wanted: Sequence[tuple[Part, list[str]]],
    found: Sequence[Read],
    statuses: Mapping[str, tuple[list[str], list[int | None]]],
    order: Sequence[str],
) -> list[dict[str, Any]]:
    """Give an answer as one dictionary per entity."""
    by_name = {name: one.values for (name, _), one in reversed(list(asked.items()))}
    entities = zip(*(by_name[name] for name in keys), strict=True)
    names = [*keys, *(name for _, some in wanted for name in some)]
    values = [
        part.codec.values(read.alive, [part.features[name] for name in some])
        for (part, some), read in zip(wanted, found, strict=True)
    ]
    if len(values) == 1:
        rows = [dict(zip(names, (*key, *row))) for key, row in zip(entities, values[0], strict=True)]  # noqa: B905 - a row may have more
    else:
        cut = [[row[: len(some)] for row in rows] for (_, some), rows in zip(wanted, values, strict=True)]
        rows = [dict(zip(names, chain(*pieces), strict=True)) for pieces in zip(entities, *cut, strict=True)]
    if names != list(order):
        rows = [{name: row[name] for name in order} for row in rows]
    for label, (status, times) in statuses.items():
        moments = [None if time is None else moment_of(time) for time in times]
        for row, one, moment in zip(rows, status, moments, strict=True):
            row[f"{label}_status"], row[f"{label}_event_time"] = one, moment
    return rows
