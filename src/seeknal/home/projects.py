"""The projects of a store: a project is there as long as a group or an online table names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal.home.core import Core

if TYPE_CHECKING:
    from seeknal.home.removal import Deletion


class Projects:
    """The projects of a store.

    Args:
        core: What the parts of the store share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self) -> list[str]:
        """Return the names of the projects, ordered."""
        return self._core.catalog.projects()

    def get(self, name: str) -> str:
        """Check that a project exists, and return its name.

        Raises:
            DefinitionError: There is none.
        """
        return self._core.catalog.project(name)

    def deletion(self, name: str) -> Deletion:
        """Return the deletion of a project with all that is in it, to be run.

        Raises:
            DefinitionError: There is no such project, or an online table or a training set of another one needs its groups.
        """
        from seeknal.home import removal

        core, project = self._core, self.get(name)
        tables, sets = core.tables.all(project=project), core.training_sets.all(project=project)
        views = tuple(dict.fromkeys(one.name for one in core.views.all(project=project)))
        return removal.Deletion(
            core, core.catalog.groups(project), tables, sets, tuple((project, one) for one in views)
        )
