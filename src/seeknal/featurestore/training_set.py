"""Saved training sets, which can be rebuilt exactly as they were."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from seeknal.errors import plural
from seeknal.featurestore import current_store, working
from seeknal.values.times import moment_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from seeknal.home.store import FeatureStore
    from seeknal.registry import TrainingSetRecord
    from seeknal.system.progress import OnProgress
    from seeknal.values.frames.outputs import Arrow, DuckDB, Pandas, Polars


class TrainingSet:
    """A saved training set, which can be rebuilt byte for byte.

    `HistoricalFeaturesDuckDB.save` creates it, and `TrainingSet.load` finds it again. It belongs to the store that keeps
    it, even if the settings change later.
    """

    def __init__(self, record: TrainingSetRecord, store: FeatureStore | None = None) -> None:
        self._record = record
        self._store = store or current_store()

    @classmethod
    def load(cls, name: str, project: str | None = None) -> TrainingSet:
        """Return a saved training set.

        Args:
            name: Name of the training set.
            project: Project of the training set. None: the only project that has such a training set.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        store = current_store()
        return cls(store.training_sets.get(name, project=project), store)

    @property
    def name(self) -> str:
        """Name of the training set."""
        return self._record.name

    @property
    def project(self) -> str:
        """Project of the training set."""
        return self._record.project

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._record.rows

    @property
    def content_hash(self) -> str:
        """Hash of the names, types and values of the columns, in order."""
        return self._record.content_hash

    @property
    def created(self) -> datetime:
        """Time at which it was saved, in UTC."""
        return moment_of(self._record.created_at)

    @property
    def snapshots(self) -> dict[str, int]:
        """Number of the snapshot read of each group, by "project/name". The mapping can be passed as `as_of`."""
        pins = [(f"{pin.project}/{pin.group}", pin.snapshot) for pin in self._record.pins]
        return {label: snapshot for label, snapshot in pins if snapshot is not None}

    def __repr__(self) -> str:
        return f"TrainingSet({self._record.label}, {plural(self.rows)}, {self.content_hash[:12]})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        question = self._record.question
        facts = {
            "rows": self.rows,
            "request": f"a spine with timestamps in column {question.date_col!r}"
            if question.kind == "spine"
            else question.kind,
            "event times": str(question.span),
            "features": [out for pin in self._record.pins for _, out in pin.features],
            "snapshots": [f"{group} {number}" for group, number in self.snapshots.items()],
            "content hash": self.content_hash,
            "created": self.created,
        }
        return sheet(f"Training set {self._record.label}", facts)

    @overload
    def reproduce(self, output: Pandas = "pandas", on_progress: OnProgress | None = None) -> pd.DataFrame: ...
    @overload
    def reproduce(self, output: Polars, on_progress: OnProgress | None = None) -> pl.DataFrame: ...
    @overload
    def reproduce(self, output: Arrow, on_progress: OnProgress | None = None) -> pa.Table: ...
    @overload
    def reproduce(self, output: DuckDB, on_progress: OnProgress | None = None) -> DuckDBPyRelation: ...
    @overload
    def reproduce(self, output: str, on_progress: OnProgress | None = None) -> Any: ...

    def reproduce(self, output: str = "pandas", on_progress: OnProgress | None = None) -> Any:
        """Rebuild the training set from the store, and prove by its content hash that it is the same.

        Args:
            output: "pandas", "polars", "arrow" or "duckdb".
            on_progress: Called with a description of each step. None: steps are shown on a terminal if the call takes more
                than a second.

        Raises:
            StoreError: Data that it was built from is gone, or the result differs from what was saved.
        """
        from seeknal.values import frames

        kind = frames.output_kind(None, output)
        with working(f"Reproducing {self._record.label}", on_progress) as report:
            return frames.from_arrow(self._store.training_sets.reproduce(self._record, report), kind)

    @overload
    def to_dataframe(self, output: Pandas = "pandas", on_progress: OnProgress | None = None) -> pd.DataFrame: ...
    @overload
    def to_dataframe(self, output: Polars, on_progress: OnProgress | None = None) -> pl.DataFrame: ...
    @overload
    def to_dataframe(self, output: Arrow, on_progress: OnProgress | None = None) -> pa.Table: ...
    @overload
    def to_dataframe(self, output: DuckDB, on_progress: OnProgress | None = None) -> DuckDBPyRelation: ...
    @overload
    def to_dataframe(self, output: str, on_progress: OnProgress | None = None) -> Any: ...

    def to_dataframe(self, output: str = "pandas", on_progress: OnProgress | None = None) -> Any:
        """Return the rows: those saved with the training set or, if there are none, the result of `reproduce`."""
        from seeknal.values import frames

        kind = frames.output_kind(None, output)
        with working(f"Reading {self._record.label}", on_progress) as report:
            return frames.from_arrow(self._store.training_sets.rows(self._record, report), kind)

    def delete(self) -> None:
        """Delete the training set, its spine and its rows. The groups that it read stay."""
        self._store.training_sets.delete(self._record)
