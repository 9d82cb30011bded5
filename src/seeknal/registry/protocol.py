"""The protocols of a registry, one for each concern.

Each call is one transaction: it sees one state of the registry, and makes all of its changes or none. A record identifies its group
by an id that no other group ever gets, so a group of the same name that was registered later is another one. For the record of a
deleted group, reads find nothing, and calls that would add to the group raise `GroupDeletedError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from seeknal.define.feature_group import FeatureGroup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.entity import Entity
from seeknal.registry.records import (
    DefinitionRecord,
    GroupRecord,
    GroupState,
    Load,
    ModelRecord,
    OnlineTableRecord,
    SnapshotRecord,
    TokenRecord,
    TrainingSetRecord,
    Version,
    ViewRecord,
)
from seeknal.values.times import Interval

if TYPE_CHECKING:
    from seeknal.offline import Commit


class Groups(Protocol):
    """The feature groups and their entities."""

    def save_group(self, group: FeatureGroup) -> GroupRecord:
        """Register a group, or update the parts that may change: ttl, online and description.

        A description or `pii_keys` that are not given stay as they are.

        Raises:
            DefinitionError: The registered group or entity has other join keys, or other time columns.
        """

    def save_windowed_group(self, group: WindowedGroup, source: GroupRecord) -> tuple[GroupRecord, int]:
        """Register a windowed group, or update its description. A new definition becomes the next version, and the current one.

        Returns:
            The group, with its current definition, and the number of the version that has the definition given.

        Raises:
            DefinitionError: The registered group has another source or entity, or is not a windowed group.
            GroupDeletedError: The source was deleted.
        """

    def definitions(self, record: GroupRecord) -> list[DefinitionRecord]:
        """Return the versions of a windowed group's definition, oldest first."""

    def choose_definition(self, record: GroupRecord, number: int) -> None:
        """Make a version of a windowed group's definition the current one.

        Raises:
            GroupDeletedError: The group was deleted.
        """

    def windowed_groups(self, source: GroupRecord) -> list[GroupRecord]:
        """Return the windowed groups over a source, ordered by project and name."""

    def group(self, project: str, name: str) -> GroupRecord | None:
        """Return a group; None if it does not exist."""

    def groups(self, project: str | None = None, name: str | None = None) -> list[GroupRecord]:
        """Return the groups, of one project or name if it is given, ordered by project and name."""

    def states(self, project: str | None, name: str, since: int | None = None) -> list[GroupState]:
        """Return the states of the groups with a name, of one project if it is given, ordered by project.

        If `since` is given, they include the writes from that snapshot on.
        """

    def entities(self, project: str | None = None) -> list[tuple[str, Entity]]:
        """Return the entities with their projects, of one project if it is given, ordered by project and name."""

    def delete_group(self, record: GroupRecord) -> list[Load]:
        """Remove a group with its versions, loads and online tables, and its entity if no other group has it.

        Returns:
            Its loads. If the group was deleted before, the call removes nothing and returns none.
        """


class Commits(Protocol):
    """The commits to the groups' offline tables, as an index of the tables' logs. The time of a call does not grow with the log."""

    def add_commits(self, record: GroupRecord, commits: Sequence[Commit]) -> GroupState:
        """Record commits, except those already known, and return the group's state after them.

        Raises:
            GroupDeletedError: The group was deleted.
        """

    def last_snapshot(self, record: GroupRecord) -> int:
        """Return the newest snapshot of a group that the registry knows; -1 if none."""

    def versions(
        self, record: GroupRecord, until: int | None = None, unrecorded: Sequence[Commit] = ()
    ) -> list[Version]:
        """Return a group's versions, oldest first.

        If `until` is given, they are as they were after that snapshot. `unrecorded` are commits that are not recorded, and count too.
        """

    def every_version(self) -> dict[int, list[Version]]:
        """Return the versions of all groups, by the ids of their records; those of a group are ordered oldest first."""

    def snapshots(self, record: GroupRecord, first: int = 0) -> list[SnapshotRecord]:
        """Return the writes to a group from the snapshot `first` on, oldest first."""

    def snapshot_at(self, record: GroupRecord, instant: int) -> int:
        """Return the newest snapshot at an instant; 0, the empty snapshot, if there was none."""

    def watermarks(self, record: GroupRecord, version: int) -> list[int]:
        """Return the newest event times of the writes to a version, without duplicates, in order of time."""

    def forget_snapshots(self, record: GroupRecord) -> None:
        """Remove the records of the writes and loads of a group whose table was replaced or removed."""


class Loads(Protocol):
    """The loads into online stores."""

    def begin_loads(self, record: GroupRecord, version: int, intervals: Sequence[tuple[str, Interval]]) -> list[int]:
        """Record the requests to load intervals, each with the name of its online store; return the ids of the records.

        Raises:
            GroupDeletedError: The group was deleted.
        """

    def end_loads(
        self,
        record: GroupRecord,
        version: int,
        intervals: Sequence[tuple[str, Interval, int | None]],
        snapshot: int,
        rows: int,
        seconds: float,
    ) -> bool:
        """Record the outcome of a load of some intervals, each with the name of its online store.

        Args:
            record: The group.
            version: The version.
            intervals: The name of a store, the interval, and the id of its request; None if earlier requests cover the interval.
            snapshot: The snapshot that was loaded.
            rows: How many rows are online.
            seconds: How long it took.

        Returns:
            False if the version was removed from one of the stores meanwhile, together with its records.
        """

    def loads(self, record: GroupRecord, version: int | None = None) -> list[Load]:
        """Return the loads of a group, of one version if it is given, oldest first."""

    def forget_loads(self, record: GroupRecord, version: int, targets: Collection[str]) -> None:
        """Remove the records of loads of a version into an online store, by all names that the store has."""


class Erasures(Protocol):
    """The erasures of entities."""

    def add_erasure(self, record: GroupRecord, entity: str, at: int) -> None:
        """Record that an entity, identified by a digest of its keys, was erased.

        Raises:
            GroupDeletedError: The group was deleted.
        """

    def erasures(self, record: GroupRecord) -> dict[str, int]:
        """Return the times at which entities were erased from a group, by the digests of their keys."""

    def last_erasures(self) -> dict[int, int]:
        """Return the time of the last erasure from each group, by the groups' ids; groups without an erasure are left out."""


class Tables(Protocol):
    """The online tables."""

    def save_table(self, table: OnlineTableRecord, known: OnlineTableRecord | None) -> bool:
        """Register an online table by compare-and-swap: only if the registered table is still the known one (None: not registered).

        Return False, and change nothing, if it is not, or if a group of the table was deleted.
        """

    def tables(self, project: str | None = None, name: str | None = None) -> list[OnlineTableRecord]:
        """Return the online tables, of one project or name if it is given, ordered by project and name."""

    def delete_table(self, project: str, name: str) -> None:
        """Remove an online table."""


class TrainingSets(Protocol):
    """The saved training sets."""

    def add_training_set(self, made: TrainingSetRecord) -> None:
        """Register a training set.

        Raises:
            DefinitionError: The project has a training set of that name.
        """

    def training_sets(self, project: str | None = None, name: str | None = None) -> list[TrainingSetRecord]:
        """Return the training sets, of one project or name if it is given, ordered by project and name."""

    def delete_training_set(self, record: TrainingSetRecord) -> None:
        """Remove a training set."""


class Views(Protocol):
    """The feature views."""

    def save_view(self, view: ViewRecord) -> ViewRecord | None:
        """Register a version of a view by compare-and-swap: only if its number follows the last one of the view.

        A version that is registered already, with the same text, only gets the description, owner and tags that are given.

        Returns:
            The version as it is registered. None, and nothing is changed, if another version has the number.
        """

    def views(self, project: str | None = None, name: str | None = None) -> list[ViewRecord]:
        """Return all versions of the views, of one project or name if it is given, ordered by project, name and number."""

    def retire_view(self, view: ViewRecord, at: int | None) -> None:
        """Mark a version of a view as retired at a time; None: as not retired."""

    def delete_view(self, project: str, name: str) -> None:
        """Remove a view with all its versions and the records of its models."""

    def add_model(self, model: ModelRecord) -> None:
        """Register a model, or replace what was registered under its name for the same version and training set."""

    def models(self, project: str, view: str) -> list[ModelRecord]:
        """Return the models of a view, in the order in which they were registered."""


class Tokens(Protocol):
    """The access tokens."""

    def add_token(self, token: TokenRecord) -> None:
        """Register a token.

        Raises:
            DefinitionError: A token of that name exists or existed.
        """

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens ever issued, revoked ones included, ordered by name."""

    def revoke_token(self, name: str, at: int) -> None:
        """Mark a token as revoked."""


class Registry(Groups, Commits, Loads, Erasures, Tables, TrainingSets, Views, Tokens, Protocol):
    """The registry of a home. Any number of threads and processes may use it at once."""

    def stamp(self) -> bytes:
        """Return a stamp that differs after each change of the registry; it takes microseconds, or one request to a server.

        Raises:
            StoreError: The registry is not there, or cannot be read.
        """

    def recent_stamp(self) -> bytes:
        """Return a stamp that differs within a second after each change of the registry. It takes microseconds.

        Changes by this process show at once. While a server with the registry cannot be reached, the stamp stays as it was.

        Raises:
            StoreError: The registry is not there, or could not be read so far.
        """
