"""A resolved lookup: the lookup with the stored rows that it refers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seeknal.define.feature_group import FeatureLookup
from seeknal.engine import FeatureRequest
from seeknal.errors import DefinitionError
from seeknal.names import did_you_mean, quoted
from seeknal.offline import Rows, Snapshot
from seeknal.registry import GroupRecord, PinnedLookup, Version
from seeknal.values.times import EMPTY_INTERVAL, Interval


@dataclass(frozen=True)
class Source:
    """A lookup, and the stored rows that it refers to."""

    lookup: FeatureLookup
    record: GroupRecord
    version: Version
    snapshot: Snapshot

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

    def pin(self, **options: Any) -> PinnedLookup:
        """Return the lookup bound to the version.

        Args:
            **options: Further arguments of `PinnedLookup`.
        """
        project, name = self.record.project, self.record.name
        keys, features = tuple(self.keys.items()), tuple(self.features.items())
        return PinnedLookup(project, name, self.version.number, keys, features, **options)

    @property
    def features(self) -> dict[str, str]:
        """The names of features in the result, by their names in the group, in order."""
        names = self.lookup.features or self.version.schema.feature_names
        return {name: self.lookup.output_name(name) for name in names}

    @property
    def keys(self) -> dict[str, str]:
        """The names of join keys in the spine, by their names in the group, in order."""
        return {name: (self.lookup.rename or {}).get(name, name) for name in self.version.schema.key_names}

    def request(self, moments: Interval | None, interval: Interval) -> FeatureRequest:
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

    def rows(self, *spans: Interval) -> Rows:
        """Return the rows with an event time in one of some intervals; without an interval, all rows."""
        return self.snapshot.within(self.version.schema, *spans)
