"""Online tables in a notebook: each method is one call on the store that has the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.featurestore import current_store, working
from seeknal.names import join_keys_of, misfit

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from seeknal.home.store import FeatureStore
    from seeknal.serve.online_tables import Refreshed
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Verified
    from seeknal.system.progress import OnProgress
    from seeknal.values.frames.outputs import Arrow, Dicts, Pandas, Polars


class OnlineFeaturesDuckDB:
    """An online table, which returns the newest features by key. If it serves a feature view, it returns what the model reads.

    It belongs to the store in which it was found, even if the settings change later.

    Args:
        name: Name of the table or feature view. "next_basket@2" names a version of a view; "next_basket" means the newest of the
            versions that are served.
        project: Project of the table. None: the only project that has such a table.
        lookup_key: The entity whose features the table has, or the name of its join key, to check that the table has these
            keys. An entity passed as the second argument is taken as `lookup_key`, its position in the first Seeknal.

    Raises:
        DefinitionError: There is no such table, several projects have one, or it has other keys than `lookup_key`.
    """

    def __init__(self, name: str, project: str | None = None, *, lookup_key: Entity | str | None = None) -> None:
        if isinstance(project, Entity):
            project, lookup_key = None, project
        store = current_store()
        self._take(store, store.tables.open(name, project=project))
        if lookup_key is not None:
            self._check_keys(lookup_key)

    @classmethod
    def _of(cls, store: FeatureStore, table: ServedTable) -> Self:
        made = cls.__new__(cls)
        made._take(store, table)  # noqa: SLF001 - a method of this class
        return made

    def _take(self, store: FeatureStore, table: ServedTable) -> None:
        self._store, self._table = store, table
        self.name, self.project = table.record.name, table.record.project

    def _check_keys(self, lookup_key: Entity | str) -> None:
        if not isinstance(lookup_key, Entity | str):
            raise DefinitionError(f"lookup_key={lookup_key!r} is not an entity. Pass the entity, or leave it out.")
        expected = lookup_key.join_keys if isinstance(lookup_key, Entity) else (lookup_key,)
        if problem := misfit(expected, self._table.keys):
            what = f"online table {self.project}/{self.name}"
            raise DefinitionError(f"{join_keys_of(what, self._table.keys)}; of lookup_key, {problem}")

    def __repr__(self) -> str:
        keys, features = ", ".join(self._table.keys), ", ".join(self._table.features)
        request = ", ".join(field.name for field in self._table.request_fields)
        given = f", request: {request}" if request else ""
        return f"OnlineFeaturesDuckDB({self.project}/{self.name}, keys: {keys}{given}, features: {features})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        features = [
            {"feature": out, "group": f"{one.project}/{one.group}", "version": one.version, "name in the group": own}
            for one in self._table.record.lookups
            for own, out in one.features
        ]
        facts = {"keys": self._table.keys, "home": str(self._store.home), "features": features}
        return sheet(f"Online table {self.project}/{self.name}", facts)

    @overload
    def get_features(
        self, keys: object, output: Pandas = "pandas", features: Sequence[str] | None = None, with_status: bool = False
    ) -> pd.DataFrame: ...
    @overload
    def get_features(
        self, keys: object, output: Polars, features: Sequence[str] | None = None, with_status: bool = False
    ) -> pl.DataFrame: ...
    @overload
    def get_features(
        self, keys: object, output: Arrow, features: Sequence[str] | None = None, with_status: bool = False
    ) -> pa.Table: ...
    @overload
    def get_features(
        self, keys: object, output: Dicts, features: Sequence[str] | None = None, with_status: bool = False
    ) -> list[dict[str, Any]]: ...
    @overload
    def get_features(
        self, keys: object, output: str, features: Sequence[str] | None = None, with_status: bool = False
    ) -> Any: ...

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        with_status: bool = False,
    ) -> Any:
        """Return the newest features of the given entities.

        Args:
            keys: A list of mappings from join key to value, or a frame with the join keys. If the table serves a feature view with
                request values, these are given beside the keys.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features to return, in order. None: all of them.
            with_status: Add GROUP_status ("found", "not_found" or "expired") and GROUP_event_time for each group.

        Returns:
            One row per requested entity, in order: keys, features, status. Unknown and expired entities have nulls.

        Raises:
            DataError: The keys have wrong names or types.
            DefinitionError: The output or a feature is unknown.
        """
        return self._table.get_features(keys, output, features, with_status=with_status)

    def verify(self, sample: int | None = None, on_progress: OnProgress | None = None) -> Verified:
        """Compare the values that the table returns with the offline join as of now, one by one; see `FeatureView.verify`.

        Args:
            sample: Number of entities of each group to compare, chosen at random. None: all of them.
            on_progress: Called with a description of each step. None: steps are shown on a terminal if the call takes more
                than a second.
        """
        with working(f"Verifying {self.project}/{self.name}", on_progress) as report:
            return self._store.views.verify(self._table.record, sample, report)

    def refresh(self, full: bool = False, *, on_progress: OnProgress | None = None) -> Refreshed:
        """Load what changed in the groups of the table since the last load.

        Args:
            full: Rewrite all rows of all time, whatever is online, so that `verify` finds no difference.
            on_progress: Called with a description of each step. None: steps are shown on a terminal if the call takes more
                than a second.

        Returns:
            The load of each group.
        """
        with working(f"Refreshing {self.project}/{self.name}", on_progress) as report:
            return self._store.tables.refresh([self._table.record], full=full, on_progress=report)[0]

    def delete(self) -> bool:
        """Delete the table, and the rows that no other table uses. Return True; a failure is an error.

        Raises:
            DefinitionError: The table was deleted before.
        """
        self._store.tables.delete(self._table.record)
        return True
