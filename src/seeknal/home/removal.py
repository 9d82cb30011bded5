"""Removal from several places at once: of an entity, from one group or from all groups that it keys; and of a whole group."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from seeknal.errors import DefinitionError, SeeknalError, StoreError, notice, plural, unfinished
from seeknal.join.training_sets import TrainingSets
from seeknal.names import did_you_mean
from seeknal.registry import GroupRecord
from seeknal.registry.catalog import Catalog
from seeknal.serve.online_tables import OnlineTables
from seeknal.system import folders
from seeknal.values.display import Shown
from seeknal.values.times import moment_of, now
from seeknal.write import leftovers, maintenance
from seeknal.write.erasures import digests
from seeknal.write.maintenance import Erased


@dataclass(frozen=True)
class ErasedEntity(Shown):
    """The receipt of an erasure from several groups.

    Args:
        keys: The erased join keys, by name.
        at: Time of the erasure from the last group, in microseconds since 1970.
        groups: The receipt of each group.
        training_sets: The training sets that held the entity and were deleted.
        beside: The groups of other entities that have its join keys and may hold rows of it; nothing was erased from them.
    """

    keys: dict[str, object]
    at: int
    groups: tuple[Erased, ...]
    training_sets: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    _moments = {"at": "time"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def time(self) -> datetime:
        """Time of the erasure from the last group, in UTC."""
        return moment_of(self.at)

    @property
    def rows(self) -> int:
        """Number of rows erased from the groups' current versions."""
        return sum(one.rows for one in self.groups)

    def __str__(self) -> str:
        keys = ", ".join(f"{name}={value!r}" for name, value in self.keys.items())
        told = f"{plural(self.rows)} of {keys} erased from {plural(len(self.groups), 'feature group')}"
        left = [f"nothing was erased from {', '.join(self.beside)}, of other entities"] if self.beside else []
        return "\n  ".join([told, *map(str, self.groups), *left])


@dataclass(frozen=True)
class Places:
    """The parts of a home that rows are removed from.

    Args:
        catalog: The groups and their offline rows.
        training_sets: The training sets.
        online_tables: The online tables and their rows.
    """

    catalog: Catalog
    training_sets: TrainingSets
    online_tables: OnlineTables


def groups_of(catalog: Catalog, name: str, project: str | None) -> list[GroupRecord]:
    """Return the groups that are keyed by an entity and have been written to.

    Raises:
        DefinitionError: There is no such entity, several projects have one, or nothing was written to its groups yet.
    """
    within, _, own = name.rpartition("/")
    project = project or within or None
    every = catalog.registry.entities(project)
    projects = [where for where, entity in every if entity.name == own]
    if len(projects) > 1:
        raise DefinitionError(
            f"Several projects have an entity named {own!r}: {', '.join(projects)}. Name the project."
        )
    if not projects:
        hint = did_you_mean(own, [entity.name for _, entity in every])
        where = f"project {project!r}" if project else str(catalog.home)
        raise DefinitionError(f"No entity named {own!r} in {where}.{hint}", name=own)
    keyed = [one for one in catalog.registry.groups(projects[0]) if one.group.entity.name == own]
    written = [one for one in keyed if catalog.versions(one)]
    if not written:
        raise DefinitionError(
            f"Nothing was written yet to a feature group of entity {own!r}, so there is nothing to erase."
        )
    return written


def groups_beside(catalog: Catalog, record: GroupRecord) -> list[str]:
    """Return the groups of the project that are keyed by another entity, but whose keys include those of this group's entity."""
    entity, every = record.group.entity, catalog.registry.groups(record.project)
    others = (one for one in every if one.group.entity.name != entity.name)
    return [one.label for one in others if set(entity.join_keys) <= set(one.group.entity.join_keys)]


def holding(places: Places, records: Sequence[GroupRecord], keys: Mapping[str, Any]) -> list[str]:
    """Return the training sets made from the given groups that contain the entity."""
    found: dict[str, None] = {}
    for record in records:
        entity = places.catalog.entity(record, keys)
        found |= dict.fromkeys(places.training_sets.holding(record, places.training_sets.users(record), entity))
    return list(found)


def erase(
    places: Places, records: Sequence[GroupRecord], keys: Mapping[str, Any], delete_training_sets: bool
) -> ErasedEntity:
    """Erase an entity from the given groups, offline and online.

    Keys, training sets and online stores are checked before anything is erased.

    Raises:
        DefinitionError: Training sets contain the entity, and `delete_training_sets` is false.
        DataError: The keys have wrong names or types.
        StoreError: An online store does not answer, and nothing was erased; or the entity was erased from some of the groups
            or stores only, as the message says.
    """
    entities = [places.catalog.entity(record, keys) for record in records]
    doomed = holding(places, records, keys)
    if doomed and not delete_training_sets:
        raise DefinitionError(
            f"Training set {', '.join(map(repr, doomed))} holds that entity and could not be reproduced without it. "
            "Delete it too: erase(..., delete_training_sets=True), or --yes on the command line."
        )
    with unfinished(f"Nothing was erased from {', '.join(record.label for record in records)}", "Erase it again"):
        for record in records:
            places.online_tables.require(record)
    done: list[Erased] = []
    for record, entity in zip(records, entities, strict=True):
        try:
            done.append(_erase(places, record, entity))
        except SeeknalError as error:
            if not done:
                raise
            raise StoreError(
                f"The entity is erased from {', '.join(one.group for one in done)}, but not yet from {record.label}: {error} "
                "Erase it again, which repeats nothing."
            ) from error
    if not any(one.rows or one.files_removed or one.training_sets for one in done):
        labels = ", ".join(one.group for one in done)
        notice(f"No row of that entity was stored in {labels}. If there should be some, look at the keys.")
    sets = tuple(dict.fromkeys(name for one in done for name in one.training_sets))
    beside = tuple(groups_beside(places.catalog, records[0]))
    return ErasedEntity(done[-1].keys, done[-1].at, tuple(done), sets, beside)


def _erase(places: Places, record: GroupRecord, entity: pa.Table) -> Erased:
    """Erase an entity from a group, and delete the training sets that contain it, including those saved in the meantime."""
    catalog, sets = places.catalog, places.training_sets
    (digest,) = digests(entity)
    with catalog.deleting():
        at = now()
        with unfinished(
            f"Nothing was erased from {record.label} offline, but its row may be gone from some online stores",
            "Erase it again, or bring it back by seeknal refresh,",
        ):
            places.online_tables.take_out(record, entity, at)  # first, since a store that is away now may be back later
        with unfinished(
            f"The entity was removed online, but perhaps not offline, from {record.label}",
            f"Erase it again, or bring it back by seeknal materialize {record.label},",
        ):
            doomed = _delete_sets(sets, record, entity)
            catalog.registry.add_erasure(record, digest, at)
            receipt = maintenance.erase(catalog, record, entity, lambda: sets.snapshots(record))
            doomed += _delete_sets(sets, record, entity)
        leftovers.remove(catalog)
    with unfinished(
        f"The entity is erased from {record.label} offline, and its row is removed online, but not all is loaded anew",
        f"Run seeknal materialize {record.label}",
    ):
        places.online_tables.reload(record)
    return replace(receipt, online=places.online_tables.count_stores(record), training_sets=tuple(doomed))


def _delete_sets(sets: TrainingSets, record: GroupRecord, entity: pa.Table) -> list[str]:
    users = sets.users(record)
    labels = sets.holding(record, users, entity)
    for one in users:
        if one.label in labels:
            sets.delete(one)
    return labels


def delete_group(places: Places, record: GroupRecord) -> None:
    """Delete a group: its rows, its versions, and its online rows.

    Raises:
        DefinitionError: An online table or a training set needs the group.
    """
    catalog, users = places.catalog, places.online_tables.of(record)
    if others := [table.label for table in users if table.label != record.label]:
        raise DefinitionError(
            f"Feature group {record.label!r} is served by online table {', '.join(map(repr, others))}. "
            f"Delete that first: seeknal delete-table {others[0]}."
        )
    if sets := [one.label for one in places.training_sets.users(record)]:
        raise DefinitionError(
            f"Training set {sets[0]!r} was made from feature group {record.label!r} and needs its rows. "
            f"Delete that first: seeknal dataset delete {sets[0]}."
        )
    root, trash = catalog.offline(record.project, record.name).root, catalog.home / "trash" / uuid.uuid4().hex
    with catalog.deleting():
        # First: a store that is down could serve the rows again once it is back, so nothing is deleted without it.
        places.online_tables.drop(record)
        # An atomic rename, so that a killed deletion leaves no table with half of its files.
        if root.exists():
            folders.make(trash.parent)
            root.rename(trash)
        catalog.registry.delete_group(record)
        leftovers.remove(catalog)
