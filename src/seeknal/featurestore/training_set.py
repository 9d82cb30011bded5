"""A training set that was saved, and comes back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from seeknal.errors import plural
from seeknal.featurestore import current_store
from seeknal.values.times import moment_of

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore
    from seeknal.registry import TrainingSetRecord
    from seeknal.system.progress import OnProgress


class TrainingSet:
    """A training set that was saved, and can be built again to the byte.

    Made by `HistoricalFeaturesDuckDB.save`, found again by `TrainingSet.load`. It belongs to the store that keeps it,
    whatever is set later.
    """

    def __init__(self, record: TrainingSetRecord, store: FeatureStore | None = None) -> None:
        self._record = record
        self._store = store or current_store()

    @classmethod
    def load(cls, name: str, project: str | None = None) -> TrainingSet:
        """Find a saved training set.

        Args:
            name: Its name.
            project: Its project. None: the one project that has such a training set.

        Raises:
            DefinitionError: There is none.
        """
        store = current_store()
        return cls(store.catalog.training_set(name, project), store)

    @property
    def name(self) -> str:
        """Its name."""
        return self._record.name

    @property
    def project(self) -> str:
        """Its project."""
        return self._record.project

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self._record.rows

    @property
    def content_hash(self) -> str:
        """Hash of names, types and values, in order."""
        return self._record.content_hash

    @property
    def created(self) -> datetime:
        """When it was saved, in UTC."""
        return moment_of(self._record.created_at)

    @property
    def snapshots(self) -> dict[str, int]:
        """The snapshot that was read of each group, by project and name; `as_of` takes it."""
        pins = [(f"{pin.project}/{pin.group}", pin.snapshot) for pin in self._record.pins]
        return {label: snapshot for label, snapshot in pins if snapshot is not None}

    def __repr__(self) -> str:
        return f"TrainingSet({self._record.label}, {plural(self.rows)}, {self.content_hash[:12]})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        question = self._record.question
        facts = {
            "rows": self.rows,
            "asked": f"a spine, at {question.date_col}" if question.kind == "spine" else question.kind,
            "event times": str(question.span),
            "features": [out for pin in self._record.pins for _, out in pin.features],
            "snapshots": [f"{group} {number}" for group, number in self.snapshots.items()],
            "content hash": self.content_hash,
            "created": self.created,
        }
        return sheet(f"Training set {self._record.label}", facts)

    def reproduce(self, output: str = "pandas", on_progress: OnProgress | None = None) -> Any:
        """Build it again from the store, and prove that it is the same.

        Args:
            output: "pandas", "polars", "arrow" or "duckdb".
            on_progress: Called with each step, in words. None: shown on a terminal if it takes more than a second.

        Raises:
            StoreError: What it read is gone, or the answer is another one.
        """
        from seeknal.system.progress import working
        from seeknal.values import frames

        kind = frames.output_kind(None, output)
        with working(f"Reproducing {self._record.label}", on_progress) as report:
            return frames.from_arrow(self._store.training_sets.reproduce(self._record, report), kind)

    def to_dataframe(self, output: str = "pandas", on_progress: OnProgress | None = None) -> Any:
        """Return its rows: those that were kept, else `reproduce` them."""
        from seeknal.system.progress import working
        from seeknal.values import frames

        kind = frames.output_kind(None, output)
        with working(f"Reading {self._record.label}", on_progress) as report:
            return frames.from_arrow(self._store.training_sets.rows(self._record, report), kind)

    def delete(self) -> None:
        """Forget it, with its spine and rows. The groups it read stay."""
        self._store.delete_training_set(self._record)
