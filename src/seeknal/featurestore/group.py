"""Feature groups in a notebook: a definition, and the frame to write. Each method is one call on the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from seeknal.define.feature_group import FeatureGroup, Materialization
from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.featurestore.stored import StoredGroup
from seeknal.values.times import moment_of

if TYPE_CHECKING:
    import pyarrow as pa


class FeatureGroupDuckDB(StoredGroup):
    """Features of one entity that are written together.

    Args:
        name: Name of the group, unique in its project.
        entity: The entity that the features describe. If the group exists, `get_or_create()` can fill it in.
        materialization: How rows are dated and stored. If the group exists, `get_or_create()` can fill it in as well.
        project: Name of the project. A frame passed here is taken as `dataframe`, its position in the first Seeknal.
        description: A sentence for readers.
        features: The columns that are features: their names, or their types by name
            (`{"x": "int64"}`), or a `pyarrow.Schema`.
        dataframe: The frame to write; see `set_dataframe`.

    Raises:
        DefinitionError: A name breaks the rule for names, or a type is unknown.
        DataError: `dataframe` is not a frame.
    """

    def __init__(
        self,
        name: str,
        entity: Entity | None = None,
        materialization: Materialization | None = None,
        project: str = "default",
        description: str | None = None,
        features: Sequence[str] | Mapping[str, str] | pa.Schema | None = None,
        *,
        dataframe: object = None,
    ) -> None:
        if hasattr(project, "__arrow_c_stream__"):
            project, dataframe = "default", project
        super().__init__("feature group", name, project, description)
        self.entity = entity
        self.materialization = materialization
        if entity is not None:
            _ = self.definition  # checks the arguments now, not at the first write
        if features is not None:
            self.set_features(features)
        if dataframe is not None:
            self.set_dataframe(dataframe)

    def __repr__(self) -> str:
        keys = ", ".join(self.entity.join_keys) if self.entity else "?"
        version = self._glance().get("version") or "none yet"
        return f"FeatureGroupDuckDB({self.project}/{self.name}, keys: {keys}, version: {version})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        dated = self.materialization or Materialization()
        facts = {
            "keys": self.entity.join_keys if self.entity else None,
            "event time": dated.event_time_col,
            "created time": dated.created_time_col,
            "ttl": dated.ttl,
            "loaded by a write": dated.online,
            "description": self.description,
        }
        return sheet(f"Feature group {self.project}/{self.name}", facts | self._glance())

    @property
    def definition(self) -> FeatureGroup:
        """The definition of the group, without its frame.

        Raises:
            DefinitionError: The group has no entity.
        """
        if self.entity is None:
            raise DefinitionError(
                f"Feature group {self.name!r} has no entity. Pass entity=Entity(...), or call get_or_create() "
                "to take what is registered."
            )
        return FeatureGroup(
            self.name, self.entity, self.materialization or Materialization(), self.project, self.description
        )

    def set_features(self, features: Sequence[str] | Mapping[str, str] | pa.Schema | None = None) -> FeatureGroupDuckDB:
        """Set which columns are features, and return this object.

        Args:
            features: The names of the features, their types by name, or a `pyarrow.Schema`. None: all columns of the
                frame except keys, event time and created time.
        """
        self._set_columns("features", features)
        return self

    @property
    def features(self) -> list[str]:
        """Names of the current version's features or, before the first write, of those that it would write."""
        current = next((version for version in self.versions if version.is_current), None)
        if current is not None:
            return [name for name, _, role in current.columns if role == "feature"]
        if self._features is not None or self._frame is None or self.entity is None:
            return list(self._features or [])
        from seeknal.values.frames import opened

        dated = self.materialization or Materialization()
        others = {*self.entity.join_keys, dated.event_time_col, dated.created_time_col}
        return [name for name in opened(self._frame).names if name not in others]

    @property
    def online_watermarks(self) -> list[datetime]:
        """The newest event time of the current version in each online store that has rows of it, in UTC: distinct, in order.

        Raises:
            StoreError: An online store does not respond.
        """
        found = self._stored()
        return (
            [moment_of(moment) for moment in found[0].groups.online_watermarks(self.name, project=self.project)]
            if found
            else []
        )

    def get_or_create(self) -> FeatureGroupDuckDB:
        """Register the group, and return this object. If the group exists, what this object leaves out is filled in.

        Raises:
            DefinitionError: The group is registered with another entity or other time columns; or it is not
                registered, and this object has no entity.
        """
        store = self._store
        found = store.groups.find(self.name, project=self.project)
        if found is None and self.entity is None:
            try:  # it raises, and its message suggests similar names
                store.groups.get(self.name, project=self.project)
            except DefinitionError as error:
                raise DefinitionError(f"{error} To create it, pass entity=Entity(...).") from None
        if found:
            self.entity = self.entity or found.group.entity
            self.materialization = self.materialization or found.group.materialization
            self.description = self.description or found.group.description
        store.groups.register(self.definition)
        return self
