"""Parts of online tables: the features that a table takes from each group, and the rows read for some entities."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa

from seeknal.errors import StoreError
from seeknal.online import Codec, OnlineStore, SingleRow, State, WireRow
from seeknal.registry import GroupRecord, OnlineTableRecord, PinnedLookup
from seeknal.serve.keys import Key
from seeknal.serve.pushed import PushedRows, until_level
from seeknal.system.locks import locked_cached_property
from seeknal.values import frames
from seeknal.values.times import moment_of

FOUND, NOT_FOUND, EXPIRED = "found", "not_found", "expired"


class Read(NamedTuple):
    """The rows read of a part: its state, the row of each requested entity, the same without expired rows, and the moment of the read."""

    state: State
    rows: list[WireRow | None]
    alive: list[WireRow | None]
    at: int

    def of(self, rows: Sequence[int]) -> Read:
        """Return the same read of some of the requested entities."""
        return Read(self.state, [self.rows[i] for i in rows], [self.alive[i] for i in rows], self.at)

    @property
    def statuses(self) -> list[str]:
        """The status of each requested entity: found, not found or expired."""
        pairs = zip(self.rows, self.alive, strict=True)
        return [NOT_FOUND if row is None else EXPIRED if alive is None else FOUND for row, alive in pairs]

    @property
    def times(self) -> list[int | None]:
        """The event time of each row, in microseconds since 1970; None where there is no row."""
        return [None if row is None else row[-1] for row in self.rows]


class View:
    """The state of the registry, as far as the owner of an open table knows it.

    Args:
        erased: The time of the last erasure from each group, by the group's id. The owner keeps it up to date.
    """

    def __init__(self, erased: Mapping[int, int]) -> None:
        self.erased = erased

    def has_moved(self) -> bool:
        """Return whether the registered table has been replaced. Parts call it when the state of their rows has changed.

        This implementation always returns False, for owners that detect it otherwise.
        """
        return False


def refuse_erased(state: State, erased: Mapping[int, int], group: GroupRecord, table: OnlineTableRecord) -> None:
    """Refuse rows from before the last erasure, which a store has if it was unreachable or restored meanwhile.

    Raises:
        StoreError: The rows may hold erased entities.
    """
    if state.cleared is not None and erased.get(group.id, 0) > state.cleared:
        raise StoreError(
            f"The online rows of {group.label} may hold entities that were erased since, so they are not served: the store "
            f"is in a state from before the erasure. Load them again: seeknal refresh {table.label}."
        )


class Where(NamedTuple):
    """Where a part's rows are: in an online store, and those that were just pushed in the push log.

    Args:
        online: The online store.
        place: Its name in messages.
        pushed: The pushed rows.
    """

    online: OnlineStore
    place: str
    pushed: PushedRows


class Part:
    """The features that a table takes from one version of a group.

    Args:
        lookup: The version, the keys and the features.
        codec: Encodes keys and decodes rows of the version.
        where: Where the rows are.
        table: The table. Its ttl, if it has one, overrides the group's.
        group: The group. The time of its registration distinguishes it from a later group of the same name.
        view: The state of the registry, as far as the owner of the table knows it.
    """

    def __init__(
        self,
        lookup: PinnedLookup,
        codec: Codec,
        where: Where,
        table: OnlineTableRecord,
        group: GroupRecord,
        view: View,
    ) -> None:
        self.online, self.place, self._pushed = self._where = where
        self.origin = group.created_at
        self._table, self._group, self._view = table, group, view
        self._erased = view.erased
        self.lookup = lookup
        self.waits = self.online.waits
        self.codec = codec
        self.keys = [Key(name, field.type) for (_, name), field in zip(lookup.keys, codec.schema.keys, strict=True)]
        self.features = {out: codec.schema.feature_names.index(own) for own, out in lookup.features}
        self.space = lookup.space
        self._known: tuple[bytes, State, int | None] | None = None

    def __reduce__(self) -> tuple[type[Part], tuple[object, ...]]:
        return Part, (self.lookup, self.codec, self._where, self._table, self._group, View(dict(self._erased)))

    @property
    def pii(self) -> set[str]:
        """The names of the join keys that are personal data."""
        private = self._group.group.entity.pii_keys
        return {out for own, out in self.lookup.keys if own in private}

    @property
    def is_quick(self) -> bool:
        """Whether the requested values need no conversion from rows to Python, and are at least half of the values of a row."""
        return self.codec.is_plain(list(self.features.values())) and 2 * len(self.features) >= self.codec.width

    def read(self, text: bytes, found: Sequence[bytes | None], keys: Sequence[bytes], at: int) -> Read:
        """Decode what the store returned for some entities, and add what was pushed since.

        Args:
            text: The state of the space.
            found: The stored row of each entity; None where there is none.
            keys: The encoded keys of the entities.
            at: The time that counts as now, in microseconds since 1970.

        Raises:
            LaggingError: The store has to be read again.
            KeyError: The table has moved to another version, or the rows belong to another group.
            StoreError: The store may hold erased entities.
        """
        known = self._known
        # Most lookups find the state of the one before, so it is decoded and checked only when its bytes have changed.
        if known is None or known[0] != text:
            state = State.loads(text)
            if self._view.has_moved():
                raise KeyError(self.space)
            if state.origin != self.origin:  # a later group of the same name loaded these rows
                raise KeyError(self.space)
            known = self._known = text, state, self._group.ttl_in(self._table, state.ttl)
        _, state, ttl = known
        if self._erased:
            refuse_erased(state, self._erased, self._group, self._table)
        if self.codec.looks_back is not None and found and at < state.at - self.codec.looks_back:
            raise StoreError(
                f"{self._group.label} has the events of {moment_of(at)} no more: it was loaded at {moment_of(state.at)}. Look at the "
                "clock of this machine; for moments of the past, use HistoricalFeaturesDuckDB."
            )
        pushed = self._pushed.after(state.snapshot, keys)
        if pushed is None:
            rows = self.codec.rows(found, at, state.layout)
        else:
            rows = self.codec.rows_and(found, pushed, at, state.layout)
        if ttl is None:
            return Read(state, rows, rows, at)
        oldest = at - ttl  # a ttl is inclusive: a row of exactly this time is alive
        return Read(state, rows, [None if row is None or row[-1] < oldest else row for row in rows], at)

    def look(self, keys: Sequence[bytes], at: int) -> Read:
        """Read some entities from the store; see `read`."""
        return until_level(lambda: self.read(*self.online.get(self.space, keys), keys, at))

    def is_online(self) -> bool:
        """Return whether the version was loaded into the store.

        Raises:
            StoreError: The store may hold erased entities.
        """
        try:
            self.look([], 0)
        except KeyError:
            return False
        return True

    def others(self, known: set[bytes], at: int) -> Iterator[tuple[dict[str, Any], State, WireRow]]:
        """Yield the entities that are online and not among the known ones, unless their rows have expired.

        Args:
            known: The encoded keys of the known entities.
            at: The time that counts as now, in microseconds since 1970.

        Yields:
            The join keys of an entity, the state of the space, and the entity's row.

        Raises:
            KeyError: The version is not online.
        """
        keys = sorted(set(self.online.keys(self.space)) - known)
        read = self.look(keys, at)
        for key, row in zip(keys, read.alive, strict=True):
            if row is not None:
                yield self.codec.entity(key), read.state, row


class Entities:
    """Encodes the requested entities, once for all parts with the same join keys.

    For example, parts A and B are looked up by `user`, and part C by `user` and `item`. Two lists of keys are encoded,
    one of `user` and one of `user` and `item`. A and B get the first one, and C gets the second.

    Args:
        parts: The parts that are read.
        names: The names of the join-key columns.
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
        # The most common request: all parts have the same join keys, in the order of the columns.
        self._is_one = len(known) == 1 and self._each[0][2] == list(range(len(names)))

    def encode(self, columns: Mapping[str, list[Any]]) -> list[list[bytes]]:
        """Encode entities, given as columns by the names of the join keys, and return the encoded keys for each part.

        Raises:
            DataError: A value is not of its key's type.
        """
        encoded = [encode([key.wire(columns[key.name]) for key in keys]) for encode, keys, _ in self._each]
        return [encoded[i] for i in self._places]

    def encode_plain(self, columns: Sequence[list[Any]]) -> list[list[bytes]] | None:
        """Encode entities in fewer steps than `encode`; return None if a value is of a type that differs on the wire.

        Args:
            columns: One column per join key, in the order of the names.
        """
        encoded = []
        for encode, keys, at in self._each:
            own = columns if self._is_one else [columns[i] for i in at]
            for key, values in zip(keys, own):  # noqa: B905 - one column per key, by construction
                if not key.plain.issuperset(map(type, values)):
                    return None
            encoded.append(encode(own))
        return encoded * len(self._places) if self._is_one else [encoded[i] for i in self._places]


@dataclass(frozen=True)
class Piece:
    """The requested features of one part: their names, their places in its rows, and the function that takes them."""

    part: Part
    label: str
    names: list[str]
    places: list[int]
    values: Callable[[Sequence[WireRow | None]], Sequence[Sequence[Any]]]


class Selection:
    """The requested features in order, and the parts that hold them.

    Args:
        order: The names of the features.
        pieces: The requested features of each part.
        keys: The join keys.
    """

    def __init__(self, order: list[str], pieces: list[Piece], keys: Sequence[Key]) -> None:
        self.order = order
        self.pieces = pieces
        self.entities = Entities([piece.part for piece in pieces], [key.name for key in keys])
        self._keys = keys

    @property
    def layouts(self) -> list[list[str]]:
        """The names of the values in the rows of each piece, for `compile_row_builder`."""
        named = []
        for i, piece in enumerate(self.pieces):
            names = [f"\0{i}.{j}" for j in range(piece.part.codec.width)]  # for values that are not requested
            for name, place in zip(piece.names, piece.places, strict=True):
                names[place] = name
            named.append(names)
        return named

    def batch_of_one(self, columns: Sequence[list[Any]], reads: Sequence[Read]) -> pa.RecordBatch | None:
        """Return the result for one entity as a record batch, in fewer steps than `Found.arrow` takes.

        Suppose that the key is `user`, one piece has feature `a`, another has `c`, and `order` is c, a. The values are
        collected as user, a, time, c, time, and `_sort` makes them user, c, a.

        Args:
            columns: The requested entities, as one column per join key.
            reads: The rows read, one `Read` for each of the pieces.

        Returns:
            The batch. None if there is not exactly one entity, a key differs on the wire, or `SingleRow` does not support
            a value.
        """
        if len(columns[0]) != 1 or self._single is None:
            return None
        if not all(key.is_plain(values) for key, values in zip(self._keys, columns, strict=True)):
            return None
        rows = (filled(piece.part, read)[0] for piece, read in zip(self.pieces, reads, strict=True))
        values = [values[0] for values in columns]
        for pick, row in zip(self._picks, rows, strict=True):
            values += pick(row)
        with suppress(ValueError, struct.error):
            return self._single.make(self._sort(values))
        return None

    @locked_cached_property
    def _single(self) -> SingleRow | None:
        kinds = {key.name: key.kind for key in self._keys}
        for piece in self.pieces:
            kinds |= zip(piece.names, map(piece.part.codec.kind, piece.places), strict=True)
        names = [*(key.name for key in self._keys), *dict.fromkeys(self.order)]
        with suppress(ValueError):
            return SingleRow(pa.schema([(name, kinds[name]) for name in names]))
        return None

    @locked_cached_property
    def blocks(self) -> frames.Blocks:
        """Builds pandas frames from the batches of `batch_of_one`."""
        assert self._single  # noqa: S101 - the caller has a batch, which `_single` made
        return frames.Blocks(self._single.schema)

    @locked_cached_property
    def _picks(self) -> list[Callable[[WireRow], tuple[Any, ...]]]:
        # With the event time (-1) behind, `itemgetter` returns a tuple even for one feature; `_sort` drops the time.
        return [itemgetter(*piece.places, -1) for piece in self.pieces]

    @locked_cached_property
    def _sort(self) -> Callable[[list[Any]], tuple[Any, ...]]:
        """Brings keys and picked values, with an event time behind each pick, into the order of the result."""
        collected = [key.name for key in self._keys]
        for piece in self.pieces:
            collected += [*piece.names, "\0"]  # no feature has this name, so the event time is left out
        names = [*(key.name for key in self._keys), *dict.fromkeys(self.order)]
        return itemgetter(*map(collected.index, names))


def filled(part: Part, read: Read) -> Sequence[WireRow]:
    """Return the rows of a read, with a row of nulls for each entity that has none or an expired one."""
    if None not in read.alive:
        return read.alive  # type: ignore[return-value]  # checked in the line above
    nothing = part.codec.nothing
    return [nothing if row is None else row for row in read.alive]
