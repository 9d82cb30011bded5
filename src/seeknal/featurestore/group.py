"""Feature groups in a notebook: a definition, and the frame to write. Each method is one call on the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from seeknal.define.feature_group import FeatureGroup, Materialization
from seeknal.entity import Entity
from seeknal.errors import DefinitionError, SeeknalError
from seeknal.featurestore import Binding, working
from seeknal.names import check_features, check_name
from seeknal.values.arguments import check_number
from seeknal.values.times import Interval, Moment, moment_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from seeknal.home.store import FeatureStore
    from seeknal.registry import GroupRecord, Version
    from seeknal.system.progress import OnProgress
    from seeknal.values.frames.outputs import Arrow, DuckDB, Pandas, Polars
    from seeknal.write.push import Pushed
    from seeknal.write.writing import Written


class FeatureGroupDuckDB:
    """Features of one entity that are written together.

    Args:
        name: Name of the group, unique in its project.
        entity: The entity that the features describe. If the group exists, `get_or_create()` can fill it in.
        materialization: How rows are dated and stored. If the group exists, `get_or_create()` can fill it in as well.
        project: Name of the project.
        description: A sentence for readers.
        features: The columns that are features: their names, or their types by name
            (`{"x": "int64"}`), or a `pyarrow.Schema`.

    Raises:
        DefinitionError: A name breaks the rule for names, or a type is unknown.
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
        self._binding = Binding()
        self._frame: object = None
        if entity is not None:
            _ = self.definition  # checks the arguments now, not at the first write
        self._features: list[str] | None = None
        self._declared: dict[str, pa.DataType] = {}
        if features is not None:
            self.set_features(features)

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

    def _glance(self) -> dict[str, object]:
        """Return facts about the current version for display, without binding to a store; none if it cannot be read."""
        with suppress(SeeknalError):  # a notebook displays an object even if its home cannot be read
            store = self._binding.look()
            record = store.groups.find(self.name, project=self.project) if store else None
            for one in store.groups.versions_of(record) if store and record else []:
                if one.is_current:
                    columns = [{"column": name, "type": kind, "role": role} for name, kind, role in one.columns]
                    written = moment_of(one.written_at)
                    return {"version": one.number, "rows": one.rows, "written": written, "columns": columns}
        return {}

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

    def set_dataframe(self, frame: object) -> FeatureGroupDuckDB:
        """Set the frame to write, and return this object.

        Args:
            frame: A frame of pandas, Polars or PyArrow, a DuckDB relation, any object that exports its columns to Arrow, or
                the path of Parquet or CSV: a file, a folder or a glob of files, in folders that may be named key=value. A
                stream can be read only once, so this call reads it. Files and lazy frames are read by each write.

        Raises:
            DataError: The object is not a frame.
        """
        from seeknal.values.frames import kept

        self._frame = kept(frame)
        return self

    def set_features(self, names: Sequence[str] | Mapping[str, str] | pa.Schema | None = None) -> FeatureGroupDuckDB:
        """Set which columns are features, and return this object.

        Args:
            names: The names of the features, their types by name, or a `pyarrow.Schema`. None: all columns of the
                frame except keys, event time and created time.
        """
        declared: dict[str, pa.DataType] = {}
        if not (names is None or isinstance(names, Sequence)):
            import pyarrow as pa

            from seeknal.values.types import parse_each

            if isinstance(names, pa.Schema):
                names = dict(zip(names.names, names.types, strict=True))
            if isinstance(names, Mapping):
                declared = parse_each("features", names)
                names = list(declared)
        found = check_features(names)
        self._features, self._declared = None if found is None else list(found), declared
        return self

    def write(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        mode: str = "overwrite",
        *,
        drop_nulls: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Written:
        """Write the frame to the offline table as one snapshot, all rows or none, and then load it if the group is online.

        Args:
            feature_start_time: First event time to write, inclusive. None: no bound.
            feature_end_time: Last event time to write, inclusive; a date covers its whole day. None: no bound.
            mode: "overwrite" replaces the stored rows in that interval (all rows, if it has no bounds), "append"
                adds rows, "merge" replaces rows of equal keys and event time.
            drop_nulls: Leave out rows without an event time instead of refusing them.
            on_progress: Called with a description of each step. None: steps are shown on a terminal if the call takes more
                than a second.

        Raises:
            DefinitionError: No frame was set, there is no event time column, or the mode is unknown.
            DataError: The frame does not fit; nothing was stored.
            StoreError: Nothing was stored; or the rows are stored but not online, as the message says. See `Groups.write`.
        """
        if self._frame is None:
            raise DefinitionError(
                f"Feature group {self.name!r} has no frame. Call set_dataframe(frame) before write()."
            )
        definition, interval = self.definition, Interval.between(feature_start_time, feature_end_time)
        with working(f"Writing {self.project}/{self.name}", on_progress):
            return self._store.groups.write(
                definition,
                self._frame,
                features=self._features,
                declared=self._declared,
                interval=interval,
                mode=mode,
                drop_nulls=drop_nulls,
            )

    def push(self, rows: object) -> Pushed:
        """Store rows of the current version and load them online, in one idempotent call; see `Groups.push`.

        Args:
            rows: A mapping from column to value, a list of them, or a frame, with all columns of the version.

        Raises:
            DefinitionError: There is no such group, or nothing was written to it yet.
            DataError: The rows do not fit the version; nothing was stored.
        """
        return self._store.groups.push(self.name, rows, project=self.project)

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

    def rollback(self, to: int) -> None:
        """Make an earlier version current again, as its last write left it. Nothing is deleted.

        Raises:
            DefinitionError: There is no such version, or it is the current one.
        """
        self._store.groups.rollback(self.name, check_number("to", to, 1), project=self.project)

    def delete(self) -> None:
        """Delete the group: its rows, its versions, and its online rows."""
        self._store.groups.delete(self.name, project=self.project)

    @overload
    def head(self, n: int = 5, output: Pandas = "pandas") -> pd.DataFrame: ...
    @overload
    def head(self, n: int = 5, *, output: Polars) -> pl.DataFrame: ...
    @overload
    def head(self, n: int, output: Polars) -> pl.DataFrame: ...
    @overload
    def head(self, n: int = 5, *, output: Arrow) -> pa.Table: ...
    @overload
    def head(self, n: int, output: Arrow) -> pa.Table: ...
    @overload
    def head(self, n: int = 5, *, output: DuckDB) -> DuckDBPyRelation: ...
    @overload
    def head(self, n: int, output: DuckDB) -> DuckDBPyRelation: ...
    @overload
    def head(self, n: int = 5, output: str = "pandas") -> Any: ...

    def head(self, n: int = 5, output: str = "pandas") -> Any:
        """Return the rows of the current version that were written last, the very last first.

        Args:
            n: Maximum number of rows.
            output: "pandas", "polars", "arrow" or "duckdb".

        Raises:
            DefinitionError: There is no such group, or nothing was written to it yet.
        """
        from seeknal.values import frames

        most = check_number("n", n, 5)
        kind = frames.output_kind(None, output)
        return frames.from_arrow(self._store.groups.sample(self.name, project=self.project, limit=most), kind)

    @property
    def version(self) -> int | None:
        """Number of the current version; None before the first write."""
        return next((version.number for version in self.versions if version.is_current), None)

    @property
    def versions(self) -> list[Version]:
        """The versions, oldest first."""
        found = self._stored()
        return found[0].groups.versions_of(found[1]) if found else []

    @property
    def schema(self) -> pa.Schema | None:
        """Names and types of the current version's columns: keys, times and features; None before the first write."""
        current = next((version for version in self.versions if version.is_current), None)
        if current is None:
            return None
        import pyarrow as pa

        return pa.schema(current.schema)

    @property
    def features(self) -> list[str]:
        """Names of the current version's features or, before the first write, of those that were set."""
        current = next((version for version in self.versions if version.is_current), None)
        if current is None:
            return list(self._features or [])
        return [name for name, _, role in current.columns if role == "feature"]

    @property
    def offline_watermarks(self) -> list[datetime]:
        """The newest event time of each write to the current version, in UTC: distinct, in order of time."""
        found = self._stored()
        return (
            [moment_of(moment) for moment in found[0].groups.watermarks(self.name, project=self.project)]
            if found
            else []
        )

    @property
    def _store(self) -> FeatureStore:
        """The store of the group: the one that was current at the first use. It never changes afterwards."""
        return self._binding.store()

    def _stored(self) -> tuple[FeatureStore, GroupRecord] | None:
        """Return the group's store and record, and bind to that store; None if the group is not registered. Nothing is created."""
        store = self._binding.look()
        record = store.groups.find(self.name, project=self.project) if store else None
        if store is None or record is None:
            return None
        self._binding.bind(store)
        return store, record
