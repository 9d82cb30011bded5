"""A catalog that reads the registry in bulk, for callers that look at many groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seeknal.names import split_label
from seeknal.offline.table_log import TableLog
from seeknal.registry import GroupRecord, Version
from seeknal.registry.catalog import Catalog
from seeknal.system.locks import locked_cached_property

if TYPE_CHECKING:
    from seeknal.define.feature_group import FeatureGroup


class Overview(Catalog):
    """A catalog that reads all groups and their versions at the first use, and answers from memory.

    The versions of a group that was written to since then are read from the registry as in `Catalog`.
    """

    def __init__(self, catalog: Catalog) -> None:
        opened, pushes = catalog._open_table, catalog.gate.commit_now  # noqa: SLF001 - of the base class
        super().__init__(catalog.storage, catalog.registry, opened, catalog.definitions.check, pushes)
        self._logs: dict[tuple[str, str], TableLog] = {}

    @locked_cached_property
    def _groups(self) -> dict[tuple[str, str], GroupRecord]:
        return {(record.project, record.name): record for record in self.registry.groups()}

    @locked_cached_property
    def _versions(self) -> dict[int, list[Version]]:
        return self.registry.every_version()

    @locked_cached_property
    def _erased(self) -> Mapping[int, int]:
        return self.registry.last_erasures()

    def log(self, group: GroupRecord | FeatureGroup) -> TableLog:
        """Return the log of a group's table, the same object for each call; see `Catalog.log`."""
        label = group.project, group.name
        if (known := self._logs.get(label)) is None:
            known = self._logs[label] = super().log(group)
        return known

    def groups(self, project: str | None = None, name: str | None = None) -> list[GroupRecord]:
        """Return the groups; see `Catalog.groups`."""
        return [one for one in self._groups.values() if project in {None, one.project} and name in {None, one.name}]

    def last_erasures(self) -> Mapping[int, int]:
        """Return the time of the last erasure from each group; see `Catalog.last_erasures`."""
        return self._erased

    def group(self, name: str, project: str | None = None) -> GroupRecord:
        """Return a group by its name; see `Catalog.group`."""
        within, own = split_label("feature group", name, project)
        found = None if within is None else self._groups.get((within, own))
        return super().group(name, project) if found is None else found

    def group_and_versions(self, name: str, project: str | None = None) -> tuple[GroupRecord, Sequence[Version]]:
        """Return a group by its name, with its versions; see `Catalog.group_and_versions`."""
        record = self.group(name, project)
        return record, self.versions(record)

    def versions(self, record: GroupRecord, until: int | None = None) -> list[Version]:
        """Return a group's versions; see `Catalog.versions`."""
        if record.windowed:
            return super().versions(record, until)
        known = self._versions.get(record.id, [])
        recorded = max((version.snapshot for version in known), default=-1)
        # If the log ends with the last recorded commit, nothing was written since the registry was read.
        if until is None and recorded == self.log(record).newest():
            return known
        return super().versions(record, until)
