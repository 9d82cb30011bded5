"""Definitions of windowed groups: registering them, and looking them up whether they are registered or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from seeknal.define.feature_group import FeatureLookup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import DefinitionError, notice
from seeknal.registry import GroupRecord
from seeknal.registry.windowed import WindowedVersion, unregistered

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.registry.catalog import AsOf, Catalog
    from seeknal.registry.source import Source

Check = Callable[[WindowedGroup, "Schema"], None]
"""Checks a windowed group against the schema of its source."""


class Definitions:
    """The definitions of the windowed groups of a home.

    Args:
        catalog: The catalog of the home.
        check: Checks definitions. None: none will be given.
    """

    def __init__(self, catalog: Catalog, check: Check | None) -> None:
        self._catalog, self.check = catalog, check

    def source(self, lookup: FeatureLookup, group: WindowedGroup, as_of: AsOf | None) -> Source:
        """Return the source of a lookup of a definition. One that is not registered is computed all the same: a read changes nothing."""
        catalog = self._catalog
        whole, origin = self._completed(group)
        known, number = self._registered(whole)
        if known and (lookup.version or number):
            return catalog.resolved(lookup, known, *catalog.read(known, lookup.version or number, as_of))
        events, snapshot = catalog.read(origin, None, as_of)
        return catalog.resolved(lookup, known or GroupRecord(0, whole, 0), unregistered(whole, events), snapshot)

    def settled(self, source: Source, *, tells: bool = True) -> Source:
        """Return a source whose definition is registered, so that a training set or an online table can refer to its version.

        Unless `tells` is false, a new version of a definition gives a notice.
        """
        group = source.lookup.source
        if (
            not isinstance(source.version, WindowedVersion)
            or source.version.number
            or not isinstance(group, WindowedGroup)
        ):
            return source
        record, number = self.register(group, tells=tells)
        return replace(source, record=record, version=replace(source.version, number=number))

    def register(self, group: WindowedGroup, *, tells: bool = True) -> tuple[GroupRecord, int]:
        """Register a windowed group, if it or its definition is new, and return it with the number of the definition's version.

        Raises:
            DefinitionError: The source does not exist or has no rows, the definition does not fit it, or the registered group has another
                entity or source.
        """
        whole, origin = self._completed(group)
        known, number = self._registered(whole)
        if known and number:
            return known, number
        before = self._catalog.version(known) if known and tells else None
        with self._catalog.lifetimes.staying(origin):
            record, number = self._catalog.registry.save_windowed_group(whole, origin)
        if isinstance(before, WindowedVersion) and isinstance(
            after := self._catalog.version(record, number), WindowedVersion
        ):
            changes = ", ".join(map(str, before.difference(after)))
            notice(
                f"{record.label} is now at version {number}: {changes}. Online tables stay at theirs until they are served again."
            )
        return record, number

    def _completed(self, group: WindowedGroup) -> tuple[WindowedGroup, GroupRecord]:
        """Return a windowed group with its source and project filled in, and the source, after checking that they fit.

        Raises:
            DefinitionError: They do not, or the source does not exist or has no rows.
        """
        origin = self._catalog.group(group.origin)
        if origin.windowed:
            raise DefinitionError(
                f"The source of {group.name!r}, {origin.label}, is a windowed group, which has no events of its own. "
                f"Name its source, {origin.windowed.origin!r}."
            )
        whole = replace(group, source=origin.label, project=group.project or origin.project)
        assert self.check  # noqa: S101 - a catalog for lookups by key takes no definitions
        self.check(whole, self._catalog.version(origin).schema)
        return whole, origin

    def _registered(self, whole: WindowedGroup) -> tuple[GroupRecord | None, int | None]:
        """Return the registered group of a definition's name, and the number of the version that has the definition; None for none.

        Raises:
            DefinitionError: The registered group is of another kind, or has another entity or source.
        """
        known = self._catalog.registry.group(whole.project or "", whole.name)
        if known is None:
            return None, None
        if known.windowed is None or (known.windowed.origin, known.group.entity) != (whole.origin, whole.entity):
            of = f"of {known.group.entity.name or 'no entity'}" + (
                f" over {known.windowed.origin}" if known.windowed else ""
            )
            raise DefinitionError(
                f"{known.label} is registered as a {known.kind} {of}, not as a windowed group of {whole.entity.name} over "
                f"{whole.origin}. Choose another name, or delete it first."
            )
        same = (one.number for one in self._catalog.registry.definitions(known) if whole.is_same_as(one.text))
        return known, next(same, None)
