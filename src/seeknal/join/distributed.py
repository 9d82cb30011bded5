"""Training sets as Spark DataFrames: the spine is one, and so is the result, whose rows never pass through the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from seeknal.engine import Engine
from seeknal.errors import DefinitionError
from seeknal.join.filling import filled
from seeknal.join.retrieval import Spine, kinds_of, moments_of, spine_columns
from seeknal.registry.source import Source
from seeknal.values.frames.spark import InSpark, in_spark_types
from seeknal.values.moments import utc
from seeknal.values.times import Interval


def training_set(
    engine: Engine, sources: Sequence[Source], spine: Spine, interval: Interval, fills: Mapping[str, pa.Scalar]
) -> Any:
    """Return the features known at the moment of each row of a Spark DataFrame, as another, which is evaluated when it is used.

    Args:
        engine: The engine, on Spark.
        sources: The lookups.
        spine: The spine.
        interval: Only rows with an event time inside it are visible.
        fills: Values in place of nulls, by the names of the features.

    Returns:
        The columns of the spine and the features, which have the types in which Delta Lake stores them. Rows have no order.

    Raises:
        DataError: The spine lacks a column, or a key's type cannot match.
        DefinitionError: Two columns of the result would have the same name, or the engine is not on Spark.
    """
    from seeknal.engine.spark.engine import SparkEngine
    from seeknal.engine.spark.frames import Joined, schema_of, with_features

    if not isinstance(engine, SparkEngine) or not isinstance(spine.frame, InSpark):
        raise DefinitionError(
            'A Spark DataFrame is joined by the engine on Spark. Set engine = "spark" in seeknal.toml, or pass spine.toArrow().'
        )
    _, kept = spine_columns(sources, replace(spine, case_counts=False))  # Spark takes names that differ in case for one
    frame, date_col = spine.frame, spine.date_col
    empty = frame.schema(kept)
    joined = []
    for source in sources:
        # Executors need the names and types of its keys, not its files and locks.
        bare = replace(source, snapshot=replace(source.snapshot, files=(), table=None, held=None))

        def moments(rows: pa.Table, of: Source = bare) -> pa.Table:
            return next(moments_of([of], rows, utc(date_col, rows[date_col], up=False)))

        moments(empty)  # which raises an error for a key that can never match
        joined.append(Joined(source.request_of_any(interval), moments, tuple(source.features.values())))
    features = pa.schema(kinds_of(sources)).empty_table()
    names = features.column_names

    def finished(rows: pa.Table) -> pa.Table:
        found = in_spark_types(filled(rows.select(names), fills))
        spine_rows = rows.select(kept)
        for name in names:
            spine_rows = spine_rows.append_column(name, found[name])
        return spine_rows

    chosen = frame.select(kept)
    schema = type(chosen.schema)([*chosen.schema.fields, *schema_of(engine, in_spark_types(features).schema).fields])
    return with_features(engine, chosen, joined, finished, schema)
