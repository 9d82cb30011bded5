"""The static type of the result of each call that takes `output=`. mypy checks this module; nothing in it is ever called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from seeknal import (
        AsyncClient,
        Client,
        FeatureGroupDuckDB,
        FeatureLookup,
        Features,
        HistoricalFeaturesDuckDB,
        Interval,
        OnlineFeaturesDuckDB,
        ServedTable,
        TrainingSet,
    )


def head(group: FeatureGroupDuckDB, kind: str) -> None:
    assert_type(group.head(), pd.DataFrame)
    assert_type(group.head(3), pd.DataFrame)
    assert_type(group.head(output="pandas"), pd.DataFrame)
    assert_type(group.head(output="polars"), pl.DataFrame)
    assert_type(group.head(3, "polars"), pl.DataFrame)
    assert_type(group.head(output="arrow"), pa.Table)
    assert_type(group.head(3, "arrow"), pa.Table)
    assert_type(group.head(output="duckdb"), DuckDBPyRelation)
    assert_type(group.head(3, "duckdb"), DuckDBPyRelation)
    assert_type(group.head(output=kind), Any)
    assert_type(group.head(3, kind), Any)


def historical(features: HistoricalFeaturesDuckDB, kind: str) -> None:
    assert_type(features.to_dataframe(), Any)
    assert_type(features.to_dataframe(output=None), Any)
    assert_type(features.to_dataframe(output="pandas"), pd.DataFrame)
    assert_type(features.to_dataframe(output="polars"), pl.DataFrame)
    assert_type(features.to_dataframe("2024-01-01", "2024-02-01", as_of=3, output="polars"), pl.DataFrame)
    assert_type(features.to_dataframe(output="arrow", on_progress=print), pa.Table)
    assert_type(features.to_dataframe(output="duckdb"), DuckDBPyRelation)
    assert_type(features.to_dataframe(output=kind), Any)


def saved(training_set: TrainingSet, kind: str) -> None:
    assert_type(training_set.reproduce(), pd.DataFrame)
    assert_type(training_set.reproduce("pandas"), pd.DataFrame)
    assert_type(training_set.reproduce("polars", print), pl.DataFrame)
    assert_type(training_set.reproduce("arrow"), pa.Table)
    assert_type(training_set.reproduce(output="duckdb"), DuckDBPyRelation)
    assert_type(training_set.reproduce(kind), Any)
    assert_type(training_set.to_dataframe(on_progress=print), pd.DataFrame)
    assert_type(training_set.to_dataframe("pandas"), pd.DataFrame)
    assert_type(training_set.to_dataframe("polars"), pl.DataFrame)
    assert_type(training_set.to_dataframe("arrow"), pa.Table)
    assert_type(training_set.to_dataframe(output="duckdb"), DuckDBPyRelation)
    assert_type(training_set.to_dataframe(kind), Any)


def online(table: OnlineFeaturesDuckDB, keys: object, kind: str) -> None:
    assert_type(table.get_features(keys), pd.DataFrame)
    assert_type(table.get_features(keys, features=["x"], with_status=True), pd.DataFrame)
    assert_type(table.get_features(keys, "pandas"), pd.DataFrame)
    assert_type(table.get_features(keys, "polars", ["x"], True), pl.DataFrame)
    assert_type(table.get_features(keys, output="arrow"), pa.Table)
    assert_type(table.get_features(keys, output="dicts"), list[dict[str, Any]])
    assert_type(table.get_features(keys, kind), Any)


def served(table: ServedTable, keys: object, kind: str) -> None:
    assert_type(table.get_features(keys, at=0), pd.DataFrame)
    assert_type(table.get_features(keys, "pandas"), pd.DataFrame)
    assert_type(table.get_features(keys, "polars", ["x"], with_status=True), pl.DataFrame)
    assert_type(table.get_features(keys, output="arrow"), pa.Table)
    assert_type(table.get_features(keys, output="dicts"), list[dict[str, Any]])
    assert_type(table.get_features(keys, kind), Any)


def features(calls: Features, lookups: list[FeatureLookup], spine: object, kind: str) -> None:
    assert_type(calls.training_set(lookups, spine, "day"), Any)
    assert_type(calls.training_set(lookups, spine, "day", output="pandas"), pd.DataFrame)
    assert_type(calls.training_set(lookups, spine, "day", keep=["x"], as_of=3, output="polars"), pl.DataFrame)
    assert_type(calls.training_set(lookups, spine, "day", output="arrow"), pa.Table)
    assert_type(calls.training_set(lookups, spine, "day", output="duckdb"), DuckDBPyRelation)
    assert_type(calls.training_set(lookups, spine, "day", output=kind), Any)
    assert_type(calls.history(lookups), Any)
    assert_type(calls.history(lookups, output="pandas"), pd.DataFrame)
    assert_type(calls.history(lookups, interval=Interval(), as_of=3, output="polars"), pl.DataFrame)
    assert_type(calls.history(lookups, output="arrow"), pa.Table)
    assert_type(calls.history(lookups, output="duckdb"), DuckDBPyRelation)
    assert_type(calls.history(lookups, output=kind), Any)
    assert_type(calls.latest(lookups), Any)
    assert_type(calls.latest(lookups, output="pandas"), pd.DataFrame)
    assert_type(calls.latest(lookups, at="2024-01-01", as_of=3, output="polars"), pl.DataFrame)
    assert_type(calls.latest(lookups, output="arrow"), pa.Table)
    assert_type(calls.latest(lookups, output="duckdb"), DuckDBPyRelation)
    assert_type(calls.latest(lookups, output=kind), Any)


def client(calls: Client, lookups: list[FeatureLookup], frame: object, kind: str) -> None:
    assert_type(calls.get_features("spend", frame, project="shop"), pd.DataFrame)
    assert_type(calls.get_features("spend", frame, "pandas"), pd.DataFrame)
    assert_type(calls.get_features("spend", frame, "polars", ["x"], with_status=True), pl.DataFrame)
    assert_type(calls.get_features("spend", frame, output="arrow"), pa.Table)
    assert_type(calls.get_features("spend", frame, output="dicts"), list[dict[str, Any]])
    assert_type(calls.get_features("spend", frame, kind), Any)
    assert_type(calls.training_set(lookups, frame, "day"), Any)
    assert_type(calls.training_set(lookups, frame, "day", output="pandas"), pd.DataFrame)
    assert_type(calls.training_set(lookups, frame, "day", keep=["x"], as_of=3, output="polars"), pl.DataFrame)
    assert_type(calls.training_set(lookups, frame, "day", output="arrow"), pa.Table)
    assert_type(calls.training_set(lookups, frame, "day", output="duckdb"), DuckDBPyRelation)
    assert_type(calls.training_set(lookups, frame, "day", output=kind), Any)


async def async_client(calls: AsyncClient, lookups: list[FeatureLookup], frame: object, kind: str) -> None:
    assert_type(await calls.get_features("spend", frame, project="shop"), pd.DataFrame)
    assert_type(await calls.get_features("spend", frame, "pandas"), pd.DataFrame)
    assert_type(await calls.get_features("spend", frame, "polars", ["x"], with_status=True), pl.DataFrame)
    assert_type(await calls.get_features("spend", frame, output="arrow"), pa.Table)
    assert_type(await calls.get_features("spend", frame, output="dicts"), list[dict[str, Any]])
    assert_type(await calls.get_features("spend", frame, kind), Any)
    assert_type(await calls.training_set(lookups, frame, "day"), Any)
    assert_type(await calls.training_set(lookups, frame, "day", output="pandas"), pd.DataFrame)
    assert_type(await calls.training_set(lookups, frame, "day", keep=["x"], as_of=3, output="polars"), pl.DataFrame)
    assert_type(await calls.training_set(lookups, frame, "day", output="arrow"), pa.Table)
    assert_type(await calls.training_set(lookups, frame, "day", output="duckdb"), DuckDBPyRelation)
    assert_type(await calls.training_set(lookups, frame, "day", output=kind), Any)
