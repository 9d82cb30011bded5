"""A feature group in a notebook: a definition plus the frame at hand; each verb is one call on the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.feature_group import FeatureGroup, Materialization
from seeknal.featurestore import current_store
from seeknal.names import check_name
from seeknal.times import Interval, Moment, moment_of

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.pushing import Pushed
    from seeknal.writing import Written


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
        """Take a frame to be written.

        Args:
            frame: pandas, Polars, PyArrow, a DuckDB relation, any object that gives its columns to Arrow, or the path of
                Parquet or CSV: a file, a folder or a glob of files, in folders that may be named key=value. A stream,
                which can be read only once, is read now; files and lazy frames are read by each write.

        Raises:
            DataError: It is no frame.
        """
        from seeknal.frames import kept

        self._frame = kept(frame)
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
