"""Feature groups in a notebook: a definition plus the frame at hand; each verb is one call on the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.entity import Entity
from seeknal.errors import DataError, DefinitionError, notice
from seeknal.feature_group import FeatureGroup, FeatureLookup, Materialization, check_lookups
from seeknal.featurestore import current_store
from seeknal.featurestore.training_set import TrainingSet
from seeknal.names import check_name
from seeknal.times import Interval, Moment, instant, moment_of, now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from seeknal.catalog import AsOf
    from seeknal.pushing import Pushed
    from seeknal.registry import Question
    from seeknal.serving import OnlineTable
    from seeknal.streaming import Tell
    from seeknal.verification import Verified
    from seeknal.writing import Written

__all__ = [
    "FeatureGroupDuckDB",
    "FeatureLookup",
    "HistoricalFeaturesDuckDB",
    "Materialization",
    "OnlineFeaturesDuckDB",
    "TrainingSet",
]


class FeatureGroupDuckDB:
    """Features of one entity that are written together.

    Args:
        name: Name of the group, unique in its project.
        entity: What the features describe. With `get_or_create()` it may be left out for a group that exists.
        materialization: How rows are dated and kept; may be left out likewise.
        project: Name of the project.
        description: A sentence for people.
        features: The columns that are features: their names, or their types by name
            (`{"x": "int64"}`), or a `pyarrow.Schema`.

    Raises:
        DefinitionError: A name breaks the rule, or a type is unknown.
    """

    def __init__(
        self,
        name: str,
        entity: Entity | None = None,
        materialization: Materialization | None = None,
        project: str = "default",
        description: str | None = None,
        features: Sequence[str] | Mapping[str, str] | pa.Schema | None = None,
    ) -> None:
        self.name = check_name("feature group", name)
        self.project = check_name("project", project)
        self.entity = entity
        self.materialization = materialization
        self.description = description
        self._frame: object = None
        if entity is not None:
            _ = self.definition
        self._features: list[str] | None = None
        self._declared: dict[str, pa.DataType] = {}
        if features is not None:
            self.set_features(features)

    def __repr__(self) -> str:
        keys = ", ".join(self.entity.join_keys) if self.entity else "?"
        return f"FeatureGroupDuckDB({self.project}/{self.name}, keys: {keys}, version: {self.version or 'none yet'})"

    @property
    def definition(self) -> FeatureGroup:
        """The group without its frame.

        Raises:
            DefinitionError: The entity is missing.
        """
        if self.entity is None:
            raise DefinitionError(
                f"Feature group {self.name!r} has no entity. Pass entity=Entity(...), or call get_or_create() "
                "to take what is registered."
            )
        return FeatureGroup(
            self.name, self.entity, self.materialization or Materialization(), self.project, self.description
        )

    def set_dataframe(self, frame: object) -> FeatureGroupDuckDB:
        """Take a frame to be written: pandas, Polars, PyArrow, a DuckDB relation, or a path to Parquet or CSV.

        Raises:
            DataError: It is no frame.
        """
        from seeknal.frames import kind_of

        kind_of(frame)
        self._frame = frame
        return self

    def set_features(self, names: Sequence[str] | Mapping[str, str] | pa.Schema | None = None) -> FeatureGroupDuckDB:
        """Say which columns are features.

        Args:
            names: Their names, or their types by name, or a `pyarrow.Schema`. None: all columns of the
                frame but keys, event time and created time.
        """
        if isinstance(names, str):
            raise DefinitionError(f"features={names!r} is no list. Write features=[{names!r}].")
        self._features, self._declared = None if names is None else list(names), {}
        if names is None or isinstance(names, Sequence):
            return self
        from seeknal.types import parse

        pairs = names.items() if isinstance(names, Mapping) else [(field.name, field.type) for field in names]
        self._declared = {name: parse(kind) for name, kind in pairs}
        self._features = list(self._declared)
        return self

    def write(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        mode: str = "overwrite",
        *,
        drop_nulls: bool = False,
    ) -> Written:
        """Write the frame to the offline table, as one snapshot, all or none; then load it if the group is online.

        Args:
            feature_start_time: First event time to write, inclusive. None: no bound.
            feature_end_time: Last event time to write, inclusive; a date covers its whole day. None: no bound.
            mode: "overwrite" replaces what is stored in that interval (all, if it has no bounds), "append"
                adds, "merge" replaces rows of equal keys and event time.
            drop_nulls: Leave out rows without an event time instead of refusing them.

        Raises:
            DefinitionError: No frame was set, there is no event time column, or the mode is unknown.
            DataError: The frame does not fit; nothing was stored.
            StoreError: The machine is in the way; nothing was stored.
        """
        if self._frame is None:
            raise DefinitionError(
                f"Feature group {self.name!r} has no frame. Call set_dataframe(frame) before write()."
            )
        return current_store().write(
            self.definition,
            self._frame,
            features=self._features,
            declared=self._declared,
            interval=Interval.between(feature_start_time, feature_end_time),
            mode=mode,
            drop_nulls=drop_nulls,
        )

    def push(self, rows: object) -> Pushed:
        """Store rows of the current version and bring them online, in one call; see `FeatureStore.push`.

        Args:
            rows: A mapping from column to value, a list of them, or a frame, with all columns of the version.

        Raises:
            DefinitionError: There is no such group, or nothing was written to it yet.
            DataError: The rows do not fit the version; nothing was stored.
        """
        return current_store().push(self.name, rows, self.project)

    def get_or_create(self) -> FeatureGroupDuckDB:
        """Register the group, or take what the registry knows for what was left out here.

        Raises:
            DefinitionError: The group exists with another entity or other time columns, or does not
                exist and the entity is missing.
        """
        found = current_store().registry.group(self.project, self.name)
        if found is None and self.entity is None:
            try:
                current_store().catalog.group(self.name, self.project)
            except DefinitionError as error:
                raise DefinitionError(f"{error} To make it, pass entity=Entity(...).") from None
        if found:
            self.entity = self.entity or found.group.entity
            self.materialization = self.materialization or found.group.materialization
            self.description = self.description or found.group.description
        current_store().get_or_create(self.definition)
        return self

    def rollback(self, to: int) -> None:
        """Make an earlier version current again, as it stands since its last write. Nothing is deleted.

        Raises:
            DefinitionError: There is no such version, or it is the current one.
        """
        current_store().rollback(self.name, to, self.project)

    def delete(self) -> None:
        """Remove the group: its rows, its versions, and what of it is online."""
        current_store().delete_group(self.name, self.project)

    @property
    def version(self) -> int | None:
        """Number of the current version; None before the first write."""
        store = current_store()
        record = store.registry.group(self.project, self.name)
        versions = store.catalog.versions(record) if record else []
        return next((version.number for version in versions if version.is_current), None)

    @property
    def offline_watermarks(self) -> list[datetime]:
        """Newest event time of each write to the current version, in UTC, oldest first."""
        if current_store().registry.group(self.project, self.name) is None:
            return []
        return [moment_of(moment) for moment in current_store().watermarks(self.name, self.project)]


class HistoricalFeaturesDuckDB:
    """Features of one or more groups, as they were known at moments of the past.

    Args:
        lookups: Which features of which groups.

    Raises:
        DefinitionError: They are no list of lookups.
    """

    def __init__(self, lookups: Sequence[FeatureLookup]) -> None:
        check_lookups(lookups)
        self.lookups = lookups
        self._spine: tuple[object, str, Sequence[str] | None] | None = None
        self._latest_at: Moment | None = None
        self._wants_latest = False

    def __repr__(self) -> str:
        wanted = (f"{lookup.name} ({', '.join(lookup.features or ['all'])})" for lookup in self.lookups)
        return f"HistoricalFeaturesDuckDB({', '.join(wanted)})"

    def using_spine(
        self, spine: object, date_col: str, keep_cols: Sequence[str] | None = None
    ) -> HistoricalFeaturesDuckDB:
        """Ask for the features known at each row of a frame.

        Args:
            spine: A frame with the join keys and a moment in each row.
            date_col: The column with the moments.
            keep_cols: Columns to keep beside keys and moment. None: all.
        """
        self._spine, self._wants_latest = (spine, date_col, keep_cols), False
        return self

    def using_latest(self, now: Moment | None = None) -> HistoricalFeaturesDuckDB:
        """Ask for the features of every entity as known now, or at another moment."""
        self._spine, self._wants_latest, self._latest_at = None, True, now
        return self

    def to_dataframe(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Give the features as a frame.

        With a spine: its rows and columns, in order, and beside them what was known at each moment.
        With `using_latest`: one row per entity. Otherwise the history: one row per entity and event
        time at which any of the groups changed, each as known at that moment.

        Args:
            feature_start_time: First event time to look at, inclusive. None: no bound.
            feature_end_time: Last event time to look at, inclusive; a date covers its whole day. None: no bound.
            as_of: Look only at what was stored by then: a moment, or the number of a snapshot (of several groups:
                a mapping from name to number). The same call gives the same answer for ever, whatever is written later.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind, pandas without one.

        Raises:
            DefinitionError: A group, feature, snapshot or output does not exist, or names clash.
            DataError: The spine lacks a column, or a key's type cannot match.
            StoreError: The snapshot asked for was vacuumed.
        """
        span = Interval.between(feature_start_time, feature_end_time)
        if self._spine:
            spine, date_col, keep = self._spine
            return current_store().training_set(
                self.lookups, spine, date_col, keep=keep, span=span, as_of=as_of, output=output
            )
        if self._wants_latest:
            return current_store().latest(self.lookups, span=span, at=self._latest_at, as_of=as_of, output=output)
        return current_store().history(self.lookups, span=span, as_of=as_of, output=output)

    def to_batches(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """Give the training set as a stream of Arrow batches, so that neither spine nor groups need to fit in memory.

        A spine that is the path of a Parquet file is read batch by batch. The arguments are those of `to_dataframe`.

        Raises:
            DefinitionError: There is no spine.
        """
        return self._stream(Interval.between(feature_start_time, feature_end_time), as_of, lambda _: None)

    def to_parquet(
        self,
        path: str | Path,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
    ) -> int:
        """Write the training set to a Parquet file, in bounded memory; the file appears when it is whole.

        The arguments are those of `to_dataframe`; see `to_batches`.

        Returns:
            How many rows were written.

        Raises:
            DefinitionError: There is no spine.
            StoreError: The file cannot be written.
        """
        from seeknal.progress import working
        from seeknal.streaming import write_parquet

        span = Interval.between(feature_start_time, feature_end_time)
        with working("Building the training set") as tell:
            return write_parquet(self._stream(span, as_of, tell), Path(path))

    def _stream(self, span: Interval, as_of: AsOf | None, tell: Tell) -> pa.RecordBatchReader:
        if self._spine is None:
            raise DefinitionError("A stream needs using_spine(spine, date_col=...); otherwise call to_dataframe().")
        spine, date_col, keep = self._spine
        return current_store().stream(self.lookups, spine, date_col, keep=keep, span=span, as_of=as_of, tell=tell)

    def save(self, name: str, *, as_of: AsOf | None = None, rows: bool = False) -> TrainingSet:
        """Build the training set and keep what it takes to build it again, to the byte.

        Args:
            name: A new name; what is saved does not change.
            as_of: Look only at what was stored by then, as in `to_dataframe`.
            rows: Keep the rows too, as a Parquet file.

        Raises:
            DefinitionError: The name is taken.
            DataError: A column of the spine cannot be kept in a Parquet file.
        """
        question, spine = self._question()
        return TrainingSet(
            current_store().save_training_set(name, self.lookups, question, spine, as_of=as_of, keep_rows=rows)
        )

    def explain(self, row: Mapping[str, Any], *, as_of: AsOf | None = None) -> pd.DataFrame:
        """Say for one row of the spine which stored row of each group counts, and why the others do not.

        Args:
            row: The join keys and the moment, named as in the spine: `spine.iloc[0]`, or a mapping.
            as_of: Look only at what was stored by then.

        Returns:
            The stored rows of that entity: group, verdict, event_time, created_time, snapshot, written_at, and features
            as a mapping; of each group the row that counts first.

        Raises:
            DefinitionError: No spine was set, so that nobody knows which column is the moment.
            DataError: The row lacks a join key or the moment.
        """
        from seeknal.explanation import to_pandas

        if self._spine is None:
            raise DefinitionError(
                "explain() needs using_spine(spine, date_col=...), to know which column is the moment."
            )
        date_col = self._spine[1]
        if not hasattr(row, "keys"):
            raise DataError(
                f"Expected a row of the spine, such as spine.iloc[0] or a mapping, not {type(row).__name__}."
            )
        if date_col not in row:
            raise DataError(f"The row has no {date_col!r}, which is the moment to explain.")
        return to_pandas(current_store().explain(self.lookups, row, row[date_col], as_of=as_of))

    def check(self) -> list[str]:
        """Look for leaks that a correct join cannot see, because they are in the data.

        Rows recorded long after their event time; event times that are all midnights while the spine has hours; features
        that equal another column of the spine, such as the label.

        Returns:
            A sentence for each, which is also given as a notice.
        """
        spine, date_col, _ = self._spine or (None, "", None)
        found = current_store().check(self.lookups, spine, date_col)
        for text in found:
            notice(text)
        return found

    def _question(self) -> tuple[Question, object]:
        from seeknal.registry import Question

        if self._spine:
            spine, date_col, keep = self._spine
            return Question("spine", date_col=date_col, keep=None if keep is None else tuple(keep)), spine
        if self._wants_latest:
            return Question("latest", moment=now() if self._latest_at is None else instant(self._latest_at)), None
        return Question("history"), None

    def serve(
        self, name: str | None = None, target: str | Path | None = None, ttl: timedelta | None = None
    ) -> OnlineFeaturesDuckDB:
        """Put the newest row of every entity online, as a table of these features.

        The table keeps to the versions that are current now, until it is served again.

        Args:
            name: The table's name; the group's own if there is but one group.
            target: Another online store than the one set: a folder, or the URL of Redis, without a password.
            ttl: How long values are good for, in place of the groups' own.
        """
        from seeknal.progress import working

        with working("Loading") as tell:
            table = current_store().serve(self.lookups, name, target=target, ttl=ttl, tell=tell)
        return OnlineFeaturesDuckDB(table.record.name, table.record.project)


class OnlineFeaturesDuckDB:
    """A served table: newest features by key.

    Args:
        name: The table's name.
        project: Its project. None: the one project that has such a table.

    Raises:
        DefinitionError: There is no such table.
    """

    def __init__(self, name: str, project: str | None = None) -> None:
        self._table: OnlineTable = current_store().online_table(name, project)
        self.name = self._table.record.name
        self.project = self._table.record.project

    def __repr__(self) -> str:
        keys, features = ", ".join(self._table.keys), ", ".join(self._table.features)
        return f"OnlineFeaturesDuckDB({self.project}/{self.name}, keys: {keys}, features: {features})"

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        with_status: bool = False,
    ) -> Any:
        """Give the newest features of some entities.

        Args:
            keys: A list of mappings from join key to value, or a frame with the join keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features wanted, in order. None: all of them.
            with_status: Add GROUP_status ("found", "not_found" or "expired") and GROUP_event_time for each group.

        Returns:
            One row per entity asked for, in order: keys, features, status. Unknown and expired entities have nulls.

        Raises:
            DataError: The keys have wrong names or types; DefinitionError: the output or a feature is unknown.
        """
        return self._table.get_features(keys, output, features, with_status=with_status)

    def verify(self, sample: int | None = None) -> Verified:
        """Compare what the table answers with the offline join as of now, value by value.

        Args:
            sample: How many entities of each group to draw by lot. None: all of them.
        """
        from seeknal.progress import working

        with working(f"Verifying {self.name}") as tell:
            return current_store().verify(self.name, self.project, sample=sample, tell=tell)

    def delete(self) -> None:
        """Remove the table, and rows that no other one uses."""
        current_store().delete_table(self.name, self.project)
