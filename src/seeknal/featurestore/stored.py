"""What feature groups and event sources have in common in a notebook: rows that are written, pushed and read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, overload

from seeknal.define.feature_group import FeatureGroup, FeatureLookup
from seeknal.define.windowed_group import WindowedGroup
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


class StoredGroup(ABC):
    """A group whose rows are stored, and the frame to write. Each method is one call on the store.

    Args:
        kind: What it is, for messages.
        name: Name of the group, unique in its project.
        project: Name of the project.
        description: A sentence for readers.

    Raises:
        DefinitionError: A name breaks the rule for names.
    """

    def __init__(self, kind: str, name: str, project: str, description: str | None) -> None:
        self.name = check_name(kind, name)
        self.project = check_name("project", project)
        self.description = description
        self._kind = kind
        self._binding = Binding()
        self._frame: object = None
        self._features: list[str] | None = None
        self._declared: dict[str, pa.DataType] = {}

    @property
    @abstractmethod
    def definition(self) -> FeatureGroup:
        """The definition of the group, without its frame."""

    @property
    def dataframe(self) -> object:
        """The frame that was set, for `write`; None if none was. A stream is a `pyarrow.Table` here."""
        return self._frame

    def set_dataframe(self, dataframe: object) -> Self:
        """Set the frame to write, and return this object.

        Args:
            dataframe: A frame of pandas, Polars or PyArrow, a DuckDB relation, any object that exports its columns to Arrow, or
                the path of Parquet or CSV: a file, a folder or a glob of files, in folders that may be named key=value. A
                stream can be read only once, so this call reads it. Files and lazy frames are read by each write.

        Raises:
            DataError: The object is not a frame.
        """
        from seeknal.values.frames import kept

        self._frame = kept(dataframe)
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
                f"{self._kind.capitalize()} {self.name!r} has no frame. Call set_dataframe(frame) before write()."
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

    def rollback(self, to: int) -> None:
        """Make an earlier version current again, as its last write left it. Nothing is deleted.

        Raises:
            DefinitionError: There is no such version, or it is the current one.
        """
        self._store.groups.rollback(self.name, check_number("to", to, 1), project=self.project)

    def delete(self) -> bool:
        """Delete the group: its rows, its versions, and its online rows. Return True; a failure is an error.

        Raises:
            DefinitionError: There is no such group, or an online table or a training set needs it.
        """
        self._store.groups.delete(self.name, project=self.project)
        return True

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

    def _set_columns(self, argument: str, names: Sequence[str] | Mapping[str, str] | pa.Schema | None) -> None:
        """Set which columns are written beside keys and times: their names, or their types by name. None: all."""
        declared: dict[str, pa.DataType] = {}
        if not (names is None or isinstance(names, Sequence)):
            import pyarrow as pa

            from seeknal.values.types import parse_each

            if isinstance(names, pa.Schema):
                names = dict(zip(names.names, names.types, strict=True))
            if isinstance(names, Mapping):
                declared = parse_each(argument, names)
                names = list(declared)
        found = check_features(names, argument)
        self._features, self._declared = None if found is None else list(found), declared


def store_of(binding: Binding, lookups: Sequence[FeatureLookup]) -> FeatureStore:
    """Return the store of an object that looks features up: that of the groups, or of the sources of windowed groups, or the current one.

    Args:
        binding: The binding of the object.
        lookups: What it looks up.

    Raises:
        DefinitionError: The groups are bound to different homes.
    """
    origins = (one.source.source if isinstance(one.source, WindowedGroup) else one.source for one in lookups)
    return binding.store(*(one._binding for one in origins if isinstance(one, StoredGroup)))  # noqa: SLF001 - a class of this module
