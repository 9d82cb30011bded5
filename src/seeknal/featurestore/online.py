"""A served table in a notebook: each verb is one call on the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seeknal.featurestore import current_store

if TYPE_CHECKING:
    from seeknal.online_tables import Refreshed
    from seeknal.served import ServedTable
    from seeknal.verification import Verified


class OnlineFeaturesDuckDB:
    """A served table: newest features by key.

    Args:
        name: The table's name.
        project: Its project. None: the one project that has such a table.

    Raises:
        DefinitionError: There is no such table.
    """

    def __init__(self, name: str, project: str | None = None) -> None:
        self._table: ServedTable = current_store().online_table(name, project)
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

    def refresh(self, full: bool = False) -> Refreshed:
        """Bring all groups of the table online, as far as they changed since the last load.

        Args:
            full: Write all rows of all time anew, whatever is online: `verify` finds no difference then.

        Returns:
            What was loaded, group by group.
        """
        from seeknal.progress import working

        with working(f"Refreshing {self.name}") as tell:
            return current_store().refresh([self.name], self.project, full=full, tell=tell)[0]

    def delete(self) -> None:
        """Remove the table, and rows that no other one uses."""
        current_store().delete_table(self.name, self.project)
