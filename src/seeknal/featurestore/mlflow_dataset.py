"""Training sets in MLflow: the training set of a run as a dataset input, and back from the run to the training set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.define.splits import PARTS
from seeknal.errors import DataError, DefinitionError
from seeknal.featurestore.training_set import TrainingSet
from seeknal.names import check_text
from seeknal.system.extras import how_to_install

try:
    import mlflow
    from mlflow.data.dataset import Dataset
    from mlflow.data.dataset_source import DatasetSource
    from mlflow.data.dataset_source_registry import register_dataset_source
    from mlflow.types import DataType
    from mlflow.types.schema import AnyType, Array, ColSpec, Schema
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
except ImportError:
    raise DefinitionError(f"MLflow is not installed. {how_to_install('mlflow')}") from None

if TYPE_CHECKING:
    from mlflow.entities import Run

SOURCE = "seeknal"
"""The type of the source of a dataset that is a training set."""
_DIGEST = 36
"""The greatest length of a digest in MLflow's database; content hashes are longer."""


class TrainingSetSource(DatasetSource):  # type: ignore[misc]  # mypy does not look into MLflow
    """Where a training set is: its store has it under a name, and the hash says whether that is still the same one.

    Args:
        facts: The project, the name, the content hash, the view and its version, the split, and the snapshots that were read.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE

    @staticmethod
    def _can_resolve(raw_source: object) -> bool:
        return isinstance(raw_source, TrainingSet)

    @classmethod
    def _resolve(cls, raw_source: TrainingSet) -> TrainingSetSource:
        return cls.of(raw_source)

    @classmethod
    def of(cls, made: TrainingSet) -> TrainingSetSource:
        """Return the source that a training set is."""
        record = made._record  # noqa: SLF001 - a class of the same package
        facts: dict[str, Any] = {"project": made.project, "training_set": made.name, "content_hash": made.content_hash}
        if record.view is not None:
            facts |= {"view": f"{record.project}/{record.view.name}@{record.view.version}", "split": record.view.split}
        return cls({**facts, "snapshots": made.snapshots})

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, as MLflow keeps them."""
        return self._facts

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> TrainingSetSource:
        """Return the source of which `to_dict` returned this."""
        return cls(source_dict)

    def load(self) -> TrainingSet:
        """Return the training set, from the current store.

        Raises:
            DefinitionError: The store has no training set of that name.
            DataError: The one of that name has another content.
        """
        made = TrainingSet.load(self._facts["training_set"], self._facts["project"])
        if made.content_hash != self._facts["content_hash"]:
            raise DataError(
                f"The run used a training set {made.project}/{made.name} with the content hash {self._facts['content_hash']}. That of "
                f"the store has {made.content_hash}: it was deleted and made anew, or this is another store. Set SEEKNAL_HOME to the "
                "home in which the run was made."
            )
        return made


class TrainingSetDataset(Dataset):  # type: ignore[misc]  # mypy does not look into MLflow
    """A training set as a dataset of MLflow, for `mlflow.log_input` and wherever else MLflow takes one. It has no values of any row.

    Args:
        made: The training set.
    """

    def __init__(self, made: TrainingSet) -> None:
        self._made = made
        self._columns = made._rows().schema  # noqa: SLF001 - a class of the same package
        use = made._record.view  # noqa: SLF001 - a class of the same package
        split = use is not None and use.split is not None
        self._profile = {"rows": made.rows, "content_hash": made.content_hash}
        if use is not None:
            self._profile |= {"features": made.features, "label": made.label, "unfinished": made.unfinished}
        if split:
            self._profile["parts"] = {part: len(made.part(part, "arrow")) for part in PARTS}
        super().__init__(TrainingSetSource.of(made), f"{made.project}/{made.name}")

    def _compute_digest(self) -> str:
        return self._made.content_hash[:_DIGEST]

    @property
    def profile(self) -> dict[str, Any]:
        """The numbers of rows, of all and by part; what the model reads; and the content hash."""
        return self._profile

    @property
    def schema(self) -> Schema:
        """The columns and their types."""
        return Schema([ColSpec(_type_of(field.type), field.name, required=False) for field in self._columns])

    def to_dict(self) -> dict[str, str]:
        """Return the dataset as MLflow keeps it."""
        schema = json.dumps({"mlflow_colspec": self.schema.to_dict()})
        return {**super().to_dict(), "schema": schema, "profile": json.dumps(self.profile)}


def log_input(made: TrainingSet, context: str) -> None:
    """Log a training set as a dataset input of the active run; see `TrainingSet.to_mlflow`."""
    check_text("context", context)
    dataset = TrainingSetDataset(made)
    source = dataset.source.to_dict()
    if run := mlflow.active_run():
        others = _contexts(run.info.run_id).get(json.dumps(source), {context}) - {context}
        if others:  # MLflow would keep the first context, and say nothing
            raise DefinitionError(
                f"Run {run.info.run_id} has {dataset.name} in the context {others.pop()!r}, and MLflow keeps one context for each dataset "
                "of a run. Log it once: its parts are in its profile."
            )
    tags = {"seeknal.view": source["view"]} if "view" in source else {}
    mlflow.log_input(dataset, context, tags)


def training_set(run: Run | str, context: str | None = None) -> TrainingSet:
    """Return the training set of a run of MLflow, from the current store. Its `reproduce` proves that it is what the run used.

    Args:
        run: The run, or its id.
        context: The context in which the training set was logged. None: any.

    Raises:
        DefinitionError: The run has no training set, or several; or the store has none of that name.
        DataError: The store's training set of that name has another content.
    """
    number = run if isinstance(run, str) else run.info.run_id
    found = _contexts(number)
    sources = [source for source, contexts in found.items() if context is None or context in contexts]
    if len(sources) == 1:
        return TrainingSetSource(json.loads(sources[0])).load()
    wanted = "" if context is None else f" in the context {context!r}"
    if not sources:
        raise DefinitionError(f"Run {number} has no training set{wanted}. Log one in the run: train.to_mlflow().")
    facts = [(json.loads(source), sorted(found[source])) for source in sources]
    named = ", ".join(f"{one['project']}/{one['training_set']} ({', '.join(contexts)})" for one, contexts in facts)
    raise DefinitionError(
        f"Run {number} has several training sets{wanted}: {named}. Name one by its context, context=..., or load it: "
        "TrainingSet.load(...)."
    )


def _contexts(run: str) -> dict[str, set[str]]:
    """Return the contexts in which a run has training sets, by their sources. A run object would have only the inputs of its time."""
    return {
        one.dataset.source: {tag.value for tag in one.tags if tag.key == MLFLOW_DATASET_CONTEXT}
        for one in mlflow.get_run(run).inputs.dataset_inputs
        if one.dataset.source_type == SOURCE
    }


def _type_of(kind: pa.DataType) -> DataType | Array | AnyType:
    """Return MLflow's type for a column, for display; MLflow has no decimals and no structs without names."""
    if is_.is_dictionary(kind):
        return _type_of(kind.value_type)
    if is_.is_list(kind) or is_.is_large_list(kind):
        return Array(_type_of(kind.value_type))
    for is_kind, found in _TYPES:
        if is_kind(kind):
            return found
    return AnyType()


_TYPES = (
    (is_.is_boolean, DataType.boolean),
    (is_.is_int64, DataType.long),
    (is_.is_uint32, DataType.long),
    (is_.is_uint64, DataType.long),
    (is_.is_integer, DataType.integer),
    (is_.is_float64, DataType.double),
    (is_.is_floating, DataType.float),
    (is_.is_string, DataType.string),
    (is_.is_large_string, DataType.string),
    (is_.is_binary, DataType.binary),
    (is_.is_date, DataType.datetime),
    (is_.is_timestamp, DataType.datetime),
)

register_dataset_source(TrainingSetSource)
