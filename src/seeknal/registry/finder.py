"""Finding what is registered, by its name and project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from seeknal.errors import DefinitionError
from seeknal.names import did_you_mean, split_label, the_only
from seeknal.registry import GroupRecord, OnlineTableRecord, Registry, TrainingSetRecord
from seeknal.registry.home_locks import HomeLocks
from seeknal.system.storage import Storage

T = TypeVar("T", GroupRecord, OnlineTableRecord, TrainingSetRecord)


class Finder(HomeLocks):
    """Finds groups, online tables, training sets and projects.

    Args:
        storage: The storage of the home.
        registry: The registry of the home.
    """

    def __init__(self, storage: Storage, registry: Registry) -> None:
        super().__init__(storage)
        self.registry = registry

    def group(self, name: str, project: str | None = None) -> GroupRecord:
        """Return a group by its name; without a project, search all of them. "shop/spend" names project and group.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("feature group", name, project, self.registry.groups)

    def online_table(self, name: str, project: str | None = None) -> OnlineTableRecord:
        """Return an online table by its name; without a project, search all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("online table", name, project, self.registry.tables)

    def training_set(self, name: str, project: str | None = None) -> TrainingSetRecord:
        """Return a training set by its name; without a project, search all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("training set", name, project, self.registry.training_sets)

    def _only(self, kind: str, label: str, project: str | None, find: Callable[..., list[T]]) -> T:
        """Return the only record with a label, which is a name or "project/name"."""
        project, name = split_label(kind, label, project)
        found = find(project, name)
        # Decided by one read: between two of them, the object may appear or go.
        return found[0] if len(found) == 1 else the_only(kind, name, project, find(), str(self.storage))

    def groups(self, project: str | None = None, name: str | None = None) -> Sequence[GroupRecord]:
        """Return the groups, ordered by project and name; only those of a project or of a name, if given."""
        return self.registry.groups(project, name)

    def projects(self) -> list[str]:
        """Return the projects that a group or an online table names, ordered."""
        return sorted({one.project for one in self.groups()} | {one.project for one in self.registry.tables()})

    def project(self, name: str) -> str:
        """Check that a project exists, and return its name.

        Raises:
            DefinitionError: There is none.
        """
        if name in (known := self.projects()):
            return name
        raise DefinitionError(f"No project named {name!r} in {self.storage}.{did_you_mean(name, known)}", name=name)
