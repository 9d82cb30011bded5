"""The feature groups of a store: writing them, pushing to them, loading them, and changing what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import DefinitionError, SeeknalError, notice, plural, unfinished
from seeknal.home.core import Core
from seeknal.names import check_features, quoted
from seeknal.registry import GroupRecord, Load, Version
from seeknal.registry.windowed import WindowedVersion
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.arguments import check_flag, check_instant, check_number, check_progress
from seeknal.values.display import shown_duration
from seeknal.values.times import Interval, Moment, instant_or_none, now, show

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.define.schema import Change, Roles
    from seeknal.load.loading import Loaded
    from seeknal.load.status import LoadStatus
    from seeknal.write.maintenance import Adopted, Erased, Optimized
    from seeknal.write.push import Pushed
    from seeknal.write.writing import Written


class Groups:
    """The feature groups of a store.

    A group is named by its name and `project`. Without `project`, it is the only group of that name; "shop/spend" names both.

    Args:
        core: What the parts of the store share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    # Finding groups and their versions

    def all(self, *, project: str | None = None, name: str | None = None) -> Sequence[GroupRecord]:
        """Return the registered groups, ordered by project and name; only those of a project or of a name, if given."""
        return self._core.catalog.groups(project, name)

    def get(self, name: str, *, project: str | None = None) -> GroupRecord:
        """Return a registered group.

        Raises:
            DefinitionError: There is no such group, or several projects have one.
        """
        return self._core.catalog.group(name, project)

    def find(self, name: str, *, project: str) -> GroupRecord | None:
        """Return the group of that name in a project, or None."""
        return self._core.registry.group(project, name)

    def windowed(self, name: str, *, project: str | None = None) -> list[GroupRecord]:
        """Return the windowed groups that are computed from a source, ordered by project and name."""
        return self._core.registry.windowed_groups(self.get(name, project=project))

    def versions(self, name: str, *, project: str | None = None) -> list[Version]:
        """Return a group's versions, oldest first."""
        return self.versions_of(self.get(name, project=project))

    def versions_of(self, record: GroupRecord) -> list[Version]:
        """Return the versions of a group that the caller has found, oldest first."""
        return self._core.catalog.versions(record)

    def version(self, name: str, number: int | None = None, *, project: str | None = None) -> Version:
        """Return one version of a group; without a number, the current one.

        Raises:
            DefinitionError: There is no such version, or nothing was written to the group yet.
        """
        return self._core.catalog.version(self.get(name, project=project), number)

    def diff(self, name: str, old: int, new: int, *, project: str | None = None) -> list[Change]:
        """Return the changes from one version of a group to another."""
        from seeknal.define.schema import difference

        catalog, record = self._core.catalog, self.get(name, project=project)
        before, after = catalog.version(record, old), catalog.version(record, new)
        if isinstance(before, WindowedVersion) and isinstance(after, WindowedVersion):
            return before.difference(after)
        return difference(before.schema, after.schema)

    def watermarks(self, name: str, *, project: str | None = None) -> list[int]:
        """Return the newest event time of each write to a group's current version, in microseconds since 1970, without repeats."""
        catalog, record = self._core.catalog, self._stored(name, project)
        current = [version.number for version in catalog.versions(record) if version.is_current]
        noted = self._core.registry.watermarks(record, current[0]) if current else []
        # Commits that the registry could not note, because the disk is full for example, count as well.
        unrecorded = [one.newest for one in catalog.catch_up(record) if one.version in current]
        return sorted({*noted, *(newest for newest in unrecorded if newest is not None)})

    def online_watermarks(self, name: str, *, project: str | None = None) -> list[int]:
        """Return the newest event time of a group's current version in each online store, in microseconds, without repeats."""
        with self._served(name, project) as record:
            current = [version.number for version in self.versions_of(record) if version.is_current]
            return self._core.loads.watermarks(record, current[0], now()) if current else []

    def counts(self, name: str, number: int, *, project: str | None = None) -> tuple[int, dict[str, int]]:
        """Return the number of rows of a version, and the number of nulls in each of its columns."""
        with self._using(name, project) as record:
            version, snapshot = self._core.catalog.read(record, number)
            rows, *nulls = self._core.engine().count(snapshot.within(version.schema), version.schema.names)
        return rows, dict(zip(version.schema.names, nulls, strict=True))

    def sample(self, name: str, *, project: str | None = None, limit: int, version: int | None = None) -> pa.Table:
        """Return the rows written last to a version of a group, the very last first."""
        most = check_number("limit", limit, 5)
        with self._using(name, project) as record:
            found, snapshot = self._core.catalog.read(record, version)
            return self._core.engine().sample(snapshot.within(found.schema), most).select(found.schema.names)

    @contextmanager
    def _using(self, name: str, project: str | None) -> Iterator[GroupRecord]:
        """Find a group with stored rows for a call. If it is deleted during the call, the error of the call says so.

        Raises:
            DefinitionError: There is no such group, or it is a windowed group.
        """
        record = self._stored(name, project)
        with self._core.catalog.lifetimes.using(record):
            yield record

    @contextmanager
    def _served(self, name: str, project: str | None) -> Iterator[GroupRecord]:
        """Find a group that can be online for a call; see `_using`.

        Raises:
            DefinitionError: There is no such group, or it is an event source.
        """
        record = self.get(name, project=project)
        if record.event_id is not None:
            users = [one.label for one in self._core.registry.windowed_groups(record)]
            raise DefinitionError(
                f"{record.label} is an event source, which is not online by itself. "
                + (
                    f"Name a group that is computed from it: {quoted(users)}."
                    if users
                    else "Define a WindowedGroup over it."
                )
            )
        with self._core.catalog.lifetimes.using(record):
            yield record

    def _stored(self, name: str, project: str | None) -> GroupRecord:
        record = self.get(name, project=project)
        if record.windowed:
            raise DefinitionError(
                f"{record.label} is computed from {record.windowed.origin} and has no rows of its own. Name {record.windowed.origin!r}."
            )
        return record

    # Writing

    def register(self, group: FeatureGroup | WindowedGroup) -> GroupRecord:
        """Register a group, or return the registered one with its description, ttl and `online` updated.

        A new definition of a windowed group becomes its next version.

        Raises:
            DefinitionError: The group is registered with another entity, source or other time columns; or the definition of a windowed
                group does not fit its source.
        """
        if isinstance(group, WindowedGroup):
            return self._core.catalog.definitions.register(group)[0]
        known = self.find(FeatureGroup.check(group).name, project=group.project)
        record = self._core.catalog.register(group, known)
        with _offline(record, f"The new ttl of {record.label} is registered"):
            self._core.loads.follow_ttl(known, record)
        return record

    def write(
        self,
        group: FeatureGroup,
        frame: object,
        *,
        features: Sequence[str] | None = None,
        declared: Mapping[str, pa.DataType] | None = None,
        interval: Interval = Interval(),
        mode: str = "overwrite",
        drop_nulls: bool = False,
    ) -> Written:
        """Write rows to a group as one snapshot, all or none, and load them if the group is online.

        An append that was stored but failed to load can be retried: the rows are not stored again.

        Args:
            group: The group. It is registered if it is new.
            frame: The rows.
            features: The feature columns. Default: all columns without another role.
            declared: Types of features, in place of the frame's own.
            interval: Rows outside it are not written; `overwrite` replaces the stored rows inside it.
            mode: "overwrite", "append" or "merge" (on keys and event time).
            drop_nulls: Leave out rows without an event time instead of refusing them.

        Raises:
            DefinitionError: The group has no event time, the mode is unknown, or an argument has the wrong type.
            DataError: The frame does not fit; nothing was stored.
            StoreError: Other writers committed first on every attempt, or the disk failed. Or the rows are stored but not
                online, as the message says; then the error has the attributes `snapshot` and `rows`.
        """
        from seeknal.values import frames
        from seeknal.write import writing

        roles = _roles(FeatureGroup.check(group), features, declared)
        leave_out, given = check_flag("drop_nulls", drop_nulls), frames.opened(frame)
        given.require(roles.named, f"The frame for group {group.name!r}")
        catalog, loads = self._core.catalog, self._core.loads
        known = catalog.known_state(group)
        # Rows that meet stored ones are compared with them here.
        is_alone = mode in {"append", "overwrite"} and not (isinstance(group, EventGroup) and group.event_id)
        by_executors = is_alone and self._core.settings.engine == "spark"
        online, done = group.materialization.online, None
        with closing(writing.given_rows(known, given, roles, by_executors=by_executors)) as rows:
            job = writing.Job(group, rows, roles, mode, Interval.check(interval), leave_out)
            # Only if stored rows are not online can this be the retry of an append that was stored but failed to load.
            if mode == "append" and online and known and known.versions and loads.is_behind(known):
                done = writing.already_stored(catalog, self._core.engine(), known, job)
            written, state = done or writing.write(catalog, job, self._core.settings.lookback_days, known)
        record = state.record
        told = f"What was written to {record.label} is stored offline, as snapshot {written.snapshot}"
        with catalog.lifetimes.using(record), _offline(record, told, snapshot=written.snapshot, rows=written.rows):
            loads.follow_ttl(known.record if known else None, record)
            if written.changes:
                loads.tell_of_cut_off(record)
                self._tell_of_windows(record)
            return replace(written, online_rows=loads.follow(state).online) if online else written

    def _tell_of_windows(self, record: GroupRecord) -> None:
        """Issue a notice for each windowed group that can no longer be computed from a source."""
        for one in self._core.registry.windowed_groups(record):
            try:
                _ = self._core.catalog.version(one).schema
            except SeeknalError as error:
                notice(
                    f"{one.label} can no longer be computed: {error} Write the column again, or change the definition."
                )

    def fields_to_push(self, name: str, *, project: str | None = None) -> list[pa.Field]:
        """Return the join keys and features that a pushed row must have, beside its times, with their types."""
        schema = self._core.pushing.schema(self._core.pushing.found(name, project, lambda: self._stored(name, project)))
        return [*schema.keys, *schema.features]

    def push(self, name: str, rows: object, *, project: str | None = None) -> Pushed:
        """Store rows of a group's current version and load them, in one idempotent call.

        A row that is stored already, with equal values, changes nothing. An older event never hides a newer one. Rows with an
        event time at or before the erasure of their entity are left out.

        Args:
            name: The group.
            rows: A mapping from column to value, a list of them, or a frame, with all columns of the version.
            project: The group's project.

        Raises:
            DefinitionError: There is no such group, or nothing was written to it yet.
            DataError: The rows do not fit the version; nothing was stored.
            StoreError: The rows could not be stored, or are stored but not online, as the message says. Push them again.
        """
        from seeknal.write import push

        record = self._core.pushing.found(name, project, lambda: self._stored(name, project))
        with self._core.catalog.lifetimes.using(record):
            given = push.opened(self._core.catalog, record, rows)
            if logged := self._core.pushing.push(record, given):
                return logged
            pushed, state = push.push(self._core.catalog, record, given)
            if pushed.first is None:
                return pushed
            with unfinished(
                f"What was pushed to {record.label} is stored offline, in snapshot {pushed.snapshot}, but not online",
                "Push it again, which stores nothing twice, or load the group",
            ):
                self._core.loads.reload_windows(state.windowed)
                if record.event_id is None:  # events are online in windowed groups only
                    loaded = self._core.loads.follow(state, Interval(pushed.first, None), pushed.version)
                    pushed = replace(pushed, online=loaded.online)
            self._core.pushing.committed(record)
            return pushed

    def push_together(
        self, name: str, every: Sequence[Sequence[Mapping[str, Any]]], *, project: str | None = None
    ) -> list[Pushed] | None:
        """Push the rows of several callers to the push log in one step, and return the result for each.

        Args:
            name: The group.
            every: The rows of each caller, as mappings.
            project: The group's project.

        Returns:
            The results; None if the rows have to be pushed one by one, since some may be known. Nothing was stored then.

        Raises:
            DefinitionError: There is no such group, or nothing was written to it yet.
            DataError: Rows do not fit the version; nothing was stored.
            StoreError: The rows could not be stored.
        """
        from seeknal.write import push

        record = self._core.pushing.found(name, project, lambda: self._stored(name, project))
        with self._core.catalog.lifetimes.using(record):
            push.opened(self._core.catalog, record, every[0])  # refuses events without an id
            return self._core.pushing.push_together(record, every)

    def resume_pushes(self) -> None:
        """Commit and load, in the background, what ended processes have left in the push log.

        Raises:
            StoreError: The log cannot be read.
        """
        if self._core.catalog.pushes.exists:
            self._core.pushing.resume(self.all())

    # Loading

    def load(
        self,
        name: str,
        *,
        project: str | None = None,
        interval: Interval = Interval(),
        version: int | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Loaded:
        """Load the newest row of each entity of a version into the online store; see `Loads.load`."""
        asked, moment = Interval.check(interval), instant_or_none(at)
        check_progress(on_progress)
        with self._served(name, project) as record:
            if record.windowed and asked != Interval():
                raise DefinitionError(
                    f"{record.label} is computed from all events that its windows reach, so an interval of them would give other "
                    "values than a training set. Load it without one."
                )
            return self._core.loads.load(record, asked, version, at=moment, on_progress=on_progress)

    def loads(self, name: str, *, project: str | None = None) -> list[Load]:
        """Return the loads of a group, oldest first."""
        return self._core.registry.loads(self.get(name, project=project))

    def load_statuses(self, name: str, *, project: str | None = None) -> list[LoadStatus]:
        """Return for each version of a group how much of it is loaded, in each online store."""
        with self._core.catalog.lifetimes.using(record := self.get(name, project=project)):
            return self._core.loads.statuses(record)

    # Changing what is stored

    def clean(self, name: str, before: Moment | int, *, project: str | None = None, dry_run: bool = False) -> int:
        """Remove the rows of a group's current version that are older than a moment.

        Earlier snapshots keep their rows, and so do other versions.

        Args:
            name: The group.
            before: The moment, exclusive; a date is its midnight in UTC. A number is in microseconds since 1970, not in seconds.
            project: The group's project.
            dry_run: Only count the rows.

        Returns:
            The number of rows that were removed, or that a dry run would remove.

        Raises:
            DefinitionError: There is no such group, or an argument has the wrong type.
            StoreError: No row was removed, or the rows were removed offline but not online, as the message says.
        """
        from seeknal.write import maintenance

        core, limit, dry_run = self._core, check_instant("before", before), check_flag("dry_run", dry_run)
        with self._using(name, project) as record:
            if not dry_run:
                with unfinished(f"No row of {record.label} was removed", "Clean it again"):
                    core.loads.require(record)
            version, count = maintenance.clean(core.catalog, core.engine(), record, limit, dry_run=dry_run)
            if not dry_run:  # even without removed rows: those of an earlier call that failed here may still be online
                with unfinished(
                    f"{plural(count)} of {record.label} went offline, but not all online", "Clean it again"
                ):
                    windowed = core.registry.windowed_groups(record)
                    core.loads.reload(record, version.number)
                    core.loads.reload_windows(windowed)
                    _tell_of_reach(record, windowed, limit)
        return count

    def rollback(self, name: str, number: int, *, project: str | None = None) -> Version:
        """Make a version of a group current again, and load it if the group is online. Later versions and snapshots stay.

        Raises:
            DefinitionError: There is no such version, or it is the current one.
        """
        from seeknal.write import maintenance

        catalog, number = self._core.catalog, check_number("number", number, 1)
        if (found := self.get(name, project=project)).windowed:
            return maintenance.rollback_definition(catalog, found, number)
        with self._using(name, project) as record:
            version = maintenance.rollback(catalog, record, number)
            with _offline(record, f"Version {number} of {record.label} is the current one again"):
                self._core.loads.tell_of_cut_off(record)
                self._tell_of_windows(record)
                self._core.loads.reload_windows(self._core.registry.windowed_groups(record))
                if record.group.materialization.online:
                    self._core.loads.follow(catalog.state_of(record))
        return version

    def optimize(self, name: str, *, project: str | None = None, keep_days: int = 30) -> Optimized:
        """Compact a group's small files, and delete the files that are no longer needed.

        The last snapshot of each version, the snapshots of training sets, and those of the last `keep_days` days stay.

        Args:
            name: The group.
            project: The group's project.
            keep_days: The number of past days that `as_of` can still reach.

        Raises:
            DefinitionError: There is no such group, or `keep_days` is not a whole number of at least 0.
        """
        from seeknal.write import maintenance

        core, keep_days = self._core, check_number("keep_days", keep_days, 30, at_least=0)
        with self._using(name, project) as record:
            return maintenance.optimize(core.catalog, record, lambda: core.training_sets.snapshots(record), keep_days)

    def adopt(self, name: str, *, project: str | None = None) -> Adopted:
        """Adopt the rows that another program wrote to a group's table; see `seeknal.write.maintenance.adopt`."""
        from seeknal.write import maintenance

        record = self._core.catalog.gate.closed(lambda: self._stored(name, project))
        with self._core.catalog.lifetimes.using(record):
            adopted = maintenance.adopt(self._core.catalog, record, self._core.settings.lookback_days)
            self._core.loads.reload_windows(self._core.registry.windowed_groups(record))
            if not record.group.materialization.online:
                return adopted
            told = f"{plural(adopted.rows)} of {record.label} are adopted, as snapshot {adopted.snapshot}"
            with _offline(record, told):
                return replace(adopted, online_rows=self._core.loads.load(record).online)

    def erase(
        self, name: str, keys: Mapping[str, Any], *, project: str | None = None, delete_training_sets: bool = False
    ) -> Erased:
        """Erase an entity from all versions, older snapshots and online rows of a group; see `Entities.erase`."""
        from seeknal.home import removal

        record = removal.group_of_entity(self._core, self.get(name, project=project), keys)
        with self._core.catalog.lifetimes.using(self._core.catalog.origin(record)):
            return removal.erase(self._core, [record], keys, delete_training_sets).groups[0]

    def delete(self, name: str, *, project: str | None = None) -> None:
        """Delete a group: its rows, its versions, and its online rows.

        Raises:
            DefinitionError: There is no such group, or an online table or a training set needs it.
        """
        from seeknal.home import removal

        removal.Deletion(self._core, [self.get(name, project=project)]).run()


def _tell_of_reach(source: GroupRecord, groups: Sequence[GroupRecord], limit: int) -> None:
    """Issue a notice for each windowed group whose windows, as of now, begin before the events that are left."""
    for one in groups:
        reach = one.windowed.reach if one.windowed else None
        if reach is None or now() - reach < limit:
            needed = "all events" if reach is None else f"the events of {shown_duration(timedelta(microseconds=reach))}"
            notice(f"{one.label} is computed from {needed}, and {source.label} has those since {show(limit)} only.")


def _roles(group: FeatureGroup, features: Sequence[str] | None, declared: Mapping[str, pa.DataType] | None) -> Roles:
    """Return the roles of the columns of a frame that is to be written to a group."""
    from seeknal.define.schema import Roles
    from seeknal.values import types

    dated = group.materialization
    kinds = None if declared is None else types.parse_each("declared", declared)
    return Roles(group.name, group.keys, group.event_time_col, dated.created_time_col, check_features(features), kinds)


def _offline(record: GroupRecord, done: str, **facts: object) -> AbstractContextManager[None]:
    """Return a context in which an error of the online store also says what was done offline, and how to load it."""
    return unfinished(
        f"{done}, but not all is online", f"Do not repeat it: run seeknal materialize {record.label}", **facts
    )
