"""The feature store: the one object with all operations. The other interfaces only call its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.define.feature_group import FeatureGroup, FeatureLookup
from seeknal.errors import plural, unfinished
from seeknal.home import reading
from seeknal.home.home import Home
from seeknal.join.inquiry import HISTORY, SPINE, Inquiry
from seeknal.names import check_features, check_names
from seeknal.registry import GroupRecord, Load, Question, TrainingSetRecord, Version
from seeknal.registry.catalog import AsOf
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import Interval, Moment, instant
from seeknal.write import leftovers

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.home.removal import ErasedEntity
    from seeknal.join.explanation import Candidate
    from seeknal.join.leaks import Findings
    from seeknal.load.loading import Loaded
    from seeknal.registry.source import Source
    from seeknal.serve.online_tables import LoadStatus, Refreshed
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Verified
    from seeknal.write.maintenance import Adopted, Erased, Optimized
    from seeknal.write.push import Pushed
    from seeknal.write.writing import Written


class FeatureStore(Home):
    """A feature store in a folder.

    Args:
        home: The folder. Default: SEEKNAL_HOME, else `.seeknal` beside the nearest seeknal.toml, else ~/.seeknal.
        memory_limit: Maximum memory of a query, such as "4GB".
        online_store: Where online rows are stored: a folder, or the URL of Redis. Default: `online` in the home.
        lookback_days: How many days before the bulk of its rows a write's interval may start without a warning.
    """

    def get_or_create(self, group: FeatureGroup) -> GroupRecord:
        """Register a group, or return the registered one with its description, ttl and `online` updated.

        Raises:
            DefinitionError: The group is registered with another entity or other time columns.
        """
        known = self.registry.group(group.project, group.name)
        record = self.catalog.register(group, known)
        with _offline(record, f"The new ttl of {record.label} is registered"):
            self.online_tables.follow_ttl(known, record)
        return record

    def counts(self, name: str, number: int, project: str | None = None) -> tuple[int, dict[str, int]]:
        """Return the number of rows of a version, and the number of nulls in each of its columns."""
        version, snapshot = self.catalog.read(self.catalog.group(name, project), number)
        rows, *nulls = self.engine.count(snapshot.within(version.schema), version.schema.names)
        return rows, dict(zip(version.schema.names, nulls, strict=True))

    def sample(self, name: str, project: str | None = None, *, limit: int, version: int | None = None) -> pa.Table:
        """Return the rows written last to a version of a group, the very last first."""
        found, snapshot = self.catalog.read(self.catalog.group(name, project), version)
        return self.engine.sample(snapshot.within(found.schema), limit).select(found.schema.names)

    def delete_group(self, name: str, project: str | None = None) -> None:
        """Delete a group: its rows, its versions, and its online rows.

        Raises:
            DefinitionError: There is no such group, or an online table or a training set needs it.
        """
        from seeknal.home import removal

        removal.delete_group(self.places, self.catalog.group(name, project))

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
            DefinitionError: The group has no event time, or the mode is unknown.
            DataError: The frame does not fit; nothing was stored.
            StoreError: Other writers committed first on every attempt, or the disk failed. Or the rows are stored but not
                online, as the message says; then the error has the attributes `snapshot` and `rows`.
        """
        from seeknal.define.schema import Roles
        from seeknal.values import frames, types
        from seeknal.write import writing

        roles = Roles(
            group.name,
            group.entity.join_keys,
            group.event_time_col,
            group.materialization.created_time_col,
            check_features(features),
            None if declared is None else types.parse_each("declared", declared),
        )
        given = frames.opened(frame)
        given.require(roles.named, f"The frame for group {group.name!r}")
        known = self.catalog.known_state(group)
        rows = writing.rows_of(known, given, roles.features and roles.named, roles.declared)
        job = writing.Job(group, rows, roles, mode, interval, drop_nulls)
        online, done = group.materialization.online, None
        # Only if stored rows are not online can this be the retry of an append that was stored but failed to load.
        if mode == "append" and online and known and known.versions and self.online_tables.is_behind(known):
            done = writing.already_stored(self.catalog, self.engine, known, job)
        written, state = done or writing.write(self.catalog, job, self.settings.lookback_days, known)
        record = state.record
        told = f"What was written to {record.label} is stored offline, as snapshot {written.snapshot}"
        with _offline(record, told, snapshot=written.snapshot, rows=written.rows):
            self.online_tables.follow_ttl(known.record if known else None, record)
            if written.changes:
                self.online_tables.tell_of_cut_off(record)
            return replace(written, online_rows=self.online_tables.follow(state).online) if online else written

    def push(self, name: str, rows: object, project: str | None = None) -> Pushed:
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

        record = self.catalog.group(name, project)
        pushed, state = push.push(self.catalog, record, rows)
        if pushed.first is None:
            return pushed
        with unfinished(
            f"What was pushed to {record.label} is stored offline, in snapshot {pushed.snapshot}, but not online",
            "Push it again, which stores nothing twice, or load the group",
        ):
            loaded = self.online_tables.follow(state, Interval(pushed.first, None), pushed.version)
        return replace(pushed, online=loaded.online)

    def clean(self, name: str, before: int, project: str | None = None, *, dry_run: bool = False) -> int:
        """Remove the rows of a group's current version that are older than an instant.

        Earlier snapshots keep their rows, and so do other versions.

        Returns:
            The number of rows that were removed, or that a dry run would remove.

        Raises:
            StoreError: No row was removed, or the rows were removed offline but not online, as the message says.
        """
        from seeknal.write import maintenance

        record = self.catalog.group(name, project)
        if not dry_run:
            with unfinished(f"No row of {record.label} was removed", "Clean it again"):
                self.online_tables.require(record)
        version, count = maintenance.clean(self.catalog, self.engine, record, before, dry_run=dry_run)
        if not dry_run:  # even without removed rows: those of an earlier call that failed here may still be online
            with unfinished(f"{plural(count)} of {record.label} went offline, but not all online", "Clean it again"):
                self.online_tables.reload(record, version.number)
        return count

    def rollback(self, name: str, number: int, project: str | None = None) -> Version:
        """Make a version of a group current again, and load it if the group is online. Later versions and snapshots stay.

        Raises:
            DefinitionError: There is no such version, or it is the current one.
        """
        from seeknal.write import maintenance

        record = self.catalog.group(name, project)
        version = maintenance.rollback(self.catalog, record, number)
        with _offline(record, f"Version {number} of {record.label} is the current one again"):
            self.online_tables.tell_of_cut_off(record)
            if record.group.materialization.online:
                self.online_tables.follow(self.catalog.state(record.name, record.project))
        return version

    def optimize(self, name: str, project: str | None = None, *, keep_days: int = 30) -> Optimized:
        """Compact a group's small files, and delete the files that are no longer needed.

        The last snapshot of each version, the snapshots of training sets, and those of the last `keep_days` days stay.

        Args:
            name: The group.
            project: The group's project.
            keep_days: The number of past days that `as_of` can still reach.
        """
        from seeknal.write import maintenance

        record = self.catalog.group(name, project)
        return maintenance.optimize(self.catalog, record, lambda: self.training_sets.snapshots(record), keep_days)

    def adopt(self, name: str, project: str | None = None) -> Adopted:
        """Adopt the rows that another program wrote to a group's table; see `seeknal.write.maintenance.adopt`."""
        from seeknal.write import maintenance

        record = self.catalog.group(name, project)
        adopted = maintenance.adopt(self.catalog, record, self.settings.lookback_days)
        if not record.group.materialization.online:
            return adopted
        with _offline(record, f"{plural(adopted.rows)} of {record.label} are adopted, as snapshot {adopted.snapshot}"):
            return replace(adopted, online_rows=self.load(name, project).online)

    def erase(
        self, name: str, keys: Mapping[str, Any], project: str | None = None, *, delete_training_sets: bool = False
    ) -> Erased:
        """Erase an entity from all versions, older snapshots and online rows of a group; see `erase_entity`."""
        from seeknal.home import removal

        return removal.erase(self.places, [self.catalog.group(name, project)], keys, delete_training_sets).groups[0]

    def erase_entity(
        self, name: str, keys: Mapping[str, Any], project: str | None = None, *, delete_training_sets: bool = False
    ) -> ErasedEntity:
        """Erase an entity from all groups that are keyed by it, as `erase` does from one.

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

        return removal.erase(self.places, removal.groups_of(self.catalog, name, project), keys, delete_training_sets)

    def sources(self, lookups: Sequence[FeatureLookup], as_of: AsOf | None = None) -> list[Source]:
        """Return the sources of lookups, as of now or as stored at a moment.

        Raises:
            DefinitionError: `lookups` is no list of lookups, or a group, feature, version or snapshot does not exist.
        """
        return reading.sources(self, Inquiry(lookups, as_of=as_of))

    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return the rows of a spine with the features that were known at each row's moment; see `seeknal.join.retrieval`.

        Args:
            lookups: The features.
            spine: A frame with the join keys and a moment in each row.
            date_col: The column with the moments.
            keep: Columns to keep besides keys and moment. None: all.
            interval: Only rows with an event time inside it are visible.
            as_of: Only rows stored by then are visible: a moment, a snapshot's number, or a mapping from group to number.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind, which is pandas for a path.

        Returns:
            A frame with the spine's rows and columns, then the features.
        """
        return reading.frame(
            self, Inquiry(lookups, SPINE, spine, date_col, keep, interval=interval, as_of=as_of), output
        )

    def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        on_progress: OnProgress = no_progress,
    ) -> pa.RecordBatchReader:
        """Return a training set in batches, so that neither the spine nor the groups need to fit in memory.

        The arguments are those of `training_set`; `on_progress` is called with each step.
        """
        return reading.batches(
            self, Inquiry(lookups, SPINE, spine, date_col, keep, interval=interval, as_of=as_of), on_progress
        )

    def history(
        self,
        lookups: Sequence[FeatureLookup],
        *,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return one row per entity and event time at which any looked-up group changed."""
        return reading.frame(self, Inquiry(lookups, HISTORY, interval=interval, as_of=as_of), output)

    def latest(
        self,
        lookups: Sequence[FeatureLookup],
        *,
        interval: Interval = Interval(),
        at: Moment | None = None,
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return one row per entity, as known at a moment. Default: now."""
        return reading.frame(self, Inquiry(lookups, interval=interval, as_of=as_of).of_latest(at), output)

    def save_training_set(
        self,
        name: str,
        lookups: Sequence[FeatureLookup],
        question: Question,
        spine: object = None,
        *,
        as_of: AsOf | None = None,
        keep_rows: bool = False,
    ) -> TrainingSetRecord:
        """Build a training set and save what is needed to rebuild it; see `seeknal.join.training_sets`."""
        asked = Inquiry(
            lookups, question.kind, spine, question.date_col, question.keep, question.moment, question.span, as_of
        )
        return reading.save(self, name, asked, keep_rows=keep_rows)

    def delete_training_set(self, record: TrainingSetRecord) -> None:
        """Delete a training set, its spine and its rows."""
        with self.catalog.deleting():
            self.training_sets.delete(record)
            leftovers.remove(self.catalog)

    def explain(
        self,
        lookups: Sequence[FeatureLookup],
        keys: Mapping[str, Any],
        moment: Moment,
        *,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        limit: int | None = None,
    ) -> list[Candidate]:
        """Explain for one entity and moment which row of each group wins, and why the others do not.

        Args:
            lookups: The features.
            keys: The join keys, by their names in the spine.
            moment: The moment to look from.
            interval: Only rows with an event time inside it are visible.
            as_of: Only rows stored by then are visible.
            limit: Maximum number of rows of each group. None: all.

        Returns:
            The rows of the entity, group by group: the winner first, then the others by distance from the moment.
        """
        return reading.explain(self, Inquiry(lookups, interval=interval, as_of=as_of), keys, moment, limit)

    def check(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object = None,
        date_col: str = "",
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
    ) -> Findings:
        """Look for leaks that a correct join cannot prevent; see `seeknal.join.leaks`."""
        kind = HISTORY if spine is None else SPINE
        return reading.check(self, Inquiry(lookups, kind, spine, date_col, keep, interval=interval, as_of=as_of))

    def load(
        self,
        name: str,
        project: str | None = None,
        *,
        interval: Interval = Interval(),
        version: int | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Loaded:
        """Load the newest row of each entity of a version into the online store; see `OnlineTables.load`."""
        record, moment = self.catalog.group(name, project), None if at is None else instant(at)
        return self.online_tables.load(record, interval, version, at=moment, on_progress=on_progress)

    def refresh(
        self,
        names: Sequence[str] | None = None,
        project: str | None = None,
        *,
        full: bool = False,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> list[Refreshed]:
        """Load what changed in the groups of online tables; see `OnlineTables.refresh`.

        Args:
            names: The tables. None: all tables, of the project if one is given.
            project: Their project.
            full: Rewrite all rows of all time, whatever is online, so that `verify` finds no difference.
            at: The time that counts as now. None: the clock.
            on_progress: Called with each step.
            take_over: Take ownership of rows that another home loaded into an online store that both homes use.
        """
        moment = None if at is None else instant(at)
        if names is None:
            tables = self.registry.tables(project)
        else:
            tables = [self.catalog.online_table(name, project) for name in check_names("names", names)]
        return self.online_tables.refresh(tables, full=full, at=moment, on_progress=on_progress, take_over=take_over)

    def serve(
        self,
        lookups: Sequence[FeatureLookup],
        name: str | None = None,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> ServedTable:
        """Create an online table of the looked-up features, and load it; see `OnlineTables.serve`."""
        return self.online_tables.serve(
            self.sources(lookups), name, target=target, ttl=ttl, on_progress=on_progress, take_over=take_over
        )

    def online_table(self, name: str, project: str | None = None) -> ServedTable:
        """Open an online table."""
        return self.online_tables.served(self.catalog.online_table(name, project))

    def verify(
        self,
        name: str,
        project: str | None = None,
        *,
        sample: int | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Verified:
        """Compare the rows of an online table with the offline join as of now; see `seeknal.serve.verification`."""
        moment = None if at is None else instant(at)
        return self.online_tables.verify(self.catalog.online_table(name, project), moment, sample, on_progress)

    def delete_table(self, name: str, project: str | None = None) -> None:
        """Delete an online table, and the rows that no other table uses."""
        with self.catalog.deleting():
            self.online_tables.delete(self.catalog.online_table(name, project))

    def ledger(self, name: str, project: str | None = None) -> list[LoadStatus]:
        """Return for each version of a group how much of it is loaded, in each online store."""
        return self.online_tables.ledger(self.catalog.group(name, project))

    def loads(self, name: str, project: str | None = None) -> list[Load]:
        """Return the loads of a group, oldest first."""
        return self.registry.loads(self.catalog.group(name, project))


def _offline(record: GroupRecord, done: str, **facts: object) -> AbstractContextManager[None]:
    """Return a context in which an error of the online store also says what was done offline, and how to load it."""
    return unfinished(
        f"{done}, but not all is online", f"Do not repeat it: run seeknal materialize {record.label}", **facts
    )
