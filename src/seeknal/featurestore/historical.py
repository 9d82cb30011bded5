"""Features of one or more groups, as known in the past: a request that is built step by step, and run by the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from seeknal.define.feature_group import FeatureLookup
from seeknal.define.fill_null import FillNull
from seeknal.errors import DataError, DefinitionError, notice
from seeknal.featurestore import Binding, working
from seeknal.featurestore.former import GetLatestTimeStrategy, check_strategy, refuse_arguments
from seeknal.featurestore.online import OnlineFeaturesDuckDB
from seeknal.featurestore.stored import store_of
from seeknal.featurestore.training_set import TrainingSet
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.system.folders import named
from seeknal.values.arguments import check_progress
from seeknal.values.times import Moment

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from seeknal.home.store import FeatureStore
    from seeknal.join.leaks import Findings
    from seeknal.registry.catalog import AsOf
    from seeknal.system.progress import OnProgress
    from seeknal.values.frames.outputs import Arrow, DuckDB, Pandas, Polars

    _Time = Moment | None

    class _Rest(TypedDict, total=False):  # keyword arguments on which the type of the result does not depend
        as_of: AsOf | None
        on_progress: OnProgress | None


class HistoricalFeaturesDuckDB:
    """Features of one or more groups, as they were known at moments of the past.

    An object never changes: `using_spine` and `using_latest` return another one. All methods see the same rows if they are
    called with the same arguments.

    Args:
        lookups: The lookups, which select features of groups: a list of them, or a single one.
        fill_nulls: Values in place of the nulls of features, of missing rows and stored ones alike: in frames, streams and
            files, and in what is served. `explain` and `check` see what is stored; `save` raises an error.

    Raises:
        DefinitionError: An argument has the wrong form.
    """

    def __init__(
        self, lookups: FeatureLookup | Sequence[FeatureLookup], fill_nulls: Sequence[FillNull] | None = None
    ) -> None:
        # A single lookup becomes a list of one, and no fills an empty one.
        self._inquiry = Inquiry(lookups, fills=fill_nulls)  # type: ignore[arg-type]
        self._binding = Binding()

    @property
    def lookups(self) -> tuple[FeatureLookup, ...]:
        """The lookups, which select features of groups."""
        return tuple(self._inquiry.lookups)

    def __repr__(self) -> str:
        wanted = (f"{lookup.name} ({', '.join(lookup.features or ['all'])})" for lookup in self.lookups)
        return f"HistoricalFeaturesDuckDB({', '.join(wanted)})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        inquiry = self._inquiry
        lookups = [
            {
                "group": f"{one.project}/{one.name}" if one.project else one.name,
                "features": list(one.features or ["all"]),
                "version": one.version or "current",
                "prefix": one.prefix,
                "rename": [f"{own} as {out}" for own, out in (one.rename or {}).items()],
            }
            for one in inquiry.lookups
        ]
        rows = f"a spine with timestamps in column {inquiry.date_col!r}" if inquiry.kind == SPINE else inquiry.kind
        return sheet("Features", {"request": rows, "lookups": lookups})

    def using_spine(
        self, spine: object, date_col: str, keep_cols: Sequence[str] | None = None
    ) -> HistoricalFeaturesDuckDB:
        """Return the same features, as known at the moment of each row of a frame. This object stays as it is.

        Args:
            spine: A frame with the join keys and a moment in each row. A stream can be read only once, so this call reads it.
            date_col: The column with the moments.
            keep_cols: Columns to keep besides keys and moment; no others are read. None: all.
        """
        from seeknal.values.frames import kept

        return self._with(self._inquiry.of_spine(kept(spine), date_col, keep_cols))

    def using_latest(
        self, now: Moment | None = None, *, fetch_strategy: GetLatestTimeStrategy | None = None
    ) -> HistoricalFeaturesDuckDB:
        """Return the same features, for every entity that any of the groups has, as known at a moment. This object stays as it is.

        Args:
            now: The moment. None: now. A strategy passed here is taken as `fetch_strategy`, its position in the first Seeknal.
            fetch_strategy: `REQUIRE_ANY`, which is also what None means; for a single group, `REQUIRE_ALL` as well.

        Raises:
            DefinitionError: The strategy requires all of several groups.
        """
        if isinstance(now, GetLatestTimeStrategy):
            now, fetch_strategy = None, now
        if fetch_strategy is not None:
            check_strategy(fetch_strategy, self.lookups)
        return self._with(self._inquiry.of_latest(now))

    def _with(self, inquiry: Inquiry) -> HistoricalFeaturesDuckDB:
        made = HistoricalFeaturesDuckDB.__new__(type(self))
        made._inquiry, made._binding = inquiry, self._binding  # noqa: SLF001 - attributes of this class
        return made

    @overload
    def to_dataframe(
        self, feature_start_time: _Time = None, feature_end_time: _Time = None, *, output: Pandas, **rest: Unpack[_Rest]
    ) -> pd.DataFrame: ...
    @overload
    def to_dataframe(
        self, feature_start_time: _Time = None, feature_end_time: _Time = None, *, output: Polars, **rest: Unpack[_Rest]
    ) -> pl.DataFrame: ...
    @overload
    def to_dataframe(
        self, feature_start_time: _Time = None, feature_end_time: _Time = None, *, output: Arrow, **rest: Unpack[_Rest]
    ) -> pa.Table: ...
    @overload
    def to_dataframe(
        self, feature_start_time: _Time = None, feature_end_time: _Time = None, *, output: DuckDB, **rest: Unpack[_Rest]
    ) -> DuckDBPyRelation: ...
    @overload
    def to_dataframe(
        self,
        feature_start_time: _Time = None,
        feature_end_time: _Time = None,
        *,
        output: str | None = None,
        **rest: Unpack[_Rest],
    ) -> Any: ...

    def to_dataframe(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        output: str | None = None,
        on_progress: OnProgress | None = None,
        **former: object,
    ) -> Any:
        """Return the features as a frame.

        With a spine: the spine's rows and columns, in order, then the features as known at each row's moment.
        With `using_latest`: one row per entity. Otherwise the history: one row per entity and event
        time at which any of the groups changed, each as known at that moment.

        Args:
            feature_start_time: First event time that is visible, inclusive. None: no bound. A history begins with it, and still
                shows values that were known before.
            feature_end_time: Last event time that is visible, inclusive; a date covers its whole day. None: no bound.
            as_of: Only rows stored by then are visible: a moment, or the number of a snapshot (for several groups, a
                mapping from name to number). The same call always returns the same rows, whatever is written later.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind, or pandas without a spine.
            on_progress: Called with a description of each step. None: steps are shown on a terminal if the call takes more
                than a second.
            former: Not accepted: a spine, as the pages of the first Seeknal pass it, is an error that names `using_spine`.

        Raises:
            DefinitionError: A group, feature, snapshot or output does not exist, or names clash.
            TypeError: An argument is unknown.
            DataError: The spine lacks a column, or a key's type cannot match.
            StoreError: The requested snapshot was vacuumed.
        """
        if former:
            refuse_arguments("to_dataframe", former)
        inquiry = self._inquiry.within(feature_start_time, feature_end_time, as_of)
        with working("Building the training set", on_progress) as report:
            return self._store.features.frame(inquiry, output, report)

    def to_dataframe_with_spine(self) -> Any:
        """Return the rows of the spine with the features, as `to_dataframe` does.

        Raises:
            DefinitionError: There is no spine.
        """
        if self._inquiry.kind != SPINE:
            raise DefinitionError(
                "There is no spine. using_spine() returns other features and leaves these as they are, so call it first: "
                "features.using_spine(spine, date_col=...).to_dataframe_with_spine()."
            )
        return self.to_dataframe()

    def to_batches(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        on_progress: OnProgress | None = None,
    ) -> pa.RecordBatchReader:
        """Return the training set as a stream of Arrow batches, so that neither the spine nor the groups need to fit in memory.

        A spine that is the path of a Parquet file is read batch by batch. The arguments are those of `to_dataframe`, but
        without `on_progress` no steps are shown.

        Raises:
            DefinitionError: There is no spine.
        """
        from seeknal.system import progress

        check_progress(on_progress)
        inquiry = self._inquiry.within(feature_start_time, feature_end_time, as_of)
        return self._store.features.batches(inquiry, on_progress or progress.no_progress)

    def to_parquet(
        self,
        path: str | Path,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Write the training set to a Parquet file, in bounded memory. The file appears when it is complete.

        The arguments are those of `to_dataframe`; see `to_batches`.

        Returns:
            The number of rows written.

        Raises:
            DefinitionError: There is no spine, or the path is invalid.
            StoreError: The file cannot be written.
        """
        from seeknal.join.streaming import write_parquet

        inquiry, file = self._inquiry.within(feature_start_time, feature_end_time, as_of), named(path)
        with working("Building the training set", on_progress) as report:
            return write_parquet(self._store.features.batches(inquiry, report), file)

    def save(
        self,
        name: str,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        rows: bool = False,
        on_progress: OnProgress | None = None,
    ) -> TrainingSet:
        """Build the training set, and save everything that is needed to rebuild it byte for byte.

        Args:
            name: A new name: a saved training set never changes.
            feature_start_time: As in `to_dataframe`; saved with the rest.
            feature_end_time: As in `to_dataframe`; saved with the rest.
            as_of: As in `to_dataframe`.
            rows: Save the rows as well, as a Parquet file.
            on_progress: As in `to_dataframe`.

        Raises:
            DefinitionError: The name is taken, or nulls would be filled.
            DataError: A column of the spine cannot be stored in a Parquet file.
        """
        inquiry, store = self._inquiry.within(feature_start_time, feature_end_time, as_of), self._store
        with working("Building the training set", on_progress) as report:
            return TrainingSet(store.training_sets.save(name, inquiry, keep_rows=rows, on_progress=report), store)

    def explain(
        self,
        row: Mapping[str, Any],
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        limit: int | None = 10,
    ) -> pd.DataFrame:
        """Explain for one row of the spine which stored row of each group wins, and why the nearest others do not.

        Args:
            row: The join keys and the moment, named as in the spine: `spine.iloc[0]`, or a mapping.
            feature_start_time: As in `to_dataframe`.
            feature_end_time: As in `to_dataframe`.
            as_of: As in `to_dataframe`.
            limit: Maximum number of rows of each group: the winner, then those nearest to the moment. None: all.

        Returns:
            The stored rows of that entity, with the columns group, verdict, event_time, created_time, snapshot, written_at,
            and features, which is a mapping.

        Raises:
            DefinitionError: No spine was set, so it is not known which column has the moment.
            DataError: The row lacks a join key or the moment.
        """
        from seeknal.join.candidates import to_pandas

        inquiry = self._inquiry.within(feature_start_time, feature_end_time, as_of)
        if inquiry.kind != SPINE:
            raise DefinitionError(
                "explain() needs using_spine(spine, date_col=...), to know which column is the moment."
            )
        if not hasattr(row, "keys"):
            raise DataError(
                f"Expected a row of the spine, such as spine.iloc[0] or a mapping, not {type(row).__name__}."
            )
        if inquiry.date_col not in row:
            raise DataError(f"The row has no {inquiry.date_col!r}, which is the moment to explain.")
        return to_pandas(self._store.features.explain(inquiry, row, row[inquiry.date_col], limit))

    def check(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        on_progress: OnProgress | None = None,
    ) -> Findings:
        """Look for leaks that a correct join cannot prevent, because they are in the data; see `seeknal.join.leaks`.

        The arguments are those of `to_dataframe`.

        Returns:
            A list with one sentence for each leak, which is also issued as a notice. Its `report` says what was checked, too.
        """
        inquiry = self._inquiry.within(feature_start_time, feature_end_time, as_of)
        with working("Looking for leaks", on_progress) as report:
            found = self._store.features.check(inquiry, report)
        for text in found:
            notice(text)
        return found

    def serve(
        self,
        name: str | None = None,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        on_progress: OnProgress | None = None,
        *,
        take_over: bool = False,
    ) -> OnlineFeaturesDuckDB:
        """Create an online table of these features, and load the newest row of every entity into it.

        The table keeps these features and their types, and follows what is written later, as long as each group has the
        features. A lookup with `version=` stays at that version. What `fill_nulls` returns for training, the table returns,
        too: its values are the defaults of the feature view of the table's name.

        Args:
            name: Name of the table. None: the name of the group, if there is only one.
            target: An online store other than the configured one: a folder, or the URL of Redis, without a password. The
                configured one counts as None, however it is spelled.
            ttl: How long stored values are valid, in place of the groups' own ttl. Windows end by themselves.
            on_progress: As in `to_dataframe`.
            take_over: Also overwrite rows that another home, or a deleted group, left in the store. From then on they belong
                to this home.

        Raises:
            DefinitionError: A group, feature or version does not exist, an argument has the wrong form, or a value of `fill_nulls`
                fits no feature.
            StoreError: The online store cannot be written, or has rows of another home.
        """
        store, fills = self._store, self._inquiry.fills
        options: dict[str, Any] = {"fills": fills, "target": target, "ttl": ttl, "take_over": take_over}
        with working("Loading", on_progress) as report:
            table = store.tables.serve(self.lookups, name, on_progress=report, **options)
        return OnlineFeaturesDuckDB._of(store, table)  # noqa: SLF001 - a class of the same package

    @property
    def _store(self) -> FeatureStore:
        """The store of these features: that of the groups, or else the current one at the first use. It never changes afterwards."""
        return store_of(self._binding, self._inquiry.lookups)
