"""Saved training sets, which can be rebuilt exactly as they were."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from seeknal.define.splits import PARTS, TEST, TRAIN, VALIDATION, split_of
from seeknal.errors import DefinitionError, plural
from seeknal.featurestore import current_store, working
from seeknal.system.extras import how_to_install
from seeknal.values.arguments import check_flag
from seeknal.values.times import moment_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from torch.utils.data import TensorDataset

    from seeknal.define.splits import Split
    from seeknal.featurestore.feature_view import FeatureView
    from seeknal.home.store import FeatureStore
    from seeknal.registry import ModelRecord, TrainingSetRecord, ViewRecord, ViewUse
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
        self._kept: pa.Table | None = None
        self._parts: pa.ChunkedArray | None = None

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

    @property
    def view(self) -> FeatureView:
        """The version of the feature view that it was made with.

        Raises:
            DefinitionError: It was made with none, or the code of a function of the view has changed since.
        """
        from seeknal.featurestore.feature_view import FeatureView

        return FeatureView.of(self._store, self._made_with)

    @property
    def _use(self) -> ViewUse:
        if self._record.view is None:
            raise DefinitionError(
                f"{self._record.label} was made with no feature view. Make it with FeatureView.training_set to have what belongs to one."
            )
        return self._record.view

    @property
    def _made_with(self) -> ViewRecord:
        return self._store.views.get(self._use.name, project=self.project, version=self._use.version)

    @property
    def features(self) -> list[str]:
        """The names of what the model reads, in order."""
        return list(self._made_with.content.features)

    @property
    def label(self) -> str | None:
        """The name of the label's column; None if it has no label."""
        if self._use.until is None:
            return None
        label = self._made_with.content.label
        return None if label is None else label.column

    @property
    def unfinished(self) -> int:
        """The number of the spine's rows whose label is not known yet. Depending on the label, they are left out, or have null."""
        return self._use.unfinished

    @property
    def split(self) -> Split | None:
        """How the rows are split; None: they are not."""
        return None if self._use.split is None else split_of(self._use.split)

    @property
    def train(self) -> Any:
        """The rows to train on, as a frame of the spine's kind."""
        return self.part(TRAIN)

    @property
    def validation(self) -> Any:
        """The rows to choose a model by, as a frame of the spine's kind."""
        return self.part(VALIDATION)

    @property
    def test(self) -> Any:
        """The rows to judge the model by, as a frame of the spine's kind."""
        return self.part(TEST)

    def part(self, name: str, output: str | None = None) -> Any:
        """Return the rows of one part of the split, in the order of the spine.

        Args:
            name: "train", "validation" or "test".
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind.

        Raises:
            DefinitionError: The training set is not split, or there is no such part.
        """
        from seeknal.values import frames

        kind = frames.output_kind(None, output or self._use.kind)
        return frames.from_arrow(self._table(name), kind)

    def _table(self, part: str | None) -> pa.Table:
        """Return the rows of a part, or all, as Arrow."""
        table = self._rows()
        if part is None:
            return table
        if part not in PARTS:
            raise DefinitionError(f"{part!r} is not a part of a split. The parts are {', '.join(PARTS)}.")
        if self.split is None:
            raise DefinitionError(f"{self._record.label} is not split. Pass split= to FeatureView.training_set.")
        import pyarrow.compute as pc

        if self._parts is None:
            self._parts = self._store.training_sets.parts(self._record, table)
        return table.filter(pc.equal(self._parts, part))

    def _rows(self) -> pa.Table:
        if self._kept is None:
            with working(f"Reading {self._record.label}", None) as report:
                self._kept = self._store.training_sets.rows(self._record, report)
        return self._kept

    def to_parquet(self, path: str | Path) -> int:
        """Write the rows to a Parquet file or, if the training set is split, to a new folder, which appears when it is complete.

        The folder has the files `train.parquet`, `validation.parquet` and `test.parquet`. Rows in no part are in none of them.

        Returns:
            The number of rows written.

        Raises:
            DefinitionError: The path is invalid.
            DataError: Parquet has no type for a column.
            StoreError: The path cannot be written, or the folder exists.
        """
        from seeknal.featurestore.parts import write_parts
        from seeknal.join.streaming import write_parquet
        from seeknal.system.folders import named

        place = named(path)
        if self._record.view is None or self.split is None:
            return write_parquet(self._rows().to_reader(), place)
        return write_parts({part: self._table(part) for part in PARTS}, place)

    def to_sklearn(
        self, part: str | None = None, output: str | None = None, *, drop_unlabelled: bool = False
    ) -> tuple[Any, Any]:
        """Return what the model reads and the label of each row, as the estimators of scikit-learn take them: `fit(X, y)`.

        Args:
            part: "train", "validation" or "test". None: all rows.
            output: "pandas", "polars", "arrow" or "numpy". None: the kind of the spine. For "numpy", all features have to be numbers or
                bools; null is NaN.
            drop_unlabelled: Leave out rows whose label is null.

        Returns:
            X, a frame with the columns `features`, in order, or a float64 array of the shape (rows, features); and y, the label as a
            column of the same kind.

        Raises:
            DefinitionError: It has no label, or there is no such part or output.
            DataError: A label is null, or a feature cannot be represented in this kind.
        """
        from seeknal.featurestore.arrays import matrix, vector
        from seeknal.values import frames

        if (output or self._use.kind) == "duckdb":
            raise DefinitionError(
                'scikit-learn takes no relations of DuckDB. Pass output="pandas", "polars", "arrow" or "numpy".'
            )
        kind = "numpy" if output == "numpy" else frames.output_kind(None, output or self._use.kind)
        features, labels = self._examples(part, drop_unlabelled)
        if kind == "numpy":
            return matrix(features, "float64"), vector(labels, "float64", texts=True)
        return frames.from_arrow(features, kind), frames.from_arrow(labels, kind)[labels.column_names[0]]

    def to_torch(
        self, part: str | None = None, dtype: str = "float32", *, drop_unlabelled: bool = False
    ) -> TensorDataset:
        """Return what the model reads and the label of each row as a `TensorDataset` of PyTorch, for a `DataLoader`.

        Args:
            part: "train", "validation" or "test". None: all rows.
            dtype: "float32" or "float64".
            drop_unlabelled: Leave out rows whose label is null.

        Returns:
            A data set of two tensors: the features, in order, as `dtype` in the shape (rows, features), where null is NaN; and the labels
            in the shape (rows,): whole numbers and bools in their own types, other numbers as `dtype`.

        Raises:
            DefinitionError: PyTorch is not installed, the training set has no label, or there is no such part.
            DataError: A label is null, a feature is no number, or a number is too large for `dtype`.
        """
        from seeknal.featurestore.arrays import matrix, vector

        if dtype not in {"float32", "float64"}:
            raise DefinitionError(f'dtype={dtype!r} is neither "float32" nor "float64".')
        try:
            from torch import from_numpy
            from torch.utils.data import TensorDataset
        except ImportError:
            raise DefinitionError(f"to_torch needs PyTorch. {how_to_install('torch')}") from None
        features, labels = self._examples(part, drop_unlabelled)
        return TensorDataset(from_numpy(matrix(features, dtype)), from_numpy(vector(labels, dtype)))

    def _examples(self, part: str | None, drop_unlabelled: bool) -> tuple[pa.Table, pa.Table]:
        """Return the features, in order, and the label of the rows of a part, or of all."""
        from seeknal.featurestore.arrays import with_labels

        if (label := self.label) is None:
            raise DefinitionError(
                f"{self._record.label} has no label. Give its view one: FeatureView(..., label=Label(...)). to_dataframe() has its rows."
            )
        table = with_labels(self._table(part), label, drop=check_flag("drop_unlabelled", drop_unlabelled))
        return table.select(self.features), table.select([label])

    def to_mlflow(self, context: str = "training") -> None:
        """Log the training set as a dataset input of the active run of MLflow, which is started if there is none.

        The run then has its name, view and version, content hash, columns, split and numbers of rows, and no values.
        `seeknal.mlflow.training_set` finds it again, and `seeknal.mlflow.TrainingSetDataset` is for other calls of MLflow.

        Args:
            context: What the run uses it for.

        Raises:
            DefinitionError: MLflow is not installed, the context is no text, or the run has the training set in another context.
        """
        from seeknal.featurestore.mlflow_dataset import log_input

        log_input(self, context)

    def register_model(self, name: str, uri: str | None = None) -> ModelRecord:
        """Register a model that was trained on this training set, so that `FeatureView.models` lists it.

        Args:
            name: Name of the model.
            uri: Where the model is, such as "models:/next_basket/4". None: not said.

        Raises:
            DefinitionError: The training set was made with no feature view, or an argument has the wrong form.
        """
        return self._store.views.add_model(self._record, name, uri)

    def delete(self) -> None:
        """Delete the training set, its spine and its rows. The groups that it read stay."""
        self._store.training_sets.delete(self._record)
