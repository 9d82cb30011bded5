"""Parts of online tables: what a table takes from each group, and what is read of it for some entities."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa

from seeknal import frames
from seeknal.asking import Key
from seeknal.errors import StoreError
from seeknal.lock import once
from seeknal.online import Codec, OnlineStore, SingleRow, State, WireRow
from seeknal.registry import GroupRecord, OnlineTableRecord, TableLookup

FOUND, NOT_FOUND, EXPIRED = "found", "not_found", "expired"


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


class View:
    """What those who hold a table open know of the registry.

    Args:
        erased: When an entity was last erased from each group, by the groups' numbers; its owner keeps it up to date.
    """

    def __init__(self, erased: Mapping[int, int]) -> None:
        self.erased = erased

    def has_moved(self) -> bool:
        """Whether the table is another by now; asked when what is online has changed. Here the owner finds out by itself."""
        return False


def refuse_erased(state: State, erased: Mapping[int, int], group: GroupRecord, table: OnlineTableRecord) -> None:
    """Refuse rows that an erasure does not know of: a store that was away, or was restored, may come back as it was before.

    Raises:
        StoreError: They may hold erased entities.
    """
    if state.cleared is not None and erased.get(group.id, 0) > state.cleared:
        raise StoreError(
            f"What is online of {group.label} may hold entities that were erased since, and is not served: the store "
            f"is as it was before. Load it anew: seeknal refresh {table.label}."
        )


class Part:
    """What a table takes from one version of a group.

    Args:
        lookup: The version, the keys and the features.
        codec: How the version's rows are written.
        online: Where they are.
        table: The table; its ttl goes before the group's own.
        place: What people call the store.
        group: The group. When it was registered tells it from another of its name that came later.
        view: What is known of the registry meanwhile.
    """

    def __init__(
        self,
        lookup: TableLookup,
        codec: Codec,
        online: OnlineStore,
        table: OnlineTableRecord,
        place: str,
        group: GroupRecord,
        view: View,
    ) -> None:
        self.origin = group.created_at
        self._table, self._group, self._view = table, group, view
        self._erased = view.erased
        self.lookup = lookup
        self.place = place
        self.waits = online.waits
        self.online = online
        self.codec = codec
        self.keys = [Key(name, field.type) for (_, name), field in zip(lookup.keys, codec.schema.keys, strict=True)]
        self.features = {out: codec.schema.feature_names.index(own) for own, out in lookup.features}
        self.space = lookup.space
        self._known: tuple[bytes, State, int | None] | None = None

    def __reduce__(self) -> tuple[type[Part], tuple[object, ...]]:
        return Part, (
            self.lookup,
            self.codec,
            self.online,
            self._table,
            self.place,
            self._group,
            View(dict(self._erased)),
        )

    @property
    def is_quick(self) -> bool:
        """Whether the rows have the values asked for as Python has them, and not many others."""
        return self.codec.is_plain(list(self.features.values())) and 2 * len(self.features) >= self.codec.width

    def read(self, text: bytes, found: Sequence[bytes | None], at: int) -> Read:
        """Read what the store gave for some entities: its state, and what it has of each.

        Raises:
            KeyError: The table has left the version.
            StoreError: It may hold erased entities.
        """
        known = self._known
        if known is None or known[0] != text:
            state = State.loads(text)
            if self._view.has_moved():
                raise KeyError(self.space)
            if state.origin != self.origin:
                raise KeyError(self.space)
            known = self._known = text, state, state.ttl if self._table.ttl is None else self._table.ttl
        _, state, ttl = known
        if self._erased:
            refuse_erased(state, self._erased, self._group, self._table)
        rows = self.codec.rows(found, at)
        if ttl is None:
            return Read(state, rows, rows)
        oldest = at - ttl
        return Read(state, rows, [None if row is None or row[-1] < oldest else row for row in rows])

    def is_online(self) -> bool:
        """Whether the version was loaded into the store.

        Raises:
            StoreError: It may hold erased entities.
        """
        try:
            self.read(*self.online.get(self.space, []), 0)
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


class Selection:
    """What is asked for: features in order, and the parts they are in.

    Args:
        order: The names of the features.
        pieces: The parts.
        keys: The join keys.
    """

    def __init__(self, order: list[str], pieces: list[Piece], keys: Sequence[Key]) -> None:
        self.order = order
        self.pieces = pieces
        self.entities = Entities([piece.part for piece in pieces], [key.name for key in keys])
        self._keys = keys

    @property
    def layouts(self) -> list[list[str]]:
        """The names of the values of the rows that the pieces take features from, for `dict_maker`."""
        named = []
        for i, piece in enumerate(self.pieces):
            names = [f"\0{i}.{j}" for j in range(piece.part.codec.width)]  # names that nobody asks for
            for name, place in zip(piece.names, piece.places, strict=True):
                names[place] = name
            named.append(names)
        return named

    def batch_of_one(self, columns: Sequence[list[Any]], reads: Sequence[Read]) -> pa.RecordBatch | None:
        """Return the answer for one entity; None if there are others, or values that `SingleRow` does not take.

        Args:
            columns: What was asked, as one column per join key.
            reads: What was read, one for each of the pieces.
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

    @once
    def _single(self) -> SingleRow | None:
        kinds = {key.name: key.kind for key in self._keys}
        for piece in self.pieces:
            kinds |= zip(piece.names, map(piece.part.codec.kind, piece.places), strict=True)
        names = [*(key.name for key in self._keys), *dict.fromkeys(self.order)]
        with suppress(ValueError):
            return SingleRow(pa.schema([(name, kinds[name]) for name in names]))
        return None

    @once
    def blocks(self) -> frames.Blocks:
        """What makes frames of pandas from `batch_of_one`."""
        assert self._single  # noqa: S101 - there was a batch
        return frames.Blocks(self._single.schema)

    @once
    def _picks(self) -> list[Callable[[WireRow], tuple[Any, ...]]]:
        return [itemgetter(*piece.places, -1) for piece in self.pieces]

    @once
    def _sort(self) -> Callable[[list[Any]], tuple[Any, ...]]:
        """What brings keys, and the picks with a time behind each, into the order of the answer."""
        given = [key.name for key in self._keys]
        for piece in self.pieces:
            given += [*piece.names, "\0"]
        names = [*(key.name for key in self._keys), *dict.fromkeys(self.order)]
        return itemgetter(*map(given.index, names))


def filled(part: Part, read: Read) -> Sequence[WireRow]:
    """Return the rows of a read, with nulls for entities that have none."""
    if None not in read.alive:
        return read.alive  # type: ignore[return-value]  # as was looked
    nothing = part.codec.nothing
    return [nothing if row is None else row for row in read.alive]
