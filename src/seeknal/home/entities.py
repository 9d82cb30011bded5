"""The entities of a store: their groups, and erasing one of their instances from all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.home.core import Core
from seeknal.names import split_label, the_only
from seeknal.registry import GroupRecord

if TYPE_CHECKING:
    from seeknal.home.removal import Deletion, ErasedEntity


class RegisteredEntity(NamedTuple):
    """An entity, with the project in which it is registered."""

    project: str
    entity: Entity

    @property
    def name(self) -> str:
        """Name of the entity."""
        return self.entity.name

    @property
    def label(self) -> str:
        """Project and name, as in "shop/user"."""
        return f"{self.project}/{self.name}"


class Entities:
    """The entities of a store.

    An entity is named by its name and `project`. Without `project`, it is the only entity of that name; "shop/user" names both.

    Args:
        core: What the parts of the store share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self, *, project: str | None = None) -> list[RegisteredEntity]:
        """Return the entities, of one project or of all."""
        return [RegisteredEntity(*one) for one in self._core.registry.entities(project)]

    def get(self, name: str, *, project: str | None = None) -> RegisteredEntity:
        """Return an entity.

        Raises:
            DefinitionError: There is no such entity, or several projects have one.
        """
        within, own = split_label("entity", name, project)
        return the_only("entity", own, within, self.all(), str(self._core.home))

    def groups(self, name: str, *, project: str | None = None) -> list[GroupRecord]:
        """Return the groups that are keyed by an entity.

        Raises:
            DefinitionError: There is no such entity, or several projects have one.
        """
        found = self.get(name, project=project)
        return [one for one in self._core.catalog.groups(found.project) if one.group.entity.name == found.name]

    def written_groups(self, name: str, *, project: str | None = None) -> list[GroupRecord]:
        """Return the groups that are keyed by an entity and have been written to.

        Raises:
            DefinitionError: There is no such entity, several projects have one, or nothing was written to its groups yet.
        """
        written = [one for one in self.groups(name, project=project) if self._core.catalog.versions(one)]
        if not written:
            raise DefinitionError(
                f"Nothing was written yet to a feature group of entity {name!r}, so there is nothing to erase."
            )
        return written

    def training_sets_with(self, records: Sequence[GroupRecord], keys: Mapping[str, Any]) -> list[str]:
        """Return the labels of the training sets made from the given groups that contain the entity with these join keys."""
        from seeknal.home import removal

        return removal.holding(self._core, records, keys)

    def groups_beside(self, record: GroupRecord) -> list[str]:
        """Return the labels of the groups from which an erasure from this one erases nothing, though they have its keys."""
        from seeknal.home import removal

        return removal.groups_beside(self._core, record)

    def erase(
        self, name: str, keys: Mapping[str, Any], *, project: str | None = None, delete_training_sets: bool = False
    ) -> ErasedEntity:
        """Erase an entity from all groups that are keyed by it: from all versions, older snapshots and online rows.

        Args:
            name: The entity's name, such as "customer".
            keys: The entity's join keys.
            project: The entity's project. Default: the only project that has such an entity.
            delete_training_sets: Delete the training sets that contain the entity, instead of raising.

        Returns:
            One receipt for all groups.

        Raises:
            DefinitionError: There is no such entity; or training sets contain it, and `delete_training_sets` is false.
            DataError: The keys have wrong names or types for one of the groups; nothing was erased.
            StoreError: The entity was erased from only some of the groups, as the message says. Erase it again.
        """
        from seeknal.home import removal

        return removal.erase(self._core, self.written_groups(name, project=project), keys, delete_training_sets)

    def deletion(self, name: str, *, project: str | None = None) -> Deletion:
        """Return the deletion of an entity with all its groups, to be run.

        Raises:
            DefinitionError: There is no such entity; or an online table or a training set needs one of its groups.
        """
        from seeknal.home import removal

        return removal.Deletion(self._core, self.groups(name, project=project))
