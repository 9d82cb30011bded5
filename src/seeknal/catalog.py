"""Finding things by name: groups over all projects, their versions, their tables of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from seeknal.errors import DefinitionError, notice
from seeknal.feature_group import FeatureGroup, FeatureLookup, Materialization
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
        """Find a group by its name; without a project, over all of them. "shop/spend" says both.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("feature group", name, project, self.registry.groups)

    def online_table(self, name: str, project: str | None = None) -> OnlineTableRecord:
        """Find an online table by its name; without a project, over all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("online table", name, project, self.registry.tables)

    def _only(self, kind: str, label: str, project: str | None, find: Callable[..., list[T]]) -> T:
        """Find the one of that name, or project/name."""
        within, _, name = label.rpartition("/")
        project = project or within or None
        found = find(project, name)
        if len(found) == 1:
            return found[0]
        if found:
            choices = " or ".join(repr(one.label) for one in found)
            raise DefinitionError(f"Several projects have a {kind} named {name!r}. Say {choices}.", name=name)
        if elsewhere := [one.label for one in find(None, name)]:
            hint = f" There is {' and '.join(map(repr, elsewhere))}."
        else:
            hint = did_you_mean(name, [one.name for one in find(project)])
        where = f"project {project!r}" if project else str(self.home)
        raise DefinitionError(f"No {kind} named {name!r} in {where}.{hint}", name=name)

    def register(self, group: FeatureGroup) -> GroupRecord:
        """Register a group, or bring what may change up to date; tell of what did."""
        known = self.registry.group(group.project, group.name)
        record = self.registry.save_group(group)
        old, new = (one.group.materialization for one in (known or record, record))
        for what in ("ttl", "online"):
            if getattr(old, what) != getattr(new, what):
                notice(f"{record.label} now has {what}={getattr(new, what)}; it had {what}={getattr(old, what)}.")
        return record

    def project(self, name: str) -> str:
        """Find a project.

        Raises:
            DefinitionError: There is none.
        """
        groups, tables = self.registry.groups(), self.registry.tables()
        known = {group.project for group in groups} | {table.project for table in tables}
        if name in known:
            return name
        raise DefinitionError(f"No project named {name!r} in {self.home}.{did_you_mean(name, known)}", name=name)

    def offline(self, project: str, name: str) -> OfflineTable:
        """Give the table of a group's rows."""
        return OfflineTable(self.home / "offline" / project / name, self._engine)

    def catch_up(self, record: GroupRecord) -> None:
        """Tell the registry of commits that it has not heard of."""
        offline = self.offline(record.project, record.name)
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
            raise DefinitionError(f"Nothing was written to feature group {record.name!r} yet. Call write() first.")
        raise DefinitionError(
            f"Feature group {record.name!r} has no version {number}. There are: "
            f"{', '.join(str(version.number) for version in versions)}.",
            version=number,
        )

    def read(self, record: GroupRecord, number: int | None = None) -> tuple[Version, Snapshot]:
        """Give a version with its last snapshot."""
        version = self.version(record, number)
        return version, self.offline(record.project, record.name).snapshot(version.snapshot)

    def source(self, lookup: FeatureLookup) -> Source:
        """Find the rows that a lookup leads to: those of the current version, as they are now."""
        record = self.group(lookup.name, lookup.project)
        given = getattr(lookup.source, "materialization", None)
        if isinstance(given, Materialization) and given.ttl != record.group.materialization.ttl:
            notice(
                f"{record.label} is registered with ttl={record.group.materialization.ttl}, which holds here, not the "
                f"{given.ttl} of this definition. Call write() or get_or_create() to register it."
            )
        return Source(lookup, record, *self.read(record))
