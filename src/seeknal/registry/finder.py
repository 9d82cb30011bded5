"""Finding what is registered, by its name and project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from seeknal.errors import DefinitionError
from seeknal.names import did_you_mean, split_label, split_version, the_only
from seeknal.registry import GroupRecord, OnlineTableRecord, Registry, TrainingSetRecord, ViewRecord
from seeknal.registry.home_locks import HomeLocks
from seeknal.system.storage import Storage
from seeknal.values.arguments import check_number

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
        """Return the online table that a name means; without a project, search all of them. See `meant`.

        Raises:
            DefinitionError: There is none, several projects have one, or the name is that of a feature view that is not served.
        """
        project, own = split_label("online table", name, project)
        found = meant(self.registry.tables(project), own)
        if len(found) == 1:
            return found[0]
        label, number = split_version(own)
        if not found and self.registry.views(project, label):
            versions = self.view_versions(label, project)
            are_retired = number is None and all(one.retired_at for one in versions)
            raise _not_served(own, versions[-1] if are_retired else self.view(own, project))
        known = [replace(one, name=own) for one in found] or self.registry.tables()
        return the_only("online table", own, project, known, str(self.storage))

    def training_set(self, name: str, project: str | None = None) -> TrainingSetRecord:
        """Return a training set by its name; without a project, search all of them.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._only("training set", name, project, self.registry.training_sets)

    def view(self, name: str, project: str | None = None, version: int | None = None) -> ViewRecord:
        """Return a version of a feature view by the view's name; "shop/next_basket@3" names project, view and version.

        Args:
            name: The name.
            project: The project. None: the only one that has such a view.
            version: The number of the version. None: the newest that is not retired.

        Raises:
            DefinitionError: There is no such view or version, or several projects have the view.
        """
        label, named = split_version(name)
        if named is not None and version is not None and named != version:
            raise DefinitionError(f"{name!r} names version {named}, not {version}. Name only one of them.")
        number = named if version is None else check_number("version", version, 1)
        versions = self.view_versions(label, project)
        found = next((one for one in reversed(versions) if one.number == number), None)
        if number is None:
            found = next((one for one in reversed(versions) if one.retired_at is None), None)
            if found is None:
                last = versions[-1]
                raise DefinitionError(
                    f"All versions of feature view {label!r} are retired. Name one, such as {last.name}@{last.number}, or register its "
                    "definition again, which takes it up again."
                )
        if found is None:
            known = ", ".join(str(one.number) for one in versions)
            raise DefinitionError(
                f"Feature view {label!r} has no version {number}. There are: {known}.", version=number
            )
        return found

    def view_of(self, table: OnlineTableRecord) -> ViewRecord | None:
        """Return the version of a feature view that an online table serves; None if it serves none, or if that was deleted."""
        versions = self.registry.views(table.project, split_version(table.name)[0])
        return next((one for one in versions if one.number == table.view), None)

    def served_view(self, name: str, project: str | None = None) -> ViewRecord:
        """Return the version of a feature view that serves the online table of a name; if none does, what `view` returns.

        Raises:
            DefinitionError: There is no such view or version, or several projects have the view.
        """
        within, own = split_label("feature view", name, project)
        served = [self.view_of(one) for one in meant(self.registry.tables(within), own)]
        return served[0] if len(served) == 1 and served[0] else self.view(name, project)

    def view_versions(self, name: str, project: str | None = None) -> list[ViewRecord]:
        """Return the versions of a feature view, oldest first; without a project, search all of them.

        Raises:
            DefinitionError: There is no such view, or several projects have one.
        """
        project, own = split_label("feature view", name, project)
        found = self.registry.views(project, own)
        if len({one.project for one in found}) != 1:
            every = {(one.project, one.name): one for one in self.registry.views()}
            the_only("feature view", own, project, list(every.values()), str(self.storage))
        return found

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


def _not_served(name: str, view: ViewRecord) -> DefinitionError:
    how = (
        "was retired, so it is not served. Register its definition again, which takes it up again, and serve it."
        if view.retired_at
        else f"is not served. Serve it: FeatureView.load({view.table!r}).serve()."
    )
    return DefinitionError(f"No online table named {name!r}: feature view {view.label} {how}", name=name, found=[])


def meant(tables: Iterable[OnlineTableRecord], name: str) -> list[OnlineTableRecord]:
    """Return the online tables that a name means, at most one of each project.

    "next_basket@2" means the table that serves version 2 of the feature view `next_basket`, and "next_basket" the one that serves the
    newest of its versions that are served. A table that serves no view has its own name only.

    Raises:
        DefinitionError: What follows the "@" is not the number of a version.
    """
    view, number = split_version(name)
    found: dict[str, OnlineTableRecord] = {}
    for one in tables:
        if split_version(one.name)[0] != view or number not in {None, one.view}:
            continue
        known = found.get(one.project)
        if known is None or _rank(one, name) > _rank(known, name):
            found[one.project] = one
    return list(found.values())


def _rank(table: OnlineTableRecord, name: str) -> tuple[int, bool]:
    return table.view or 0, table.name == name
