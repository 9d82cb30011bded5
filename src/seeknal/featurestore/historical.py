"""Features of one or more groups, as they were known: the question, put together step by step, then asked of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.errors import DataError, DefinitionError, notice
from seeknal.feature_group import FeatureLookup, check_lookups
from seeknal.featurestore import current_store
from seeknal.featurestore.online import OnlineFeaturesDuckDB
from seeknal.featurestore.training_set import TrainingSet
from seeknal.times import Interval, Moment, instant, now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from seeknal.catalog import AsOf
    from seeknal.registry import Question
    from seeknal.streaming import Tell


class HistoricalFeaturesDuckDB:
    """Features of one or more groups, as they were known at moments of the past.

    Args:
        lookups: Which features of which groups.

    Raises:
        DefinitionError: They are no list of lookups.
    """

    def __init__(self, lookups: Sequence[FeatureLookup]) -> None:
        check_lookups(lookups)
        self.lookups = lookups
        self._spine: tuple[object, str, Sequence[str] | None] | None = None
        self._latest_at: Moment | None = None
        self._wants_latest = False

    def __repr__(self) -> str:
        wanted = (f"{lookup.name} ({', '.join(lookup.features or ['all'])})" for lookup in self.lookups)
        return f"HistoricalFeaturesDuckDB({', '.join(wanted)})"

    def using_spine(
        self, spine: object, date_col: str, keep_cols: Sequence[str] | None = None
    ) -> HistoricalFeaturesDuckDB:
        """Ask for the features known at each row of a frame.

        Args:
            spine: A frame with the join keys and a moment in each row. A stream, which can be read only once, is read now.
            date_col: The column with the moments.
            keep_cols: Columns to keep beside keys and moment; no others are read. None: all.
        """
        from seeknal.frames import kept

        self._spine, self._wants_latest = (kept(spine), date_col, keep_cols), False
        return self

    def using_latest(self, now: Moment | None = None) -> HistoricalFeaturesDuckDB:
        """Ask for the features of every entity as known now, or at another moment."""
        self._spine, self._wants_latest, self._latest_at = None, True, now
        return self

    def to_dataframe(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
        output: str | None = None,
    ) -> Any:
        """Give the features as a frame.

        With a spine: its rows and columns, in order, and beside them what was known at each moment.
        With `using_latest`: one row per entity. Otherwise the history: one row per entity and event
        time at which any of the groups changed, each as known at that moment.

        Args:
            feature_start_time: First event time to look at, inclusive. None: no bound.
            feature_end_time: Last event time to look at, inclusive; a date covers its whole day. None: no bound.
            as_of: Look only at what was stored by then: a moment, or the number of a snapshot (of several groups:
                a mapping from name to number). The same call gives the same answer for ever, whatever is written later.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind, pandas without one.

        Raises:
            DefinitionError: A group, feature, snapshot or output does not exist, or names clash.
            DataError: The spine lacks a column, or a key's type cannot match.
            StoreError: The snapshot asked for was vacuumed.
        """
        span = Interval.between(feature_start_time, feature_end_time)
        if self._spine:
            spine, date_col, keep = self._spine
            return current_store().training_set(
                self.lookups, spine, date_col, keep=keep, span=span, as_of=as_of, output=output
            )
        if self._wants_latest:
            return current_store().latest(self.lookups, span=span, at=self._latest_at, as_of=as_of, output=output)
        return current_store().history(self.lookups, span=span, as_of=as_of, output=output)

    def to_batches(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
    ) -> pa.RecordBatchReader:
        """Give the training set as a stream of Arrow batches, so that neither spine nor groups need to fit in memory.

        A spine that is the path of a Parquet file is read batch by batch. The arguments are those of `to_dataframe`.

        Raises:
            DefinitionError: There is no spine.
        """
        return self._stream(Interval.between(feature_start_time, feature_end_time), as_of, lambda _: None)

    def to_parquet(
        self,
        path: str | Path,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        *,
        as_of: AsOf | None = None,
    ) -> int:
        """Write the training set to a Parquet file, in bounded memory; the file appears when it is whole.

        The arguments are those of `to_dataframe`; see `to_batches`.

        Returns:
            How many rows were written.

        Raises:
            DefinitionError: There is no spine.
            StoreError: The file cannot be written.
        """
        from seeknal.progress import working
        from seeknal.streaming import write_parquet

        span = Interval.between(feature_start_time, feature_end_time)
        with working("Building the training set") as tell:
            return write_parquet(self._stream(span, as_of, tell), Path(path))

    def _stream(self, span: Interval, as_of: AsOf | None, tell: Tell) -> pa.RecordBatchReader:
        if self._spine is None:
            raise DefinitionError("A stream needs using_spine(spine, date_col=...); otherwise call to_dataframe().")
        spine, date_col, keep = self._spine
        return current_store().stream(self.lookups, spine, date_col, keep=keep, span=span, as_of=as_of, tell=tell)

    def save(self, name: str, *, as_of: AsOf | None = None, rows: bool = False) -> TrainingSet:
        """Build the training set and keep what it takes to build it again, to the byte.

        Args:
            name: A new name; what is saved does not change.
            as_of: Look only at what was stored by then, as in `to_dataframe`.
            rows: Keep the rows too, as a Parquet file.

        Raises:
            DefinitionError: The name is taken.
            DataError: A column of the spine cannot be kept in a Parquet file.
        """
        question, spine = self._question()
        return TrainingSet(
            current_store().save_training_set(name, self.lookups, question, spine, as_of=as_of, keep_rows=rows)
        )

    def explain(self, row: Mapping[str, Any], *, as_of: AsOf | None = None) -> pd.DataFrame:
        """Say for one row of the spine which stored row of each group counts, and why the others do not.

        Args:
            row: The join keys and the moment, named as in the spine: `spine.iloc[0]`, or a mapping.
            as_of: Look only at what was stored by then.

        Returns:
            The stored rows of that entity: group, verdict, event_time, created_time, snapshot, written_at, and features
            as a mapping; of each group the row that counts first.

        Raises:
            DefinitionError: No spine was set, so that nobody knows which column is the moment.
            DataError: The row lacks a join key or the moment.
        """
        from seeknal.explanation import to_pandas

        if self._spine is None:
            raise DefinitionError(
                "explain() needs using_spine(spine, date_col=...), to know which column is the moment."
            )
        date_col = self._spine[1]
        if not hasattr(row, "keys"):
            raise DataError(
                f"Expected a row of the spine, such as spine.iloc[0] or a mapping, not {type(row).__name__}."
            )
        if date_col not in row:
            raise DataError(f"The row has no {date_col!r}, which is the moment to explain.")
        return to_pandas(current_store().explain(self.lookups, row, row[date_col], as_of=as_of))

    def check(self) -> list[str]:
        """Look for leaks that a correct join cannot see, because they are in the data.

        Rows recorded long after their event time; event times that are all midnights while the spine has hours; features
        that equal another column of the spine, such as the label.

        Returns:
            A sentence for each, which is also given as a notice.
        """
        spine, date_col, keep = self._spine or (None, "", None)
        found = current_store().check(self.lookups, spine, date_col, keep=keep)
        for text in found:
            notice(text)
        return found

    def _question(self) -> tuple[Question, object]:
        from seeknal.registry import Question

        if self._spine:
            spine, date_col, keep = self._spine
            return Question("spine", date_col=date_col, keep=None if keep is None else tuple(keep)), spine
        if self._wants_latest:
            return Question("latest", moment=now() if self._latest_at is None else instant(self._latest_at)), None
        return Question("history"), None

    def serve(
        self, name: str | None = None, target: str | Path | None = None, ttl: timedelta | None = None
    ) -> OnlineFeaturesDuckDB:
        """Put the newest row of every entity online, as a table of these features.

        The table keeps these features and their types, and takes in what is written later, as long as each group has them.
        A lookup with `version=` stays as that version stands.

        Args:
            name: The table's name; the group's own if there is but one group.
            target: Another online store than the one set: a folder, or the URL of Redis, without a password.
            ttl: How long values are good for, in place of the groups' own.
        """
        from seeknal.progress import working

        with working("Loading") as tell:
            table = current_store().serve(self.lookups, name, target=target, ttl=ttl, tell=tell)
        return OnlineFeaturesDuckDB(table.record.name, table.record.project)
