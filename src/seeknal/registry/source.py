"""A resolved lookup: the lookup with the stored rows that it refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from seeknal.define.aggregations import Std, Var, WindowedFeature
from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
from seeknal.define.schema import Schema
from seeknal.define.windowed_group import reach_of
from seeknal.engine import FeatureRequest, Request, WindowRequest
from seeknal.errors import DefinitionError, notice
from seeknal.names import did_you_mean, quoted
from seeknal.offline import Rows, Snapshot
from seeknal.registry import GroupRecord, PinnedLookup, Version
from seeknal.registry.windowed import WindowedVersion
from seeknal.values.display import shown_duration
from seeknal.values.times import EMPTY_INTERVAL, Interval, show


@dataclass(frozen=True)
class Source:
    """A lookup, and the stored rows that it refers to.

    Args:
        lookup: The lookup.
        record: The group.
        version: Its version.
        snapshot: The stored rows.
        ahead: How long after the moments of a spine it is read, in microseconds: the window of a label ends then.
    """

    lookup: FeatureLookup
    record: GroupRecord
    version: Version
    snapshot: Snapshot
    ahead: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        known = self.version.schema.feature_names
        if unknown := [name for name in self.lookup.features or () if name not in known]:
            raise DefinitionError(
                f"Group {self.record.name!r} has no feature named {quoted(unknown)}.{did_you_mean(unknown[0], known)}"
            )
        columns = [*known, *self.version.schema.key_names]
        if unknown := [name for name in self.lookup.rename or {} if name not in columns]:
            raise DefinitionError(
                f"rename names {quoted(unknown)}, which group {self.record.name!r} does not have."
                f"{did_you_mean(unknown[0], columns)}"
            )

    def with_ttl(self, ttl: int | None) -> Source:
        """Return the same lookup with another ttl of the group, in microseconds; None: none. Windows have no ttl."""
        if not isinstance(self.record.group, FeatureGroup):
            return self
        span = None if ttl is None else timedelta(microseconds=ttl)
        group = replace(self.record.group, materialization=replace(self.record.group.materialization, ttl=span))
        return replace(self, record=replace(self.record, group=group))

    def pin(self, **options: Any) -> PinnedLookup:
        """Return the lookup bound to the version.

        Args:
            **options: Further arguments of `PinnedLookup`.
        """
        project, name = self.record.project, self.record.name
        keys, features = tuple(self.keys.items()), tuple(self.features.items())
        return PinnedLookup(project, name, self.version.number, keys, features, **options)

    @property
    def stored(self) -> GroupRecord:
        """The group whose stored rows are read."""
        return self.record

    @property
    def is_pinned(self) -> bool:
        """Whether an online table stays at this version, because the lookup names it."""
        return self.lookup.version is not None

    @property
    def rounded(self) -> frozenset[str]:
        """The features, by their names in the result, that may differ in their last digits between two ways to compute them."""
        return frozenset()

    @property
    def stored_schema(self) -> Schema:
        """The schema of those rows."""
        return self.version.schema

    def changed_schema(self) -> Schema:
        """Return the schema by which snapshots are compared, to find the entities whose rows have changed."""
        return self.version.schema

    def stored_rows(self, *spans: Interval) -> Rows:
        """Return those rows, with an event time in one of some intervals; without an interval, all rows."""
        return self.snapshot.within(self.stored_schema, *spans)

    @property
    def features(self) -> dict[str, str]:
        """The names of features in the result, by their names in the group, in order."""
        names = self.lookup.features or self.version.schema.feature_names
        return {name: self.lookup.output_name(name) for name in names}

    @property
    def keys(self) -> dict[str, str]:
        """The names of join keys in the spine, by their names in the group, in order."""
        return {name: (self.lookup.rename or {}).get(name, name) for name in self.version.schema.key_names}

    def request(self, moments: Interval | None, interval: Interval) -> Request:
        """Return the request to an engine, without rows that no moment can see: later than the last one, or expired at the first.

        Args:
            moments: The first and the last moment; None if there are none.
            interval: Only rows with an event time within it are visible.
        """
        lifetime, names = self.record.group.materialization.lifetime, tuple(self.features)
        if moments is None or moments.start is None:
            return FeatureRequest(self.rows(EMPTY_INTERVAL), names, lifetime)
        # A ttl is inclusive: a row exactly that much older than the first moment is still visible.
        first = None if lifetime is None else moments.start - lifetime
        seen = interval.intersect(Interval(first, moments.end)) or EMPTY_INTERVAL
        parts = self.snapshot.parts(self.version.schema, seen, moments.start)
        return FeatureRequest(self.rows(seen), names, lifetime, tuple(parts))

    def request_of_any(self, interval: Interval) -> Request:
        """Return the request to an engine for moments that are not known yet."""
        lifetime = self.record.group.materialization.lifetime
        return FeatureRequest(self.rows(interval), tuple(self.features), lifetime)

    def rows(self, *spans: Interval) -> Rows:
        """Return the rows with an event time in one of some intervals; without an interval, all rows."""
        return self.snapshot.within(self.version.schema, *spans)


@dataclass(frozen=True)
class WindowedSource(Source):
    """A lookup of a windowed group, and the events that it is computed from.

    Args:
        origin: The source of the events.
    """

    version: WindowedVersion
    origin: GroupRecord

    @property
    def stored(self) -> GroupRecord:
        """The group whose stored rows are read: the source of the events."""
        return self.origin

    @property
    def stored_schema(self) -> Schema:
        """The schema of the events."""
        return self.version.events.schema

    @property
    def is_pinned(self) -> bool:
        """Whether an online table stays at this version. It does: under the same names, another version would be other features."""
        return True

    @property
    def rounded(self) -> frozenset[str]:
        """The variances, by their names in the result: for a few events, a lookup computes them in another way; see `OneEntity`."""
        variances = (
            one.name for one in self.windows if isinstance(one.aggregation, Var | Std) and one.aggregation.by is None
        )
        return frozenset(self.features[name] for name in variances)

    @property
    def windows(self) -> tuple[WindowedFeature, ...]:
        """The features that are looked up, in order."""
        by_name = {one.name: one for one in self.version.definition.windows}
        return tuple(by_name[name] for name in self.features)

    def request(self, moments: Interval | None, interval: Interval) -> WindowRequest:
        """Return the request to an engine, without events that no window can have: after the last moment, or before the first window.

        Args:
            moments: The first and the last moment; None if there are none.
            interval: Only events with an event time within it are visible.
        """
        definition, windows = self.version.definition, self.windows
        seen: Interval | None = None
        if moments is not None and moments.start is not None:
            reach = reach_of(windows, definition.hop_length)
            # A window does not have the event at its start, but reading that one event more changes nothing.
            first = None if reach is None else moments.start - reach
            if interval.start is not None and (first is None or first < interval.start):
                begins = "with the first event" if first is None else f"at {show(first)}"
                notice(
                    f"Windows of {self.record.label} lack events: the first window begins {begins}, but only events from "
                    f"{show(interval.start)} on are visible. Leave out the start of the interval, unless that is meant."
                )
            seen = interval.intersect(Interval(first, moments.end))
        return self.request_of_any(seen or EMPTY_INTERVAL)

    def request_of_any(self, interval: Interval) -> WindowRequest:
        """Return the request to an engine for moments that are not known yet."""
        events = self.stored_schema
        one_of = () if self.origin.event_id is not None else tuple(events.key_names)
        rows = self.snapshot.within(events, interval)
        return WindowRequest(rows, tuple(self.keys), self.windows, self.version.definition.hop_length, one_of)

    def kept(self, since: int, spans: Sequence[Interval]) -> WindowRequest:
        """Return the request for the events that are needed online, for all moments from an instant on.

        Args:
            since: The instant, in microseconds since 1970.
            spans: The intervals of event time that were loaded.
        """
        request = self.request(Interval(since, None), Interval())
        (seen,) = request.rows.spans
        within = [both for one in spans if (both := seen.intersect(one))]
        return replace(request, rows=self.snapshot.within(self.stored_schema, *(within or [EMPTY_INTERVAL])))

    def changed_schema(self) -> Schema:
        """Return the schema by which snapshots of the source are compared: an entity has changed if any event of it has."""
        events, keys = self.stored_schema, set(self.keys)
        created = events.created_time
        rest = [
            field for field in events if field.name not in {*keys, events.event_time.name, created and created.name}
        ]
        return Schema(self.version.schema.keys, events.event_time, created, tuple(rest))

    def rows(self, *spans: Interval) -> Rows:
        """Return the entities and event times at which the values change because of an event, without features."""
        return self.snapshot.within(replace(self.version.schema, features=()), *spans)


def tell_of_ttl(record: GroupRecord, given: object) -> None:
    """Give a notice if the ttl of a definition is not the registered one, which applies."""
    registered = record.group.materialization.ttl
    if record.windowed or not isinstance(given, Materialization) or given.ttl == registered:
        return
    here = f"a ttl of {shown_duration(given.ttl)}" if given.ttl is not None else "no ttl"
    applies = (
        "no ttl is registered, so none" if registered is None else f"the registered ttl of {shown_duration(registered)}"
    )
    notice(
        f"This definition of {record.label} has {here}, but {applies} applies. Call write() or get_or_create() to register it."
    )
