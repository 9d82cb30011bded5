"""Finding things by name: groups over all projects, their versions, their tables of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import duckdb

from seeknal.errors import DefinitionError
from seeknal.feature_group import FeatureLookup
from seeknal.names import did_you_mean
from seeknal.offline import OfflineTable, Snapshot
from seeknal.offline.log import latest, read_commits
from seeknal.registry import GroupRecord, OnlineTableRecord, Registry, Version
from seeknal.retrieval import Source

T = TypeVar("T", GroupRecord, OnlineTableRecord)


class Catalog:
    """What a home holds: the registry and the offline tables, kept in step.

    The log of an offline table says what was written, the registry is its index: commits that it
    has not heard of, because a process was killed in between, are added when the group is next used.
    """

    def __init__(self, home: Path, registry: Registry, engine: duckdb.DuckDBPyConnection) -> None:
        self.home = home
        self.registry = registry
        self._engine = engine

    def group(self, name: str, project: str | None = None) -> GroupRecord:
        """Find a group; without a project, over all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        known = [record.group.name for record in self.registry.groups(project)]
        return self._only("feature group", name, project, self.registry.groups(project, name), known)

    def online_table(self, name: str, project: str | None = None) -> OnlineTableRecord:
        """Find an online table; without a project, over all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        known = [table.name for table in self.registry.tables(project)]
        return self._only("online table", name, project, self.registry.tables(project, name), known)

    def _only(self, kind: str, name: str, project: str | None, found: list[T], known: list[str]) -> T:
        if len(found) == 1:
            return found[0]
        if found:
            projects = ", ".join(one.project for one in found)
            raise DefinitionError(
                f"{kind.capitalize()} {name!r} exists in several projects: {projects}. Say which project.", name=name
            )
        where = f"project {project!r}" if project else str(self.home)
        raise DefinitionError(f"No {kind} named {name!r} in {where}.{did_you_mean(name, known)}", name=name)

    def offline(self, project: str, name: str) -> OfflineTable:
        """Give the table of a group's rows."""
        return OfflineTable(self.home / "offline" / project / name, self._engine)

    def catch_up(self, record: GroupRecord) -> None:
        """Tell the registry of commits that it has not heard of."""
        offline = self.offline(record.project, record.group.name)
        if not offline.exists():
            return
        heard = self.registry.last_snapshot(record)
        if heard < latest(offline.root):
            self.registry.add_commits(record, read_commits(offline.root, heard))

    def versions(self, record: GroupRecord) -> list[Version]:
        """List a group's versions, the oldest first."""
        self.catch_up(record)
        return self.registry.versions(record)

    def version(self, record: GroupRecord, number: int | None = None) -> Version:
        """Find a version; the current one without a number.

        Raises:
            DefinitionError: There is none.
        """
        versions = self.versions(record)
        for version in versions:
            if version.number == number or (number is None and version.is_current):
                return version
        if not versions:
            raise DefinitionError(
                f"Nothing was written to feature group {record.group.name!r} yet. Call write() first."
            )
        raise DefinitionError(
            f"Feature group {record.group.name!r} has no version {number}. There are: "
            f"{', '.join(str(version.number) for version in versions)}.",
            version=number,
        )

    def read(self, record: GroupRecord, number: int | None = None) -> tuple[Version, Snapshot]:
        """Give a version with its last snapshot."""
        version = self.version(record, number)
        return version, self.offline(record.project, record.group.name).snapshot(version.snapshot)

    def source(self, lookup: FeatureLookup) -> Source:
        """Find the rows that a lookup leads to: those of the current version, as they are now."""
        record = self.group(lookup.name, lookup.project)
        return Source(lookup, record, *self.read(record))
