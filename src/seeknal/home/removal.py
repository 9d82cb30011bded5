"""Removal from several places at once: erasing an entity from its groups, and deleting groups with what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa

from seeknal.errors import DefinitionError, SeeknalError, StoreError, notice, plural, unfinished
from seeknal.home.core import Core
from seeknal.join.training_sets import TrainingSets
from seeknal.names import quoted
from seeknal.registry import GroupRecord, OnlineTableRecord, PinnedLookup, TrainingSetRecord
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.arguments import check_flag
from seeknal.values.display import Shown
from seeknal.values.times import moment_of, now
from seeknal.write import leftovers, maintenance
from seeknal.write.erasures import digests, elsewhere
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


def group_of_entity(core: Core, record: GroupRecord, keys: Mapping[str, Any]) -> GroupRecord:
    """Return the group to erase an entity from: the group itself, or for an event source a windowed group that has its keys.

    Raises:
        DefinitionError: Neither the source nor a windowed group over it is identified by these keys.
    """
    if record.event_id is None or (record.event_id and set(record.event_id) == set(keys)):
        return record
    users = core.registry.windowed_groups(record)
    if found := [one for one in users if set(one.group.entity.join_keys) == set(keys)]:
        return found[0]
    known = dict.fromkeys([", ".join(record.event_id), *(", ".join(one.group.entity.join_keys) for one in users)])
    raise DefinitionError(
        f"Nothing that {record.label} is about is identified by {quoted(list(keys))}. Its events can be erased by "
        f"{' or by '.join(name for name in known if name) or 'the join keys of a windowed group over it, once there is one'}."
    )


def groups_beside(core: Core, record: GroupRecord) -> list[str]:
    """Return the groups and event sources of the project that are not erased from with this group, but have its entity's keys."""
    if record.event_id is not None:
        return []
    catalog, entity = core.catalog, record.group.entity
    keys, every = set(entity.join_keys), catalog.groups(record.project)
    others = (one for one in every if one.group.entity.name != entity.name and one.windowed is None)
    found = [one.label for one in others if keys <= set(one.group.entity.join_keys)]
    # Events can hold the entity too. Those from which one of its groups is computed are erased with that group, and so are logs.
    done = {catalog.origin(one).id for one in every if one.windowed and one.group.entity.name == entity.name}
    done |= {log.id for log, _ in _logs(core, [one for one in every if one.group.entity.name == entity.name])}
    for one in every:
        current = catalog.state_of(one).current if one.event_id is not None and one.id not in done else None
        if current and keys <= {name for name, _, _ in current.columns}:
            found.append(one.label)
    return sorted(found)


def holding(core: Core, records: Sequence[GroupRecord], keys: Mapping[str, Any]) -> list[str]:
    """Return the training sets made from the given groups that contain the entity."""
    found: dict[str, None] = {}
    for record in records:
        entity = core.catalog.entity(record, keys)
        found |= dict.fromkeys(one.label for one in core.training_sets.holding(record, entity))
    return list(found)


def erase(
    core: Core, records: Sequence[GroupRecord], keys: Mapping[str, Any], delete_training_sets: bool
) -> ErasedEntity:
    """Erase an entity from the given groups, offline and online.

    Keys, training sets and online stores are checked before anything is erased.

    Raises:
        DefinitionError: Training sets contain the entity, and `delete_training_sets` is false.
        DataError: The keys have wrong names or types.
        StoreError: An online store does not answer, and nothing was erased; or the entity was erased from some of the groups
            or stores only, as the message says.
    """
    delete_training_sets = check_flag("delete_training_sets", delete_training_sets)
    entities = [core.catalog.entity(record, keys) for record in records]
    doomed = holding(core, records, keys)
    if doomed and not delete_training_sets:
        of, them = ("set {} holds", "it") if len(doomed) == 1 else ("sets {} hold", "them")
        raise DefinitionError(
            f"Training {of.format(', '.join(map(repr, doomed)))} that entity and could not be reproduced without it. "
            f"Delete {them} too: erase(..., delete_training_sets=True), or --yes on the command line."
        )
    with unfinished(f"Nothing was erased from {', '.join(record.label for record in records)}", "Erase it again"):
        for record in records:
            core.loads.require(record)
    done: list[Erased] = []
    # Several windowed groups may be computed from one table, which is erased from once; a group with rows of its own comes first.
    every = sorted(zip(records, entities, strict=True), key=lambda one: one[0].windowed is not None)
    tables: dict[int, tuple[GroupRecord, pa.Table]] = {}
    for record, entity in every:
        tables.setdefault(core.catalog.origin(record).id, (record, entity))
    for record, entity in tables.values():
        try:
            done += _erase(core, record, entity)
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
    beside = tuple(groups_beside(core, records[0]))
    return ErasedEntity(done[0].keys, done[-1].at, tuple(done), sets, beside)


def _erase(core: Core, record: GroupRecord, entity: pa.Table) -> list[Erased]:
    """Erase an entity from a group, and delete the training sets that contain it, including those saved in the meantime.

    Returns:
        The receipt of the group, then those of the logs of views from which the entity was erased with it.
    """
    catalog, sets = core.catalog, core.training_sets
    (digest,) = digests(entity)
    windowed = [one for one in catalog.registry.windowed_groups(catalog.origin(record)) if one.id != record.id]
    alike = [one for one in windowed if set(one.group.entity.join_keys) == set(entity.column_names)]
    others = [one for one in windowed if one not in alike]
    with catalog.deleting(), catalog.lifetimes.using(record):
        catalog.lifetimes.check(record)
        at = now()
        with unfinished(
            f"Nothing was erased from {record.label} offline, but its row may be gone from some online stores",
            "Erase it again, or bring it back by seeknal refresh,",
        ):
            core.loads.take_out(record, entity, at)  # first, since a store that is away now may be back later
            for one in alike:
                core.loads.take_out(one, _keys_of(one, entity), at)
        with unfinished(
            f"The entity was removed online, but perhaps not offline, from {record.label}",
            f"Erase it again, or bring it back by seeknal materialize {record.label},",
        ):
            doomed = _delete_sets(sets, record, entity)
            catalog.registry.add_erasure(record, digest, at)
            for one in (
                others
            ):  # what is online of them has the entity's events in it, and is refused until it is loaded again
                catalog.registry.add_erasure(one, elsewhere(digest), at)
            for one in alike:
                catalog.registry.add_erasure(one, digests(_keys_of(one, entity))[0], at)
            stored = catalog.origin(record)
            receipt = maintenance.erase(catalog, stored, entity, lambda: sets.snapshots(stored))
            doomed += _delete_sets(sets, record, entity)
            logs = _erase_from_logs(core, [record, *alike], entity, digest)
        leftovers.remove(catalog)
    with (
        catalog.lifetimes.using(record),
        unfinished(
            f"The entity is erased from {record.label} offline, and its row is removed online, but not all is loaded anew",
            f"Run seeknal materialize {record.label}",
        ),
    ):
        core.loads.reload(record)
        core.loads.reload_windows(windowed)
        for one, _ in logs:
            core.loads.reload_windows(catalog.registry.windowed_groups(one))
        catalog.pushes.scrub()
    own = replace(receipt, online=core.loads.count_stores(record), training_sets=tuple(doomed))
    return [own, *(one for _, one in logs if one is not None)]


def _erase_from_logs(
    core: Core, records: Sequence[GroupRecord], entity: pa.Table, digest: str
) -> list[tuple[GroupRecord, Erased | None]]:
    """Erase an entity of some groups from the logs of the views that look them up. The caller holds the lock of deletions.

    Returns:
        Each log, with the receipt if anything was logged yet.
    """
    done = []
    for log, lookup in _logs(core, records):
        names = dict(lookup.keys)
        named = entity.rename_columns([names[own] for own in entity.column_names])
        receipt = None
        if core.catalog.versions(log):
            receipt = maintenance.erase(core.catalog, log, named, partial(core.training_sets.snapshots, log))
        # Its end, before which processes may have taken rows that they have not written yet; see `HomeLogWriter`.
        core.registry.add_erasure(log, digest, now())
        done.append((log, receipt))
    return done


def _logs(core: Core, records: Sequence[GroupRecord]) -> list[tuple[GroupRecord, PinnedLookup]]:
    """Return the logs of the views that look up some groups, each with each such lookup that has other keys."""
    found: dict[tuple[str, str, object], tuple[GroupRecord, PinnedLookup]] = {}
    for view in core.registry.views():
        log = core.registry.group(view.project, view.log)
        if log is None or log.group.description != view.log_description:
            continue
        for lookup in view.content.lookups:
            if any(lookup.is_of(one) for one in records):
                found.setdefault((view.project, view.log, lookup.keys), (log, lookup))
    return list(found.values())


def _keys_of(record: GroupRecord, entity: pa.Table) -> pa.Table:
    """Return an entity's keys in the order of a group that has the same ones."""
    return entity.select(list(record.group.entity.join_keys))


def _delete_sets(sets: TrainingSets, record: GroupRecord, entity: pa.Table) -> list[str]:
    doomed = sets.holding(record, entity)
    for one in doomed:
        sets.discard(one)
    return [one.label for one in doomed]


@dataclass(frozen=True)
class Deletion:
    """The objects that one call deletes, in the order of deletion: nothing is deleted before the objects that need it.

    Args:
        core: What the parts of the store share.
        groups: The feature groups.
        tables: The online tables.
        sets: The training sets.
        views: The feature views, each with its project.

    Raises:
        DefinitionError: An online table or a training set that stays needs one of the groups.
    """

    core: Core
    groups: Sequence[GroupRecord]
    tables: Sequence[OnlineTableRecord] = ()
    sets: Sequence[TrainingSetRecord] = ()
    views: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        for group in self.groups:
            self.core.catalog.lifetimes.refuse_source(group, self.groups)
            users = [one for one in self.core.tables.of(group) if one not in self.tables]
            if others := [one.label for one in users if one.label != group.label]:  # the table of its name goes with it
                table, that = ("table", "that") if len(others) == 1 else ("tables", "them")
                raise DefinitionError(
                    f"Feature group {group.label!r} is served by online {table} {quoted(others)}. Delete {that} first: "
                    f"{'; '.join(f'seeknal delete online-table {one}' for one in others)}."
                )
            if kept := [one.label for one in self.core.training_sets.users(group) if one not in self.sets]:
                raise DefinitionError(
                    f"Training set {kept[0]!r} was made from feature group {group.label!r} and needs its rows. "
                    f"Delete that first: seeknal delete dataset {kept[0]}."
                )

    def __str__(self) -> str:
        kinds: list[tuple[Sequence[object], str]] = [(self.tables, "online table"), (self.sets, "training set")]
        kinds += [(self.views, "feature view"), (self.groups, "feature group")]
        return ", ".join(plural(len(some), noun) for some, noun in kinds if some)

    def labels(self) -> dict[str, list[str]]:
        """Return the labels of the objects, by kind."""
        return {
            "online_tables": [one.label for one in self.tables],
            "datasets": [one.label for one in self.sets],
            "feature_views": [f"{project}/{name}" for project, name in self.views],
            "feature_groups": [one.label for one in self.groups],
        }

    def run(self, on_progress: OnProgress = no_progress) -> None:
        """Delete the objects. If the process is killed midway, the same deletion deletes the rest.

        Raises:
            GroupDeletedError: A group was deleted since.
        """
        for group in self.groups:
            self.core.catalog.lifetimes.check(group)
        for table in self.tables:
            on_progress(f"Deleting {table.label}")
            self.core.tables.delete(table)
        for one in self.sets:
            on_progress(f"Deleting {one.label}")
            self.core.training_sets.delete(one)
        for project, name in self.views:
            on_progress(f"Deleting {project}/{name}")
            self.core.registry.delete_view(project, name)
        self._tell_of_views()
        for group in sorted(self.groups, key=lambda one: one.windowed is None):  # before their sources
            on_progress(f"Deleting {group.label}")
            _delete_group(self.core, group)

    def _tell_of_views(self) -> None:
        """Give a notice of the views that read one of the groups and stay."""
        for view in self.core.views.all():
            content = view.content
            lookups = [*content.lookups, *([content.label.lookup] if content.label else [])]
            is_reader = any(lookup.is_of(group) for lookup in lookups for group in self.groups)
            if is_reader and view.retired_at is None and not content.is_plain:
                notice(
                    f"Feature view {view.label} reads what is deleted: it can be neither trained nor served from now on."
                )


def _delete_group(core: Core, record: GroupRecord) -> None:
    """Delete a group: its rows, its versions, and its online rows.

    Raises:
        GroupDeletedError: It was deleted already.
    """
    catalog = core.catalog
    offline = catalog.offline(record.project, record.name)
    with catalog.deleting():
        catalog.lifetimes.check(record)
        # First: a store that is down could serve the rows again once it is back, so nothing is deleted without it.
        core.loads.drop(record)
        catalog.lifetimes.end(record, offline, lambda load: core.loads.drop_rest(record, load))
        catalog.pushes.forget(record.stream)
        leftovers.remove(catalog)
