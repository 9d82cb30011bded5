"""A training set that was saved, and comes back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from seeknal.errors import tally
from seeknal.featurestore import current_store
from seeknal.times import moment_of

if TYPE_CHECKING:
    from seeknal.registry import TrainingSetRecord


class TrainingSet:
    """A training set that was saved, and can be built again to the byte.

    Made by `HistoricalFeaturesDuckDB.save`, found again by `TrainingSet.load`.
    """

    def __init__(self, record: TrainingSetRecord) -> None:
        self._record = record

    @classmethod
    def load(cls, name: str, project: str | None = None) -> TrainingSet:
        """Find a saved training set.

        Args:
            name: Its name.
            project: Its project. None: the one project that has such a training set.

        Raises:
            DefinitionError: There is none.
        """
        return cls(current_store().catalog.training_set(name, project))

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
        return {f"{pin.project}/{pin.group}": pin.snapshot for pin in self._record.pins}

    def __repr__(self) -> str:
        return f"TrainingSet({self._record.label}, {tally(self.rows)}, {self.content_hash[:12]})"

    def reproduce(self, output: str = "pandas") -> Any:
        """Build it again from the store, and prove that it is the same.

        Args:
            output: "pandas", "polars", "arrow" or "duckdb".

        Raises:
            StoreError: What it read is gone, or the answer is another one.
        """
        from seeknal import frames

        store = current_store()
        return frames.from_arrow(store.training_sets.reproduce(self._record), frames.output_kind(None, output))

    def to_dataframe(self, output: str = "pandas") -> Any:
        """Give its rows: those that were kept, else `reproduce` them."""
        from seeknal import frames

        return frames.from_arrow(current_store().training_sets.rows(self._record), frames.output_kind(None, output))

    def delete(self) -> None:
        """Forget it, with its spine and rows. The groups it read stay."""
        current_store().delete_training_set(self._record)
