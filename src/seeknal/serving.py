"""Online: loading the newest rows of a version, and answering for keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal import frames
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean
from seeknal.offline import Snapshot
from seeknal.online import Codec, OnlineStore
from seeknal.registry import GroupRecord, OnlineTableRecord, Registry, TableLookup, Version
from seeknal.registry.records import space_of
from seeknal.schema import UTC
from seeknal.times import Interval, now, union

ONLINE_OUTPUTS = ("pandas", "polars", "arrow", "dicts")


@dataclass(frozen=True)
class Loaded:
    """What a load put online.

    Args:
        group: Project and name of the group.
        version: The version whose rows these are.
        snapshot: The snapshot they were read from.
        span: The span that was asked for.
        rows: How many entities have their newest row in that span.
        online: How many entities of the version are online now, from all loads.
        seconds: How long it took.
    """

    group: str
    version: int
    snapshot: int
    span: Interval
    rows: int
    online: int
    seconds: float


class Loader:
    """Puts the newest row of each entity of a version online.

    What is online is a function of two things: the version's last snapshot, and the spans of time
    that were ever asked for. So a load can be repeated, interrupted, or overlap with another one.
    """

    def __init__(self, registry: Registry, engine: Engine) -> None:
        self._registry = registry
        self._engine = engine

    def load(
        self,
        record: GroupRecord,
        span: Interval,
        target: str,
        online: OnlineStore,
        read: Callable[[], tuple[Version, Snapshot]],
    ) -> Loaded:
        """Load a span of a version, beside the spans loaded before.

        Args:
            record: The group.
            span: The span; rows dated after now are left out.
            target: Name of the online store in the registry's notes.
            online: The online store.
            read: Gives the version and its last snapshot as they are when called.
        """
        started = time.perf_counter()
        version, _ = read()
        mine = self._registry.begin_load(record, version.number, target, span)
        while True:
            version, snapshot = read()
            notes = self._registry.loads(record, version.number, target)
            spans = union([both for note in notes if (both := note.interval.intersect(Interval(None, now())))])
            newest = self._engine.newest(snapshot.within(version.schema, *spans)) if spans else None
            encoded = Codec(version.schema).rows(newest) if newest is not None else []
            space = space_of(record.project, record.name, version.number)
            count = online.replace(space, encoded)
            if self._registry.loads(record, version.number, target)[-1].id <= notes[-1].id:
                break
        seconds = time.perf_counter() - started
        self._registry.end_load(mine, snapshot.number, count, seconds)
        rows = 0 if newest is None else _count_within(newest, version.schema.event_time.name, span)
        return Loaded(record.label, version.number, snapshot.number, span, rows, count, seconds)


def _count_within(rows: pa.Table, event_time: str, span: Interval) -> int:
    moments = rows[event_time].cast(UTC).cast(pa.int64())
    for bound, inside in ((span.start, pc.greater_equal), (span.end, pc.less_equal)):
        moments = moments if bound is None else moments.filter(inside(moments, bound))
    return len(moments)


class OnlineTable:
    """A named selection of online features; answers for keys.

    Args:
        record: What the table selects.
        codecs: One per lookup: how rows of its version are written.
        ttls: One per lookup: how long its values are good for, in microseconds.
        online: Where the rows are.
    """

    def __init__(
        self,
        record: OnlineTableRecord,
        codecs: Sequence[Codec],
        ttls: Sequence[int | None],
        online: OnlineStore,
    ) -> None:
        self.record = record
        self._parts = list(zip(record.lookups, codecs, ttls, strict=True))
        self._online = online

    @property
    def keys(self) -> list[str]:
        """The names that a request must give, in order."""
        return list(dict.fromkeys(name for lookup in self.record.lookups for _, name in lookup.keys))

    @property
    def features(self) -> list[str]:
        """The names that an answer has, in order."""
        return [name for lookup in self.record.lookups for _, name in lookup.features]

    @property
    def key_fields(self) -> list[pa.Field]:
        """The names that a request must give, with their types."""
        kinds = {
            name: field.type
            for lookup, codec, _ in self._parts
            for (_, name), field in zip(lookup.keys, codec.schema.keys, strict=True)
        }
        return [pa.field(name, kind) for name, kind in kinds.items()]

    def get_features(self, keys: object, output: str = "pandas", *, at: int | None = None) -> Any:
        """Give the newest features of some entities.

        Args:
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            at: What counts as now, in microseconds since 1970; the clock if None.

        Returns:
            One row per entity asked for, in order: the keys, then the features. Unknown and expired
            entities have nulls.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: The output is unknown.
        """
        if output not in ONLINE_OUTPUTS:
            raise DefinitionError(f"output={output!r} is unknown. Choose one of {', '.join(ONLINE_OUTPUTS)}.")
        asked = self._asked(keys)
        moment = now() if at is None else at
        columns: dict[str, pa.Array] = {}
        for lookup, codec, _ in self._parts:
            values = codec.key_columns(asked, [name for _, name in lookup.keys])
            columns |= {name: column for (_, name), column in zip(lookup.keys, values, strict=True)}
        for lookup, codec, ttl in self._parts:
            rows = self._rows(lookup, codec, [columns[name] for _, name in lookup.keys])
            found = codec.decode(rows, None if ttl is None else moment - ttl)
            columns |= {out: found[name] for name, out in lookup.features}
        table = pa.Table.from_arrays(
            [columns[name] for name in [*self.keys, *self.features]], names=[*self.keys, *self.features]
        )
        return table.to_pylist() if output == "dicts" else frames.from_arrow(table, output)

    def _rows(self, lookup: TableLookup, codec: Codec, keys: list[pa.Array]) -> list[bytes | None]:
        try:
            return self._online.get(lookup.space, codec.keys(keys))
        except KeyError:
            raise DefinitionError(
                f"Online table {self.record.label!r} is not online: version {lookup.version} of {lookup.group!r} was "
                "deleted from the online store. Serve it again."
            ) from None

    def _asked(self, keys: object) -> list[Mapping[str, Any]]:
        if isinstance(keys, Mapping):
            raise DataError(f"keys is one mapping. Give a list: keys=[{dict(keys)!r}].")
        if isinstance(keys, str | bytes | int | float):
            raise DataError(f"keys is {keys!r}. Give a list of mappings: keys=[{{{self.keys[0]!r}: {keys!r}}}].")
        asked = list(keys) if isinstance(keys, list | tuple) else frames.to_arrow(keys).to_pylist()
        expected = set(self.keys)
        for key in asked:
            if not isinstance(key, Mapping):
                raise DataError(f"{key!r} is no mapping. Write {{{self.keys[0]!r}: {key!r}}}.")
            if key.keys() != expected:
                self._refuse(key, expected)
        return asked

    def _refuse(self, key: Mapping[str, Any], expected: set[str]) -> None:
        wrong = min(set(key) ^ expected)
        problem = f"lacks {wrong!r}" if wrong in expected else f"has {wrong!r}, which is no key of it"
        hint = "" if wrong in expected else did_you_mean(wrong, expected)
        raise DataError(
            f"Online table {self.record.name!r} is asked by {', '.join(self.keys)}; a key {problem}.{hint}",
            key=dict(key),
        )
