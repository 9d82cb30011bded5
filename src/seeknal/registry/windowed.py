"""Versions of windowed groups: each is a version of the definition, applied to the current version of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from seeknal.define.aggregations.lengths import show_length
from seeknal.define.windowed_group import WindowedGroup, features_of
from seeknal.errors import SeeknalError
from seeknal.registry.records import DefinitionRecord, Version

if TYPE_CHECKING:
    from seeknal.define.schema import Change, Schema
    from seeknal.engine.windows.codec import WindowCodec


@dataclass(frozen=True, kw_only=True)
class WindowedVersion(Version):
    """A version of a windowed group. Its rows, snapshot and time of writing are those of the source.

    Args:
        definition: The definition.
        events: The version of the source whose rows it is computed from.
    """

    definition: WindowedGroup
    events: Version

    @cached_property
    def schema(self) -> Schema:
        """The schema, which follows from the definition and the source's schema; this loads Arrow.

        Raises:
            DefinitionError: The source has lost a column that the definition needs.
        """
        from seeknal.define.windowed_schema import schema_of

        return schema_of(self.definition, self.events.schema)

    @cached_property
    def codec(self) -> WindowCodec:
        """The encoding of the entities' events in the online store; this loads Arrow and NumPy."""
        from seeknal.engine.windows.codec import WindowCodec

        return WindowCodec(self.schema, self.definition, self.events.schema)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Name, type and role of each column. Where the source has lost what the definition needs, the types say so."""
        try:
            return self.schema.describe()
        except SeeknalError as error:
            keys = [(name, "unknown", "join key") for name in self.definition.entity.join_keys]
            return [*keys, *((one.name, f"unknown: {error}", "feature") for one in self.definition.windows)]

    def difference(self, other: WindowedVersion) -> list[Change]:
        """Return the features that differ from those of another version, in their aggregation, window or type."""
        from seeknal.define.schema import Change

        before, after = self._described(), other._described()
        names = [*before, *(name for name in after if name not in before)]
        return [
            Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
        ]

    def _described(self) -> dict[str, str]:
        """Return each feature's type and definition, as text."""
        hop = "" if self.definition.hop_length is None else f", hop {show_length(self.definition.hop_length)}"
        texts = {one["feature"]: one["aggregation"] for one in self.definition.described}
        return {name: f"{self.schema.feature(name).type}: {text}{hop}" for name, text in texts.items()}


def windowed_versions(
    group: WindowedGroup, definitions: Sequence[DefinitionRecord], events: Version
) -> list[WindowedVersion]:
    """Return the versions of a windowed group, oldest first.

    Args:
        group: The group with its current definition.
        definitions: The versions of its definition.
        events: The version of the source.
    """
    found = []
    for one in definitions:
        features, hop = features_of(one.text)
        found.append(_version(replace(group, features=features, hop=hop), events, one))
    return found


def unregistered(group: WindowedGroup, events: Version) -> WindowedVersion:
    """Return the version of a definition that is not registered. Its number is 0."""
    return _version(group, events, DefinitionRecord(0, group.text, 0, is_current=False))


def _version(group: WindowedGroup, events: Version, one: DefinitionRecord) -> WindowedVersion:
    return WindowedVersion(
        number=one.number,
        schema_text="",
        created_at=one.created_at,
        snapshot=events.snapshot,
        rows=events.rows,
        written_at=events.written_at,
        is_current=one.is_current,
        files=events.files,
        definition=group,
        events=events,
    )
