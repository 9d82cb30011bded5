"""Features as they were known: as a frame, as a stream, explained for one entity, or checked for leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from seeknal.define.feature_group import FeatureLookup
from seeknal.errors import DataError, DefinitionError
from seeknal.join.inquiry import HISTORY, SPINE, Inquiry
from seeknal.names import check_entity, join_keys_of, quoted
from seeknal.registry.catalog import AsOf, Catalog
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.arguments import check_number
from seeknal.values.times import Interval, Moment, instant

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from seeknal.engine import Engine
    from seeknal.join.candidates import Candidate
    from seeknal.join.inquiry import Bounds, Latest, OfSpine
    from seeknal.join.leaks import Findings
    from seeknal.registry.source import Source
    from seeknal.values.frames.outputs import Arrow, DuckDB, Pandas, Polars


class Features:
    """The features of a store's groups, as they were known at moments of the past.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine that joins rows. It is called only when rows are joined.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine]) -> None:
        self._catalog = catalog
        self._engine = engine

    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Pandas, **rest: Unpack[OfSpine]
    ) -> pd.DataFrame: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Polars, **rest: Unpack[OfSpine]
    ) -> pl.DataFrame: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: Arrow, **rest: Unpack[OfSpine]
    ) -> pa.Table: ...
    @overload
    def training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, date_col: str, *, output: DuckDB, **rest: Unpack[OfSpine]
    ) -> DuckDBPyRelation: ...
    @overload
    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        output: str | None = None,
        **rest: Unpack[OfSpine],
    ) -> Any: ...

    def training_set(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return the rows of a spine with the features that were known at each row's moment; see `seeknal.join.retrieval`.

        Args:
            lookups: The features.
            spine: A frame with the join keys and a moment in each row.
            date_col: The column with the moments.
            keep: Columns to keep besides keys and moment. None: all.
            interval: Only rows with an event time inside it are visible.
            as_of: Only rows stored by then are visible: a moment, a snapshot's number, or a mapping from group to number.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind, which is pandas for a path.

        Returns:
            A frame with the spine's rows and columns, then the features. A Spark DataFrame gives another, which is evaluated when it is
            used, and whose rows have no order.

        Raises:
            DefinitionError: A group, feature, snapshot or output does not exist, or names clash.
            DataError: The spine lacks a column, or a key's type cannot match.
        """
        return self.frame(Inquiry(lookups, SPINE, spine, date_col, keep, interval=interval, as_of=as_of), output)

    @overload
    def history(self, lookups: Sequence[FeatureLookup], *, output: Pandas, **rest: Unpack[Bounds]) -> pd.DataFrame: ...
    @overload
    def history(self, lookups: Sequence[FeatureLookup], *, output: Polars, **rest: Unpack[Bounds]) -> pl.DataFrame: ...
    @overload
    def history(self, lookups: Sequence[FeatureLookup], *, output: Arrow, **rest: Unpack[Bounds]) -> pa.Table: ...
    @overload
    def history(
        self, lookups: Sequence[FeatureLookup], *, output: DuckDB, **rest: Unpack[Bounds]
    ) -> DuckDBPyRelation: ...
    @overload
    def history(
        self, lookups: Sequence[FeatureLookup], *, output: str | None = None, **rest: Unpack[Bounds]
    ) -> Any: ...

    def history(
        self,
        lookups: Sequence[FeatureLookup],
        *,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return one row per entity and event time at which any looked-up group changed."""
        return self.frame(Inquiry(lookups, HISTORY, interval=interval, as_of=as_of), output)

    @overload
    def latest(self, lookups: Sequence[FeatureLookup], *, output: Pandas, **rest: Unpack[Latest]) -> pd.DataFrame: ...
    @overload
    def latest(self, lookups: Sequence[FeatureLookup], *, output: Polars, **rest: Unpack[Latest]) -> pl.DataFrame: ...
    @overload
    def latest(self, lookups: Sequence[FeatureLookup], *, output: Arrow, **rest: Unpack[Latest]) -> pa.Table: ...
    @overload
    def latest(
        self, lookups: Sequence[FeatureLookup], *, output: DuckDB, **rest: Unpack[Latest]
    ) -> DuckDBPyRelation: ...
    @overload
    def latest(self, lookups: Sequence[FeatureLookup], *, output: str | None = None, **rest: Unpack[Latest]) -> Any: ...

    def latest(
        self,
        lookups: Sequence[FeatureLookup],
        *,
        interval: Interval = Interval(),
        at: Moment | None = None,
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Return one row per entity, as known at a moment. Default: now."""
        return self.frame(Inquiry(lookups, interval=interval, as_of=as_of).of_latest(at), output)

    def stream(
        self,
        lookups: Sequence[FeatureLookup],
        spine: object,
        date_col: str,
        *,
        keep: Sequence[str] | None = None,
        interval: Interval = Interval(),
        as_of: AsOf | None = None,
        on_progress: OnProgress = no_progress,
    ) -> pa.RecordBatchReader:
        """Return a training set in batches, so that neither the spine nor the groups need to fit in memory.

        The arguments are those of `training_set`; `on_progress` is called with each step.
        """
        return self.batches(Inquiry(lookups, SPINE, spine, date_col, keep, interval=interval, as_of=as_of), on_progress)

    def frame(self, asked: Inquiry, output: str | None = None, on_progress: OnProgress = no_progress) -> Any:
        """Return the requested features as a frame of the spine's kind, or of the kind given by `output`."""
        from seeknal.join import filling, retrieval
        from seeknal.values import frames

        kind = frames.output_kind(asked.spine, output)
        sources = self.sources(asked)
        fills = filling.values_of(asked.fills, sources)
        using = self._catalog.lifetimes.using(*(source.stored for source in sources))
        if asked.kind != SPINE:
            with using:
                answer = retrieval.answer(self._engine(), sources, asked.question, None, on_progress)
            return frames.from_arrow(filling.filled(answer, fills), kind)
        given = retrieval.Spine(frames.opened(asked.spine), asked.date_col, asked.keep, case_counts=kind != "duckdb")
        if kind == "spark":
            from seeknal.join import distributed

            with using:
                return distributed.training_set(self._engine(), sources, given, asked.interval, fills)
        spine = retrieval.read_spine(sources, given)
        with using:
            names, features = retrieval.training_set(self._engine(), sources, spine, asked.interval, on_progress)
        used, _ = retrieval.spine_columns(sources, spine)
        with retrieval.leaving_out([*used, *features.column_names]):
            return frames.with_columns(spine.frame, names, filling.filled(features, fills), kind)

    def batches(self, asked: Inquiry, on_progress: OnProgress = no_progress) -> pa.RecordBatchReader:
        """Return the requested features as a stream of batches, so that neither the spine nor the groups need to fit in memory.

        Raises:
            DefinitionError: There is no spine.
        """
        from seeknal.join import filling, streaming
        from seeknal.values import frames

        if asked.kind != SPINE:
            raise DefinitionError("A stream needs using_spine(spine, date_col=...); otherwise call to_dataframe().")
        sources = self.sources(asked)
        fills = filling.values_of(asked.fills, sources)
        stream = streaming.Stream(sources, frames.opened(asked.spine), asked.date_col, asked.keep, asked.interval)
        batches = streaming.stream(self._engine(), stream, on_progress)
        return filling.filled_batches(batches, fills)

    def explain(
        self, asked: Inquiry, keys: Mapping[str, Any], moment: Moment, limit: int | None = None
    ) -> list[Candidate]:
        """Explain for one entity and moment which row of each group wins, and why the others do not.

        Args:
            asked: The requested features.
            keys: The join keys, by their names in the spine.
            moment: The moment to look from.
            limit: Maximum number of rows of each group. None: all.

        Returns:
            The rows of the entity, group by group: the winner first, then the others by distance from the moment.

        Raises:
            DefinitionError: The limit is not a whole number of at least 1.
            DataError: A join key is missing.
        """
        from seeknal.join import explanation, window_explanation
        from seeknal.registry.source import WindowedSource

        check_entity(keys)
        most = None if limit is None else check_number("limit", limit, 10)
        found = []
        for source in self.sources(asked):
            if missing := [name for name in source.keys.values() if name not in keys]:
                raise DataError(
                    f"The row has no {quoted(missing)}. {join_keys_of(source.record.label, source.keys.values())}."
                )
            own_keys = {own: keys[name] for own, name in source.keys.items()}
            fields = source.version.schema.keys if isinstance(source, WindowedSource) else ()
            entity = self._catalog.entity(source.record, own_keys, fields)
            rest = entity, instant(moment), asked.interval, most
            if isinstance(source, WindowedSource):
                found += window_explanation.explain_windows(self._catalog, self._engine(), source, *rest)
            else:
                found += explanation.explain(self._catalog, self._engine(), source, *rest)
        return found

    def check(self, asked: Inquiry, on_progress: OnProgress = no_progress) -> Findings:
        """Look for leaks that a correct join cannot prevent; see `seeknal.join.leaks`."""
        from seeknal.join import leaks, retrieval

        sources, question = self.sources(asked), asked.question
        spine = retrieval.spine_table(sources, asked.spine, question)
        return leaks.check(self._engine(), sources, spine, question, on_progress)

    def sources(self, asked: Inquiry) -> list[Source]:
        """Return the source of each lookup: its group, version and snapshot.

        Raises:
            DefinitionError: A group, feature, version or snapshot does not exist.
        """
        return [self._catalog.source(lookup, asked.as_of) for lookup in asked.lookups]
